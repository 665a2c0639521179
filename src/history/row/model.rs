//! Rows of `features` and `predictions`: what models were asked with and what they answered.

use cf_types::{Epoch, Tenant, Time, triage::Answer};
use serde_json::{Map, Value, json};

use crate::{
    batch::{Row, Rows},
    schema::Table,
};

/// What a model was asked about, by the names that tables know.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Whose.
    pub tenant: Tenant,
    /// Id of the alert or event.
    pub id: String,
    /// `alert` or `event`.
    pub kind: &'static str,
    /// Event time.
    pub time: Time,
    /// Position of the decision in the control log.
    pub seq: i64,
}

/// The features of one decision, as they were served.
#[derive(Clone, Debug)]
pub struct FeatureEntry {
    /// What they are of.
    pub subject: Subject,
    /// Version of their names and meanings.
    pub recipe: String,
    /// The alert's rule.
    pub rule: Option<String>,
    /// What repeats itself.
    pub signature: Option<String>,
    /// Names and values, in the order of the version; what there is nothing to say of is left out.
    pub features: Vec<(String, Value)>,
}

/// One model's answer.
#[derive(Clone, Debug)]
pub struct PredictionEntry {
    /// What it is about.
    pub subject: Subject,
    /// The task.
    pub model: String,
    /// What was said.
    pub answer: Answer,
}

impl Subject {
    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        rows.text("tenant", self.tenant.as_str());
        rows.day_of(self.time);
        rows.integer("epoch", epoch);
        rows.text("subject", &self.id);
        rows.text("subject_kind", self.kind);
        rows.time("time", self.time);
    }
}

impl Row for FeatureEntry {
    const TABLE: Table = Table::Features;

    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        let features: Map<String, Value> = self.features.iter().cloned().collect();
        self.subject.write(epoch, rows);
        rows.text("recipe", &self.recipe);
        rows.text("features", &Value::Object(features).to_string());
        rows.integer_or_null("seq", Some(self.subject.seq));
        rows.text_or_null("rule_id", self.rule.as_deref());
        rows.text_or_null("signature", self.signature.as_deref());
    }
}

impl Row for PredictionEntry {
    const TABLE: Table = Table::Predictions;

    fn write(&self, epoch: Epoch, rows: &mut Rows) {
        let Answer { model, role, probability_ppm, verdict, set, reasons } = &self.answer;
        self.subject.write(epoch, rows);
        rows.text("model", &self.model);
        rows.text("version", model);
        rows.float_or_null("score", Some(f64::from(*probability_ppm) / 1e6));
        rows.text_or_null("verdict", Some(verdict.as_str()));
        rows.text_or_null("detail", Some(&json!({"set": set, "reasons": reasons}).to_string()));
        rows.integer_or_null("seq", Some(self.subject.seq));
        rows.text_or_null("role", Some(role.as_str()));
    }
}
