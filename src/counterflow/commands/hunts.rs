//! `counterflow hunts`: how hunts stand, whether they can be asked, running one by hand.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use cf_ledger::{HuntState, Reader};
use cf_queries::Session;
use cf_sigma::{Problem, RuleSet, Severity};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    cli::{CheckHuntsArguments, Cli, HuntsArguments, HuntsCommand, RunHuntArguments, ShowHuntArguments},
    config::{RuleSettings, Settings},
    hunts::{
        Subject,
        ask::{Asker, How},
        check,
    },
    output::{self, Exit, Format},
    past, rules, sql,
};

/// Who says so, for the audit.
const USER: &str = "USER";

/// Runs one of them.
pub(crate) fn run(cli: &Cli, command: &HuntsCommand) -> Result<Exit> {
    match command {
        HuntsCommand::List(arguments) => list(cli, arguments),
        HuntsCommand::Show(arguments) => show(cli, arguments),
        HuntsCommand::Check(arguments) => check(cli, arguments),
        HuntsCommand::Run(arguments) => run_one(cli, arguments),
    }
}

/// A data folder, and the rules of its last epoch.
struct Folder {
    runtime: Runtime,
    reader: Reader,
    settings: Settings,
    /// Whether nothing ever ages out in it.
    bounded: bool,
    rules: Arc<RuleSet>,
}

impl Folder {
    fn open(cli: &Cli, data: &Path) -> Result<Folder> {
        let runtime = sql::runtime(2, 0)?;
        let reader = runtime.block_on(Reader::open(data))?;
        let (settings, bounded) = past::settings_of(cli, &runtime, &reader)?;
        let last = runtime.block_on(reader.last_epoch())?;
        let (record, _) = last.with_context(|| format!("no epoch was cut yet in {}", data.display()))?;
        let rules = past::rule_set_of(&runtime, &reader, &settings, &record.rules)?.set;
        Ok(Folder { runtime, reader, settings, bounded, rules })
    }

    fn states(&self) -> Result<Vec<HuntState>> {
        Ok(self.runtime.block_on(self.reader.hunts())?)
    }

    fn row(&self, subject: &Subject, states: &[HuntState]) -> Value {
        let state = states.iter().find(|state| *state.last.hunt == *subject.info.id);
        subject.row(state, self.settings.detection.rule_scan_interval)
    }

    fn named(&self, name: &str) -> Result<Subject> {
        named(&self.rules, name)
    }
}

fn named(rules: &Arc<RuleSet>, name: &str) -> Result<Subject> {
    Subject::named(rules, name).with_context(|| {
        let all = Subject::all(rules);
        let known: Vec<&str> = all.iter().map(Subject::called).collect();
        format!("there is no hunt {name:?}; there are {}: {}", known.len(), known.join(", "))
    })
}

fn list(cli: &Cli, arguments: &HuntsArguments) -> Result<Exit> {
    let folder = Folder::open(cli, &arguments.data)?;
    let states = folder.states()?;
    let rows: Vec<Value> = Subject::all(&folder.rules).iter().map(|subject| folder.row(subject, &states)).collect();
    let columns =
        ["name", "level", "enabled", "every_s", "window_s", "last_run", "took_ms", "rows", "new", "failures", "error"];
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &columns, rows))?;
    Ok(Exit::Ok)
}

fn show(cli: &Cli, arguments: &ShowHuntArguments) -> Result<Exit> {
    let folder = Folder::open(cli, &arguments.data)?;
    let subject = folder.named(&arguments.name)?;
    let mut row = folder.row(&subject, &folder.states()?);
    let found = folder.runtime.block_on(folder.reader.hunt_rows(&subject.info.id, arguments.limit))?;
    let found: Vec<Value> = found.into_iter().map(|row| row.row).collect();
    if let Value::Object(row) = &mut row {
        row.insert("query".to_owned(), json!(&*subject.hunt.query));
        row.insert("found".to_owned(), json!(found));
    }
    if Format::or_default(cli.output) != Format::Table {
        output::ignore_closed_pipe(output::text(&format!("{row}\n")))?;
        return Ok(Exit::Ok);
    }
    let fields = row.as_object().into_iter().flatten().filter(|(name, _)| *name != "found" && *name != "query");
    let rows = fields.map(|(name, value)| json!({ "what": name, "value": value }));
    output::ignore_closed_pipe(output::rows(Format::Table, &["what", "value"], rows.collect::<Vec<_>>()))?;
    output::ignore_closed_pipe(output::text(&format!("\n{}\n\n", subject.hunt.query)))?;
    print_rows(Format::Table, found)?;
    Ok(Exit::Ok)
}

