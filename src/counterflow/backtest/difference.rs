//! What differs between two outcomes: alerts, incidents, levels of risk, wishes.

use std::{collections::BTreeMap, sync::Arc};

use cf_types::{Alert, Row, Time};
use serde_json::{Value, json};

use crate::past::Outcome;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// `alert`, `incident`, `risk`, `action` or `suppressed`.
    pub(crate) what: &'static str,
    /// `added`, `removed` or `amended`.
    pub(crate) kind: &'static str,
    /// Of an alert, its rule.
    pub(crate) rule: Option<Arc<str>>,
    /// Which: an alert's or incident's id, an entity, an action and its target.
    pub(crate) id: String,
    pub(crate) before: Value,
    pub(crate) after: Value,
}

impl Change {
    /// As it is printed.
    pub(crate) fn to_json(&self) -> Value {
        let mut row = json!({ "what": self.what, "kind": self.kind });
        let key = match self.what {
            "alert" | "suppressed" => "alert_id",
            "incident" => "incident_id",
            "risk" => "entity",
            _ => "action",
        };
        row["rule_id"] = self.rule.as_deref().map_or(Value::Null, Value::from);
        row[key] = Value::from(self.id.as_str());
        row["before"] = self.before.clone();
        row["after"] = self.after.clone();
        row
    }
}

type Rows = BTreeMap<(&'static str, Option<Arc<str>>, String), Value>;

/// All differences, sorted by what, rule and id.
pub(crate) fn between(before: &Outcome, after: &Outcome) -> Vec<Change> {
    let (before, mut after) = (shown(before), shown(after));
    let mut changes = Vec::new();
    for (key, before) in before {
        let after = after.remove(&key);
        let kind = match &after {
            None => "removed",
            Some(after) if *after != before => "amended",
            Some(_) => continue,
        };
        let (what, rule, id) = key;
        changes.push(Change { what, kind, rule, id, before, after: after.unwrap_or(Value::Null) });
    }
    changes.extend(after.into_iter().map(|((what, rule, id), after)| Change {
        what,
        kind: "added",
        rule,
        id,
        before: Value::Null,
        after,
    }));
    changes.sort_by(|a, b| (a.what, &a.rule, &a.id).cmp(&(b.what, &b.rule, &b.id)));
    changes
}

fn shown(outcome: &Outcome) -> Rows {
    let mut rows = Rows::new();
    for alert in outcome.alerts().values() {
        rows.insert(("alert", Some(Arc::clone(&alert.rule)), alert.id.to_string()), alert_json(alert));
    }
    for row in outcome.rows() {
        let (what, rule, id, shown) = match row {
            Row::Incident(incident) => {
                let entities: Vec<String> = incident.entities.iter().map(ToString::to_string).collect();
                let alerts: Vec<String> = incident.alerts.iter().map(|(_, alert)| alert.to_string()).collect();
                let shown = json!({ "severity": incident.severity, "alerts": alerts, "entities": entities });
                ("incident", None, incident.id.to_string(), shown)
            }
            Row::RiskLevel(level) => ("risk", None, level.entity.to_string(), json!(level.level)),
            Row::Suppressed(suppressed) => {
                let alert = &suppressed.alert;
                let shown = json!({ "alert": alert_json(alert), "fact": suppressed.fact });
                ("suppressed", Some(Arc::clone(&alert.rule)), alert.id.to_string(), shown)
            }
            Row::Desired(wish) => {
                let id = format!("{} {}", wish.kind.as_str(), wish.target);
                let known = rows.get(&("action", None, id.clone())).cloned();
                let mut alerts: Vec<Value> =
                    known.and_then(|known| known["alerts"].as_array().cloned()).unwrap_or_default();
                alerts.push(json!(wish.alert));
                ("action", None, id, json!({ "ttl_s": wish.ttl_s, "alerts": alerts }))
            }
            Row::Alert(_) | Row::Risk(_) | Row::Assessment(_) | Row::Blast(_) | Row::BlastLeftOut(_) => continue,
        };
        rows.insert((what, rule, id), shown);
    }
    rows
}

/// An alert's pure content, as `replay` prints it.
fn alert_json(alert: &Alert) -> Value {
    json!({
        "title": alert.title, "level": alert.level, "state": alert.state, "group": alert.group.to_json(),
        "count": alert.count, "first": alert.first(), "last": Time::from_seconds(alert.last_cell), "score": alert.score,
    })
}
