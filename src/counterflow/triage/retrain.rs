//! Trainings by schedule.
//!
//! A training is a process of its own (`counterflow train --data`), at low priority and with few threads: it can use what
//! memory it needs and be ended without harm, and the registry is as it was if it dies. It goes on if the engine ends;
//! the registry's lock keeps two apart. When it ran is in the control log, so that a restart neither repeats nor forgets
//! it. What is promoted is seen by [`super::switch`] like a promotion by hand.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use cf_types::Time;

use super::settings::{ModelsSettings, Retrain};

/// What the control log calls a training by schedule, and what came of models by themselves.
pub(crate) const RETRAIN: &str = "retrain";

/// How long a training may take.
const TRAINING_MAX: Duration = Duration::from_secs(4 * 3_600);
/// Letters of what a training said that are kept.
const SAID_MAX: usize = 2_000;

/// Whether a time of the schedule lies between the last training and now.
pub(super) fn is_due(retrain: Retrain, hour: u8, last: Time, now: Time) -> bool {
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
pub(super) struct Training {
    pub(super) task: &'static str,
    child: Child,
    begun: Instant,
    said: PathBuf,
}

impl Training {
    pub(super) fn begin(data: &Path, settings: &ModelsSettings, task: &'static str) -> Result<Training> {
        let program = std::env::current_exe().context("could not find this program")?;
        let models = settings.dir.as_deref().context("there is no registry")?;
        let said = data.join("retrain.log");
        let file = File::create(&said).with_context(|| format!("could not write {}", said.display()))?;
        // `nice` is POSIX: the engine goes first wherever both want to run.
        let child = Command::new("nice")
            .args(["-n", "19"])
            .arg(program)
            .args(["--output", "json", "train", "--task", task, "--promote", "evidence", "--data"])
            .arg(data)
            .arg("--models")
            .arg(models)
            .args(["--threads", &settings.retrain_threads.max(1).to_string()])
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("could not share the log of a training")?)
            .stderr(file)
            .spawn()
            .context("could not start a training")?;
        Ok(Training { task, child, begun: Instant::now(), said })
    }

    /// How it ended; `None` while it runs.
    pub(super) fn outcome(&mut self) -> Result<Option<String>> {
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
