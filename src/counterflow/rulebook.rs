//! The rules in force and the texts they are from: what a change of files or a request makes of them.
//!
//! A book is a value: a change gives another book, and whoever holds the old one is not disturbed. The unit is a text,
//! known by its file's name; texts made by hand have names that begin with `api:`. A changed file that has become broken
//! keeps what it said before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context, Result};
use cf_ledger::{ControlEntry, Ledger};
use cf_sigma::{Problem, RuleInfo, RuleSet, Severity, Text};
use cf_types::{Time, clock};
use serde::{Deserialize, Serialize};

use crate::rules::{self, RuleOptions};

/// Before the names of texts made by hand.
pub(crate) const BY_HAND: &str = "api:";
/// The text that lists which rules are disabled.
const DISABLED: &str = "api:disabled";
/// Before the hash of a single text where the ledger keeps rule sets.
const TEXT_PREFIX: &str = "text:";

/// What the control log says of rules, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum RuleEntry {
    /// A text under a name, new or instead of the one before.
    Put { file: String, text: String },
    /// The text of that name is gone.
    Remove { file: String },
    /// A rule, whosever it is, is not evaluated from now on.
    Disable { id: String },
    /// It is evaluated again.
    Enable { id: String },
}

/// Rules with all that is known of their texts.
#[derive(Clone)]
pub(crate) struct RuleBook {
    /// What is in force.
    pub(crate) set: Arc<RuleSet>,
    /// What is wrong with the texts in force.
    pub(crate) problems: Arc<Vec<Problem>>,
    /// The texts in force, by file.
    pub(crate) texts: Arc<BTreeMap<Arc<str>, Arc<str>>>,
    /// Files whose newest text is broken, and how: an older one is in force.
    pub(crate) held: Arc<BTreeMap<Arc<str>, Vec<Problem>>>,
    /// Rules that are not evaluated, by hand.
    pub(crate) disabled: Arc<BTreeSet<String>>,
}

/// Texts that change at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct TextChanges {
    /// New or other texts.
    pub(crate) upsert: Vec<Text>,
    /// Names of those that are gone.
    pub(crate) removed: Vec<Arc<str>>,
}

impl RuleBook {
    /// Compiles what a start finds: files, and what the control log says was made by hand. Of the texts of the last run
    /// (`before`) the order stays, so that the same rules win and an unchanged set has an unchanged hash, and those are
    /// taken instead of files that are broken now.
    pub(crate) fn open(
        files: Vec<Text>,
        entries: &[ControlEntry],
        before: &[Text],
        options: &RuleOptions,
    ) -> Result<RuleBook> {
        let (by_hand, disabled) = by_hand(entries)?;
        let mut texts = files;
        texts.extend(by_hand.into_iter().map(|(file, text)| Text { file: file.into(), text }));
        texts.extend(disabling(&disabled));
        let places: BTreeMap<&Arc<str>, usize> =
            before.iter().zip(0..).map(|(text, place)| (&text.file, place)).collect();
        texts.sort_by_key(|text| places.get(&text.file).copied().unwrap_or(usize::MAX));
        let (set, problems) = rules::compile(&texts, options);
        let before: BTreeMap<&Arc<str>, &Text> = before.iter().map(|text| (&text.file, text)).collect();
        let changed: Vec<Text> = texts
            .iter()
            .filter(|text| before.get(&text.file).is_some_and(|old| old.text != text.text))
            .cloned()
            .collect();
        let book = RuleBook {
            set,
            problems: Arc::new(problems),
            texts: Arc::new(by_file(&texts)),
            held: Arc::default(),
            disabled: Arc::new(disabled),
        };
        let old = |file: &Arc<str>| before.get(file).map(|text| Text::clone(text));
        Ok(book.without_broken(&changed, old))
    }

    /// The book after files changed. Those that are broken keep what they said before.
    pub(crate) fn with_files(&self, changes: TextChanges) -> RuleBook {
        let mut book = self.changed(&changes);
        let held = Arc::make_mut(&mut book.held);
        for file in changes.upsert.iter().map(|text| &text.file).chain(&changes.removed) {
            held.remove(file);
        }
        let old = |file: &Arc<str>| {
            let text = self.texts.get(file)?;
            Some(Text { file: Arc::clone(file), text: text.to_string() })
        };
        book.without_broken(&changes.upsert, old)
    }

