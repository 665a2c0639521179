//! YAML text to trees with places, in bounded time and memory.
//!
//! Works on the event parser of `serde-saphyr`, because rules need what a typed deserialiser drops: the line of every
//! value, and whether a scalar was quoted (`null` is null, `'null'` is a word). Aliases are copied under the same budget
//! of nodes as everything else, so a bomb of them ends at the budget.

use std::{borrow::Cow, collections::HashMap};

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, Span};

use crate::problem::Place;

/// Bytes of one text.
pub(crate) const TEXT_BYTES_MAX: usize = 4 << 20;
/// Nodes of one text, aliases expanded. The largest public rule has about 9,000.
pub(crate) const NODES_MAX: usize = 400_000;
/// Nesting. The deepest public rule has six levels.
const DEPTH_MAX: usize = 32;
/// Bytes of all scalars of one text, aliases expanded.
const SCALAR_BYTES_MAX: usize = 16 << 20;

/// One value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Place,
    /// A scalar without quotes, which YAML may take for a number or a truth.
    pub(crate) plain: bool,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    /// Any other scalar, as written.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// The text is no YAML, or too much of it.
#[derive(Clone, Debug)]
pub(crate) struct YamlError {
    pub(crate) at: Place,
    pub(crate) message: String,
}

impl Node {
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(text) => Some(text),
            Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    pub(crate) fn map(&self) -> Option<&[(Node, Node)]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            Kind::Null | Kind::List(_) | Kind::Scalar(_) => None,
        }
    }

    /// The value of a key of a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.map()?.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// A list's elements; any other value but null counts as a list of one.
    pub(crate) fn each(&self) -> &[Node] {
        match &self.kind {
            Kind::List(elements) => elements,
            Kind::Null => &[],
            Kind::Scalar(_) | Kind::Map(_) => std::slice::from_ref(self),
        }
    }

    pub(crate) fn word(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Scalar(_) => "a scalar",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// Nodes and scalar bytes in it.
    pub(crate) fn size(&self) -> (usize, usize) {
        match &self.kind {
            Kind::Null => (1, 0),
            Kind::Scalar(text) => (1, text.len()),
            Kind::List(elements) => elements.iter().map(Node::size).fold((1, 0), add),
            Kind::Map(entries) => entries.iter().flat_map(|(key, value)| [key.size(), value.size()]).fold((1, 0), add),
        }
    }

    fn depth(&self) -> usize {
        match &self.kind {
            Kind::Null | Kind::Scalar(_) => 0,
            Kind::List(elements) => 1 + elements.iter().map(Node::depth).max().unwrap_or(0),
            Kind::Map(entries) => {
                1 + entries.iter().map(|(key, value)| key.depth().max(value.depth())).max().unwrap_or(0)
            }
        }
    }
}

fn add(left: (usize, usize), right: (usize, usize)) -> (usize, usize) {
    (left.0 + right.0, left.1 + right.1)
}

/// Reads all documents of a text. Those before an error are given with it.
pub(crate) fn documents(text: &str) -> (Vec<Node>, Option<YamlError>) {
    let mut documents = Vec::new();
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the text has {} bytes; at most {TEXT_BYTES_MAX} are read", text.len());
        return (documents, Some(YamlError { at: Place { line: 1, column: 1 }, message }));
    }
    let error = read_all(text, &mut documents).err();
    (documents, error)
}

fn read_all(text: &str, documents: &mut Vec<Node>) -> Result<(), YamlError> {
    let mut options = Options::default();
    options.emit_comments = false;
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let mut reader = Reader::default();
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| YamlError {
            at: Place { line: narrow(error.marker().line()), column: narrow(error.marker().col() + 1) },
            message: error.info(),
        })?;
        reader.take(event, &span, documents)?;
    }
    Ok(())
}

#[derive(Default)]
struct Reader {
    /// Collections that are open, with the anchor of each.
    open: Vec<(Open, usize)>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    bytes: usize,
}

enum Open {
    List(Place, Vec<Node>),
    Map(Place, Vec<(Node, Node)>, Option<Node>),
}

impl Reader {
    fn take(&mut self, event: Event<'_>, span: &Span, documents: &mut Vec<Node>) -> Result<(), YamlError> {
        let at = Place { line: narrow(span.start.line()), column: narrow(span.start.col() + 1) };
        let (node, anchor) = match event {
            Event::SequenceStart(_, anchor, _) => {
                self.open.push((Open::List(at, Vec::new()), anchor));
                return self.check_depth(at, 0);
            }
            Event::MappingStart(_, anchor, _) => {
                self.open.push((Open::Map(at, Vec::new(), None), anchor));
                return self.check_depth(at, 0);
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some((Open::List(begin, elements), anchor)) => {
                    (Node { at: begin, plain: false, kind: Kind::List(elements) }, anchor)
                }
                Some((Open::Map(begin, entries, _), anchor)) => {
                    (Node { at: begin, plain: false, kind: Kind::Map(entries) }, anchor)
                }
                None => return Ok(()),
            },
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                (Node { at, plain, kind: scalar(text, style) }, anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(YamlError { at, message: "an alias of a node that is not complete".to_owned() });
                };
                let (size, depth) = (node.size(), node.depth());
                self.spend(at, size)?;
                self.check_depth(at, depth)?;
                let copy = self.anchors.get(&anchor).cloned().map(|node| Node { at, ..node });
                return copy.map_or(Ok(()), |node| self.place(node, documents));
            }
            // Begin and end of stream and documents; comments and the like are switched off.
            _ => return Ok(()),
        };
        // A collection's content was counted when it came.
        self.spend(at, (1, node.text().map_or(0, str::len)))?;
        if anchor != 0 {
            self.spend(at, node.size())?;
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node, documents)
    }

    fn place(&mut self, node: Node, documents: &mut Vec<Node>) -> Result<(), YamlError> {
        match self.open.last_mut() {
            None => {
                documents.push(node);
                self.anchors.clear();
            }
            Some((Open::List(_, elements), _)) => elements.push(node),
            Some((Open::Map(_, entries, pending), _)) => match pending.take() {
                None => *pending = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
        Ok(())
    }

    fn spend(&mut self, at: Place, (nodes, bytes): (usize, usize)) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > NODES_MAX || self.bytes > SCALAR_BYTES_MAX {
            let message =
                format!("more than {NODES_MAX} nodes or {SCALAR_BYTES_MAX} bytes of scalars, aliases expanded");
            return Err(YamlError { at, message });
        }
        Ok(())
    }

    fn check_depth(&self, at: Place, inside: usize) -> Result<(), YamlError> {
        if self.open.len() + inside > DEPTH_MAX {
            return Err(YamlError { at, message: format!("nested deeper than {DEPTH_MAX} levels") });
        }
        Ok(())
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Kind {
    if style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
        Kind::Null
    } else {
        Kind::Scalar(text.into_owned())
    }
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
