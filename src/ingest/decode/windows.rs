//! Windows events: rendered from EVTX (nested under `Event`), or as shippers write them (flat).
//!
//! Fields get the names that Sigma rules use: `EventID`, `Channel`, `Provider_Name`, `Computer`, attributes of `System`
//! as `Element_Attribute`, and the members of `EventData` and `UserData` by their own names.

use cf_types::{Name, RejectCode, Scalar};

use super::{
    json::{Key, Kind, Places, Value, elements, entries, is_array, is_object, member, members, number, text},
    sink::{Broken, Sink},
    time::Assume,
};

/// What of an event is more than a field.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Header<'t, 'i> {
    pub(crate) time: Option<Value<'t, 'i>>,
    pub(crate) computer: Option<&'i str>,
    pub(crate) channel: Option<&'i str>,
    pub(crate) record_id: Option<Value<'t, 'i>>,
}

/// The `Event` member, if this is a nested Windows event.
pub(crate) fn nested<'t, 'i>(root: Value<'t, 'i>) -> Option<Value<'t, 'i>> {
    let event = member(root, "Event")?;
    member(event, "System").filter(|system| is_object(*system))?;
    Some(event)
}

/// Flattens a nested event.
pub(crate) fn flatten_nested<'t, 'i>(root: Value<'t, 'i>, sink: &mut Sink<'_>) -> Result<Header<'t, 'i>, Broken> {
    let mut header = Header::default();
    for (key, value) in entries(root) {
        if key.text != "Event" {
            sink.member(key, value)?; // what a shipper added
            continue;
        }
        for (part, value) in entries(value) {
            match part.text {
                "System" => flatten_system(value, &mut header, sink)?,
                "EventData" => flatten_data(value, sink)?,
                "UserData" => flatten_user_data(value, sink)?,
                "RenderingInfo" => flatten_rendering(value, sink)?,
                text if is_attributes(text) => {} // the XML name space
                _ => sink.member(part, value)?,
            }
        }
    }
    Ok(header)
}

fn flatten_system<'t, 'i>(
    system: Value<'t, 'i>,
    header: &mut Header<'t, 'i>,
    sink: &mut Sink<'_>,
) -> Result<(), Broken> {
    for (key, value) in entries(system) {
        match key.text {
            "Computer" => header.computer = text(value),
            "Channel" => header.channel = text(value),
            "EventRecordID" => header.record_id = Some(value),
            "TimeCreated" | "TimeCreated_attributes" => header.time = system_time(value).or(header.time),
            _ => {}
        }
        if is_object(value) {
            flatten_element(key, value, sink)?;
        } else {
            sink.member(key, value)?;
        }
    }
    Ok(())
}

fn system_time<'t, 'i>(element: Value<'t, 'i>) -> Option<Value<'t, 'i>> {
    let attributes = members(element).find(|(key, _)| is_attributes(key)).map_or(element, |(_, value)| value);
    member(attributes, "SystemTime").or_else(|| member(attributes, "@SystemTime"))
}

/// An XML element with attributes: its text under its name, each attribute as `Element_Attribute`.
fn flatten_element(key: Key<'_>, value: Value<'_, '_>, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let element = match key.text.strip_suffix("_attributes") {
        Some(element) => Key::of(element),
        None => key,
    };
    for (key, value) in entries(value) {
        if is_text(key.text) {
            sink.member(element, value)?;
        } else if is_attributes(key.text) {
            for (attribute, value) in entries(value) {
                flatten_attribute(element, attribute, value, sink)?;
            }
        } else {
            flatten_attribute(element, key, value, sink)?;
        }
    }
    Ok(())
}

fn flatten_attribute(
    element: Key<'_>,
    attribute: Key<'_>,
    value: Value<'_, '_>,
    sink: &mut Sink<'_>,
) -> Result<(), Broken> {
    if is_object(value) || is_array(value) {
        join(element, attribute, sink.path);
        let joined = sink.path.clone();
        return sink.flatten(&joined, value);
    }
    sink.check_name(element.text.len() + attribute.text.len())?;
    let Sink { names, path, pairs, .. } = sink;
    let name = element.pair(attribute, pairs, || {
        join(element, attribute, path);
        names.get_or_unknown(path.as_bytes())
    });
    sink.scalar(name, value)
}

fn join(element: Key<'_>, attribute: Key<'_>, path: &mut String) {
    path.clear();
    path.push_str(element.text);
    path.push('_');
    path.push_str(attribute.text.strip_prefix('@').unwrap_or(attribute.text));
}

fn flatten_data(data: Value<'_, '_>, sink: &mut Sink<'_>) -> Result<(), Broken> {
    if !is_object(data) {
        return sink.flatten("Data", data); // some converters drop the object when there is only `Data`
    }
    entries(data).try_for_each(|(key, value)| flatten_datum(key, value, sink))
}

