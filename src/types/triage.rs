//! What models say of alerts: decisions as they were served, and what of them an alert shows.
//!
//! A [`Decision`] is one record of the control log. It holds the features that the models were given, so that a later
//! training learns from exactly them, and the answers, so that a replay asks no model. Of its answers at most one is
//! *served* ([`Role::is_served`]): that one enters the graph as a fact and is shown; the others are recorded only.
//! Probabilities are whole millionths: what is recorded is what is compared.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Unexpected, Visitor},
};

use crate::{
    entity::Entity,
    id::{AlertId, Tenant},
    time::Cell,
};

/// What a model says of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Worth {
    /// Not worth a person's time.
    False,
    /// Worth it.
    True,
    /// Neither can be said: a person should look.
    Unknown,
}

impl Worth {
    /// Its word: `true`, `false` or `unknown`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Worth::False => "false",
            Worth::True => "true",
            Worth::Unknown => "unknown",
        }
    }
}

/// To people as `predict` writes it: true, false or "unknown"; between workers as a number.
impl Serialize for Worth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            _ if !serializer.is_human_readable() => serializer.serialize_u8(match self {
                Worth::False => 0,
                Worth::True => 1,
                Worth::Unknown => 2,
            }),
            Worth::True => serializer.serialize_bool(true),
            Worth::False => serializer.serialize_bool(false),
            Worth::Unknown => serializer.serialize_str("unknown"),
        }
    }
}

impl<'de> Deserialize<'de> for Worth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Worth, D::Error> {
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(Words);
        }
        match u8::deserialize(deserializer)? {
            0 => Ok(Worth::False),
            1 => Ok(Worth::True),
            2 => Ok(Worth::Unknown),
            other => Err(serde::de::Error::invalid_value(Unexpected::Unsigned(other.into()), &Words)),
        }
    }
}

/// Reads what people read.
struct Words;

impl Visitor<'_> for Words {
    type Value = Worth;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false or \"unknown\"")
    }

    fn visit_bool<E>(self, is: bool) -> Result<Worth, E> {
        Ok(if is { Worth::True } else { Worth::False })
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Worth, E> {
        if word == "unknown" { Ok(Worth::Unknown) } else { Err(E::invalid_value(Unexpected::Str(word), &self)) }
    }
}

/// In what part a model answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The promoted one: served.
    Champion,
    /// Only recorded, to be compared.
    Shadow,
    /// The champion where two are compared on alerts of their own: served.
    A,
    /// The challenger there: served.
    B,
}

impl Role {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Champion => "champion",
            Role::Shadow => "shadow",
            Role::A => "a",
            Role::B => "b",
        }
    }

    /// Whether the answer is shown and counts.
    #[must_use]
    pub const fn is_served(self) -> bool {
        !matches!(self, Role::Shadow)
    }
}

/// Why, in part: a feature and what it changed in the score, in thousandths of a logit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reason {
    /// The feature.
    pub feature: Arc<str>,
    /// What it changed.
    pub effect_milli: i64,
}

/// One model's answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Answer {
    /// Version of the model.
    pub model: Arc<str>,
    /// Its part.
    pub role: Role,
    /// Probability that the alert is worth a person, in millionths.
    pub probability_ppm: u32,
    /// What follows from it at the model's operating point.
    pub verdict: Worth,
    /// The classes that are possible at the model's confidence: `false`, `true`, both or none. Answers of before have none.
    #[serde(default)]
    pub set: Vec<bool>,
    /// What moved it most.
    #[serde(default)]
    pub reasons: Vec<Reason>,
}

/// One decision of triage: a record of the control log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Whose.
    pub tenant: Tenant,
    /// The alert.
    pub alert: AlertId,
    /// The first id of its lineage.
    pub thread: AlertId,
    /// Event time of the decision: the alert's last cell as it was then.
    pub cell: Cell,
    /// The alert's rule.
    pub rule: Arc<str>,
    /// Hash of rule and group: what repeats itself.
    pub signature: u64,
    /// Hash of what a decision depends on: only when that changes, another is made.
    pub material: u64,
    /// The alert's entities.
    pub entities: Vec<Entity>,
    /// Whether it is the first of its thread: only that one is part of what went before others.
    pub first: bool,
    /// Verdicts up to this entry of the control log were known.
    pub upto: i64,
    /// Version of the features: their names and meaning.
    pub recipe: Arc<str>,
    /// The features, by the names of that version; empty where there is nothing to say.
    pub features: Vec<Option<i64>>,
    /// What the models answered; none if there was no model.
    pub answers: Vec<Answer>,
}

impl Decision {
    /// What the alert shows, if a model served it.
    #[must_use]
    pub fn served(&self) -> Option<Triage> {
        let answer = self.answers.iter().find(|answer| answer.role.is_served())?;
        Some(Triage {
            probability_ppm: answer.probability_ppm,
            verdict: answer.verdict,
            model: Arc::clone(&answer.model),
            role: answer.role,
        })
    }
}

/// What an alert shows of a model's answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Triage {
    /// Probability that the alert is worth a person, in millionths.
    pub probability_ppm: u32,
    /// What follows from it.
    pub verdict: Worth,
    /// Version of the model.
    pub model: Arc<str>,
    /// The model's part.
    pub role: Role,
}

impl Triage {
    /// The probability in percent, rounded half up.
    #[must_use]
    pub fn percent(&self) -> u8 {
        u8::try_from(self.probability_ppm.saturating_add(5_000) / 10_000).unwrap_or(100).min(100)
    }
}

impl fmt::Display for Triage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.probability_ppm.saturating_add(500) / 1_000;
        write!(f, "{} {}.{} % by {}", self.verdict.as_str(), tenths / 10, tenths % 10, self.model)
    }
}

/// What a triage fact says: the served answer about an alert.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Triaged {
    /// The alert.
    pub alert: AlertId,
    /// What is said of it.
    pub triage: Triage,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_written_as_predict_writes_them() {
        for (worth, text) in [(Worth::True, "true"), (Worth::False, "false"), (Worth::Unknown, "\"unknown\"")] {
            assert_eq!(serde_json::to_string(&worth).unwrap(), text);
            assert_eq!(serde_json::from_str::<Worth>(text).unwrap(), worth);
        }
        assert!(serde_json::from_str::<Worth>("\"maybe\"").is_err() && serde_json::from_str::<Worth>("1").is_err());
    }

    #[test]
    fn percents_and_words_are_rounded_half_up() {
        let of = |probability_ppm| Triage {
            probability_ppm,
            verdict: Worth::True,
            model: "0123456789ab".into(),
            role: Role::Champion,
        };
        assert_eq!([0, 4_999, 5_000, 994_999, 1_000_000].map(|ppm| of(ppm).percent()), [0, 0, 1, 99, 100]);
        assert_eq!(of(123_456).to_string(), "true 12.3 % by 0123456789ab");
    }
}