    /// The book after a change by hand, or what is wrong with it: any error in its texts, and any that it brings to others.
    pub(crate) fn with_hand(
        &self,
        changes: &TextChanges,
        disabled: BTreeSet<String>,
    ) -> Result<RuleBook, Vec<Problem>> {
        let mut changes = changes.clone();
        let list: Arc<str> = Arc::from(DISABLED);
        if disabled != *self.disabled {
            match disabling(&disabled) {
                Some(text) => changes.upsert.push(text),
                None => changes.removed.push(list),
            }
        }
        let mut book = self.changed(&changes);
        book.disabled = Arc::new(disabled);
        let ours = |file: &Arc<str>| changes.upsert.iter().any(|text| text.file == *file);
        // A line moves when its file changes; files that did not change keep theirs.
        let was = |new: &Problem| self.problems.iter().any(|old| old == new);
        let wrong: Vec<Problem> = book
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error && (ours(&problem.file) || !was(problem)))
            .cloned()
            .collect();
        if wrong.is_empty() { Ok(book) } else { Err(wrong) }
    }

    /// A rule and the text of its file.
    pub(crate) fn rule(&self, id: &str) -> Option<(&RuleInfo, &Arc<str>)> {
        let info = self.set.rules().iter().find(|rule| &*rule.id == id)?;
        Some((info, self.texts.get(&info.file)?))
    }

    /// Changes with the text of a rule, and with whether it is evaluated.
    pub(crate) fn etag(&self, info: &RuleInfo) -> String {
        let text = self.texts.get(&info.file).map_or("", |text| text);
        let enabled: &[u8] = if info.enabled { b"on" } else { b"off" };
        digest(&[text.as_bytes(), enabled])
    }

    /// Problems of all texts: of those in force, and of newer ones that are broken.
    pub(crate) fn all_problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().chain(self.held.values().flatten())
    }

    /// Whether something is refused.
    pub(crate) fn errors(&self) -> usize {
        self.all_problems().filter(|problem| problem.severity == Severity::Error).count()
    }

    fn changed(&self, changes: &TextChanges) -> RuleBook {
        let (set, problems) = rules::changed(&self.set, changes.upsert.clone(), &changes.removed);
        let mut texts = BTreeMap::clone(&self.texts);
        texts.retain(|file, _| !changes.removed.contains(file));
        texts.extend(by_file(&changes.upsert));
        RuleBook { set, problems: Arc::new(problems), texts: Arc::new(texts), ..self.clone() }
    }

    /// Puts the old texts back for those of `changed` that have errors now and had none before.
    fn without_broken(self, changed: &[Text], old: impl Fn(&Arc<str>) -> Option<Text>) -> RuleBook {
        let errors_of = |book: &RuleBook, file: &Arc<str>| -> Vec<Problem> {
            let of_file = |problem: &&Problem| problem.file == *file && problem.severity == Severity::Error;
            book.problems.iter().filter(of_file).cloned().collect()
        };
        let broken: Vec<(Text, Vec<Problem>)> = changed
            .iter()
            .filter_map(|text| {
                let errors = errors_of(&self, &text.file);
                if errors.is_empty() { None } else { Some((old(&text.file)?, errors)) }
            })
            .collect();
        if broken.is_empty() {
            return self;
        }
        let upsert = broken.iter().map(|(text, _)| text.clone()).collect();
        let mut book = self.changed(&TextChanges { upsert, removed: Vec::new() });
        // What was no better before: the new text says at least what is meant now.
        let (no_better, better): (Vec<_>, Vec<_>) =
            broken.into_iter().partition(|(text, _)| !errors_of(&book, &text.file).is_empty());
        if !no_better.is_empty() {
            let is_one = |text: &&Text| no_better.iter().any(|(old, _)| old.file == text.file);
            let upsert = changed.iter().filter(is_one).cloned().collect();
            book = book.changed(&TextChanges { upsert, removed: Vec::new() });
        }
        let held = Arc::make_mut(&mut book.held);
        held.extend(better.into_iter().map(|(text, errors)| (text.file, errors)));
        book
    }
}

