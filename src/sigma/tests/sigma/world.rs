//! Rules and events for tests.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
};

use cf_ingest::{Decoded, Decoder, FileOptions, SourceTable};
use cf_oracle::Sources;
use cf_sigma::{Options, Parsed, Problem, RuleSet, Scanner, Severity, Text, parse};
use cf_types::{
    Event, Fields, LogSource, Origin, Position, Scalar, Tenant, Time, TimeBasis, entity::EntityKind, record::Framing,
};

pub(crate) fn text(file: &str, text: &str) -> Text {
    Text { file: file.into(), text: text.to_owned() }
}

/// Compiles texts that must not be refused.
#[track_caller]
pub(crate) fn rules(texts: &[&str]) -> Arc<RuleSet> {
    let texts: Vec<Text> = texts.iter().map(|rule| text("test.yml", rule)).collect();
    let (rules, problems) = RuleSet::compile(parse(&texts), &Options::default());
    let errors: Vec<String> =
        problems.iter().filter(|problem| problem.severity == Severity::Error).map(ToString::to_string).collect();
    assert_eq!(errors, Vec::<String>::new());
    Arc::new(rules)
}

/// An event of `name=value` fields; `name=` is empty, `name=~` null, a name given twice a list.
pub(crate) fn event(log_source: LogSource, fields: &[(&str, Option<&str>)], raw: &str) -> Event {
    let mut list = Fields::default();
    for (name, value) in fields {
        let name = cf_types::field::Names::current().get_or_unknown(name.as_bytes());
        match value {
            Some(value) => list.push(name, value, Scalar::Text),
            None => list.push(name, "", Scalar::Null),
        }
    }
    Event {
        origin: Arc::new(Origin {
            tenant: Tenant::default(),
            source: "test".into(),
            received_at: Time::default(),
            year: None,
            framing: Framing::Record,
        }),
        position: Position::default(),
        declared_id: None,
        time: Time::from_seconds(0),
        time_basis: TimeBasis::Declared,
        log_source: Arc::new(log_source),
        entities: fields
            .iter()
            .filter_map(|(name, value)| cf_types::Entity::of(EntityKind::of_field(name)?, (*value)?))
            .collect(),
        fields: list,
        raw: bytes::Bytes::copy_from_slice(raw.as_bytes()),
    }
}

pub(crate) fn log_source(product: &str, category: &str, service: &str) -> LogSource {
    let part = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    LogSource { product: part(product), category: part(category), service: part(service) }
}

/// Ids of the rules that an event meets, sorted as the scanner gives them.
pub(crate) fn hits(scanner: &mut Scanner, event: &Event) -> Vec<String> {
    let mut hits = Vec::new();
    scanner.scan(event, &mut hits);
    hits.iter().map(|rule| scanner.rules().rule(*rule).unwrap().id.to_string()).collect()
}

/// The folder with the data that is shared between projects, if it is there.
pub(crate) fn shared(what: &str) -> Option<PathBuf> {
    let root = std::env::var("COUNTERFLOW_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared").to_owned());
    let path = Path::new(&root).join("data").join(what);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there", path.display());
    None
}

/// Unpacks an archive once per run of the tests.
fn unpacked(archive: &str, cell: &'static OnceLock<Option<tempfile::TempDir>>) -> Option<&'static Path> {
    let unpack = || {
        let path = shared(archive)?;
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("archive.tar");
        let bytes = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
        std::fs::write(&plain, bytes).unwrap();
        let status = Command::new("tar").arg("xf").arg(&plain).arg("-C").arg(dir.path()).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no `tar` to unpack {archive}");
            return None;
        }
        Some(dir)
    };
    cell.get_or_init(unpack).as_ref().map(|dir| dir.path())
}

pub(crate) fn regression_dir() -> Option<&'static Path> {
    static CELL: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();
    unpacked("sigma/regression.tar.zst", &CELL)
}

/// Log files of many applications, each in a folder of its case.
pub(crate) fn cases_dir() -> Option<&'static Path> {
    static CELL: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();
    unpacked("events/web_and_linux_cases.tar.zst", &CELL)
}

pub(crate) struct Public {
    pub(crate) texts: Vec<Text>,
    pub(crate) parsed: Parsed,
    pub(crate) rules: Arc<RuleSet>,
    pub(crate) problems: Vec<Problem>,
}

/// The public rules, parsed and compiled once.
pub(crate) fn public_rules() -> Option<&'static Public> {
    static DIR: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();
    static RULES: OnceLock<Option<Public>> = OnceLock::new();
    let load = || {
        let dir = unpacked("sigma/sigmahq-rules.tar.zst", &DIR)?;
        let mut texts = Vec::new();
        collect(dir, dir, &mut texts);
        texts.sort_by(|left, right| left.file.cmp(&right.file));
        let parsed = parse(&texts);
        let (rules, problems) = RuleSet::compile(parsed.clone(), &Options::default());
        Some(Public { texts, parsed, rules: Arc::new(rules), problems })
    };
    RULES.get_or_init(load).as_ref()
}

fn collect(root: &Path, dir: &Path, texts: &mut Vec<Text>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, texts);
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            texts.push(text(&name, &std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Events of a file, each `step`th. Rules must be compiled before, so that their fields have names.
pub(crate) fn events(path: &Path, step: usize) -> Vec<Event> {
    let options = FileOptions::new(Time::from_seconds(1_700_000_000));
    let mut decoder = Decoder::new(Arc::new(SourceTable::default()));
    let mut decoded = Decoded::default();
    for record in cf_ingest::file::open(path.to_str().unwrap(), &options).unwrap().step_by(step) {
        decoder.decode(&record.unwrap(), &mut decoded);
    }
    let rejects: Vec<&str> = decoded.rejects.iter().map(|reject| reject.reason.as_str()).collect();
    assert_eq!(rejects, Vec::<&str>::new());
    decoded.events
}

/// Log sources as the oracle knows them: the published map where it is there, and what we know beyond it.
pub(crate) fn sources() -> Sources {
    let published = shared("sigma/logsources-windows.yml").map(|path| std::fs::read_to_string(path).unwrap());
    let published = published.as_deref().unwrap_or("logsources: {}");
    Sources::read(&[published, cf_oracle::BEYOND], include_str!("../../log_source/table.yml")).unwrap()
}
