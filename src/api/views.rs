//! Incidents and alerts, as the ledger has them.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use cf_ledger::read::AlertFilter;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ApiState, error::ApiError};

/// At most so many rows in one answer.
const LIMIT_MAX: u32 = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IncidentQuery {
    /// Also those that were merged into others.
    #[serde(default)]
    merged: bool,
    /// In this state only.
    state: Option<String>,
    limit: Option<u32>,
}

pub(crate) async fn incidents(
    State(state): State<ApiState>,
    query: Result<Query<IncidentQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    let limit = limit(query.limit)?;
    // A state is looked for among all, so that a rare one is found behind many others.
    let asked = if query.state.is_some() { LIMIT_MAX } else { limit };
    let mut incidents = state.reader.incidents(query.merged, asked).await?;
    if let Some(wanted) = &query.state {
        incidents.retain(|incident| incident.state == *wanted);
    }
    incidents.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(Json(json!({"incidents": incidents})))
}

pub(crate) async fn incident(
    State(state): State<ApiState>,
    Path(number): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let not_found = || ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such incident");
    let number = number.parse::<i64>().map_err(|_| ApiError::bad("an incident has a number"))?;
    let story = state.reader.incident(number).await?.ok_or_else(not_found)?;
    Ok(Json(json!(story)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlertQuery {
    state: Option<String>,
    rule: Option<String>,
    incident: Option<i64>,
    id: Option<String>,
    limit: Option<u32>,
    /// Open ones by what is bad and likely first.
    #[serde(default)]
    queue: bool,
}

pub(crate) async fn alerts(
    State(state): State<ApiState>,
    query: Result<Query<AlertQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    let limit = limit(query.limit)?;
    let AlertQuery { state: alert_state, rule, incident, id, queue, .. } = query;
    let filter = AlertFilter { state: alert_state, rule, incident, id, limit };
    let alerts = if queue { state.reader.queue(&filter).await? } else { state.reader.alerts(&filter).await? };
    Ok(Json(json!({"alerts": alerts})))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    limit: Option<u32>,
}

/// Alerts that a fact keeps from being told.
pub(crate) async fn suppressed(
    State(state): State<ApiState>,
    query: Result<Query<Limit>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    Ok(Json(json!({"suppressed": state.reader.suppressed(limit(query.limit)?).await?})))
}

pub(crate) fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    match asked.unwrap_or(100) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        _ => Err(ApiError::bad(format!("limit must be 1 to {LIMIT_MAX}"))),
    }
}
