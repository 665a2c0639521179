//! Which settings the processes of a cluster must have alike: what decides how events are decoded, matched and counted.
//!
//! Rules and how sources decode are not among them: the leader sends those, as they can change while it runs.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;
use serde_json::Value;

use crate::config::Settings;

/// Keys of `detection` that must be alike; all others are the leader's matter.
const DETECTION: &[&str] = &[
    "horizon_s",
    "max_ahead_s",
    "disorder_s",
    "fold_window_s",
    "incident_window_s",
    "incident_hub_neighbours_max",
    "incident_unlinked",
    "alerts_per_rule_hour_max",
];

/// A longer value is told by its hash.
const SHOWN_BYTES_MAX: usize = 200;

/// The settings that must be alike, by key, as they are shown to people.
pub(super) fn alike(settings: &Settings) -> Result<BTreeMap<String, String>> {
    let all = serde_json::to_value(settings)?;
    let of = |section: &str, key: &str| all.get(section).and_then(|section| section.get(key)).map(Value::to_string);
    let detection = DETECTION.iter().map(|key| (format!("detection.{key}"), of("detection", key).unwrap_or_default()));
    let scoring = all.get("scoring").map(Value::to_string).unwrap_or_default();
    let asked = settings.models.dir.as_ref().map(|_| settings.models.event_modes());
    let others = [
        ("scoring", scoring),
        ("rules.placeholders", of("rules", "placeholders").unwrap_or_default()),
        ("rules.pipelines", texts(&settings.rules.pipelines)?),
        ("rules.log_sources", texts(&settings.rules.log_sources)?),
        ("models", format!("{asked:?}")),
        ("the build", format!("yara {}", cfg!(feature = "yara"))),
    ];
    let others = others.into_iter().map(|(key, value)| (key.to_owned(), value));
    Ok(detection.chain(others).map(|(key, value)| (key, shown(value))).collect())
}

fn shown(value: String) -> String {
    if value.len() <= SHOWN_BYTES_MAX { value } else { format!("blake3 {}", blake3::hash(value.as_bytes()).to_hex()) }
}

/// What files say, whatever they are called.
fn texts(files: &[PathBuf]) -> Result<String> {
    if files.is_empty() {
        return Ok("none".to_owned());
    }
    let mut hasher = blake3::Hasher::new();
    for text in crate::rules::read(files)? {
        hasher.update(&u64::try_from(text.text.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(text.text.as_bytes());
    }
    Ok(format!("blake3 {}", hasher.finalize().to_hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that only the process with the sources and the ledger looks at; `workers` is compared by itself.
    const LEADERS: &[&str] = &[
        "workers",
        "idle_after_s",
        "max_drift_s",
        "rule_scan_interval",
        "max_concurrent_scans",
        "lookup_slice_max",
        "rule_watch_s",
    ];

    #[test]
    fn of_every_key_of_detection_it_is_decided_who_must_know_it() {
        let all = serde_json::to_value(Settings::default()).unwrap();
        for key in all["detection"].as_object().unwrap().keys() {
            let lists = [DETECTION, LEADERS].iter().filter(|list| list.contains(&key.as_str())).count();
            assert_eq!(lists, 1, "{key}");
        }
    }

    #[test]
    fn what_differs_differs_and_what_is_long_is_short() {
        let mut settings = Settings::default();
        let before = alike(&settings).unwrap();
        settings.detection.rule_watch_s = 99;
        assert_eq!(alike(&settings).unwrap(), before);
        settings.scoring.office_hours = true;
        settings.detection.incident_unlinked = (0..100).map(|n| format!("host:h{n}")).collect();
        let after = alike(&settings).unwrap();
        let differ: Vec<_> = after.iter().filter(|(key, value)| before.get(*key) != Some(*value)).collect();
        assert_eq!(
            differ.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
            ["detection.incident_unlinked", "scoring"]
        );
        assert!(after.values().all(|value| value.len() <= SHOWN_BYTES_MAX));
    }
}
