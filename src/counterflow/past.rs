//! The past of a data folder, read beside a running or a stopped engine: epochs, rules and facts as they were, and the
//! events that came with them. Nothing here writes.
//!
//! Two ways through it: *known* (all events and facts as known now, in any order) and *lived* (epoch by epoch, each with
//! the rules and the facts that it had). What a folder's epochs were computed with besides (horizon, windows, how sources
//! decode) is kept in the ledger by each start of the engine ([`keep`]).

mod decode;
mod drive;
mod lived;
mod outcome;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use cf_dataflows::GraphOptions;
use cf_history::Place;
use cf_ledger::{
    ControlEntry, Ledger, Reader,
    read::{AlertFilter, AlertView},
};
use cf_queries::Session;
use cf_sigma::{RuleSet, Text};
use cf_types::{Alert, Detection, Epoch, EpochRecord, Fact, Time, clock};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Runtime;

pub(crate) use decode::{Decoding, One};
pub(crate) use drive::Drive;
pub(crate) use lived::Lived;
pub(crate) use outcome::{Outcome, RuleHits};

use crate::{
    config::{self, DetectionSettings, RuleSettings, ScoringSettings, Settings, SourceSettings},
    rulebook::{self, KeptText},
    rules,
};

/// Before the number of a start where the ledger keeps what its epochs were computed with.
const SETTINGS_PREFIX: &str = "settings:";
/// Epoch records that are read at once.
const EPOCHS_PAGE: usize = 10_000;

/// What the epochs of one start were computed with, besides rules and facts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    detection: DetectionSettings,
    scoring: ScoringSettings,
    rules: RuleSettings,
    sources: BTreeMap<String, cf_ingest::SourceOptions>,
    /// Whether nothing could come any more after the last epoch: a replay, without a horizon.
    bounded: bool,
}

impl Kept {
    /// The same as settings, what it does not say as in `others`.
    pub(crate) fn into_settings(self, others: Settings) -> Settings {
        let Kept { detection, scoring, rules, sources, .. } = self;
        let sources =
            sources.into_iter().map(|(name, options)| (name, SourceSettings { options, kafka: None })).collect();
        Settings { detection, scoring, rules, sources, ..others }
    }
}

/// Keeps what the epochs of a generation are computed with; `None` for a replay of files.
pub(crate) async fn keep(ledger: &Ledger, generation: u64, settings: Option<&Settings>) -> Result<()> {
    let kept = match settings {
        Some(Settings { detection, scoring, rules, sources, .. }) => Kept {
            detection: detection.clone(),
            scoring: scoring.clone(),
            rules: rules.clone(),
            // How they decode, never how to reach them: there are passwords among that.
            sources: sources.iter().map(|(name, source)| (name.clone(), source.options.clone())).collect(),
            bounded: false,
        },
        None => Kept { bounded: true, ..Kept::default() },
    };
    let body = serde_json::to_vec(&kept)?;
    ledger.rule_set_put(&format!("{SETTINGS_PREFIX}{generation}"), &body, clock::now()).await?;
    Ok(())
}

/// A point of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// The last epoch.
    pub(crate) epoch: Epoch,
    /// The control log up to this entry.
    pub(crate) control: i64,
}

/// A rule set of before, with the texts that it is from.
#[derive(Clone)]
pub(crate) struct RulesThen {
    pub(crate) set: Arc<RuleSet>,
    pub(crate) texts: Vec<Text>,
}

/// The past of a data folder.
pub(crate) struct Past {
    pub(crate) runtime: Runtime,
    pub(crate) data: PathBuf,
    reader: Reader,
    session: Session,
    pub(crate) settings: Settings,
    /// Whether the folder is that of a replay of files: its epochs had no horizon.
    pub(crate) bounded: bool,
}

