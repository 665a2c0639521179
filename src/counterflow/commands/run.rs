//! `counterflow run`: everything wired together, until told to stop.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use cf_engine::{Engine, EngineOptions, Tap};
use cf_ledger::{Ledger, facts_log::FactsLog};
use cf_spool::{LogOptions, Spool};
use clap::Parser as _;
use tokio::runtime::Runtime;

use crate::{
    align::Alignment,
    cli::{Cli, Command, RunArguments},
    cluster::{self, Landing, Lead, Links},
    commit::{HistoryTap, Store},
    conduct::{self, Conductor},
    config::{self, Settings},
    edge::{self, Edge},
    housekeeping::{Beside, Housekeeping},
    hunts::{ask::Asker, schedule::Hunts},
    kafka::Kafka,
    keep::Keep,
    live::{self, Live},
    lookup::Lookup,
    output::Exit,
    past,
    reload::{self, Reload, Watch},
    remember::{self, Began},
    room::Room,
    rulebook::{RuleBook, Shelf},
    rules,
    scoring::Scoring,
    sinks::Sinks,
    sources::Board,
    status::Status,
    telemetry,
    triage::{Triage, served::Served},
    warm,
};

/// Runs until SIGTERM or SIGINT, then drains.
pub(crate) fn run(cli: &Cli, arguments: &RunArguments) -> Result<Exit> {
    telemetry::start();
    cf_fail::on_lost(end);
    let loaded = config::load(cli, Some(arguments))?;
    for warning in &loaded.warnings {
        tracing::warn!(warning, "settings");
    }
    let settings = loaded.settings;
    if arguments.cluster.process > 0
        && let Some(cluster) = cluster::of_run(&settings, &arguments.cluster)?
    {
        return cluster::follow(&settings, cluster, silent_max(arguments));
    }
    let Some(data) = settings.data.clone() else { bail!("where to keep things is not said; give --data DIR") };
    if settings.rules.paths.is_empty() {
        bail!("no rules are named; give --rules PATH");
    }
    let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?);
    // Addresses first, then the folder: both must be ours before anything is changed.
    let sockets = runtime.block_on(edge::bind(&settings.listen, settings.sql.listen))?;
    conduct::folder(&data)?;
    settings.ledger.bind(&data)?;
    let ledger = runtime.block_on(Ledger::open(&data))?;
    let (conductor, reload, watching) = assemble(&settings, &data, &runtime, ledger, arguments)?;

    let (stop, stopping) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    conductor.room.ends_with(Arc::clone(&stop));
    let live = live(cli, &settings, &data, &conductor, &reload)?;
    let hunts = hunts(&settings, &data, &conductor, &reload)?;
    let engine: (Arc<dyn cf_api::Engine>, _) = (Arc::<Live>::clone(&live), hunts.api());
    let sinks = Sinks::start(&settings.sinks, &data, &conductor.store.ledger, &runtime)?;
    let mut edge = Edge::start(&settings, &data, sockets, &conductor, &reload, engine, &sinks)?;
    let files = read_files(&arguments.files, &conductor, Arc::clone(&stopping))?;
    let links = Arc::clone(conductor.engine.links());
    runtime.spawn(watch_signals(edge.stopper(&runtime), live, links, stopping, Arc::clone(&stop)));
    let housekeeping = keep_house(&settings, &data, &conductor)?;
    let ended = conductor.run(&stop);
    drop(hunts);
    drop(housekeeping);
    edge.close(&runtime);
    // After the last epoch and the last receipt: they are told, too.
    sinks.end();
    reload.end();
    if watching.join().is_err() {
        tracing::error!("the thread that watches rules has died");
    }
    drop(files);
    ended?;
    tracing::info!("stopped");
    Ok(Exit::Ok)
}

/// What could not be synced may be lost although a later sync succeeds: nothing more may be acknowledged, by nobody here.
fn end(what: &'static str, error: &std::io::Error) {
    tracing::error!(what, %error, "could not be synced, so what the disk holds is not known any more; look at the disk, start again");
    std::process::exit(2);
}

