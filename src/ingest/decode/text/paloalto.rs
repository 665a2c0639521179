//! Palo Alto Networks' PAN-OS in syslog: columns parted by commas, by the documented order of each type (PAN-OS 10.1,
//! *Syslog Field Descriptions*). Columns were only ever added at the end, so older and newer releases fit.

use cf_types::TimeBasis;

use super::{
    Found, address,
    firewall::{Flow, put_action},
    own, put, put_message, put_source,
    requests::put_url,
};
use crate::decode::{
    names::KNOWN,
    sink::{Broken, Sink},
    time::{Assume, parse_local},
    web::put_agent,
};

/// Columns read of one line, at most; the longest type has some 120.
const COLUMNS_MAX: usize = 160;

/// The product's names of a connection's columns, from the 8th.
const CONNECTION: &[&str] = &[
    "src",
    "dst",
    "natsrc",
    "natdst",
    "rule",
    "srcuser",
    "dstuser",
    "app",
    "vsys",
    "from",
    "to",
    "inbound_if",
    "outbound_if",
    "logset",
    "",
    "sessionid",
    "repeatcnt",
    "sport",
    "dport",
    "natsport",
    "natdport",
    "flags",
    "proto",
    "action",
];
const TRAFFIC: &[&str] = &[
    "bytes",
    "bytes_sent",
    "bytes_received",
    "packets",
    "start",
    "elapsed",
    "category",
    "",
    "seqno",
    "actionflags",
    "srcloc",
    "dstloc",
    "",
    "pkts_sent",
    "pkts_received",
    "session_end_reason",
];
const THREAT: &[&str] = &[
    "misc",
    "threatid",
    "category",
    "severity",
    "direction",
    "seqno",
    "actionflags",
    "srcloc",
    "dstloc",
    "",
    "contenttype",
    "pcap_id",
    "filedigest",
    "cloud",
    "url_idx",
    "user_agent",
    "filetype",
    "xff",
    "referer",
    "sender",
    "subject",
    "recipient",
];
const SYSTEM: &[&str] = &["vsys", "eventid", "object", "", "", "module", "severity", "opaque"];
const CONFIG: &[&str] = &["host", "vsys", "cmd", "admin", "client", "result", "path"];
const GLOBALPROTECT: &[&str] = &[
    "vsys",
    "eventid",
    "stage",
    "auth_method",
    "tunnel_type",
    "srcuser",
    "srcregion",
    "machinename",
    "public_ip",
    "public_ipv6",
    "private_ip",
    "private_ipv6",
    "hostid",
    "serialnumber",
    "client_ver",
    "client_os",
    "client_os_ver",
    "repeatcnt",
    "reason",
    "error",
    "opaque",
    "status",
    "location",
    "login_duration",
    "connect_method",
    "error_code",
    "portal",
];

/// Decodes a line; `None` if it is none of PAN-OS.
pub(super) fn decode<'a>(text: &'a str, assume: Assume<'_>, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    let Some(columns) = columns(text) else {
        return Ok(None);
    };
    let column = |index: usize| columns.get(index).copied().filter(|value| !value.is_empty());
    let kind = column(3).unwrap_or("");
    let known = &*KNOWN;
    put_message(sink, text)?;
    for (key, index) in [("serial", 2), ("type", 3), ("subtype", 4)] {
        put_own(sink, key, column(index))?;
    }
    let names: [&[&str]; 2] = match kind {
        "TRAFFIC" => [CONNECTION, TRAFFIC],
        "THREAT" => [CONNECTION, THREAT],
        "SYSTEM" => [SYSTEM, &[]],
        "CONFIG" => [CONFIG, &[]],
        "GLOBALPROTECT" => [GLOBALPROTECT, &[]],
        _ => [&[], &[]],
    };
    for (index, name) in names.into_iter().flatten().enumerate() {
        put_own(sink, name, column(7 + index))?;
    }
    let (category, service) = match kind {
        "TRAFFIC" => (Some("firewall"), "traffic"),
        "THREAT" => (Some(put_threat(&columns, sink)?), "threat"),
        "GLOBALPROTECT" => (Some("appliance"), "globalprotect"),
        "SYSTEM" if column(4) == Some("globalprotect") => (Some("appliance"), "globalprotect"),
        "SYSTEM" => (None, "system"),
        "CONFIG" => (None, "config"),
        _ => (None, "other"),
    };
    match kind {
        "TRAFFIC" | "THREAT" => put_connection(&columns, sink)?,
        "SYSTEM" => put_system(column(8), column(14).unwrap_or(""), sink)?,
        "CONFIG" => {
            put(sink, known.user, column(10))?;
            put_address(sink, column(7))?;
            put(sink, known.command, column(9))?;
        }
        "GLOBALPROTECT" => {
            put(sink, known.user, column(12))?;
            put_address(sink, column(15).filter(|ip| *ip != "0.0.0.0").or(column(16)))?;
            let failed = column(28) == Some("failure");
            let is_login = column(8).is_some_and(|id| id.contains("auth") || id.contains("login"));
            let event_type = if failed { "authentication_failed" } else { "authentication_succeeded" };
            put(sink, known.event_type, is_login.then_some(event_type))?;
        }
        _ => {}
    }
    let time = column(6).or(column(1)).and_then(|stamp| parse_local(stamp.as_bytes()));
    let time = time.and_then(|(local, _)| Some((assume.zoned_micros(local)?, TimeBasis::Assumed)));
    Ok(Some(Found { product: Some("paloalto"), category, service: Some(service), time }))
}

