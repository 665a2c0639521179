//! One field of a selection: its modifiers, and its values made into tests.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use regex::{Regex, RegexBuilder};

use crate::{
    outline::{Item, Wanted},
    problem::{Place, Problems, Refused, did_you_mean, shown},
    rule::{Comparison, Matcher, Number, Part, Pattern, Shape, TimePart},
    yaml::{Kind, Node},
};

/// Bytes of one compiled regular expression. `\w{1,64}` of a public rule needs more than two MiB.
const REGEX_BYTES_MAX: usize = 10 << 20;
/// The same where a document has more than a few: thousands of large ones would fill the memory.
const REGEX_BYTES_OF_MANY_MAX: usize = 256 << 10;
/// What counts as a few.
const REGEXES_LARGE_MAX: usize = 16;
/// Regular expressions of one document. The public rule with most has 20.
const REGEXES_MAX: usize = 2_000;
/// Bytes of the states that one expression keeps per thread while it is searched; beyond it they are made anew.
const REGEX_CACHE_BYTES_MAX: usize = 1 << 20;
/// Tests of one document, each variant of a value counted. The largest public rule has 4,432.
pub(super) const TESTS_MAX: usize = 50_000;
/// Nesting of one regular expression.
const REGEX_DEPTH_MAX: u32 = 64;
/// Bytes of the texts that one value with placeholders stands for.
const EXPANDED_BYTES_MAX: usize = 16 << 20;
/// Tests that one value may become (`windash`).
const VARIANTS_MAX: usize = 128;

/// What a field's name says: the field and its modifiers.
#[derive(Debug, Default)]
pub(super) struct Key {
    field: Option<Arc<str>>,
    at: Place,
    shape: Option<Shape>,
    cased: bool,
    all: bool,
    negated: bool,
    windash: bool,
    expand: bool,
    kind: KeyKind,
    flags: RegexFlags,
    /// base64 and wide encodings, in order.
    encodings: Vec<Encoding>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum KeyKind {
    #[default]
    Text,
    Regex,
    Cidr,
    Exists,
    Field,
    Compare(Comparison),
    /// A part of a time, equal or compared.
    Time(TimePart, Option<Comparison>),
}

#[derive(Clone, Copy, Debug, Default)]
struct RegexFlags {
    ignore_case: bool,
    multi_line: bool,
    dot_all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Base64,
    Base64Offset,
    Utf16Le,
    Utf16Be,
    Utf16,
}

pub(crate) const MODIFIERS: [&str; 34] = [
    "contains",
    "startswith",
    "endswith",
    "all",
    "cased",
    "windash",
    "base64",
    "base64offset",
    "utf16",
    "utf16le",
    "utf16be",
    "wide",
    "re",
    "i",
    "m",
    "s",
    "ignorecase",
    "multiline",
    "dotall",
    "cidr",
    "exists",
    "fieldref",
    "gt",
    "gte",
    "lt",
    "lte",
    "neq",
    "expand",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "year",
];

impl Key {
    /// A keyword: no field, found anywhere in a value.
    pub(super) fn keyword(at: Place) -> Key {
        Key { at, shape: Some(Shape::Contains), ..Key::default() }
    }

    /// Splits `Field|modifier|modifier`.
    pub(super) fn read(node: &Node, problems: &mut Problems) -> Result<Key, Refused> {
        let Some(text) = node.text() else {
            return Err(problems.error("field", node.at, format!("a field's name is {}", node.word()), None));
        };
        let mut words = text.split('|');
        let field = words.next().unwrap_or_default().trim();
        let mut key = if field.is_empty() {
            Key::keyword(node.at)
        } else {
            Key { field: Some(Arc::from(field)), at: node.at, ..Key::default() }
        };
        for word in words {
            key.apply(word, problems)?;
        }
        key.check(problems)?;
        Ok(key)
    }

