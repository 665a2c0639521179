//! Text lines: syslog in its forms, access and error logs of web servers, anything else.
//!
//! No line is refused for not being known: what no decoder knows is an event with its text as `message`.

use cf_types::{Time, TimeBasis};

use super::{
    names::KNOWN,
    pam,
    sink::{Broken, Sink},
    sshd, sudo, syslog,
    time::{Assume, parse_iso, parse_local, parse_offset_of, parse_syslog},
    web,
};

/// What a line says of itself besides its fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found<'a> {
    pub(crate) product: Option<&'a str>,
    pub(crate) category: Option<&'a str>,
    pub(crate) service: Option<&'a str>,
    pub(crate) time: Option<(Time, TimeBasis)>,
}

/// Decodes a line.
pub(crate) fn decode<'a>(line: &'a str, assume: Assume<'_>, sink: &mut Sink<'_>) -> Result<Found<'a>, Broken> {
    if let Some(header) = syslog::parse(line, assume) {
        return message(&header, sink);
    }
    if let Some(access) = web::parse_access(line) {
        return access.put(sink);
    }
    if let Some(error) = web::parse_error(line, assume) {
        return error.put(sink);
    }
    sink.text(KNOWN.message, line)?;
    Ok(Found { time: leading_time(line, assume), ..Found::default() })
}

/// Decodes a syslog message by its program.
fn message<'a>(header: &syslog::Header<'a>, sink: &mut Sink<'_>) -> Result<Found<'a>, Broken> {
    let text = header.message;
    header.put(sink)?;
    let program = header.program.unwrap_or("");
    let base = program.split('(').next().unwrap_or(program); // `sshd(pam_unix)`, as old syslogs wrote
    let mut found =
        Found { product: Some("linux"), service: Some(base).filter(|base| !base.is_empty()), ..Found::default() };
    match base {
        "sshd" | "sshd-session" | "sshd-auth" => {
            found.service = Some("sshd");
            sshd::decode(text, sink)?;
        }
        "sudo" => sudo::decode(text, sink)?,
        "CRON" | "crond" | "cron" => {
            found.service = Some("cron");
            pam::decode(text, sink)?;
        }
        _ if web::is_server(base) => {
            if let Some(access) = web::parse_access(text) {
                found = access.put(sink)?;
                found.service = Some(base);
            }
        }
        _ => {
            pam::decode(text, sink)?;
        }
    }
    // A time with zone and year in the message is better than a header that leaves them out.
    let assumed = |time: &(Time, TimeBasis)| time.1 == TimeBasis::Assumed;
    found.time = header.time.filter(|time| found.time.is_none() || !assumed(time)).or(found.time);
    Ok(found)
}

/// The time at the beginning of a line of an unknown kind: ISO 8601 (a blank or `T`, `-` or `/`), perhaps in brackets,
/// or behind `time=`; or syslog's.
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
    parse_syslog(line, assume).map(|(time, _)| (time, TimeBasis::Assumed))
}
