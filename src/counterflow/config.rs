//! The settings: one struct per component, put together here; flags win over the file.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail};
use cf_dataflows::{GraphOptions, IncidentOptions};
use cf_ingest::{SourceOptions, SourceTable};
use cf_queries::SqlSettings;
use cf_response::ResponseSettings;
use cf_settings::{Foreign, Loaded, Lookup};
use cf_sigma::{LogSources, Pipeline, Pipelines, Problem};
use cf_types::{ActionKind, Entity, EntityKind, Level, assess::OfficeHours, fact::Policy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    cli::{Cli, RunArguments},
    history_settings::HistorySettings,
    ledger_settings::LedgerSettings,
    rules::RuleOptions,
    sinks::SinkSettings,
    triage::settings::ModelsSettings,
};

/// All settings.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// How this instance calls itself.
    pub(crate) app: AppSettings,
    /// Folder for all that is kept: spool, ledger, facts log, history.
    pub(crate) data: Option<PathBuf>,
    /// Rules and what they speak of.
    pub(crate) rules: RuleSettings,
    /// The ways in.
    pub(crate) listen: ListenSettings,
    /// How each source decodes, by its name: `syslog`, `http`, `file`, and those of Kafka, which are read by it.
    pub(crate) sources: BTreeMap<String, SourceSettings>,
    /// Where alerts, incidents and actions go as records, by a name of yours.
    pub(crate) sinks: BTreeMap<String, SinkSettings>,
    /// The spool: what was accepted and not yet evaluated.
    pub(crate) spool: SpoolSettings,
    /// The ledger: where it is.
    pub(crate) ledger: LedgerSettings,
    /// SQL for others: limits, and the Postgres wire.
    pub(crate) sql: SqlSettings,
    /// History: where it lies, how long and how much of it is kept.
    pub(crate) history: HistorySettings,
    /// Rules and windows.
    pub(crate) detection: DetectionSettings,
    /// How alerts and entities are scored.
    pub(crate) scoring: ScoringSettings,
    /// From alerts to desired actions.
    pub(crate) policies: Vec<PolicySettings>,
    /// Channels and actions.
    pub(crate) response: ResponseSettings,
    /// How playbooks and actions are run.
    pub(crate) orchestration: OrchestrationSettings,
    /// Models that answer while the engine runs.
    pub(crate) models: ModelsSettings,
}

/// How this instance calls itself.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AppSettings {
    /// Its name, in logs.
    pub(crate) name: String,
    /// Its environment (`production`, `staging`, ...), in logs.
    pub(crate) environment: String,
}

impl Default for AppSettings {
    fn default() -> AppSettings {
        AppSettings { name: "counterflow".to_owned(), environment: "production".to_owned() }
    }
}

/// Rules and what they speak of.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RuleSettings {
    /// Rule files and folders.
    pub(crate) paths: Vec<PathBuf>,
    /// Files with more rows for the table of log sources.
    pub(crate) log_sources: Vec<PathBuf>,
    /// Values of placeholders (modifier `expand`), each `NAME=VALUE`; a name may come several times.
    pub(crate) placeholders: Vec<String>,
    /// pySigma processing pipelines (YAML files), run in the order of their priorities: they rename fields and rewrite
    /// rules before they are compiled.
    pub(crate) pipelines: Vec<PathBuf>,
}

impl RuleSettings {
    /// How rules are read and compiled by these settings.
    pub(crate) fn options(&self, fold_window_s: u32) -> Result<RuleOptions> {
        let mut options = RuleOptions::default();
        options.compile.fold_window_s = fold_window_s;
        let pipelines = pipelines(&self.pipelines)?;
        // What is said here goes before what a pipeline has as `vars`.
        options.parse.placeholders = pipelines.placeholders();
        options.parse.placeholders.extend(placeholders(&self.placeholders)?);
        options.compile.pipelines = Arc::new(pipelines);
        if !self.log_sources.is_empty() {
            options.compile.log_sources = Arc::new(log_sources(&self.log_sources)?);
        }
        Ok(options)
    }
}

fn placeholders(pairs: &[String]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut placeholders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
            bail!("the placeholder {pair:?} is not of the form NAME=VALUE");
        };
        placeholders.entry(name.trim().trim_matches('%').to_owned()).or_default().push(value.to_owned());
    }
    Ok(placeholders)
}

