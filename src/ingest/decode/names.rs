//! The field names that text decoders give, interned once per process.

use std::sync::LazyLock;

use cf_types::Name;

macro_rules! names {
    ($($field:ident: $text:literal,)*) => {
        /// One field per name.
        pub(crate) struct Known {
            $(pub(crate) $field: Name,)*
        }

        /// The names.
        pub(crate) static KNOWN: LazyLock<Known> = LazyLock::new(|| {
            let mut names = Name::intern_all([$($text),*]).into_iter();
            let mut next = || names.next().unwrap_or(Name::UNKNOWN);
            Known { $($field: next(),)* }
        });
    };
}

names! {
    // Syslog.
    host: "host",
    program: "program",
    pid: "pid",
    message: "message",
    facility: "facility",
    severity: "syslog_severity",
    message_id: "message_id",
    // Logins and sudo.
    event_type: "event_type",
    user: "user",
    target_user: "target_user",
    source_ip: "source_ip",
    source_host: "source_host",
    source_port: "source_port",
    auth_method: "auth_method",
    repeats: "repeats",
    reason: "reason",
    tty: "tty",
    pwd: "pwd",
    command: "command",
    service: "pam_service",
    // Web servers, in W3C's and Sigma's names.
    request: "request",
    c_ip: "c-ip",
    cs_host: "cs-host",
    cs_method: "cs-method",
    cs_uri: "cs-uri",
    cs_uri_stem: "cs-uri-stem",
    cs_uri_query: "cs-uri-query",
    cs_version: "cs-version",
    cs_user_agent: "cs-user-agent",
    cs_referer: "cs-referer",
    cs_username: "cs-username",
    sc_status: "sc-status",
    sc_bytes: "sc-bytes",
    c_uri: "c-uri",
    c_useragent: "c-useragent",
    status: "status",
    path: "path",
    level: "level",
}
