//! Rules to one matcher: what refers to what, and programs by route.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use cf_types::{
    Detection, Entity, EntityKind, EpisodeRule, Event, Group, Item, Level, LogSource, Member, Name, Predicate,
    episode::UNITS,
};
use rustc_hash::FxHashMap;

use crate::{
    explain::{Explained, Referenced},
    hunt::Hunt,
    learnt::Learnt,
    log_source::LogSources,
    outline::Outline,
    parse::{PLAN_CONDITIONS, ParseOptions, Parsed, ParsedFile, Text, asked, parse_with},
    pipeline::Pipelines,
    problem::Problem,
    rule::{Correlation, Meta, Rule},
    tally::{RuleStats, Tally},
};

mod episodes;
mod filters;
pub(crate) mod layers;

pub(crate) mod program;

use layers::Layers;
use program::profile::BUILT_IN;

/// What is chosen for a whole rule set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Repeats of a plain rule's alert within this many seconds are one alert.
    pub fold_window_s: u32,
    /// Which events belong to which log source.
    pub log_sources: Arc<LogSources>,
    /// What rewrites rules before they are compiled.
    pub pipelines: Arc<Pipelines>,
}

impl Default for Options {
    /// An hour: long enough that a burst is one alert, short enough that tomorrow's is another. The shipped table.
    fn default() -> Options {
        Options { fold_window_s: 3_600, log_sources: Arc::clone(LogSources::built_in()), pipelines: Arc::default() }
    }
}

/// A rule's number in its [`RuleSet`]: of this process only, never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIndex(pub(crate) u32);

impl RuleIndex {
    /// The number, for slices by rule.
    #[must_use]
    #[allow(clippy::as_conversions)] // u32 fits usize on every machine we run on
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What people see of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its id.
    pub id: Arc<str>,
    /// Its title.
    pub title: Arc<str>,
    /// Its description.
    pub description: Arc<str>,
    /// Its level.
    pub level: Level,
    /// Its status, as published.
    pub status: Option<Arc<str>>,
    /// ATT&CK and other tags.
    pub tags: Arc<[Arc<str>]>,
    /// File it is from.
    pub file: Arc<str>,
    /// Line where it begins.
    pub line: u32,
    /// Whether it is a rule over detections of others.
    pub correlation: bool,
    /// Whether it makes alerts by itself.
    pub alerts: bool,
    /// What people may read of it beside.
    pub meta: Arc<Meta>,
    /// What it asks of history, if it is a hunt: then no event meets it.
    pub hunt: Option<Arc<Hunt>>,
    /// Whether events meet it. What a rule found before it was disabled stays.
    pub enabled: bool,
}

/// A compiled, immutable set of rules; share it and give each thread a [`crate::Scanner`].
#[derive(Debug)]
pub struct RuleSet {
    hash: String,
    rules: Vec<RuleInfo>,
    episode_rules: Vec<Arc<EpisodeRule>>,
    /// By plain rule: where its detections count.
    counts: Vec<Vec<Counted>>,
    pub(crate) layers: Layers,
    pub(crate) tally: Tally,
    /// What came until now, also to the sets that this one follows.
    pub(crate) learnt: Arc<Learnt>,
    /// What it was made of, for [`RuleSet::changed`].
    files: Vec<Arc<ParsedFile>>,
    parse_options: Arc<ParseOptions>,
    options: Options,
    /// By plain rule: its text's own form.
    explained: Vec<Explained>,
}

/// A plain rule's part in one episode rule.
#[derive(Clone, Debug)]
struct Counted {
    rule: Arc<str>,
    reference: u16,
    group: Grouping,
    value: CountedValue,
}

/// What of an event is counted by `value_count`.
#[derive(Clone, Debug)]
enum CountedValue {
    /// Events are counted, not values.
    None,
    /// The fields' values; an event that lacks one does not count.
    Fields(Vec<Name>),
}

#[derive(Clone, Debug)]
enum Grouping {
    /// The event's first host, user and address.
    Fingerprint,
    /// Field or alias as shown, and the event's field.
    Fields(Vec<(Arc<str>, Name)>),
}

impl RuleSet {
    /// Compiles rules. What cannot be compiled is left out and told; it never takes the others down.
    #[must_use]
    pub fn compile(parsed: Parsed, options: &Options) -> (RuleSet, Vec<Problem>) {
        RuleSet::compile_beside(parsed, options, None, Arc::default())
    }

