//! From a JSON record to fields, by the names that rules use.
//!
//! A generic document: members by their names with dots, the elements of a list as repeated fields. A Windows event:
//! "Some fields are defined as attributes of the XML tags (in the `<System>` header of the events). The tag and attribute
//! names have to be linked with an underscore character"; "In the `<EventData>` body of the event the field name is given
//! by the `Name` attribute of the `Data` tag" (Field Usage). What renders EVTX as JSON (the `evtx` crate, evtx_dump and
//! others) writes attributes as `#attributes` (`@attributes`, or a sibling `Element_attributes`) and text as `#text`.

use crate::{
    event::{Event, Field, Kind},
    json::Json,
    rule::LogSource,
};

/// What a document turned out to be.
#[derive(Clone, Debug)]
pub enum Flat {
    /// This event.
    Event(Event),
    /// Valid JSON, but a shape that the oracle does not flatten: no object, or a product's own format.
    Other,
    /// No valid JSON.
    Invalid,
}

/// Flattens a record.
#[must_use]
pub fn flatten(record: &[u8]) -> Flat {
    let Some(root) = Json::read(record) else { return Flat::Invalid };
    if !root.is_object() {
        return Flat::Other;
    }
    let windows = |out: &[Field]| {
        // Sysmon for Linux writes the same records; its channel tells (logsources of SigmaHQ: product linux).
        let is_linux =
            |field: &Field| field.name == "Channel" && field.text.eq_ignore_ascii_case("Linux-Sysmon/Operational");
        let product = if out.iter().any(is_linux) { "linux" } else { "windows" };
        LogSource { product: Some(product.to_owned()), ..LogSource::default() }
    };
    let mut out = Vec::new();
    let system = root.get("Event").and_then(|event| event.get("System")).is_some_and(Json::is_object);
    let log_source = if system {
        nested(&root, &mut out);
        windows(&out)
    } else if is_flat(&root) {
        flat(&root, &mut out);
        windows(&out)
    } else if is_a_products(&root) {
        return Flat::Other;
    } else {
        for (name, value) in root.members() {
            dotted(name, value, &mut out);
        }
        declared(&root)
    };
    Flat::Event(Event { fields: out, line: None, log_source })
}

/// Formats that have decoders of their own. The oracle knows the two Windows ones, and documents without any mark.
fn is_a_products(root: &Json) -> bool {
    let marks = [
        "raw_data",
        "normalized_data",
        "enrichments",
        "Records",
        "eventSource",
        "event_type",
        "_path",
        "class_uid",
        "kind",
        "winlog",
        "log_name",
        "cef",
        "event",
        "agent",
        "ecs",
        "body",
        "Body",
        "resourceLogs",
        "records",
        "operationName",
        "protoPayload",
        "published",
        "ComputerName",
        "deviceVendor",
        "process",
        "rule",
        "vuln",
        "@metadata",
        "type",
        "t",
    ];
    marks.iter().any(|mark| root.get(mark).is_some())
        || root.members().iter().any(|(name, _)| name.starts_with("winlog.") || name.contains(' '))
}

fn declared(root: &Json) -> LogSource {
    let word = |name: &str| match root.get(name) {
        Some(Json::Text(text)) if !text.trim().is_empty() => Some(text.trim().to_lowercase()),
        _ => None,
    };
    LogSource { product: word("product"), category: word("category"), service: word("service") }
}

fn put(name: &str, text: &str, kind: Kind, out: &mut Vec<Field>) {
    out.push(Field { name: name.to_owned(), text: text.to_owned(), kind });
}

/// A value under a name: a list as repeated fields, the members of an object with dots.
fn dotted(name: &str, value: &Json, out: &mut Vec<Field>) {
    match value {
        Json::Null => put(name, "", Kind::Null, out),
        Json::Bool(truth) => put(name, if *truth { "true" } else { "false" }, Kind::Bool, out),
        Json::Number(text) => put(name, text, Kind::Number, out),
        Json::Text(text) => put(name, text, Kind::Text, out),
        Json::List(list) => list.iter().for_each(|element| dotted(name, element, out)),
        Json::Object(members) => {
            members.iter().for_each(|(inner, value)| dotted(&format!("{name}.{inner}"), value, out));
        }
    }
}

fn is_attributes(name: &str) -> bool {
    ["#attributes", "@attributes", "Event_attributes", "EventData_attributes"].contains(&name)
}

fn is_text(name: &str) -> bool {
    ["#text", "$text", "_text", "$value"].contains(&name)
}

fn nested(root: &Json, out: &mut Vec<Field>) {
    for (name, value) in root.members() {
        if name != "Event" {
            dotted(name, value, out);
            continue;
        }
        for (part, value) in value.members() {
            match part.as_str() {
                "System" => value.members().iter().for_each(|(element, value)| header(element, value, out)),
                "EventData" => event_data(value, out),
                "UserData" => user_data(value, out),
                "RenderingInfo" => rendering(value, out),
                part if is_attributes(part) => {}
                part => dotted(part, value, out),
            }
        }
    }
}

