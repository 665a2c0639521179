//! `/api/v1/rules`: the rules in force; made, changed, disabled and removed while the engine runs.
//!
//! What a rule means is not known here: the engine implements [`Rules`], checks texts, keeps them, and says from which
//! epoch on they hold.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use cf_types::{Epoch, Level, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{ApiState, body, error::ApiError};

/// The longest body, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// The longest reason, in characters.
const REASON_CHARACTERS_MAX: usize = 1_024;
/// At most so many rows in one answer.
const LIMIT_MAX: usize = 10_000;
/// Problems shown with one answer at most.
const PROBLEMS_MAX: usize = 1_000;

/// What the routes ask of the engine.
pub trait Rules: Send + Sync {
    /// All rules, in their order.
    fn list(&self) -> Vec<RuleView>;

    /// One rule and the text of its file.
    fn get(&self, id: &str) -> Option<(RuleView, Arc<str>)>;

    /// The rule set in force and what is wrong with texts of the moment.
    fn standing(&self) -> RulesStanding;

    /// Asks for a change; `None` when too many wait. The answer comes once it holds and is durable.
    fn change(&self, change: RuleChange) -> Option<oneshot::Receiver<Result<RuleChanged, RuleRefused>>>;
}

/// Where a rule is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleSource {
    /// A file or folder named in the settings.
    File,
    /// This interface.
    Api,
}

/// A rule as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct RuleView {
    /// Its id.
    pub id: Arc<str>,
    /// Its title.
    pub title: Arc<str>,
    /// Its description.
    pub description: Arc<str>,
    /// Its level.
    pub level: Level,
    /// Its status, as published.
    pub status: Option<Arc<str>>,
    /// ATT&CK and other tags.
    pub tags: Arc<[Arc<str>]>,
    /// File it is from.
    pub file: Arc<str>,
    /// Line where it begins.
    pub line: u32,
    /// Whose it is.
    pub source: RuleSource,
    /// Whether it is a rule over detections of others.
    pub correlation: bool,
    /// Whether it makes alerts by itself.
    pub alerts: bool,
    /// Whether events meet it.
    pub enabled: bool,
    /// Matched pairs since the engine started, repeats of one event counted once; for a correlation alerts that opened.
    pub hits: u64,
    /// Event time of the newest of them.
    pub last_hit: Option<Time>,
    /// When the last of them was found.
    pub last_hit_at: Option<Time>,
    /// Events for which it was evaluated.
    pub candidates: u64,
    /// Its part of the time spent in evaluating rules, 0 to 1, by samples; `None` without any.
    pub cpu_share: Option<f64>,
    /// The fields it asks for that no event ever had: it may wait for what never comes.
    pub fields_unseen: Vec<Arc<str>>,
    /// Changes whenever its text or whether it is enabled does.
    pub etag: String,
}

/// How the rules stand as a whole.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RulesStanding {
    /// Hash of the rule set in force.
    pub rule_set: String,
    /// Since which epoch it is.
    pub since_epoch: Option<Epoch>,
    /// Files whose newest text is broken: what they said before holds.
    pub held: Vec<Arc<str>>,
    /// What is wrong with the texts, errors before warnings.
    pub problems: Vec<RuleProblem>,
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleProblem {
    /// Stable word for the kind of problem.
    pub code: &'static str,
    /// `error`: refused, or `warning`.
    pub severity: &'static str,
    /// File.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// A change that is asked for.
#[derive(Clone, Debug)]
pub struct RuleChange {
    /// What.
    pub what: RuleOperation,
    /// Who asks.
    pub author: String,
    /// Why.
    pub reason: String,
}

/// What is to change.
#[derive(Clone, Debug)]
pub enum RuleOperation {
    /// A new text with one or more rules.
    Make {
        /// The text.
        text: String,
        /// Whether its rules are evaluated.
        enabled: bool,
    },
    /// Another text for a rule, or whether it is evaluated.
    Change {
        /// The rule.
        id: String,
        /// Its new text.
        text: Option<String>,
        /// Whether it is evaluated.
        enabled: Option<bool>,
        /// Only if its etag is one of these.
        if_match: Option<Vec<String>>,
    },
    /// The text with this rule goes.
    Remove {
        /// The rule.
        id: String,
        /// Only if its etag is one of these.
        if_match: Option<Vec<String>>,
    },
}

/// A change that holds.
#[derive(Clone, Debug)]
pub struct RuleChanged {
    /// The first rule of the text.
    pub id: Arc<str>,
    /// All rules of the text.
    pub ids: Vec<Arc<str>>,
    /// The epoch from which it holds; `None` when the engine is too busy to say: it will hold.
    pub epoch: Option<Epoch>,
    /// Its etag; empty when it is gone.
    pub etag: String,
    /// What is doubtful in the text.
    pub warnings: Vec<RuleProblem>,
}

/// Why a change was not made. Nothing has changed then.
#[derive(Clone, Debug)]
pub enum RuleRefused {
    /// The text cannot be used.
    Invalid(Vec<RuleProblem>),
    /// A rule of this id is there already.
    Exists(Arc<str>),
    /// There is no such rule.
    Unknown,
    /// It is not this interface's to change so: why, and what to do.
    NotOurs(String),
    /// It was changed since it was looked at.
    Stale,
    /// It could not be kept: the ledger is in trouble.
    Failed(String),
}

impl From<RuleRefused> for ApiError {
    fn from(refused: RuleRefused) -> ApiError {
        match refused {
            RuleRefused::Invalid(problems) => {
                let message = "the rule is not valid; nothing has changed";
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "rule_refused", message)
                    .with("problems", json!(bounded(problems)))
            }
            RuleRefused::Exists(id) => {
                let message = format!("the rule {id} exists; change it by PUT /api/v1/rules/{id}");
                ApiError::new(StatusCode::CONFLICT, "exists", message)
            }
            RuleRefused::Unknown => ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such rule"),
            RuleRefused::NotOurs(message) => ApiError::new(StatusCode::CONFLICT, "not_ours", message),
            RuleRefused::Stale => {
                let message = "the rule has changed since; read it again";
                ApiError::new(StatusCode::PRECONDITION_FAILED, "stale", message)
            }
            RuleRefused::Failed(error) => {
                tracing::error!(error, "a change of rules could not be kept");
                let message = "the ledger could not be used; the log says why";
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "ledger", message).retry_after(5)
            }
        }
    }
}