    /// The same, sharing what another rule set has already.
    fn compile_beside(
        parsed: Parsed,
        options: &Options,
        before: Option<&Layers>,
        learnt: Arc<Learnt>,
    ) -> (RuleSet, Vec<Problem>) {
        LazyLock::force(&ACTING); // names must be known before events are decoded
        let Parsed { mut rules, mut correlations, filters, mut problems, disabled, files, options: parse_options } =
            parsed;
        filters::apply(&mut rules, &filters, &mut problems);
        problems.append(&mut options.pipelines.apply(&mut rules, &mut correlations));
        // Of a plan's rule that counts, the part that matches bears the id with a suffix.
        let is_off = |id: &str| {
            disabled.contains(id) || id.strip_suffix(PLAN_CONDITIONS).is_some_and(|id| disabled.contains(id))
        };
        let resolved = episodes::resolve(&rules, correlations, &disabled, options, &mut problems);
        let infos = rules.iter().zip(&resolved.alerting).map(|(rule, alerts)| info_of_rule(rule, *alerts));
        let correlated = resolved.correlations.iter().map(info_of_correlation);
        let mut infos: Vec<RuleInfo> = infos.chain(correlated).collect();
        for info in infos.iter_mut().filter(|info| is_off(&info.id)) {
            info.enabled = false;
        }
        let profile = learnt.profile();
        let profile = profile.as_deref().unwrap_or(&BUILT_IN);
        let rule_set = RuleSet {
            hash: hash(&files, &parse_options, options),
            rules: infos,
            episode_rules: resolved.episode_rules,
            counts: resolved.counts,
            layers: Layers::build(
                &rules,
                |rule| rule.hunt.is_none() && !is_off(&rule.id),
                &options.log_sources,
                profile,
                before,
            ),
            tally: Tally::new(rules.len()),
            learnt,
            files,
            parse_options,
            options: options.clone(),
            explained: rules.iter().map(|rule| explained(rule)).collect(),
        };
        problems
            .sort_by(|left, right| (&left.file, left.line, left.column).cmp(&(&right.file, right.line, right.column)));
        (rule_set, problems)
    }

    /// The same rule set with some files changed, new or gone, and all problems of the files as they are then.
    ///
    /// A file is known by its name. A changed one keeps its place in the order (of rules with one id the first stays), a
    /// new one comes last; so what is there wins against what comes. This set is not touched: who scans with it goes on.
    #[must_use]
    pub fn changed(&self, upsert: Vec<Text>, removed: &[Arc<str>]) -> (RuleSet, Vec<Problem>) {
        self.changed_to(parse_with(&upsert, &self.parse_options), removed)
    }

    /// The same with files that were read before, also by another reader ([`Parsed::include`]).
    #[must_use]
    pub fn changed_to(&self, upsert: Parsed, removed: &[Arc<str>]) -> (RuleSet, Vec<Problem>) {
        let mut files = self.files.clone();
        files.retain(|file| !removed.contains(&file.file));
        let mut places: FxHashMap<Arc<str>, usize> =
            files.iter().enumerate().map(|(place, file)| (Arc::clone(&file.file), place)).collect();
        for parsed in upsert.files {
            match places.get(&parsed.file).and_then(|place| files.get_mut(*place)) {
                Some(file) => *file = parsed,
                None => {
                    places.insert(Arc::clone(&parsed.file), files.len());
                    files.push(parsed);
                }
            }
        }
        let parsed = Parsed::of_files(files, Arc::clone(&self.parse_options));
        RuleSet::compile_beside(parsed, &self.options, Some(&self.layers), Arc::clone(&self.learnt))
    }

    /// The same rules with anchors chosen by what came, once enough came since they were chosen last; `None` before. Its
    /// hash is the same, and so is what it meets: only the cost is another.
    #[must_use]
    pub fn replanned(&self) -> Option<RuleSet> {
        if !self.learnt.renew() {
            return None;
        }
        let parsed = Parsed::of_files(self.files.clone(), Arc::clone(&self.parse_options));
        Some(RuleSet::compile_beside(parsed, &self.options, None, Arc::clone(&self.learnt)).0)
    }

    /// What its texts were read with.
    #[must_use]
    pub fn parse_options(&self) -> &ParseOptions {
        &self.parse_options
    }

    /// Hash of the texts it was made of, in hexadecimal; the order of the texts counts.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// All rules, plain ones first: [`RuleIndex::index`] is the place here.
    #[must_use]
    pub fn rules(&self) -> &[RuleInfo] {
        &self.rules
    }

