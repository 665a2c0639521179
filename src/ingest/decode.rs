//! From records to events.
//!
//! [`Decoder::decode`] looks what a record is (Windows event, envelope or other JSON, syslog message, access log line,
//! plain text) and flattens it. It never fails as a whole: every record gives events or rejects, and the same record
//! always the same ones.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use bytestring::ByteString;
use cf_types::{
    Event, Fields, Framing, LogSource, Name, Position, Record, Reject, RejectCode, Time, TimeBasis, field::Names,
};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::options::{Source, SourceTable};

mod entities;
mod generic;
mod json;
mod names;
mod pam;
mod sink;
mod sshd;
mod sudo;
mod syslog;
mod text;
mod time;
pub(crate) mod vendor;
mod web;
mod windows;

use self::{
    entities::EntityTables,
    json::{Json, Pairs, Places, Shapes, Value, is_object, member},
    sink::{Broken, Sink},
    time::Assume,
};

pub(crate) use self::time::year_of;

/// Log sources kept for sharing; beyond it each event has its own.
const LOG_SOURCES_MAX: usize = 1_024;

/// What of an event is wanted besides its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Fill [`Event::entities`]. Without it they are empty, and [`Decoder::entities`] gives them for the few events
    /// that met a rule.
    pub entities: bool,
}

impl Default for Want {
    fn default() -> Want {
        Want { entities: true }
    }
}

/// What records gave.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Events in the order of their records.
    pub events: Vec<Event>,
    /// What could not become one.
    pub rejects: Vec<Reject>,
    /// Buffers of events that are done with.
    spare: Vec<Fields>,
}

impl Decoded {
    /// Forgets all, and keeps the buffers of the events' fields for the next ones.
    pub fn clear(&mut self) {
        self.rejects.clear();
        self.spare.extend(self.events.drain(..).map(|event| event.fields));
        self.spare.truncate(256);
    }

    fn fields(&mut self, record: &ByteString) -> Fields {
        let mut fields = self.spare.pop().unwrap_or_default();
        fields.begin(record.clone());
        fields
    }
}

/// Makes events of records. One per thread; it keeps only buffers and caches that no result depends on.
pub struct Decoder {
    table: Arc<SourceTable>,
    want: Want,
    json: Json,
    work: Work,
}

/// What decoding one record needs beside the JSON parser's buffers.
struct Work {
    names: Names,
    pairs: Pairs,
    path: String,
    taken: FxHashSet<Name>,
    log_sources: FxHashMap<LogSource, Arc<LogSource>>,
    windows: Arc<LogSource>,
    entities: EntityTables,
    vendors: vendor::Scratch,
    shapes: Shapes,
}

/// What an event gets from its decoder besides fields.
struct Head {
    time: Option<(Time, TimeBasis)>,
    declared_id: Option<Box<str>>,
    log_source: Arc<LogSource>,
}

impl Decoder {
    /// A decoder that fills everything.
    #[must_use]
    pub fn new(table: Arc<SourceTable>) -> Decoder {
        Decoder::with(table, Want::default())
    }

    /// A decoder that fills what is wanted.
    #[must_use]
    pub fn with(table: Arc<SourceTable>, want: Want) -> Decoder {
        let json = Json::new(table.depth_max());
        let entities = EntityTables::new(table.mappings().chain([vendor::shipped()]));
        LazyLock::force(&names::KNOWN);
        let work = Work {
            names: Names::current(),
            pairs: Pairs::default(),
            path: String::new(),
            taken: FxHashSet::default(),
            log_sources: FxHashMap::default(),
            windows: Arc::new(LogSource { product: Some(Arc::from("windows")), ..LogSource::default() }),
            entities,
            vendors: vendor::Scratch::default(),
            shapes: Shapes::default(),
        };
        Decoder { table, want, json, work }
    }

    /// Decodes one record and adds what it gives.
    pub fn decode(&mut self, record: &Record, out: &mut Decoded) {
        self.work.names.refresh();
        self.work.pairs.refresh(&self.work.names);
        self.work.shapes.refresh(self.work.names.version());
        self.json.refresh();
        let source = Arc::clone(self.table.get(&record.origin.source));
        if let Err(broken) = self.decode_record(record, &source, out) {
            out.rejects.push(reject(record, broken));
        }
    }

