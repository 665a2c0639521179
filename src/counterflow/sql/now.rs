//! The live tables: what the ledger says now, of alerts, risk, incidents and sources.
//!
//! Each is read in one go, beside a running engine and without it. Columns that history has as well have the same names and say
//! the same: of the newest revision of each alert and incident, of the newest epoch.

use std::collections::BTreeSet;

use cf_history::schema::{Column, Kind};
use cf_ledger::{
    Reader,
    read::{AlertFilter, AlertView, IncidentView},
};
use cf_queries::{Live, LiveRows, LiveTable};
use cf_types::{Alert, Time};
use serde_json::{Map, Value, json};

/// Rows of a live table: all that a ledger is made for.
const ROWS_MAX: u32 = 1_000_000;

/// The ledger's view.
#[derive(Debug)]
pub(crate) struct Now {
    reader: Reader,
}

impl Now {
    pub(crate) fn new(reader: Reader) -> Now {
        Now { reader }
    }

    async fn alerts(&self) -> Result<Vec<Value>, String> {
        let filter = AlertFilter { limit: ROWS_MAX, ..AlertFilter::default() };
        let alerts = self.reader.alerts(&filter).await.map_err(said)?;
        alerts.into_iter().map(alert).collect()
    }

    async fn risk(&self) -> Result<Vec<Value>, String> {
        let risks = self.reader.risks().await.map_err(said)?;
        let row = |risk: cf_ledger::read::RiskView| {
            json!({
                "tenant": risk.tenant.as_str(), "entity": risk.entity.to_string(), "kind": risk.entity.kind.as_str(),
                "value": &*risk.entity.value, "score": risk.score, "level": risk.level,
            })
        };
        Ok(risks.into_iter().map(row).collect())
    }

    async fn incidents(&self) -> Result<Vec<Value>, String> {
        let incidents = self.reader.incidents(true, ROWS_MAX).await.map_err(said)?;
        Ok(incidents.into_iter().map(incident).collect())
    }

    async fn sources(&self) -> Result<Vec<Value>, String> {
        let Some((record, watermark)) = self.reader.last_epoch().await.map_err(said)? else { return Ok(Vec::new()) };
        // Positions are of what is read, times of what it is called: the spool carries several sources.
        let names: BTreeSet<&String> = record.ends.keys().chain(record.newest.keys()).collect();
        let row = |source: &String| {
            let mut row = Map::new();
            row.insert("source".to_owned(), json!(source));
            row.extend(record.ends.get(source).map(|end| ("end".to_owned(), json!(end))));
            row.extend(record.newest.get(source).map(|time| ("newest".to_owned(), json!(time))));
            row.insert("idle".to_owned(), json!(if record.idle.contains(source) { "yes" } else { "no" }));
            row.extend(watermark.map(|time| ("watermark".to_owned(), json!(time))));
            row.insert("epoch".to_owned(), json!(record.epoch));
            row.insert("cut_at".to_owned(), json!(record.wall));
            Value::Object(row)
        };
        Ok(names.into_iter().map(row).collect())
    }
}

impl Live for Now {
    fn tables(&self) -> &'static [LiveTable] {
        TABLES
    }

    fn rows(&self, table: &'static str) -> LiveRows<'_> {
        Box::pin(async move {
            match table {
                "alerts_now" => self.alerts().await,
                "risk_now" => self.risk().await,
                "incidents_now" => self.incidents().await,
                "sources_now" => self.sources().await,
                other => Err(format!("{other} is no live table")),
            }
        })
    }
}

