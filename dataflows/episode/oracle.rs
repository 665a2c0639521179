//! The definitions of `streaming.md`, *Episodes*, and of `docs/correlations.md`, written down as a function of a
//! multiset of items: slow and obvious.
//!
//! Nothing of it is shared with what it judges, save the types.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_types::{AnchorKind, Cell, Condition, Episode, EpisodeKey, EpisodeRule, Fixed, Predicate, Presence};

/// An item, and how many of it there are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OracleItem {
    pub(crate) cell: Cell,
    pub(crate) reference: u16,
    pub(crate) value: Option<Arc<str>>,
}

/// An episode, and from which limit on it is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OracleEpisode {
    pub(crate) episode: Episode,
    pub(crate) final_above: Cell,
}

type Counted = (OracleItem, u64);

/// What was before the rule, how often, and from which cell on hits know of it.
pub(crate) type Known = (OracleItem, u64, Cell);

/// All episodes of one key, in order, where nothing was before. Windows that end before `hits_from` are not looked at.
#[allow(dead_code)] // the operator's own tests know of a time before
pub(crate) fn oracle(
    key: &EpisodeKey,
    rule: &EpisodeRule,
    cut: Cell,
    hits_from: Cell,
    items: &[Counted],
) -> Vec<OracleEpisode> {
    oracle_remembering(key, rule, cut, hits_from, items, &[])
}

/// The same, where the time before is known, too.
pub(crate) fn oracle_remembering(
    key: &EpisodeKey,
    rule: &EpisodeRule,
    cut: Cell,
    hits_from: Cell,
    items: &[Counted],
    before: &[Known],
) -> Vec<OracleEpisode> {
    let items: Vec<&Counted> = items
        .iter()
        .filter(|(item, count)| {
            *count > 0 && usize::from(item.reference) < rule.references.len() && brings(&rule.predicate, item)
        })
        .collect();

    // Windows end where items are; that something did not follow is known when the time for it is over.
    let deadline = if matches!(rule.predicate, Predicate::Absence) { rule.timespan } else { 0 };
    let ends: BTreeSet<Cell> = items.iter().map(|(item, _)| item.cell + deadline).collect();
    let hits: Vec<(Cell, u64)> = ends
        .into_iter()
        .filter(|cell| *cell >= hits_from)
        .filter_map(|cell| {
            let known: Vec<Counted> = before
                .iter()
                .filter(|(.., from)| cell >= *from)
                .map(|(item, count, _)| (item.clone(), *count))
                .collect();
            Some((cell, hit(rule, &items, &known, cell)?))
        })
        .collect();

    let mut episodes = Vec::new();
    for run in hits.chunk_by(|(a, _), (b, _)| b - a <= rule.timespan) {
        let begin = run[0].0;
        // A boundary between two hits of the run, if the run began one grid length before it, or earlier.
        let boundary = |a: Cell, b: Cell| (a + 1..=b).find(|x| x.rem_euclid(cut) == 0 && begin <= x - cut);
        let mut kind = AnchorKind::Item;
        // What is new begins with itself; all else with the first item of the window.
        let lead = if matches!(rule.predicate, Predicate::FirstSeen { .. }) { 0 } else { rule.timespan };
        let mut anchor = within(&items, begin - lead, begin).map(|(item, _)| item.cell).min().unwrap();
        let pieces: Vec<&[(Cell, u64)]> = run.chunk_by(|(a, _), (b, _)| boundary(*a, *b).is_none()).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let last = piece.last().unwrap().0;
            let next = pieces.get(index + 1).map(|next| next[0].0);
            let cut_at = next.map(|next| boundary(last, next).unwrap());
            let last_cell = cut_at.map_or(last, |at| at - 1);
            let reference_counts: Vec<u64> = (0..rule.references.len())
                .map(|r| {
                    let of = within(&items, anchor, last_cell).filter(|(item, _)| usize::from(item.reference) == r);
                    of.map(|(_, count)| count).sum()
                })
                .collect();
            episodes.push(OracleEpisode {
                episode: Episode {
                    key: key.clone(),
                    kind,
                    anchor,
                    last_cell,
                    first_hit: piece[0].0,
                    count: reference_counts.iter().sum(),
                    reference_counts,
                    peak: piece.iter().map(|(_, peak)| *peak).max().unwrap(),
                },
                final_above: next.unwrap_or(last + rule.timespan),
            });
            (kind, anchor) = (AnchorKind::Cut, cut_at.unwrap_or(anchor));
        }
    }
    episodes
}

