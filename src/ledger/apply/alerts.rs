//! Alerts: which thread an id belongs to, what counts as a revision, what state it is in.

use std::collections::{BTreeMap, BTreeSet};

use cf_types::{Alert, AlertId, AlertState, EpochOutput, Fact, FactBody, Lineage};
use serde_json::{Value, json};

use super::{AlertChange, AlertEvent, Step, batch, id_list, number, parse_id};
use crate::{
    LedgerError, MembersOf,
    audit::Entry,
    database::{self, Connection, DbRow},
    present::{Change, alert_changes, digest_of},
};

/// Decides and writes the alerts of an epoch; gives the changes by (anchor, id).
pub(super) async fn apply(
    connection: &mut Connection<'_>,
    step: &mut Step<'_>,
    output: &EpochOutput,
    members: &MembersOf<'_>,
) -> Result<Vec<AlertChange>, LedgerError> {
    let changes = alert_changes(output);
    let lineages = Lineages::of(output);
    let ids: BTreeSet<AlertId> = changes.keys().copied().chain(lineages.ids()).collect();
    let held = load(connection, &ids).await?;
    let threads = load_threads(connection, &held).await?;
    let epoch = number(step.record.epoch);
    let mut deciding = Deciding { epoch, reason: step.reason, held, threads, merged: BTreeMap::new() };
    let decided = deciding.decide(&changes, &lineages);
    for (id, change) in &changes {
        step.digest = step.digest.wrapping_sub(deciding.held.get(id).map_or(0, Held::counted));
        if let Some(alert) = change.came.filter(|alert| !change.sealed && alert.state != AlertState::Sealed) {
            step.digest = step.digest.wrapping_add(digest_of(alert));
        }
    }
    for change in &decided {
        if matches!(change.state, "provisional" | "open" | "sealed")
            && let Some(summary) = members(&change.alert)
        {
            step.members.insert(change.alert.id, summary);
        }
    }
    write(connection, step, &deciding, &decided).await?;
    step.audit.extend(decided.iter().filter_map(audit_entry));
    Ok(decided)
}

/// An alert as the ledger has it before the epoch.
struct Held {
    alert: Alert,
    thread: AlertId,
    state: String,
    digest: u128,
}

impl Held {
    /// Its part of the digest: nothing unless it is open.
    fn counted(&self) -> u128 {
        if self.state == "open" { self.digest } else { 0 }
    }
}

#[derive(Clone)]
struct Thread {
    first_epoch: i64,
    revision: i64,
    material: String,
}

/// Lineage rows by what is asked of them.
struct Lineages<'a> {
    superseded: BTreeMap<AlertId, AlertId>,
    split: Vec<(AlertId, AlertId)>,
    suppressed: BTreeMap<AlertId, &'a Fact>,
}

impl Lineages<'_> {
    fn of(output: &EpochOutput) -> Lineages<'_> {
        let mut lineages = Lineages { superseded: BTreeMap::new(), split: Vec::new(), suppressed: BTreeMap::new() };
        for lineage in &output.lineage {
            match lineage {
                Lineage::SupersededBy { old, new } => drop(lineages.superseded.insert(*old, *new)),
                Lineage::SplitFrom { old, new } => lineages.split.push((*old, *new)),
                Lineage::Suppressed { alert, fact } => drop(lineages.suppressed.insert(*alert, fact)),
                Lineage::Sealed(_) => {}
            }
        }
        lineages
    }

    fn ids(&self) -> impl Iterator<Item = AlertId> {
        let pairs = self.superseded.iter().map(|(old, new)| (*old, *new)).chain(self.split.iter().copied());
        pairs.flat_map(|(old, new)| [old, new])
    }

    /// Follows supersessions to the id that stays; a circle (which the graph never gives) ends it.
    fn stands_for(&self, id: AlertId) -> Option<AlertId> {
        stands_for(&self.superseded, id)
    }
}

/// Follows a map of supersessions from `id` to its end; `None` when `id` was not superseded.
pub(super) fn stands_for(superseded: &BTreeMap<AlertId, AlertId>, id: AlertId) -> Option<AlertId> {
    let mut at = *superseded.get(&id)?;
    let mut seen = BTreeSet::from([id]);
    while seen.insert(at) {
        match superseded.get(&at) {
            Some(next) => at = *next,
            None => break,
        }
    }
    Some(at)
}

