//! The text of the table to its rows.

use std::sync::Arc;

use cf_types::LogSource;

use crate::{
    log_source::{Category, Implied, LogSources, Service, Wanted},
    parse::{Text, refuse_repeated_keys},
    problem::{Place, Problem, Problems, Refused, did_you_mean, shown},
    yaml::{self, Kind, Node},
};

/// Rows of a table, lists multiplied out. The shipped one has about 300.
const ROWS_MAX: usize = 20_000;

pub(super) fn extended(table: &LogSources, texts: &[Text]) -> Result<LogSources, Vec<Problem>> {
    let mut extended = table.clone();
    let mut hasher = blake3::Hasher::new_derive_key("counterflow 2026 log sources");
    hasher.update(&table.digest);
    let mut found = Vec::new();
    for text in texts {
        hasher.update(blake3::hash(text.text.as_bytes()).as_bytes());
        let mut problems = Problems::new(&text.file);
        let (documents, error) = yaml::documents(&text.text);
        if let Some(error) = error {
            let message = format!("could not read the text as YAML: {}", error.message);
            let _refused = problems.error("yaml", error.at, message, None);
        }
        for document in &documents {
            // What was refused has said why.
            let _refused = extended.read(document, &mut problems);
        }
        found.append(&mut problems.list);
    }
    if !found.is_empty() {
        return Err(found);
    }
    if !texts.is_empty() {
        extended.digest = *hasher.finalize().as_bytes();
    }
    Ok(extended)
}

type Read<T> = Result<T, Refused>;

impl LogSources {
    fn read(&mut self, document: &Node, problems: &mut Problems) -> Read<()> {
        if matches!(document.kind, Kind::Null) {
            return Ok(());
        }
        let parts = ["services", "categories", "providers", "declared", "implied"];
        let entries = map(document, "the table of log sources", problems)?;
        for (key, _) in entries {
            known(key, &parts, "the table", problems)?;
        }
        // Categories refer to services, whichever comes first in the text.
        self.read_services(document, problems)?;
        self.read_categories(document, problems)?;
        self.read_providers(document, problems)?;
        for node in document.get("declared").map(Node::each).unwrap_or_default() {
            self.check_rows(node, problems)?;
            for [product, category, service] in rows(node, problems)? {
                let part = |node: Option<&Node>, problems: &mut Problems| {
                    node.map(|node| word(node, "a part of a log source", problems)).transpose()
                };
                self.declared.push(LogSource {
                    product: part(product, problems)?,
                    category: part(category, problems)?,
                    service: part(service, problems)?,
                });
            }
        }
        for node in document.get("implied").map(Node::each).unwrap_or_default() {
            self.check_rows(node, problems)?;
            self.implied.append(&mut implied(node, problems)?);
        }
        Ok(())
    }

    fn check_rows(&self, node: &Node, problems: &mut Problems) -> Read<()> {
        let channels: usize = self.services.iter().map(|service| service.channels.len()).sum();
        let rows = channels + self.categories.len() + self.declared.len() + self.implied.len() + self.providers.len();
        if rows > ROWS_MAX {
            let message = format!("the table of log sources has more than {ROWS_MAX} rows");
            return Err(problems.error("log_sources", node.at, message, None));
        }
        Ok(())
    }

    fn read_services(&mut self, document: &Node, problems: &mut Problems) -> Read<()> {
        for (product, services) in entries_of(document.get("services"), "`services`", problems)? {
            let product = word(product, "a product", problems)?;
            for (name, channels) in entries_of(Some(services), &format!("`services` of \"{product}\""), problems)? {
                let service = word(name, "a service", problems)?;
                for node in channels.each() {
                    self.check_rows(node, problems)?;
                    let channel = text(node, &format!("a channel of \"{}\"", shown(&service)), problems)?;
                    self.add_channel(&product, &service, &channel, node.at, problems)?;
                }
            }
        }
        Ok(())
    }

