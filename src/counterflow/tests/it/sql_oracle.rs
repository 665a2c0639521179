//! Correlations against SQL: the definitions of windows, hits and chains, written down once more in another language.
//!
//! Random streams, shuffled and partly given twice, go through `replay` into a data folder; then one statement over its
//! `events` computes the alerts that there must be. It knows nothing of operators, epochs, epochs' order or state: a
//! window is a self-join over `[cell - T, cell]`, a chain is what no gap of more than T parts. `COUNTERFLOW_CASES=100`
//! for more streams than in CI.

use std::{collections::BTreeSet, fmt::Write as _};

use cf_types::{Time, random::Random};
use serde_json::{Value, json};

use crate::support::{lines, run, said};

/// Streams of every day; each is a start of the binary for `replay` and one for `sql`.
const CASES: u64 = 3;
/// 2026-01-05T06:00:00Z: far from the boundaries at which endless episodes are cut.
const BEGIN: i64 = 1_767_592_800;

/// A correlation as its YAML body and as SQL.
struct Case {
    id: String,
    /// `type` and `condition` of the rule.
    yaml: String,
    timespan: i64,
    /// What an item must have.
    item: &'static str,
    /// Which windows are hits, of `w`: a window's cell with each of its items.
    hits: String,
}

/// Windows of which an aggregate fulfils a condition.
fn having(condition: &str) -> String {
    format!("SELECT grp, cell FROM w GROUP BY grp, cell HAVING {condition}")
}

fn cases(random: &mut Random) -> Vec<Case> {
    let mut number = |from: u64, to: u64| from + random.number(to - from + 1);
    let mut list = Vec::new();
    let mut add = |kind: &str, condition: String, timespan: u64, item: &'static str, hits: String| {
        let id = format!("c{}", list.len());
        let condition = if condition.is_empty() { condition } else { format!("\n  condition: {{{condition}}}") };
        let timespan = i64::try_from(timespan).unwrap();
        list.push(Case { id, yaml: format!("type: {kind}{condition}"), timespan, item, hits });
    };
    let (n, t) = (number(2, 5), number(1, 400));
    add("event_count", format!("gte: {n}"), t, "what = 'a'", having(&format!("count(*) >= {n}")));
    let (n, t) = (number(1, 4), number(1, 200));
    add("event_count", format!("lt: {n}"), t, "what = 'b'", having(&format!("count(*) < {n}")));
    let (n, t) = (number(1, 3), number(1, 300));
    let condition = format!("gt: {n}, lte: {}", n + 2);
    add("event_count", condition, t, "true", having(&format!("count(*) > {n} AND count(*) <= {}", n + 2)));
    let (n, t) = (number(2, 4), number(1, 500));
    let distinct = format!("count(DISTINCT login) >= {n}");
    add("value_count", format!("field: user, gte: {n}"), t, "login IS NOT NULL", having(&distinct));
    let (n, t) = (number(40, 200), number(1, 300));
    let measured = "what = 'a' AND number IS NOT NULL";
    add("value_sum", format!("field: bytes, gte: {n}"), t, measured, having(&format!("sum(number) >= {n}")));
    let (n, t) = (number(30, 70), number(1, 300));
    let mean = format!("sum(number) > {n} * count(*)");
    add("value_avg", format!("field: bytes, gt: {n}"), t, "number IS NOT NULL", having(&mean));
    let (n, t) = (number(20, 50), number(1, 300));
    let mean = format!("sum(number) < {n} * count(*)");
    add("value_avg", format!("field: bytes, lt: {n}"), t, "number IS NOT NULL", having(&mean));
    for percent in [number(1, 99), 50, 100] {
        let (n, t) = (number(50, 90), number(1, 300));
        // Nearest rank: the value that stands at ceil(percent * count / 100).
        let ranked = format!(
            "SELECT grp, cell FROM (SELECT grp, cell, number, \
             row_number() OVER (PARTITION BY grp, cell ORDER BY number) AS rank, \
             count(*) OVER (PARTITION BY grp, cell) AS n FROM w) \
             WHERE rank = (n * {percent} + 99) / 100 AND number >= {n}"
        );
        let condition = format!("field: bytes, percentile: {percent}, gte: {n}");
        add("value_percentile", condition, t, "number IS NOT NULL", ranked);
    }
    add("temporal", String::new(), number(1, 200), "true", having("count(DISTINCT what) = 3"));
    let ordered = "SELECT DISTINCT one.grp, one.cell FROM w AS one JOIN w AS two ON one.grp = two.grp AND one.cell = \
                   two.cell AND one.at <= two.at JOIN w AS three ON one.grp = three.grp AND one.cell = three.cell AND \
                   two.at <= three.at WHERE one.what = 'a' AND two.what = 'b' AND three.what = 'c'";
    add("temporal_ordered", String::new(), number(1, 200), "true", ordered.to_owned());
    list
}

