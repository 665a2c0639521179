//! YAML as a tree that knows its lines.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

/// A value and the line where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: u32,
    pub(crate) kind: Kind,
    /// Whether a part of it came from the environment or another file.
    pub(crate) interpolated: bool,
}

/// What it is.
#[derive(Debug)]
pub(crate) enum Kind {
    Scalar(Value),
    Sequence(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// As plain JSON.
    pub(crate) fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::Sequence(nodes) => nodes.iter().map(Node::to_value).collect(),
            Kind::Map(pairs) => pairs.iter().map(|(key, node)| (key.clone(), node.to_value())).collect(),
        }
    }
}

/// Parses a settings file. Empty text is an empty map.
pub(crate) fn parse(text: &str) -> Result<Node, String> {
    if text.len() > crate::FILE_BYTES_MAX {
        return Err(format!("it has {} bytes; at most {} are read", text.len(), crate::FILE_BYTES_MAX));
    }
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Node { line: 1, kind: Kind::Map(Vec::new()), interpolated: false });
    }
    // A section may be long and all comment, as the template's are; the file's length is the bound.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_buffered_comment_events: text.lines().count() + 1 },
    };
    let spanned: Spanned<Raw> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
    let node = placed(spanned);
    match &node.kind {
        Kind::Map(_) => Ok(node),
        Kind::Scalar(Value::Null) => Ok(Node { line: 1, kind: Kind::Map(Vec::new()), interpolated: false }),
        Kind::Scalar(_) | Kind::Sequence(_) => Err("a map of sections is wanted at the top".to_owned()),
    }
}

struct Raw(Kind);

fn placed(spanned: Spanned<Raw>) -> Node {
    let line = u32::try_from(spanned.referenced.line()).unwrap_or(u32::MAX);
    Node { line, kind: spanned.value.0, interpolated: false }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw(Kind::Scalar(value.into())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw(Kind::Scalar(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw(Kind::Scalar(value.into())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw(Kind::Scalar(value.into())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw(Kind::Scalar(value.into())))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw(Kind::Scalar(Value::Null)))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw(Kind::Scalar(Value::Null)))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut nodes = Vec::new();
        while let Some(element) = access.next_element::<Spanned<Raw>>()? {
            nodes.push(placed(element));
        }
        Ok(Raw(Kind::Sequence(nodes)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let mut node = placed(access.next_value::<Spanned<Raw>>()?);
            // A map's value begins below its key: the key's line is where a person looks.
            node.line = u32::try_from(key.referenced.line()).unwrap_or(node.line);
            pairs.push((key.value, node));
        }
        Ok(Raw(Kind::Map(pairs)))
    }
}
