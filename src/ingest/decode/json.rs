//! JSON as a tape of nodes in reused buffers, and the walk over it.

use cf_types::RejectCode;
use simd_json::{Buffers, ErrorType, Node, StaticNode, Tape};

use super::sink::Broken;

/// Parses one document after another without allocating, once its buffers have grown.
pub(crate) struct Json {
    padded: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
    depth_max: usize,
}

impl Json {
    /// A parser that refuses documents nested deeper than `depth_max`.
    pub(crate) fn new(depth_max: usize) -> Json {
        Json {
            padded: Vec::new(),
            buffers: Buffers::with_max_depth(4_096, depth_max),
            tape: Tape(Vec::new()),
            depth_max,
        }
    }

    /// Parses a document and hands its nodes to `walk`.
    ///
    /// Validation is strict: UTF-8, structure, escapes, numbers, nothing behind the document.
    pub(crate) fn parse<R>(&mut self, bytes: &[u8], walk: impl FnOnce(Value<'_, '_>) -> R) -> Result<R, Broken> {
        match self.parse_once(bytes, walk) {
            Ok(result) => Ok(result),
            Err((error, walk)) => self.parse_slowly(bytes, &error, walk),
        }
    }

    fn parse_once<R, F: FnOnce(Value<'_, '_>) -> R>(
        &mut self,
        bytes: &[u8],
        walk: F,
    ) -> Result<R, (simd_json::Error, F)> {
        self.padded.clear();
        self.padded.extend_from_slice(bytes);
        self.padded.resize(bytes.len() + simd_json::INPUT_PADDING, b' ');
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(&mut self.padded, bytes.len(), &mut self.buffers, &mut tape);
        let result = match parsed {
            Ok(()) => Ok(walk(&tape.0)),
            Err(error) => Err((error, walk)),
        };
        self.tape = tape.reset();
        result
    }

    /// What simd-json refuses may be a number beyond 64 bits, which is JSON: such a document is written anew with the
    /// number as a float and read again.
    #[cold]
    fn parse_slowly<R>(
        &mut self,
        bytes: &[u8],
        error: &simd_json::Error,
        walk: impl FnOnce(Value<'_, '_>) -> R,
    ) -> Result<R, Broken> {
        if matches!(error.error(), ErrorType::DepthLimitExceeded) {
            return Err(Broken::new(RejectCode::TooDeep, format!("nested deeper than {} levels", self.depth_max)));
        }
        if let Err(invalid) = simdutf8::compat::from_utf8(bytes) {
            return Err(Broken::utf8(invalid.valid_up_to()));
        }
        let number = matches!(error.error(), ErrorType::InvalidNumber | ErrorType::Parser | ErrorType::ExpectedNumber);
        if number && let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) {
            let anew = serde_json::to_vec(&value).unwrap_or_default();
            return self.parse_once(&anew, walk).map_err(|(error, _)| broken(bytes, &error));
        }
        Err(broken(bytes, error))
    }
}

fn broken(bytes: &[u8], error: &simd_json::Error) -> Broken {
    // serde_json says line and column, and what it wanted; it is asked only when the record is lost already.
    let said = match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
        Err(said) => said.to_string(),
        Ok(_) => error.to_string(),
    };
    Broken::new(RejectCode::InvalidJson, format!("not valid JSON: {said}"))
}

/// A value: its node and all nodes inside it.
pub(crate) type Value<'t, 'i> = &'t [Node<'i>];

/// The text of a string.
pub(crate) fn text<'i>(value: Value<'_, 'i>) -> Option<&'i str> {
    match value.first() {
        Some(Node::String(text)) => Some(text),
        _ => None,
    }
}

/// Whether it is an object.
pub(crate) fn is_object(value: Value<'_, '_>) -> bool {
    matches!(value.first(), Some(Node::Object { .. }))
}

/// Whether it is null.
pub(crate) fn is_null(value: Value<'_, '_>) -> bool {
    matches!(value.first(), Some(Node::Static(StaticNode::Null)))
}

/// The members of an object, none for anything else.
pub(crate) fn members<'t, 'i>(value: Value<'t, 'i>) -> Members<'t, 'i> {
    match value.split_first() {
        Some((Node::Object { .. }, rest)) => Members(rest),
        _ => Members(&[]),
    }
}

/// The elements of an array; anything else is its own only element.
pub(crate) fn elements<'t, 'i>(value: Value<'t, 'i>) -> Elements<'t, 'i> {
    match value.split_first() {
        Some((Node::Array { .. }, rest)) => Elements(rest),
        _ => Elements(value),
    }
}

/// The first member of this name.
pub(crate) fn member<'t, 'i>(value: Value<'t, 'i>, name: &str) -> Option<Value<'t, 'i>> {
    members(value).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// See [`members`].
#[derive(Clone)]
pub(crate) struct Members<'t, 'i>(Value<'t, 'i>);

impl<'t, 'i> Iterator for Members<'t, 'i> {
    type Item = (&'i str, Value<'t, 'i>);

    fn next(&mut self) -> Option<Self::Item> {
        let (Node::String(key), rest) = self.0.split_first()? else {
            return None;
        };
        let (value, rest) = split_value(rest)?;
        self.0 = rest;
        Some((key, value))
    }
}

/// See [`elements`].
#[derive(Clone)]
pub(crate) struct Elements<'t, 'i>(Value<'t, 'i>);

impl<'t, 'i> Iterator for Elements<'t, 'i> {
    type Item = Value<'t, 'i>;

    fn next(&mut self) -> Option<Self::Item> {
        let (value, rest) = split_value(self.0)?;
        self.0 = rest;
        Some(value)
    }
}

fn split_value<'t, 'i>(nodes: &'t [Node<'i>]) -> Option<(Value<'t, 'i>, &'t [Node<'i>])> {
    let size = match nodes.first()? {
        Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
        Node::String(_) | Node::Static(_) => 1,
    };
    nodes.split_at_checked(size)
}
