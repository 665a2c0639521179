//! Keeps history in order beside a running engine: joins small files, lets go of what is too old or too much, removes
//! files that nobody needs.
//!
//! A thread of the lowest priority reads tables and writes new files; each replacement goes to the thread that writes
//! history, which alone commits. So a crash at any moment leaves every epoch exactly once (`cf_history`, `keep.rs`).

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use cf_history::{Housekeeper, Pin, Pinned, Place, Replacement, Table};
use cf_ledger::{Reader, read::AlertFilter};
use cf_types::{Alert, Cell};
use tokio::runtime::Handle;

use crate::{below::Chains, history_settings::HistorySettings};

/// How often what is too old or too much is looked for.
const RETAIN_EVERY: Duration = Duration::from_secs(600);
/// How often files that nobody needs are looked for.
const VACUUM_EVERY: Duration = Duration::from_secs(3_600);
/// Alerts that can be asked for what they rest on; with more nothing of events and detections goes.
const ALERTS_MAX: u32 = 1_000_000;

/// How a replacement is committed; `false` if it comes too late.
pub(crate) type Replace<'a> = &'a mut dyn FnMut(Replacement) -> Result<bool>;

/// What it needs to know of the engine.
pub(crate) struct Beside {
    pub(crate) place: Place,
    pub(crate) settings: HistorySettings,
    pub(crate) reader: Reader,
    pub(crate) runtime: Handle,
    pub(crate) chains: Arc<Mutex<Chains>>,
}

/// The thread; it ends when this is dropped.
pub(crate) struct Housekeeping {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that keeps history in order has died");
        }
    }
}

impl Housekeeping {
    /// Starts it.
    pub(crate) fn start(
        beside: Beside,
        mut replace: impl FnMut(Replacement) -> Result<bool> + Send + 'static,
    ) -> Result<Housekeeping> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::Builder::new()
            .name("history-keep".to_owned())
            .spawn(move || {
                // On Linux this is the thread's own; where it is refused, work goes on at the usual priority.
                let _refused = rustix::process::setpriority_process(None, 19);
                run(&beside, &stopped, &mut replace);
            })
            .context("could not start the thread that keeps history in order")?;
        Ok(Housekeeping { stop: Some(stop), thread: Some(thread) })
    }
}

fn run(beside: &Beside, stopped: &mpsc::Receiver<()>, replace: Replace<'_>) {
    let every = Duration::from_secs(u64::from(beside.settings.compact_every_s));
    if every.is_zero() {
        return;
    }
    let (mut retained, mut vacuumed) = (None::<Instant>, None::<Instant>);
    let due = |last: Option<Instant>, every: Duration| last.is_none_or(|last| last.elapsed() >= every);
    let mut keeper = None;
    while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        let mut turn = || -> Result<()> {
            if keeper.is_none() {
                keeper = Some(Housekeeper::new(&beside.place)?);
            }
            let Some(keeper) = keeper.as_mut() else { return Ok(()) };
            compact(keeper, false, &mut |replacement| {
                let ends = stopped.try_recv() == Err(mpsc::TryRecvError::Disconnected);
                if ends { bail!("the engine stops") } else { replace(replacement) }
            })?;
            if due(retained, RETAIN_EVERY) {
                retained = Some(Instant::now());
                let pins = || beside.runtime.block_on(pins(&beside.reader, &beside.chains));
                retain(keeper, &beside.settings, &pins, replace)?;
            }
            if due(vacuumed, VACUUM_EVERY) {
                vacuumed = Some(Instant::now());
                vacuum(keeper, &beside.settings)?;
            }
            Ok(())
        };
        if let Err(error) = turn() {
            tracing::warn!(error = format!("{error:#}"), "history was not kept in order; tried again later");
        }
    }
}

/// Joins until nothing is left to join. Gives how many files went, and how many came.
pub(crate) fn compact(keeper: &mut Housekeeper, all: bool, replace: Replace<'_>) -> Result<(usize, usize)> {
    let mut files = (0, 0);
    for table in Table::ALL {
        while let Some(replacement) = keeper.compact(table, all)? {
            let (went, came) = replacement.files();
            if !replace(replacement)? {
                break; // others were quicker: planned anew at the next turn
            }
            tracing::debug!(table = table.name(), went, came, "files of history were joined");
            files = (files.0 + went, files.1 + came);
        }
    }
    Ok(files)
}

/// Lets go of what is too old, then of what is too much. Gives how many files were let go of or cut down.
fn retain(
    keeper: &mut Housekeeper,
    settings: &HistorySettings,
    pins: &dyn Fn() -> Result<Vec<Pin>>,
    replace: Replace<'_>,
) -> Result<usize> {
    if !settings.lets_go() {
        return Ok(0);
    }
    let retention = settings.retention()?;
    let pinned = pinned(keeper, pins()?)?;
    let mut count = 0;
    while let Some(replacement) = keeper.expire(&retention, &pinned)? {
        count += usize::from(replace(replacement)?);
    }
    while let Some(bytes_max) = settings.bytes_max {
        let Some(replacement) = keeper.shrink(bytes_max, &pinned)? else { break };
        count += usize::from(replace(replacement)?);
    }
    if count > 0 {
        tracing::info!(files = count, "history let go of what was too old or too much");
    }
    Ok(count)
}

fn pinned(keeper: &mut Housekeeper, pins: Vec<Pin>) -> Result<Pinned> {
    let mut pinned = Pinned::new(pins);
    let Some((first, last)) = pinned.extent() else { return Ok(pinned) };
    let mut learned = Vec::new();
    keeper.read(
        Table::Detections,
        &|file| {
            file.newest.is_none_or(|newest| newest.cell() >= first)
                && file.oldest.is_none_or(|oldest| oldest.cell() <= last)
        },
        &mut |rows| learned.push(rows.clone()),
    )?;
    learned.iter().for_each(|rows| pinned.learn(rows));
    Ok(pinned)
}

fn vacuum(keeper: &Housekeeper, settings: &HistorySettings) -> Result<()> {
    let keep_ms = i64::from(settings.versions_h) * 3_600_000;
    let (files, bytes) = keeper.vacuum(keep_ms)?;
    if files > 0 {
        tracing::info!(files, bytes, "files of history that no version needs were removed");
    }
    Ok(())
}

/// What the alerts of incidents rest on. Of a chained correlation: whatever its lower rules met within its reach.
async fn pins(reader: &Reader, chains: &Mutex<Chains>) -> Result<Vec<Pin>> {
    let alerts = reader.alerts(&AlertFilter { limit: ALERTS_MAX, ..AlertFilter::default() }).await?;
    if alerts.len() >= usize::try_from(ALERTS_MAX)? {
        bail!("there are {ALERTS_MAX} alerts or more: what incidents rest on cannot be told, so nothing goes");
    }
    let chains = chains.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pins = Vec::new();
    for view in alerts.into_iter().filter(|alert| alert.incident.is_some() && alert.state != "withdrawn") {
        let alert: Alert = serde_json::from_value(view.content).context("an alert of the ledger is damaged")?;
        let reach: Cell = chains.reach(&alert.rule);
        let wide = (alert.anchor.saturating_sub(reach), alert.last_cell.saturating_add(reach));
        pins.extend(chains.all_below(&alert.rule).into_iter().map(|below| Pin {
            rule: below.to_string(),
            group: None,
            cells: wide,
        }));
        let (rule, group) = (alert.rule.to_string(), Some(alert.group));
        pins.push(Pin { rule, group, cells: (alert.anchor, alert.last_cell) });
    }
    Ok(pins)
}
