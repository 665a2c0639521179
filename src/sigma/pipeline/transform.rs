//! What the steps of a pipeline do to one rule.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Failure, Form, Names, State, Step, TESTS_MAX, Transformation,
    condition::{Subject, plain},
};
use crate::{
    outline::{Block, Item, Outline, Wanted},
    parse::detection,
    problem::{Problems, Refused},
    rule::{Formula, LogSourcePattern, Matcher, Part, Pattern, Rule},
    yaml::{Kind, Node},
};

/// Bytes of all values of one rule.
const BYTES_MAX: usize = 4 << 20;

/// Bytes of a value in which something is replaced; longer ones stay as they are.
const REPLACED_BYTES_MAX: usize = 64 << 10;

/// Applies steps in their order.
pub(super) fn steps(steps: &[Step], rule: &mut Rule, state: &mut State) -> Result<(), Failure> {
    for step in steps {
        let fits = step.fits_rule(&subject(rule), state);
        if !fits {
            continue;
        }
        let named = |Failure(message): Failure| match &step.id {
            Some(id) => Failure(format!("step \"{id}\": {message}")),
            None => Failure(message),
        };
        step.apply(rule, state).map_err(named)?;
        // Each step is bounded by itself; many could still multiply.
        let items = rule.outline.items();
        let bytes: usize = items.iter().flat_map(|item| &item.values).map(|wanted| wanted.text.len()).sum();
        if items.len() > TESTS_MAX || bytes > BYTES_MAX {
            return Err(named(Failure(format!(
                "the rule grows beyond {TESTS_MAX} items or {BYTES_MAX} bytes of values"
            ))));
        }
        state.applied.insert(step.id.clone().unwrap_or_default());
    }
    Ok(())
}

fn subject(rule: &Rule) -> Subject<'_> {
    Subject {
        correlation: false,
        log_sources: std::slice::from_ref(&rule.log_source),
        items: rule.outline.items(),
        id: &rule.id,
        name: rule.name.as_deref(),
        title: &rule.title,
        description: &rule.description,
        status: rule.status.as_deref(),
        level: rule.level,
        tags: &rule.tags,
        meta: &rule.meta,
    }
}

impl Step {
    fn apply(&self, rule: &mut Rule, state: &mut State) -> Result<(), Failure> {
        match &self.transformation {
            Transformation::AddCondition { name, conditions, template, negated } => {
                let block = conditions_of(conditions, *template, &rule.log_source)?;
                add_condition(Arc::make_mut(&mut rule.outline), name, block, *negated);
            }
            Transformation::ChangeLogSource(source) => rule.log_source = source.clone(),
            Transformation::AddFields(names) => {
                Arc::make_mut(&mut rule.meta).fields.extend(names.iter().cloned());
            }
            Transformation::RemoveFields(names) => {
                Arc::make_mut(&mut rule.meta).fields.retain(|field| !names.contains(field));
            }
            Transformation::SetFields(names) => Arc::make_mut(&mut rule.meta).fields.clone_from(names),
            Transformation::SetState(key, value) => {
                state.values.insert(Arc::clone(key), value.clone());
            }
            Transformation::SetAttribute(name, value) => {
                let custom = &mut Arc::make_mut(&mut rule.meta).custom;
                custom.retain(|(known, _)| known != name);
                custom.push((Arc::clone(name), value.clone()));
            }
            Transformation::FailRule(message) => return Err(Failure(message.to_string())),
            Transformation::FailUnmapped => {
                let outline = Arc::clone(&rule.outline);
                let unmapped = |field: &&Arc<str>| !state.mapped.contains(*field) && !state.fields.contains_key(*field);
                if let Some(field) = outline.items().iter().filter_map(|item| item.field.as_ref()).find(unmapped) {
                    return Err(Failure(format!("the field \"{field}\" has no mapping")));
                }
            }
            Transformation::Nest(inner) => return steps(inner, rule, state),
            Transformation::Nothing => {}
            transformation => {
                if transformation.maps_fields() {
                    let fields = &mut Arc::make_mut(&mut rule.meta).fields;
                    *fields = fields.iter().flat_map(|field| self.named(field, state)).collect();
                }
                self.on_outline(Arc::make_mut(&mut rule.outline), state)?;
            }
        }
        Ok(())
    }

