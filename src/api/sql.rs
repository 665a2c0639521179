//! `POST /api/v1/sql`: one reading statement over history and live tables; Arrow, JSON lines or CSV out.
//!
//! `{"sql": "..", "as_of": 120 or a time, "format": "arrow" | "json" | "csv"}`; without a format the `Accept` header counts. What goes wrong
//! before the first rows is an error like all others; later the answer is cut off without its end, which every client of
//! HTTP notices. How a question is answered is not known here: [`Sql`] is.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    Json,
    body::{Body, HttpBody},
    extract::{State, rejection::JsonRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper::body::Frame;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::{ApiState, error::ApiError};

/// Bytes of a request: a statement of the longest kind, escaped.
pub(crate) const BODY_BYTES_MAX: usize = 4 << 20;

/// What answers questions.
pub trait Sql: Send + Sync {
    /// Answers one.
    fn ask(&self, question: Question) -> oneshot::Receiver<Result<Answer, Refusal>>;
}

/// A question.
#[derive(Clone, Debug)]
pub struct Question {
    /// The statement.
    pub sql: String,
    /// As of which epoch or time; now without.
    pub as_of: Option<String>,
    /// The form that was asked for by name.
    pub format: Option<String>,
    /// The `Accept` header.
    pub accept: Option<String>,
}

/// An answer that has begun.
#[derive(Debug)]
pub struct Answer {
    /// What it is.
    pub media_type: &'static str,
    /// It; an error cuts it off. Dropping it stops the query.
    pub chunks: mpsc::Receiver<Result<Bytes, String>>,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The HTTP status that says whose fault it is.
    pub status: u16,
    /// One word.
    pub code: &'static str,
    /// In words.
    pub message: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    sql: String,
    as_of: Option<Value>,
    format: Option<String>,
}

pub(crate) async fn ask(
    State(state): State<ApiState>,
    headers: HeaderMap,
    asked: Result<Json<Asked>, JsonRejection>,
) -> Result<Response, ApiError> {
    let not_found = || ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such route");
    let answers = state.sql.as_ref().ok_or_else(not_found)?;
    let Json(asked) = asked.map_err(|error| {
        let code = match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_type",
            _ => "bad_request",
        };
        let status =
            if error.status() == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { error.status() };
        ApiError::new(status, code, error.body_text())
    })?;
    let as_of = match asked.as_of {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(_) => return Err(ApiError::bad("as_of is an epoch's number or a time")),
    };
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).map(str::to_owned);
    let question = Question { sql: asked.sql, as_of, format: asked.format, accept };
    let stopping =
        |_| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the engine is stopping").retry_after(5);
    let answer = answers.ask(question).await.map_err(stopping)?.map_err(refused)?;
    let mut response = Body::new(Chunks(answer.chunks)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.media_type));
    Ok(response)
}

pub(crate) fn refused(refusal: Refusal) -> ApiError {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let error = ApiError::new(status, refusal.code, refusal.message);
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        return error.retry_after(5);
    }
    error
}

/// A body that comes in parts.
struct Chunks(mpsc::Receiver<Result<Bytes, String>>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let next = std::task::ready!(self.0.poll_recv(context));
        Poll::Ready(next.map(|chunk| chunk.map(Frame::data).map_err(std::io::Error::other)))
    }
}