    /// The entities that an event speaks of: sorted, without repeats, at most 32.
    #[must_use]
    pub fn entities(&self, event: &Event) -> Vec<cf_types::Entity> {
        self.work.entities.of(event)
    }

    fn decode_record(&mut self, record: &Record, source: &Source, out: &mut Decoded) -> Result<(), Broken> {
        if record.bytes.len() > source.record_bytes_max {
            let reason = format!("longer than {} bytes", source.record_bytes_max);
            return Err(Broken::new(RejectCode::TooLong, reason));
        }
        let trimmed = trimmed(record);
        let record = trimmed.as_ref().unwrap_or(record);
        if record.origin.framing == Framing::Unframed {
            return Err(unframed(record).unwrap_or_else(|| self.diagnose(&record.bytes)));
        }
        let wants_json = Source::wants_json(record.origin.framing);
        match record.bytes.first() {
            None => Err(Broken::new(RejectCode::Empty, "nothing but white space".to_owned())),
            Some(b'{') => self.decode_object(record, source, out),
            Some(b'[') if wants_json || begins_array_of_objects(&record.bytes) => {
                self.decode_array(record, source, out)
            }
            Some(_) if wants_json => {
                self.json.parse(&utf8(&record.bytes)?, |_| ())?;
                Err(not_an_object())
            }
            Some(_) => self.decode_text(record, source, out),
        }
    }

    fn decode_object(&mut self, record: &Record, source: &Source, out: &mut Decoded) -> Result<(), Broken> {
        let text = utf8(&record.bytes)?;
        let mut fields = out.fields(&text);
        if let Some(head) = self.work.known(&text, record, source, &mut fields) {
            out.events.push(self.event(record, head, fields));
            return Ok(());
        }
        let walk = |root: Value<'_, '_>| self.work.object(root, record, source, &mut fields);
        match self.json.parse(&text, walk)?? {
            Object::Event(head) => {
                out.events.push(self.event(record, head, fields));
                Ok(())
            }
            Object::Records(spans) => {
                out.spare.push(fields);
                self.decode_elements(record, spans, source, out)
            }
            Object::Parts(parts) => {
                out.spare.push(fields);
                self.decode_parts(record, parts, source, out);
                Ok(())
            }
        }
    }

    /// Each part of a document is an event of its own, with its own position; its bytes are those of the part, written
    /// anew with what stood around it.
    fn decode_parts(&mut self, record: &Record, parts: Vec<String>, source: &Source, out: &mut Decoded) {
        for (index, part) in parts.into_iter().enumerate() {
            let index = record.position.index.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
            let part = Record {
                origin: Arc::clone(&record.origin),
                position: Position { index, ..record.position.clone() },
                bytes: Bytes::from(part),
            };
            if let Err(broken) = self.decode_element(&part, source, out) {
                out.rejects.push(reject(&part, broken));
            }
        }
    }

    fn decode_array(&mut self, record: &Record, source: &Source, out: &mut Decoded) -> Result<(), Broken> {
        // Broken as a whole is one reject.
        let spans = self.json.parse(&utf8(&record.bytes)?, json::element_spans)?;
        self.decode_elements(record, spans, source, out)
    }

    /// Each element of an array is an event of its own, with its own position and raw bytes.
    fn decode_elements(
        &mut self,
        record: &Record,
        spans: Vec<std::ops::Range<usize>>,
        source: &Source,
        out: &mut Decoded,
    ) -> Result<(), Broken> {
        for (index, span) in spans.into_iter().enumerate() {
            let index = record.position.index.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
            let element = Record {
                origin: Arc::clone(&record.origin),
                position: Position { index, ..record.position.clone() },
                bytes: record.bytes.slice(span),
            };
            let decoded = match element.bytes.first() {
                Some(b'{') => self.decode_element(&element, source, out),
                _ => Err(not_an_object()),
            };
            if let Err(broken) = decoded {
                out.rejects.push(reject(&element, broken));
            }
        }
        Ok(())
    }

    fn decode_element(&mut self, element: &Record, source: &Source, out: &mut Decoded) -> Result<(), Broken> {
        let text = utf8(&element.bytes)?;
        let mut fields = out.fields(&text);
        if let Some(head) = self.work.known(&text, element, source, &mut fields) {
            out.events.push(self.event(element, head, fields));
            return Ok(());
        }
        let walk = |root: Value<'_, '_>| self.work.object(root, element, source, &mut fields);
        match self.json.parse(&text, walk)?? {
            Object::Event(head) => {
                out.events.push(self.event(element, head, fields));
                Ok(())
            }
            Object::Records(_) | Object::Parts(_) => {
                Err(Broken::new(RejectCode::InvalidType, "a list of records inside another".to_owned()))
            }
        }
    }