    fn on_outline(&self, outline: &mut Outline, state: &mut State) -> Result<(), Failure> {
        for (_, block) in &mut outline.selections {
            let old = std::mem::replace(block, Block::All(Vec::new()));
            *block = self.on_block(old, state)?.unwrap_or(Block::All(Vec::new()));
        }
        for (_, _, filter) in &mut outline.filters {
            self.on_outline(Arc::make_mut(filter), state)?;
        }
        Ok(())
    }

    /// The block as it is then; `None` if nothing is left of it.
    fn on_block(&self, block: Block, state: &mut State) -> Result<Option<Block>, Failure> {
        let mut each = |list: Vec<Block>| -> Result<Vec<Block>, Failure> {
            let mut kept = Vec::with_capacity(list.len());
            for block in list {
                kept.extend(self.on_block(block, state)?);
            }
            Ok(kept)
        };
        let none_left = |list: &Vec<Block>| list.is_empty();
        match block {
            Block::All(list) => Ok(Some(each(list)?).filter(|list| !none_left(list)).map(Block::All)),
            Block::Any(list) => Ok(Some(each(list)?).filter(|list| !none_left(list)).map(Block::Any)),
            Block::Item(item) if self.fits_item(&item, state) => self.on_item(item, state),
            Block::Item(item) => Ok(Some(Block::Item(item))),
        }
    }

    fn on_item(&self, mut item: Item, state: &mut State) -> Result<Option<Block>, Failure> {
        match &self.transformation {
            Transformation::DropItem => return Ok(None),
            Transformation::FailItem(message) => return Err(Failure(message.to_string())),
            Transformation::HashFields { algorithms, prefix, drop_algorithm } => {
                let Some(list) = hashes(&item, algorithms, prefix, *drop_algorithm)? else {
                    return Ok(Some(Block::Item(item)));
                };
                let marked = list.into_iter().map(|item| Block::Item(self.marked(item)));
                return Ok(Some(Block::Any(marked.collect())));
            }
            transformation if transformation.maps_fields() => return Ok(Some(self.renamed(item, state))),
            _ => {}
        }
        let mut changed = false;
        for wanted in &mut item.values {
            let mut matchers: Vec<Matcher> = Vec::with_capacity(wanted.matchers.len());
            for matcher in wanted.matchers.drain(..) {
                match self.transformation.value(&matcher) {
                    Some(new) => {
                        changed = true;
                        matchers.extend(new);
                    }
                    None => matchers.push(matcher),
                }
            }
            wanted.matchers = matchers;
            if changed {
                wanted.text = shown_values(wanted);
            }
        }
        item.values.retain(|wanted| !wanted.matchers.is_empty());
        let item = if changed { self.marked(item) } else { item };
        Ok(Some(Block::Item(item)))
    }

    fn marked(&self, mut item: Item) -> Item {
        item.applied.extend(self.id.clone());
        item
    }

    /// The item under its field's new names, any of them.
    fn renamed(&self, mut item: Item, state: &mut State) -> Block {
        for wanted in &mut item.values {
            let old = std::mem::take(&mut wanted.matchers);
            wanted.matchers = old
                .into_iter()
                .flat_map(|matcher| match matcher {
                    Matcher::Field { other, shape, cased } => self
                        .named(&other, state)
                        .into_iter()
                        .map(|other| Matcher::Field { other, shape, cased })
                        .collect(),
                    matcher => vec![matcher],
                })
                .collect();
        }
        let Some(names) = self.transformation.names(item.field.as_ref()) else { return Block::Item(item) };
        if let Some(field) = &item.field {
            state.track(field, &names, self.id.as_ref());
        }
        let item = self.marked(item);
        let mut list: Vec<Block> = names
            .iter()
            .map(|name| {
                let modifiers = item.key.split_once('|').map(|(_, modifiers)| format!("|{modifiers}"));
                let key = Arc::from(format!("{name}{}", modifiers.unwrap_or_default()));
                Block::Item(Item { key, field: Some(Arc::clone(name)), ..item.clone() })
            })
            .collect();
        if list.len() == 1 { list.remove(0) } else { Block::Any(list) }
    }

