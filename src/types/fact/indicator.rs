//! Indicators of compromise: addresses, domains, URLs and hashes that a threat is known by (DET-04, KB-02).

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    entity::{Entity, EntityKind},
    time::Time,
};

/// What an indicator looks like in events.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// An address of this network; one address is a network of one.
    Address(IpNet),
    /// This name; `*.evil.example` is any name below it.
    Domain(Arc<str>),
    /// This URL, without its fragment; scheme and host in lower case.
    Url(Arc<str>),
    /// A file's hash (MD5, SHA-1, SHA-256 or SHA-512), lower-case hexadecimal.
    Hash(Arc<str>),
}

impl Pattern {
    /// The word for its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Pattern::Address(_) => "address",
            Pattern::Domain(_) => "domain",
            Pattern::Url(_) => "url",
            Pattern::Hash(_) => "hash",
        }
    }

    /// Makes a pattern of a text whose kind shows: an address or network, a hash, a URL, else a domain.
    ///
    /// # Errors
    /// It is none of these, as a sentence.
    pub fn read(text: &str) -> Result<Pattern, String> {
        let text = text.trim();
        if text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
            return Pattern::of("address", text);
        }
        if text.contains("://") {
            return Pattern::of("url", text);
        }
        if text.bytes().all(|byte| byte.is_ascii_hexdigit()) && !text.contains('.') {
            return Pattern::of("hash", text);
        }
        Pattern::of("domain", text)
    }

    /// Makes a pattern of a kind, `address`, `domain`, `url` or `hash`.
    ///
    /// # Errors
    /// The kind is not known or the text is none, as a sentence.
    pub fn of(kind: &str, text: &str) -> Result<Pattern, String> {
        let text = text.trim();
        match kind {
            "address" => super::said::network(text).map(Pattern::Address),
            "domain" => domain(text).map(Pattern::Domain).ok_or_else(|| format!("{text:?} is no domain")),
            "url" => url(text).map(Pattern::Url).ok_or_else(|| format!("{text:?} is no URL")),
            "hash" => hash(text)
                .map(Pattern::Hash)
                .ok_or_else(|| format!("{text:?} is no MD5, SHA-1, SHA-256 or SHA-512 in hexadecimal digits")),
            other => Err(format!("unknown kind of indicator {other:?}; known: address, domain, url, hash")),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Address(network) if network.prefix_len() == network.max_prefix_len() => {
                write!(f, "{}", network.addr())
            }
            Pattern::Address(network) => write!(f, "{network}"),
            Pattern::Domain(text) | Pattern::Url(text) | Pattern::Hash(text) => f.write_str(text),
        }
    }
}

/// One thing in an event that an indicator may name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observable {
    /// An address.
    Address(IpAddr),
    /// A DNS name.
    Domain(Arc<str>),
    /// A URL.
    Url(Arc<str>),
    /// A file's hash.
    Hash(Arc<str>),
}

impl Observable {
    /// Fields that hold a URL, by the names in use (Sigma taxonomy, ECS, proxies).
    pub const URL_FIELDS: [&str; 8] =
        ["url", "url.full", "url.original", "c-uri", "cs-uri", "request_url", "http.url", "UrlOriginal"];

    /// What an entity can be looked for as.
    #[must_use]
    pub fn of_entity(entity: &Entity) -> Option<Observable> {
        match entity.kind {
            EntityKind::Address => entity.value.parse().ok().map(Observable::Address),
            EntityKind::Domain => Some(Observable::Domain(Arc::clone(&entity.value))),
            EntityKind::FileHash => Some(Observable::Hash(Arc::clone(&entity.value))),
            EntityKind::Host | EntityKind::User | EntityKind::Process => None,
        }
    }

    /// What a URL in an event can be looked for as: itself and its host.
    #[must_use]
    pub fn of_url(text: &str) -> Vec<Observable> {
        let Some(url) = url(text) else { return Vec::new() };
        let host = host_of(&url).map(|host| match host.parse::<IpAddr>() {
            Ok(address) => Observable::Address(address.to_canonical()),
            Err(_) => Observable::Domain(Arc::from(host)),
        });
        [Observable::Url(Arc::clone(&url))].into_iter().chain(host).collect()
    }

