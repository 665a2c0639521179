//! A network flow in the words of NSL-KDD, as Zeek's conn.log, Suricata's flow and netflow records (EVE) tell it.
//!
//! In: fields of one event by name. Out: the columns of [`COLUMNS`]; what a record does not say is missing. NSL-KDD's
//! other columns count what happened in the connections before or what was typed inside of one, which no flow record says.

/// The columns, and whether they are texts.
pub const COLUMNS: [(&str, bool); 6] = [
    ("duration", false),
    ("protocol_type", true),
    ("service", true),
    ("flag", true),
    ("src_bytes", false),
    ("dst_bytes", false),
];

/// Fields that [`read`] asks for.
pub const FIELDS: [&str; 22] = [
    "conn_state",
    "duration",
    "proto",
    "service",
    "orig_bytes",
    "resp_bytes",
    "event_type",
    "app_proto",
    "dest_port",
    "id.resp_p",
    "flow.bytes_toserver",
    "flow.bytes_toclient",
    "flow.start",
    "flow.end",
    "flow.age",
    "flow.state",
    "netflow.bytes",
    "netflow.start",
    "netflow.end",
    "netflow.age",
    "tcp.rst",
    "tcp.state",
];

/// What services are called there, by what Zeek and Suricata call them.
const SERVICES: [(&str, &str); 14] = [
    ("ftp-data", "ftp_data"),
    ("irc", "IRC"),
    ("imap", "imap4"),
    ("ldap", "ldap"),
    ("pop3", "pop_3"),
    ("ntp", "ntp_u"),
    ("smb", "netbios_ssn"),
    ("gssapi,smb", "netbios_ssn"),
    ("ssl", "http_443"),
    ("tls", "http_443"),
    ("ssl,http", "http_443"),
    ("quic", "http_443"),
    ("http2", "http_443"),
    ("tftp", "tftp_u"),
];
/// Services by port, where the record does not name one.
const PORTS: [(&str, &str); 14] = [
    ("20", "ftp_data"),
    ("21", "ftp"),
    ("22", "ssh"),
    ("23", "telnet"),
    ("25", "smtp"),
    ("53", "domain"),
    ("79", "finger"),
    ("80", "http"),
    ("110", "pop_3"),
    ("111", "sunrpc"),
    ("113", "auth"),
    ("139", "netbios_ssn"),
    ("143", "imap4"),
    ("443", "http_443"),
];

/// One flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Seconds.
    pub duration: Option<f64>,
    /// `tcp`, `udp`, `icmp`, ...
    pub protocol_type: Option<String>,
    /// What was spoken.
    pub service: Option<String>,
    /// How it ended, in Zeek's words: `SF`, `S0`, `REJ`, ...
    pub flag: Option<String>,
    /// From the one who began it.
    pub src_bytes: Option<f64>,
    /// From the other.
    pub dst_bytes: Option<f64>,
}

/// The flow that an event tells, if it tells one.
#[must_use]
pub fn read<'a>(field: impl Fn(&str) -> Option<&'a str>) -> Option<Flow> {
    let text = |name: &str| field(name).map(str::trim).filter(|text| !text.is_empty() && *text != "-");
    let number =
        |name: &str| text(name).and_then(|text| text.parse::<f64>().ok()).filter(|n| n.is_finite() && *n >= 0.0);
    let protocol = || text("proto").map(protocol);
    if let Some(state) = text("conn_state") {
        let protocol_type = protocol();
        return Some(Flow {
            duration: number("duration"),
            service: service(text("service"), text("id.resp_p"), protocol_type.as_deref()),
            protocol_type,
            flag: Some(state.to_owned()),
            src_bytes: number("orig_bytes"),
            dst_bytes: number("resp_bytes"),
        });
    }
    let kind = text("event_type").filter(|kind| ["flow", "netflow"].contains(kind))?;
    let protocol_type = protocol();
    let of = |name: &str| format!("{kind}.{name}");
    let (src_bytes, dst_bytes) = match kind {
        "flow" => (number("flow.bytes_toserver"), number("flow.bytes_toclient")),
        // One direction alone.
        _ => (number("netflow.bytes"), None),
    };
    Some(Flow {
        duration: lasted(text(&of("start")), text(&of("end"))).or_else(|| number(&of("age"))),
        service: service(text("app_proto"), text("dest_port"), protocol_type.as_deref()),
        flag: suricata_flag(text("flow.state"), protocol_type.as_deref(), dst_bytes, text("tcp.rst") == Some("true")),
        protocol_type,
        src_bytes,
        dst_bytes,
    })
}

fn protocol(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    // Numbers as IANA assigns them.
    match lower.as_str() {
        "6" => "tcp".to_owned(),
        "17" => "udp".to_owned(),
        "1" | "58" | "ipv6-icmp" | "icmp6" => "icmp".to_owned(),
        _ => lower,
    }
}

