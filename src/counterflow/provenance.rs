//! Why there is an alert, and why there is none: from the ledger (state, revisions, rules, facts) and from history (the
//! events). The same for `explain` and the API, beside a running and beside a stopped engine.

pub(crate) mod events;
mod lacking;
mod missing;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use cf_ledger::{
    Reader,
    provenance::RevisionView,
    read::{ActionView, AlertFilter, AlertView},
};
use cf_queries::Session;
use cf_sigma::RuleSet;
use cf_types::{Alert, EpisodeRule, Epoch, Fact, FactBody};
use serde::Serialize;
use serde_json::{Value, json};

pub(crate) use events::EventRow;
pub(crate) use missing::{Missing, missing};

use self::events::Lookups;
use crate::{
    below::Chains,
    rulebook::{self, KeptText},
    rules,
};

/// Events shown from each end unless all are wanted.
pub(crate) const EVENTS_PER_END: usize = 20;
/// Events told at most, even if all are wanted.
pub(crate) const EVENTS_MAX: usize = 1_000_000;

/// Where answers are from.
pub(crate) struct Sources {
    reader: Reader,
    history: Session,
}

/// Why there is an alert.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    /// The alert as the ledger has it, without the events that it keeps inline.
    pub(crate) alert: AlertView,
    /// The rule as it was when the alert changed last.
    pub(crate) rule: RuleOf,
    /// What happened to the alert's thread, in order.
    pub(crate) revisions: Vec<RevisionView>,
    /// Facts that touched it, with what they did.
    pub(crate) facts: Vec<Value>,
    /// What was done because of it.
    pub(crate) actions: Vec<ActionView>,
    /// The episodes of lower correlations that it stands on.
    pub(crate) below: Vec<Below>,
    /// How many events; of a chained correlation, those of the episodes below.
    pub(crate) events_total: usize,
    /// The first events, or all of them.
    pub(crate) first_events: Vec<EventRow>,
    /// The last events that are not among the first.
    pub(crate) last_events: Vec<EventRow>,
    /// What could not be looked up, and why.
    pub(crate) notes: Vec<String>,
}

/// The rule of an alert.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RuleOf {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) description: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    /// Hash of its file's text.
    pub(crate) text_hash: Option<String>,
    /// Hash of the set that it was in force with.
    pub(crate) rule_set: Option<String>,
    /// Version of the engine that evaluated it.
    pub(crate) engine: Option<String>,
    /// What it counts, and when that is a hit.
    pub(crate) condition: Option<Value>,
    /// Window length in seconds.
    pub(crate) timespan_s: Option<i64>,
    /// The rules that it refers to, and how many of the alert's members met each.
    pub(crate) references: Vec<Reference>,
}

/// One rule that another refers to.
#[derive(Debug, Serialize)]
pub(crate) struct Reference {
    pub(crate) id: String,
    pub(crate) title: Option<String>,
    pub(crate) count: Option<u64>,
}

/// An episode that a chained correlation stands on.
#[derive(Debug, Serialize)]
pub(crate) struct Below {
    /// Its alert's id; an alert only if its rule alerts.
    pub(crate) alert_id: String,
    pub(crate) rule_id: String,
    pub(crate) title: String,
    pub(crate) group: Value,
    pub(crate) anchor: i64,
    pub(crate) last_cell: i64,
    pub(crate) count: u64,
}

/// Rules as an epoch had them.
struct RulesThen {
    set: Arc<RuleSet>,
    hash: String,
    engine: String,
    /// Hash of each file's text.
    texts: BTreeMap<Arc<str>, String>,
}

impl RulesThen {
    fn episode_rule(&self, id: &str) -> Option<&Arc<EpisodeRule>> {
        self.set.episode_rules().iter().find(|rule| &*rule.id == id)
    }

    fn title(&self, id: &str) -> Option<String> {
        Some(self.set.rules().iter().find(|rule| &*rule.id == id)?.title.to_string())
    }
}

impl Sources {
    /// Opens what there is in a data folder.
    pub(crate) async fn open(data: &Path) -> Result<Sources> {
        let reader = Reader::open(data).await?;
        Sources::new(reader, data)
    }

    /// Over a reader that is there.
    pub(crate) fn new(reader: Reader, data: &Path) -> Result<Sources> {
        let history = Session::open(cf_history::Place::of_data(data)?, cf_queries::Options::default())?;
        Ok(Sources { reader, history })
    }

