//! What a backtest says rule by rule: hits, noise, what they have in common, and what could be left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_types::{Alert, AlertId, Fact, FactBody, Time, fact::Judgement};
use serde_json::{Value, json};

use super::{Change, RuleSets};
use crate::past::{Outcome, RuleHits};

/// Values that are shown of a rule.
const TOP: usize = 5;

/// One rule, with the rules in force and with those that are tried.
#[derive(Clone, Debug)]
pub(crate) struct RuleSummary {
    pub(crate) rule: Arc<str>,
    pub(crate) title: Arc<str>,
    /// `new`, `gone`, `changed` or `same`.
    pub(crate) change: &'static str,
    pub(crate) hits: (u64, u64),
    pub(crate) alerts: (usize, usize),
    /// Alerts of the rules that are tried, by day of their begin.
    pub(crate) alerts_by_day: BTreeMap<i64, u64>,
    /// Entities in most events that it met.
    pub(crate) top: Vec<(String, u64)>,
    pub(crate) filters: Vec<Filter>,
}

/// A value that could be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) field: String,
    pub(crate) value: String,
    /// False positives that have it, of how many.
    pub(crate) covers: usize,
    pub(crate) of: usize,
    /// Alerts that have it.
    pub(crate) removes: usize,
}

impl RuleSummary {
    /// As it is printed.
    pub(crate) fn to_json(&self) -> Value {
        let day = |day: i64| {
            let midnight = Time::from_seconds(day * 86_400).to_string();
            midnight.split('T').next().unwrap_or_default().to_owned()
        };
        let by_day: serde_json::Map<String, Value> =
            self.alerts_by_day.iter().map(|(at, alerts)| (day(*at), Value::from(*alerts))).collect();
        let days = u64::try_from(self.alerts_by_day.len().max(1)).unwrap_or(1);
        let tenths = u64::try_from(self.alerts.1).unwrap_or(0) * 10 / days;
        let top: Vec<Value> =
            self.top.iter().map(|(value, events)| json!({ "value": value, "events": events })).collect();
        let filters = self.filters.iter().map(|filter| {
            json!({
                "field": filter.field, "value": filter.value, "false_positives": filter.covers,
                "false_positives_total": filter.of, "alerts": filter.removes,
            })
        });
        json!({
            "what": "rule", "rule_id": self.rule, "title": self.title, "kind": self.change,
            "hits": { "before": self.hits.0, "after": self.hits.1 },
            "alerts": { "before": self.alerts.0, "after": self.alerts.1 },
            "alerts_per_day": format!("{}.{}", tenths / 10, tenths % 10), "alerts_by_day": by_day, "top_values": top,
            "suggested_filters": filters.collect::<Vec<_>>(),
        })
    }
}

/// Of the rules that differ and of those whose alerts do, by id.
pub(crate) fn of(
    sets: &RuleSets,
    before: &Outcome,
    after: &Outcome,
    facts: &[Fact],
    changes: &[Change],
) -> Vec<RuleSummary> {
    let mut ids = sets.changed();
    ids.extend(changes.iter().filter_map(|change| change.rule.clone()));
    let (alerts_before, alerts_after) = (before.alerts(), after.alerts());
    let known: BTreeMap<AlertId, &Alert> =
        alerts_before.iter().chain(&alerts_after).map(|(id, alert)| (*id, alert)).collect();
    let has = |set: &cf_sigma::RuleSet, id: &str| set.rules().iter().any(|info| *info.id == *id && info.enabled);
    let changed = sets.changed();
    let summary = |id: Arc<str>| {
        let of = |alert: &&Alert| alert.rule == id;
        let own: Vec<&Alert> = alerts_after.values().filter(of).collect();
        let mut alerts_by_day: BTreeMap<i64, u64> = BTreeMap::new();
        for alert in &own {
            *alerts_by_day.entry(alert.anchor.div_euclid(86_400)).or_default() += 1;
        }
        let infos = sets.after.rules().iter().chain(sets.before.rules());
        let title = infos.filter(|info| info.id == id).map(|info| Arc::clone(&info.title)).next();
        let change = match (has(&sets.before, &id), has(&sets.after, &id)) {
            (false, true) => "new",
            (true, false) => "gone",
            _ if changed.contains(&id) => "changed",
            _ => "same",
        };
        let hits = |outcome: &Outcome| outcome.hits.get(&id).map_or(0, |hits| hits.events);
        RuleSummary {
            title: title.unwrap_or_else(|| Arc::clone(&id)),
            change,
            hits: (hits(before), hits(after)),
            alerts: (alerts_before.values().filter(of).count(), own.len()),
            alerts_by_day,
            top: after.hits.get(&id).map(top).unwrap_or_default(),
            filters: filters(&id, facts, &known, &own),
            rule: id,
        }
    };
    ids.into_iter().map(summary).collect()
}

fn top(hits: &RuleHits) -> Vec<(String, u64)> {
    let mut values: Vec<(String, u64)> =
        hits.by_entity.iter().map(|(value, events)| (value.clone(), *events)).collect();
    values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    values.truncate(TOP);
    values
}

/// Values of groups that false positives of a rule have and its true positives do not, the most useful first.
fn filters(rule: &str, facts: &[Fact], known: &BTreeMap<AlertId, &Alert>, alerts: &[&Alert]) -> Vec<Filter> {
    let judged = |judgement: Judgement| -> Vec<&Alert> {
        let verdicts = facts.iter().filter_map(|fact| match &fact.body {
            FactBody::Verdict(verdict) if verdict.judgement == judgement && *verdict.rule == *rule => {
                Some(verdict.alert)
            }
            _ => None,
        });
        verdicts.filter_map(|alert| known.get(&alert).copied()).collect()
    };
    let values = |alert: &Alert| -> BTreeSet<(String, String)> {
        alert.group.iter().map(|(field, value)| (field.to_owned(), value.to_owned())).collect()
    };
    let wrong = judged(Judgement::FalsePositive);
    let right: BTreeSet<_> = judged(Judgement::TruePositive).into_iter().flat_map(values).collect();
    let mut covers: BTreeMap<(String, String), usize> = BTreeMap::new();
    for pair in wrong.iter().flat_map(|alert| values(alert)).filter(|pair| !right.contains(pair)) {
        *covers.entry(pair).or_default() += 1;
    }
    let filter = |((field, value), covers): ((String, String), usize)| {
        let pair = (field.clone(), value.clone());
        let removes = alerts.iter().filter(|alert| values(alert).contains(&pair)).count();
        Filter { field, value, covers, of: wrong.len(), removes }
    };
    let mut filters: Vec<Filter> = covers.into_iter().map(filter).collect();
    filters.sort_by(|a, b| b.covers.cmp(&a.covers).then_with(|| (&a.field, &a.value).cmp(&(&b.field, &b.value))));
    filters.truncate(TOP);
    filters
}