    fn add_channel(
        &mut self,
        product: &Arc<str>,
        service: &Arc<str>,
        channel: &Arc<str>,
        at: Place,
        problems: &mut Problems,
    ) -> Read<()> {
        if let Some(other) = self.product_of_channel(channel).filter(|other| *other != product) {
            let message = format!("the channel \"{}\" is one of the product \"{other}\"", shown(channel));
            return Err(problems.error("log_sources", at, message, Some("a channel has one product".to_owned())));
        }
        let same = |known: &&mut Service| known.product == *product && known.service == *service;
        match self.services.iter_mut().find(same) {
            Some(known) if known.channels.iter().any(|name| name.eq_ignore_ascii_case(channel)) => {}
            Some(known) => known.channels.push(Arc::clone(channel)),
            None => self.services.push(Service {
                product: Arc::clone(product),
                service: Arc::clone(service),
                channels: vec![Arc::clone(channel)],
            }),
        }
        Ok(())
    }

    fn read_categories(&mut self, document: &Node, problems: &mut Problems) -> Read<()> {
        for (product, categories) in entries_of(document.get("categories"), "`categories`", problems)? {
            let product = word(product, "a product", problems)?;
            for (name, rows) in entries_of(Some(categories), &format!("`categories` of \"{product}\""), problems)? {
                let category = word(name, "a category", problems)?;
                for row in rows.each() {
                    self.check_rows(row, problems)?;
                    let row = self.category(&product, &category, row, problems)?;
                    self.categories.push(row);
                }
            }
        }
        Ok(())
    }

    fn category(&self, product: &Arc<str>, category: &Arc<str>, row: &Node, problems: &mut Problems) -> Read<Category> {
        for (key, _) in map(row, &format!("a row of the category \"{}\"", shown(category)), problems)? {
            known(key, &["service", "event_ids", "when", "fields"], "a category", problems)?;
        }
        let lacks = |part: &str| format!("the category \"{}\" has no `{part}`", shown(category));
        let Some(service) = row.get("service") else {
            return Err(problems.error("log_sources", row.at, lacks("service"), None));
        };
        let at = service.at;
        let service = word(service, "a service", problems)?;
        let mut of = self.services.iter().filter(|known| known.product == *product);
        if !of.any(|known| known.service == service) {
            let names = self.services.iter().filter(|known| known.product == *product).map(|known| &*known.service);
            let message = format!("the product \"{}\" has no service \"{}\"", shown(product), shown(&service));
            return Err(problems.error("log_sources", at, message, did_you_mean(&service, names)));
        }
        let ids = row.get("event_ids").map(Node::each).unwrap_or_default();
        let event_ids: Read<Vec<u32>> = ids
            .iter()
            .map(|node| {
                let text = text(node, "an event id", problems)?;
                text.parse().map_err(|_| {
                    let message = format!("\"{}\" is no event id", shown(&text));
                    problems.error("log_sources", node.at, format!("{message}: a whole number from 0"), None)
                })
            })
            .collect();
        let event_ids = event_ids?;
        if event_ids.is_empty() {
            return Err(problems.error("log_sources", row.at, lacks("event_ids"), None));
        }
        let mut when = Vec::new();
        for (field, values) in entries_of(row.get("when"), "`when`", problems)? {
            let values: Read<Vec<_>> = values.each().iter().map(|node| text(node, "a value", problems)).collect();
            when.push((text(field, "a field", problems)?, values?));
        }
        let mut fields = Vec::new();
        for (rule, event) in entries_of(row.get("fields"), "`fields`", problems)? {
            fields.push((text(rule, "a field", problems)?, text(event, "a field", problems)?));
        }
        Ok(Category { product: Arc::clone(product), category: Arc::clone(category), service, event_ids, when, fields })
    }

    fn read_providers(&mut self, document: &Node, problems: &mut Problems) -> Read<()> {
        for (provider, channel) in entries_of(document.get("providers"), "`providers`", problems)? {
            self.check_rows(provider, problems)?;
            let row = (text(provider, "a provider", problems)?, text(channel, "a channel", problems)?);
            // A later row of a provider takes the place of an earlier one.
            self.providers.retain(|(name, _)| !name.eq_ignore_ascii_case(&row.0));
            self.providers.push(row);
        }
        Ok(())
    }
}

