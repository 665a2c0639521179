//! Which events belong to a rule's log source: by the SigmaHQ project's own map, `logsources-windows.yml`.
//!
//! A rule on `category: process_creation` is the same rule with channel and event code written into it, once for each
//! row of the map; an event belongs to all log sources that it fulfils. For events that only their decoder knows (a line
//! of `sshd` is of `auth` as well) nobody publishes a map: what follows from a declaration is read from `implied` of our
//! own table, by a reader of its own.

use serde_json::{Map, Value as Yaml};

use crate::{event::Seen, rule::LogSource, value::same};

/// The map.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    rows: Vec<Row>,
    /// Provider, and the channel it writes to: for events that came without a channel.
    providers: Vec<(String, String)>,
    /// What follows from what a decoder declared.
    also: Vec<Also>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    key: String,
    is: LogSource,
    /// What it is rewritten to: the log source whose channels hold its events.
    rewrite: LogSource,
    conditions: Vec<(String, Vec<String>)>,
    mappings: Vec<(String, String)>,
    channels: Vec<String>,
}

/// An event declared so is of this as well.
#[derive(Clone, Debug)]
struct Also {
    /// For each part what it may be, if that matters.
    when: [Option<Vec<Yaml>>; 3],
    /// Services that it is not about, nor about those that other rows send there.
    except: Vec<String>,
    also: LogSource,
}

/// A rule's field, and the event's field that holds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Vec<(String, String)>);

impl Names {
    pub(crate) fn of<'n>(&'n self, field: &'n str) -> &'n str {
        self.0.iter().find(|(rule, _)| rule == field).map_or(field, |(_, event)| event)
    }
}

impl Sources {
    /// Reads a map, and further ones in the same format (a row of the same key adds to the row that was), and `implied`
    /// of a table of ours.
    ///
    /// # Errors
    ///
    /// If one of them is no such map.
    pub fn read(texts: &[&str], table: &str) -> Result<Sources, String> {
        let table: Yaml = serde_saphyr::from_str(table).map_err(|error| error.to_string())?;
        let also = table.get("implied").and_then(Yaml::as_array).ok_or("no `implied`")?;
        let also = also.iter().filter_map(Yaml::as_object).map(read_also).collect();
        let mut sources = Sources { also, ..Sources::default() };
        for text in texts {
            let document: Yaml = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
            for (key, row) in document.get("logsources").and_then(Yaml::as_object).ok_or("no `logsources`")? {
                let row = read_row(key, row.as_object().ok_or("a log source is no map")?);
                match sources.rows.iter_mut().find(|known| known.key == *key) {
                    Some(known) => {
                        known.mappings.extend(row.mappings);
                        known.channels.extend(row.channels);
                    }
                    None => sources.rows.push(row),
                }
            }
            let providers = document.get("providers").and_then(Yaml::as_object);
            sources
                .providers
                .extend(providers.into_iter().flatten().map(|(name, channel)| (name.clone(), text_of(channel))));
        }
        Ok(sources)
    }