fn bounded(mut problems: Vec<RuleProblem>) -> Vec<RuleProblem> {
    problems.truncate(PROBLEMS_MAX);
    problems
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RuleQuery {
    level: Option<Level>,
    status: Option<String>,
    source: Option<RuleSource>,
    enabled: Option<bool>,
    tag: Option<String>,
    /// Part of id or title.
    q: Option<String>,
    /// With hits, or without.
    hit: Option<bool>,
    /// With a field that no event ever had, or without.
    unseen: Option<bool>,
    sort: Sort,
    offset: usize,
    limit: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sort {
    /// As they were loaded.
    #[default]
    Order,
    Hits,
    LastHit,
    Candidates,
    CpuShare,
}

impl RuleQuery {
    fn wants(&self, rule: &RuleView) -> bool {
        let part = |text: &str, of: &str| of.to_lowercase().contains(&text.to_lowercase());
        self.level.is_none_or(|level| rule.level == level)
            && self.status.as_deref().is_none_or(|status| rule.status.as_deref() == Some(status))
            && self.source.is_none_or(|source| rule.source == source)
            && self.enabled.is_none_or(|enabled| rule.enabled == enabled)
            && self.hit.is_none_or(|hit| (rule.hits > 0) == hit)
            && self.unseen.is_none_or(|unseen| rule.fields_unseen.is_empty() != unseen)
            && self.tag.as_deref().is_none_or(|tag| rule.tags.iter().any(|has| has.eq_ignore_ascii_case(tag)))
            && self.q.as_deref().is_none_or(|q| part(q, &rule.id) || part(q, &rule.title))
    }
}

pub(crate) async fn list(
    State(state): State<ApiState>,
    query: Result<Query<RuleQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    let limit = match query.limit.unwrap_or(100) {
        limit @ 1..=LIMIT_MAX => limit,
        _ => return Err(ApiError::bad(format!("limit must be 1 to {LIMIT_MAX}"))),
    };
    let mut rules = engine(&state)?.list();
    rules.retain(|rule| query.wants(rule));
    let share = |rule: &RuleView| rule.cpu_share.unwrap_or(-1.0);
    // Stable: rules that are alike stay in the order of loading.
    match query.sort {
        Sort::Order => {}
        Sort::Hits => rules.sort_by_key(|rule| std::cmp::Reverse(rule.hits)),
        Sort::LastHit => rules.sort_by_key(|rule| std::cmp::Reverse(rule.last_hit)),
        Sort::Candidates => rules.sort_by_key(|rule| std::cmp::Reverse(rule.candidates)),
        Sort::CpuShare => rules.sort_by(|a, b| share(b).total_cmp(&share(a))),
    }
    let total = rules.len();
    let rules: Vec<_> = rules.into_iter().skip(query.offset).take(limit).collect();
    let RulesStanding { rule_set, since_epoch, held, problems } = engine(&state)?.standing();
    let count = problems.len();
    Ok(Json(json!({
        "rules": rules, "total": total, "rule_set": rule_set, "since_epoch": since_epoch, "held": held,
        "problems": bounded(problems), "problems_total": count,
    })))
}

pub(crate) async fn show(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let (rule, text) = engine(&state)?.get(&id).ok_or(RuleRefused::Unknown)?;
    let tag = quoted(&rule.etag);
    let mut shown = json!(rule);
    if let Value::Object(fields) = &mut shown {
        fields.insert("text".to_owned(), json!(text));
    }
    Ok(with_tag(StatusCode::OK, tag.as_ref(), shown))
}

/// 201 once the rule is in force and durable.
pub(crate) async fn make(
    State(state): State<ApiState>,
    headers: HeaderMap,
    request_body: Body,
) -> Result<Response, ApiError> {
    let Said { text, enabled, reason } = said(&state, &headers, request_body).await?;
    let Some(text) = text else { return Err(invalid("the body has no `text`")) };
    let what = RuleOperation::Make { text, enabled: enabled.unwrap_or(true) };
    let changed = change(&state, what, reason).await?;
    let mut response = answer(StatusCode::CREATED, &changed);
    // Ids may hold anything; one that is no URL has no location.
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    if changed.id.chars().all(plain)
        && let Ok(location) = HeaderValue::try_from(format!("/api/v1/rules/{}", changed.id))
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// 200 once the change is in force and durable.
pub(crate) async fn put(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request_body: Body,
) -> Result<Response, ApiError> {
    let if_match = if_match(&headers)?;
    let Said { text, enabled, reason } = said(&state, &headers, request_body).await?;
    if text.is_none() && enabled.is_none() {
        return Err(invalid("the body has neither `text` nor `enabled`"));
    }
    let changed = change(&state, RuleOperation::Change { id, text, enabled, if_match }, reason).await?;
    Ok(answer(StatusCode::OK, &changed))
}

/// 200 once the rule is out of force.
pub(crate) async fn remove(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request_body: Body,
) -> Result<Response, ApiError> {
    let if_match = if_match(&headers)?;
    // No page can send DELETE to another origin without being asked first, so a body is not needed for that.
    let reason = match headers.contains_key(header::CONTENT_TYPE) {
        true => said(&state, &headers, request_body).await?.reason,
        false => String::new(),
    };
    let changed = change(&state, RuleOperation::Remove { id, if_match }, reason).await?;
    Ok(answer(StatusCode::OK, &changed))
}

/// What a body says.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Said {
    text: Option<String>,
    enabled: Option<bool>,
    reason: String,
}

/// A body is JSON (`text`, `enabled`, `reason`) or the YAML text itself.
async fn said(state: &ApiState, headers: &HeaderMap, request_body: Body) -> Result<Said, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_yaml = ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"].contains(&essence.as_str());
    let compressed = headers.contains_key(header::CONTENT_ENCODING);
    if (!is_yaml && essence != "application/json") || compressed {
        let message = "a rule is application/json or application/yaml, not compressed";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", message));
    }
    let (bytes, _memory) = body::read_at_most(state, headers, request_body, BODY_BYTES_MAX).await?;
    if is_yaml {
        let text = String::from_utf8(bytes.to_vec())
            .map_err(|error| invalid(&format!("the text is not UTF-8 at byte {}", error.utf8_error().valid_up_to())))?;
        return Ok(Said { text: Some(text), ..Said::default() });
    }
    let said: Said = serde_json::from_slice(&bytes).map_err(|error| match error.is_data() {
        true => invalid(&error.to_string()),
        false => ApiError::bad(format!("the body is no JSON: {error}")),
    })?;
    if said.reason.chars().count() > REASON_CHARACTERS_MAX {
        return Err(invalid(&format!("a reason may have {REASON_CHARACTERS_MAX} characters")));
    }
    Ok(said)
}

async fn change(state: &ApiState, what: RuleOperation, reason: String) -> Result<RuleChanged, ApiError> {
    let change = RuleChange { what, author: "api".to_owned(), reason };
    let asked = engine(state)?.change(change).ok_or_else(|| ApiError::busy("too many changes of rules wait"))?;
    let answer = asked.await.map_err(|_| {
        let message = "the engine is stopping";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", message).retry_after(10)
    })?;
    Ok(answer?)
}

fn engine(state: &ApiState) -> Result<&Arc<dyn Rules>, ApiError> {
    state.rules.as_ref().ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "not_found", "there are no rules here"))
}

