//! JSON that is no Windows event and of no known product: the envelope of the event schema (ING-07), and anything else.

use std::sync::Arc;

use cf_types::{Name, RejectCode, Time, TimeBasis};
use rustc_hash::FxHashSet;

use super::{
    json::{self, Kind, Value, entries, is_null, is_object, member, text},
    sink::{Broken, Sink},
    time::{Assume, from_epoch, from_epoch_f64, parse_text},
    vendor::Found,
    windows,
};

/// What the record says of itself besides its fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Header<'t, 'i> {
    pub(crate) product: Option<&'i str>,
    pub(crate) category: Option<&'i str>,
    pub(crate) service: Option<&'i str>,
    pub(crate) declared_id: Option<&'i str>,
    pub(crate) times: [Option<Value<'t, 'i>>; 3],
}

/// Where records say their time, in the order of belief.
const USUAL_TIMES: [&str; 3] = ["timestamp", "@timestamp", "time"];

/// The usual time of a document of a known product that has none where its product's stands.
pub(crate) fn usual_time(root: Value<'_, '_>, assume: Assume<'_>, found: &mut Found) {
    let times = USUAL_TIMES.map(|key| member(root, key).filter(|value| !is_empty(*value)));
    Header { times, ..Header::default() }.time(assume, found);
}

/// Flattens a document. Fields of `raw_data` and `normalized_data` get their own names too; where several say the same
/// name, the top wins, then `raw_data`.
pub(crate) fn flatten<'t, 'i>(
    root: Value<'t, 'i>,
    taken: &mut FxHashSet<Name>,
    sink: &mut Sink<'_>,
) -> Result<Header<'t, 'i>, Broken> {
    if is_envelope(root) {
        check_envelope(root)?;
    }
    entries(root).try_for_each(|(key, value)| sink.member(key, value))?;
    let mut header = header_of(root);
    for inner in ["raw_data", "normalized_data"].into_iter().filter_map(|key| member(root, key)) {
        if !is_object(inner) {
            continue;
        }
        taken.clear();
        taken.extend(sink.fields.iter().map(|(name, _, _)| name));
        taken.insert(Name::UNKNOWN); // there already, under its long name
        sink.taken = Some(std::mem::take(taken));
        let result = promote(inner, sink);
        *taken = sink.taken.take().unwrap_or_default();
        if result? {
            header.product = header.product.or(Some("windows"));
        }
    }
    Ok(header)
}

/// Adds an inner object's fields without its own name; says whether they are a Windows event's.
fn promote(inner: Value<'_, '_>, sink: &mut Sink<'_>) -> Result<bool, Broken> {
    if windows::nested(inner).is_some() {
        windows::flatten_nested(inner, sink)?;
        return Ok(true);
    }
    if windows::is_flat(inner) {
        windows::flatten_flat(inner, sink)?;
        return Ok(true);
    }
    entries(inner).try_for_each(|(key, value)| sink.member(key, value))?;
    Ok(false)
}

fn header_of<'t, 'i>(root: Value<'t, 'i>) -> Header<'t, 'i> {
    let raw = member(root, "raw_data").filter(|raw| is_object(*raw));
    let inner = |key| raw.and_then(|raw| member(raw, key));
    let word = |key| {
        let named = member(root, key).and_then(text).or_else(|| inner(key).and_then(text));
        named.map(str::trim).filter(|word| !word.is_empty())
    };
    let value = |key| {
        member(root, key).filter(|value| !is_empty(*value)).or_else(|| inner(key).filter(|value| !is_empty(*value)))
    };
    let id = |key| member(root, key).and_then(text).filter(|id| !id.is_empty());
    Header {
        product: word("product"),
        category: word("category"),
        service: word("service"),
        declared_id: id("event_id")
            .or_else(|| id("event.id"))
            .or_else(|| member(member(root, "event")?, "id").and_then(text).filter(|id| !id.is_empty())),
        times: USUAL_TIMES.map(value),
    }
}

/// Whether this is the envelope: it has one of the parts that nothing else has, or both of the words that begin it.
fn is_envelope(root: Value<'_, '_>) -> bool {
    let has = |key| member(root, key).is_some();
    has("raw_data") || has("normalized_data") || has("enrichments") || (has("event_id") && has("event_type"))
}

