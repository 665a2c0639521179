//! A rule's text, read through the YAML library's untyped value.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Yaml};

use crate::{condition::Condition, event::Seen, sources::Names, value::Item};

/// Product, category and service, of a rule or of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogSource {
    /// `windows`, ...
    pub product: Option<String>,
    /// `process_creation`, ...
    pub category: Option<String>,
    /// `sysmon`, ...
    pub service: Option<String>,
}

impl LogSource {
    /// What our decoder declared of an event.
    #[must_use]
    pub fn of(declared: &cf_types::LogSource) -> LogSource {
        let part = |part: &Option<std::sync::Arc<str>>| part.as_deref().map(str::to_lowercase);
        LogSource {
            product: part(&declared.product),
            category: part(&declared.category),
            service: part(&declared.service),
        }
    }
}

/// A plain rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) log_source: LogSource,
    searches: BTreeMap<String, Search>,
    /// "The condition can be a list, in this case, each of them generates a query. They are logically linked with OR."
    conditions: Vec<Condition>,
}

/// A search identifier's definition.
#[derive(Debug)]
enum Search {
    /// "All map items of a list are logically linked with 'OR'"; so are strings.
    List(Vec<Search>),
    /// "All elements of a map are joined with a logical 'AND'."
    Map(Vec<Item>),
}

impl Rule {
    pub(crate) fn holds(&self, event: &Seen<'_>, names: &Names) -> bool {
        let of = |name: &str| self.searches.get(name).is_some_and(|search| search.holds(event, names));
        self.conditions.iter().any(|condition| condition.holds(&of))
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        let mut fields = Vec::new();
        self.searches.values().for_each(|search| search.fields(&mut fields));
        fields.into_iter()
    }
}

impl Search {
    fn read(value: &Yaml) -> Result<Search, String> {
        match value {
            Yaml::Array(list) if list.is_empty() => Err("a search identifier is empty".to_owned()),
            Yaml::Array(list) => {
                let list: Result<Vec<Search>, String> = list
                    .iter()
                    .map(|element| match element {
                        Yaml::Array(_) | Yaml::Null => Err("a list holds strings or maps".to_owned()),
                        element => Search::read(element),
                    })
                    .collect();
                list.map(Search::List)
            }
            Yaml::Object(map) => {
                let items: Result<Vec<Item>, String> = map.iter().map(|(key, value)| Item::read(key, value)).collect();
                items.map(Search::Map)
            }
            Yaml::Null => Err("a search identifier is empty".to_owned()),
            keyword => Ok(Search::Map(vec![Item::keyword(keyword)?])),
        }
    }

    fn holds(&self, event: &Seen<'_>, names: &Names) -> bool {
        match self {
            Search::List(list) => list.iter().any(|search| search.holds(event, names)),
            Search::Map(items) => items.iter().all(|item| item.holds(event, names)),
        }
    }

    fn fields<'s>(&'s self, out: &mut Vec<&'s str>) {
        match self {
            Search::List(list) => list.iter().for_each(|search| search.fields(out)),
            Search::Map(items) => items.iter().for_each(|item| out.extend(item.fields())),
        }
    }
}

/// Reads all rules of a text.
pub(crate) fn read(text: &str) -> Result<Vec<Result<Rule, String>>, String> {
    let documents: Vec<Yaml> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    let rules = documents.iter().filter_map(Yaml::as_object).filter(|document| document.contains_key("detection"));
    Ok(rules.map(|document| rule(document).map_err(|reason| format!("{}: {reason}", title(document)))).collect())
}

fn title(document: &Map<String, Yaml>) -> &str {
    document.get("title").and_then(Yaml::as_str).unwrap_or_default()
}

fn rule(document: &Map<String, Yaml>) -> Result<Rule, String> {
    let id = ["id", "name", "title"].iter().find_map(|key| document.get(*key).and_then(Yaml::as_str));
    let log_source = document.get("logsource").and_then(Yaml::as_object).ok_or("no logsource")?;
    let part = |key: &str| match log_source.get(key) {
        None => None,
        Some(Yaml::String(text)) => Some(text.trim().to_lowercase()),
        Some(other) => Some(other.to_string()),
    };
    let detection = document.get("detection").and_then(Yaml::as_object).ok_or("no detection")?;
    let mut searches = BTreeMap::new();
    for (name, value) in detection {
        if name != "condition" && name != "timeframe" {
            searches.insert(name.clone(), Search::read(value)?);
        }
    }
    let names: Vec<&str> = searches.keys().map(String::as_str).collect();
    let conditions = match detection.get("condition") {
        Some(Yaml::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => return Err("no condition".to_owned()),
    };
    let conditions: Result<Vec<Condition>, String> = conditions
        .iter()
        .map(|condition| Condition::read(condition.as_str().ok_or("a condition is no text")?, &names))
        .collect();
    Ok(Rule {
        id: id.ok_or("no id")?.trim().to_owned(),
        log_source: LogSource { product: part("product"), category: part("category"), service: part("service") },
        conditions: conditions?,
        searches,
    })
}