/// The rules of a correlation that counts all three, or the ones that its items say.
fn references(case: &Case) -> &'static str {
    match case.item {
        item if item.starts_with("what = 'a'") => "[a]",
        item if item.starts_with("what = 'b'") => "[b]",
        _ => "[a, b, c]",
    }
}

fn rules(cases: &[Case]) -> String {
    let mut text = String::new();
    for (at, name) in ["a", "b", "c"].iter().enumerate() {
        let id = format!("6f1d5d2e-0000-4000-8000-00000000000{at}");
        let detection = format!("detection: {{s: {{event: {name}}}, condition: s}}");
        writeln!(text, "title: {name}\nid: {id}\nname: {name}\nlogsource: {{product: test}}\n{detection}\n---")
            .unwrap();
    }
    for case in cases {
        let Case { id, yaml, timespan, .. } = case;
        writeln!(
            text,
            "title: {id}\nid: {id}\ncorrelation:\n  rules: {}\n  group-by: [source_ip]\n  timespan: {timespan}s\n  {yaml}\n---",
            references(case)
        )
        .unwrap();
    }
    text
}

/// Events with gaps of all sizes; some lack what is grouped by, some what is counted.
fn events(random: &mut Random) -> Vec<Value> {
    let mut second = 0;
    let mut list = Vec::new();
    for id in 0..600 {
        second += if random.number(40) == 0 { random.number(2_000) } else { random.number(12) };
        let time = Time::from_millis(
            (BEGIN + i64::try_from(second).unwrap()) * 1_000 + i64::try_from(random.number(1_000)).unwrap(),
        );
        let mut event = json!({
            "event_id": format!("e{id}"), "timestamp": time, "product": "test",
            "event": random.one_of(&["a", "a", "b", "c"]),
        });
        if random.number(12) > 0 {
            event["source_ip"] = json!(format!("10.0.0.{}", random.number(3)));
        }
        if random.number(8) > 0 {
            event["user"] = json!(format!("u{}", random.number(6)));
        }
        if random.number(8) > 0 {
            event["bytes"] = json!(random.number(100));
        }
        list.push(event);
    }
    for at in 0..list.len() {
        if random.number(15) == 0 {
            let again = list[at].clone();
            list.push(again);
        }
    }
    random.shuffle(&mut list);
    list
}

/// The alerts of one correlation, from the definitions: `docs/correlations.md`, *Words*.
fn alerts_sql(case: &Case) -> String {
    let Case { id, timespan, item, hits, .. } = case;
    format!(
        "SELECT '{id}' AS rule, episode.grp AS grp, episode.first AS first, episode.last AS last, count(*) AS n
         FROM (
             WITH w AS (
                 SELECT o.grp, o.at AS cell, i.at, i.what, i.login, i.number
                 FROM (SELECT DISTINCT grp, at FROM item WHERE {item}) AS o
                 JOIN (SELECT * FROM item WHERE {item}) AS i
                 ON i.grp = o.grp AND i.at >= o.at - {timespan} AND i.at <= o.at
             ), hit AS (
                 {hits}
             ), linked AS (
                 SELECT grp, cell, CASE WHEN cell - lag(cell) OVER (PARTITION BY grp ORDER BY cell) <= {timespan}
                                        THEN 0 ELSE 1 END AS begins FROM hit
             ), run AS (
                 SELECT grp, cell, sum(begins) OVER (PARTITION BY grp ORDER BY cell) AS run FROM linked
             ), ends AS (
                 SELECT grp, min(cell) AS hit, max(cell) AS last FROM run GROUP BY grp, run
             )
             SELECT ends.grp AS grp, ends.last AS last, min(w.at) AS first
             FROM ends JOIN w ON w.grp = ends.grp AND w.cell = ends.hit GROUP BY ends.grp, ends.hit, ends.last
         ) AS episode
         JOIN (SELECT * FROM item WHERE {item}) AS member
         ON member.grp = episode.grp AND member.at >= episode.first AND member.at <= episode.last
         GROUP BY episode.grp, episode.first, episode.last"
    )
}