/// The types of the envelope's parts, as its schema gives them; null stands for absent. `raw_data` may be a string:
/// the line that was.
fn check_envelope(root: Value<'_, '_>) -> Result<(), Broken> {
    const SCHEMA: &[(&str, &str, &[&str])] = &[
        ("event_id", "string", &[]),
        ("source", "string", &[]),
        ("event_type", "string", &[]),
        ("severity", "string", &[]),
        ("raw_data", "object or string", &[]),
        ("normalized_data", "object", &["actor", "action", "target", "result"]),
        ("enrichments", "object", &[]),
    ];
    let wrong = |key: &str, want: &str| {
        Broken::new(RejectCode::InvalidType, format!("{key} of the event schema must be of type {want}"))
    };
    for (key, want, parts) in SCHEMA {
        let Some(value) = member(root, key).filter(|value| !is_null(*value)) else {
            continue;
        };
        let fits = match *want {
            "string" => text(value).is_some(),
            "object" => is_object(value),
            _ => is_object(value) || text(value).is_some(),
        };
        if !fits {
            return Err(wrong(key, want));
        }
        for part in *parts {
            let inner = member(value, part).filter(|inner| !is_null(*inner));
            if inner.is_some_and(|inner| text(inner).is_none()) {
                return Err(wrong(&format!("{key}.{part}"), "string"));
            }
        }
    }
    if let Some(enrichments) = member(root, "enrichments") {
        for part in ["geo_location", "threat_intel", "asset_info"] {
            let inner = member(enrichments, part).filter(|inner| !is_null(*inner));
            if inner.is_some_and(|inner| !is_object(inner)) {
                return Err(wrong(&format!("enrichments.{part}"), "object"));
            }
        }
    }
    Ok(())
}

impl Header<'_, '_> {
    /// What the record says of itself, before what was found in its `raw_data`.
    pub(crate) fn complete(&self, root: Value<'_, '_>, found: &mut Found, assume: Assume<'_>) {
        let named = |key| member(root, key).and_then(text).is_some_and(|word| !word.trim().is_empty());
        if !found.names_log_source() || ["product", "category", "service"].into_iter().any(named) {
            let word = |word: Option<&str>| word.map(Arc::from);
            (found.product, found.category, found.service) =
                (word(self.product), word(self.category), word(self.service));
        }
        found.declared_id = self.declared_id.map(Box::from).or(found.declared_id.take());
        let inner = (found.time.take(), found.refused_time.take());
        self.time(assume, found);
        if found.time.is_none() && found.refused_time.is_none() {
            (found.time, found.refused_time) = inner;
        }
    }

    /// Its time: the first of the usual members that is one.
    fn time(&self, assume: Assume<'_>, found: &mut Found) {
        for value in self.times.into_iter().flatten() {
            match time_of(value, assume) {
                Ok(None) => {}
                Ok(time) => {
                    (found.time, found.refused_time) = (time, None);
                    return;
                }
                Err(shown) => found.refused_time = found.refused_time.take().or(Some(shown)),
            }
        }
    }
}

pub(crate) fn invalid_time(shown: &str) -> Broken {
    let reason = format!("declares a time that is none: {shown}; hint: ISO 8601, or epoch seconds or milliseconds");
    Broken::new(RejectCode::InvalidTime, reason)
}

/// A value as a time; null and the empty string declare none.
pub(crate) fn time_of(value: Value<'_, '_>, assume: Assume<'_>) -> Result<Option<(Time, TimeBasis)>, String> {
    let declared = |time| Some((time, TimeBasis::Declared));
    match value.kind() {
        None | Some(Kind::Null) => Ok(None),
        Some(Kind::Text | Kind::TextEscaped) => time_of_text(text(value).unwrap_or_default(), assume),
        Some(Kind::Whole | Kind::Number) => {
            let written = json::number(value).unwrap_or_default();
            let whole = written.parse::<i64>().ok().map(from_epoch);
            let fraction = || {
                let large = written.bytes().all(|byte| byte.is_ascii_digit()); // beyond 64 bits: no time
                written.parse::<f64>().ok().filter(|_| !large).and_then(from_epoch_f64)
            };
            whole.or_else(fraction).map(declared).ok_or_else(|| written.to_owned())
        }
        Some(Kind::True) => Err("true".to_owned()),
        Some(Kind::False) => Err("false".to_owned()),
        Some(Kind::Object) => Err("an object".to_owned()),
        Some(Kind::Array) => Err("a list".to_owned()),
        Some(Kind::Key | Kind::KeyEscaped) => Err("a name".to_owned()),
    }
}

/// A text as a time; the empty one declares none.
pub(crate) fn time_of_text(text: &str, assume: Assume<'_>) -> Result<Option<(Time, TimeBasis)>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let shown = || format!("{:?}", text.chars().take(64).collect::<String>());
    parse_text(text, assume).map(Some).ok_or_else(shown)
}

fn is_empty(value: Value<'_, '_>) -> bool {
    is_null(value) || text(value).is_some_and(|text| text.trim().is_empty())
}

/// A member by a name with dots, each of which may also be part of a name.
pub(crate) fn find_path<'t, 'i>(root: Value<'t, 'i>, path: &str) -> Option<Value<'t, 'i>> {
    if let Some(found) = member(root, path) {
        return Some(found);
    }
    path.match_indices('.').find_map(|(at, _)| find_path(member(root, path.get(..at)?)?, path.get(at + 1..)?))
}
