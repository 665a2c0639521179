//! Facts as people and programs say them: one JSON object, the same for `counterflow facts`, an import's line and the
//! API. What is read is checked and in its one written form, so that two ways of saying the same are one fact.
//!
//! `value` says what it is about, `reason` why; the other keys are the kind's own. A list may be written as one text
//! with commas and a number as a text, as a command line has them.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::{Asset, Edge, Exposure, FactBody, Identity, Indicator, Judgement, Pattern, Silence, Verdict};
use crate::{
    entity::{Entity, EntityKind},
    rule::Level,
    time::Time,
};

/// The longest text of one fact, in bytes.
pub const FACT_BYTES_MAX: usize = 64 << 10;
/// The longest reason, in characters; longer ones are cut.
const REASON_CHARACTERS_MAX: usize = 1_024;
/// The longest name, owner, tag or the like, in bytes.
const TEXT_BYTES_MAX: usize = 256;
/// The longest list.
const LIST_MAX: usize = 100;
/// The longest silence, in days: what is to be silent for ever is a rule to be changed.
const SILENCE_DAYS_MAX: i64 = 366;

/// A fact, and why it is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// What it says.
    pub body: FactBody,
    /// Why.
    pub reason: String,
    /// Who, where a program speaks for somebody.
    pub author: Option<String>,
}

/// Why something is no fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactError {
    /// Not JSON, or no object.
    Syntax(String),
    /// Facts of this kind are not added by hand.
    Kind(String),
    /// It does not say what such a fact says.
    Invalid(String),
}

impl fmt::Display for FactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FactError::Syntax(text) | FactError::Kind(text) | FactError::Invalid(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for FactError {}

impl Said {
    /// Reads a fact of a kind out of JSON text.
    ///
    /// # Errors
    /// It is no fact of that kind.
    pub fn read(kind: &str, json: &[u8]) -> Result<Said, FactError> {
        Said::of(kind, object(json)?, false)
    }

    /// Reads which fact is to be removed: what says what it is about is enough.
    ///
    /// # Errors
    /// It names no fact of that kind.
    pub fn read_removal(kind: &str, json: &[u8]) -> Result<Said, FactError> {
        Said::of(kind, object(json)?, true)
    }

    /// Reads the words of a command line: a value, and `key=value` pairs; `removal` as [`Said::read_removal`].
    ///
    /// # Errors
    /// It is no fact of that kind.
    pub fn words(kind: &str, value: &str, pairs: &[String], removal: bool) -> Result<Said, FactError> {
        let mut object = Map::new();
        object.insert("value".to_owned(), Value::from(value));
        for pair in pairs {
            let (key, text) = pair
                .split_once('=')
                .ok_or_else(|| FactError::Invalid(format!("{pair:?} is not KEY=VALUE, such as criticality=5")))?;
            if object.insert(key.to_owned(), Value::from(text)).is_some() {
                return Err(FactError::Invalid(format!("{key} is given twice")));
            }
        }
        Said::of(kind, object, removal)
    }

    fn of(kind: &str, object: Map<String, Value>, removal: bool) -> Result<Said, FactError> {
        let known = FactBody::KINDS.join(", ");
        let mut keys = Keys { object, removal };
        let body = match kind {
            "allow" => keys.needed("value").and_then(|text| network(&text)).map(|network| FactBody::Allow { network }),
            "silence" => silence(&mut keys).map(FactBody::Silence),
            "indicator" => indicator(&mut keys).map(FactBody::Indicator),
            "asset" => asset(&mut keys).map(FactBody::Asset),
            "edge" => edge(&mut keys).map(FactBody::Edge),
            "identity" => identity(&mut keys).map(FactBody::Identity),
            "verdict" => verdict(&mut keys).map(FactBody::Verdict),
            "policy" => {
                return Err(FactError::Invalid("policies come from the settings: change them there".to_owned()));
            }
            other => return Err(FactError::Kind(format!("unknown kind of fact {other:?}; known: {known}"))),
        };
        let said = body.and_then(|body| {
            let reason = keys.text("reason", FACT_BYTES_MAX)?.map(|reason| text(&reason)).unwrap_or_default();
            let author = keys.text("author", FACT_BYTES_MAX)?.map(|name| author(&name)).filter(|name| !name.is_empty());
            keys.end(kind)?;
            Ok(Said { body, reason, author })
        });
        said.map_err(FactError::Invalid)
    }
}

fn object(json: &[u8]) -> Result<Map<String, Value>, FactError> {
    if json.len() > FACT_BYTES_MAX {
        return Err(FactError::Invalid(format!("a fact may have {FACT_BYTES_MAX} bytes")));
    }
    let value: Value = serde_json::from_slice(json).map_err(|error| FactError::Syntax(error.to_string()))?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(FactError::Invalid("a fact is an object: {\"value\": ..}".to_owned())),
    }
}