fn said(error: cf_ledger::LedgerError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

fn alert(view: AlertView) -> Result<Value, String> {
    let alert: Alert = serde_json::from_value(view.content).map_err(|error| format!("an alert is damaged: {error}"))?;
    let entities: Vec<String> = alert.entities.iter().map(ToString::to_string).collect();
    let mut row = json!({
        "tenant": alert.tenant.as_str(), "alert_id": view.alert_id, "thread": view.thread, "revision": view.revision,
        "state": view.state, "rule_id": &*alert.rule, "title": &*alert.title, "level": alert.level.as_str(),
        "score": alert.score, "group_fields": alert.group.to_json().to_string(), "first": alert.first(),
        "last": Time::from_seconds(alert.last_cell), "count": alert.count, "peak": alert.peak, "entities": entities,
        "tags": alert.tags, "opened_at": view.opened_at, "changed_at": view.changed_at,
    });
    if let Value::Object(row) = &mut row {
        row.extend(view.reason.map(|reason| ("reason".to_owned(), json!(reason))));
        row.extend(view.superseded_by.map(|id| ("superseded_by".to_owned(), json!(id))));
        row.extend(view.incident.map(|number| ("incident".to_owned(), json!(number))));
    }
    Ok(row)
}

fn incident(view: IncidentView) -> Value {
    let entities: Vec<String> = view.entities.iter().map(ToString::to_string).collect();
    let tactics: Vec<&str> = view.content.tactics.iter().map(|tactic| tactic.as_str()).collect();
    let mut row = json!({
        "tenant": view.tenant, "incident": view.number, "state": view.state, "score": view.score, "count": view.alerts,
        "entities": entities, "type": view.content.kind, "severity": view.content.severity, "tactics": tactics,
        "opened_at": view.opened_at, "changed_at": view.changed_at,
    });
    if let Value::Object(row) = &mut row {
        row.extend(view.redirect.map(|number| ("redirect".to_owned(), json!(number))));
        row.extend(view.title.map(|title| ("title".to_owned(), json!(title))));
        row.extend(view.level.map(|level| ("level".to_owned(), json!(level))));
        row.extend(view.first.map(|time| ("first".to_owned(), json!(time))));
        row.extend(view.last.map(|time| ("last".to_owned(), json!(time))));
    }
    row
}

const fn must(name: &'static str, kind: Kind, meaning: &'static str) -> Column {
    Column { name, kind, nullable: false, meaning }
}

const fn may(name: &'static str, kind: Kind, meaning: &'static str) -> Column {
    Column { name, kind, nullable: true, meaning }
}

const TENANT: Column = must("tenant", Kind::Word, "whose it is");

pub(crate) const TABLES: &[LiveTable] = &[
    LiveTable { name: "alerts_now", meaning: "alerts as they stand, all states", columns: ALERTS },
    LiveTable { name: "incidents_now", meaning: "incidents as they stand, all states", columns: INCIDENTS },
    LiveTable { name: "risk_now", meaning: "entities with a risk at the present event time", columns: RISK },
    LiveTable { name: "sources_now", meaning: "how far each source is in the ledger", columns: SOURCES },
];

const ALERTS: &[Column] = &[
    TENANT,
    must("alert_id", Kind::Text, "its stable id"),
    must("thread", Kind::Text, "first id of its lineage"),
    must("revision", Kind::Integer, "the thread's revision when it changed last"),
    must("state", Kind::Word, "open, sealed, withdrawn, superseded"),
    may("reason", Kind::Word, "why it was withdrawn"),
    may("superseded_by", Kind::Text, "the id that stands for it"),
    must("rule_id", Kind::Word, "id of the rule"),
    must("title", Kind::Word, "title of the rule"),
    must("level", Kind::Word, "level of the rule"),
    must("score", Kind::Float, "threat score, 0.0 to 10.0"),
    must("group_fields", Kind::Word, "the group as JSON, field to value"),
    must("first", Kind::Time, "event time of its first cell"),
    must("last", Kind::Time, "event time of its last cell"),
    must("count", Kind::Integer, "its members"),
    must("peak", Kind::Integer, "highest count of one window"),
    must("entities", Kind::Words, "whom it speaks of, each as kind:value"),
    must("tags", Kind::Words, "ATT&CK and other tags of the rule"),
    may("incident", Kind::Integer, "number of its incident"),
    must("opened_at", Kind::Time, "when it was opened, wall time"),
    must("changed_at", Kind::Time, "when it changed last, wall time"),
];

const INCIDENTS: &[Column] = &[
    TENANT,
    must("incident", Kind::Integer, "its number"),
    must("state", Kind::Word, "open, closed, withdrawn, merged"),
    may("redirect", Kind::Integer, "the incident that it was merged into"),
    may("title", Kind::Word, "title of its gravest alert"),
    may("level", Kind::Word, "that alert's level"),
    must("type", Kind::Word, "what kind of attack it is"),
    must("severity", Kind::Word, "SEV1, the most urgent, to SEV4"),
    must("score", Kind::Float, "highest score of its alerts"),
    must("tactics", Kind::Words, "ATT&CK tactics in the order of the kill chain"),
    may("first", Kind::Time, "begin of its first alert, event time"),
    may("last", Kind::Time, "end of its last alert, event time"),
    must("count", Kind::Integer, "its alerts that were not withdrawn or superseded"),
    must("entities", Kind::Words, "whom it speaks of, each as kind:value"),
    must("opened_at", Kind::Time, "when it was opened, wall time"),
    must("changed_at", Kind::Time, "when it changed last, wall time"),
];

const RISK: &[Column] = &[
    TENANT,
    must("entity", Kind::Word, "kind:value"),
    must("kind", Kind::Word, "host, user, address, ..."),
    must("value", Kind::Word, "its name"),
    must("score", Kind::Float, "risk, 0.0 to 10.0"),
    must("level", Kind::Word, "low, medium, high, critical"),
];

const SOURCES: &[Column] = &[
    must("source", Kind::Word, "its name; the spool, which all receivers fill, is one as well"),
    may("end", Kind::Integer, "up to where it is evaluated, exclusive: a row of the spool, a byte of a file"),
    may("newest", Kind::Time, "the newest event time of the source"),
    must("idle", Kind::Word, "yes if it does not hold the watermark back"),
    may("watermark", Kind::Time, "event time up to which all sources are complete"),
    must("epoch", Kind::Integer, "the newest epoch in the ledger"),
    must("cut_at", Kind::Time, "when that epoch was cut"),
];
