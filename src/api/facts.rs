//! `/api/v1/facts`: the control log's facts. A change enters the graph with the next cut.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use cf_ingest::BodyKind;
use cf_ledger::{ControlEntry, ControlLog, LedgerError};
use cf_types::{
    Fact, FactBody, Said, clock,
    fact::{FACT_BYTES_MAX, FactError},
};
use serde_json::{Value, json};

use crate::{ApiState, body, error::ApiError};

pub(crate) async fn list(State(state): State<ApiState>) -> Result<Json<Value>, ApiError> {
    shown(&state, |_| true).await
}

pub(crate) async fn list_kind(
    State(state): State<ApiState>,
    Path(kind): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if kind != "policy" && !FactBody::KINDS.contains(&kind.as_str()) {
        let message = format!("unknown kind of fact; known: {}, policy", FactBody::KINDS.join(", "));
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", message));
    }
    shown(&state, |fact| fact.body.kind() == kind).await
}

async fn shown(state: &ApiState, wanted: impl Fn(&Fact) -> bool) -> Result<Json<Value>, ApiError> {
    let facts = state.reader.facts().await?;
    let show = |(fact, entry): (Fact, ControlEntry)| {
        json!({
            "seq": entry.seq, "kind": fact.body.kind(), "fact": fact.body, "author": entry.author,
            "reason": entry.reason, "at": entry.at, "tenant": fact.tenant,
        })
    };
    let facts: Vec<_> = facts.into_iter().filter(|(fact, _)| wanted(fact)).map(show).collect();
    Ok(Json(json!({"facts": facts})))
}

/// 201 when the fact is new, 200 when it holds already.
pub(crate) async fn add(
    State(state): State<ApiState>,
    Path(kind): Path<String>,
    headers: HeaderMap,
    request_body: Body,
) -> Result<Response, ApiError> {
    let (fact, said) = said(&state, &kind, &headers, request_body, Said::read).await?;
    let mut log = ControlLog::open(&state.dir).await?;
    let seq = match log.fact_add(&fact, author(&said), &said.reason, clock::now()).await {
        Err(error @ LedgerError::Fact { .. }) => return Err(invalid(error.to_string())),
        other => other?,
    };
    let status = if seq.is_some() { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(json!({"seq": seq, "changed": seq.is_some(), "fact": fact.body}))).into_response())
}

/// 200 when the fact held, 404 when it did not.
pub(crate) async fn remove(
    State(state): State<ApiState>,
    Path(kind): Path<String>,
    headers: HeaderMap,
    request_body: Body,
) -> Result<Response, ApiError> {
    let (fact, said) = said(&state, &kind, &headers, request_body, Said::read_removal).await?;
    let mut log = ControlLog::open(&state.dir).await?;
    match log.fact_remove(&fact, author(&said), &said.reason, clock::now()).await? {
        Some(seq) => Ok(Json(json!({"seq": seq, "changed": true, "fact": fact.body})).into_response()),
        None => Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such fact holds")),
    }
}

async fn said(
    state: &ApiState,
    kind: &str,
    headers: &HeaderMap,
    request_body: Body,
    read: fn(&str, &[u8]) -> Result<Said, FactError>,
) -> Result<(Fact, Said), ApiError> {
    let (BodyKind::Json, body::Encoding::Identity) = body::kind(headers)? else {
        let message = "a fact is application/json, not compressed";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", message));
    };
    let (bytes, _memory) = body::read(state, headers, request_body).await?;
    if bytes.len() > FACT_BYTES_MAX {
        let message = format!("a fact may have {FACT_BYTES_MAX} bytes");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
    }
    let said = read(kind, &bytes).map_err(|error| match error {
        FactError::Syntax(text) => ApiError::bad(text),
        FactError::Kind(text) => ApiError::new(StatusCode::NOT_FOUND, "not_found", text),
        FactError::Invalid(text) => invalid(text),
    })?;
    Ok((Fact { tenant: state.tenant.clone(), body: said.body.clone() }, said))
}

/// Who said it, where the request says so. There is no login yet: it is a word, not a proof.
fn author(said: &Said) -> &str {
    said.author.as_deref().unwrap_or("api")
}

fn invalid(message: String) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
}
