//! Payloads of products meet public rules of these products.
//!
//! Each line of `src/ingest/tests/vendors/*.jsonl` is a payload with the ids of public rules that must fire on it, and of
//! some that must not (`silent`). Its `README.md` says after which published schema each was built.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use bytes::Bytes;
use cf_ingest::{Decoded, Decoder, SourceTable};
use cf_sigma::Scanner;
use cf_types::{Event, Framing, Origin, Position, Record, Tenant, Time};

use crate::world::{hits, public_rules};

fn decode(payload: &serde_json::Value) -> Vec<Event> {
    let origin = Origin {
        tenant: Tenant::default(),
        source: "test".into(),
        received_at: Time::from_seconds(1_760_000_000),
        year: None,
        framing: Framing::Http,
    };
    let bytes = Bytes::from(serde_json::to_vec(payload).unwrap());
    let record = Record { origin: Arc::new(origin), position: Position::default(), bytes };
    let mut decoded = Decoded::default();
    Decoder::new(Arc::new(SourceTable::default())).decode(&record, &mut decoded);
    assert_eq!(decoded.rejects.iter().map(|reject| &reject.reason).collect::<Vec<_>>(), Vec::<&String>::new());
    decoded.events
}

#[test]
fn each_products_payloads_meet_its_public_rules_and_others_do_not() {
    let Some(public) = public_rules() else { return };
    let mut scanner = Scanner::new(Arc::clone(&public.rules));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ingest/tests/vendors");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let (mut wrong, mut fired) = (Vec::new(), 0);
    for file in &files {
        let name = file.file_stem().unwrap().display().to_string();
        let mut fires_here = 0;
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let ids = |key: &str| -> BTreeSet<String> {
                let ids = case[key].as_array().into_iter().flatten();
                ids.map(|id| id.as_str().unwrap().split(' ').next().unwrap().to_owned()).collect()
            };
            let met: BTreeSet<String> =
                decode(&case["payload"]).iter().flat_map(|event| hits(&mut scanner, event)).collect();
            let (fires, silent) = (ids("fires"), ids("silent"));
            fires_here += fires.len();
            for id in fires.iter().chain(&silent) {
                if !public.parsed.rules.iter().any(|rule| *rule.id == **id) {
                    wrong.push(format!("{name}: no public rule {id}"));
                }
            }
            let missing: Vec<_> = fires.difference(&met).collect();
            let too_many: Vec<_> = silent.intersection(&met).collect();
            if std::env::var("COUNTERFLOW_SHOW").is_ok() {
                eprintln!("{name}: {}", case["about"]);
                for rule in public.parsed.rules.iter().filter(|rule| met.contains(&*rule.id)) {
                    eprintln!("    {} {}", rule.id, rule.title);
                }
            }
            if !missing.is_empty() || !too_many.is_empty() {
                wrong.push(format!("{name}: {}: missing {missing:?}, too many {too_many:?}", case["about"]));
            }
        }
        if fires_here == 0 && !NO_PUBLIC_RULE.contains(&&*name) {
            wrong.push(format!("{name}: no rule that must fire"));
        }
        fired += fires_here;
    }
    eprintln!("{} products, {fired} pairs of payload and rule", files.len());
    assert_eq!(wrong, Vec::<String>::new());
}

/// Products of which the archive has no rule.
const NO_PUBLIC_RULE: [&str; 1] = ["scanners"];
