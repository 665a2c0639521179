//! What rules cost and which fields came, over restarts: `rules-work.json` in the data folder.
//!
//! For people alone: nothing that is found depends on it. So it is written now and then, and begun anew if it is damaged.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use cf_sigma::RuleStats;
use serde::{Deserialize, Serialize};

const FILE: &str = "rules-work.json";
/// A file of more bytes is not ours: of 100,000 rules it has some 10 MB.
const BYTES_MAX: u64 = 64 << 20;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RulesWork {
    /// Of the fields that rules ask for, those that an event had.
    pub(crate) fields: BTreeSet<Arc<str>>,
    /// By rule id.
    pub(crate) rules: BTreeMap<Arc<str>, Cost>,
}

/// What a rule cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Cost {
    /// Events for which it was evaluated.
    pub(crate) candidates: u64,
    /// Nanoseconds, in those events that were timed.
    pub(crate) nanos_sampled: u64,
}

impl RulesWork {
    /// What the folder has; nothing if there is no such file.
    pub(crate) fn read(data: &Path) -> io::Result<RulesWork> {
        let path = data.join(FILE);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() > BYTES_MAX => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has {} bytes", meta.len())));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RulesWork::default()),
            Err(error) => return Err(error),
        }
        Ok(serde_json::from_slice(&fs::read(&path)?)?)
    }

    /// The same, begun anew where it cannot be read.
    pub(crate) fn open(data: &Path) -> RulesWork {
        RulesWork::read(data).unwrap_or_else(|error| {
            let file = data.join(FILE);
            tracing::warn!(file = %file.display(), %error, "what rules cost before is not known: the file is damaged");
            RulesWork::default()
        })
    }

    /// Puts it in the place of what the folder had.
    fn write(&self, data: &Path) -> io::Result<()> {
        let (path, fresh) = (data.join(FILE), data.join(format!("{FILE}.new")));
        fs::write(&fresh, serde_json::to_vec(self)?)?;
        fs::rename(fresh, path)
    }

    /// A rule's part of the time of all, 0 to 1.
    #[allow(clippy::as_conversions, clippy::cast_precision_loss)] // a share for people
    pub(crate) fn share(&self, rule: &str) -> Option<f64> {
        let all: u64 = self.rules.values().map(|cost| cost.nanos_sampled).sum();
        let own = self.rules.get(rule).map_or(0, |cost| cost.nanos_sampled);
        (all > 0).then(|| (own as f64 / all as f64 * 1e4).round() / 1e4)
    }
}

/// The file of a running engine.
pub(crate) struct Keeper {
    data: PathBuf,
    written: RulesWork,
}

impl Keeper {
    pub(crate) fn new(data: &Path, written: RulesWork) -> Keeper {
        Keeper { data: data.to_owned(), written }
    }

    /// Writes what is known now, if it is more.
    pub(crate) fn keep(&mut self, fields: BTreeSet<Arc<str>>, counted: &HashMap<Arc<str>, RuleStats>) {
        let cost = |stats: &RuleStats| Cost { candidates: stats.candidates, nanos_sampled: stats.nanos_sampled };
        let costs = counted.iter().map(|(rule, stats)| (Arc::clone(rule), cost(stats)));
        let now = RulesWork { fields, rules: costs.filter(|(_, cost)| *cost != Cost::default()).collect() };
        if now == self.written {
            return;
        }
        match now.write(&self.data) {
            Ok(()) => self.written = now,
            Err(error) => tracing::warn!(%error, "what rules cost could not be written; trying again"),
        }
    }
}

/// As counters go on from it.
pub(crate) fn counted(work: &RulesWork) -> HashMap<Arc<str>, RuleStats> {
    let stats = |cost: &Cost| RuleStats { hits: 0, candidates: cost.candidates, nanos_sampled: cost.nanos_sampled };
    work.rules.iter().map(|(rule, cost)| (Arc::clone(rule), stats(cost))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_damage_begins_it_anew() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(RulesWork::open(dir.path()), RulesWork::default());
        let counted = HashMap::from([
            (Arc::from("a"), RuleStats { hits: 3, candidates: 5, nanos_sampled: 75 }),
            (Arc::from("b"), RuleStats { hits: 0, candidates: 1, nanos_sampled: 25 }),
            (Arc::from("never"), RuleStats::default()),
        ]);
        Keeper::new(dir.path(), RulesWork::default()).keep(BTreeSet::from([Arc::from("Image")]), &counted);
        let work = RulesWork::read(dir.path()).unwrap();
        assert_eq!((work.fields.len(), work.rules.len()), (1, 2));
        assert_eq!((work.share("a"), work.share("b"), work.share("never")), (Some(0.75), Some(0.25), Some(0.0)));
        fs::write(dir.path().join(FILE), "{\"rules\": {\"a\"").unwrap();
        assert!(RulesWork::read(dir.path()).is_err());
        assert_eq!(RulesWork::open(dir.path()), RulesWork::default());
    }
}
