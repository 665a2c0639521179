//! Documents out of lists in a document: each element with what stands around it.
//!
//! `{"host": "a", "results": [{"id": 1}, {"id": 2}]}` by `results` is `{"host": "a", "results": {"id": 1}}` and
//! `{"host": "a", "results": {"id": 2}}`. What stands around is repeated per element, so only small members are kept
//! of it, and both the number of documents and their bytes in sum are bounded.

use cf_types::RejectCode;

use crate::decode::{
    json::{self, Value, elements, is_array, is_object, is_string, member, members, shown},
    sink::Broken,
};

/// Bytes of one member that is repeated; longer ones are left out.
const AROUND_BYTES_MAX: usize = 4 << 10;
/// Bytes of all that is repeated at one level.
const LEVEL_BYTES_MAX: usize = 32 << 10;
/// Documents out of one.
const DOCUMENTS_MAX: usize = 100_000;
/// Bytes of all documents out of one.
const BYTES_MAX: usize = 64 << 20;

/// The documents, as text. `otlp` makes typed values plain.
pub(crate) fn documents(root: Value<'_, '_>, steps: &[String], otlp: bool) -> Result<Vec<String>, Broken> {
    let mut spreading = Spreading { otlp, out: Vec::new(), bytes: 0 };
    spreading.level(root, steps, "", "")?;
    Ok(spreading.out)
}

struct Spreading {
    otlp: bool,
    out: Vec<String>,
    bytes: usize,
}

impl Spreading {
    fn level(&mut self, root: Value<'_, '_>, steps: &[String], before: &str, after: &str) -> Result<(), Broken> {
        let Some((step, deeper)) = steps.split_first() else {
            let mut document = before.to_owned();
            self.render(root, &mut document, usize::MAX);
            document.push_str(after);
            return self.push(document);
        };
        let Some(list) = member(root, step) else {
            return Ok(()); // an empty scope
        };
        let mut before = before.to_owned();
        before.push('{');
        let start = before.len();
        for (key, value) in members(root).filter(|(key, _)| key != step) {
            let length = before.len();
            write_text(key, &mut before);
            before.push(':');
            let whole = self.render(value, &mut before, AROUND_BYTES_MAX);
            before.push(',');
            if !whole || before.len() - start > LEVEL_BYTES_MAX {
                before.truncate(length);
            }
        }
        write_text(step, &mut before);
        before.push(':');
        let after = format!("}}{after}");
        elements(list)
            .filter(|element| is_object(*element))
            .try_for_each(|element| self.level(element, deeper, &before, &after))
    }

    fn push(&mut self, document: String) -> Result<(), Broken> {
        self.bytes += document.len();
        if self.out.len() >= DOCUMENTS_MAX || self.bytes > BYTES_MAX {
            let reason = format!("more than {DOCUMENTS_MAX} events or {BYTES_MAX} bytes of them in one document");
            return Err(Broken::new(RejectCode::TooLong, reason));
        }
        self.out.push(document);
        Ok(())
    }

    fn render(&self, value: Value<'_, '_>, out: &mut String, bytes_max: usize) -> bool {
        let end = out.len().saturating_add(bytes_max);
        if self.otlp { render_plain(value, out, end) } else { render_to(value, out, end) }
    }
}

/// Writes a value as JSON text of at most so many bytes (and a little more); says whether all of it is there.
pub(crate) fn render(value: Value<'_, '_>, out: &mut String, bytes_max: usize) -> bool {
    let end = out.len().saturating_add(bytes_max);
    render_to(value, out, end)
}

fn render_to(value: Value<'_, '_>, out: &mut String, end: usize) -> bool {
    if out.len() >= end {
        return false;
    }
    if is_object(value) {
        let each = members(value).map(|(key, value)| (Some(key), value));
        return list('{', '}', each, out, end, render_to);
    }
    if is_array(value) {
        return list('[', ']', elements(value).map(|value| (None, value)), out, end, render_to);
    }
    scalar(value, out, end)
}

/// The same for OTLP: `{"stringValue": "a"}` is `"a"`, a list of keys and values is an object.
fn render_plain(value: Value<'_, '_>, out: &mut String, end: usize) -> bool {
    if out.len() >= end {
        return false;
    }
    if is_object(value) {
        return match typed(value) {
            Some(("kvlistValue" | "arrayValue", inner)) => match member(inner, "values") {
                Some(values) => render_plain(values, out, end),
                None => {
                    out.push_str("null");
                    true
                }
            },
            Some((_, inner)) => render_plain(inner, out, end),
            None => {
                let each = members(value).map(|(key, value)| (Some(key), value));
                list('{', '}', each, out, end, render_plain)
            }
        };
    }
    if is_array(value) {
        let pair = |element| Some((Some(json::text(member(element, "key")?)?), member(element, "value")?));
        let is_pairs = elements(value).next().is_some() && elements(value).all(|element| pair(element).is_some());
        return if is_pairs {
            list('{', '}', elements(value).filter_map(pair), out, end, render_plain)
        } else {
            list('[', ']', elements(value).map(|value| (None, value)), out, end, render_plain)
        };
    }
    scalar(value, out, end)
}

/// OTLP's AnyValue: its type and what it holds.
fn typed<'t, 'i>(value: Value<'t, 'i>) -> Option<(&'i str, Value<'t, 'i>)> {
    const TYPES: [&str; 7] =
        ["stringValue", "intValue", "boolValue", "doubleValue", "bytesValue", "arrayValue", "kvlistValue"];
    let mut all = members(value);
    let only = all.next().filter(|(key, _)| TYPES.contains(key))?;
    all.next().is_none().then_some(only)
}

fn list<'t, 'i: 't>(
    open: char,
    close: char,
    each: impl Iterator<Item = (Option<&'i str>, Value<'t, 'i>)>,
    out: &mut String,
    end: usize,
    render: fn(Value<'_, '_>, &mut String, usize) -> bool,
) -> bool {
    out.push(open);
    let mut whole = true;
    for (number, (key, value)) in each.enumerate() {
        if number > 0 {
            out.push(',');
        }
        if let Some(key) = key {
            write_text(key, out);
            out.push(':');
        }
        whole = render(value, out, end);
        if !whole {
            break;
        }
    }
    out.push(close);
    whole
}

fn scalar(value: Value<'_, '_>, out: &mut String, end: usize) -> bool {
    let Some(text) = shown(value) else {
        out.push_str("null");
        return true;
    };
    let rest = end.saturating_sub(out.len());
    let cut = (0..=text.len().min(rest)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let kept = text.get(..cut).unwrap_or("");
    if is_string(value) {
        write_text(kept, out);
    } else {
        out.push_str(kept);
    }
    kept.len() == text.len()
}

fn write_text(text: &str, out: &mut String) {
    // A string has no value that JSON cannot write.
    out.push_str(&serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned()));
}
