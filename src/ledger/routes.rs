//! Who is told of which alerts. The full router comes later; this is its shape.

use std::sync::Arc;

use cf_types::Level;

/// Who is told, as [`crate::Ledger::apply`] needs it.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// One per channel.
    pub routes: Vec<Route>,
    /// Microseconds that must lie between two messages of one thread on one channel: amendments within it are folded
    /// into one. 0 sends each.
    pub amend_interval_us: i64,
}

/// One channel and what it is told.
#[derive(Clone, Debug)]
pub struct Route {
    /// The channel's name in the settings.
    pub channel: Arc<str>,
    /// Alerts of this level or above.
    pub level_min: Level,
}