fn service(said: Option<&str>, port: Option<&str>, protocol: Option<&str>) -> Option<String> {
    let said = said.map(str::to_ascii_lowercase).filter(|said| said != "failed" && said != "unknown");
    let udp = protocol == Some("udp");
    let known = match said.as_deref() {
        Some("dns") => Some(if udp { "domain_u" } else { "domain" }),
        Some(said) => SERVICES.iter().find(|(theirs, _)| *theirs == said).map(|(_, name)| *name).or(Some(said)),
        None if udp && port == Some("53") => Some("domain_u"),
        None => port.and_then(|port| PORTS.iter().find(|(number, _)| *number == port)).map(|(_, name)| *name),
    };
    Some(known.unwrap_or("private").to_owned())
}

/// Suricata does not say how a connection ended as Zeek does; this is as near as its states come.
fn suricata_flag(state: Option<&str>, protocol: Option<&str>, answered: Option<f64>, reset: bool) -> Option<String> {
    let is_answered = answered.unwrap_or(0.0) > 0.0;
    let flag = match (state?, protocol) {
        (_, Some("udp" | "icmp")) => "SF",
        (_, _) if reset && is_answered => "RSTR",
        (_, _) if reset => "REJ",
        ("new", _) => "S0",
        ("established" | "bypassed", _) => "S1",
        ("closed", _) => "SF",
        _ => "OTH",
    };
    Some(flag.to_owned())
}

/// Seconds between two times as EVE writes them.
fn lasted(start: Option<&str>, end: Option<&str>) -> Option<f64> {
    let time = |text: &str| eve_time(text).parse::<cf_types::Time>().ok();
    let micros = time(end?)?.micros().checked_sub(time(start?)?.micros())?;
    (micros >= 0).then(|| micros as f64 / 1e6)
}

/// RFC 3339 wants a colon in the offset, EVE writes none.
fn eve_time(text: &str) -> String {
    match text.split_at_checked(text.len().saturating_sub(5)) {
        Some((time, zone)) if zone.starts_with(['+', '-']) && zone.bytes().skip(1).all(|b| b.is_ascii_digit()) => {
            let (hours, minutes) = zone.split_at_checked(3).unwrap_or((zone, ""));
            format!("{time}{hours}:{minutes}")
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields as `name=value, ...`; what comes out as one line.
    #[track_caller]
    fn check(fields: &str, expect: &str) {
        let fields: Vec<(&str, &str)> = fields.split(", ").filter_map(|pair| pair.split_once('=')).collect();
        let asked = |name: &str| {
            assert!(FIELDS.contains(&name), "{name} is not among the fields");
            fields.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
        };
        let line = read(asked).map_or("none".to_owned(), |flow| {
            let number = |n: Option<f64>| n.map_or("?".to_owned(), |n| n.to_string());
            let text = |t: Option<String>| t.unwrap_or("?".to_owned());
            format!(
                "{} {} {} {} {} {}",
                number(flow.duration),
                text(flow.protocol_type),
                text(flow.service),
                text(flow.flag),
                number(flow.src_bytes),
                number(flow.dst_bytes)
            )
        });
        assert_eq!(line, expect);
    }

    #[test]
    fn flows_of_zeek_and_suricata_are_told_in_one_set_of_words() {
        check(
            "conn_state=SF, duration=1.5, proto=tcp, service=http, orig_bytes=181, resp_bytes=5450",
            "1.5 tcp http SF 181 5450",
        );
        check("conn_state=S0, proto=tcp, service=-, id.resp_p=23", "? tcp telnet S0 ? ?");
        check("conn_state=SF, proto=udp, service=dns, orig_bytes=40", "? udp domain_u SF 40 ?");
        check("conn_state=REJ, proto=tcp, id.resp_p=4444", "? tcp private REJ ? ?");
        let times = "flow.start=2026-01-05T14:00:00.000000+0000, flow.end=2026-01-05T14:00:02.500000+0000";
        check(
            &format!(
                "event_type=flow, proto=TCP, app_proto=tls, {times}, flow.bytes_toserver=700, flow.bytes_toclient=4000, flow.state=closed"
            ),
            "2.5 tcp http_443 SF 700 4000",
        );
        check(
            "event_type=flow, proto=TCP, dest_port=80, flow.age=0, flow.bytes_toserver=60, flow.bytes_toclient=0, flow.state=new",
            "0 tcp http S0 60 0",
        );
        check(
            "event_type=flow, proto=TCP, tcp.rst=true, flow.bytes_toserver=60, flow.bytes_toclient=0, flow.state=closed",
            "? tcp private REJ 60 0",
        );
        check("event_type=netflow, proto=17, dest_port=53, netflow.bytes=71, netflow.age=3", "3 udp domain_u ? 71 ?");
    }

    #[test]
    fn what_tells_no_flow_gives_none_and_odd_cells_are_missing() {
        check("event_type=alert, proto=TCP", "none");
        check("proto=tcp, duration=1", "none");
        check("conn_state=-", "none");
        check("conn_state=SF, duration=NaN, orig_bytes=-5, resp_bytes=many", "? ? private SF ? ?");
        check("event_type=flow, flow.start=\u{e9}, flow.end=2026", "? ? private ? ? ?");
    }
}
