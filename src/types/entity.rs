//! Who and what an event speaks of: the nodes of risk, incidents and actions.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The kinds of entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityKind {
    /// A machine, by name.
    Host,
    /// An account, by name.
    User,
    /// An IP address, v4-mapped v6 written as v4.
    Address,
    /// A process, by image path.
    Process,
    /// A file's hash, lower-case hexadecimal.
    FileHash,
    /// A DNS name, lower-case, without the final dot.
    Domain,
}

impl EntityKind {
    /// Its word in JSON, SQL and settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            EntityKind::Host => "host",
            EntityKind::User => "user",
            EntityKind::Address => "address",
            EntityKind::Process => "process",
            EntityKind::FileHash => "file_hash",
            EntityKind::Domain => "domain",
        }
    }

    /// The kind of entity that a field of this name holds, by a table of the field names in use (Sigma taxonomy, ECS,
    /// Windows, this project's decoders). Case does not matter.
    ///
    /// ```
    /// use cf_types::EntityKind;
    /// assert_eq!(EntityKind::of_field("IpAddress"), Some(EntityKind::Address));
    /// assert_eq!(EntityKind::of_field("CommandLine"), None);
    /// ```
    #[must_use]
    pub fn of_field(field: &str) -> Option<EntityKind> {
        const TABLE: &[(EntityKind, &[&str])] = &[
            (
                EntityKind::Address,
                &[
                    "address",
                    "source_ip",
                    "src_ip",
                    "client_ip",
                    "remote_addr",
                    "ipaddress",
                    "sourceip",
                    "c-ip",
                    "source.ip",
                    "client.ip",
                    "sourceipaddress",
                    "src",
                    "ip",
                    "id.orig_h",
                    "destinationip",
                    "dst_ip",
                    "destination.ip",
                    "id.resp_h",
                    "attacker_ip",
                    "remote_ip",
                    "sourceaddress",
                    "destaddress",
                ],
            ),
            (
                EntityKind::User,
                &[
                    "user",
                    "username",
                    "user.name",
                    "targetusername",
                    "subjectusername",
                    "account",
                    "actor",
                    "source_user",
                    "useridentity.username",
                    "useridentity.arn",
                    "user_name",
                    "c-user",
                    "cs-username",
                    "target_user",
                    "normalized_data.actor",
                ],
            ),
            (
                EntityKind::Host,
                &["host", "hostname", "computer", "host.name", "computername", "workstationname", "machine", "node"],
            ),
            (EntityKind::Process, &["image", "process.executable", "exe", "newprocessname", "process"]),
            (
                EntityKind::FileHash,
                &["hash", "hashes", "sha256", "sha1", "md5", "imphash", "file.hash.sha256", "file_hash"],
            ),
            (
                EntityKind::Domain,
                &["domain", "queryname", "query", "dns.question.name", "destinationhostname", "cs-host", "r-dns"],
            ),
        ];
        let lower = field.to_ascii_lowercase();
        TABLE.iter().find(|(_, names)| names.contains(&lower.as_str())).map(|(kind, _)| *kind)
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entity: a kind and a normalised value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entity {
    /// What it is.
    pub kind: EntityKind,
    /// Its normalised name.
    pub value: Arc<str>,
}

impl Entity {
    /// Makes an entity of a raw value, normalised by kind; `None` for placeholders (`-`, empty, `N/A`, `::`,
    /// `0.0.0.0`) and for texts that cannot be one (an address that does not parse, more than 1,024 bytes).
    #[must_use]
    pub fn of(kind: EntityKind, raw: &str) -> Option<Entity> {
        let raw = raw.trim();
        if raw.is_empty() || raw == "-" || raw.len() > 1_024 || raw.eq_ignore_ascii_case("n/a") {
            return None;
        }
        let value: Arc<str> = match kind {
            EntityKind::Address => {
                let address: IpAddr = raw.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
                let address = address.to_canonical();
                if address.is_unspecified() {
                    return None;
                }
                Arc::from(address.to_string())
            }
            EntityKind::Host | EntityKind::Domain => Arc::from(raw.trim_end_matches('.').to_ascii_lowercase()),
            EntityKind::FileHash => Arc::from(raw.to_ascii_lowercase()),
            EntityKind::User | EntityKind::Process => Arc::from(raw),
        };
        (!value.is_empty()).then_some(Entity { kind, value })
    }
}

impl FromStr for Entity {
    type Err = String;

    /// Reads `host:web01`, `user:alice`, `address:10.0.0.7`, ...
    fn from_str(text: &str) -> Result<Entity, String> {
        const KINDS: [EntityKind; 6] = [
            EntityKind::Host,
            EntityKind::User,
            EntityKind::Address,
            EntityKind::Process,
            EntityKind::FileHash,
            EntityKind::Domain,
        ];
        let text = text.trim();
        let known = || KINDS.map(EntityKind::as_str).join(", ");
        let wrong =
            || format!("{text:?} is no entity; write KIND:NAME, such as host:web01, with a kind of {}", known());
        let (kind, name) = text.split_once(':').ok_or_else(wrong)?;
        let kind = KINDS.into_iter().find(|known| known.as_str() == kind.trim()).ok_or_else(wrong)?;
        Entity::of(kind, name).ok_or_else(|| format!("{:?} is no {kind}", name.trim()))
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: EntityKind, raw: &str, expect: Option<&str>) {
        assert_eq!(Entity::of(kind, raw).as_ref().map(|entity| &*entity.value), expect);
    }

    #[test]
    fn values_are_normalised_by_kind() {
        check(EntityKind::Address, "::ffff:10.0.0.1", Some("10.0.0.1"));
        check(EntityKind::Address, "2001:DB8::1", Some("2001:db8::1"));
        check(EntityKind::Address, "0.0.0.0", None);
        check(EntityKind::Address, "localhost", None);
        check(EntityKind::Host, "WEB01.Example.org.", Some("web01.example.org"));
        check(EntityKind::User, "-", None);
    }
}
