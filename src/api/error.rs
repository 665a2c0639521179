//! What the API answers when it does not do what was asked.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use cf_ingest::receive::Refused;
use cf_ledger::LedgerError;
use cf_spool::AppendError;
use serde_json::json;

/// An answer that is no success: `{"error": {"code", "message"}}`.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after_s: Option<u32>,
    /// One more member of the error, for machines.
    more: Option<Box<(&'static str, serde_json::Value)>>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, code, message: message.into(), retry_after_s: None, more: None }
    }

    /// Says more, in a member of its own.
    pub(crate) fn with(mut self, name: &'static str, value: serde_json::Value) -> ApiError {
        self.more = Some(Box::new((name, value)));
        self
    }

    /// The request is not one.
    pub(crate) fn bad(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// Senders should wait so many seconds and repeat.
    pub(crate) fn retry_after(mut self, seconds: u32) -> ApiError {
        self.retry_after_s = Some(seconds);
        self
    }

    pub(crate) fn busy(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "busy", message).retry_after(1)
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut error = serde_json::Map::new();
        error.insert("code".to_owned(), json!(self.code));
        error.insert("message".to_owned(), json!(self.message));
        error.extend(self.more.iter().map(|more| (more.0.to_owned(), more.1.clone())));
        json!({ "error": error })
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.to_json())).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> ApiError {
        let (Refused::Full(error) | Refused::Failed(error)) = refused;
        match error {
            AppendError::Full { .. } => {
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "spool_full", error.to_string()).retry_after(5)
            }
            AppendError::Busy => ApiError::busy(error.to_string()),
            AppendError::TooLong { .. } => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error.to_string()),
            AppendError::NoRoom => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "disk_full", error.to_string()).retry_after(10)
            }
            AppendError::Write(_) => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "spool_unwritable", error.to_string()).retry_after(10)
            }
            AppendError::Poisoned(_) | AppendError::Closed => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "spool_ended", error.to_string()).retry_after(10)
            }
        }
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> ApiError {
        // What exactly is for the log, not for strangers.
        tracing::error!(%error, "the ledger could not be used for a request");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ledger", "the ledger could not be used; the log says why")
            .retry_after(5)
    }
}

pub(crate) async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such route")
}

pub(crate) async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this route does not take this method")
}
