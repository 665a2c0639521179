//! Mappings, checked and made quick to apply: paths as interned names, values to collect as numbered slots.

use std::{collections::BTreeMap, sync::Arc};

use cf_types::{Name, entity::EntityKind};
use rustc_hash::FxHashMap;

use crate::{
    decode::{
        json::{Value, elements, is_array, is_null, member, members, shown},
        vendor::find,
    },
    mapping::{Given, Line, Made, Mapping, MappingError, OneOrMany, Payload},
};

/// Payloads of one mapping.
const PAYLOADS_MAX: usize = 512;
/// Fields of one payload, those of its groups included.
const FIELDS_MAX: usize = 1_024;
/// Bytes of a path or word.
const TEXT_BYTES_MAX: usize = 1_024;
/// Nesting of what a field gets.
const NESTING_MAX: usize = 4;
const NOTHING_GIVEN: &str = "a field says nothing that can be given; hint: a path, `each`, `of` (with `words`, `begins`, \
                             `after` or `before`), `json`, `list` with `named`, or `is`";

/// The payloads of one mapping.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
    /// A row whose condition begins with this member of the document.
    by_key: FxHashMap<Box<str>, Vec<usize>>,
    /// Fields that name entities: product, kind, field.
    pub(crate) entities: Vec<(Option<Arc<str>>, EntityKind, Arc<str>)>,
}

/// A kind of document.
#[derive(Debug)]
pub(crate) struct Row {
    when: Vec<Vec<Condition>>,
    pub(crate) words: [Option<Maker>; 3],
    pub(crate) times: Vec<String>,
    pub(crate) ids: Vec<String>,
    /// What is collected of an event before fields are made of it.
    pub(crate) slots: FxHashMap<Name, usize>,
    pub(crate) copies: Vec<Copied>,
    pub(crate) inside: Vec<String>,
    pub(crate) line: Option<Line>,
    pub(crate) split: Option<String>,
    pub(crate) spread: Option<Vec<String>>,
    pub(crate) otlp: bool,
}

/// A field that an event gets.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) target: Name,
    /// Where its own values are, if they forbid it more: a word for an own value stands beside it.
    pub(crate) own: Option<usize>,
    pub(crate) maker: Maker,
}

/// How a text comes of an event.
#[derive(Debug)]
pub(crate) enum Maker {
    Fixed(Arc<str>),
    Slot(usize),
    Template(Vec<Part>),
    First(Vec<Maker>),
    Each(Vec<Maker>),
    Words {
        of: Vec<Maker>,
        words: FxHashMap<String, Arc<str>>,
        otherwise: Option<Arc<str>>,
    },
    Begins {
        of: Vec<Maker>,
        begins: Vec<(String, String)>,
    },
    /// The part of a value behind (`true`) or before a text.
    Cut {
        of: Vec<Maker>,
        at: String,
        behind: bool,
    },
    Json(String),
    Named {
        list: String,
        named: String,
        front: String,
    },
    /// Only if a slot has a value (`true`) or none.
    If {
        slot: usize,
        present: bool,
        then: Box<Maker>,
    },
}

impl Maker {
    /// Whether it makes another text of the values of a slot.
    fn changes(&self, slot: usize) -> bool {
        let (Maker::Words { of, .. } | Maker::Begins { of, .. } | Maker::Cut { of, .. }) = self else {
            return false;
        };
        of.iter().any(|maker| matches!(maker, Maker::Slot(other) if *other == slot))
    }
}

/// A part of a template.
#[derive(Debug)]
pub(crate) enum Part {
    Text(String),
    Slot(usize),
}

#[derive(Debug)]
struct Condition {
    path: String,
    values: Vec<Pattern>,
}

