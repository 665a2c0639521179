//! Fortinet's FortiOS: `date=.. time=.. logid=".." type="traffic" ..`.
//!
//! All pairs keep their names, where a rule asks for them (public rules for FortiGate use them as they are); those that
//! Sigma has a word for get that too.

use cf_types::{Time, TimeBasis};

use super::{
    Found,
    firewall::Flow,
    own,
    pairs::{pairs, value},
    put, put_message, put_source,
    requests::put_url,
};
use crate::decode::{
    names::KNOWN,
    sink::{Broken, Sink},
    time::{Assume, from_epoch, parse_iso},
    web::put_agent,
};

/// Decodes a line; `None` if it is none of FortiOS.
pub(super) fn decode<'a>(text: &'a str, assume: Assume<'_>, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    // Whatever else a line has of these words, it must begin as FortiOS does.
    let begins =
        ["date=", "logver=", "timestamp=", "devname=", "itime=", "time="].iter().any(|key| text.starts_with(key));
    let is_forti = begins && (text.contains("logid=") || text.contains("log_id=")) && text.contains(" type=");
    let Some(kind) = value(text, "type").filter(|_| is_forti) else {
        return Ok(None);
    };
    let known = &*KNOWN;
    put_message(sink, text)?;
    for pair in pairs(text) {
        // The action comes with Sigma's word for it, and `hostname` is not the machine but what it asked for.
        if !matches!(pair.key, "action" | "hostname") && pair.value != "N/A" {
            own(sink, pair.key, pair.value)?;
        }
    }
    let given = |key: &str| value(text, key).filter(|value| !matches!(*value, "" | "N/A"));
    let flow = Flow {
        src_ip: given("srcip"),
        src_port: given("srcport"),
        dst_ip: given("dstip"),
        dst_port: given("dstport"),
        protocol: given("proto"),
        device_in: given("srcintf"),
        device_out: given("dstintf"),
        action: given("action"),
    };
    flow.put(sink)?;
    if flow.src_ip.is_none()
        && let Some(from) = given("remip").or_else(|| given("ui").and_then(|ui| ui.split_once('(')).map(|(_, ip)| ip))
    {
        put_source(sink, from)?;
    }
    // `user` is the product's own name already.
    put(sink, known.host, given("devname"))?;
    put(sink, known.event_type, event_type(&given))?;
    let category = put_category(kind, &given, sink)?;
    Ok(Some(Found { product: Some("fortigate"), category, service: Some(kind), time: time_of(text, assume) }))
}

fn event_type<'t>(given: &impl Fn(&str) -> Option<&'t str>) -> Option<&'static str> {
    match (given("action")?, given("status")) {
        ("ssl-login-fail", _) | ("login", Some("failed")) => Some("authentication_failed"),
        ("login", Some("success")) | ("tunnel-up", _) => Some("authentication_succeeded"),
        ("Add", _) if given("cfgpath").is_some_and(|path| matches!(path, "user.local" | "system.admin")) => {
            Some("account_created")
        }
        _ => None,
    }
}

/// What the line is beside FortiOS' own type, with the fields that it then has.
fn put_category<'t>(
    kind: &str,
    given: &impl Fn(&str) -> Option<&'t str>,
    sink: &mut Sink<'_>,
) -> Result<Option<&'static str>, Broken> {
    let known = &*KNOWN;
    match (kind, given("subtype").unwrap_or("")) {
        ("traffic", _) => Ok(Some("firewall")),
        ("utm", "webfilter" | "waf") => {
            let url = match (given("hostname"), given("url")) {
                (Some(host), Some(path)) if path.starts_with('/') => Some(format!("http://{host}{path}")),
                (_, url) => url.map(str::to_owned),
            };
            if let Some(url) = url {
                put_url(&url, sink)?;
            }
            if let Some(agent) = given("agent") {
                put_agent(agent, sink)?;
            }
            Ok(Some("proxy"))
        }
        ("utm", "virus") => {
            put(sink, known.signature, given("virus"))?;
            put(sink, known.filename, given("filename"))?;
            Ok(Some("antivirus"))
        }
        ("utm", "dns") => {
            put(sink, known.query, given("qname"))?;
            put(sink, known.record_type, given("qtype"))?;
            put(sink, known.answer, given("ipaddr"))?;
            Ok(Some("dns"))
        }
        ("utm", "ips") => {
            put(sink, known.signature, given("attack"))?;
            Ok(Some("firewall"))
        }
        _ => Ok(None),
    }
}

/// `eventtime` in nanoseconds (seconds until 6.0), or date, time and zone.
fn time_of(text: &str, assume: Assume<'_>) -> Option<(Time, TimeBasis)> {
    if let Some(number) = value(text, "eventtime").and_then(|number| number.parse::<i64>().ok()) {
        return Some((from_epoch(number), TimeBasis::Declared));
    }
    let (date, time) = (value(text, "date")?, value(text, "time")?);
    parse_iso(&format!("{date}T{time}{}", value(text, "tz").unwrap_or("")), assume)
}