    /// What its plain rules did until now, by [`RuleIndex::index`], over all scanners that published it.
    #[must_use]
    pub fn stats(&self) -> Vec<RuleStats> {
        self.tally.read()
    }

    /// The fields, of those that rules ask for, that an event had, in this set or in those that it follows.
    #[must_use]
    pub fn fields_seen(&self) -> BTreeSet<Arc<str>> {
        self.learnt.fields()
    }

    /// Takes in fields that events had before, in another process.
    pub fn have_seen(&self, fields: impl IntoIterator<Item = Arc<str>>) {
        self.learnt.have(fields);
    }

    /// By plain rule that is on: the fields it asks for that no event ever had, under no name that the log sources give
    /// them. Empty while nothing came at all.
    #[must_use]
    pub fn fields_unseen(&self) -> BTreeMap<RuleIndex, Vec<Arc<str>>> {
        let seen = self.learnt.fields();
        if seen.is_empty() {
            return BTreeMap::new();
        }
        let unseen = |rule: &Rule| {
            let entries = self.options.log_sources.entries(&rule.log_source);
            let renamed = |field: &Arc<str>| {
                let mut names = entries.iter().filter_map(|entry| entry.category).flat_map(|category| &category.fields);
                names.any(|(of, name)| of == field && seen.contains(name))
            };
            let mut fields = BTreeSet::new();
            asked(&rule.condition, &mut fields);
            fields.into_iter().filter(|field| !seen.contains(field) && !renamed(field)).collect::<Vec<_>>()
        };
        let rules = self.layers.rules().map(|(place, rule)| (place, unseen(rule)));
        rules.filter(|(_, unseen)| !unseen.is_empty()).collect()
    }

    /// Which events belong to which log source.
    pub(crate) fn log_sources(&self) -> &LogSources {
        &self.options.log_sources
    }

    /// Names of the files it was made of, in order.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.files.iter().map(|file| &file.file)
    }

    /// The indexes of all rules, in the order of [`RuleSet::rules`].
    pub fn indexes(&self) -> impl Iterator<Item = RuleIndex> + use<> {
        (0..u32::try_from(self.rules.len()).unwrap_or(u32::MAX)).map(RuleIndex)
    }

    /// One rule.
    #[must_use]
    pub fn rule(&self, rule: RuleIndex) -> Option<&RuleInfo> {
        self.rules.get(rule.index())
    }

    /// By plain rule, in the order of [`RuleSet::rules`]: a name of all that decides on its detections. Two rules of one
    /// name, of whatever sets, find the same in the same events. It is made of the text of the rule's file, so that
    /// another word beside the rule gives another name: what is the same may have two names, never the other way round.
    #[must_use]
    pub fn meanings(&self) -> Vec<[u8; 32]> {
        let mut common = blake3::Hasher::new_derive_key("counterflow 2026 meaning of a rule");
        common.update(self.options.log_sources.digest());
        for digest in self.options.pipelines.digests() {
            common.update(digest);
        }
        common.update(blake3::hash(format!("{:?}", self.parse_options.placeholders).as_bytes()).as_bytes());
        // Filters of any file may touch any rule.
        let mut filters: Vec<_> = self.files.iter().filter(|file| file.has_filters()).map(|file| file.digest).collect();
        filters.sort_unstable();
        for digest in filters {
            common.update(&digest);
        }
        let digests: FxHashMap<&str, &[u8; 32]> = self.files.iter().map(|file| (&*file.file, &file.digest)).collect();
        let meaning = |(info, counts): (&RuleInfo, &Vec<Counted>)| {
            let mut hasher = common.clone();
            hasher.update(digests.get(&*info.file).copied().unwrap_or(&[0; 32]));
            part(&mut hasher, &info.id);
            counts.iter().for_each(|counted| counted.name(&mut hasher));
            *hasher.finalize().as_bytes()
        };
        self.rules.iter().zip(&self.counts).map(meaning).collect()
    }

    /// Whether some rule can meet an event of which no more is known than what its decoder declares. What this denies, no
    /// scanner meets.
    #[must_use]
    pub fn may_meet(&self, log_source: &LogSource) -> bool {
        self.layers.iter().any(|layer| layer.matcher.may_meet(log_source))
    }

    /// The fields that rules ask for, those first that the most rules name, then by name.
    #[must_use]
    pub fn fields(&self) -> Vec<Arc<str>> {
        let mut rules: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        for file in &self.files {
            file.fields_by_rule(&mut |fields| {
                fields.iter().for_each(|field| *rules.entry(Arc::clone(field)).or_default() += 1);
            });
        }
        let mut fields: Vec<_> = rules.into_iter().collect();
        fields.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        fields.into_iter().map(|(field, _)| field).collect()
    }

    /// Correlations, and one for each plain rule that alerts by itself.
    #[must_use]
    pub fn episode_rules(&self) -> &[Arc<EpisodeRule>] {
        &self.episode_rules
    }

    /// One rule met one event: what the graph needs of it.
    ///
    /// An episode rule whose group-by fields (or counted field) the event does not have all gets no item: events that
    /// lack a field have nothing in common.
    ///
    /// # Panics
    ///
    /// If the index is of another rule set.
    #[must_use]
    pub fn detection(&self, rule: RuleIndex, event: &Event) -> Detection {
        let info = self.rules.get(rule.index()).expect("a rule index is used with the rule set that gave it");
        let counts = self.counts.get(rule.index()).map(Vec::as_slice).unwrap_or_default();
        Detection {
            tenant: event.origin.tenant.clone(),
            rule: Arc::clone(&info.id),
            member: Member {
                time: event.time,
                id: event.id(),
                declared_id: event.declared_id.as_deref().map(Arc::from),
                position: event.position.clone(),
            },
            source: Arc::clone(&event.origin.source),
            entities: event.entities.clone(),
            items: counts.iter().filter_map(|counted| counted.item(event)).collect(),
        }
    }
}