impl Past {
    /// Opens a data folder. Settings of a file win over those that the engine kept.
    pub(crate) fn open(cli: &crate::cli::Cli, data: &Path) -> Result<Past> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let history = Place::of_data(data)?;
        if !history.may_exist() {
            bail!("there is no history in {}; give the folder of an engine or of `replay --data`", data.display());
        }
        let reader = runtime.block_on(Reader::open(data))?;
        let session = Session::open(&history, cf_queries::Options::default())?;
        let (settings, bounded) = settings_of(cli, &runtime, &reader)?;
        Ok(Past { runtime, data: data.to_path_buf(), reader, session, settings, bounded })
    }

    /// Where its history lies.
    pub(crate) fn history(&self) -> Result<Place> {
        Ok(Place::of_data(&self.data)?)
    }

    /// How rules are read and compiled here.
    pub(crate) fn rule_options(&self) -> Result<rules::RuleOptions> {
        self.settings.rules.options(self.settings.detection.fold_window_s)
    }

    /// The options of a graph in which nothing ages out.
    pub(crate) fn bounded_graph(&self) -> Result<GraphOptions> {
        bounded_graph(&self.settings)
    }

    /// What the epochs were computed with.
    pub(crate) fn kept(&self) -> Kept {
        let Settings { detection, scoring, rules, sources, .. } = &self.settings;
        Kept {
            detection: detection.clone(),
            scoring: scoring.clone(),
            rules: rules.clone(),
            sources: sources.iter().map(|(name, source)| (name.clone(), source.options.clone())).collect(),
            bounded: self.bounded,
        }
    }

    /// The alerts of an incident, as the ledger has them.
    pub(crate) fn alerts_of_incident(&self, number: i64) -> Result<Vec<Alert>> {
        let filter = AlertFilter { incident: Some(number), limit: 100_000, ..AlertFilter::default() };
        let alerts = self.runtime.block_on(self.reader.alerts(&filter))?;
        let stands = |alert: &AlertView| !matches!(alert.state.as_str(), "withdrawn" | "superseded");
        let content = |alert: AlertView| serde_json::from_value(alert.content).context("an alert's content is damaged");
        alerts.into_iter().filter(stands).map(content).collect()
    }

    /// Runs a query of many rows and gives them batch by batch.
    pub(crate) fn each_batch(
        &self,
        statement: &str,
        each: &mut dyn FnMut(&cf_history::RowBatch) -> Result<()>,
    ) -> Result<()> {
        let mut rows = self.runtime.block_on(self.session.query(statement))?;
        while let Some(batch) = self.runtime.block_on(rows.next())? {
            each(&batch)?;
        }
        Ok(())
    }

    /// The options of the graph as the epochs had them.
    pub(crate) fn lived_graph(&self) -> Result<GraphOptions> {
        if self.bounded { self.bounded_graph() } else { config::graph(&self.settings) }
    }

    /// The point that is meant: an epoch's number, a time of the wall clock, or the last epoch that history holds.
    pub(crate) fn point(&self, as_of: Option<&str>) -> Result<Point> {
        let condition = match as_of {
            None => "true".to_owned(),
            Some(text) => match (text.parse::<Epoch>(), text.parse::<Time>()) {
                (Ok(epoch), _) => format!("epoch <= {epoch}"),
                (_, Ok(time)) => format!("wall <= cast('{time}' as timestamp)"),
                _ => bail!("{text:?} is neither the number of an epoch nor a time such as 2026-01-05T14:00:00Z"),
            },
        };
        let last = format!("select epoch, control from epochs where {condition} order by epoch desc limit 1");
        let Some(row) = self.rows(&last)?.into_iter().next() else {
            match as_of {
                Some(text) => bail!("history has no epoch as of {text}"),
                None => bail!("history has no epoch yet"),
            }
        };
        let epoch = row.get("epoch").and_then(Value::as_u64).context("an epoch of history has no number")?;
        let control = row.get("control").and_then(Value::as_i64).unwrap_or(0);
        Ok(Point { epoch, control })
    }

    /// The records of the epochs after `after` up to and with `upto`, so many at once.
    pub(crate) fn records(&self, after: Epoch, upto: Epoch) -> Result<Vec<EpochRecord>> {
        let statement = format!(
            "select epoch, cast(wall as bigint) as wall, generation, ends, idle, control, rules, engine from epochs
             where epoch > {after} and epoch <= {upto} order by epoch limit {EPOCHS_PAGE}"
        );
        self.rows(&statement)?.into_iter().map(record).collect()
    }

    /// The entries of the control log after one up to and with another.
    pub(crate) fn control_between(&self, after: i64, upto: i64) -> Result<Vec<ControlEntry>> {
        let mut entries: Vec<ControlEntry> = Vec::new();
        let mut last = after;
        while last < upto {
            let more = self.runtime.block_on(self.reader.control_since(last))?;
            let Some(end) = more.last().map(|entry| entry.seq) else { break };
            entries.extend(more.into_iter().filter(|entry| entry.seq <= upto));
            last = end;
        }
        Ok(entries)
    }

    /// The facts that hold at an entry of the control log, sorted.
    pub(crate) fn facts_at(&self, control: i64) -> Result<Vec<Fact>> {
        let mut facts = BTreeSet::new();
        for entry in self.control_between(0, control)? {
            match entry.fact()? {
                Some((fact, 1)) => drop(facts.insert(fact)),
                Some((fact, _)) => drop(facts.remove(&fact)),
                None => {}
            }
        }
        Ok(facts.into_iter().collect())
    }

    /// What hunts had found up to an entry of the control log, of a span of event time.
    pub(crate) fn hunts_found(&self, control: i64, from: Option<Time>, to: Option<Time>) -> Result<Vec<Detection>> {
        let mut found = crate::hunts::found(&self.control_between(0, control)?)?;
        let within = |time: Time| from.is_none_or(|from| time >= from) && to.is_none_or(|to| time < to);
        found.retain(|detection| within(detection.member.time));
        Ok(found)
    }

    /// The rule set that an epoch met its events with.
    pub(crate) fn rules_of(&self, epoch: Epoch) -> Result<RulesThen> {
        let records = self.records(epoch.saturating_sub(1), epoch)?;
        let record = records.last().with_context(|| format!("history does not have epoch {epoch}"))?;
        self.rule_set(&record.rules)
    }

    /// A rule set that the ledger keeps, by its hash.
    pub(crate) fn rule_set(&self, hash: &str) -> Result<RulesThen> {
        rule_set_of(&self.runtime, &self.reader, &self.settings, hash)
    }

    /// Runs a query of few rows.
    pub(crate) fn rows(&self, statement: &str) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        self.runtime.block_on(async {
            let mut rows = self.session.query(statement).await?;
            cf_queries::write_json_lines(&mut rows, &mut lines).await
        })?;
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).context("a row of history is no JSON")).collect()
    }

    /// The events of epochs up to `upto`, in the order of their epochs, then of where they are from.
    fn by_epoch(&self, upto: Epoch) -> Result<cf_queries::Rows> {
        let statement = format!(
            "select {} from events where epoch <= {upto} order by epoch, origin, record_offset, record_index",
            cf_history::RECORD_COLUMNS.join(", ")
        );
        Ok(self.runtime.block_on(self.session.query(&statement))?)
    }
}

