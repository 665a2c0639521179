//! Memory of the graph over a stream that spans four horizons: users by Zipf's law, one rule that counts logins.
//!
//! `graph-memory [--events 10000000] [--users 10000000] [--exponent 110] [--horizons 4] [--repeat 1]`: the exponent is in
//! hundredths; each event comes `repeat` times, as several events of one second. Memory is a function of what lies in the
//! horizon: it must not grow between the second horizon and the last. Of runs with other repeats follows what a cell and
//! what a matched id cost: `--pairs 1` makes those runs, too.

use std::{collections::BTreeMap, process::Command, sync::Arc};

use anyhow::{Context, Result};
use cf_dataflows::{Batch, Graph, GraphOptions, Rules};
use cf_graph_benches::{BEGIN, Events, OneRule, cpu_s, float, numbers, resident_bytes, say};
use cf_types::{Condition, Level, Predicate, random::Random};
use serde_json::{Value, json};

/// Epochs of one horizon.
const EPOCHS: u64 = 200;
const HORIZON_S: u64 = 86_400;

fn main() -> Result<()> {
    let known = [
        ("events", 10_000_000),
        ("users", 10_000_000),
        ("exponent", 110),
        ("horizons", 4),
        ("repeat", 1),
        ("pairs", 0),
    ];
    let [events, users, exponent, horizons, repeat, pairs] = numbers(known, std::env::args().skip(1))?;
    let ran = run(events, Zipf::new(users, float(exponent) / 100.0), horizons.max(2), repeat.max(1));
    say(&ran)?;
    if pairs > 0 {
        say(&costs(&ran, &again(events, users, exponent, horizons, repeat.max(1) * 8)?))?;
    }
    Ok(())
}

/// The same number of events, each user's several in one second, in a process of its own.
fn again(events: u64, users: u64, exponent: u64, horizons: u64, repeat: u64) -> Result<Value> {
    let mut command = Command::new(std::env::current_exe()?);
    for (name, number) in
        [("events", events), ("users", users), ("exponent", exponent), ("horizons", horizons), ("repeat", repeat)]
    {
        command.arg(format!("--{name}")).arg(number.to_string());
    }
    let output = command.output().context("could not run the second part")?;
    serde_json::from_slice(&output.stdout).context("the second part said nothing")
}

/// Two equations: bytes = ids × a + cells × b.
fn costs(one: &Value, other: &Value) -> Value {
    let of = |value: &Value, key: &str| value[key].as_f64().unwrap_or(0.0);
    let (i1, c1, b1) = (of(one, "ids_held"), of(one, "cells_held"), of(one, "bytes_held"));
    let (i2, c2, b2) = (of(other, "ids_held"), of(other, "cells_held"), of(other, "bytes_held"));
    let determinant = i1 * c2 - i2 * c1;
    json!({
        "bench": "memory, costs", "bytes_per_id": (b1 * c2 - b2 * c1) / determinant,
        "bytes_per_cell": (i1 * b2 - i2 * b1) / determinant,
    })
}

fn run(events: u64, zipf: Zipf, horizons: u64, repeat: u64) -> Value {
    let per_epoch = events / (EPOCHS * horizons);
    timely::execute_directly(move |worker| {
        let rule = OneRule::new("logins", "user", 300, Predicate::EventCount(Condition::at_least(1_000)), Level::Low);
        let mut rules: Option<Arc<dyn Rules>> = Some(Arc::new(rule));
        let options =
            GraphOptions { horizon_s: i64::try_from(HORIZON_S).ok(), disorder_s: 0, ..GraphOptions::default() };
        let mut graph = Graph::build(worker, &options, None);
        let (mut random, mut made) = (Random(3), Events::default());
        let (before, began) = (resident_bytes(), cpu_s());
        let (mut at_end, mut held): (Vec<u64>, BTreeMap<u64, (u64, u64)>) = (Vec::new(), BTreeMap::new());
        for epoch in 1..=EPOCHS * horizons {
            let (mut list, mut cells) = (Vec::new(), std::collections::HashSet::new());
            for _ in 0..per_epoch / repeat {
                let second = (epoch - 1) * HORIZON_S / EPOCHS + random.number(HORIZON_S / EPOCHS);
                let user = zipf.draw(&mut random);
                cells.insert((user, second));
                for _ in 0..repeat {
                    list.push(made.event(BEGIN + i64::try_from(second).unwrap_or(0), &format!("u{user}")));
                }
            }
            let ids = u64::try_from(list.len()).unwrap_or(0);
            held.insert(epoch, (ids, u64::try_from(cells.len()).unwrap_or(0)));
            graph.feed(Batch { epoch, rules: rules.take(), events: list, ..Batch::default() });
            graph.advance_to(epoch + 1);
            while !graph.done(epoch) {
                worker.step_or_park(None);
            }
            if epoch.is_multiple_of(EPOCHS) {
                at_end.push(resident_bytes());
            }
        }
        let cpu = cpu_s() - began;
        let in_horizon = held.values().rev().take(usize::try_from(EPOCHS).unwrap_or(usize::MAX));
        let (ids, cells) = in_horizon.fold((0, 0), |(ids, cells), (more, others)| (ids + more, cells + others));
        let (second, last) = (at_end.get(1).copied().unwrap_or(0), at_end.last().copied().unwrap_or(0));
        drop(graph);
        json!({
            "bench": "memory", "events": per_epoch * EPOCHS * horizons, "repeat": repeat, "horizons": horizons,
            "resident_mb_by_horizon": at_end.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>(),
            "growth_percent": (float(last) / float(second.max(1)) - 1.0) * 100.0, "ids_held": ids, "cells_held": cells,
            "bytes_held": last.saturating_sub(before), "bytes_per_event_held": float(last.saturating_sub(before)) / float(ids.max(1)),
            "events_per_cpu_s": float(events) / cpu,
        })
    })
}

/// Numbers from 0 on, each `1 / (n + 1)^s` as often as the first: by rejection from an integral above (Hörmann and
/// Derflinger 1996), so that ten million need no table.
struct Zipf {
    exponent: f64,
    /// The integral up to the first number and up to the last.
    low: f64,
    high: f64,
}

impl Zipf {
    fn new(numbers: u64, exponent: f64) -> Zipf {
        let mut zipf = Zipf { exponent, low: 0.0, high: 0.0 };
        zipf.low = zipf.integral(1.5) - 1.0;
        zipf.high = zipf.integral(float(numbers.max(2)) + 0.5);
        zipf
    }

    fn integral(&self, x: f64) -> f64 {
        (x.powf(1.0 - self.exponent) - 1.0) / (1.0 - self.exponent)
    }

    fn inverse(&self, y: f64) -> f64 {
        (y * (1.0 - self.exponent) + 1.0).powf(1.0 / (1.0 - self.exponent))
    }

    fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let u = self.low + float(random.draw() >> 11) / float(1 << 53) * (self.high - self.low);
            let k = self.inverse(u).round().max(1.0);
            if u >= self.integral(k + 0.5) - k.powf(-self.exponent) {
                #[allow(
                    clippy::as_conversions,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "k is whole, from 1 to the number of users"
                )]
                let number = k as u64;
                return number - 1;
            }
        }
    }
}
