//! Correlations of every type, as Sigma text through the whole graph, against the definitions.
//!
//! A case is a random rule in YAML, with the same rule written down as the definitions have it; random events, shuffled,
//! some given twice; and 1, 2 or 4 workers. What the text means is read by the engine only, what comes of it is computed
//! by the oracle only. Many cases share one graph, because building it takes longer than a case: each has rules and events of
//! its own names. `CORRELATION_CASES=10000` for a campaign.

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::as_conversions, clippy::string_slice)]
#![allow(clippy::clone_on_ref_ptr, clippy::too_many_arguments, clippy::needless_lifetimes, clippy::indexing_slicing)]

#[path = "../episode/oracle.rs"]
#[allow(dead_code)] // what the operator's own tests draw from it
mod oracle;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, mpsc},
};

use cf_dataflows::{Batch, Graph, GraphOptions, Rules};
use cf_sigma::{Options, RuleSet, Text, parse};
use cf_types::{
    Alert, AlertState, Cell, Condition, EpisodeKey, EpisodeRule, EpochOutput, Event, Fields, Fixed, Group, Level,
    LogSource, Name, Origin, Position, Predicate, Presence, RejectCode, Row, Scalar, Tenant, Time, TimeBasis,
    random::Random, record::Framing,
};
use oracle::{OracleItem, oracle};

/// Cases of every day: some seconds.
const CASES: u64 = 300;
/// Cases that share one graph.
const TOGETHER: u64 = 30;

/// One event before it is one: second, what happened, who, from where, and a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Happened {
    at: Cell,
    outcome: &'static str,
    user: &'static str,
    address: &'static str,
    number: Option<&'static str>,
}

/// A rule as text, and as the definitions have it.
struct Case {
    /// Among those that share a graph.
    number: u64,
    text: String,
    rule: EpisodeRule,
    /// Which field its items bring.
    field: Option<&'static str>,
    kind: &'static str,
    /// Whether the first of its rules is a correlation: two `a` of one user and address.
    chained: bool,
}

const OUTCOMES: [&str; 3] = ["a", "b", "c"];

/// In texts, what begins with `@` is the case's own.
fn plain_rules() -> String {
    let rule = |outcome: &&str| {
        format!(
            "title: {outcome}\nid: @{outcome}\nlogsource: {{product: linux}}\ndetection:\n  s: {{outcome: @{outcome}}}\n  condition: s\n---\n"
        )
    };
    OUTCOMES.iter().map(rule).collect()
}

const INNER: &str = "title: inner\nid: @inner\ncorrelation:\n  type: event_count\n  rules: [@a]\n  group-by: [address, user]\n  timespan: 4s\n  condition: {gte: 2}\n---\n";

/// Some bounds, as text and as they are meant.
fn bounds<N: Copy>(random: &mut Random, of: impl Fn(usize) -> (String, N)) -> (String, Condition<N>)
where
    Condition<N>: Default,
{
    let (low, high) = (random.below(4), 3 + random.below(4));
    let ((low_text, low), (high_text, high)) = (of(low), of(high));
    let none = Condition::<N>::default;
    match random.below(7) {
        0 | 1 => (format!("gte: {low_text}"), Condition { gte: Some(low), ..none() }),
        2 => (format!("gt: {low_text}, lte: {high_text}"), Condition { gt: Some(low), lte: Some(high), ..none() }),
        3 => (format!("lt: {high_text}"), Condition { lt: Some(high), ..none() }),
        4 => (format!("eq: {low_text}"), Condition { eq: Some(low), ..none() }),
        5 => (format!("neq: {low_text}, gte: {low_text}"), Condition { neq: Some(low), gte: Some(low), ..none() }),
        _ => (format!("lte: {low_text}"), Condition { lte: Some(low), ..none() }),
    }
}

