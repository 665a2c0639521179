//! What stands in the columns: one [`Row`] per table.

mod model;

use std::borrow::Cow;

use cf_types::{
    ActionId, ActionKind, Alert, AlertId, Assessment, Detection, Entity, EntityKind, EntityRisk, Epoch, EpochRecord,
    Event, Fields, Framing, Incident, Name, Position, Reject, RiskLevel, Scalar, Score, Tenant, Time, TimeBasis,
    fact::Verdict,
};
use serde_json::{Map, Value, json};

use crate::{
    batch::{Row, Rows},
    schema::{PASSED_MS, Table},
};

pub use model::{FeatureEntry, PredictionEntry, Subject};

/// One revision of an alert, as the ledger made it.
#[derive(Clone, Debug)]
pub struct AlertRevision {
    /// Its pure content; of a withdrawn alert the last it had.
    pub alert: Alert,
    /// First id of its lineage.
    pub thread: AlertId,
    /// Counts the thread's revisions from 1.
    pub revision: u64,
    /// What the revision is: `opened`, `amended`, `withdrawn`, ...
    pub event: String,
    /// The ledger's state: `open`, `sealed`, `withdrawn`, `superseded`.
    pub state: String,
    /// Why it changed.
    pub reason: Option<String>,
    /// Number of its incident.
    pub incident: Option<i64>,
    /// First and last members, as JSON.
    pub members: Option<String>,
    /// The alert that stands for it now.
    pub superseded_by: Option<AlertId>,
    /// How it is assessed; of a withdrawn alert as it was last.
    pub assessment: Option<Assessment>,
    /// Wall time.
    pub revised_at: Time,
}

/// One revision of an incident, as the ledger made it.
#[derive(Clone, Debug)]
pub struct IncidentRevision {
    /// Its membership; of a withdrawn one the last it had.
    pub incident: Incident,
    /// The ledger's number.
    pub number: i64,
    /// The ledger's state: `open`, `closed`, `withdrawn`, `merged`.
    pub state: String,
    /// The number it was merged into.
    pub redirect: Option<i64>,
    /// For people.
    pub title: Option<String>,
    /// Threat score.
    pub score: Option<Score>,
    /// Wall time.
    pub revised_at: Time,
}

/// One step of an action. Its epoch must be one that was not committed yet (a step made after epoch e was applied belongs
/// to e + 1), and the same when it is given again after a restart: the ledger keeps it.
#[derive(Clone, Debug)]
pub struct ActionStep {
    /// Whose.
    pub tenant: Tenant,
    /// Kind and target as one id.
    pub id: ActionId,
    /// The ledger's number of this application.
    pub number: i64,
    /// What is done.
    pub kind: ActionKind,
    /// To whom.
    pub target: String,
    /// The ledger's state after the step.
    pub state: String,
    /// Why.
    pub reason: Option<String>,
    /// The alerts that are the reason.
    pub alerts: Vec<AlertId>,
    /// How long the effect lasts.
    pub ttl_s: u32,
    /// When it ends.
    pub until_at: Option<Time>,
    /// Receipt or error, as JSON.
    pub detail: Option<String>,
    /// Wall time.
    pub at: Time,
}

/// One epoch: given for each, also for those that changed nothing.
#[derive(Clone, Debug)]
pub struct EpochEntry {
    /// Its record.
    pub record: EpochRecord,
    /// Watermark after it.
    pub watermark: Option<Time>,
}

/// A change of an entity's risk.
#[derive(Clone, Debug)]
pub struct RiskChange {
    /// Whose.
    pub tenant: Tenant,
    /// Which.
    pub entity: Entity,
    /// What its risk is made of now; `None` when nothing is left of it.
    pub risk: Option<EntityRisk>,
    /// Its level now.
    pub level: Option<RiskLevel>,
    /// The level before, where it changed.
    pub was: Option<RiskLevel>,
    /// Wall time.
    pub at: Time,
}

/// An entry of the control log, with the epoch that took it in.
#[derive(Clone, Debug)]
pub struct FactEntry {
    /// Its position.
    pub seq: i64,
    /// What the control log calls it.
    pub kind: String,
    /// The kind of the fact that it adds or removes.
    pub fact: Option<String>,
    /// What was said, as JSON.
    pub body: String,
    /// Who said it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// Wall time.
    pub at: Time,
}

/// A judgement of an alert, given or taken back.
#[derive(Clone, Debug)]
pub struct VerdictEntry {
    /// Whose.
    pub tenant: Tenant,
    /// Its position in the control log.
    pub seq: i64,
    /// What was said.
    pub verdict: Verdict,
    /// 1 or -1.
    pub given: i64,
    /// Who said it.
    pub author: String,
    /// Why.
    pub reason: String,
    /// Wall time.
    pub at: Time,
}