fn implied(node: &Node, problems: &mut Problems) -> Read<Vec<Implied>> {
    for (key, _) in map(node, "an implied row", problems)? {
        known(key, &["when", "except", "also"], "an implied row", problems)?;
    }
    let part = |name: &str, problems: &mut Problems| {
        node.get(name)
            .ok_or_else(|| problems.error("log_sources", node.at, format!("an implied row has no `{name}`"), None))
    };
    let (when, also) = (part("when", problems)?, part("also", problems)?);
    let except: Read<Vec<_>> = node
        .get("except")
        .map(Node::each)
        .unwrap_or_default()
        .iter()
        .map(|node| word(node, "a service", problems))
        .collect();
    let except = except?;
    let mut list = Vec::new();
    for [product, category, service] in rows(when, problems)? {
        let wanted = |node: Option<&Node>, problems: &mut Problems| match node {
            None => Ok(Wanted::Whatever),
            Some(Node { kind: Kind::Null, .. }) => Ok(Wanted::Absent),
            Some(node) if node.text() == Some("*") => Ok(Wanted::Present),
            Some(node) => word(node, "a part of a log source", problems).map(Wanted::Is),
        };
        for [also_product, also_category, also_service] in rows(also, problems)? {
            let part = |node: Option<&Node>, problems: &mut Problems| {
                node.map(|node| word(node, "a part of a log source", problems)).transpose()
            };
            list.push(Implied {
                product: wanted(product, problems)?,
                category: wanted(category, problems)?,
                service: wanted(service, problems)?,
                except: except.clone(),
                also: LogSource {
                    product: part(also_product, problems)?,
                    category: part(also_category, problems)?,
                    service: part(also_service, problems)?,
                },
            });
        }
    }
    Ok(list)
}

/// Product, category and service of a map, its lists multiplied out: one row for each combination.
fn rows<'n>(node: &'n Node, problems: &mut Problems) -> Read<Vec<[Option<&'n Node>; 3]>> {
    for (key, _) in map(node, "a log source", problems)? {
        known(key, &["product", "category", "service"], "a log source", problems)?;
    }
    let part = |name: &str| match node.get(name) {
        None => vec![None],
        Some(Node { kind: Kind::List(list), .. }) => list.iter().map(Some).collect(),
        one => vec![one],
    };
    let (products, categories, services) = (part("product"), part("category"), part("service"));
    if products.len().saturating_mul(categories.len()).saturating_mul(services.len()) > ROWS_MAX {
        let message = format!("a log source multiplies to more than {ROWS_MAX}");
        return Err(problems.error("log_sources", node.at, message, None));
    }
    let mut list = Vec::new();
    for product in &products {
        for category in &categories {
            list.extend(services.iter().map(|service| [*product, *category, *service]));
        }
    }
    if list.iter().any(|row| row.iter().all(Option::is_none)) || list.is_empty() {
        let hint = Some("give product, category or service".to_owned());
        return Err(problems.error("log_sources", node.at, "a log source says nothing".to_owned(), hint));
    }
    Ok(list)
}

fn known(key: &Node, parts: &[&str], of: &str, problems: &mut Problems) -> Read<()> {
    let word = key.text().unwrap_or_default();
    if parts.contains(&word) {
        return Ok(());
    }
    let hint = did_you_mean(word, parts.iter().copied());
    Err(problems.error("log_sources", key.at, format!("unknown part of {of}: \"{}\"", shown(word)), hint))
}

fn map<'n>(node: &'n Node, what: &str, problems: &mut Problems) -> Read<&'n [(Node, Node)]> {
    let Some(entries) = node.map() else {
        let message = format!("{what} is {}, not a map", node.word());
        return Err(problems.error("log_sources", node.at, message, None));
    };
    refuse_repeated_keys(entries, problems)?;
    Ok(entries)
}

fn entries_of<'n>(node: Option<&'n Node>, what: &str, problems: &mut Problems) -> Read<&'n [(Node, Node)]> {
    match node {
        None | Some(Node { kind: Kind::Null, .. }) => Ok(&[]),
        Some(node) => map(node, what, problems),
    }
}

/// A part of a log source: in lower case, like those of rules.
fn word(node: &Node, what: &str, problems: &mut Problems) -> Read<Arc<str>> {
    text(node, what, problems).map(|text| Arc::from(text.to_lowercase()))
}

fn text(node: &Node, what: &str, problems: &mut Problems) -> Read<Arc<str>> {
    match node.text().map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => Ok(Arc::from(text)),
        None => {
            let is = if node.text().is_some() { "empty" } else { node.word() };
            Err(problems.error("log_sources", node.at, format!("{what} is {is}, not a text"), None))
        }
    }
}
