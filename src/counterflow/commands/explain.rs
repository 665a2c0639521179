//! `counterflow explain`: why there is an alert, and why there is none.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cf_types::Time;
use serde_json::Value;

use crate::{
    cli::{Cli, ExplainCommand},
    output::{self, Exit, Failed, Format, printable},
    provenance::{self, Explanation, Missing, Sources},
};

/// Runs one of them.
pub(crate) fn run(cli: &Cli, command: &ExplainCommand) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("could not start")?;
    match command {
        ExplainCommand::Alert { data, all, id } => {
            let explained = runtime.block_on(explain(data, id, *all))?;
            let explained = explained.ok_or_else(|| anyhow::Error::new(Failed(format!("there is no alert {id}"))))?;
            show(cli, &serde_json::to_value(&explained)?, || of_alert(&explained))
        }
        ExplainCommand::Missing { data, from, to, rule, entity } => {
            if from > to {
                bail!("--from lies after --to");
            }
            let missing = runtime.block_on(async {
                let sources = Sources::open(data).await?;
                provenance::missing(&sources, rule, entity, *from, *to).await
            })?;
            show(cli, &serde_json::to_value(&missing)?, || of_missing(&missing))
        }
    }
}

async fn explain(data: &Path, id: &str, all: bool) -> Result<Option<Explanation>> {
    let sources = Sources::open(data).await?;
    let per_end = if all { provenance::EVENTS_MAX } else { provenance::EVENTS_PER_END };
    provenance::alert(&sources, id, per_end).await
}

fn show(cli: &Cli, value: &Value, text: impl FnOnce() -> String) -> Result<Exit> {
    let printed = match Format::or_default(cli.output) {
        Format::Table => output::text(&text()),
        Format::Json | Format::Sarif => output::rows(Format::Json, &[], [value.clone()]),
        Format::Csv => bail!("an explanation is no table; use --output json"),
    };
    output::ignore_closed_pipe(printed)?;
    Ok(Exit::Ok)
}

/// Appends a line.
macro_rules! line {
    ($out:expr, $($arguments:tt)*) => {{
        $out.push_str(&format!($($arguments)*));
        $out.push('\n');
    }};
}

