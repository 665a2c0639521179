//! When to try again. Without jitter: there is one sender per channel, and tests want to know when.

use std::time::Duration;

use cf_types::Time;

use crate::settings::RetrySettings;

/// The time of the next try after try number `tries` (from 1); `None` when it was the last.
pub(crate) fn retry_at(
    settings: &RetrySettings,
    tries: u32,
    now: Time,
    asked: Option<Duration>,
    endless: bool,
) -> Option<Time> {
    if !endless && tries >= settings.tries_max {
        return None;
    }
    let doubled = settings.first_ms.saturating_mul(1_u64.checked_shl(tries.saturating_sub(1)).unwrap_or(u64::MAX));
    let wait = Duration::from_millis(doubled.min(settings.max_ms)).max(asked.unwrap_or_default());
    Some(now.plus_micros(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_cap_and_end() {
        let settings = RetrySettings { first_ms: 100, max_ms: 1_000, tries_max: 5 };
        let wait = |tries, asked, endless| {
            retry_at(&settings, tries, Time::default(), asked, endless).map(|time| time.micros() / 1_000)
        };
        assert_eq!([1, 2, 3, 4].map(|tries| wait(tries, None, false).unwrap()), [100, 200, 400, 800]);
        assert_eq!(wait(5, None, false), None);
        assert_eq!([5, 70, u32::MAX].map(|tries| wait(tries, None, true).unwrap()), [1_000; 3]);
        assert_eq!(wait(1, Some(Duration::from_secs(7)), false), Some(7_000));
    }
}
