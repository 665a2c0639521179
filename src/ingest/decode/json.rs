//! JSON as a tape of nodes in reused buffers, and the walk over it.
//!
//! A reader of our own: decoding is a good part of what an event costs, and a general parser copies and unescapes every
//! string though rules look at few. What is valid is exactly what RFC 8259 says; the tests compare with serde_json.

use bumpalo::Bump;
use cf_types::{
    Name, RejectCode, Scalar,
    field::{Form, Names, unescape},
};

use super::sink::Broken;

mod keys;
mod marks;
mod reader;
mod shapes;

pub(crate) use self::{
    keys::{Keys, NO_KEY, Pairs},
    reader::{Kind, Node},
    shapes::{Places, Shapes},
};
use self::{
    marks::Marks,
    reader::{Fault, Reader},
};

/// Parses one document after another without allocating, once its buffers have grown.
pub(crate) struct Json {
    reader: Reader,
    keys: Keys,
    names: Names,
    /// Strings that somebody wanted without their escapes.
    plain: Bump,
    depth_max: usize,
}

/// A document while it is walked.
pub(crate) struct Document<'i> {
    text: &'i str,
    keys: &'i Keys,
    plain: &'i Bump,
    marks: &'i Marks,
}

/// A value: its node and all nodes inside it.
#[derive(Clone, Copy)]
pub(crate) struct Value<'t, 'i> {
    nodes: &'t [Node],
    document: &'i Document<'i>,
}

/// The name of a member.
#[derive(Clone, Copy)]
pub(crate) struct Key<'i> {
    pub(crate) text: &'i str,
    number: u32,
    name: Option<Name>,
}

impl Json {
    /// A parser that refuses documents nested deeper than `depth_max`.
    pub(crate) fn new(depth_max: usize) -> Json {
        Json {
            reader: Reader::default(),
            keys: Keys::default(),
            names: Names::current(),
            plain: Bump::new(),
            depth_max,
        }
    }

    /// Asks the table of names again, if it has grown.
    pub(crate) fn refresh(&mut self) {
        self.names.refresh();
        self.keys.refresh(&self.names);
    }

    /// Parses a document and hands its nodes to `walk`.
    ///
    /// Validation is strict: structure, escapes, numbers, nothing behind the document.
    pub(crate) fn parse<R>(&mut self, text: &str, walk: impl FnOnce(Value<'_, '_>) -> R) -> Result<R, Broken> {
        self.plain.reset();
        match self.reader.read(text, &mut self.keys, &self.names, self.depth_max) {
            Ok(()) => {
                let document = Document { text, keys: &self.keys, plain: &self.plain, marks: self.reader.marks() };
                Ok(walk(Value { nodes: &self.reader.nodes, document: &document }))
            }
            Err(Fault::TooDeep) => {
                Err(Broken::new(RejectCode::TooDeep, format!("nested deeper than {} levels", self.depth_max)))
            }
            Err(Fault::Invalid) => Err(broken(text)),
        }
    }
}

#[cold]
fn broken(text: &str) -> Broken {
    // serde_json says line and column, and what it wanted; it is asked only when the record is lost already.
    let said = match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Err(said) => said.to_string(),
        Ok(_) => "half of a surrogate pair".to_owned(), // serde_json does not look into strings that it ignores
    };
    Broken::new(RejectCode::InvalidJson, format!("not valid JSON: {said}"))
}

impl<'i> Document<'i> {
    fn part(&self, node: &Node) -> &'i str {
        let place = |at: u32| usize::try_from(at).unwrap_or(0);
        self.text.get(place(node.start)..place(node.end)).unwrap_or("")
    }

    fn plain(&self, node: &Node) -> &'i str {
        let mut plain = bumpalo::collections::String::new_in(self.plain);
        let mut text = String::new();
        unescape(self.part(node), &mut text);
        plain.push_str(&text);
        plain.into_bump_str()
    }
}

impl std::fmt::Debug for Value<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Value").field(&self.document.text.get(self.span())).finish()
    }
}

