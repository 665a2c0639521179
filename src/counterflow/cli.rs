//! The command line: every flag with the words that its help shows.

mod history;
mod hunts;
pub(crate) mod sinks;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};

pub(crate) use history::{
    CompactArguments, EraseArguments, ExportArguments, ExportFormat, HistoryArguments, HistoryCommand,
    ImportHistoryArguments,
};

pub(crate) use hunts::{CheckHuntsArguments, HuntsArguments, HuntsCommand, RunHuntArguments, ShowHuntArguments};

use crate::output::Format;

/// Streaming detection and response: security events in, countermeasures back.
///
/// Try `counterflow detect --rules rules tests/cases/lab/auth.log`, then `counterflow replay` with the same words.
/// Tables are shown on a terminal, JSON lines in a pipe.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// Settings file (YAML). Flags win over it.
    #[arg(long, global = true, value_name = "FILE", env = "COUNTERFLOW_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// How to print: table, json (lines), csv, or sarif (rules check). Default: table on a terminal, json in a pipe.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", visible_alias = "format")]
    pub(crate) output: Option<Format>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say which rule meets which event: no state, all cores
    Detect(DetectArguments),
    /// Send files through the whole graph and print the final alerts
    Replay(ReplayArguments),
    /// Receive events and answer them until told to stop
    Run(Box<RunArguments>),
    /// Look at rules
    #[command(subcommand)]
    Rules(Box<RulesCommand>),
    /// Scan files with YARA rules
    #[cfg(feature = "yara")]
    Yara(YaraArguments),
    /// Say how the sources stand, try them out, let a stopped one go on
    #[command(subcommand)]
    Sources(SourcesCommand),
    /// Say how the sinks stand, try them out, let one begin again
    #[command(subcommand)]
    Sinks(sinks::SinksCommand),
    /// Ask the history in SQL, beside a running or a stopped engine
    Sql(SqlArguments),
    /// Look at history's tables, keep them in order, import, export, erase
    #[command(subcommand)]
    History(HistoryCommand),
    /// Rules that ask history by time: list them, check them, run one now
    #[command(subcommand)]
    Hunts(HuntsCommand),
    /// List incidents, or show one with its timeline
    Incidents(IncidentsArguments),
    /// List alerts as they stand
    Alerts(AlertsArguments),
    /// List entities by risk, or show what one entity's risk is made of
    Risk(RiskArguments),
    /// Show how an alert is assessed: every factor with its value and weight
    Assess(AssessArguments),
    /// List actions: planned, in force, undone
    Actions(LedgerArguments),
    /// Say why there is an alert, down to its events, or why there is none
    #[command(subcommand)]
    Explain(ExplainCommand),
    /// Add, remove or list facts: what can change while running
    #[command(subcommand)]
    Facts(FactsCommand),
    /// Show or check the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Train a model on labelled rows and put it into the registry
    Train(Box<TrainArguments>),
    /// Score rows with the model that is promoted: JSON lines in the order of the rows
    Predict(PredictArguments),
    /// Look at trained models, promote one, go back
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Measure
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Check the audit trail
    #[command(subcommand)]
    Audit(AuditCommand),
    /// List what was refused, show it, let it go through again
    #[command(subcommand)]
    Rejects(RejectsCommand),
    /// Copy a data folder, beside a running or a stopped engine, into a new folder
    Backup(BackupArguments),
    /// Make a new data folder of a backup, every file checked
    Restore(RestoreArguments),
    /// Print a completion script for a shell
    Completions(CompletionsArguments),
}

/// Rules and how strict to be about them.
#[derive(Debug, Args)]
pub(crate) struct RuleArguments {
    /// Rule file or folder (*.yml, *.yaml, *.yar, *.yara at any depth); may be repeated
    #[arg(long = "rules", value_name = "PATH", required = true)]
    pub(crate) rules: Vec<PathBuf>,

    /// Exit with 1 if a rule did not load
    #[arg(long)]
    pub(crate) strict: bool,

    #[command(flatten)]
    pub(crate) inputs: RuleInputs,
}

