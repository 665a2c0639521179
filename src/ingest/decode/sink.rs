//! Where decoders put the fields of an event, with its limits.

use cf_types::{Fields, Name, RejectCode, Scalar, field::Names};
use rustc_hash::FxHashSet;

use super::json::{self, Key, Kind, Pairs, Value, elements, entries};

/// Bytes of the longest name of a JSON member.
pub(crate) const KEY_BYTES_MAX: usize = 256;
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
    /// Joined names that were looked up before.
    pub(crate) pairs: &'a mut Pairs,
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
        if self.has_room_for(name)? {
            self.fields.push(name, value, scalar);
        }
        Ok(())
    }

    /// Whether a field may be added.
    #[inline]
    fn has_room_for(&self, name: Name) -> Result<bool, Broken> {
        if self.taken.as_ref().is_some_and(|taken| taken.contains(&name)) {
            return Ok(false);
        }
        if self.fields.len() >= self.fields_max {
            return Err(self.too_many());
        }
        Ok(true)
    }

    #[cold]
    fn too_many(&self) -> Broken {
        Broken::new(RejectCode::TooManyFields, format!("more than {} fields", self.fields_max))
    }

    /// The interned name of a member, if anybody asked for it.
    pub(crate) fn name(&self, key: &str) -> Result<Name, Broken> {
        check_key(key)?;
        Ok(self.names.get_or_unknown(key.as_bytes()))
    }

    /// The same, for a member of a document.
    #[inline]
    pub(crate) fn name_of(&self, key: Key<'_>) -> Result<Name, Broken> {
        check_key(key.text)?;
        Ok(key.name(self.names))
    }

    /// Adds a scalar; objects and arrays are nothing here.
    #[inline]
    pub(crate) fn scalar(&mut self, name: Name, value: Value<'_, '_>) -> Result<(), Broken> {
        match value.kind() {
            Some(Kind::Text | Kind::TextEscaped | Kind::Whole) => {
                let (text, form) = value.written();
                if self.has_room_for(name)? {
                    let scalar = if value.kind() == Some(Kind::Whole) { Scalar::Number } else { Scalar::Text };
                    self.fields.push_json(name, text, scalar, form);
                }
                Ok(())
            }
            _ => match json::scalar(value) {
                Some((text, scalar)) => self.put(name, text, scalar),
                None => Ok(()),
            },
        }
    }

    /// Adds a member under its own name.
    #[inline]
    pub(crate) fn member(&mut self, key: Key<'_>, value: Value<'_, '_>) -> Result<(), Broken> {
        if matches!(value.kind(), Some(Kind::Object | Kind::Array)) {
            return self.flatten(key.text, value);
        }
        let name = self.name_of(key)?;
        self.scalar(name, value)
    }

    /// Adds a value under a name: a scalar as it is, a list as repeats, an object's members with dots.
    pub(crate) fn flatten(&mut self, key: &str, value: Value<'_, '_>) -> Result<(), Broken> {
        self.path.clear();
        self.descend(key, value, 1)
    }

    fn descend(&mut self, key: &str, value: Value<'_, '_>, depth: usize) -> Result<(), Broken> {
        check_key(key)?;
        let before = self.path.len();
        // Not by whether the path is empty: a member may have an empty name, and what is in it is not at the root.
        if depth > 1 {
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
        match value.kind() {
            Some(Kind::Object) => entries(value).try_for_each(|(key, value)| self.descend(key.text, value, depth + 1)),
            Some(Kind::Array) => elements(value).try_for_each(|element| self.value(element, depth + 1)),
            Some(_) => {
                let name = self.names.get_or_unknown(self.path.as_bytes());
                self.scalar(name, value)
            }
            None => Ok(()),
        }
    }

    /// Refuses a joined name that is too long.
    #[inline]
    pub(crate) fn check_name(&self, len: usize) -> Result<(), Broken> {
        if len > KEY_BYTES_MAX { Err(name_too_long(len)) } else { Ok(()) }
    }

    pub(crate) fn check_depth(&self, depth: usize) -> Result<(), Broken> {
        if depth > self.depth_max {
            return Err(Broken::new(RejectCode::TooDeep, format!("nested deeper than {} levels", self.depth_max)));
        }
        Ok(())
    }
}

#[inline]
fn check_key(key: &str) -> Result<(), Broken> {
    if key.len() > KEY_BYTES_MAX { Err(name_too_long(key.len())) } else { Ok(()) }
}

#[cold]
fn name_too_long(len: usize) -> Broken {
    let reason = format!("a field name has {len} bytes; at most {KEY_BYTES_MAX} are read");
    Broken::new(RejectCode::TooLong, reason)
}