    fn decode_text(&mut self, record: &Record, source: &Source, out: &mut Decoded) -> Result<(), Broken> {
        let line = utf8(&record.bytes)?;
        let mut fields = out.fields(&line);
        if let Some(head) = self.decode_wrapped(&line, record, source, &mut fields)? {
            out.events.push(self.event(record, head, fields));
            return Ok(());
        }
        let head = self.work.line(&line, record, source, &mut fields)?;
        out.events.push(self.event(record, head, fields));
        Ok(())
    }

    /// JSON behind a header on a line of text is decoded as that JSON, with the header's fields. What is not valid JSON
    /// after all is text; a document with bounds overstepped is a reject as it would be without the header.
    fn decode_wrapped(
        &mut self,
        line: &ByteString,
        record: &Record,
        source: &Source,
        fields: &mut Fields,
    ) -> Result<Option<Head>, Broken> {
        let assume = Assume { zone: &source.zone, origin: &record.origin };
        let Some(wrapped) = text::wrapped(line, assume) else {
            return Ok(None);
        };
        self.work.header(&wrapped, source, fields)?;
        let parsed = self.json.parse(wrapped.json, |root| self.work.object(root, record, source, fields));
        match parsed {
            Ok(Ok(Object::Event(mut head))) => {
                let declared = &head.log_source;
                if declared.product.is_none() && declared.category.is_none() && declared.service.is_none() {
                    head.log_source = self.work.log_source(None, None, wrapped.program(), source);
                }
                Ok(Some(Head { time: head.time.or(wrapped.time), ..head }))
            }
            Ok(Err(broken)) => Err(broken),
            // A list of records behind one header is nobody's format.
            Ok(Ok(Object::Records(_) | Object::Parts(_))) | Err(_) => {
                fields.begin(line.clone());
                Ok(None)
            }
        }
    }

    fn event(&self, record: &Record, head: Head, fields: Fields) -> Event {
        let (time, time_basis) = head.time.unwrap_or((record.origin.received_at, TimeBasis::Received));
        let mut event = Event {
            origin: Arc::clone(&record.origin),
            position: record.position.clone(),
            declared_id: head.declared_id,
            time,
            time_basis,
            log_source: head.log_source,
            fields,
            entities: Vec::new(),
            raw: record.bytes.clone(),
        };
        if self.want.entities {
            event.entities = self.work.entities.of(&event);
        }
        event
    }

    /// Why something could not be framed.
    fn diagnose(&mut self, bytes: &[u8]) -> Broken {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => return Broken::utf8(error.valid_up_to()),
        };
        match (bytes.first(), self.json.parse(text, is_object)) {
            (None, _) => Broken::new(RejectCode::Empty, "nothing but white space".to_owned()),
            (_, Ok(false)) => not_an_object(),
            (Some(b'{' | b'['), Err(broken)) => broken,
            _ => Broken::new(RejectCode::Damaged, "could not be framed".to_owned()),
        }
    }
}

/// What Kafka has and no line of text is: no value at all, and values with a schema registry's header (a zero, and the
/// number of the schema in four bytes).
fn unframed(record: &Record) -> Option<Broken> {
    if !record.position.origin.starts_with(cf_types::record::KAFKA_PREFIX) {
        return None;
    }
    match &record.bytes[..] {
        [] => Some(Broken::new(RejectCode::Empty, "a record without a value (a tombstone)".to_owned())),
        [0, a, b, c, d, ..] => {
            let schema = u32::from_be_bytes([*a, *b, *c, *d]);
            let reason = format!("Avro or Protobuf with schema {schema} of a schema registry, which is not read");
            Some(Broken::new(RejectCode::UnsupportedFormat, reason))
        }
        _ => None,
    }
}

/// Whether bytes are one valid JSON document of any kind; if not, why.
pub(crate) fn is_json(bytes: &[u8]) -> Result<(), (RejectCode, String)> {
    parse_once(bytes, |_| ())
}

