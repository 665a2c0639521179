//! `GET /api/v1/sinks`: how each sink stands; `GET /api/v1/sinks/rejects`: what one could not take whole. What a sink is is not
//! known here: the engine implements [`Sinks`].

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

use crate::{ApiState, error::ApiError};

/// What the route asks of the engine.
pub trait Sinks: Send + Sync {
    /// All sinks, one row each.
    fn list(&self) -> Vec<Value>;
}

pub(crate) async fn list(State(state): State<ApiState>) -> Result<Json<Value>, ApiError> {
    let sinks = state.sinks.as_ref();
    let sinks = sinks.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such route"))?;
    Ok(Json(json!({"sinks": sinks.list()})))
}

pub(crate) async fn rejects(State(state): State<ApiState>) -> Result<Json<Value>, ApiError> {
    let rejects = state.reader.sink_rejects(None).await?;
    Ok(Json(json!({"rejects": rejects})))
}
