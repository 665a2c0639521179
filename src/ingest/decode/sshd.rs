//! OpenSSH's server, by the texts of its `auth.c`, `auth2.c`, `packet.c` and `monitor.c` (5.x to 10.x).
//!
//! User names are the client's to choose and may hold blanks, ` from ` and addresses: whatever follows a name is looked
//! for from the right.

use std::net::IpAddr;

use super::{
    names::KNOWN,
    pam,
    sink::{Broken, Sink},
};

/// What a message says.
#[derive(Clone, Copy, Debug, Default)]
struct Found<'a> {
    event_type: &'static str,
    user: Option<&'a str>,
    from: Option<From<'a>>,
    method: Option<&'a str>,
    reason: Option<&'a str>,
}

#[derive(Clone, Copy, Debug)]
struct From<'a> {
    address: &'a str,
    port: Option<&'a str>,
}

/// Decodes a message; one that is not known adds nothing.
pub(crate) fn decode(text: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    if let Some((repeats, inner)) = repeated(text) {
        sink.text(known.repeats, repeats)?;
        return decode_once(inner, sink);
    }
    decode_once(text, sink)
}

fn decode_once(text: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    if pam::decode(text, sink)? {
        return Ok(());
    }
    let Some(found) = parse(text) else {
        return Ok(());
    };
    sink.text(known.event_type, found.event_type)?;
    for (name, value) in [(known.user, found.user), (known.auth_method, found.method), (known.reason, found.reason)] {
        if let Some(value) = value {
            sink.text(name, value)?;
        }
    }
    if let Some(from) = found.from {
        put_address(from.address, sink)?;
        if let Some(port) = from.port {
            sink.text(known.source_port, port)?;
        }
    }
    Ok(())
}

/// An address as `source_ip`, a name (`UseDNS`) as `source_host`.
pub(crate) fn put_address(text: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let name = if bare.parse::<IpAddr>().is_ok() { known.source_ip } else { known.source_host };
    sink.text(name, bare)
}

/// `message repeated 5 times: [ Failed password ...]`, as rsyslog folds repeats.
fn repeated(text: &str) -> Option<(&str, &str)> {
    let (times, inner) = text.strip_prefix("message repeated ")?.split_once(" times: [ ")?;
    Some((times, inner.strip_suffix(']').unwrap_or(inner)))
}

fn parse(text: &str) -> Option<Found<'_>> {
    let text = text.trim_end();
    let text = text.strip_suffix("[preauth]").map_or(text, str::trim_end);
    let text = ["error: ", "fatal: "].iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    authentication(text).or_else(|| connection(text)).or_else(|| refusal(text)).or_else(|| session(text))
}

/// `Failed password for invalid user X from A port P ssh2` and its kin.
fn authentication(text: &str) -> Option<Found<'_>> {
    let (event_type, rest) = [
        ("authentication_failed", "Failed "),
        ("authentication_succeeded", "Accepted "),
        ("authentication_postponed", "Postponed "),
        ("authentication_partial", "Partial "),
    ]
    .into_iter()
    .find_map(|(event_type, verb)| Some((event_type, text.strip_prefix(verb)?)))?;
    let (method, rest) = rest.split_once(" for ")?;
    let (user, from) = user_from(rest)?;
    Some(Found { event_type, user, from: Some(from), method: Some(method), reason: None })
}