impl Case {
    fn new(random: &mut Random, number: u64) -> Case {
        let (count_text, counts) = bounds(random, |n| (n.to_string(), u64::try_from(n).unwrap()));
        let (figure_text, figures) = bounds(random, |n| {
            let texts = ["0", "0.5", "1.25e0", "2", "3", "4.000000001", "7"];
            (texts[n].to_owned(), Fixed::parse(texts[n]).unwrap())
        });
        let timespan = i64::try_from(1 + random.below(8)).unwrap();
        let is = Presence::Reference;
        let mut references = vec!["a", "b", "c"];
        let mut field = None;
        let (kind, body, predicate) = match random.below(12) {
            0 => ("event_count", format!("condition: {{{count_text}}}"), Predicate::EventCount(counts)),
            1 => {
                field = Some("user");
                ("value_count", format!("condition: {{field: user, {count_text}}}"), Predicate::ValueCount(counts))
            }
            2 => ("temporal", String::new(), Predicate::Temporal),
            3 => {
                references.truncate(1 + random.below(3));
                ("temporal_ordered", String::new(), Predicate::TemporalOrdered)
            }
            4 => {
                let (text, presence) = random.one_of(&[
                    ("@a and not @b", Presence::All(vec![is(0), Presence::Not(Box::new(is(1)))])),
                    ("(@a or @b) and @c", Presence::All(vec![Presence::Any(vec![is(0), is(1)]), is(2)])),
                    ("2 of them", Presence::Count(Condition::at_least(2), vec![0, 1, 2])),
                    ("{gte: 1, lt: 3}", {
                        let few = Condition { gte: Some(1), lt: Some(3), ..Condition::default() };
                        Presence::Count(few, vec![0, 1, 2])
                    }),
                ]);
                ("temporal", format!("condition: {text}"), Predicate::Presence(presence))
            }
            5 => {
                field = Some("number");
                ("value_sum", format!("condition: {{field: number, {figure_text}}}"), Predicate::Sum(figures))
            }
            6 => {
                field = Some("number");
                ("value_avg", format!("condition: {{field: number, {figure_text}}}"), Predicate::Average(figures))
            }
            7 => {
                field = Some("number");
                let percent = random.one_of(&[0, 10, 50, 90, 100]);
                let text = format!("condition: {{field: number, percentile: {percent}, {figure_text}}}");
                ("value_percentile", text, Predicate::Percentile { percent, condition: figures })
            }
            8 => {
                field = Some("number");
                let predicate = Predicate::Percentile { percent: 50, condition: figures };
                ("value_median", format!("condition: {{field: number, {figure_text}}}"), predicate)
            }
            9 => {
                references.truncate(2);
                ("absence", String::new(), Predicate::Absence)
            }
            10 => {
                field = Some("user");
                let (memory, known_min) = (timespan + 1 + random.below(30) as i64, random.below(3) as u64);
                let text = format!("condition: {{field: user, within: {memory}s, known: {known_min}}}");
                ("first_seen", text, Predicate::FirstSeen { memory, known_min })
            }
            _ => {
                let memory = timespan + 2 + random.below(40) as i64;
                let (age_min, count_min) = (1 + random.below(2) as i64, random.below(3) as u64);
                let text =
                    format!("condition: {{{figure_text}, within: {memory}s, history: {age_min}s, count: {count_min}}}");
                ("rate", text, Predicate::Rate { memory, grid: 1, age_min, count_min, times: figures })
            }
        };
        // A correlation below takes the place of the first rule, where no numbers are wanted.
        let chained = field != Some("number") && !body.contains("@a") && random.below(3) == 0;
        if chained {
            references[0] = "inner";
        }
        let text = format!(
            "title: C\nid: @x\ncorrelation:\n  type: {kind}\n  rules: [{}]\n  group-by: [from]\n  aliases: {{from: {{{}}}}}\n  timespan: {timespan}s\n  {body}\n",
            references.iter().map(|rule| format!("@{rule}")).collect::<Vec<_>>().join(", "),
            references.iter().map(|rule| format!("@{rule}: address")).collect::<Vec<_>>().join(", "),
        );
        let rule = EpisodeRule {
            id: "x".into(),
            title: "C".into(),
            level: Level::Medium,
            tags: Arc::from([]),
            references: references.iter().map(|id| Arc::from(*id)).collect(),
            timespan,
            predicate,
            alerts: true,
            chained: Vec::new(),
        };
        let text = format!("{}{}{text}---\n", plain_rules(), if chained { INNER } else { "" });
        let text = text.replace('@', &format!("c{number}_"));
        Case { number, text, rule, field, kind, chained }
    }