/// The parts of bytes that are the elements of a JSON array; why not, if they are no valid JSON.
pub(crate) fn element_spans(bytes: &[u8]) -> Result<Vec<std::ops::Range<usize>>, (RejectCode, String)> {
    parse_once(bytes, json::element_spans)
}

fn parse_once<R>(bytes: &[u8], walk: impl FnOnce(Value<'_, '_>) -> R) -> Result<R, (RejectCode, String)> {
    let text = std::str::from_utf8(bytes).map_err(|error| Broken::utf8(error.valid_up_to()));
    let parsed = text.and_then(|text| Json::new(SourceTable::default().depth_max()).parse(text, walk));
    parsed.map_err(|broken| (broken.code, broken.reason))
}

/// A record as text, without a copy.
fn utf8(bytes: &Bytes) -> Result<ByteString, Broken> {
    ByteString::try_from(bytes.clone()).map_err(|error| Broken::utf8(error.valid_up_to()))
}

/// What an object turned out to be.
enum Object {
    Event(Head),
    /// A member is a list of events (CloudTrail's `{"Records": [...]}`): where they lie.
    Records(Vec<std::ops::Range<usize>>),
    /// Several events, with what stood around each.
    Parts(Vec<String>),
}

impl Work {
    /// A Windows event of a shape that was met before. What it says is checked no less than by [`Work::object`], which
    /// decides where this gives `None`; then nothing was added.
    fn known(&mut self, text: &str, record: &Record, source: &Source, fields: &mut Fields) -> Option<Head> {
        if !source.fits_shapes() {
            return None;
        }
        let known = self.shapes.read(text).filter(|known| known.is_within(source.fields_max, source.depth_max))?;
        let Places { time, computer, channel, record_id } = known.places()?;
        let assume = Assume { zone: &source.zone, origin: &record.origin };
        let time = time.map_or(Ok(None), |time| generic::time_of_text(time, assume)).ok()?;
        known.fill(fields);
        let declared_id = windows::declared_id(computer, channel, record_id);
        let is_linux = windows::is_linux(channel);
        Some(Head { time, declared_id, log_source: self.log_source_of_windows(is_linux, source) })
    }

    fn log_source_of_windows(&mut self, is_linux: bool, source: &Source) -> Arc<LogSource> {
        if !source.names_log_source() && !is_linux {
            return Arc::clone(&self.windows);
        }
        self.log_source(Some(if is_linux { "linux" } else { "windows" }), None, None, source)
    }

    fn object(
        &mut self,
        root: Value<'_, '_>,
        record: &Record,
        source: &Source,
        fields: &mut Fields,
    ) -> Result<Object, Broken> {
        let assume = Assume { zone: &source.zone, origin: &record.origin };
        let mut sink = Sink {
            fields,
            names: &self.names,
            pairs: &mut self.pairs,
            path: &mut self.path,
            fields_max: source.fields_max,
            depth_max: source.depth_max,
            taken: None,
        };
        let nested = windows::nested(root).is_some();
        if nested || windows::is_flat(root) {
            let header =
                if nested { windows::flatten_nested(root, &mut sink) } else { windows::flatten_flat(root, &mut sink) }?;
            if !nested && let Some(row) = vendor::of_windows(&source.mapping, root) {
                vendor::Walk { source, sink: &mut sink, scratch: &mut self.vendors, assume }.given(row, root)?;
            }
            let time = match configured_time(root, source, assume)? {
                Some(time) => Some(time),
                None => header.time(assume)?,
            };
            if source.fits_shapes()
                && (nested || !vendor::is_beat(root))
                && let Some(places) = header.places(root)
            {
                self.shapes.learn(root, fields, places);
            }
            let log_source = self.log_source_of_windows(header.is_linux(), source);
            return Ok(Object::Event(Head { time, declared_id: header.declared_id(), log_source }));
        }
        let found = match vendor::recognise(&source.mapping, root) {
            Some(row) => {
                if let Some(list) = &row.split {
                    let list = member(root, list).map(json::element_spans);
                    return Ok(Object::Records(list.unwrap_or_default()));
                }
                if let Some(steps) = &row.spread {
                    return Ok(Object::Parts(vendor::spread::documents(root, steps, row.otlp)?));
                }
                let mut walk = vendor::Walk { source, sink: &mut sink, scratch: &mut self.vendors, assume };
                walk.payload(row, root)?
            }
            None => {
                let header = generic::flatten(root, &mut self.taken, &mut sink)?;
                let mut found = vendor::Found::default();
                if let Some(inner) = member(root, "raw_data").filter(|inner| is_object(*inner))
                    && let Some(row) = vendor::recognise(&source.mapping, inner)
                {
                    let mut walk = vendor::Walk { source, sink: &mut sink, scratch: &mut self.vendors, assume };
                    found = walk.given(row, inner)?;
                }
                header.complete(root, &mut found, assume);
                found
            }
        };
        let time = match configured_time(root, source, assume)? {
            Some(time) => Some(time),
            None => found.time()?,
        };
        let log_source =
            self.log_source(found.product.as_deref(), found.category.as_deref(), found.service.as_deref(), source);
        Ok(Object::Event(Head { time, declared_id: found.declared_id, log_source }))
    }