    /// The rules of an epoch; `None` with why, when they are not kept.
    async fn rules_at(&self, epoch: Epoch) -> Result<Result<RulesThen, String>> {
        let record = self.reader.epoch(epoch).await?;
        let (hash, engine) = match record {
            Some((record, _)) => (record.rules, record.engine),
            // The ledger keeps records for replays only, history keeps them all.
            None => match events::epoch(&self.history, epoch).await? {
                Some(found) => found,
                None => return Ok(Err(format!("neither ledger nor history has epoch {epoch}"))),
            },
        };
        let Some(body) = self.reader.rule_set_get(&hash).await? else {
            return Ok(Err(format!("the texts of rule set {hash} are not kept here")));
        };
        let mut texts = Vec::new();
        for (file, kept) in rulebook::files(&body)? {
            let text = match kept {
                KeptText::Text(text) => text,
                KeptText::Hash(hash) => {
                    let text = self.reader.rule_set_get(&hash).await?;
                    let text = text.with_context(|| format!("the ledger lacks the text {hash} of rule file {file}"))?;
                    String::from_utf8(text).context("a rule text in the ledger is damaged")?
                }
            };
            texts.push(cf_sigma::Text { file: file.into(), text });
        }
        let hashes = texts.iter().map(|text| (Arc::clone(&text.file), rulebook::text_hash(&text.text))).collect();
        let (set, _problems) = rules::compile(&texts, &rules::RuleOptions::default());
        Ok(Ok(RulesThen { set, hash, engine, texts: hashes }))
    }

    /// The rules of the last epoch.
    async fn rules_now(&self) -> Result<Result<RulesThen, String>> {
        let upper = self.reader.engine().await?.upper;
        self.rules_at(upper.saturating_sub(1)).await
    }
}

/// Explains an alert, with so many events from each end; `None` if no alert or thread has this id.
pub(crate) async fn alert(sources: &Sources, id: &str, per_end: usize) -> Result<Option<Explanation>> {
    let filter = AlertFilter { id: Some(id.to_owned()), limit: 100, ..AlertFilter::default() };
    let mut alerts = sources.reader.alerts(&filter).await?;
    // Of a thread the one that stands; an id of its own comes first.
    alerts.sort_by_key(|alert| (alert.alert_id != id, matches!(alert.state.as_str(), "superseded" | "withdrawn")));
    let Some(mut view) = alerts.into_iter().next() else { return Ok(None) };
    let content: Alert = serde_json::from_value(view.content.clone()).context("an alert's content is damaged")?;
    let mut notes = Vec::new();
    let (_, changed) = sources.reader.epochs_of(&view.alert_id).await?.unwrap_or_default();
    let then = match sources.rules_at(changed).await? {
        Ok(then) => Some(then),
        Err(why) => {
            notes.push(format!("the rule's text is not at hand: {why}"));
            None
        }
    };
    let chains = then.as_ref().map_or_else(Chains::default, |then| Chains::new(then.set.episode_rules()));
    let lookups = Lookups::new(&sources.history);
    let below = lookups.below(&chains, &content).await?;
    let events = lookups.members(&content, &below, per_end).await?;
    if events.total == 0 {
        notes.push("history has none of its events; those that the ledger keeps are shown".to_owned());
    }
    let (mut first_events, mut last_events) = (events.first, events.last);
    if let Some(members) = view.members.take().filter(|_| events.total == 0) {
        first_events = members.first_members.iter().map(EventRow::of_member).collect();
        last_events = members.last_members.iter().map(EventRow::of_member).collect();
    }
    let all_actions = sources.reader.actions(100_000).await?;
    let is_reason = |action: &ActionView| action.alerts.contains(&view.alert_id);
    Ok(Some(Explanation {
        rule: rule_of(&content, then.as_ref()),
        revisions: sources.reader.revisions_of(&view.thread).await?,
        facts: facts(sources, &view, &content).await?,
        actions: all_actions.into_iter().filter(is_reason).collect(),
        below: below.iter().map(|episode| below_of(episode, then.as_ref())).collect(),
        events_total: events.total,
        first_events,
        last_events,
        notes,
        alert: view,
    }))
}

