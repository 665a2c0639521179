//! `/api/v1/facts`: the control log's facts. A change enters the graph with the next cut.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use cf_ingest::BodyKind;
use cf_ledger::{ControlEntry, ControlLog};
use cf_types::{Fact, FactBody, clock};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ApiState, body, error::ApiError};

/// The longest body, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// The longest reason, in characters.
const REASON_CHARACTERS_MAX: usize = 1_024;

/// What is said.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    /// For `allow`: an address or a network.
    value: String,
    #[serde(default)]
    reason: String,
}

pub(crate) async fn list(State(state): State<ApiState>) -> Result<Json<Value>, ApiError> {
    shown(&state, |_| true).await
}

pub(crate) async fn list_kind(
    State(state): State<ApiState>,
    Path(kind): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if !["allow", "policy"].contains(&kind.as_str()) {
        return Err(unknown_kind());
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
    let (fact, reason) = said(&state, &kind, &headers, request_body).await?;
    let mut log = ControlLog::open(&state.dir).await?;
    let seq = log.fact_add(&fact, "api", &reason, clock::now()).await?;
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
    let (fact, reason) = said(&state, &kind, &headers, request_body).await?;
    let mut log = ControlLog::open(&state.dir).await?;
    match log.fact_remove(&fact, "api", &reason, clock::now()).await? {
        Some(seq) => Ok(Json(json!({"seq": seq, "changed": true, "fact": fact.body})).into_response()),
        None => Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such fact holds")),
    }
}

async fn said(
    state: &ApiState,
    kind: &str,
    headers: &HeaderMap,
    request_body: Body,
) -> Result<(Fact, String), ApiError> {
    let (BodyKind::Json, body::Encoding::Identity) = body::kind(headers)? else {
        let message = "a fact is application/json, not compressed";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", message));
    };
    let (bytes, _memory) = body::read(state, headers, request_body).await?;
    if bytes.len() > BODY_BYTES_MAX {
        let message = format!("a fact may have {BODY_BYTES_MAX} bytes");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
    }
    let invalid = |message: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message);
    let fact_body = |said: &Said| match kind {
        "allow" => network(&said.value).map(|network| FactBody::Allow { network }).map_err(invalid),
        "policy" => Err(invalid("policies come from the settings: change them there".to_owned())),
        _ => Err(unknown_kind()),
    };
    let said: Said = serde_json::from_slice(&bytes).map_err(|error| match error.is_data() {
        true => invalid(error.to_string()),
        false => ApiError::bad(error.to_string()),
    })?;
    let fact = Fact { tenant: state.tenant.clone(), body: fact_body(&said)? };
    let reason = said.reason.chars().take(REASON_CHARACTERS_MAX).filter(|c| !c.is_control()).collect();
    Ok((fact, reason))
}

/// As `counterflow facts` reads it: two writings of one network are one fact.
fn network(value: &str) -> Result<ipnet::IpNet, String> {
    let value = value.trim();
    let network = match value.parse::<std::net::IpAddr>() {
        Ok(address) => ipnet::IpNet::from(address.to_canonical()),
        Err(_) => value.parse().map_err(|_| format!("{value:?} is neither an address nor a network"))?,
    };
    Ok(network.trunc())
}

fn unknown_kind() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "unknown kind of fact; known: allow, policy")
}
