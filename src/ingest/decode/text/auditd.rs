//! Linux auditd: the records of `audit.log`, raw or enriched, with or without a syslog header or `node=` before them.
//!
//! Every record is an event of its own, as public rules for auditd expect: the decoder knows one record at a time, and
//! the records of one audit event (SYSCALL, EXECVE, PATH ..) may be read by different workers. So nothing is joined
//! here, and an execve is no `process_creation`: program and arguments stand in two records. Tools that join them
//! (laurel, auditbeat, Sysmon) give such events; `serial` is the same in all records of one audit event.
//!
//! Fields have auditd's names. Values that the kernel wrote in hexadecimal (anything with blanks, quotes or control
//! characters) are decoded, NUL becoming a blank, several keys becoming several values.

use std::borrow::Cow;

use cf_types::{Time, TimeBasis};

use super::{
    Found, own,
    pairs::{Pair, pairs, value},
    put, put_message, put_source,
};
use crate::decode::{
    names::KNOWN,
    sink::{Broken, Sink},
};

/// One record: its type, its stamp and its pairs.
#[derive(Clone, Copy, Debug)]
struct Record<'a> {
    node: Option<&'a str>,
    kind: &'a str,
    time: Time,
    serial: &'a str,
    body: &'a str,
}

/// Decodes a record; `None` if the text is none.
pub(crate) fn decode<'a>(text: &'a str, sink: &mut Sink<'_>) -> Result<Option<Found<'a>>, Broken> {
    let Some(record) = parse(text) else {
        return Ok(None);
    };
    let known = &*KNOWN;
    put_message(sink, text)?;
    sink.text(known.audit_type, record.kind)?;
    sink.text(known.serial, record.serial)?;
    put(sink, known.node, record.node)?;
    put(sink, known.event_type, event_type(&record))?;
    put_pairs(&record, sink)?;
    Ok(Some(Found {
        product: Some("linux"),
        service: Some("auditd"),
        time: Some((record.time, TimeBasis::Declared)),
        ..Found::default()
    }))
}

/// `[node=N ]type=T msg=audit(S.MMM:SERIAL): BODY`; the kernel's own form has `audit: type=1400 audit(..): BODY`.
fn parse(text: &str) -> Option<Record<'_>> {
    let (node, rest) = match text.strip_prefix("node=").and_then(|rest| rest.split_once(' ')) {
        Some((node, rest)) => (Some(node), rest),
        None => (None, text),
    };
    // `[   12.345678] audit: type=1400 audit(..)` of the kernel's ring buffer.
    let rest = match rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((uptime, rest)) if uptime.trim().bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => rest,
        _ => rest,
    };
    let rest = rest.strip_prefix("audit: ").unwrap_or(rest);
    let (kind, rest) = rest.strip_prefix("type=")?.split_once(' ')?;
    let rest = rest.strip_prefix("msg=").unwrap_or(rest).strip_prefix("audit(")?;
    let (stamp, body) = rest.split_once(')')?;
    let (seconds, serial) = stamp.split_once(':')?;
    let (seconds, millis) = seconds.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !(is_number(seconds) && is_number(serial) && millis.len() == 3 && is_number(millis)) || kind.len() > 64 {
        return None;
    }
    let seconds = seconds.parse::<i64>().ok().filter(|seconds| *seconds < 1 << 40)?;
    let time = Time::from_millis(seconds * 1_000 + millis.parse::<i64>().ok()?);
    Some(Record { node, kind: name_of(kind), time, serial, body: body.strip_prefix(':').unwrap_or(body) })
}

/// The name of a type that the kernel logs by number (linux/audit.h), for those that rules name.
fn name_of(kind: &str) -> &str {
    match kind {
        "1100" => "USER_AUTH",
        "1112" => "USER_LOGIN",
        "1114" => "ADD_USER",
        "1123" => "USER_CMD",
        "1130" => "SERVICE_START",
        "1131" => "SERVICE_STOP",
        "1300" => "SYSCALL",
        "1302" => "PATH",
        "1305" => "CONFIG_CHANGE",
        "1306" => "SOCKADDR",
        "1307" => "CWD",
        "1309" => "EXECVE",
        "1326" => "SECCOMP",
        "1327" => "PROCTITLE",
        "1400" => "AVC",
        "1700" => "ANOM_PROMISCUOUS",
        "1701" => "ANOM_ABEND",
        kind => kind,
    }
}

