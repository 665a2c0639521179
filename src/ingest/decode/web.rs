//! Access logs in the common and the combined format (nginx, Apache), and the error logs of both.

use cf_types::{Time, TimeBasis};

use super::{
    names::KNOWN,
    sink::{Broken, Sink},
    sshd::put_address,
    text::Found,
    time::{Assume, parse_access_log, parse_ctime, parse_local},
};

/// Whether this program's messages may be access log lines.
pub(crate) fn is_server(program: &str) -> bool {
    let program = program.as_bytes();
    [b"nginx".as_slice(), b"apache", b"httpd", b"lighttpd", b"haproxy", b"caddy", b"traefik", b"web"]
        .iter()
        .any(|server| program.get(..server.len()).is_some_and(|head| head.eq_ignore_ascii_case(server)))
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    host: Option<&'a str>,
    client: &'a str,
    user: &'a str,
    time: Time,
    request: &'a str,
    status: &'a str,
    bytes: &'a str,
    referer: Option<&'a str>,
    agent: Option<&'a str>,
}

/// `[VHOST ]CLIENT IDENT USER [TIME] "REQUEST" STATUS BYTES["REFERER" "AGENT"...]`.
pub(crate) fn parse_access(line: &str) -> Option<Access<'_>> {
    // The time's bracket is found by what it holds: user names may hold brackets and blanks.
    let (at, time) = line.match_indices(" [").take(4).find_map(|(at, _)| {
        let inner = line.get(at + 2..)?.split(']').next()?;
        Some((at, parse_access_log(inner)?))
    })?;
    let (first, rest) = line.get(..at)?.split_once(' ')?;
    let is_client = |word: &str| word.parse::<std::net::IpAddr>().is_ok();
    let (host, client, rest) = match rest.split_once(' ') {
        Some((second, rest)) if !is_client(first) && is_client(second) => (Some(first), second, rest),
        _ => (None, first, rest),
    };
    let (_ident, user) = rest.split_once(' ')?;
    let after = line.get(at + 2..)?.split_once("] \"")?.1;
    let (request, after) = quoted(after)?;
    let mut words = after.trim_start().splitn(3, ' ');
    let (status, bytes) = (words.next()?, words.next().unwrap_or("-"));
    if status.len() != 3 || !status.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut rest = words.next().unwrap_or("");
    let mut next_quoted = || {
        let (inner, after) = quoted(rest.trim_start().strip_prefix('"')?)?;
        rest = after;
        Some(inner)
    };
    let (referer, agent) = (next_quoted(), next_quoted());
    Some(Access { host, client, user, time, request, status, bytes, referer, agent })
}

/// The text up to the closing quote, and what follows it; `\"` does not close.
pub(crate) fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

