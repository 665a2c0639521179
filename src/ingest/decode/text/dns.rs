//! DNS servers' query logs: BIND, dnsmasq, unbound, and the debug log of Windows.
//!
//! Sigma's fields for DNS: `query`, `record_type`, `answer`; who asked is `source_ip`.

use cf_types::{Time, TimeBasis};

use super::{Context, Found, address, put, put_message, put_source};
use crate::decode::{
    names::KNOWN,
    sink::{Broken, Sink},
    time::{Assume, parse_local},
};

/// One question or answer.
#[derive(Clone, Copy, Debug, Default)]
struct Message<'a> {
    service: &'static str,
    event_type: &'static str,
    client: Option<&'a str>,
    query: &'a str,
    record_type: Option<&'a str>,
    answer: Option<&'a str>,
    response_code: Option<&'a str>,
    time: Option<(Time, TimeBasis)>,
}

/// Decodes a line of a DNS server; `None` if it is none.
pub(super) fn decode<'a>(
    text: &'a str,
    context: &Context<'_>,
    sink: &mut Sink<'_>,
) -> Result<Option<Found<'a>>, Broken> {
    let known = &*KNOWN;
    let mut labels = String::new();
    let found = bind(text, context)
        .or_else(|| dnsmasq(text, context.program))
        .or_else(|| unbound(text, context.program))
        .or_else(|| windows(text, context.assume, &mut labels));
    let Some(message) = found else {
        return Ok(None);
    };
    put_message(sink, text)?;
    sink.text(known.event_type, message.event_type)?;
    if let Some(client) = message.client {
        put_source(sink, client)?;
    }
    let query = if message.query.is_empty() { labels.as_str() } else { message.query };
    put(sink, known.query, Some(query.strip_suffix('.').unwrap_or(query)))?;
    for (name, value) in [
        (known.record_type, message.record_type),
        (known.answer, message.answer),
        (known.response_code, message.response_code),
    ] {
        put(sink, name, value)?;
    }
    let product = Some(if message.service == "dns-server-debug" { "windows" } else { "linux" });
    Ok(Some(Found { product, category: Some("dns"), service: Some(message.service), time: message.time }))
}

/// `client @0x7f 10.0.0.5#53124 (www.example.com): query: www.example.com IN A +E(0)K (10.0.0.1)`, in a file behind
/// `05-Jan-2026 13:00:00.123 queries: info: `; refused: `.. query (cache) 'x/A/IN' denied`.
fn bind<'a>(text: &'a str, context: &Context<'_>) -> Option<Message<'a>> {
    let at = text.find("client ").filter(|at| *at <= 96)?;
    let time = text.get(..at).and_then(|head| bind_time(head, context.assume));
    // Elsewhere the words may be a client's.
    if at > 0 && time.is_none() && context.program != "named" {
        return None;
    }
    let (client, rest) = text.get(at + "client ".len()..)?.split_once('#')?;
    let client = client.rsplit(' ').next().filter(|client| address(client).is_some());
    client?;
    let found = Message { service: "named", client, time, ..Message::default() };
    if let Some((_, rest)) = rest.split_once(": query: ") {
        let mut words = rest.split(' ');
        let (query, class, record_type) = (words.next()?, words.next()?, words.next()?);
        let is_class = matches!(class, "IN" | "CH" | "HS" | "ANY");
        let record_type = Some(record_type);
        return is_class.then_some(Message { event_type: "dns_query", query, record_type, ..found });
    }
    let (inner, _) = rest.split_once("' denied")?;
    let mut parts = inner.rsplit_once('\'')?.1.rsplitn(3, '/');
    let (_class, record_type, query) = (parts.next()?, parts.next(), parts.next()?);
    Some(Message { event_type: "dns_denied", query, record_type, ..found })
}

