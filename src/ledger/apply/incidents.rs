//! Incident numbers: given once, kept by lineage (`streaming.md`, *Risk, incidents*). The oldest number survives a merge
//! and the others redirect to it; on a split the part that holds the canonical alert of before keeps the number.

use std::collections::{BTreeMap, BTreeSet};

use cf_types::{AlertId, EpochOutput, Incident, IncidentId, Lineage, Row, Score};
use serde_json::{Value, json};

use super::{AlertChange, IncidentChange, Step, alerts::stands_for, batch, id_list, number};
use crate::{
    LedgerError,
    audit::Entry,
    database::{self, Connection},
    schema::bare,
};

/// Decides and writes the incidents of an epoch; gives the changes by number.
pub(super) async fn apply(
    connection: &mut Connection<'_>,
    step: &mut Step<'_>,
    output: &EpochOutput,
    alerts: &[AlertChange],
) -> Result<Vec<IncidentChange>, LedgerError> {
    let side = |sign: i64| {
        let rows = output.rows.iter().filter(move |(_, diff)| diff.signum() == sign);
        rows.filter_map(|(row, _)| if let Row::Incident(incident) = row { Some(incident) } else { None })
    };
    let went: Vec<&Incident> = side(-1).collect();
    let came: Vec<&Incident> = side(1).collect();
    if went.is_empty() && came.is_empty() {
        return Ok(Vec::new());
    }
    let numbers = load_numbers(connection, went.iter().chain(&came).map(|incident| incident.id)).await?;
    let superseded = output
        .lineage
        .iter()
        .filter_map(|lineage| match lineage {
            Lineage::SupersededBy { old, new } => Some((*old, *new)),
            _ => None,
        })
        .collect();
    let withdrawn: BTreeSet<AlertId> =
        alerts.iter().filter(|change| change.state == "withdrawn").map(|change| change.alert.id).collect();
    let mut next = next_number(connection).await?;
    let first_new = next;
    let changes = decide(&went, &came, &numbers, &superseded, &withdrawn, &mut next);
    write(connection, step, &changes, first_new, next).await?;
    named(connection, changes).await
}

/// Notes on each incident title and score of its gravest alert, chosen as readers do ([`crate::Reader::incidents`]).
pub(crate) async fn named(
    connection: &mut Connection<'_>,
    mut changes: Vec<IncidentChange>,
) -> Result<Vec<IncidentChange>, LedgerError> {
    let store = LedgerError::store("read the names of incidents");
    let numbers: Vec<i64> = changes.iter().map(|change| change.number).collect();
    let rows: Vec<(i64, String, i64)> = database::query_as(
        "WITH best AS (
             SELECT i.number, a.title, a.score,
                    row_number() OVER (PARTITION BY i.number ORDER BY a.state IN ('withdrawn', 'superseded'),
                                       a.rule = 'risk', a.score DESC, a.anchor, a.alert_id) AS place
             FROM incident_alerts i JOIN alerts a ON a.alert_id = i.alert_id
             WHERE i.number IN (SELECT CAST(atom AS BIGINT) FROM json_each($1)))
         SELECT number, title, score FROM best WHERE place = 1",
    )
    .bind(json!(numbers).to_string())
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    let mut names: BTreeMap<i64, (String, i64)> =
        rows.into_iter().map(|(number, title, score)| (number, (title, score))).collect();
    for change in &mut changes {
        if let Some((title, score)) = names.remove(&change.number) {
            change.title = Some(title);
            change.score = u16::try_from(score).ok().map(Score::from_tenths);
        }
    }
    Ok(changes)
}