/// A record as a text. Nearly all are one, and to find that out at once is many times faster than the search for what is not.
fn text_of(raw: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(raw).map_or_else(|_| String::from_utf8_lossy(raw), Cow::Borrowed)
}

impl Row for Event {
    const TABLE: Table = Table::Events;

    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        // The identity by position is one hash; by declared id it would parse the record anew: SQL does that on demand.
        let identity = self.declared_id.is_none().then(|| self.id().to_string());
        let shown = self.declared_id.as_deref().or(identity.as_deref()).unwrap_or_default();
        rows.text("tenant", self.origin.tenant.as_str());
        rows.day_of(self.time);
        rows.integer("epoch", epoch);
        rows.text("event_id", shown);
        rows.text_or_null("id", identity.as_deref());
        rows.time("time", self.time);
        rows.text("time_basis", basis(self.time_basis));
        rows.time("received_at", self.origin.received_at);
        rows.text("source", &self.origin.source);
        position(rows, &self.position);
        rows.text_or_null("product", self.log_source.product.as_deref());
        rows.text_or_null("category", self.log_source.category.as_deref());
        rows.text_or_null("service", self.log_source.service.as_deref());
        rows.text_or_null("host", first(&self.entities, EntityKind::Host));
        rows.text_or_null("user", first(&self.entities, EntityKind::User));
        rows.text_or_null("address", first(&self.entities, EntityKind::Address));
        rows.text_or_null("process", first(&self.entities, EntityKind::Process));
        rows.text_or_null("file_hash", first(&self.entities, EntityKind::FileHash));
        rows.text_or_null("domain", first(&self.entities, EntityKind::Domain));
        entities(rows, &self.entities);
        let is_json = self.raw.trim_ascii_start().starts_with(b"{");
        rows.text_or_null("fields", (!is_json).then(|| fields_json(&self.fields)).as_deref());
        rows.text("raw", &text_of(&self.raw));
        rows.text("framing", framing(self.origin.framing));
        rows.integer_or_null("year", self.origin.year.map(i64::from));
        rows.urls(&self.fields);
        rows.field_columns(&self.fields);
    }
}

impl Row for Reject {
    const TABLE: Table = Table::Rejects;

    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        let raw = text_of(&self.raw);
        let lossy = matches!(raw, Cow::Owned(_));
        rows.text("tenant", self.origin.tenant.as_str());
        rows.day_of(self.time.unwrap_or(self.origin.received_at));
        rows.integer("epoch", epoch);
        rows.time_or_null("time", self.time);
        rows.time("received_at", self.origin.received_at);
        rows.text("source", &self.origin.source);
        position(rows, &self.position);
        rows.text("code", self.code.as_str());
        rows.text("reason", &self.reason);
        rows.text("raw", &raw);
        rows.bytes_or_null("raw_bytes", lossy.then_some(&*self.raw));
    }
}

impl Row for Detection {
    const TABLE: Table = Table::Detections;

    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        let items: Vec<_> = self
            .items
            .iter()
            .map(|item| {
                json!({
                    "rule_id": &*item.rule,
                    "reference": item.reference,
                    "group": item.group.to_json(),
                    "value": item.value.as_deref(),
                })
            })
            .collect();
        rows.text("tenant", self.tenant.as_str());
        rows.day_of(self.member.time);
        rows.integer("epoch", epoch);
        rows.text("rule_id", &self.rule);
        rows.text("event_id", &self.member.shown_id());
        rows.text("id", &self.member.id.to_string());
        rows.time("time", self.member.time);
        rows.text("source", &self.source);
        position(rows, &self.member.position);
        rows.text_or_null("host", first(&self.entities, EntityKind::Host));
        rows.text_or_null("user", first(&self.entities, EntityKind::User));
        rows.text_or_null("address", first(&self.entities, EntityKind::Address));
        entities(rows, &self.entities);
        rows.text("items", &Value::Array(items).to_string());
    }
}

