//! JSON of known products: recognised by its members, flattened, and given the names that Sigma rules use.
//!
//! What is known of a product is a row in a table (`vendor/*.yml`, [`crate::mapping`] says what a row can say), not
//! code; here is what applies a row. Recognising costs one look-up per first-level member of the document, applying one
//! per field of the event and one per field that it gets. Windows events never come here.
//!
//! A payload inside another (a CloudTrail record in EventBridge's `detail`, a line of sshd in journald's `MESSAGE`, a
//! document as text) is recognised anew, at most [`INSIDE_MAX`] deep; its fields come first, so that no name around it
//! hides one of them.

use std::{
    borrow::Cow,
    ops::Range,
    sync::{Arc, LazyLock},
};

use cf_types::{
    Name, Scalar, Time, TimeBasis,
    field::{Form, unescape},
};
use rustc_hash::FxHashSet;

use super::{
    generic,
    json::{self, Json, Pairs, Value, elements, entries, is_array, is_null, is_object, member, members, shown},
    sink::{Broken, Sink},
    syslog, text,
    time::Assume,
    windows,
};
use crate::{
    mapping::{Line, Mapping},
    options::Source,
};

pub(crate) mod spread;
pub(crate) mod table;

use table::{Maker, Part, Row, Table};

/// How deep payloads may lie in each other.
const INSIDE_MAX: usize = 4;
/// Bytes of an object that is given as JSON text; the rest is cut off.
const JSON_BYTES_MAX: usize = 64 << 10;

/// The mappings that come with the program, in the order in which they are asked.
const FILES: [(&str, &str); 6] = [
    ("ecs.yml", include_str!("vendor/ecs.yml")),
    ("identity.yml", include_str!("vendor/identity.yml")),
    ("cloud.yml", include_str!("vendor/cloud.yml")),
    ("endpoint.yml", include_str!("vendor/endpoint.yml")),
    ("network.yml", include_str!("vendor/network.yml")),
    ("findings.yml", include_str!("vendor/findings.yml")),
];

static SHIPPED: LazyLock<(Mapping, Table)> = LazyLock::new(|| {
    let mut all = Mapping::default();
    for (file, text) in FILES {
        // They are part of the program, and the tests read each of them.
        let mapping = Mapping::parse(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        all.groups.extend(mapping.groups);
        all.payloads.extend(mapping.payloads);
    }
    let none = Mapping::default();
    let table = Table::new(&all, || &none).unwrap_or_else(|error| panic!("{error}"));
    (all, table)
});

/// The shipped groups, for mappings that name them.
pub(crate) fn shipped_mapping() -> &'static Mapping {
    &SHIPPED.0
}

/// The shipped rows.
pub(crate) fn shipped() -> &'static Table {
    &SHIPPED.1
}

/// The names that shipped rows give.
#[cfg(test)]
pub(crate) fn given_names() -> Vec<Name> {
    shipped().rows.iter().flat_map(|row| row.copies.iter().map(|copied| copied.target)).collect()
}

/// The row of a document: one of the source's own, or a shipped one.
pub(crate) fn recognise<'t>(own: &'t Table, root: Value<'_, '_>) -> Option<&'t Row> {
    own.recognise(root).or_else(|| shipped().recognise(root))
}

/// The row of a flat Windows event, where its shipper gave fields other names (Winlogbeat's ECS).
pub(crate) fn of_windows<'t>(own: &'t Table, root: Value<'_, '_>) -> Option<&'t Row> {
    if is_beat(root) { recognise(own, root) } else { own.recognise(root) }
}

/// Whether Winlogbeat wrote it.
pub(crate) fn is_beat(root: Value<'_, '_>) -> bool {
    members(root).any(|(key, _)| key == "winlog" || key.starts_with("winlog."))
}

/// A value by a path: each dot may also be part of a name, a list stands for its first element.
pub(crate) fn find<'t, 'i>(root: Value<'t, 'i>, path: &str) -> Option<Value<'t, 'i>> {
    if let Some(found) = member(root, path) {
        return Some(found);
    }
    path.match_indices('.').find_map(|(at, _)| {
        let outer = member(root, path.get(..at)?)?;
        let outer = if is_array(outer) { elements(outer).next()? } else { outer };
        find(outer, path.get(at + 1..)?)
    })
}

