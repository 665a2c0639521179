//! `counterflow rules explain`: why a rule did or did not match the events of a file, part by part.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use cf_ingest::{Decoded, Decoder, SourceTable, Want};
use cf_sigma::{RuleIndex, RuleSet};
use serde_json::json;

use crate::{
    cli::{Cli, ExplainArguments},
    input::{BATCH_RECORDS, Input},
    output::{self, Exit, Format},
    rules,
};

/// Events explained by one call: beyond it the list helps nobody.
const EVENTS_MAX: usize = 10_000;

/// Explains; exit 0 if some event matched, 1 if none did.
pub(crate) fn run(cli: &Cli, arguments: &ExplainArguments) -> Result<Exit> {
    let loaded = rules::load(&arguments.rules, &super::rules::options(&arguments.inputs)?)?;
    super::rules::report(&loaded);
    let index = find(&loaded.rules, &arguments.rule)?;
    let (file, line) = place(&arguments.place)?;
    let format = Format::or_default(cli.output);
    // Names of fields are known once the rules are compiled; events are decoded after that.
    let mut decoder = Decoder::with(Arc::new(SourceTable::default()), Want { entities: true });
    let mut decoded = Decoded::default();
    let mut input = Input::new(std::slice::from_ref(&file), arguments.year);
    let (mut events, mut matched) = (0, 0);
    let mut rows = Vec::new();
    'read: loop {
        let records = input.batch(BATCH_RECORDS);
        if records.is_empty() {
            break;
        }
        for record in records.iter().filter(|record| line.is_none_or(|line| record.position.line == line)) {
            decoded.clear();
            decoder.decode(record, &mut decoded);
            for event in &decoded.events {
                if events == EVENTS_MAX {
                    output::note(&format!("only the first {EVENTS_MAX} events are explained; name a line"));
                    break 'read;
                }
                let explanation = loaded.rules.explain(index, event);
                events += 1;
                matched += usize::from(explanation.matched);
                let (file, line) = (&event.position.origin, event.position.line);
                if format == Format::Table {
                    let tree: Vec<String> = explanation.to_string().lines().map(output::printable).collect();
                    let text = format!("{}:{line}: {}\n", output::printable(file), tree.join("\n"));
                    output::ignore_closed_pipe(output::text(&text))?;
                } else {
                    rows.push(json!({ "file": file, "line": line, "explanation": explanation }));
                }
            }
            for reject in decoded.rejects.drain(..) {
                let (file, line) = (&reject.position.origin, reject.position.line);
                output::note(&format!("rejected: {file}:{line}: {}: {}", reject.code.as_str(), reject.reason));
            }
        }
    }
    if format != Format::Table {
        output::ignore_closed_pipe(output::rows(format, &["file", "line", "explanation"], rows))?;
    }
    if events == 0 {
        let what = line.map_or_else(|| "no event".to_owned(), |line| format!("no event at line {line}"));
        bail!("{} has {what}", file.display());
    }
    output::note(&format!("{events} events, {matched} match"));
    Ok(if matched > 0 && input.unreadable == 0 { Exit::Ok } else { Exit::Problems })
}

/// The rule of an id; where a title is meant, of that.
fn find(rules: &RuleSet, asked: &str) -> Result<RuleIndex> {
    let of =
        |fits: &dyn Fn(&cf_sigma::RuleInfo) -> bool| rules.indexes().find(|index| rules.rule(*index).is_some_and(fits));
    let found = of(&|rule| &*rule.id == asked).or_else(|| of(&|rule| rule.title.eq_ignore_ascii_case(asked)));
    found.with_context(|| format!("there is no rule with id or title {asked:?} among those that load"))
}

/// `FILE`, `FILE:LINE` or `-`. A file whose name ends so wins.
fn place(text: &str) -> Result<(PathBuf, Option<u64>)> {
    if text == "-" || Path::new(text).exists() {
        return Ok((PathBuf::from(text), None));
    }
    let line = text.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse::<u64>().ok()?)));
    match line {
        Some((file, line)) if file == "-" || Path::new(file).exists() => Ok((PathBuf::from(file), Some(line))),
        _ => bail!("there is no file {text}; write FILE, FILE:LINE or - for standard input"),
    }
}
