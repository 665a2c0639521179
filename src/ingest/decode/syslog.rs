//! The header of syslog messages: RFC 5424, RFC 3164, and the files that syslog daemons write (no priority).

use cf_types::{Time, TimeBasis};

use super::{
    names::KNOWN,
    sink::{Broken, Sink},
    time::{Assume, parse_iso, parse_syslog},
};

/// A message's header and text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<'a> {
    pub(crate) time: Option<(Time, TimeBasis)>,
    priority: Option<u8>,
    host: Option<&'a str>,
    pub(crate) program: Option<&'a str>,
    pid: Option<&'a str>,
    message_id: Option<&'a str>,
    pub(crate) message: &'a str,
}

impl<'a> Header<'a> {
    /// The header of a message whose parts were apart already.
    pub(crate) const fn of(
        host: Option<&'a str>,
        program: Option<&'a str>,
        pid: Option<&'a str>,
        message: &'a str,
    ) -> Header<'a> {
        Header { time: None, priority: None, host, program, pid, message_id: None, message }
    }

    /// Adds its fields and the message.
    pub(crate) fn put(&self, sink: &mut Sink<'_>) -> Result<(), Broken> {
        self.put_head(sink)?;
        sink.text(KNOWN.message, self.message)
    }

    /// Adds its fields without the message.
    pub(crate) fn put_head(&self, sink: &mut Sink<'_>) -> Result<(), Broken> {
        const FACILITIES: [&str; 24] = [
            "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
            "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
            "local7",
        ];
        const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
        let known = &*KNOWN;
        let word = |words: &'static [&'static str], number: u8| words.get(usize::from(number)).copied();
        let fields = [
            (known.host, self.host),
            (known.program, self.program),
            (known.pid, self.pid),
            (known.message_id, self.message_id),
            (known.facility, self.priority.and_then(|priority| word(&FACILITIES, priority / 8))),
            (known.severity, self.priority.and_then(|priority| word(&SEVERITIES, priority % 8))),
        ];
        fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .try_for_each(|(name, value)| sink.text(name, value))
    }
}

/// Reads a header; `None` if the line has none.
pub(crate) fn parse<'a>(line: &'a str, assume: Assume<'_>) -> Option<Header<'a>> {
    let (priority, rest) = match priority(line) {
        Some((priority, rest)) => (Some(priority), rest),
        None => (None, line),
    };
    if let Some(header) = rfc5424(rest, priority, assume) {
        return Some(header);
    }
    let (sender, rest) = if priority.is_some() { cisco(rest, assume) } else { (None, rest) };
    if let Some((time, after)) = stamp(rest, assume) {
        let (host, tagged) = match split_word(after) {
            // No host: `Jan  5 14:00:00 prog[1]: text`, as programs write to /dev/log.
            (word, _) if word.ends_with(':') => (None, after),
            (word, tagged) => (Some(word).filter(|word| !word.is_empty()), tagged),
        };
        let host = host.or(sender);
        let (program, pid, message) = tag(tagged);
        // `2024-03-12T04:31:44Z [AUTH] WARN: ..` has no host and so is not syslog's either.
        if time.1 == TimeBasis::Declared && !host.is_none_or(is_host) {
            return None;
        }
        // A line that begins with an ISO time is syslog's only if a program follows; others begin like that too.
        if time.1 == TimeBasis::Assumed || priority.is_some() || program.is_some() {
            return Some(Header { time: Some(time), priority, host, program, pid, message_id: None, message });
        }
        return None;
    }
    // A priority and then no time: what is left is the message (RFC 3164, 4.3.3), its time is that of receipt.
    priority.is_some().then(|| {
        let (program, pid, message) = tag(rest);
        Header { time: None, priority, host: None, program, pid, message_id: None, message }
    })
}

/// `<34>`, up to 191.
fn priority(line: &str) -> Option<(u8, &str)> {
    let (number, rest) = line.strip_prefix('<')?.split_once('>')?;
    let priority = number.parse().ok().filter(|priority| number.len() <= 3 && *priority <= 191)?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some((priority, rest))
}

