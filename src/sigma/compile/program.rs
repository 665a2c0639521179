//! The matcher: programs by route, each with anchors that find candidates and trees that decide.
//!
//! A *variant* is one rule as it is for one route: its fields named as in that log, conditions on the event id folded
//! into the route. A *program* holds the variants that events of one route can meet. Per event a program looks once at
//! each field that has anchors; a variant whose anchor is met is a candidate and evaluated in full. So what a rule
//! costs is what its rarest necessary literal costs.

use std::{collections::BTreeSet, sync::Arc};

use cf_types::{LogSource, Name};
use rustc_hash::FxHashMap;

use crate::{
    fold::folded,
    log_source::{self, LogSources},
    rule::{Expr, LogSourcePattern, Matcher as RuleMatcher, Pattern, Rule, Test},
};

pub(crate) mod anchor;
mod grams;
pub(crate) mod node;
pub(crate) mod profile;

use anchor::{Anchored, Plans, Wanted};
use node::{Node, Slots, Tests};
use profile::Profile;

/// The name of the field that holds a Windows event's code.
const EVENT_ID: &str = "EventID";

/// All programs of a rule set.
#[derive(Debug)]
pub(crate) struct Matcher {
    pub(crate) slots: Slots,
    pub(crate) tests: Tests,
    pub(crate) programs: Vec<Program>,
    pub(crate) channels: Vec<Channel>,
    /// By channel, folded: its place in `channels`.
    pub(crate) by_channel: FxHashMap<Box<str>, usize>,
    /// One program for each pattern of log source: for events that belong to it by their decoder's declaration.
    pub(crate) declared: Vec<(LogSourcePattern, usize)>,
    pub(crate) names: KnownNames,
    pub(crate) log_sources: Arc<LogSources>,
}

/// The fields that route.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownNames {
    pub(crate) channel: Name,
    pub(crate) event_id: Name,
    pub(crate) provider: Name,
}

/// The programs of one channel.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) product: Arc<str>,
    /// By event id as text.
    pub(crate) by_event_id: FxHashMap<Box<str>, usize>,
    /// For every other event id.
    pub(crate) other: usize,
    /// For events whose id is absent or several: nothing is folded in.
    pub(crate) unfolded: usize,
}

/// What events of one route can meet.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) variants: Vec<Variant>,
    pub(crate) plans: Plans,
    /// Numbers in [`Matcher::declared`] whose rules are all in here.
    pub(crate) covers: BTreeSet<usize>,
}

/// One rule for one route.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) rule: u32,
    /// What is left to decide once the anchor is met.
    pub(crate) node: Arc<Node>,
}

impl Matcher {
    pub(crate) fn build(rules: &[Arc<Rule>], log_sources: &Arc<LogSources>, profile: &Profile) -> Matcher {
        let mut builder = Builder::new(rules, log_sources, profile);
        let patterns: BTreeSet<&LogSourcePattern> = rules.iter().map(|rule| &rule.log_source).collect();
        let patterns: Vec<LogSourcePattern> = patterns.into_iter().cloned().collect();
        let declared = patterns.iter().map(|pattern| (pattern.clone(), builder.declared(pattern))).collect();
        let (by_channel, channels): (Vec<_>, Vec<_>) = builder.channels(&patterns).into_iter().unzip();
        let by_channel = by_channel.into_iter().zip(0..).collect();
        let names = Name::intern_all(["Channel", EVENT_ID, "Provider_Name"]);
        let name = |at: usize| names.get(at).copied().unwrap_or(Name::UNKNOWN);
        let names = KnownNames { channel: name(0), event_id: name(1), provider: name(2) };
        let Builder { mut slots, mut tests, programs, .. } = builder;
        let programs = planned(programs, profile);
        slots.seal();
        tests.seal();
        let log_sources = Arc::clone(log_sources);
        Matcher { slots, tests, programs, channels, by_channel, declared, names, log_sources }
    }

    /// Whether an event with this declaration can be led to a program with rules: by the declaration, or by a channel of
    /// its product.
    pub(crate) fn may_meet(&self, log_source: &LogSource) -> bool {
        let has_rules = |program: usize| self.programs.get(program).is_some_and(|program| !program.variants.is_empty());
        let mut declared = self.declared.iter();
        if declared.any(|(pattern, program)| has_rules(*program) && self.log_sources.fits_declared(pattern, log_source))
        {
            return true;
        }
        let product = log_source.product.as_deref();
        let mut channels = self
            .channels
            .iter()
            .filter(|channel| product.is_none_or(|product| product.eq_ignore_ascii_case(&channel.product)));
        channels.any(|channel| {
            let mut programs = channel.by_event_id.values().chain([&channel.other, &channel.unfolded]);
            programs.any(|program| has_rules(*program))
        })
    }
}

