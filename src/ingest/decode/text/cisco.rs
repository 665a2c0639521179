//! Cisco's messages, `%FACILITY-SEVERITY-MNEMONIC: text`: IOS, IOS XE, NX-OS, ASA and Firepower; Huawei's VRP, which
//! writes `%%01FACILITY/SEVERITY/MNEMONIC`; and what Juniper's Junos says of BGP.
//!
//! Public rules look for words in what accounting logs (`service: aaa`), and in messages of LDP and BGP.

use super::{Found, address, firewall::Flow, put, put_message, put_source};
use crate::decode::{
    names::KNOWN,
    sink::{Broken, Sink},
};

/// Decodes a message; `None` if it is none of these.
pub(super) fn decode<'a>(text: &'a str, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    let known = &*KNOWN;
    // ASA sets its host's name apart: `fw : %ASA-6-302013: ..`.
    let text = text.strip_prefix(": ").unwrap_or(text);
    if let Some(facility) = huawei(text) {
        put_message(sink, text)?;
        let service = if facility == "BGP" { "bgp" } else { "syslog" };
        return Ok(Some(Found { product: Some("huawei"), service: Some(service), ..Found::default() }));
    }
    if ["tcp_auth_ok: ", "RPD_BGP_", "bgp_"].iter().any(|begin| text.starts_with(begin)) {
        put_message(sink, text)?;
        return Ok(Some(Found { product: Some("juniper"), service: Some("bgp"), ..Found::default() }));
    }
    let Some((facility, mnemonic, body)) = ios(text) else {
        return Ok(None);
    };
    put_message(sink, text)?;
    put(sink, known.message_id, Some(mnemonic))?;
    let found = Found { product: Some("cisco"), service: Some(service_of(facility, body)), ..Found::default() };
    if matches!(facility, "ASA" | "FTD" | "PIX") {
        let category = put_asa(mnemonic, body, sink)?;
        return Ok(Some(Found { category, service: Some("asa"), ..found }));
    }
    put_ios(mnemonic, body, sink)?;
    Ok(Some(found))
}

/// Facility, mnemonic and text of `%FACILITY-N-MNEMONIC: text`.
fn ios(text: &str) -> Option<(&str, &str, &str)> {
    let (head, body) = text.strip_prefix('%')?.split_once(':')?;
    let is_word = |word: &str| {
        let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        !word.is_empty() && word.len() <= 64 && word.bytes().all(plain)
    };
    // The severity is the digit between the last two dashes: `%SEC_LOGIN-4-LOGIN_FAILED`, `%ASA-session-6-302013`.
    let (rest, mnemonic) = head.rsplit_once('-')?;
    let (facility, severity) = rest.rsplit_once('-')?;
    let facility = facility.strip_suffix("-session").unwrap_or(facility);
    let is_severity = matches!(severity.as_bytes(), [b'0'..=b'7']);
    (is_severity && is_word(facility) && is_word(mnemonic)).then(|| (facility, mnemonic, body.trim_start()))
}

/// `%%01BGP/3/STATE_CHG_UPDOWN(l)[0]:text`
fn huawei(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("%%")?.trim_start_matches(|c: char| c.is_ascii_digit());
    let (facility, rest) = rest.split_once('/')?;
    let is_facility = !facility.is_empty()
        && facility.len() <= 32
        && facility.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_level = matches!(rest.as_bytes(), [b'0'..=b'7', b'/', ..]);
    (is_facility && is_level).then_some(facility)
}

/// Sigma's service of a facility.
fn service_of(facility: &str, body: &str) -> &'static str {
    match facility {
        "AAA" | "AAAA" | "PARSER" | "SEC_LOGIN" | "TACACS" | "TAC" | "RADIUS" | "HA_EM" | "ACCOUNTING" => "aaa",
        "BGP" | "BGP_SESSION" | "IP-TCP" | "TCP" => "bgp",
        "LDP" | "MPLS_LDP" | "LDP_SERVER" => "ldp",
        _ if facility.contains("LDP") || body.contains("LDP") => "ldp",
        _ => "syslog",
    }
}

/// Logins and commands of IOS.
fn put_ios(mnemonic: &str, body: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    let part = |before: &str, ends: &[char]| {
        let (_, rest) = body.split_once(before)?;
        rest.split(ends).next().map(str::trim).filter(|part| !part.is_empty())
    };
    let event_type = match mnemonic {
        "LOGIN_FAILED" | "WEBLOGIN_FAILED" | "AUTHENTICATION_FAILED" => "authentication_failed",
        "LOGIN_SUCCESS" | "WEBLOGIN_SUCCESS" => "authentication_succeeded",
        "CFGLOG_LOGGEDCMD" => "configuration_command",
        "CONFIG_I" | "CONFIG_P" => "configuration_changed",
        _ => return Ok(()),
    };
    sink.text(known.event_type, event_type)?;
    match mnemonic {
        // `Configured from console by admin on vty0 (1.2.3.4)`
        "CONFIG_I" | "CONFIG_P" => {
            put(sink, known.user, part(" by ", &[' ']))?;
            let from = body.rsplit_once('(').and_then(|(_, rest)| rest.split(')').next()).and_then(address);
            from.map_or(Ok(()), |from| put_source(sink, from))
        }
        // `User:admin  logged command:show running-config`
        "CFGLOG_LOGGEDCMD" => {
            put(sink, known.user, part("User:", &[' ']))?;
            put(sink, known.command, body.split_once("logged command:").map(|(_, command)| command))
        }
        // `Login failed [user: bob] [Source: 1.2.3.4] [localport: 22] [Reason: ..] at ..`
        _ => {
            put(sink, known.user, part("[user: ", &[']']))?;
            put(sink, known.reason, part("[Reason: ", &[']']))?;
            part("[Source: ", &[']']).map_or(Ok(()), |from| put_source(sink, from))
        }
    }
}

