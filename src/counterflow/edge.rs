//! The edges of `run`: HTTP and syslog in, the response side out, each on the runtime, started and stopped together.

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use cf_api::{ApiOptions, ApiState, Condition, Health, Page, router, serve};
use cf_ingest::receive::{
    ReceiverCounts, SpoolAccept, Stopper, SyslogOptions, bind_udp, kernel_drops, syslog_tcp, syslog_udp,
};
use cf_response::Responder;
use cf_sigma::RuleStats;
use cf_spool::Spool;
use cf_types::Tenant;
use tokio::{
    net::{TcpListener, UdpSocket},
    runtime::Runtime,
    sync::watch,
    task::JoinHandle,
};

use crate::{
    conduct::Conductor,
    config::{ListenSettings, Settings},
    hunts::schedule::HuntsApi,
    rejects::Asked,
    reload::Reload,
    scoring::Scoring,
    sinks::{self, Sinks},
    sources::{Board, SourcesApi},
    sql::Service,
    status::Status,
    triage::Triage,
};

/// Addresses that are ours.
pub(crate) struct Sockets {
    http: Option<TcpListener>,
    syslog_udp: Option<UdpSocket>,
    syslog_tcp: Option<TcpListener>,
    sql: Option<TcpListener>,
}

/// Takes the addresses, or says which one is not to be had.
pub(crate) async fn bind(listen: &ListenSettings, sql: Option<SocketAddr>) -> Result<Sockets> {
    let context = |what: &'static str, address: SocketAddr| move || format!("could not listen on {address} ({what})");
    let tcp = async |what: &'static str, address: Option<SocketAddr>| -> Result<Option<TcpListener>> {
        let Some(address) = address else { return Ok(None) };
        let listener = TcpListener::bind(address).await.with_context(context(what, address))?;
        tracing::info!(what, address = %listener.local_addr()?, "listening");
        Ok(Some(listener))
    };
    let http = tcp("http", listen.http).await?;
    let syslog_tcp = tcp("syslog, tcp", listen.syslog_tcp).await?;
    let sql = tcp("sql", sql).await?;
    let syslog_udp = match listen.syslog_udp {
        Some(address) => {
            let socket = bind_udp(address, &SyslogOptions::default()).await;
            let socket = socket.with_context(context("syslog, udp", address))?;
            tracing::info!(what = "syslog, udp", address = %socket.local_addr()?, "listening");
            Some(socket)
        }
        None => None,
    };
    Ok(Sockets { http, syslog_udp, syslog_tcp, sql })
}

/// How long the response side may take to end.
const CLOSE_WAIT: Duration = Duration::from_secs(120);

/// What runs beside the conductor.
pub(crate) struct Edge {
    stopper: Arc<Stopper>,
    receiving: Vec<JoinHandle<()>>,
    received: watch::Sender<bool>,
    response: Option<JoinHandle<()>>,
    end_response: watch::Sender<bool>,
    /// Ends with it.
    _sql: Option<Arc<Service>>,
}

/// Stops what receives, and waits until what was received is in the spool.
pub(crate) struct StopEdge {
    stopper: Arc<Stopper>,
    received: watch::Receiver<bool>,
}

impl StopEdge {
    /// Resolves when nothing is received any more.
    pub(crate) async fn stop(mut self) {
        self.stopper.stop();
        drop(self.received.wait_for(|done| *done).await);
    }
}

