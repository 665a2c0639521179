//! Why there is no alert: what of a rule's condition was there for an entity, and what was not.

use std::collections::BTreeMap;

use anyhow::Result;
use cf_types::{Alert, Cell, EpisodeRule, FactBody, Tenant, Time, assess::INDICATOR_RULE};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    RulesThen, Sources,
    events::{Found, FoundItem, Lookups, for_each_row, in_cells, quoted},
    lacking,
};
use crate::below::{Chains, Counted, Items};

/// Alerts and refused items listed at most.
const LISTED_MAX: u64 = 100;

/// What was found out, most telling first.
#[derive(Debug, Serialize)]
pub(crate) struct Missing {
    /// The rule's id.
    pub(crate) rule_id: String,
    /// Its title, if it is loaded.
    pub(crate) title: Option<String>,
    /// As asked for.
    pub(crate) entity: String,
    /// Begin of the span.
    pub(crate) from: Time,
    /// End of the span.
    pub(crate) to: Time,
    /// What speaks against an alert, or that there is one.
    pub(crate) findings: Vec<Finding>,
    /// Detections of the entity by the rules that the rule refers to.
    pub(crate) referenced: Vec<Referenced>,
    /// The window that came nearest to the condition.
    pub(crate) best_window: Option<Window>,
}

/// One thing that was found out.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// `alert_exists`, `rule_unknown`, `rule_disabled`, ...
    pub(crate) code: &'static str,
    /// In a sentence.
    pub(crate) text: String,
    /// What it is about.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(crate) detail: Value,
}

/// What one referenced rule met.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Referenced {
    pub(crate) rule_id: String,
    pub(crate) title: Option<String>,
    /// Detections of the entity.
    pub(crate) detections: u64,
    pub(crate) first: Option<Time>,
    pub(crate) last: Option<Time>,
}

/// A window of the rule's timespan.
#[derive(Debug, Serialize)]
pub(crate) struct Window {
    pub(crate) group: Value,
    pub(crate) from: Time,
    pub(crate) to: Time,
    /// Items in it.
    pub(crate) items: usize,
    /// Distinct values among them.
    pub(crate) values: usize,
    /// Referenced rules that are absent in it.
    pub(crate) absent: Vec<String>,
    /// What the rule asks for.
    pub(crate) condition: Value,
}

/// Looks for what was lacking. `entity` is `KIND:VALUE` or a value.
pub(crate) async fn missing(sources: &Sources, rule: &str, entity: &str, from: Time, to: Time) -> Result<Missing> {
    let value = value_of(entity);
    let span = (from.cell(), to.cell());
    let mut found = Missing {
        rule_id: rule.to_owned(),
        title: None,
        entity: entity.to_owned(),
        from,
        to,
        findings: Vec::new(),
        referenced: Vec::new(),
        best_window: None,
    };
    if cf_dataflows::is_builtin(rule) {
        alerts(sources, &mut found, value, span).await?;
        if rule == INDICATOR_RULE {
            lacking::indicators(sources, &mut found, entity, span).await?;
        }
        allowed(sources, &mut found, value).await?;
        events(sources, &mut found, value, span).await?;
        return Ok(found);
    }
    let now = match sources.rules_now().await? {
        Ok(now) => now,
        Err(why) => {
            found.say("rules_unknown", format!("the rules of the last epoch are not known: {why}"), Value::Null);
            return Ok(found);
        }
    };
    let info = now.set.rules().iter().find(|info| &*info.id == rule || info.title.eq_ignore_ascii_case(rule));
    let Some(info) = info else {
        let text =
            format!("no rule of id or title {rule:?} is loaded: `counterflow rules check` says what does not load");
        found.say("rule_unknown", text, Value::Null);
        return Ok(found);
    };
    found.rule_id = info.id.to_string();
    found.title = Some(info.title.to_string());
    if !info.enabled {
        found.say("rule_disabled", "the rule is disabled: it finds nothing new".to_owned(), Value::Null);
    }
    if !info.alerts {
        let text = "the rule makes no alerts by itself: it only counts in others".to_owned();
        found.say("rule_silent", text, Value::Null);
    }
    since(sources, &mut found).await?;
    alerts(sources, &mut found, value, span).await?;
    refused(sources, &mut found, value, span).await?;
    allowed(sources, &mut found, value).await?;
    let id = found.rule_id.clone();
    match now.episode_rule(&id).cloned() {
        Some(rule) => counted(sources, &mut found, &now, &rule, value, span).await?,
        None => found.say("rule_counts_nothing", "the rule is not evaluated".to_owned(), Value::Null),
    }
    if found.referenced.iter().all(|one| one.detections == 0) {
        events(sources, &mut found, value, span).await?;
    }
    Ok(found)
}

/// The value of `KIND:VALUE`, or the whole, if it has no known kind before it.
fn value_of(entity: &str) -> &str {
    match entity.split_once(':') {
        Some((kind, value)) if serde_json::from_value::<cf_types::EntityKind>(kind.into()).is_ok() => value,
        Some(_) | None => entity,
    }
}