fn within<'a>(items: &'a [&'a Counted], from: Cell, to: Cell) -> impl Iterator<Item = &'a Counted> {
    items.iter().copied().filter(move |(item, _)| from <= item.cell && item.cell <= to)
}

/// Whether an item brings the value that the predicate is about.
fn brings(predicate: &Predicate, item: &OracleItem) -> bool {
    match predicate {
        Predicate::ValueCount(_) | Predicate::FirstSeen { .. } => item.value.is_some(),
        Predicate::Sum(_) | Predicate::Average(_) | Predicate::Percentile { .. } => billionths(item).is_some(),
        _ => true,
    }
}

/// A value in billionths, read the plain way: a sign, digits, and up to nine behind a point.
fn billionths(item: &OracleItem) -> Option<i128> {
    let text = item.value.as_deref()?;
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let whole: i128 = whole.parse().ok()?;
    let padded: i128 = format!("{part:0<9}").parse().ok()?;
    Some(sign * (whole * 1_000_000_000 + padded))
}

/// The predicate's figure at a cell, if it is a hit.
fn hit(rule: &EpisodeRule, items: &[&Counted], before: &[Counted], cell: Cell) -> Option<u64> {
    let window: Vec<&Counted> = within(items, cell - rule.timespan, cell).collect();
    let has = |reference: usize| window.iter().any(|(item, _)| usize::from(item.reference) == reference);
    let number = || window.iter().map(|(_, count)| *count).sum::<u64>();
    match &rule.predicate {
        Predicate::EventCount(condition) => condition.holds(number()).then_some(number()),
        Predicate::ValueCount(condition) => {
            let distinct: BTreeSet<_> = window.iter().map(|(item, _)| &item.value).collect();
            let count = u64::try_from(distinct.len()).unwrap();
            condition.holds(count).then_some(count)
        }
        Predicate::Temporal => (0..rule.references.len()).all(has).then_some(0),
        Predicate::TemporalOrdered => in_order(&window, 0, rule.references.len(), Cell::MIN).then_some(0),
        Predicate::Presence(presence) => {
            let present = |reference: &u16| has(usize::from(*reference));
            let count = match presence {
                Presence::Count(_, of) => u64::try_from(of.iter().filter(|of| present(of)).count()).unwrap(),
                _ => 0,
            };
            fulfilled(presence, &present).then_some(count)
        }
        Predicate::Sum(condition) => {
            let sum = sum_of(&window);
            (!window.is_empty() && fits(condition, |bound| sum.cmp(&bound))).then(|| floor(sum))
        }
        Predicate::Average(condition) => {
            let (sum, count) = (sum_of(&window), i128::from(number()));
            (count > 0 && fits(condition, |bound| sum.cmp(&(bound * count)))).then(|| floor(sum.div_euclid(count)))
        }
        Predicate::Percentile { percent, condition } => {
            let mut all: Vec<i128> = Vec::new();
            for (item, count) in &window {
                all.extend((0..*count).map(|_| billionths(item).unwrap()));
            }
            all.sort_unstable();
            // The smallest that so many of a hundred do not exceed.
            let enough = |at: &usize| (at + 1) * 100 >= usize::from(*percent) * all.len();
            let found = all[(0..all.len()).find(enough)?];
            fits(condition, |bound| found.cmp(&bound)).then(|| floor(found))
        }
        Predicate::Absence => {
            let began = within(items, cell - rule.timespan, cell - rule.timespan).any(|(item, _)| item.reference == 0);
            (began && !has(1)).then_some(0)
        }
        Predicate::FirstSeen { memory, known_min } => {
            let earlier: Vec<&Counted> = items.iter().copied().chain(before).collect();
            let known = within(&earlier, cell - memory, cell - 1).filter_map(|(item, _)| item.value.as_ref());
            let known: BTreeSet<_> = known.map(Some).collect();
            let now: BTreeSet<_> = within(items, cell, cell).map(|(item, _)| item.value.as_ref()).collect();
            let new = u64::try_from(now.difference(&known).count()).unwrap();
            (new > 0 && u64::try_from(known.len()).unwrap() >= *known_min).then_some(new)
        }
        Predicate::Rate { memory, grid, age_min, count_min, times } => {
            let begin = cell - rule.timespan;
            let mut steps: BTreeMap<Cell, u64> = BTreeMap::new();
            for (item, count) in items.iter().copied().chain(before) {
                let step = item.cell.div_euclid(*grid) * grid;
                if step >= begin - memory && step + grid <= begin {
                    *steps.entry(step).or_default() += count;
                }
            }
            let age = begin.div_euclid(*grid) * grid - steps.keys().next()?;
            let earlier = i128::from(steps.values().sum::<u64>());
            // items / cells of the window, against times * items / cells of the time before, multiplied out.
            let left = i128::from(number()) * i128::from(age) * 1_000_000_000;
            let right = |bound: i128| bound * earlier * i128::from(rule.timespan + 1);
            let holds = age >= *age_min && number() >= *count_min && fits(times, |bound| left.cmp(&right(bound)));
            holds.then(number)
        }
    }
}

fn sum_of(window: &[&Counted]) -> i128 {
    window.iter().map(|(item, count)| billionths(item).unwrap() * i128::from(*count)).sum()
}

/// Whole units, at least 0.
fn floor(raw: i128) -> u64 {
    u64::try_from(raw.div_euclid(1_000_000_000)).unwrap_or(0)
}

fn fits(condition: &Condition<Fixed>, compare: impl Fn(i128) -> Ordering) -> bool {
    let Condition { gte, gt, lte, lt, eq, neq } = condition;
    let is = |bound: &Option<Fixed>, right: &[Ordering]| bound.is_none_or(|b| right.contains(&compare(b.raw())));
    use Ordering::{Equal, Greater, Less};
    is(gte, &[Greater, Equal])
        && is(gt, &[Greater])
        && is(lte, &[Less, Equal])
        && is(lt, &[Less])
        && is(eq, &[Equal])
        && is(neq, &[Less, Greater])
}

fn fulfilled(presence: &Presence, present: &dyn Fn(&u16) -> bool) -> bool {
    match presence {
        Presence::Reference(reference) => present(reference),
        Presence::Not(inner) => !fulfilled(inner, present),
        Presence::All(list) => list.iter().all(|inner| fulfilled(inner, present)),
        Presence::Any(list) => list.iter().any(|inner| fulfilled(inner, present)),
        Presence::Count(condition, of) => {
            condition.holds(u64::try_from(of.iter().filter(|of| present(of)).count()).unwrap())
        }
    }
}

/// Whether cells exist, from `from` on and in order, that hold references `next`, `next + 1`, ... below `end`.
fn in_order(window: &[&Counted], next: usize, end: usize, from: Cell) -> bool {
    next == end
        || window.iter().any(|(item, _)| {
            usize::from(item.reference) == next && item.cell >= from && in_order(window, next + 1, end, item.cell)
        })
}

/// One predicate of each kind that there is, with bounds that small random input crosses. `pick` chooses among so many.
pub(crate) fn some_predicate(pick: &mut dyn FnMut(u64) -> u64) -> Predicate {
    let n = pick(4) + 1;
    let fixed = |number: i64| Fixed::whole(number).unwrap();
    let small = i64::try_from(n).unwrap() - 1;
    let counts = match pick(6) {
        0 | 1 => Condition::at_least(n),
        2 => Condition { gt: Some(n), lte: Some(n + 2), ..Condition::default() },
        3 => Condition { lt: Some(n), ..Condition::default() },
        4 => Condition { eq: Some(n), ..Condition::default() },
        _ => Condition { neq: Some(n), ..Condition::default() },
    };
    let figures = match pick(6) {
        0 | 1 => Condition { gte: Some(fixed(small)), ..Condition::default() },
        2 => Condition { gt: Some(fixed(small)), lte: Some(fixed(small + 4)), ..Condition::default() },
        3 => Condition { lt: Some(fixed(small)), ..Condition::default() },
        4 => Condition { eq: Some(fixed(small)), ..Condition::default() },
        _ => Condition { neq: Some(fixed(small)), ..Condition::default() },
    };
    let times = Fixed::parse(["0.3", "0.5", "1", "1.5"][usize::try_from(pick(4)).unwrap()]).unwrap();
    let memory = [8, 15][usize::try_from(pick(2)).unwrap()];
    let is = |reference| Presence::Reference(reference);
    match pick(11) {
        0 => Predicate::EventCount(counts),
        1 => Predicate::ValueCount(counts),
        2 => Predicate::Temporal,
        3 => Predicate::TemporalOrdered,
        4 => Predicate::Presence(match pick(3) {
            0 => Presence::All(vec![is(0), Presence::Not(Box::new(is(1)))]),
            1 => Presence::Any(vec![Presence::All(vec![is(1), is(2)]), Presence::Not(Box::new(is(0)))]),
            _ => Presence::Count(counts, vec![0, 1, 2]),
        }),
        5 => Predicate::Sum(figures),
        6 => Predicate::Average(figures),
        7 => {
            let percent = [0, 1, 50, 95, 100][usize::try_from(pick(5)).unwrap()];
            Predicate::Percentile { percent, condition: figures }
        }
        8 => Predicate::Absence,
        9 => Predicate::FirstSeen { memory, known_min: pick(3) },
        _ => Predicate::Rate {
            memory,
            grid: [1, 3][usize::try_from(pick(2)).unwrap()],
            age_min: [0, 5][usize::try_from(pick(2)).unwrap()],
            count_min: pick(3),
            times: match pick(2) {
                0 => Condition { gte: Some(times), ..Condition::default() },
                _ => Condition { lt: Some(times), ..Condition::default() },
            },
        },
    }
}

/// The kinds of predicates.
pub(crate) const KINDS: [&str; 11] = [
    "event_count",
    "value_count",
    "temporal",
    "temporal_ordered",
    "formula",
    "value_sum",
    "value_avg",
    "value_percentile",
    "absence",
    "first_seen",
    "rate",
];

/// Which kind it is.
pub(crate) fn kind_of(predicate: &Predicate) -> &'static str {
    KINDS[match predicate {
        Predicate::EventCount(_) => 0,
        Predicate::ValueCount(_) => 1,
        Predicate::Temporal => 2,
        Predicate::TemporalOrdered => 3,
        Predicate::Presence(_) => 4,
        Predicate::Sum(_) => 5,
        Predicate::Average(_) => 6,
        Predicate::Percentile { .. } => 7,
        Predicate::Absence => 8,
        Predicate::FirstSeen { .. } => 9,
        Predicate::Rate { .. } => 10,
    }]
}

/// Values of items: texts, among them numbers, and the same number written otherwise.
pub(crate) const VALUES: [Option<&str>; 7] =
    [None, Some("1"), Some("1.0"), Some("-2.5"), Some("4"), Some("0.000000001"), Some("x")];
