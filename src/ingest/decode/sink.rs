//! Where decoders put the fields of an event, with its limits.

use cf_types::{Fields, Name, RejectCode, Scalar, field::Names};
use rustc_hash::FxHashSet;
use simd_json::{Node, StaticNode};

use super::json::{Value, elements, members};

/// Bytes of the longest name of a JSON member.
const KEY_BYTES_MAX: usize = 256;
/// Bytes of the longest name with dots.
const PATH_BYTES_MAX: usize = 1_024;

/// Why a record gives no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) code: RejectCode,
    pub(crate) reason: String,
}

impl Broken {
    pub(crate) fn new(code: RejectCode, mut reason: String) -> Broken {
        let end = (0..=reason.len().min(1_024)).rev().find(|end| reason.is_char_boundary(*end));
        reason.truncate(end.unwrap_or(0));
        Broken { code, reason }
    }

    pub(crate) fn utf8(offset: usize) -> Broken {
        Broken::new(RejectCode::InvalidUtf8, format!("not valid UTF-8 at byte {offset}"))
    }
}

/// Takes the fields of one event.
pub(crate) struct Sink<'a> {
    pub(crate) fields: &'a mut Fields,
    pub(crate) names: &'a Names,
    /// The name with dots of the member being walked; reused, so that no name is allocated.
    pub(crate) path: &'a mut String,
    pub(crate) fields_max: usize,
    pub(crate) depth_max: usize,
    /// Names that may not be added any more, while the inner objects of an envelope are walked.
    pub(crate) taken: Option<FxHashSet<Name>>,
}

impl Sink<'_> {
    /// Adds a part of a text record.
    pub(crate) fn text(&mut self, name: Name, value: &str) -> Result<(), Broken> {
        self.put(name, value, Scalar::Text)
    }

    pub(crate) fn put(&mut self, name: Name, value: &str, scalar: Scalar) -> Result<(), Broken> {
        if self.taken.as_ref().is_some_and(|taken| taken.contains(&name)) {
            return Ok(());
        }
        if self.fields.len() >= self.fields_max {
            return Err(Broken::new(RejectCode::TooManyFields, format!("more than {} fields", self.fields_max)));
        }
        self.fields.push(name, value, scalar);
        Ok(())
    }

    /// The interned name of a member, if anybody asked for it.
    pub(crate) fn name(&self, key: &str) -> Result<Name, Broken> {
        check_key(key)?;
        Ok(self.names.get_or_unknown(key.as_bytes()))
    }

    /// Adds a scalar; objects and arrays are nothing here.
    pub(crate) fn scalar(&mut self, name: Name, node: Node<'_>) -> Result<(), Broken> {
        match node {
            Node::String(text) => self.put(name, text, Scalar::Text),
            Node::Static(StaticNode::I64(number)) => self.put(name, itoa::Buffer::new().format(number), Scalar::Number),
            Node::Static(StaticNode::U64(number)) => self.put(name, itoa::Buffer::new().format(number), Scalar::Number),
            Node::Static(StaticNode::F64(number)) => self.put(name, ryu::Buffer::new().format(number), Scalar::Number),
            Node::Static(StaticNode::Bool(true)) => self.put(name, "true", Scalar::Bool),
            Node::Static(StaticNode::Bool(false)) => self.put(name, "false", Scalar::Bool),
            Node::Static(StaticNode::Null) => self.put(name, "", Scalar::Null),
            Node::Object { .. } | Node::Array { .. } => Ok(()),
        }
    }

    /// Adds a value under a name: a scalar as it is, a list as repeats, an object's members with dots.
    pub(crate) fn flatten(&mut self, key: &str, value: Value<'_, '_>) -> Result<(), Broken> {
        self.path.clear();
        self.descend(key, value, 1)
    }

    fn descend(&mut self, key: &str, value: Value<'_, '_>, depth: usize) -> Result<(), Broken> {
        check_key(key)?;
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        if self.path.len() > PATH_BYTES_MAX {
            let reason = format!("a field name with dots is longer than {PATH_BYTES_MAX} bytes");
            return Err(Broken::new(RejectCode::TooLong, reason));
        }
        self.value(value, depth)?;
        self.path.truncate(before);
        Ok(())
    }

    fn value(&mut self, value: Value<'_, '_>, depth: usize) -> Result<(), Broken> {
        self.check_depth(depth)?;
        match value.first() {
            Some(Node::Object { .. }) => {
                members(value).try_for_each(|(key, value)| self.descend(key, value, depth + 1))
            }
            Some(Node::Array { .. }) => elements(value).try_for_each(|element| self.value(element, depth + 1)),
            Some(node) => {
                let name = self.names.get_or_unknown(self.path.as_bytes());
                self.scalar(name, *node)
            }
            None => Ok(()),
        }
    }

    pub(crate) fn check_depth(&self, depth: usize) -> Result<(), Broken> {
        if depth > self.depth_max {
            return Err(Broken::new(RejectCode::TooDeep, format!("nested deeper than {} levels", self.depth_max)));
        }
        Ok(())
    }
}

fn check_key(key: &str) -> Result<(), Broken> {
    if key.len() > KEY_BYTES_MAX {
        let reason = format!("a field name has {} bytes; at most {KEY_BYTES_MAX} are read", key.len());
        return Err(Broken::new(RejectCode::TooLong, reason));
    }
    Ok(())
}
