//! What Linux says of accounts, groups, passwords, cron tables, units and sessions: shadow-utils (useradd, usermod,
//! groupadd, gpasswd, passwd, chage), su, cron and crontab, systemd, systemd-logind, the kernel.

use super::{pairs::value, put, put_source};
use crate::decode::{
    names::KNOWN,
    pam,
    sink::{Broken, Sink},
};

/// Whether a program is one of these, but for the kernel, which speaks for others too.
pub(super) fn knows(program: &str) -> bool {
    const PROGRAMS: &[&str] = &[
        "useradd",
        "userdel",
        "usermod",
        "groupadd",
        "groupdel",
        "groupmod",
        "gpasswd",
        "newusers",
        "adduser",
        "shadow",
        "chage",
        "chfn",
        "chsh",
        "passwd",
        "chpasswd",
        "groupmems",
        "su",
        "CRON",
        "crond",
        "cron",
        "CROND",
        "crontab",
        "anacron",
        "systemd",
        "systemd-logind",
    ];
    PROGRAMS.contains(&program)
}

/// Decodes a message of one of these programs; says whether it was known.
pub(super) fn decode(program: &str, text: &str, sink: &mut Sink<'_>) -> Result<bool, Broken> {
    match program {
        "useradd" | "userdel" | "usermod" | "groupadd" | "groupdel" | "groupmod" | "gpasswd" | "newusers"
        | "adduser" | "shadow" | "chage" | "chfn" | "chsh" => account(text, sink),
        "passwd" | "chpasswd" | "groupmems" => Ok(password(text, sink)? || account(text, sink)?),
        "su" => su(text, sink),
        "CRON" | "crond" | "cron" | "CROND" | "crontab" | "anacron" => {
            Ok(pam::decode(text, sink)? || cron(text, sink)?)
        }
        "systemd" | "systemd-logind" => unit(text, sink),
        "kernel" => kernel(text, sink),
        _ => Ok(false),
    }
}

/// One or several fields of an event.
fn tell(sink: &mut Sink<'_>, event_type: &str, fields: &[(cf_types::Name, Option<&str>)]) -> Result<bool, Broken> {
    sink.text(KNOWN.event_type, event_type)?;
    fields.iter().try_for_each(|(name, value)| put(sink, *name, *value))?;
    Ok(true)
}

/// What stands between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    if after.is_empty() { Some(rest.trim_end()) } else { rest.split_once(after).map(|(inner, _)| inner) }
}

fn account(text: &str, sink: &mut Sink<'_>) -> Result<bool, Broken> {
    let known = &*KNOWN;
    if let Some(rest) = text.strip_prefix("new user: ").or_else(|| text.strip_prefix("new account added - ")) {
        let name = value(rest, "name").or_else(|| value(rest, "account"));
        let fields = [
            (known.target_user, name),
            (known.uid, value(rest, "UID").or_else(|| value(rest, "uid"))),
            (known.gid, value(rest, "GID").or_else(|| value(rest, "gid"))),
            (known.home, value(rest, "home")),
            (known.shell, value(rest, "shell")),
            (known.tty, value(rest, "from")),
        ];
        return tell(sink, "account_created", &fields);
    }
    if let Some(rest) = text.strip_prefix("new group: ") {
        return tell(sink, "group_created", &[(known.group, value(rest, "name")), (known.gid, value(rest, "GID"))]);
    }
    if let Some(rest) = text.strip_prefix("delete user ") {
        return tell(sink, "account_deleted", &[(known.target_user, Some(bare(rest)))]);
    }
    // `add 'bob' to group 'sudo'`, and once more for the shadow group, which is the same change.
    if let Some((user, group)) = text.strip_prefix("add ").and_then(|rest| rest.split_once(" to group ")) {
        return tell(
            sink,
            "group_member_added",
            &[(known.target_user, Some(bare(user))), (known.group, Some(bare(group)))],
        );
    }
    if text.starts_with("add ") && text.contains(" to shadow group ") {
        return tell(sink, "shadow_group_member_added", &[]);
    }
    // gpasswd: `user bob added by root to group sudo`
    if let Some((user, rest)) = text.strip_prefix("user ").and_then(|rest| rest.split_once(" added by "))
        && let Some((by, group)) = rest.split_once(" to group ")
    {
        let fields = [(known.user, Some(by)), (known.target_user, Some(bare(user))), (known.group, Some(bare(group)))];
        return tell(sink, "group_member_added", &fields);
    }
    if let Some((user, group)) = text.strip_prefix("delete ").and_then(|rest| rest.split_once(" from group ")) {
        return tell(
            sink,
            "group_member_removed",
            &[(known.target_user, Some(bare(user))), (known.group, Some(bare(group)))],
        );
    }
    if let Some(rest) = text.strip_prefix("removed group ").or_else(|| text.strip_prefix("group ")) {
        let removed = text.starts_with("removed ") || rest.contains(" removed");
        return if removed { tell(sink, "group_deleted", &[(known.group, Some(bare(rest)))]) } else { Ok(false) };
    }
    // usermod: `change user 'bob' shell from '/bin/sh' to '/bin/bash'`, `change user 'bob' password`
    if let Some(rest) = text.strip_prefix("change user ").or_else(|| text.strip_prefix("changed user ")) {
        let event_type = if rest.trim_end().ends_with(" password") { "password_changed" } else { "account_changed" };
        let reason = rest.split_once("' ").map(|(_, what)| what);
        return tell(sink, event_type, &[(known.target_user, Some(bare(rest))), (known.reason, reason)]);
    }
    if let Some(user) = between(text, "lock user '", "' password") {
        let event_type = if text.starts_with("unlock") { "account_unlocked" } else { "account_locked" };
        return tell(sink, event_type, &[(known.target_user, Some(user))]);
    }
    Ok(false)
}