/// What a record of user space tells, in the words that the other decoders use.
fn event_type(record: &Record<'_>) -> Option<&'static str> {
    let failed = || record.body.contains("res=failed") || record.body.contains("res=0");
    Some(match record.kind {
        "USER_LOGIN" if failed() => "authentication_failed",
        "USER_LOGIN" => "authentication_succeeded",
        "USER_AUTH" if failed() => "pam_authentication_failed",
        "USER_CMD" if failed() => "sudo_denied",
        "USER_CMD" => "sudo_command",
        "ADD_USER" if !failed() => "account_created",
        "DEL_USER" if !failed() => "account_deleted",
        "ADD_GROUP" if !failed() => "group_created",
        "USER_CHAUTHTOK" if !failed() => "password_changed",
        "USER_START" if !failed() => "session_opened",
        "USER_END" => "session_closed",
        "SERVICE_START" => "service_started",
        "SERVICE_STOP" => "service_stopped",
        "EXECVE" => "process_executed",
        "ANOM_PROMISCUOUS" => "promiscuous_mode",
        _ => return None,
    })
}

fn put_pairs(record: &Record<'_>, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    let mut split: Option<(&str, String)> = None; // `a1[0]=.. a1[1]=..`: an argument in parts
    for pair in pairs(record.body) {
        if let Some((key, _)) = pair.key.split_once('[').filter(|_| record.kind == "EXECVE") {
            let part = decoded(&pair, true);
            match &mut split {
                Some((open, whole)) if *open == key => whole.push_str(&part),
                _ => {
                    put_split(split.take(), sink)?;
                    split = Some((key, part.into_owned()));
                }
            }
            continue;
        }
        put_split(split.take(), sink)?;
        match pair.key {
            // User space's own pairs: msg='op=login acct="root" ..'
            "msg" if pair.quoted => {
                for pair in pairs(pair.value) {
                    put_pair(record, &pair, sink)?;
                }
            }
            "saddr" if !pair.quoted => put_address(pair.value, sink)?,
            _ => put_pair(record, &pair, sink)?,
        }
    }
    put_split(split, sink)?;
    // Raw records have the call's number alone; rules name it.
    if record.kind == "SYSCALL" && !record.body.contains("SYSCALL=") {
        put(sink, known.syscall_name, syscall_name(record.body))?;
    }
    Ok(())
}

fn put_split(split: Option<(&str, String)>, sink: &mut Sink<'_>) -> Result<(), Broken> {
    match split {
        Some((key, whole)) => own(sink, key, &whole),
        None => Ok(()),
    }
}

fn put_pair(record: &Record<'_>, pair: &Pair<'_>, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    let is_argument = record.kind == "EXECVE" && pair.key.starts_with('a') && pair.key != "argc";
    let value = decoded(pair, is_argument || is_encoded(pair.key));
    if matches!(&*value, "(null)" | "?" | "") {
        return Ok(());
    }
    match pair.key {
        "type" | "serial" | "node" => Ok(()), // the record's own
        "key" => value.split('\u{1}').try_for_each(|key| own(sink, "key", key)),
        "acct" => {
            sink.text(known.user, &value)?;
            own(sink, "acct", &value)
        }
        // Enriched: the login user, who stays the same through su and sudo.
        "AUID" if !matches!(&*value, "unset" | "unknown(4294967295)") => {
            sink.text(known.user, &value)?;
            own(sink, "AUID", &value)
        }
        "addr" => {
            put_source(sink, &value)?;
            own(sink, "addr", &value)
        }
        "hostname" => match value.parse::<std::net::IpAddr>() {
            Ok(_) => Ok(()), // `addr` says it
            Err(_) => sink.text(known.source_host, &value),
        },
        "cmd" => {
            sink.text(known.command, &value)?;
            own(sink, "cmd", &value)
        }
        key => own(sink, key, &value),
    }
}

/// Whether the kernel or user space writes this field's value in hexadecimal when it holds more than plain characters.
fn is_encoded(key: &str) -> bool {
    const ENCODED: &[&str] = &[
        "acct",
        "cmd",
        "comm",
        "cwd",
        "data",
        "dir",
        "exe",
        "file",
        "key",
        "name",
        "new",
        "ocomm",
        "old",
        "path",
        "proctitle",
        "vm",
        "watch",
    ];
    ENCODED.binary_search(&key).is_ok()
}

/// The value, out of hexadecimal if it was so written: not quoted, upper-case digits, an even number of them.
fn decoded<'a>(pair: &Pair<'a>, encoded: bool) -> Cow<'a, str> {
    let digits = pair.value.as_bytes();
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    if pair.quoted || !encoded || digits.len() < 2 || digits.len() % 2 == 1 || !digits.iter().all(is_digit) {
        return Cow::Borrowed(pair.value);
    }
    let bytes: Vec<u8> = bytes_of(digits).map(|byte| if byte == 0 { b' ' } else { byte }).collect();
    Cow::Owned(String::from_utf8_lossy(&bytes).trim_end_matches(' ').to_owned())
}

