//! A made-up site: its rules, events and facts, and a way to run the graph over them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, mpsc},
};

use cf_dataflows::{Batch, Graph, GraphOptions, IncidentOptions, Matcher, Recalled, Remembered, Rules};
pub use cf_types::random::Random;
use cf_types::{
    ActionKind, AlertId, Condition, Detection, Entity, EntityKind, EpisodeRule, EpochOutput, Event, Fact, FactBody,
    Fields, Fixed, Group, Item, Level, LogSource, Member, Origin, Position, Predicate, Row, Said, Tenant, Time,
    TimeBasis,
    fact::{Judgement, Policy, Silence, Verdict},
    record::Framing,
};

/// 2026-01-05T06:00:00Z: far from the boundaries of the cut grid, whose cuts have tests of their own.
pub const BEGIN: i64 = 1_767_592_800;

/// Rules of the site. A rule on events looks at the first word; a correlation counts what the rules that it lists give.
#[derive(Clone)]
pub struct TestRules {
    pub episode_rules: Vec<Arc<EpisodeRule>>,
    /// Per episode rule: its group-by fields, and the field that is its value.
    pub fields: BTreeMap<Arc<str>, (Vec<&'static str>, Option<&'static str>)>,
}

/// The words that events begin with; each is a rule on events, too.
pub const KINDS: [&str; 4] = ["fail", "ok", "sudo", "scan"];

impl TestRules {
    pub fn new() -> TestRules {
        let mut rules = TestRules { episode_rules: Vec::new(), fields: BTreeMap::new() };
        let at_least = |n| Predicate::EventCount(Condition::at_least(n));
        rules.add("sudo", Level::Low, &["sudo"], 120, at_least(1), &["host", "user"], None);
        rules.add("scan", Level::Medium, &["scan"], 60, at_least(1), &["address"], None);
        rules.add("brute", Level::High, &["fail"], 60, at_least(3), &["address"], None);
        let two = Predicate::ValueCount(Condition::at_least(2));
        rules.add("spray", Level::Medium, &["fail"], 120, two, &["address"], Some("user"));
        rules.add("taken", Level::Critical, &["brute", "ok"], 300, Predicate::TemporalOrdered, &["address"], None);
        rules.add("again", Level::Critical, &["taken"], 3_600, at_least(2), &["address"], None);
        rules.add("quiet", Level::Low, &["ok", "sudo"], 120, Predicate::Temporal, &["user"], None);
        let much = Condition { gt: Fixed::whole(500), ..Condition::default() };
        rules.add("volume", Level::Low, &["sudo"], 90, Predicate::Sum(much), &["address"], Some("number"));
        rules
    }

    pub fn add(
        &mut self,
        id: &str,
        level: Level,
        references: &[&str],
        timespan: i64,
        predicate: Predicate,
        group: &[&'static str],
        value: Option<&'static str>,
    ) {
        let id: Arc<str> = id.into();
        self.episode_rules.push(Arc::new(EpisodeRule {
            id: id.clone(),
            title: format!("title of {id}").into(),
            level,
            tags: Arc::from([Arc::from("attack.t1110")]),
            references: references.iter().map(|id| (*id).into()).collect(),
            timespan,
            predicate,
            alerts: &*id != "quiet",
            chained: Vec::new(),
        }));
        self.fields.insert(id, (group.to_vec(), value));
    }

    /// The same rules, one changed.
    pub fn with(mut self, id: &str, change: impl FnOnce(&mut EpisodeRule)) -> TestRules {
        let rule = self.episode_rules.iter_mut().find(|rule| &*rule.id == id).unwrap();
        change(Arc::make_mut(rule));
        self
    }

    /// The same rules, one less.
    pub fn without(mut self, id: &str) -> TestRules {
        self.episode_rules.retain(|rule| &*rule.id != id);
        self
    }

    /// What an event gives.
    pub fn detections(&self, event: &Event) -> Vec<Detection> {
        let words = words(event);
        let kind = words["kind"];
        let items = self.episode_rules.iter().flat_map(|rule| {
            let places = rule.references.iter().zip(0u16..).filter(|(id, _)| &***id == kind);
            places.map(|(_, reference)| {
                let (group, value) = &self.fields[&rule.id];
                Item {
                    rule: rule.id.clone(),
                    reference,
                    group: Group::new(group.iter().map(|field| ((*field).into(), words[field].into()))),
                    value: value.map(|field| words[field].into()),
                }
            })
        });
        vec![Detection {
            tenant: event.origin.tenant.clone(),
            rule: kind.into(),
            member: Member {
                time: event.time,
                id: event.id(),
                declared_id: event.declared_id.as_deref().map(Arc::from),
                position: event.position.clone(),
            },
            source: event.origin.source.clone(),
            entities: Vec::new(),
            items: items.collect(),
        }]
    }
}

fn words(event: &Event) -> BTreeMap<&'static str, &str> {
    let text = std::str::from_utf8(&event.raw).unwrap();
    ["kind", "host", "user", "address", "number"].into_iter().zip(text.split(' ')).collect()
}

