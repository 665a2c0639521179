//! Events that carry what a model can be asked about, picked out where they are decoded.
//!
//! Memory: per epoch in flight at most [`EVENTS_MAX`] candidates of each task; taken away when the epoch is applied.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use cf_engine::Tap;
use cf_models::features::flow;
use cf_types::{Entity, EntityKind, Epoch, Event, Member, Name, Reject, Tenant, fact::Observable, scored::Cells};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{EVENTS_MAX, TASKS};
use crate::triage::settings::EventMode;

/// URLs of one event that are looked at.
const URLS_MAX: usize = 8;
/// Bytes of a URL at most, as in a training's table.
const URL_BYTES_MAX: usize = 4_096;

/// An event, with what a model of a task is given of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Candidate {
    /// Which of [`TASKS`].
    pub(super) task: usize,
    pub(super) tenant: Tenant,
    pub(super) source: Arc<str>,
    pub(super) member: Member,
    pub(super) entities: Vec<Entity>,
    pub(super) cells: Cells,
}

/// Candidates of epochs that are not applied yet.
#[derive(Default)]
pub(crate) struct Gathered {
    wanted: [bool; 2],
    urls: Vec<Name>,
    flows: Vec<(&'static str, Name)>,
    epochs: Mutex<BTreeMap<Epoch, OfEpoch>>,
}

#[derive(Default)]
struct OfEpoch {
    candidates: Vec<Candidate>,
    counts: [usize; 2],
    left_out: usize,
}

impl Gathered {
    pub(super) fn new(modes: [EventMode; 2]) -> Gathered {
        // Decoders keep only fields whose names somebody knows.
        Gathered {
            wanted: modes.map(|mode| mode != EventMode::Off),
            urls: Name::intern_all(Observable::URL_FIELDS),
            flows: flow::FIELDS.into_iter().zip(Name::intern_all(flow::FIELDS)).collect(),
            epochs: Mutex::default(),
        }
    }

    /// The candidates of an epoch, in the order of their events whatever worker had them; and how many were left out.
    pub(super) fn take(&self, epoch: Epoch) -> (Vec<Candidate>, usize) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        // Epochs are applied in order: what is left of earlier ones is nobody's.
        let later = epochs.split_off(&(epoch + 1));
        let Some(mut of) = std::mem::replace(&mut *epochs, later).remove(&epoch) else { return (Vec::new(), 0) };
        drop(epochs);
        let key = |candidate: &Candidate| (candidate.task, candidate.member.clone(), format!("{:?}", candidate.cells));
        of.candidates.sort_by_cached_key(key);
        (of.candidates, of.left_out)
    }

    /// The candidates among events.
    pub(crate) fn of_events(&self, events: &[Event]) -> Vec<Candidate> {
        let mut found = Vec::new();
        events.iter().for_each(|event| self.of_event(event, &mut found));
        found
    }

    /// Adds candidates of an epoch, up to its bounds.
    pub(crate) fn add(&self, epoch: Epoch, new: Vec<Candidate>) {
        if new.is_empty() {
            return;
        }
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let of = epochs.entry(epoch).or_default();
        for candidate in new {
            match of.counts.get_mut(candidate.task) {
                Some(count) if *count < EVENTS_MAX => {
                    *count += 1;
                    of.candidates.push(candidate);
                }
                _ => of.left_out += 1,
            }
        }
    }

    fn of_event(&self, event: &Event, out: &mut Vec<Candidate>) {
        let [urls, flows] = self.wanted;
        if urls {
            let texts = urls_of(event, &self.urls);
            out.extend(texts.into_iter().map(|url| {
                let cells = [(Arc::from("url"), Value::from(url))].into_iter().collect();
                candidate(0, event, cells)
            }));
        }
        if flows && let Some(cells) = flow_of(event, &self.flows) {
            out.push(candidate(1, event, cells));
        }
    }
}

/// The URLs of an event; of one that names a domain and no URL, the address that a browser would ask first.
fn urls_of(event: &Event, names: &[Name]) -> Vec<String> {
    let named = names.iter().flat_map(|name| event.fields.all(*name)).map(|(text, _)| text.trim());
    let is_url = |text: &&str| text.len() <= URL_BYTES_MAX && !Observable::of_url(text).is_empty();
    let whole = |text: &str| if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let mut urls: Vec<String> = named.filter(is_url).map(whole).collect();
    if urls.is_empty() {
        let domains = event.entities.iter().filter(|entity| entity.kind == EntityKind::Domain);
        urls = domains.map(|domain| format!("http://{}/", domain.value)).collect();
    }
    urls.sort();
    urls.dedup();
    urls.truncate(URLS_MAX);
    urls
}

fn flow_of(event: &Event, names: &[(&'static str, Name)]) -> Option<Cells> {
    let field = |wanted: &str| {
        let (_, name) = names.iter().find(|(name, _)| *name == wanted)?;
        event.fields.first(*name)
    };
    let flow = flow::read(field)?;
    let number = |number: Option<f64>| number.map_or(Value::Null, Value::from);
    let text = |text: Option<String>| text.map_or(Value::Null, Value::from);
    let cells = [
        ("duration", number(flow.duration)),
        ("protocol_type", text(flow.protocol_type)),
        ("service", text(flow.service)),
        ("flag", text(flow.flag)),
        ("src_bytes", number(flow.src_bytes)),
        ("dst_bytes", number(flow.dst_bytes)),
    ];
    Some(cells.into_iter().map(|(name, value)| (Arc::from(name), value)).collect())
}

fn candidate(task: usize, event: &Event, cells: Cells) -> Candidate {
    debug_assert!(task < TASKS.len(), "a task has a name");
    Candidate {
        task,
        tenant: event.origin.tenant.clone(),
        source: Arc::clone(&event.origin.source),
        member: Member {
            time: event.time,
            id: event.id(),
            declared_id: event.declared_id.as_deref().map(Arc::from),
            position: event.position.clone(),
        },
        entities: event.entities.clone(),
        cells,
    }
}

/// Looks at decoded events on their way to another tap.
pub(super) struct Gather {
    pub(super) inner: Arc<dyn Tap>,
    pub(super) gathered: Arc<Gathered>,
}

impl Tap for Gather {
    fn decoded(&self, epoch: Epoch, worker: usize, events: &[Event], rejects: &[Reject]) {
        self.gathered.add(epoch, self.gathered.of_events(events));
        self.inner.decoded(epoch, worker, events, rejects);
    }
}
