//! Hunts: rules that ask history in SQL, by time (DET-09). What a hunt finds enters the graph through the control log, as
//! detections of the hunt as the rule: so alerts, risk and incidents come of it as of any detection, and a replay asks
//! nothing again.
//!
//! A row is known by what its `key` columns say (or by the event that it is), and each enters once: which rows are known
//! lies in the ledger, in the transaction that records them (`cf_ledger::hunts`). It is forgotten when its time lies behind
//! the horizon, since what it raised is final then.
//!
//! **What is looked at.** `$to` is just behind the newest event that history holds, `$from` the hunt's window before it. If
//! events came since the last run that finished whose time lies before, as late ones do, or after a time in which the
//! engine or the hunt did not run, `$from` goes back to a window before the oldest of them, as far as the horizon reaches.
//! So consecutive looks overlap by at least the window, and no event that the horizon admits is missed.
//!
//! Bounds: [`ask::ROWS_MAX`] rows and [`ask::ANSWER_BYTES_MAX`] bytes of one answer, the limits of SQL for time and memory;
//! a run that meets one records nothing, says so in its state, and the next one looks at the same time again.

pub(crate) mod ask;
pub(crate) mod check;
mod counts;
mod rows;
pub(crate) mod schedule;

use std::sync::Arc;

use anyhow::{Context, Result};
use cf_ledger::{ControlEntry, HuntState, hunts};
use cf_sigma::{Hunt, RuleIndex, RuleInfo, RuleSet};
use cf_types::Detection;
use serde_json::{Value, json};

/// A hunt of a rule set.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) set: Arc<RuleSet>,
    pub(crate) index: RuleIndex,
    pub(crate) info: RuleInfo,
    pub(crate) hunt: Arc<Hunt>,
}

impl Subject {
    /// All of a set, by id.
    pub(crate) fn all(set: &Arc<RuleSet>) -> Vec<Subject> {
        let subject = |(index, info): (RuleIndex, &RuleInfo)| {
            // Few rules are hunts, and this is asked several times a second.
            let hunt = Arc::clone(info.hunt.as_ref()?);
            Some(Subject { set: Arc::clone(set), index, info: info.clone(), hunt })
        };
        let mut all: Vec<Subject> = set.indexes().zip(set.rules()).filter_map(subject).collect();
        all.sort_by(|a, b| a.info.id.cmp(&b.info.id));
        all
    }

    /// The one of an id, else the first of a name or title.
    pub(crate) fn named(set: &Arc<RuleSet>, name: &str) -> Option<Subject> {
        let mut all = Subject::all(set);
        let place = all.iter().position(|subject| *subject.info.id == *name);
        let place = place.or_else(|| all.iter().position(|subject| subject.called() == name));
        place.map(|place| all.swap_remove(place))
    }

    /// What people call it: its name, else its title.
    pub(crate) fn called(&self) -> &str {
        self.hunt.name.as_deref().unwrap_or(&self.info.title)
    }

    /// Names what it asks: the same question is the same version, wherever its file lies and whatever is said beside it.
    pub(crate) fn version(&self) -> String {
        let Hunt { query, window_s, key, .. } = &*self.hunt;
        let asked = json!([&*self.info.id, &**query, window_s, key]).to_string();
        blake3::derive_key("counterflow 2026 question of a hunt", asked.as_bytes())
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Seconds from one run to the next; 0: never by itself.
    pub(crate) fn every_s(&self, otherwise: u32) -> u32 {
        self.hunt.every_s.unwrap_or(otherwise)
    }

    /// As a row of a list, with how it stands.
    pub(crate) fn row(&self, state: Option<&HuntState>, every_s: u32) -> Value {
        let last = state.map(|state| &state.last);
        json!({
            "id": &*self.info.id, "name": self.called(), "title": &*self.info.title, "level": self.info.level,
            "tags": self.info.tags, "file": &*self.info.file, "line": self.info.line, "enabled": self.info.enabled,
            "version": self.version(), "every_s": self.every_s(every_s), "window_s": self.hunt.window_s,
            "key": self.hunt.key, "last_run": last.map(|run| run.at), "by": last.map(|run| run.by.clone()),
            "took_ms": last.map(|run| run.took_ms), "from": last.and_then(|run| run.from),
            "to": last.and_then(|run| run.to), "rows": last.map(|run| run.rows), "new": last.map(|run| run.new),
            "behind": last.map(|run| run.behind), "failures": last.map(|run| run.failures),
            "error_code": last.and_then(|run| run.code.clone()), "error": last.and_then(|run| run.error.clone()),
            "last_done": state.and_then(|state| state.done.as_ref()).map(|run| run.at),
        })
    }
}

/// What hunts found, among control-log entries.
pub(crate) fn found(entries: &[ControlEntry]) -> Result<Vec<Detection>> {
    let mut found = Vec::new();
    for entry in entries {
        found.extend(hunts::found(entry).with_context(|| format!("entry {} of the control log", entry.seq))?);
    }
    Ok(found)
}
