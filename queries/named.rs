//! The named queries: the `.sql` files of this folder, which reports use.

/// A query with a name.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Its name: the file's, without `.sql`.
    pub name: &'static str,
    /// Its text; the comment at the top says what it answers.
    pub sql: &'static str,
}

/// All of them, by name.
pub const QUERIES: &[Named] = &[
    Named { name: "alert_timeline", sql: include_str!("alert_timeline.sql") },
    Named { name: "alerts_by_rule", sql: include_str!("alerts_by_rule.sql") },
    Named { name: "alerts_by_tactic", sql: include_str!("alerts_by_tactic.sql") },
    Named { name: "detections_by_rule", sql: include_str!("detections_by_rule.sql") },
    Named { name: "events_by_hour", sql: include_str!("events_by_hour.sql") },
    Named { name: "logins_by_address", sql: include_str!("logins_by_address.sql") },
    Named { name: "rejects_by_reason", sql: include_str!("rejects_by_reason.sql") },
    Named { name: "training_events", sql: include_str!("training_events.sql") },
    Named { name: "training_set", sql: include_str!("training_set.sql") },
];

/// The query of this name.
#[must_use]
pub fn find(name: &str) -> Option<Named> {
    QUERIES.iter().copied().find(|query| query.name == name)
}
