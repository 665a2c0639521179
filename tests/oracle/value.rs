//! One field of a search identifier: its modifiers, applied in their order, and its values.

use regex::{Regex, RegexBuilder};
use serde_json::Value as Yaml;

use crate::{
    event::{Seen, Value},
    fold::fold,
    glob::{self, Glob, Part},
    network::Network,
    number::{Comparison, Number},
    sources::Names,
    time,
};

/// `Field|modifiers: values`, or a keyword.
#[derive(Debug)]
pub(crate) struct Item {
    /// No field: a keyword.
    field: Option<String>,
    all: bool,
    negated: bool,
    /// For each value of the rule the forms of it, any of which fits.
    values: Vec<Vec<Test>>,
}

#[derive(Debug)]
enum Test {
    Null,
    Exists(bool),
    Text(Glob),
    Regex(Regex),
    Network(Network),
    Compare(Comparison, Number),
    Field {
        other: String,
        shape: Shape,
        cased: bool,
    },
    /// Equal, or compared.
    Time(time::Part, Option<Comparison>, i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Equal,
    Contains,
    StartsWith,
    EndsWith,
}

impl Item {
    /// A string of a list, "applied to the full log message".
    pub(crate) fn keyword(value: &Yaml) -> Result<Item, String> {
        Item::of(None, &[], std::slice::from_ref(value))
    }

    /// A key of a map, with its value or list of values.
    pub(crate) fn read(key: &str, value: &Yaml) -> Result<Item, String> {
        let mut words = key.split('|');
        let field = words.next().map(str::trim).filter(|field| !field.is_empty()).map(str::to_owned);
        let modifiers: Vec<&str> = words.collect();
        let values = match value {
            Yaml::Array(values) if values.is_empty() => return Err(format!("{key:?} has no values")),
            Yaml::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        Item::of(field, &modifiers, values)
    }

    fn of(field: Option<String>, modifiers: &[&str], values: &[Yaml]) -> Result<Item, String> {
        let keyword = field.is_none();
        let tests: Result<Vec<Vec<Test>>, String> =
            values.iter().map(|value| forms(value, modifiers, keyword)).collect();
        Ok(Item { field, all: modifiers.contains(&"all"), negated: modifiers.contains(&"neq"), values: tests? })
    }

    /// The fields it asks for.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        let others = self.values.iter().flatten().filter_map(|test| match test {
            Test::Field { other, .. } => Some(other.as_str()),
            _ => None,
        });
        self.field.as_deref().into_iter().chain(others)
    }

    /// "Normally, lists of values are linked with OR. This modifier (`all`) changes this to AND"; `neq`: "The field is
    /// different from the specified values".
    pub(crate) fn holds(&self, event: &Seen<'_>, names: &Names) -> bool {
        let mut each = self.values.iter().map(|forms| forms.iter().any(|test| self.test(test, event, names)));
        let holds = if self.all { each.all(|holds| holds) } else { each.any(|holds| holds) };
        holds != self.negated
    }

    fn test(&self, test: &Test, event: &Seen<'_>, names: &Names) -> bool {
        let Some(field) = self.field.as_deref() else {
            return event.everything().any(|value| fits(test, value));
        };
        let field = names.of(field);
        match test {
            // A field that is absent has no value. (The specification leaves null to the target system.)
            Test::Null => event.field(field).next().is_none() || event.field(field).any(|value| value.null),
            // "this check only verifies the presence of a field, not its value, be it empty or null".
            Test::Exists(wanted) => event.field(field).next().is_some() == *wanted,
            Test::Field { other, shape, cased } => {
                let other = names.of(other);
                values(event, field).any(|left| values(event, other).any(|right| agree(left, right, *shape, *cased)))
            }
            test => values(event, field).any(|value| fits(test, value)),
        }
    }
}

fn values<'s, 'e: 's>(event: &'s Seen<'e>, field: &str) -> impl Iterator<Item = &'s Value<'e>> {
    event.field(field).filter(|value| !value.null)
}

fn fits(test: &Test, value: &Value<'_>) -> bool {
    match test {
        Test::Text(glob) => glob.fits(if glob.cased { value.text } else { value.folded() }),
        Test::Regex(regex) => regex.is_match(value.text),
        Test::Network(network) => network.has(value.text),
        Test::Compare(comparison, wanted) => {
            Number::parse(value.text).is_some_and(|number| comparison.holds(number, *wanted))
        }
        Test::Time(part, comparison, wanted) => time::part(*part, value.text).is_some_and(|found| match comparison {
            None => found == *wanted,
            Some(comparison) => comparison.holds(Number::Whole(found.into()), Number::Whole((*wanted).into())),
        }),
        Test::Null | Test::Exists(_) | Test::Field { .. } => false,
    }
}