impl Edge {
    /// Starts everything.
    pub(crate) fn start(
        settings: &Settings,
        data: &Path,
        sockets: Sockets,
        conductor: &Conductor,
        reload: &Arc<Reload>,
        (engine, hunts): (Arc<dyn cf_api::Engine>, Arc<HuntsApi>),
        sinks: &Sinks,
    ) -> Result<Edge> {
        let runtime = Arc::clone(&conductor.store.runtime);
        let (stopper, stop) = Stopper::new();
        let spool = &conductor.spool;
        let counts = Counts::default();
        let accept = Arc::new(SpoolAccept::new(Arc::clone(spool), Tenant::default()));
        let mut receiving: Vec<JoinHandle<()>> = Vec::new();
        if let Some(socket) = sockets.syslog_udp {
            let port = socket.local_addr()?.port();
            *counts.udp_port.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(port);
            let (accept, counts, stop) = (Arc::clone(&accept), Arc::clone(&counts.syslog), stop.clone());
            receiving.push(runtime.spawn(async move {
                report("syslog, udp", syslog_udp(socket, Arc::from("syslog"), accept, counts, stop).await);
            }));
        }
        if let Some(listener) = sockets.syslog_tcp {
            let (accept, counts, stop) = (Arc::clone(&accept), Arc::clone(&counts.syslog), stop.clone());
            receiving.push(runtime.spawn(async move {
                let options = SyslogOptions::default();
                report("syslog, tcp", syslog_tcp(listener, Arc::from("syslog"), accept, &options, counts, stop).await);
            }));
        }
        let sql = if sockets.http.is_some() || sockets.sql.is_some() {
            let reader = runtime.block_on(conductor.store.ledger.reader())?;
            Some(Service::start(data, &settings.sql, reader, sockets.sql)?)
        } else {
            None
        };
        if let Some(listener) = sockets.http {
            let reader = runtime.block_on(conductor.store.ledger.reader())?;
            let options = ApiOptions::default();
            let health = health(&conductor.status, spool, reload, (&conductor.triage, &conductor.scoring));
            let board = Arc::clone(&conductor.board);
            if !conductor.kafka.is_empty() {
                health.component("sources", move || {
                    let (good, says) = board.summary();
                    (if good { Condition::Ok } else { Condition::Degraded }, says)
                });
            }
            let told = Arc::clone(sinks.board());
            if !sinks.is_empty() {
                health.component("sinks", move || {
                    let (good, says) = told.summary();
                    (if good { Condition::Ok } else { Condition::Degraded }, says)
                });
            }
            let of = Arc::clone(&hunts);
            health.component("hunts", move || {
                let (good, says) = of.summary();
                (if good { Condition::Ok } else { Condition::Degraded }, says)
            });
            let health = Arc::new(health);
            let page = page(&conductor.status, spool, reload, counts, (&conductor.triage, &conductor.scoring));
            let page = with_lags(page, Arc::clone(&conductor.board), Arc::clone(sinks.board()));
            let page = with_hunts(page, Arc::clone(&hunts));
            let rules: Arc<dyn cf_api::Rules> = Arc::<Reload>::clone(reload);
            let state = ApiState::new(Arc::clone(spool), reader, data.to_owned(), health, page, options.clone());
            let rejects = Asked::new(data.to_owned(), runtime.handle().clone());
            let mut state = state.with_rules(rules).with_engine(engine).with_sources(sources(settings, conductor));
            state = state.with_rejects(rejects).with_sinks(Arc::<sinks::Board>::clone(sinks.board()));
            state = state.with_hunts(hunts);
            if let Some(sql) = &sql {
                state = state.with_sql(Arc::<Service>::clone(sql));
            }
            receiving.push(runtime.spawn(async move {
                report("http", serve(listener, router(state), &options, stop).await);
            }));
        }
        let (end_response, mut ending) = watch::channel(false);
        let responder = Responder::new(conductor.store.ledger.clone(), settings.response.clone())?;
        let response = runtime.spawn(async move {
            responder.run(async move { drop(ending.wait_for(|end| *end).await) }).await;
        });
        let (received, _) = watch::channel(false);
        Ok(Edge { stopper: Arc::new(stopper), receiving, received, response: Some(response), end_response, _sql: sql })
    }

    /// For who hears the signals.
    pub(crate) fn stopper(&mut self, runtime: &Runtime) -> StopEdge {
        let (receiving, done) = (std::mem::take(&mut self.receiving), self.received.clone());
        runtime.spawn(async move {
            for task in receiving {
                drop(task.await);
            }
            done.send_replace(true);
        });
        StopEdge { stopper: Arc::clone(&self.stopper), received: self.received.subscribe() }
    }

    /// Ends the response side: what is being tried ends, what is planned waits in the ledger for the next start.
    pub(crate) fn close(mut self, runtime: &Runtime) {
        self.stopper.stop();
        self.end_response.send_replace(true);
        if let Some(response) = self.response.take() {
            // What is being tried ends by its own limits; but a ledger that is gone for good must not keep us here. What
            // it was not told of is verified first by the next start.
            drop(runtime.block_on(async { tokio::time::timeout(CLOSE_WAIT, response).await }));
        }
    }
}

/// The sources as the API sees them.
fn sources(settings: &Settings, conductor: &Conductor) -> Arc<dyn cf_api::sources::Sources> {
    let kafka = settings.sources.iter().filter_map(|(name, source)| Some((name.clone(), source.kafka.clone()?)));
    Arc::new(SourcesApi {
        board: Arc::clone(&conductor.board),
        kafka: kafka.collect(),
        ledger: conductor.store.ledger.clone(),
        runtime: conductor.store.runtime.handle().clone(),
    })
}