    /// The value that something that happened brings.
    fn value(&self, happened: &Happened) -> Option<&'static str> {
        match self.field {
            Some("user") => Some(happened.user),
            Some(_) => happened.number,
            None => None,
        }
    }

    /// What the definitions give: extent, counts and peak of each episode.
    fn want(&self, all: &BTreeSet<(u64, Happened)>) -> BTreeSet<(String, Cell, Cell, Vec<u64>, u64)> {
        let mut items: BTreeMap<&str, BTreeMap<OracleItem, u64>> = BTreeMap::new();
        let mut add = |address, item| *items.entry(address).or_default().entry(item).or_default() += 1;
        let place = |id: &str| self.rule.references.iter().position(|known| &**known == id);
        for (_, happened) in all {
            if let Some(reference) = place(happened.outcome) {
                let value = self.value(happened).map(Arc::from);
                // An event that lacks the field is no item; one whose value is no number is none either.
                if self.field.is_none() || value.is_some() {
                    let reference = u16::try_from(reference).unwrap();
                    add(happened.address, OracleItem { cell: happened.at, reference, value });
                }
            }
        }
        if self.chained {
            let groups: BTreeSet<_> = all.iter().map(|(_, happened)| (happened.address, happened.user)).collect();
            for (address, user) in groups {
                let of =
                    |happened: &Happened| (happened.address, happened.user, happened.outcome) == (address, user, "a");
                let mut below: BTreeMap<OracleItem, u64> = BTreeMap::new();
                for (_, happened) in all.iter().filter(|(_, happened)| of(happened)) {
                    *below.entry(OracleItem { cell: happened.at, reference: 0, value: None }).or_default() += 1;
                }
                let inner = EpisodeRule {
                    id: "inner".into(),
                    references: vec!["a".into()],
                    timespan: 4,
                    predicate: Predicate::EventCount(Condition::at_least(2)),
                    ..self.rule.clone()
                };
                let below: Vec<_> = below.into_iter().collect();
                for found in oracle(&key("inner", address), &inner, inner.cut(), Cell::MIN, &below) {
                    let value = self.field.map(|_| Arc::from(user));
                    add(address, OracleItem { cell: found.episode.first_hit, reference: 0, value });
                }
            }
        }
        let mut want = BTreeSet::new();
        for (address, items) in items {
            let items: Vec<_> = items.into_iter().collect();
            for found in oracle(&key("x", address), &self.rule, self.rule.cut(), Cell::MIN, &items) {
                let episode = found.episode;
                want.insert((
                    address.to_owned(),
                    episode.anchor,
                    episode.last_cell,
                    episode.reference_counts,
                    episode.peak,
                ));
            }
        }
        want
    }
}

fn key(rule: &str, address: &str) -> EpisodeKey {
    let group = Group::new([(Arc::from("from"), Arc::from(address))]);
    EpisodeKey { tenant: Tenant::default(), rule: rule.into(), group }
}

fn event(case: u64, number: u64, happened: &Happened) -> Event {
    let number = case * 1_000 + number;
    let mut fields = Fields::default();
    let outcome = format!("c{case}_{}", happened.outcome);
    let words = [
        ("outcome", Some(&*outcome)),
        ("user", Some(happened.user)),
        ("address", Some(happened.address)),
        ("number", happened.number),
    ];
    for (name, word) in words {
        word.into_iter().for_each(|word| fields.push(Name::intern(name), word, Scalar::Text));
    }
    Event {
        origin: Arc::new(Origin {
            tenant: Tenant::default(),
            source: "s".into(),
            received_at: Time::from_seconds(0),
            year: None,
            framing: Framing::Record,
        }),
        position: Position { origin: "log".into(), offset: number, line: number, index: 0 },
        declared_id: Some(format!("event {number}").into()),
        time: Time::from_seconds(happened.at),
        time_basis: TimeBasis::Declared,
        log_source: Arc::new(LogSource { product: Some("linux".into()), category: None, service: None }),
        fields,
        entities: Vec::new(),
        raw: format!("{number} {happened:?}").into(),
    }
}

/// Runs the events in some epochs, and one more that ends them.
fn run(workers: usize, rules: &Arc<RuleSet>, epochs: &[Vec<Event>]) -> Vec<EpochOutput> {
    let (sender, outputs) = mpsc::channel();
    let (sender, rules, epochs) = (Mutex::new(Some(sender)), Arc::clone(rules), epochs.to_vec());
    timely::execute(timely::Config::process(workers), move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let options = GraphOptions { horizon_s: None, ..GraphOptions::default() };
        let mut graph = Graph::build(worker, &options, sender.lock().unwrap().take_if(|_| index == 0));
        let last = u64::try_from(epochs.len()).unwrap() + 1;
        for (epoch, events) in (1..).zip(epochs.iter().chain([&Vec::new()])) {
            let rules = (epoch == 1).then(|| Arc::clone(&rules) as Arc<dyn Rules>);
            let mine = events.iter().enumerate().filter(|(at, _)| at % peers == index).map(|(_, event)| event.clone());
            let ended = epoch == last && index == 0;
            graph.feed(Batch { epoch, rules, events: mine.collect(), ended, ..Batch::default() });
            graph.advance_to(epoch + 1);
            worker.step();
        }
        while !graph.done(last) {
            worker.step_or_park(None);
        }
    })
    .unwrap();
    outputs.into_iter().collect()
}