/// One member of `EventData` or of what `UserData` holds.
#[inline]
fn flatten_datum(key: Key<'_>, value: Value<'_, '_>, sink: &mut Sink<'_>) -> Result<(), Broken> {
    match value.kind() {
        Some(Kind::Object | Kind::Array) if key.text == "Data" => {
            elements(value).try_for_each(|element| flatten_unnamed(element, sink))
        }
        Some(Kind::Object) if is_attributes(key.text) => Ok(()),
        Some(Kind::Object) => match members(value).find(|(key, _)| is_text(key)) {
            Some((_, inner)) => flatten_named(key, inner, sink),
            None => flatten_named(key, value, sink),
        },
        Some(_) => flatten_named(key, value, sink),
        None => Ok(()),
    }
}

/// An element of a list of `Data`: a string, or an object with `Name` and text where names were not folded.
fn flatten_unnamed(element: Value<'_, '_>, sink: &mut Sink<'_>) -> Result<(), Broken> {
    if !is_object(element) {
        return sink.flatten("Data", element);
    }
    let attributes = members(element).find(|(key, _)| is_attributes(key)).map_or(element, |(_, value)| value);
    let named = member(attributes, "Name").or_else(|| member(attributes, "@Name")).and_then(text);
    let content = members(element).find(|(key, _)| is_text(key)).map(|(_, value)| value);
    match (named, content) {
        (Some(name), Some(content)) => flatten_named(Key::of(name), content, sink),
        (Some(name), None) => {
            let name = sink.name(name)?;
            sink.put(name, "", Scalar::Text)
        }
        (None, Some(content)) => sink.flatten("Data", content),
        (None, None) => sink.flatten("Data", element),
    }
}

#[inline]
fn flatten_named(key: Key<'_>, value: Value<'_, '_>, sink: &mut Sink<'_>) -> Result<(), Broken> {
    if matches!(value.kind(), Some(Kind::Object | Kind::Array)) {
        return sink.flatten(key.text, value);
    }
    let name = sink.name_of(key)?;
    sink.scalar(name, value)?;
    if key.text.contains(' ') {
        // Rules strip blanks from names (specification, *Field Usage*): ThreatName for Defender's `Threat Name`.
        let joined: String = key.text.split(' ').collect();
        let name = sink.name(&joined)?;
        if name != Name::UNKNOWN {
            sink.scalar(name, value)?;
        }
    }
    Ok(())
}

/// `UserData` wraps its fields in one element whose name nobody asks for.
fn flatten_user_data(data: Value<'_, '_>, sink: &mut Sink<'_>) -> Result<(), Broken> {
    for (wrapper, inner) in entries(data) {
        if is_attributes(wrapper.text) {
            continue;
        }
        if !is_object(inner) {
            flatten_datum(wrapper, inner, sink)?;
            continue;
        }
        entries(inner).try_for_each(|(key, value)| flatten_datum(key, value, sink))?;
    }
    Ok(())
}

fn flatten_rendering(info: Value<'_, '_>, sink: &mut Sink<'_>) -> Result<(), Broken> {
    for (key, value) in members(info) {
        match key {
            "Message" => sink.flatten(key, value)?,
            _ if is_attributes(key) => {}
            _ => {
                let joined = format!("RenderingInfo_{key}");
                sink.flatten(&joined, value)?;
            }
        }
    }
    Ok(())
}

/// A flat event's header: what a shipper calls the members of `System`, by its kind.
const FLAT: &[(&str, &[&str])] = &[
    ("EventID", &["EventID", "event_id", "winlog.event_id", "EventId", "Id"]),
    ("Channel", &["Channel", "winlog.channel", "log_name", "LogName", "channel"]),
    (
        "Provider_Name",
        &["Provider_Name", "winlog.provider_name", "source_name", "SourceName", "ProviderName", "provider_name"],
    ),
    (
        "Computer",
        &["Computer", "winlog.computer_name", "computer_name", "ComputerName", "Hostname", "MachineName", "host.name"],
    ),
    ("EventRecordID", &["EventRecordID", "winlog.record_id", "record_number", "RecordNumber", "RecordId"]),
];

/// In the order in which they are believed: what Windows wrote, before what a shipper did.
const FLAT_TIME: &[&str] = &[
    "SystemTime",
    "TimeCreated_SystemTime",
    "TimeCreated",
    "winlog.time_created",
    "@timestamp",
    "timestamp",
    "EventTime",
    "UtcTime",
    "time",
];

/// Finds a member by a name with at most one dot.
fn find<'t, 'i>(root: Value<'t, 'i>, path: &str) -> Option<Value<'t, 'i>> {
    member(root, path).or_else(|| {
        let (outer, inner) = path.split_once('.')?;
        member(member(root, outer)?, inner)
    })
}

fn flat_member<'t, 'i>(root: Value<'t, 'i>, field: &str) -> Option<Value<'t, 'i>> {
    let (_, names) = FLAT.iter().find(|(name, _)| *name == field)?;
    names.iter().find_map(|name| find(root, name).filter(|value| !is_object(*value) && !is_array(*value)))
}