/// What rules speak of and do not say themselves.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RuleInputs {
    /// File with more rows for the table of log sources; may be repeated
    #[arg(long = "logsources", value_name = "FILE")]
    pub(crate) log_sources: Vec<PathBuf>,

    /// Value of a placeholder (modifier `expand`), e.g. admins=root; may be repeated, also for one name
    #[arg(long = "placeholder", value_name = "NAME=VALUE")]
    pub(crate) placeholders: Vec<String>,

    /// pySigma processing pipeline (YAML) that rewrites rules before they are compiled; may be repeated
    #[arg(long = "pipeline", value_name = "FILE")]
    pub(crate) pipelines: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DetectArguments {
    #[command(flatten)]
    pub(crate) rules: RuleArguments,

    /// Year of times that have none; default: that of the file's modification time
    #[arg(long, value_name = "YEAR", value_parser = clap::value_parser!(i16).range(1970..=9998))]
    pub(crate) year: Option<i16>,

    /// Files to read (JSON, text, EVTX; .gz and .zst too); `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(mut_arg("rules", |rules| rules.required(false)))]
pub(crate) struct ReplayArguments {
    #[command(flatten)]
    pub(crate) rules: RuleArguments,

    /// Worker threads of the graph; the result is the same for any number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: u16,

    /// Write the history of this replay under DIR, as `run` does; without FILE, replay what history holds there
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) past: PastArguments,

    /// Replay what `incidents export` wrote; exit 1 if its alerts are not as they were
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "files", "rules"])]
    pub(crate) bundle: Option<PathBuf>,

    /// Let alerts age out this far behind the newest event (90s, 15m, 24h, 7d); the input must then be sorted by time
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) horizon: Option<i64>,

    /// Leave file and line out, so that two runs over the same events compare with cmp
    #[arg(long)]
    pub(crate) no_positions: bool,

    /// Also print withdrawn alerts and how each came about
    #[arg(long)]
    pub(crate) revisions: bool,

    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,

    /// Year of times that have none; default: that of the file's modification time
    #[arg(long, value_name = "YEAR", value_parser = clap::value_parser!(i16).range(1970..=9998))]
    pub(crate) year: Option<i16>,

    /// Files to read (JSON, text, EVTX; .gz and .zst too); `-` is standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["data", "bundle"])]
    pub(crate) files: Vec<PathBuf>,
}

/// Which part of the past, and how it is met again.
#[derive(Debug, Args)]
pub(crate) struct PastArguments {
    /// known: all events and facts as known now; lived: epoch by epoch as they came, with the rules and facts of then
    #[arg(long, value_enum, value_name = "MODE", default_value_t = PastMode::Known)]
    pub(crate) mode: PastMode,

    /// Begin of the time looked at, e.g. 2026-01-05T14:00:00Z; of events, with --mode lived of alerts
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<cf_types::Time>,

    /// End of the time looked at, exclusive
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<cf_types::Time>,

    /// What was known after an epoch, or at a time of the wall clock; default: all that history holds
    #[arg(long, value_name = "EPOCH|TIME")]
    pub(crate) as_of: Option<String>,

    /// As fast as it came then (1), or so many times faster; each change is told as it comes (--mode lived)
    #[arg(long, value_name = "X", value_parser = speed)]
    pub(crate) speed: Option<f64>,

    /// Make ledger and history again in a new folder (--mode lived)
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
}

impl PastArguments {
    /// Whether nothing is said.
    pub(crate) fn is_default(&self) -> bool {
        let PastArguments { mode, from, to, as_of, speed, into } = self;
        *mode == PastMode::Known
            && from.is_none()
            && to.is_none()
            && as_of.is_none()
            && speed.is_none()
            && into.is_none()
    }
}

/// How the past is met again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PastMode {
    /// All events and facts as known now, as one set.
    Known,
    /// Epoch by epoch, as it was.
    Lived,
}

/// The same graph in several processes. Each is given the same words but `--process`.
#[derive(Debug, Args)]
pub(crate) struct ClusterArguments {
    /// File with the address of each process, HOST:PORT, one a line; alerts come to the first
    #[arg(long, value_name = "FILE")]
    pub(crate) processes: Option<PathBuf>,

    /// Which of them this one is, from 0
    #[arg(long, value_name = "I", default_value_t = 0, requires = "processes")]
    pub(crate) process: usize,

