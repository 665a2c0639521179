//! Rows of every table, and history read as any reader would.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::{array::AsArray, datatypes::Int64Type};
use bytes::Bytes;
use cf_history::{
    ActionStep, AlertRevision, EpochEntry, FactEntry, FeatureEntry, IncidentRevision, Options, PredictionEntry,
    RiskChange, Subject, Table, VerdictEntry, open,
};
use cf_types::{
    ActionId, ActionKind, Alert, AlertId, AlertState, Detection, Entity, EntityKind, EntityRisk, Epoch, EpochRecord,
    Event, Fields, Framing, Group, Incident, IncidentId, Item, Level, LogSource, Member, Name, Origin, Position,
    Reject, RejectCode, RiskLevel, Scalar, Score, Tenant, Time, TimeBasis,
    fact::{Judgement, Verdict},
    triage::{Answer, Role, Worth},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

pub(crate) const OPTIONS: Options = Options { encoders: 2 };

/// The crate's folder as it is now, not as it was called when this was built: builds are shared between worktrees, and one
/// of them may be gone.
pub(crate) fn here() -> std::path::PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), Into::into)
}

pub(crate) fn origin() -> Arc<Origin> {
    Arc::new(Origin {
        tenant: Tenant::default(),
        source: Arc::from("syslog"),
        received_at: time("2026-01-05T14:00:00Z"),
        year: None,
        framing: Framing::Syslog,
    })
}

pub(crate) fn time(text: &str) -> Time {
    text.parse().unwrap()
}

pub(crate) fn event(offset: u64, at: Time) -> Event {
    let mut fields = Fields::default();
    fields.push(Name::intern("user"), "root", Scalar::Text);
    Event {
        origin: origin(),
        position: Position { origin: Arc::from("a.log"), offset, line: offset + 1, index: 0 },
        declared_id: None,
        time: at,
        time_basis: TimeBasis::Assumed,
        log_source: Arc::new(LogSource { product: Some(Arc::from("linux")), category: None, service: None }),
        fields,
        entities: vec![Entity::of(EntityKind::Address, "10.0.0.1").unwrap()],
        raw: Bytes::from(format!("line {offset}")),
    }
}

pub(crate) fn entry(epoch: Epoch) -> EpochEntry {
    let record = EpochRecord {
        epoch,
        wall: time("2026-01-05T14:00:00Z").plus_micros(i64::try_from(epoch).unwrap()),
        generation: 1,
        ends: BTreeMap::from([("spool".to_owned(), epoch * 10)]),
        newest: BTreeMap::new(),
        starts: BTreeMap::new(),
        marks: BTreeMap::new(),
        idle: vec!["http".to_owned()],
        passed_ms: 0,
        control: 0,
        rules: "abc".to_owned(),
        begun: Vec::new(),
        models: BTreeMap::new(),
        engine: "0.1.0".to_owned(),
    };
    EpochEntry { record, watermark: None }
}

pub(crate) fn reject(raw: &'static [u8]) -> Reject {
    Reject {
        origin: origin(),
        position: Position::default(),
        code: RejectCode::InvalidUtf8,
        reason: "byte 2".to_owned(),
        time: None,
        raw: Bytes::from_static(raw),
    }
}

pub(crate) fn detection() -> Detection {
    Detection {
        tenant: Tenant::default(),
        rule: Arc::from("r1"),
        member: Member { time: time("2026-01-05T14:00:01Z"), ..member(&event(3, time("2026-01-05T14:00:01Z"))) },
        source: Arc::from("syslog"),
        entities: vec![],
        items: vec![Item { rule: Arc::from("r2"), reference: 0, group: Group::default(), value: None }],
    }
}

pub(crate) fn member(event: &Event) -> Member {
    Member { time: event.time, id: event.id(), declared_id: None, position: event.position.clone() }
}

pub(crate) fn alert() -> AlertRevision {
    let group = Group::new([(Arc::from("address"), Arc::from("10.0.0.1"))]);
    AlertRevision {
        alert: Alert {
            tenant: Tenant::default(),
            id: AlertId([1; 16]),
            rule: Arc::from("r2"),
            title: Arc::from("Guessing"),
            level: Level::High,
            entities: group.entities(),
            group,
            state: AlertState::Open,
            anchor: 100,
            last_cell: 200,
            count: 7,
            reference_counts: vec![7],
            peak: 5,
            score: Score::of_level(Level::High),
            tags: Arc::from([Arc::from("attack.t1110")]),
        },
        thread: AlertId([1; 16]),
        revision: 1,
        event: "opened".to_owned(),
        state: "open".to_owned(),
        reason: None,
        incident: Some(1),
        members: None,
        superseded_by: None,
        assessment: None,
        revised_at: time("2026-01-05T14:00:02Z"),
    }
}