impl<'a> Access<'a> {
    /// Adds its fields. There is no `message`: every part of the line is a field.
    pub(crate) fn put(&self, sink: &mut Sink<'_>) -> Result<Found<'a>, Broken> {
        let known = &*KNOWN;
        put_client(self.client, sink)?;
        sink.text(known.cs_username, self.user)?;
        put_request(self.request, sink)?;
        put_answer(self.status, self.bytes, sink)?;
        if let Some(referer) = self.referer {
            sink.text(known.cs_referer, referer)?;
        }
        if let Some(agent) = self.agent {
            put_agent(agent, sink)?;
        }
        if let Some(host) = self.host {
            sink.text(known.cs_host, host)?;
        }
        Ok(Found { category: Some("webserver"), time: Some((self.time, TimeBasis::Declared)), ..Found::default() })
    }
}

pub(crate) fn put_client(client: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    [KNOWN.c_ip, KNOWN.source_ip].into_iter().try_for_each(|name| sink.text(name, client))
}

/// Adds `METHOD TARGET[ VERSION]`, and its parts if it is a request at all.
pub(crate) fn put_request(request: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    sink.text(known.request, request)?;
    sink.text(known.event_type, "http_request")?;
    let (method, rest) = request.split_once(' ').unwrap_or((request, ""));
    if rest.is_empty() || !is_method(method) {
        return Ok(());
    }
    let (target, version) = match rest.rsplit_once(' ') {
        Some((target, version)) if version.starts_with("HTTP/") => (target, Some(version)),
        _ => (rest, None),
    };
    sink.text(known.cs_method, method)?;
    put_target(target, sink)?;
    version.map_or(Ok(()), |version| sink.text(known.cs_version, version))
}

/// Adds what was asked for, a path or an address with scheme.
///
/// `cs-uri-query` has two values: the query, and the whole target. W3C means the former; most public rules for web
/// servers look for paths in it, and mean the latter.
pub(crate) fn put_target(target: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    let (stem, query) = target.split_once('?').map_or((target, None), |(stem, query)| (stem, Some(query)));
    let stem = match stem.split_once("://") {
        // `http://host/path` to a proxy: the path.
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            rest.get(rest.find('/').unwrap_or(rest.len())..).unwrap_or("")
        }
        _ => stem,
    };
    for name in [known.cs_uri, known.c_uri] {
        sink.text(name, target)?;
    }
    for name in [known.cs_uri_stem, known.path] {
        sink.text(name, stem)?;
    }
    query.into_iter().chain([target]).try_for_each(|value| sink.text(known.cs_uri_query, value))
}

pub(crate) fn put_answer(status: &str, bytes: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    [KNOWN.sc_status, KNOWN.status].into_iter().try_for_each(|name| sink.text(name, status))?;
    sink.text(KNOWN.sc_bytes, bytes)
}

pub(crate) fn put_agent(agent: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    [KNOWN.cs_user_agent, KNOWN.c_useragent].into_iter().try_for_each(|name| sink.text(name, agent))
}

pub(crate) fn is_method(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 32
        && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-' || byte == b'_')
}

/// One line of an error log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Error<'a> {
    service: &'static str,
    time: (Time, TimeBasis),
    level: &'a str,
    client: Option<&'a str>,
    message: &'a str,
}

/// Apache's `[Sun Dec 04 04:47:44 2005] [error] [client 1.2.3.4:5] text`, nginx's
/// `2022/04/02 13:39:51 [error] 8#8: *1 text, client: 1.2.3.4, server: ..`.
pub(crate) fn parse_error<'a>(line: &'a str, assume: Assume<'_>) -> Option<Error<'a>> {
    if let Some((time, rest)) = line.strip_prefix('[').and_then(|rest| rest.split_once("] [")) {
        let time = (parse_ctime(time, assume)?, TimeBasis::Assumed);
        let (level, message) = rest.split_once("] ")?;
        let level = level.rsplit(':').next().unwrap_or(level);
        let client = apache_client(message).map(without_port);
        return Some(Error { service: "apache", time, level, client, message });
    }
    let head = line.get(..19).filter(|head| head.as_bytes().get(4) == Some(&b'/'))?;
    let (local, rest) = parse_local(head.as_bytes())?;
    let level = line.get(19..)?.strip_prefix(" [")?.split(']').next()?;
    let message = line.get(19..)?.split_once("] ")?.1;
    message.split_once('#').filter(|(pid, _)| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))?;
    let client = nginx_client(message);
    let time = assume.zoned_micros(local).filter(|_| rest.is_empty())?;
    Some(Error { service: "nginx", time: (time, TimeBasis::Assumed), level, client, message })
}

/// What stands in `[client ..]`, which follows `[pid ..]` and perhaps `(13)Permission denied: `. Behind those the text may
/// be the client's.
fn apache_client(message: &str) -> Option<&str> {
    let rest = match message.strip_prefix("[pid ").and_then(|rest| rest.split_once("] ")) {
        Some((_, rest)) => rest,
        None => message,
    };
    let rest = match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((number, error)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
            error.split_once(": ").map_or(rest, |(_, rest)| rest)
        }
        _ => rest,
    };
    rest.strip_prefix("[client ")?.split(']').next()
}