fn connection(text: &str) -> Option<Found<'_>> {
    let by_user = |event_type, rest| {
        let (user, from, reason) = user_at(rest)?;
        Some(Found { event_type, user, from: Some(from), method: None, reason })
    };
    if let Some(rest) =
        ["Connection closed by ", "Connection reset by "].iter().find_map(|verb| text.strip_prefix(verb))
    {
        return by_user("connection_closed", rest);
    }
    if let Some(rest) = text.strip_prefix("Disconnected from ") {
        return by_user("disconnected", rest);
    }
    if let Some(rest) = text.strip_prefix("Received disconnect from ") {
        return by_user("disconnected", rest);
    }
    if let Some(rest) = text.strip_prefix("Disconnecting ") {
        return by_user("disconnected", rest);
    }
    if let Some(rest) = text.strip_prefix("Disconnecting: ") {
        let user = rest.strip_prefix("Too many authentication failures for ").map(|user| user.trim());
        return Some(Found { event_type: "disconnected", user, reason: Some(rest), ..Found::default() });
    }
    if let Some(rest) = text.strip_prefix("Connection from ") {
        return by_user("connection_opened", rest);
    }
    if let Some(rest) = text.strip_prefix("Timeout before authentication for connection from ") {
        return by_user("connection_timeout", rest);
    }
    let rest = text.strip_prefix("Timeout before authentication for ")?;
    by_user("connection_timeout", rest)
}

fn refusal(text: &str) -> Option<Found<'_>> {
    let from = |event_type, rest| {
        let (user, from) = user_from(rest)?;
        Some(Found { event_type, user, from: Some(from), ..Found::default() })
    };
    if let Some(rest) = text.strip_prefix("Invalid user ").or_else(|| text.strip_prefix("Illegal user ")) {
        let (user, from) = user_from_or_bare(rest);
        return Some(Found { event_type: "invalid_user", user, from, ..Found::default() });
    }
    if let Some(rest) = text.strip_prefix("maximum authentication attempts exceeded for ") {
        return from("authentication_attempts_exceeded", rest);
    }
    if let Some((_, rest)) = text.strip_prefix("PAM: ").and_then(|rest| rest.split_once(" for ")) {
        return from("pam_authentication_failed", rest);
    }
    if let Some(rest) = text.strip_prefix("input_userauth_request: invalid user ") {
        return Some(Found { event_type: "invalid_user_request", user: Some(rest.trim()), ..Found::default() });
    }
    if let Some(rest) = text.strip_prefix("User ")
        && let Some((head, reason)) = rest.rsplit_once(" not allowed because ")
    {
        let (user, from) = user_from_or_bare(head);
        return Some(Found { event_type: "user_not_allowed", user, from, reason: Some(reason), method: None });
    }
    if let Some(rest) = text.strip_prefix("reverse mapping checking getaddrinfo for ") {
        let (_, address) = rest.split_once('[')?;
        let from = Some(From { address: address.split(']').next()?, port: None });
        return Some(Found { event_type: "reverse_mapping_failed", from, ..Found::default() });
    }
    let protocol = |rest| {
        let (_, from, reason) = user_at(rest)?;
        Some(Found { event_type: "protocol_error", from: Some(from), reason, ..Found::default() })
    };
    if let Some(rest) = text.strip_prefix("Unable to negotiate with ") {
        return protocol(rest);
    }
    if let Some(rest) = text.strip_prefix("banner exchange: Connection from ") {
        return protocol(rest);
    }
    if text.starts_with("Bad protocol version identification ")
        || text.starts_with("Did not receive identification string from ")
    {
        return protocol(text.rsplit_once(" from ")?.1);
    }
    if let Some(found) = address_named(text) {
        return Some(found);
    }
    text.starts_with("kex_exchange_identification: ").then_some(Found {
        event_type: "protocol_error",
        reason: Some(text),
        ..Found::default()
    })
}