/// An element of `System`.
fn header(element: &str, value: &Json, out: &mut Vec<Field>) {
    if !value.is_object() {
        return dotted(element, value, out);
    }
    let element = element.strip_suffix("_attributes").unwrap_or(element);
    let mut attribute = |name: &str, value: &Json| {
        let name = name.strip_prefix('@').unwrap_or(name);
        dotted(&format!("{element}_{name}"), value, out);
    };
    for (name, value) in value.members() {
        if is_attributes(name) {
            value.members().iter().for_each(|(name, value)| attribute(name, value));
        } else if !is_text(name) {
            attribute(name, value);
        }
    }
    for (_, text) in value.members().iter().filter(|(name, _)| is_text(name)) {
        dotted(element, text, out);
    }
}

fn event_data(data: &Json, out: &mut Vec<Field>) {
    if !data.is_object() {
        return dotted("Data", data, out);
    }
    data.members().iter().for_each(|(name, value)| datum(name, value, out));
}

/// `UserData` nests one level: the one element in it has a name that nobody asks for.
fn user_data(data: &Json, out: &mut Vec<Field>) {
    for (element, inner) in data.members() {
        match inner {
            _ if is_attributes(element) => {}
            Json::Object(members) => members.iter().for_each(|(name, value)| datum(name, value, out)),
            value => datum(element, value, out),
        }
    }
}

fn datum(name: &str, value: &Json, out: &mut Vec<Field>) {
    match value {
        Json::List(list) if name == "Data" => list.iter().for_each(|element| data_element(element, out)),
        Json::Object(_) if name == "Data" => data_element(value, out),
        Json::Object(_) if is_attributes(name) => {}
        Json::Object(members) => match members.iter().find(|(name, _)| is_text(name)) {
            Some((_, text)) => named(name, text, out),
            None => named(name, value, out),
        },
        value => named(name, value, out),
    }
}

/// A `Data` element: its name is its attribute `Name`.
fn data_element(element: &Json, out: &mut Vec<Field>) {
    if !element.is_object() {
        return dotted("Data", element, out);
    }
    let attributes = element.members().iter().find(|(name, _)| is_attributes(name)).map_or(element, |(_, value)| value);
    let name = attributes.get("Name").or_else(|| attributes.get("@Name"));
    let text = element.members().iter().find(|(name, _)| is_text(name)).map(|(_, text)| text);
    match (name, text) {
        (Some(Json::Text(name)), Some(text)) => named(name, text, out),
        (Some(Json::Text(name)), None) => put(name, "", Kind::Text, out),
        (_, Some(text)) => dotted("Data", text, out),
        (_, None) => dotted("Data", element, out),
    }
}

/// "use them as they appear in the log source and strip all spaces".
fn named(name: &str, value: &Json, out: &mut Vec<Field>) {
    dotted(name, value, out);
    if name.contains(' ') && !matches!(value, Json::List(_) | Json::Object(_)) {
        dotted(&name.replace(' ', ""), value, out);
    }
}

/// The rendered message is `Message`; all else of it has a name that tells it from the event's own.
fn rendering(info: &Json, out: &mut Vec<Field>) {
    for (name, value) in info.members() {
        match name.as_str() {
            "Message" => dotted(name, value, out),
            name if is_attributes(name) => {}
            name => dotted(&format!("RenderingInfo_{name}"), value, out),
        }
    }
}

/// A Windows event as shippers write it: a channel and an event id at the top.
fn is_flat(root: &Json) -> bool {
    root.get("Channel").is_some() && (root.get("EventID").is_some() || root.get("EventId").is_some())
}

/// What shippers call the elements of the header; the first that is a scalar counts.
const SHIPPED: [(&str, &[&str]); 5] = [
    ("EventID", &["event_id", "EventId", "Id"]),
    ("Channel", &["log_name", "LogName", "channel"]),
    ("Provider_Name", &["source_name", "SourceName", "ProviderName", "provider_name"]),
    ("Computer", &["computer_name", "ComputerName", "Hostname", "MachineName"]),
    ("EventRecordID", &["record_number", "RecordNumber", "RecordId"]),
];

fn flat(root: &Json, out: &mut Vec<Field>) {
    for (name, shipped) in SHIPPED {
        if root.get(name).is_none() {
            let scalar = |value: &&Json| !matches!(value, Json::List(_) | Json::Object(_));
            if let Some(value) = shipped.iter().find_map(|name| root.get(name).filter(scalar)) {
                dotted(name, value, out);
            }
        }
    }
    for (name, value) in root.members() {
        match name.as_str() {
            "EventData" if value.is_object() => event_data(value, out),
            "UserData" if value.is_object() => user_data(value, out),
            name => dotted(name, value, out),
        }
    }
}
