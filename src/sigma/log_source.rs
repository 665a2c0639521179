//! Which events belong to which log source: exact, and many-to-many.
//!
//! An event belongs to a rule's log source if every part that the rule gives is the one that the event's decoder
//! declared, or if the table says so by channel and event id. One event may belong to several: Sysmon 12 is a
//! registry_event and a registry_add or registry_delete at once, 4688 of Security is a process_creation like Sysmon 1.

use std::sync::Arc;

use cf_types::LogSource;

use crate::rule::LogSourcePattern;

pub mod table;

use table::{CATEGORIES, Category, IMPLIED, PROVIDERS, SERVICES};

/// How events of one channel come to belong to a rule's log source.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Channel, as written in the table.
    pub channel: &'static str,
    /// The category's row with event ids, further conditions and field names; `None` for a whole channel.
    pub category: Option<&'static Category>,
}

/// The ways by which the table leads events to a log source; none if only a decoder's declaration can.
///
/// A pattern of product alone has none: it takes all events of the product (see [`is_product_only`]).
#[must_use]
pub fn entries(pattern: &LogSourcePattern) -> Vec<Entry> {
    let fits = |part: &Option<Arc<str>>, value: &str| part.as_deref().is_none_or(|part| part == value);
    let services = || SERVICES.iter().filter(|service| fits(&pattern.service, service.service));
    if let Some(category) = pattern.category.as_deref() {
        let rows = CATEGORIES.iter().filter(|row| row.category == category && fits(&pattern.product, row.product));
        return rows
            .flat_map(|row| {
                let channels = services()
                    .filter(|service| service.service == row.service && service.product == row.product)
                    .flat_map(|service| service.channels);
                channels.map(move |channel| Entry { channel, category: Some(row) })
            })
            .collect();
    }
    if pattern.service.is_none() {
        return Vec::new();
    }
    let channels =
        services().filter(|service| fits(&pattern.product, service.product)).flat_map(|service| service.channels);
    channels.map(|channel| Entry { channel, category: None }).collect()
}

/// Whether a pattern takes every event of a product that the table knows by channel.
#[must_use]
pub fn is_product_only(pattern: &LogSourcePattern) -> bool {
    pattern.product.is_some() && pattern.category.is_none() && pattern.service.is_none()
}

/// The product of a channel in the table.
#[must_use]
pub fn product_of_channel(channel: &str) -> Option<&'static str> {
    let known = |name: &&str| name.eq_ignore_ascii_case(channel);
    SERVICES.iter().find(|service| service.channels.iter().any(known)).map(|service| service.product)
}

/// The channel that a provider writes to, for events that came without one.
#[must_use]
pub fn channel_of_provider(provider: &str) -> Option<&'static str> {
    PROVIDERS.iter().find(|(name, _)| name.eq_ignore_ascii_case(provider)).map(|(_, channel)| *channel)
}

/// Whether a pattern fits what a decoder declared, or what follows from that by the table.
#[must_use]
pub fn fits_declared(pattern: &LogSourcePattern, declared: &LogSource) -> bool {
    let equal = |part: Option<&str>, value: Option<&str>| {
        part.is_none_or(|part| value.is_some_and(|value| value.eq_ignore_ascii_case(part)))
    };
    let fits = |product: Option<&str>, category: Option<&str>, service: Option<&str>| {
        equal(pattern.product.as_deref(), product)
            && equal(pattern.category.as_deref(), category)
            && equal(pattern.service.as_deref(), service)
    };
    let (product, category, service) =
        (declared.product.as_deref(), declared.category.as_deref(), declared.service.as_deref());
    if fits(product, category, service) {
        return true;
    }
    let same = |row: Option<&str>, value: Option<&str>| {
        row.is_none_or(|row| value.is_some_and(|value| value.eq_ignore_ascii_case(row)))
    };
    let mut implied = IMPLIED
        .iter()
        .filter(|row| same(row.product, product) && same(row.category, category) && same(row.service, service));
    implied.any(|row| fits(product, row.also_category.or(category), row.also_service.or(service)))
        || (goes_to_syslog(declared) && fits(product, category, Some("syslog")))
}

/// A Linux program's messages are in syslog, but for those that have a log of their own.
fn goes_to_syslog(declared: &LogSource) -> bool {
    let service = declared.service.as_deref().filter(|_| declared.category.is_none());
    let own = |service: &str| {
        let elsewhere = IMPLIED.iter().filter(|row| row.also_service == Some("auth")).filter_map(|row| row.service);
        elsewhere.chain(["auth", "auditd", "sysmon"]).any(|name| name.eq_ignore_ascii_case(service))
    };
    declared.product.as_deref() == Some("linux") && service.is_some_and(|service| !own(service))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(product: &str, category: &str, service: &str) -> LogSourcePattern {
        let part = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        LogSourcePattern { product: part(product), category: part(category), service: part(service) }
    }

    fn declared(product: &str, category: &str, service: &str) -> LogSource {
        let LogSourcePattern { product, category, service } = pattern(product, category, service);
        LogSource { product, category, service }
    }

    #[test]
    fn a_category_may_have_several_channels_and_event_ids() {
        let ways = |category| {
            let mut ways: Vec<(&str, &[u32])> = entries(&pattern("windows", category, ""))
                .iter()
                .map(|entry| (entry.channel, entry.category.unwrap().event_ids))
                .collect();
            ways.sort_unstable();
            ways
        };
        let sysmon = "Microsoft-Windows-Sysmon/Operational";
        assert_eq!(ways("process_creation"), [(sysmon, &[1][..]), ("Security", &[4688][..])]);
        assert_eq!(ways("registry_event"), [(sysmon, &[12, 13, 14][..])]);
        assert_eq!(ways("registry_set"), [(sysmon, &[13][..])]);
        assert_eq!(ways("no_such_category"), []);
    }

    #[test]
    fn declared_parts_must_all_be_there_unless_the_table_implies_them() {
        let sshd = declared("linux", "", "sshd");
        for (rule, fits) in [
            (pattern("linux", "", "sshd"), true),
            (pattern("linux", "", "auth"), true),
            (pattern("linux", "", ""), true),
            (pattern("linux", "", "sudo"), false),
            (pattern("windows", "", "sshd"), false),
            (pattern("linux", "process_creation", ""), false),
            (pattern("", "", "auth"), true),
            (pattern("", "", ""), true),
        ] {
            assert_eq!(fits_declared(&rule, &sshd), fits, "{rule:?}");
        }
        assert!(!fits_declared(&pattern("linux", "", "syslog"), &sshd));
        assert!(fits_declared(&pattern("linux", "", "syslog"), &declared("linux", "", "named")));
        assert!(!fits_declared(&pattern("linux", "", "syslog"), &declared("linux", "", "auditd")));
        let nginx = declared("nginx", "webserver", "nginx");
        assert!(fits_declared(&pattern("", "webserver", ""), &nginx));
        assert!(fits_declared(&pattern("", "", "nginx"), &nginx));
        assert!(!fits_declared(&pattern("", "", "apache"), &nginx));
    }
}
