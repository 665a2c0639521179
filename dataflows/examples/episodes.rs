//! Times correlation alone: `cargo run --release -p cf-dataflows --example episodes`.
//!
//! Items are made before the clock starts; what is timed is one worker taking them through the operator, epoch by
//! epoch. CPU time is read from `/proc/self/stat`, so that figures from a busy machine can be compared.

// Helpers of tests are tests: what fails here fails the run.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, clippy::as_conversions, clippy::string_slice)]
#![allow(clippy::clone_on_ref_ptr, clippy::too_many_arguments, clippy::needless_lifetimes, clippy::indexing_slicing)]

use std::{fs, io::Write, sync::Arc};

use cf_dataflows::correlate::{CellItem, Correlated, Limit, correlate};
use cf_types::{Cell, Condition, EpisodeKey, EpisodeRule, Epoch, Group, Level, Predicate, Tenant};
use differential_dataflow::input::InputSession;
use timely::dataflow::{
    ProbeHandle,
    operators::{Input as _, Probe},
};

const ITEMS: i64 = 1_000_000;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let many = |n: i64| (0..ITEMS).map(move |i| (i % n, i));
    let late = |i: i64, cell: Cell| if i % 10 == 0 { cell - 1_800 } else { cell };
    let count = Predicate::EventCount(Condition::at_least(3));
    let values = Predicate::ValueCount(Condition::at_least(20));
    let cases: [(&str, &Predicate, i64, Vec<(i64, Cell)>); 5] = [
        ("one key, 100 s", &count, 100, many(1).map(|(key, i)| (key, i / 10_000)).collect()),
        ("100,000 keys, 1,000 s", &count, 100, many(100_000).map(|(key, i)| (key, i / 1_000)).collect()),
        (
            "100,000 keys, 10 % half an hour late",
            &count,
            100,
            many(100_000).map(|(key, i)| (key, late(i, i / 1_000))).collect(),
        ),
        (
            "100 keys, a day, 10 % half an hour late",
            &count,
            1_000,
            many(100).map(|(key, i)| (key, late(i, i / 12))).collect(),
        ),
        ("100 keys, 1,000 s, distinct values", &values, 100, many(100).map(|(key, i)| (key, i / 1_000)).collect()),
    ];
    for (name, predicate, epochs, items) in cases {
        let (cpu, changes) = run(predicate, epochs, &items);
        let rate = f64::from(i32::try_from(ITEMS).unwrap_or(i32::MAX)) / cpu / 1e6;
        writeln!(out, "{name}: {cpu:.2} CPU s, {rate:.2} M items per CPU s, {changes} changes of episodes")?;
    }
    Ok(())
}

/// Gives CPU seconds and the number of changed rows.
fn run(predicate: &Predicate, epochs: i64, items: &[(i64, Cell)]) -> (f64, i64) {
    let rule = rule(predicate.clone());
    let valued = matches!(predicate, Predicate::ValueCount(_));
    let items: Vec<CellItem> =
        items.iter().zip(0..).map(|((key, cell), n)| item(&rule, *key, *cell, valued.then_some(n))).collect();
    timely::execute_directly(move |worker| {
        let probe = ProbeHandle::new();
        let changes = std::rc::Rc::new(std::cell::Cell::new(0));
        let mut input = InputSession::<Epoch, CellItem, isize>::new();
        let (mut rules, mut limits) = worker.dataflow::<Epoch, _, _>(|scope| {
            let (rules, rule_sets) = scope.new_input();
            let (limits, limit_stream) = scope.new_input();
            let Correlated { episodes, .. } = correlate(input.to_collection(scope), rule_sets, limit_stream);
            let count = std::rc::Rc::clone(&changes);
            episodes.inspect(move |_| count.set(count.get() + 1)).inner.probe_with(&probe);
            (rules, limits)
        });
        rules.send(Arc::new(vec![rule]));
        let before = cpu_seconds();
        let share = items.len().div_ceil(usize::try_from(epochs).unwrap_or(1));
        let mut newest = Cell::MIN;
        let mut epoch = 0;
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            for item in items.by_ref().take(share) {
                newest = newest.max(item.cell);
                input.update(item, 1);
            }
            limits.send(Limit(newest - 7_200));
            epoch += 1;
            input.advance_to(epoch);
            input.flush();
            rules.advance_to(epoch);
            limits.advance_to(epoch);
            while probe.less_than(&epoch) {
                worker.step_or_park(None);
            }
        }
        (cpu_seconds() - before, changes.get())
    })
}

fn rule(predicate: Predicate) -> Arc<EpisodeRule> {
    Arc::new(EpisodeRule {
        id: Arc::from("rule"),
        title: Arc::from("Rule"),
        level: Level::High,
        tags: Arc::from([]),
        references: vec![Arc::from("reference")],
        timespan: 300,
        predicate,
        alerts: true,
        chained: Vec::new(),
    })
}

fn item(rule: &EpisodeRule, key: i64, cell: Cell, value: Option<i64>) -> CellItem {
    let group = Group::new([(Arc::from("address"), Arc::from(format!("host-{key}.example.org")))]);
    let key = EpisodeKey { tenant: Tenant::default(), rule: Arc::clone(&rule.id), group };
    CellItem { key, cell, reference: 0, value: value.map(|n| Arc::from(format!("user {n}"))) }
}

/// User and system time of this process; a tick is 10 ms on Linux.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