/// What a document says of itself besides its fields.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) product: Option<Arc<str>>,
    pub(crate) category: Option<Arc<str>>,
    pub(crate) service: Option<Arc<str>>,
    pub(crate) declared_id: Option<Box<str>>,
    pub(crate) time: Option<(Time, TimeBasis)>,
    /// A time that is none, if there is no other.
    pub(crate) refused_time: Option<String>,
}

impl Found {
    /// Its time; an error if it declares one that is none.
    pub(crate) fn time(&self) -> Result<Option<(Time, TimeBasis)>, Broken> {
        match (self.time, &self.refused_time) {
            (None, Some(shown)) => Err(generic::invalid_time(shown)),
            (time, _) => Ok(time),
        }
    }

    pub(crate) fn names_log_source(&self) -> bool {
        self.product.is_some() || self.category.is_some() || self.service.is_some()
    }
}

/// Buffers that are used again.
#[derive(Default)]
pub(crate) struct Scratch {
    collected: Collected,
    taken: FxHashSet<Name>,
    inner: Option<(Json, Pairs)>,
}

/// The values of an event that its row speaks of, by slot.
#[derive(Default)]
struct Collected {
    text: String,
    values: Vec<(usize, Range<usize>, Scalar)>,
}

impl Collected {
    fn fill(&mut self, row: &Row, sink: &Sink<'_>) {
        self.text.clear();
        self.values.clear();
        for part in sink.fields.parts() {
            if let Some(slot) = row.slots.get(&part.name) {
                let start = self.text.len();
                match part.form {
                    Form::Plain | Form::Json => self.text.push_str(part.text),
                    Form::Escaped | Form::EscapedOddly => unescape(part.text, &mut self.text),
                }
                self.values.push((*slot, start..self.text.len(), part.scalar));
            }
        }
        self.values.sort_by_key(|(slot, _, _)| *slot); // stable: lists stay in order
    }

    /// The values of a slot but nulls.
    fn of(&self, slot: usize) -> impl Iterator<Item = (&str, Scalar)> {
        let from = self.values.partition_point(|(other, _, _)| *other < slot);
        let rest = self.values.get(from..).unwrap_or_default();
        let same = rest.iter().take_while(move |(other, _, _)| *other == slot);
        same.filter(|(_, _, scalar)| *scalar != Scalar::Null)
            .map(|(_, span, scalar)| (self.text.get(span.clone()).unwrap_or(""), *scalar))
    }

    fn has(&self, slot: usize) -> bool {
        self.of(slot).next().is_some()
    }

    fn template(&self, parts: &[Part]) -> Option<String> {
        let mut out = String::new();
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Slot(slot) => {
                    out.push_str(self.of(*slot).map(|(value, _)| value).find(|value| !value.is_empty())?)
                }
            }
        }
        Some(out)
    }
}

/// One document on its way to be an event.
pub(crate) struct Walk<'a, 's> {
    pub(crate) source: &'a Source,
    pub(crate) sink: &'a mut Sink<'s>,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) assume: Assume<'a>,
}

impl Walk<'_, '_> {
    /// Flattens a document by its row and gives it the row's fields.
    pub(crate) fn payload(&mut self, row: &Row, root: Value<'_, '_>) -> Result<Found, Broken> {
        self.nested_payload(row, root, 0)
    }

    /// Gives an event that is flat already the fields of a row; `root` is the document that the row is of.
    pub(crate) fn given(&mut self, row: &Row, root: Value<'_, '_>) -> Result<Found, Broken> {
        let mut found = Found::default();
        self.finish(row, root, &mut found)?;
        Ok(found)
    }