pub(crate) fn incident() -> IncidentRevision {
    IncidentRevision {
        incident: Incident { id: IncidentId([2; 16]), alerts: vec![(100, AlertId([1; 16]))], ..Incident::default() },
        number: 1,
        state: "open".to_owned(),
        redirect: None,
        title: None,
        score: None,
        revised_at: time("2026-01-05T14:00:02Z"),
    }
}

pub(crate) fn action() -> ActionStep {
    ActionStep {
        tenant: Tenant::default(),
        id: ActionId([3; 16]),
        number: 1,
        kind: ActionKind::BlockAddress,
        target: "10.0.0.1".to_owned(),
        state: "in_force".to_owned(),
        reason: None,
        alerts: vec![AlertId([1; 16])],
        ttl_s: 60,
        until_at: Some(time("2026-01-05T14:01:02Z")),
        detail: None,
        at: time("2026-01-05T14:00:02Z"),
    }
}

pub(crate) fn risk() -> RiskChange {
    let entity = Entity::of(EntityKind::Address, "10.0.0.1").unwrap();
    RiskChange {
        tenant: Tenant::default(),
        risk: Some(EntityRisk::new(Tenant::default(), entity.clone(), vec![(1, 30)])),
        entity,
        level: Some(RiskLevel::Low),
        was: None,
        at: time("2026-01-05T14:00:02Z"),
    }
}

pub(crate) fn fact() -> FactEntry {
    FactEntry {
        seq: 1,
        kind: "fact_add".to_owned(),
        fact: Some("allow".to_owned()),
        body: "{}".to_owned(),
        author: "a".to_owned(),
        reason: "b".to_owned(),
        at: time("2026-01-05T14:00:02Z"),
    }
}

pub(crate) fn verdict() -> VerdictEntry {
    VerdictEntry {
        tenant: Tenant::default(),
        seq: 1,
        verdict: Verdict { alert: AlertId([1; 16]), judgement: Judgement::Benign, rule: Arc::from(""), at: Time::MIN },
        given: 1,
        author: "a".to_owned(),
        reason: "b".to_owned(),
        at: time("2026-01-05T14:00:02Z"),
    }
}

fn subject() -> Subject {
    let (tenant, id) = (Tenant::default(), AlertId([1; 16]).to_string());
    Subject { tenant, id, kind: "alert", time: time("2026-01-05T14:00:02Z"), seq: 1 }
}

pub(crate) fn features() -> FeatureEntry {
    FeatureEntry {
        subject: subject(),
        recipe: "alert-1".to_owned(),
        rule: Some("guess".to_owned()),
        signature: None,
        features: vec![("level".to_owned(), 3.into()), ("count".to_owned(), i64::MIN.into())],
    }
}

pub(crate) fn prediction() -> PredictionEntry {
    let answer = Answer {
        model: Arc::from("0123456789ab"),
        role: Role::Champion,
        probability_ppm: 1,
        verdict: Worth::True,
        set: vec![true],
        reasons: Vec::new(),
    };
    PredictionEntry { subject: subject(), model: "triage".to_owned(), answer }
}

/// Rows of a table by epoch, read as any Delta reader would: the log's files, then plain Parquet.
pub(crate) fn rows_by_epoch(history: &Path, table: Table) -> BTreeMap<i64, usize> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(opened) = runtime.block_on(open(history, table)).unwrap() else { return BTreeMap::new() };
    let mut rows = BTreeMap::new();
    for uri in opened.delta.get_file_uris().unwrap() {
        let path = uri.strip_prefix("file://").unwrap_or(&uri).to_owned();
        let file = std::fs::File::open(path.replace("%20", " ")).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let epochs = batch.column_by_name("epoch").unwrap().as_primitive::<Int64Type>();
            epochs.values().iter().for_each(|epoch| *rows.entry(*epoch).or_default() += 1);
        }
    }
    rows
}

pub(crate) fn files(folder: &Path) -> usize {
    let parts = std::fs::read_dir(folder).unwrap().flatten();
    let parts = parts.filter(|part| part.file_name().to_string_lossy().starts_with("day="));
    parts.map(|part| std::fs::read_dir(part.path()).unwrap().count()).sum()
}
