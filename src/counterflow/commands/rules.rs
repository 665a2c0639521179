//! `counterflow rules check | list | test | explain | import | coverage`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use cf_sigma::{LogSources, Problem, RuleInfo, Severity, rule::LogSourcePattern};
use cf_types::Level;
use serde_json::{Value, json};

use super::{backtest, rules_enable, rules_explain, rules_import, rules_test, sarif};
use crate::{
    cli::{CheckArguments, Cli, CoverageArguments, ListArguments, RuleArguments, RuleInputs, RulesCommand},
    config::RuleSettings,
    output::{self, Exit, Format},
    rules::{self, LoadedRules, RuleOptions},
    rules_work::RulesWork,
};

/// Runs one of them.
pub(crate) fn run(cli: &Cli, command: &RulesCommand) -> Result<Exit> {
    match command {
        RulesCommand::Check(arguments) => check(cli, arguments),
        RulesCommand::List(arguments) => list(cli, arguments),
        RulesCommand::Test { paths, inputs } => rules_test::run(paths, inputs),
        RulesCommand::Explain(arguments) => rules_explain::run(cli, arguments),
        RulesCommand::Backtest(arguments) => backtest::run(cli, arguments),
        RulesCommand::Enable(arguments) => rules_enable::run(arguments),
        RulesCommand::Import(arguments) => rules_import::run(cli, arguments),
        RulesCommand::Coverage(arguments) => coverage(arguments),
    }
}

/// How rules are read and compiled by these flags.
pub(crate) fn options(inputs: &RuleInputs) -> Result<RuleOptions> {
    let settings = RuleSettings {
        paths: Vec::new(),
        log_sources: inputs.log_sources.clone(),
        placeholders: inputs.placeholders.clone(),
        pipelines: inputs.pipelines.clone(),
    };
    settings.options(cf_sigma::Options::default().fold_window_s)
}

/// Loads rules for another subcommand and says, in few lines, what did not load.
pub(crate) fn load(arguments: &RuleArguments) -> Result<LoadedRules> {
    let loaded = rules::load(&arguments.rules, &options(&arguments.inputs)?)?;
    report(&loaded);
    Ok(loaded)
}

/// Says what did not load: all errors, warnings only as a number.
pub(crate) fn report(loaded: &LoadedRules) {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        loaded.problems.iter().partition(|problem| problem.severity == Severity::Error);
    for problem in &errors {
        output::note(&format!("error: {problem}"));
    }
    let rules = loaded.rules.rules().len();
    output::note(&format!("{rules} rules loaded, {} problems, {} warnings", errors.len(), warnings.len()));
}

/// Says when scans with YARA rules were cut short: what they might have found is not known.
pub(crate) fn report_scans() {
    #[cfg(feature = "yara")]
    {
        let cf_yara::Counters { scans_total, cut_total, timeouts_total, failures_total } = cf_yara::counters();
        if cut_total + timeouts_total + failures_total > 0 {
            output::note(&format!(
                "warning: of {scans_total} scans with YARA rules {cut_total} saw only the first part of a value, \
                 {timeouts_total} ran out of time, {failures_total} failed"
            ));
        }
    }
}

/// Every code of a problem with what it means.
pub(crate) fn codes() -> Vec<(&'static str, &'static str)> {
    let mut codes = cf_sigma::codes().to_vec();
    codes.push((
        "correlation-depth",
        "Correlations are chained deeper than four levels. Refer to the lower rules directly.",
    ));
    #[cfg(feature = "yara")]
    codes.extend(cf_yara::CODES);
    #[cfg(not(feature = "yara"))]
    codes.push(("yara_absent", "This program was built without YARA."));
    codes
}

fn check(cli: &Cli, arguments: &CheckArguments) -> Result<Exit> {
    known_codes(arguments.ignore.iter().chain(&arguments.only))?;
    let options = options(&arguments.inputs)?;
    let texts = rules::read(&arguments.paths)?;
    let parsed = rules::parse(&texts, &options.parse);
    let sigma: Vec<_> = texts.iter().filter(|text| !rules::is_yara(&text.file)).cloned().collect();
    let doubts = cf_sigma::lint(&sigma, &parsed);
    let (loaded, mut problems) = rules::compile_parsed(parsed, &options.compile);
    problems.extend(doubts);
    problems.retain(|problem| {
        let is = |code: &String| code == problem.code;
        (arguments.only.is_empty() || arguments.only.iter().any(is)) && !arguments.ignore.iter().any(is)
    });
    problems.sort_by(|left, right| (&left.file, left.line, left.column).cmp(&(&right.file, right.line, right.column)));

    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.len() - errors;
    let format = Format::or_default(cli.output);
    if format == Format::Sarif {
        let log = serde_json::to_string_pretty(&sarif::log(&problems, &codes()))?;
        output::ignore_closed_pipe(output::text(&(log + "\n")))?;
    } else {
        let with_warnings = arguments.warnings || arguments.strict || !arguments.only.is_empty();
        let shown = problems.iter().filter(|problem| with_warnings || problem.severity == Severity::Error);
        let rows: Vec<_> = shown.map(problem_json).collect();
        if format != Format::Table || !rows.is_empty() {
            let columns = ["severity", "code", "file", "line", "column", "message", "hint"];
            output::ignore_closed_pipe(output::rows(format, &columns, rows))?;
        }
    }
    output::note(&format!("{} rules load, {errors} problems, {warnings} warnings", loaded.rules().len()));
    let failed = errors > 0 || (arguments.strict && warnings > 0);
    Ok(if failed { Exit::Problems } else { Exit::Ok })
}