fn below_of(episode: &cf_types::Episode, then: Option<&RulesThen>) -> Below {
    Below {
        alert_id: episode.id().to_string(),
        rule_id: episode.key.rule.to_string(),
        title: then.and_then(|then| then.title(&episode.key.rule)).unwrap_or_default(),
        group: episode.key.group.to_json(),
        anchor: episode.anchor,
        last_cell: episode.last_cell,
        count: episode.count,
    }
}

fn rule_of(alert: &Alert, then: Option<&RulesThen>) -> RuleOf {
    let mut rule = RuleOf { id: alert.rule.to_string(), title: alert.title.to_string(), ..RuleOf::default() };
    let Some(then) = then else { return rule };
    rule.rule_set = Some(then.hash.clone());
    rule.engine = Some(then.engine.clone());
    if let Some(info) = then.set.rules().iter().find(|info| info.id == alert.rule) {
        rule.description = Some(info.description.to_string()).filter(|text| !text.is_empty());
        rule.file = Some(info.file.to_string());
        rule.line = Some(info.line);
        rule.text_hash = then.texts.get(&info.file).cloned();
    }
    if let Some(episodes) = then.episode_rule(&alert.rule) {
        rule.condition = serde_json::to_value(&episodes.predicate).ok();
        rule.timespan_s = Some(episodes.timespan);
        let counts = alert.reference_counts.iter().map(Some).chain(std::iter::repeat(None));
        let reference = |(id, count): (&Arc<str>, Option<&u64>)| Reference {
            id: id.to_string(),
            title: then.title(id),
            count: count.copied(),
        };
        rule.references = episodes.references.iter().zip(counts).map(reference).collect();
    }
    rule
}

/// The facts of the control log that touched an alert: those that speak of its entities, and the policies that want
/// something done because of it.
async fn facts(sources: &Sources, view: &AlertView, alert: &Alert) -> Result<Vec<Value>> {
    let wishes = sources.reader.wishes_of(&view.alert_id).await?;
    let mut found = Vec::new();
    let mut held: BTreeSet<Fact> = BTreeSet::new();
    for (entry, fact, added) in sources.reader.facts_said().await? {
        let known = if added { !held.insert(fact.clone()) } else { !held.remove(&fact) };
        let Some(effect) = effect(&fact, added, view, alert, &wishes).filter(|_| !known) else { continue };
        found.push(json!({
            "seq": entry.seq, "said": if added { "added" } else { "removed" }, "kind": fact.body.kind(),
            "fact": fact.body, "author": entry.author, "reason": entry.reason, "at": entry.at, "effect": effect,
        }));
    }
    Ok(found)
}

/// What a fact does to an alert; `None` if it does not concern it.
fn effect(fact: &Fact, added: bool, view: &AlertView, alert: &Alert, wishes: &[(String, String)]) -> Option<String> {
    #[allow(clippy::match_wildcard_for_single_variants)] // kinds that come later are told by their words
    match &fact.body {
        FactBody::Allow { network } => {
            let inside = |value: &str| value.parse().is_ok_and(|address: std::net::IpAddr| network.contains(&address));
            let entity = alert.entities.iter().find(|entity| inside(&entity.value))?;
            let does = match (added, view.state.as_str()) {
                (false, _) => "since its end the alert may stand",
                (true, "withdrawn") => "withdraws it",
                (true, "sealed") => "came when the alert was final, or went before",
                (true, _) => "would withdraw it, but is not in force any more",
            };
            Some(format!("{entity} lies in {network}: {does}"))
        }
        FactBody::Policy(policy) => {
            let fits = alert.level >= policy.level_min
                && (policy.rules.is_empty() || policy.rules.contains(&alert.rule))
                && (policy.tags.is_empty() || policy.tags.iter().any(|tag| alert.tags.contains(tag)));
            let wanted: Vec<String> = wishes
                .iter()
                .filter(|(kind, _)| kind == policy.action.as_str())
                .map(|(kind, target)| format!("wants {kind} {target}"))
                .collect();
            (fits && !wanted.is_empty()).then(|| wanted.join(", "))
        }
        #[allow(unreachable_patterns)]
        other => {
            let text = serde_json::to_string(other).ok()?;
            let entity = alert.entities.iter().find(|entity| text.contains(&format!("\"{}\"", entity.value)))?;
            Some(format!("speaks of {entity}"))
        }
    }
}
