//! Lengths of time as rules write them: `5m`, `24h`, `1M`.

use crate::{
    problem::{Problems, Refused, shown},
    rule::{TimeUnit, Timespan},
    yaml::Node,
};

/// A window must fit into the horizon's order of magnitude; a year of cells is beyond what is kept anyway.
const SECONDS_MAX: i64 = 366 * 86_400;

/// Reads one. Months and years are read too, though nothing evaluates them.
pub(super) fn read(node: &Node, problems: &mut Problems) -> Result<Timespan, Refused> {
    let text = node.text().unwrap_or_default().trim();
    let span = parse(text).filter(|span| span.count > 0);
    match span {
        Some(span) if span.seconds().is_none_or(|seconds| seconds <= SECONDS_MAX) => Ok(span),
        _ => {
            let message = format!("\"{}\" is no time span", shown(text));
            let hint = Some("give a number and s, m, h, d or w, as `5m`; at most 366d".to_owned());
            Err(problems.error("timespan", node.at, message, hint))
        }
    }
}

fn parse(text: &str) -> Option<Timespan> {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let unit = match text.get(digits.len()..)? {
        "s" => TimeUnit::Second,
        "m" => TimeUnit::Minute,
        "h" => TimeUnit::Hour,
        "d" => TimeUnit::Day,
        "w" => TimeUnit::Week,
        "M" => TimeUnit::Month,
        "y" | "Y" => TimeUnit::Year,
        _ => return None,
    };
    Some(Timespan { count: digits.parse().ok()?, unit })
}
