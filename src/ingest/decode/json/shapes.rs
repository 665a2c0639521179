//! Documents of a shape that was read before: what stands between their values is compared, not parsed.
//!
//! The documents of one log differ in their values and in little else. A *shape* is the document without its strings and
//! whole numbers: all other bytes as they are, and a plan that says which field each value is. Shapes share what they have
//! in common from the begin on, so they are a tree of *steps*: the bytes up to a value, and what kind of value it is.
//!
//! A shape is learned from a document that was parsed and flattened in full. So a document that fits it is valid JSON, and
//! gives the same fields, if (and only if) those do not depend on what its values say: see [`Shapes::learn`] for what is
//! not learned. What does not fit any shape in every byte is parsed. An attacker's shapes cost what parsing costs: there
//! are bounds, and what is beyond them is not learned.

use cf_types::{
    Fields, Name, Scalar,
    field::{Form, Part},
};

use super::{
    Kind, Node, Value,
    marks::{Marks, NOWHERE},
    reader::{SHORT_DIGITS, fits_64_bits},
};

/// Bytes of a lead that are compared at once.
const HEAD_BYTES: usize = 32;
/// Steps kept, and ways on from one of them.
const STEPS_MAX: usize = 16_384;
const WAYS_MAX: usize = 128;
/// Items of all plans.
const ITEMS_MAX: usize = 262_144;
/// Bytes of leads beyond their heads.
const RESTS_BYTES_MAX: usize = 4 << 20;
/// Nodes of a document that is learned.
const NODES_MAX: usize = 1_024;
/// Documents that could not be learned for want of room, after which all is forgotten and learned anew.
const MISSED_MAX: u32 = 65_536;
/// No step.
const NONE: u32 = u32::MAX;

/// The shapes of one source's documents, and buffers for reading along them.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    /// The first stands before every document.
    steps: Vec<Step>,
    rests: Vec<u8>,
    plans: Vec<Plan>,
    items: Vec<Item>,
    marks: Marks,
    spans: Vec<Span>,
    /// Documents that were not learned for want of room.
    missed: u32,
    names_version: u64,
}

/// The bytes before a value, and what follows them.
#[derive(Clone, Copy, Debug)]
struct Step {
    head: [u64; 4],
    mask: [u64; 4],
    len: u32,
    /// Where in [`Shapes::rests`] the bytes are that the head does not hold.
    rest: u32,
    then: Then,
    /// The first of the steps behind the value; at the end of a document the number of its plan.
    next: u32,
    /// Another step at the same place.
    or: u32,
}

/// What stands behind the bytes of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// A string, of which the step has the opening quote.
    Text,
    /// A whole number, as the reader knows it.
    Whole,
    End,
}

/// A value of the document.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
    escaped: bool,
}

/// What a document of a shape gives.
#[derive(Clone, Debug)]
struct Plan {
    items: std::ops::Range<usize>,
    depth: usize,
    places: Places<u32>,
}

/// A field.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// The number of its value, or [`NONE`] if the shape says it.
    value: u32,
    name: Name,
    scalar: Scalar,
    /// What the shape says.
    fixed: &'static str,
}

/// What of a document is more than a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places<T> {
    pub(crate) time: Option<T>,
    pub(crate) computer: Option<T>,
    pub(crate) channel: Option<T>,
    pub(crate) record_id: Option<T>,
}

/// A document that has a known shape.
pub(crate) struct Known<'s> {
    text: &'s str,
    plan: &'s Plan,
    items: &'s [Item],
    spans: &'s [Span],
    marks: &'s Marks,
}

