//! `counterflow rules enable`: what a rule would have found in events of before it, found now.

use anyhow::{Context, Result, bail};
use cf_ledger::{ControlLog, Reader};
use cf_types::clock;

use crate::{
    cli::EnableArguments,
    output::{self, Exit},
    rulebook::RuleEntry,
    warm::{ASKED, Asked},
};

/// Who says so, for the audit.
const USER: &str = "USER";

/// Runs it.
pub(crate) fn run(arguments: &EnableArguments) -> Result<Exit> {
    if arguments.from.is_some() && !arguments.backfill {
        bail!("--from says how far --backfill looks back");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("could not start")?;
    runtime.block_on(async {
        let disabled = disabled(&Reader::open(&arguments.data).await?).await?;
        let author = std::env::var(USER).unwrap_or_default();
        let mut log = ControlLog::open(&arguments.data).await?;
        for id in arguments.ids.iter().filter(|id| disabled.contains(*id)) {
            let body = serde_json::to_string(&RuleEntry::Enable { id: id.clone() })?;
            log.append(cf_ledger::control::RULE, &body, &author, "rules enable", clock::now()).await?;
            output::note(&format!(
                "{id} is evaluated again from the next start on; a running engine is told by PUT /api/v1/rules/{id}"
            ));
        }
        if arguments.backfill {
            let asked = Asked { rules: arguments.ids.clone(), from: arguments.from };
            let body = serde_json::to_string(&asked)?;
            log.append(ASKED, &body, &author, "rules enable --backfill", clock::now()).await?;
            output::note("asked: the engine meets history with it, now or at its next start");
        }
        Ok(Exit::Ok)
    })
}

/// The rules that are disabled by hand.
async fn disabled(reader: &Reader) -> Result<std::collections::BTreeSet<String>> {
    let mut disabled = std::collections::BTreeSet::new();
    let mut last = 0;
    loop {
        let entries = reader.control_since(last).await?;
        let Some(end) = entries.last().map(|entry| entry.seq) else { return Ok(disabled) };
        last = end;
        for entry in entries.iter().filter(|entry| entry.kind == cf_ledger::control::RULE) {
            match serde_json::from_str(&entry.body).context("a change of rules in the control log is damaged")? {
                RuleEntry::Disable { id } => drop(disabled.insert(id)),
                RuleEntry::Enable { id } => drop(disabled.remove(&id)),
                RuleEntry::Put { .. } | RuleEntry::Remove { .. } => {}
            }
        }
    }
}
