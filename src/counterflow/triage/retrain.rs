//! The loop: trains anew by schedule, and takes a champion back that is wrong too often.
//!
//! A training is a process of its own (`counterflow train --data`), at low priority and with few threads: it can use what
//! memory it needs and be ended without harm, and the registry is as it was if it dies. It goes on if the engine ends;
//! the registry's lock keeps two apart. When it ran is in the control log, so that a restart neither repeats nor forgets
//! it. What is promoted is seen by [`super::switch`] like a promotion by hand.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use cf_ledger::{ControlLog, Reader};
use cf_models::registry::Registry;
use cf_types::{Time, clock};
use serde_json::json;

use super::{
    precision::Judged,
    settings::{ModelsSettings, Retrain},
    switch::TASK,
};

/// What the control log calls a training by schedule.
pub(crate) const RETRAIN: &str = "retrain";

/// How often the clock and the verdicts are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a training may take.
const TRAINING_MAX: Duration = Duration::from_secs(4 * 3_600);
/// Letters of what a training said that are kept.
const SAID_MAX: usize = 2_000;

/// Starts the thread; it ends with the process.
pub(super) fn start(data: &Path, settings: &ModelsSettings) -> Result<()> {
    let mut keeper =
        Keeper { data: data.to_path_buf(), settings: settings.clone(), judged: Judged::default(), seen: 0 };
    thread::Builder::new()
        .name("retrain".to_owned())
        .spawn(move || {
            if let Err(error) = keeper.work() {
                let error = format!("{error:#}");
                tracing::error!(error, "models are neither trained anew nor taken back; a restart tries again");
            }
        })
        .context("could not start the thread that trains anew")?;
    Ok(())
}

struct Keeper {
    data: PathBuf,
    settings: ModelsSettings,
    judged: Judged,
    /// The last entry of the control log that was read.
    seen: i64,
}

impl Keeper {
    fn work(&mut self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let reader = runtime.block_on(Reader::open(&self.data))?;
        // A folder in which nothing was trained begins to count now.
        let mut last = clock::now();
        let mut training: Option<Training> = None;
        runtime.block_on(self.read(&reader, &mut last))?;
        loop {
            thread::sleep(LOOK_EVERY);
            runtime.block_on(self.read(&reader, &mut last))?;
            if let Some(said) = self.take_back()? {
                tracing::warn!(said, "the champion was taken back");
                runtime.block_on(self.record("rolled_back", &said))?;
            }
            if let Some(running) = &mut training {
                if let Some(outcome) = running.outcome()? {
                    training = None;
                    tracing::info!(outcome, "a training by schedule has ended");
                    runtime.block_on(self.record("trained", &outcome))?;
                }
            } else if is_due(self.settings.retrain, self.settings.retrain_hour, last, clock::now()) {
                last = clock::now();
                // Before it begins: one that ends the engine is not begun again at once.
                runtime.block_on(self.record("begun", "by schedule"))?;
                tracing::info!("a training by schedule begins");
                match Training::begin(&self.data, &self.settings) {
                    Ok(begun) => training = Some(begun),
                    Err(error) => runtime.block_on(self.record("failed", &format!("{error:#}")))?,
                }
            }
        }
    }

    async fn read(&mut self, reader: &Reader, last: &mut Time) -> Result<()> {
        let mut trained = None;
        loop {
            let entries = reader.control_since(self.seen).await?;
            let Some(end) = entries.last().map(|entry| entry.seq) else { break };
            for entry in &entries {
                self.judged.entry(entry)?;
                if entry.kind == RETRAIN && entry.body.contains("\"begun\"") {
                    trained = Some(entry.at);
                }
            }
            self.seen = end;
        }
        *last = trained.unwrap_or(*last);
        Ok(())
    }

    /// Goes back to the version before, if the champion is wrong too often; says why.
    fn take_back(&self) -> Result<Option<String>> {
        let gate = &self.settings.rollback;
        if gate.precision_min_percent == 0 {
            return Ok(None);
        }
        let Some(registry) = self.settings.triage_registry().map(Registry::new) else { return Ok(None) };
        let Ok(state) = registry.state(TASK) else { return Ok(None) };
        let Some(champion) = state.champion.filter(|_| !state.before.is_empty()) else { return Ok(None) };
        let share = self.judged.share(&champion);
        if !share.is_below(gate.precision_min_percent, gate.verdicts_min) {
            return Ok(None);
        }
        let why = format!(
            "of {} alerts that {champion} called worth a person {} were attacks, {} % are asked for",
            share.verdicts, share.attacks, gate.precision_min_percent
        );
        // Another process may be writing just now: the next look tries again.
        let Ok(lock) = registry.lock(TASK) else { return Ok(None) };
        match registry.roll_back(&lock, TASK, &why) {
            Ok(version) => Ok(Some(format!("{version} answers again: {why}"))),
            Err(error) => {
                tracing::error!(%error, why, "the champion should be taken back, and the version before cannot be used");
                Ok(None)
            }
        }
    }

