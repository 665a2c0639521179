//! YARA texts to rules like others: what a field's value or a file must hold. Pure: no I/O; the engine is `boreal`.
//!
//! [`read`] makes rules of texts: id, title, level, tags, fields and log source come from each rule's `meta`, and the
//! condition is a test (a [`cf_sigma::rule::ValueTest`]) that asks the one [`Engine`] all of them share. So YARA rules
//! are routed, folded into alerts and listed like any other.
//!
//! What bounds it: values and files are scanned up to a size and for a time ([`Limits`]), rules and their strings are
//! counted, `include` is refused, and a thread remembers a few values of a few MiB. What was cut short is counted
//! ([`counters`]) and never silent.
//!
//! The result of a scan that ends in time depends on value and rules alone: the module `time` is not there.
//!
//! ```
//! use cf_sigma::{Options, RuleSet, Text, parse};
//! use cf_yara::Limits;
//!
//! let text = r#"rule Loader { meta: level = "high" strings: $a = "Invoke-Loader" nocase condition: $a }"#;
//! let texts = [Text { file: "loader.yar".into(), text: text.to_owned() }];
//! let read = cf_yara::read(&texts, &Limits::default());
//! let mut parsed = parse(&[]);
//! parsed.include(&texts, read.rules, read.problems);
//! let (rules, problems) = RuleSet::compile(parsed, &Options::default());
//! assert!(problems.is_empty());
//! assert_eq!(&*rules.rules()[0].id, "yara.Loader");
//! ```

mod engine;
mod meta;
mod necessary;
mod read;

pub use engine::{Counters, Engine, Found, FoundString, Limits, Scan, counters};
pub use meta::{CONTENT_FIELDS, DEFAULT_FIELDS};
pub use read::{CODES, Read, is_yara, read};