/// A misspelt code would silently check nothing.
fn known_codes<'a>(asked: impl Iterator<Item = &'a String>) -> Result<()> {
    let codes = codes();
    for code in asked {
        if !codes.iter().any(|(known, _)| known == code) {
            let known: Vec<&str> = codes.iter().map(|(code, _)| *code).collect();
            bail!("there is no code {code:?}; the codes are {}", known.join(", "));
        }
    }
    Ok(())
}

/// A problem as a row.
pub(crate) fn problem_json(problem: &Problem) -> Value {
    json!({
        "severity": problem.severity, "code": problem.code, "file": problem.file, "line": problem.line,
        "column": problem.column, "rule": problem.rule, "message": problem.message, "hint": problem.hint,
    })
}

fn list(cli: &Cli, arguments: &ListArguments) -> Result<Exit> {
    let options = options(&arguments.inputs)?;
    let texts = rules::read(&arguments.paths)?;
    let parsed = rules::parse(&texts, &options.parse);
    let sources: HashMap<Arc<str>, LogSourcePattern> =
        parsed.rules.iter().map(|rule| (Arc::clone(&rule.id), rule.log_source.clone())).collect();
    let (compiled, problems) = rules::compile_parsed(parsed, &options.compile);
    let met = arguments.data.as_deref().map(met).transpose()?;
    let work = arguments.data.as_deref().map(RulesWork::read).transpose().context("could not read rules-work.json")?;
    compiled.have_seen(work.iter().flat_map(|work| work.fields.iter().cloned()));
    let unseen = compiled.fields_unseen();
    let least = arguments.level.as_deref().and_then(level);
    let wanted = arguments.logsource.as_deref().map(WantedSource::read);
    let table = &options.compile.log_sources;
    let shown = compiled.indexes().zip(compiled.rules()).filter(|(index, rule)| {
        let source = sources.get(&rule.id);
        least.is_none_or(|least| rule.level >= least)
            && (arguments.tag.is_empty() || has_tag(rule, &arguments.tag))
            && wanted.as_ref().is_none_or(|wanted| source.is_some_and(|source| wanted.fits(source)))
            && (!arguments.unfed || source.is_some_and(|source| is_unfed(table, source)))
            && (!arguments.unseen || unseen.contains_key(index))
    });
    let rows = shown.map(|(index, rule)| {
        let mut row = rule_json(rule, sources.get(&rule.id), met.as_ref());
        if let Some(work) = &work {
            row["candidates"] = json!(work.rules.get(&rule.id).map_or(0, |cost| cost.candidates));
            row["cpu_share"] = json!(work.share(&rule.id));
            row["fields_unseen"] = json!(unseen.get(&index).cloned().unwrap_or_default());
        }
        row
    });
    let mut columns = vec!["rule_id", "title", "level", "status", "log_source", "alerts", "file", "line"];
    if met.is_some() {
        columns.extend(["hits", "last_hit", "candidates", "cpu_share", "fields_unseen"]);
    }
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), &columns, rows))?;
    let loaded = LoadedRules { rules: compiled, problems, texts: Vec::new() };
    report(&loaded);
    Ok(if loaded.errors() == 0 { Exit::Ok } else { Exit::Problems })
}

fn rule_json(rule: &RuleInfo, source: Option<&LogSourcePattern>, met: Option<&BTreeMap<Arc<str>, Met>>) -> Value {
    let mut row = json!({
        "rule_id": rule.id, "title": rule.title, "level": rule.level, "status": rule.status,
        "log_source": source.map(shown_source), "alerts": rule.alerts, "correlation": rule.correlation,
        "enabled": rule.enabled, "tags": rule.tags, "author": rule.meta.author, "file": rule.file, "line": rule.line,
    });
    if let Some(met) = met {
        let met = met.get(&rule.id);
        row["hits"] = json!(met.map_or(0, |met| met.hits));
        row["last_hit"] = json!(met.map(|met| &met.last));
    }
    row
}

