//! Settings that change while `run` is on: policies, sources, limits by the clock, and with them a look at the rules.
//!
//! All or nothing: settings that are not right change nothing. What cannot change in a running graph is named, so that
//! nobody believes it did. Policies become facts, so that they are replayed as they were; how sources decode holds from
//! the next epoch on, and after a restart for all that is read again.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use cf_ingest::SourceTable;
use cf_ledger::{Ledger, Reader};
use cf_types::{Fact, FactBody, Tenant, clock};
use serde_json::{Value, json};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot},
};

use crate::{
    config::{self, PolicySettings, Settings},
    provenance::{self, Sources},
    reload::Reload,
};

/// Keys (or what they begin with) that a running engine takes in; others want a restart.
const LIVE: &[&str] = &["policies", "sources", "detection.idle_after_s"];

/// Alerts explained at once; others wait. Each look-up may read much of history.
const EXPLAINING_MAX: usize = 2;
/// Events told by one answer over HTTP, even if all are asked for: the command line tells more.
const EVENTS_MAX: usize = 100_000;

/// What waits for the conductor.
#[derive(Clone, Default)]
pub(crate) struct Changed {
    /// How sources decode from the next epoch on.
    pub(crate) sources: Option<Arc<SourceTable>>,
    /// After how much silence a source does not hold the watermark back.
    pub(crate) idle_after: Option<Duration>,
}

/// Where it waits.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Changed>);

impl Waiting {
    /// For the conductor: what changed since it asked last.
    pub(crate) fn take(&self) -> Changed {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, changed: Changed) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.sources = changed.sources.or(waiting.sources.take());
        waiting.idle_after = changed.idle_after.or(waiting.idle_after.take());
    }
}

/// The settings in force, and how they are read.
pub(crate) struct Live {
    read: Box<dyn Fn() -> Result<Settings> + Send + Sync>,
    now: tokio::sync::Mutex<Settings>,
    ledger: Ledger,
    reader: Reader,
    data: PathBuf,
    rules: Arc<Reload>,
    waiting: Arc<Waiting>,
    explaining: Arc<Semaphore>,
    runtime: Handle,
}

impl Live {
    pub(crate) fn new(
        read: Box<dyn Fn() -> Result<Settings> + Send + Sync>,
        now: Settings,
        (ledger, reader, data): (Ledger, Reader, PathBuf),
        rules: Arc<Reload>,
        waiting: Arc<Waiting>,
        runtime: Handle,
    ) -> Arc<Live> {
        let (now, explaining) = (tokio::sync::Mutex::new(now), Arc::new(Semaphore::new(EXPLAINING_MAX)));
        Arc::new(Live { read, now, ledger, reader, data, rules, waiting, explaining, runtime })
    }

    /// Reads everything anew; says what changed, what did not, and what is wrong with rules.
    pub(crate) async fn reload(&self) -> Result<Value> {
        let mut now = self.now.lock().await;
        // Before anything is changed.
        let new = (self.read)()?;
        let sources = config::sources(&new)?;
        let (mut changed, mut restart) = (Vec::new(), Vec::new());
        for key in differing(&serde_json::to_value(&*now)?, &serde_json::to_value(&new)?) {
            // How a source decodes may change; where it is read is part of what runs.
            let kafka = |settings: &Settings| {
                let name = key.strip_prefix("sources.")?;
                settings.sources.get(name)?.kafka.clone()
            };
            if kafka(&now) != kafka(&new) {
                restart.push(format!("{key}.kafka"));
            }
            let is_live = LIVE.iter().any(|live| key == *live || key.starts_with(&format!("{live}.")));
            (if is_live { &mut changed } else { &mut restart }).push(key);
        }
        adopt_policies(&self.ledger, &new.policies).await?;
        let of = |section: &str| changed.iter().any(|key| key.starts_with(section));
        let idle_after = Duration::from_secs(u64::from(new.detection.idle_after_s));
        self.waiting.put(Changed {
            sources: of("sources").then_some(sources),
            idle_after: of("detection").then_some(idle_after),
        });
        now.policies = new.policies;
        now.sources = new.sources;
        now.detection.idle_after_s = new.detection.idle_after_s;
        let rules = self.rules.look_now().await;
        if !restart.is_empty() {
            tracing::warn!(keys = ?restart, "these settings hold from the next start on");
        }
        tracing::info!(keys = ?changed, "settings and rules were read anew");
        Ok(json!({ "changed": changed, "needs_restart": restart, "rules": rules }))
    }
}