impl Shapes {
    /// Forgets all, if the table of names has grown.
    pub(crate) fn refresh(&mut self, names_version: u64) {
        if self.names_version != names_version {
            self.names_version = names_version;
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.steps.clear();
        self.rests.clear();
        self.plans.clear();
        self.items.clear();
        self.missed = 0;
    }

    /// Reads a document along the shapes that are known.
    pub(crate) fn read<'s>(&'s mut self, text: &'s str) -> Option<Known<'s>> {
        let bytes = text.as_bytes();
        let mut number = self.steps.first()?.next;
        self.step_at(number, bytes, 0)?;
        self.marks.read(bytes);
        if self.marks.controls || self.marks.doubtful_escapes || u32::try_from(bytes.len()).is_err() {
            return None;
        }
        self.spans.clear();
        let mut at = 0;
        let plan = loop {
            let step = self.step_at(number, bytes, at)?;
            let start = at + index(step.len);
            let value = match step.then {
                Then::Text => Some(self.marks.string_from(start)),
                Then::Whole => whole_from(text, start).map(|end| (end, false)),
                Then::End if start == bytes.len() => break step.next,
                Then::End => None,
            };
            match value {
                Some((NOWHERE, _)) => return None,
                Some((end, escaped)) => {
                    number = step.next;
                    at = end;
                    self.spans.push(Span { start: short(start), end: short(end), escaped });
                }
                None => number = step.or,
            }
        };
        let plan = self.plans.get(index(plan))?;
        let items = self.items.get(plan.items.clone())?;
        Some(Known { text, plan, items, spans: &self.spans, marks: &self.marks })
    }

    /// The first of the steps at a place whose bytes stand there.
    #[inline]
    fn step_at(&self, mut number: u32, bytes: &[u8], at: usize) -> Option<&Step> {
        let window = bytes.get(at..).and_then(<[u8]>::first_chunk::<HEAD_BYTES>);
        loop {
            let step = self.steps.get(index(number))?;
            let fits = match window {
                Some(window) => step.fits(window) && (step.is_short() || self.rest_fits(step, bytes, at)),
                None => self.fits_at_end(step, bytes, at),
            };
            if fits {
                return Some(step);
            }
            number = step.or;
        }
    }

    fn rest_fits(&self, step: &Step, bytes: &[u8], at: usize) -> bool {
        let rest = self.rest(step);
        bytes.get(at + HEAD_BYTES..).is_some_and(|bytes| bytes.starts_with(rest))
    }

    fn rest(&self, step: &Step) -> &[u8] {
        let begin = index(step.rest);
        let len = index(step.len).saturating_sub(HEAD_BYTES);
        self.rests.get(begin..begin + len).unwrap_or_default()
    }

    /// The same, where less than a head is left.
    #[cold]
    fn fits_at_end(&self, step: &Step, bytes: &[u8], at: usize) -> bool {
        let left = bytes.get(at..).unwrap_or_default();
        let mut window = [0; HEAD_BYTES];
        if let Some(begin) = window.get_mut(..left.len()) {
            begin.copy_from_slice(left);
        }
        index(step.len) <= left.len() && step.fits(&window)
    }

    /// Learns the shape of a document and what it gave.
    ///
    /// Nothing is learned of a document whose fields may depend on values: where `Data` is a list or an object, a name may
    /// be a value; where a name has escapes or a number is not whole, values are written in several ways; and a field
    /// that is no part of the record was made of one.
    pub(crate) fn learn(&mut self, root: Value<'_, '_>, fields: &Fields, places: Places<usize>) {
        let document = root.document.text;
        let same_text = fields.record().as_ptr() == document.as_ptr() && fields.record().len() == document.len();
        if !same_text || root.nodes.len() > NODES_MAX {
            return;
        }
        let Some(values) = values(document, root.nodes) else { return };
        let has_room = self.steps.len() + values.len() < STEPS_MAX
            && self.items.len() + fields.len() < ITEMS_MAX
            && self.rests.len() + document.len() < RESTS_BYTES_MAX;
        if !has_room {
            self.missed += 1;
            if self.missed > MISSED_MAX {
                self.forget();
            }
            return;
        }
        let Some(items) = fields.parts().map(|part| item(&part, &values)).collect::<Option<Vec<Item>>>() else {
            return;
        };
        let Some(places) = places.try_map(|start| number_at(&values, start)) else { return };
        let begin = self.items.len();
        let plan = Plan { items: begin..begin + items.len(), depth: depth(root.nodes), places };
        if self.insert(document.as_bytes(), &values, short(self.plans.len())).is_some() {
            self.items.extend(items);
            self.plans.push(plan);
        }
    }

    /// Adds the steps of a document that are new; `None` if it has none, or there are too many ways.
    fn insert(&mut self, bytes: &[u8], values: &[Node], plan: u32) -> Option<()> {
        if self.steps.is_empty() {
            self.add(&[], Then::End, NONE);
        }
        let (mut step, mut at) = (0, 0);
        for value in values {
            let (start, end) = (index(value.start), index(value.end));
            let then = if value.kind == Kind::Whole { Then::Whole } else { Then::Text };
            step = self.step_behind(step, bytes.get(at..start)?, then)?;
            at = end;
        }
        let known = self.steps.len();
        let end = self.step_behind(step, bytes.get(at..)?, Then::End)?;
        let is_new = self.steps.len() > known;
        self.steps.get_mut(end).filter(|_| is_new)?.next = plan;
        Some(())
    }

    /// The number of the step that follows another, made if there is none.
    fn step_behind(&mut self, before: usize, lead: &[u8], then: Then) -> Option<usize> {
        let mut number = self.steps.get(before)?.next;
        let (mut last, mut ways) = (None, 0);
        while let Some(step) = self.steps.get(index(number)) {
            if step.then == then && index(step.len) == lead.len() && self.holds(step, lead) {
                return Some(index(number));
            }
            last = Some(index(number));
            ways += 1;
            number = step.or;
        }
        if ways >= WAYS_MAX {
            return None;
        }
        let new = self.steps.len();
        self.add(lead, then, NONE);
        match last {
            Some(last) => self.steps.get_mut(last)?.or = short(new),
            None => self.steps.get_mut(before)?.next = short(new),
        }
        Some(new)
    }

    fn holds(&self, step: &Step, lead: &[u8]) -> bool {
        let (head, rest) = lead.split_at(lead.len().min(HEAD_BYTES));
        step.head == words(head) && self.rest(step) == rest
    }

    fn add(&mut self, lead: &[u8], then: Then, next: u32) {
        let (head, rest) = lead.split_at(lead.len().min(HEAD_BYTES));
        let mask = words([0xff; HEAD_BYTES].get(..head.len()).unwrap_or_default());
        let (len, at) = (short(lead.len()), short(self.rests.len()));
        self.steps.push(Step { head: words(head), mask, len, rest: at, then, next, or: NONE });
        self.rests.extend_from_slice(rest);
    }
}

impl Step {
    #[inline]
    fn fits(&self, window: &[u8; HEAD_BYTES]) -> bool {
        let (window, _) = window.as_chunks::<8>();
        let differ = window.iter().zip(self.head).zip(self.mask);
        differ.fold(0, |sum, ((bytes, head), mask)| sum | ((u64::from_le_bytes(*bytes) ^ head) & mask)) == 0
    }

