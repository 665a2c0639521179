//! What else is asked of the engine: why there is an alert, and to read its settings anew.
//!
//! `GET /api/v1/alerts/{id}/explain` (`?all=true`: all events), `POST /api/v1/reload`. What an answer is made of is not
//! known here: the engine implements [`Engine`].

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{ApiState, error::ApiError};

/// What the routes ask of the engine.
pub trait Engine: Send + Sync {
    /// Explains an alert; `None` if there is none of this id, an error when a look-up failed.
    fn explain(&self, alert: String, all: bool) -> oneshot::Receiver<Result<Option<Value>, String>>;

    /// Reads settings, rules and sources anew; what changed, or why nothing did.
    fn reload(self: std::sync::Arc<Self>) -> oneshot::Receiver<Result<Value, String>>;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainQuery {
    /// All events, not only the first and the last.
    #[serde(default)]
    all: bool,
}

pub(crate) async fn explain(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    if id.parse::<cf_types::AlertId>().is_err() {
        return Err(ApiError::bad("an alert's id has 32 hexadecimal digits"));
    }
    let explained = engine(&state)?.explain(id, query.all).await.map_err(|_| stopping())?;
    match explained {
        Ok(Some(explained)) => Ok(Json(explained)),
        Ok(None) => Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such alert")),
        Err(why) => {
            tracing::error!(why, "an alert could not be explained");
            let message = "history or ledger could not be read; the log says why";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "history", message).retry_after(5))
        }
    }
}

pub(crate) async fn reload(State(state): State<ApiState>) -> Result<Json<Value>, ApiError> {
    match std::sync::Arc::clone(engine(&state)?).reload().await.map_err(|_| stopping())? {
        Ok(report) => Ok(Json(json!(report))),
        Err(why) => Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_settings", why)),
    }
}

fn engine(state: &ApiState) -> Result<&std::sync::Arc<dyn Engine>, ApiError> {
    state.engine.as_ref().ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such route"))
}

fn stopping() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the engine is stopping").retry_after(5)
}