/// Messages with an address in a place of their own; no name of the client's choice stands before it, but where said.
fn address_named(text: &str) -> Option<Found<'_>> {
    let known = |event_type, address: &'_ str| address.parse::<IpAddr>().is_ok().then_some(event_type);
    // `drop connection #10 from [1.2.3.4]:55 on [10.0.0.1]:22 past MaxStartups`, `.. penalty: exceeded LoginGraceTime`
    if let Some((_, rest)) = text.strip_prefix("drop connection #").and_then(|rest| rest.split_once(" from [")) {
        let (address, rest) = rest.split_once(']')?;
        let port = rest.strip_prefix(':').and_then(|rest| rest.split(' ').next());
        let reason = rest.split_once("]:").and_then(|(_, rest)| rest.split_once(' ')).map(|(_, reason)| reason);
        let event_type = known("connection_refused", address)?;
        return Some(Found { event_type, from: Some(From { address, port }), reason, ..Found::default() });
    }
    // `srclimit_penalise: ipv4: new 1.2.3.4/32 deferred penalty of 10 seconds for penalty: connections without attempting authentication`
    if let Some(rest) = text.strip_prefix("srclimit_penalise: ") {
        let (address, _) = rest.split(' ').find_map(|word| word.split_once('/'))?;
        let reason = rest.split_once("penalty: ").map(|(_, reason)| reason);
        let event_type = known("source_penalised", address)?;
        return Some(Found { event_type, from: Some(From { address, port: None }), reason, ..Found::default() });
    }
    // `Address 1.2.3.4 maps to x.example, but this does not map back to the address`, and `Nasty PTR record "..." is set up
    // for 1.2.3.4, ignoring`: the names are those of whoever runs the reverse zone.
    let reversed = text.strip_prefix("Address ").filter(|rest| rest.contains(" maps to "));
    let nasty = text
        .strip_prefix("Nasty PTR record ")
        .and_then(|rest| rest.rsplit_once(" is set up for "))
        .map(|(_, rest)| rest);
    if let Some(rest) = reversed.or(nasty) {
        let address = rest.split([' ', ',']).next()?;
        let event_type = known("reverse_mapping_failed", address)?;
        return Some(Found { event_type, from: Some(From { address, port: None }), ..Found::default() });
    }
    // tcp wrappers: `refused connect from x.example (1.2.3.4)`
    if let Some(rest) = text.strip_prefix("refused connect from ") {
        let address = rest.rsplit_once('(').map_or(rest, |(_, address)| address).trim_end_matches(')');
        let event_type = known("connection_refused", address)?;
        return Some(Found { event_type, from: Some(From { address, port: None }), ..Found::default() });
    }
    for (prefix, event_type) in [
        ("Read error from remote host ", "connection_closed"),
        ("Read from remote host ", "connection_closed"),
        ("ssh_dispatch_run_fatal: Connection from ", "protocol_error"),
        ("Protocol major versions differ for ", "protocol_error"),
    ] {
        if let Some(rest) = text.strip_prefix(prefix) {
            let (user, from, reason) = user_at(rest)?;
            return Some(Found { event_type, user, from: Some(from), method: None, reason });
        }
    }
    None
}

/// `Starting session: shell on pts/0 for root from A port P id 0`.
fn session(text: &str) -> Option<Found<'_>> {
    let told = |event_type, user, reason| Some(Found { event_type, user, reason, ..Found::default() });
    // `Access denied for user bob by PAM account configuration`
    if let Some((user, reason)) =
        text.strip_prefix("Access denied for user ").and_then(|rest| rest.rsplit_once(" by PAM"))
    {
        return told("user_not_allowed", Some(user), Some(reason.trim_start()));
    }
    if text.starts_with("Server listening on ") {
        return told("server_started", None, None);
    }
    if text.starts_with("Received signal ") {
        return told("server_stopped", None, None);
    }
    if text.starts_with("Write failed: ") {
        return told("connection_closed", None, Some(text));
    }
    if text.starts_with("PAM service(sshd) ignoring max retries") {
        return told("pam_retries_ignored", None, Some(text));
    }
    if text.starts_with("beginning MaxStartups throttling") {
        return told("connections_throttled", None, None);
    }
    let rest = text.strip_prefix("Starting session: ")?;
    let (_, rest) = rest.split_once(" for ")?;
    let (user, from) = user_from(rest)?;
    Some(Found { event_type: "session_started", user, from: Some(from), ..Found::default() })
}

