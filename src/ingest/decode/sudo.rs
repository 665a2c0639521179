//! sudo: `alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/bin/sh`, with a reason in front when it was denied.

use super::{
    names::KNOWN,
    pam,
    sink::{Broken, Sink},
};

/// Decodes a message; one that is not known adds nothing.
///
/// The keys of the line are fields under their own names too (`USER`, `COMMAND`, ..), where a rule asks for them.
pub(crate) fn decode(text: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    if let Some((_, inner)) = pam::module(text) {
        if inner.starts_with("authentication failure;") {
            sink.text(known.event_type, "sudo_denied")?;
            sink.text(known.reason, "authentication failure")?;
            return failure(inner, sink);
        }
        return pam::decode(text, sink).map(|_| ());
    }
    let Some((user, rest)) = text.trim_start().split_once(" : ") else {
        return Ok(());
    };
    sink.text(known.user, user.trim())?;
    let mut denied = None;
    let mut command = false;
    let mut rest = rest;
    while !rest.is_empty() {
        // COMMAND is last and may hold the separator itself.
        let (part, after) =
            if rest.starts_with("COMMAND=") { (rest, "") } else { rest.split_once(" ; ").unwrap_or((rest, "")) };
        rest = after;
        let Some((key, value)) =
            part.split_once('=').filter(|(key, _)| key.bytes().all(|byte| byte.is_ascii_uppercase()))
        else {
            denied = denied.or(Some(part.trim()));
            continue;
        };
        let own = sink.name(key)?;
        if own != cf_types::Name::UNKNOWN {
            sink.text(own, value)?;
        }
        match key {
            "TTY" => sink.text(known.tty, value)?,
            "PWD" => sink.text(known.pwd, value)?,
            "USER" => sink.text(known.target_user, value)?,
            "COMMAND" => {
                command = true;
                sink.text(known.command, value)?;
            }
            _ => {}
        }
    }
    match denied {
        Some(reason) => {
            sink.text(known.event_type, "sudo_denied")?;
            sink.text(known.reason, reason)
        }
        None if command => sink.text(known.event_type, "sudo_command"),
        None => Ok(()),
    }
}

/// `logname=alice uid=1000 euid=0 tty=/dev/pts/0 ruser=alice rhost=  user=alice`: the asking user is `ruser`.
fn failure(text: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    let value = |wanted| {
        let mut pairs = text.split_ascii_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, value)| *key == wanted && !value.is_empty()).map(|(_, value)| value)
    };
    if let Some(user) = value("ruser").or_else(|| value("user")) {
        sink.text(known.user, user)?;
    }
    if let Some(tty) = value("tty") {
        sink.text(known.tty, tty)?;
    }
    Ok(())
}