impl cf_api::Engine for Live {
    fn explain(&self, alert: String, all: bool) -> oneshot::Receiver<Result<Option<Value>, String>> {
        let (answer, answered) = oneshot::channel();
        let (reader, data, explaining) = (self.reader.clone(), self.data.clone(), Arc::clone(&self.explaining));
        self.runtime.spawn(async move {
            let explained = async {
                let _turn = explaining.acquire().await?;
                let sources = Sources::new(reader, &data)?;
                let per_end = if all { EVENTS_MAX } else { provenance::EVENTS_PER_END };
                let explained = provenance::alert(&sources, &alert, per_end).await?;
                Ok::<_, anyhow::Error>(explained.map(serde_json::to_value).transpose()?)
            };
            // Whoever asked may be gone.
            drop(answer.send(explained.await.map_err(|error| format!("{error:#}"))));
        });
        answered
    }

    fn reload(self: Arc<Self>) -> oneshot::Receiver<Result<Value, String>> {
        let (answer, answered) = oneshot::channel();
        let runtime = self.runtime.clone();
        runtime.spawn(async move {
            let report = Live::reload(&self).await;
            let nothing = |error: anyhow::Error| format!("nothing was changed: {error:#}");
            drop(answer.send(report.map_err(nothing)));
        });
        answered
    }
}

/// Keys of sections that differ, two levels deep: `detection.horizon_s`, `policies`.
fn differing(old: &Value, new: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let object = |value: &Value| value.as_object().unwrap_or(&empty).clone();
    let (old, new) = (object(old), object(new));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut found = Vec::new();
    for key in keys {
        let pair = (old.get(key), new.get(key));
        match pair {
            (old, new) if old == new => {}
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                let inner: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
                let differ = inner.into_iter().filter(|inner| old.get(*inner) != new.get(*inner));
                found.extend(differ.map(|inner| format!("{key}.{inner}")));
            }
            _ => found.push(key.clone()),
        }
    }
    found
}

/// Brings the policies of the settings into the control log: what changed is a fact that comes or goes, so that epochs
/// of before are replayed with the policies that they had.
pub(crate) async fn adopt_policies(ledger: &Ledger, policies: &[PolicySettings]) -> Result<()> {
    let fact = |policy: &PolicySettings| Fact { tenant: Tenant::default(), body: FactBody::Policy(policy.to_policy()) };
    let wanted: BTreeSet<Fact> = policies.iter().map(fact).collect();
    let held = ledger.facts_at(i64::MAX).await?;
    let policies = held.iter().filter(|fact| matches!(fact.body, FactBody::Policy(_)));
    let gone = policies.filter(|fact| !wanted.contains(*fact)).map(|fact| ("fact_remove", fact));
    let new = wanted.iter().filter(|fact| !held.contains(fact)).map(|fact| ("fact_add", fact));
    for (kind, fact) in gone.chain(new) {
        let body = serde_json::to_string(fact)?;
        ledger.control_append(kind, &body, "settings", "policies of the settings", clock::now()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_by_section_and_key() {
        let old =
            json!({"detection": {"workers": 1, "idle_after_s": 30}, "policies": [], "data": "x", "same": {"a": 1}});
        let new =
            json!({"detection": {"workers": 2, "idle_after_s": 5}, "policies": [1], "data": "x", "same": {"a": 1}});
        assert_eq!(differing(&old, &new), ["detection.idle_after_s", "detection.workers", "policies"]);
        assert!(differing(&old, &old).is_empty());
    }
}
