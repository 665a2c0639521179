//! A condition evaluated part by part, each with the value it saw.

use std::sync::Arc;

use super::{
    Miss, Part, What,
    miss::{Leaf, Tree},
    value::{Renamed, Seen, cut, real},
};
use crate::{
    outline::{Block, Item, Outline},
    rule::{Formula, Quantity},
};

/// A condition with its parts.
pub(super) struct Evaluated {
    pub(super) part: Part,
    tree: Tree,
    leaves: Vec<Leaf>,
}

impl Evaluated {
    /// The greater the nearer to a match.
    pub(super) fn worth(&self) -> (bool, std::cmp::Reverse<usize>) {
        (self.tree.holds(&self.leaves), std::cmp::Reverse(self.miss().len()))
    }

    pub(super) fn miss(&self) -> Vec<Miss> {
        self.tree.nearest(&self.leaves)
    }
}

pub(super) fn evaluate(outline: &Outline, seen: &Seen<'_>, fields: &Renamed) -> Evaluated {
    let mut walk = Walk { seen, fields, leaves: Vec::new() };
    let (part, tree) = walk.outline(outline);
    Evaluated { part, tree, leaves: walk.leaves }
}

struct Walk<'w> {
    seen: &'w Seen<'w>,
    fields: &'w Renamed,
    leaves: Vec<Leaf>,
}

/// A selection, asked once however often the condition names it.
struct Asked {
    name: Arc<str>,
    part: Part,
    tree: Tree,
}

