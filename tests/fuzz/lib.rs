//! What the targets share.

use std::{
    cell::RefCell,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use cf_ingest::{Decoded, Decoder, SourceTable};
use cf_oracle::{Oracle, Sources};
use cf_sigma::{Options, RuleSet, Scanner, Severity, Text, parse};
use cf_types::{Event, Framing, Origin, Position, Record, Tenant, Time};

/// Log sources for the oracle: without the published map, so that nothing from outside is needed.
static SOURCES: LazyLock<Sources> = LazyLock::new(|| {
    let table = include_str!("../../src/sigma/log_source/table.yml");
    Sources::read(&["logsources: {}", cf_oracle::BEYOND], table).expect("our own tables are valid")
});

thread_local! {
    static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new(Arc::new(SourceTable::default())));
}

/// A rule of one selection `s` for product `p`.
#[must_use]
pub fn rule(key: &str, value: &str) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    format!(
        "title: t\nid: r\nlogsource: {{product: p}}\ndetection:\n  s: {{{}: {}}}\n  condition: s\n",
        quoted(key),
        quoted(value)
    )
}

/// Compiles a text; `None` if it is refused.
#[must_use]
pub fn compiled(text: &str) -> Option<Scanner> {
    let parsed = parse(&[Text { file: "fuzz.yml".into(), text: text.to_owned() }]);
    let (rules, problems) = RuleSet::compile(parsed, &Options::default());
    let fine = problems.iter().all(|problem| problem.severity != Severity::Error) && !rules.rules().is_empty();
    fine.then(|| Scanner::new(Arc::new(rules)))
}

/// Events that bytes give, and whether anything was refused as no JSON.
#[must_use]
pub fn decoded(bytes: &[u8], framing: Framing) -> Decoded {
    let origin = Origin {
        tenant: Tenant::default(),
        source: "fuzz".into(),
        received_at: Time::from_seconds(1_767_225_600),
        year: None,
        framing,
    };
    let record =
        Record { origin: Arc::new(origin), position: Position::default(), bytes: Bytes::copy_from_slice(bytes) };
    let mut decoded = Decoded::default();
    DECODER.with_borrow_mut(|decoder| decoder.decode(&record, &mut decoded));
    decoded
}

/// An event of product `p` whose field `F` has this value.
#[must_use]
pub fn event(value: &str) -> Option<Event> {
    let record = serde_json::json!({"product": "p", "F": value}).to_string();
    decoded(record.as_bytes(), Framing::Record).events.pop()
}

/// Ids of the rules that an event meets.
pub fn hits(scanner: &mut Scanner, event: &Event) -> Vec<String> {
    let mut hits = Vec::new();
    scanner.scan(event, &mut hits);
    hits.iter().filter_map(|hit| scanner.rules().rule(*hit)).map(|rule| rule.id.to_string()).collect()
}

/// Engine and oracle on one rule and one event must agree, where both take the rule.
pub fn agree(rule: &str, event: &Event) {
    let Some(mut scanner) = compiled(rule) else { return };
    let oracle = Oracle::new([rule], SOURCES.clone());
    if oracle.refused().is_empty() && !oracle.is_empty() {
        let expect = oracle.hits(&cf_oracle::Event::of(event));
        assert_eq!(hits(&mut scanner, event), expect, "{rule} on {event:?}");
    }
}