impl Row for AlertRevision {
    const TABLE: Table = Table::Alerts;

    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        let alert = &self.alert;
        rows.text("tenant", alert.tenant.as_str());
        rows.day_of(self.revised_at);
        rows.integer("epoch", epoch);
        rows.text("alert_id", &alert.id.to_string());
        rows.text("thread", &self.thread.to_string());
        rows.integer("revision", self.revision);
        rows.text("event", &self.event);
        rows.text("state", &self.state);
        rows.text_or_null("reason", self.reason.as_deref());
        rows.text("rule_id", &alert.rule);
        rows.text("title", &alert.title);
        rows.text("level", alert.level.as_str());
        rows.float_or_null("score", Some(points(alert.score)));
        rows.text("group_fields", &alert.group.to_json().to_string());
        rows.time("first", alert.first());
        rows.time("last", Time::from_seconds(alert.last_cell));
        rows.integer("count", alert.count);
        rows.integer("peak", alert.peak);
        entities(rows, &alert.entities);
        rows.words("tags", alert.tags.iter());
        rows.integer_or_null("incident", self.incident);
        rows.text_or_null("members", self.members.as_deref());
        rows.time("revised_at", self.revised_at);
        rows.text_or_null("superseded_by", self.superseded_by.map(|id| id.to_string()).as_deref());
        let assessed = self.assessment.as_ref();
        rows.float_or_null("base_score", assessed.map(|assessed| points(assessed.base)));
        rows.text_or_null("risk_level", assessed.map(|assessed| assessed.level.as_str()));
        let percent = assessed.map(|assessed| i64::from(assessed.confidence_percent));
        rows.integer_or_null("confidence_percent", percent);
        rows.text_or_null("confidence", assessed.and_then(|assessed| word(&assessed.confidence)).as_deref());
        rows.text_or_null("vector", assessed.map(|assessed| assessed.vector.as_str()));
        rows.words("tactics", assessed.map_or(&[][..], |assessed| &assessed.tactics));
        rows.words("techniques", assessed.map_or(&[][..], |assessed| &assessed.techniques));
        let factors = assessed.and_then(|assessed| serde_json::to_string(&assessed.factors).ok());
        rows.text_or_null("factors", factors.as_deref());
    }
}

impl Row for IncidentRevision {
    const TABLE: Table = Table::Incidents;

    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        let incident = &self.incident;
        rows.text("tenant", incident.tenant.as_str());
        rows.day_of(self.revised_at);
        rows.integer("epoch", epoch);
        rows.integer("incident", self.number);
        rows.text("incident_id", &incident.id.to_string());
        rows.text("state", &self.state);
        rows.integer_or_null("redirect", self.redirect);
        rows.text_or_null("title", self.title.as_deref());
        rows.float_or_null("score", self.score.map(points));
        rows.time_or_null("first", incident.alerts.iter().map(|(cell, _)| Time::from_seconds(*cell)).min());
        rows.integer("count", incident.alerts.len());
        rows.words("alerts", incident.alerts.iter().map(|(_, alert)| alert.to_string()));
        entities(rows, &incident.entities);
        rows.time("revised_at", self.revised_at);
        rows.text("type", incident.kind.as_str());
        rows.text("severity", incident.severity.as_str());
        rows.words("tactics", incident.tactics.iter().map(|tactic| tactic.as_str()));
        rows.text_or_null("hubs", serde_json::to_string(&incident.hubs).ok().as_deref());
    }
}

impl Row for ActionStep {
    const TABLE: Table = Table::Actions;

    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        rows.text("tenant", self.tenant.as_str());
        rows.day_of(self.at);
        rows.integer("epoch", epoch);
        rows.text("action_id", &self.id.to_string());
        rows.integer("number", self.number);
        rows.text("kind", self.kind.as_str());
        rows.text("target", &self.target);
        rows.text("state", &self.state);
        rows.text_or_null("reason", self.reason.as_deref());
        rows.words("alerts", self.alerts.iter().map(ToString::to_string));
        rows.integer("ttl_s", self.ttl_s);
        rows.time_or_null("until_at", self.until_at);
        rows.text_or_null("detail", self.detail.as_deref());
        rows.time("at", self.at);
    }
}

impl Row for EpochEntry {
    const TABLE: Table = Table::Epochs;

    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        let record = &self.record;
        let passed = (record.passed_ms > 0).then(|| (PASSED_MS.to_owned(), Value::from(record.passed_ms)));
        let ends = record.ends.iter().map(|(source, end)| (source.clone(), Value::from(*end)));
        let ends: Map<String, Value> = ends.chain(passed).collect();
        rows.text("tenant", Tenant::default().as_str());
        rows.day_of(record.wall);
        rows.integer("epoch", epoch);
        rows.time("wall", record.wall);
        rows.integer("generation", record.generation);
        rows.text("ends", &Value::Object(ends).to_string());
        rows.words("idle", &record.idle);
        rows.integer("control", record.control);
        rows.text("rules", &record.rules);
        rows.text("engine", &record.engine);
        rows.time_or_null("watermark", self.watermark);
        let newest: Map<String, Value> =
            record.newest.iter().map(|(source, time)| (source.clone(), Value::from(time.to_string()))).collect();
        rows.text("newest", &Value::Object(newest).to_string());
        rows.words("begun", &record.begun);
    }
}

