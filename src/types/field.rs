//! The fields of an event, flat: names as symbols, values as spans of one text buffer, no allocation per field.
//!
//! Names are interned by rules and decoders (code and configuration), never by events, so the table is bounded by what
//! we load. An event's field whose name nobody asked for has [`Name::UNKNOWN`] and still takes part in keyword search.

use std::sync::{
    Arc, LazyLock, RwLock,
    atomic::{AtomicU64, Ordering},
};

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
    pub fn refresh(&mut self) {
        if self.version != VERSION.load(Ordering::Acquire) {
            *self = Names::current();
        }
    }

    /// The name with this text, if anybody asked for it.
    #[must_use]
    pub fn get(&self, text: &[u8]) -> Option<Name> {
        self.table.by_text.get(text).copied()
    }

    /// The same, [`Name::UNKNOWN`] if nobody did.
    #[must_use]
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
}

/// The fields of one event. A name may stand several times: the elements of a list.
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
    text: String,
    entries: Vec<Entry>,
}

impl Fields {
    /// Takes over a text buffer whose parts are to be named by [`Fields::push_span`].
    #[must_use]
    pub fn over(text: String) -> Fields {
        Fields { text, entries: Vec::new() }
    }

    /// Forgets the fields and gives the buffers back for the next event.
    pub fn clear(&mut self) {
        self.text.clear();
        self.entries.clear();
    }

    /// Adds a field whose value is copied. Values beyond 4 GiB in sum are not added: records are capped far below.
    pub fn push(&mut self, name: Name, value: &str, scalar: Scalar) {
        let start = self.text.len();
        self.text.push_str(value);
        let end = self.text.len();
        self.push_span(name, start..end, scalar);
    }

    /// Adds a field whose value is a part of the buffer. A span that is not one (out of range, inside a character) is
    /// taken for empty.
    pub fn push_span(&mut self, name: Name, span: std::ops::Range<usize>, scalar: Scalar) {
        let span = if self.text.get(span.clone()).is_some() { span } else { 0..0 };
        if let (Ok(start), Ok(end)) = (u32::try_from(span.start), u32::try_from(span.end)) {
            self.entries.push(Entry { name, start, end, scalar });
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All fields in the order of the record: name, value text, kind.
    pub fn iter(&self) -> impl Iterator<Item = (Name, &str, Scalar)> {
        self.entries.iter().map(|entry| (entry.name, self.value(*entry), entry.scalar))
    }

    /// All values of one name, in order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = (&str, Scalar)> {
        self.entries.iter().filter(move |entry| entry.name == name).map(|entry| (self.value(*entry), entry.scalar))
    }

    /// The first value of a name that is not null.
    #[must_use]
    pub fn first(&self, name: Name) -> Option<&str> {
        self.entries
            .iter()
            .find(|entry| entry.name == name && entry.scalar != Scalar::Null)
            .map(|entry| self.value(*entry))
    }

    /// Whether the event has a field of this name, null or not.
    #[must_use]
    pub fn has(&self, name: Name) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    fn value(&self, entry: Entry) -> &str {
        let span = usize::try_from(entry.start).unwrap_or(0)..usize::try_from(entry.end).unwrap_or(0);
        self.text.get(span).unwrap_or("") // checked when it was pushed
    }
}