    fn nested_payload(&mut self, row: &Row, root: Value<'_, '_>, depth: usize) -> Result<Found, Broken> {
        let mut found = Found::default();
        let mut opened = false;
        for path in &row.inside {
            if let Some(value) = find(root, path).filter(|value| !is_null(*value)) {
                if opened {
                    self.hide(false);
                }
                let inner = self.inside(value, depth + 1)?;
                found = if found.names_log_source() || found.time.is_some() { found } else { inner };
                opened = true;
            }
        }
        if let Some(line) = &row.line {
            opened |= self.line(line, root, &mut found)?;
        }
        let wraps = |key: &str| {
            let within =
                |path: &str| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            row.inside.iter().any(|path| within(path)) || row.line.as_ref().is_some_and(|line| within(&line.message))
        };
        if opened {
            self.hide(true); // what was promoted is there already, where nobody asked for its long name
            members(root).filter(|(key, _)| wraps(key)).try_for_each(|(key, value)| self.sink.flatten(key, value))?;
            self.hide(false);
            members(root).filter(|(key, _)| !wraps(key)).try_for_each(|(key, value)| self.sink.flatten(key, value))?;
        } else {
            entries(root).try_for_each(|(key, value)| self.sink.member(key, value))?;
        }
        if depth == 0 {
            self.show();
        }
        self.finish(row, root, &mut found)?;
        Ok(found)
    }

    /// A payload inside another: an object, a list of objects, JSON as text, or a line.
    fn inside(&mut self, value: Value<'_, '_>, depth: usize) -> Result<Found, Broken> {
        self.sink.check_depth(depth)?;
        if is_object(value) {
            return self.document(value, depth);
        }
        if is_array(value) {
            for element in elements(value).filter(|element| is_object(*element)) {
                entries(element).try_for_each(|(key, value)| self.sink.member(key, value))?;
            }
            return Ok(Found::default());
        }
        let Some(inner) = json::text(value).map(str::trim).filter(|_| depth <= INSIDE_MAX) else {
            return Ok(Found::default());
        };
        if inner.starts_with('{') {
            // Joined names are cached by the numbers that a parser gives to members: each parser has its own cache.
            let new = || (Json::new(self.sink.depth_max), Pairs::default());
            let (mut json, mut pairs) = self.scratch.inner.take().unwrap_or_else(new);
            json.refresh();
            pairs.refresh(self.sink.names);
            std::mem::swap(self.sink.pairs, &mut pairs);
            let parsed = json.parse(inner, |root| self.document(root, depth));
            std::mem::swap(self.sink.pairs, &mut pairs);
            self.scratch.inner = Some((json, pairs));
            if let Ok(found) = parsed {
                return found;
            } // else it is a line that begins with a brace
        }
        // A line gives at least its message, whatever is taken.
        let hidden = self.sink.taken.take();
        let line = text::decode(inner, self.assume, self.source, self.sink);
        self.sink.taken = hidden;
        Ok(found_line(&line?))
    }

    fn document(&mut self, root: Value<'_, '_>, depth: usize) -> Result<Found, Broken> {
        let header = if windows::nested(root).is_some() {
            windows::flatten_nested(root, self.sink)?
        } else if windows::is_flat(root) {
            windows::flatten_flat(root, self.sink)?
        } else {
            let source = self.source;
            if depth <= INSIDE_MAX
                && let Some(row) = recognise(&source.mapping, root)
            {
                return self.nested_payload(row, root, depth);
            }
            entries(root).try_for_each(|(key, value)| self.sink.member(key, value))?;
            return Ok(Found::default());
        };
        let product = if header.is_linux() { "linux" } else { "windows" };
        Ok(Found {
            product: Some(Arc::from(product)),
            time: header.time(self.assume)?,
            declared_id: header.declared_id(),
            ..Found::default()
        })
    }

    /// A line whose header's parts are members. Says whether it was there.
    fn line(&mut self, line: &Line, root: Value<'_, '_>, found: &mut Found) -> Result<bool, Broken> {
        let Some(message) = find(root, &line.message).and_then(json::text) else {
            return Ok(false);
        };
        let part = |paths: &[String]| paths.iter().find_map(|path| find(root, path).and_then(shown));
        let (program, pid, host) =
            (part(line.program.as_slice()), part(line.pid.as_slice()), part(line.host.as_slice()));
        let header = syslog::Header::of(host, program, pid, message);
        let decoded = text::message(&header, self.assume, self.source, self.sink)?;
        *found = found_line(&decoded);
        Ok(true)
    }

