//! CEF (ArcSight) and LEEF (QRadar): a header of vendor, product and kind, then pairs.
//!
//! The dictionary's keys become Sigma's names for firewalls, proxies and virus scanners; a custom pair (`cs1Label=x
//! cs1=y`) has its label as its name. Other keys keep their own name, where a rule asks for it.

use std::borrow::Cow;

use cf_types::{Time, TimeBasis};

use super::{Found, firewall::put_action, own, put, put_message, put_source, requests::put_url};
use crate::decode::{
    names::KNOWN,
    sink::{Broken, Sink},
    time::{Assume, parse_text},
    web::put_agent,
};

/// Pairs read of one line, at most.
const PAIRS_MAX: usize = 512;

/// What both formats say.
struct Message<'a> {
    vendor: Cow<'a, str>,
    product: Cow<'a, str>,
    version: Cow<'a, str>,
    class: Cow<'a, str>,
    name: Cow<'a, str>,
    severity: Cow<'a, str>,
    pairs: Vec<(&'a str, Cow<'a, str>)>,
}

/// Decodes a message; `None` if it is neither.
pub(super) fn decode<'a>(text: &'a str, assume: Assume<'_>, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    let Some(message) = cef(text).or_else(|| leef(text)) else {
        return Ok(None);
    };
    let known = &*KNOWN;
    put_message(sink, text)?;
    for (name, value) in [
        (known.vendor, &message.vendor),
        (known.product, &message.product),
        (known.version, &message.version),
        (known.event_class, &message.class),
        (known.name, &message.name),
        (known.severity, &message.severity),
    ] {
        put(sink, name, Some(value.as_ref()))?;
    }
    for (key, value) in &message.pairs {
        put_pair(&message, key, value, sink)?;
    }
    let category = message.category();
    if category == Some("antivirus") {
        sink.text(known.signature, message.value(&["virusname", "cs1"]).unwrap_or(&message.name))?;
    }
    let time = message.value(&["rt", "end", "start", "devTime"]).and_then(|text| time_of(text, assume));
    let product = Some(product_of(&message.vendor));
    Ok(Some(Found { product, category, service: None, time }))
}

/// Sigma's product of a vendor; others are products by their own name.
fn product_of<'a>(vendor: &Cow<'a, str>) -> &'a str {
    const VENDORS: &[(&str, &str)] = &[
        ("palo alto networks", "paloalto"),
        ("fortinet", "fortigate"),
        ("cisco", "cisco"),
        ("check point", "checkpoint"),
        ("trend micro", "trendmicro"),
        ("imperva inc.", "imperva"),
        ("zscaler", "zscaler"),
        ("f5", "f5"),
        ("citrix", "citrix"),
        ("juniper", "juniper"),
        ("huawei", "huawei"),
        ("crowdstrike", "crowdstrike"),
        ("mcafee", "mcafee"),
        ("symantec", "symantec"),
        ("kaspersky", "kaspersky"),
        ("sophos", "sophos"),
        ("barracuda", "barracuda"),
        ("forcepoint", "forcepoint"),
        ("sonicwall", "sonicwall"),
        ("watchguard", "watchguard"),
        ("ubiquiti", "ubiquiti"),
        ("cyberark", "cyberark"),
        ("cyber-ark", "cyberark"),
        ("incapsula", "incapsula"),
    ];
    let lower = vendor.to_ascii_lowercase();
    match (VENDORS.iter().find(|(name, _)| lower.starts_with(name)), vendor) {
        (Some((_, product)), _) => product,
        (None, Cow::Borrowed(vendor)) if (1..=64).contains(&vendor.len()) => vendor,
        (None, _) => "cef",
    }
}

impl Message<'_> {
    fn value(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|wanted| self.pairs.iter().find(|(key, _)| key == wanted)).map(|(_, value)| value.as_ref())
    }

    /// What the keys say it is: a scanner's find, a request, a connection.
    fn category(&self) -> Option<&'static str> {
        let has = |keys: &[&str]| self.value(keys).is_some();
        let words = format!("{} {} {}", self.class, self.name, self.value(&["cat"]).unwrap_or("")).to_ascii_lowercase();
        let found = ["virus", "malware", "trojan"].iter().any(|word| words.contains(word));
        if found && has(&["fname", "filePath", "fileHash", "virusname"]) {
            return Some("antivirus");
        }
        if has(&["request", "url"]) {
            return Some("proxy");
        }
        (has(&["src"]) && has(&["dst"]) && has(&["dpt", "dstPort", "proto"])).then_some("firewall")
    }
}

fn put_pair(message: &Message<'_>, key: &str, value: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    if let Some(custom) = key.strip_suffix("Label") {
        // The pair that the label names: `cs1Label=Rule cs1=Allow web`.
        return message.value(&[custom]).map_or(Ok(()), |named| own(sink, value, named));
    }
    match key {
        "src" => {
            put(sink, known.src_ip, Some(value))?;
            put_source(sink, value)?;
        }
        "dst" => put(sink, known.dst_ip, Some(value))?,
        "spt" | "srcPort" => put(sink, known.src_port, Some(value))?,
        "dpt" | "dstPort" => put(sink, known.dst_port, Some(value))?,
        "proto" => put(sink, known.protocol, Some(value))?,
        "act" | "action" => put_action(sink, Some(value))?,
        "request" | "url" => put_url(value, sink)?,
        "requestMethod" => put(sink, known.cs_method, Some(value))?,
        "requestClientApplication" | "userAgent" => put_agent(value, sink)?,
        "requestContext" => put(sink, known.cs_referer, Some(value))?,
        "suser" | "usrName" => put(sink, known.user, Some(value))?,
        "duser" => put(sink, known.target_user, Some(value))?,
        "shost" => put(sink, known.source_host, Some(value))?,
        "fname" | "filePath" => put(sink, known.filename, Some(value))?,
        "dvchost" => put(sink, known.host, Some(value))?,
        "reason" => put(sink, known.reason, Some(value))?,
        _ => {}
    }
    own(sink, key, value)
}

