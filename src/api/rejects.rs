//! `/api/v1/rejects`: what was refused, and to let it go through again (ING-05). History has rejects some seconds after they
//! were made; how it is asked is not known here: the engine implements [`Rejects`].
//!
//! `GET /api/v1/rejects?source=&code=&reason=&from=&to=&limit=` lists the newest, with counts by source and code;
//! `GET /api/v1/rejects/{id}` shows one with its whole record; `POST /api/v1/rejects/retry` takes
//! `{"ids": [..]}`, or a filter such as `{"source": "http", "code": "invalid_json"}`, or `{"all": true}`.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
};
use cf_ingest::BodyKind;
use cf_types::{Time, fact};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{ApiState, body, error::ApiError};

/// Bytes of a request to retry.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Ids in one request.
const IDS_MAX: usize = 10_000;
/// Rows of a list.
const LIST_MAX: u32 = 10_000;

/// Which rejects.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RejectFilter {
    /// Of this source.
    pub source: Option<String>,
    /// With this code.
    pub code: Option<String>,
    /// With this text in their reason.
    pub reason: Option<String>,
    /// Received at or after.
    pub from: Option<Time>,
    /// Received before.
    pub to: Option<Time>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// Why rejects could not be told or retried.
#[derive(Debug)]
pub enum RejectsError {
    /// The request cannot be done as it stands.
    Invalid(String),
    /// History or ledger could not be used.
    Failed(String),
}

/// What an answer is.
pub type RejectsAnswer<T> = oneshot::Receiver<Result<T, RejectsError>>;

/// What the routes ask of the engine.
pub trait Rejects: Send + Sync {
    /// The newest of a filter, and the counts.
    fn list(&self, filter: RejectFilter) -> RejectsAnswer<Value>;

    /// One with its whole record.
    fn show(&self, id: String) -> RejectsAnswer<Option<Value>>;

    /// Lets those named, or those of the filter, go through again.
    fn retry(&self, request: RetryRequest) -> RejectsAnswer<Value>;
}

/// What shall go through again.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryRequest {
    /// These.
    pub ids: Vec<String>,
    /// Those of this source.
    pub source: Option<String>,
    /// Those with this code.
    pub code: Option<String>,
    /// Those with this text in their reason.
    pub text: Option<String>,
    /// Received at or after.
    pub from: Option<Time>,
    /// Received before.
    pub to: Option<Time>,
    /// At most so many.
    pub limit: Option<u32>,
    /// All there are.
    pub all: bool,
    /// Who says so, for the audit.
    pub author: Option<String>,
    /// Why, for the audit.
    pub reason: String,
}

impl RetryRequest {
    /// Its filter.
    #[must_use]
    pub fn filter(&self) -> RejectFilter {
        let RetryRequest { source, code, text, from, to, limit, .. } = self.clone();
        RejectFilter { source, code, reason: text, from, to, limit }
    }
}

pub(crate) async fn list(
    State(state): State<ApiState>,
    query: Result<Query<RejectFilter>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(filter) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    if filter.limit.is_some_and(|limit| limit == 0 || limit > LIST_MAX) {
        return Err(ApiError::bad(format!("limit must be 1 to {LIST_MAX}")));
    }
    answered(asked(&state)?.list(filter)).await.map(Json)
}

pub(crate) async fn show(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let found = answered(asked(&state)?.show(id)).await?;
    found.map(Json).ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such reject in history"))
}

pub(crate) async fn retry(
    State(state): State<ApiState>,
    headers: HeaderMap,
    request_body: Body,
) -> Result<Json<Value>, ApiError> {
    let (BodyKind::Json, body::Encoding::Identity) = body::kind(&headers)? else {
        let message = "the request is application/json, not compressed";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", message));
    };
    let (bytes, _memory) = body::read_at_most(&state, &headers, request_body, REQUEST_BYTES_MAX).await?;
    let mut request: RetryRequest =
        serde_json::from_slice(&bytes).map_err(|error| ApiError::bad(format!("the request does not read: {error}")))?;
    if request.ids.len() > IDS_MAX {
        return Err(ApiError::bad(format!("at most {IDS_MAX} ids in one request")));
    }
    request.author = request.author.as_deref().map(fact::author);
    request.reason = fact::text(&request.reason);
    answered(asked(&state)?.retry(request)).await.map(Json)
}

fn asked(state: &ApiState) -> Result<&Arc<dyn Rejects>, ApiError> {
    state.rejects.as_ref().ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such route"))
}

async fn answered<T>(answer: RejectsAnswer<T>) -> Result<T, ApiError> {
    let unavailable =
        |code, message: &str| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message).retry_after(5);
    match answer.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(RejectsError::Invalid(why))) => {
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", why)
                .with("hint", json!("GET /api/v1/rejects")))
        }
        Ok(Err(RejectsError::Failed(why))) => {
            tracing::error!(why, "rejects could not be asked for");
            Err(unavailable("history", "history or ledger could not be used; the log says why"))
        }
        Err(_) => Err(unavailable("stopping", "the engine is stopping")),
    }
}