    /// From here on, names that the event has already are not added again; with `unknown` neither are values without
    /// a name.
    fn hide(&mut self, unknown: bool) {
        let mut taken = self.sink.taken.take().unwrap_or_else(|| std::mem::take(&mut self.scratch.taken));
        taken.clear();
        taken.extend(self.sink.fields.parts().map(|part| part.name).filter(|name| *name != Name::UNKNOWN));
        if unknown {
            taken.insert(Name::UNKNOWN);
        }
        self.sink.taken = Some(taken);
    }

    fn show(&mut self) {
        if let Some(taken) = self.sink.taken.take() {
            self.scratch.taken = taken;
        }
    }

    /// Fields, log source, time and id by a row.
    fn finish(&mut self, row: &Row, root: Value<'_, '_>, found: &mut Found) -> Result<(), Broken> {
        let mut collected = std::mem::take(&mut self.scratch.collected);
        collected.fill(row, self.sink);
        let hidden = self.sink.taken.take();
        let mut result = Ok(true);
        for copied in &row.copies {
            if result.is_ok() && !copied.own.is_some_and(|own| collected.has(own)) {
                result = give(&copied.maker, copied.target, &collected, root, self.sink);
            }
        }
        self.sink.taken = hidden;
        if !found.names_log_source() {
            let [product, category, service] =
                row.words.each_ref().map(|maker| maker.as_ref().and_then(|maker| word(maker, &collected)));
            (found.product, found.category, found.service) = (product, category, service);
        }
        self.scratch.collected = collected;
        result?;
        if found.declared_id.is_none() {
            let id = row.ids.iter().find_map(|path| find(root, path).and_then(shown).filter(|id| !id.is_empty()));
            found.declared_id = id.filter(|id| id.len() <= 1_024).map(Box::from);
        }
        self.find_time(row, root, found);
        if found.time.is_none() {
            generic::usual_time(root, self.assume, found);
        }
        Ok(())
    }

    /// The row's time, where what lies inside has none or one without year or zone.
    fn find_time(&self, row: &Row, root: Value<'_, '_>, found: &mut Found) {
        let is_good = |time: &(Time, TimeBasis)| time.1 == TimeBasis::Declared;
        for value in row.times.iter().filter_map(|path| find(root, path)) {
            if found.time.as_ref().is_some_and(is_good) {
                return;
            }
            match generic::time_of(value, self.assume) {
                Ok(None) => {}
                Ok(Some(time)) if found.time.is_some() && !is_good(&time) => {}
                Ok(time) => (found.time, found.refused_time) = (time, None),
                Err(shown) => found.refused_time = found.refused_time.take().or(Some(shown)),
            }
        }
    }
}

fn found_line(line: &text::Found<'_>) -> Found {
    let word = |word: Option<&str>| word.map(Arc::from);
    Found {
        product: word(line.product),
        category: word(line.category),
        service: word(line.service),
        time: line.time,
        ..Found::default()
    }
}

