//! What PAM modules log in the name of their program: `pam_unix(sshd:session): session opened for user root`.

use super::{
    names::KNOWN,
    sink::{Broken, Sink},
    sshd::put_address,
};

/// Decodes a PAM line; says whether it was one.
///
/// `authentication failure` has the event type `pam_authentication_failed`: the program logs the same attempt itself
/// (`Failed password`), and one attempt must not count twice.
pub(crate) fn decode(text: &str, sink: &mut Sink<'_>) -> Result<bool, Broken> {
    let (service, text) = match module(text) {
        Some((service, text)) => (Some(service), text),
        None => (None, text),
    };
    let known = &*KNOWN;
    let event_type = if text.starts_with("authentication failure;") || more_failures(text) {
        put_failure(text, sink)?;
        "pam_authentication_failed"
    } else if let Some(rest) = text.strip_prefix("session opened for user ") {
        // `root(uid=0) by alice(uid=1000)`, `root by (uid=0)`
        let (target, by) = rest.split_once(" by ").unwrap_or((rest, ""));
        if name_of(by).is_empty() {
            put_user(target, sink)?;
        } else {
            put_user(by, sink)?;
            sink.text(known.target_user, name_of(target))?;
        }
        "session_opened"
    } else if let Some(rest) = text.strip_prefix("session closed for user ") {
        put_user(rest, sink)?;
        "session_closed"
    } else if text.starts_with("check pass; user unknown") {
        "pam_user_unknown"
    } else if let Some(user) = locked(text) {
        sink.text(known.user, user)?;
        "account_locked"
    } else {
        return Ok(false);
    };
    if let Some(service) = service {
        sink.text(known.service, service)?;
    }
    sink.text(known.event_type, event_type)?;
    Ok(true)
}

/// faillock's `Consecutive login failures for user bob account temporarily locked`, tally2's `user bob (1000) tally 6,
/// deny 5`.
fn locked(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("Consecutive login failures for user ") {
        return rest.rsplit_once(" account ").map(|(user, _)| user);
    }
    let (user, rest) = text.strip_prefix("user ")?.split_once(" (")?;
    rest.contains(") tally ").then_some(user)
}

/// `pam_unix(sshd:auth): ` and what follows it; the service is `sshd`.
pub(crate) fn module(text: &str) -> Option<(&str, &str)> {
    let (module, rest) = text.strip_prefix("pam_")?.split_once("): ")?;
    let (_, service) = module.split_once('(')?;
    Some((service.split(':').next().unwrap_or(service), rest))
}

/// `PAM 2 more authentication failures; logname= ...`
fn more_failures(text: &str) -> bool {
    text.strip_prefix("PAM ").is_some_and(|rest| rest.contains(" more authentication failure"))
}

/// `logname= uid=0 euid=0 tty=ssh ruser= rhost=1.2.3.4  user=root`
fn put_failure(text: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    let known = &*KNOWN;
    let pairs = text.split_once(';').map_or("", |(_, pairs)| pairs);
    for (key, value) in pairs.split_ascii_whitespace().filter_map(|pair| pair.split_once('=')) {
        match key {
            _ if value.is_empty() => {}
            "rhost" => put_address(value, sink)?,
            "user" => sink.text(known.user, value)?,
            "tty" => sink.text(known.tty, value)?,
            _ => {}
        }
    }
    Ok(())
}

fn put_user(text: &str, sink: &mut Sink<'_>) -> Result<(), Broken> {
    match name_of(text) {
        "" => Ok(()),
        user => sink.text(KNOWN.user, user),
    }
}

/// `root` of `root(uid=0)`.
fn name_of(text: &str) -> &str {
    text.split('(').next().unwrap_or(text).trim()
}
