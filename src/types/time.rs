//! Event time in microseconds, and its cells of one second.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A second of event time since 1970-01-01T00:00:00Z: the resolution of correlation (`streaming.md`, *Episodes*).
pub type Cell = i64;

/// A point in event time: microseconds since 1970-01-01T00:00:00Z.
///
/// Shown and serialised as RFC 3339 in UTC with the digits that are needed: `2026-01-05T14:00:00Z`,
/// `2026-01-05T14:00:00.5Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    /// The earliest time that can be shown, year -9999; stands for "before everything".
    pub const MIN: Time = Time(-377_705_023_201_000_000);
    /// The latest time that can be shown, year 9999.
    pub const MAX: Time = Time(253_402_207_200_000_000);

    /// Makes a time from microseconds since the Unix epoch, brought into [`Time::MIN`]..=[`Time::MAX`].
    #[must_use]
    pub const fn from_micros(micros: i64) -> Time {
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Time(micros)
        }
    }

    /// Makes a time from milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Time {
        Self::from_micros(millis.saturating_mul(1_000))
    }

    /// Makes a time from seconds since the Unix epoch.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Time {
        Self::from_micros(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The second it lies in, rounded down also before 1970.
    #[must_use]
    pub const fn cell(self) -> Cell {
        self.0.div_euclid(1_000_000)
    }

    /// This time and `micros` more, brought into range.
    #[must_use]
    pub const fn plus_micros(self, micros: i64) -> Time {
        Self::from_micros(self.0.saturating_add(micros))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// A text is no RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeError(pub String);

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an RFC 3339 time: {:?}", self.0)
    }
}

impl std::error::Error for TimeError {}

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Time, TimeError> {
        text.parse::<jiff::Timestamp>()
            .map(|timestamp| Time::from_micros(timestamp.as_microsecond()))
            .map_err(|_| TimeError(text.chars().take(64).collect()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_round_down_before_1970_too() {
        assert_eq!(Time::from_micros(-1).cell(), -1);
        assert_eq!(Time::from_micros(999_999).cell(), 0);
    }

    #[test]
    fn times_show_and_parse_alike() {
        for text in ["2026-01-05T14:00:00Z", "2024-02-29T23:59:59.5Z", "1969-12-31T23:59:59Z"] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
        assert_eq!(Time::MAX.to_string().parse::<Time>().unwrap(), Time::MAX);
    }
}
