//! Times of records, and what is assumed where they leave something out.

use cf_types::{Origin, Time, TimeBasis};
use jiff::{civil, tz::TimeZone};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// What a record's time without zone or year is read with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Assume<'a> {
    pub(crate) zone: &'a TimeZone,
    pub(crate) origin: &'a Origin,
}

impl Assume<'_> {
    /// A wall-clock time of the source's zone. A time that the zone skips (spring) moves forward by the gap, one that
    /// it has twice (autumn) is the first: RFC 5545's choice.
    pub(crate) fn zoned(&self, local: civil::DateTime) -> Option<Time> {
        if *self.zone == TimeZone::UTC {
            return Some(Time::from_micros(local_micros(local)));
        }
        let timestamp = self.zone.to_ambiguous_timestamp(local).compatible().ok()?;
        Some(Time::from_micros(timestamp.as_microsecond()))
    }

    /// A syslog time without year.
    ///
    /// With a year from `--year` or the file's modification time it is that year. Else it is the latest year that
    /// does not put the time more than a day ahead of its receipt: a line of 31 December received on 1 January is of
    /// the old year, and one of 1 January received on 31 December (clocks differ) of the new. 29 February moves on to
    /// the nearest earlier year that has one.
    pub(crate) fn without_year(&self, month: i8, day: i8, time: civil::Time) -> Option<Time> {
        let in_year = |year: i16| {
            let year = (0..=8).map(|back| year - back).find_map(|year| civil::Date::new(year, month, day).ok());
            self.zoned(year?.to_datetime(time))
        };
        if let Some(year) = self.origin.year {
            return in_year(year);
        }
        let received_at = self.origin.received_at;
        let latest = received_at.plus_micros(MICROS_PER_DAY);
        let year = year_of(received_at);
        (0..=8).map(|back| year + 1 - back).filter_map(in_year).find(|time| *time <= latest)
    }
}

/// The calendar year (UTC) that a time lies in.
pub(crate) fn year_of(time: Time) -> i16 {
    jiff::Timestamp::from_microsecond(time.micros()).map_or(1970, |timestamp| timestamp.to_zoned(TimeZone::UTC).year())
}

/// Reads any written time: ISO 8601 and RFC 3339, epoch numbers as text, `/Date(ms)/`, the access log's and syslog's
/// forms. `None` if it is none.
pub(crate) fn parse_text(text: &str, assume: Assume<'_>) -> Option<(Time, TimeBasis)> {
    let text = text.trim();
    if let Some(found) = parse_iso(text, assume) {
        return Some(found);
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some((from_epoch(number), TimeBasis::Declared));
    }
    let epoch = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    if text.starts_with(|first: char| first.is_ascii_digit() || first == '-')
        && let Some(time) = epoch(text).and_then(from_epoch_f64)
    {
        return Some((time, TimeBasis::Declared));
    }
    if let Some(millis) = text.strip_prefix("/Date(").and_then(|rest| rest.strip_suffix(")/")) {
        return millis.parse().ok().map(|millis| (Time::from_millis(millis), TimeBasis::Declared));
    }
    if let Some(found) = parse_access_log(text) {
        return Some((found, TimeBasis::Declared));
    }
    if let Some((found, rest)) = parse_syslog(text, assume)
        && rest.is_empty()
    {
        return Some((found, TimeBasis::Assumed));
    }
    // Zones in brackets, RFC 2822 and what else jiff knows: rare enough to be slow.
    let timestamp = text
        .parse::<jiff::Zoned>()
        .map(|zoned| zoned.timestamp())
        .or_else(|_| jiff::fmt::rfc2822::parse(text).map(|zoned| zoned.timestamp()));
    timestamp.ok().map(|timestamp| (Time::from_micros(timestamp.as_microsecond()), TimeBasis::Declared))
}

/// Seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by magnitude: as seconds, the boundary
/// 10^11 is the year 5138; as milliseconds it is 1973.
pub(crate) fn from_epoch(number: i64) -> Time {
    match number.unsigned_abs() {
        0..100_000_000_000 => Time::from_seconds(number),
        100_000_000_000..100_000_000_000_000 => Time::from_millis(number),
        100_000_000_000_000..100_000_000_000_000_000 => Time::from_micros(number),
        _ => Time::from_micros(number.div_euclid(1_000)),
    }
}

/// The same for a number with a fraction, rounded to the microsecond.
pub(crate) fn from_epoch_f64(number: f64) -> Option<Time> {
    let micros = match number.abs() {
        size if size < 1e11 => number * 1e6,
        size if size < 1e14 => number * 1e3,
        size if size < 1e17 => number,
        size if size < 1e20 => number / 1e3,
        _ => return None,
    };
    // There is no TryFrom for floats; Duration has the checked conversion.
    let since = jiff::SignedDuration::try_from_secs_f64(micros / 1e6).ok()?;
    let micros = i64::try_from((since.as_nanos() + 500).div_euclid(1_000)).ok()?;
    Some(Time::from_micros(micros))
}

