//! Which names of fields a log source has, so that a misspelt one is seen.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use crate::{
    parse::Parsed,
    problem::{Problems, did_you_mean, shown},
    rule::{Expr, LogSourcePattern, Test},
    yaml::Node,
};

/// A name that so many rules of a log source use is taken to be right.
const USES_MIN: usize = 3;

type Table = HashMap<LogSourcePattern, BTreeSet<&'static str>>;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let part = |text: &str| (text != "-").then(|| Arc::from(text));
    let lines = include_str!("fields.txt").lines().filter(|line| !line.starts_with('#'));
    let row = |line: &'static str| {
        let (source, names) = line.split_once(": ")?;
        let mut parts = source.split('/').map(part);
        let (product, category, service) = (parts.next()?, parts.next()?, parts.next()?);
        Some((LogSourcePattern { product, category, service }, names.split(' ').collect()))
    };
    lines.filter_map(row).collect()
});

/// Names that are known: by the table, and because several of the rules use them.
pub(super) struct Known {
    used: HashMap<LogSourcePattern, BTreeSet<Arc<str>>>,
}

impl Known {
    pub(super) fn new(parsed: &Parsed) -> Known {
        let mut uses: BTreeMap<(&LogSourcePattern, Arc<str>), usize> = BTreeMap::new();
        for rule in &parsed.rules {
            let mut names = BTreeSet::new();
            collect(&rule.condition, &mut names);
            for name in names {
                *uses.entry((&rule.log_source, name)).or_default() += 1;
            }
        }
        let mut used: HashMap<LogSourcePattern, BTreeSet<Arc<str>>> = HashMap::new();
        for ((source, name), _) in uses.into_iter().filter(|(_, count)| *count >= USES_MIN) {
            used.entry(source.clone()).or_default().insert(name);
        }
        Known { used }
    }

    /// Warns of a name that is not known and near to one that is.
    pub(super) fn check(&self, source: &LogSourcePattern, field: &str, node: &Node, problems: &mut Problems) {
        let used = self.used.get(source);
        let table = TABLE.get(source);
        if used.is_some_and(|names| names.contains(field)) || table.is_some_and(|names| names.contains(field)) {
            return;
        }
        let names = table.into_iter().flatten().copied().chain(used.into_iter().flatten().map(|name| &**name));
        // One letter more or less may be another field: `Param1`, `Param2`.
        let near = |name: &&str| {
            let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
            name.len() > 3 && digits(name) == digits(field)
        };
        if let Some(hint) = did_you_mean(field, names.filter(near)) {
            let message = format!("no other rule of this log source has a field \"{}\"", shown(field));
            problems.warn("field_name", node.at, message, Some(hint));
        }
    }
}

fn collect(expr: &Expr, names: &mut BTreeSet<Arc<str>>) {
    match expr {
        Expr::All(list) | Expr::Any(list) => list.iter().for_each(|expr| collect(expr, names)),
        Expr::Not(inner) => collect(inner, names),
        Expr::Test(Test { field, .. }) => names.extend(field.as_ref().map(Arc::clone)),
    }
}