    /// Adds what a header before a JSON document says.
    fn header(&mut self, wrapped: &text::Wrapped<'_>, source: &Source, fields: &mut Fields) -> Result<(), Broken> {
        let mut sink = Sink {
            fields,
            names: &self.names,
            pairs: &mut self.pairs,
            path: &mut self.path,
            fields_max: source.fields_max,
            depth_max: source.depth_max,
            taken: None,
        };
        wrapped.put(&mut sink)
    }

    fn line(&mut self, line: &str, record: &Record, source: &Source, fields: &mut Fields) -> Result<Head, Broken> {
        let assume = Assume { zone: &source.zone, origin: &record.origin };
        let mut sink = Sink {
            fields,
            names: &self.names,
            pairs: &mut self.pairs,
            path: &mut self.path,
            fields_max: source.fields_max,
            depth_max: source.depth_max,
            taken: None,
        };
        let found = text::decode(line, assume, source, &mut sink)?;
        let log_source = self.log_source(found.product, found.category, found.service, source);
        Ok(Head { time: found.time, declared_id: None, log_source })
    }

    /// The log source of these words, shared; the source's settings win.
    fn log_source(
        &mut self,
        product: Option<&str>,
        category: Option<&str>,
        service: Option<&str>,
        source: &Source,
    ) -> Arc<LogSource> {
        let word = |setting: &Option<Arc<str>>, found: Option<&str>| {
            setting.clone().or_else(|| found.map(|word| Arc::from(word.to_ascii_lowercase())))
        };
        let wanted = LogSource {
            product: word(&source.product, product),
            category: word(&source.category, category),
            service: word(&source.service, service),
        };
        if let Some(known) = self.log_sources.get(&wanted) {
            return Arc::clone(known);
        }
        let shared = Arc::new(wanted.clone());
        if self.log_sources.len() < LOG_SOURCES_MAX {
            self.log_sources.insert(wanted, Arc::clone(&shared));
        }
        shared
    }
}

/// The time in the field that the settings name, if they do and it is there.
fn configured_time(
    root: Value<'_, '_>,
    source: &Source,
    assume: Assume<'_>,
) -> Result<Option<(Time, TimeBasis)>, Broken> {
    let Some(value) = source.time_field.as_deref().and_then(|path| generic::find_path(root, path)) else {
        return Ok(None);
    };
    generic::time_of(value, assume).map_err(|shown| generic::invalid_time(&shown))
}

fn begins_array_of_objects(bytes: &[u8]) -> bool {
    bytes.get(1..).is_some_and(|rest| rest.trim_ascii_start().first() == Some(&b'{'))
}

fn not_an_object() -> Broken {
    Broken::new(RejectCode::NotAnObject, "an event must be a JSON object".to_owned())
}

/// The record without white space around it and without a byte order mark; `None` if it has neither.
fn trimmed(record: &Record) -> Option<Record> {
    let bytes = record.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&record.bytes).trim_ascii();
    let changed = bytes.len() < record.bytes.len();
    changed.then(|| Record { bytes: record.bytes.slice_ref(bytes), ..record.clone() })
}

fn reject(record: &Record, broken: Broken) -> Reject {
    Reject {
        origin: Arc::clone(&record.origin),
        position: record.position.clone(),
        code: broken.code,
        reason: broken.reason,
        time: None,
        // Copied: a slice would keep the whole of a long record in memory.
        raw: Bytes::copy_from_slice(&Reject::kept(&record.bytes)),
    }
}

#[cfg(test)]
mod tests;