    fn apply(&mut self, word: &str, problems: &mut Problems) -> Result<(), Refused> {
        if self.apply_switch(word) {
            return Ok(());
        }
        let kind = match word {
            "contains" => return self.set_shape(Shape::Contains, problems),
            "startswith" => return self.set_shape(Shape::StartsWith, problems),
            "endswith" => return self.set_shape(Shape::EndsWith, problems),
            "re" => KeyKind::Regex,
            "cidr" => KeyKind::Cidr,
            "exists" => KeyKind::Exists,
            "fieldref" => KeyKind::Field,
            "gt" => KeyKind::Compare(Comparison::Gt),
            "gte" => KeyKind::Compare(Comparison::Gte),
            "lt" => KeyKind::Compare(Comparison::Lt),
            "lte" => KeyKind::Compare(Comparison::Lte),
            "minute" => KeyKind::Time(TimePart::Minute, None),
            "hour" => KeyKind::Time(TimePart::Hour, None),
            "day" => KeyKind::Time(TimePart::Day, None),
            "week" => KeyKind::Time(TimePart::Week, None),
            "month" => KeyKind::Time(TimePart::Month, None),
            "year" => KeyKind::Time(TimePart::Year, None),
            other => {
                let hint = did_you_mean(other, MODIFIERS);
                return Err(problems.error(
                    "unknown_modifier",
                    self.at,
                    format!("unknown modifier \"{}\"", shown(other)),
                    hint,
                ));
            }
        };
        self.kind = match (self.kind, kind) {
            (KeyKind::Text, kind) => kind,
            (KeyKind::Time(part, None), KeyKind::Compare(comparison)) => KeyKind::Time(part, Some(comparison)),
            _ => return Err(self.clash(problems)),
        };
        Ok(())
    }

    /// Modifiers that only switch something on.
    fn apply_switch(&mut self, word: &str) -> bool {
        match word {
            "all" => self.all = true,
            "cased" => self.cased = true,
            "windash" => self.windash = true,
            "neq" => self.negated = true,
            "expand" => self.expand = true,
            "base64" => self.encodings.push(Encoding::Base64),
            "base64offset" => self.encodings.push(Encoding::Base64Offset),
            "wide" | "utf16le" => self.encodings.push(Encoding::Utf16Le),
            "utf16be" => self.encodings.push(Encoding::Utf16Be),
            "utf16" => self.encodings.push(Encoding::Utf16),
            "i" | "ignorecase" => self.flags.ignore_case = true,
            "m" | "multiline" => self.flags.multi_line = true,
            "s" | "dotall" => self.flags.dot_all = true,
            _ => return false,
        }
        true
    }

    fn set_shape(&mut self, shape: Shape, problems: &mut Problems) -> Result<(), Refused> {
        if self.shape.is_some() && self.field.is_some() {
            return Err(self.clash(problems));
        }
        self.shape = Some(shape);
        Ok(())
    }

    fn check(&self, problems: &mut Problems) -> Result<(), Refused> {
        let shaped = self.shape.is_some() && self.field.is_some();
        let texty = self.windash || !self.encodings.is_empty();
        let flagged = self.flags.ignore_case || self.flags.multi_line || self.flags.dot_all;
        let fits = match self.kind {
            KeyKind::Text => !flagged,
            KeyKind::Regex => !shaped && !texty && !self.cased,
            KeyKind::Field => !texty && !flagged && !self.expand && self.field.is_some(),
            KeyKind::Exists => {
                !shaped && !texty && !flagged && !self.expand && !self.cased && !self.all && self.field.is_some()
            }
            KeyKind::Cidr | KeyKind::Compare(_) | KeyKind::Time(..) => {
                !shaped && !texty && !flagged && !self.cased && self.field.is_some()
            }
        };
        // A base64 text is one text: nothing may be encoded after it, and offsets make no sense on encodings of it.
        let base64 =
            self.encodings.iter().position(|encoding| matches!(encoding, Encoding::Base64 | Encoding::Base64Offset));
        let order = base64.is_none_or(|at| at + 1 == self.encodings.len()) && self.encodings.len() <= 2;
        if fits && order { Ok(()) } else { Err(self.clash(problems)) }
    }