#[derive(Debug)]
enum Pattern {
    Any,
    Absent,
    Equal(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
}

impl Table {
    /// Checks a mapping. Groups that it does not define are taken from `shipped`.
    pub(crate) fn new<'s>(mapping: &Mapping, shipped: impl Fn() -> &'s Mapping) -> Result<Table, MappingError> {
        if mapping.payloads.is_empty() {
            return Ok(Table::default());
        }
        let shipped = shipped();
        if mapping.payloads.len() > PAYLOADS_MAX {
            let problem = format!("{} payloads; at most {PAYLOADS_MAX} are allowed", mapping.payloads.len());
            return Err(MappingError::Payload { payload: String::new(), problem });
        }
        let mut table = Table::default();
        let names = intern(mapping, shipped);
        for payload in &mapping.payloads {
            let refuse = |problem| MappingError::Payload { payload: payload.name.clone(), problem };
            let row = Building { names: &names, slots: FxHashMap::default() }
                .row(payload, &[mapping, shipped])
                .map_err(refuse)?;
            table.add_entities(payload).map_err(refuse)?;
            table.rows.push(row);
        }
        table.index();
        Ok(table)
    }

    fn add_entities(&mut self, payload: &Payload) -> Result<(), String> {
        let products: Vec<Option<Arc<str>>> = match payload.product.as_ref().map(words_of) {
            Some(words) if !words.is_empty() => words.into_iter().map(|word| Some(Arc::from(word))).collect(),
            _ => vec![None],
        };
        for (kind, fields) in &payload.entities {
            let kind = KINDS.into_iter().find(|known| known.as_str() == kind).ok_or_else(|| {
                format!("unknown kind of entity {kind:?}; hint: host, user, address, process, file_hash, domain")
            })?;
            for field in fields {
                let field: Arc<str> = Arc::from(checked(field)?);
                self.entities.extend(products.iter().map(|product| (product.clone(), kind, Arc::clone(&field))));
            }
        }
        Ok(())
    }

    /// Finds a row by the first part of that path of each condition which the fewest rows share.
    fn index(&mut self) {
        let mut shared: FxHashMap<&str, usize> = FxHashMap::default();
        for condition in self.rows.iter().flat_map(|row| row.when.iter().flatten()) {
            *shared.entry(head(&condition.path)).or_default() += 1;
        }
        let mut by_key: FxHashMap<Box<str>, Vec<usize>> = FxHashMap::default();
        for (number, row) in self.rows.iter().enumerate() {
            for all in &row.when {
                let present = all.iter().filter(|condition| !condition.wants_absence());
                let rarest = present.min_by_key(|condition| shared.get(head(&condition.path)));
                for key in rarest.into_iter().flat_map(|condition| beginnings(&condition.path)) {
                    let rows = by_key.entry(Box::from(key)).or_default();
                    if rows.last() != Some(&number) {
                        rows.push(number);
                    }
                }
            }
        }
        self.by_key = by_key;
    }

    /// The first row that a document fits.
    pub(crate) fn recognise(&self, root: Value<'_, '_>) -> Option<&Row> {
        if self.rows.is_empty() {
            return None;
        }
        let mut found: Option<usize> = None;
        for (key, _) in members(root) {
            for number in self.by_key.get(key).into_iter().flatten() {
                if found.is_none_or(|found| *number < found) && self.rows.get(*number).is_some_and(|row| row.fits(root))
                {
                    found = Some(*number);
                }
            }
        }
        self.rows.get(found?)
    }
}

const KINDS: [EntityKind; 6] = [
    EntityKind::Host,
    EntityKind::User,
    EntityKind::Address,
    EntityKind::Process,
    EntityKind::FileHash,
    EntityKind::Domain,
];

fn head(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}

/// The names that the first member of a path may have: up to its first dot, up to its second, ..., all of it.
fn beginnings(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('.').filter_map(|(at, _)| path.get(..at)).chain([path])
}

impl Row {
    fn fits(&self, root: Value<'_, '_>) -> bool {
        self.when.iter().any(|all| all.iter().all(|condition| condition.holds(root))) && self.has_list(root)
    }