pub(crate) fn by_file(texts: &[Text]) -> BTreeMap<Arc<str>, Arc<str>> {
    texts.iter().map(|text| (Arc::clone(&text.file), Arc::from(text.text.as_str()))).collect()
}

/// The text that disables these rules, if there are any.
fn disabling(disabled: &BTreeSet<String>) -> Option<Text> {
    if disabled.is_empty() {
        return None;
    }
    // JSON texts are YAML texts.
    let list = serde_json::to_string(disabled).expect("a list of texts is JSON");
    Some(Text { file: Arc::from(DISABLED), text: format!("disable: {list}\n") })
}

/// What holds after all that the control log says: texts by name, and which rules are disabled.
fn by_hand(entries: &[ControlEntry]) -> Result<(BTreeMap<String, String>, BTreeSet<String>)> {
    let (mut texts, mut disabled) = (BTreeMap::new(), BTreeSet::new());
    for entry in entries {
        let said: RuleEntry = serde_json::from_str(&entry.body)
            .with_context(|| format!("entry {} of the control log is no change of rules", entry.seq))?;
        match said {
            RuleEntry::Put { file, text } => drop(texts.insert(file, text)),
            RuleEntry::Remove { file } => drop(texts.remove(&file)),
            RuleEntry::Disable { id } => drop(disabled.insert(id)),
            RuleEntry::Enable { id } => drop(disabled.remove(&id)),
        }
    }
    Ok((texts, disabled))
}

/// Keeps rule sets in the ledger: each text once under its hash, each set as the list of its texts. So an epoch of
/// before can be evaluated again with the rules that it had.
pub(crate) struct Shelf {
    ledger: Ledger,
    texts: BTreeSet<String>,
}

/// A kept rule set: files with the hashes of their texts, or, as the first version wrote it, with the texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kept {
    Hashes { files: Vec<(String, String)> },
    Texts(Vec<(String, String)>),
}

impl Shelf {
    /// Looks at what is there.
    pub(crate) async fn open(ledger: Ledger) -> Result<Shelf> {
        let texts = ledger.rule_set_hashes(TEXT_PREFIX).await?;
        Ok(Shelf { ledger, texts })
    }

    /// Keeps a set, durably.
    pub(crate) async fn put(&mut self, book: &RuleBook) -> Result<()> {
        self.put_texts(&book.set, &book.texts).await
    }

    /// The same for a set whose texts never change.
    pub(crate) async fn put_texts(&mut self, set: &RuleSet, texts: &BTreeMap<Arc<str>, Arc<str>>) -> Result<()> {
        let mut files = Vec::new();
        let mut new: BTreeMap<String, &Arc<str>> = BTreeMap::new();
        for file in set.files() {
            let Some(text) = texts.get(file) else { continue };
            let hash = format!("{TEXT_PREFIX}{}", digest(&[text.as_bytes()]));
            if !self.texts.contains(&hash) {
                new.insert(hash.clone(), text);
            }
            files.push((file, hash));
        }
        let list = serde_json::to_vec(&serde_json::json!({ "files": files }))?;
        let mut rows: Vec<(&str, &[u8])> = new.iter().map(|(hash, text)| (hash.as_str(), text.as_bytes())).collect();
        rows.push((set.hash(), &list));
        self.ledger.rule_sets_put(&rows, clock::now()).await?;
        self.texts.extend(new.into_keys());
        Ok(())
    }

    /// The texts of a kept set, in order; `None` if it is not there.
    pub(crate) async fn get(ledger: &Ledger, hash: &str) -> Result<Option<Vec<Text>>> {
        let Some(body) = ledger.rule_set_get(hash).await? else { return Ok(None) };
        let mut texts = Vec::new();
        for (file, kept) in files(&body)? {
            let text = match kept {
                KeptText::Text(text) => text,
                KeptText::Hash(hash) => {
                    let text = ledger.rule_set_get(&hash).await?;
                    let text = text.with_context(|| format!("the ledger lacks the text {hash} of rule file {file}"))?;
                    String::from_utf8(text).context("a rule text in the ledger is damaged")?
                }
            };
            texts.push(Text { file: file.into(), text });
        }
        Ok(Some(texts))
    }
}

