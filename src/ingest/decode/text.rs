//! Text lines: syslog in its forms, and the logs of the programs and products in the table below; anything else.
//!
//! No line is refused for not being known: what no decoder knows is an event with its text as `message`. A decoder sees
//! one record and nothing else, so what a log says only in a header line (`#Fields:`) must be the default of its
//! product, or stand in the source's `columns`.
//!
//! In this order, the first that knows the text wins. Each asks for a layout from the text's first byte on: what a client
//! may choose (a name, a path) comes later, and must not choose how the line is read. For the same reason the messages
//! of programs that write sentences of their own are never tried as anything else.
//!
//! | kind | told by | log source | file |
//! |---|---|---|---|
//! | auditd | `type=T msg=audit(` | linux/-/auditd | `auditd.rs` |
//! | Windows event, Sysmon for Linux as XML | `<Event` | windows/-/-, linux/-/- | `xml.rs` |
//! | CEF, LEEF | `CEF:N\|`, `LEEF:N` | by vendor | `cef.rs` |
//! | PAN-OS | serial and type in columns 3 and 4 | paloalto/-/type | `paloalto.rs` |
//! | FortiOS | `logid=` and `type=` pairs | fortigate/-/type | `fortinet.rs` |
//! | Cisco IOS, NX-OS, ASA; Huawei; Juniper's BGP | `%FACILITY-N-NAME:` | cisco/-/facility | `cisco.rs` |
//! | netfilter, ufw, pfSense, MikroTik | `SRC= DST= PROTO=`, `filterlog`, `firewall,info` | ../firewall/.. | `firewall.rs` |
//! | access logs | `[time] "request" status` | -/webserver/- | `web.rs` |
//! | HAProxy, AWS ALB, Gin, Squid, IIS and other W3C | layout | -/webserver/..,-/proxy/.. | `requests.rs` |
//! | error logs of nginx and Apache | `[time] [level]`, `time [level] pid#` | -/-/nginx, -/-/apache | `web.rs` |
//! | BIND, dnsmasq, unbound, Windows DNS | ` query: `, `query[`, layout | -/dns/.. | `dns.rs` |
//! | Suricata's fast log, Zeek's columns | `[**] [`, tab and uid | suricata, zeek | `sensors.rs` |
//! | programs of Linux by syslog's tag | sshd, sudo, su, cron, useradd .. | linux/-/program | `sshd.rs`, `accounts.rs` .. |
//! | applications that tell of logins | a table of phrases | by application | `phrases.rs` |
//! | logfmt | three pairs or more | - | here |

use cf_types::{Name, Time, TimeBasis};

use super::{
    names::KNOWN,
    pam,
    sink::{Broken, Sink},
    sshd, sudo, syslog,
    time::{Assume, parse_ctime, parse_iso, parse_local, parse_offset_of, parse_syslog},
    web,
};
use crate::options::Source;

mod accounts;
mod auditd;
mod cef;
mod cisco;
mod dns;
mod firewall;
mod fortinet;
mod pairs;
mod paloalto;
mod phrases;
mod requests;
mod sensors;
mod xml;

/// Pairs from which on a line is taken for logfmt.
const LOGFMT_PAIRS_MIN: usize = 3;

/// What a line says of itself besides its fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found<'a> {
    pub(crate) product: Option<&'a str>,
    pub(crate) category: Option<&'a str>,
    pub(crate) service: Option<&'a str>,
    pub(crate) time: Option<(Time, TimeBasis)>,
}

/// What a decoder may know of a text besides the text.
#[derive(Clone, Copy, Debug)]
struct Context<'a> {
    assume: Assume<'a>,
    source: &'a Source,
    /// The program that syslog's header names, without what stands in parentheses.
    program: &'a str,
}

/// A decoder of one kind of text: adds the fields and says what it found, or leaves the sink alone.
type Decode = for<'a> fn(&'a str, &Context<'_>, &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken>;

/// The kinds that may come with or without a syslog header, in the table's order.
const KINDS: &[Decode] = &[
    |text, _, sink| auditd::decode(text, sink),
    |text, context, sink| xml::decode(text, context.assume, sink),
    |text, context, sink| cef::decode(text, context.assume, sink),
    |text, context, sink| paloalto::decode(text, context.assume, sink),
    |text, context, sink| fortinet::decode(text, context.assume, sink),
    |text, _, sink| cisco::decode(text, sink),
    |text, context, sink| firewall::decode(text, context.program, sink),
    |text, _, sink| web::parse_access(text).map(|access| access.put(sink)).transpose(),
    |text, context, sink| requests::decode(text, context, sink),
    |text, context, sink| web::parse_error(text, context.assume).map(|error| error.put(sink)).transpose(),
    |text, context, sink| dns::decode(text, context, sink),
    |text, context, sink| sensors::decode(text, context, sink),
];