/// `CEF:0|Vendor|Product|Version|Class|Name|Severity|key=value key=value`.
fn cef(text: &str) -> Option<Message<'_>> {
    let rest = begun(text, "CEF:")?;
    let (version, mut rest) = rest.split_once('|')?;
    if version.len() > 3 || !version.trim().bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let mut part = || {
        let (part, after) = header_part(rest)?;
        rest = after;
        Some(part)
    };
    let (vendor, product, version, class, name) = (part()?, part()?, part()?, part()?, part()?);
    // The bar behind the severity is missing where no pairs follow.
    let (severity, extension) = header_part(rest).unwrap_or((Cow::Borrowed(rest), ""));
    Some(Message { vendor, product, version, class, name, severity, pairs: extension_pairs(extension) })
}

/// What follows the mark that a text begins with; a host's name may stand before it, where syslog's header has no time.
fn begun<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.strip_prefix(mark).or_else(|| text.split_once(' ')?.1.strip_prefix(mark))
}

/// A part of the header up to an unescaped bar, and what follows it.
fn header_part(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'|' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some((unescaped(text.get(..end)?), text.get(end + 1..)?))
}

/// `key=value key=value`, where values may hold blanks: a value ends where a word that is a key and an unescaped `=`
/// follow.
fn extension_pairs(text: &str) -> Vec<(&str, Cow<'_, str>)> {
    let mut starts: Vec<(usize, usize)> = Vec::new(); // of the key, of the `=`
    let bytes = text.as_bytes();
    for at in memchr::memchr_iter(b'=', bytes) {
        let before = bytes.get(..at).unwrap_or_default();
        let is_key = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']');
        // Keys are short; a long word is not walked back through again and again.
        let len = before.iter().rev().take(64).take_while(|byte| is_key(byte)).count();
        let start = at - len;
        let begins = start == 0 || bytes.get(start - 1).is_some_and(u8::is_ascii_whitespace);
        if len > 0 && begins && starts.last().is_none_or(|(_, equals)| start > *equals) {
            starts.push((start, at));
        }
        if starts.len() == PAIRS_MAX {
            break;
        }
    }
    let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([text.len()]);
    let pairs = starts.iter().zip(ends).filter_map(|((start, equals), end)| {
        Some((text.get(*start..*equals)?, unescaped(text.get(equals + 1..end)?.trim_end())))
    });
    pairs.collect()
}

/// `LEEF:1.0|Vendor|Product|Version|EventID|key=value<tab>key=value`; 2.0 names the delimiter in one more part.
fn leef(text: &str) -> Option<Message<'_>> {
    let rest = begun(text, "LEEF:")?;
    let (format, rest) = rest.split_once('|')?;
    let mut parts = rest.splitn(5, '|');
    let (vendor, product, version, class) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let rest = parts.next()?;
    let (delimiter, rest) = match (format, rest.split_once('|')) {
        ("2.0", Some((delimiter, rest))) if !delimiter.contains('=') => (delimiter_of(delimiter), rest),
        ("1.0" | "2.0", _) => ('\t', rest),
        _ => return None,
    };
    let pairs = rest.split(delimiter).take(PAIRS_MAX).filter_map(|pair| pair.split_once('='));
    let pairs: Vec<_> = pairs.map(|(key, value)| (key.trim(), Cow::Borrowed(value.trim()))).collect();
    let severity = pairs.iter().find(|(key, _)| *key == "sev").map_or(Cow::Borrowed(""), |(_, value)| value.clone());
    Some(Message {
        vendor: Cow::Borrowed(vendor),
        product: Cow::Borrowed(product),
        version: Cow::Borrowed(version),
        class: Cow::Borrowed(class),
        name: Cow::Borrowed(""),
        severity,
        pairs,
    })
}

/// A character, or its number: `^`, `x09`, `0x09`.
fn delimiter_of(text: &str) -> char {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix('x'));
    let by_number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
    by_number.or_else(|| text.chars().next()).unwrap_or('\t')
}

/// `\|`, `\=`, `\\`, `\n` and `\r` as what they stand for.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.clone().next() } else { None }) {
            ('\\', Some(next @ ('|' | '=' | '\\'))) => out.push(next),
            ('\\', Some('n' | 'r')) => out.push('\n'),
            _ => {
                out.push(c); // a backslash before anything else is one: `C:\temp`
                continue;
            }
        }
        chars.next();
    }
    Cow::Owned(out)
}

/// Epoch milliseconds, or `Jan 05 2026 13:00:00` with fraction and zone left out or not.
fn time_of(text: &str, assume: Assume<'_>) -> Option<(Time, TimeBasis)> {
    if let Some(found) = parse_text(text, assume) {
        return Some(found);
    }
    let words: Vec<&str> = text.split_ascii_whitespace().take(4).collect();
    match words.as_slice() {
        // A zone's name stands last: `Jan 05 2026 13:00:00.123 UTC`.
        [month, day, year, clock] => parse_text(&format!("{month} {day} {year} {clock}"), assume),
        _ => None,
    }
}