impl Missing {
    pub(super) fn say(&mut self, code: &'static str, text: String, detail: Value) {
        self.findings.push(Finding { code, text, detail });
    }
}

async fn since(sources: &Sources, found: &mut Missing) -> Result<()> {
    let Some(epoch) = sources.reader.rule_since(&found.rule_id).await? else { return Ok(()) };
    let wall = sources.reader.epoch(epoch).await?.map(|(record, _)| record.wall);
    let when = wall.map_or_else(String::new, |wall| format!(" ({wall})"));
    let text = format!("the rule counts since epoch {epoch}{when}; what came before does not count for it");
    found.say("rule_since", text, json!({ "epoch": epoch, "wall": wall }));
    Ok(())
}

/// Alerts of the rule that name the entity: one may be there, or may have gone.
async fn alerts(sources: &Sources, found: &mut Missing, value: &str, (from, to): (Cell, Cell)) -> Result<()> {
    for (id, state, reason, content) in sources.reader.alerts_between(&found.rule_id, from, to, 10_000).await? {
        let Ok(alert) = serde_json::from_value::<Alert>(content) else { continue };
        let named = alert.group.iter().any(|(_, one)| one == value);
        if !named && !alert.entities.iter().any(|one| &*one.value == value) {
            continue;
        }
        let detail = json!({ "alert_id": id, "state": state, "reason": reason, "count": alert.count });
        match state.as_str() {
            "open" | "sealed" => found.say("alert_exists", format!("there is an alert: {id} ({state})"), detail),
            _ => {
                let why = reason.as_deref().unwrap_or("no reason is noted");
                found.say("alert_gone", format!("alert {id} was there and is {state}: {why}"), detail);
            }
        }
    }
    Ok(())
}

/// Items of the rule and the entity that came too late, or were dated too far ahead.
async fn refused(sources: &Sources, found: &mut Missing, value: &str, (from, to): (Cell, Cell)) -> Result<()> {
    let statement = format!(
        "select code, reason, time, origin, line from (
             select code, reason, time, origin, line, record_offset, record_index from rejects
             where code in ('too_late', 'too_far_ahead') and {cells} and strpos(reason, {rule}) > 0
         ) join (
             select origin, record_offset, record_index from events where {cells} and {names}
         ) using (origin, record_offset, record_index) order by time limit {LISTED_MAX}",
        cells = in_cells(from, to),
        rule = quoted(&found.rule_id),
        names = names(value)
    );
    let mut rows = Vec::new();
    for_each_row(&sources.history, &statement, &mut |row| {
        rows.push(row);
        Ok(())
    })
    .await?;
    if !rows.is_empty() {
        let text = format!("{} events were refused for it: they came too late or are dated too far ahead", rows.len());
        found.say("items_refused", text, Value::Array(rows));
    }
    Ok(())
}

/// Facts in force that speak of the entity.
async fn allowed(sources: &Sources, found: &mut Missing, value: &str) -> Result<()> {
    for (fact, entry) in sources.reader.facts().await? {
        let text = match &fact.body {
            FactBody::Allow { network } => {
                let inside = value.parse().is_ok_and(|address: std::net::IpAddr| network.contains(&address));
                inside.then(|| format!("{value} lies in {network}, which is allowed: its alerts are withdrawn"))
            }
            // What an indicator says of the entity is told where one is needed.
            FactBody::Policy(_) | FactBody::Indicator(_) => None,
            #[allow(unreachable_patterns)] // kinds that come later are told by their words
            other => {
                let body = serde_json::to_string(other)?;
                body.contains(&format!("\"{value}\"")).then(|| format!("a fact speaks of {value}: {body}"))
            }
        };
        if let Some(text) = text {
            let detail = json!({
                "seq": entry.seq, "author": entry.author, "reason": entry.reason, "at": entry.at, "fact": fact.body,
            });
            found.say("fact_in_force", text, detail);
        }
    }
    Ok(())
}

