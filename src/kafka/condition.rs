//! How a partition is, in words that are stated.

use std::fmt;

use serde::Serialize;

/// Why a partition is not read, or not from where it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "condition")]
pub enum Condition {
    /// Retention (or a deletion of records) has passed us: records between were never read.
    LogBeginsAfter {
        /// The offset that is bound.
        bound: u64,
        /// The first that is there.
        first: u64,
    },
    /// The broker has less than we have read.
    LogEndsBefore {
        /// The offset that is bound.
        bound: u64,
        /// The end of its log.
        end: u64,
    },
    /// There is no such topic any more.
    TopicMissing {
        /// The offset that is bound.
        bound: u64,
    },
    /// The topic of this name is another one than before.
    MadeAnew {
        /// The offset that is bound.
        bound: u64,
    },
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::LogBeginsAfter { bound, first } => write!(
                f,
                "the log begins at offset {first}, after {bound} where reading should go on: {} records are gone \
                 (retention, or records were deleted)",
                first - bound
            ),
            Condition::LogEndsBefore { bound, end } => write!(
                f,
                "the log ends at offset {end}, before {bound} that was read already: the topic was made anew, or the \
                 broker lost records"
            ),
            Condition::TopicMissing { bound } => {
                write!(f, "the topic, of which offset {bound} should be read, is not there any more")
            }
            Condition::MadeAnew { bound } => write!(
                f,
                "the record before offset {bound} is not the one that was read: the topic was made anew, or this is \
                 another cluster"
            ),
        }
    }
}
