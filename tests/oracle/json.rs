//! JSON as it is written: members in their order, those of one name beside each other, numbers exactly.
//!
//! Whether a text is JSON at all is asked of `serde_json`; the reader here may then be simple. (It is not `serde_json`'s
//! because that one keeps one of several equal names, and reads fractions without their last bit.)

use std::{iter::Peekable, str::Chars};

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as a text: whole numbers of 64 bits in full, others as the shortest text of a 64-bit float.
    Number(String),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// Members, repeated names among them.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one document; `None` if it is not valid.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Json> {
        let text = std::str::from_utf8(bytes).ok()?;
        serde_json::from_str::<serde_json::Value>(text).ok()?;
        value(&mut text.chars().peekable())
    }

    /// The first member of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.members().iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The members of an object, none of anything else.
    #[must_use]
    pub fn members(&self) -> &[(String, Json)] {
        match self {
            Json::Object(members) => members,
            _ => &[],
        }
    }

    /// Whether it is an object.
    #[must_use]
    pub const fn is_object(&self) -> bool {
        matches!(self, Json::Object(_))
    }
}

type Text<'t> = Peekable<Chars<'t>>;

fn value(text: &mut Text<'_>) -> Option<Json> {
    match next(text)? {
        'n' => text.nth(2).map(|_| Json::Null),
        't' => text.nth(2).map(|_| Json::Bool(true)),
        'f' => text.nth(3).map(|_| Json::Bool(false)),
        '"' => string(text).map(Json::Text),
        '[' => {
            let mut list = Vec::new();
            while peek(text)? != ']' {
                list.push(value(text)?);
                skip(text, ',');
            }
            text.next().map(|_| Json::List(list))
        }
        '{' => {
            let mut members = Vec::new();
            while peek(text)? != '}' {
                let _quote = text.next();
                let name = string(text)?;
                let _colon = next(text);
                members.push((name, value(text)?));
                skip(text, ',');
            }
            text.next().map(|_| Json::Object(members))
        }
        first => {
            let mut digits = String::from(first);
            while let Some(c) = text.next_if(|c| c.is_ascii_digit() || "+-.eE".contains(*c)) {
                digits.push(c);
            }
            Some(Json::Number(number(&digits)))
        }
    }
}

fn number(digits: &str) -> String {
    if let Ok(whole) = digits.parse::<i64>() {
        return whole.to_string();
    }
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.to_string();
    }
    digits.parse().map_or_else(|_| String::new(), |float: f64| format!("{float:?}"))
}

/// A string whose opening quote was read.
fn string(text: &mut Text<'_>) -> Option<String> {
    let mut out = String::new();
    loop {
        match text.next()? {
            '"' => return Some(out),
            '\\' => out.push(match text.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => escaped(text)?,
                other => other,
            }),
            c => out.push(c),
        }
    }
}

/// The character of an escape whose `\u` was read; of a pair of surrogates, the one that both make.
fn escaped(text: &mut Text<'_>) -> Option<char> {
    let mut unit = || text.by_ref().take(4).try_fold(0_u32, |unit, c| Some(unit * 16 + c.to_digit(16)?));
    let first = unit()?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first);
    }
    let _escape = text.nth(1);
    let mut unit = || text.by_ref().take(4).try_fold(0_u32, |unit, c| Some(unit * 16 + c.to_digit(16)?));
    char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (unit()? - 0xdc00))
}

/// The next character that is no white space, left where it is.
fn peek(text: &mut Text<'_>) -> Option<char> {
    while text.next_if(|c| " \t\r\n".contains(*c)).is_some() {}
    text.peek().copied()
}

fn next(text: &mut Text<'_>) -> Option<char> {
    peek(text)?;
    text.next()
}

/// Skips this character if it is the next.
fn skip(text: &mut Text<'_>, c: char) {
    if peek(text) == Some(c) {
        let _skipped = text.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_as_they_are() {
        let text = r#" {"a" : [1, -0, 1.10, 18446744073709551615, 1e3, 1700759035.6624937 ] , "a":{ } ,"b\u0041":"\ud83d\ude00\/\n" , "":[ null,true , false]} "#;
        let shown = format!("{:?}", Json::read(text.as_bytes()).unwrap());
        let expect = r#"Object([("a", List([Number("1"), Number("0"), Number("1.1"), Number("18446744073709551615"), Number("1000.0"), Number("1700759035.6624937")])), ("a", Object([])), ("bA", Text("😀/\n")), ("", List([Null, Bool(true), Bool(false)]))])"#;
        assert_eq!(shown, expect);
        for bad in ["", "{", "{} x", "[1,]", "\"\\ud800\"", "\"\u{1}\"", "01", "nul"] {
            assert_eq!(Json::read(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Json::read(b"\"\xff\""), None);
    }
}