    /// Whether what is to be cut into events is a list yet: what came of cutting is not.
    fn has_list(&self, root: Value<'_, '_>) -> bool {
        if let Some(list) = &self.split {
            return member(root, list).is_some_and(is_array);
        }
        let Some(steps) = &self.spread else {
            return true;
        };
        let mut value = Some(root);
        steps.iter().any(|step| {
            value = value.and_then(|value| member(value, step));
            value.is_some_and(is_array)
        })
    }
}

impl Condition {
    fn wants_absence(&self) -> bool {
        self.values.iter().any(|value| matches!(value, Pattern::Absent))
    }

    fn holds(&self, root: Value<'_, '_>) -> bool {
        let Some(value) = find(root, &self.path).filter(|value| !is_null(*value)) else {
            return self.wants_absence();
        };
        self.values.iter().any(|pattern| match pattern {
            Pattern::Any => true,
            Pattern::Absent => false,
            pattern => elements(value).filter_map(shown).any(|text| pattern.fits(text)),
        })
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Pattern, String> {
        let lower = checked(text)?.to_lowercase();
        Ok(match (lower.as_str(), lower.strip_prefix('*'), lower.strip_suffix('*')) {
            ("*", _, _) => Pattern::Any,
            ("-", _, _) => Pattern::Absent,
            (_, Some(rest), Some(_)) => Pattern::Contains(rest.trim_end_matches('*').to_owned()),
            (_, Some(rest), None) => Pattern::Suffix(rest.to_owned()),
            (_, None, Some(rest)) => Pattern::Prefix(rest.to_owned()),
            (whole, None, None) => Pattern::Equal(whole.to_owned()),
        })
    }

    fn fits(&self, text: &str) -> bool {
        if let Pattern::Equal(whole) = self {
            return text.len() == whole.len() && text.eq_ignore_ascii_case(whole);
        }
        if text.len() > TEXT_BYTES_MAX {
            return false;
        }
        let text = text.to_lowercase();
        match self {
            Pattern::Any => true,
            Pattern::Absent | Pattern::Equal(_) => false,
            Pattern::Prefix(begin) => text.starts_with(begin),
            Pattern::Suffix(end) => text.ends_with(end),
            Pattern::Contains(part) => text.contains(part),
        }
    }
}

type Groups<'a> = &'a [&'a Mapping; 2];

/// A row while it is made: slots get their numbers as paths are met.
struct Building<'n> {
    names: &'n FxHashMap<String, Name>,
    slots: FxHashMap<Name, usize>,
}

impl Building<'_> {
    fn row(mut self, payload: &Payload, groups: Groups<'_>) -> Result<Row, String> {
        let when = payload.when.as_slice().iter().map(conditions).collect::<Result<Vec<_>, String>>()?;
        if !when.iter().all(|all| all.iter().any(|condition| !condition.wants_absence())) || when.is_empty() {
            return Err("`when` must name a member that is there; hint: when: {vendor.id: '*'}".to_owned());
        }
        let word = |building: &mut Self, given: &Option<Given>| {
            given.as_ref().map(|given| building.maker(given, Text::Word, 0)).transpose()
        };
        let words = [
            word(&mut self, &payload.product)?,
            word(&mut self, &payload.category)?,
            word(&mut self, &payload.service)?,
        ];
        let mut copies: Vec<Copied> = Vec::new();
        for (target, given) in fields_of(payload, groups)? {
            let maker = self.maker(given, Text::Path, 0)?;
            let target = self.name(target)?;
            let own = self.slot_of(target);
            copies.push(Copied { target, own: (!maker.changes(own)).then_some(own), maker });
        }
        if copies.len() > FIELDS_MAX {
            return Err(format!("{} fields; at most {FIELDS_MAX} are allowed", copies.len()));
        }
        for path in payload.time.as_slice().iter().chain(payload.id.as_slice()).chain(payload.inside.as_slice()) {
            checked(path)?;
        }
        Ok(Row {
            when,
            words,
            times: payload.time.as_slice().to_vec(),
            ids: payload.id.as_slice().to_vec(),
            slots: self.slots,
            copies,
            inside: payload.inside.as_slice().to_vec(),
            line: payload.line.clone(),
            split: payload.split.clone(),
            spread: payload.spread.as_ref().map(|path| path.split('.').map(str::to_owned).collect()),
            otlp: payload.otlp,
        })
    }