impl<'t, 'i> Value<'t, 'i> {
    /// What it is; `None` only for a value that is not there.
    #[inline]
    pub(crate) fn kind(self) -> Option<Kind> {
        self.nodes.first().map(|node| node.kind)
    }

    /// A string or number as the record holds it.
    #[inline]
    pub(crate) fn written(self) -> (&'i str, Form) {
        let Some(node) = self.nodes.first() else { return ("", Form::Json) };
        let form = match node.kind {
            Kind::TextEscaped => self.document.marks.form(self.span()),
            _ => Form::Json,
        };
        (self.document.part(node), form)
    }

    /// Its part of the document; a string without its quotes.
    pub(crate) fn span(self) -> std::ops::Range<usize> {
        let place = |at: u32| usize::try_from(at).unwrap_or(0);
        self.nodes.first().map_or(0..0, |node| place(node.start)..place(node.end))
    }

    /// Where a text stands in the document, if it is a part of it.
    pub(crate) fn place_of(self, part: &str) -> Option<usize> {
        let document = self.document.text;
        let start = part.as_ptr().addr().checked_sub(document.as_ptr().addr())?;
        (start + part.len() <= document.len()).then_some(start)
    }

    fn split(nodes: &'t [Node], document: &'i Document<'i>) -> Option<(Value<'t, 'i>, &'t [Node])> {
        let first = nodes.first()?;
        let size = match first.kind {
            Kind::Object | Kind::Array => usize::try_from(first.extra).ok()? + 1,
            _ => 1,
        };
        let (nodes, rest) = nodes.split_at_checked(size)?;
        Some((Value { nodes, document }, rest))
    }
}

impl Key<'_> {
    /// The interned name, if anybody asked for it.
    #[inline]
    pub(crate) fn name(self, names: &Names) -> Name {
        self.name.unwrap_or_else(|| names.get_or_unknown(self.text.as_bytes()))
    }

    /// The interned name of two joined.
    pub(crate) fn pair(self, inner: Key<'_>, pairs: &mut Pairs, join: impl FnOnce() -> Name) -> Name {
        pairs.name(self.number, inner.number, join)
    }

    /// The name of a member that stands in no document.
    pub(crate) const fn of(text: &str) -> Key<'_> {
        Key { text, number: NO_KEY, name: None }
    }
}

/// The text of a string.
pub(crate) fn text<'i>(value: Value<'_, 'i>) -> Option<&'i str> {
    let node = value.nodes.first()?;
    match node.kind {
        Kind::Text => Some(value.document.part(node)),
        Kind::TextEscaped => Some(value.document.plain(node)),
        _ => None,
    }
}

/// A number as JSON writes it, in one way for each: `1.50` is `1.5`.
pub(crate) fn number<'i>(value: Value<'_, 'i>) -> Option<&'i str> {
    let node = value.nodes.first()?;
    match node.kind {
        Kind::Whole => Some(value.document.part(node)),
        Kind::Number => Some(canonical_number(value.document.part(node), value.document.plain)),
        _ => None,
    }
}

fn canonical_number<'i>(written: &'i str, plain: &'i Bump) -> &'i str {
    if let Ok(whole) = written.parse::<i64>() {
        return plain.alloc_str(itoa::Buffer::new().format(whole));
    }
    if let Ok(whole) = written.parse::<u64>() {
        return plain.alloc_str(itoa::Buffer::new().format(whole));
    }
    match written.parse::<f64>() {
        Ok(number) if number.is_finite() => plain.alloc_str(ryu::Buffer::new().format(number)),
        _ => written, // beyond what a float holds: as it is
    }
}

/// The text of a scalar, and what it is; `None` for objects and arrays.
pub(crate) fn scalar<'i>(value: Value<'_, 'i>) -> Option<(&'i str, Scalar)> {
    Some(match value.kind()? {
        Kind::Text | Kind::TextEscaped => (text(value)?, Scalar::Text),
        Kind::Whole | Kind::Number => (number(value)?, Scalar::Number),
        Kind::True => ("true", Scalar::Bool),
        Kind::False => ("false", Scalar::Bool),
        Kind::Null => ("", Scalar::Null),
        Kind::Object | Kind::Array | Kind::Key | Kind::KeyEscaped => return None,
    })
}