fn bytes_of(digits: &[u8]) -> impl Iterator<Item = u8> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or(0);
    digits.chunks_exact(2).map(move |pair| match pair {
        [high, low] => value(*high) * 16 + value(*low),
        _ => 0,
    })
}

/// A `struct sockaddr` in hexadecimal: family (little endian), port and address, for IPv4 and IPv6.
fn put_address(digits: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    let bytes: Vec<u8> = bytes_of(digits.as_bytes().get(..digits.len().min(64)).unwrap_or_default()).collect();
    let (port, address) = match bytes.as_slice() {
        [2, 0, high, low, a, b, c, d, ..] => {
            (u16::from_be_bytes([*high, *low]), std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string())
        }
        [10, 0, high, low, _, _, _, _, rest @ ..] => match rest.first_chunk::<16>() {
            Some(octets) => (u16::from_be_bytes([*high, *low]), std::net::Ipv6Addr::from(*octets).to_string()),
            None => return Ok(()),
        },
        _ => return own(sink, "saddr", digits),
    };
    sink.text(known.dst_ip, &address)?;
    sink.text(known.dst_port, itoa::Buffer::new().format(port))?;
    own(sink, "saddr", digits)
}

/// The name of the system call, by machine and number, for the calls that rules look for.
fn syscall_name(body: &str) -> Option<&'static str> {
    // Name, x86_64 and arm64 (asm-generic); arm64 lacks the older calls.
    const CALLS: &[(&str, &str, &str)] = &[
        ("socket", "41", "198"),
        ("connect", "42", "203"),
        ("accept", "43", "202"),
        ("bind", "49", "200"),
        ("listen", "50", "201"),
        ("execve", "59", "221"),
        ("kill", "62", "129"),
        ("truncate", "76", "45"),
        ("rename", "82", ""),
        ("unlink", "87", ""),
        ("chmod", "90", ""),
        ("fchmod", "91", "52"),
        ("chown", "92", ""),
        ("sysinfo", "99", "179"),
        ("ptrace", "101", "117"),
        ("syslog", "103", "116"),
        ("setuid", "105", "146"),
        ("mknod", "133", ""),
        ("personality", "135", "92"),
        ("mount", "165", "40"),
        ("sethostname", "170", "161"),
        ("init_module", "175", "105"),
        ("delete_module", "176", "106"),
        ("setxattr", "188", "5"),
        ("openat", "257", "56"),
        ("mknodat", "259", "33"),
        ("unlinkat", "263", "35"),
        ("renameat", "264", "38"),
        ("fchmodat", "268", "53"),
        ("unshare", "272", "97"),
        ("setns", "308", "268"),
        ("process_vm_writev", "311", "271"),
        ("finit_module", "313", "273"),
        ("memfd_create", "319", "279"),
        ("bpf", "321", "280"),
        ("execveat", "322", "281"),
    ];
    let number = value(body, "syscall").filter(|number| !number.is_empty())?;
    let of_machine: fn(&(&'static str, &'static str, &'static str)) -> &'static str = match value(body, "arch")? {
        "c000003e" => |call| call.1,
        "c00000b7" => |call| call.2,
        _ => return None,
    };
    CALLS.iter().find(|call| of_machine(call) == number).map(|call| call.0)
}