fn pipelines(files: &[PathBuf]) -> Result<Pipelines> {
    let said = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ");
    let mut list = Vec::new();
    for text in crate::rules::read(files)? {
        match Pipeline::parse(&text) {
            Ok((pipeline, doubts)) => {
                if !doubts.is_empty() {
                    crate::output::note(&format!("warning: {}", said(doubts)));
                }
                list.push(pipeline);
            }
            Err(problems) => bail!("the pipeline {} cannot be read:\n  {}", text.file, said(problems)),
        }
    }
    Ok(Pipelines::new(list))
}

fn log_sources(files: &[PathBuf]) -> Result<LogSources> {
    let texts = crate::rules::read(files)?;
    LogSources::built_in().extended_by(&texts).map_err(|problems| {
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow!("the table of log sources cannot be extended:\n  {}", said.join("\n  "))
    })
}

/// Addresses to listen on. Loopback only, until there are tokens.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListenSettings {
    /// HTTP interface, `ADDR:PORT`.
    #[schemars(with = "Option<String>")]
    pub(crate) http: Option<SocketAddr>,
    /// Syslog by UDP, `ADDR:PORT`.
    #[schemars(with = "Option<String>")]
    pub(crate) syslog_udp: Option<SocketAddr>,
    /// Syslog by TCP (octet counting or lines), `ADDR:PORT`.
    #[schemars(with = "Option<String>")]
    pub(crate) syslog_tcp: Option<SocketAddr>,
}

/// One source: how it decodes, and where it is read if it is not one that is sent to us.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct SourceSettings {
    #[serde(flatten)]
    pub(crate) options: SourceOptions,
    /// Topics of a Kafka cluster to read.
    pub(crate) kafka: Option<cf_kafka::KafkaSettings>,
}

/// The spool.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SpoolSettings {
    /// Bytes kept at most; beyond it senders are asked to wait (429, TCP stops reading, UDP is counted as dropped).
    pub(crate) bytes_max: u64,
}

impl Default for SpoolSettings {
    fn default() -> SpoolSettings {
        SpoolSettings { bytes_max: 16 << 30 } // some hours at 10,000 events/s
    }
}

/// Rules and windows.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DetectionSettings {
    /// Worker threads of the graph.
    pub(crate) workers: u16,
    /// How far behind the watermark late events still correct alerts, in seconds.
    pub(crate) horizon_s: u32,
    /// How far ahead of its receipt an event may be dated and still move the watermark, in seconds.
    pub(crate) max_ahead_s: u32,
    /// How much the events of one source may be out of order before the watermark passes them, in seconds.
    pub(crate) disorder_s: u32,
    /// Repeats of a plain rule's alert on the same entities, at most this many seconds apart, are one alert.
    pub(crate) fold_window_s: u32,
    /// Alerts that share an entity at most this many seconds apart are one incident.
    pub(crate) incident_window_s: u32,
    /// A host, user or address that alerts of one day name together with more than this many others connects no alerts of
    /// the next day: behind it stands a gateway, a scanner or a shared service. Two shared ones still connect.
    pub(crate) incident_hub_neighbours_max: u32,
    /// Entities that never connect alerts, each as KIND:VALUE: `host:proxy1`, `user:backup`, `address:10.0.0.1`.
    pub(crate) incident_unlinked: Vec<String>,
    /// A source that has been silent for this many seconds does not hold the watermark back.
    pub(crate) idle_after_s: u32,
    /// When a partition of Kafka is behind: how far others may be ahead of it in event time, in seconds, before they wait
    /// for it. 0: they do not wait.
    pub(crate) max_drift_s: u32,
    /// How often hunts (rules that ask history in SQL) are run, in seconds, if they do not say; 0: only by hand. Other rules
    /// meet events as they come.
    pub(crate) rule_scan_interval: u32,
    /// Hunts that run at once; more wait.
    pub(crate) max_concurrent_scans: u32,
    /// Alerts that one rule may have in one hour of event time. Of more, the first are told, and the others are one alert
    /// that counts them.
    pub(crate) alerts_per_rule_hour_max: u32,
    /// Detections in events of before (by a new indicator) that enter with one epoch; what more there is enters with the
    /// next ones.
    pub(crate) lookup_slice_max: u32,
    /// How often rule files are looked at, in seconds: what changed is in force from the next epoch on. Thousands of files are
    /// looked at less often, but every 5 seconds. 0: only at a start and at SIGHUP.
    pub(crate) rule_watch_s: u32,
}

