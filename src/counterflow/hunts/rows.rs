//! A row of an answer as a detection.
//!
//! `time` is when it happened. `host`, `user`, `address`, `process`, `file_hash`, `domain` and `entities` (`kind:value`) are
//! whom it speaks of; every column is a field that correlations over hunts may group by. Columns that say where an event's
//! record is (`origin`, `record_offset`, `record_index`, `line`) lead from the alert to the event.

use std::sync::Arc;

use bytes::Bytes;
use cf_ledger::HuntRow;
use cf_types::{
    Detection, Entity, EntityKind, Event, EventId, Framing, LogSource, Origin, Position, Tenant, Time, TimeBasis,
    field::{Fields, Names, Scalar},
    id::digest128,
};
use serde_json::{Map, Value};

use super::Subject;

const KINDS: [EntityKind; 6] = [
    EntityKind::Host,
    EntityKind::User,
    EntityKind::Address,
    EntityKind::Process,
    EntityKind::FileHash,
    EntityKind::Domain,
];
/// Entities of one row; the first of them, sorted, stay.
const ENTITIES_MAX: usize = 64;
/// Bytes of one value that are kept for people.
const SHOWN_BYTES_MAX: usize = 1_024;
/// What a detection's source and origin are called if the row does not say.
const HUNT: &str = "hunt";

/// Makes it one, or says what the row lacks.
pub(super) fn detection(subject: &Subject, row: &Map<String, Value>) -> Result<HuntRow, String> {
    let time = text(row, "time").ok_or("a row has no `time`")?;
    let time: Time = time.parse().map_err(|_| format!("a row's `time` is {time:?}, which is no time"))?;
    let (id, is_event) = identity(subject, row)?;
    let position = position(row);
    let tenant = Tenant::default();
    let origin = Origin {
        tenant,
        source: Arc::from(text(row, "source").unwrap_or(HUNT)),
        received_at: time,
        year: None,
        framing: Framing::Record,
    };
    let event = Event {
        origin: Arc::new(origin),
        position,
        declared_id: None,
        time,
        time_basis: TimeBasis::Declared,
        log_source: Arc::new(LogSource::default()),
        fields: fields(row),
        entities: entities(row),
        raw: Bytes::new(),
    };
    let mut detection: Detection = subject.set.detection(subject.index, &event);
    detection.member.id = id;
    let declared = text(row, "event_id").filter(|declared| is_event && *declared != id.to_string());
    detection.member.declared_id = declared.map(Arc::from);
    Ok(HuntRow { detection, row: shown(row) })
}

/// What makes a row the same row, and whether it is an event.
fn identity(subject: &Subject, row: &Map<String, Value>) -> Result<(EventId, bool), String> {
    if subject.hunt.key.is_empty() {
        let id = text(row, "id").and_then(|id| id.parse().ok());
        let missing = "a row has no `id` of an event; ask `events_distinct` for it, or name the columns that make a row \
                       the same as `key`";
        return id.map(|id| (id, true)).ok_or_else(|| missing.to_owned());
    }
    let tenant = Tenant::default();
    let mut parts = vec![tenant.as_str().as_bytes().to_vec(), subject.info.id.as_bytes().to_vec()];
    for column in &subject.hunt.key {
        let value = row.get(&**column).ok_or_else(|| format!("a row has no column `{column}`, which the key names"))?;
        parts.push(column.as_bytes().to_vec());
        parts.push(value.to_string().into_bytes());
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok((EventId(digest128("counterflow 2026 row of a hunt", &parts)), false))
}

fn position(row: &Map<String, Value>) -> Position {
    let number = |column: &str| row.get(column).and_then(Value::as_u64).unwrap_or(0);
    match text(row, "origin") {
        Some(origin) => Position {
            origin: Arc::from(origin),
            offset: number("record_offset"),
            line: number("line"),
            index: u32::try_from(number("record_index")).unwrap_or(0),
        },
        None => Position { origin: Arc::from(HUNT), ..Position::default() },
    }
}

fn fields(row: &Map<String, Value>) -> Fields {
    let (names, mut fields) = (Names::current(), Fields::default());
    for (column, value) in row {
        let name = names.get_or_unknown(column.as_bytes());
        match value {
            Value::String(text) => fields.push(name, text, Scalar::Text),
            Value::Number(number) => fields.push(name, &number.to_string(), Scalar::Number),
            Value::Bool(truth) => fields.push(name, if *truth { "true" } else { "false" }, Scalar::Bool),
            Value::Null | Value::Array(_) | Value::Object(_) => {}
        }
    }
    fields
}

fn entities(row: &Map<String, Value>) -> Vec<Entity> {
    let listed = row.get("entities").and_then(Value::as_array).into_iter().flatten();
    let mut entities: Vec<Entity> = listed.filter_map(|entity| entity.as_str()?.parse().ok()).collect();
    entities.extend(KINDS.iter().filter_map(|kind| Entity::of(*kind, text(row, kind.as_str())?)));
    entities.sort();
    entities.dedup();
    entities.truncate(ENTITIES_MAX);
    entities
}

fn text<'a>(row: &'a Map<String, Value>, column: &str) -> Option<&'a str> {
    row.get(column).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// What is kept of a row for people: what is there, long values cut.
fn shown(row: &Map<String, Value>) -> Value {
    let cut = |value: &Value| match value {
        Value::String(text) if text.len() > SHOWN_BYTES_MAX => {
            let mut end = SHOWN_BYTES_MAX;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            Value::String(format!("{}…", text.get(..end).unwrap_or_default()))
        }
        value => value.clone(),
    };
    row.iter().filter(|(_, value)| !value.is_null()).map(|(column, value)| (column.clone(), cut(value))).collect()
}
