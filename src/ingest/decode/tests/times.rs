use super::*;

/// `line time | received | year | zone`: when the line was.
#[track_caller]
fn check(stamp: &str, received_at: &str, year: Option<i16>, zone: &str, expected: &str) {
    let record = record(format!("{stamp} h p: x").as_bytes(), Framing::Record, received_at, year);
    let decoded = decode(&record, SourceOptions { zone: zone.into(), ..SourceOptions::default() });
    let event = decoded.events.first().unwrap();
    assert_eq!(format!("{} {:?}", event.time, event.time_basis), expected);
}

#[test]
fn a_year_that_is_not_given_is_that_of_the_receipt() {
    let received = "2026-01-01T00:00:05Z";
    check("Jan  1 00:00:00", received, None, "UTC", "2026-01-01T00:00:00Z Assumed");
    check("Dec 31 23:59:59", received, None, "UTC", "2025-12-31T23:59:59Z Assumed"); // New Year
    check("Jan  1 00:00:01", "2025-12-31T23:59:59Z", None, "UTC", "2026-01-01T00:00:01Z Assumed"); // clocks differ
    check("Jan  3 00:00:00", received, None, "UTC", "2025-01-03T00:00:00Z Assumed");
    check("Dec 31 23:59:59", received, Some(2020), "UTC", "2020-12-31T23:59:59Z Assumed");
}

#[test]
fn the_29th_of_february_is_of_the_nearest_leap_year_before() {
    check("Feb 29 12:00:00", "2026-03-01T00:00:00Z", None, "UTC", "2024-02-29T12:00:00Z Assumed");
    check("Feb 29 12:00:00", "2024-03-01T00:00:00Z", None, "UTC", "2024-02-29T12:00:00Z Assumed");
    check("Feb 29 12:00:00", "2026-03-01T00:00:00Z", Some(2023), "UTC", "2020-02-29T12:00:00Z Assumed");
    check("Feb 29 12:00:00", "1903-03-01T00:00:00Z", Some(1903), "UTC", "1896-02-29T12:00:00Z Assumed");
}

#[test]
fn a_zone_that_is_not_given_is_that_of_the_source() {
    let received = "2026-08-01T00:00:00Z";
    check("Jul  1 14:00:00", received, None, "Europe/Berlin", "2026-07-01T12:00:00Z Assumed");
    check("Jul  1 14:00:00", received, None, "-05:30", "2026-07-01T19:30:00Z Assumed");
    check("Mar 29 02:30:00", received, None, "Europe/Berlin", "2026-03-29T01:30:00Z Assumed"); // a time that was not
    check("2026-07-01T14:00:00+01:00", received, None, "Europe/Berlin", "2026-07-01T13:00:00Z Declared");
}

#[test]
fn written_times() {
    let origin = record(b"", Framing::Record, RECEIVED_AT, None).origin;
    let zone = jiff::tz::TimeZone::UTC;
    let assume = Assume { zone: &zone, origin: &origin };
    let mut shown = String::new();
    for text in [
        "2026-01-05T14:00:00Z",
        "2026-01-05t14:00:00.1234567z",
        "2026-01-05 14:00:00,5",
        "2026-01-05T14:00+0100",
        "2026-01-05T14:00:00-05",
        "20260105T140000Z",
        "2026-01-05",
        "2026/01/05 14:00:00",
        "2026-01-05 14:00:00 UTC",
        "2016-12-31T23:59:60Z",
        "2026-01-05T14:00:00[Europe/Berlin]",
        "Mon, 5 Jan 2026 14:00:00 +0000",
        "1767621600",
        "1767621600123",
        "1767621600123456",
        "1767621600123456789",
        "1767621600.5",
        "-1",
        "/Date(1767621600123)/",
        "05/Jan/2026:14:00:00 +0100",
        "Jan  5 13:00:00",
        "2026-02-30T00:00:00Z",
        "2026-13-01",
        "24:00",
        "nan",
        "1e999",
        "12:30",
        "",
        "2026-01-05T25:00:00Z",
        "99999-01-01T00:00:00Z",
    ] {
        let time = time::parse_text(text, assume);
        shown += &format!("{text:36} {}\n", time.map_or("-".to_owned(), |(time, basis)| format!("{time} {basis:?}")));
    }
    expect![[r#"
        2026-01-05T14:00:00Z                 2026-01-05T14:00:00Z Declared
        2026-01-05t14:00:00.1234567z         2026-01-05T14:00:00.123456Z Declared
        2026-01-05 14:00:00,5                2026-01-05T14:00:00.5Z Assumed
        2026-01-05T14:00+0100                2026-01-05T13:00:00Z Declared
        2026-01-05T14:00:00-05               2026-01-05T19:00:00Z Declared
        20260105T140000Z                     2026-01-05T14:00:00Z Declared
        2026-01-05                           2026-01-05T00:00:00Z Assumed
        2026/01/05 14:00:00                  2026-01-05T14:00:00Z Assumed
        2026-01-05 14:00:00 UTC              2026-01-05T14:00:00Z Declared
        2016-12-31T23:59:60Z                 2017-01-01T00:00:00Z Declared
        2026-01-05T14:00:00[Europe/Berlin]   2026-01-05T13:00:00Z Declared
        Mon, 5 Jan 2026 14:00:00 +0000       2026-01-05T14:00:00Z Declared
        1767621600                           2026-01-05T14:00:00Z Declared
        1767621600123                        2026-01-05T14:00:00.123Z Declared
        1767621600123456                     2026-01-05T14:00:00.123456Z Declared
        1767621600123456789                  2026-01-05T14:00:00.123456Z Declared
        1767621600.5                         2026-01-05T14:00:00.5Z Declared
        -1                                   1969-12-31T23:59:59Z Declared
        /Date(1767621600123)/                2026-01-05T14:00:00.123Z Declared
        05/Jan/2026:14:00:00 +0100           2026-01-05T13:00:00Z Declared
        Jan  5 13:00:00                      2026-01-05T13:00:00Z Assumed
        2026-02-30T00:00:00Z                 -
        2026-13-01                           -
        24:00                                -
        nan                                  -
        1e999                                -
        12:30                                -
                                             -
        2026-01-05T25:00:00Z                 -
        99999-01-01T00:00:00Z                -
    "#]]
    .assert_eq(&shown);
}

/// Against jiff, on all days of some centuries and random times.
#[test]
fn the_fast_reader_agrees_with_jiff() {
    let origin = record(b"", Framing::Record, RECEIVED_AT, None).origin;
    let zone = jiff::tz::TimeZone::UTC;
    for day in (-150_000..150_000).step_by(13) {
        let micros = i64::from(day) * 86_400_000_000 + i64::from(day).rem_euclid(86_399) * 1_000_001;
        let text = jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
        let read = time::parse_iso(&text, Assume { zone: &zone, origin: &origin }).map(|(time, _)| time.micros());
        assert_eq!(read, Some(micros), "{text}");
    }
}
