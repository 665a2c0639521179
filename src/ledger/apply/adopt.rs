//! Another engine's results: what differs at the upper, and how it becomes the ledger's (`streaming.md`, *Durability and
//! recovery*, *Start*).

use std::collections::BTreeMap;

use cf_types::{
    Alert, AlertId, Cell, DesiredAction, EntityRisk, EpochOutput, EpochRecord, Incident, IncidentId, Row, Tenant,
};
use serde_json::Value;

use super::{Applied, apply_because, parse_id};
use crate::{
    Difference, LedgerError, MembersOf, Present, Routes,
    database::{self, Connection},
    present::digest_of,
};

/// What differs between the open alerts of the ledger and of the graph, by id.
pub(crate) async fn differences(
    connection: &mut Connection<'_>,
    present: &Present,
) -> Result<Vec<Difference>, LedgerError> {
    let mut held = open_alerts(connection).await?;
    let mut found = Vec::new();
    for alert in present.alerts() {
        let rule = alert.rule.to_string();
        match held.remove(&alert.id) {
            None => found.push(Difference::OnlyInGraph { alert: alert.id, rule }),
            Some(other) if other != *alert && (Alert { score: alert.score, ..other.clone() }) == *alert => {
                found.push(Difference::Score { alert: alert.id, rule });
            }
            Some(other) if digest_of(&other) != digest_of(alert) => {
                found.push(Difference::Content { alert: alert.id, rule });
            }
            Some(_) => {}
        }
    }
    let gone =
        held.into_values().map(|other| Difference::OnlyInLedger { alert: other.id, rule: other.rule.to_string() });
    found.extend(gone);
    Ok(found)
}

/// Applies the difference as one epoch.
pub(crate) async fn adopt(
    connection: &mut Connection<'_>,
    record: &EpochRecord,
    present: &Present,
    routes: &Routes,
    members: &MembersOf<'_>,
) -> Result<Applied, LedgerError> {
    let mut rows = Vec::new();
    let alerts = open_alerts(connection).await?;
    rows.extend(diff(alerts, present.alerts().map(|alert| (alert.id, alert.clone())), Row::Alert));
    let incidents = open_incidents(connection).await?;
    // Compared by their alerts alone: all else follows from those.
    let same = |incident: &Incident| Incident {
        tenant: incident.tenant.clone(),
        id: incident.id,
        alerts: incident.alerts.clone(),
        ..Incident::default()
    };
    let there: BTreeMap<IncidentId, &Incident> = present.incidents().map(|incident| (incident.id, incident)).collect();
    let with_entities = |row: Incident| match there.get(&row.id) {
        Some(incident) if incident.alerts == row.alerts => (*incident).clone(),
        _ => row,
    };
    let bare = present.incidents().map(|incident| (incident.id, same(incident)));
    rows.extend(diff(incidents, bare, |incident| Row::Incident(with_entities(incident))));
    let risk = risk(connection).await?;
    let key =
        |risk: &EntityRisk| (risk.tenant.clone(), risk.entity.kind.as_str().to_owned(), risk.entity.value.to_string());
    rows.extend(diff(risk, present.risk().map(|risk| (key(risk), risk.clone())), Row::Risk));
    let desired = desired(connection).await?;
    let wished = present.desired().map(|wish| ((wish.id.to_string(), wish.alert), wish.clone()));
    rows.extend(diff(desired, wished, Row::Desired));
    let output = EpochOutput { epoch: record.epoch, rows, ..EpochOutput::default() };
    apply_because(connection, record, &output, routes, members, "engine_changed").await
}

/// From `held` to `wanted`: -1 for what must go, then +1 for what must come.
fn diff<K: Ord, V: PartialEq>(
    mut held: BTreeMap<K, V>,
    wanted: impl Iterator<Item = (K, V)>,
    row: impl Fn(V) -> Row,
) -> Vec<(Row, i64)> {
    let mut came = Vec::new();
    let mut went = Vec::new();
    for (key, value) in wanted {
        match held.remove(&key) {
            Some(old) if old == value => {}
            old => {
                went.extend(old.map(|old| (row(old), -1)));
                came.push((row(value), 1));
            }
        }
    }
    went.extend(held.into_values().map(|old| (row(old), -1)));
    went.append(&mut came);
    went
}