/// Opens everything under the data folder and starts the graph.
fn assemble(
    settings: &Settings,
    data: &Path,
    runtime: &Arc<Runtime>,
    ledger: Ledger,
    arguments: &RunArguments,
) -> Result<(Conductor, Arc<Reload>, thread::JoinHandle<()>)> {
    let detection = &settings.detection;
    let rule_options = settings.rules.options(detection.fold_window_s)?;
    let stamps = reload::stamps(&settings.rules.paths)?; // before they are read: what changes meanwhile is seen
    let texts = stamps.iter().map(|(path, _)| rules::read_one(path)).collect::<Result<Vec<_>>>()?;
    let book = runtime.block_on(open_rules(&ledger, texts, &rule_options))?;
    let mut shelf = runtime.block_on(Shelf::open(ledger.clone()))?;
    runtime.block_on(shelf.put(&book))?;

    // Whole segments are trimmed: there must be several of them, or a full spool could never be emptied.
    let bytes_max = settings.spool.bytes_max;
    let spool =
        LogOptions { bytes_max, segment_bytes: (bytes_max / 8).clamp(1 << 20, 64 << 20), ..LogOptions::default() };
    let (spool, recovery) = Spool::open(&data.join("spool"), &spool)?;
    // Before anything is received: new records must not be numbered as ones that an epoch has already.
    let upper = runtime.block_on(ledger.engine())?.upper;
    let last = runtime.block_on(ledger.epochs_from(upper.saturating_sub(1)))?;
    if let Some(end) = last.last().and_then(|record| record.ends.get("spool")) {
        spool.log().reserve(*end);
    }
    if !recovery.is_clean() {
        tracing::warn!(?recovery, "the spool was not closed in order; what was acknowledged is there");
    }
    let (facts_log, recalled) = FactsLog::open(&data.join("facts"))?;
    let spool = Arc::new(spool);
    let room = Arc::new(Room::keep(data, Arc::clone(&spool)));
    let place = settings.history.place(data);
    place.keep_in(data)?;
    let mut store = Store::open(Arc::clone(runtime), ledger, &place, settings.response.routes())?;
    store.room = Some(Arc::clone(&room));
    runtime.block_on(past::keep(&store.ledger, store.generation, Some(settings)))?;
    runtime.block_on(live::adopt_policies(&store.ledger, &settings.policies))?;
    let status = Arc::new(Status::new(i64::from(detection.max_ahead_s)));
    let scoring = runtime.block_on(Scoring::start(data, &settings.models, &store.ledger))?;
    let engine = start_graph(settings, arguments, &store, &status, &scoring)?;
    let watch = Watch {
        paths: settings.rules.paths.clone(),
        every: Duration::from_secs(u64::from(detection.rule_watch_s)),
        data: data.to_owned(),
        links: Arc::clone(engine.links()),
    };
    let rules = Arc::clone(&book.set);
    let (reload, watching) =
        Reload::start(book, stamps, watch, store.ledger.clone(), shelf, Arc::clone(&status), runtime.handle().clone())?;
    let board = Arc::new(Board::new(settings, data, Arc::clone(&status)));
    let slice = usize::try_from(detection.lookup_slice_max).unwrap_or(usize::MAX);
    let lookup = Lookup::start(data, store.history.progress(), slice)?;
    let warm = warm::start(data, config::sources(settings)?, store.history.progress())?;
    let remembering = remember::Options {
        sources: config::sources(settings)?,
        max_ahead_s: detection.max_ahead_s,
        slice,
        horizon_s: i64::from(detection.horizon_s),
    };
    let remember = remember::start(data, store.history.progress(), remembering)?;
    let triage = Triage::start(data, &settings.models)?;
    let conductor = Conductor {
        lookup,
        remember,
        began: Began::new(),
        warm,
        triage,
        scoring,
        served: Served::default(),
        store,
        engine,
        spool,
        kafka: Kafka::new(settings),
        alignment: Alignment::new(detection.max_drift_s),
        room,
        facts_log,
        keep: Keep::open(data)?,
        recalled,
        ends: VecDeque::new(),
        rescoring: None,
        rule_options,
        rules,
        swap: Arc::clone(reload.swap()),
        idle_after: Duration::from_secs(u64::from(detection.idle_after_s)),
        horizon_s: i64::from(detection.horizon_s),
        status,
        board,
        live: Arc::default(),
        accept_differences: arguments.accept_differences,
    };
    Ok((conductor, reload, watching))
}