/// `[invalid user ]NAME from ADDRESS[ port PORT]...`: the rightmost ` from ` that an address follows.
fn user_from(text: &str) -> Option<(Option<&str>, From<'_>)> {
    let text_bare = strip_kind(text);
    // Also where the name is empty: `invalid user  from A` or ` from A`.
    let found = text_bare.rmatch_indices("from ").find_map(|(at, word)| {
        let before = text_bare.get(..at)?;
        let (from, _) = address_of(text_bare.get(at + word.len()..)?)?;
        (before.is_empty() || before.ends_with(' ')).then_some((before, from))
    })?;
    let (before, from) = found;
    let user = before.strip_suffix(' ').unwrap_or(before);
    Some((Some(user).filter(|user| !user.is_empty()), from))
}

fn user_from_or_bare(text: &str) -> (Option<&str>, Option<From<'_>>) {
    match user_from(text) {
        Some((user, from)) => (user, Some(from)),
        None => (Some(text.trim()).filter(|user| !user.is_empty()), None),
    }
}

/// `[authenticating user NAME |invalid user NAME |user NAME ]ADDRESS[ port PORT][: reason]`, for the messages in which
/// no ` from ` parts them: the address is the last word before ` port `, or the first of all.
fn user_at(text: &str) -> Option<(Option<&str>, From<'_>, Option<&str>)> {
    let named = strip_kind(text);
    if named.len() == text.len() {
        let (from, rest) = address_of(text)?;
        return Some((None, from, reason_of(rest)));
    }
    let found = named.rmatch_indices(" port ").find_map(|(at, _)| {
        let (before, address) = named.get(..at)?.rsplit_once(' ').or_else(|| Some(("", named.get(..at)?)))?;
        let start = named.get(at..).map(|_| at - address.len())?;
        let (from, rest) = address_of(named.get(start..)?)?;
        Some((before, from, rest))
    });
    let (user, from, rest) = match found {
        Some(found) => found,
        None => {
            let (before, address) = named.rsplit_once(' ')?;
            let (from, rest) = address_of(address)?;
            (before, from, rest)
        }
    };
    Some((Some(user).filter(|user| !user.is_empty()), from, reason_of(rest)))
}

fn strip_kind(text: &str) -> &str {
    let kinds = ["authenticating user ", "invalid user ", "illegal user ", "user "];
    kinds.iter().find_map(|kind| text.strip_prefix(kind)).unwrap_or(text)
}

/// `ADDRESS port PORT` at the beginning, and what follows it.
fn address_of(text: &str) -> Option<(From<'_>, &str)> {
    let (word, rest) =
        text.split_once(' ').map_or((text, ""), |(word, _)| (word, text.get(word.len()..).unwrap_or("")));
    // `Received disconnect from 1.2.3.4: 11: Bye Bye`
    let address = if word.parse::<IpAddr>().is_ok() { word } else { word.strip_suffix(':').unwrap_or(word) };
    let is_address = address.parse::<IpAddr>().is_ok() || address == "UNKNOWN";
    let port = rest.strip_prefix(" port ").map(|after| {
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        after.split_at_checked(end).unwrap_or((after, ""))
    });
    match port {
        // A host name is taken for one only when a port follows it.
        Some((digits, after)) if !digits.is_empty() => Some((From { address, port: Some(digits) }, after)),
        _ if is_address => Some((From { address, port: None }, rest)),
        _ => None,
    }
}

/// What a disconnect gives as reason: behind a colon, without its number.
fn reason_of(rest: &str) -> Option<&str> {
    let rest = rest.trim_start_matches([':', ' ']);
    let rest = match rest.split_once(": ") {
        Some((number, reason)) if number.bytes().all(|byte| byte.is_ascii_digit()) => reason,
        _ => rest,
    };
    Some(rest.trim()).filter(|reason| !reason.is_empty())
}
