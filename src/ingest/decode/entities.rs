//! Whom an event speaks of: which fields of which product hold which kind of entity.
//!
//! Tables for text logs and Windows stand here; what a mapping says of its product's fields is added.

use std::sync::Arc;

use cf_types::{Entity, EntityKind, Event, Name};
use rustc_hash::FxHashMap;

use super::vendor;

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
    (EntityKind::Domain, &["DestinationHostname"]),
];

const WEB: Table = &[
    (EntityKind::Host, &["host", "s-computername"]),
    (EntityKind::User, &["cs-username"]),
    (EntityKind::Address, &["c-ip"]),
    (EntityKind::Domain, &["cs-host"]),
];

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
    web: ByName,
    generic: ByName,
    /// Of the products that have one.
    products: FxHashMap<Arc<str>, ByName>,
}

/// The kinds that a field of a name may be; some (an actor) may be one of two.
#[derive(Default)]
struct ByName(Vec<[Option<EntityKind>; 2]>);

impl ByName {
    fn new(table: Table) -> ByName {
        let mut by_name = ByName::default();
        by_name.add(table.iter().flat_map(|(kind, texts)| texts.iter().map(|text| (*kind, *text))));
        by_name
    }

    /// Adds what a product says of its fields, in place of what was thought of these names.
    fn say(&mut self, pairs: Vec<(EntityKind, &str)>) {
        for name in Name::intern_all(pairs.iter().map(|(_, text)| *text)) {
            if let Some(kinds) = self.0.get_mut(name.index()) {
                *kinds = [None; 2];
            }
        }
        self.add(pairs.into_iter());
    }

    fn add<'a>(&mut self, pairs: impl Iterator<Item = (EntityKind, &'a str)>) {
        let pairs: Vec<_> = pairs.collect();
        let names = Name::intern_all(pairs.iter().map(|(_, text)| *text));
        for ((kind, _), name) in pairs.into_iter().zip(names) {
            if self.0.len() <= name.index() {
                self.0.resize(name.index() + 1, [None; 2]);
            }
            match self.0.get_mut(name.index()) {
                Some([Some(first), _]) if *first == kind => {}
                Some([first @ None, _]) => *first = Some(kind),
                Some([_, second]) => *second = Some(kind),
                None => {}
            }
        }
    }

    fn kinds(&self, name: Name) -> [Option<EntityKind>; 2] {
        self.0.get(name.index()).copied().unwrap_or_default()
    }
}

impl EntityTables {
    /// The tables, with what these mappings say.
    pub(crate) fn new<'t>(mappings: impl Iterator<Item = &'t vendor::table::Table>) -> EntityTables {
        let base = [("windows", WINDOWS), ("linux", LINUX)];
        let mut tables = EntityTables {
            web: ByName::new(WEB),
            generic: ByName::new(GENERIC),
            products: base.into_iter().map(|(product, table)| (Arc::from(product), ByName::new(table))).collect(),
        };
        let mut by_product: FxHashMap<Option<&Arc<str>>, Vec<(EntityKind, &str)>> = FxHashMap::default();
        for (product, kind, field) in mappings.flat_map(|mapping| &mapping.entities) {
            by_product.entry(product.as_ref()).or_default().push((*kind, field));
        }
        for (product, pairs) in by_product {
            let table = match product {
                Some(product) => tables.products.entry(Arc::clone(product)).or_insert_with(|| ByName::new(GENERIC)),
                None => &mut tables.generic,
            };
            table.say(pairs);
        }
        tables
    }

    /// The entities of an event: sorted, without repeats, at most 32.
    pub(crate) fn of(&self, event: &Event) -> Vec<Entity> {
        let source = &event.log_source;
        let of_product = source.product.as_ref().and_then(|product| self.products.get(product));
        let table = match (source.product.as_deref(), source.category.as_deref(), of_product) {
            // The packet filter of Linux or the DNS server of Windows speaks of others than the system does.
            (Some("windows" | "linux"), Some("firewall" | "dns" | "proxy"), _) => &self.generic,
            (product, Some("webserver"), _) if product != Some("windows") => &self.web,
            (_, _, Some(table)) => table,
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