/// `2019-04-27T15:57:25.868863Z` and its kin: `T`, `t` or a blank between, seconds and fraction optional (comma or
/// point), zone `Z`, `+hh:mm`, `+hhmm`, `+hh`, ` UTC` or none; a date alone is its midnight.
pub(crate) fn parse_iso(text: &str, assume: Assume<'_>) -> Option<(Time, TimeBasis)> {
    let (local, rest) = parse_local(text.as_bytes())?;
    let offset_s = match rest {
        [] => return Some((assume.zoned_micros(local)?, TimeBasis::Assumed)),
        [b'Z' | b'z'] | [b' ', b'U', b'T', b'C'] | [b' ', b'G', b'M', b'T'] | [b' ', b'Z'] => 0,
        rest => {
            let offset = rest.strip_prefix(b" ").unwrap_or(rest);
            parse_offset(offset.strip_suffix(b" UTC").unwrap_or(offset))? // Go's `+0000 UTC`
        }
    };
    Some((Time::from_micros(local - offset_s * 1_000_000), TimeBasis::Declared))
}

impl Assume<'_> {
    pub(crate) fn zoned_micros(&self, local: i64) -> Option<Time> {
        if *self.zone == TimeZone::UTC {
            return Some(Time::from_micros(local));
        }
        let civil = jiff::Timestamp::from_microsecond(local).ok()?.to_zoned(TimeZone::UTC).datetime();
        self.zoned(civil)
    }
}

/// Date (`-` or `/` between) and time as microseconds since 1970 as if they were UTC, and what follows them.
pub(crate) fn parse_local(text: &[u8]) -> Option<(i64, &[u8])> {
    let (year, rest) = digits(text, 4)?;
    let (dash, rest, separator) = match separated(rest, b'/') {
        (true, rest) => (true, rest, b"/"),
        _ => {
            let (dash, rest) = separated(rest, b'-');
            (dash, rest, b"-")
        }
    };
    let (month, rest) = digits(rest, 2)?;
    let rest = if dash { rest.strip_prefix(separator)? } else { rest };
    let (day, rest) = digits(rest, 2)?;
    let days = days_of(year, month, day)?;
    let midnight = days * MICROS_PER_DAY;
    let Some((b'T' | b't' | b' ' | b'_', after)) = rest.split_first() else {
        return (dash && rest.is_empty()).then_some((midnight, rest)); // eight digits alone are a number
    };
    let (hour, rest) = digits(after, 2)?;
    let (colon, rest) = separated(rest, b':');
    let (minute, rest) = digits(rest, 2)?;
    if colon != dash || hour > 23 || minute > 59 {
        return None;
    }
    let seconds = if colon {
        rest.strip_prefix(b":")
    } else {
        Some(rest).filter(|rest| rest.first().is_some_and(u8::is_ascii_digit))
    };
    let minutes = midnight + (hour * 60 + minute) * 60_000_000;
    let Some(rest) = seconds else {
        return Some((minutes, rest));
    };
    let (second, rest) = digits(rest, 2)?;
    if second > 60 {
        return None; // 60 is a leap second, counted as the next second's beginning
    }
    let (fraction, rest) = parse_fraction(rest)?;
    Some((minutes + second * 1_000_000 + fraction, rest))
}

/// `Jan  5 14:00:00`, with a year or a fraction at most behind it (`Jan 5 2026 14:00:00`, `14:00:00.123`), and what
/// follows.
pub(crate) fn parse_syslog<'a>(text: &'a str, assume: Assume<'_>) -> Option<(Time, &'a str)> {
    let bytes = text.as_bytes();
    let month = month_of(bytes.get(..3)?)?;
    let rest = bytes.get(3..)?.strip_prefix(b" ")?.trim_ascii_start();
    let (day, rest) = one_or_two_digits(rest)?;
    let rest = rest.strip_prefix(b" ")?.trim_ascii_start();
    // Cisco and some rsyslog templates give a year: before the time.
    let (year, rest) = match digits(rest, 4) {
        Some((year, after)) if after.first() == Some(&b' ') => (Some(year), after.trim_ascii_start()),
        _ => (None, rest),
    };
    let (time, rest) = parse_clock(rest)?;
    let (fraction, rest) = parse_fraction(rest)?;
    let rest = text.get(text.len() - rest.len()..)?;
    let (month, day) = (i8::try_from(month).ok()?, i8::try_from(day).ok()?);
    let whole = match year {
        Some(year) => assume.zoned(civil::Date::new(i16::try_from(year).ok()?, month, day).ok()?.to_datetime(time))?,
        None => assume.without_year(month, day, time)?,
    };
    Some((whole.plus_micros(fraction), rest))
}