/// A text of a kept rule set, or where it is kept.
pub(crate) enum KeptText {
    Text(String),
    Hash(String),
}

/// The files of a kept rule set, in order.
pub(crate) fn files(body: &[u8]) -> Result<Vec<(String, KeptText)>> {
    Ok(match serde_json::from_slice(body).context("a rule set in the ledger is damaged")? {
        Kept::Texts(texts) => texts.into_iter().map(|(file, text)| (file, KeptText::Text(text))).collect(),
        Kept::Hashes { files } => files.into_iter().map(|(file, hash)| (file, KeptText::Hash(hash))).collect(),
    })
}

/// Names a version of a rule file.
pub(crate) fn text_hash(text: &str) -> String {
    digest(&[text.as_bytes()])
}

fn digest(parts: &[&[u8]]) -> String {
    cf_types::EventId(cf_types::id::digest128("counterflow 2026 rule text", parts)).to_string()
}

/// Appends what changed by hand to the control log.
pub(crate) async fn append(ledger: &Ledger, entries: &[RuleEntry], author: &str, reason: &str, at: Time) -> Result<()> {
    for entry in entries {
        let body = serde_json::to_string(entry)?;
        ledger.control_append(cf_ledger::control::RULE, &body, author, reason, at).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(file: &str, text: &str) -> Text {
        Text { file: file.into(), text: text.to_owned() }
    }

    fn rule(id: &str, image: &str) -> String {
        format!(
            "title: {id}\nid: {id}\nlogsource: {{product: linux}}\ndetection:\n  s: {{Image: {image}}}\n  condition: s\n"
        )
    }

    fn opened(files: &[Text], entries: &[RuleEntry], before: &[Text]) -> RuleBook {
        let entry = |entry: &RuleEntry| ControlEntry {
            seq: 1,
            kind: cf_ledger::control::RULE.to_owned(),
            body: serde_json::to_string(entry).unwrap(),
            author: String::new(),
            reason: String::new(),
            at: Time::default(),
        };
        let entries: Vec<_> = entries.iter().map(entry).collect();
        RuleBook::open(files.to_vec(), &entries, before, &RuleOptions::default()).unwrap()
    }

    /// Ids (`-`: disabled) with their images, and files that are held.
    fn shown(book: &RuleBook) -> String {
        let image = |info: &RuleInfo| {
            let text = &book.texts[&info.file];
            text.split("Image: ").nth(1).and_then(|rest| rest.split('}').next()).unwrap_or("?").to_owned()
        };
        let rules = book
            .set
            .rules()
            .iter()
            .map(|info| format!("{}{}={}", info.id, if info.enabled { "" } else { "-" }, image(info)));
        let held = book.held.keys().map(|file| format!("held {file}"));
        rules.chain(held).collect::<Vec<_>>().join(" ")
    }

    fn files(changes: &[(&str, Option<&str>)]) -> TextChanges {
        let mut all = TextChanges::default();
        for (file, new) in changes {
            match new {
                Some(new) => all.upsert.push(text(file, new)),
                None => all.removed.push(Arc::from(*file)),
            }
        }
        all
    }

    const BROKEN: &str = "title: [\n";

    #[test]
    fn a_file_that_breaks_keeps_what_it_said() {
        let book = opened(&[text("a", &rule("a", "x")), text("b", &rule("b", "x"))], &[], &[]);
        let broken = book.with_files(files(&[("a", Some(BROKEN)), ("b", Some(&rule("b", "y")))]));
        assert_eq!(shown(&broken), "a=x b=y held a");
        assert_eq!(broken.errors(), 1);
        assert_eq!(
            broken.set.hash(),
            opened(&[text("a", &rule("a", "x")), text("b", &rule("b", "y"))], &[], &[]).set.hash()
        );
        // Mended, changed back, or gone: nothing is held any more.
        assert_eq!(shown(&broken.with_files(files(&[("a", Some(&rule("a", "z")))]))), "a=z b=y");
        assert_eq!(shown(&broken.with_files(files(&[("a", Some(&rule("a", "x")))]))), "a=x b=y");
        assert_eq!(shown(&broken.with_files(files(&[("a", None)]))), "b=y");
        // A new file that is broken has nothing to keep; its good documents load.
        let half = format!("{}---\ntitle: 7\n", rule("c", "x"));
        assert_eq!(shown(&book.with_files(files(&[("c", Some(&half))]))), "a=x b=x c=x");
    }

    #[test]
    fn an_id_taken_by_another_file_is_refused() {
        let book = opened(&[text("a", &rule("a", "x")), text("b", &rule("b", "x"))], &[], &[]);
        assert_eq!(shown(&book.with_files(files(&[("b", Some(&rule("a", "y")))]))), "a=x b=x held b");
    }

    #[test]
    fn a_start_knows_the_run_before() {
        let before = [text("b", &rule("b", "x")), text("a", &rule("a", "x"))];
        let now = [text("a", BROKEN), text("b", &rule("b", "y")), text("c", &rule("c", "z"))];
        let book = opened(&now, &[], &before);
        assert_eq!(shown(&book), "b=y a=x c=z held a");
        let same = opened(&[before[1].clone(), before[0].clone()], &[], &before);
        let (first, _) = rules::compile(&before, &RuleOptions::default());
        assert_eq!(same.set.hash(), first.hash(), "in the order of before");
        assert_eq!(shown(&opened(&now, &[], &[])), "b=y c=z", "nothing to keep");
    }

    #[test]
    fn what_was_made_by_hand_is_there_after_a_start() {
        let put = |file: &str, id: &str, image| RuleEntry::Put { file: file.into(), text: rule(id, image) };
        let id = || "a".to_owned();
        let file = [text("a", &rule("a", "x"))];
        let book = |entries: &[RuleEntry]| shown(&opened(&file, entries, &[]));
        assert_eq!(book(&[put("api:b", "b", "x"), put("api:b", "b", "y")]), "a=x b=y");
        assert_eq!(book(&[put("api:b", "b", "x"), RuleEntry::Remove { file: "api:b".into() }]), "a=x");
        assert_eq!(book(&[RuleEntry::Disable { id: id() }]), "a-=x");
        assert_eq!(book(&[RuleEntry::Disable { id: id() }, RuleEntry::Enable { id: id() }]), "a=x");
        assert_eq!(book(&[put("api:a", "a", "y")]), "a=x", "files come first");
    }

    #[test]
    fn a_change_by_hand_is_all_or_nothing() {
        let book = opened(&[text("a", &rule("a", "x"))], &[], &[]);
        let none = BTreeSet::new;
        let made = book.with_hand(&files(&[("api:b", Some(&rule("b", "y")))]), none()).unwrap_or_else(|_| panic!());
        assert_eq!(shown(&made), "a=x b=y");
        let codes = |changes, of: &RuleBook| -> Vec<&str> {
            of.with_hand(&changes, none()).err().unwrap().iter().map(|problem| problem.code).collect()
        };
        assert_eq!(codes(files(&[("api:c", Some(BROKEN))]), &book), ["yaml"]);
        assert_eq!(codes(files(&[("api:c", Some(&rule("a", "y")))]), &book), ["repeated_id"]);
        // Taking a rule away that another refers to would break that one.
        let over = "title: c\nid: c\ncorrelation: {type: event_count, rules: [b], group-by: [Image], timespan: 1m, \
                    condition: {gte: 2}}\n";
        let both = made.with_hand(&files(&[("api:c", Some(over))]), none()).unwrap_or_else(|_| panic!());
        assert_eq!(codes(files(&[("api:b", None)]), &both), ["unknown_reference"]);
        let off =
            both.with_hand(&TextChanges::default(), BTreeSet::from(["b".to_owned()])).unwrap_or_else(|_| panic!());
        assert!(shown(&off).contains("b-="));
        assert_ne!(off.etag(off.rule("b").unwrap().0), both.etag(both.rule("b").unwrap().0));
    }
}