    /// The names above a domain, as patterns are written: `a.b.c` gives `*.b.c` and `*.c`.
    #[must_use]
    pub fn wildcards(name: &str) -> Vec<Arc<str>> {
        let parents = name.match_indices('.').filter_map(|(at, _)| name.get(at + 1..));
        parents.filter(|parent| !parent.is_empty()).map(|parent| Arc::from(format!("*.{parent}"))).collect()
    }
}

/// Whoever meets this meets a threat, as far as its source can be trusted and while it holds in event time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Indicator {
    /// What it looks like.
    pub pattern: Pattern,
    /// How sure its source is, 0 to 100.
    pub confidence: u8,
    /// Events from here on, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// Events up to here, exclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Who says so.
    #[serde(default)]
    pub source: Arc<str>,
    /// Any words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Arc<str>>,
}

crate::compact::text_where_compact!(Indicator);

impl Indicator {
    /// Whether it holds for an event of this second.
    #[must_use]
    pub fn holds_at(&self, time: Time) -> bool {
        self.from.is_none_or(|from| from <= time) && self.until.is_none_or(|until| time < until)
    }
}

/// A DNS name in lower case without its final dot, perhaps with `*.` before it.
fn domain(text: &str) -> Option<Arc<str>> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let labels = name.strip_prefix("*.").unwrap_or(&name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // One label alone (`localhost`, a typing mistake) names nothing on the Internet.
    let known = labels.contains('.') && name.len() <= 253 && labels.split('.').all(is_label);
    (known && labels.parse::<IpAddr>().is_err()).then(|| Arc::from(name))
}

/// A URL as patterns and observables write it.
fn url(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    let text = text.split_once('#').map_or(text, |(before, _)| before);
    let (scheme, rest) = text.split_once("://")?;
    let scheme_is = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let fits = scheme_is && !authority.is_empty() && text.len() <= 2_048 && !text.contains(char::is_whitespace);
    let path = if path.is_empty() { "/" } else { path };
    fits.then(|| Arc::from(format!("{}://{}{path}", scheme.to_ascii_lowercase(), authority.to_ascii_lowercase())))
}

/// The host of a URL in that form: without user, port and brackets.
fn host_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.get(..rest.find(['/', '?'])?)?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(v6) = host.strip_prefix('[') {
        return v6.split_once(']').map(|(address, _)| address);
    }
    Some(host.split_once(':').map_or(host, |(host, _)| host)).filter(|host| !host.is_empty())
}

fn hash(text: &str) -> Option<Arc<str>> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (digits && matches!(text.len(), 32 | 40 | 64 | 128)).then(|| Arc::from(text.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let got = match Pattern::read(text) {
            Ok(pattern) => format!("{} {pattern}", pattern.kind()),
            Err(error) => error,
        };
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn the_kind_shows_in_the_text() {
        check("203.0.113.9", "address 203.0.113.9");
        check("::ffff:203.0.113.9", "address 203.0.113.9");
        check("203.0.113.9/24", "address 203.0.113.0/24");
        check("Evil.Example.", "domain evil.example");
        check("*.Evil.example", "domain *.evil.example");
        check("HTTP://Evil.example/A?b#c", "url http://evil.example/A?b");
        check("D41D8CD98F00B204E9800998ECF8427E", "hash d41d8cd98f00b204e9800998ecf8427e");
        check("localhost", r#""localhost" is no domain"#);
        check("abc", r#""abc" is no MD5, SHA-1, SHA-256 or SHA-512 in hexadecimal digits"#);
        check("a b.c", r#""a b.c" is no domain"#);
    }

    #[test]
    fn a_url_is_looked_for_with_its_host() {
        let of = |text| Observable::of_url(text);
        assert_eq!(
            of("https://u@Evil.example:8443"),
            [Observable::Url("https://u@evil.example:8443/".into()), Observable::Domain("evil.example".into())]
        );
        assert_eq!(of("http://[2001:db8::1]/x").get(1), Some(&Observable::Address("2001:db8::1".parse().unwrap())));
        assert!(of("/only/a/path").is_empty());
    }

    #[test]
    fn names_above_a_name() {
        assert_eq!(Observable::wildcards("a.b.c"), ["*.b.c".into(), Arc::<str>::from("*.c")]);
        assert!(Observable::wildcards("c").is_empty());
    }
}