struct Deciding {
    epoch: i64,
    reason: &'static str,
    held: BTreeMap<AlertId, Held>,
    threads: BTreeMap<AlertId, Thread>,
    /// Threads that went into another.
    merged: BTreeMap<AlertId, AlertId>,
}

impl Deciding {
    fn decide(&mut self, changes: &BTreeMap<AlertId, Change<'_>>, lineages: &Lineages<'_>) -> Vec<AlertChange> {
        let heirs = self.assign_threads(changes, lineages);
        let mut order: Vec<_> = changes.values().collect();
        let anchor = |change: &Change<'_>| change.came.map_or(i64::MIN, |alert| alert.anchor);
        order.sort_by_key(|change| (anchor(change), change.id));
        let mut decided: Vec<_> = order
            .into_iter()
            .filter_map(|change| match change.came {
                Some(alert) => self.came(alert, change.sealed, &heirs),
                None if change.sealed => self.sealed(change.id),
                None => self.went(change.id, &heirs, lineages),
            })
            .collect();
        decided.sort_by_key(|change| (change.alert.anchor, change.alert.id));
        decided
    }

    /// Gives new ids their threads and unites the threads of merged ones. The map says which id carries on for an old
    /// one (by merge, or by a split whose old part is gone).
    fn assign_threads(
        &mut self,
        changes: &BTreeMap<AlertId, Change<'_>>,
        lineages: &Lineages<'_>,
    ) -> BTreeMap<AlertId, AlertId> {
        let mut heirs = BTreeMap::new();
        for old in lineages.superseded.keys() {
            if let Some(new) = lineages.stands_for(*old) {
                heirs.insert(*old, new);
                self.unite(*old, new);
            }
        }
        let mut splits = lineages.split.clone();
        splits.sort_by_key(|(old, new)| {
            (*old, changes.get(new).and_then(|change| change.came).map_or(i64::MAX, |alert| alert.anchor), *new)
        });
        for (old, new) in splits {
            let gone = changes.get(&old).is_some_and(|change| change.came.is_none() && !change.sealed);
            let came = changes.get(&new).is_some_and(|change| change.came.is_some());
            if gone && came && !heirs.contains_key(&old) && !self.new_threads_contain(new) {
                heirs.insert(old, new);
                self.unite(old, new);
            }
        }
        heirs
    }

    fn new_threads_contain(&self, id: AlertId) -> bool {
        self.merged.contains_key(&id) || self.held.contains_key(&id)
    }

    /// Puts both ids into the thread that was issued first (tie by id).
    fn unite(&mut self, old: AlertId, new: AlertId) {
        let Some(one) = self.held.get(&old).map(|held| self.resolve(held.thread)) else { return };
        let other = self.thread_of(new);
        if one == other {
            return;
        }
        let issued = |thread: &AlertId| self.threads.get(thread).map_or(i64::MAX, |thread| thread.first_epoch);
        let (stays, goes) = if (issued(&one), one) <= (issued(&other), other) { (one, other) } else { (other, one) };
        if let Some(gone) = self.threads.get(&goes).cloned()
            && let Some(thread) = self.threads.get_mut(&stays)
        {
            thread.revision = thread.revision.max(gone.revision);
        }
        self.merged.insert(goes, stays);
    }

    fn thread_of(&self, id: AlertId) -> AlertId {
        self.resolve(self.held.get(&id).map_or(id, |held| held.thread))
    }

    fn resolve(&self, thread: AlertId) -> AlertId {
        stands_for(&self.merged, thread).unwrap_or(thread)
    }