/// The alerts at the end.
fn alerts(outputs: &[EpochOutput]) -> Vec<Alert> {
    let mut rows: BTreeMap<Alert, i64> = BTreeMap::new();
    for (row, diff) in outputs.iter().flat_map(|output| &output.rows) {
        if let Row::Alert(alert) = row {
            *rows.entry(alert.clone()).or_default() += diff;
        }
    }
    assert!(rows.values().all(|times| (0..=1).contains(times)));
    rows.into_iter().filter(|(_, times)| *times == 1).map(|(alert, _)| alert).collect()
}

/// What happens in a case.
fn happenings(random: &mut Random) -> BTreeSet<(u64, Happened)> {
    (0..40 + random.below(80) as u64)
        .map(|number| {
            let happened = Happened {
                at: i64::try_from(random.below(90)).unwrap(),
                outcome: random.one_of(&["a", "b", "c", "d"]),
                user: random.one_of(&["eve", "bob", "ann"]),
                address: random.one_of(&["10.0.0.1", "10.0.0.2"]),
                number: random.one_of(&[None, Some("1"), Some("2.5"), Some("-1"), Some("7"), Some("n/a")]),
            };
            (number, happened)
        })
        .collect()
}

/// Compares one case with its share of the outputs.
fn check(seed: u64, case: &Case, all: &BTreeSet<(u64, Happened)>, alerts: &[Alert], outputs: &[EpochOutput]) -> usize {
    let rule = format!("c{}_x", case.number);
    let alerts = || alerts.iter().filter(|alert| *alert.rule == *rule);
    let want = case.want(all);
    let shown = |alert: &Alert| {
        let address = alert.group.iter().map(|(_, value)| value.to_owned()).collect::<String>();
        (address, alert.anchor, alert.last_cell, alert.reference_counts.clone(), alert.peak)
    };
    assert_eq!(alerts().map(shown).collect::<BTreeSet<_>>(), want, "seed {seed}\n{}", case.text);
    assert!(alerts().all(|alert| alert.state == AlertState::Open), "seed {seed}: not decided at the end");

    // What was no number is told, once for each event.
    let is_numeric = case.field == Some("number");
    let refused = outputs
        .iter()
        .flat_map(|output| &output.rejects)
        .filter(|reject| reject.code == RejectCode::NotANumber && reject.position.line / 1_000 == case.number);
    let no_number = |(_, happened): &&(u64, Happened)| {
        is_numeric && happened.number == Some("n/a") && OUTCOMES.contains(&happened.outcome)
    };
    assert_eq!(refused.count(), all.iter().filter(no_number).count(), "seed {seed}\n{}", case.text);
    want.len()
}

#[test]
fn every_type_of_correlation_is_what_its_definition_says() {
    let cases = std::env::var("CORRELATION_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let mut seen: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
    for seed in 0..cases.div_ceil(TOGETHER) {
        let mut random = Random(seed);
        let list: Vec<_> =
            (0..TOGETHER).map(|number| (Case::new(&mut random, number), happenings(&mut random))).collect();
        let text: String = list.iter().map(|(case, _)| case.text.as_str()).collect();
        let parsed = parse(&[Text { file: "x.yml".into(), text: text.clone() }]);
        let (rules, problems) = RuleSet::compile(parsed, &Options::default());
        assert!(problems.is_empty(), "seed {seed}: {problems:?}\n{text}");
        let happened = list.iter().flat_map(|(case, all)| all.iter().map(|(number, one)| (case.number, *number, one)));
        let mut events: Vec<Event> = happened.map(|(case, number, one)| event(case, number, one)).collect();
        let repeated: Vec<Event> = events.iter().filter(|_| random.below(10) == 0).cloned().collect();
        events.extend(repeated);
        random.shuffle(&mut events);
        let chunk = events.len().div_ceil(1 + random.below(6));
        let epochs: Vec<Vec<Event>> = events.chunks(chunk).map(<[Event]>::to_vec).collect();
        let outputs = run([1, 2, 4][random.below(3)], &Arc::new(rules), &epochs);
        let alerts = alerts(&outputs);
        for (case, all) in &list {
            let found = check(seed, case, all, &alerts, &outputs);
            let entry = seen.entry(if case.chained { "chained" } else { case.kind }).or_default();
            *entry = (entry.0 + 1, entry.1 + found);
        }
    }
    assert!(seen.values().all(|(_, alerts)| *alerts > 0), "{seen:?}");
    assert_eq!(seen.len(), 12, "{seen:?}");
}