fn agree(left: &Value<'_>, right: &Value<'_>, shape: Shape, cased: bool) -> bool {
    let (left, right) = if cased { (left.text, right.text) } else { (left.folded(), right.folded()) };
    match shape {
        Shape::Equal => left == right,
        Shape::Contains => left.contains(right),
        Shape::StartsWith => left.starts_with(right),
        Shape::EndsWith => left.ends_with(right),
    }
}

/// A value while modifiers are applied to it.
enum Form {
    Null,
    Text(Vec<Part>),
    Bytes(Vec<u8>),
}

/// The forms of one value.
fn forms(value: &Yaml, modifiers: &[&str], keyword: bool) -> Result<Vec<Test>, String> {
    let text = match value {
        Yaml::Null => None,
        Yaml::String(text) => Some(text.clone()),
        Yaml::Number(number) => Some(number.to_string()),
        Yaml::Bool(truth) => Some(truth.to_string()),
        Yaml::Array(_) | Yaml::Object(_) => return Err("a value is a list or a map".to_owned()),
    };
    let has = |wanted: &str| modifiers.contains(&wanted);
    let cased = has("cased");
    let shape = modifiers.iter().find_map(|modifier| match *modifier {
        "contains" => Some(Shape::Contains),
        "startswith" => Some(Shape::StartsWith),
        "endswith" => Some(Shape::EndsWith),
        _ => None,
    });
    if let Some(typed) = modifiers.iter().find_map(|modifier| typed(modifier, modifiers)) {
        let text = text.ok_or("null has no such type")?;
        return typed(&text, shape.unwrap_or(Shape::Equal), cased).map(|test| vec![test]);
    }
    let mut forms = match text {
        None => vec![Form::Null],
        Some(text) if has("expand") && text.matches('%').count() >= 2 => {
            // "If the tool isn't able to handle placeholders, it must reject the rule."
            return Err(format!("the placeholder in {text:?} has no value"));
        }
        Some(text) if has("windash") => vec![Form::Text(glob::parse_windash(&text))],
        Some(text) => vec![Form::Text(glob::parse(&text))],
    };
    for modifier in modifiers {
        forms = encoded(modifier, forms)?;
    }
    let shape = shape.unwrap_or(if keyword { Shape::Contains } else { Shape::Equal });
    forms.into_iter().map(|form| shaped(form, shape, cased)).collect()
}

type Typed = Box<dyn Fn(&str, Shape, bool) -> Result<Test, String>>;

/// "Type modifiers change the type of a value."
fn typed(modifier: &str, modifiers: &[&str]) -> Option<Typed> {
    let compare = |comparison: Comparison| -> Option<Typed> {
        Some(Box::new(move |text, _, _| {
            Number::parse(text).map(|number| Test::Compare(comparison, number)).ok_or(format!("{text:?} is no number"))
        }))
    };
    // "it extracts a numeric value from a date", which numeric modifiers may then be applied to.
    let compared = modifiers.iter().find_map(|modifier| comparison(modifier));
    let time = |part: time::Part| -> Option<Typed> {
        Some(Box::new(move |text, _, _| {
            let number = text.trim().parse().map_err(|_| format!("{text:?} is no whole number"))?;
            Ok(Test::Time(part, compared, number))
        }))
    };
    match modifier {
        "re" => {
            let has = |names: [&str; 2]| modifiers.iter().any(|modifier| names.contains(modifier));
            let (i, m, s) = (has(["i", "ignorecase"]), has(["m", "multiline"]), has(["s", "dotall"]));
            Some(Box::new(move |text, _, _| {
                let mut builder = RegexBuilder::new(text);
                builder.case_insensitive(i).multi_line(m).dot_matches_new_line(s).size_limit(10 << 20);
                builder.build().map(Test::Regex).map_err(|error| error.to_string())
            }))
        }
        "cidr" => Some(Box::new(|text, _, _| {
            Network::parse(text).map(Test::Network).ok_or(format!("{text:?} is no network"))
        })),
        "exists" => Some(Box::new(|text, _, _| match text.to_lowercase().as_str() {
            "true" | "yes" => Ok(Test::Exists(true)),
            "false" | "no" => Ok(Test::Exists(false)),
            other => Err(format!("{other:?} is neither true nor false")),
        })),
        "fieldref" => Some(Box::new(|text, shape, cased| Ok(Test::Field { other: text.to_owned(), shape, cased }))),
        "minute" => time(time::Part::Minute),
        "hour" => time(time::Part::Hour),
        "day" => time(time::Part::Day),
        "week" => time(time::Part::Week),
        "month" => time(time::Part::Month),
        "year" => time(time::Part::Year),
        other => comparison(other).and_then(compare),
    }
}