    fn clash(&self, problems: &mut Problems) -> Refused {
        let field = self.field.as_deref().unwrap_or_default();
        let message = format!("the modifiers of \"{}\" cannot stand together", shown(field));
        problems.error("modifiers", self.at, message, None)
    }
}

/// Makes an item of a field's values; `written` is its key in the text.
pub(super) fn read(key: &Key, written: &str, values: &[Node], problems: &mut Problems) -> Result<Item, Refused> {
    let mut list = Vec::with_capacity(values.len());
    for value in values {
        let matchers = matchers(key, value, problems)?;
        problems.tests += matchers.len();
        if problems.tests > TESTS_MAX {
            return Err(problems.error(
                "too_many_tests",
                value.at,
                format!("the rule has more than {TESTS_MAX} values"),
                None,
            ));
        }
        list.push(Wanted { text: Arc::from(value.text().unwrap_or("null")), matchers });
    }
    let Key { field, all, negated, .. } = key;
    Ok(Item {
        key: Arc::from(written),
        field: field.clone(),
        values: list,
        all: *all,
        negated: *negated,
        applied: Vec::new(),
    })
}

fn matchers(key: &Key, node: &Node, problems: &mut Problems) -> Result<Vec<Matcher>, Refused> {
    let field = key.field.as_deref().unwrap_or_default();
    let text = match &node.kind {
        Kind::Scalar(text) => text.as_str(),
        Kind::Null if key.kind == KeyKind::Text && key.shape.is_none() && key.encodings.is_empty() => {
            return Ok(vec![Matcher::Null]);
        }
        Kind::Null | Kind::List(_) | Kind::Map(_) => {
            let message = format!("a value of \"{}\" is {}", shown(field), node.word());
            return Err(problems.error("value", node.at, message, None));
        }
    };
    if !key.expand {
        return matchers_of(key, text, node.at, problems);
    }
    let mut matchers = Vec::new();
    for text in expanded(key, text, node.at, problems)? {
        matchers.append(&mut matchers_of(key, &text, node.at, problems)?);
        if matchers.len() > TESTS_MAX {
            let message = format!("the rule has more than {TESTS_MAX} values");
            return Err(problems.error("too_many_tests", node.at, message, None));
        }
    }
    Ok(matchers)
}

fn matchers_of(key: &Key, text: &str, at: Place, problems: &mut Problems) -> Result<Vec<Matcher>, Refused> {
    let field = key.field.as_deref().unwrap_or_default();
    let mut bad = |what: &str| {
        let message = format!("the value \"{}\" of \"{}\" is {what}", shown(text), shown(field));
        problems.error("value", at, message, None)
    };
    match key.kind {
        KeyKind::Text => texts(key, text, at, problems),
        KeyKind::Regex => regex(key, text, at, problems).map(|regex| vec![Matcher::Regex(regex)]),
        KeyKind::Cidr => {
            network(text).map(|net| vec![Matcher::Cidr(net)]).ok_or_else(|| bad("no network (`10.0.0.0/8`)"))
        }
        KeyKind::Exists => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" => Ok(vec![Matcher::Exists(true)]),
            "false" | "no" => Ok(vec![Matcher::Exists(false)]),
            _ => Err(bad("neither true nor false")),
        },
        KeyKind::Field if text.trim().is_empty() => Err(bad("no name of a field")),
        KeyKind::Field => {
            let shape = key.shape.unwrap_or(Shape::Equal);
            Ok(vec![Matcher::Field { other: Arc::from(text), shape, cased: key.cased }])
        }
        KeyKind::Compare(comparison) => {
            Number::parse(text).map(|number| vec![Matcher::Compare(comparison, number)]).ok_or_else(|| bad("no number"))
        }
        KeyKind::Time(part, comparison) => {
            let number: i64 = text.trim().parse().map_err(|_| bad("no whole number"))?;
            let (from, to) = range(part);
            if !(from..=to).contains(&number) {
                return Err(bad(&format!("not from {from} to {to}")));
            }
            let Some(comparison) = comparison else { return Ok(vec![Matcher::Time(part, number)]) };
            // Few enough to be written out, and the matcher need not know comparisons of times.
            let fits = |value: &i64| comparison.holds(Number::Whole(*value), Number::Whole(number));
            let matchers: Vec<Matcher> = (from..=to).filter(fits).map(|value| Matcher::Time(part, value)).collect();
            if matchers.is_empty() { Err(bad("a bound that no time keeps")) } else { Ok(matchers) }
        }
    }
}