/// `30/Sep/2021:08:00:55 +0000`, the time of access logs.
pub(crate) fn parse_access_log(text: &str) -> Option<Time> {
    let (day, rest) = digits(text.as_bytes(), 2)?;
    let rest = rest.strip_prefix(b"/")?;
    let month = month_of(rest.get(..3)?)?;
    let (year, rest) = digits(rest.get(3..)?.strip_prefix(b"/")?, 4)?;
    let (time, rest) = parse_clock(rest.strip_prefix(b":")?)?;
    let offset_s = parse_offset(rest.strip_prefix(b" ")?)?;
    let local = days_of(year, month, day)? * MICROS_PER_DAY + clock_micros(time);
    Some(Time::from_micros(local - offset_s * 1_000_000))
}

/// `Sun Dec 04 04:47:44.123456 2005`, the time of Apache's error log, without zone.
pub(crate) fn parse_ctime(text: &str, assume: Assume<'_>) -> Option<Time> {
    let mut words = text.split_ascii_whitespace();
    let _weekday = words.next().filter(|word| word.len() == 3)?;
    let month = month_of(words.next()?.as_bytes())?;
    let (day, _) = one_or_two_digits(words.next()?.as_bytes())?;
    let (time, rest) = parse_clock(words.next()?.as_bytes())?;
    let (fraction, _) = parse_fraction(rest)?;
    let year = words.next()?.parse::<i64>().ok()?;
    assume.zoned_micros(days_of(year, month, day)? * MICROS_PER_DAY + clock_micros(time) + fraction)
}

fn clock_micros(time: civil::Time) -> i64 {
    (i64::from(time.hour()) * 3_600 + i64::from(time.minute()) * 60 + i64::from(time.second())) * 1_000_000
}

fn local_micros(local: civil::DateTime) -> i64 {
    let date = local.date();
    let days = days_of(i64::from(date.year()), i64::from(date.month()), i64::from(date.day())).unwrap_or(0);
    days * MICROS_PER_DAY + clock_micros(local.time()) + i64::from(local.subsec_nanosecond() / 1_000)
}

fn parse_clock(text: &[u8]) -> Option<(civil::Time, &[u8])> {
    let (hour, rest) = one_or_two_digits(text)?;
    let (minute, rest) = digits(rest.strip_prefix(b":")?, 2)?;
    let (second, rest) = digits(rest.strip_prefix(b":")?, 2)?;
    let part = |number: i64| i8::try_from(number).ok();
    let time = civil::Time::new(part(hour)?, part(minute)?, part(second.min(59))?, 0).ok()?;
    (second <= 60).then_some((time, rest))
}

fn parse_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.' | b',', after)) = text.split_first() else {
        return Some((0, text));
    };
    let len = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if len == 0 {
        return None;
    }
    let micros = after.iter().take(len).chain(std::iter::repeat(&b'0')).take(6);
    let micros = micros.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Some((micros, after.get(len..)?))
}

/// `+02:00`, `+0200` or `+02` in seconds, and nothing else.
pub(crate) fn parse_offset_of(word: &[u8]) -> Option<i64> {
    parse_offset(word)
}

fn parse_offset(text: &[u8]) -> Option<i64> {
    let (sign, rest) = match text.split_first()? {
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let (hours, rest) = digits(rest, 2)?;
    let minutes = match rest {
        [] => 0,
        rest => match digits(rest.strip_prefix(b":").unwrap_or(rest), 2)? {
            (minutes, []) => minutes,
            _ => return None,
        },
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn separated(text: &[u8], separator: u8) -> (bool, &[u8]) {
    match text.split_first() {
        Some((first, rest)) if *first == separator => (true, rest),
        _ => (false, text),
    }
}

fn digits(text: &[u8], len: usize) -> Option<(i64, &[u8])> {
    let (head, rest) = text.split_at_checked(len)?;
    let number =
        head.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))?;
    Some((number, rest))
}

fn one_or_two_digits(text: &[u8]) -> Option<(i64, &[u8])> {
    digits(text, 2).or_else(|| digits(text, 1))
}

fn month_of(text: &[u8]) -> Option<i64> {
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let index = MONTHS.iter().position(|month| month.as_slice() == text)?;
    i64::try_from(index + 1).ok()
}

/// Days since 1970-01-01 of a date of the Gregorian calendar; `None` if there is no such day.
///
/// The algorithm is Howard Hinnant's `days_from_civil` (chrono-compatible low-level date algorithms).
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}
