//! Requests in layouts other than the access log's: HAProxy, AWS load balancers, Gin, CouchDB, Zoraxy, Squid, and the
//! W3C extended format (IIS and proxies).
//!
//! The columns of a W3C log stand in its `#Fields:` line, which is another record. The layouts that IIS writes unless
//! told otherwise are known by the kinds of their values; for others the source's `columns` say them.

use cf_types::{Time, TimeBasis};

use super::{Context, Found, address, own, put, put_message};
use crate::decode::{
    names::KNOWN,
    sink::{Broken, Sink},
    time::{Assume, parse_iso, parse_local},
    web::{is_method, put_agent, put_answer, put_client, put_request, put_target, quoted},
};

/// Columns read of one line, at most.
const COLUMNS_MAX: usize = 128;

/// Decodes a request; `None` if the text is none.
pub(super) fn decode<'a>(
    text: &'a str,
    context: &Context<'_>,
    sink: &mut Sink<'_>,
) -> Result<Option<Found<'a>>, Broken> {
    if let Some(request) = haproxy(text)
        .or_else(|| load_balancer(text, context.assume))
        .or_else(|| gin(text, context.assume))
        .or_else(|| couchdb(text, context.assume))
        .or_else(|| zoraxy(text, context.assume))
    {
        put_message(sink, text)?;
        return request.put(sink).map(Some);
    }
    if let Some(found) = squid(text, sink)? {
        return Ok(Some(found));
    }
    w3c(text, context, sink)
}

/// One request, as far as the log tells.
#[derive(Clone, Copy, Debug, Default)]
struct Request<'a> {
    service: &'a str,
    time: Option<(Time, TimeBasis)>,
    client: &'a str,
    /// `METHOD TARGET VERSION`, or the two that follow.
    line: Option<&'a str>,
    method: &'a str,
    target: &'a str,
    status: &'a str,
    bytes: &'a str,
    host: Option<&'a str>,
    user: Option<&'a str>,
    agent: Option<&'a str>,
    upstream: Option<&'a str>,
}

impl<'a> Request<'a> {
    fn put(&self, sink: &mut Sink<'_>) -> Result<Found<'a>, Broken> {
        let known = &*KNOWN;
        put_client(self.client, sink)?;
        match self.line {
            Some(line) => put_request(line, sink)?,
            None => {
                sink.text(known.event_type, "http_request")?;
                sink.text(known.cs_method, self.method)?;
                put_target(self.target, sink)?;
            }
        }
        put_answer(self.status, self.bytes, sink)?;
        put(sink, known.cs_username, self.user)?;
        put(sink, known.cs_host, self.host)?;
        put(sink, known.upstream, self.upstream)?;
        if let Some(agent) = self.agent {
            put_agent(agent, sink)?;
        }
        let category = Some("webserver");
        Ok(Found { category, service: Some(self.service), time: self.time, ..Found::default() })
    }
}

/// `10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {..}
/// "GET / HTTP/1.1"`: HAProxy's `option httplog`. The time is that of syslog's header, whose zone is known.
fn haproxy(text: &str) -> Option<Request<'_>> {
    let (client, rest) = text.split_once(" [")?;
    let client = address(client).filter(|bare| bare.len() < client.len())?;
    let (stamp, rest) = rest.split_once("] ")?;
    let mut words = rest.splitn(6, ' ');
    let (_frontend, server, timers) = (words.next()?, words.next()?, words.next()?);
    let (status, bytes, rest) = (words.next()?, words.next()?, words.next()?);
    let looks = stamp.matches('/').count() == 2 && server.contains('/') && timers.matches('/').count() == 4;
    let line = rest.split_once(" \"").and_then(|(_, line)| line.strip_suffix('"'))?;
    // `{host|agent}`, when the administrator captures headers.
    let host = rest.split_once('{').and_then(|(_, captured)| captured.split(['|', '}']).next());
    (looks && is_status(status)).then_some(Request {
        service: "haproxy",
        client,
        line: Some(line),
        status,
        bytes,
        host: host.filter(|host| !host.is_empty()),
        upstream: Some(server),
        ..Request::default()
    })
}

