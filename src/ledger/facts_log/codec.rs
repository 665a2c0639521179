//! How an epoch's detections of one hour lie in a frame: a table of texts, then numbers that point into it.
//!
//! Detections of one epoch share nearly all of their texts (rules, hosts, field names), so the table takes most of the
//! bytes away without a compressor. Numbers are LEB128, signed ones zigzag.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use cf_types::{Detection, Entity, EntityKind, EventId, Group, Item, Member, Position, Tenant, Time};

const VERSION: u64 = 1;

/// Writes detections.
pub(super) fn encode(detections: &[&Detection]) -> Vec<u8> {
    let mut table = Table::default();
    let mut out = Writer::default();
    out.length(detections.len());
    for detection in detections {
        put_detection(detection, &mut table, &mut out);
    }
    let mut whole = Writer::default();
    whole.number(VERSION);
    whole.length(table.texts.len());
    for text in table.texts {
        whole.length(text.len());
        whole.0.extend_from_slice(text.as_bytes());
    }
    whole.0.extend_from_slice(&out.0);
    whole.into_bytes()
}

/// Reads detections; `None` when that is none of ours.
pub(super) fn decode(payload: &[u8], strings: &mut Strings) -> Option<Vec<Detection>> {
    let mut input = Cursor::new(payload);
    if input.number()? != VERSION {
        return None;
    }
    let texts = input.many(|input| {
        let length = input.length()?;
        Some(strings.share(std::str::from_utf8(input.take(length)?).ok()?))
    })?;
    let detections = input.many(|input| take_detection(input, &texts))?;
    input.0.is_empty().then_some(detections)
}

fn put_detection<'a>(detection: &'a Detection, table: &mut Table<'a>, out: &mut Writer) {
    let Detection { tenant, rule, member, source, entities, items } = detection;
    let Member { time, id, declared_id, position } = member;
    out.number(table.of(tenant.as_str()));
    out.number(table.of(rule));
    out.number(table.of(source));
    out.signed(time.micros());
    out.0.extend_from_slice(&id.0);
    out.option(declared_id.as_ref().map(|text| table.of(text)), Writer::number);
    out.number(table.of(&position.origin));
    out.number(position.offset);
    out.number(position.line);
    out.number(u64::from(position.index));
    out.length(entities.len());
    for Entity { kind, value } in entities {
        out.number(table.of(kind.as_str()));
        out.number(table.of(value));
    }
    out.length(items.len());
    for Item { rule, reference, group, value } in items {
        out.number(table.of(rule));
        out.number(u64::from(*reference));
        out.length(group.iter().count());
        for (field, value) in group.iter() {
            out.number(table.of(field));
            out.number(table.of(value));
        }
        out.option(value.as_ref().map(|text| table.of(text)), Writer::number);
    }
}

fn take_detection(input: &mut Cursor<'_>, texts: &[Arc<str>]) -> Option<Detection> {
    let text = |input: &mut Cursor<'_>| -> Option<Arc<str>> {
        texts.get(usize::try_from(input.number()?).ok()?).map(Arc::clone)
    };
    Some(Detection {
        tenant: Tenant::new(&text(input)?),
        rule: text(input)?,
        source: text(input)?,
        member: Member {
            time: Time::from_micros(input.signed()?),
            id: EventId(*input.take(16)?.first_chunk::<16>()?),
            declared_id: input.option(text)?,
            position: Position {
                origin: text(input)?,
                offset: input.number()?,
                line: input.number()?,
                index: u32::try_from(input.number()?).ok()?,
            },
        },
        entities: input.many(|input| Some(Entity { kind: kind_of(&text(input)?)?, value: text(input)? }))?,
        items: input.many(|input| {
            Some(Item {
                rule: text(input)?,
                reference: u16::try_from(input.number()?).ok()?,
                group: Group::new(input.many(|input| Some((text(input)?, text(input)?)))?),
                value: input.option(text)?,
            })
        })?,
    })
}

fn kind_of(word: &str) -> Option<EntityKind> {
    use EntityKind::{Address, Domain, FileHash, Host, Process, User};
    [Host, User, Address, Process, FileHash, Domain].into_iter().find(|kind| kind.as_str() == word)
}

/// Texts that several frames share, once in memory.
#[derive(Debug, Default)]
pub(super) struct Strings(HashSet<Arc<str>>);

impl Strings {
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let fresh: Arc<str> = Arc::from(text);
        self.0.insert(Arc::clone(&fresh));
        fresh
    }
}

#[derive(Default)]
struct Table<'a> {
    numbers: HashMap<&'a str, u64>,
    texts: Vec<&'a str>,
}

impl<'a> Table<'a> {
    fn of(&mut self, text: &'a str) -> u64 {
        *self.numbers.entry(text).or_insert_with(|| {
            self.texts.push(text);
            u64::try_from(self.texts.len() - 1).unwrap_or(u64::MAX)
        })
    }
}

/// Writes numbers.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).unwrap_or(0));
    }

    pub(super) fn signed(&mut self, number: i64) {
        self.number(number.wrapping_shl(1).cast_unsigned() ^ (number >> 63).cast_unsigned());
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Writer, T)) {
        self.number(u64::from(value.is_some()));
        if let Some(value) = value {
            put(self, value);
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn length(&mut self, length: usize) {
        self.number(u64::try_from(length).unwrap_or(u64::MAX));
    }
}

/// Reads numbers.
#[derive(Debug)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor(bytes)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ (number & 1).cast_signed().wrapping_neg())
    }

    pub(super) fn option<T>(&mut self, take: impl FnOnce(&mut Cursor<'a>) -> Option<T>) -> Option<Option<T>> {
        match self.number()? {
            0 => Some(None),
            1 => take(self).map(Some),
            _ => None,
        }
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A list. Each entry takes a byte at least, so no count can ask for more memory than there are bytes.
    fn many<T>(&mut self, mut take: impl FnMut(&mut Cursor<'a>) -> Option<T>) -> Option<Vec<T>> {
        let count = self.length()?;
        if count > self.0.len() {
            return None;
        }
        (0..count).map(|_| take(self)).collect()
    }
}