/// Decodes a line.
pub(crate) fn decode<'a>(
    line: &'a str,
    assume: Assume<'_>,
    source: &Source,
    sink: &mut Sink<'_>,
) -> Result<Found<'a>, Broken> {
    if let Some(header) = syslog::parse(line, assume) {
        return message(&header, assume, source, sink);
    }
    let context = Context { assume, source, program: "" };
    let before = sink.fields.len();
    let mut found = match kind(line, &context, sink)? {
        Some(found) => found,
        None => {
            sink.text(KNOWN.message, line)?;
            match phrases::decode(line, None, sink)? {
                Some(found) => found,
                None => unknown(line, sink)?,
            }
        }
    };
    debug_assert!(sink.fields.len() > before, "every line gives a field");
    found.time = found.time.or_else(|| leading_time(line, assume));
    Ok(found)
}

/// What stands before a JSON document on a line: a syslog header, or what a container's log puts there.
pub(crate) struct Wrapped<'a> {
    header: Option<syslog::Header<'a>>,
    pub(crate) json: &'a str,
    pub(crate) time: Option<(Time, TimeBasis)>,
}

impl Wrapped<'_> {
    /// The program that the header names.
    pub(crate) fn program(&self) -> Option<&str> {
        self.header.as_ref()?.program
    }

    /// Adds the header's fields, without the message.
    pub(crate) fn put(&self, sink: &mut Sink<'_>) -> Result<(), Broken> {
        self.header.as_ref().map_or(Ok(()), |header| header.put_head(sink))
    }
}

/// The JSON document that a line carries behind a header, if it ends with the line: `<134>1 .. {..}`, `program: {..}`,
/// `@cee: {..}`, and Kubernetes' `TIME stdout F {..}`.
pub(crate) fn wrapped<'a>(line: &'a str, assume: Assume<'_>) -> Option<Wrapped<'a>> {
    if !line.ends_with('}') {
        return None;
    }
    let object = |text: &'a str| {
        let text = text.trim_start();
        let text = text.strip_prefix("@cee:").map_or(text, str::trim_start);
        text.starts_with('{').then_some(text)
    };
    if let Some((time, text)) = container(line, assume) {
        return Some(Wrapped { header: None, json: object(text)?, time: Some(time) });
    }
    let header = syslog::parse(line, assume)?;
    Some(Wrapped { json: object(header.message)?, time: header.time, header: Some(header) })
}

/// `2025-12-31T17:40:00.000000100+01:00 stdout F TEXT`, as container runtimes write it (CRI).
fn container<'a>(line: &'a str, assume: Assume<'_>) -> Option<((Time, TimeBasis), &'a str)> {
    let (stamp, rest) = line.split_once(' ')?;
    let rest = rest.strip_prefix("stdout ").or_else(|| rest.strip_prefix("stderr "))?;
    let text = rest.strip_prefix("F ").or_else(|| rest.strip_prefix("P "))?;
    Some((parse_iso(stamp, assume)?, text))
}

fn kind<'a>(text: &'a str, context: &Context<'_>, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    for decode in KINDS {
        if let Some(found) = decode(text, context, sink)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Decodes a syslog message: by its text, or else by its program.
pub(crate) fn message<'a>(
    header: &syslog::Header<'a>,
    assume: Assume<'_>,
    source: &Source,
    sink: &mut Sink<'_>,
) -> Result<Found<'a>, Broken> {
    let text = header.message;
    header.put(sink)?;
    let program = header.program.unwrap_or("");
    let base = program.split('(').next().unwrap_or(program); // `sshd(pam_unix)`, as old syslogs wrote
    let context = Context { assume, source, program: base };
    let by_kind = if has_own_words(base) { None } else { kind(text, &context, sink)? };
    let mut found = match by_kind {
        Some(mut found) => {
            let server = Some(base).filter(|base| found.category == Some("webserver") && web::is_server(base));
            found.service = found.service.or(server);
            found
        }
        None => by_program(base, text, sink)?,
    };
    // A time with zone and year in the message is better than a header that leaves them out.
    let assumed = |time: &(Time, TimeBasis)| time.1 == TimeBasis::Assumed;
    found.time = header.time.filter(|time| found.time.is_none() || !assumed(time)).or(found.time);
    Ok(found)
}

/// Whether a program's messages are its own sentences and never another kind of log. They hold what clients choose
/// (names above all), and must not be taken for what that imitates.
fn has_own_words(program: &str) -> bool {
    const CARRIERS: &[&str] = &["squid", "audit", "php-fpm"];
    !CARRIERS.contains(&program)
        && (matches!(program, "sshd" | "sshd-session" | "sshd-auth" | "sudo")
            || accounts::knows(program)
            || phrases::knows(program))
}