    fn maker(&mut self, given: &Given, text: Text, nesting: usize) -> Result<Maker, String> {
        if nesting > NESTING_MAX {
            return Err(format!("a field nests deeper than {NESTING_MAX} levels"));
        }
        Ok(match given {
            Given::Text(template) if template.contains('{') => self.template(template)?,
            Given::Text(word) if text == Text::Word => Maker::Fixed(Arc::from(checked(word)?)),
            Given::Text(path) => Maker::Slot(self.slot(path)?),
            Given::First(all) => Maker::First(self.makers(all, text, nesting)?),
            Given::Made(made) => self.made(made, text, nesting)?,
        })
    }

    fn makers(&mut self, all: &[Given], text: Text, nesting: usize) -> Result<Vec<Maker>, String> {
        all.iter().map(|given| self.maker(given, text, nesting + 1)).collect()
    }

    fn made(&mut self, made: &Made, text: Text, nesting: usize) -> Result<Maker, String> {
        let mut maker = self.made_always(made, text, nesting)?;
        for (path, present) in [(&made.unless, false), (&made.with, true)] {
            if let Some(path) = path {
                maker = Maker::If { slot: self.slot(path)?, present, then: Box::new(maker) };
            }
        }
        Ok(maker)
    }

    fn made_always(&mut self, made: &Made, text: Text, nesting: usize) -> Result<Maker, String> {
        let otherwise = made.otherwise.as_deref().map(checked).transpose()?.map(Arc::from);
        let mut of = Vec::new();
        for path in made.of.as_slice() {
            of.push(if path.contains('{') { self.template(path)? } else { Maker::Slot(self.slot(path)?) });
        }
        Ok(match made {
            Made { json: Some(path), .. } => Maker::Json(checked(path)?.to_owned()),
            Made { is: Some(word), .. } => Maker::Fixed(Arc::from(checked(word)?)),
            Made { list: Some(list), named: Some(named), front, .. } => Maker::Named {
                list: checked(list)?.to_owned(),
                named: checked(named)?.to_owned(),
                front: front.clone().unwrap_or_default(),
            },
            Made { each, .. } if !each.is_empty() => Maker::Each(self.makers(each, text, nesting)?),
            _ if of.is_empty() => return Err(NOTHING_GIVEN.to_owned()),
            Made { words, .. } if !words.is_empty() => {
                let lower = |(from, to): (&String, &String)| (from.to_lowercase(), Arc::from(to.as_str()));
                Maker::Words { of, words: words.iter().map(lower).collect(), otherwise }
            }
            Made { begins, .. } if !begins.is_empty() => {
                // Longest first: `HKEY_USERS\.DEFAULT` before `HKEY_USERS`.
                let mut begins: Vec<_> = begins.iter().map(|(from, to)| (from.clone(), to.clone())).collect();
                begins.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
                Maker::Begins { of, begins }
            }
            Made { after: Some(at), .. } => Maker::Cut { of, at: checked(at)?.to_owned(), behind: true },
            Made { before: Some(at), .. } => Maker::Cut { of, at: checked(at)?.to_owned(), behind: false },
            _ => Maker::First(of),
        })
    }