/// Starts the graph, here and in the other processes of a cluster, which are waited for.
fn start_graph(
    settings: &Settings,
    arguments: &RunArguments,
    store: &Store,
    status: &Arc<Status>,
    scoring: &Scoring,
) -> Result<Lead> {
    let (workers, sources, history) =
        (usize::from(settings.detection.workers), config::sources(settings)?, store.tap());
    let engine = Engine::start(EngineOptions {
        workers,
        graph: config::graph(settings)?,
        sources: Arc::clone(&sources),
        tap: Arc::new(Taps(Arc::clone(status), scoring.tap(Arc::<HistoryTap>::clone(&history)))),
        cluster: cluster::of_run(settings, &arguments.cluster)?,
    })?;
    let (runtime, ledger) = (store.runtime.handle().clone(), store.ledger.clone());
    let texts = move |hash: &str| {
        let texts = runtime.block_on(Shelf::get(&ledger, hash))?;
        texts.with_context(|| format!("the ledger lacks rule set {hash}"))
    };
    let landing = Landing { status: Arc::clone(status), history, gathered: scoring.gathered() };
    let lead = Lead::start(engine, workers, silent_max(arguments), Box::new(texts), &sources, landing)?;
    store.history.share_with(Arc::clone(lead.links()));
    Ok(lead)
}

/// After how much silence another process counts as gone.
fn silent_max(arguments: &RunArguments) -> Duration {
    Duration::from_secs(u64::try_from(arguments.frozen_after).unwrap_or(u64::MAX))
}

/// Runs hunts beside the graph.
fn hunts(settings: &Settings, data: &Path, conductor: &Conductor, reload: &Arc<Reload>) -> Result<Hunts> {
    let reader = || conductor.store.runtime.block_on(conductor.store.ledger.reader());
    let detection = &settings.detection;
    let horizon_s = Some(i64::from(detection.horizon_s));
    let asker = Asker::new(data, settings.sql.options(), horizon_s, i64::from(detection.max_ahead_s))?;
    Hunts::start(settings, asker.with_live(reader()?), Arc::clone(reload), reader()?)
}

/// Keeps history in order beside the graph.
fn keep_house(settings: &Settings, data: &Path, conductor: &Conductor) -> Result<Housekeeping> {
    let store = &conductor.store;
    let beside = Beside {
        place: settings.history.place(data),
        settings: settings.history.clone(),
        reader: store.runtime.block_on(store.ledger.reader())?,
        runtime: store.runtime.handle().clone(),
        chains: Arc::clone(&store.history.chains),
    };
    Housekeeping::start(beside, store.history.replacer())
}

/// What a reload works on. The command line is that of the start.
fn live(cli: &Cli, settings: &Settings, data: &Path, conductor: &Conductor, reload: &Arc<Reload>) -> Result<Arc<Live>> {
    let store = &conductor.store;
    let reader = store.runtime.block_on(store.ledger.reader())?;
    let (config, arguments) = (cli.config.clone(), std::env::args_os().collect::<Vec<_>>());
    let read = move || {
        let mut cli = Cli::try_parse_from(&arguments).context("the command line cannot be read again")?;
        cli.config.clone_from(&config);
        let Command::Run(run) = &cli.command else { bail!("the command line is not that of `run`") };
        Ok(config::load(&cli, Some(run))?.settings)
    };
    let ledger = (store.ledger.clone(), reader, data.to_owned());
    let (waiting, runtime) = (Arc::clone(&conductor.live), store.runtime.handle().clone());
    Ok(Live::new(Box::new(read), settings.clone(), ledger, Arc::clone(reload), waiting, runtime))
}