/// The settings that the epochs of a folder were computed with, and whether it is that of a replay of files. Those of a
/// file win over those that the engine kept.
pub(crate) fn settings_of(cli: &crate::cli::Cli, runtime: &Runtime, reader: &Reader) -> Result<(Settings, bool)> {
    let said = config::load(cli, None)?.settings;
    let generation = runtime.block_on(reader.engine())?.generation;
    let kept = runtime.block_on(reader.rule_set_get(&format!("{SETTINGS_PREFIX}{generation}")))?;
    let Some(body) = kept else { return Ok((said, false)) };
    let kept: Kept = serde_json::from_slice(&body).context("the settings kept in the ledger are damaged")?;
    let bounded = kept.bounded;
    Ok((if cli.config.is_none() { kept.into_settings(said) } else { said }, bounded))
}

/// A rule set that the ledger keeps, by its hash.
pub(crate) fn rule_set_of(runtime: &Runtime, reader: &Reader, settings: &Settings, hash: &str) -> Result<RulesThen> {
    let texts = texts(runtime, reader, hash)?;
    let options = settings.rules.options(settings.detection.fold_window_s)?;
    let (set, _problems) = rules::compile(&texts, &options);
    if set.hash() != hash {
        bail!(
            "the rule set {hash} of the ledger compiles to {}: placeholders, log sources or pipelines are others now; \
             give the settings of then with --config",
            set.hash()
        );
    }
    Ok(RulesThen { set, texts })
}

fn texts(runtime: &Runtime, reader: &Reader, hash: &str) -> Result<Vec<Text>> {
    let get = |hash: &str| runtime.block_on(reader.rule_set_get(hash));
    let body = get(hash)?.with_context(|| format!("the ledger lacks rule set {hash}"))?;
    let mut texts = Vec::new();
    for (file, kept) in rulebook::files(&body)? {
        let text = match kept {
            KeptText::Text(text) => text,
            KeptText::Hash(hash) => {
                let text = get(&hash)?;
                let text = text.with_context(|| format!("the ledger lacks the text {hash} of rule file {file}"))?;
                String::from_utf8(text).context("a rule text in the ledger is damaged")?
            }
        };
        texts.push(Text { file: file.into(), text });
    }
    Ok(texts)
}

/// The options of a graph in which nothing ages out.
pub(crate) fn bounded_graph(settings: &Settings) -> Result<GraphOptions> {
    // Nothing is ahead of its receipt, either: a bound that no time reaches.
    Ok(GraphOptions { horizon_s: None, max_ahead_s: i64::MAX / 4_000_000, ..config::graph(settings)? })
}

/// An epoch's record out of history: all that a replay needs. What a restart needs besides stays with the ledger.
fn record(row: Value) -> Result<EpochRecord> {
    #[derive(Deserialize)]
    struct Kept {
        epoch: Epoch,
        wall: i64,
        generation: u64,
        ends: String,
        idle: Vec<String>,
        control: i64,
        rules: String,
        engine: String,
    }
    let kept: Kept = serde_json::from_value(row).context("an epoch of history is damaged")?;
    let mut ends: BTreeMap<String, u64> =
        serde_json::from_str(&kept.ends).context("the ends of an epoch of history are damaged")?;
    Ok(EpochRecord {
        epoch: kept.epoch,
        wall: Time::from_micros(kept.wall),
        generation: kept.generation,
        passed_ms: ends.remove(cf_history::PASSED_MS).unwrap_or(0),
        ends,
        starts: BTreeMap::new(),
        marks: BTreeMap::new(),
        newest: BTreeMap::new(),
        idle: kept.idle,
        control: kept.control,
        rules: kept.rules,
        begun: Vec::new(),
        models: BTreeMap::new(), // the control log says it: see `lived`
        engine: kept.engine,
    })
}