    fn came(&mut self, alert: &Alert, sealed: bool, heirs: &BTreeMap<AlertId, AlertId>) -> Option<AlertChange> {
        let thread = self.thread_of(alert.id);
        let mut alert = alert.clone();
        if sealed {
            alert.state = AlertState::Sealed;
        }
        let material = material_of(&alert);
        let known = self.threads.get(&thread).map(|thread| thread.material == material);
        let held = self.held.get(&alert.id);
        let carries_on = heirs.values().any(|heir| *heir == alert.id);
        let provisional = alert.state == AlertState::Provisional;
        let was_provisional =
            held.is_some_and(|held| held.state == "open" && held.alert.state == AlertState::Provisional);
        let event = match (held.map(|held| held.state.as_str()), known) {
            (Some(_), Some(true)) if provisional && was_provisional => {
                if held.is_some_and(|held| held.alert == alert) {
                    return None;
                }
                AlertEvent::Gauge
            }
            _ if provisional => AlertEvent::Provisional,
            _ if was_provisional => AlertEvent::Opened,
            (None, None) => AlertEvent::Opened,
            (Some("withdrawn"), _) if !carries_on => AlertEvent::Opened,
            (Some("open" | "sealed"), Some(true)) => {
                let was_open = held.is_some_and(|held| held.state == "open");
                if was_open && alert.state == AlertState::Sealed {
                    AlertEvent::Sealed
                } else if held.is_some_and(|held| held.alert == alert) {
                    return None;
                } else {
                    AlertEvent::Gauge
                }
            }
            (_, Some(true)) => AlertEvent::Moved,
            (_, Some(false) | None) => AlertEvent::Amended,
        };
        let revises =
            matches!(event, AlertEvent::Provisional | AlertEvent::Opened | AlertEvent::Amended | AlertEvent::Moved);
        let entry = self.threads.entry(thread).or_insert_with(|| Thread {
            first_epoch: self.epoch,
            revision: 0,
            material: String::new(),
        });
        if revises {
            entry.revision += 1;
            entry.material = material;
        }
        let revision = entry.revision;
        let state = match alert.state {
            AlertState::Provisional => "provisional",
            AlertState::Open => "open",
            AlertState::Sealed => "sealed",
        };
        Some(AlertChange { event, thread, revision, state, reason: None, superseded_by: None, incident: None, alert })
    }

    fn sealed(&self, id: AlertId) -> Option<AlertChange> {
        let held = self.held.get(&id).filter(|held| held.state == "open")?;
        let alert = Alert { state: AlertState::Sealed, ..held.alert.clone() };
        Some(self.end(AlertEvent::Sealed, alert, "sealed"))
    }

    fn went(
        &mut self,
        id: AlertId,
        heirs: &BTreeMap<AlertId, AlertId>,
        lineages: &Lineages<'_>,
    ) -> Option<AlertChange> {
        // Sealed is final: that the graph forgets a sealed alert takes nothing back.
        let alert = self.held.get(&id).filter(|held| held.state == "open")?.alert.clone();
        if let Some(heir) = heirs.get(&id) {
            let change = self.end(AlertEvent::Superseded, alert, "superseded");
            return Some(AlertChange { superseded_by: Some(*heir), ..change });
        }
        if let Some(thread) = self.threads.get_mut(&self.resolve(self.held.get(&id)?.thread)) {
            thread.revision += 1;
        }
        let reason = lineages.suppressed.get(&id).map_or_else(|| self.reason.to_owned(), |fact| why(fact));
        let change = self.end(AlertEvent::Withdrawn, alert, "withdrawn");
        Some(AlertChange { reason: Some(reason), ..change })
    }

    fn end(&self, event: AlertEvent, alert: Alert, state: &'static str) -> AlertChange {
        let thread = self.thread_of(alert.id);
        let revision = self.threads.get(&thread).map_or(1, |thread| thread.revision);
        AlertChange { event, thread, revision, state, reason: None, superseded_by: None, incident: None, alert }
    }
}

/// Why an alert went, for people.
pub(super) fn why(fact: &Fact) -> String {
    match &fact.body {
        FactBody::Allow { network } if network.prefix_len() == network.max_prefix_len() => {
            format!("allowed by {}", network.addr())
        }
        FactBody::Allow { network } => format!("allowed by {network}"),
        FactBody::Silence(silence) => format!("silenced by {}", silence.name),
        FactBody::Policy(policy) => format!("policy {}", policy.name),
        other => format!("a fact of kind {}", other.kind()),
    }
}

/// Hash of what makes a revision: all but identity, counts, last cell and peak. The count by reference is a count too.
fn material_of(alert: &Alert) -> String {
    let alert = Alert {
        id: AlertId::default(),
        anchor: 0,
        last_cell: 0,
        count: 0,
        reference_counts: Vec::new(),
        peak: 0,
        state: AlertState::Open,
        ..alert.clone()
    };
    format!("{:032x}", digest_of(&alert))
}