/// Decodes what a program of Linux says.
fn by_program<'a>(base: &'a str, text: &str, sink: &mut Sink<'_>) -> Result<Found<'a>, Broken> {
    let mut found =
        Found { product: Some("linux"), service: Some(base).filter(|base| !base.is_empty()), ..Found::default() };
    match base {
        "sshd" | "sshd-session" | "sshd-auth" => {
            found.service = Some("sshd");
            sshd::decode(text, sink)?;
        }
        "sudo" => sudo::decode(text, sink)?,
        "CRON" | "crond" | "cron" | "CROND" | "crontab" | "anacron" => {
            found.service = Some("cron");
            accounts::decode(base, text, sink)?;
        }
        _ => {
            if pam::decode(text, sink)? || accounts::decode(base, text, sink)? {
                return Ok(found);
            }
            if let Some(told) = phrases::decode(text, Some(base), sink)? {
                // The application's own name, whatever its program is called.
                return Ok(Found { time: None, ..told });
            }
            if base.is_empty() {
                unknown(text, sink)?;
            }
        }
    }
    Ok(found)
}

/// A line of no known kind: the pairs of logfmt where a rule asks for their names.
fn unknown<'a>(text: &str, sink: &mut Sink<'_>) -> Result<Found<'a>, Broken> {
    if pairs::pairs(text).take(LOGFMT_PAIRS_MIN).count() == LOGFMT_PAIRS_MIN {
        for pair in pairs::pairs(text) {
            own(sink, pair.key, pair.value)?;
        }
    }
    Ok(Found::default())
}

/// Adds the text as `message`, unless a header's has been.
fn put_message(sink: &mut Sink<'_>, text: &str) -> Result<(), Broken> {
    if sink.fields.has(KNOWN.message) { Ok(()) } else { sink.text(KNOWN.message, text) }
}

/// Adds a field that the text gave; empty and `-` are nothing.
fn put(sink: &mut Sink<'_>, name: Name, value: Option<&str>) -> Result<(), Broken> {
    match value {
        None | Some("" | "-") => Ok(()),
        Some(value) => sink.text(name, value),
    }
}

/// Adds a field under the product's own name, where a rule or decoder asks for that name. Elsewhere the value stays in
/// `message`, where a search for words finds it.
fn own(sink: &mut Sink<'_>, key: &str, value: &str) -> Result<(), Broken> {
    if value.is_empty() || key.len() > 128 {
        return Ok(());
    }
    match sink.name(key)? {
        Name::UNKNOWN => Ok(()),
        name => sink.text(name, value),
    }
}

/// Adds an address as `source_ip`, in whatever brackets and with whatever port it comes; a name is `source_host`.
fn put_source(sink: &mut Sink<'_>, text: &str) -> Result<(), Broken> {
    match address(text) {
        Some(address) => sink.text(KNOWN.source_ip, address),
        None => put(sink, KNOWN.source_host, Some(text)),
    }
}

/// The address in `1.2.3.4`, `1.2.3.4:55`, `[::1]`, `[::1]:55`, `ipv4:1.2.3.4:55` or `1.2.3.4(name)`.
fn address(text: &str) -> Option<&str> {
    let is_address = |text: &str| text.len() <= 64 && text.parse::<std::net::IpAddr>().is_ok();
    let text = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '(' | ',' | '.'));
    let text = text.strip_prefix("ipv4:").or_else(|| text.strip_prefix("ipv6:")).unwrap_or(text);
    if is_address(text) {
        return Some(text);
    }
    if let Some((inner, _)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        return Some(inner).filter(|inner| is_address(inner));
    }
    let (bare, _) = text.rsplit_once(':').or_else(|| text.split_once(['(', ')', '/']))?;
    Some(bare).filter(|bare| is_address(bare))
}

/// The time at the beginning of a line of an unknown kind: ISO 8601 (a blank or `T`, `-` or `/`), perhaps in brackets,
/// or behind `time=`; syslog's; or C's (`Mon Jun 8 12:08:53 2020`).
fn leading_time(line: &str, assume: Assume<'_>) -> Option<(Time, TimeBasis)> {
    let line = ["time=", "ts=", "timestamp="].iter().find_map(|key| line.strip_prefix(key)).unwrap_or(line);
    let line = line.strip_prefix(['[', '"']).unwrap_or(line);
    if let Some((local, rest)) = parse_local(line.as_bytes()) {
        if local.rem_euclid(86_400_000_000) == 0 && rest.len() + 10 == line.len() {
            return None; // a date alone says too little
        }
        let end = rest.iter().position(|byte| matches!(byte, b']' | b'"' | b',')).unwrap_or(rest.len());
        let zone = rest.get(..end).unwrap_or_default();
        let word = zone.strip_prefix(b" ").unwrap_or(zone);
        let word = word.split(|byte| *byte == b' ').next().unwrap_or_default();
        let until = line.get(..line.len() - rest.len())?;
        return match (word, parse_offset_of(word)) {
            ([b'Z' | b'z'], _) => Some((Time::from_micros(local), TimeBasis::Declared)),
            (_, Some(offset_s)) => Some((Time::from_micros(local - offset_s * 1_000_000), TimeBasis::Declared)),
            _ => parse_iso(until, assume),
        };
    }
    let assumed = |time| Some((time, TimeBasis::Assumed));
    parse_syslog(line, assume).map(|(time, _)| time).or_else(|| parse_ctime(line, assume)).and_then(assumed)
}