fn comparison(modifier: &str) -> Option<Comparison> {
    match modifier {
        "lt" => Some(Comparison::Lt),
        "lte" => Some(Comparison::Lte),
        "gt" => Some(Comparison::Gt),
        "gte" => Some(Comparison::Gte),
        _ => None,
    }
}

/// "Transformation modifiers transform values into different values"; "A value might also expand into multiple values".
fn encoded(modifier: &str, forms: Vec<Form>) -> Result<Vec<Form>, String> {
    let encode: fn(Vec<u8>) -> Result<Vec<Vec<u8>>, String> = match modifier {
        "base64" => |bytes| Ok(vec![base64(&bytes).into_bytes()]),
        "base64offset" => |bytes| Ok((0..3).map(|offset| base64_at(&bytes, offset).into_bytes()).collect()),
        "wide" | "utf16le" => |bytes| Ok(vec![utf16(&bytes)?.into_iter().flat_map(u16::to_le_bytes).collect()]),
        "utf16be" => |bytes| Ok(vec![utf16(&bytes)?.into_iter().flat_map(u16::to_be_bytes).collect()]),
        "utf16" => |bytes| {
            let units = utf16(&bytes)?;
            Ok(vec![[0xff, 0xfe].into_iter().chain(units.into_iter().flat_map(u16::to_le_bytes)).collect()])
        },
        "contains" | "startswith" | "endswith" | "all" | "cased" | "neq" | "windash" | "expand" => return Ok(forms),
        other => return Err(format!("unknown modifier {other:?}")),
    };
    let mut out = Vec::new();
    for form in forms {
        let plain: Vec<Vec<u8>> = match form {
            Form::Null => return Err("null cannot be encoded".to_owned()),
            Form::Text(parts) => {
                let texts = glob::literals(&parts).ok_or("a value with wildcards cannot be encoded")?;
                texts.into_iter().map(String::into_bytes).collect()
            }
            Form::Bytes(bytes) => vec![bytes],
        };
        for bytes in plain {
            out.extend(encode(bytes)?.into_iter().map(Form::Bytes));
        }
    }
    Ok(out)
}

fn shaped(form: Form, shape: Shape, cased: bool) -> Result<Test, String> {
    let mut parts = match form {
        Form::Null if shape == Shape::Equal => return Ok(Test::Null),
        Form::Null => return Err("null is no text".to_owned()),
        Form::Text(parts) => parts,
        Form::Bytes(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| "the encoded value is no text")?;
            vec![Part::Text(text)]
        }
    };
    if matches!(shape, Shape::Contains | Shape::EndsWith) {
        parts.insert(0, Part::Any);
    }
    if matches!(shape, Shape::Contains | Shape::StartsWith) {
        parts.push(Part::Any);
    }
    Ok(Test::Text(Glob::new(parts, cased)))
}

fn utf16(bytes: &[u8]) -> Result<Vec<u16>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "an encoded value is encoded anew")?;
    Ok(text.encode_utf16().collect())
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4_usize {
            let sextet = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap_or(0);
            let letter = LETTERS.get(sextet).copied().unwrap_or(b'=');
            out.push(if at <= group.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// What of the encoded value does not depend on the bytes before and behind it, if there are `offset` bytes before it:
/// "except the first and last byte the encoded values have a static part in the middle". By its definition: the letters
/// that stay when the bytes around it change.
fn base64_at(bytes: &[u8], offset: usize) -> String {
    let around = |byte: u8| {
        let mut all = vec![byte; offset];
        all.extend_from_slice(bytes);
        all.resize(all.len().next_multiple_of(3), byte);
        base64(&all)
    };
    let (zeros, ones) = (around(0), around(0xff));
    let begin = [0, 2, 3].get(offset).copied().unwrap_or(0); // letters that the bytes before have a share in
    let same = |(left, right): &(char, char)| left == right;
    zeros.chars().zip(ones.chars()).skip(begin).take_while(same).map(|(letter, _)| letter).collect()
}

/// The value without case, for those who compare names of channels and the like.
pub(crate) fn same(left: &str, right: &str) -> bool {
    fold(left) == fold(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, expect) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), expect);
        }
        let forms: Vec<String> = (0..3).map(|offset| base64_at(b"http://", offset)).collect();
        // The example of the specification's earlier editions: `base64offset` of `http://`.
        assert_eq!(forms, ["aHR0cDovL", "h0dHA6Ly", "odHRwOi8v"]);
    }
}