fn audit_entry(change: &AlertChange) -> Option<Entry> {
    let action = match change.event {
        AlertEvent::Provisional => "alert_provisional",
        AlertEvent::Opened => "alert_opened",
        AlertEvent::Amended => "alert_amended",
        AlertEvent::Moved => "alert_moved",
        AlertEvent::Withdrawn => "alert_withdrawn",
        AlertEvent::Superseded => "alert_superseded",
        AlertEvent::Gauge | AlertEvent::Sealed => return None,
    };
    let mut detail = json!({
        "alert_id": change.alert.id,
        "revision": change.revision,
        "rule": change.alert.rule,
        "level": change.alert.level,
        "group": change.alert.group.to_json(),
    });
    if let Some(reason) = &change.reason {
        detail["reason"] = Value::from(reason.as_str());
    }
    if let Some(heir) = change.superseded_by {
        detail["superseded_by"] = Value::from(heir.to_string());
    }
    Some(Entry::engine(action, change.thread.to_string(), detail))
}

async fn load(
    connection: &mut Connection<'_>,
    ids: &BTreeSet<AlertId>,
) -> Result<BTreeMap<AlertId, Held>, LedgerError> {
    let store = LedgerError::store("read the alerts of an epoch");
    let rows = database::query(
        "SELECT alert_id, content, thread, state, digest FROM alerts
         WHERE alert_id IN (SELECT atom FROM json_each($1))",
    )
    .bind(id_list(ids))
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    let column = |row: &DbRow, index: usize| row.try_get::<String, _>(index).map_err(&store);
    rows.iter()
        .map(|row| {
            let held = Held {
                alert: serde_json::from_str(&column(row, 1)?).map_err(LedgerError::damaged("an alert's content"))?,
                thread: parse_id(&column(row, 2)?)?,
                state: column(row, 3)?,
                digest: u128::from_str_radix(&column(row, 4)?, 16).unwrap_or_default(),
            };
            Ok((parse_id(&column(row, 0)?)?, held))
        })
        .collect()
}

async fn load_threads(
    connection: &mut Connection<'_>,
    held: &BTreeMap<AlertId, Held>,
) -> Result<BTreeMap<AlertId, Thread>, LedgerError> {
    let store = LedgerError::store("read the threads of an epoch");
    let rows = database::query(
        "SELECT thread, first_epoch, revision, material FROM threads
         WHERE thread IN (SELECT atom FROM json_each($1))",
    )
    .bind(id_list(held.values().map(|held| held.thread).collect::<BTreeSet<_>>()))
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    rows.iter()
        .map(|row| {
            let id: String = row.try_get(0).map_err(&store)?;
            let thread = Thread {
                first_epoch: row.try_get(1).map_err(&store)?,
                revision: row.try_get(2).map_err(&store)?,
                material: row.try_get(3).map_err(&store)?,
            };
            Ok((parse_id(&id)?, thread))
        })
        .collect()
}

