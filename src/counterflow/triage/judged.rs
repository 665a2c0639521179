//! What triage learns from: alerts that people judged, with the features that were served before anybody judged them.
//!
//! They are the rows of the named query `training_set` over history, and nothing else: what anybody can look at with
//! `counterflow sql --named training_set` is what a training sees. History follows the engine by seconds.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use cf_models::{
    features::alert::{RECIPE, feature_names},
    served::Labelled,
};
use cf_queries::{Options, named, write_json_lines};
use cf_types::Time;
use serde::Deserialize;

use crate::sql;

/// The query.
const QUERY: &str = "training_set";
/// Judged alerts of a training at most: hundreds of days of an analyst's judgements.
const ROWS_MAX: u64 = 100_000;

/// The rows of a training, by time and alert; and how many alerts were served features of another version.
pub(crate) fn labelled(data: &Path) -> Result<(Vec<Labelled>, usize)> {
    let query = named::find(QUERY).context("the query of the training set is not built in")?;
    let options = Options { rows_max: Some(ROWS_MAX), ..Options::default() };
    let runtime = sql::runtime(options.threads, 0)?;
    let text = runtime.block_on(async {
        let session = sql::open(data, options).await?;
        let mut rows = session.query(query.sql).await?;
        let mut text = Vec::new();
        write_json_lines(&mut rows, &mut text).await?;
        anyhow::Ok(text)
    });
    let text = text.context("could not read the training set from history")?;
    let names = feature_names();
    let (mut labelled, mut others) = (Vec::new(), 0);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let row: Row = serde_json::from_slice(line).context("a row of the training set is damaged")?;
        if row.recipe == RECIPE {
            labelled.push(row.labelled(&names)?);
        } else {
            others += 1;
        }
    }
    Ok((labelled, others))
}

/// A row as the query gives it.
#[derive(Deserialize)]
struct Row {
    alert_id: String,
    time: Time,
    signature: Option<String>,
    verdict: String,
    recipe: String,
    /// JSON in a text.
    features: String,
}

impl Row {
    fn labelled(self, names: &[String]) -> Result<Labelled> {
        let damaged = || format!("the features of alert {} are damaged", self.alert_id);
        let numbers: BTreeMap<&str, i64> = serde_json::from_str(&self.features).with_context(damaged)?;
        let features = names.iter().map(|name| numbers.get(name.as_str()).copied()).collect();
        Ok(Labelled {
            cell: self.time.cell(),
            // Alerts of one rule in one group are alike: never on both sides of a split.
            group: self.signature.unwrap_or_else(|| self.alert_id.clone()),
            alert: self.alert_id,
            label: self.verdict,
            features,
        })
    }
}