    fn is_short(&self) -> bool {
        index(self.len) <= HEAD_BYTES
    }
}

impl Known<'_> {
    /// Whether a source with these limits takes it.
    pub(crate) fn is_within(&self, fields_max: usize, depth_max: usize) -> bool {
        self.items.len() <= fields_max && self.plan.depth <= depth_max
    }

    /// What of it is more than a field; `None` if something has escapes.
    pub(crate) fn places(&self) -> Option<Places<&str>> {
        self.plan.places.try_map(|number| {
            let span = self.spans.get(index(number)).filter(|span| !span.escaped)?;
            self.text.get(index(span.start)..index(span.end))
        })
    }

    /// Adds its fields.
    pub(crate) fn fill(&self, fields: &mut Fields) {
        for item in self.items {
            match self.spans.get(index(item.value)) {
                Some(span) => {
                    let part = || index(span.start)..index(span.end);
                    let form = if span.escaped { self.marks.form(part()) } else { Form::Json };
                    fields.push_span(item.name, span.start, span.end, item.scalar, form);
                }
                None => fields.push(item.name, item.fixed, item.scalar),
            }
        }
    }
}

impl<T: Copy> Places<T> {
    /// The same for each; `None` if it is `None` for one that is there.
    pub(crate) fn try_map<R>(self, map: impl Fn(T) -> Option<R>) -> Option<Places<R>> {
        let each = |place: Option<T>| place.map_or(Some(None), |place| map(place).map(Some));
        Some(Places {
            time: each(self.time)?,
            computer: each(self.computer)?,
            channel: each(self.channel)?,
            record_id: each(self.record_id)?,
        })
    }
}

/// The strings and whole numbers of a document, in its order; `None` if it is none to be learned.
fn values(document: &str, nodes: &[Node]) -> Option<Vec<Node>> {
    let mut values = Vec::new();
    let mut of_data = false;
    for node in nodes {
        match node.kind {
            Kind::Text | Kind::TextEscaped | Kind::Whole => values.push(*node),
            Kind::KeyEscaped | Kind::Number => return None,
            Kind::Object | Kind::Array if of_data => return None,
            Kind::Object | Kind::Array | Kind::Key | Kind::True | Kind::False | Kind::Null => {}
        }
        of_data = node.kind == Kind::Key && document.get(index(node.start)..index(node.end)) == Some("Data");
    }
    Some(values)
}