/// `https TIME app/NAME/ID CLIENT:PORT TARGET:PORT T T T STATUS STATUS IN OUT "REQUEST" "AGENT" ..`: AWS application
/// load balancers; classic ones lack the kind.
fn load_balancer<'a>(text: &'a str, assume: Assume<'_>) -> Option<Request<'a>> {
    let (kind, after) = text.split_once(' ')?;
    let rest = if matches!(kind, "http" | "https" | "h2" | "ws" | "wss" | "grpcs") { after } else { text };
    let mut words = rest.splitn(12, ' ');
    let mut word = || words.next();
    let (stamp, _name, client, target) = (word()?, word()?, word()?, word()?);
    let time = parse_iso(stamp, assume).filter(|_| stamp.ends_with('Z'))?;
    let client = address(client)?;
    let _times = (word()?, word()?, word()?);
    let (status, _target_status, _received, sent) = (word()?, word()?, word()?, word()?);
    let (line, rest) = quoted(word()?.strip_prefix('"')?)?;
    let agent = rest.strip_prefix(" \"").and_then(quoted).map(|(agent, _)| agent);
    is_status(status).then_some(Request {
        service: "elb",
        time: Some(time),
        client,
        line: Some(line),
        status,
        bytes: sent,
        agent,
        upstream: Some(target),
        ..Request::default()
    })
}

/// `[GIN] 2022/02/07 - 10:49:33 | 401 |     505.317µs |       10.1.2.3 | POST     "/client"`
fn gin<'a>(text: &'a str, assume: Assume<'_>) -> Option<Request<'a>> {
    let mut columns = text.strip_prefix("[GIN] ")?.splitn(5, '|').map(str::trim);
    let (stamp, status, _took, client) = (columns.next()?, columns.next()?, columns.next()?, columns.next()?);
    let (method, target) = columns.next()?.split_once(' ')?;
    let client = address(client).filter(|_| is_status(status))?;
    Some(Request {
        service: "gin",
        time: parse_iso(&stamp.replacen(" - ", " ", 1), assume),
        client,
        method,
        target: target.trim().trim_matches('"'),
        status,
        bytes: "-",
        ..Request::default()
    })
}

/// `[notice] TIME NODE <PID> ID HOST CLIENT USER METHOD TARGET STATUS ok MS`
fn couchdb<'a>(text: &'a str, assume: Assume<'_>) -> Option<Request<'a>> {
    let (level, rest) = text.strip_prefix('[')?.split_once("] ")?;
    let mut words = rest.split(' ');
    let mut word = || words.next();
    let (stamp, node, pid, _id, host) = (word()?, word()?, word()?, word()?, word()?);
    let (client, user, method, target, status) = (word()?, word()?, word()?, word()?, word()?);
    let looks =
        level.len() <= 10 && node.contains('@') && pid.starts_with('<') && is_method(method) && is_status(status);
    Some(Request {
        service: "couchdb",
        time: parse_iso(stamp, assume),
        client: address(client).filter(|_| looks)?,
        method,
        target,
        status,
        bytes: "-",
        host: Some(host),
        user: Some(user).filter(|user| *user != "undefined"),
        ..Request::default()
    })
}

/// `.. [router:X] [origin:HOST] [client: IP] [useragent: AGENT] METHOD TARGET STATUS`
fn zoraxy<'a>(text: &'a str, assume: Assume<'_>) -> Option<Request<'a>> {
    let (head, rest) = text.split_once("[router:")?;
    let is_time = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'/' | b':' | b'-' | b'.' | b' ' | b'[' | b']');
    if !head.bytes().all(is_time) {
        return None;
    }
    let (origin, rest) = rest.split_once("] [origin:")?.1.split_once("] [client: ")?;
    let (client, rest) = rest.split_once("] [useragent: ")?;
    let (agent, rest) = rest.rsplit_once("] ")?;
    let (method, rest) = rest.split_once(' ')?;
    let (target, status) = rest.rsplit_once(' ')?;
    Some(Request {
        service: "zoraxy",
        time: text.get(..19).and_then(|stamp| parse_iso(stamp, assume)),
        client: address(client).filter(|_| is_status(status))?,
        method,
        target,
        status,
        bytes: "-",
        host: Some(origin),
        agent: Some(agent),
        ..Request::default()
    })
}

