//! Finds one value in a JSON text without building the rest of it.
//!
//! A path is names joined by dots; a key of the text may itself hold dots (`winlog.channel`), so a key fits when it is a
//! whole prefix of what is left of the path. Elements of an array are numbered from 0. The first that fits counts.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// What stands at a path: its text as it is in the record, with quotes if it is a string.
pub(crate) fn find(text: &str, path: &str) -> Option<Box<RawValue>> {
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // The error is how it stops early: what counts is what was found before.
    drop(Seek { path, found: &mut found }.deserialize(&mut deserializer));
    found
}

struct Seek<'a> {
    path: &'a str,
    found: &'a mut Option<Box<RawValue>>,
}

impl Seek<'_> {
    fn stop<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.found.is_some() { Err(E::custom("found")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.path.is_empty() {
            *self.found = Some(serde::Deserialize::deserialize(deserializer)?);
            return Err(D::Error::custom("found"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(rest) = map.next_key_seed(Key(self.path))? {
            match rest {
                Some(path) => map.next_value_seed(Seek { path, found: self.found })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
            self.stop()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        loop {
            let more = match rest(self.path, &index.to_string()) {
                Some(path) => seq.next_element_seed(Seek { path, found: self.found })?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            self.stop()?;
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }

    // A value where the path goes on: nothing there.
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Compares a key with the path where it stands, and gives what is left of the path if it fits.
struct Key<'a>(&'a str);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<&'a str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Option<&'a str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(rest(self.0, key))
    }
}

/// What is left of a path after a key.
fn rest<'a>(path: &'a str, key: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(key)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.').filter(|rest| !rest.is_empty()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, path: &str, expect: Option<&str>) {
        assert_eq!(find(text, path).as_ref().map(|value| value.get()), expect, "{path} in {text}");
    }

    #[test]
    fn paths_reach_nested_flat_and_numbered_values() {
        let text = r#"{"a":{"b":[{"c":1},"x"]},"a.b":"flat","d":null,"e":{"f.g":{"h":2.50}},"i":"\u0041"}"#;
        check(text, "a.b.0.c", Some("1"));
        check(text, "a.b.1", Some(r#""x""#));
        check(text, "a.b", Some(r#"[{"c":1},"x"]"#)); // the nested one stands first
        check(text, "d", Some("null"));
        check(text, "e.f.g.h", Some("2.50"));
        check(text, "i", Some(r#""\u0041""#));
        for path in ["", "x", "a.b.2", "a.b.0.c.d", "a.", ".a", "a..b", "d.x"] {
            check(text, path, if path.is_empty() { Some(text) } else { None });
        }
    }

    #[test]
    fn a_flat_key_is_found_after_a_nested_one_that_does_not_fit() {
        check(r#"{"a":{"x":1},"a.b":2}"#, "a.b", Some("2"));
        check(r#"[{"a":1},{"a":2}]"#, "1.a", Some("2"));
    }

    #[test]
    fn broken_texts_give_what_stands_before_the_break() {
        check(r#"{"a":1,"b":"#, "a", Some("1"));
        check(r#"{"a":1,"b":"#, "b", None);
        check("not json", "a", None);
        check(&"[".repeat(100_000), "0.0", None); // serde_json's depth limit, not our stack
    }
}