impl Row for RiskChange {
    const TABLE: Table = Table::Risk;

    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        rows.text("tenant", self.tenant.as_str());
        rows.day_of(self.at);
        rows.integer("epoch", epoch);
        rows.text("entity", &self.entity.to_string());
        rows.text("kind", self.entity.kind.as_str());
        rows.text("value", &self.entity.value);
        rows.float_or_null("score", self.risk.as_ref().map(|risk| points(risk.score())));
        rows.text_or_null("level", self.level.map(RiskLevel::as_str));
        rows.text_or_null("was", self.was.map(RiskLevel::as_str));
        let buckets = self.risk.as_ref().and_then(|risk| serde_json::to_string(&risk.buckets).ok());
        rows.text_or_null("buckets", buckets.as_deref());
        rows.time("at", self.at);
    }
}

impl Row for FactEntry {
    const TABLE: Table = Table::Facts;

    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        rows.text("tenant", Tenant::default().as_str());
        rows.day_of(self.at);
        rows.integer("epoch", epoch);
        rows.integer("seq", self.seq);
        rows.text("kind", &self.kind);
        rows.text_or_null("fact", self.fact.as_deref());
        rows.text("body", &self.body);
        rows.text("author", &self.author);
        rows.text("reason", &self.reason);
        rows.time("at", self.at);
    }
}

impl Row for VerdictEntry {
    const TABLE: Table = Table::Verdicts;

    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        let rule = Some(&*self.verdict.rule).filter(|rule| !rule.is_empty());
        rows.text("tenant", self.tenant.as_str());
        rows.day_of(self.at);
        rows.integer("epoch", epoch);
        rows.integer("seq", self.seq);
        rows.text("alert_id", &self.verdict.alert.to_string());
        rows.text_or_null("rule_id", rule);
        rows.text("judgement", self.verdict.judgement.as_str());
        rows.integer("given", self.given);
        rows.text("author", &self.author);
        rows.text("reason", &self.reason);
        rows.time("at", self.at);
    }
}

fn position(rows: &mut Rows, position: &Position) {
    rows.text("origin", &position.origin);
    rows.integer("line", position.line);
    rows.integer("record_offset", position.offset);
    rows.integer("record_index", position.index);
}

fn entities(rows: &mut Rows, entities: &[Entity]) {
    rows.words("entities", entities.iter().map(ToString::to_string));
}

fn first(entities: &[Entity], kind: EntityKind) -> Option<&str> {
    entities.iter().find(|entity| entity.kind == kind).map(|entity| &*entity.value)
}

fn points(score: Score) -> f64 {
    f64::from(score.tenths()) / 10.0
}

const fn framing(framing: Framing) -> &'static str {
    match framing {
        Framing::Record => "record",
        Framing::Syslog => "syslog",
        Framing::Http => "http",
        Framing::Evtx => "evtx",
        Framing::Unframed => "unframed",
    }
}

/// The framing of a record that history gives back. What could not be framed is one record by now.
pub(crate) fn framing_of(word: &str) -> Framing {
    [Framing::Syslog, Framing::Http, Framing::Evtx]
        .into_iter()
        .find(|known| framing(*known) == word)
        .unwrap_or_default()
}

/// The word that serde has for a value of a closed set.
fn word(value: &impl serde::Serialize) -> Option<String> {
    serde_json::to_value(value).ok()?.as_str().map(str::to_owned)
}

const fn basis(basis: TimeBasis) -> &'static str {
    match basis {
        TimeBasis::Declared => "declared",
        TimeBasis::Assumed => "assumed",
        TimeBasis::Received => "received",
    }
}

/// Named fields as a JSON object; a name that stands several times becomes an array.
fn fields_json(fields: &Fields) -> String {
    let mut object = Map::new();
    for (name, value, scalar) in fields.iter().filter(|(name, ..)| *name != Name::UNKNOWN) {
        let value = match scalar {
            Scalar::Text => Value::from(value),
            Scalar::Null => Value::Null,
            // As it stands in the record; a text if it is no JSON number or truth value after all.
            Scalar::Number | Scalar::Bool => serde_json::from_str(value).unwrap_or_else(|_| Value::from(value)),
        };
        match object.get_mut(&*name.text()) {
            None => {
                object.insert(name.text().to_string(), value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(present) => *present = Value::Array(vec![present.take(), value]),
        }
    }
    Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(fields: &[(&str, &str, Scalar)], expect: Expect) {
        let mut flat = Fields::default();
        for (name, value, scalar) in fields {
            flat.push(Name::intern(name), value, *scalar);
        }
        expect.assert_eq(&fields_json(&flat));
    }

    #[test]
    fn named_fields_keep_order_kind_and_repeats() {
        check(&[], expect!["{}"]);
        check(
            &[("b", "1", Scalar::Number), ("a", "x\"y", Scalar::Text), ("n", "", Scalar::Null)],
            expect![[r#"{"b":1,"a":"x\"y","n":null}"#]],
        );
        check(
            &[("a", "1", Scalar::Text), ("a", "true", Scalar::Bool), ("a", "2", Scalar::Number)],
            expect![[r#"{"a":["1",true,2]}"#]],
        );
    }
}