/// Connections and logins of ASA; the category if it is a connection.
fn put_asa(number: &str, body: &str, sink: &mut Sink<'_>) -> Result<Option<&'static str>, Broken> {
    let known = &*KNOWN;
    if let Some(flow) = asa_flow(number, body) {
        flow.put(sink)?;
        return Ok(Some("firewall"));
    }
    let event_type = match number {
        "113005" | "113015" | "611102" | "605004" => "authentication_failed",
        "113004" | "113012" | "611101" | "605005" => "authentication_succeeded",
        "111008" | "111010" => "configuration_command",
        "502101" => "account_created",
        _ => return Ok(None),
    };
    sink.text(known.event_type, event_type)?;
    let part = |keys: &[&str]| {
        keys.iter().find_map(|key| {
            let (_, rest) = body.split_once(key)?;
            rest.split([' ', ',', '\'', '"', ':']).find(|part| !part.is_empty())
        })
    };
    put(sink, known.user, part(&["user = ", "for user ", "Uname: ", "User '", "user '"]))?;
    put(
        sink,
        known.command,
        body.split_once("executed the '")
            .or_else(|| body.split_once("executed '"))
            .and_then(|(_, rest)| rest.split('\'').next()),
    )?;
    let from = ["user IP = ", "IP = ", "IP address: ", "from "].iter().find_map(|key| {
        let word = body.split_once(key)?.1.split([' ', ',', '/']).next()?;
        address(word)
    });
    from.map_or(Ok(()), |from| put_source(sink, from))?;
    Ok(None)
}

/// `Built inbound TCP connection 1 for outside:1.2.3.4/5 (..) to inside:10.0.0.1/22 (..)`, `Deny tcp src
/// outside:1.2.3.4/5 dst inside:..`, `access-list X denied tcp outside/1.2.3.4(5) -> inside/10.0.0.1(22)`.
fn asa_flow<'a>(number: &str, body: &'a str) -> Option<Flow<'a>> {
    let lower = |word: &str| body.split_ascii_whitespace().find(|it| it.eq_ignore_ascii_case(word));
    let protocol = ["tcp", "udp", "icmp"].into_iter().find_map(lower);
    let (action, from, to) = match number {
        "106023" => ("deny", body.split_once(" src ")?.1, body.split_once(" dst ")?.1),
        "106100" | "106102" | "106103" => {
            let (from, to) = body.split_once(" -> ")?;
            let action = if body.contains(" denied ") { "deny" } else { "permit" };
            (action, from.rsplit(' ').next()?, to)
        }
        "106001" | "106006" | "106007" | "106015" => {
            let (_, rest) = body.split_once(" from ")?;
            ("deny", rest, rest.split_once(" to ")?.1)
        }
        "302013" | "302015" | "302020" => {
            let (_, rest) = body.split_once(" for ")?;
            let (one, other) = (rest, rest.split_once(" to ")?.1);
            // The foreign side stands first, whoever began.
            if body.starts_with("Built outbound") { ("built", other, one) } else { ("built", one, other) }
        }
        _ => return None,
    };
    let end = |text: &'a str| {
        let word = text.split_ascii_whitespace().next()?;
        // `outside:1.2.3.4/5`, `outside/1.2.3.4(5)`, `1.2.3.4/5`
        let word = word.trim_end_matches(',');
        let inner = match word.split_once('(') {
            Some((head, port)) => (head.rsplit(['/', ':']).next()?, port.split(')').next()),
            None => {
                let (head, port) = word.rsplit_once('/').map_or((word, None), |(head, port)| (head, Some(port)));
                (head.split_once(':').filter(|_| address(head).is_none()).map_or(head, |(_, ip)| ip), port)
            }
        };
        address(inner.0).map(|ip| (ip, inner.1))
    };
    let ((src_ip, src_port), (dst_ip, dst_port)) = (end(from)?, end(to)?);
    Some(Flow {
        src_ip: Some(src_ip),
        src_port,
        dst_ip: Some(dst_ip),
        dst_port,
        protocol,
        action: Some(action),
        ..Flow::default()
    })
}