    /// New names of a field that stands outside of items; the old one if the step does not concern it.
    pub(super) fn named(&self, field: &Arc<str>, state: &mut State) -> Names {
        let names = self.transformation.names(Some(field)).filter(|_| self.fits_field(field, state));
        match names {
            Some(names) => {
                state.track(field, &names, self.id.as_ref());
                names
            }
            None => vec![Arc::clone(field)],
        }
    }
}

impl State {
    /// The new names inherit what was applied to the old one.
    fn track(&mut self, field: &Arc<str>, names: &[Arc<str>], id: Option<&Arc<str>>) {
        let mut ids = self.fields.get(field).cloned().unwrap_or_default();
        ids.extend(id.cloned());
        for name in names {
            self.fields.entry(Arc::clone(name)).or_default().extend(ids.iter().cloned());
            self.mapped.insert(Arc::clone(name));
        }
    }
}

impl Transformation {
    pub(super) const fn maps_fields(&self) -> bool {
        matches!(
            self,
            Transformation::MapFields(_)
                | Transformation::MapPrefixes(_)
                | Transformation::FieldForm { .. }
                | Transformation::Prefix(_)
                | Transformation::Suffix(_)
        )
    }

    /// New names of a field, or of keywords; `None` if it does not concern them.
    fn names(&self, field: Option<&Arc<str>>) -> Option<Names> {
        match self {
            Transformation::MapFields(mapping) => mapping.get(&field.cloned()).cloned(),
            Transformation::MapPrefixes(list) => {
                let field = field?;
                list.iter().find_map(|(prefix, names)| {
                    let rest = field.strip_prefix(&**prefix)?;
                    Some(names.iter().map(|name| Arc::from(format!("{name}{rest}"))).collect())
                })
            }
            Transformation::FieldForm { form, mapping } => {
                let field = field?;
                let mapped = mapping.get(&Some(Arc::clone(field))).cloned();
                Some(mapped.unwrap_or_else(|| vec![Arc::from(form.of(field))]))
            }
            Transformation::Prefix(prefix) => Some(vec![Arc::from(format!("{prefix}{}", field?))]),
            Transformation::Suffix(suffix) => Some(vec![Arc::from(format!("{}{suffix}", field?))]),
            _ => None,
        }
    }

    /// What becomes of one value; `None` if it stays.
    fn value(&self, matcher: &Matcher) -> Option<Vec<Matcher>> {
        if let Transformation::SetValue(value) = self {
            return Some(vec![value.as_deref().map_or(Matcher::Null, |text| text_matcher(Pattern::parse(text)))]);
        }
        let Matcher::Text { pattern, cased } = matcher else { return None };
        let long = || plain(pattern).len() > REPLACED_BYTES_MAX;
        match self {
            Transformation::MapString(mapping) => {
                let texts = mapping.get(&plain(pattern))?;
                Some(texts.iter().map(|text| text_matcher(Pattern::parse(text))).collect())
            }
            Transformation::Cased => Some(vec![Matcher::Text { pattern: pattern.clone(), cased: true }]),
            Transformation::TextForm(form) => {
                let pattern = by_text(pattern, |text| Pattern::literal(&form.of(text)));
                Some(vec![Matcher::Text { pattern, cased: *cased }])
            }
            Transformation::ReplaceString { .. } if long() => None,
            Transformation::ReplaceString { regex, replacement, skip_special: true, interpret_special } => {
                let replaced = |text: &str| {
                    let new = regex.replace_all(text, replacement.as_str());
                    if *interpret_special { read_plain(&new) } else { Pattern::literal(&new) }
                };
                Some(vec![Matcher::Text { pattern: by_text(pattern, replaced), cased: *cased }])
            }
            Transformation::ReplaceString { regex, replacement, .. } => {
                let text = escaped(pattern);
                if !regex.is_match(&text) {
                    return None;
                }
                let pattern = read_plain(&regex.replace_all(&text, replacement.as_str()));
                Some(vec![Matcher::Text { pattern, cased: *cased }])
            }
            _ => None,
        }
    }
}

