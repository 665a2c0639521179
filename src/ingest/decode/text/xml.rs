//! Windows events as XML, as event viewers export and forwarders write them, and Sysmon for Linux, which writes the same
//! to syslog: one `<Event>` on a line.
//!
//! Fields have the names that the JSON forms get (`windows.rs`): `EventID`, `Channel`, `Provider_Name`, attributes of
//! `System` as `Element_Attribute`, the `Data` of `EventData` by their names.

use std::borrow::Cow;

use super::{Found, own, put, put_message};
use crate::decode::{
    names::KNOWN,
    sink::{Broken, Sink},
    time::{Assume, parse_iso},
};

/// Elements read of one event, at most.
const ELEMENTS_MAX: usize = 4_096;
/// How deep elements may nest.
const DEPTH_MAX: usize = 16;

/// Decodes an event; `None` if the text is none.
pub(super) fn decode<'a>(text: &'a str, assume: Assume<'_>, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    let text = match text.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")) {
        Some((_, rest)) => rest.trim_start(),
        None => text,
    };
    let begins = text.strip_prefix("<Event").is_some_and(|rest| rest.starts_with([' ', '>']));
    if !begins || !text.contains("<System>") {
        return Ok(None);
    }
    let mut event = Event::default();
    let mut walk = Walk { rest: text };
    let mut open: Vec<Element<'_>> = Vec::new();
    for _ in 0..ELEMENTS_MAX {
        let Some((before, tag)) = walk.next_tag() else { break };
        match tag {
            Tag::Open(element) if open.len() < DEPTH_MAX => {
                if open.len() == 2 && open.get(1).is_some_and(|parent| parent.name == "System") {
                    event.put_attributes(&element, sink)?;
                }
                if !element.closed {
                    open.push(element);
                }
            }
            Tag::Open(_) => break,
            Tag::Close => {
                if let Some(element) = open.pop() {
                    event.put_text(&open, &element, before, sink)?;
                }
            }
        }
    }
    put_message(sink, text)?;
    let time = event.time.as_deref().and_then(|time| parse_iso(time, assume));
    let found = Found { product: Some("windows"), time, ..Found::default() };
    if event.provider.as_deref() != Some("Linux-Sysmon") {
        return Ok(Some(found));
    }
    let category = match event.id.as_deref() {
        Some("1") => Some("process_creation"),
        Some("3") => Some("network_connection"),
        Some("5") => Some("process_termination"),
        Some("9") => Some("raw_access_thread"),
        Some("11") => Some("file_event"),
        Some("23" | "26") => Some("file_delete"),
        _ => None,
    };
    Ok(Some(Found { product: Some("linux"), category, service: Some("sysmon"), ..found }))
}

/// What of the event is more than a field.
#[derive(Default)]
struct Event {
    time: Option<String>,
    provider: Option<String>,
    id: Option<String>,
}

impl Event {
    /// An element of `System` that has attributes: each is `Element_Attribute`.
    fn put_attributes(&mut self, element: &Element<'_>, sink: &mut Sink<'_>) -> Result<(), Broken> {
        for (name, value) in element.attributes() {
            let value = unescaped(value);
            match (element.name, name) {
                ("TimeCreated", "SystemTime") => self.time = Some(value.clone().into_owned()),
                ("Provider", "Name") => self.provider = Some(value.clone().into_owned()),
                _ => {}
            }
            if element.name.len() + name.len() <= 120 {
                own(sink, &format!("{}_{name}", element.name), &value)?;
            }
        }
        Ok(())
    }

    /// The text of an element that has just been closed.
    fn put_text(
        &mut self,
        open: &[Element<'_>],
        element: &Element<'_>,
        text: &str,
        sink: &mut Sink<'_>,
    ) -> Result<(), Broken> {
        let value = unescaped(text.trim());
        let part = open.get(1).map_or("", |part| part.name);
        match part {
            "System" => {
                match element.name {
                    "EventID" => self.id = Some(value.clone().into_owned()),
                    "Computer" => {
                        put(sink, KNOWN.host, Some(&value).filter(|_| !sink.fields.has(KNOWN.host)).map(|it| &**it))?
                    }
                    _ => {}
                }
                own(sink, element.name, &value)
            }
            "EventData" => {
                let name = element.attributes().find(|(key, _)| *key == "Name").map(|(_, name)| name);
                own(sink, name.unwrap_or(element.name), &value)
            }
            "UserData" | "RenderingInfo" if open.len() >= 2 => own(sink, element.name, &value),
            _ => Ok(()),
        }
    }
}

/// An opening tag.
#[derive(Clone, Copy, Debug)]
struct Element<'a> {
    name: &'a str,
    attributes: &'a str,
    /// `<name/>`
    closed: bool,
}

impl<'a> Element<'a> {
    fn attributes(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.attributes;
        std::iter::from_fn(move || {
            let (name, after) = rest.split_once('=')?;
            let after = after.trim_start();
            let quote = after.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
            let (value, after) = after.get(1..)?.split_once(quote)?;
            rest = after;
            Some((name.trim(), value))
        })
        .take(64)
    }
}

enum Tag<'a> {
    Open(Element<'a>),
    Close,
}

struct Walk<'a> {
    rest: &'a str,
}

impl<'a> Walk<'a> {
    /// The text before the next tag, and the tag; comments and what is no element are passed over.
    fn next_tag(&mut self) -> Option<(&'a str, Tag<'a>)> {
        loop {
            let (before, rest) = self.rest.split_once('<')?;
            if let Some(data) = rest.strip_prefix("![CDATA[") {
                // Windows does not write it; a forwarder may. Its text is that of the element.
                let (inner, after) = data.split_once("]]>")?;
                let (_, after) = after.split_once('<')?;
                self.rest = after.split_once('>')?.1;
                return Some((inner, Tag::Close));
            }
            let end = tag_end(rest)?;
            let (tag, after) = (rest.get(..end)?, rest.get(end + 1..)?);
            self.rest = after;
            if tag.starts_with('/') {
                return Some((before, Tag::Close));
            }
            if tag.starts_with(['!', '?']) {
                continue;
            }
            let (tag, closed) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
            let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
            return Some((before, Tag::Open(Element { name, attributes, closed })));
        }
    }
}

/// Where a tag ends: the first `>` that is not in a quoted value.
fn tag_end(text: &str) -> Option<usize> {
    let mut quote = None;
    text.bytes().position(|byte| {
        match (quote, byte) {
            (Some(open), _) if open == byte => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            _ => {}
        }
        quote.is_none() && byte == b'>'
    })
}

/// The five entities of XML and numbered characters as what they stand for; anything else stays.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        // Looked for in a few bytes only: a text full of ampersands must not cost its square.
        let end = after.bytes().take(11).position(|byte| byte == b';');
        let entity = end.and_then(|end| Some((after.get(..end)?, after.get(end + 1..)?)));
        match entity.and_then(|(entity, after)| Some((character(entity)?, after))) {
            Some((character, after)) => {
                out.push(character);
                rest = after;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn character(entity: &str) -> Option<char> {
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = entity.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code).filter(|character| *character != '\0')
        }
    }
}
