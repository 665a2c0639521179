//! Whether an event belongs to a rule's log source, and why not.

use std::{fmt, sync::Arc};

use cf_types::{Event, LogSource, Name, Scalar};
use serde::Serialize;

use super::{indent, mark, value::cut};
use crate::{
    fold::folded,
    log_source::{Category, LogSources, is_product_only},
    rule::LogSourcePattern,
};

/// Whether an event belongs to a rule's log source.
#[derive(Clone, Debug, Serialize)]
pub struct LogSourceFit {
    /// What the rule is about: product, category and service, `-` for any.
    pub wanted: String,
    /// What the event's decoder declared, in the same form.
    pub declared: String,
    /// Its channel, or the one that its provider writes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Its event ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event_ids: Vec<String>,
    /// Whether it belongs to it.
    pub fits: bool,
    /// The way by which the condition was evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<str>>,
    /// All ways by which events belong to it.
    pub ways: Vec<Way>,
}

/// A way by which events belong to a log source.
#[derive(Clone, Debug, Serialize)]
pub struct Way {
    /// `declared`, or channel and event ids.
    pub by: Arc<str>,
    /// Whether this event does.
    pub fits: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// A rule's field, and the event's field that holds it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<(Arc<str>, Arc<str>)>,
}

pub(super) fn fit(table: &LogSources, pattern: &LogSourcePattern, event: &Event) -> LogSourceFit {
    let value = |field: &str| event.fields.first(Name::intern(field)).filter(|text| !text.is_empty());
    let by_provider = || value("Provider_Name").and_then(|provider| table.channel_of_provider(provider));
    let channel = value("Channel").or_else(by_provider);
    let ids: Vec<&str> = values(event, "EventID");
    let mut ways = vec![declared(table, pattern, &event.log_source)];
    let outside = foreign(table, channel, &event.log_source);
    if is_product_only(pattern) {
        let product = channel.and_then(|channel| table.product_of_channel(channel));
        let why = match (&outside, product) {
            (Some(why), _) => Some(why.clone()),
            (None, Some(product)) if Some(product) != pattern.product.as_ref() => {
                Some(format!("the channel is one of {product}"))
            }
            (None, Some(_)) => None,
            (None, None) => Some("the event has no channel that is known".to_owned()),
        };
        let by = format!("any channel of {}", pattern.product.as_deref().unwrap_or_default());
        ways.push(Way { by: Arc::from(by), fits: why.is_none(), why, fields: Vec::new() });
    }
    for entry in table.entries(pattern) {
        let mut by = format!("channel {}", entry.channel);
        if let Some(row) = entry.category {
            by.push_str(&format!(", event {}", listed(row.event_ids.iter().map(ToString::to_string))));
        }
        let other = channel.is_none_or(|channel| folded(channel) != folded(entry.channel));
        let why = if other {
            Some(channel.map_or("the event has no channel".to_owned(), |name| format!("its channel is {}", cut(name))))
        } else {
            outside.clone().or_else(|| entry.category.and_then(|row| row_fails(row, event, &ids)))
        };
        let fields = entry.category.map(|row| row.fields.clone()).unwrap_or_default();
        ways.push(Way { by: Arc::from(by), fits: why.is_none(), why, fields });
    }
    LogSourceFit {
        wanted: shown(&pattern.product, &pattern.category, &pattern.service),
        declared: shown_source(&event.log_source),
        channel: channel.map(cut),
        event_ids: ids.into_iter().map(cut).collect(),
        fits: ways.iter().any(|way| way.fits),
        by: None,
        ways,
    }
}

fn declared(table: &LogSources, pattern: &LogSourcePattern, source: &LogSource) -> Way {
    let fits = table.fits_declared(pattern, source);
    let why = (!fits).then(|| format!("the event is declared {}", shown_source(source)));
    Way { by: Arc::from("declared"), fits, why, fields: Vec::new() }
}

/// Why the event is of none of the table's channels, whatever its channel says.
fn foreign(table: &LogSources, channel: Option<&str>, source: &LogSource) -> Option<String> {
    let product = table.product_of_channel(channel?)?;
    let declared = source.product.as_deref().filter(|declared| !declared.eq_ignore_ascii_case(product))?;
    Some(format!("the event is declared {declared}, the channel is one of {product}"))
}

/// Why an event of the channel is not of the category.
fn row_fails(row: &Category, event: &Event, ids: &[&str]) -> Option<String> {
    let wanted = |id: &&str| row.event_ids.iter().any(|wanted| wanted.to_string() == folded(id));
    if !ids.iter().any(wanted) {
        let ids = ids.iter().map(|id| cut(id));
        return Some(if ids.len() == 0 {
            "the event has no id".to_owned()
        } else {
            format!("its event id is {}", listed(ids))
        });
    }
    row.when.iter().find_map(|(field, wanted)| {
        let found = values(event, field);
        let fits = |text: &&str| wanted.iter().any(|wanted| folded(wanted) == folded(text));
        let why =
            || format!("its {field} is {}, not {}", listed(found.iter().map(|text| cut(text))), wanted.join(" or "));
        (!found.iter().any(fits)).then(why)
    })
}

fn values<'e>(event: &'e Event, field: &str) -> Vec<&'e str> {
    let all = event.fields.all(Name::intern(field));
    all.filter(|(_, scalar)| *scalar != Scalar::Null).map(|(text, _)| text).collect()
}

fn listed(texts: impl Iterator<Item = String>) -> String {
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}

fn shown(product: &Option<Arc<str>>, category: &Option<Arc<str>>, service: &Option<Arc<str>>) -> String {
    [product, category, service].map(|part| part.as_deref().unwrap_or("-")).join("/")
}

fn shown_source(source: &LogSource) -> String {
    shown(&source.product, &source.category, &source.service)
}

impl LogSourceFit {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        indent(f, depth)?;
        write!(f, "{} log source {}", mark(Some(self.fits)), self.wanted)?;
        if let Some(by) = &self.by {
            return writeln!(f, ": {by}");
        }
        writeln!(f)?;
        for way in &self.ways {
            indent(f, depth + 1)?;
            writeln!(f, "{} {}: {}", mark(Some(way.fits)), way.by, way.why.as_deref().unwrap_or("fits"))?;
        }
        Ok(())
    }
}