    /// File with the secret that the processes prove to each other; without it only loopback addresses are taken
    #[arg(long, value_name = "FILE", requires = "processes")]
    pub(crate) cluster_secret: Option<PathBuf>,

    /// How long a missing process is waited for (1s, 30s, 2m)
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "30s")]
    pub(crate) wait_for_peers: i64,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Folder for all that is kept: spool, ledger, facts log, history
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Rule file or folder; may be repeated
    #[arg(long = "rules", value_name = "PATH")]
    pub(crate) rules: Vec<PathBuf>,

    /// Address of the HTTP interface, loopback only
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,

    /// Receive syslog by UDP here, loopback only
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) syslog_udp: Option<SocketAddr>,

    /// Receive syslog by TCP here, loopback only
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) syslog_tcp: Option<SocketAddr>,

    /// Answer SQL over the Postgres wire here, read-only; sql.users_file or sql.trust_loopback says who may ask
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) sql_listen: Option<SocketAddr>,

    #[command(flatten)]
    pub(crate) inputs: RuleInputs,

    /// Worker threads of the graph; in a cluster of each process
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,

    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,

    /// End when another process of the cluster says nothing for SPAN (10s, 1m)
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "10s", requires = "processes")]
    pub(crate) frozen_after: i64,

    /// Do what the policy wants; without it actions are planned and recorded, not done
    #[arg(long)]
    pub(crate) enforce: bool,

    /// Network namespace in which nftables answers, e.g. /proc/PID/ns/net
    #[arg(long, value_name = "PATH")]
    pub(crate) nft_netns: Option<PathBuf>,

    /// Block the address of alerts of level high and above for SPAN (30s, 15m, 4h)
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) block_for: Option<i64>,

    /// Network that no action may ever touch (besides loopback and this machine's own addresses); may be repeated
    #[arg(long, value_name = "NETWORK")]
    pub(crate) protect: Vec<String>,

    /// Send alerts to this URL; may be repeated
    #[arg(long, value_name = "URL")]
    pub(crate) webhook: Vec<String>,

    /// Append alerts to this file as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) alerts_file: Option<PathBuf>,

    /// Let the rebuilt state win where it differs from the ledger in more than 20 alerts, and go on where Kafka lacks
    /// records that an epoch had
    #[arg(long)]
    pub(crate) accept_differences: bool,

    /// Files to read once as bounded sources, `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SourcesCommand {
    /// List the sources, each Kafka partition by itself: state, rate, lag, watermark, late share, rejects, last error
    List {
        /// Folder of the engine
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
    },
    /// Try each source of the settings (--config): address, login, certificate, topics; exit 1 with what is wrong
    Check {
        /// Only these
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Let what is stopped of a Kafka source go on; wants --config, beside a running or a stopped engine
    Resume {
        /// The source's name in the settings
        #[arg(value_name = "NAME")]
        name: String,
        /// Where: earliest, latest, offset=N or time=2026-01-05T14:00:00Z
        #[arg(long, value_name = "PLACE")]
        from: String,
        /// Folder of the engine
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// Exit 0 when all rules load, 1 with what is wrong; as table, JSON lines or SARIF
    Check(CheckArguments),
    /// List the rules that load, with what they did if the data of an engine or a replay is given
    List(ListArguments),
    /// Run the events beside the rules (NAME.test.jsonl): exit 0 when each fires or stays silent as it says
    Test {
        /// Rule files or folders
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        inputs: RuleInputs,
    },
    /// Say why a rule did or did not match events: each part with the value it saw, and the nearest miss
    Explain(ExplainArguments),
    /// Try new or changed rules over history: exactly what would be told more, less and otherwise. Exit 1 if more alerts
    /// are added than --max-added
    Backtest(BacktestArguments),
    /// Evaluate rules again that were disabled; with --backfill, find in history what they would have found before
    Enable(EnableArguments),
    /// Bring in a folder or archive of rules, with where they are from
    Import(ImportArguments),
    /// Write which ATT&CK techniques the rules are about, as a layer of the ATT&CK Navigator
    Coverage(CoverageArguments),
}

#[derive(Debug, Args)]
pub(crate) struct BacktestArguments {
    /// Rule files or folders: rules take the place of those with the same id, `disable: [ID]` takes one away
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// Folder of the engine or of `replay --data`
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// known: all events and facts as known now; lived: epoch by epoch as they came, with the facts of then
    #[arg(long, value_enum, value_name = "MODE", default_value_t = PastMode::Known)]
    pub(crate) mode: PastMode,

    /// Begin of the events looked at, e.g. 2026-01-05T14:00:00Z (--mode known)
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<cf_types::Time>,

    /// End of the events looked at, exclusive (--mode known)
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<cf_types::Time>,

    /// What was known, and which rules were in force, after an epoch or at a time; default: the last that history holds
    #[arg(long, value_name = "EPOCH|TIME")]
    pub(crate) as_of: Option<String>,

    /// Exit 1 if more alerts than this are added
    #[arg(long = "max-added", value_name = "N")]
    pub(crate) added_max: Option<usize>,

    /// Bytes of detections kept in DIR/backtest for the next backtest; 0 keeps and uses none
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    pub(crate) cache_bytes: u64,

    /// Threads that match, and workers of each graph; default: all cores. The result is the same for any number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
}

#[derive(Debug, Args)]
pub(crate) struct EnableArguments {
    /// Ids of rules
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,

    /// Folder of the engine, running or not
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// Meet what history holds with them: old finds are marked, page nobody and act on nothing
    #[arg(long)]
    pub(crate) backfill: bool,

    /// How far to look back, e.g. 2026-01-05T14:00:00Z; never further than the horizon
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<cf_types::Time>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// Rule files or folders
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// Say warnings, too; SARIF always has them
    #[arg(long)]
    pub(crate) warnings: bool,

    /// Warnings fail the check like errors
    #[arg(long)]
    pub(crate) strict: bool,

    /// Leave problems of this code out; may be repeated
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    pub(crate) ignore: Vec<String>,

    /// Look for problems of this code only; may be repeated
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    pub(crate) only: Vec<String>,

    #[command(flatten)]
    pub(crate) inputs: RuleInputs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Rule files or folders
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// Only rules of this level or above
    #[arg(long, value_name = "LEVEL", value_parser = ["informational", "low", "medium", "high", "critical"])]
    pub(crate) level: Option<String>,

    /// Only rules with a tag that begins so, e.g. attack.t1059; may be repeated
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,

    /// Only rules of this log source: a product, category or service, or PRODUCT/CATEGORY/SERVICE with `-` for any
    #[arg(long, value_name = "SOURCE", allow_hyphen_values = true)]
    pub(crate) logsource: Option<String>,

    /// Only rules that nothing can feed: no channel and no decoder of the table leads events to their log source
    #[arg(long)]
    pub(crate) unfed: bool,

    /// Only rules that ask for a field that no event ever had, as far as the engine of --data has seen
    #[arg(long, requires = "data")]
    pub(crate) unseen: bool,

    /// Folder of an engine or of `replay --data`: adds how often each rule met an event, when last, and what it cost
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) inputs: RuleInputs,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// Rule file or folder; may be repeated
    #[arg(long = "rules", value_name = "PATH", required = true)]
    pub(crate) rules: Vec<PathBuf>,

    /// Id (or title) of the rule
    #[arg(long, value_name = "ID")]
    pub(crate) rule: String,

    /// Year of times that have none; default: that of the file's modification time
    #[arg(long, value_name = "YEAR", value_parser = clap::value_parser!(i16).range(1970..=9998))]
    pub(crate) year: Option<i16>,

    /// Where the event is: all events of a file, those of one line, or `-` for standard input
    #[arg(value_name = "FILE[:LINE]")]
    pub(crate) place: String,

    #[command(flatten)]
    pub(crate) inputs: RuleInputs,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// Folder, .zip, .tar, .tar.gz or .tar.zst
    #[arg(value_name = "SOURCE")]
    pub(crate) source: PathBuf,

    /// Folder to bring the rules into; one for each source
    #[arg(long, value_name = "DIR")]
    pub(crate) into: PathBuf,

    /// Overwrite what changed and remove what the source no longer has
    #[arg(long)]
    pub(crate) replace: bool,

    /// Where the source is from, for the attribution: a name, a URL, a version. Default: the source's path
    #[arg(long, value_name = "TEXT")]
    pub(crate) from: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CoverageArguments {
    /// Rule files or folders
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// File to write, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,

    /// Folder of an engine or of `replay --data`: adds how often each technique was met
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Name of the layer
    #[arg(long, value_name = "TEXT", default_value = "Counterflow rules")]
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) inputs: RuleInputs,
}