/// What of the condition was there.
async fn counted(
    sources: &Sources,
    found: &mut Missing,
    now: &RulesThen,
    rule: &std::sync::Arc<EpisodeRule>,
    value: &str,
    (from, to): (Cell, Cell),
) -> Result<()> {
    let chains = Chains::new(now.set.episode_rules());
    let lookups = Lookups::new(&sources.history);
    let reach = rule.reach().saturating_add(chains.reach(&rule.id));
    let span = (from.saturating_sub(reach), to);
    let mut by_rule: BTreeMap<String, Items> = BTreeMap::new();
    let mut referenced: BTreeMap<String, Referenced> = BTreeMap::new();
    let mut wanted: Vec<String> = chains.all_below(&rule.id).iter().map(ToString::to_string).collect();
    wanted.push(rule.id.to_string());
    for id in wanted {
        let items = by_rule.entry(id.clone()).or_default();
        let mut take = |one: Found, of: Vec<FoundItem>| {
            for item in of.iter().filter(|item| item.names(value)) {
                items.entry(item.group()).or_default().push(item.counted(one.time.cell()));
            }
            if of.iter().any(|item| item.names(value)) && (from..=to).contains(&one.time.cell()) {
                let seen = referenced.entry(one.rule_id.clone()).or_default();
                seen.detections += 1;
                seen.first = seen.first.or(Some(one.time));
                seen.last = Some(one.time);
            }
            Ok(())
        };
        lookups.detections(&id, span, &mut take).await?;
    }
    let lookup = |rule: &str, _: Cell, _: Cell| by_rule.get(rule).cloned().unwrap_or_default();
    let mut items = by_rule.get(&*rule.id).cloned().unwrap_or_default();
    for (reference, lower) in (0..).zip(&rule.references) {
        let Some(lower) = chains.rule(lower).filter(|lower| lower.id != rule.id) else { continue };
        for episode in chains.episodes(&Tenant::default(), lower, span.0, span.1, 1, &lookup) {
            let seen = referenced.entry(lower.id.to_string()).or_default();
            seen.detections += 1;
            let first = Time::from_seconds(episode.first_hit);
            seen.first = seen.first.or(Some(first));
            seen.last = Some(first);
            // The rule may name the fields of the episode's group otherwise, or leave some out.
            let Some((group, value)) = rule.taken(reference, &episode.key.group) else { continue };
            items.entry(group).or_default().push(Counted { cell: episode.first_hit, reference, value });
        }
    }
    for id in &rule.references {
        let mut one = referenced.remove(&**id).unwrap_or_default();
        (one.rule_id, one.title) = (id.to_string(), now.title(id));
        if one.detections == 0 {
            let name = one.title.as_deref().unwrap_or(id);
            let text = format!("{name:?} met nothing of {value} in this time");
            found.say("reference_absent", text, json!({ "rule_id": id }));
        }
        found.referenced.push(one);
    }
    found.best_window = best_window(rule, &items, (from, to));
    let hits = chains.episodes(&Tenant::default(), rule, span.0, span.1, 0, &lookup);
    let hits = hits.iter().filter(|hit| hit.last_cell >= from && hit.anchor <= to).count();
    match &found.best_window {
        Some(_) if hits > 0 => {
            let text = format!("the condition is met {hits} times by the detections in history");
            found.say("condition_met", text, Value::Null);
        }
        Some(window) => {
            let text = format!(
                "no window of {} s meets the condition: the best has {} items with {} values",
                rule.timespan, window.items, window.values
            );
            found.say("condition_unmet", text, json!({ "absent": window.absent, "condition": window.condition }));
        }
        None => {}
    }
    Ok(())
}

/// The window with the fewest absent references, then the most values, then the most items; the earliest of equals.
fn best_window(rule: &EpisodeRule, items: &Items, (from, to): (Cell, Cell)) -> Option<Window> {
    let mut best: Option<((usize, std::cmp::Reverse<usize>, std::cmp::Reverse<usize>), Window)> = None;
    for (group, items) in items {
        let mut items: Vec<&Counted> = items.iter().collect();
        items.sort();
        for (at, last) in items.iter().enumerate().filter(|(_, item)| (from..=to).contains(&item.cell)) {
            let begin = last.cell.saturating_sub(rule.timespan);
            let first = items.partition_point(|item| item.cell < begin);
            let window = items.get(first..=at).unwrap_or_default();
            let absent: Vec<String> = (0u16..)
                .zip(&rule.references)
                .filter(|(place, _)| !window.iter().any(|item| item.reference == *place))
                .map(|(_, id)| id.to_string())
                .collect();
            let mut values: Vec<_> = window.iter().filter_map(|item| item.value.as_deref()).collect();
            values.sort_unstable();
            values.dedup();
            let rank = (absent.len(), std::cmp::Reverse(values.len()), std::cmp::Reverse(window.len()));
            if best.as_ref().is_none_or(|(known, _)| rank < *known) {
                let window = Window {
                    group: group.to_json(),
                    from: Time::from_seconds(begin),
                    to: Time::from_seconds(last.cell),
                    items: window.len(),
                    values: values.len(),
                    absent,
                    condition: serde_json::to_value(&rule.predicate).unwrap_or_default(),
                };
                best = Some((rank, window));
            }
        }
    }
    best.map(|(_, window)| window)
}

/// The condition that an event names the entity.
fn names(value: &str) -> String {
    let value = quoted(value);
    format!("(host = {value} or \"user\" = {value} or address = {value} or process = {value} or domain = {value})")
}

/// Whether the entity was seen at all.
async fn events(sources: &Sources, found: &mut Missing, value: &str, (from, to): (Cell, Cell)) -> Result<()> {
    let statement = format!(
        "select source, product, service, category, count(*) as events, min(time) as first, max(time) as last from events
         where {} and {} group by source, product, service, category order by events desc, source limit 20",
        in_cells(from, to),
        names(value)
    );
    let mut rows = Vec::new();
    for_each_row(&sources.history, &statement, &mut |row| {
        rows.push(row);
        Ok(())
    })
    .await?;
    let text = if rows.is_empty() {
        format!("no event of {value} is in history in this time")
    } else {
        "events of it are there, and the rule met none: `counterflow rules explain` shows why for one".to_owned()
    };
    found.say(if rows.is_empty() { "no_events" } else { "events_unmet" }, text, Value::Array(rows));
    Ok(())
}