/// The page, the lag of each partition of Kafka, and what each sink was not told yet.
fn with_lags(
    page: Arc<dyn Fn(&mut Page) + Send + Sync>,
    board: Arc<Board>,
    sinks: Arc<sinks::Board>,
) -> Arc<dyn Fn(&mut Page) + Send + Sync> {
    Arc::new(move |out| {
        page(out);
        let lags = board.lags();
        let labels: Vec<_> = lags.iter().map(|(stream, _)| [("stream", stream.as_str())]).collect();
        let rows = labels.iter().zip(&lags).map(|(labels, (_, lag))| (&labels[..], *lag));
        let help = "Records of a Kafka partition that wait to be read.";
        out.metric("counterflow_kafka_lag", cf_api::metrics::Kind::Gauge, help, rows);
        let behind = sinks.behind();
        let labels: Vec<_> = behind.iter().map(|(sink, _)| [("sink", sink.as_str())]).collect();
        let rows = labels.iter().zip(&behind).map(|(labels, (_, behind))| (&labels[..], *behind));
        let help = "Ids whose change a sink was not told yet.";
        out.metric("counterflow_sink_behind", cf_api::metrics::Kind::Gauge, help, rows);
    })
}

/// The page, and what hunts did.
fn with_hunts(
    page: Arc<dyn Fn(&mut Page) + Send + Sync>,
    hunts: Arc<HuntsApi>,
) -> Arc<dyn Fn(&mut Page) + Send + Sync> {
    Arc::new(move |out| {
        page(out);
        hunts.metrics(out);
    })
}

fn report<E: std::fmt::Display>(what: &str, ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::error!(what, %error, "a receiver has ended; its senders are refused until a restart");
    }
}

#[derive(Default)]
struct Counts {
    syslog: Arc<ReceiverCounts>,
    udp_port: std::sync::Mutex<Option<u16>>,
}

/// Those who ask models.
type Asking<'a> = (&'a Triage, &'a Scoring);

fn health(status: &Arc<Status>, spool: &Arc<Spool>, reload: &Arc<Reload>, (triage, scoring): Asking<'_>) -> Health {
    let health = Health::default();
    if let Some(counts) = scoring.counts() {
        health.component("scoring", move || {
            let (well, says) = counts.summary();
            (if well { Condition::Ok } else { Condition::Degraded }, says)
        });
    }
    if triage.is_on() {
        let counts = triage.counts();
        health.component("triage", move || {
            let (well, says) = counts.summary();
            (if well { Condition::Ok } else { Condition::Degraded }, says)
        });
    }
    let graph = Arc::clone(status);
    health.component("graph", move || {
        let (ready, says) = graph.summary();
        (if ready { Condition::Ok } else { Condition::Degraded }, says)
    });
    let rules = Arc::clone(reload);
    health.component("rules", move || {
        let book = rules.book();
        let (rules, errors, held) = (book.set.rules().len(), book.errors(), book.held.len());
        match held {
            0 => (Condition::Ok, format!("{rules} rules, {errors} problems")),
            _ => {
                let says =
                    format!("{rules} rules, {errors} problems; {held} files are broken, their old versions hold");
                (Condition::Degraded, says)
            }
        }
    });
    let spool = Arc::clone(spool);
    health.component("spool", move || match spool.log().ended() {
        None if spool.log().is_refusing() => {
            (Condition::Degraded, "the disk takes nothing, senders are refused; see the log".to_owned())
        }
        None => (Condition::Ok, format!("{} rows, {} bytes on disk", spool.log().durable_end(), spool.log().bytes())),
        Some(error) => (Condition::Down, error.to_string()),
    });
    let ledger = Arc::clone(status);
    health.component("ledger", move || match ledger.differing() {
        0 => (Condition::Ok, "the state rebuilt at start is the ledger's".to_owned()),
        n => (Condition::Degraded, format!("{n} alerts differ from the state rebuilt at start; see the log")),
    });
    health
}

