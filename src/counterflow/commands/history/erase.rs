//! `counterflow history erase`: what is held about an entity goes, from history and from the facts log.

use std::collections::HashSet;

use anyhow::{Context, Result};
use cf_history::{Erasure, Housekeeper, Table};
use cf_ledger::facts_log;
use cf_types::{Entity, clock};
use serde_json::{Map, Value, json};

use super::{Held, hold};
use crate::{
    cli::EraseArguments,
    output::{self, Exit},
};

/// What people must know of it.
const LOST: &str = "\
Older versions of the tables are gone: time travel begins anew here. A replay or a backtest over these days lacks the \
events, so alerts that rest on them are not found again; at the next start the engine may find that its alerts differ and \
withdraw them (more than 20 want --accept-differences). Not erased: the ledger (alerts and incidents as they stand, the \
audit chain, which before November 23rd, 2026 had what hunts and look-ups found), the spool's unevaluated rest, and backups.";

pub(super) fn run(arguments: &EraseArguments) -> Result<Exit> {
    let entity: Entity = arguments
        .entity
        .parse()
        .ok()
        .with_context(|| format!("{:?} is no entity; write KIND:VALUE, e.g. user:bob", arguments.entity))?;
    let erasure = Erasure::of(&entity);
    let Held { runtime, ledger, place, mut writer } = hold(&arguments.data)?;
    let mut keeper = Housekeeper::new(&place)?;
    let mut rows = Map::new();
    for table in Table::ALL {
        let mut found = 0;
        keeper.read(table, &|_| true, &mut |batch| found += erasure.rows(table, batch))?;
        rows.insert(table.name().to_owned(), Value::from(found));
    }
    let (mut detections, mut found) = (0, 0);
    if arguments.yes {
        for table in Table::ALL {
            let mut done = HashSet::new();
            while let Some(replacement) = keeper.erase(table, &erasure, &mut done)? {
                writer.replace(replacement)?;
            }
        }
        keeper.vacuum(0)?;
        detections = facts_log::erase(&arguments.data.join("facts"), &|detection| {
            let in_items = || detection.items.iter().flat_map(|item| item.group.iter().map(|(_, value)| value));
            detection.entities.contains(&entity) || in_items().any(|value| erasure.without(value).is_some())
        })?;
        found = runtime.block_on(ledger.control_erase(&mut |entry| without(&entry.body, &erasure)))?;
        // Detections that backtests keep name whom they are of; a backtest makes them again.
        let kept = arguments.data.join(crate::backtest::KEPT);
        match std::fs::remove_dir_all(&kept) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("could not remove what backtests keep, {}", kept.display()));
            }
            _ => {}
        }
        // Counts alone: the audit chain must not say what was to be forgotten.
        let said = json!({ "kind": entity.kind, "rows": rows, "facts_log": detections, "control_log": found });
        let said = said.to_string();
        runtime.block_on(ledger.control_append("erasure", &said, "history erase", "erasure", clock::now()))?;
    }
    let line = json!({ "erased": arguments.yes, "rows": rows, "facts_log": detections, "control_log": found });
    output::ignore_closed_pipe(output::text(&format!("{line}\n")))?;
    output::note(if arguments.yes { LOST } else { "nothing was changed; --yes erases it" });
    Ok(Exit::Ok)
}

/// The body of a control entry without what was found about the entity; `None` if nothing of it is.
fn without(body: &str, erasure: &Erasure) -> Option<String> {
    let mut body: Value = serde_json::from_str(body).ok()?;
    let mut gone = 0;
    // What hunts found is in rows, what look-ups and warm starts found stands alone.
    for key in ["rows", "found"] {
        if let Some(Value::Array(found)) = body.get_mut(key) {
            let before = found.len();
            found.retain(|one| !speaks_of(one, erasure));
            gone += before - found.len();
        }
    }
    (gone > 0).then(|| body.to_string())
}

/// Whether a text anywhere in it has the value. As deep as a reader of JSON goes.
fn speaks_of(value: &Value, erasure: &Erasure) -> bool {
    match value {
        Value::String(text) => erasure.without(text).is_some(),
        Value::Array(values) => values.iter().any(|value| speaks_of(value, erasure)),
        Value::Object(fields) => {
            fields.iter().any(|(name, value)| erasure.without(name).is_some() || speaks_of(value, erasure))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use cf_types::EntityKind;

    use super::*;

    #[test]
    fn what_was_found_about_somebody_goes_and_the_rest_stays() {
        let erasure = Erasure::of(&Entity::of(EntityKind::User, "bob").unwrap());
        let body = r#"{"hunt":"h","rows":[{"row":{"who":"CORP\\Bob"}},{"row":{"who":"bobby"}}]}"#;
        assert_eq!(without(body, &erasure).unwrap(), r#"{"hunt":"h","rows":[{"row":{"who":"bobby"}}]}"#);
        let body = r#"{"found":[{"entities":["host:a"]}],"upto":7}"#;
        assert_eq!(without(body, &erasure), None);
        let body = r#"{"found":[{"entities":["host:a","user:bob"]}],"upto":7}"#;
        assert_eq!(without(body, &erasure).unwrap(), r#"{"found":[],"upto":7}"#);
        assert_eq!(without("{", &erasure), None);
    }
}
