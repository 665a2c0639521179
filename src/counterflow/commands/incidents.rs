//! `counterflow incidents | alerts | actions | audit`: what the ledger says, beside a running or a stopped engine.

use std::path::Path;

use anyhow::{Context, Result};
use cf_ledger::{Reader, read::AlertFilter, read::IncidentStory};
use cf_types::Time;
use serde_json::{Value, json};

use crate::{
    cli::{AlertsArguments, AuditCommand, Cli, IncidentsArguments, IncidentsCommand, LedgerArguments},
    output::{self, Exit, Failed, Format},
};

/// Rows listed at most.
const ROWS_MAX: u32 = 100_000;

pub(super) fn with_reader<T>(data: &Path, work: impl AsyncFnOnce(Reader) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("could not start")?;
    runtime.block_on(async { work(Reader::open(data).await?).await })
}

pub(super) fn print(cli: &Cli, columns: &[&str], rows: Vec<Value>) -> Result<Exit> {
    output::ignore_closed_pipe(output::rows(Format::or_default(cli.output), columns, rows))?;
    Ok(Exit::Ok)
}

pub(super) fn values<T: serde::Serialize>(rows: &[T]) -> Result<Vec<Value>> {
    Ok(rows.iter().map(serde_json::to_value).collect::<Result<_, _>>()?)
}

/// Lists incidents, or shows one.
pub(crate) fn run(cli: &Cli, arguments: &IncidentsArguments) -> Result<Exit> {
    if let Some(IncidentsCommand::Export { number, data, out }) = &arguments.command {
        let past = crate::past::Past::open(cli, data)?;
        let events = crate::bundle::write(&past, *number, past.point(None)?, out)?;
        output::note(&format!("incident {number} with {events} events written to {}", out.display()));
        return Ok(Exit::Ok);
    }
    with_reader(&arguments.data, async |reader| {
        let Some(number) = arguments.number else {
            let incidents = reader.incidents(false, ROWS_MAX).await?;
            let mut rows = values(&incidents)?;
            if Format::or_default(cli.output) == Format::Table {
                for (row, incident) in rows.iter_mut().zip(&incidents) {
                    row["entities"] = names(&incident.entities).into();
                }
            }
            return print(
                cli,
                &[
                    "number", "severity", "type", "score", "level", "title", "alerts", "entities", "first", "last",
                    "state",
                ],
                rows,
            );
        };
        let story = reader.incident(number).await?;
        let story = story.with_context(|| Failed(format!("there is no incident {number}")))?;
        if Format::or_default(cli.output) == Format::Table {
            tell(cli, &story)
        } else {
            print(cli, &["number"], vec![serde_json::to_value(&story)?])
        }
    })
}

fn names(entities: &[cf_types::Entity]) -> String {
    entities.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An incident for a person: what it is, then what happened when.
fn tell(cli: &Cli, story: &IncidentStory) -> Result<Exit> {
    let incident = &story.incident;
    let mut head = format!(
        "incident {} ({}), {}, {}, score {}, {} alerts: {}\nentities: {}\n",
        incident.number,
        incident.state,
        incident.content.severity,
        incident.content.kind,
        incident.score,
        incident.alerts,
        output::printable(incident.title.as_deref().unwrap_or("untitled")),
        output::printable(&names(&incident.entities)),
    );
    for hub in &incident.content.hubs {
        let (entity, day) = (output::printable(&hub.entity.to_string()), Time::from_seconds(hub.day * 86_400));
        let before = format!("{} neighbours the day before", hub.neighbours);
        head.push_str(&format!("not connecting: {entity} on the day of {day} ({before})\n"));
    }
    for step in &story.kill_chain {
        let first = step.first.map(|first| first.to_string()).unwrap_or_default();
        let titles = output::printable(&step.titles.join("; "));
        head.push_str(&format!("{:>22}  {first}  {} alerts: {titles}\n", step.tactic.as_str(), step.alerts));
    }
    output::ignore_closed_pipe(output::text(&head))?;
    print(cli, &["at", "kind", "text"], values(&story.timeline)?)
}

/// Lists alerts.
pub(crate) fn alerts(cli: &Cli, arguments: &AlertsArguments) -> Result<Exit> {
    with_reader(&arguments.data, async |reader| {
        let filter = AlertFilter {
            state: arguments.state.clone(),
            rule: arguments.rule.clone(),
            incident: arguments.incident,
            id: None,
            limit: ROWS_MAX,
        };
        let alerts = if arguments.queue { reader.queue(&filter).await? } else { reader.alerts(&filter).await? };
        let rows = alerts.into_iter().map(|alert| {
            let (content, standing) = (&alert.content, &alert.standing);
            json!({
                "alert_id": alert.alert_id, "rule_id": content["rule"], "title": content["title"],
                "level": content["level"], "state": alert.state, "group": group(content), "count": content["count"],
                "anchor": content["anchor"], "last_cell": content["last_cell"], "score": content["score"],
                "first": alert.members.as_ref().map(|m| m.first), "last": alert.members.as_ref().map(|m| m.last),
                "thread": alert.thread, "revision": alert.revision, "reason": alert.reason, "incident": alert.incident,
                "backfilled": alert.backfilled,
                "changed_at": alert.changed_at, "members": alert.members, "priority": standing.priority,
                "confidence_percent": standing.confidence_percent, "triage": standing.triage,
            })
        });
        let columns: &[&str] = if arguments.queue {
            &["priority", "score", "confidence_percent", "triage", "alert_id", "level", "title", "group", "first"]
        } else {
            &["alert_id", "level", "title", "state", "reason", "group", "count", "first", "last", "incident"]
        };
        print(cli, columns, rows.collect())
    })
}

/// The group as an object; the ledger keeps it as pairs.
fn group(content: &Value) -> Value {
    serde_json::from_value::<cf_types::Group>(content["group"].clone()).map_or(Value::Null, |group| group.to_json())
}

/// Lists actions.
pub(crate) fn actions(cli: &Cli, arguments: &LedgerArguments) -> Result<Exit> {
    with_reader(&arguments.data, async |reader| {
        let actions = reader.actions(ROWS_MAX).await?;
        print(cli, &["id", "kind", "target", "state", "reason", "planned_at", "applied_at", "until"], values(&actions)?)
    })
}

/// Checks the audit chain.
pub(crate) fn audit(_cli: &Cli, command: &AuditCommand) -> Result<Exit> {
    let AuditCommand::Verify { data } = command;
    with_reader(data, async |reader| match reader.audit_verify().await? {
        None => {
            output::note("the audit trail is whole");
            Ok(Exit::Ok)
        }
        Some(fault) => {
            output::note(&format!("the audit trail is broken at record {}: {}", fault.seq, fault.what));
            Ok(Exit::Problems)
        }
    })
}