async fn write(
    connection: &mut Connection<'_>,
    step: &Step<'_>,
    deciding: &Deciding,
    decided: &[AlertChange],
) -> Result<(), LedgerError> {
    let (epoch, at) = (number(step.record.epoch), step.at.micros());
    let content = |alert: &Alert| serde_json::to_string(alert).map_err(LedgerError::damaged("an alert"));
    let (mut alerts, mut revisions, mut threads) = (Vec::new(), Vec::new(), BTreeMap::new());
    for change in decided {
        let alert = &change.alert;
        let text = content(alert)?;
        let members = step
            .members
            .get(&alert.id)
            .map(|members| serde_json::to_string(members).map_err(LedgerError::damaged("an alert's members")))
            .transpose()?;
        if matches!(
            change.event,
            AlertEvent::Provisional
                | AlertEvent::Opened
                | AlertEvent::Amended
                | AlertEvent::Moved
                | AlertEvent::Withdrawn
        ) {
            revisions.push(json!([
                change.thread,
                change.revision,
                alert.id,
                epoch,
                at,
                change.event.as_str(),
                change.state,
                change.reason,
                text
            ]));
        }
        if let Some(thread) = deciding.threads.get(&change.thread) {
            threads.insert(
                change.thread,
                json!([change.thread, alert.tenant, thread.first_epoch, thread.revision, thread.material]),
            );
        }
        alerts.push(json!([
            alert.id,
            alert.tenant,
            change.thread,
            change.revision,
            column_of(change.state),
            change.reason,
            change.superseded_by,
            alert.rule,
            alert.title,
            alert.level.as_str(),
            alert.score.tenths(),
            alert.anchor,
            alert.last_cell,
            number(alert.count),
            text,
            format!("{:032x}", digest_of(alert)),
            members,
            epoch,
            at
        ]));
    }
    batch(
        connection,
        "INSERT INTO alerts
         SELECT value->>0, value->>1, value->>2, CAST(value->>3 AS BIGINT), value->>4, value->>5, value->>6, value->>7,
                value->>8, value->>9, CAST(value->>10 AS BIGINT), CAST(value->>11 AS BIGINT), CAST(value->>12 AS BIGINT),
                CAST(value->>13 AS BIGINT), value->>14, value->>15, value->>16, CAST(value->>17 AS BIGINT),
                CAST(value->>18 AS BIGINT), CAST(value->>17 AS BIGINT), CAST(value->>18 AS BIGINT)
         FROM json_each($1) WHERE true
         ON CONFLICT (alert_id) DO UPDATE SET
             thread = excluded.thread, revision = excluded.revision, state = excluded.state,
             reason = excluded.reason, superseded_by = excluded.superseded_by, title = excluded.title,
             level = excluded.level, score = excluded.score, last_cell = excluded.last_cell, count = excluded.count,
             content = excluded.content, digest = excluded.digest,
             members = coalesce(excluded.members, alerts.members),
             changed_epoch = excluded.changed_epoch, changed_at = excluded.changed_at",
        alerts,
    )
    .await?;
    batch(
        connection,
        "INSERT INTO alert_revisions
         SELECT value->>0, CAST(value->>1 AS BIGINT), value->>2, CAST(value->>3 AS BIGINT), CAST(value->>4 AS BIGINT),
                value->>5, value->>6, value->>7, value->>8
         FROM json_each($1)",
        revisions,
    )
    .await?;
    batch(
        connection,
        "INSERT INTO threads
         SELECT value->>0, value->>1, CAST(value->>2 AS BIGINT), CAST(value->>3 AS BIGINT), value->>4
         FROM json_each($1) WHERE true
         ON CONFLICT (thread) DO UPDATE SET tenant = excluded.tenant, first_epoch = excluded.first_epoch,
             revision = excluded.revision, material = excluded.material",
        threads.into_values().collect(),
    )
    .await?;
    write_merges(connection, step, deciding).await
}

/// The state as its column has it. A provisional alert is an open one to the table, whose states were fixed before
/// there were provisional ones; that it is one stands in its content, from where it is read.
fn column_of(state: &'static str) -> &'static str {
    if state == "provisional" { "open" } else { state }
}

/// Every id of a thread that went into another resolves to the one that stays.
async fn write_merges(
    connection: &mut Connection<'_>,
    step: &Step<'_>,
    deciding: &Deciding,
) -> Result<(), LedgerError> {
    let at = step.at.micros();
    let merges: Vec<Value> = deciding.merged.keys().map(|goes| json!([goes, deciding.resolve(*goes), at])).collect();
    // What nobody has seen of a thread that goes need not be said: the one that stays tells it.
    batch(
        connection,
        "UPDATE intents SET state = 'superseded', done_at = merge.at
         FROM (SELECT value->>0 AS goes, CAST(value->>2 AS BIGINT) AS at FROM json_each($1)) AS merge
         WHERE intents.thread = merge.goes AND state = 'planned' AND tries = 0 AND verify_first = 0",
        merges.clone(),
    )
    .await?;
    batch(
        connection,
        "UPDATE alerts SET thread = merge.stays
         FROM (SELECT value->>0 AS goes, value->>1 AS stays FROM json_each($1)) AS merge
         WHERE alerts.thread = merge.goes",
        merges.clone(),
    )
    .await?;
    batch(
        connection,
        "UPDATE threads SET revision = merge.revision
         FROM (SELECT value->>1 AS stays, max(gone.revision) AS revision FROM json_each($1)
               JOIN threads AS gone ON gone.thread = value->>0 GROUP BY stays) AS merge
         WHERE threads.thread = merge.stays AND threads.revision < merge.revision",
        merges.clone(),
    )
    .await?;
    batch(connection, "DELETE FROM threads WHERE thread IN (SELECT value->>0 FROM json_each($1))", merges).await
}