impl Default for DetectionSettings {
    fn default() -> DetectionSettings {
        DetectionSettings {
            workers: 1,
            horizon_s: 86_400,
            max_ahead_s: 300,
            disorder_s: 5,
            fold_window_s: 3_600,
            incident_window_s: 86_400,
            incident_hub_neighbours_max: 50,
            incident_unlinked: Vec::new(),
            idle_after_s: 30,
            max_drift_s: 600,
            rule_scan_interval: 60,
            max_concurrent_scans: 10,
            alerts_per_rule_hour_max: 1_000, // nobody reads a thousand alerts of one rule in an hour
            lookup_slice_max: 1_000,         // an eighth of what an epoch may bring otherwise
            rule_watch_s: 1,
        }
    }
}

impl DetectionSettings {
    /// What connects alerts to incidents.
    pub(crate) fn incidents(&self) -> Result<IncidentOptions> {
        let entity = |text: &String| {
            let wrong =
                || format!("detection.incident_unlinked: {text:?} is no entity; write KIND:VALUE, e.g. host:proxy1");
            let (kind, value) = text.split_once(':').with_context(wrong)?;
            let kind: EntityKind = serde_json::from_value(kind.into()).with_context(wrong)?;
            Entity::of(kind, value).with_context(wrong)
        };
        Ok(IncidentOptions {
            window: i64::from(self.incident_window_s),
            hub_neighbours_max: self.incident_hub_neighbours_max,
            unlinked: Arc::new(self.incident_unlinked.iter().map(entity).collect::<Result<_>>()?),
            ..IncidentOptions::default()
        })
    }
}

/// How alerts and entities are scored.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ScoringSettings {
    /// Whether an alert outside of office hours weighs more (by 5 %).
    pub(crate) office_hours: bool,
    /// Hour in which work begins, 0 to 23.
    pub(crate) office_from_hour: u8,
    /// Hour in which it ends, 1 to 24.
    pub(crate) office_until_hour: u8,
    /// Days of work: 1 is Monday, 7 Sunday.
    pub(crate) office_days: Vec<u8>,
    /// Minutes that the office is east of UTC.
    pub(crate) office_utc_offset_minutes: i16,
    /// The sum of an entity's scores of a day, decayed, in tenths, from which on its risk is an alert of its own; 0: never.
    pub(crate) risk_alert_tenths: u32,
    /// Alerts that new facts may concern and that are still scored anew with one epoch. If it is more (a rule's precision, the
    /// criticality of a network), each epoch scores a tenth of this, so that nothing else waits.
    pub(crate) rescored_at_once: u32,
}

impl Default for ScoringSettings {
    fn default() -> ScoringSettings {
        ScoringSettings {
            office_hours: false,
            office_from_hour: 8,
            office_until_hour: 18,
            office_days: vec![1, 2, 3, 4, 5],
            office_utc_offset_minutes: 0,
            risk_alert_tenths: 300,
            rescored_at_once: 10_000, // about a second of one core; a tenth of it stays below a tenth of a second
        }
    }
}

impl ScoringSettings {
    /// When people are at work, if that matters.
    pub(crate) fn office_hours(&self) -> Option<OfficeHours> {
        let days =
            self.office_days.iter().filter(|day| (1..=7).contains(*day)).fold(0, |days, day| days | 1 << (day - 1));
        self.office_hours.then_some(OfficeHours {
            from_hour: self.office_from_hour,
            until_hour: self.office_until_hour,
            days,
            offset_minutes: self.office_utc_offset_minutes,
        })
    }
}