fn check(cli: &Cli, arguments: &CheckHuntsArguments) -> Result<Exit> {
    let loaded = rules::load(&arguments.paths, &RuleSettings::default().options(3_600)?)?;
    let subjects = Subject::all(&loaded.rules);
    // What did not load may have been a hunt: of other rules, only doubts are passed over.
    let of_hunts = |problem: &&Problem| {
        problem.severity == Severity::Error
            || subjects.iter().any(|subject| problem.rule.as_ref() == Some(&subject.info.title))
    };
    let mut problems: Vec<Problem> = loaded.problems.iter().filter(of_hunts).cloned().collect();
    if let Some(data) = &arguments.data {
        // The tables say more than the schemas.
        problems.retain(|problem| problem.code != "hunt_query");
        let runtime = sql::runtime(1, 0)?;
        let session = runtime.block_on(sql::open(data, cf_queries::Options::default()))?;
        problems.extend(runtime.block_on(over(session, subjects.clone()))?);
    }
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    let rows: Vec<Value> = problems.iter().map(super::rules::problem_json).collect();
    let format = Format::or_default(cli.output);
    if format != Format::Table || !rows.is_empty() {
        let columns = ["severity", "code", "file", "line", "column", "message", "hint"];
        output::ignore_closed_pipe(output::rows(format, &columns, rows))?;
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    output::note(&format!("{} hunts load, {errors} problems", subjects.len()));
    Ok(if errors > 0 { Exit::Problems } else { Exit::Ok })
}

/// On the runtime's own threads: plans are trees, and these have the stack for them.
async fn over(session: Session, subjects: Vec<Subject>) -> Result<Vec<Problem>> {
    let looked = tokio::spawn(async move {
        let mut problems = Vec::new();
        for subject in &subjects {
            problems.extend(check::over(&session, subject).await);
        }
        problems
    });
    looked.await.context("the hunts could not be looked at")
}

fn run_one(cli: &Cli, arguments: &RunHuntArguments) -> Result<Exit> {
    let folder = Folder::open(cli, &arguments.data)?;
    let tried = !arguments.rules.is_empty();
    let subject = if tried {
        let options = super::rules::options(&arguments.inputs)?;
        named(&rules::load(&arguments.rules, &options)?.rules, &arguments.name)?
    } else {
        folder.named(&arguments.name)?
    };
    if !subject.info.enabled {
        bail!("the hunt {:?} is disabled", subject.called());
    }
    let dry = arguments.dry_run || tried || folder.bounded;
    let how = How { by: std::env::var(USER).unwrap_or_default(), from: arguments.from, to: arguments.to, dry };
    let detection = &folder.settings.detection;
    let horizon_s = (!folder.bounded).then_some(i64::from(detection.horizon_s));
    let options = folder.settings.sql.options();
    let asker = Asker::new(&arguments.data, options, horizon_s, i64::from(detection.max_ahead_s))?;
    let asker = asker.with_live(folder.reader.clone());
    let ran = folder.runtime.block_on(async {
        let asked = tokio::spawn(async move { asker.run(&subject, &how).await });
        asked.await.context("the hunt could not be run")?
    })?;
    if let Some(error) = &ran.run.error {
        bail!("the hunt came to nothing ({}): {error}", ran.run.code.as_deref().unwrap_or_default());
    }
    print_rows(Format::or_default(cli.output), ran.rows.into_iter().map(|row| row.row).collect())?;
    let (run, span) = (&ran.run, ran.run.from.zip(ran.run.to));
    let looked = span.map(|(from, to)| format!(" from {from} to {to}")).unwrap_or_default();
    let recorded = if dry {
        "nothing was recorded".to_owned()
    } else {
        format!("{} new, {} behind the horizon", run.new, run.behind)
    };
    output::note(&format!("{} rows{looked} in {} ms: {recorded}", run.rows, run.took_ms));
    Ok(Exit::Ok)
}

/// Rows with the columns that any of them has.
fn print_rows(format: Format, rows: Vec<Value>) -> Result<()> {
    let names: std::collections::BTreeSet<String> =
        rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys().cloned()).collect();
    let columns: Vec<&str> = names.iter().map(String::as_str).collect();
    output::ignore_closed_pipe(output::rows(format, &columns, rows))?;
    Ok(())
}