/// `05-Jan-2026 13:00:00.123` at the beginning of a text.
fn bind_time(text: &str, assume: Assume<'_>) -> Option<(Time, TimeBasis)> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.get(..24)?.splitn(3, '-');
    let (day, month, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let (year, clock) = rest.split_once(' ')?;
    let (local, _) = parse_local(format!("{year}-{month:02}-{day} {clock}").as_bytes())?;
    Some((assume.zoned_micros(local)?, TimeBasis::Assumed))
}

/// `query[A] www.example.com from 10.0.0.5`, `reply www.example.com is 1.2.3.4`; `cached` and `config` are replies too.
fn dnsmasq<'a>(text: &'a str, program: &str) -> Option<Message<'a>> {
    if program != "dnsmasq" && program != "pihole-FTL" {
        return None;
    }
    // With `log-queries=extra` a serial and the asker stand first: `17 10.0.0.5/53124 query[A] ..`.
    let (asker, text) = match text.split_once(' ').and_then(|(serial, rest)| Some((serial, rest.split_once(' ')?))) {
        Some((serial, (asker, rest))) if serial.bytes().all(|byte| byte.is_ascii_digit()) => {
            (asker.split('/').next(), rest)
        }
        _ => (None, text),
    };
    let found = Message { service: "dnsmasq", client: asker, ..Message::default() };
    if let Some((record_type, rest)) = text.strip_prefix("query[").and_then(|rest| rest.split_once("] ")) {
        let (query, client) = rest.rsplit_once(" from ")?;
        let record_type = Some(record_type);
        return Some(Message { event_type: "dns_query", client: Some(client.trim_end()), query, record_type, ..found });
    }
    let rest = ["reply ", "cached ", "config "].iter().find_map(|verb| text.strip_prefix(verb))?;
    let (query, answer) = rest.split_once(" is ")?;
    Some(Message { event_type: "dns_answer", query, answer: Some(answer.trim_end()), ..found })
}

/// `[1234:0] info: 10.0.0.5 www.example.com. A IN`, and with `log-replies` `.. NOERROR 0.000000 1 60` behind it.
fn unbound<'a>(text: &'a str, program: &str) -> Option<Message<'a>> {
    let at = text.find("] info: ").filter(|at| *at <= 64)?;
    let begins = text.starts_with('[') && (program == "unbound" || text.get(..at)?.contains("unbound["));

    let mut words = text.get(at + "] info: ".len()..)?.split_ascii_whitespace();
    let mut client = words.next()?;
    if matches!(client, "reply:" | "query:") {
        client = words.next()?;
    }
    address(client)?;
    let (query, record_type, class) = (words.next()?, words.next(), words.next()?);
    let response_code = words.next();
    let event_type = if response_code.is_some() { "dns_answer" } else { "dns_query" };
    let service = "unbound";
    let client = Some(client);
    (begins && class == "IN").then_some(Message {
        service,
        event_type,
        client,
        query,
        record_type,
        response_code,
        ..Message::default()
    })
}

/// `6/15/2023 10:11:12 AM 0E6C PACKET  000001D1B2C3D4E0 UDP Rcv 10.0.0.5  0002   Q [0001   D   NOERROR] A
/// (3)www(7)example(3)com(0)`.
fn windows<'a>(text: &'a str, assume: Assume<'_>, labels: &mut String) -> Option<Message<'a>> {
    let (stamp, rest) = text.split_once(" PACKET ")?;
    let time = us_time(stamp, assume).filter(|_| stamp.len() <= 40)?;
    let (head, tail) = rest.split_once('[')?;
    let words: Vec<&str> = head.split_ascii_whitespace().collect();
    let (_, protocol, direction, client) = (words.first()?, words.get(1)?, words.get(2)?, words.get(3)?);
    if !matches!(*protocol, "UDP" | "TCP") || !matches!(*direction, "Rcv" | "Snd") || address(client).is_none() {
        return None;
    }
    let (flags, question) = tail.split_once(']')?;
    let mut question = question.split_ascii_whitespace();
    let (record_type, name) = (question.next(), question.next()?);
    // `(3)www(7)example(3)com(0)`: each label behind its length.
    for label in name.split('(').filter_map(|part| part.split_once(')')).map(|(_, label)| label) {
        if !label.is_empty() {
            labels.push_str(label);
            labels.push('.');
        }
    }
    let response_code = flags.split_ascii_whitespace().last();
    let is_answer = words.contains(&"R");
    Some(Message {
        service: "dns-server-debug",
        event_type: if is_answer { "dns_answer" } else { "dns_query" },
        client: Some(client),
        query: "",
        record_type,
        answer: None,
        response_code: response_code.filter(|_| is_answer),
        time: Some(time),
    })
}

/// `6/15/2023 10:11:12 AM`, what follows it ignored.
fn us_time(text: &str, assume: Assume<'_>) -> Option<(Time, TimeBasis)> {
    let mut words = text.split_ascii_whitespace();
    let mut date = words.next()?.splitn(3, '/');
    let (month, day, year) = (date.next()?, date.next()?, date.next()?);
    let mut clock = words.next()?.splitn(3, ':');
    let (hour, minute, second) = (clock.next()?.parse::<u8>().ok()?, clock.next()?, clock.next()?);
    let hour = match words.next() {
        Some("PM") => hour % 12 + 12,
        Some("AM") => hour % 12,
        _ => hour,
    };
    let (local, _) = parse_local(format!("{year}-{month:0>2}-{day:0>2} {hour:02}:{minute}:{second}").as_bytes())?;
    Some((assume.zoned_micros(local)?, TimeBasis::Assumed))
}