fn of_alert(explained: &Explanation) -> String {
    let Explanation { alert, rule, .. } = explained;
    let content = &alert.content;
    let mut out = String::new();
    let text = |value: &Value| printable(value.as_str().unwrap_or_default());
    let cell = |name: &str| Time::from_seconds(content[name].as_i64().unwrap_or_default());
    line!(out, "alert {} ({})", alert.alert_id, alert.state);
    line!(out, "  {} [{}], score {}", text(&content["title"]), text(&content["level"]), content["score"]);
    let group = serde_json::from_value::<cf_types::Group>(content["group"].clone()).unwrap_or_default();
    let group: Vec<String> = group.iter().map(|(field, value)| format!("{field}={value}")).collect();
    line!(out, "  group      {}", printable(&group.join(" ")));
    line!(out, "  extent     {} to {}", cell("anchor"), cell("last_cell"));
    line!(out, "  count      {}", content["count"]);
    line!(out, "  thread     {} revision {}", alert.thread, alert.revision);
    if let Some(incident) = alert.incident {
        line!(out, "  incident   {incident}");
    }
    for reason in alert.reason.iter().chain(&alert.superseded_by) {
        line!(out, "  because    {}", printable(reason));
    }
    line!(out, "rule {}: {}", printable(&rule.id), printable(&rule.title));
    if let (Some(file), Some(place)) = (&rule.file, rule.line) {
        let hash = rule.text_hash.as_deref().unwrap_or("unknown");
        line!(out, "  file       {}:{place}, text {hash}", printable(file));
    }
    if let (Some(set), Some(engine)) = (&rule.rule_set, &rule.engine) {
        line!(out, "  rule set   {set}, engine {engine}");
    }
    if let (Some(condition), Some(timespan)) = (&rule.condition, rule.timespan_s) {
        line!(out, "  condition  {} within {timespan} s", printable(&condition.to_string()));
    }
    for reference in &rule.references {
        let title = reference.title.as_deref().unwrap_or_default();
        let count = reference.count.map_or_else(String::new, |count| format!("{count} x "));
        line!(out, "  refers to  {count}{} {}", printable(&reference.id), printable(title));
    }
    line!(out, "revisions");
    for revision in &explained.revisions {
        let why = revision.reason.as_deref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
        let count = revision.count.map_or_else(String::new, |count| format!(", {count} members"));
        line!(
            out,
            "  {} {} in epoch {} at {}{count}{why}",
            revision.revision,
            revision.event,
            revision.epoch,
            revision.at
        );
    }
    if !explained.facts.is_empty() {
        line!(out, "facts");
    }
    for fact in &explained.facts {
        let said =
            format!("{} {} by {} at {}", text(&fact["said"]), fact["seq"], text(&fact["author"]), text(&fact["at"]));
        line!(out, "  {}: {} ({said})", text(&fact["kind"]), text(&fact["effect"]));
    }
    if !explained.actions.is_empty() {
        line!(out, "actions");
    }
    for action in &explained.actions {
        line!(out, "  {} {} {}: {}", action.id, action.kind, printable(&action.target), action.state);
    }
    if !explained.below.is_empty() {
        line!(out, "stands on");
    }
    for below in &explained.below {
        let (from, to) = (Time::from_seconds(below.anchor), Time::from_seconds(below.last_cell));
        line!(out, "  {} {} x{}, {from} to {to}", printable(&below.rule_id), printable(&below.title), below.count);
    }
    events(explained, &mut out);
    for note in &explained.notes {
        line!(out, "note: {}", printable(note));
    }
    out
}

fn events(explained: &Explanation, out: &mut String) {
    line!(out, "events ({})", explained.events_total);
    let mut print = |rows: &[provenance::EventRow]| {
        for row in rows {
            let place = if row.line > 0 { format!("line {}", row.line) } else { format!("row {}", row.offset) };
            let source = row.source.as_deref().map(|source| format!("{source}, ")).unwrap_or_default();
            let rule = row.rule_id.as_deref().map(|rule| format!("  met {rule}")).unwrap_or_default();
            let (id, origin) = (printable(&row.event_id), printable(&row.origin));
            line!(out, "  {}  {id}  {}{origin} {place}{}", row.time, printable(&source), printable(&rule));
        }
    };
    print(&explained.first_events);
    print(&explained.last_events);
    let shown = explained.first_events.len() + explained.last_events.len();
    if explained.events_total > shown {
        line!(out, "  {} more between the first and the last; --all shows them", explained.events_total - shown);
    }
}

fn of_missing(missing: &Missing) -> String {
    let mut out = String::new();
    let title = missing.title.as_deref().unwrap_or("unknown");
    line!(out, "rule {}: {}", printable(&missing.rule_id), printable(title));
    line!(out, "{} from {} to {}", printable(&missing.entity), missing.from, missing.to);
    for finding in &missing.findings {
        line!(out, "- {}", printable(&finding.text));
    }
    for one in &missing.referenced {
        let name = one.title.as_deref().unwrap_or_default();
        let span = match (one.first, one.last) {
            (Some(first), Some(last)) => format!(", {first} to {last}"),
            _ => String::new(),
        };
        line!(out, "  {} {}: {} detections{span}", printable(&one.rule_id), printable(name), one.detections);
    }
    if let Some(window) = &missing.best_window {
        let group = printable(&window.group.to_string());
        line!(out, "  best window {} to {} of {group}", window.from, window.to);
        line!(out, "    {} items, {} values; asked for {}", window.items, window.values, window.condition);
        for absent in &window.absent {
            line!(out, "    absent: {}", printable(absent));
        }
    }
    out
}
