//! The fields of an event, flat: names as symbols, values as spans of the record, no allocation per field.
//!
//! Names are interned by rules and decoders (code and configuration), never by events, so the table is bounded by what
//! we load. An event's field whose name nobody asked for has [`Name::UNKNOWN`] and still takes part in keyword search.

use std::sync::{
    Arc, LazyLock, OnceLock, RwLock,
    atomic::{AtomicU64, Ordering},
};

use bytestring::ByteString;
use rustc_hash::FxHashMap;

/// A field name that some rule or decoder uses. The number is of this process only: never stored, never compared
/// across processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(u32);

#[derive(Default)]
struct Table {
    by_text: FxHashMap<Box<[u8]>, Name>,
    texts: Vec<Arc<str>>,
}

static TABLE: LazyLock<RwLock<Arc<Table>>> = LazyLock::new(|| {
    let mut table = Table::default();
    table.texts.push(Arc::from("")); // Name::UNKNOWN
    RwLock::new(Arc::new(table))
});
static VERSION: AtomicU64 = AtomicU64::new(1);

impl Name {
    /// The name of a field that nobody asked for.
    pub const UNKNOWN: Name = Name(0);

    /// Interns names of rules and decoders; call it with all of a rule set's names at once (each call copies the table).
    #[must_use]
    pub fn intern_all<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Name> {
        let mut guard = TABLE.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut table = Table { by_text: guard.by_text.clone(), texts: guard.texts.clone() };
        let names = texts
            .into_iter()
            .map(|text| {
                *table.by_text.entry(text.as_bytes().into()).or_insert_with(|| {
                    table.texts.push(Arc::from(text));
                    Name(u32::try_from(table.texts.len() - 1).expect("fewer than 2^32 field names in all rules"))
                })
            })
            .collect();
        *guard = Arc::new(table);
        VERSION.fetch_add(1, Ordering::Release);
        names
    }

    /// Interns one name.
    #[must_use]
    pub fn intern(text: &str) -> Name {
        if let Some(name) = Names::current().get(text.as_bytes()) {
            return name;
        }
        Name::intern_all([text]).first().copied().unwrap_or(Name::UNKNOWN)
    }

    /// Its text; empty for [`Name::UNKNOWN`].
    #[must_use]
    pub fn text(self) -> Arc<str> {
        let guard = TABLE.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        guard.texts.get(self.index()).map_or_else(|| Arc::from(""), Arc::clone)
    }

    /// Its number, dense from 0, for tables by name.
    #[must_use]
    #[allow(clippy::as_conversions)] // u32 fits usize on every machine we run on
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A view of the name table for one thread: no lock per look-up.
///
/// Take it once and call [`Names::refresh`] per batch; names are only ever added.
#[derive(Clone)]
pub struct Names {
    table: Arc<Table>,
    version: u64,
}

impl Names {
    /// The table as it is now.
    #[must_use]
    pub fn current() -> Names {
        let guard = TABLE.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Names { table: Arc::clone(&guard), version: VERSION.load(Ordering::Acquire) }
    }

    /// Takes the newer table, if there is one.
    #[inline]
    pub fn refresh(&mut self) {
        if self.version != VERSION.load(Ordering::Acquire) {
            *self = Names::current();
        }
    }

    /// Grows whenever names were added: what was looked up before may be known now.
    #[must_use]
    #[inline]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The name with this text, if anybody asked for it.
    #[must_use]
    #[inline]
    pub fn get(&self, text: &[u8]) -> Option<Name> {
        self.table.by_text.get(text).copied()
    }

    /// The same, [`Name::UNKNOWN`] if nobody did.
    #[must_use]
    #[inline]
    pub fn get_or_unknown(&self, text: &[u8]) -> Name {
        self.get(text).unwrap_or(Name::UNKNOWN)
    }
}

/// What a value was in the record. Its text is always there: a rule's `3389` matches the number and the string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A string (or a part of a text line).
    Text,
    /// A JSON number.
    Number,
    /// `true` or `false`.
    Bool,
    /// An explicit null; its text is empty.
    Null,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    name: Name,
    start: u32,
    end: u32,
    scalar: Scalar,
    held: Held,
}

/// Where the text of a value stands, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Record(Form),
    /// In the buffer of values that are no part of the record.
    Own,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Plain,
    /// As JSON without escapes: neither backslash nor quote is in it.
    Json,
    /// As a JSON string whose escapes are all `\\\\` or `\\"`.
    Escaped,
    /// As a JSON string with other escapes as well.
    EscapedOddly,
}

/// A value as the record holds it: for readers that look at few values, and unescape only those.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Its name.
    pub name: Name,
    /// Its text, written in its form.
    pub text: &'a str,
    /// What it was.
    pub scalar: Scalar,
    /// How it is written.
    pub form: Form,
    /// Where its text begins in [`Fields::record`], if it is a part of it.
    pub at: Option<usize>,
}