impl Rules for TestRules {
    fn episode_rules(&self) -> &[Arc<EpisodeRule>] {
        &self.episode_rules
    }

    fn matcher(self: Arc<Self>) -> Box<dyn Matcher> {
        Box::new(TestMatcher(self))
    }
}

struct TestMatcher(Arc<TestRules>);

impl Matcher for TestMatcher {
    fn detect(&mut self, event: &Event, out: &mut Vec<Detection>) {
        out.extend(self.0.detections(event));
    }
}

/// `text` is `kind host user address`; `at` is in seconds after [`BEGIN`], and it was received then.
pub fn event(source: &str, id: u64, at: i64, text: &str) -> Event {
    received(source, id, at, at, text)
}

/// The same, received at another time.
pub fn received(source: &str, id: u64, at: i64, received: i64, text: &str) -> Event {
    let time = |at: i64| Time::from_seconds(BEGIN + at);
    Event {
        origin: Arc::new(Origin {
            tenant: Tenant::default(),
            source: source.into(),
            received_at: time(received),
            year: None,
            framing: Framing::Record,
        }),
        position: Position { origin: "file".into(), offset: id * 100, line: id, index: 0 },
        declared_id: Some(format!("event {id}").into()),
        time: time(at),
        time_basis: TimeBasis::Declared,
        log_source: Arc::new(LogSource::default()),
        fields: Fields::default(),
        entities: entities(text),
        raw: format!("{text} {id}").into(),
    }
}

/// Its host and its address.
fn entities(text: &str) -> Vec<Entity> {
    let words: Vec<&str> = text.split(' ').collect();
    let of = |kind, word: usize| Entity::of(kind, words.get(word)?);
    [of(EntityKind::Host, 1), of(EntityKind::Address, 3)].into_iter().flatten().collect()
}

/// Events of a few hours: quiet hours and dense minutes.
pub fn random_events(random: &mut Random, count: u64) -> Vec<Event> {
    (0..count)
        .map(|id| {
            let burst = i64::try_from(random.below(6)).unwrap() * 1_000;
            let at = burst + i64::try_from(random.below(120)).unwrap();
            let kind = KINDS[[0, 0, 0, 0, 1, 2, 3][random.below(7)]];
            let (host, user, address) = (random.below(4), random.below(4), random.below(5));
            event("s", id, at, &format!("{kind} h{host} u{user} 10.0.{}.{address}", address % 2))
        })
        .collect()
}

pub fn allow(network: &str) -> Fact {
    Fact { tenant: Tenant::default(), body: FactBody::Allow { network: network.parse().unwrap() } }
}

pub fn policy(name: &str, level_min: Level, rules: &[&str], ttl_s: u32) -> Fact {
    Fact {
        tenant: Tenant::default(),
        body: FactBody::Policy(Policy {
            name: name.into(),
            level_min,
            rules: rules.iter().map(|id| (*id).into()).collect(),
            tags: Vec::new(),
            action: ActionKind::BlockAddress,
            ttl_s,
        }),
    }
}

/// A silence of these rules and one entity, in seconds after [`BEGIN`].
pub fn silence(name: &str, rules: &[&str], entity: Option<Entity>, level_max: Level, span: (i64, i64)) -> Fact {
    let silence = Silence {
        name: name.into(),
        rules: rules.iter().map(|id| (*id).into()).collect(),
        level_max: Some(level_max),
        entities: entity.into_iter().collect(),
        tags: Vec::new(),
        from: Time::from_seconds(BEGIN + span.0),
        until: Time::from_seconds(BEGIN + span.1),
    };
    Fact { tenant: Tenant::default(), body: FactBody::Silence(silence) }
}

/// A fact as people say it.
pub fn said(kind: &str, json: &str) -> Fact {
    Fact { tenant: Tenant::default(), body: Said::read(kind, json.as_bytes()).unwrap().body }
}

/// A verdict on some alert of a rule, said at a second after [`BEGIN`].
pub fn verdict(rule: &str, at: u8, judgement: Judgement) -> Fact {
    let verdict = Verdict {
        alert: AlertId([at; 16]),
        judgement,
        rule: rule.into(),
        at: Time::from_seconds(BEGIN + i64::from(at)),
    };
    Fact { tenant: Tenant::default(), body: FactBody::Verdict(verdict) }
}

