//! `GET /metrics`: the text format of Prometheus (version 0.0.4).
//!
//! Numbers live where they arise; a [`Page`] is only how they are written down, so there is no registry to keep in step.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use cf_ledger::read::Counts;
use cf_types::clock;

use crate::ApiState;

/// Upper bounds of the histogram of requests, in seconds.
const BOUNDS_S: [f64; 8] = [0.001, 0.005, 0.02, 0.05, 0.2, 1.0, 5.0, 30.0];

/// What a metric's value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, and begins anew with the process.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// What every name begins with.
const PREFIX: &str = "counterflow_";

/// A page of metrics being written. Every name that lacks the prefix `counterflow_` gets it.
#[derive(Clone, Debug, Default)]
pub struct Page(String);

impl Page {
    /// Writes a metric with its rows: labels and value. Nothing is written when there are none.
    pub fn metric<'a, V: std::fmt::Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        rows: impl IntoIterator<Item = (&'a [(&'a str, &'a str)], V)>,
    ) {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        self.head(name, kind, help);
        for (labels, value) in rows {
            self.row(name, labels, value);
        }
    }

    /// Writes a metric without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl std::fmt::Display) {
        self.metric(name, kind, help, [(&[][..], value)]);
    }

    /// Appends text that is in this format already.
    pub fn raw(&mut self, text: &str) {
        self.0.push_str(text);
        if !text.is_empty() && !text.ends_with('\n') {
            self.0.push('\n');
        }
    }

    /// What was written.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.line(format_args!("# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}"));
    }

    fn row(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        match labels.is_empty() {
            true => self.line(format_args!("{PREFIX}{name} {value}")),
            false => self.line(format_args!("{PREFIX}{name}{{{}}} {value}", labels.join(","))),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ok = writeln!(self.0, "{line}");
    }
}

/// Requests since the start, by route and status. Bounded: routes are ours, statuses are few.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<(String, u16), Seen>>);

#[derive(Clone, Debug, Default)]
struct Seen {
    count: u64,
    seconds: f64,
    /// Per bound, how many took no longer.
    within: [u64; BOUNDS_S.len()],
}

impl Requests {
    fn add(&self, route: &str, status: u16, took: Duration) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.entry((route.to_owned(), status)).or_default();
        seen.count += 1;
        seen.seconds += took.as_secs_f64();
        for (within, bound) in seen.within.iter_mut().zip(BOUNDS_S) {
            *within += u64::from(took.as_secs_f64() <= bound);
        }
    }

    fn write(&self, page: &mut Page) {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if seen.is_empty() {
            return;
        }
        let name = "http_request_seconds";
        page.head(name, "histogram", "How long requests took, by route and status.");
        for ((route, status), seen) in seen {
            let status = status.to_string();
            let labels = [("route", route.as_str()), ("status", status.as_str())];
            let with_bound = |bound: &str| [labels[0], labels[1], ("le", bound)].map(|(k, v)| (k, v.to_owned()));
            for (bound, within) in
                BOUNDS_S.iter().map(f64::to_string).zip(seen.within).chain([("+Inf".to_owned(), seen.count)])
            {
                let owned = with_bound(&bound);
                let borrowed: Vec<_> = owned.iter().map(|(label, value)| (*label, value.as_str())).collect();
                page.row(&format!("{name}_bucket"), &borrowed, within);
            }
            page.row(&format!("{name}_sum"), &labels, seen.seconds);
            page.row(&format!("{name}_count"), &labels, seen.count);
        }
    }
}

/// Counts every request.
pub(crate) async fn count(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    state.requests.add(&route, response.status().as_u16(), begun.elapsed());
    response
}

pub(crate) async fn show(State(state): State<ApiState>) -> Response {
    let mut page = Page::default();
    (state.metrics)(&mut page);
    state.requests.write(&mut page);
    let counts = state.reader.counts().await;
    page.single("ledger_readable", Kind::Gauge, "1 when the ledger can be read.", u8::from(counts.is_ok()));
    match counts {
        Ok(counts) => write_counts(&counts, &mut page),
        Err(error) => tracing::warn!(%error, "the ledger could not be counted for metrics"),
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.into_text()).into_response()
}

fn write_counts(counts: &Counts, page: &mut Page) {
    let Counts { alerts, incidents, actions, intents, oldest_unfinished } = counts;
    for (name, help, rows) in [
        ("alerts", "Alerts in the ledger, by state.", alerts),
        ("incidents", "Incidents in the ledger, by state.", incidents),
        ("actions", "Actions in the ledger, by state.", actions),
    ] {
        let rows: Vec<_> = rows.iter().map(|(state, count)| ([("state", state.as_str())], count)).collect();
        page.metric(name, Kind::Gauge, help, rows.iter().map(|(labels, count)| (&labels[..], count)));
    }
    let rows: Vec<_> = intents
        .iter()
        .map(|(receiver, state, count)| ([("receiver", receiver.as_str()), ("state", state.as_str())], count))
        .collect();
    let help = "Messages and effects in the ledger, by receiver and state.";
    page.metric("intents", Kind::Gauge, help, rows.iter().map(|(labels, count)| (&labels[..], count)));
    let age = oldest_unfinished.map_or(0, |made| clock::now().micros().saturating_sub(made.micros()) / 1_000_000);
    page.single("oldest_unfinished_intent_seconds", Kind::Gauge, "Age of the oldest intent that is not done.", age);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_in_the_format_whatever_the_labels_hold() {
        let mut page = Page::default();
        page.single("counterflow_epoch", Kind::Gauge, "The last epoch.", 7);
        page.metric("rules_total", Kind::Counter, "By\nrule.", [(&[("rule_id", "a\"b\\c\nd")][..], 2)]);
        page.metric::<u64>("nothing", Kind::Gauge, "Without rows.", []);
        page.raw("x 1");
        let expect = "# HELP counterflow_epoch The last epoch.\n# TYPE counterflow_epoch gauge\ncounterflow_epoch 7\n\
            # HELP counterflow_rules_total By\\nrule.\n# TYPE counterflow_rules_total counter\n\
            counterflow_rules_total{rule_id=\"a\\\"b\\\\c\\nd\"} 2\nx 1\n";
        assert_eq!(page.into_text(), expect);
    }
}