/// `1286536309.450 192 192.168.0.68 TCP_MISS/200 507 POST http://x/y?z bob DIRECT/1.2.3.4 text/xml`: Squid's native log.
fn squid<'a>(text: &'a str, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    let known = &*KNOWN;
    let columns: Vec<&str> = text.split_ascii_whitespace().take(11).collect();
    let [stamp, took, client, result, bytes, method, url, user, peer, kind] = columns.as_slice() else {
        return Ok(None);
    };
    let Some((verdict, status)) = result.split_once('/').filter(|(_, status)| is_status(status)) else {
        return Ok(None);
    };
    let is_squid = is_digits(took) && is_digits(bytes) && is_method(method) && peer.contains('/');
    let millis =
        stamp.split_once('.').filter(|(seconds, millis)| is_digits(seconds) && is_digits(millis) && millis.len() == 3);
    let (Some(millis), true, Some(client)) = (millis, is_squid, address(client)) else {
        return Ok(None);
    };
    put_message(sink, text)?;
    put_client(client, sink)?;
    put(sink, known.c_user, Some(user))?;
    put(sink, known.cs_username, Some(user))?;
    sink.text(known.cs_method, method)?;
    put_url(url, sink)?;
    put_answer(status, bytes, sink)?;
    put(sink, known.cs_content_type, Some(kind))?;
    sink.text(known.time_taken, took)?;
    sink.text(known.event_type, "proxy_request")?;
    super::firewall::put_action(sink, Some(if verdict.contains("DENIED") { "denied" } else { "allowed" }))?;
    if let Some(server) = peer.rsplit_once('/').and_then(|(_, server)| address(server)) {
        sink.text(known.dst_ip, server)?;
    }
    let time = format!("{}{}", millis.0, millis.1).parse().ok().map(Time::from_millis);
    Ok(Some(Found {
        category: Some("proxy"),
        service: Some("squid"),
        time: time.map(|time| (time, TimeBasis::Declared)),
        ..Found::default()
    }))
}

/// Adds an address with scheme and its parts in Sigma's words for proxies; `CONNECT` has `host:port` alone.
pub(super) fn put_url(url: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    put_target(url, sink)?;
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((name, port)) if is_digits(port) => name,
        _ => host,
    };
    // PAN-OS leaves out the scheme: `evil.example/a.exe`.
    if url.len() > rest.len() || authority.contains([':', '.']) {
        put(sink, known.cs_host, Some(host))?;
    }
    let (stem, query) = rest.split_once('?').map_or((rest, None), |(stem, query)| (stem, Some(query)));
    put(sink, known.c_uri_query, query)?;
    let path = stem.get(authority.len()..).unwrap_or("");
    let extension = path.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map(|(_, extension)| extension);
    put(sink, known.c_uri_extension, extension.filter(|extension| extension.len() <= 16))
}

/// The layouts of IIS: 10 and 8, 7.5 and 7, 6.
const LAYOUTS: &[&[&str]] = &[
    &[
        "date",
        "time",
        "s-ip",
        "cs-method",
        "cs-uri-stem",
        "cs-uri-query",
        "s-port",
        "cs-username",
        "c-ip",
        "cs(User-Agent)",
        "cs(Referer)",
        "sc-status",
        "sc-substatus",
        "sc-win32-status",
        "time-taken",
    ],
    &[
        "date",
        "time",
        "s-ip",
        "cs-method",
        "cs-uri-stem",
        "cs-uri-query",
        "s-port",
        "cs-username",
        "c-ip",
        "cs(User-Agent)",
        "sc-status",
        "sc-substatus",
        "sc-win32-status",
        "time-taken",
    ],
    &[
        "date",
        "time",
        "s-sitename",
        "s-ip",
        "cs-method",
        "cs-uri-stem",
        "cs-uri-query",
        "s-port",
        "cs-username",
        "c-ip",
        "cs(User-Agent)",
        "sc-status",
        "sc-substatus",
        "sc-win32-status",
    ],
];