/// The columns, if the first ones are what they must be: `1,2026/01/05 13:00:00,SERIAL,TYPE,SUBTYPE,..`.
fn columns(text: &str) -> Option<Vec<&str>> {
    const TYPES: &[&str] = &[
        "TRAFFIC",
        "THREAT",
        "SYSTEM",
        "CONFIG",
        "GLOBALPROTECT",
        "USERID",
        "HIPMATCH",
        "HIP-MATCH",
        "AUTHENTICATION",
        "DECRYPTION",
        "CORRELATION",
        "TUNNEL",
        "SCTP",
        "GTP",
        "IPTAG",
        "WILDFIRE",
        "URL",
        "DATA",
    ];
    let mut head = text.splitn(5, ',');
    let (_, stamp, serial, kind) = (head.next()?, head.next()?, head.next()?, head.next()?);
    let is_serial = !serial.is_empty() && serial.len() <= 32 && serial.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if stamp.as_bytes().get(4) != Some(&b'/') || !is_serial || !TYPES.contains(&kind) {
        return None;
    }
    let mut columns = Vec::new();
    let mut rest = text;
    while columns.len() < COLUMNS_MAX {
        let (value, after) = column(rest);
        columns.push(value);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => break,
        }
    }
    Some(columns)
}

/// A column and what follows it; quoted ones may hold commas, and a quote twice is one of their text.
fn column(text: &str) -> (&str, &str) {
    let Some(inner) = text.strip_prefix('"') else {
        return text.split_at_checked(text.find(',').unwrap_or(text.len())).unwrap_or((text, ""));
    };
    let mut quotes = inner.match_indices('"').map(|(at, _)| at).peekable();
    while let Some(at) = quotes.next() {
        if quotes.next_if_eq(&(at + 1)).is_none() {
            return (inner.get(..at).unwrap_or(""), inner.get(at + 1..).unwrap_or(""));
        }
    }
    (inner, "")
}

fn put_own(sink: &mut Sink<'_>, key: &str, value: Option<&str>) -> Result<(), Broken> {
    match value {
        Some(value) if !key.is_empty() && key != "action" && key != "host" => own(sink, key, value),
        _ => Ok(()),
    }
}

fn put_address(sink: &mut Sink<'_>, value: Option<&str>) -> Result<(), Broken> {
    value.map_or(Ok(()), |value| put_source(sink, value))
}

fn put_connection(columns: &[&str], sink: &mut Sink<'_>) -> Result<(), Broken> {
    let column = |index: usize| columns.get(index).copied().filter(|value| !value.is_empty());
    let known = &*KNOWN;
    let flow = Flow {
        src_ip: column(7).filter(|ip| address(ip).is_some()),
        dst_ip: column(8),
        src_port: column(24),
        dst_port: column(25),
        protocol: column(29),
        device_in: column(18),
        device_out: column(19),
        action: None,
    };
    flow.put(sink)?;
    put_action(sink, column(30))?;
    put(sink, known.rule_name, column(11))?;
    put(sink, known.user, column(12))
}

/// What a THREAT line is by its subtype: a request, a scanner's find, or an attack seen.
fn put_threat(columns: &[&str], sink: &mut Sink<'_>) -> Result<&'static str, Broken> {
    let column = |index: usize| columns.get(index).copied().filter(|value| !value.is_empty());
    let known = &*KNOWN;
    match column(4).unwrap_or("") {
        "url" => {
            // Column 63 is there since PAN-OS 9.0.
            if let Some(url) = column(31) {
                put_url(url, sink)?;
            }
            if let Some(agent) = column(46) {
                put_agent(agent, sink)?;
            }
            put(sink, known.cs_referer, column(49))?;
            put(sink, known.cs_method, column(63).filter(|method| *method != "unknown"))?;
            Ok("proxy")
        }
        "virus" | "wildfire" | "wildfire-virus" | "ml-virus" => {
            put(sink, known.filename, column(31))?;
            put(sink, known.signature, column(32))?;
            Ok("antivirus")
        }
        _ => {
            put(sink, known.signature, column(32))?;
            put(sink, known.event_type, Some("ids_alert"))?;
            Ok("firewall")
        }
    }
}

/// `failed authentication for user 'bob'. Reason: Invalid username/password. From: 1.2.3.4.`
fn put_system(event: Option<&str>, text: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    let event_type = match event {
        Some("auth-fail") => "authentication_failed",
        Some("auth-success") => "authentication_succeeded",
        _ => return Ok(()),
    };
    sink.text(known.event_type, event_type)?;
    let user =
        text.split_once("for user '").or_else(|| text.split_once("user '")).and_then(|(_, rest)| rest.split_once('\''));
    put(sink, known.user, user.map(|(user, _)| user))?;
    let from = text.rsplit_once("rom: ").and_then(|(_, rest)| rest.split([' ', ',']).next()).and_then(address);
    put_address(sink, from)
}
