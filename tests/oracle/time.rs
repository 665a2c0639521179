//! Parts of a time (`minute` to `year`): "It is not designed to handle timezone or format conversions", so the value is
//! read as it is written, `2026-01-05T14:07` or `2026/01/05 14:07`.

/// A part of a time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// The part of the time that a value writes.
pub(crate) fn part(part: Part, text: &str) -> Option<i64> {
    let chars: Vec<char> = text.chars().collect();
    let digits = |from: usize, to: usize| -> Option<i64> {
        let digits = chars.get(from..to)?;
        if !digits.iter().all(char::is_ascii_digit) {
            return None;
        }
        digits.iter().collect::<String>().parse().ok()
    };
    let sign = |at: usize, signs: &str| chars.get(at).is_some_and(|c| signs.contains(*c));
    let date = sign(4, "-/") && sign(7, "-/");
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    if !date || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    match part {
        Part::Year => Some(year),
        Part::Month => Some(month),
        Part::Day => Some(day),
        Part::Week => Some(week(year, month, day)),
        Part::Hour => digits(11, 13).filter(|_| sign(10, " Tt")),
        Part::Minute => digits(14, 16).filter(|_| sign(10, " Tt") && sign(13, ":")),
    }
}

/// ISO 8601: weeks begin on Monday, and a week is of the year that its Thursday is in.
fn week(year: i64, month: i64, day: i64) -> i64 {
    let mut date = (year, month, day);
    let mut days = 0; // from the date to its week's Thursday
    while weekday(date) != 3 {
        let forward = weekday(date) < 3;
        date = if forward { tomorrow(date) } else { yesterday(date) };
        days += 1;
        assert!(days < 7, "a week has a Thursday");
    }
    let mut of_year = 1;
    let mut at = (date.0, 1, 1);
    while at != date {
        at = tomorrow(at);
        of_year += 1;
        assert!(of_year < 400, "a year has fewer days");
    }
    (of_year - 1) / 7 + 1
}

type Date = (i64, i64, i64);

const fn month_days(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

const fn tomorrow((year, month, day): Date) -> Date {
    match (month, day) {
        (12, 31) => (year + 1, 1, 1),
        (month, day) if day >= month_days(year, month) => (year, month + 1, 1),
        (month, day) => (year, month, day + 1),
    }
}

const fn yesterday((year, month, day): Date) -> Date {
    match (month, day) {
        (1, 1) => (year - 1, 12, 31),
        (month, 1) => (year, month - 1, month_days(year, month - 1)),
        (month, day) => (year, month, day - 1),
    }
}

/// 0 is Monday (Sakamoto's table of months).
fn weekday((year, month, day): Date) -> i64 {
    const MONTHS: [i64; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
    let year = if month < 3 { year - 1 } else { year };
    let of_month = usize::try_from(month - 1).ok().and_then(|month| MONTHS.get(month)).copied().unwrap_or(0);
    let sunday =
        (year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_month + day).rem_euclid(7);
    (sunday + 6) % 7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_are_those_of_the_standard() {
        for (date, expect) in [
            ("2026-01-01", 1),
            ("2027-01-01", 53),
            ("2024-12-30", 1),
            ("2024-12-29", 52),
            ("2026-11-22", 47),
            ("2000-02-29", 9),
        ] {
            assert_eq!(part(Part::Week, date), Some(expect), "{date}");
        }
    }
}
