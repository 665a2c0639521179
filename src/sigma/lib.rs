//! Sigma text to rules to one compiled matcher; pure: no I/O, no clock.
//!
//! [`parse`] reads texts into [`Rule`]s and [`Correlation`]s and says what is wrong with the others.
//! [`RuleSet::compile`] makes one matcher of them, shared by threads; a cheap [`Scanner`] per thread meets events with it.
//!
//! ```
//! use std::sync::Arc;
//! use cf_sigma::{Options, RuleSet, Scanner, Text, parse};
//!
//! let text = "\
//! title: Curl
//! id: 9b5e3a0c-5a2f-4d32-8f0f-2a37c4a3a001
//! logsource: {product: linux, category: process_creation}
//! detection:
//!   tool:
//!     Image|endswith: /curl
//!   condition: tool
//! ";
//! let parsed = parse(&[Text { file: "curl.yml".into(), text: text.to_owned() }]);
//! let (rules, problems) = RuleSet::compile(parsed, &Options::default());
//! assert!(problems.is_empty());
//! assert_eq!(rules.rules().len(), 1);
//! let scanner = Scanner::new(Arc::new(rules));
//! # let _ = scanner;
//! ```

mod codes;
mod problem;
mod yaml;

pub mod hunt;
pub mod log_source;
pub mod parse;
pub mod rule;

mod compile;
mod coverage;
mod explain;
mod fold;
mod learnt;
mod lint;
mod outline;
mod pipeline;
mod scan;
mod tally;

pub use codes::codes;
pub use compile::{Options, RuleIndex, RuleInfo, RuleSet};
pub use coverage::navigator_layer;
pub use explain::{Explanation, LogSourceFit, Miss, Part, Referenced, Way, What};
pub use hunt::Hunt;
pub use lint::lint;
pub use log_source::{Fed, LogSources};
pub use outline::Outline;
pub use parse::{ParseOptions, Parsed, Text, parse, parse_with};
pub use pipeline::{Pipeline, Pipelines};
pub use problem::{Problem, Severity};
pub use rule::{Correlation, Filter, Meta, Rule};
pub use scan::Scanner;
pub use tally::RuleStats;