    /// Fields that it asks for.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        let conditions = self.rows.iter().flat_map(|row| &row.conditions).map(|(field, _)| field.as_str());
        let mappings = self.rows.iter().flat_map(|row| &row.mappings).map(|(_, field)| field.as_str());
        conditions.chain(mappings).chain(["Channel", "Provider_Name"])
    }

    /// The ways by which the event belongs to the rule's log source, each with its names of fields; none if it does not.
    pub(crate) fn ways(&self, wanted: &LogSource, event: &Seen<'_>) -> Vec<Names> {
        let mut ways = Vec::new();
        if self.fits_declared(wanted, event.log_source) {
            ways.push(Names::default());
        }
        let Some((channel, product)) = self.channel(event) else { return ways };
        if event.log_source.product.as_ref().is_some_and(|declared| *declared != product) {
            return ways;
        }
        match (&wanted.product, &wanted.category, &wanted.service) {
            // "windows" will include "Security", "System", "Application" and the other (LogSource).
            (Some(wanted), None, None) if *wanted == product => ways.push(Names::default()),
            (_, None, None) => {}
            (_, None, Some(_)) => {
                let rows = self.rows.iter().filter(|row| row.is.category.is_none() && covers(wanted, &row.is));
                if rows.flat_map(|row| &row.channels).any(|of_row| same(of_row, &channel)) {
                    ways.push(Names::default());
                }
            }
            (_, Some(category), _) => {
                let rows = self.rows.iter().filter(|row| row.is.category.as_ref() == Some(category));
                for row in rows.filter(|row| {
                    let rewritten = LogSource { category: Some(category.clone()), ..row.rewrite.clone() };
                    covers(wanted, &rewritten)
                }) {
                    let of_service = self.rows.iter().filter(|other| other.is == row.rewrite);
                    let written = of_service.flat_map(|other| &other.channels).any(|other| same(other, &channel));
                    if written && row.conditions.iter().all(|condition| holds(condition, event)) {
                        ways.push(Names(row.mappings.clone()));
                    }
                }
            }
        }
        ways
    }

    /// Channel, event code (empty: any), category and service, for those who route events to one log source each.
    #[must_use]
    pub fn routes(&self) -> Vec<(String, String, Option<String>, String)> {
        let mut routes = Vec::new();
        for row in &self.rows {
            let (is, codes) = match &row.is.category {
                Some(_) => (&row.rewrite, row.conditions.iter().find(|(field, _)| field == "EventID")),
                None => (&row.is, None),
            };
            let Some(service) = &is.service else { continue };
            let any = vec![String::new()];
            for channel in self.rows.iter().filter(|other| other.is == *is).flat_map(|other| &other.channels) {
                for code in codes.map_or(&any, |(_, codes)| codes) {
                    routes.push((channel.clone(), code.clone(), row.is.category.clone(), service.clone()));
                }
            }
        }
        routes
    }

    /// The same rule with channel and event code written into it, once for each way to its log source; the rule itself if
    /// it is on all of a product. None if the map leads no event to it.
    #[must_use]
    pub fn written_out(&self, rule: &Yaml) -> Vec<Yaml> {
        let Some(wanted) = rule.get("logsource").and_then(Yaml::as_object).map(log_source) else { return Vec::new() };
        let all_channels = |service: &LogSource| -> Vec<Yaml> {
            let rows = self.rows.iter().filter(|row| row.is.category.is_none() && covers(service, &row.is));
            rows.flat_map(|row| &row.channels).map(|channel| Yaml::String(channel.clone())).collect()
        };
        let Some(category) = &wanted.category else {
            if wanted.service.is_none() {
                return vec![rule.clone()];
            }
            let selection = Map::from_iter([("Channel".to_owned(), Yaml::Array(all_channels(&wanted)))]);
            return written(rule, selection, &[]).into_iter().collect();
        };
        let rows = self.rows.iter().filter(|row| row.is.category.as_ref() == Some(category));
        let rows =
            rows.filter(|row| covers(&wanted, &LogSource { category: Some(category.clone()), ..row.rewrite.clone() }));
        rows.filter_map(|row| {
            let values = |list: &[String]| Yaml::Array(list.iter().cloned().map(Yaml::String).collect());
            let mut selection: Map<String, Yaml> =
                row.conditions.iter().map(|(field, list)| (field.clone(), values(list))).collect();
            selection.insert("Channel".to_owned(), Yaml::Array(all_channels(&row.rewrite)));
            written(rule, selection, &row.mappings)
        })
        .collect()
    }

    /// The event's channel and its product, if the map knows it.
    fn channel(&self, event: &Seen<'_>) -> Option<(String, String)> {
        let text = |field: &str| event.first(field).map(|value| value.text).filter(|text| !text.is_empty());
        let by_provider = || {
            let provider = text("Provider_Name")?;
            let known = self.providers.iter().find(|(name, _)| same(name, provider));
            known.map(|(_, channel)| channel.as_str())
        };
        let channel = text("Channel").or_else(by_provider)?;
        let row = self.rows.iter().find(|row| row.channels.iter().any(|of_row| same(of_row, channel)))?;
        Some((channel.to_owned(), row.is.product.clone()?))
    }

    fn fits_declared(&self, wanted: &LogSource, declared: &LogSource) -> bool {
        let rows = || self.also.iter().filter(|row| row.about(declared));
        let own =
            |service: &Option<String>, except: &[String]| service.as_ref().is_some_and(|own| except.contains(own));
        let excepted = |row: &Also| {
            own(&declared.service, &row.except)
                || rows().any(|other| other.except.is_empty() && own(&other.also.service, &row.except))
        };
        let also = rows().filter(|row| !excepted(row)).map(|row| LogSource {
            product: row.also.product.clone().or_else(|| declared.product.clone()),
            category: row.also.category.clone().or_else(|| declared.category.clone()),
            service: row.also.service.clone().or_else(|| declared.service.clone()),
        });
        covers(wanted, declared) || also.into_iter().any(|also| covers(wanted, &also))
    }
}

