//! The wall clock, for the edges only: the graph must replay the same way, so it has none.

use crate::time::Time;

/// Returns the present wall-clock time.
///
/// For receipt stamps, leases and expiry of effects. Never called by `cf-dataflows` or `cf-sigma`.
#[must_use]
#[allow(clippy::disallowed_methods)] // the one place that may ask
pub fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