    fn template(&mut self, template: &str) -> Result<Maker, String> {
        let mut parts = Vec::new();
        let mut rest = checked(template)?;
        while let Some((before, after)) = rest.split_once('{') {
            let (path, after) =
                after.split_once('}').ok_or_else(|| format!("{template:?} has a brace that nothing closes"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Slot(self.slot(path)?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Maker::Template(parts))
    }

    fn name(&self, text: &str) -> Result<Name, String> {
        self.names.get(checked(text)?).copied().ok_or_else(|| format!("{text:?} was not interned"))
    }

    fn slot(&mut self, path: &str) -> Result<usize, String> {
        let name = self.name(path)?;
        Ok(self.slot_of(name))
    }

    fn slot_of(&mut self, name: Name) -> usize {
        let next = self.slots.len();
        *self.slots.entry(name).or_insert(next)
    }
}

/// What a plain text in a mapping stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    Path,
    Word,
}

fn conditions(all: &BTreeMap<String, OneOrMany<String>>) -> Result<Vec<Condition>, String> {
    let condition = |(path, values): (&String, &OneOrMany<String>)| {
        let values = values.as_slice().iter().map(|value| Pattern::new(value)).collect::<Result<Vec<_>, String>>()?;
        Ok(Condition { path: checked(path)?.to_owned(), values })
    };
    all.iter().map(condition).collect()
}

/// A payload's fields and those of its groups; its own win.
fn fields_of<'a>(payload: &'a Payload, groups: Groups<'a>) -> Result<BTreeMap<&'a str, &'a Given>, String> {
    let mut fields = BTreeMap::new();
    for name in &payload.groups {
        let group = groups.iter().find_map(|mapping| mapping.groups.get(name));
        let group = group.ok_or_else(|| format!("unknown group {name:?}"))?;
        for (target, given) in group {
            fields.entry(target.as_str()).or_insert(given);
        }
    }
    fields.extend(payload.fields.iter().map(|(target, given)| (target.as_str(), given)));
    Ok(fields)
}

/// Interns all names that a mapping speaks of, at once.
fn intern(mapping: &Mapping, shipped: &Mapping) -> FxHashMap<String, Name> {
    let mut texts: Vec<String> = Vec::new();
    for payload in &mapping.payloads {
        let words = [&payload.product, &payload.category, &payload.service];
        words.into_iter().flatten().for_each(|given| paths_of(given, 0, &mut texts));
        for (target, given) in fields_of(payload, &[mapping, shipped]).unwrap_or_default() {
            texts.push(target.to_owned());
            paths_of(given, 0, &mut texts);
        }
    }
    texts.sort_unstable();
    texts.dedup();
    let names = Name::intern_all(texts.iter().map(String::as_str));
    texts.into_iter().zip(names).collect()
}

fn paths_of(given: &Given, nesting: usize, texts: &mut Vec<String>) {
    if nesting > NESTING_MAX {
        return; // refused when the row is made
    }
    match given {
        Given::Text(template) if template.contains('{') => {
            let paths = template.split('{').skip(1).filter_map(|part| part.split_once('}'));
            texts.extend(paths.map(|(path, _)| path.to_owned()));
        }
        Given::Text(path) => texts.push(path.clone()),
        Given::First(all) => all.iter().for_each(|given| paths_of(given, nesting + 1, texts)),
        Given::Made(made) => {
            texts.extend(made.unless.iter().chain(&made.with).cloned());
            made.of.as_slice().iter().for_each(|path| paths_of(&Given::Text(path.clone()), nesting, texts));
            made.each.iter().for_each(|given| paths_of(given, nesting + 1, texts));
        }
    }
}

/// The words that a log source's part can be.
fn words_of(given: &Given) -> Vec<&str> {
    match given {
        Given::Text(word) if !word.contains('{') => vec![word],
        Given::Text(_) => Vec::new(),
        Given::First(all) => all.iter().flat_map(words_of).collect(),
        Given::Made(made) => {
            let fixed = made.words.values().chain(&made.otherwise).chain(&made.is).map(String::as_str);
            fixed.chain(made.each.iter().flat_map(words_of)).collect()
        }
    }
}

fn checked(text: &str) -> Result<&str, String> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        let shown: String = text.chars().take(64).collect();
        return Err(format!("{shown:?} has {} bytes; paths and words have 1 to {TEXT_BYTES_MAX}", text.len()));
    }
    Ok(text)
}
