//! `time_bucket(width, time)`: the begin of the bucket of a fixed width in which a time lies.
//!
//! Widths are a number and a unit from seconds to weeks (`5m`, `1 hour`, `2 weeks`); months have no fixed width, so
//! `date_trunc('month', time)` is for them. Buckets of seconds to days begin at 1970-01-01, weeks on Mondays.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, AsArray, TimestampMicrosecondArray},
        datatypes::{DataType, TimeUnit, TimestampMicrosecondType},
    },
    error::{DataFusionError, Result},
    logical_expr::{ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, Volatility},
};

/// Microseconds from 1970-01-01, a Thursday, back to the Monday before.
const MONDAY_US: i64 = -3 * 86_400_000_000;

const UNITS: &[(&[&str], i64)] = &[
    (&["s", "sec", "secs", "second", "seconds"], 1),
    (&["m", "min", "mins", "minute", "minutes"], 60),
    (&["h", "hour", "hours"], 3_600),
    (&["d", "day", "days"], 86_400),
    (&["w", "week", "weeks"], 604_800),
];

pub(super) fn time_bucket() -> ScalarUDF {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")));
    let signature = Signature::exact(vec![DataType::Utf8View, time.clone()], Volatility::Immutable);
    ScalarUDF::from(SimpleScalarUDF::new_with_signature("time_bucket", signature, time, Arc::new(call)))
}

fn call(arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
    let arrays = ColumnarValue::values_to_arrays(arguments)?;
    let [widths, times] = arrays.as_slice() else {
        return Err(DataFusionError::Internal("time_bucket takes two arguments".to_owned()));
    };
    let (widths, times) = (widths.as_string_view(), times.as_primitive::<TimestampMicrosecondType>());
    let mut known: Option<(&str, (i64, i64))> = None;
    let begins: TimestampMicrosecondArray = (0..times.len())
        .map(|row| {
            if times.is_null(row) || widths.is_null(row) {
                return Ok(None);
            }
            let text = widths.value(row);
            let (width, origin) = match known {
                Some((same, parsed)) if same == text => parsed,
                _ => known.insert((text, parse(text)?)).1,
            };
            Ok(begin(times.value(row), width, origin))
        })
        .collect::<Result<_>>()?;
    Ok(ColumnarValue::Array(Arc::new(begins.with_timezone("UTC"))))
}

/// `None` where the bucket would begin before all that can be written.
fn begin(time: i64, width: i64, origin: i64) -> Option<i64> {
    let since = time.checked_sub(origin)?;
    since.checked_sub(since.rem_euclid(width))?.checked_add(origin)
}

/// Width and origin in microseconds.
fn parse(text: &str) -> Result<(i64, i64)> {
    let wrong = || {
        let hint = "write a number and a unit: 30s, 5m, 1h, 1 day, 2 weeks";
        DataFusionError::Execution(format!("time_bucket: {text:?} is no width; {hint}"))
    };
    let text = text.trim();
    let digits = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, seconds) = UNITS.iter().find(|(names, _)| names.contains(&unit.as_str())).ok_or_else(wrong)?;
    let number: i64 = if number.is_empty() { 1 } else { number.parse().map_err(|_| wrong())? };
    let width = number.checked_mul(*seconds).and_then(|width| width.checked_mul(1_000_000));
    let origin = if *seconds == 604_800 { MONDAY_US } else { 0 };
    width.filter(|width| *width > 0).map(|width| (width, origin)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use cf_types::Time;

    use super::*;

    #[track_caller]
    fn check(width: &str, time: &str, expect: Option<&str>) {
        let time: Time = time.parse().unwrap();
        let found = parse(width).ok().and_then(|(width, origin)| begin(time.micros(), width, origin));
        assert_eq!(found.map(|micros| Time::from_micros(micros).to_string()).as_deref(), expect, "{width}");
    }

    #[test]
    fn times_fall_into_buckets() {
        check("5m", "2026-01-05T14:07:30.5Z", Some("2026-01-05T14:05:00Z"));
        check("5 minutes", "2026-01-05T14:05:00Z", Some("2026-01-05T14:05:00Z"));
        check("hour", "2026-01-05T14:59:59.999999Z", Some("2026-01-05T14:00:00Z"));
        check("1 day", "2026-01-05T23:59:59Z", Some("2026-01-05T00:00:00Z"));
        check("1w", "2026-01-11T23:59:59Z", Some("2026-01-05T00:00:00Z")); // the 5th is a Monday
        check("1h", "1969-12-31T23:30:00Z", Some("1969-12-31T23:00:00Z"));
        check("0s", "2026-01-05T14:07:30Z", None);
        check("1 month", "2026-01-05T14:07:30Z", None);
        check("-5m", "2026-01-05T14:07:30Z", None);
        check("99999999999999999999d", "2026-01-05T14:07:30Z", None);
    }
}