/// `1 2003-10-11T22:14:15.003Z host app proc id [sd] text`; `-` stands for nothing.
fn rfc5424<'a>(rest: &'a str, priority: Option<u8>, assume: Assume<'_>) -> Option<Header<'a>> {
    let rest = rest.strip_prefix("1 ")?;
    let (stamp, rest) = split_word(rest);
    let time = match stamp {
        "-" => None,
        stamp => Some(parse_iso(stamp, assume)?),
    };
    let given = |word: &'a str| Some(word).filter(|word| *word != "-" && !word.is_empty());
    let (host, rest) = split_word(rest);
    let (program, rest) = split_word(rest);
    let (pid, rest) = split_word(rest);
    let (message_id, rest) = split_word(rest);
    let message = skip_structured(rest)?;
    // rsyslog keeps the blank that stood before the message in RFC 3164 form: two of them then.
    let message = message.trim_start_matches(' ');
    Some(Header {
        time,
        priority,
        host: given(host),
        program: given(program),
        pid: given(pid),
        message_id: given(message_id),
        message: message.strip_prefix('\u{feff}').unwrap_or(message),
    })
}

/// Skips `-` or `[id name="value"]...`; in values `\"`, `\\` and `\]` are escaped.
fn skip_structured(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix('-') {
        return Some(rest);
    }
    let mut rest = text;
    while rest.starts_with('[') {
        let (mut quoted, mut escaped) = (false, false);
        let end = rest.bytes().position(|byte| {
            let ends = byte == b']' && !quoted;
            if byte == b'"' && !escaped {
                quoted = !quoted;
            }
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        rest = rest.get(end + 1..)?;
    }
    (rest.len() < text.len() || text.is_empty()).then_some(rest)
}

/// What Cisco writes before the time, `29: *Jan 5 ..` or `30: router: .Jan 5 ..` (a number, perhaps the host's name, and a
/// mark of a clock that is not set): the host, and the text from the time on.
fn cisco<'a>(rest: &'a str, assume: Assume<'_>) -> (Option<&'a str>, &'a str) {
    let marked = |text: &'a str| text.strip_prefix(['*', '.']).unwrap_or(text);
    let found = || {
        let (number, after) = rest.split_once(": ")?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        if stamp(marked(after), assume).is_some() {
            return Some((None, marked(after)));
        }
        let (host, after) = after.split_once(": ")?;
        (is_host(host) && stamp(marked(after), assume).is_some()).then(|| (Some(host), marked(after)))
    };
    found().unwrap_or((None, rest))
}

fn stamp<'a>(text: &'a str, assume: Assume<'_>) -> Option<((Time, TimeBasis), &'a str)> {
    if let Some((time, rest)) = parse_syslog(text, assume) {
        // Cisco ends the time with a colon, and may name the zone before it.
        let zone = rest.strip_prefix(' ').and_then(|rest| rest.split_once(": %"));
        let rest = match zone.filter(|(zone, _)| zone.len() <= 5 && zone.bytes().all(|byte| byte.is_ascii_uppercase()))
        {
            Some((zone, _)) => rest.get(1 + zone.len()..).unwrap_or(rest),
            None => rest,
        };
        let rest = rest.strip_prefix(':').unwrap_or(rest);
        return Some(((time, TimeBasis::Assumed), rest.strip_prefix(' ')?));
    }
    let (word, rest) = split_word(text);
    // Only with a zone: a time without one begins the lines of many programs that are not syslog's.
    let found = parse_iso(word, assume).filter(|(_, basis)| word.contains('T') && *basis == TimeBasis::Declared)?;
    Some((found, rest))
}

/// Whether a word may be a machine's name or address.
fn is_host(word: &str) -> bool {
    word.len() <= 255
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'))
}

/// `prog[pid]: text`, `prog: text`, `prog(pam_unix)[pid]: text`; without one of these all is text.
fn tag(text: &str) -> (Option<&str>, Option<&str>, &str) {
    const NAME_BYTES_MAX: usize = 128;
    let end = text.find(|c: char| c == ':' || c == '[' || c.is_whitespace()).unwrap_or(text.len());
    let (Some(name), Some(rest)) = (text.get(..end), text.get(end..)) else {
        return (None, None, text);
    };
    // `%ASA-6-302013: ..` names no program, and rules look for it in the message.
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('%') {
        return (None, None, text);
    }
    if let Some((pid, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        && !pid.contains(char::is_whitespace)
    {
        let message = after.strip_prefix(':').unwrap_or(after);
        return (Some(name), Some(pid), message.strip_prefix(' ').unwrap_or(message));
    }
    match rest.strip_prefix(':') {
        Some(message) if message.is_empty() || message.starts_with(' ') => {
            (Some(name), None, message.strip_prefix(' ').unwrap_or(message))
        }
        _ => (None, None, text),
    }
}

fn split_word(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}