    async fn record(&self, what: &str, said: &str) -> Result<()> {
        let body = json!({"task": TASK, "what": what, "said": said}).to_string();
        let mut log = ControlLog::open(&self.data).await?;
        log.append(RETRAIN, &body, "triage", said, clock::now()).await?;
        Ok(())
    }
}

/// Whether a time of the schedule lies between the last training and now.
fn is_due(retrain: Retrain, hour: u8, last: Time, now: Time) -> bool {
    let hour_s = i64::from(hour.min(23)) * 3_600;
    let (length, offset) = match retrain {
        Retrain::Off => return false,
        Retrain::Daily => (86_400, hour_s),
        // 1970-01-05 was a Monday.
        Retrain::Weekly => (7 * 86_400, 4 * 86_400 + hour_s),
    };
    let number = |time: Time| (time.cell() - offset).div_euclid(length);
    number(now) > number(last)
}

/// A training that runs.
struct Training {
    child: Child,
    begun: Instant,
    said: PathBuf,
}

impl Training {
    fn begin(data: &Path, settings: &ModelsSettings) -> Result<Training> {
        let program = std::env::current_exe().context("could not find this program")?;
        let models = settings.triage_registry().context("triage is off")?;
        let said = data.join("retrain.log");
        let file = File::create(&said).with_context(|| format!("could not write {}", said.display()))?;
        // `nice` is POSIX: the engine goes first wherever both want to run.
        let child = Command::new("nice")
            .args(["-n", "19"])
            .arg(program)
            .args(["--output", "json", "train", "--task", TASK, "--promote", "evidence", "--data"])
            .arg(data)
            .arg("--models")
            .arg(models)
            .args(["--threads", &settings.retrain_threads.max(1).to_string()])
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("could not share the log of a training")?)
            .stderr(file)
            .spawn()
            .context("could not start a training")?;
        Ok(Training { child, begun: Instant::now(), said })
    }

    /// How it ended; `None` while it runs.
    fn outcome(&mut self) -> Result<Option<String>> {
        let Some(status) = self.child.try_wait().context("could not ask after a training")? else {
            if self.begun.elapsed() < TRAINING_MAX {
                return Ok(None);
            }
            self.child.kill().context("could not end a training")?;
            self.child.wait().context("could not end a training")?;
            return Ok(Some(format!("it was ended after {} hours", TRAINING_MAX.as_secs() / 3_600)));
        };
        let text = fs::read_to_string(&self.said).unwrap_or_default();
        let tail: String = text.chars().rev().take(SAID_MAX).collect::<Vec<_>>().into_iter().rev().collect();
        Ok(Some(if status.success() { tail } else { format!("{status}: {tail}") }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(retrain: Retrain, last: &str, now: &str, due: bool) {
        let time = |text: &str| text.parse::<Time>().unwrap();
        assert_eq!(is_due(retrain, 3, time(last), time(now)), due, "{retrain:?} {last} {now}");
    }

    #[test]
    fn a_training_is_due_once_a_day_or_week_at_its_hour_also_after_a_stop() {
        check(Retrain::Daily, "2026-01-05T02:00:00Z", "2026-01-05T02:59:59Z", false);
        check(Retrain::Daily, "2026-01-05T02:00:00Z", "2026-01-05T03:00:00Z", true);
        check(Retrain::Daily, "2026-01-05T03:00:00Z", "2026-01-06T02:59:59Z", false);
        check(Retrain::Daily, "2026-01-05T03:00:01Z", "2026-01-09T00:00:00Z", true); // the engine was off
        // 2026-01-05 was a Monday.
        check(Retrain::Weekly, "2026-01-05T03:00:00Z", "2026-01-12T02:59:59Z", false);
        check(Retrain::Weekly, "2026-01-05T03:00:00Z", "2026-01-12T03:00:00Z", true);
        check(Retrain::Weekly, "2026-01-04T23:00:00Z", "2026-01-05T02:00:00Z", false);
        check(Retrain::Off, "2020-01-01T00:00:00Z", "2026-01-05T03:00:00Z", false);
    }
}