/// Adds what a maker gives; says whether it gave something. An event that has as many fields as are allowed gets none.
fn give(
    maker: &Maker,
    target: Name,
    collected: &Collected,
    root: Value<'_, '_>,
    sink: &mut Sink<'_>,
) -> Result<bool, Broken> {
    let mut gave = false;
    let mut put = |value: &str, scalar: Scalar| {
        if sink.fields.len() < sink.fields_max {
            sink.put(target, value, scalar)?;
        }
        gave = true;
        Ok(())
    };
    match maker {
        Maker::Slot(slot) => collected.of(*slot).try_for_each(|(value, scalar)| put(value, scalar))?,
        Maker::Begins { of, begins } => {
            for value in values(of, collected) {
                put(&replaced(&value, begins), Scalar::Text)?;
            }
        }
        Maker::Cut { of, at, behind } => {
            for value in values(of, collected) {
                match (value.split_once(at.as_str()), behind) {
                    (Some((_, rest)), true) => put(rest, Scalar::Text)?,
                    (Some((rest, _)), false) => put(rest, Scalar::Text)?,
                    (None, true) => {}
                    (None, false) => put(&value, Scalar::Text)?,
                }
            }
        }
        Maker::Json(path) => {
            if let Some(value) = find(root, path).filter(|value| !is_null(*value)) {
                let mut out = String::new();
                spread::render(value, &mut out, JSON_BYTES_MAX);
                put(&out, Scalar::Text)?;
            }
        }
        Maker::Named { list, named, front } => {
            let value = find(root, list).and_then(|list| named_value(list, named));
            for value in value.into_iter().flat_map(elements).filter_map(shown) {
                put(&format!("{front}{value}"), Scalar::Text)?;
            }
        }
        Maker::First(makers) => {
            for maker in makers {
                if give(maker, target, collected, root, sink)? {
                    return Ok(true);
                }
            }
        }
        Maker::Each(makers) => {
            for maker in makers {
                gave |= give(maker, target, collected, root, sink)?;
            }
        }
        Maker::If { slot, present, then } => {
            return if collected.has(*slot) == *present {
                give(then, target, collected, root, sink)
            } else {
                Ok(false)
            };
        }
        Maker::Fixed(_) | Maker::Template(_) | Maker::Words { .. } => {
            if let Some(word) = word(maker, collected) {
                put(&word, Scalar::Text)?;
            }
        }
    }
    Ok(gave)
}

/// The values of the first of these that has one.
fn values(of: &[Maker], collected: &Collected) -> Vec<String> {
    let found = of.iter().map(|maker| match maker {
        Maker::Slot(slot) => collected.of(*slot).map(|(value, _)| value.to_owned()).collect(),
        maker => word(maker, collected).map(|word| vec![word.to_string()]).unwrap_or_default(),
    });
    found.into_iter().find(|values: &Vec<String>| !values.is_empty()).unwrap_or_default()
}

/// The value of a name in a list of named values, as several products write it.
fn named_value<'t, 'i>(list: Value<'t, 'i>, named: &str) -> Option<Value<'t, 'i>> {
    const NAMES: [&str; 6] = ["Name", "name", "Key", "key", "algorithm", "displayName"];
    const VALUES: [&str; 7] = ["Value", "value", "values", "multiValue", "newValue", "intValue", "boolValue"];
    let is_named = |element: &Value<'t, 'i>| {
        let name = NAMES.iter().find_map(|key| member(*element, key)).and_then(json::text);
        name.is_some_and(|name| name.eq_ignore_ascii_case(named))
    };
    let element = elements(list).find(is_named)?;
    VALUES.iter().find_map(|key| member(element, key))
}

/// The text that a maker gives, where it gives one.
fn word(maker: &Maker, collected: &Collected) -> Option<Arc<str>> {
    match maker {
        Maker::Fixed(word) => Some(Arc::clone(word)),
        Maker::Slot(slot) => collected.of(*slot).next().map(|(value, _)| Arc::from(value)),
        Maker::Template(parts) => collected.template(parts).map(Arc::from),
        Maker::First(makers) | Maker::Each(makers) => makers.iter().find_map(|maker| word(maker, collected)),
        Maker::Words { of, words, otherwise } => {
            let mut values = of.iter().flat_map(|maker| values(std::slice::from_ref(maker), collected));
            let known = values.find_map(|value| words.get(&*lower(&value)));
            known.or(otherwise.as_ref()).map(Arc::clone)
        }
        Maker::If { slot, present, then } => {
            (collected.has(*slot) == *present).then(|| word(then, collected)).flatten()
        }
        Maker::Begins { .. } | Maker::Cut { .. } | Maker::Json(_) | Maker::Named { .. } => None,
    }
}

fn lower(value: &str) -> Cow<'_, str> {
    if value.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        Cow::Owned(value.to_lowercase())
    } else {
        Cow::Borrowed(value)
    }
}

/// The value with its beginning replaced; case does not matter.
fn replaced<'v>(value: &'v str, begins: &[(String, String)]) -> Cow<'v, str> {
    for (from, to) in begins {
        if let Some((start, rest)) = value.split_at_checked(from.len())
            && start.eq_ignore_ascii_case(from)
        {
            return Cow::Owned(format!("{to}{rest}"));
        }
    }
    Cow::Borrowed(value)
}