/// Whether this is a flat Windows event: a channel and an event id where shippers put them.
pub(crate) fn is_flat(root: Value<'_, '_>) -> bool {
    let has = |path| find(root, path).is_some();
    (has("Channel") && (has("EventID") || has("EventId")))
        || (has("winlog.channel") && has("winlog.event_id"))
        || (has("log_name") && has("event_id") && (has("record_number") || has("event_data")))
}

/// Flattens a flat event: all its members as they are, and the header's under Sigma's names.
pub(crate) fn flatten_flat<'t, 'i>(root: Value<'t, 'i>, sink: &mut Sink<'_>) -> Result<Header<'t, 'i>, Broken> {
    for (field, _) in FLAT {
        if member(root, field).is_none()
            && let Some(value) = flat_member(root, field)
        {
            let name = sink.name(field)?;
            sink.scalar(name, value)?;
        }
    }
    for (key, value) in entries(root) {
        match key.text {
            "event_data" | "EventData" if is_object(value) => flatten_data(value, sink)?,
            "user_data" | "UserData" if is_object(value) => flatten_user_data(value, sink)?,
            "winlog" => {
                for (key, value) in members(value) {
                    match key {
                        "event_data" if is_object(value) => flatten_data(value, sink)?,
                        "user_data" if is_object(value) => flatten_data(value, sink)?,
                        _ => sink.flatten(&format!("winlog.{key}"), value)?,
                    }
                }
            }
            text if text.starts_with("winlog.event_data.") => {
                sink.flatten(text.trim_start_matches("winlog.event_data."), value)?;
            }
            text if text.contains(' ') => flatten_named(key, value, sink)?,
            _ => sink.member(key, value)?,
        }
    }
    Ok(Header {
        time: FLAT_TIME.iter().find_map(|path| find(root, path).filter(|value| !is_object(*value))),
        computer: flat_member(root, "Computer").and_then(text),
        channel: flat_member(root, "Channel").and_then(text),
        record_id: flat_member(root, "EventRecordID"),
    })
}

impl Header<'_, '_> {
    /// `computer/channel/EventRecordID`, where the event has all three.
    pub(crate) fn declared_id(&self) -> Option<Box<str>> {
        let whole = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let number = self.record_id.and_then(|id| text(id).or_else(|| number(id).filter(whole)));
        declared_id(self.computer, self.channel, number)
    }

    /// Whether Sysmon for Linux wrote it, in the form of a Windows event.
    pub(crate) fn is_linux(&self) -> bool {
        is_linux(self.channel)
    }

    /// Where its parts stand in the document; `None` if it depends on their values what they mean.
    pub(crate) fn places(&self, root: Value<'_, '_>) -> Option<Places<usize>> {
        let start = |value: Option<Value<'_, '_>>, kinds: &[Kind]| {
            value.filter(|value| value.kind().is_some_and(|kind| kinds.contains(&kind))).map(|value| value.span().start)
        };
        let place = |text: Option<&str>| text.map_or(Some(None), |text| root.place_of(text).map(Some));
        let is_text = self.time.is_none_or(|time| matches!(time.kind(), Some(Kind::Text | Kind::Null)));
        is_text.then_some(Places {
            time: start(self.time, &[Kind::Text]),
            computer: place(self.computer)?,
            channel: place(self.channel)?,
            record_id: start(self.record_id, &[Kind::Text, Kind::TextEscaped, Kind::Whole]),
        })
    }

    /// Its time, if it declares one.
    pub(crate) fn time(&self, assume: Assume<'_>) -> Result<Option<(cf_types::Time, cf_types::TimeBasis)>, Broken> {
        let Some(value) = self.time else {
            return Ok(None);
        };
        super::generic::time_of(value, assume)
            .map_err(|shown| Broken::new(RejectCode::InvalidTime, format!("SystemTime is no time: {shown}")))
    }
}

/// `computer/channel/EventRecordID`, if all three are there.
pub(crate) fn declared_id(computer: Option<&str>, channel: Option<&str>, number: Option<&str>) -> Option<Box<str>> {
    let (computer, channel) = (computer?, channel?);
    let number = number.filter(|number| !number.is_empty())?;
    let mut id = String::with_capacity(computer.len() + channel.len() + number.len() + 2);
    for part in [computer, "/", channel, "/", number] {
        id.push_str(part);
    }
    Some(id.into_boxed_str())
}

/// Whether this is the channel of Sysmon for Linux.
pub(crate) fn is_linux(channel: Option<&str>) -> bool {
    channel.is_some_and(|channel| channel.eq_ignore_ascii_case("Linux-Sysmon/Operational"))
}

fn is_attributes(key: &str) -> bool {
    matches!(key, "#attributes" | "@attributes" | "Event_attributes" | "EventData_attributes")
}

fn is_text(key: &str) -> bool {
    matches!(key, "#text" | "$text" | "_text" | "$value")
}