/// A line of a W3C extended log: by the source's columns, or by a layout that its values fit.
fn w3c<'a>(text: &'a str, context: &Context<'_>, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    let configured = &context.source.columns;
    if text.starts_with('#') || text.contains('\t') || (configured.is_empty() && !begins_with_date(text)) {
        return Ok(None);
    }
    let values = words(text);
    let fits = |layout: &&&[&str]| {
        layout.len() == values.len() && layout.iter().zip(&values).all(|pair| is_fit(pair.0, pair.1))
    };
    let layout: Vec<&str> = if configured.is_empty() {
        match LAYOUTS.iter().find(fits) {
            Some(layout) => layout.to_vec(),
            None => return Ok(None),
        }
    } else if configured.len() == values.len() {
        configured.iter().map(String::as_str).collect()
    } else {
        return Ok(None);
    };
    put_message(sink, text)?;
    let is_proxy = layout.iter().any(|column| matches!(*column, "cs-uri-scheme" | "s-action" | "c-uri"));
    for (column, value) in layout.iter().zip(&values) {
        put_column(column, value, sink)?;
    }
    put_whole_target(&layout, &values, sink)?;
    let value = |wanted| layout.iter().zip(&values).find(|(column, _)| **column == wanted).map(|(_, value)| *value);
    // W3C: times are UTC.
    let time = value("date").zip(value("time")).and_then(|(date, time)| {
        let (local, _) = parse_local(format!("{date} {time}").as_bytes())?;
        Some((Time::from_micros(local), TimeBasis::Declared))
    });
    let category = if is_proxy { Some("proxy") } else { Some("webserver") };
    let service = (configured.is_empty() && !is_proxy).then_some("iis");
    Ok(Some(Found { category, service, time, ..Found::default() }))
}

fn begins_with_date(text: &str) -> bool {
    let head = text.as_bytes().get(..11).unwrap_or_default();
    matches!(head, [_, _, _, _, b'-', _, _, b'-', _, _, b' ']) && head.first().is_some_and(u8::is_ascii_digit)
}

/// Whether a value may stand in this column.
fn is_fit(column: &str, value: &str) -> bool {
    match column {
        "s-ip" | "c-ip" => value.parse::<std::net::IpAddr>().is_ok(),
        "cs-method" => is_method(value),
        "cs-uri-stem" => value.starts_with('/') || value == "*",
        "sc-status" => is_status(value),
        "s-port" | "sc-substatus" | "sc-win32-status" | "time-taken" => is_digits(value),
        "date" => value.len() == 10,
        "time" => value.len() >= 8 && value.as_bytes().get(2) == Some(&b':'),
        _ => true,
    }
}

/// Adds a W3C column under Sigma's names; `-` is nothing, and in user agents `+` stands for a blank.
pub(super) fn put_column(column: &str, value: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    if value == "-" || value.is_empty() {
        return Ok(());
    }
    match column {
        "date" | "time" => Ok(()),
        "c-ip" => put_client(value, sink),
        "cs(User-Agent)" => {
            put_agent(value, sink)?;
            if value.contains('+') && !value.contains(' ') { put_agent(&value.replace('+', " "), sink) } else { Ok(()) }
        }
        "cs(Referer)" => sink.text(known.cs_referer, value),
        "cs(Cookie)" => sink.text(known.cs_cookie, value),
        "cs(Host)" => sink.text(known.cs_host, value),
        "cs-uri-stem" => [known.cs_uri_stem, known.path].into_iter().try_for_each(|name| sink.text(name, value)),
        "sc-status" => [known.sc_status, known.status].into_iter().try_for_each(|name| sink.text(name, value)),
        "cs-uri" | "c-uri" => put_url(value, sink),
        column => own(sink, column, value),
    }
}

/// Stem and query together, for rules that ask for the whole.
fn put_whole_target(layout: &[&str], values: &[&str], sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    let value = |wanted| layout.iter().zip(values).find(|(column, _)| **column == wanted).map(|(_, value)| *value);
    sink.text(known.event_type, "http_request")?;
    if value("cs-uri").is_some() || value("c-uri").is_some() {
        return Ok(());
    }
    let Some(stem) = value("cs-uri-stem") else { return Ok(()) };
    let whole = match value("cs-uri-query").filter(|query| *query != "-") {
        Some(query) => format!("{stem}?{query}"),
        None => stem.to_owned(),
    };
    [known.cs_uri, known.c_uri, known.cs_uri_query].into_iter().try_for_each(|name| sink.text(name, &whole))
}

/// Words parted by blanks; one may be quoted.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() && words.len() < COLUMNS_MAX {
        let (word, after) = match rest.strip_prefix('"').and_then(quoted) {
            Some((inner, after)) => (inner, after),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word);
        rest = after.trim_start();
    }
    words
}

fn is_status(text: &str) -> bool {
    text.len() == 3 && is_digits(text)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