/// From alerts to one desired action. All conditions given must hold.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PolicySettings {
    /// Its name, for the audit.
    pub(crate) name: String,
    /// Alerts of this level or above: informational, low, medium, high, critical.
    #[schemars(with = "String")]
    pub(crate) level_min: Level,
    /// Alerts of these rules, by id; empty: of all.
    pub(crate) rules: Vec<String>,
    /// Alerts with one of these tags; empty: with any or none.
    pub(crate) tags: Vec<String>,
    /// What to do: block_address.
    #[schemars(with = "String")]
    pub(crate) action: ActionKind,
    /// How long the effect lasts, in seconds.
    pub(crate) ttl_s: u32,
}

impl Default for PolicySettings {
    fn default() -> PolicySettings {
        PolicySettings {
            name: "block".to_owned(),
            level_min: Level::High,
            rules: Vec::new(),
            tags: Vec::new(),
            action: ActionKind::BlockAddress,
            ttl_s: 3_600,
        }
    }
}

impl PolicySettings {
    /// As a fact.
    pub(crate) fn to_policy(&self) -> Policy {
        let texts = |texts: &[String]| texts.iter().map(|text| Arc::from(text.as_str())).collect();
        Policy {
            name: Arc::from(self.name.as_str()),
            level_min: self.level_min,
            rules: texts(&self.rules),
            tags: texts(&self.tags),
            action: self.action,
            ttl_s: self.ttl_s,
        }
    }
}

/// How actions are run.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OrchestrationSettings {
    /// Tries before a message or an action is given up and said; wins over `response.retry.tries_max`.
    pub(crate) retry_attempts: Option<u32>,
}

/// Keys of the plan's settings file (its section 8.1) that have no meaning here, or not yet.
const FOREIGN: &[Foreign] = &[
    Foreign { path: "app.version", says: "the version is the program's own" },
    Foreign { path: "database.*", says: "the ledger is an embedded database in the data folder" },
    Foreign { path: "redis.*", says: "there is no Redis; queue and cache are the spool and the graph" },
    Foreign { path: "detection.correlation_window", says: "each rule names its own window" },
    Foreign { path: "orchestration.max_concurrent_playbooks", says: "playbooks are not there yet" },
    Foreign { path: "orchestration.playbook_timeout", says: "playbooks are not there yet" },
    Foreign {
        path: "integrations.*",
        says: "this integration is not there yet; a channel of type webhook sends alerts to a URL",
    },
];

/// Less could not hold a few bodies of the longest size that is accepted.
const SPOOL_BYTES_MIN: u64 = 128 << 20;

/// Reads the settings file, if one is named, and lays the flags over it.
pub(crate) fn load(cli: &Cli, arguments: Option<&RunArguments>) -> Result<Loaded<Settings>> {
    let flags = arguments.map(flags).transpose()?.unwrap_or_default();
    let file = cli.config.as_deref().map(read).transpose()?;
    let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    let loaded = cf_settings::load::<Settings>(file, &flags, FOREIGN, &look_up)?;
    check(&loaded.settings)?;
    let mut loaded = loaded;
    if let Some(tries) = loaded.settings.orchestration.retry_attempts {
        loaded.settings.response.retry.tries_max = tries.max(1);
    }
    Ok(loaded)
}

fn read(path: &Path) -> Result<(String, String)> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).with_context(|| format!("could not read settings {name}"))?;
    Ok((name, text))
}

fn look_up(asked: &Lookup) -> Option<String> {
    match asked {
        Lookup::Environment(name) => std::env::var(name).ok(),
        Lookup::File(path) => fs::read_to_string(path).ok().map(|text| text.trim_end_matches(['\n', '\r']).to_owned()),
    }
}

/// What no type can say.
fn check(settings: &Settings) -> Result<()> {
    let listen = &settings.listen;
    for (key, address) in [("http", listen.http), ("syslog_udp", listen.syslog_udp), ("syslog_tcp", listen.syslog_tcp)]
    {
        if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
            bail!(
                "listen.{key} is {address}, which others can reach, and there are no tokens yet; \
                 listen on 127.0.0.1 or [::1] and put an authenticating proxy before it"
            );
        }
    }
    if settings.spool.bytes_max < SPOOL_BYTES_MIN {
        bail!("spool.bytes_max is {}; at least {SPOOL_BYTES_MIN} are needed", settings.spool.bytes_max);
    }
    settings.sql.check().map_err(anyhow::Error::msg)?;
    sources(settings)?;
    let kafka = settings.sources.iter().filter_map(|(name, source)| Some((name, source.kafka.as_ref()?)));
    for (name, kafka) in kafka {
        let mut problems = kafka.problems(name);
        if ["syslog", "http", "file"].contains(&name.as_str()) || name.contains([':', '/']) {
            problems
                .push(format!("sources.{name}.kafka: a source that is read wants a name of its own, without : and /"));
        }
        if !problems.is_empty() {
            bail!("{}", problems.join("\n  "));
        }
    }
    let problems: Vec<String> = settings.sinks.iter().flat_map(|(name, sink)| sink.problems(name)).collect();
    if !problems.is_empty() {
        bail!("{}", problems.join("\n  "));
    }
    settings.history.check()
}