impl RuleSet {
    /// What there is to explain of a plain rule.
    pub(crate) fn explained(&self, rule: RuleIndex) -> Option<&Explained> {
        self.explained.get(rule.index())
    }

    /// The rules that a correlation refers to, each with what an event is to it.
    pub(crate) fn referenced(&self, rule: RuleIndex, event: &Event) -> Vec<Referenced> {
        let Some(info) = self.rule(rule) else { return Vec::new() };
        let of = self.episode_rules.iter().find(|of| of.id == info.id);
        let ids = of.map(|of| of.references.as_slice()).unwrap_or_default();
        let index = |id: &Arc<str>| {
            let place = self.rules.iter().position(|info| info.id == *id)?;
            u32::try_from(place).ok().map(RuleIndex)
        };
        let referenced = |index: RuleIndex| {
            let explanation = self.explain(index, event);
            let mut counted = self.counts.get(index.index()).into_iter().flatten();
            let fields = counted.find(|counted| counted.rule == info.id).map(|counted| counted.fields(event));
            let fields = fields.unwrap_or_default();
            let counts = explanation.matched && fields.iter().all(|(_, value)| value.is_some());
            Referenced { explanation, counts, fields }
        };
        // A correlation never refers to itself, not even through others: those are refused.
        ids.iter().filter_map(index).filter(|other| *other != rule).map(referenced).collect()
    }
}

/// Adds a text and where it ends.
fn part(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
    hasher.update(text.as_bytes());
}

impl Counted {
    /// Adds all that decides on its items.
    fn name(&self, hasher: &mut blake3::Hasher) {
        part(hasher, &self.rule);
        hasher.update(&self.reference.to_le_bytes());
        match &self.group {
            Grouping::Fingerprint => part(hasher, "fingerprint"),
            Grouping::Fields(fields) => {
                part(hasher, "fields");
                for (shown, name) in fields {
                    part(hasher, shown);
                    part(hasher, &name.text());
                }
            }
        }
        if let CountedValue::Fields(names) = &self.value {
            part(hasher, "values");
            names.iter().for_each(|name| part(hasher, &name.text()));
        }
        part(hasher, "end");
    }

    /// Fields that it groups by and counts, as the rule calls them, with an event's values.
    fn fields(&self, event: &Event) -> Vec<(Arc<str>, Option<String>)> {
        let first = |name: Name| event.fields.first(name).filter(|value| !value.is_empty()).map(str::to_owned);
        let mut fields = match &self.group {
            Grouping::Fingerprint => Vec::new(),
            Grouping::Fields(fields) => fields.iter().map(|(shown, name)| (Arc::clone(shown), first(*name))).collect(),
        };
        if let CountedValue::Fields(names) = &self.value {
            fields.extend(names.iter().map(|name| (name.text(), event.fields.first(*name).map(str::to_owned))));
        }
        fields
    }