fn sql(cases: &[Case]) -> String {
    let all: Vec<String> = cases.iter().map(alerts_sql).collect();
    format!(
        "WITH item AS (
             SELECT CAST(floor(date_part('epoch', time)) AS BIGINT) AS at, json_get(raw, 'source_ip') AS grp,
                    json_get(raw, 'event') AS what, json_get(raw, 'user') AS login,
                    CAST(json_get(raw, 'bytes') AS BIGINT) AS number
             FROM events_distinct WHERE json_get(raw, 'source_ip') IS NOT NULL
         ) {}",
        all.join(" UNION ALL ")
    )
}

/// Rule, group, first and last second, count.
type Shown = (String, String, String, String, u64);

fn shown(rule: &Value, group: &Value, first: &str, last: &str, count: &Value) -> Shown {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let second = |time: &str| time[..19].to_owned();
    (text(rule), text(group), second(first), second(last), count.as_u64().unwrap())
}

/// DET-08.
#[test]
fn correlations_are_what_sql_says_of_the_same_events() {
    let seeds = std::env::var("COUNTERFLOW_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let (mut compared, mut met) = (0, BTreeSet::new());
    for seed in 0..seeds {
        let mut random = Random(seed);
        let cases = cases(&mut random);
        let folder = tempfile::tempdir().unwrap();
        let (file, data) = (folder.path().join("rules.yml"), folder.path().join("data"));
        std::fs::write(&file, rules(&cases)).unwrap();
        let input: String = events(&mut random).iter().map(|event| format!("{event}\n")).collect();
        let arguments = ["replay", "--rules", file.to_str().unwrap(), "--data", data.to_str().unwrap(), "-"];
        let output = run(&arguments, input.as_bytes());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let is_correlation = |alert: &Value| cases.iter().any(|case| alert["rule_id"] == case.id);
        let found: BTreeSet<Shown> = lines(&output)
            .iter()
            .filter(|alert| is_correlation(alert))
            .map(|alert| {
                let (first, last) = (alert["first"].as_str().unwrap(), alert["last"].as_str().unwrap());
                shown(&alert["rule_id"], &alert["group"]["source_ip"], first, last, &alert["count"])
            })
            .collect();
        // A few at a time: a statement has a limit of its own.
        let mut wanted: BTreeSet<Shown> = BTreeSet::new();
        for part in cases.chunks(4) {
            let answer = run(&["sql", "--data", data.to_str().unwrap(), "--format", "json", &sql(part)], b"");
            assert_eq!(answer.status.code(), Some(0), "{}", said(&answer));
            wanted.extend(lines(&answer).iter().map(|row| {
                let second = |column: &str| Time::from_seconds(row[column].as_i64().unwrap()).to_string();
                shown(&row["rule"], &row["grp"], &second("first"), &second("last"), &row["n"])
            }));
        }
        let of = |these: BTreeSet<Shown>| -> Vec<String> {
            let kind = |id: &str| cases.iter().find(|case| case.id == id).map_or("", |case| &case.yaml);
            these.iter().map(|one| format!("{one:?} {}", kind(&one.0))).collect()
        };
        let missing = of(wanted.difference(&found).cloned().collect());
        let extra = of(found.difference(&wanted).cloned().collect());
        assert!(missing.is_empty() && extra.is_empty(), "seed {seed}: missing {missing:#?}, extra {extra:#?}");
        compared += wanted.len();
        met.extend(wanted.into_iter().map(|(rule, ..)| rule));
    }
    println!("{compared} alerts of {seeds} streams are what SQL says");
    // Else it would be nothing that is compared with nothing.
    assert!(met.len() >= 10 && compared > 100, "{compared} alerts of {met:?}");
}
