//! What the benches of the graph share: arguments, clocks, events, and how many records operators are given.
//!
//! They run the graph itself, without spool, ledger or network, on the main thread. Machines are shared, so CPU time is
//! what is compared, and each bench says whether its result was right.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    io::Write,
    rc::Rc,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use cf_dataflows::{Matcher, Rules};
use cf_types::{
    Detection, EpisodeRule, Event, Fields, Group, Item, Level, LogSource, Member, Origin, Position, Predicate, Tenant,
    Time, TimeBasis, record::Framing,
};
use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use timely::{
    logging::{TimelyEvent, TimelyEventBuilder},
    worker::Worker,
};

/// 2026-01-05T06:00:00Z.
pub const BEGIN: i64 = 1_767_592_800;

/// Arguments of the form `--name number`, each with the number that it has if it is not given.
///
/// # Errors
///
/// A name that is not among them, or something that is no number.
pub fn numbers<const N: usize>(known: [(&str, u64); N], given: impl Iterator<Item = String>) -> Result<[u64; N]> {
    let mut numbers = known.map(|(_, number)| number);
    let mut given = given.peekable();
    while let Some(word) = given.next() {
        let at = known.iter().position(|(name, _)| word.strip_prefix("--") == Some(name));
        let (Some(at), Some(value)) = (at, given.next()) else {
            let names: Vec<String> = known.iter().map(|(name, number)| format!("[--{name} {number}]")).collect();
            bail!("{word}: the arguments are {}", names.join(" "));
        };
        let number = value.replace('_', "").parse().with_context(|| format!("{word} {value} is no number"))?;
        if let Some(place) = numbers.get_mut(at) {
            *place = number;
        }
    }
    Ok(numbers)
}

/// CPU seconds of this process, all threads.
#[must_use]
pub fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    i32::try_from(time.tv_sec).map_or(0.0, f64::from) + i32::try_from(time.tv_nsec).map_or(0.0, f64::from) / 1e9
}

/// Bytes of this process in memory.
#[must_use]
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096
}

/// A whole number as a float, for ratios.
#[must_use]
pub fn float(number: u64) -> f64 {
    // Exact below 2^53, which no count here reaches.
    #[allow(clippy::as_conversions, clippy::cast_precision_loss, reason = "a ratio for people")]
    let float = number as f64;
    float
}

/// Prints one line of JSON.
///
/// # Errors
///
/// Standard output is closed.
pub fn say(value: &Value) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{value}")?;
    Ok(())
}

/// How many records each operator of this worker was given, by its name, and how many updates its arrangements took.
#[derive(Clone, Default)]
pub struct Given(Rc<RefCell<Counts>>);

#[derive(Default)]
struct Counts {
    /// Operators by scope and number in it.
    names: HashMap<(Vec<usize>, usize), String>,
    /// Where a channel leads.
    targets: HashMap<usize, (Vec<usize>, usize)>,
    records: HashMap<usize, u64>,
    /// Names by the number that is unique in the worker.
    operators: HashMap<usize, String>,
    updates: HashMap<usize, u64>,
}

impl Given {
    /// Counts from now on; before the dataflow is built.
    ///
    /// # Panics
    ///
    /// If the worker was started without logging.
    #[must_use]
    pub fn of(worker: &Worker) -> Given {
        let given = Given::default();
        let counts = Rc::clone(&given.0);
        worker.log_register().expect("timely logs by itself").insert::<TimelyEventBuilder, _>(
            "timely",
            move |_time, events| {
                for (_, event) in events.iter().flat_map(|events| events.iter()) {
                    counts.borrow_mut().take(event);
                }
            },
        );
        let counts = Rc::clone(&given.0);
        worker.log_register().expect("timely logs by itself").insert::<DifferentialEventBuilder, _>(
            "differential/arrange",
            move |_time, events| {
                for (_, event) in events.iter().flat_map(|events| events.iter()) {
                    if let DifferentialEvent::Batch(batch) = event {
                        let length = u64::try_from(batch.length).unwrap_or(0);
                        *counts.borrow_mut().updates.entry(batch.operator).or_default() += length;
                    }
                }
            },
        );
        given
    }

