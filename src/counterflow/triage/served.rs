//! Decisions as facts: what the conductor feeds of them, and which models its epochs' records name.
//!
//! A decision takes the place of the one before it about the same alert. A fact leaves the graph when event time has
//! left its alert behind: by then the alert is sealed and out of all operators, so that when exactly it leaves changes
//! nothing, and a restart, which begins with all of them, gives the same.

use std::collections::{BTreeMap, btree_map::Entry};

use anyhow::{Context, Result};
use cf_ledger::{ControlEntry, Ledger, triage::MODEL};
use cf_types::{AlertId, Cell, Decision, Fact, FactBody, triage::Triaged};

use super::switch::ModelChange;

/// Behind the limit an alert stays in the graph for a week, and an hour for its bucket; a day more is for nothing.
const KEPT_S: i64 = 8 * 86_400;

/// The answers that hold.
#[derive(Default)]
pub(crate) struct Served {
    held: BTreeMap<AlertId, (Fact, Cell)>,
    /// Versions by task and part, as records of epochs have them.
    pub(crate) models: BTreeMap<String, String>,
    /// The last limit for which old facts were looked for.
    swept: Cell,
}

impl Served {
    /// The answers that held at a position of the control log, as facts.
    pub(crate) async fn recall(&mut self, ledger: &Ledger, control: i64) -> Result<Vec<(Fact, i64)>> {
        let mut unused = Vec::new();
        ledger.decisions_upto(control, |decision| self.decided(&decision, &mut unused)).await?;
        Ok(self.held.values().map(|(fact, _)| (fact.clone(), 1)).collect())
    }

    /// Takes in entries of the control log: what they change is added to the facts of their epoch.
    pub(crate) fn take(&mut self, entries: &[ControlEntry], facts: &mut Vec<(Fact, i64)>) -> Result<()> {
        for entry in entries {
            if let Some(decision) = entry.decision()? {
                self.decided(&decision, facts);
            } else if entry.kind == MODEL {
                let change: ModelChange = serde_json::from_str(&entry.body)
                    .with_context(|| format!("change of models {} in the control log is damaged", entry.seq))?;
                self.changed(change);
            }
        }
        Ok(())
    }

    /// Lets go of what lies far behind the limit; looks at most once per hour of event time.
    pub(crate) fn expire(&mut self, limit: Option<Cell>, facts: &mut Vec<(Fact, i64)>) {
        let Some(floor) = limit.map(|limit| limit.saturating_sub(KEPT_S)).filter(|floor| *floor >= self.swept + 3_600)
        else {
            return;
        };
        self.swept = floor;
        let gone: Vec<AlertId> =
            self.held.iter().filter(|(_, (_, cell))| *cell < floor).map(|(alert, _)| *alert).collect();
        facts.extend(gone.iter().filter_map(|alert| self.held.remove(alert)).map(|(fact, _)| (fact, -1)));
    }

    fn decided(&mut self, decision: &Decision, facts: &mut Vec<(Fact, i64)>) {
        let Some(triage) = decision.served() else { return };
        let body = FactBody::Triage(Triaged { alert: decision.alert, triage });
        let fact = Fact { tenant: decision.tenant.clone(), body };
        facts.push((fact.clone(), 1));
        let new = (fact, decision.cell);
        match self.held.entry(decision.alert) {
            Entry::Occupied(mut held) => facts.push((held.insert(new).0, -1)),
            Entry::Vacant(place) => drop(place.insert(new)),
        }
    }

    fn changed(&mut self, change: ModelChange) {
        let ModelChange { task, champion, challenger, .. } = change;
        let challenging = format!("{task}.challenger");
        for (part, version) in [(task, champion), (challenging, challenger)] {
            match version {
                Some(version) => drop(self.models.insert(part, version)),
                None => drop(self.models.remove(&part)),
            }
        }
    }
}
