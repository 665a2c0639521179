//! What hunts did since the start of the process, for `/metrics`.
//!
//! In: runs as they end. Key: the rule's id. Memory: an entry per hunt and word for how a run ended, of which there are few; it goes
//! when the hunt goes. The page shows what there is when it is asked for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cf_api::metrics::{Kind, Page};
use cf_ledger::HuntRun;

/// How a run that came to something ended.
const OK: &str = "ok";

/// Counts of all hunts.
#[derive(Default)]
pub(super) struct Counts(Mutex<BTreeMap<Arc<str>, Count>>);

#[derive(Default)]
struct Count {
    /// Runs by how they ended.
    runs: BTreeMap<String, u64>,
    rows: u64,
    new: u64,
    took: Duration,
    /// Why the last run came to nothing, and how many in a row did.
    failing: Option<(String, u64)>,
}

impl Counts {
    /// Counts a run.
    pub(super) fn add(&self, id: &Arc<str>, run: &HuntRun) {
        let mut all = self.all();
        let count = all.entry(Arc::clone(id)).or_default();
        let ended = run.code.clone().unwrap_or_else(|| OK.to_owned());
        *count.runs.entry(ended).or_default() += 1;
        count.rows += run.rows;
        count.new += run.new;
        count.took += Duration::from_millis(run.took_ms);
        count.failing = run.code.clone().map(|code| (code, run.failures));
    }

    /// Forgets the hunts that are not there any more.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.all().retain(|id, _| is_there(id));
    }

    /// Writes them down.
    pub(super) fn write(&self, page: &mut Page) {
        let all = self.all();
        let ended = all.iter().flat_map(|(id, count)| count.runs.iter().map(move |(result, runs)| (id, result, *runs)));
        let ended: Vec<_> =
            ended.map(|(id, result, runs)| ([("rule_id", &**id), ("result", result.as_str())], runs)).collect();
        let help = "Runs of a hunt since the start, by how they ended: ok, or the code of what was in the way.";
        page.metric("hunt_runs_total", Kind::Counter, help, ended.iter().map(|(labels, runs)| (&labels[..], *runs)));
        let labels: Vec<_> = all.keys().map(|id| [("rule_id", &**id)]).collect();
        let rows = || labels.iter().map(|labels| &labels[..]).zip(all.values());
        let help = "Rows that a hunt's query gave.";
        page.metric("hunt_rows_total", Kind::Counter, help, rows().map(|(labels, count)| (labels, count.rows)));
        let help = "Rows of a hunt that were new.";
        page.metric("hunt_new_rows_total", Kind::Counter, help, rows().map(|(labels, count)| (labels, count.new)));
        let help = "Seconds that a hunt's runs took.";
        let took = rows().map(|(labels, count)| (labels, count.took.as_secs_f64()));
        page.metric("hunt_seconds_total", Kind::Counter, help, took);
        let failing = all.iter().filter_map(|(id, count)| Some((id, count.failing.as_ref()?)));
        let failing: Vec<_> =
            failing.map(|(id, (code, runs))| ([("rule_id", &**id), ("code", code.as_str())], *runs)).collect();
        let help = "Runs of a hunt that came to nothing in a row, the last one among them, with its code.";
        page.metric("hunt_failing", Kind::Gauge, help, failing.iter().map(|(labels, runs)| (&labels[..], *runs)));
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hunt_that_came_to_nothing_is_told_until_it_comes_to_something() {
        let counts = Counts::default();
        let page = || {
            let mut page = Page::default();
            counts.write(&mut page);
            let text = page.into_text();
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(page(), Vec::<String>::new());
        let id: Arc<str> = Arc::from("many");
        counts.add(&id, &HuntRun { rows: 3, new: 2, took_ms: 500, ..HuntRun::default() });
        let failed = HuntRun { code: Some("time_limit".to_owned()), took_ms: 1_000, failures: 4, ..HuntRun::default() };
        counts.add(&id, &failed);
        assert_eq!(
            page(),
            [
                "counterflow_hunt_runs_total{rule_id=\"many\",result=\"ok\"} 1",
                "counterflow_hunt_runs_total{rule_id=\"many\",result=\"time_limit\"} 1",
                "counterflow_hunt_rows_total{rule_id=\"many\"} 3",
                "counterflow_hunt_new_rows_total{rule_id=\"many\"} 2",
                "counterflow_hunt_seconds_total{rule_id=\"many\"} 1.5",
                "counterflow_hunt_failing{rule_id=\"many\",code=\"time_limit\"} 4",
            ]
        );
        counts.add(&id, &HuntRun::default());
        assert!(!page().iter().any(|line| line.contains("hunt_failing")), "{:?}", page());
        counts.retain(|id| id != "many");
        assert_eq!(page(), Vec::<String>::new());
    }
}
