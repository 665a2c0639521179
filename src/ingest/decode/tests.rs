use std::{collections::BTreeMap, path::PathBuf};

use cf_types::{EntityKind, Origin, Scalar, Tenant};
use expect_test::{Expect, expect};

use super::*;
use crate::{
    file::{self, FileOptions},
    options::SourceOptions,
};

mod cases;
mod json;
mod real;
mod text;
mod times;

const RECEIVED_AT: &str = "2026-01-05T14:00:00Z";

fn record(text: &[u8], framing: Framing, received_at: &str, year: Option<i16>) -> Record {
    let origin = Origin {
        tenant: Tenant::default(),
        source: Arc::from("test"),
        received_at: received_at.parse().unwrap(),
        year,
        framing,
    };
    Record { origin: Arc::new(origin), position: Position::default(), bytes: Bytes::copy_from_slice(text) }
}

fn decode(record: &Record, options: SourceOptions) -> Decoded {
    // What rules would ask for, all at once: what is shown must not depend on which test ran before.
    let _names = Name::intern_all([
        "EventID",
        "Channel",
        "Provider_Name",
        "Computer",
        "CommandLine",
        "Data",
        "ThreatName",
        "Param1",
        "a",
        "a.b",
        "actor",
        "user",
        "raw_data",
        "raw_data.user",
        "normalized_data.actor",
        "severity",
        "n",
        "big",
        "eventName",
        "awsRegion",
        "USER",
    ]);
    let table = SourceTable::new(&BTreeMap::from([("test".to_owned(), options)])).unwrap();
    let mut decoded = Decoded::default();
    Decoder::new(Arc::new(table)).decode(record, &mut decoded);
    decoded
}

/// One event as lines: time and log source, declared id, then `field=value` (`~` before a value that is no text), then
/// its entities.
fn show(decoded: &Decoded) -> String {
    let mut out = String::new();
    for event in &decoded.events {
        let source = &event.log_source;
        let words =
            [&source.product, &source.category, &source.service].map(|word| word.as_deref().unwrap_or("-").to_owned());
        out += &format!("{} {:?} {}", event.time, event.time_basis, words.join("/"));
        if event.position.index > 0 {
            out += &format!(" index {}", event.position.index);
        }
        if let Some(id) = &event.declared_id {
            out += &format!(" id {id}");
        }
        out += "\n";
        for (name, value, scalar) in event.fields.iter().filter(|(name, _, _)| *name != Name::UNKNOWN) {
            let kind = if scalar == Scalar::Text { "" } else { "~" };
            out += &format!("  {}={kind}{value}\n", name.text());
        }
        for entity in &event.entities {
            out += &format!("  {entity}\n");
        }
    }
    for reject in &decoded.rejects {
        out += &format!("reject {}: {}\n", reject.code.as_str(), reject.reason);
    }
    out
}

proptest::proptest! {
    /// Arbitrary bytes and damaged records never panic, give the same twice, and give something.
    #[test]
    fn whatever_comes_is_events_or_rejects(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        which in 0usize..SAMPLES.len(),
        at in proptest::prelude::any::<proptest::sample::Index>(),
        cut in proptest::bool::ANY,
    ) {
        let mut damaged = SAMPLES[which].as_bytes().to_vec();
        let at = at.index(damaged.len());
        if cut { damaged.truncate(at) } else { damaged.splice(at..at, bytes.iter().copied().take(3)); }
        for input in [bytes, damaged] {
            for framing in [Framing::Record, Framing::Syslog, Framing::Http, Framing::Unframed] {
                let record = record(&input, framing, RECEIVED_AT, None);
                let mut decoder = Decoder::new(Arc::new(SourceTable::default()));
                let (mut once, mut twice) = (Decoded::default(), Decoded::default());
                decoder.decode(&record, &mut once);
                decoder.decode(&record, &mut twice);
                proptest::prop_assert_eq!(show(&once), show(&twice));
                let empty_list = matches!(input.trim_ascii(), [b'[', inner @ .., b']'] if inner.trim_ascii().is_empty());
                proptest::prop_assert!(empty_list || !once.events.is_empty() || !once.rejects.is_empty());
            }
        }
    }
}

const SAMPLES: &[&str] = &[
    r##"{"Event":{"#attributes":{"xmlns":"x"},"System":{"Provider":{"#attributes":{"Name":"P"}},"EventID":{"#text":1},"Channel":"C","TimeCreated":{"#attributes":{"SystemTime":"2019-04-27T15:57:25.868863Z"}}},"EventData":{"Data":["a","b"],"N":null}}}"##,
    r#"[{"Channel":"Security","EventID":4624,"EventTime":"2020-01-01 00:00:00"},{"a":{"b":[1,2.5,-3,true]}}]"#,
    r#"{"Records":[{"eventSource":"a","eventName":"b","awsRegion":"c","eventTime":"2023-04-11T15:24:00Z","eventID":"1"}]}"#,
    r#"{"event_id":"7","timestamp":"2026-01-05T14:00:00Z","event_type":"x","raw_data":{"a":1},"normalized_data":{"actor":"b"}}"#,
    "<34>1 2003-10-11T22:14:15.003Z h app 1 ID47 [x@1 a=\"b\\]\"] text",
    "Jan  5 14:00:00 web sshd[77]: Failed password for invalid user a b from 1.2.3.4 port 22 ssh2",
    "Jan  5 14:00:00 web sudo: alice : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh -c a ; b",
    "1.2.3.4 - bob [29/Sep/2021:17:29:58 +0200] \"GET /a?b=1 HTTP/1.1\" 404 162 \"-\" \"curl\"",
    "[Wed Jul 05 09:19:24.428126 2023] [proxy:error] [pid 1] [client 33.202.142.97:55309] AH01071: x",
];