/// The first word, or what stands in the quotes that the text begins with.
fn bare(text: &str) -> &str {
    let text = text.trim();
    match text.strip_prefix('\'').or_else(|| text.strip_prefix('\u{60}')) {
        Some(rest) => rest.split('\'').next().unwrap_or(rest),
        None => text.split([' ', ',']).next().unwrap_or(text),
    }
}

fn password(text: &str, sink: &mut Sink<'_>) -> Result<bool, Broken> {
    let known = &*KNOWN;
    if let Some(user) = between(text, "password changed for ", "") {
        return tell(sink, "password_changed", &[(known.target_user, Some(bare(user)))]);
    }
    // `password for 'bob' changed by 'root'`
    if let Some((user, by)) = text.strip_prefix("password for ").and_then(|rest| rest.split_once(" changed by ")) {
        return tell(sink, "password_changed", &[(known.user, Some(bare(by))), (known.target_user, Some(bare(user)))]);
    }
    Ok(false)
}

/// su of shadow-utils, util-linux and busybox.
fn su(text: &str, sink: &mut Sink<'_>) -> Result<bool, Broken> {
    let known = &*KNOWN;
    let told = |sink: &mut Sink<'_>, event_type: &str, user: &str, target: &str| {
        tell(sink, event_type, &[(known.user, Some(bare(user))), (known.target_user, Some(bare(target)))])
    };
    for (prefix, event_type) in [
        ("FAILED SU (to ", "su_denied"),
        ("FAILED su for ", "su_denied"),
        ("(to ", "su_succeeded"),
        ("Successful su for ", "su_succeeded"),
    ] {
        if let Some(rest) = text.strip_prefix(prefix)
            && let Some((target, user)) = rest.split_once(") ").or_else(|| rest.split_once(" by "))
        {
            return told(sink, event_type, user, target);
        }
    }
    // `'su root' failed for alice on /dev/pts/0`
    if let Some((target, rest)) = text.strip_prefix("'su ").and_then(|rest| rest.split_once("' ")) {
        let event_type = if rest.starts_with("failed") { "su_denied" } else { "su_succeeded" };
        return told(sink, event_type, rest.split_once(" for ").map_or("", |(_, user)| user), target);
    }
    // `+ /dev/pts/0 alice:root`, `- pts/0 alice:root`
    let denied = text.starts_with("- ");
    if (denied || text.starts_with("+ "))
        && let Some((user, target)) = text.rsplit_once(' ').and_then(|(_, pair)| pair.split_once(':'))
    {
        return told(sink, if denied { "su_denied" } else { "su_succeeded" }, user, target);
    }
    Ok(false)
}