    /// Records by operator, since the beginning.
    #[must_use]
    pub fn records(&self) -> BTreeMap<String, u64> {
        let counts = self.0.borrow();
        let mut records = BTreeMap::new();
        for (channel, number) in &counts.records {
            let target = counts.targets.get(channel).and_then(|target| counts.names.get(target));
            *records.entry(target.cloned().unwrap_or_default()).or_insert(0) += number;
        }
        records
    }

    /// Updates that arrangements took since the beginning, by operator.
    #[must_use]
    pub fn updates(&self) -> BTreeMap<String, u64> {
        let counts = self.0.borrow();
        let mut updates = BTreeMap::new();
        for (operator, number) in &counts.updates {
            let name = counts.operators.get(operator).cloned().unwrap_or_default();
            *updates.entry(name).or_insert(0) += number;
        }
        updates
    }
}

impl Counts {
    fn take(&mut self, event: &TimelyEvent) {
        match event {
            TimelyEvent::Operates(operator) => {
                self.operators.insert(operator.id, operator.name.clone());
                let mut scope = operator.addr.clone();
                let number = scope.pop().unwrap_or(0);
                self.names.insert((scope, number), operator.name.clone());
            }
            TimelyEvent::Channels(channel) => {
                self.targets.insert(channel.id, (channel.scope_addr.clone(), channel.target.0));
            }
            TimelyEvent::Messages(message) if !message.is_send => {
                *self.records.entry(message.channel).or_default() += u64::try_from(message.record_count).unwrap_or(0);
            }
            _ => {}
        }
    }
}

/// One rule of the benches: what its events are called, what it groups by.
pub struct OneRule {
    rules: Vec<Arc<EpisodeRule>>,
    field: Arc<str>,
}

impl OneRule {
    /// A rule on events of [`event`], by their one entity.
    #[must_use]
    pub fn new(id: &str, field: &str, timespan: i64, predicate: Predicate, level: Level) -> OneRule {
        let rule = EpisodeRule {
            id: id.into(),
            title: id.into(),
            level,
            tags: Arc::from([]),
            references: vec![id.into()],
            timespan,
            predicate,
            alerts: true,
            chained: Vec::new(),
        };
        OneRule { rules: vec![Arc::new(rule)], field: field.into() }
    }
}

impl Rules for OneRule {
    fn episode_rules(&self) -> &[Arc<EpisodeRule>] {
        &self.rules
    }

    fn matcher(self: Arc<Self>) -> Box<dyn Matcher> {
        Box::new(OneMatcher(self))
    }
}

struct OneMatcher(Arc<OneRule>);

impl Matcher for OneMatcher {
    fn detect(&mut self, event: &Event, out: &mut Vec<Detection>) {
        let (Some(rule), Ok(name)) = (self.0.rules.first(), std::str::from_utf8(&event.raw)) else { return };
        let item = Item {
            rule: Arc::clone(&rule.id),
            reference: 0,
            group: Group::new([(Arc::clone(&self.0.field), Arc::from(name))]),
            value: None,
        };
        out.push(Detection {
            tenant: event.origin.tenant.clone(),
            rule: Arc::clone(&rule.id),
            member: Member { time: event.time, id: event.id(), declared_id: None, position: event.position.clone() },
            source: Arc::clone(&event.origin.source),
            entities: Vec::new(),
            items: vec![item],
        });
    }
}

/// Makes events of one source, numbered.
pub struct Events {
    origin: Arc<Origin>,
    file: Arc<str>,
    log_source: Arc<LogSource>,
    number: u64,
}

impl Default for Events {
    fn default() -> Events {
        let origin = Origin {
            tenant: Tenant::default(),
            source: "bench".into(),
            received_at: Time::MAX,
            year: None,
            framing: Framing::Record,
        };
        Events { origin: Arc::new(origin), file: "bench".into(), log_source: Arc::default(), number: 0 }
    }
}

impl Events {
    /// An event of an entity at a second.
    pub fn event(&mut self, second: i64, name: &str) -> Event {
        self.number += 1;
        Event {
            origin: Arc::clone(&self.origin),
            position: Position { origin: Arc::clone(&self.file), offset: self.number, line: self.number, index: 0 },
            declared_id: None,
            time: Time::from_seconds(second),
            time_basis: TimeBasis::Declared,
            log_source: Arc::clone(&self.log_source),
            fields: Fields::default(),
            entities: Vec::new(),
            raw: bytes::Bytes::copy_from_slice(name.as_bytes()),
        }
    }
}