fn level(word: &str) -> Option<Level> {
    [Level::Informational, Level::Low, Level::Medium, Level::High, Level::Critical]
        .into_iter()
        .find(|level| level.as_str() == word)
}

fn has_tag(rule: &RuleInfo, wanted: &[String]) -> bool {
    let begins = |tag: &str, wanted: &String| tag.to_lowercase().starts_with(&wanted.to_lowercase());
    rule.tags.iter().any(|tag| wanted.iter().any(|wanted| begins(tag, wanted)))
}

/// A rule whose log source says nothing takes every event.
fn is_unfed(table: &LogSources, source: &LogSourcePattern) -> bool {
    *source != LogSourcePattern::default() && table.known(source).is_nothing()
}

/// `windows/process_creation/-`.
fn shown_source(source: &LogSourcePattern) -> String {
    let parts = [&source.product, &source.category, &source.service];
    parts.map(|part| part.as_deref().unwrap_or("-")).join("/")
}

/// What `--logsource` asks for.
enum WantedSource {
    /// A word that any of the three parts may be.
    AnyPart(String),
    /// Product, category, service; none where any will do.
    Parts(Vec<Option<String>>),
}

impl WantedSource {
    fn read(text: &str) -> WantedSource {
        let text = text.to_lowercase();
        if text.contains('/') {
            let part =
                |part: &str| Some(part.trim()).filter(|part| !part.is_empty() && *part != "-").map(str::to_owned);
            return WantedSource::Parts(text.split('/').map(part).collect());
        }
        WantedSource::AnyPart(text)
    }

    fn fits(&self, source: &LogSourcePattern) -> bool {
        let parts = [&source.product, &source.category, &source.service];
        match self {
            WantedSource::AnyPart(word) => parts.iter().any(|part| part.as_deref() == Some(word)),
            WantedSource::Parts(wanted) => {
                let mut pairs = wanted.iter().zip(parts);
                wanted.len() <= parts.len()
                    && pairs.all(|(wanted, part)| wanted.is_none() || wanted.as_deref() == part.as_deref())
            }
        }
    }
}

/// What a rule met.
struct Met {
    hits: u64,
    last: String,
}

/// By rule id: what the history of a data folder says.
fn met(data: &Path) -> Result<BTreeMap<Arc<str>, Met>> {
    cf_ledger::format::check(data)?;
    let history = cf_history::Place::of_data(data)?;
    if !history.may_exist() {
        bail!("there is no history in {}; give the folder of an engine or of `replay --data`", data.display());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("could not start")?;
    let mut lines = Vec::new();
    runtime.block_on(async {
        let session = cf_queries::Session::open(&history, cf_queries::Options::default())?;
        let statement = "select rule_id, count(*) as hits, max(time) as last from detections group by rule_id";
        let mut rows = session.query(statement).await?;
        cf_queries::write_json_lines(&mut rows, &mut lines).await?;
        anyhow::Ok(())
    })?;
    let rows = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    rows.map(|line| {
        let row: Value = serde_json::from_slice(line).context("could not read what the history says of rules")?;
        let rule = Arc::from(row["rule_id"].as_str().unwrap_or_default());
        let last = row["last"].as_str().map_or_else(|| row["last"].to_string(), str::to_owned);
        Ok((rule, Met { hits: row["hits"].as_u64().unwrap_or(0), last }))
    })
    .collect()
}

fn coverage(arguments: &CoverageArguments) -> Result<Exit> {
    let loaded = rules::load(&arguments.paths, &options(&arguments.inputs)?)?;
    report(&loaded);
    let met = arguments.data.as_deref().map(met).transpose()?;
    let hits = met.map(|met| met.into_iter().map(|(rule, met)| (rule, met.hits)).collect::<BTreeMap<_, _>>());
    let enabled: Vec<RuleInfo> = loaded.rules.rules().iter().filter(|rule| rule.enabled).cloned().collect();
    let layer = cf_sigma::navigator_layer(&enabled, hits.as_ref(), &arguments.name);
    let techniques: BTreeSet<&str> = layer["techniques"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["techniqueID"].as_str())
        .collect();
    let text = serde_json::to_string_pretty(&layer)? + "\n";
    if arguments.out.as_os_str() == "-" {
        output::ignore_closed_pipe(output::text(&text))?;
    } else {
        fs::write(&arguments.out, text).with_context(|| format!("could not write {}", arguments.out.display()))?;
    }
    output::note(&format!("{} rules, {} techniques", enabled.len(), techniques.len()));
    Ok(if loaded.errors() == 0 { Exit::Ok } else { Exit::Problems })
}
