//! How payloads of products become events: what a mapping file or a source's `mapping` setting can say.
//!
//! A mapping is a list of [`Payload`]s, each a kind of JSON document: how it is recognised, which log source it declares,
//! where its time and id are, which of its values also get the name that Sigma rules use, and which fields are
//! entities. The shipped ones are `decode/vendor/*.yml`; a source's own come before them. All that is said here is
//! checked once, when the settings are read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of the longest mapping file.
const FILE_BYTES_MAX: usize = 1 << 20; // 1 MiB: the shipped ones have some 50 KiB together

/// Kinds of payloads, and groups of fields that several of them share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mapping {
    /// Fields by the name of a group; a payload takes them by naming the group. The shipped groups are known too.
    pub groups: BTreeMap<String, BTreeMap<String, Given>>,
    /// Kinds of payloads; the first that fits a document is the one.
    pub payloads: Vec<Payload>,
}

impl Mapping {
    /// Reads a mapping file.
    ///
    /// # Errors
    ///
    /// It is longer than 1 MiB or not YAML of this form. What it says is checked with the source's other options.
    pub fn parse(text: &str) -> Result<Mapping, MappingError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(MappingError::TooLong);
        }
        serde_saphyr::from_str(text).map_err(|error| MappingError::Yaml(error.to_string()))
    }
}

/// Why a text is no mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Too long to be read.
    #[error("the mapping is longer than {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// Not of the form.
    #[error("the mapping is not valid: {0}")]
    Yaml(String),
    /// A row says what cannot be.
    #[error("payload {payload:?} of the mapping is not valid: {problem}")]
    Payload {
        /// Its name.
        payload: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

/// A kind of JSON document.
///
/// Paths have dots; each dot may also be part of a member's name, so that `event.code` finds nested and flat forms.
/// Where a path meets a list, conditions and times look at its first element, fields at all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Payload {
    /// Its name, for messages.
    pub name: String,
    /// Which documents it is: members, each with the value that it must have (or one of a list). A value may begin or
    /// end with `*`; `*` alone is any value but null; `-` says that the member is not there. Case does not matter. Of a
    /// list of such maps one must fit.
    pub when: OneOrMany<BTreeMap<String, OneOrMany<String>>>,
    /// Sigma's product.
    pub product: Option<Given>,
    /// Sigma's category.
    pub category: Option<Given>,
    /// Sigma's service.
    pub service: Option<Given>,
    /// Where its time may be, in the order of belief.
    pub time: OneOrMany<String>,
    /// Where its id may be, in the order of belief.
    pub id: OneOrMany<String>,
    /// Groups whose fields it has too.
    pub groups: Vec<String>,
    /// Fields that it gets besides its own, by name. A name that the document has itself is left as it is.
    pub fields: BTreeMap<String, Given>,
    /// Fields (own or given) that name an entity, by its kind: `host`, `user`, `address`, `process`, `file_hash`,
    /// `domain`.
    pub entities: BTreeMap<String, Vec<String>>,
    /// Members that hold a payload of their own: an object, JSON as text, or a log line. Its fields lose the prefix; what
    /// it is recognised as wins over what is said here.
    pub inside: OneOrMany<String>,
    /// The member that holds a log line without its syslog header, and where the header's parts are.
    pub line: Option<Line>,
    /// The member that is a list of documents, each an event of its own (`Records`).
    pub split: Option<String>,
    /// The lists, with dots, whose innermost elements are events of their own, each with what stands around it
    /// (`Results.Vulnerabilities`).
    pub spread: Option<String>,
    /// The document is OTLP: typed values and lists of keys are made plain while it is spread.
    pub otlp: bool,
}

/// A log line without its header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Line {
    /// The member that holds it.
    pub message: String,
    /// Where the program's name may be.
    pub program: OneOrMany<String>,
    /// Where its process id may be.
    pub pid: OneOrMany<String>,
    /// Where the host's name may be.
    pub host: OneOrMany<String>,
}

/// What a field gets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Given {
    /// The values of a path, or a text with paths in braces (`{user.domain}\{user.name}`), given if all of them are
    /// there. In a log source: a word, or a path in braces.
    Text(String),
    /// The first that gives something.
    First(Vec<Given>),
    /// Something else.
    Made(Box<Made>),
}

/// What a field gets when it is neither a value as it is nor a text around one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Made {
    /// The values of all of these, as repeats.
    pub each: Vec<Given>,
    /// Paths, or texts with paths in braces; the first that is there is changed by what else is said.
    pub of: OneOrMany<String>,
    /// Value to word; case does not matter, a value that is not in it gives nothing (or `otherwise`).
    pub words: BTreeMap<String, String>,
    /// The word for values that `words` does not have, and for none.
    pub otherwise: Option<String>,
    /// Beginning to what replaces it; a value with none of them stays as it is.
    pub begins: BTreeMap<String, String>,
    /// Only what stands behind the first of this text; a value without it gives nothing.
    pub after: Option<String>,
    /// Only what stands before the first of this text; all of a value without it.
    pub before: Option<String>,
    /// The path whose value is given as JSON text.
    pub json: Option<String>,
    /// The path of a list of named values (`[{"Name": "a", "Value": "b"}]`).
    pub list: Option<String>,
    /// The name whose value of `list` is given.
    pub named: Option<String>,
    /// What is put in front of it.
    pub front: Option<String>,
    /// A word.
    pub is: Option<String>,
    /// Only if this path is not there.
    pub unless: Option<String>,
    /// Only if this path is there.
    pub with: Option<String>,
}

/// One or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Several.
    Many(Vec<T>),
}

impl<T> Default for OneOrMany<T> {
    fn default() -> OneOrMany<T> {
        OneOrMany::Many(Vec::new())
    }
}

impl<T> OneOrMany<T> {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}