    fn item(&self, event: &Event) -> Option<Item> {
        let group = match &self.group {
            Grouping::Fingerprint => fingerprint(event),
            Grouping::Fields(fields) => {
                let values = fields.iter().map(|(shown, name)| {
                    let value = event.fields.first(*name).filter(|value| !value.is_empty())?;
                    Some((Arc::clone(shown), Arc::from(value)))
                });
                Group::new(values.collect::<Option<Vec<_>>>()?)
            }
        };
        let value = match &self.value {
            CountedValue::None => None,
            CountedValue::Fields(names) => {
                let values: Option<Vec<&str>> = names.iter().map(|name| event.fields.first(*name)).collect();
                Some(Arc::from(values?.join(UNITS)))
            }
        };
        Some(Item { rule: Arc::clone(&self.rule), reference: self.reference, group, value })
    }
}

/// Fields that say who acted, the first before the others: an event may speak of several accounts or addresses.
static ACTING: LazyLock<Vec<(EntityKind, Name)>> = LazyLock::new(|| {
    const FIELDS: &[(EntityKind, &[&str])] = &[
        (EntityKind::User, &["user", "TargetUserName", "User", "user.name", "userIdentity.userName", "actor"]),
        (EntityKind::Address, &["source_ip", "IpAddress", "SourceIp", "c-ip", "sourceIPAddress", "source.ip"]),
        (EntityKind::Host, &["host", "Computer", "host.name", "hostname"]),
    ];
    let pairs = FIELDS.iter().flat_map(|(kind, names)| names.iter().map(|name| (*kind, *name)));
    let (kinds, names): (Vec<_>, Vec<_>) = pairs.unzip();
    kinds.into_iter().zip(Name::intern_all(names)).collect()
});

/// What repeats of one plain rule's alert have in common: the host, user and address that acted.
fn fingerprint(event: &Event) -> Group {
    let first = |kind: EntityKind| {
        let known = |entity: &Entity| event.entities.contains(entity);
        let acting = ACTING
            .iter()
            .filter(|(of, _)| *of == kind)
            .find_map(|(_, name)| Entity::of(kind, event.fields.first(*name)?).filter(known));
        let entity = acting.or_else(|| event.entities.iter().find(|entity| entity.kind == kind).cloned())?;
        Some((Arc::from(kind.as_str()), entity.value))
    };
    Group::new([EntityKind::Host, EntityKind::User, EntityKind::Address].into_iter().filter_map(first))
}

fn explained(rule: &Rule) -> Explained {
    // Rules of other readers have a condition and no text that selections could be read from.
    let outline =
        if rule.outline.is_empty() { Arc::new(Outline::of(&rule.condition)) } else { Arc::clone(&rule.outline) };
    Explained { log_source: rule.log_source.clone(), outline }
}

fn info_of_rule(rule: &Rule, alerts: bool) -> RuleInfo {
    RuleInfo {
        id: Arc::clone(&rule.id),
        title: Arc::clone(&rule.title),
        description: Arc::clone(&rule.description),
        level: rule.level,
        status: rule.status.clone(),
        tags: Arc::clone(&rule.tags),
        file: Arc::clone(&rule.file),
        line: rule.line,
        correlation: false,
        alerts,
        meta: Arc::clone(&rule.meta),
        hunt: rule.hunt.clone(),
        enabled: true,
    }
}

fn info_of_correlation((rule, alerts): &(Correlation, bool)) -> RuleInfo {
    let Correlation { id, title, description, level, status, tags, file, line, meta, .. } = rule.clone();
    let (correlation, alerts, hunt, enabled) = (true, *alerts, None, true);
    RuleInfo { id, title, description, level, status, tags, file, line, correlation, alerts, meta, hunt, enabled }
}

fn hash(files: &[Arc<ParsedFile>], parse_options: &ParseOptions, options: &Options) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("counterflow 2026 rule set");
    hasher.update(&options.fold_window_s.to_le_bytes());
    hasher.update(options.log_sources.digest());
    for digest in options.pipelines.digests() {
        hasher.update(digest);
    }
    if !parse_options.placeholders.is_empty() {
        // The same texts with other values are another rule set.
        hasher.update(blake3::hash(format!("{:?}", parse_options.placeholders).as_bytes()).as_bytes());
    }
    for file in files {
        hasher.update(&file.digest);
    }
    hasher.finalize().to_hex().to_string()
}
