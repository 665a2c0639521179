//! The table against reading every indicator, and what an event is looked for by.

use std::sync::Arc;

use cf_types::{Fields, LogSource, Origin, Position, Said, Scalar, TimeBasis, record::Framing};

use super::*;

fn event(at: i64, entities: &[(EntityKind, &str)], url: Option<&str>) -> Event {
    let mut fields = Fields::default();
    if let Some(url) = url {
        fields.push(Name::intern("url.full"), url, Scalar::Text);
    }
    Event {
        origin: Arc::new(Origin {
            tenant: Tenant::default(),
            source: "s".into(),
            received_at: Time::from_seconds(at),
            year: None,
            framing: Framing::Record,
        }),
        position: Position::default(),
        declared_id: None,
        time: Time::from_seconds(at),
        time_basis: TimeBasis::Declared,
        log_source: Arc::new(LogSource::default()),
        fields,
        entities: entities.iter().filter_map(|(kind, value)| Entity::of(*kind, value)).collect(),
        raw: Default::default(),
    }
}

fn fact(value: &str, from: i64, until: i64) -> Fact {
    let (from, until) = (Time::from_seconds(from), Time::from_seconds(until));
    let json = format!(r#"{{"value":"{value}","from":"{from}","until":"{until}"}}"#);
    Fact { tenant: Tenant::default(), body: Said::read("indicator", json.as_bytes()).unwrap().body }
}

/// What an event meets of these indicators, each from 10 s to 20 s.
#[track_caller]
fn check(indicators: &[&str], event: &Event, expect: &[&str]) {
    let mut table = Table::default();
    for text in indicators {
        table.change(&fact(text, 10, 20), 1);
    }
    let mut found = Vec::new();
    table.detect(event, &mut found);
    let groups: Vec<String> = found
        .iter()
        .map(|detection| {
            let fields: Vec<String> = detection.items[0].group.iter().map(|(k, v)| format!("{k}={v}")).collect();
            fields.join(" ")
        })
        .collect();
    assert_eq!(groups, expect);
    for text in indicators {
        table.change(&fact(text, 10, 20), -1);
    }
    assert!(table.by_pattern.is_empty() && table.lengths.is_empty(), "nothing stays behind");
}

#[test]
fn addresses_networks_names_hashes_and_urls_are_met() {
    let address = event(10, &[(EntityKind::Host, "h"), (EntityKind::Address, "10.0.0.9")], None);
    check(
        &["10.0.0.9", "10.0.0.0/24", "10.0.1.0/24", "::/0"],
        &address,
        &[
            "address=10.0.0.9 host=h indicator=address:10.0.0.0/24",
            "address=10.0.0.9 host=h indicator=address:10.0.0.9",
        ],
    );
    let name = event(19, &[(EntityKind::Domain, "a.evil.example"), (EntityKind::Address, "10.0.0.1")], None);
    check(
        &["*.evil.example", "evil.example", "*.other.example"],
        &name,
        &["domain=a.evil.example indicator=domain:*.evil.example source_ip=10.0.0.1"],
    );
    let hash = "d41d8cd98f00b204e9800998ecf8427e";
    let file = event(10, &[(EntityKind::FileHash, hash), (EntityKind::User, "u")], None);
    check(&[hash], &file, &[&format!("hash={hash} indicator=hash:{hash} user=u")]);
    let url = event(10, &[], Some("HTTP://evil.example/x?y#z"));
    check(
        &["http://evil.example/x?y", "evil.example"],
        &url,
        &[
            "domain=evil.example indicator=domain:evil.example",
            "indicator=url:http://evil.example/x?y url=http://evil.example/x?y",
        ],
    );
}

#[test]
fn validity_begins_inclusive_and_ends_exclusive() {
    for (at, met) in [(9, false), (10, true), (19, true), (20, false)] {
        let event = event(at, &[(EntityKind::Address, "10.0.0.9")], None);
        let expect: &[&str] = if met { &["address=10.0.0.9 indicator=address:10.0.0.9"] } else { &[] };
        check(&["10.0.0.9"], &event, expect);
    }
}