/// What follows `, client: `: the first that stands in no quotes, for paths and requests are the client's to choose.
fn nginx_client(message: &str) -> Option<&str> {
    let mut quotes = 0;
    let mut from = 0;
    message.match_indices(", client: ").find_map(|(at, key)| {
        quotes += message.get(from..at)?.matches('"').count();
        from = at;
        let client = message.get(at + key.len()..)?.split([',', ' ']).next()?;
        (quotes % 2 == 0).then_some(client)
    })
}

impl<'a> Error<'a> {
    /// Adds its fields.
    pub(crate) fn put(&self, sink: &mut Sink<'_>) -> Result<Found<'a>, Broken> {
        let known = &*KNOWN;
        sink.text(known.message, self.message)?;
        sink.text(known.level, self.level)?;
        if let Some(client) = self.client {
            put_address(client, sink)?;
        }
        match self.service {
            "nginx" => put_nginx(self.message, sink)?,
            _ => put_apache(self.message, sink)?,
        }
        Ok(Found { service: Some(self.service), time: Some(self.time), ..Found::default() })
    }
}

/// What nginx appends to a message: `.., client: 1.2.3.4, server: x, request: "GET / HTTP/1.1", host: "y"`.
fn put_nginx(message: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    // From the right: what stands before is of the client's choice.
    let after = |key: &str| message.rsplit_once(key).map(|(_, rest)| rest);
    let in_quotes = |key: &str| after(key).and_then(quoted).map(|(inner, _)| inner);
    if let Some(login) = in_quotes(", login: \"") {
        sink.text(known.user, login)?;
    }
    let denied = [("user \"", "\": password mismatch"), ("user \"", "\" was not found in")];
    let user = denied.iter().find_map(|(before, after)| message.split_once(after)?.0.rsplit_once(before));
    if let Some((_, user)) = user {
        sink.text(known.user, user)?;
    }
    if user.is_some() || message.contains("client login failed") {
        sink.text(known.event_type, "authentication_failed")?;
        return Ok(());
    }
    if let Some(request) = in_quotes(", request: \"") {
        put_request(request, sink)?;
    }
    if let Some(host) = in_quotes(", host: \"") {
        sink.text(known.cs_host, host)?;
    }
    in_quotes(", upstream: \"").map_or(Ok(()), |upstream| sink.text(known.upstream, upstream))
}

/// Logins that Apache refused, and what ModSecurity tells.
fn put_apache(message: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    // `AH01617: user bob: authentication failure for "/x": Password Mismatch`, `AH01618: user bob not found: /x`
    let user = message.split_once(": user ").and_then(|(_, rest)| {
        rest.split_once(": authentication failure for \"").or_else(|| rest.split_once(" not found: "))
    });
    if let Some((user, _)) = user {
        sink.text(known.user, user)?;
        return sink.text(known.event_type, "authentication_failed");
    }
    if !message.contains("ModSecurity: ") {
        return Ok(());
    }
    sink.text(known.event_type, "waf_alert")?;
    for (key, name) in [
        ("[id \"", known.rule_id),
        ("[msg \"", known.rule_name),
        ("[uri \"", known.path),
        ("[hostname \"", known.cs_host),
    ] {
        if let Some((inner, _)) = message.split_once(key).and_then(|(_, rest)| quoted(rest)) {
            sink.text(name, inner)?;
        }
    }
    Ok(())
}

/// `1.2.3.4` of `1.2.3.4:55309`, `::1` of `::1:37752` (as Apache writes it).
fn without_port(text: &str) -> &str {
    if text.parse::<std::net::IpAddr>().is_ok() && !text.contains(':') {
        return text;
    }
    match text.rsplit_once(':') {
        Some((address, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && address.parse::<std::net::IpAddr>().is_ok() =>
        {
            address
        }
        _ => text,
    }
}
