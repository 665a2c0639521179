//! Which events belong to which log source: exact, and many-to-many.
//!
//! An event belongs to a rule's log source if every part that the rule gives is the one that the event's decoder
//! declared, or if the table says so by channel and event id. One event may belong to several: Sysmon 12 is a
//! registry_event and a registry_add or registry_delete at once, 4688 of Security is a process_creation like Sysmon 1.
//!
//! The table is text (`log_source/table.yml`); files of the same form extend it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, LazyLock},
};

use cf_types::LogSource;

use crate::{Problem, Text, rule::LogSourcePattern};

mod read;

/// A service of a product and the channels it writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `windows`, `linux`, ... in lower case, like all of these.
    pub product: Arc<str>,
    /// As in a rule's `logsource`.
    pub service: Arc<str>,
    /// As in an event's `Channel`; case does not matter.
    pub channels: Vec<Arc<str>>,
}

/// A category, and which events of a service belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Category {
    /// `windows`, `linux`, ...
    pub product: Arc<str>,
    /// As in a rule's `logsource`.
    pub category: Arc<str>,
    /// The service whose channels hold its events.
    pub service: Arc<str>,
    /// Their event ids.
    pub event_ids: Vec<u32>,
    /// Fields that must have one of these values as well; case does not matter.
    pub when: Vec<(Arc<str>, Vec<Arc<str>>)>,
    /// A rule's field, and the event's field that holds it.
    pub fields: Vec<(Arc<str>, Arc<str>)>,
}

/// What follows from a declaration: events so declared are also of this product, category or service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Implied {
    pub(crate) product: Wanted,
    pub(crate) category: Wanted,
    pub(crate) service: Wanted,
    /// Services for which it does not hold, nor for those that another row sends to one of these.
    pub(crate) except: Vec<Arc<str>>,
    pub(crate) also: LogSource,
}

/// What a row wants of a part of a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It does not matter.
    Whatever,
    /// Nothing may be declared.
    Absent,
    /// Anything must be.
    Present,
    /// This.
    Is(Arc<str>),
}

/// The table. Cheap to share; made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSources {
    services: Vec<Service>,
    categories: Vec<Category>,
    declared: Vec<LogSource>,
    implied: Vec<Implied>,
    providers: Vec<(Arc<str>, Arc<str>)>,
    /// Of the texts it was made from.
    digest: [u8; 32],
}

/// How events of one channel come to belong to a rule's log source.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'t> {
    /// Channel, as written in the table.
    pub channel: &'t Arc<str>,
    /// The category's row with event ids, further conditions and field names; `None` for a whole channel.
    pub category: Option<&'t Category>,
}

/// By what a log source can be fed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// Channels, with the event ids that belong to it; `None` for all of them.
    pub channels: BTreeMap<Arc<str>, Option<Vec<u32>>>,
    /// Declarations of decoders, or of sources in the settings.
    pub declared: Vec<LogSource>,
}

impl Fed {
    /// Whether nothing can feed it.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.channels.is_empty() && self.declared.is_empty()
    }
}

impl fmt::Display for Fed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channels = self.channels.iter().map(|(channel, ids)| match ids {
            Some(ids) => {
                format!("channel {channel}, event {}", ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))
            }
            None => format!("channel {channel}"),
        });
        let declared = self.declared.iter().map(|declared| format!("declared {}", shown(declared)));
        let ways: Vec<String> = channels.chain(declared).collect();
        f.write_str(if ways.is_empty() { "nothing" } else { "" })?;
        f.write_str(&ways.join("; "))
    }
}

/// `product/category/service`, a part that is not given as `-`.
fn shown(source: &LogSource) -> String {
    [&source.product, &source.category, &source.service].map(|part| part.as_deref().unwrap_or("-")).join("/")
}

