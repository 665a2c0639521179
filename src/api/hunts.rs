//! `GET /api/v1/hunts`: the hunts in force with their last runs; `GET /hunts/{name}`: one, with its query and what it found
//! last; `POST /hunts/{name}/run`: run now, answered when it has run. A name is an id, a `name` or a title. How a hunt is
//! run is not known here: the engine implements [`Hunts`].

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::{
    ApiState,
    error::ApiError,
    sql::{self, Refusal},
};

/// What the routes ask of the engine.
pub trait Hunts: Send + Sync {
    /// All hunts in force.
    fn list(&self) -> oneshot::Receiver<Result<Value, Refusal>>;

    /// One of them.
    fn show(&self, name: String) -> oneshot::Receiver<Result<Value, Refusal>>;

    /// Runs one; what came of it, also when it came to nothing.
    fn run(&self, name: String) -> oneshot::Receiver<Result<Value, Refusal>>;
}

pub(crate) async fn list(State(state): State<ApiState>) -> Result<Json<Value>, ApiError> {
    answer(hunts(&state)?.list()).await
}

pub(crate) async fn show(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    answer(hunts(&state)?.show(name)).await
}

pub(crate) async fn run(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    answer(hunts(&state)?.run(name)).await
}

async fn answer(asked: oneshot::Receiver<Result<Value, Refusal>>) -> Result<Json<Value>, ApiError> {
    let stopping =
        |_| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the engine is stopping").retry_after(5);
    asked.await.map_err(stopping)?.map(Json).map_err(sql::refused)
}

fn hunts(state: &ApiState) -> Result<&Arc<dyn Hunts>, ApiError> {
    state.hunts.as_ref().ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such route"))
}