async fn open_alerts(connection: &mut Connection<'_>) -> Result<BTreeMap<AlertId, Alert>, LedgerError> {
    let texts: Vec<String> = database::query_scalar("SELECT content FROM alerts WHERE state = 'open'")
        .fetch_all(connection)
        .await
        .map_err(LedgerError::store("read the open alerts"))?;
    texts
        .iter()
        .map(|text| {
            let alert: Alert = serde_json::from_str(text).map_err(LedgerError::damaged("an alert's content"))?;
            Ok((alert.id, alert))
        })
        .collect()
}

/// The open incidents without their entities.
async fn open_incidents(connection: &mut Connection<'_>) -> Result<BTreeMap<IncidentId, Incident>, LedgerError> {
    let store = LedgerError::store("read the open incidents");
    let rows = database::query(
        "SELECT n.incident_id, n.tenant, a.anchor, a.alert_id FROM incidents n
         JOIN incident_alerts i ON i.number = n.number JOIN alerts a ON a.alert_id = i.alert_id
         WHERE n.state = 'open' AND a.state IN ('open', 'sealed')",
    )
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    let mut incidents: BTreeMap<IncidentId, Incident> = BTreeMap::new();
    for row in rows {
        let id: String = row.try_get(0).map_err(&store)?;
        let Ok(id) = id.parse() else { continue };
        let tenant: String = row.try_get(1).map_err(&store)?;
        let anchor: Cell = row.try_get(2).map_err(&store)?;
        let alert: String = row.try_get(3).map_err(&store)?;
        let incident =
            incidents.entry(id).or_insert_with(|| Incident { tenant: Tenant::new(&tenant), id, ..Incident::default() });
        incident.alerts.push((anchor, parse_id(&alert)?));
    }
    for incident in incidents.values_mut() {
        incident.alerts.sort();
    }
    Ok(incidents)
}

async fn risk(connection: &mut Connection<'_>) -> Result<BTreeMap<(Tenant, String, String), EntityRisk>, LedgerError> {
    let rows: Vec<(String, String, String, String)> =
        database::query_as("SELECT tenant, kind, value, buckets FROM risk")
            .fetch_all(connection)
            .await
            .map_err(LedgerError::store("read risk"))?;
    rows.into_iter()
        .map(|(tenant, kind, value, buckets)| {
            let tenant = Tenant::new(&tenant);
            let risk = EntityRisk {
                tenant: tenant.clone(),
                entity: cf_types::Entity {
                    kind: serde_json::from_value(Value::from(kind.as_str()))
                        .map_err(LedgerError::damaged("an entity"))?,
                    value: value.as_str().into(),
                },
                buckets: serde_json::from_str(&buckets).map_err(LedgerError::damaged("risk buckets"))?,
            };
            Ok(((tenant, kind, value), risk))
        })
        .collect()
}

async fn desired(connection: &mut Connection<'_>) -> Result<BTreeMap<(String, AlertId), DesiredAction>, LedgerError> {
    let store = LedgerError::store("read the desired actions");
    // What sealed alerts want stays as it is: a rebuilt state does not know it any more.
    let rows = database::query(
        "SELECT * FROM desired WHERE alert_id NOT IN (SELECT alert_id FROM alerts WHERE state = 'sealed')",
    )
    .fetch_all(connection)
    .await
    .map_err(&store)?;
    rows.iter()
        .map(|row| {
            let text = |column: &str| row.try_get::<String, _>(column).map_err(&store);
            let (action, alert) = (text("action_id")?, parse_id(&text("alert_id")?)?);
            let kind = serde_json::from_value(Value::from(text("kind")?)).map_err(LedgerError::damaged("an action"))?;
            let wish = DesiredAction {
                tenant: Tenant::new(&text("tenant")?),
                id: action.parse().unwrap_or_default(),
                kind,
                target: text("target")?.into(),
                ttl_s: row.try_get("ttl_s").map_err(&store)?,
                alert,
                anchor: row.try_get("anchor").map_err(&store)?,
            };
            Ok(((action, alert), wish))
        })
        .collect()
}