impl LogSources {
    /// The table that is shipped.
    #[must_use]
    pub fn built_in() -> &'static Arc<LogSources> {
        static TABLE: LazyLock<Arc<LogSources>> = LazyLock::new(|| {
            let text = Text { file: "table.yml".into(), text: include_str!("log_source/table.yml").to_owned() };
            let table = read::extended(&LogSources::empty(), &[text]);
            Arc::new(table.expect("the shipped table is valid, a test reads it"))
        });
        &TABLE
    }

    /// With the rows of these texts as well: more services, categories, declarations, providers.
    ///
    /// # Errors
    ///
    /// What is wrong in them; the table stays as it was.
    pub fn extended_by(&self, texts: &[Text]) -> Result<LogSources, Vec<Problem>> {
        read::extended(self, texts)
    }

    const fn empty() -> LogSources {
        LogSources {
            services: Vec::new(),
            categories: Vec::new(),
            declared: Vec::new(),
            implied: Vec::new(),
            providers: Vec::new(),
            digest: [0; 32],
        }
    }

    /// Services and their channels.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Categories, several rows for one that events of several services belong to.
    #[must_use]
    pub fn categories(&self) -> &[Category] {
        &self.categories
    }

    /// What decoders, and sources in the settings, declare.
    #[must_use]
    pub fn declared(&self) -> &[LogSource] {
        &self.declared
    }

    /// Tells one table from another.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The ways by which the table leads events to a log source; none if only a decoder's declaration can.
    ///
    /// A pattern of product alone has none: it takes all events of the product (see [`is_product_only`]).
    #[must_use]
    pub fn entries(&self, pattern: &LogSourcePattern) -> Vec<Entry<'_>> {
        let fits = |part: &Option<Arc<str>>, value: &str| part.as_deref().is_none_or(|part| part == value);
        let services = || self.services.iter().filter(|service| fits(&pattern.service, &service.service));
        if let Some(category) = pattern.category.as_deref() {
            let rows =
                self.categories.iter().filter(|row| &*row.category == category && fits(&pattern.product, &row.product));
            return rows
                .flat_map(|row| {
                    let channels = services()
                        .filter(|service| service.service == row.service && service.product == row.product)
                        .flat_map(|service| &service.channels);
                    channels.map(move |channel| Entry { channel, category: Some(row) })
                })
                .collect();
        }
        if pattern.service.is_none() {
            return Vec::new();
        }
        let channels =
            services().filter(|service| fits(&pattern.product, &service.product)).flat_map(|service| &service.channels);
        channels.map(|channel| Entry { channel, category: None }).collect()
    }

    /// The product of a channel in the table.
    #[must_use]
    pub fn product_of_channel(&self, channel: &str) -> Option<&Arc<str>> {
        let known = |name: &Arc<str>| name.eq_ignore_ascii_case(channel);
        self.services.iter().find(|service| service.channels.iter().any(known)).map(|service| &service.product)
    }

    /// The channel that a provider writes to, for events that came without one.
    #[must_use]
    pub fn channel_of_provider(&self, provider: &str) -> Option<&str> {
        self.providers.iter().find(|(name, _)| name.eq_ignore_ascii_case(provider)).map(|(_, channel)| &**channel)
    }

    /// Whether a pattern fits what a decoder declared, or what follows from that by the table.
    #[must_use]
    pub fn fits_declared(&self, pattern: &LogSourcePattern, declared: &LogSource) -> bool {
        fits(pattern, declared) || self.also(declared).any(|also| fits(pattern, &also))
    }

    /// All that events so declared are, besides what was declared.
    fn also(&self, declared: &LogSource) -> impl Iterator<Item = LogSource> {
        self.implied.iter().filter(|row| row.follows(declared) && !self.is_excepted(row, declared)).map(|row| {
            let or = |also: &Option<Arc<str>>, declared: &Option<Arc<str>>| also.clone().or_else(|| declared.clone());
            LogSource {
                product: or(&row.also.product, &declared.product),
                category: or(&row.also.category, &declared.category),
                service: or(&row.also.service, &declared.service),
            }
        })
    }

    fn is_excepted(&self, row: &Implied, declared: &LogSource) -> bool {
        let among = |service: &Option<Arc<str>>| {
            service.as_deref().is_some_and(|service| row.except.iter().any(|name| name.eq_ignore_ascii_case(service)))
        };
        let others = || self.implied.iter().filter(|other| other.except.is_empty() && other.follows(declared));
        !row.except.is_empty() && (among(&declared.service) || others().any(|other| among(&other.also.service)))
    }

    /// By which channels and declarations a rule's log source can be fed, as far as the table knows.
    #[must_use]
    pub fn known(&self, pattern: &LogSourcePattern) -> Fed {
        let mut fed = Fed::default();
        for entry in self.entries(pattern) {
            let ids = fed.channels.entry(Arc::clone(entry.channel)).or_insert_with(|| Some(Vec::new()));
            *ids = ids.take().zip(entry.category).map(|(mut ids, row)| {
                ids.extend(&row.event_ids);
                ids.sort_unstable();
                ids.dedup();
                ids
            });
        }
        if is_product_only(pattern) {
            let of = self.services.iter().filter(|service| Some(&service.product) == pattern.product.as_ref());
            fed.channels.extend(of.flat_map(|service| &service.channels).map(|channel| (Arc::clone(channel), None)));
        }
        fed.declared = self.declared.iter().filter(|row| self.fits_declared(pattern, row)).cloned().collect();
        fed
    }
}