/// The rules of this start: files, what was made by hand, and for what is broken now the texts of the last epoch.
async fn open_rules(ledger: &Ledger, files: Vec<cf_sigma::Text>, options: &rules::RuleOptions) -> Result<RuleBook> {
    let upper = ledger.engine().await?.upper;
    let last = ledger.epochs_from(upper.saturating_sub(1)).await?;
    let before = match last.last() {
        Some(record) => Shelf::get(ledger, &record.rules).await?.unwrap_or_default(),
        None => Vec::new(),
    };
    let by_hand = ledger.control_of_kind(cf_ledger::control::RULE).await?;
    let book = RuleBook::open(files, &by_hand, &before, options)?;
    for problem in book.all_problems() {
        match problem.severity {
            cf_sigma::Severity::Error => tracing::error!(%problem, "a rule does not load"),
            cf_sigma::Severity::Warning => tracing::debug!(%problem, "a rule is doubtful"),
        }
    }
    for file in book.held.keys() {
        tracing::error!(file = &**file, "a rule file is broken; the version of the last run stays in force");
    }
    tracing::info!(rules = book.set.rules().len(), problems = book.errors(), "rules are loaded");
    Ok(book)
}

struct Taps(Arc<Status>, Arc<dyn Tap>);

impl Tap for Taps {
    fn decoded(&self, epoch: u64, worker: usize, events: &[cf_types::Event], rejects: &[cf_types::Reject]) {
        self.0.decoded(epoch, worker, events, rejects);
        self.1.decoded(epoch, worker, events, rejects);
    }
}

async fn watch_signals(
    stopper: edge::StopEdge,
    live: Arc<Live>,
    links: Arc<Links>,
    stopping: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
) {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = kinds else {
        tracing::error!("signals cannot be heard; stop the engine by SIGKILL, it is made for that");
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = links.leaving() => break,
            _ = hangup.recv() => match live.reload().await {
                Ok(report) => tracing::info!(%report, "read anew"),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the settings are not right; nothing was changed");
                }
            },
        }
    }
    tracing::info!("stopping: no more is received, what was accepted is worked off");
    stopping.store(true, Ordering::Release);
    stopper.stop().await;
    stop.store(true, Ordering::Release);
}

/// Reads files once, as bounded sources, on a thread of their own. What an earlier run spooled is not read again.
fn read_files(
    files: &[PathBuf],
    conductor: &Conductor,
    stopping: Arc<AtomicBool>,
) -> Result<Option<thread::JoinHandle<()>>> {
    if files.is_empty() {
        return Ok(None);
    }
    let done = conductor.files_done()?;
    let (spool, files) = (Arc::clone(&conductor.spool), files.to_vec());
    let handle = thread::Builder::new()
        .name("files".to_owned())
        .spawn(move || {
            if let Err(error) = spool_files(&spool, &files, &done, &stopping) {
                tracing::error!(error = format!("{error:#}"), "files could not be read to their end");
            }
        })
        .context("could not start the thread that reads files")?;
    Ok(Some(handle))
}

fn spool_files(spool: &Spool, files: &[PathBuf], done: &HashMap<String, u64>, stopping: &AtomicBool) -> Result<()> {
    let mut input = crate::input::Input::new(files, None);
    while !stopping.load(Ordering::Acquire) {
        let mut records = input.batch(crate::input::BATCH_RECORDS);
        if records.is_empty() {
            break;
        }
        records.retain(|record| {
            let next = done.get(&*record.position.origin).copied().unwrap_or(0);
            record.position.offset >= next || &*record.position.origin == "-"
        });
        loop {
            match spool.append_wait(&records) {
                Ok(_) => break,
                // What is not read now is read at the next start.
                Err(error) if error.is_back_pressure() && stopping.load(Ordering::Acquire) => return Ok(()),
                Err(error) if error.is_back_pressure() => thread::sleep(Duration::from_millis(100)),
                Err(error) => return Err(error.into()),
            }
        }
    }
    tracing::info!(bytes = input.bytes, unreadable = input.unreadable, "files are read");
    Ok(())
}