/// Gives each incident its number. Pure.
fn decide(
    went: &[&Incident],
    came: &[&Incident],
    numbers: &BTreeMap<IncidentId, i64>,
    superseded: &BTreeMap<AlertId, AlertId>,
    withdrawn: &BTreeSet<AlertId>,
    next: &mut i64,
) -> Vec<IncidentChange> {
    let home: BTreeMap<AlertId, usize> = came
        .iter()
        .enumerate()
        .flat_map(|(index, incident)| incident.alerts.iter().map(move |(_, alert)| (*alert, index)))
        .collect();
    // Each number of before goes to the part that holds the first alert of before that is still there.
    let mut claims: Vec<BTreeSet<i64>> = vec![BTreeSet::new(); came.len()];
    let mut over = Vec::new();
    for incident in went {
        let Some(&had) = numbers.get(&incident.id) else { continue };
        let heir = incident
            .alerts
            .iter()
            .find_map(|(_, alert)| home.get(alert).or_else(|| home.get(&stands_for(superseded, *alert)?)).copied());
        match heir.and_then(|index| claims.get_mut(index)) {
            Some(claim) => drop(claim.insert(had)),
            None => over.push((had, *incident)),
        }
    }
    let mut changes = Vec::new();
    let mut order: Vec<usize> = (0..came.len()).collect();
    order.sort_by_key(|index| came.get(*index).map(|incident| (incident.alerts.first().copied(), incident.id)));
    for index in order {
        let (Some(incident), Some(claim)) = (came.get(index), claims.get(index)) else { continue };
        // An incident that came without its -1 (the ledger has it open): it keeps what it has.
        let known = numbers.get(&incident.id).filter(|_| !went.iter().any(|gone| gone.id == incident.id));
        let keeps = claim.iter().chain(known).min().copied().unwrap_or_else(|| {
            let new = *next;
            *next += 1;
            new
        });
        let change = |number, state, redirect| {
            let incident = (*incident).clone();
            IncidentChange { number, incident, state, redirect, title: None, score: None }
        };
        changes.push(change(keeps, "open", None));
        changes.extend(claim.iter().filter(|had| **had != keeps).map(|had| change(*had, "merged", Some(keeps))));
    }
    for (had, incident) in over {
        let all_withdrawn = incident.alerts.iter().all(|(_, alert)| withdrawn.contains(alert));
        let state = if all_withdrawn { "withdrawn" } else { "closed" };
        let incident = incident.clone();
        changes.push(IncidentChange { number: had, incident, state, redirect: None, title: None, score: None });
    }
    changes.sort_by_key(|change| change.number);
    changes
}

/// Notes on each changed alert the number of its incident: of this epoch, else as it was.
pub(super) async fn numbered(
    connection: &mut Connection<'_>,
    mut alerts: Vec<AlertChange>,
) -> Result<Vec<AlertChange>, LedgerError> {
    let store = LedgerError::store("read the incidents of alerts");
    let rows = database::query(
        "SELECT alert_id, number FROM incident_alerts WHERE alert_id IN (SELECT atom FROM json_each($1))",
    )
    .bind(id_list(alerts.iter().map(|change| change.alert.id)))
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    let mut numbers = BTreeMap::new();
    for row in rows {
        numbers.insert(row.try_get::<String, _>(0).map_err(&store)?, row.try_get(1).map_err(&store)?);
    }
    for change in &mut alerts {
        change.incident = numbers.get(&change.alert.id.to_string()).copied();
    }
    Ok(alerts)
}

async fn load_numbers(
    connection: &mut Connection<'_>,
    ids: impl Iterator<Item = IncidentId>,
) -> Result<BTreeMap<IncidentId, i64>, LedgerError> {
    let store = LedgerError::store("read incident numbers");
    let rows = database::query(
        "SELECT incident_id, number FROM incidents
         WHERE state = 'open' AND incident_id IN (SELECT atom FROM json_each($1))",
    )
    .bind(id_list(ids))
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    let mut numbers = BTreeMap::new();
    for row in rows {
        let id: String = row.try_get(0).map_err(&store)?;
        if let Ok(id) = id.parse() {
            numbers.insert(id, row.try_get(1).map_err(&store)?);
        }
    }
    Ok(numbers)
}

async fn next_number(connection: &mut Connection<'_>) -> Result<i64, LedgerError> {
    database::query_scalar("SELECT incident_next FROM engine")
        .fetch_one(connection)
        .await
        .map_err(LedgerError::store("read the next incident number"))
}