/// A rule with a further selection that must hold, and its fields by other names.
fn written(rule: &Yaml, selection: Map<String, Yaml>, names: &[(String, String)]) -> Option<Yaml> {
    // A name that neither `them` nor a pattern of the public rules means.
    const NAME: &str = "_log_source";
    let mut rule = rule.clone();
    let detection = rule.get_mut("detection")?.as_object_mut()?;
    for (_, search) in detection.iter_mut().filter(|(name, _)| *name != "condition") {
        rename(search, names);
    }
    let within = |condition: &Yaml| Yaml::String(format!("({}) and {NAME}", text_of(condition)));
    let condition = match detection.get("condition")? {
        Yaml::Array(list) => Yaml::Array(list.iter().map(within).collect()),
        one => within(one),
    };
    detection.insert("condition".to_owned(), condition);
    detection.insert(NAME.to_owned(), Yaml::Object(selection));
    Some(rule)
}

fn rename(search: &mut Yaml, names: &[(String, String)]) {
    match search {
        Yaml::Array(list) => list.iter_mut().for_each(|search| rename(search, names)),
        Yaml::Object(map) => {
            let new = |name: &str| names.iter().find(|(rule, _)| rule == name).map(|(_, event)| event.clone());
            let renamed = std::mem::take(map).into_iter().map(|(key, mut value)| {
                let (field, modifiers) = key.split_once('|').map_or((key.as_str(), None), |(f, m)| (f, Some(m)));
                if modifiers.is_some_and(|modifiers| modifiers.split('|').any(|word| word == "fieldref"))
                    && let Some(other) = value.as_str().and_then(new)
                {
                    value = Yaml::String(other);
                }
                let field = new(field).unwrap_or_else(|| field.to_owned());
                (modifiers.map_or_else(|| field.clone(), |modifiers| format!("{field}|{modifiers}")), value)
            });
            *map = renamed.collect();
        }
        _ => {}
    }
}

/// "The category, product and service can be used alone or in any combination": what is given must be there.
fn covers(wanted: &LogSource, found: &LogSource) -> bool {
    let fits = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
    fits(&wanted.product, &found.product)
        && fits(&wanted.category, &found.category)
        && fits(&wanted.service, &found.service)
}

fn holds((field, wanted): &(String, Vec<String>), event: &Seen<'_>) -> bool {
    let mut values = event.field(field).filter(|value| !value.null);
    values.any(|value| wanted.iter().any(|wanted| same(wanted, value.text)))
}

impl Also {
    fn about(&self, declared: &LogSource) -> bool {
        let parts = [&declared.product, &declared.category, &declared.service];
        self.when.iter().zip(parts).all(|(wanted, part)| match wanted {
            None => true,
            Some(wanted) => wanted.iter().any(|wanted| match wanted.as_str() {
                None => part.is_none(),
                Some("*") => part.is_some(),
                Some(wanted) => part.as_deref() == Some(wanted),
            }),
        })
    }
}

fn read_row(key: &str, row: &Map<String, Yaml>) -> Row {
    let pairs = |key: &str| row.get(key).and_then(Yaml::as_object).into_iter().flatten();
    let is = log_source(row);
    Row {
        key: key.to_owned(),
        rewrite: row.get("rewrite").and_then(Yaml::as_object).map(log_source).unwrap_or_default(),
        conditions: pairs("conditions").map(|(field, values)| (field.clone(), texts_of(values))).collect(),
        mappings: pairs("fieldmappings").map(|(rule, event)| (rule.clone(), text_of(event))).collect(),
        channels: row
            .get("sources")
            .map(texts_of)
            .unwrap_or_default()
            .iter()
            .filter_map(|source| source.strip_prefix("WinEventLog:").map(str::to_owned))
            .collect(),
        is,
    }
}

fn read_also(row: &Map<String, Yaml>) -> Also {
    let when = |part: &str| match row.get("when").and_then(|when| when.get(part)) {
        None => None,
        Some(Yaml::Array(list)) => Some(list.clone()),
        Some(one) => Some(vec![one.clone()]),
    };
    Also {
        when: ["product", "category", "service"].map(when),
        except: row.get("except").map(texts_of).unwrap_or_default(),
        also: row.get("also").and_then(Yaml::as_object).map(log_source).unwrap_or_default(),
    }
}

fn log_source(row: &Map<String, Yaml>) -> LogSource {
    let part = |key: &str| row.get(key).map(text_of);
    LogSource { product: part("product"), category: part("category"), service: part("service") }
}

fn texts_of(value: &Yaml) -> Vec<String> {
    match value {
        Yaml::Array(list) => list.iter().map(text_of).collect(),
        value => vec![text_of(value)],
    }
}

fn text_of(value: &Yaml) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