/// How deep a document nests.
fn depth(nodes: &[Node]) -> usize {
    let (mut open, mut deepest): (Vec<usize>, usize) = (Vec::new(), 0);
    for (at, node) in nodes.iter().enumerate() {
        while open.last().is_some_and(|end| *end <= at) {
            open.pop();
        }
        if matches!(node.kind, Kind::Object | Kind::Array) {
            open.push(at + 1 + index(node.extra));
            deepest = deepest.max(open.len());
        }
    }
    deepest
}

/// A field as a plan has it; `None` if it is neither a value of the document nor said by its shape.
fn item(part: &Part<'_>, values: &[Node]) -> Option<Item> {
    let Part { name, scalar, .. } = *part;
    let Some(start) = part.at else {
        let fixed = match (scalar, part.text) {
            (Scalar::Null, "") => "",
            (Scalar::Bool, "true") => "true",
            (Scalar::Bool, "false") => "false",
            _ => return None,
        };
        return Some(Item { value: NONE, name, scalar, fixed });
    };
    let value = number_at(values, start)?;
    let node = values.get(index(value))?;
    let as_written = match node.kind {
        Kind::Text => (part.form, scalar) == (Form::Json, Scalar::Text),
        Kind::TextEscaped => matches!(part.form, Form::Escaped | Form::EscapedOddly) && scalar == Scalar::Text,
        _ => (part.form, scalar) == (Form::Json, Scalar::Number),
    };
    let whole = index(node.end) == start + part.text.len();
    (as_written && whole).then_some(Item { value, name, scalar, fixed: "" })
}

/// The number of the value that begins at a place.
fn number_at(values: &[Node], start: usize) -> Option<u32> {
    values.binary_search_by_key(&start, |node| index(node.start)).ok().map(short)
}

/// Up to 32 bytes as words, zeros behind them.
fn words(bytes: &[u8]) -> [u64; 4] {
    let mut whole = [0; HEAD_BYTES];
    if let Some(begin) = whole.get_mut(..bytes.len()) {
        begin.copy_from_slice(bytes);
    }
    let (chunks, _) = whole.as_chunks::<8>();
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(chunks) {
        *word = u64::from_le_bytes(*chunk);
    }
    words
}

/// The end of the whole number that begins at a place, if the reader would take it for one. What must not follow a number
/// does not begin a step.
#[inline]
fn whole_from(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let negative = bytes.get(start) == Some(&b'-');
    let first = start + usize::from(negative);
    let digits = digits_from(bytes, first);
    let leading_zero = bytes.get(first) == Some(&b'0') && (digits > 1 || negative);
    let end = first + digits;
    let fits = digits <= SHORT_DIGITS || fits_64_bits(text.get(start..end));
    (digits > 0 && fits && !leading_zero).then_some(end)
}

/// Digits in a row, eight at a time.
#[inline]
fn digits_from(bytes: &[u8], start: usize) -> usize {
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    const SIXES: u64 = 0x0606_0606_0606_0606;
    let mut at = start;
    while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let eight = u64::from_le_bytes(*eight);
        // A digit's upper half is 3, and still 3 with six added. A carry reaches only bytes behind the first other one.
        let other = ((eight ^ ZEROS) | (eight.wrapping_add(SIXES) ^ ZEROS)) & HIGH;
        if other != 0 {
            return at + usize::try_from(other.trailing_zeros() / 8).unwrap_or(0) - start;
        }
        at += 8;
    }
    let left = bytes.get(at..).unwrap_or_default();
    at + left.iter().take_while(|byte| byte.is_ascii_digit()).count() - start
}

#[allow(clippy::as_conversions)] // u32 fits usize on every machine we run on
#[inline]
const fn index(number: u32) -> usize {
    number as usize
}

/// Documents are below 4 GiB, and so are the bounds.
#[inline]
fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_end_where_a_plain_walk_ends(text in "-?[0-9]{0,21}[-/:. \u{e9}a]?[0-9]{0,3}") {
            let bytes = text.as_bytes();
            let first = usize::from(bytes.first() == Some(&b'-'));
            let digits = bytes.iter().skip(first).take_while(|byte| byte.is_ascii_digit()).count();
            let shown = text.get(..first + digits).unwrap();
            let whole = shown.parse::<i128>().is_ok_and(|number| {
                number.to_string() == shown && (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number)
            });
            prop_assert_eq!(whole_from(&text, 0), whole.then_some(first + digits));
        }
    }
}
