//! Events of alerts, looked up in history: `detections` by rule, group and extent.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io::{self, Write},
    sync::Arc,
};

use anyhow::{Context, Result};
use cf_ledger::MemberRef;
use cf_queries::Session;
use cf_types::{Alert, Cell, Entity, Episode, Epoch, Group, Time};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::below::{Chains, Counted, Items};

/// Detections looked at for the episodes below one alert: beyond it the answer says so.
const BELOW_MAX: usize = 5_000_000;

/// One event of an alert, and where its record is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct EventRow {
    pub(crate) time: String,
    pub(crate) event_id: String,
    /// The rule that it met.
    pub(crate) rule_id: Option<String>,
    pub(crate) source: Option<String>,
    /// File, stream of the spool, or topic and partition.
    pub(crate) origin: String,
    /// Byte offset or row.
    pub(crate) offset: u64,
    /// Line, from 1; 0 where there are none.
    pub(crate) line: u64,
}

impl EventRow {
    /// As the ledger keeps it.
    pub(crate) fn of_member(member: &MemberRef) -> EventRow {
        EventRow {
            time: member.time.to_string(),
            event_id: member.event_id.clone(),
            rule_id: None,
            source: None,
            origin: member.origin.clone(),
            offset: member.offset,
            line: member.line,
        }
    }
}

/// The events of an alert.
#[derive(Debug, Default)]
pub(crate) struct Events {
    pub(crate) total: usize,
    pub(crate) first: Vec<EventRow>,
    pub(crate) last: Vec<EventRow>,
}

/// One detection of history.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Found {
    pub(crate) rule_id: String,
    pub(crate) event_id: String,
    pub(crate) id: String,
    pub(crate) time: Time,
    pub(crate) source: String,
    pub(crate) origin: String,
    pub(crate) line: u64,
    pub(crate) record_offset: u64,
    items: String,
}

/// One item of a detection, as history writes it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct FoundItem {
    pub(crate) rule_id: String,
    pub(crate) reference: u16,
    group: BTreeMap<String, String>,
    value: Option<String>,
}

impl FoundItem {
    pub(crate) fn group(&self) -> Group {
        Group::new(self.group.iter().map(|(field, value)| (Arc::from(field.as_str()), Arc::from(value.as_str()))))
    }

    pub(crate) fn counted(&self, cell: Cell) -> Counted {
        Counted { cell, reference: self.reference, value: self.value.as_deref().map(Arc::from) }
    }

    /// Whether the group names the entity.
    pub(crate) fn names(&self, entity: &str) -> bool {
        self.group.values().any(|value| value == entity)
            || self.group().entities().iter().any(|known: &Entity| *known.value == *entity)
    }
}

impl Found {
    pub(crate) fn items(&self) -> Result<Vec<FoundItem>> {
        serde_json::from_str(&self.items).context("the items of a detection in history are damaged")
    }

    fn row(&self) -> EventRow {
        EventRow {
            time: self.time.to_string(),
            event_id: self.event_id.clone(),
            rule_id: Some(self.rule_id.clone()),
            source: Some(self.source.clone()),
            origin: self.origin.clone(),
            offset: self.record_offset,
            line: self.line,
        }
    }
}

/// A text of SQL.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The condition that a row's time lies in the cells from `from` to `to`.
pub(crate) fn in_cells(from: Cell, to: Cell) -> String {
    let bound = |cell: Cell| quoted(&Time::from_seconds(cell).to_string());
    format!("time >= cast({} as timestamp) and time < cast({} as timestamp)", bound(from), bound(to.saturating_add(1)))
}

/// Runs a query and gives each row to `each`.
pub(crate) async fn for_each_row(
    history: &Session,
    statement: &str,
    each: &mut (dyn FnMut(Value) -> Result<()> + Send),
) -> Result<()> {
    let mut rows = history.query(statement).await?;
    let mut lines = Lines { rest: Vec::new(), each, failed: None };
    let written = cf_queries::write_json_lines(&mut rows, &mut lines).await;
    if let Some(error) = lines.failed.take() {
        return Err(error);
    }
    written?;
    Ok(())
}

/// Takes JSON lines as they are written.
struct Lines<'a> {
    rest: Vec<u8>,
    each: &'a mut (dyn FnMut(Value) -> Result<()> + Send),
    failed: Option<anyhow::Error>,
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        let mut taken = 0;
        for line in self.rest.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            taken += line.len();
            let done = serde_json::from_slice(line).context("a row of history is no JSON").and_then(&mut self.each);
            if let Err(error) = done {
                self.failed = Some(error);
                return Err(io::Error::other("stopped"));
            }
        }
        self.rest.drain(..taken);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Rule set and engine of an epoch that the ledger does not keep any more.
pub(crate) async fn epoch(history: &Session, epoch: Epoch) -> Result<Option<(String, String)>> {
    let mut found = None;
    let statement = format!("select rules, engine from epochs where epoch = {epoch}");
    for_each_row(history, &statement, &mut |row| {
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        found = Some((text("rules"), text("engine")));
        Ok(())
    })
    .await?;
    Ok(found)
}

