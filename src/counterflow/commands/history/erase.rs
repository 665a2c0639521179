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
audit chain), the spool's unevaluated rest, and backups.";

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
    let mut detections = 0;
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
        // Detections that backtests keep name whom they are of; a backtest makes them again.
        let kept = arguments.data.join(crate::backtest::KEPT);
        match std::fs::remove_dir_all(&kept) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("could not remove what backtests keep, {}", kept.display()));
            }
            _ => {}
        }
        // Counts alone: the audit chain must not say what was to be forgotten.
        let said = json!({ "kind": entity.kind, "rows": rows, "facts_log": detections }).to_string();
        runtime.block_on(ledger.control_append("erasure", &said, "history erase", "erasure", clock::now()))?;
    }
    let line = json!({ "erased": arguments.yes, "rows": rows, "facts_log": detections });
    output::ignore_closed_pipe(output::text(&format!("{line}\n")))?;
    output::note(if arguments.yes { LOST } else { "nothing was changed; --yes erases it" });
    Ok(Exit::Ok)
}