/// The fields of one event. A name may stand several times: the elements of a list.
///
/// Values are spans of the record wherever they can be: decoding copies nothing, and unescapes nothing that nobody asks
/// for.
///
/// ```
/// use cf_types::field::{Fields, Name, Scalar};
/// let image = Name::intern("Image");
/// let mut fields = Fields::default();
/// fields.push(image, "C:\\a.exe", Scalar::Text);
/// assert_eq!(fields.first(image), Some("C:\\a.exe"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Fields {
    record: ByteString,
    /// Values that are no part of the record.
    own: String,
    entries: Vec<Entry>,
    plain: OnceLock<Box<Plain>>,
}

impl Entry {
    const fn is_escaped(self) -> bool {
        matches!(self.held, Held::Record(Form::Escaped | Form::EscapedOddly))
    }
}

/// All escaped values of an event without their escapes.
#[derive(Clone, Debug, Default)]
struct Plain {
    text: String,
    /// By entry; `0..0` for those without escapes.
    spans: Vec<(usize, usize)>,
}

impl Fields {
    /// Begins anew with a record, and keeps the buffers.
    #[inline]
    pub fn begin(&mut self, record: ByteString) {
        self.clear();
        self.record = record;
    }

    /// Forgets the fields and keeps the buffers for the next event.
    #[inline]
    pub fn clear(&mut self) {
        self.record = ByteString::default();
        self.own.clear();
        self.entries.clear();
        self.plain = OnceLock::new();
    }

    /// The record of which values are parts; empty for events made otherwise.
    #[must_use]
    #[inline]
    pub fn record(&self) -> &str {
        &self.record
    }

    /// Adds a field; its value is copied unless it is a part of the record. Values beyond 4 GiB in sum are not added:
    /// records are capped far below.
    #[inline]
    pub fn push(&mut self, name: Name, value: &str, scalar: Scalar) {
        if let Some(start) = self.place(value) {
            return self.enter(name, start, value.len(), scalar, Held::Record(Form::Plain));
        }
        let start = self.own.len();
        self.own.push_str(value);
        self.enter(name, start, value.len(), scalar, Held::Own);
    }

    /// Adds a field whose value is a part of a JSON document: what stands between the quotes of a string, or a number.
    #[inline]
    pub fn push_json(&mut self, name: Name, value: &str, scalar: Scalar, form: Form) {
        if let Some(start) = self.place(value) {
            return self.enter(name, start, value.len(), scalar, Held::Record(form));
        }
        let start = self.own.len();
        match form {
            Form::Plain | Form::Json => self.own.push_str(value),
            Form::Escaped | Form::EscapedOddly => unescape(value, &mut self.own),
        }
        self.enter(name, start, self.own.len() - start, scalar, Held::Own);
    }

    /// The same for a value that is known to stand at a place of the record.
    #[inline]
    pub fn push_span(&mut self, name: Name, start: u32, end: u32, scalar: Scalar, form: Form) {
        self.entries.push(Entry { name, start, end, scalar, held: Held::Record(form) });
        if self.plain.get().is_some() {
            self.plain = OnceLock::new();
        }
    }

    /// Where a text stands in the record, if it is a part of it: by address, as `Bytes::slice_ref` does.
    #[inline]
    fn place(&self, value: &str) -> Option<usize> {
        let start = value.as_ptr().addr().checked_sub(self.record.as_ptr().addr())?;
        // An empty value is a part of anything; an address beyond the end is of another text.
        (start + value.len() <= self.record.len()).then_some(start)
    }