impl Implied {
    fn follows(&self, declared: &LogSource) -> bool {
        self.product.fits(declared.product.as_deref())
            && self.category.fits(declared.category.as_deref())
            && self.service.fits(declared.service.as_deref())
    }
}

impl Wanted {
    fn fits(&self, declared: Option<&str>) -> bool {
        match self {
            Wanted::Whatever => true,
            Wanted::Absent => declared.is_none(),
            Wanted::Present => declared.is_some(),
            Wanted::Is(wanted) => declared.is_some_and(|declared| declared.eq_ignore_ascii_case(wanted)),
        }
    }
}

/// Whether a pattern takes every event of a product that the table knows by channel.
#[must_use]
pub fn is_product_only(pattern: &LogSourcePattern) -> bool {
    pattern.product.is_some() && pattern.category.is_none() && pattern.service.is_none()
}

fn fits(pattern: &LogSourcePattern, declared: &LogSource) -> bool {
    let equal = |part: &Option<Arc<str>>, value: &Option<Arc<str>>| {
        part.as_deref().is_none_or(|part| value.as_deref().is_some_and(|value| value.eq_ignore_ascii_case(part)))
    };
    equal(&pattern.product, &declared.product)
        && equal(&pattern.category, &declared.category)
        && equal(&pattern.service, &declared.service)
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

    fn text(text: &str) -> Text {
        Text { file: "mine.yml".into(), text: text.to_owned() }
    }

    #[test]
    fn a_category_may_have_several_channels_and_event_ids() {
        let table = LogSources::built_in();
        let ways = |category| {
            let mut ways: Vec<(&str, &[u32])> = table
                .entries(&pattern("windows", category, ""))
                .iter()
                .map(|entry| (&**entry.channel, &*entry.category.unwrap().event_ids))
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
        let table = LogSources::built_in();
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
            assert_eq!(table.fits_declared(&rule, &sshd), fits, "{rule:?}");
        }
        for (rule, source, fits) in [
            (pattern("linux", "", "syslog"), declared("linux", "", "sshd"), false),
            (pattern("linux", "", "syslog"), declared("linux", "", "named"), true),
            (pattern("linux", "", "syslog"), declared("linux", "", "crond"), true),
            (pattern("linux", "", "cron"), declared("linux", "", "crond"), true),
            (pattern("linux", "", "syslog"), declared("linux", "", "auditd"), false),
            (pattern("linux", "", "syslog"), declared("linux", "process_creation", "named"), false),
            (pattern("linux", "", "syslog"), declared("linux", "", ""), false),
            (pattern("", "webserver", ""), declared("nginx", "webserver", "nginx"), true),
            (pattern("", "", "nginx"), declared("nginx", "webserver", "nginx"), true),
            (pattern("", "", "apache"), declared("nginx", "webserver", "nginx"), false),
            (pattern("", "dns", ""), declared("zeek", "", "dns"), true),
            (pattern("", "dns", ""), declared("zeek", "", "http"), false),
            (pattern("windows", "registry_event", ""), declared("windows", "registry_set", ""), true),
            (pattern("windows", "registry_set", ""), declared("windows", "registry_event", ""), false),
            (pattern("kubernetes", "application", "audit"), declared("kubernetes", "", "audit"), true),
            (pattern("m365", "", "audit"), declared("m365", "", "exchange"), true),
        ] {
            assert_eq!(table.fits_declared(&rule, &source), fits, "{rule:?} {source:?}");
        }
    }

    #[test]
    fn a_pattern_says_by_what_it_can_be_fed() {
        let table = LogSources::built_in();
        for (rule, fed) in [
            (
                pattern("windows", "registry_add", ""),
                "channel Microsoft-Windows-Sysmon/Operational, event 12; declared windows/registry_add/-",
            ),
            (pattern("", "", "security"), "channel Security"),
            (pattern("aws", "", "cloudtrail"), "declared aws/-/cloudtrail"),
            (pattern("linux", "", "guacamole"), "declared linux/-/guacamole; declared linux/-/guacd"),
            (pattern("windows", "file_access", ""), "nothing"),
            (pattern("windows", "process_craetion", ""), "nothing"),
        ] {
            assert_eq!(table.known(&rule).to_string(), fed);
        }
        assert!(table.known(&pattern("windows", "", "")).channels.len() > 50);
    }

    #[test]
    fn a_file_of_the_same_form_extends_the_table() {
        let table = LogSources::built_in();
        let mine = "\
services:
  windows: {sysmon: Sysmon-Copy/Operational, mine: [Mine/Admin]}
  acme: {door: Acme/Door}
categories:
  acme:
    opening: {service: door, event_ids: [7, 8], when: {State: open}, fields: {User: Badge}}
providers: {Acme-Door: Acme/Door}
declared:
  - {product: acme, service: [gate, fence]}
implied:
  - {when: {product: acme, service: gate}, also: {category: opening}}
";
        let extended = table.extended_by(&[text(mine)]).unwrap();
        assert_ne!(extended.digest(), table.digest());
        for (rule, fed) in [
            (pattern("acme", "opening", ""), "channel Acme/Door, event 7, 8; declared acme/-/gate"),
            (pattern("acme", "", "fence"), "declared acme/-/fence"),
            (
                pattern("windows", "", "sysmon"),
                "channel Microsoft-Windows-Sysmon/Operational; channel Sysmon-Copy/Operational",
            ),
        ] {
            assert_eq!(extended.known(&rule).to_string(), fed);
        }
        assert_eq!(extended.channel_of_provider("acme-door"), Some("Acme/Door"));
        assert_eq!(extended.product_of_channel("ACME/door").map(|product| &**product), Some("acme"));
        assert_eq!(extended.extended_by(&[]).unwrap(), extended);
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said_and_nothing_of_it_is_taken() {
        for (mine, said) in [
            ("service: {}", "mine.yml:1: unknown part of the table: \"service\"; did you mean \"services\"?"),
            ("- a", "mine.yml:1: the table of log sources is a list, not a map"),
            ("a: [", "mine.yml:1: could not read the text as YAML: unclosed bracket '['"),
            ("services: {a: {b: {c: d}}}", "mine.yml:1: a channel of \"b\" is a map, not a text"),
            ("categories: {a: {b: {event_ids: 1}}}", "mine.yml:1: the category \"b\" has no `service`"),
            ("categories: {windows: {b: {service: sysmon}}}", "mine.yml:1: the category \"b\" has no `event_ids`"),
            (
                "categories: {windows: {b: {service: sysmo, event_ids: 1}}}",
                "mine.yml:1: the product \"windows\" has no service \"sysmo\"; did you mean \"sysmon\"?",
            ),
            (
                "categories: {windows: {b: {service: sysmon, event_ids: x}}}",
                "mine.yml:1: \"x\" is no event id: a whole number from 0",
            ),
            (
                "categories:\n  windows:\n    b: {service: sysmon, event_id: 1}",
                "mine.yml:3: unknown part of a category: \"event_id\"; did you mean \"event_ids\"?",
            ),
            (
                "declared: [{produkt: a}]",
                "mine.yml:1: unknown part of a log source: \"produkt\"; did you mean \"product\"?",
            ),
            ("declared: [{}]", "mine.yml:1: a log source says nothing; give product, category or service"),
            ("implied: [{when: {service: a}}]", "mine.yml:1: an implied row has no `also`"),
            ("services: {a: {b: c}, a: {b: c}}", "mine.yml:1: the key \"a\" is given twice"),
            (
                "services: {acme: {door: security}}",
                "mine.yml:1: the channel \"security\" is one of the product \"windows\"; a channel has one product",
            ),
        ] {
            let problems = LogSources::built_in().extended_by(&[text(mine)]).unwrap_err();
            assert_eq!(problems.first().unwrap().to_string(), said);
        }
    }
}
