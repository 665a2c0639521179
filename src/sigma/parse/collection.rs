//! Rule collections of Sigma 1 (specification 1.0.2, *Rule Collections*): documents with `action` and what follows them.
//!
//! `global` is merged into all documents behind it, `reset` ends that, `repeat` is the document before it with changes.
//! Where two give the same key, the later and more special one wins: the document over its globals, the repetition over
//! what it repeats. Maps are merged key by key, anything else is replaced.

use std::{collections::HashMap, sync::Arc};

use crate::{
    problem::{Problems, did_you_mean, shown},
    yaml::{Kind, NODES_MAX, Node},
};

const ACTIONS: [&str; 3] = ["global", "reset", "repeat"];

/// Makes rules of their own of a text's documents. Costs nothing where no document has an `action`.
pub(crate) fn expand(documents: Vec<Node>, problems: &mut Problems) -> Vec<Node> {
    if !documents.iter().any(is_action) {
        return documents;
    }
    let mut globals: Option<Node> = None;
    let mut before: Option<Node> = None;
    let mut ids: HashMap<Arc<str>, usize> = HashMap::new();
    let mut nodes = 0;
    let mut out = Vec::new();
    for document in documents {
        let action = document
            .get("action")
            .filter(|_| is_action(&document))
            .map(|node| (node.at, node.text().unwrap_or_default().to_lowercase()));
        let bare = without_action(document);
        let base = match action.as_ref().map(|(_, action)| action.as_str()) {
            Some("global") => {
                nodes += bare.size().0;
                globals = Some(match globals.take() {
                    Some(globals) => merged(&globals, bare),
                    None => bare,
                });
                continue;
            }
            Some("reset") => {
                globals = None;
                continue;
            }
            Some("repeat") => &before,
            None => &globals,
            Some(other) => {
                let at = action.as_ref().map(|(at, _)| *at).unwrap_or_default();
                let message = format!("unknown action \"{}\"", shown(other));
                let _refused = problems.error("collection_action", at, message, did_you_mean(other, ACTIONS));
                continue;
            }
        };
        if base.is_none()
            && let Some((at, _)) = action
        {
            let message = "there is no rule before it that could be repeated".to_owned();
            let _refused = problems.error("collection_action", at, message, None);
            continue;
        }
        // Each document brings its own and a copy of its base.
        nodes += bare.size().0 + base.as_ref().map_or(0, |base| base.size().0);
        if nodes > NODES_MAX {
            let message = format!("the collection becomes more than {NODES_MAX} nodes");
            let _refused = problems.error("yaml", bare.at, message, None);
            return out;
        }
        let own_id = bare.get("id").is_some();
        let rule = match base {
            Some(base) => merged(base, bare),
            None => bare,
        };
        before = Some(rule.clone());
        out.push(with_own_id(rule, own_id, &mut ids, problems));
    }
    out
}

fn is_action(document: &Node) -> bool {
    document.get("action").is_some_and(|action| action.text().is_some())
}

fn without_action(document: Node) -> Node {
    match document.kind {
        Kind::Map(mut entries) => {
            entries.retain(|(key, value)| key.text() != Some("action") || value.text().is_none());
            Node { kind: Kind::Map(entries), ..document }
        }
        Kind::Null | Kind::Scalar(_) | Kind::List(_) => document,
    }
}

/// The base with what is over it; the place is that of what is over it.
fn merged(base: &Node, over: Node) -> Node {
    match (&base.kind, over) {
        (Kind::Map(base), Node { at, plain, kind: Kind::Map(over) }) => {
            let mut entries = base.clone();
            let places: HashMap<&str, usize> =
                base.iter().enumerate().filter_map(|(place, (key, _))| Some((key.text()?, place))).collect();
            for (key, value) in over {
                let known = key.text().and_then(|text| places.get(text));
                match known.and_then(|place| entries.get_mut(*place)) {
                    Some((_, slot)) => *slot = merged(slot, value),
                    None => entries.push((key, value)),
                }
            }
            Node { at, plain, kind: Kind::Map(entries) }
        }
        (_, over) => over,
    }
}

/// Collections have one id for all their rules, where every rule needs its own: the first keeps it.
fn with_own_id(mut rule: Node, own: bool, ids: &mut HashMap<Arc<str>, usize>, problems: &mut Problems) -> Node {
    let Some(id) = rule.get("id").and_then(Node::text).map(Arc::<str>::from) else { return rule };
    let uses = ids.entry(Arc::clone(&id)).or_insert(0);
    *uses += 1;
    if own || *uses == 1 {
        return rule;
    }
    let made = format!("{id}#{uses}");
    let hint = Some("give each rule of the collection an id of its own".to_owned());
    problems.rule = rule.get("title").and_then(Node::text).map(|title| shown(title).into());
    problems.warn("inherited_id", rule.at, format!("the rule has no `id` of its own; \"{made}\" is used"), hint);
    problems.rule = None;
    if let Kind::Map(entries) = &mut rule.kind {
        for (_, value) in entries.iter_mut().filter(|(key, _)| key.text() == Some("id")) {
            value.kind = Kind::Scalar(made.clone());
        }
    }
    rule
}