/// The values that a part of a time may have (specification 2.1, *Time Modifiers*; a year may have a week 53).
///
/// Years are bounded so that they can be written out: logs are of our time.
const fn range(part: TimePart) -> (i64, i64) {
    match part {
        TimePart::Minute => (0, 59),
        TimePart::Hour => (0, 23),
        TimePart::Day => (1, 31),
        TimePart::Week => (1, 53),
        TimePart::Month => (1, 12),
        TimePart::Year => (1970, 2100),
    }
}

/// The texts that a value with placeholders stands for: `%name%` is replaced by each of its values, `\%` is a percent sign
/// (specification 2.1, *Placeholders*).
fn expanded(key: &Key, text: &str, at: Place, problems: &mut Problems) -> Result<Vec<String>, Refused> {
    let mut texts = vec![String::new()];
    let add = |texts: &mut Vec<String>, piece: &str| texts.iter_mut().for_each(|text| text.push_str(piece));
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('%') {
        if let Some(before) = before.strip_suffix('\\') {
            add(&mut texts, before);
            add(&mut texts, "%");
            rest = behind;
            continue;
        }
        add(&mut texts, before);
        let word =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'));
        let Some((name, after)) = behind.split_once('%').filter(|(name, _)| word(name)) else {
            add(&mut texts, "%");
            rest = behind;
            continue;
        };
        let options = Arc::clone(&problems.options);
        let Some(values) = options
            .placeholders
            .get(name)
            .or_else(|| options.placeholders.get("*"))
            .filter(|values| !values.is_empty())
        else {
            let message = format!("the placeholder in \"{}\" has no value", shown(text));
            let hint = did_you_mean(name, options.placeholders.keys().map(String::as_str))
                .unwrap_or_else(|| format!("give values for \"{name}\", or write them into the rule in its place"));
            return Err(problems.error("placeholder", at, message, Some(hint)));
        };
        let bytes: usize = texts.iter().map(String::len).sum::<usize>().saturating_mul(values.len());
        if texts.len().saturating_mul(values.len()) > TESTS_MAX || bytes > EXPANDED_BYTES_MAX {
            let message = format!("the placeholders of \"{}\" stand for more than {TESTS_MAX} values", shown(text));
            return Err(problems.error("too_many_tests", at, message, None));
        }
        let escaped = |value: &String| if key.kind == KeyKind::Regex { regex::escape(value) } else { value.clone() };
        texts = texts.iter().flat_map(|text| values.iter().map(move |value| text.clone() + &escaped(value))).collect();
        rest = after;
    }
    add(&mut texts, rest);
    Ok(texts)
}

/// A network; a lone address is a network of one; host bits are cut.
fn network(text: &str) -> Option<ipnet::IpNet> {
    let net: ipnet::IpNet = match text.parse() {
        Ok(net) => net,
        Err(_) => ipnet::IpNet::from(text.parse::<std::net::IpAddr>().ok()?),
    };
    Some(net.trunc())
}

fn texts(key: &Key, text: &str, at: Place, problems: &mut Problems) -> Result<Vec<Matcher>, Refused> {
    let mut patterns = vec![Pattern::parse(text)];
    if key.windash {
        match windash(text) {
            Some(variants) => patterns = variants,
            None if key.encodings.is_empty() => {
                return any_dashes(key, text, at, problems).map(|matcher| vec![matcher]);
            }
            None => {
                let message =
                    format!("the dashes of \"{}\" can be written in more than {VARIANTS_MAX} ways", shown(text));
                let hint = Some("encode fewer of them in one value".to_owned());
                return Err(problems.error("too_many_tests", at, message, hint));
            }
        }
    }
    if !key.encodings.is_empty() {
        patterns = encoded(key, &patterns, at, problems)?;
    }
    let (before, behind) = around(key.shape);
    let texts =
        patterns.into_iter().map(|pattern| Matcher::Text { pattern: pattern.within(before, behind), cased: key.cased });
    Ok(texts.collect())
}

/// What Windows programs take for a dash (specification 2.1, `windash`).
const DASHES: [char; 5] = ['-', '/', '–', '—', '―'];

