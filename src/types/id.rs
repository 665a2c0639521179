//! Identities: BLAKE3-128 with fixed contexts, because what they are made of is under an attacker's control.
//!
//! None contains an epoch, a count, a version or a worker, so that any order of arrival gives the same ids.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{alert::Group, time::Cell};

/// Whose data this is. Part of every key and id; `default` until there are several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// Names a tenant.
    #[must_use]
    pub fn new(name: &str) -> Tenant {
        Tenant(Arc::from(name))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Tenant {
    fn default() -> Tenant {
        Tenant::new("default")
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hashes length-prefixed parts under a context, so that no two lists of parts give the same input.
#[must_use]
pub fn digest128(context: &'static str, parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part);
    }
    let mut out = [0; 16];
    out.copy_from_slice(hasher.finalize().as_bytes().first_chunk::<16>().unwrap_or(&[0; 16]));
    out
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Shown as 32 lower-case hexadecimal digits.
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<$name, IdError> {
                u128::from_str_radix(text, 16)
                    .ok()
                    .filter(|_| text.len() == 32 && !text.starts_with('+'))
                    .map(|number| $name(number.to_be_bytes()))
                    .ok_or(IdError)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// Names an event: `BLAKE3-128(tenant, source principal, key)` (`streaming.md`, *Event identity and dedup*).
    EventId
}
id! {
    /// Names an alert: an episode of a rule in a group, by its anchor.
    AlertId
}
id! {
    /// Names an incident by its canonical alert.
    IncidentId
}
id! {
    /// Names one desired or actual action: kind and target.
    ActionId
}

/// A text is no id: 32 hexadecimal digits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdError;

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an id: 32 hexadecimal digits are wanted")
    }
}

impl std::error::Error for IdError {}

impl EventId {
    /// The id of an event whose source declares one. The content counts too, so that nobody can suppress another's
    /// event by sending its id first; `content` is the canonical record.
    #[must_use]
    pub fn declared(tenant: &Tenant, principal: &str, declared: &str, content: &[u8]) -> EventId {
        EventId(digest128(
            "counterflow 2026 event id, declared",
            &[tenant.as_str().as_bytes(), principal.as_bytes(), declared.as_bytes(), blake3::hash(content).as_bytes()],
        ))
    }

    /// The id of an event that only its position tells apart: two equal lines are two events.
    #[must_use]
    pub fn positioned(tenant: &Tenant, principal: &str, origin: &str, offset: u64, index: u32) -> EventId {
        EventId(digest128(
            "counterflow 2026 event id, position",
            &[
                tenant.as_str().as_bytes(),
                principal.as_bytes(),
                origin.as_bytes(),
                &offset.to_le_bytes(),
                &index.to_le_bytes(),
            ],
        ))
    }
}

/// Whether a piece of a run began with its first item or with a cut of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AnchorKind {
    /// The first item's cell in the first hit's window.
    Item,
    /// A boundary of the cut grid.
    Cut,
}

impl AlertId {
    /// The id of the episode of `rule` in `group` that is anchored at `anchor`.
    #[must_use]
    pub fn of(tenant: &Tenant, rule: &str, group: &Group, kind: AnchorKind, anchor: Cell) -> AlertId {
        let kind: &[u8] = match kind {
            AnchorKind::Item => b"a",
            AnchorKind::Cut => b"c",
        };
        AlertId(digest128(
            "cf.alert.1",
            &[tenant.as_str().as_bytes(), rule.as_bytes(), &group.canonical(), kind, &anchor.to_le_bytes()],
        ))
    }
}

impl IncidentId {
    /// The id of the incident whose smallest (anchor, alert) is this one.
    #[must_use]
    pub fn of(tenant: &Tenant, anchor: Cell, alert: AlertId) -> IncidentId {
        IncidentId(digest128("cf.incident.1", &[tenant.as_str().as_bytes(), &anchor.to_le_bytes(), &alert.0]))
    }
}

impl ActionId {
    /// The id of doing `kind` to `target`.
    #[must_use]
    pub fn of(tenant: &Tenant, kind: &str, target: &str) -> ActionId {
        ActionId(digest128("cf.action.1", &[tenant.as_str().as_bytes(), kind.as_bytes(), target.as_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart_by_length() {
        assert_ne!(digest128("t", &[b"ab", b"c"]), digest128("t", &[b"a", b"bc"]));
    }

    #[test]
    fn ids_show_and_parse_alike() {
        let id = EventId::positioned(&Tenant::default(), "file", "a.log", 3, 0);
        assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
        assert!("+123".parse::<EventId>().is_err());
    }
}
