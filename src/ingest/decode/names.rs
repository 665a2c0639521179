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
    // Proxies and web servers beyond the access log.
    c_uri_query: "c-uri-query",
    c_uri_extension: "c-uri-extension",
    c_user: "c-user",
    cs_cookie: "cs-cookie",
    cs_content_type: "cs-content-type",
    time_taken: "time-taken",
    upstream: "upstream",
    rule_id: "rule_id",
    rule_name: "rule_name",
    // Firewalls.
    src_ip: "src_ip",
    src_port: "src_port",
    dst_ip: "dst_ip",
    dst_port: "dst_port",
    protocol: "protocol",
    action: "action",
    blocked: "blocked",
    device_in: "device_in",
    device_out: "device_out",
    // DNS.
    query: "query",
    record_type: "record_type",
    answer: "answer",
    response_code: "response_code",
    // Malware found by a product.
    signature: "Signature",
    filename: "Filename",
    // auditd, in its own words.
    audit_type: "type",
    syscall_name: "SYSCALL",
    serial: "serial",
    node: "node",
    // Accounts, groups, services.
    group: "group",
    unit: "unit",
    uid: "uid",
    gid: "gid",
    home: "home",
    shell: "shell",
    name: "name",
    // Security products.
    vendor: "vendor",
    product: "product",
    version: "version",
    event_class: "event_class",
}