impl Walk<'_> {
    fn outline(&mut self, outline: &Outline) -> (Part, Tree) {
        let asked: Vec<Asked> = outline
            .selections
            .iter()
            .map(|(name, block)| {
                let (inner, tree) = self.block(block, name);
                let parts = if matches!(inner.what, What::All) { inner.parts } else { vec![inner] };
                let part = Part { holds: Some(tree.holds(&self.leaves)), parts, ..part(What::Selection, name) };
                Asked { name: Arc::clone(name), part, tree }
            })
            .collect();
        let conditions = outline.formulas.iter().map(|formula| self.formula(formula, outline, &asked)).collect();
        let (mut condition, mut tree) = self.joined(What::Any, "any of these conditions", conditions);
        if !outline.filters.is_empty() {
            let mut list = vec![(condition, tree)];
            for (title, suppresses, filter) in &outline.filters {
                let (inner, tree) = self.outline(filter);
                let tree = if *suppresses { Tree::Not(Box::new(tree)) } else { tree };
                let text = if *suppresses { format!("not filter \"{title}\"") } else { format!("filter \"{title}\"") };
                let holds = Some(tree.holds(&self.leaves));
                list.push((Part { holds, parts: vec![inner], ..part(What::Filter, &text) }, tree));
            }
            (condition, tree) = self.joined(What::All, "all of these", list);
        }
        // What the condition never names is shown, so that nobody looks for it in vain.
        let named = |name: &str| outline.formulas.iter().any(|formula| names(formula, name));
        let unused = asked.iter().filter(|asked| !named(&asked.name));
        condition.parts.extend(unused.map(|asked| Part { holds: None, ..asked.part.clone() }));
        (condition, tree)
    }

    fn formula(&mut self, formula: &Formula, outline: &Outline, asked: &[Asked]) -> (Part, Tree) {
        let of = |name: &Arc<str>| asked.iter().find(|asked| asked.name == *name);
        match formula {
            Formula::Any(list) => {
                let list = list.iter().map(|inner| self.formula(inner, outline, asked)).collect();
                self.joined(What::Any, "any of", list)
            }
            Formula::All(list) => {
                let list = list.iter().map(|inner| self.formula(inner, outline, asked)).collect();
                self.joined(What::All, "all of", list)
            }
            Formula::Not(inner) => {
                let (inner, tree) = self.formula(inner, outline, asked);
                let tree = Tree::Not(Box::new(tree));
                (Part { holds: Some(tree.holds(&self.leaves)), parts: vec![inner], ..part(What::Not, "not") }, tree)
            }
            Formula::Name(name) => match of(name) {
                Some(asked) => (asked.part.clone(), asked.tree.clone()),
                None => (Part { holds: Some(true), ..part(What::Selection, name) }, Tree::All(Vec::new())),
            },
            Formula::Of(quantity, which) => {
                let list: Vec<(Part, Tree)> = outline
                    .meant(which)
                    .filter_map(|(name, _)| of(name))
                    .map(|asked| (asked.part.clone(), asked.tree.clone()))
                    .collect();
                let (parts, trees): (Vec<Part>, Vec<Tree>) = list.into_iter().unzip();
                let (text, tree) = match quantity {
                    Quantity::All => (format!("all of {which}"), Tree::All(trees)),
                    Quantity::AtLeast(number) => (format!("{number} of {which}"), Tree::AtLeast(*number, trees)),
                };
                (Part { holds: Some(tree.holds(&self.leaves)), parts, ..part(What::Of, &text) }, tree)
            }
        }
    }

    fn block(&mut self, block: &Block, selection: &Arc<str>) -> (Part, Tree) {
        match block {
            Block::All(list) => {
                let list = list.iter().map(|inner| self.block(inner, selection)).collect();
                self.joined(What::All, "all of", list)
            }
            Block::Any(list) => {
                let list = list.iter().map(|inner| self.block(inner, selection)).collect();
                self.joined(What::Any, "any of", list)
            }
            Block::Item(item) => self.item(item, selection),
        }
    }

    fn joined(&self, what: What, text: &str, list: Vec<(Part, Tree)>) -> (Part, Tree) {
        let (mut parts, mut trees): (Vec<Part>, Vec<Tree>) = list.into_iter().unzip();
        if parts.len() == 1
            && let (Some(part), Some(tree)) = (parts.pop(), trees.pop())
        {
            return (part, tree);
        }
        let tree = if what == What::All { Tree::All(trees) } else { Tree::AtLeast(1, trees) };
        (Part { holds: Some(tree.holds(&self.leaves)), parts, ..part(what, text) }, tree)
    }

    fn item(&mut self, item: &Item, selection: &Arc<str>) -> (Part, Tree) {
        let outcome = self.seen.ask(item, self.fields);
        let texts: Vec<Arc<str>> = item.values.iter().map(|wanted| Arc::from(cut(&wanted.text))).collect();
        let place = |places: &[usize]| places.iter().filter_map(|place| texts.get(*place)).map(Arc::clone).collect();
        let what = if item.field.is_some() { What::Field } else { What::Keyword };
        let text = if item.key.is_empty() { Arc::from("keyword") } else { Arc::clone(&item.key) };
        let elsewhere = item.field.as_ref().map(|field| (field, real(field, self.fields)));
        let met: Vec<Arc<str>> = place(&outcome.met);
        let missing = texts.iter().filter(|text| !met.contains(text)).count();
        self.leaves.push(Leaf {
            selection: Arc::clone(selection),
            text: Arc::clone(&text),
            holds: outcome.holds,
            // With `all` every value that is not met is one thing to be different.
            cost: if item.all && !item.negated { missing.max(1) } else { 1 },
            wanted: texts.clone(),
            saw: outcome.saw.clone(),
        });
        let part = Part {
            holds: Some(outcome.holds),
            wanted: texts,
            met,
            saw: outcome.saw,
            field: elsewhere.filter(|(field, real)| field != real).map(|(_, real)| Arc::clone(real)),
            ..part(what, &text)
        };
        (part, Tree::Leaf(self.leaves.len() - 1))
    }
}

fn part(what: What, text: &str) -> Part {
    Part {
        what,
        text: Arc::from(text),
        holds: None,
        wanted: Vec::new(),
        met: Vec::new(),
        saw: Vec::new(),
        field: None,
        parts: Vec::new(),
    }
}

fn names(formula: &Formula, name: &str) -> bool {
    match formula {
        Formula::Any(list) | Formula::All(list) => list.iter().any(|inner| names(inner, name)),
        Formula::Not(inner) => names(inner, name),
        Formula::Name(named) => &**named == name,
        Formula::Of(_, which) => crate::parse::condition::is_meant(which, name),
    }
}