/// Lookups for one answer.
pub(crate) struct Lookups<'a> {
    history: &'a Session,
}

impl<'a> Lookups<'a> {
    pub(crate) fn new(history: &'a Session) -> Lookups<'a> {
        Lookups { history }
    }

    /// Detections with an item of a rule between two cells, by time.
    pub(crate) async fn detections(
        &self,
        rule: &str,
        (from, to): (Cell, Cell),
        each: &mut (dyn FnMut(Found, Vec<FoundItem>) -> Result<()> + Send),
    ) -> Result<()> {
        // The rule's id as the items have it, so that most rows are passed over before they are read.
        let mark = format!("\"rule_id\":{}", serde_json::to_string(rule)?);
        let statement = format!(
            "select rule_id, event_id, id, time, source, origin, line, record_offset, items from detections
             where {} and strpos(items, {}) > 0 order by time, id, rule_id",
            in_cells(from, to),
            quoted(&mark)
        );
        for_each_row(self.history, &statement, &mut |row| {
            let found: Found = serde_json::from_value(row).context("a detection of history is damaged")?;
            let items = found.items()?.into_iter().filter(|item| item.rule_id == rule).collect();
            each(found, items)
        })
        .await
    }

    /// The episodes that an alert stands on.
    pub(crate) async fn below(&self, chains: &Chains, alert: &Alert) -> Result<Vec<Episode>> {
        let reach = chains.reach(&alert.rule);
        let span = (alert.anchor.saturating_sub(reach), alert.last_cell.saturating_add(reach));
        let mut by_rule: HashMap<Arc<str>, Items> = HashMap::new();
        let mut rows = 0_usize;
        for rule in chains.all_below(&alert.rule) {
            let items = by_rule.entry(Arc::clone(&rule)).or_default();
            self.detections(&rule, span, &mut |found, found_items| {
                rows += 1;
                anyhow::ensure!(rows <= BELOW_MAX, "more than {BELOW_MAX} detections lie below this alert");
                for item in found_items {
                    items.entry(item.group()).or_default().push(item.counted(found.time.cell()));
                }
                Ok(())
            })
            .await?;
        }
        let lookup = |rule: &str, from: Cell, to: Cell| {
            let mut items = by_rule.get(rule).cloned().unwrap_or_default();
            items.values_mut().for_each(|items| items.retain(|item| (from..=to).contains(&item.cell)));
            items
        };
        let extent = (alert.anchor, alert.last_cell);
        Ok(chains.below(&alert.tenant, &alert.rule, &alert.group, extent, &lookup))
    }

    /// The events of an alert and of the episodes below it: `keep` from each end. Each event once.
    pub(crate) async fn members(&self, alert: &Alert, below: &[Episode], keep: usize) -> Result<Events> {
        let own = (&*alert.rule, &alert.group, (alert.anchor, alert.last_cell));
        let lower = below.iter().map(|one| (&*one.key.rule, &one.key.group, (one.anchor, one.last_cell)));
        let parts: Vec<_> = std::iter::once(own).chain(lower).collect();
        if let [(rule, group, extent)] = parts[..] {
            return self.members_of_one(rule, group, extent, keep).await;
        }
        // Several extents may overlap: an event counts once.
        let mut by_event: BTreeMap<(Time, String), EventRow> = BTreeMap::new();
        for (rule, group, extent) in parts {
            self.detections(rule, extent, &mut |found, items| {
                if items.iter().any(|item| item.group() == *group) {
                    anyhow::ensure!(by_event.len() < BELOW_MAX, "this alert has more than {BELOW_MAX} events");
                    by_event.entry((found.time, found.id.clone())).or_insert_with(|| found.row());
                }
                Ok(())
            })
            .await?;
        }
        let mut events = Events { total: by_event.len(), ..Events::default() };
        let mut rows: Vec<EventRow> = by_event.into_values().collect();
        let rest = rows.split_off(keep.min(rows.len()));
        events.last = rest.into_iter().rev().take(keep).collect();
        events.last.reverse();
        events.first = rows;
        Ok(events)
    }

    /// The same for one extent, in memory of the ends alone.
    async fn members_of_one(&self, rule: &str, group: &Group, extent: (Cell, Cell), keep: usize) -> Result<Events> {
        let mut events = Events::default();
        let (mut tail, mut before) = (VecDeque::new(), None);
        self.detections(rule, extent, &mut |found, items| {
            let key = (found.time, found.id.clone());
            if !items.iter().any(|item| item.group() == *group) || before.as_ref() == Some(&key) {
                return Ok(());
            }
            before = Some(key);
            events.total += 1;
            if events.first.len() < keep {
                events.first.push(found.row());
                return Ok(());
            }
            if tail.len() == keep {
                tail.pop_front();
            }
            tail.push_back(found.row());
            Ok(())
        })
        .await?;
        events.last = tail.into();
        Ok(events)
    }
}
