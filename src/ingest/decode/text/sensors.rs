//! Network sensors as text: Suricata's and Snort's fast log, Zeek's columns.
//!
//! Which columns a Zeek log has stands in its `#fields` line, another record, and which log it is in `#path`. The first
//! six are the same in all logs of connections and tell Zeek's lines from others; the rest is named where the source
//! says `service: dns` (and so on), by the order of Zeek 6, or gives its `columns`. Zeek's JSON needs none of that.

use cf_types::TimeBasis;

use super::{Context, Found, firewall::Flow, own, put, put_message, put_source};
use crate::decode::{
    names::KNOWN,
    sink::{Broken, Sink},
    time::{Assume, from_epoch_f64, parse_local},
};

/// Columns read of one line, at most.
const COLUMNS_MAX: usize = 128;
/// Elements read of one column that holds a list.
const ELEMENTS_MAX: usize = 256;

/// Decodes a line of a sensor; `None` if it is none.
pub(super) fn decode<'a>(
    text: &'a str,
    context: &Context<'_>,
    sink: &mut Sink<'_>,
) -> Result<Option<Found<'a>>, Broken> {
    if let Some(found) = fast(text, context, sink)? {
        return Ok(Some(found));
    }
    zeek(text, context, sink)
}

/// `01/28/2021-13:35:54.123456  [**] [1:2009582:3] ET SCAN x [**] [Classification: y] [Priority: 2] {TCP} 1.2.3.4:5 ->
/// 6.7.8.9:10`, with `[Drop]` behind the time when it was.
fn fast<'a>(text: &'a str, context: &Context<'_>, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    let Some(alert) = Alert::parse(text) else {
        return Ok(None);
    };
    let known = &*KNOWN;
    put_message(sink, text)?;
    sink.text(known.event_type, "ids_alert")?;
    put(sink, known.rule_id, Some(alert.id))?;
    put(sink, known.rule_name, Some(alert.name))?;
    put(sink, known.signature, Some(alert.name))?;
    put(sink, known.severity, alert.priority)?;
    own(sink, "classification", alert.class.unwrap_or(""))?;
    let (src_ip, src_port) = alert.from;
    let (dst_ip, dst_port) = alert.to;
    let flow = Flow {
        src_ip: Some(src_ip),
        src_port,
        dst_ip: Some(dst_ip),
        dst_port,
        protocol: Some(alert.protocol),
        action: Some(if alert.dropped { "drop" } else { "allowed" }),
        ..Flow::default()
    };
    flow.put(sink)?;
    let time = us_time(text, context.assume);
    Ok(Some(Found { product: Some("suricata"), category: Some("ids"), service: Some("alert"), time }))
}

struct Alert<'a> {
    dropped: bool,
    id: &'a str,
    name: &'a str,
    class: Option<&'a str>,
    priority: Option<&'a str>,
    protocol: &'a str,
    from: (&'a str, Option<&'a str>),
    to: (&'a str, Option<&'a str>),
}

