//! `counterflow rules test`: the events beside the rules, through the same graph as everything else.
//!
//! Beside `NAME.yml` (or `NAME.yar`) lies `NAME.test.jsonl`, one case a line:
//! `{"fires": true, "why": "...", "lines": ["raw record", ...]}`, or with a recording in place of `lines` (see [`case`]).
//! Of a file with several rules any may fire, unless the case names one: `"rule": "its id"`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use cf_engine::{Engine, EngineOptions, EpochInput};
use cf_sigma::RuleSet;
use cf_types::{Epoch, EpochOutput, Framing, Origin, Position, Record, Row, Tenant, Time};

use crate::{
    cli::RuleInputs,
    output::{self, Exit, Failed},
    rules,
};

mod case;

use case::{Case, Files, Records};

/// Other rules that a failed case names.
const OTHERS_SHOWN_MAX: usize = 10;

/// Runs all cases of the rules in these files and folders.
pub(crate) fn run(paths: &[PathBuf], inputs: &RuleInputs) -> Result<Exit> {
    let loaded = rules::load(paths, &super::rules::options(inputs)?)?;
    super::rules::report(&loaded);
    let files: BTreeSet<&str> = loaded.rules.rules().iter().map(|rule| &*rule.file).collect();
    let mut bench = Bench::start(&loaded.rules)?;
    let mut recordings = Files::default();
    let (mut cases, mut failed, mut untested) = (0, 0, 0);
    let mut absent = Vec::new();
    for file in files {
        let tests = Path::new(file).with_extension("test.jsonl");
        if !tests.exists() {
            untested += 1;
            output::note(&format!("untested: {file}"));
            continue;
        }
        let text = fs::read_to_string(&tests).with_context(|| format!("could not read {}", tests.display()))?;
        let ids: BTreeSet<&str> =
            loaded.rules.rules().iter().filter(|rule| &*rule.file == file).map(|rule| &*rule.id).collect();
        // A correlation, or a rule in the plan's form that counts: its own matches are not what it is for.
        let counting: BTreeSet<&str> = loaded
            .rules
            .episode_rules()
            .iter()
            .filter(|rule| rule.references.iter().any(|reference| *reference != rule.id))
            .map(|rule| &*rule.id)
            .collect();
        let keeps_state =
            |id: &str| counting.contains(id) || counting.iter().any(|rule| id == format!("{rule}#conditions"));
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let place = format!("{}:{}", tests.display(), number + 1);
            let no_case = || Failed(format!("{place} is no case"));
            let case = Case::parse(line).with_context(no_case)?;
            let folder = tests.parent().unwrap_or(Path::new("."));
            let lines = match case.records(folder, &mut recordings).with_context(no_case)? {
                Records::Here(lines) => lines,
                Records::Absent(path) => {
                    absent.push(path);
                    continue;
                }
            };
            cases += 1;
            let (matched, alerted) = bench.met(&lines)?;
            let asked: BTreeSet<&str> = match case.rule.as_deref() {
                Some(rule) if !ids.contains(rule) => {
                    failed += 1;
                    output::note(&format!("failed: {place}: {file} has no rule {rule:?}"));
                    continue;
                }
                Some(rule) => BTreeSet::from([rule]),
                None => ids.clone(),
            };
            let fires = |id: &str| if keeps_state(id) { alerted.contains(id) } else { matched.contains(id) };
            let fired: Vec<&str> = asked.iter().copied().filter(|id| fires(id)).collect();
            if fired.is_empty() == case.fires {
                failed += 1;
                let others: BTreeSet<&str> =
                    matched.iter().chain(&alerted).map(|id| &**id).filter(|id| !asked.contains(id)).collect();
                let others = others.into_iter().take(OTHERS_SHOWN_MAX).collect::<Vec<_>>().join(", ");
                let others =
                    if others.is_empty() { "no other rule did".to_owned() } else { format!("others did: {others}") };
                let what = if case.fires {
                    format!("must fire and did not; {others}")
                } else {
                    format!("must not fire and did: {}", fired.join(", "))
                };
                output::note(&format!("failed: {place}: {what} ({})", case.why));
            }
        }
    }
    bench.engine.stop()?;
    if let Some(path) = absent.first() {
        let count = absent.len();
        output::note(&format!("skipped: {count} cases: {} is not there (COUNTERFLOW_SHARED)", path.display()));
    }
    output::note(&format!("{cases} cases, {failed} failed, {untested} rule files without cases"));
    Ok(if failed == 0 && loaded.errors() == 0 { Exit::Ok } else { Exit::Problems })
}

/// One graph for all cases. Each lives in a tenant of its own, so that none sees another's events.
struct Bench {
    engine: Engine,
    rules: Option<Arc<RuleSet>>,
    epoch: Epoch,
}

impl Bench {
    fn start(rules: &Arc<RuleSet>) -> Result<Bench> {
        let engine = Engine::start(EngineOptions::bounded(1))?;
        Ok(Bench { engine, rules: Some(Arc::clone(rules)), epoch: 0 })
    }

    /// The ids of the rules that met a line, and of those that have an alert over them.
    fn met(&mut self, lines: &[String]) -> Result<(BTreeSet<Arc<str>>, BTreeSet<Arc<str>>)> {
        self.epoch += 1;
        let origin = Arc::new(Origin {
            tenant: Tenant::new(&format!("case-{}", self.epoch)),
            source: Arc::from("file"),
            // The year and zone of lines that have none; after any line of that year.
            received_at: "2026-12-31T23:59:59Z".parse::<Time>()?,
            year: Some(2026),
            framing: Framing::Record,
        });
        let records = lines.iter().enumerate().map(|(index, line)| Record {
            origin: Arc::clone(&origin),
            position: Position {
                origin: Arc::from("case"),
                offset: u64::try_from(index).unwrap_or(0),
                line: u64::try_from(index + 1).unwrap_or(0),
                index: 0,
            },
            bytes: Bytes::copy_from_slice(line.as_bytes()),
        });
        self.engine.feed(EpochInput {
            epoch: self.epoch,
            records: records.collect(),
            rules: self.rules.take(),
            ..EpochInput::default()
        })?;
        let output = loop {
            if let Some(output) = self.engine.output(Duration::from_secs(1))? {
                break output;
            }
        };
        Ok(ids(&output))
    }
}

fn ids(output: &EpochOutput) -> (BTreeSet<Arc<str>>, BTreeSet<Arc<str>>) {
    let detections = output.detections.iter().map(|detection| Arc::clone(&detection.rule));
    let alerts = output.rows.iter().filter_map(|(row, diff)| match row {
        Row::Alert(alert) if *diff > 0 => Some(Arc::clone(&alert.rule)),
        _ => None,
    });
    (detections.collect(), alerts.collect())
}