/// `(root) CMD (command)`, `(alice) REPLACE (alice)`.
fn cron(text: &str, sink: &mut Sink<'_>) -> Result<bool, Broken> {
    let known = &*KNOWN;
    let Some((user, rest)) = text.strip_prefix('(').and_then(|rest| rest.split_once(") ")) else {
        return Ok(false);
    };
    let (verb, inner) = rest.split_once(" (").unwrap_or((rest, ""));
    let inner = inner.strip_suffix(')').unwrap_or(inner);
    let user = (known.user, Some(user));
    match verb {
        "CMD" | "CMDOUT" | "CMDEND" => {
            let event_type = if verb == "CMD" { "cron_command" } else { "cron_output" };
            tell(sink, event_type, &[user, (known.command, Some(inner.trim()))])
        }
        "REPLACE" => tell(sink, "crontab_replaced", &[user, (known.target_user, Some(inner))]),
        "DELETE" => tell(sink, "crontab_deleted", &[user, (known.target_user, Some(inner))]),
        "LIST" => tell(sink, "crontab_listed", &[user, (known.target_user, Some(inner))]),
        "BEGIN EDIT" | "END EDIT" => tell(sink, "crontab_edited", &[user, (known.target_user, Some(inner))]),
        // The table that changed: `crontabs/root`, `tabs/bob`, `/etc/crontab`.
        "RELOAD" => tell(sink, "crontab_reloaded", &[user, (known.path, Some(inner))]),
        _ => Ok(false),
    }
}

/// systemd's and logind's messages about units and sessions.
fn unit(text: &str, sink: &mut Sink<'_>) -> Result<bool, Broken> {
    let known = &*KNOWN;
    // `New session 5 of user root.`, `Started Session 5 of user root.`
    if let Some(user) = between(text, "ession ", "").and_then(|rest| rest.split_once(" of user ")).map(|(_, user)| user)
    {
        let event_type = if text.starts_with("New ") { "session_opened" } else { "session_started" };
        return tell(sink, event_type, &[(known.user, Some(user.trim_end_matches('.')))]);
    }
    let unit = |rest: &'_ str| rest.split([' ', ':']).next().map_or(0, |name| name.trim_end_matches('.').len());
    for (verb, event_type) in
        [("Started ", "service_started"), ("Stopped ", "service_stopped"), ("Failed to start ", "service_failed")]
    {
        if let Some(rest) = text.strip_prefix(verb) {
            // `Started nginx.service - A web server.` since systemd 250; before, the description alone.
            let name = rest.get(..unit(rest)).filter(|name| name.contains('.'));
            return tell(sink, event_type, &[(known.unit, name.or(Some(rest.trim_end_matches('.'))))]);
        }
    }
    if let Some((unit, rest)) = text.split_once(": ")
        && unit.ends_with(".service")
        && !unit.contains(' ')
        && (rest.starts_with("Failed with result") || rest.starts_with("Main process exited"))
    {
        return tell(sink, "service_failed", &[(known.unit, Some(unit)), (known.reason, Some(rest))]);
    }
    Ok(false)
}

/// What of the kernel's own messages matters to security; its packet filter has a file of its own.
fn kernel(text: &str, sink: &mut Sink<'_>) -> Result<bool, Broken> {
    let known = &*KNOWN;
    // `[82508.102168] text`
    let text = match text.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((uptime, rest)) if uptime.trim().bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => rest,
        _ => text,
    };
    if let Some((name, from)) =
        text.strip_prefix("wireguard: ").and_then(|rest| rest.split_once(": Invalid handshake initiation from "))
    {
        tell(sink, "handshake_refused", &[(known.device_in, Some(name))])?;
        put_source(sink, from)?;
        return Ok(true);
    }
    if let Some(rest) = text.strip_prefix("device ").and_then(|rest| rest.split_once(" entered promiscuous mode")) {
        return tell(sink, "promiscuous_mode", &[(known.device_in, Some(rest.0))]);
    }
    if let Some((what, _)) = text.split_once(": loading out-of-tree module taints kernel") {
        return tell(sink, "module_loaded", &[(known.name, Some(what))]);
    }
    if let Some((program, rest)) = text.split_once(": segfault at ").or_else(|| text.split_once(" segfault at ")) {
        let program = program.split('[').next();
        return tell(sink, "segfault", &[(known.name, program), (known.reason, Some(rest))]);
    }
    if text.contains(": New USB device found, ") {
        return tell(sink, "usb_connected", &[(known.reason, Some(text))]);
    }
    Ok(false)
}
