//! What an assessment costs: `cargo run --release -p cf-types --example assess` (RSK-08, RSK-09).

// A measurement on a terminal.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::disallowed_types)]

use std::{hint::black_box, sync::Arc, time::Instant};

use cf_types::{
    Alert, AlertId, AlertState, Entity, EntityKind, FactBody, Group, Level, Said, Score, Tenant,
    assess::{Context, Precision, assess},
};

const TIMES: usize = 200_000;

fn main() {
    let entities: Vec<Entity> =
        [(EntityKind::Host, "web01"), (EntityKind::User, "alice"), (EntityKind::Address, "203.0.113.9")]
            .into_iter()
            .filter_map(|(kind, name)| Entity::of(kind, name))
            .collect();
    let tags = ["attack.credential-access", "attack.t1110.001", "attack.initial-access", "attack.t1078"];
    let alert = Alert {
        tenant: Tenant::default(),
        id: AlertId::default(),
        rule: "a".into(),
        title: "a".into(),
        level: Level::High,
        group: Group::default(),
        state: AlertState::Open,
        anchor: 0,
        last_cell: 0,
        count: 1,
        reference_counts: vec![1, 1],
        peak: 1,
        score: Score::of_level(Level::High),
        entities,
        tags: tags.into_iter().map(Arc::from).collect(),
    };
    let mut context = Context { precision: Some(Precision { percent: 80 }), ..Context::default() };
    let said = [
        ("asset", r#"{"value":"host:web01","criticality":5,"exposure":"external"}"#),
        ("identity", r#"{"value":"alice","privileged":true}"#),
        ("indicator", r#"{"value":"203.0.113.9","confidence":90,"source":"feed"}"#),
    ];
    for body in said.into_iter().filter_map(|(kind, json)| Said::read(kind, json.as_bytes()).ok()).map(|said| said.body)
    {
        match body {
            FactBody::Asset(asset) => context.assets.push(asset),
            FactBody::Identity(identity) => context.identities.push(identity),
            FactBody::Indicator(indicator) => context.indicators.push(indicator),
            _ => {}
        }
    }
    let mut nanos: Vec<u128> = Vec::with_capacity(TIMES);
    let begin = Instant::now();
    for _ in 0..TIMES {
        let one = Instant::now();
        black_box(assess(black_box(&alert), black_box(&context)));
        nanos.push(one.elapsed().as_nanos());
    }
    let seconds = begin.elapsed().as_secs_f64();
    nanos.sort_unstable();
    let at = |percent: usize| nanos.get(TIMES * percent / 100).copied().unwrap_or(0);
    println!("{TIMES} assessments in {seconds:.2} s; p50 {} ns, p99 {} ns", at(50), at(99));
}