async fn write(
    connection: &mut Connection<'_>,
    step: &mut Step<'_>,
    changes: &[IncidentChange],
    first_new: i64,
    next: i64,
) -> Result<(), LedgerError> {
    let (epoch, at) = (number(step.record.epoch), step.at.micros());
    let (mut incidents, mut homes, mut merges) = (Vec::new(), Vec::new(), Vec::new());
    let mut contents = Vec::new();
    for change in changes {
        let incident = &change.incident;
        let entities = serde_json::to_string(&incident.entities).map_err(LedgerError::damaged("entities"))?;
        incidents.push(json!([
            change.number,
            incident.tenant,
            incident.id,
            change.state,
            change.redirect,
            entities,
            at,
            epoch
        ]));
        if change.state != "merged" {
            let content = serde_json::to_string(&bare(incident)).map_err(LedgerError::damaged("an incident"))?;
            contents.push(json!([change.number, content]));
        }
        if change.state == "open" {
            homes.extend(incident.alerts.iter().map(|(_, alert)| json!([alert, change.number])));
        }
        if let Some(stays) = change.redirect {
            merges.push(json!([change.number, stays]));
        }
        let action = match change.state {
            "open" if change.number >= first_new => "incident_opened",
            "merged" => "incident_merged",
            "closed" => "incident_closed",
            "withdrawn" => "incident_withdrawn",
            _ => continue,
        };
        let detail = json!({
            "incident_id": incident.id, "alerts": incident.alerts.len(), "redirect": change.redirect,
            "type": incident.kind, "severity": incident.severity,
        });
        step.audit.push(Entry::engine(action, format!("incident {}", change.number), detail));
    }
    batch(
        connection,
        "INSERT INTO incidents
         SELECT CAST(value->>0 AS BIGINT), value->>1, value->>2, value->>3, CAST(value->>4 AS BIGINT), value->>5,
                CAST(value->>6 AS BIGINT), CAST(value->>7 AS BIGINT), CAST(value->>6 AS BIGINT)
         FROM json_each($1) WHERE true
         ON CONFLICT (number) DO UPDATE SET
             incident_id = excluded.incident_id, state = excluded.state, redirect = excluded.redirect,
             entities = excluded.entities, changed_epoch = excluded.changed_epoch, changed_at = excluded.changed_at",
        incidents,
    )
    .await?;
    batch(
        connection,
        "INSERT INTO incident_contents SELECT CAST(value->>0 AS BIGINT), value->>1 FROM json_each($1) WHERE true
         ON CONFLICT (number) DO UPDATE SET content = excluded.content",
        contents,
    )
    .await?;
    write_homes(connection, homes, merges).await?;
    if next > first_new {
        database::query("UPDATE engine SET incident_next = $1")
            .bind(next)
            .execute(connection)
            .await
            .map_err(LedgerError::store("write the next incident number"))?;
    }
    Ok(())
}

/// Alerts that left all incidents (withdrawn, superseded) stay with the number that they had: they are its story.
async fn write_homes(
    connection: &mut Connection<'_>,
    homes: Vec<Value>,
    merges: Vec<Value>,
) -> Result<(), LedgerError> {
    batch(
        connection,
        "UPDATE incident_alerts SET number = merge.stays
         FROM (SELECT CAST(value->>0 AS BIGINT) AS goes, CAST(value->>1 AS BIGINT) AS stays FROM json_each($1)) AS merge
         WHERE incident_alerts.number = merge.goes",
        merges.clone(),
    )
    .await?;
    batch(
        connection,
        "UPDATE incidents SET redirect = merge.stays
         FROM (SELECT CAST(value->>0 AS BIGINT) AS goes, CAST(value->>1 AS BIGINT) AS stays FROM json_each($1)) AS merge
         WHERE incidents.redirect = merge.goes",
        merges,
    )
    .await?;
    // Who stays where it was is not written: that would be a change to tell.
    batch(
        connection,
        "INSERT INTO incident_alerts SELECT value->>0, CAST(value->>1 AS BIGINT) FROM json_each($1) WHERE true
         ON CONFLICT (alert_id) DO UPDATE SET number = excluded.number WHERE incident_alerts.number <> excluded.number",
        homes,
    )
    .await
}