struct Builder<'a> {
    rules: &'a [Arc<Rule>],
    log_sources: &'a LogSources,
    profile: &'a Profile,
    by_pattern: FxHashMap<&'a LogSourcePattern, Vec<u32>>,
    slots: Slots,
    tests: Tests,
    programs: Vec<Unplanned>,
    /// By rule: its condition where a route changes nothing in it. One tree serves all of those.
    unchanged: FxHashMap<u32, Anchored>,
}

/// A rule that events of a channel can meet, and under which conditions.
struct Member<'a> {
    rule: u32,
    pattern: usize,
    entry: Option<&'a log_source::Category>,
    expr: &'a Expr,
}

/// What is known of an event's id in a program.
enum EventId<'a> {
    Is(&'a str),
    NoneOf,
    Anything,
}

impl<'a> Builder<'a> {
    fn new(rules: &'a [Arc<Rule>], log_sources: &'a LogSources, profile: &'a Profile) -> Builder<'a> {
        let mut by_pattern: FxHashMap<&LogSourcePattern, Vec<u32>> = FxHashMap::default();
        for (number, rule) in (0..).zip(rules) {
            by_pattern.entry(&rule.log_source).or_default().push(number);
        }
        let (slots, tests) = (Slots::default(), Tests::default());
        Builder {
            rules,
            log_sources,
            profile,
            by_pattern,
            slots,
            tests,
            programs: Vec::new(),
            unchanged: FxHashMap::default(),
        }
    }

    fn expr(&self, rule: u32) -> Option<&'a Expr> {
        self.rules.get(usize::try_from(rule).ok()?).map(|rule| &rule.condition)
    }

    fn declared(&mut self, pattern: &LogSourcePattern) -> usize {
        let rules = self.by_pattern.get(pattern).cloned().unwrap_or_default();
        self.program(rules.into_iter().map(|rule| (rule, None)).collect(), BTreeSet::new())
    }

    fn channels(&mut self, patterns: &[LogSourcePattern]) -> Vec<(Box<str>, Channel)> {
        let table = self.log_sources;
        let mut members: FxHashMap<&'a str, Vec<Member<'a>>> = FxHashMap::default();
        for service in table.services() {
            for channel in &service.channels {
                members.entry(channel).or_default();
            }
        }
        for (number, pattern) in patterns.iter().enumerate() {
            let rules = self.by_pattern.get(pattern).cloned().unwrap_or_default();
            let mut ways: Vec<(&'a str, Option<&'a log_source::Category>)> =
                table.entries(pattern).iter().map(|entry| (&**entry.channel, entry.category)).collect();
            if log_source::is_product_only(pattern) {
                let product = pattern.product.as_ref();
                ways.extend(
                    members.keys().filter(|name| table.product_of_channel(name) == product).map(|name| (*name, None)),
                );
            }
            // Two services may write to one channel; a rule for both still meets an event once.
            let mut seen: Vec<(&str, Option<*const log_source::Category>)> = Vec::new();
            for (channel, entry) in ways {
                let key = (channel, entry.map(std::ptr::from_ref));
                if seen.contains(&key) {
                    continue;
                }
                seen.push(key);
                for &rule in &rules {
                    if let Some(expr) = self.expr(rule) {
                        members.entry(channel).or_default().push(Member { rule, pattern: number, entry, expr });
                    }
                }
            }
        }
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort_by_key(|(channel, _)| *channel);
        members
            .into_iter()
            .map(|(channel, members)| (folded(channel).into(), self.channel(channel, &members)))
            .collect()
    }