impl Form {
    fn of(self, text: &str) -> String {
        match self {
            Form::Lower => text.to_lowercase(),
            Form::Upper => text.to_uppercase(),
            Form::Snake => snake(text),
        }
    }
}

/// `CommandLine` as `command_line`.
fn snake(text: &str) -> String {
    let mut out = String::new();
    let mut before_small = false;
    for c in text.chars() {
        if c.is_uppercase() && before_small {
            out.push('_');
        }
        before_small = c.is_lowercase() || c.is_numeric();
        out.extend(c.to_lowercase());
    }
    out
}

const fn text_matcher(pattern: Pattern) -> Matcher {
    Matcher::Text { pattern, cased: false }
}

fn shown_values(wanted: &Wanted) -> Arc<str> {
    let texts: Vec<String> = wanted.matchers.iter().map(crate::outline::shown).collect();
    Arc::from(texts.join(" or "))
}

/// The texts of a pattern changed, its wildcards left.
fn by_text(pattern: &Pattern, change: impl Fn(&str) -> Pattern) -> Pattern {
    let mut out = Pattern::default();
    for part in &pattern.parts {
        match part {
            Part::Text(text) => push_all(&mut out, &change(text)),
            Part::Any => out.push_any(),
            Part::One => out.parts.push(Part::One),
        }
    }
    out
}

fn push_all(out: &mut Pattern, more: &Pattern) {
    for part in &more.parts {
        match part {
            Part::Text(text) => text.chars().for_each(|c| out.push_char(c)),
            Part::Any => out.push_any(),
            Part::One => out.parts.push(Part::One),
        }
    }
}

/// A pattern as the text that a replacement sees: wildcards bare, what only looks like one behind a backslash, and every
/// other backslash single, but for one right before a wildcard.
fn escaped(pattern: &Pattern) -> String {
    let mut text = String::new();
    let mut parts = pattern.parts.iter().peekable();
    while let Some(part) = parts.next() {
        match part {
            Part::Any => text.push('*'),
            Part::One => text.push('?'),
            Part::Text(literal) => {
                for c in literal.chars() {
                    if matches!(c, '*' | '?') {
                        text.push('\\');
                    }
                    text.push(c);
                }
                if literal.ends_with('\\') && parts.peek().is_some() {
                    text.push('\\');
                }
            }
        }
    }
    text
}

/// The other way: a backslash before a wildcard takes its meaning away, two before one are a backslash; others are
/// themselves.
fn read_plain(text: &str) -> Pattern {
    let mut pattern = Pattern::default();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let behind = rest.get(c.len_utf8()..).unwrap_or_default();
        let next = behind.chars().next();
        let (taken, rest_of) = match (c, next) {
            ('\\', Some('*' | '?')) => (next, behind.get(1..)),
            ('\\', Some('\\')) if behind.get(1..).is_some_and(|after| after.starts_with(['*', '?'])) => {
                (Some('\\'), behind.get(1..))
            }
            ('*', _) => {
                pattern.push_any();
                (None, Some(behind))
            }
            ('?', _) => {
                pattern.parts.push(Part::One);
                (None, Some(behind))
            }
            (c, _) => (Some(c), Some(behind)),
        };
        if let Some(c) = taken {
            pattern.push_char(c);
        }
        rest = rest_of.unwrap_or_default();
    }
    pattern
}

