//! How bad alerts are and how much risk entities carry: assessments, risk, blast radius.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use cf_types::Entity;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ApiState, error::ApiError, views};

/// How an alert is assessed now, what its entities carry and lead to, and how it was assessed before (RSK-06).
pub(crate) async fn assessment(
    State(state): State<ApiState>,
    Path(alert): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let id = alert.parse().map_err(|error| ApiError::bad(format!("{alert:?}: {error}")))?;
    let not_found = || ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such alert was assessed");
    Ok(Json(json!(state.reader.assessment_story(id).await?.ok_or_else(not_found)?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RiskQuery {
    /// One entity, as `host:web01`; else all.
    entity: Option<String>,
    limit: Option<u32>,
}

/// Entities by risk, the riskiest first; or one with what it is made of.
pub(crate) async fn risk(
    State(state): State<ApiState>,
    query: Result<Query<RiskQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    let limit = usize::try_from(views::limit(query.limit)?).unwrap_or(usize::MAX);
    let Some(text) = query.entity else {
        let at = state.reader.event_time().await?;
        let mut entities = state.reader.risks().await?;
        let total = entities.len();
        entities.truncate(limit);
        return Ok(Json(json!({"at": at, "entities": entities, "entities_total": total})));
    };
    let entity: Entity = text.parse().map_err(|error: String| ApiError::bad(error))?;
    let not_found = || ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("nothing is known of {entity}"));
    Ok(Json(json!(state.reader.risk_story(&state.tenant, &entity).await?.ok_or_else(not_found)?)))
}
