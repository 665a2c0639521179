//! `GET /api/v1/sources`: how each source stands; `POST /api/v1/sources/{name}/resume` with `{"from": "earliest"}`: a
//! stopped one goes on. What a source is is not known here: the engine implements [`Sources`].

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{ApiState, body, error::ApiError};

/// What the routes ask of the engine.
pub trait Sources: Send + Sync {
    /// All sources, one row each (a Kafka partition is one).
    fn list(&self) -> Vec<Value>;

    /// Lets a stopped source go on from `earliest`, `latest`, `offset=N` or `time=T`; what was recorded, or why not.
    fn resume(&self, source: String, from: String) -> oneshot::Receiver<Result<Value, String>>;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResumeBody {
    from: String,
}

pub(crate) async fn list(State(state): State<ApiState>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({"sources": sources(&state)?.list()})))
}

pub(crate) async fn resume(
    State(state): State<ApiState>,
    Path(name): Path<String>,
    headers: HeaderMap,
    request_body: Body,
) -> Result<Json<Value>, ApiError> {
    let (bytes, _memory) = body::read(&state, &headers, request_body).await?;
    let asked: ResumeBody = serde_json::from_slice(&bytes).map_err(|error| ApiError::bad(error.to_string()))?;
    let stopping = |_| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the engine is stopping");
    match sources(&state)?.resume(name, asked.from).await.map_err(stopping)? {
        Ok(recorded) => Ok(Json(recorded)),
        Err(why) => Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", why)),
    }
}

fn sources(state: &ApiState) -> Result<&std::sync::Arc<dyn Sources>, ApiError> {
    state.sources.as_ref().ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such route"))
}