    fn channel(&mut self, channel: &str, members: &[Member<'a>]) -> Channel {
        let mut ids: BTreeSet<String> = BTreeSet::new();
        for member in members {
            ids.extend(member.entry.iter().flat_map(|entry| &entry.event_ids).map(u32::to_string));
            collect_event_ids(member.expr, &mut ids);
        }
        let by_event_id =
            ids.iter().map(|id| (id.as_str().into(), self.channel_program(members, &EventId::Is(id)))).collect();
        let other = self.channel_program(members, &EventId::NoneOf);
        let unfolded = self.channel_program(members, &EventId::Anything);
        let product = self.log_sources.product_of_channel(channel).map_or_else(|| Arc::from(""), Arc::clone);
        Channel { product, by_event_id, other, unfolded }
    }

    fn channel_program(&mut self, members: &[Member<'_>], id: &EventId<'_>) -> usize {
        let mut list: Vec<(u32, Option<Expr>)> = Vec::new();
        let mut covers: BTreeSet<usize> = members.iter().map(|member| member.pattern).collect();
        for member in members {
            let mut conditions = Vec::new();
            let mut fields: &[(Arc<str>, Arc<str>)] = &[];
            if let Some(entry) = member.entry {
                fields = &entry.fields;
                let here = |text: &str| entry.event_ids.iter().any(|id| id.to_string() == text);
                // Only an unconditional row makes the program hold all that a declaration would.
                let unconditional =
                    matches!(id, EventId::Is(text) if here(text)) && entry.when.is_empty() && fields.is_empty();
                match id {
                    EventId::Is(text) if !here(text) => {
                        covers.remove(&member.pattern);
                        continue;
                    }
                    EventId::NoneOf => {
                        covers.remove(&member.pattern);
                        continue;
                    }
                    EventId::Is(_) => {}
                    EventId::Anything => conditions.push(one_of(EVENT_ID, entry.event_ids.iter().map(u32::to_string))),
                }
                if !unconditional {
                    covers.remove(&member.pattern);
                }
                conditions.extend(
                    entry.when.iter().map(|(field, values)| one_of(field, values.iter().map(ToString::to_string))),
                );
            }
            if conditions.is_empty() && fields.is_empty() && !asks_event_id(member.expr) {
                list.push((member.rule, None));
                continue;
            }
            conditions.push(renamed(member.expr, fields));
            list.push((member.rule, Some(specialised(Expr::All(conditions), id))));
        }
        self.program(list, covers)
    }

    fn unchanged(&mut self, rule: u32) -> Anchored {
        if let Some(anchored) = self.unchanged.get(&rule) {
            return anchored.clone();
        }
        let anchored = match self.expr(rule) {
            Some(expr) => self.anchored(expr),
            None => Anchored::of(Node::Const(false), &self.tests),
        };
        self.unchanged.insert(rule, anchored.clone());
        anchored
    }

    fn anchored(&mut self, expr: &Expr) -> Anchored {
        Anchored::of(Node::build(expr, &mut self.slots, &mut self.tests, self.profile), &self.tests)
    }

    /// Makes a program of rules, each with its condition where that is not the one in the rule's text.
    fn program(&mut self, list: Vec<(u32, Option<Expr>)>, covers: BTreeSet<usize>) -> usize {
        let mut variants = Vec::with_capacity(list.len());
        let mut anchors = Vec::with_capacity(list.len());
        for (rule, changed) in list {
            let Anchored { anchor, node } = match changed {
                Some(expr) => self.anchored(&expr),
                None => self.unchanged(rule),
            };
            if matches!(*node, Node::Const(false)) {
                continue;
            }
            variants.push(Variant { rule, node });
            anchors.push(anchor);
        }
        self.programs.push(Unplanned { variants, anchors, covers });
        self.programs.len() - 1
    }
}

/// A program whose anchors nobody can look for yet.
struct Unplanned {
    variants: Vec<Variant>,
    /// By variant.
    anchors: Vec<Option<Arc<[Wanted]>>>,
    covers: BTreeSet<usize>,
}

/// Variants from which a second thread plans every other program.
const VARIANTS_OF_TWO_MIN: usize = 4_096;

/// Makes the plans of all programs, each for itself: so the result does not depend on who makes it.
fn planned(programs: Vec<Unplanned>, profile: &Profile) -> Vec<Program> {
    let plan = |program: &Unplanned| Plans::build(&program.anchors, profile);
    let variants: usize = programs.iter().map(|program| program.variants.len()).sum();
    let plans: Vec<Plans> = if variants < VARIANTS_OF_TWO_MIN {
        programs.iter().map(plan).collect()
    } else {
        let every_other = |from: usize| programs.iter().skip(from).step_by(2).map(plan).collect::<Vec<Plans>>();
        std::thread::scope(|scope| {
            let odd = scope.spawn(|| every_other(1));
            let even = every_other(0);
            let mut odd = odd.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).into_iter();
            even.into_iter().flat_map(|even| [Some(even), odd.next()]).flatten().collect()
        })
    };
    let planned = programs.into_iter().zip(plans);
    planned.map(|(Unplanned { variants, covers, .. }, plans)| Program { variants, plans, covers }).collect()
}

/// Whether a test names an event id as a whole.
fn asks_event_id(expr: &Expr) -> bool {
    match expr {
        Expr::All(list) | Expr::Any(list) => list.iter().any(asks_event_id),
        Expr::Not(expr) => asks_event_id(expr),
        Expr::Test(test) => event_id_of(test).is_some(),
    }
}

/// A field has one of these values.
fn one_of(field: &str, values: impl Iterator<Item = String>) -> Expr {
    let field: Arc<str> = Arc::from(field);
    let tests = values.map(|value| {
        let matcher = RuleMatcher::Text { pattern: Pattern::literal(&value), cased: false };
        Expr::Test(Test { field: Some(Arc::clone(&field)), matcher })
    });
    Expr::Any(tests.collect())
}

/// Event ids that some test names as a whole.
fn collect_event_ids(expr: &Expr, ids: &mut BTreeSet<String>) {
    match expr {
        Expr::All(list) | Expr::Any(list) => list.iter().for_each(|expr| collect_event_ids(expr, ids)),
        Expr::Not(expr) => collect_event_ids(expr, ids),
        Expr::Test(test) => ids.extend(event_id_of(test).map(folded)),
    }
}

fn event_id_of(test: &Test) -> Option<&str> {
    match &test.matcher {
        RuleMatcher::Text { pattern, cased: false } if test.field.as_deref() == Some(EVENT_ID) => pattern.as_literal(),
        _ => None,
    }
}

/// The same condition with fields as the log names them.
fn renamed(expr: &Expr, fields: &[(Arc<str>, Arc<str>)]) -> Expr {
    if fields.is_empty() {
        return expr.clone();
    }
    let rename = |field: &Arc<str>| {
        fields.iter().find(|(rule, _)| rule == field).map_or_else(|| Arc::clone(field), |(_, event)| Arc::clone(event))
    };
    match expr {
        Expr::All(list) => Expr::All(list.iter().map(|expr| renamed(expr, fields)).collect()),
        Expr::Any(list) => Expr::Any(list.iter().map(|expr| renamed(expr, fields)).collect()),
        Expr::Not(expr) => Expr::Not(Box::new(renamed(expr, fields))),
        Expr::Test(Test { field, matcher }) => {
            let matcher = match matcher {
                RuleMatcher::Field { other, shape, cased } => {
                    RuleMatcher::Field { other: rename(other), shape: *shape, cased: *cased }
                }
                matcher => matcher.clone(),
            };
            Expr::Test(Test { field: field.as_ref().map(rename), matcher })
        }
    }
}

/// The same condition with what is known of the event id folded in.
fn specialised(expr: Expr, id: &EventId<'_>) -> Expr {
    match expr {
        Expr::All(list) => {
            let list: Vec<Expr> =
                list.into_iter().map(|expr| specialised(expr, id)).filter(|expr| !is_true(expr)).collect();
            if list.iter().any(is_false) { Expr::Any(Vec::new()) } else { Expr::All(list) }
        }
        Expr::Any(list) => {
            let list: Vec<Expr> =
                list.into_iter().map(|expr| specialised(expr, id)).filter(|expr| !is_false(expr)).collect();
            if list.iter().any(is_true) { Expr::All(Vec::new()) } else { Expr::Any(list) }
        }
        Expr::Not(expr) => {
            let expr = specialised(*expr, id);
            if is_true(&expr) {
                Expr::Any(Vec::new())
            } else if is_false(&expr) {
                Expr::All(Vec::new())
            } else {
                Expr::Not(Box::new(expr))
            }
        }
        Expr::Test(test) => match (event_id_of(&test), id) {
            (Some(wanted), EventId::Is(text)) if folded(wanted) == **text => Expr::All(Vec::new()),
            (Some(_), EventId::Is(_) | EventId::NoneOf) => Expr::Any(Vec::new()),
            (Some(_), EventId::Anything) | (None, _) => Expr::Test(test),
        },
    }
}

fn is_true(expr: &Expr) -> bool {
    matches!(expr, Expr::All(list) if list.is_empty())
}

fn is_false(expr: &Expr) -> bool {
    matches!(expr, Expr::Any(list) if list.is_empty())
}