impl<'a> Alert<'a> {
    fn parse(text: &'a str) -> Option<Alert<'a>> {
        let (head, rest) = text.split_once("[**] [")?;
        // `MM/DD` begins the line, with or without a year.
        if head.len() > 64 || !matches!(head.as_bytes(), [b'0'..=b'1', _, b'/', b'0'..=b'3', _, b'/' | b'-', ..]) {
            return None;
        }
        let (id, rest) = rest.split_once("] ")?;
        let (name, rest) = rest.split_once(" [**]")?;
        let is_id = id.split(':').count() == 3 && id.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
        let inner = |key: &str| rest.split_once(key).and_then(|(_, rest)| rest.split(']').next());
        let (protocol, flow) = rest.split_once('{')?.1.split_once("} ")?;
        let (from, to) = flow.trim_end().split_once(" -> ")?;
        is_id.then_some(Alert {
            dropped: head.contains("[Drop]") || head.contains("[wDrop]"),
            id,
            name: name.trim().trim_matches('"'),
            class: inner("[Classification: "),
            priority: inner("[Priority: "),
            protocol,
            from: end(from)?,
            to: end(to)?,
        })
    }
}

/// `1.2.3.4:5`, `2001:db8::1:5`, or an address alone where the protocol has no ports.
fn end(text: &str) -> Option<(&str, Option<&str>)> {
    let is_address = |text: &str| text.parse::<std::net::IpAddr>().is_ok();
    match text.rsplit_once(':') {
        // The last part of an IPv6 address is never taken for a port: both always write one for TCP and UDP.
        Some((ip, port)) if is_address(ip) && port.bytes().all(|byte| byte.is_ascii_digit()) => Some((ip, Some(port))),
        _ => is_address(text).then_some((text, None)),
    }
}

/// `01/28/2021-13:35:54.123456`; Snort leaves out the year, and so has no time here but that of receipt.
fn us_time(text: &str, assume: Assume<'_>) -> Option<(cf_types::Time, TimeBasis)> {
    let (date, rest) = text.split_once('-')?;
    let mut date = date.splitn(3, '/');
    let (month, day, year) = (date.next()?, date.next()?, date.next()?);
    let clock = rest.split(' ').next()?;
    let (local, _) = parse_local(format!("{year}-{month}-{day}T{clock}").as_bytes())?;
    Some((assume.zoned_micros(local)?, TimeBasis::Assumed))
}

/// Columns of Zeek 6's logs by path, behind the six that all have.
const ZEEK: &[(&str, &[&str])] = &[
    (
        "conn",
        &[
            "proto",
            "service",
            "duration",
            "orig_bytes",
            "resp_bytes",
            "conn_state",
            "local_orig",
            "local_resp",
            "missed_bytes",
            "history",
            "orig_pkts",
            "orig_ip_bytes",
            "resp_pkts",
            "resp_ip_bytes",
            "tunnel_parents",
        ],
    ),
    (
        "dns",
        &[
            "proto",
            "trans_id",
            "rtt",
            "query",
            "qclass",
            "qclass_name",
            "qtype",
            "qtype_name",
            "rcode",
            "rcode_name",
            "AA",
            "TC",
            "RD",
            "RA",
            "Z",
            "answers",
            "TTLs",
            "rejected",
        ],
    ),
    (
        "http",
        &[
            "trans_depth",
            "method",
            "host",
            "uri",
            "referrer",
            "version",
            "user_agent",
            "origin",
            "request_body_len",
            "response_body_len",
            "status_code",
            "status_msg",
            "info_code",
            "info_msg",
            "tags",
            "username",
            "password",
            "proxied",
            "orig_fuids",
            "orig_filenames",
            "orig_mime_types",
            "resp_fuids",
            "resp_filenames",
            "resp_mime_types",
        ],
    ),
    ("ssl", &["version", "cipher", "curve", "server_name", "resumed", "last_alert", "next_protocol", "established"]),
    (
        "ssh",
        &[
            "version",
            "auth_success",
            "auth_attempts",
            "direction",
            "client",
            "server",
            "cipher_alg",
            "mac_alg",
            "compression_alg",
            "kex_alg",
            "host_key_alg",
            "host_key",
        ],
    ),
    ("smb_files", &["fuid", "action", "path", "name", "size", "prev_name"]),
    ("smb_mapping", &["path", "service", "native_file_system", "share_type"]),
    ("dce_rpc", &["rtt", "named_pipe", "endpoint", "operation"]),
    (
        "kerberos",
        &[
            "request_type",
            "client",
            "service",
            "success",
            "error_msg",
            "from",
            "till",
            "cipher",
            "forwardable",
            "renewable",
        ],
    ),
    (
        "rdp",
        &["cookie", "result", "security_protocol", "client_channels", "keyboard_layout", "client_build", "client_name"],
    ),
    (
        "ntlm",
        &[
            "username",
            "hostname",
            "domainname",
            "server_nb_computer_name",
            "server_dns_computer_name",
            "server_tree_name",
            "success",
        ],
    ),
    ("weird", &["name", "addl", "notice", "peer", "source"]),
    ("notice", &["fuid", "file_mime_type", "file_desc", "proto", "note", "msg", "sub", "src", "dst", "p", "n"]),
];
const FIRST: &[&str] = &["ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p"];

fn zeek<'a>(text: &'a str, context: &Context<'_>, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    let configured = &context.source.columns;
    let service = context.source.service.as_deref();
    let values: Vec<&str> = text.split('\t').take(COLUMNS_MAX).collect();
    let by_columns = !configured.is_empty() && values.len() == configured.len() && values.len() > 1;
    if !by_columns && !is_connection(&values) {
        return Ok(None);
    }
    put_message(sink, text)?;
    let rest = ZEEK.iter().find(|(path, _)| Some(*path) == service).map_or(&[][..], |(_, columns)| *columns);
    let names = FIRST.iter().chain(rest).copied();
    let named = values.iter().zip(names);
    if by_columns {
        for (value, name) in values.iter().zip(configured) {
            put_value(name, value, sink)?;
        }
    } else {
        for (value, name) in named {
            put_value(name, value, sink)?;
        }
    }
    let stamp = values.first().and_then(|stamp| stamp.parse::<f64>().ok()).and_then(from_epoch_f64);
    let path = ZEEK.iter().find(|(path, _)| Some(*path) == service).map(|(path, _)| *path);
    let time = stamp.map(|time| (time, TimeBasis::Declared));
    Ok(Some(Found { product: Some("zeek"), service: path, time, ..Found::default() }))
}

/// `1591367999.305988  CMdzit1AMNsmfAIiQc  192.168.4.76  36844  192.168.4.1  53`, parted by tabs.
fn is_connection(values: &[&str]) -> bool {
    let [stamp, uid, from, from_port, to, to_port, _, ..] = values else {
        return false;
    };
    let is_address = |text: &str| text.parse::<std::net::IpAddr>().is_ok();
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let is_uid = uid.starts_with('C') && uid.len() >= 12 && uid.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_uid
        && stamp.split_once('.').is_some_and(|(seconds, _)| seconds.len() >= 9)
        && is_address(from)
        && is_port(from_port)
        && is_address(to)
        && is_port(to_port)
}

fn put_value(name: &str, value: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    if matches!(value, "-" | "(empty)" | "") {
        return Ok(());
    }
    match name {
        "id.orig_h" => put_source(sink, value)?,
        "id.resp_h" => put(sink, known.dst_ip, Some(value))?,
        "id.resp_p" => put(sink, known.dst_port, Some(value))?,
        // Lists, each element a value.
        "answers" | "TTLs" | "orig_mime_types" | "resp_mime_types" | "resp_filenames" | "client_header_names" => {
            return value.split(',').take(ELEMENTS_MAX).try_for_each(|element| own(sink, name, element));
        }
        _ => {}
    }
    own(sink, name, value)
}