/// A `Hashes` item as one item for each algorithm, any of which may fit; `None` if its values are no texts.
fn hashes(item: &Item, algorithms: &[String], prefix: &str, drop: bool) -> Result<Option<Vec<Item>>, Failure> {
    let mut by_field: BTreeMap<String, Vec<Wanted>> = BTreeMap::new();
    for matcher in item.values.iter().flat_map(|wanted| &wanted.matchers) {
        let Matcher::Text { pattern, .. } = matcher else { return Ok(None) };
        let text = plain(pattern);
        let (algorithm, value) = match text.split_once(if text.contains('|') { '|' } else { '=' }) {
            Some((algorithm, value)) => (algorithm.trim_start_matches('*').to_uppercase(), value.to_owned()),
            None => {
                let bare = text.trim_matches('*');
                let algorithm = match bare.chars().count() {
                    32 => "MD5",
                    40 => "SHA1",
                    64 => "SHA256",
                    128 => "SHA512",
                    _ => "",
                };
                (algorithm.to_owned(), text.clone())
            }
        };
        if algorithms.contains(&algorithm) {
            let field = format!("{prefix}{}", if drop { "" } else { &algorithm });
            let wanted = Wanted { text: Arc::from(&*value), matchers: vec![text_matcher(Pattern::parse(&value))] };
            by_field.entry(field).or_default().push(wanted);
        }
    }
    if by_field.is_empty() {
        return Err(Failure(format!("\"{}\" has no hash of {}", item.key, algorithms.join(", "))));
    }
    let items = by_field.into_iter().map(|(field, values)| Item {
        key: Arc::from(&*field),
        field: (field != "keyword").then(|| Arc::from(&*field)),
        values,
        all: false,
        negated: item.negated,
        applied: item.applied.clone(),
    });
    Ok(Some(items.collect()))
}

/// Reads the conditions that a step adds, with parts of the rule's log source filled in.
pub(super) fn conditions_of(node: &Node, template: bool, source: &LogSourcePattern) -> Result<Block, Failure> {
    let node = if template { filled(node, source) } else { node.clone() };
    let mut problems = Problems::new(&Arc::from("pipeline"));
    let read = match &node.kind {
        Kind::Map(entries) => detection::fields(entries, &mut problems),
        _ => return Err(Failure(format!("`conditions` is {}, not a map", node.word()))),
    };
    read.map_err(|Refused| Failure(problems.list.first().map(|problem| problem.message.clone()).unwrap_or_default()))
}

fn filled(node: &Node, source: &LogSourcePattern) -> Node {
    let kind = match &node.kind {
        Kind::Scalar(text) => {
            let mut text = text.clone();
            for (name, part) in
                [("category", &source.category), ("product", &source.product), ("service", &source.service)]
            {
                let part = part.as_deref().unwrap_or_default();
                text = text.replace(&format!("${{{name}}}"), part).replace(&format!("${name}"), part);
            }
            Kind::Scalar(text)
        }
        Kind::List(list) => Kind::List(list.iter().map(|node| filled(node, source)).collect()),
        Kind::Map(entries) => {
            Kind::Map(entries.iter().map(|(key, value)| (key.clone(), filled(value, source))).collect())
        }
        Kind::Null => Kind::Null,
    };
    Node { at: node.at, kind, plain: node.plain }
}

fn add_condition(outline: &mut Outline, name: &Arc<str>, block: Block, negated: bool) {
    // A name that is taken gets a prime, so that a step may be used twice.
    let mut name = Arc::clone(name);
    while outline.selections.iter().any(|(known, _)| *known == name) {
        name = Arc::from(format!("{name}'"));
    }
    outline.selections.push((Arc::clone(&name), block));
    for formula in &mut outline.formulas {
        let own = Formula::Name(Arc::clone(&name));
        let own = if negated { Formula::Not(Box::new(own)) } else { own };
        let old = std::mem::replace(formula, Formula::All(Vec::new()));
        *formula = Formula::All(vec![own, old]);
    }
}