/// A reason as it is kept: without control characters, at most 1,024 characters.
#[must_use]
pub fn text(reason: &str) -> String {
    reason.chars().filter(|c| !c.is_control()).take(REASON_CHARACTERS_MAX).collect()
}

/// An author's name as it is kept: without control characters, at most 128 characters.
#[must_use]
pub fn author(name: &str) -> String {
    name.trim().chars().filter(|c| !c.is_control()).take(128).collect()
}

/// An address or a network in its one written form: without host bits, v4-mapped v6 as v4.
pub(super) fn network(value: &str) -> Result<IpNet, String> {
    let value = value.trim();
    let wrong = || format!("{value:?} is neither an address nor a network");
    if let Ok(address) = value.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let network: IpNet = value.parse().map_err(|_| wrong())?;
    if let IpNet::V6(v6) = network
        && let (Some(v4), Some(length)) = (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
    {
        return IpNet::new(IpAddr::V4(v4), length).map(|network| network.trunc()).map_err(|_| wrong());
    }
    Ok(network.trunc())
}

fn silence(keys: &mut Keys) -> Result<Silence, String> {
    let name: Arc<str> = keys.needed("value")?.into();
    if keys.removal {
        let (rules, entities, tags) = (Vec::new(), Vec::new(), Vec::new());
        return Ok(Silence { name, rules, level_max: None, entities, tags, from: Time::MIN, until: Time::MAX });
    }
    let (from, until) = (keys.time("from")?, keys.time("until")?);
    let silence = Silence {
        name,
        rules: keys.list("rules")?,
        level_max: keys.text("level_max", TEXT_BYTES_MAX)?.map(|text| level(&text)).transpose()?,
        entities: keys.list("entities")?.iter().map(|text| text.parse()).collect::<Result<_, _>>().map(sorted)?,
        tags: keys.list("tags")?,
        from: from.ok_or("a silence needs from=TIME")?,
        until: until.ok_or("a silence needs until=TIME: it must end")?,
    };
    in_order(Some(silence.from), Some(silence.until))?;
    if silence.until > silence.from.plus_micros(SILENCE_DAYS_MAX * 86_400_000_000) {
        return Err(format!("a silence may last {SILENCE_DAYS_MAX} days"));
    }
    let Silence { rules, level_max, entities, tags, .. } = &silence;
    if rules.is_empty() && level_max.is_none() && entities.is_empty() && tags.is_empty() {
        return Err("a silence needs at least one of rules, level_max, entities, tags".to_owned());
    }
    Ok(silence)
}

fn indicator(keys: &mut Keys) -> Result<Indicator, String> {
    let value = keys.needed("value")?;
    let pattern = match keys.text("type", TEXT_BYTES_MAX)? {
        Some(kind) => Pattern::of(&kind, &value)?,
        None => Pattern::read(&value)?,
    };
    let (from, until) = (keys.time("from")?, keys.time("until")?);
    in_order(from, until)?;
    Ok(Indicator {
        pattern,
        // What a source does not say is taken for as likely as not.
        confidence: keys.number("confidence", 0, 100)?.unwrap_or(50),
        from,
        until,
        source: keys.text("source", TEXT_BYTES_MAX)?.unwrap_or_default().into(),
        tags: keys.list("tags")?,
    })
}

fn asset(keys: &mut Keys) -> Result<Asset, String> {
    let exposure = |text: String| {
        [Exposure::Internal, Exposure::External]
            .into_iter()
            .find(|exposure| exposure.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no exposure; known: internal, external"))
    };
    Ok(Asset {
        entity: asset_entity(&keys.needed("value")?)?,
        // Neither more nor less than others.
        criticality: keys.number("criticality", 1, 5)?.unwrap_or(3),
        owner: keys.text("owner", TEXT_BYTES_MAX)?.map(Into::into),
        exposure: keys.text("exposure", TEXT_BYTES_MAX)?.map(exposure).transpose()?,
        tags: keys.list("tags")?,
    })
}

/// An entity, or a network, which stands for every address in it.
fn asset_entity(text: &str) -> Result<Entity, String> {
    let address = text.strip_prefix("address:").unwrap_or(text);
    let Some(network) = address.contains('/').then(|| network(address).ok()).flatten() else { return text.parse() };
    let is_one = network.prefix_len() == network.max_prefix_len();
    let value = if is_one { network.addr().to_string() } else { network.to_string() };
    Ok(Entity { kind: EntityKind::Address, value: value.into() })
}

fn edge(keys: &mut Keys) -> Result<Edge, String> {
    let value = keys.needed("value")?;
    let (from, to) = value.split_once("->").ok_or("an edge is written user:alice->host:db01")?;
    let edge = Edge {
        from: from.parse()?,
        to: to.parse()?,
        access: keys.text("access", TEXT_BYTES_MAX)?.unwrap_or_else(|| "access".to_owned()).into(),
    };
    if edge.from == edge.to { Err("an edge has two ends".to_owned()) } else { Ok(edge) }
}

fn identity(keys: &mut Keys) -> Result<Identity, String> {
    let user = |text: &str| {
        let name = text.strip_prefix("user:").unwrap_or(text);
        Entity::of(EntityKind::User, name).ok_or_else(|| format!("{text:?} is no user"))
    };
    Ok(Identity {
        user: user(&keys.needed("value")?)?,
        aliases: keys.list("aliases")?.iter().map(|text| user(text)).collect::<Result<_, _>>().map(sorted)?,
        privileged: keys.flag("privileged")?.unwrap_or(false),
        department: keys.text("department", TEXT_BYTES_MAX)?.map(Into::into),
    })
}

fn verdict(keys: &mut Keys) -> Result<Verdict, String> {
    let value = keys.needed("value")?;
    let judgements = [Judgement::TruePositive, Judgement::FalsePositive, Judgement::Benign];
    // To take a verdict back, the alert alone says which.
    let judgement = match keys.text("verdict", TEXT_BYTES_MAX)? {
        None => Judgement::Benign,
        Some(text) => judgements
            .into_iter()
            .find(|judgement| judgement.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no verdict; known: true_positive, false_positive, benign"))?,
    };
    let alert = value.parse().map_err(|_| format!("{value:?} is no alert: 32 hexadecimal digits are wanted"))?;
    Ok(Verdict { alert, judgement, rule: Arc::from(""), at: Time::default() })
}

fn level(text: &str) -> Result<Level, String> {
    serde_json::from_value(Value::from(text))
        .map_err(|_| format!("{text:?} is no level; known: informational, low, medium, high, critical"))
}

fn in_order(from: Option<Time>, until: Option<Time>) -> Result<(), String> {
    match (from, until) {
        (Some(from), Some(until)) if from >= until => Err(format!("it ends ({until}) before it begins ({from})")),
        _ => Ok(()),
    }
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list.dedup();
    list
}

/// What is said and not yet taken.
struct Keys {
    object: Map<String, Value>,
    /// Only what it is about matters.
    removal: bool,
}

impl Keys {
    fn needed(&mut self, key: &str) -> Result<String, String> {
        let text = self.text(key, FACT_BYTES_MAX)?.map(|text| text.trim().to_owned());
        text.filter(|text| !text.is_empty()).ok_or_else(|| format!("{key} is missing"))
    }

    fn text(&mut self, key: &str, bytes_max: usize) -> Result<Option<String>, String> {
        match self.object.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.len() <= bytes_max => Ok(Some(text)),
            Some(Value::String(_)) => Err(format!("{key} may have {bytes_max} bytes")),
            Some(other) => Err(format!("{key} is a text, not {other}")),
        }
    }

    fn number(&mut self, key: &str, min: u8, max: u8) -> Result<Option<u8>, String> {
        let number = match self.object.remove(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        let number = number.and_then(|number| u8::try_from(number).ok()).filter(|number| (min..=max).contains(number));
        number.map(Some).ok_or_else(|| format!("{key} is a number from {min} to {max}"))
    }

    fn flag(&mut self, key: &str) -> Result<Option<bool>, String> {
        match self.object.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(_) => Err(format!("{key} is true or false")),
        }
    }

    fn time(&mut self, key: &str) -> Result<Option<Time>, String> {
        let text = self.text(key, TEXT_BYTES_MAX)?;
        text.map(|text| text.trim().parse::<Time>().map_err(|error| format!("{key}: {error}"))).transpose()
    }

    /// Sorted, without repeats.
    fn list(&mut self, key: &str) -> Result<Vec<Arc<str>>, String> {
        let texts: Vec<String> = match self.object.remove(key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => text.split(',').map(str::to_owned).collect(),
            Some(Value::Array(texts)) => texts
                .into_iter()
                .map(|text| text.as_str().map(str::to_owned).ok_or_else(|| format!("{key} is a list of texts")))
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(format!("{key} is a list of texts")),
        };
        let texts: Vec<Arc<str>> =
            texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()).map(Arc::from).collect();
        if texts.len() > LIST_MAX || texts.iter().any(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(format!("{key} may have {LIST_MAX} texts of {TEXT_BYTES_MAX} bytes"));
        }
        Ok(sorted(texts))
    }

    fn end(&self, kind: &str) -> Result<(), String> {
        match self.object.keys().next().filter(|_| !self.removal) {
            Some(key) => Err(format!("a fact of kind {kind} has no {key:?}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read, as the control log has it; or why not.
    #[track_caller]
    fn check(kind: &str, json: &str, expect: &str) {
        let got = match Said::read(kind, json.as_bytes()) {
            Ok(said) => serde_json::to_string(&said.body).unwrap(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "{kind} {json}");
    }

    #[test]
    fn an_address_is_a_network_of_one() {
        check("allow", r#"{"value":"10.0.0.7"}"#, r#"{"allow":{"network":"10.0.0.7/32"}}"#);
        check("allow", r#"{"value":" 10.0.0.7/24 "}"#, r#"{"allow":{"network":"10.0.0.0/24"}}"#);
        check("allow", r#"{"value":"::ffff:10.0.0.7"}"#, r#"{"allow":{"network":"10.0.0.7/32"}}"#);
        check("allow", r#"{"value":"host"}"#, r#""host" is neither an address nor a network"#);
    }

    #[test]
    fn each_kind_has_its_words() {
        check(
            "silence",
            r#"{"value":"night work","rules":"b,a","entities":["host:WEB01"],"from":"2026-01-05T00:00:00Z",
                "until":"2026-01-06T00:00:00Z"}"#,
            r#"{"silence":{"name":"night work","rules":["a","b"],"entities":[{"kind":"host","value":"web01"}],"from":"2026-01-05T00:00:00Z","until":"2026-01-06T00:00:00Z"}}"#,
        );
        check(
            "indicator",
            r#"{"value":"evil.example","confidence":90,"source":"feed"}"#,
            r#"{"indicator":{"pattern":{"domain":"evil.example"},"confidence":90,"source":"feed"}}"#,
        );
        check(
            "asset",
            r#"{"value":"host:web01","criticality":"5","exposure":"external","owner":"ops"}"#,
            r#"{"asset":{"entity":{"kind":"host","value":"web01"},"criticality":5,"owner":"ops","exposure":"external"}}"#,
        );
        check(
            "asset",
            r#"{"value":"10.1.2.3/8","criticality":2}"#,
            r#"{"asset":{"entity":{"kind":"address","value":"10.0.0.0/8"},"criticality":2}}"#,
        );
        check(
            "asset",
            r#"{"value":"address:10.1.2.3/32","criticality":2}"#,
            r#"{"asset":{"entity":{"kind":"address","value":"10.1.2.3"},"criticality":2}}"#,
        );
        check(
            "edge",
            r#"{"value":"user:alice -> host:db01","access":"admin"}"#,
            r#"{"edge":{"from":{"kind":"user","value":"alice"},"to":{"kind":"host","value":"db01"},"access":"admin"}}"#,
        );
        check(
            "identity",
            r#"{"value":"alice","aliases":"alice@example.org","privileged":true}"#,
            r#"{"identity":{"user":{"kind":"user","value":"alice"},"aliases":[{"kind":"user","value":"alice@example.org"}],"privileged":true}}"#,
        );
        check(
            "verdict",
            r#"{"value":"000102030405060708090a0b0c0d0e0f","verdict":"false_positive"}"#,
            r#"{"verdict":{"alert":"000102030405060708090a0b0c0d0e0f","judgement":"false_positive","rule":"","at":"1970-01-01T00:00:00Z"}}"#,
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        check("allow", "x", "expected value at line 1 column 1");
        check("allow", "[]", "a fact is an object: {\"value\": ..}");
        check("allow", "{}", "value is missing");
        check("allow", r#"{"value":"10.0.0.7","colour":"red"}"#, r#"a fact of kind allow has no "colour""#);
        check("policy", r#"{"value":"x"}"#, "policies come from the settings: change them there");
        check(
            "colour",
            r#"{"value":"x"}"#,
            r#"unknown kind of fact "colour"; known: allow, silence, indicator, asset, edge, identity, verdict"#,
        );
        check(
            "asset",
            r#"{"value":"web01"}"#,
            r#""web01" is no entity; write KIND:NAME, such as host:web01, with a kind of host, user, address, process, file_hash, domain"#,
        );
        check("asset", r#"{"value":"host:web01","criticality":6}"#, "criticality is a number from 1 to 5");
        check("edge", r#"{"value":"host:a->host:A"}"#, "an edge has two ends");
        check(
            "silence",
            r#"{"value":"n","rules":"a","from":"2026-01-05T00:00:00Z"}"#,
            "a silence needs until=TIME: it must end",
        );
        check(
            "silence",
            r#"{"value":"n","from":"2026-01-05T00:00:00Z","until":"2026-01-06T00:00:00Z"}"#,
            "a silence needs at least one of rules, level_max, entities, tags",
        );
        check(
            "silence",
            r#"{"value":"n","rules":"a","from":"2026-01-05T00:00:00Z","until":"2029-01-06T00:00:00Z"}"#,
            "a silence may last 366 days",
        );
        check(
            "indicator",
            r#"{"value":"evil.example","from":"2026-01-06T00:00:00Z","until":"2026-01-05T00:00:00Z"}"#,
            "it ends (2026-01-05T00:00:00Z) before it begins (2026-01-06T00:00:00Z)",
        );
        check(
            "indicator",
            r#"{"value":"evil.example","type":"colour"}"#,
            r#"unknown kind of indicator "colour"; known: address, domain, url, hash"#,
        );
        check("verdict", r#"{"value":"x"}"#, r#""x" is no alert: 32 hexadecimal digits are wanted"#);
    }

    #[test]
    fn a_command_lines_words_say_the_same() {
        let words = |pairs: &[&str]| {
            Said::words("asset", "host:web01", &pairs.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>(), false)
        };
        let json = Said::read("asset", br#"{"value":"host:web01","criticality":4,"tags":["a","b"]}"#);
        assert_eq!(words(&["tags=b,a", "criticality=4"]), json);
        assert_eq!(
            words(&["tags"]),
            Err(FactError::Invalid("\"tags\" is not KEY=VALUE, such as criticality=5".into()))
        );
        assert_eq!(words(&["tags=a", "tags=b"]), Err(FactError::Invalid("tags is given twice".into())));
    }

    #[test]
    fn a_removal_needs_no_more_than_what_it_is_about() {
        let silence = Said::read_removal("silence", br#"{"value":"night work"}"#).unwrap();
        assert_eq!(silence.body.subject(), Some(super::super::Subject::Silence("night work".into())));
        let asset = Said::words("asset", "host:web01", &[], true).unwrap();
        let other = Said::words("asset", "host:web01", &["criticality=5".to_owned()], false).unwrap();
        assert_eq!(asset.body.subject(), other.body.subject());
    }

    #[test]
    fn what_the_log_has_from_before_still_reads() {
        let old = r#"{"tenant":"default","body":{"allow":{"network":"10.0.0.0/24"}}}"#;
        let fact: super::super::Fact = serde_json::from_str(old).unwrap();
        assert_eq!(fact.body.kind(), "allow");
    }
}
