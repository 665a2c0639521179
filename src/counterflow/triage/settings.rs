//! Settings of models that answer while the engine runs.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::IntoDeserializer};

use super::switch::TASK;
use crate::scoring;

/// Models that answer while the engine runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ModelsSettings {
    /// Folder of the registry, as `counterflow train --models` has it. Without one no model is asked and nothing is
    /// recorded for trainings.
    pub(crate) dir: Option<PathBuf>,
    /// What models are used for.
    pub(crate) task: TaskSettings,
    /// Whether a model says which URLs and domains of events look like phishing: `on` (a positive answer is a detection,
    /// from which comes an alert of the built-in rule `model-urls`), `shadow` (answers are recorded, nothing comes of them),
    /// `off`. The champion of task `urls` answers; it must be trained on the text of the URL alone.
    #[serde(deserialize_with = "word")]
    pub(crate) urls: EventMode,
    /// The same for network flows of Zeek (conn) and Suricata (flow, netflow), by the champion of task `flows` and the
    /// built-in rule `model-flows`; it must be trained on what a flow record says.
    #[serde(deserialize_with = "word")]
    pub(crate) flows: EventMode,
    /// What becomes of a challenger: `shadow` (its answers are recorded), `ab` (it answers for half of the alerts and events, by
    /// a hash of who they are about, until verdicts tell the two apart: it is promoted if it is better, else it challenges no
    /// more), `off`.
    #[serde(deserialize_with = "word")]
    pub(crate) challenger: ChallengerMode,
    /// When to train anew on what was served and judged, each task that is on: `daily`, `weekly` (on Mondays) or `off`. It runs
    /// as a process of its own at low priority; what it makes is promoted if it is as good as the champion on the same rows.
    #[serde(deserialize_with = "word")]
    pub(crate) retrain: Retrain,
    /// Hour of the day (UTC) in which to train, 0 to 23.
    pub(crate) retrain_hour: u8,
    /// Threads of a training.
    pub(crate) retrain_threads: u16,
    /// When the champion is taken back by itself.
    pub(crate) rollback: RollbackSettings,
}

impl Default for ModelsSettings {
    fn default() -> ModelsSettings {
        ModelsSettings {
            dir: None,
            task: TaskSettings::default(),
            urls: EventMode::default(),
            flows: EventMode::default(),
            challenger: ChallengerMode::default(),
            retrain: Retrain::default(),
            retrain_hour: 3, // when the fewest alerts come, in Europe
            retrain_threads: 1,
            rollback: RollbackSettings::default(),
        }
    }
}

/// When a training begins by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Retrain {
    #[default]
    Off,
    Daily,
    Weekly,
}

/// When a champion is taken back by itself: when too few of the alerts that it called worth a person, or that came of events
/// which it called positive, were attacks, by the latest 100 verdicts on its answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RollbackSettings {
    /// Percent of attacks below which, by more than chance, the version before answers again; 0: never.
    pub(crate) precision_min_percent: u8,
    /// Verdicts before anything is concluded.
    pub(crate) verdicts_min: u32,
}

impl Default for RollbackSettings {
    fn default() -> RollbackSettings {
        RollbackSettings { precision_min_percent: 50, verdicts_min: 20 } // more wrong than right, and not by a few
    }
}

/// What models are used for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TaskSettings {
    /// Whether a model says which alerts are worth a person: `on`, `off`, or `shadow` (answers are recorded, nothing shows
    /// them). It ranks the queue and moves the confidence; it hides no alert, and moves no score.
    #[serde(deserialize_with = "word")]
    pub(crate) triage: TaskMode,
}

/// How a task uses its champion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TaskMode {
    #[default]
    On,
    Shadow,
    Off,
}

/// How a task that is asked about events uses its champion; nobody has a model of them at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventMode {
    On,
    Shadow,
    #[default]
    Off,
}

impl From<EventMode> for TaskMode {
    fn from(mode: EventMode) -> TaskMode {
        match mode {
            EventMode::On => TaskMode::On,
            EventMode::Shadow => TaskMode::Shadow,
            EventMode::Off => TaskMode::Off,
        }
    }
}

/// How a task uses its challenger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChallengerMode {
    #[default]
    Shadow,
    Ab,
    Off,
}

/// Reads a word of which YAML may have made a truth value: `on` and `off`.
fn word<'de, D: Deserializer<'de>, T: for<'a> Deserialize<'a>>(deserializer: D) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Said {
        Switch(bool),
        Word(String),
    }
    let word = match Said::deserialize(deserializer)? {
        Said::Switch(is_on) => if is_on { "on" } else { "off" }.to_owned(),
        Said::Word(word) => word,
    };
    T::deserialize(word.into_deserializer())
}

impl ModelsSettings {
    /// How URLs and flows are asked about.
    pub(crate) fn event_modes(&self) -> [EventMode; 2] {
        [self.urls, self.flows]
    }

    /// The tasks that models are used for; none without a registry.
    pub(crate) fn tasks(&self) -> Vec<&'static str> {
        let [urls, flows] = self.event_modes().map(|mode| mode != EventMode::Off);
        let [of_urls, of_flows] = scoring::TASKS;
        let all = [(TASK, self.task.triage != TaskMode::Off), (of_urls, urls), (of_flows, flows)];
        all.into_iter().filter(|(_, is_on)| *is_on && self.dir.is_some()).map(|(task, _)| task).collect()
    }

    /// The registry, if triage is wanted.
    pub(crate) fn triage_registry(&self) -> Option<&Path> {
        self.dir.as_deref().filter(|_| self.task.triage != TaskMode::Off)
    }
}