/// Files scanned as they are, not as events.
#[cfg(feature = "yara")]
#[derive(Debug, Args)]
pub(crate) struct YaraArguments {
    /// YARA file or folder (*.yar, *.yara at any depth); may be repeated
    #[arg(long = "rules", value_name = "PATH", required = true)]
    pub(crate) rules: Vec<PathBuf>,

    /// Largest file that is scanned, in MiB; larger ones are told
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) size_max: u64,

    /// Longest scan of one file, in seconds; longer ones are told
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds_max: u64,

    /// Files and folders to scan; links in folders are not followed
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SqlArguments {
    /// Folder of the engine or of a replay
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// Run the query of this name: alerts_by_rule, events_by_hour, ...
    #[arg(long, value_name = "NAME", conflicts_with_all = ["file", "statement"])]
    pub(crate) named: Option<String>,

    /// Run the statements of a file, each ended with a semicolon
    #[arg(long, value_name = "FILE", conflicts_with = "statement")]
    pub(crate) file: Option<PathBuf>,

    /// Ask what history held at an epoch (120) or a time (2026-01-05T14:00:00Z)
    #[arg(long, value_name = "WHEN")]
    pub(crate) as_of: Option<String>,

    /// One statement, e.g. "select rule_id, count(*) from detections group by 1 order by 2 desc"; - reads standard input;
    /// without one a shell begins
    #[arg(value_name = "STATEMENT")]
    pub(crate) statement: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct IncidentsArguments {
    /// Folder of the engine
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// Number of the incident to show with its timeline; all are listed without it
    #[arg(value_name = "NUMBER")]
    pub(crate) number: Option<i64>,

    #[command(subcommand)]
    pub(crate) command: Option<IncidentsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IncidentsCommand {
    /// Write what an incident's alerts are made of (events, facts, rule texts, versions), for `replay --bundle`
    Export {
        /// Number of the incident
        #[arg(value_name = "NUMBER")]
        number: i64,
        /// Folder of the engine
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
        /// File to write, e.g. incident-3.jsonl.zst; it must not be there
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AlertsArguments {
    /// Folder of the engine
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// Only those in this state
    #[arg(long, value_parser = ["provisional", "open", "sealed", "withdrawn", "superseded"])]
    pub(crate) state: Option<String>,

    /// Only those of this rule, by id
    #[arg(long, value_name = "RULE")]
    pub(crate) rule: Option<String>,

    /// Only those of this incident
    #[arg(long, value_name = "NUMBER")]
    pub(crate) incident: Option<i64>,

    /// Open alerts by what is bad and likely first: score × confidence, which a model may know best. None is left out
    #[arg(long)]
    pub(crate) queue: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExplainCommand {
    /// Lead from an alert to its rule, its revisions, the facts that touched it and its events
    Alert {
        /// Folder of the engine or of `replay --data`
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
        /// All events, not only the first and last 20
        #[arg(long)]
        all: bool,
        /// Id of the alert or of its thread
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Say what was lacking for an alert of a rule about an entity
    Missing {
        /// Folder of the engine or of `replay --data`
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
        /// Begin of the time looked at, e.g. 2026-01-05T14:00:00Z
        #[arg(long, value_name = "TIME")]
        from: cf_types::Time,
        /// End of the time looked at
        #[arg(long, value_name = "TIME")]
        to: cf_types::Time,
        /// Id or title of the rule
        #[arg(value_name = "RULE")]
        rule: String,
        /// Whom it is about: KIND:VALUE, or a value of its group
        #[arg(value_name = "ENTITY")]
        entity: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RiskArguments {
    /// Folder of the engine
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// One entity, such as host:web01, with the alerts that count and what can be reached from it
    #[arg(value_name = "KIND:NAME")]
    pub(crate) entity: Option<cf_types::Entity>,
}

#[derive(Debug, Args)]
pub(crate) struct AssessArguments {
    /// Folder of the engine
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// The alert's id
    #[arg(value_name = "ALERT")]
    pub(crate) alert: cf_types::AlertId,
}

#[derive(Debug, Args)]
pub(crate) struct LedgerArguments {
    /// Folder of the engine
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RejectsCommand {
    /// List rejects, the newest first; history has them some seconds after they were refused
    List {
        /// Folder of the engine
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
        /// Only how many there are, by source and code
        #[arg(long)]
        counts: bool,
        #[command(flatten)]
        filter: RejectFilterArguments,
    },
    /// Show one reject with its whole record
    Show {
        /// Folder of the engine
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
        /// Only the record, as it came (what is not UTF-8 is shown as U+FFFD)
        #[arg(long)]
        raw: bool,
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Let rejects go through again, once each: what fails again is a reject again and says so
    Retry {
        /// Folder of the engine; a stopped one takes them at its next start
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
        /// All rejects, 10,000 at a time, the oldest first
        #[arg(long)]
        all: bool,
        /// Who says so, for the audit
        #[arg(long, value_name = "NAME")]
        author: Option<String>,
        /// Why, for the audit
        #[arg(long, value_name = "TEXT", default_value = "")]
        why: String,
        #[command(flatten)]
        filter: RejectFilterArguments,
        /// Ids of rejects; else a filter or --all
        #[arg(value_name = "ID")]
        ids: Vec<String>,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RejectFilterArguments {
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Only with this code, e.g. invalid_json
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// Only with this text in their reason
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Only received at or after, e.g. 2026-01-05T14:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<cf_types::Time>,
    /// Only received before
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<cf_types::Time>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// Folder of the engine
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// New folder for the backup; without MANIFEST.json in it, it is none
    #[arg(value_name = "DIR")]
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// New data folder; one that is not empty is refused
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// The backup's folder
    #[arg(value_name = "BACKUP")]
    pub(crate) backup: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FactsCommand {
    /// Add a fact, or say another thing about the same subject
    #[command(after_help = FACTS_HELP)]
    Add(FactArguments),
    /// Remove a fact by what it is about: what it withdrew comes back, what rested on it alone goes
    #[command(after_help = FACTS_HELP)]
    Remove(FactArguments),
    /// List the facts in force
    List {
        /// Folder of the engine
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,

        /// Only facts of this kind
        #[arg(value_name = "KIND", value_parser = cf_types::FactBody::KINDS)]
        kind: Option<String>,
    },
    /// Add facts from a file of JSON lines; bad ones are refused with their line
    #[command(after_help = FACTS_IMPORT_HELP)]
    Import {
        /// Folder of the engine
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
        /// Kind of all facts in the file
        #[arg(value_name = "KIND", value_parser = cf_types::FactBody::KINDS)]
        kind: String,
        /// File of JSON lines, `-` for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// What each kind of fact is made of.
const FACTS_HELP: &str = "\
Kinds, their values and keys (times as 2026-01-05T00:00:00Z, in event time; lists with commas):
  allow     ADDRESS or NETWORK
  silence   NAME      rules= level_max= entities= tags= (at least one), from= until=
  indicator ADDRESS, NETWORK, DOMAIN (*.DOMAIN), URL or HASH
                      type= confidence=0..100 from= until= source= tags=
  asset     ENTITY    criticality=1..5 exposure=internal|external owner= tags=
  edge      ENTITY->ENTITY   access=
  identity  USER      aliases= privileged=true|false department=
  verdict   ALERT     verdict=true_positive|false_positive|benign
An ENTITY is KIND:NAME with a kind of host, user, address, process, file_hash, domain.

Examples:
  counterflow facts add allow 10.0.0.0/24 --reason 'our scanners'
  counterflow facts add silence 'night work' entities=host:web01 from=2026-01-05T22:00:00Z until=2026-01-06T04:00:00Z
  counterflow facts add indicator evil.example confidence=90 source=feed
  counterflow facts add asset host:db01 criticality=5 exposure=internal owner=ops
  counterflow facts add edge 'user:alice->host:db01' access=admin
  counterflow facts remove asset host:db01";

/// What an import reads.
const FACTS_IMPORT_HELP: &str = "\
Each line is an object with \"value\", the keys that `facts add --help` lists, and perhaps \"reason\" and \"author\":
  {\"value\": \"host:db01\", \"criticality\": 5, \"exposure\": \"internal\", \"tags\": [\"pci\"], \"reason\": \"inventory\"}
Exit 1 if a line was refused; the others are added.";

#[derive(Debug, Args)]
pub(crate) struct FactArguments {
    /// Folder of the engine
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// Why, for the audit
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,

    /// Who says so, for the audit; else the user of the system
    #[arg(long, value_name = "NAME")]
    pub(crate) author: Option<String>,

    /// What kind of fact
    #[arg(value_name = "KIND", value_parser = cf_types::FactBody::KINDS)]
    pub(crate) kind: String,

    /// What it is about
    #[arg(value_name = "VALUE")]
    pub(crate) value: String,

    /// What it says of it
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) says: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every setting with its value and where it comes from
    Print,
    /// Exit 0 when the settings are right, 2 with what is wrong
    Check,
    /// Print a commented template of the settings file
    Template,
}

#[derive(Debug, Args)]
pub(crate) struct TrainArguments {
    /// Task: flows, urls and triage know their positive class and more; another name needs --positive
    #[arg(long, value_name = "NAME")]
    pub(crate) task: String,

    /// Labelled rows (.parquet, .csv)
    #[arg(long, value_name = "FILE", required_unless_present = "data")]
    pub(crate) input: Option<PathBuf>,

    /// Folder of an engine: learn from the alerts that people judged, with their features as they were served (triage), or
    /// from the events behind them that a model called positive (urls, flows)
    #[arg(long, value_name = "DIR", conflicts_with_all = ["input", "label", "positive", "group", "time", "features"])]
    pub(crate) data: Option<PathBuf>,

    /// Column of the label
    #[arg(long, value_name = "COLUMN", required_unless_present = "data")]
    pub(crate) label: Option<String>,

    /// The label that is positive. Default: urls `phishing`, flows anything but `normal`, triage anything but benign
    #[arg(long, value_name = "VALUE")]
    pub(crate) positive: Option<String>,

    /// Column whose equal values are never on both sides of a split; never a feature. Default of urls: registered domain
    #[arg(long, value_name = "COLUMN")]
    pub(crate) group: Option<String>,

    /// Column of times: the latest fifth of the rows judges; never a feature
    #[arg(long, value_name = "COLUMN")]
    pub(crate) time: Option<String>,

    /// Folder of the registry
    #[arg(long, value_name = "DIR")]
    pub(crate) models: PathBuf,

    /// Members of the ensemble: logistic, forest, boost, network, isolation
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "forest,boost,network")]
    pub(crate) members: Vec<String>,

    /// How their scores become one: rarity (among negative rows), vote (the mean), stack (fitted weights). Default: rarity
    /// with a budget, else vote
    #[arg(long, value_name = "HOW", value_parser = ["rarity", "vote", "stack"])]
    pub(crate) blend: Option<String>,

    /// Balance of training rows: none, classes, labels (rare labels weigh more), over, under
    #[arg(long, value_name = "HOW", default_value = "labels", value_parser = ["none", "classes", "labels", "over", "under"])]
    pub(crate) balance: String,

    /// Declaration of features (YAML or JSON): only, leave_out, category, frequency, url, polynomial, product, ratio, cross
    #[arg(long, value_name = "FILE")]
    pub(crate) features: Option<PathBuf>,

    /// Share of false positives at the operating point, or `none` for the most accurate. Default: 0.01; urls: none
    #[arg(long, value_name = "SHARE", value_parser = budget)]
    pub(crate) budget: Option<Budget>,

    /// How often the set of possible classes is to hold the true one
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = share)]
    pub(crate) confidence: f64,

    /// Look for better settings of the members in so many trials on training rows
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub(crate) trials: u16,

    /// No new trial begins after SPAN (90s, 15m)
    #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = span)]
    pub(crate) trials_time: i64,

    /// A column that may separate the classes alone; may be repeated
    #[arg(long, value_name = "COLUMN")]
    pub(crate) allow_leak: Vec<String>,

    /// Of everything random: the same seed and rows give the same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Threads at most; they change the time and nothing else
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,

    /// Promote at once: evidence (if it is better than chance and as good as the champion on the same rows), always, never
    #[arg(long, value_name = "WHEN", default_value = "evidence", value_parser = ["evidence", "always", "never"])]
    pub(crate) promote: String,
}

/// What an operating point may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget(pub(crate) Option<f64>);

#[derive(Debug, Args)]
pub(crate) struct PredictArguments {
    /// Task
    #[arg(long, value_name = "NAME")]
    pub(crate) task: String,

    /// Rows (.parquet, .csv); columns that the model does not know are ignored, also a label
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,

    /// Folder of the registry
    #[arg(long, value_name = "DIR")]
    pub(crate) models: PathBuf,

    /// Version by the beginning of its id
    #[arg(long, value_name = "VERSION", default_value = "champion")]
    pub(crate) model: String,

    /// Say also what moved each score, so many columns a row
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=20))]
    pub(crate) reasons: u8,

    /// Threads at most
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// List the versions, with what they were judged by
    List {
        /// Folder of the registry
        #[arg(long, value_name = "DIR")]
        models: PathBuf,
        /// Only this task
        #[arg(long, value_name = "NAME")]
        task: Option<String>,
    },
    /// Show a version: as a model card on a terminal, as its manifest in a pipe
    Show(VersionArguments),
    /// Make a version the one that predicts, after its probe was predicted again
    Promote(VersionArguments),
    /// Let a version be compared with the champion while alerts come in; `none` ends it
    Challenge(VersionArguments),
    /// Go back to the version that predicted before
    Rollback {
        /// Folder of the registry
        #[arg(long, value_name = "DIR")]
        models: PathBuf,
        /// Task
        #[arg(long, value_name = "NAME")]
        task: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Compare two versions: as they were judged, and on labelled rows if given
    Compare {
        /// Folder of the registry
        #[arg(long, value_name = "DIR")]
        models: PathBuf,
        /// Task
        #[arg(long, value_name = "NAME")]
        task: String,
        /// Labelled rows that neither has learned from
        #[arg(long, value_name = "FILE", requires = "label")]
        input: Option<PathBuf>,
        /// Column of the label
        #[arg(long, value_name = "COLUMN")]
        label: Option<String>,
        /// The label that is positive
        #[arg(long, value_name = "VALUE")]
        positive: Option<String>,
        /// Versions by the beginning of their ids, or `champion`
        #[arg(value_name = "VERSION", num_args = 2, required = true)]
        versions: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct VersionArguments {
    /// Folder of the registry
    #[arg(long, value_name = "DIR")]
    pub(crate) models: PathBuf,

    /// Task
    #[arg(long, value_name = "NAME")]
    pub(crate) task: String,

    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,

    /// Version by the beginning of its id, or `champion`
    #[arg(value_name = "VERSION", default_value = "champion")]
    pub(crate) model: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Matching against building simd-json's tape of the same bytes: CPU time, one core, median of 5
    Match {
        #[command(flatten)]
        rules: RuleArguments,
        /// File of JSON lines (.gz and .zst too)
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Exit 0 when no record was edited, cut or reordered, 1 with the first that was
    Verify {
        /// Folder of the engine
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// How many times faster than it was.
fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse::<f64>().ok().filter(|speed| (0.001..=1e9).contains(speed));
    speed.ok_or_else(|| format!("{text:?} is no speed; write 1 for as fast as it was, 60 for a minute in a second"))
}

/// Seconds of a span such as `90s`, `15m`, `24h`, `7d`.
pub(crate) fn span(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a span; write 90s, 15m, 24h or 7d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: i64 = digits.parse().map_err(|_| wrong())?;
    let unit = match text.strip_prefix(digits) {
        Some("s" | "") => 1,
        Some("m") => 60,
        Some("h") => 3_600,
        Some("d") => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

/// A share between 0 and 1.
fn share(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is not a share; write a number between 0 and 1, e.g. 0.01");
    text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0).ok_or_else(wrong)
}

fn budget(text: &str) -> Result<Budget, String> {
    if text == "none" { Ok(Budget(None)) } else { share(text).map(|share| Budget(Some(share))) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn spans_need_a_known_unit() {
        assert_eq!(span("15m"), Ok(900));
        assert!(span("15x").is_err() && span("m").is_err() && span("0s").is_err() && span("-5s").is_err());
    }
}