    #[inline]
    fn enter(&mut self, name: Name, start: usize, len: usize, scalar: Scalar, held: Held) {
        if let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(start + len)) {
            self.entries.push(Entry { name, start, end, scalar, held });
        }
        if self.plain.get().is_some() {
            self.plain = OnceLock::new();
        }
    }

    /// How many there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All fields as the record holds them, in its order.
    #[inline]
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        self.entries.iter().map(|entry| self.part_of(*entry))
    }

    /// One field by its place in [`Fields::parts`].
    #[must_use]
    #[inline]
    pub fn part(&self, at: usize) -> Option<Part<'_>> {
        self.entries.get(at).map(|entry| self.part_of(*entry))
    }

    #[inline]
    fn part_of(&self, entry: Entry) -> Part<'_> {
        Part {
            name: entry.name,
            text: self.held(entry),
            scalar: entry.scalar,
            form: if let Held::Record(form) = entry.held { form } else { Form::Plain },
            at: (entry.held != Held::Own).then(|| usize::try_from(entry.start).unwrap_or(0)),
        }
    }

    /// All fields in the order of the record: name, value text, kind.
    pub fn iter(&self) -> impl Iterator<Item = (Name, &str, Scalar)> {
        (0..).zip(&self.entries).map(|(at, entry)| (entry.name, self.value(at, *entry), entry.scalar))
    }

    /// All values of one name, in order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = (&str, Scalar)> {
        let entries = (0..).zip(&self.entries).filter(move |(_, entry)| entry.name == name);
        entries.map(|(at, entry)| (self.value(at, *entry), entry.scalar))
    }

    /// The first value of a name that is not null.
    #[must_use]
    pub fn first(&self, name: Name) -> Option<&str> {
        let mut entries = (0..).zip(&self.entries);
        let (at, entry) = entries.find(|(_, entry)| entry.name == name && entry.scalar != Scalar::Null)?;
        Some(self.value(at, *entry))
    }

    /// Whether the event has a field of this name, null or not.
    #[must_use]
    pub fn has(&self, name: Name) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// The names of all fields, in the order of the record.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        self.entries.iter().map(|entry| entry.name)
    }

    #[inline]
    fn held(&self, entry: Entry) -> &str {
        let span = usize::try_from(entry.start).unwrap_or(0)..usize::try_from(entry.end).unwrap_or(0);
        let text: &str = if entry.held == Held::Own { &self.own } else { &self.record };
        text.get(span).unwrap_or("") // checked when it was pushed
    }

    fn value(&self, at: usize, entry: Entry) -> &str {
        if !entry.is_escaped() {
            return self.held(entry);
        }
        let plain = self.plain.get_or_init(|| Box::new(self.unescaped()));
        plain.spans.get(at).and_then(|(start, end)| plain.text.get(*start..*end)).unwrap_or("")
    }

    fn unescaped(&self) -> Plain {
        let mut plain = Plain::default();
        for entry in &self.entries {
            let start = plain.text.len();
            if entry.is_escaped() {
                unescape(self.held(*entry), &mut plain.text);
            }
            plain.spans.push((start, plain.text.len()));
        }
        plain
    }
}

/// Appends what a JSON string means (RFC 8259, section 7), given what stands between its quotes. Total: what is no
/// escape stays as it is, and half a surrogate pair becomes the replacement character.
pub fn unescape(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        let (before, behind) = rest.split_at(at);
        out.push_str(before);
        let (meant, len) = escape_of(behind);
        out.push(meant);
        rest = behind.get(len..).unwrap_or("");
    }
    out.push_str(rest);
}

/// The character that the escape at the begin of a text means, and the escape's length.
fn escape_of(text: &str) -> (char, usize) {
    let meant = match text.as_bytes().get(1) {
        Some(b'u') => return escape_by_number(text),
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        _ => return ('\\', 1),
    };
    (meant, 2)
}

fn escape_by_number(text: &str) -> (char, usize) {
    let unit = |at: usize| -> Option<u32> {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) { u32::from_str_radix(digits, 16).ok() } else { None }
    };
    let Some(first) = unit(0) else { return ('\\', 1) };
    if let (0xd800..0xdc00, Some(second @ 0xdc00..0xe000)) = (first, unit(6)) {
        let both = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(both).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_record_are_not_copied() {
        let record = ByteString::from(r#"{"a":"C:\\x","b":"plain"}"#);
        let (a, b) = (Name::intern("a"), Name::intern("b"));
        let mut fields = Fields::default();
        fields.begin(record.clone());
        fields.push_json(a, record.get(6..11).unwrap(), Scalar::Text, Form::Escaped);
        fields.push(b, record.get(18..23).unwrap(), Scalar::Text);
        fields.push(b, "made", Scalar::Text);
        assert_eq!(fields.first(a), Some(r"C:\x"));
        assert_eq!(fields.all(b).map(|(text, _)| text).collect::<Vec<_>>(), ["plain", "made"]);
        let parts: Vec<_> = fields.parts().map(|part| (part.text, part.form, part.at)).collect();
        assert_eq!(
            parts,
            [(r"C:\\x", Form::Escaped, Some(6)), ("plain", Form::Plain, Some(18)), ("made", Form::Plain, None)]
        );
        assert_eq!(fields.own, "made");
    }

    #[test]
    fn escapes_mean_what_the_standard_says() {
        for (text, meant) in [
            (r#"a\"b\\c\/"#, "a\"b\\c/"),
            (r"\b\f\n\r\t", "\u{8}\u{c}\n\r\t"),
            (r"\u0041\u00e4\u20AC", "A\u{e4}\u{20ac}"),
            (r"\ud83d\ude00!", "\u{1f600}!"),
            (r"\ud83d x", "\u{fffd} x"),
            (r"\q\", r"\q\"),
            ("", ""),
        ] {
            let mut out = String::new();
            unescape(text, &mut out);
            assert_eq!(out, meant, "{text}");
        }
    }
}