/// How each source decodes, checked.
pub(crate) fn sources(settings: &Settings) -> Result<Arc<SourceTable>> {
    let options = settings.sources.iter().map(|(name, source)| (name.clone(), source.options.clone())).collect();
    Ok(Arc::new(SourceTable::new(&options)?))
}

/// The options of the graph.
pub(crate) fn graph(settings: &Settings) -> Result<GraphOptions> {
    let detection = &settings.detection;
    Ok(GraphOptions {
        horizon_s: Some(i64::from(detection.horizon_s)),
        max_ahead_s: i64::from(detection.max_ahead_s),
        disorder_s: i64::from(detection.disorder_s),
        incidents: detection.incidents()?,
        office_hours: settings.scoring.office_hours(),
        alerts_an_hour: usize::try_from(detection.alerts_per_rule_hour_max).unwrap_or(usize::MAX),
        risk_alert_tenths: settings.scoring.risk_alert_tenths,
        rescored_at_once: usize::try_from(settings.scoring.rescored_at_once).unwrap_or(usize::MAX),
    })
}

/// The flags of `run` as settings.
fn flags(arguments: &RunArguments) -> Result<Vec<(&'static str, Value)>> {
    // An address is a network of one.
    let protected: Vec<_> = arguments
        .protect
        .iter()
        .map(|text| {
            text.parse::<std::net::IpAddr>().map_or_else(|_| text.clone(), |a| ipnet::IpNet::from(a).to_string())
        })
        .collect();
    let mut flags = Vec::new();
    let mut flag = |path, value: Option<Value>| flags.extend(value.map(|value| (path, value)));
    flag("data", arguments.data.as_ref().map(|data| json!(data)));
    flag("rules.paths", (!arguments.rules.is_empty()).then(|| json!(arguments.rules)));
    let inputs = &arguments.inputs;
    flag("rules.log_sources", (!inputs.log_sources.is_empty()).then(|| json!(inputs.log_sources)));
    flag("rules.placeholders", (!inputs.placeholders.is_empty()).then(|| json!(inputs.placeholders)));
    flag("rules.pipelines", (!inputs.pipelines.is_empty()).then(|| json!(inputs.pipelines)));
    flag("listen.http", arguments.listen.map(|address| json!(address)));
    flag("listen.syslog_udp", arguments.syslog_udp.map(|address| json!(address)));
    flag("listen.syslog_tcp", arguments.syslog_tcp.map(|address| json!(address)));
    flag("sql.listen", arguments.sql_listen.map(|address| json!(address)));
    flag("detection.workers", arguments.workers.map(|workers| json!(workers)));
    flag("response.enforce", arguments.enforce.then(|| json!(true)));
    flag("response.block_address.netns", arguments.nft_netns.as_ref().map(|path| json!(path)));
    flag("response.protected", (!arguments.protect.is_empty()).then(|| json!(protected)));
    let file = arguments.alerts_file.iter().map(|path| json!({ "type": "file", "path": path }));
    let webhooks = arguments
        .webhook
        .iter()
        .enumerate()
        .map(|(index, url)| json!({ "type": "webhook", "name": format!("webhook-{}", index + 1), "url": url }));
    let channels: Vec<_> = file.chain(webhooks).collect();
    flag("response.channels", (!channels.is_empty()).then(|| json!(channels)));
    let block = arguments.block_for.map(u32::try_from).transpose().context("--block-for is too long")?;
    flag("policies", block.map(|ttl_s| json!([PolicySettings { ttl_s, ..PolicySettings::default() }])));
    Ok(flags)
}
