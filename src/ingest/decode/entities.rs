//! Whom an event speaks of: which fields of which product hold which kind of entity.

use cf_types::{Entity, EntityKind, Event, Name};

/// Entities of one event, at most.
const ENTITIES_MAX: usize = 32;

type Table = &'static [(EntityKind, &'static [&'static str])];

const WINDOWS: Table = &[
    (EntityKind::Host, &["Computer", "WorkstationName", "Workstation", "SourceHostname"]),
    (
        EntityKind::User,
        &["User", "TargetUserName", "SubjectUserName", "SourceUser", "TargetUser", "AccountName", "UserName"],
    ),
    (
        EntityKind::Address,
        &["IpAddress", "SourceIp", "DestinationIp", "SourceAddress", "DestAddress", "ClientAddress", "SourceIPAddress"],
    ),
    (EntityKind::Process, &["Image", "NewProcessName", "ProcessName", "SourceImage", "TargetImage", "Application"]),
    (EntityKind::FileHash, &["Hashes", "Hash"]),
    (EntityKind::Domain, &["QueryName", "DestinationHostname"]),
];

/// Linux' own logs, and Sysmon for Linux with the names that it has on Windows.
const LINUX: Table = &[
    (EntityKind::Host, &["host", "hostname", "Computer"]),
    (EntityKind::User, &["user", "target_user", "ruser", "User"]),
    (EntityKind::Address, &["source_ip", "rhost", "SourceIp", "DestinationIp"]),
    (EntityKind::Process, &["exe", "process", "Image"]),
    (EntityKind::FileHash, &["Hashes"]),
];

const WEB: Table = &[
    (EntityKind::Host, &["host", "s-computername"]),
    (EntityKind::User, &["cs-username"]),
    (EntityKind::Address, &["c-ip"]),
    (EntityKind::Domain, &["cs-host"]),
];

const AWS: Table =
    &[(EntityKind::User, &["userIdentity.arn", "userIdentity.userName"]), (EntityKind::Address, &["sourceIPAddress"])];

/// Anything else: the names of ECS, of the event schema, and the usual ones.
const GENERIC: Table = &[
    (
        EntityKind::Host,
        &["host", "hostname", "host.name", "computer", "computer_name", "agent.hostname", "device", "source_host"],
    ),
    (
        EntityKind::User,
        &[
            "user",
            "username",
            "user.name",
            "user_name",
            "account",
            "actor",
            "target_user",
            "source_user",
            "src_user",
            "cs-username",
            "c-user",
        ],
    ),
    (
        EntityKind::Address,
        &[
            "source_ip",
            "src_ip",
            "client_ip",
            "remote_addr",
            "remote_ip",
            "ip",
            "ip_address",
            "source.ip",
            "client.ip",
            "destination.ip",
            "destination_ip",
            "dst_ip",
            "dest_ip",
            "id.orig_h",
            "id.resp_h",
            "c-ip",
            "attacker_ip",
            "sourceIPAddress",
            "actor",
            "target",
        ],
    ),
    (EntityKind::Process, &["process.executable", "exe", "process", "image"]),
    (
        EntityKind::FileHash,
        &[
            "hash",
            "hashes",
            "sha256",
            "sha1",
            "md5",
            "file_hash",
            "file.hash.sha256",
            "file.hash.sha1",
            "file.hash.md5",
            "process.hash.sha256",
            "filedigest",
            "fileHash",
        ],
    ),
    (
        EntityKind::Domain,
        &["domain", "query", "dns.question.name", "url.domain", "destination.domain", "dns.rrname", "cs-host"],
    ),
];

/// The tables, by the number of the name.
pub(crate) struct EntityTables {
    windows: ByName,
    linux: ByName,
    web: ByName,
    aws: ByName,
    generic: ByName,
}

/// The kinds that a field of a name may be; some (an actor) may be one of two.
#[derive(Default)]
struct ByName(Vec<[Option<EntityKind>; 2]>);

impl ByName {
    fn new(table: Table) -> ByName {
        let pairs = table.iter().flat_map(|(kind, texts)| texts.iter().map(|text| (*kind, *text)));
        let names = Name::intern_all(pairs.clone().map(|(_, text)| text));
        let mut kinds = Vec::new();
        for ((kind, _), name) in pairs.zip(names) {
            if kinds.len() <= name.index() {
                kinds.resize(name.index() + 1, [None; 2]);
            }
            if let Some([first, second]) = kinds.get_mut(name.index()) {
                if first.is_none() {
                    *first = Some(kind);
                } else {
                    *second = Some(kind);
                }
            }
        }
        ByName(kinds)
    }

    fn kinds(&self, name: Name) -> [Option<EntityKind>; 2] {
        self.0.get(name.index()).copied().unwrap_or_default()
    }
}

impl EntityTables {
    pub(crate) fn new() -> EntityTables {
        EntityTables {
            windows: ByName::new(WINDOWS),
            linux: ByName::new(LINUX),
            web: ByName::new(WEB),
            aws: ByName::new(AWS),
            generic: ByName::new(GENERIC),
        }
    }

    /// The entities of an event: sorted, without repeats, at most 32.
    pub(crate) fn of(&self, event: &Event) -> Vec<Entity> {
        let source = &event.log_source;
        let table = match (source.product.as_deref(), source.category.as_deref()) {
            // The packet filter of Linux or the DNS server of Windows speaks of others than the system does.
            (Some("windows" | "linux"), Some("firewall" | "dns" | "proxy")) => &self.generic,
            (Some("windows"), _) => &self.windows,
            (_, Some("webserver")) => &self.web,
            (Some("linux"), _) => &self.linux,
            (Some("aws"), _) => &self.aws,
            _ => &self.generic,
        };
        let mut entities = Vec::new();
        for (name, value, _) in event.fields.iter() {
            for kind in table.kinds(name).into_iter().flatten() {
                add(kind, value, &mut entities);
            }
        }
        entities.sort_unstable();
        entities.dedup();
        entities.truncate(ENTITIES_MAX);
        entities
    }
}

fn add(kind: EntityKind, value: &str, entities: &mut Vec<Entity>) {
    // The list of an event with thousands of addresses is cut before it costs; sorted and cut again at the end.
    if entities.len() >= ENTITIES_MAX * 8 {
        return;
    }
    match kind {
        // Sysmon: `SHA1=..,MD5=..,SHA256=..,IMPHASH=..`; the import hash is not a file's.
        EntityKind::FileHash => {
            for part in value.split([',', ';']) {
                let (label, digits) = part.split_once('=').unwrap_or(("", part));
                let is_hash =
                    matches!(digits.len(), 32 | 40 | 64 | 128) && digits.bytes().all(|b| b.is_ascii_hexdigit());
                if is_hash && !label.eq_ignore_ascii_case("imphash") {
                    entities.extend(Entity::of(kind, digits));
                }
            }
        }
        // A user that is an address is one (the event schema's `actor`).
        EntityKind::User if value.parse::<std::net::IpAddr>().is_ok() => {}
        _ => entities.extend(Entity::of(kind, value)),
    }
}
