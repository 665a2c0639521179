//! `POST /api/v1/events`: answered once what was sent is durable.
//!
//! What is no event goes into the spool too, as it came: the decoder makes a reject of it, so that it can be asked for
//! like any other. `accepted` counts JSON objects within the limits; one that the decoder refuses later (a time that is
//! none, nesting beyond the source's limit) is found among the rejects as well.

use std::sync::{Arc, LazyLock};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use cf_fail as fail;
use cf_ingest::{BodyKind, BodyLimits, body::BodyReject, receive::Accept};
use cf_types::{Framing, Reject, RejectCode};
use serde::Serialize;

use crate::{ApiOptions, ApiState, body, error::ApiError};

/// How many rejected parts are named in an answer; all are counted.
const REJECTED_SHOWN: usize = 1_000;
/// Bodies above this size are cut away from the threads that serve others.
const INLINE_BYTES: usize = 256 << 10;

static SOURCE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("http"));

/// The answer.
#[derive(Debug, Serialize)]
struct Receipt {
    /// Events that are durable.
    accepted: usize,
    /// Parts that are no events.
    rejected_total: usize,
    /// The first of them.
    rejected: Vec<Refusal>,
}

#[derive(Debug, Serialize)]
struct Refusal {
    index: usize,
    code: RejectCode,
    reason: String,
}

pub(crate) async fn receive(
    State(state): State<ApiState>,
    headers: HeaderMap,
    request_body: Body,
) -> Result<Response, ApiError> {
    let (kind, encoding) = body::kind(&headers)?;
    let (bytes, _memory) = body::read(&state, &headers, request_body).await?;
    let options = state.options.clone();
    let cut = move || body::expand(bytes, encoding, options.body_bytes_max).map(|bytes| parts(kind, &bytes, &options));
    let parts = if headers_promise_little(&headers) {
        cut()?
    } else {
        let cut = tokio::task::spawn_blocking(cut).await;
        cut.map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "fault", "a fault of ours"))??
    };
    let (records, receipt) = parts;
    state.accept.accept(&SOURCE, &records).await?;
    fail::point("api.durable");
    if receipt.accepted > 0 {
        return Ok((StatusCode::ACCEPTED, Json(receipt)).into_response());
    }
    let message = receipt.rejected.first().map_or("", |first| first.reason.as_str());
    let error = ApiError::bad(format!("nothing in the body is an event: {message}"));
    let mut answer = error.to_json();
    if let (Some(answer), Ok(receipt)) = (answer.as_object_mut(), serde_json::to_value(&receipt)) {
        answer.extend(receipt.as_object().cloned().unwrap_or_default());
    }
    Ok((error.status(), Json(answer)).into_response())
}

/// Small and not compressed: cutting it takes less than handing it to another thread.
fn headers_promise_little(headers: &HeaderMap) -> bool {
    use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    length.is_some_and(|length| length <= INLINE_BYTES) && !headers.contains_key(CONTENT_ENCODING)
}

fn parts(kind: BodyKind, bytes: &Bytes, options: &ApiOptions) -> (Vec<(Framing, Bytes)>, Receipt) {
    let wide = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let limits =
        BodyLimits { record_bytes_max: wide(options.record_bytes_max), records_max: wide(options.records_max) };
    let parts = body::split(kind, bytes, &limits);
    let mut receipt = Receipt { accepted: 0, rejected_total: 0, rejected: Vec::new() };
    let mut records = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Ok(event) => {
                receipt.accepted += 1;
                records.push((Framing::Http, event));
            }
            Err(reject) => {
                receipt.rejected_total += 1;
                records.push((Framing::Unframed, kept(&reject, &limits)));
                if receipt.rejected.len() < REJECTED_SHOWN {
                    let BodyReject { index, code, reason, .. } = reject;
                    receipt.rejected.push(Refusal { index, code, reason });
                }
            }
        }
    }
    (records, receipt)
}

/// What is spooled of a part that is no event: as much as a reject keeps, but of one that is too long so much that the
/// decoder sees that it is.
fn kept(reject: &BodyReject, limits: &BodyLimits) -> Bytes {
    match reject.code {
        RejectCode::TooLong => reject.raw.slice(..reject.raw.len().min(limits.record_bytes_max.saturating_add(1))),
        _ => Reject::kept(&reject.raw),
    }
}