/// What rules cost: a rule that was never evaluated has no row.
fn rule_metrics(page: &mut Page, counted: &HashMap<Arc<str>, RuleStats>) {
    let mut rules: Vec<_> = counted.iter().filter(|(_, stats)| stats.candidates > 0).collect();
    rules.sort_unstable_by_key(|(id, _)| Arc::clone(id));
    let labels: Vec<_> = rules.iter().map(|(id, _)| [("rule_id", &***id)]).collect();
    let rows = || labels.iter().zip(&rules).map(|(labels, (_, stats))| (&labels[..], *stats));
    let counter = cf_api::metrics::Kind::Counter;
    let help = "Events for which a rule was evaluated, because its anchor was met or it has none.";
    page.metric("rule_candidates_total", counter, help, rows().map(|(labels, stats)| (labels, stats.candidates)));
    let help = "Seconds spent in a rule, in those events that were timed (one of 1,024).";
    let seconds = |stats: &RuleStats| Duration::from_nanos(stats.nanos_sampled).as_secs_f64();
    page.metric("rule_sampled_seconds_total", counter, help, rows().map(|(labels, stats)| (labels, seconds(stats))));
}

/// Scans with YARA rules, and those that were cut short.
fn yara_metrics(page: &mut Page) {
    #[cfg(feature = "yara")]
    {
        let cf_yara::Counters { scans_total, cut_total, timeouts_total, failures_total } = cf_yara::counters();
        for (name, help, value) in [
            ("yara_scans_total", "Values scanned with YARA rules.", scans_total),
            ("yara_cut_total", "Of these, those of which only the first part was seen.", cut_total),
            ("yara_timeouts_total", "Of these, those that ran out of time.", timeouts_total),
            ("yara_failures_total", "Of these, those that failed.", failures_total),
        ] {
            page.single(name, cf_api::metrics::Kind::Counter, help, value);
        }
    }
    #[cfg(not(feature = "yara"))]
    let _none = page;
}

fn page(
    status: &Arc<Status>,
    spool: &Arc<Spool>,
    reload: &Arc<Reload>,
    counts: Counts,
    (triage, scoring): Asking<'_>,
) -> Arc<dyn Fn(&mut Page) + Send + Sync> {
    let scoring = scoring.counts();
    let triage = triage.is_on().then(|| triage.counts());
    let (status, spool, reload) = (Arc::clone(status), Arc::clone(spool), Arc::clone(reload));
    Arc::new(move |page| {
        page.raw(&status.metrics(spool.log()));
        let book = reload.book();
        let enabled = book.set.rules().iter().filter(|rule| rule.enabled).count();
        let gauges = [
            ("counterflow_rules", "Rules that events meet.", enabled),
            ("counterflow_rules_problems", "Errors in rule texts, those of the newest broken ones too.", book.errors()),
            ("counterflow_rules_held", "Rule files that are broken: an older version holds.", book.held.len()),
        ];
        for (name, help, value) in gauges {
            page.single(name, cf_api::metrics::Kind::Gauge, help, value);
        }
        rule_metrics(page, &reload.counted());
        let help = "Rules that ask for a field that no event ever had.";
        let unseen = reload.book().set.fields_unseen().len();
        page.single(
            "rules_fields_unseen",
            cf_api::metrics::Kind::Gauge,
            help,
            u64::try_from(unseen).unwrap_or(u64::MAX),
        );
        yara_metrics(page);
        let scored = scoring.iter().flat_map(|counts| counts.metrics());
        for (name, help, value, rises) in triage.iter().flat_map(|counts| counts.metrics()).chain(scored) {
            let kind = if rises { cf_api::metrics::Kind::Counter } else { cf_api::metrics::Kind::Gauge };
            page.single(name, kind, help, value);
        }
        let port = *counts.udp_port.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(drops) = port.and_then(kernel_drops) {
            let help = "Datagrams that the kernel dropped because we were behind.";
            page.single("counterflow_syslog_udp_dropped_total", cf_api::metrics::Kind::Counter, help, drops);
        }
        let syslog = &counts.syslog;
        let rows = [
            ("counterflow_syslog_records_total", "Syslog records made durable.", &syslog.records),
            ("counterflow_syslog_unframed_total", "Syslog messages too long, too slow or cut off.", &syslog.unframed),
            ("counterflow_syslog_waits_total", "How often a full spool made a receiver wait.", &syslog.waits),
            ("counterflow_syslog_lost_total", "Records received but not durable at a stop.", &syslog.lost),
            ("counterflow_syslog_refused_total", "Connections refused: too many.", &syslog.connections_refused),
            ("counterflow_syslog_timeouts_total", "Connections closed: idle or too slow.", &syslog.timeouts),
        ];
        for (name, help, count) in rows {
            page.single(name, cf_api::metrics::Kind::Counter, help, count.load(std::sync::atomic::Ordering::Relaxed));
        }
    })
}