/// The facts that come and go.
pub fn all_facts() -> Vec<Fact> {
    let mut facts = vec![
        allow("10.0.0.0/24"),
        allow("10.0.1.3/32"),
        allow("10.0.0.0/15"),
        policy("block", Level::High, &[], 600),
        policy("block scanners", Level::Low, &["scan", "taken"], 3_600),
        silence("work", &["sudo", "scan"], None, Level::Critical, (0, 2_050)),
        silence("one address", &[], Entity::of(EntityKind::Address, "10.0.0.2"), Level::High, (1_000, 6_000)),
        said("asset", r#"{"value":"host:h1","criticality":5,"exposure":"internal"}"#),
        said("asset", r#"{"value":"host:h2","criticality":1,"exposure":"external"}"#),
        said("asset", r#"{"value":"address:10.0.1.1","criticality":4}"#),
        said("asset", r#"{"value":"10.0.0.0/30","criticality":5,"exposure":"external"}"#),
        said("identity", r#"{"value":"u1","aliases":"u2","privileged":true}"#),
        said("identity", r#"{"value":"u3"}"#),
        said("edge", r#"{"value":"user:u1->host:h3","access":"admin"}"#),
        said("edge", r#"{"value":"host:h3->host:h1"}"#),
        said("edge", r#"{"value":"host:h1->user:u1"}"#),
    ];
    let judgement = |at: u8| if at.is_multiple_of(3) { Judgement::FalsePositive } else { Judgement::TruePositive };
    facts.extend((0..12).map(|at| verdict(["sudo", "scan"][usize::from(at % 2)], at, judgement(at))));
    facts
}

/// Indicators: of one address, of networks around it, two sources for one, some for a while only.
pub fn indicators() -> Vec<Fact> {
    let time = |at: i64| Time::from_seconds(BEGIN + at);
    vec![
        said("indicator", r#"{"value":"10.0.0.4","confidence":90,"source":"a","tags":"attack.t1071"}"#),
        said("indicator", &format!(r#"{{"value":"10.0.0.4","source":"b","until":"{}"}}"#, time(3_050))),
        said("indicator", r#"{"value":"10.0.1.0/30","confidence":20}"#),
        said("indicator", &format!(r#"{{"value":"10.0.1.3","from":"{}","until":"{}"}}"#, time(1_050), time(4_060))),
    ]
}

/// What an epoch brings, to all workers together.
#[derive(Clone, Default)]
pub struct Input {
    pub rules: Option<Arc<TestRules>>,
    pub facts: Vec<(Fact, i64)>,
    pub events: Vec<Event>,
    pub recalled: Vec<Detection>,
    pub found: Vec<Detection>,
    pub remembered: Vec<Remembered>,
    pub idle: Vec<Arc<str>>,
    pub limit: Option<Time>,
    pub sealed: Option<Recalled>,
    pub passed_ms: u64,
    pub ended: bool,
}

/// Bounded input; a short incident window, so that there are several.
pub fn bounded() -> GraphOptions {
    let incidents = IncidentOptions { window: 700, ..IncidentOptions::default() };
    GraphOptions { horizon_s: None, incidents, risk_alert_tenths: 190, ..GraphOptions::default() }
}

/// Runs the graph over epochs 1, 2, ... with events dealt out to workers; gives all outputs.
pub fn run(workers: usize, options: &GraphOptions, inputs: &[Input]) -> Vec<EpochOutput> {
    let (sender, outputs) = mpsc::channel();
    let (sender, inputs, options) = (Mutex::new(Some(sender)), Arc::new(inputs.to_vec()), options.clone());
    timely::execute(timely::Config::process(workers), move |worker| {
        let (index, peers) = (worker.index(), worker.peers());
        let output = sender.lock().unwrap().take_if(|_| index == 0);
        let mut graph = Graph::build(worker, &options, output);
        let mut epoch = 0;
        for input in inputs.iter().cloned() {
            epoch += 1;
            let Input { rules, facts, events, recalled, found, remembered, idle, limit, sealed, passed_ms, ended } =
                input;
            let mine = |position: usize| position % peers == index;
            graph.feed(Batch {
                epoch,
                rules: rules.map(|rules| rules as Arc<dyn Rules>),
                facts,
                events: events.into_iter().enumerate().filter(|(at, _)| mine(*at)).map(|(_, event)| event).collect(),
                recalled: recalled.into_iter().enumerate().filter(|(at, _)| mine(*at)).map(|(_, one)| one).collect(),
                found: if index == peers - 1 { found } else { Vec::new() },
                remembered: if index == peers - 1 { remembered } else { Vec::new() },
                idle: if index == 0 { idle } else { Vec::new() },
                limit: limit.filter(|_| index == 0),
                newest: Vec::new(),
                sealed: sealed.filter(|_| index == 0),
                passed_ms: if index == 0 { passed_ms } else { 0 },
                ended: ended && index == 0,
            });
            graph.advance_to(epoch + 1);
            // Two epochs in flight, to meet both ways in which operators are called.
            while !graph.done(epoch.saturating_sub(2)) {
                worker.step_or_park(None);
            }
        }
        while !graph.done(epoch) {
            worker.step_or_park(None);
        }
    })
    .unwrap();
    outputs.into_iter().collect()
}

/// What all changes up to an epoch add up to.
pub fn accumulate(outputs: &[EpochOutput]) -> Vec<Row> {
    let mut rows: BTreeMap<&Row, i64> = BTreeMap::new();
    for (row, diff) in outputs.iter().flat_map(|output| &output.rows) {
        *rows.entry(row).or_default() += diff;
    }
    assert!(rows.values().all(|times| (0..=1).contains(times)), "a row is there once or not at all");
    rows.into_iter().filter(|(_, times)| *times == 1).map(|(row, _)| row.clone()).collect()
}