/// Whether it is an object.
pub(crate) fn is_object(value: Value<'_, '_>) -> bool {
    value.kind() == Some(Kind::Object)
}

/// Whether it is an array.
pub(crate) fn is_array(value: Value<'_, '_>) -> bool {
    value.kind() == Some(Kind::Array)
}

/// Whether it is a string.
pub(crate) fn is_string(value: Value<'_, '_>) -> bool {
    matches!(value.kind(), Some(Kind::Text | Kind::TextEscaped))
}

/// A scalar as text; nothing for null, objects and arrays.
pub(crate) fn shown<'i>(value: Value<'_, 'i>) -> Option<&'i str> {
    scalar(value).filter(|(_, scalar)| *scalar != Scalar::Null).map(|(text, _)| text)
}

/// Whether it is null.
pub(crate) fn is_null(value: Value<'_, '_>) -> bool {
    value.kind() == Some(Kind::Null)
}

/// The members of an object, none for anything else.
pub(crate) fn members<'t, 'i>(value: Value<'t, 'i>) -> Members<'t, 'i> {
    Members(entries(value))
}

/// The members of an object with their names' numbers, none for anything else.
pub(crate) fn entries<'t, 'i>(value: Value<'t, 'i>) -> Entries<'t, 'i> {
    let nodes = if is_object(value) { value.nodes.get(1..).unwrap_or_default() } else { &[] };
    Entries { nodes, document: value.document }
}

/// The elements of an array; anything else is its own only element.
pub(crate) fn elements<'t, 'i>(value: Value<'t, 'i>) -> Elements<'t, 'i> {
    let nodes = if is_array(value) { value.nodes.get(1..).unwrap_or_default() } else { value.nodes };
    Elements { nodes, document: value.document }
}

/// The parts of the document that are the elements of an array, each with its quotes if it is a string; none for
/// anything else.
pub(crate) fn element_spans(value: Value<'_, '_>) -> Vec<std::ops::Range<usize>> {
    let whole = |value: Value<'_, '_>| {
        let quotes = usize::from(matches!(value.kind(), Some(Kind::Text | Kind::TextEscaped)));
        let span = value.span();
        span.start - quotes..span.end + quotes
    };
    if is_array(value) { elements(value).map(whole).collect() } else { Vec::new() }
}

/// The first member of this name.
pub(crate) fn member<'t, 'i>(value: Value<'t, 'i>, name: &str) -> Option<Value<'t, 'i>> {
    members(value).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// See [`members`].
#[derive(Clone)]
pub(crate) struct Members<'t, 'i>(Entries<'t, 'i>);

impl<'t, 'i> Iterator for Members<'t, 'i> {
    type Item = (&'i str, Value<'t, 'i>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, value)| (key.text, value))
    }
}

/// See [`entries`].
#[derive(Clone)]
pub(crate) struct Entries<'t, 'i> {
    nodes: &'t [Node],
    document: &'i Document<'i>,
}

impl<'t, 'i> Iterator for Entries<'t, 'i> {
    type Item = (Key<'i>, Value<'t, 'i>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = self.nodes.split_first()?;
        let (value, rest) = Value::split(rest, self.document)?;
        self.nodes = rest;
        let text = match key.kind {
            Kind::KeyEscaped => self.document.plain(key),
            _ => self.document.part(key),
        };
        Some((Key { text, number: key.extra, name: self.document.keys.name(key.extra) }, value))
    }
}

/// See [`elements`].
#[derive(Clone)]
pub(crate) struct Elements<'t, 'i> {
    nodes: &'t [Node],
    document: &'i Document<'i>,
}

impl<'t, 'i> Iterator for Elements<'t, 'i> {
    type Item = Value<'t, 'i>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (value, rest) = Value::split(self.nodes, self.document)?;
        self.nodes = rest;
        Some(value)
    }
}