/// Places of the dashes that begin a word; not of one within a word, as in `a-b`.
fn dashes(chars: &[char]) -> Vec<usize> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    (0..chars.len())
        .filter(|&i| chars.get(i).is_some_and(|c| DASHES.contains(c)))
        .filter(|&i| i == 0 || chars.get(i - 1).is_some_and(|&c| !word(c)))
        .filter(|&i| chars.get(i + 1).is_some_and(|&c| word(c)))
        .collect()
}

/// Every dash in each of its forms; `None` if these are too many to be written out.
fn windash(text: &str) -> Option<Vec<Pattern>> {
    let chars: Vec<char> = text.chars().collect();
    let places = dashes(&chars);
    let combinations = DASHES.len().checked_pow(u32::try_from(places.len()).ok()?)?;
    if combinations > VARIANTS_MAX {
        return None;
    }
    let mut patterns = vec![Pattern::parse(text)];
    for number in 0..combinations {
        let mut variant = chars.clone();
        let mut rest = number;
        for &place in &places {
            if let (Some(slot), Some(dash)) = (variant.get_mut(place), DASHES.get(rest % DASHES.len())) {
                *slot = *dash;
            }
            rest /= DASHES.len();
        }
        let pattern = Pattern::parse(&variant.into_iter().collect::<String>());
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    Some(patterns)
}

/// The same as one expression, for values with many dashes.
fn any_dashes(key: &Key, text: &str, at: Place, problems: &mut Problems) -> Result<Matcher, Refused> {
    let mut chars: Vec<char> = text.chars().collect();
    // A character that no text has holds the places while wildcards and escapes are read.
    const HELD: char = '\u{10ffff}';
    for place in dashes(&chars) {
        if let Some(slot) = chars.get_mut(place) {
            *slot = HELD;
        }
    }
    let pattern = Pattern::parse(&chars.into_iter().collect::<String>());
    let (before, behind) = around(key.shape);
    let mut expression = String::from(if before { "" } else { "^" });
    for part in &pattern.parts {
        match part {
            Part::Text(text) => expression.push_str(&regex::escape(text).replace(HELD, "[-/–—―]")),
            Part::Any => expression.push_str(".*"),
            Part::One => expression.push('.'),
        }
    }
    expression.push_str(if behind { "" } else { "$" });
    let flags = RegexFlags { ignore_case: !key.cased, multi_line: false, dot_all: true };
    regex(&Key { flags, at, ..Key::default() }, &expression, at, problems).map(Matcher::Regex)
}

/// Whether anything may stand before and behind.
const fn around(shape: Option<Shape>) -> (bool, bool) {
    match shape {
        Some(Shape::Contains) => (true, true),
        Some(Shape::StartsWith) => (false, true),
        Some(Shape::EndsWith) => (true, false),
        Some(Shape::Equal) | None => (false, false),
    }
}

fn encoded(key: &Key, patterns: &[Pattern], at: Place, problems: &mut Problems) -> Result<Vec<Pattern>, Refused> {
    let mut out = Vec::new();
    for pattern in patterns {
        let Some(text) = pattern.as_literal() else {
            let message = "a value with wildcards cannot be encoded".to_owned();
            return Err(problems.error("encoded_wildcard", at, message, Some("escape them as \\* or \\?".to_owned())));
        };
        let mut bytes = text.as_bytes().to_vec();
        for encoding in &key.encodings {
            bytes = match encoding {
                Encoding::Utf16Le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
                Encoding::Utf16Be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
                Encoding::Utf16 => {
                    [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
                }
                Encoding::Base64 => STANDARD.encode(&bytes).into_bytes(),
                Encoding::Base64Offset => {
                    out.extend((0..3).map(|offset| Pattern::literal(&base64_at(&bytes, offset))));
                    continue;
                }
            };
        }
        if key.encodings.last() != Some(&Encoding::Base64Offset) {
            // Bytes that are no text (a byte order mark) can never be met in an event, which is text.
            let text = String::from_utf8(bytes).map_err(|_| {
                let message = "the encoded value is no text; `base64` or `base64offset` must follow".to_owned();
                problems.error("encoded_value", at, message, None)
            })?;
            out.push(Pattern::literal(&text));
        }
    }
    Ok(out)
}

/// The characters that do not depend on what stands around the bytes when they begin at `offset` of a group of three.
fn base64_at(bytes: &[u8], offset: usize) -> String {
    let mut padded = vec![b' '; offset];
    padded.extend_from_slice(bytes);
    let text = STANDARD.encode(&padded);
    let begin = [0, 2, 3].get(offset).copied().unwrap_or(0);
    let cut = [0, 3, 2].get(padded.len() % 3).copied().unwrap_or(0);
    text.get(begin..text.len().saturating_sub(cut)).unwrap_or_default().to_owned()
}

fn regex(key: &Key, text: &str, at: Place, problems: &mut Problems) -> Result<Regex, Refused> {
    problems.regexes += 1;
    if problems.regexes > REGEXES_MAX {
        let message = format!("the rule has more than {REGEXES_MAX} regular expressions");
        return Err(problems.error("too_many_tests", at, message, None));
    }
    let few = problems.regexes <= REGEXES_LARGE_MAX;
    let built = RegexBuilder::new(text)
        .case_insensitive(key.flags.ignore_case)
        .multi_line(key.flags.multi_line)
        .dot_matches_new_line(key.flags.dot_all)
        .size_limit(if few { REGEX_BYTES_MAX } else { REGEX_BYTES_OF_MANY_MAX })
        .dfa_size_limit(REGEX_CACHE_BYTES_MAX)
        .nest_limit(REGEX_DEPTH_MAX)
        .build();
    built.map_err(|error| {
        let reason = match &error {
            regex::Error::CompiledTooBig(limit) => format!("it needs more than {limit} bytes"),
            other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        };
        let hint = if reason.contains("look-around") || reason.contains("backreference") {
            Some("they cannot be matched in linear time; say it with several fields or a filter".to_owned())
        } else {
            None
        };
        problems.error(
            "regex",
            at,
            format!("could not compile the regular expression \"{}\": {reason}", shown(text)),
            hint,
        )
    })
}

/// For the plan's rules: the same texts and expressions without a Sigma key.
pub(super) fn plain_text(text: &str, shape: Shape) -> Matcher {
    let (before, behind) = around(Some(shape));
    Matcher::Text { pattern: Pattern::literal(text).within(before, behind), cased: false }
}

/// For the plan's rules: a regular expression.
pub(super) fn plain_regex(text: &str, at: Place, problems: &mut Problems) -> Result<Matcher, Refused> {
    regex(&Key { at, ..Key::default() }, text, at, problems).map(Matcher::Regex)
}

/// For the plan's rules: a network.
pub(super) fn plain_network(text: &str) -> Option<Matcher> {
    network(text.trim()).map(Matcher::Cidr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_offsets_are_those_of_the_specification() {
        // Sigma specification 2.1, appendix on modifiers: `base64offset` of "foobar".
        let forms: Vec<String> = (0..3).map(|offset| base64_at(b"/bin/bash", offset)).collect();
        for (offset, form) in forms.iter().enumerate() {
            let mut around = b"xyz".get(..offset).unwrap().to_vec();
            around.extend_from_slice(b"/bin/bash and more");
            assert!(STANDARD.encode(&around).contains(form), "offset {offset}: {form}");
        }
    }

    #[test]
    fn windash_gives_each_dash_in_five_forms() {
        let count = |text: &str| windash(text).map(|forms| forms.len());
        assert_eq!(count("-a"), Some(5));
        assert_eq!(count(" –a /b"), Some(25));
        assert_eq!(count("a-b"), Some(1));
        assert_eq!(count("-a -b -c -d"), None);
    }

    #[test]
    fn escapes_are_those_of_the_specification() {
        let text = |text: &str| Part::Text(text.to_owned());
        for (written, parts) in [
            (r"a\*b", vec![text("a*b")]),
            (r"a\\*b", vec![text(r"a\"), Part::Any, text("b")]),
            (r"\\srv", vec![text(r"\srv")]),
            (r"C:\x", vec![text(r"C:\x")]),
            (r"a\?", vec![text("a?")]),
            (r"\", vec![text(r"\")]),
            ("a?**", vec![text("a"), Part::One, Part::Any]),
            ("", vec![]),
        ] {
            assert_eq!(Pattern::parse(written).parts, parts, "{written}");
        }
    }
}