/// The tags of `If-Match`; `*` and none at all mean: whatever it is.
fn if_match(headers: &HeaderMap) -> Result<Option<Vec<String>>, ApiError> {
    let mut tags = Vec::new();
    for value in headers.get_all(header::IF_MATCH) {
        let value = value.to_str().map_err(|_| ApiError::bad("If-Match is not text"))?;
        tags.extend(value.split(',').map(|tag| tag.trim().trim_matches('"').to_owned()));
    }
    let any = tags.is_empty() || tags.iter().any(|tag| tag == "*");
    Ok((!any).then_some(tags))
}

fn answer(status: StatusCode, changed: &RuleChanged) -> Response {
    let RuleChanged { id, ids, epoch, etag, warnings } = changed;
    let body = json!({
        "id": id, "ids": ids, "epoch": epoch, "etag": etag, "warnings": bounded(warnings.clone()),
    });
    with_tag(status, quoted(etag).filter(|_| !etag.is_empty()).as_ref(), body)
}

fn quoted(tag: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{tag}\"")).ok()
}

fn with_tag(status: StatusCode, tag: Option<&HeaderValue>, body: Value) -> Response {
    let mut response = (status, Json(body)).into_response();
    if let Some(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag.clone());
    }
    response
}

fn invalid(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
}
