//! An event as the oracle sees it: names, values, the line, and what its decoder declared.

use std::{
    cell::OnceCell,
    collections::{BTreeSet, HashMap},
};

use cf_types::field::Names;

use crate::{fold::fold, json::Json, rule::LogSource};

/// What a value was in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A string.
    Text,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// No value.
    Null,
}

/// One value of one field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field {
    /// Its name; empty where nobody knows it any more. Such a field is found by keywords only.
    pub name: String,
    /// Its value as a text; empty if null.
    pub text: String,
    /// What it was.
    pub kind: Kind,
}

/// One event.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// Its fields; the elements of a list are fields of one name.
    pub fields: Vec<Field>,
    /// The raw record, where it is a line of text and not a JSON object.
    pub line: Option<String>,
    /// What its decoder declared.
    pub log_source: LogSource,
}

impl Event {
    /// The event that our decoder made.
    #[must_use]
    pub fn of(event: &cf_types::Event) -> Event {
        let fields = event.fields.iter().map(|(name, text, scalar)| Field {
            name: name.text().as_ref().to_owned(),
            text: text.to_owned(),
            kind: match scalar {
                cf_types::Scalar::Text => Kind::Text,
                cf_types::Scalar::Number => Kind::Number,
                cf_types::Scalar::Bool => Kind::Bool,
                cf_types::Scalar::Null => Kind::Null,
            },
        });
        let is_object = Json::read(&event.raw).is_some_and(|json| json.is_object());
        Event {
            fields: fields.collect(),
            line: if is_object { None } else { Some(String::from_utf8_lossy(&event.raw).into_owned()) },
            log_source: LogSource::of(&event.log_source),
        }
    }
}

impl Event {
    /// Its fields as a set, for comparing two readings of one record. A name that nobody asks for is lost, as it is in our
    /// decoder, and a fraction has one notation of several (`1.5e-5`, `0.000015`); of a number beyond 64 bits the last
    /// digits are nobody's.
    #[must_use]
    pub fn asked_for(&self) -> BTreeSet<Field> {
        let names = Names::current();
        let known = |name: &str| if names.get(name.as_bytes()).is_some() { name.to_owned() } else { String::new() };
        let fields = self.fields.iter();
        fields.map(|field| Field { name: known(&field.name), text: notation(field), kind: field.kind }).collect()
    }
}

fn notation(field: &Field) -> String {
    let fraction = field.kind == Kind::Number && field.text.contains(['.', 'e']);
    match field.text.parse::<f64>().ok().filter(|_| fraction) {
        Some(float) if float.abs() > 1e18 => format!("{float:.8e}"),
        Some(float) => format!("{float:?}"),
        None => field.text.clone(),
    }
}

/// An event while rules look at it.
pub(crate) struct Seen<'e> {
    pub(crate) log_source: &'e LogSource,
    values: Vec<Value<'e>>,
    by_name: HashMap<&'e str, Vec<usize>>,
}

/// One value, and what it is without case once somebody asked.
pub(crate) struct Value<'e> {
    pub(crate) text: &'e str,
    pub(crate) null: bool,
    folded: OnceCell<String>,
}

impl<'e> Seen<'e> {
    pub(crate) fn new(event: &'e Event) -> Seen<'e> {
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut values = Vec::new();
        for field in &event.fields {
            if !field.name.is_empty() {
                by_name.entry(&field.name).or_default().push(values.len());
            }
            values.push(Value { text: &field.text, null: field.kind == Kind::Null, folded: OnceCell::new() });
        }
        // Keywords are sought in the full log message; of a JSON record the values are the message.
        if let Some(line) = &event.line {
            values.push(Value { text: line, null: false, folded: OnceCell::new() });
        }
        Seen { log_source: &event.log_source, values, by_name }
    }

    /// All values of a field, nulls among them.
    pub(crate) fn field(&self, name: &str) -> impl Iterator<Item = &Value<'e>> {
        self.by_name.get(name).into_iter().flatten().filter_map(|at| self.values.get(*at))
    }

    /// All values of the event that are not null.
    pub(crate) fn everything(&self) -> impl Iterator<Item = &Value<'e>> {
        self.values.iter().filter(|value| !value.null)
    }

    /// The first value of a field that is not null.
    pub(crate) fn first(&self, name: &str) -> Option<&Value<'e>> {
        self.field(name).find(|value| !value.null)
    }
}

impl Value<'_> {
    pub(crate) fn folded(&self) -> &str {
        self.folded.get_or_init(|| fold(self.text))
    }
}
