//! From a training to a version in the registry, and whether it may predict at once.

use crate::{
    ModelError, card, evidence,
    metrics::{self, Ranking},
    model::Model,
    registry::{Manifest, Probe, Registry},
    train::{Evaluation, Prepared, Request, Trained},
};

/// Rows of the probe.
const PROBE_ROWS: usize = 1_000;

/// When a new version predicts at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// If it is better than chance by a margin and, where there is a champion, as good on the rows that judge.
    Evidence,
    /// In any case.
    Always,
    /// Not before somebody promotes it.
    Never,
}

/// A version in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its id.
    pub version: String,
    /// Whether it predicts now.
    pub promoted: bool,
    /// Why, or why not.
    pub why: String,
}

/// Adds a training to the registry and promotes it if the gate lets it.
///
/// # Errors
/// Something cannot be written; the registry is then as it was.
pub fn publish(
    registry: &Registry,
    request: &Request,
    prepared: &Prepared,
    trained: &Trained,
    gate: Gate,
) -> Result<Published, ModelError> {
    let task = &request.task.name;
    let manifest = Manifest {
        task: task.clone(),
        data_sha256: prepared.table.sha256.clone(),
        data_rows: prepared.table.rows,
        label: request.label.clone(),
        positive: prepared.labels.rule.clone(),
        group: request.group.clone(),
        time: request.time.clone(),
        code: env!("CARGO_PKG_VERSION").to_owned(),
        recipe: request.recipe.clone(),
        inputs: trained.model.inputs.clone(),
        evaluation: trained.evaluation.clone(),
        notes: trained.notes.clone(),
        files: Vec::new(),
    };
    let files = files(&manifest, prepared, trained)?;
    let lock = registry.lock(task)?;
    let version = registry.add(&lock, manifest, files)?;
    let (promoted, why) = judge(registry, task, &version, prepared, trained, gate)?;
    if promoted {
        registry.promote(&lock, task, &version, &why)?;
    }
    Ok(Published { version, promoted, why })
}

fn files(manifest: &Manifest, prepared: &Prepared, trained: &Trained) -> Result<Vec<(String, Vec<u8>)>, ModelError> {
    let wrong = |why: String| ModelError::setting("the trained model", why);
    let model = trained.model.to_bytes().map_err(wrong)?;
    // What will be read is what was written, or nothing is written.
    let read = Model::from_bytes(&model).map_err(wrong)?;
    let judged = &trained.judged.rows;
    let step = judged.len().div_ceil(PROBE_ROWS).max(1);
    let rows: Vec<usize> = judged.iter().copied().step_by(step).collect();
    let probe = Probe::of(&read, &read.ensemble.encoder.encode(&prepared.table.take(&rows))?);
    let probe = serde_json::to_vec(&probe).map_err(|error| wrong(error.to_string()))?;
    let mut files = card::curves(trained);
    files.push(("model.bin".to_owned(), model));
    files.push(("probe.json".to_owned(), probe));
    files.push(("card.md".to_owned(), card::card(manifest).into_bytes()));
    Ok(files)
}

/// Whether a version may predict, and why.
fn judge(
    registry: &Registry,
    task: &str,
    version: &str,
    prepared: &Prepared,
    trained: &Trained,
    gate: Gate,
) -> Result<(bool, String), ModelError> {
    let champion = registry.state(task)?.champion;
    if champion.as_deref() == Some(version) {
        return Ok((false, "it is the champion already".to_owned()));
    }
    match gate {
        Gate::Always => return Ok((true, "it was asked for".to_owned())),
        Gate::Never => return Ok((false, "promotion was not asked for".to_owned())),
        Gate::Evidence => {}
    }
    let Evaluation { ranking, rows, positives, .. } = &trained.evaluation;
    let (beats, said) = evidence::beats_chance(ranking, *rows, *positives);
    if !beats {
        return Ok((false, format!("it is not shown to be better than chance: {said}")));
    }
    let Some(champion) = champion else { return Ok((true, format!("it is the first: {said}"))) };
    let theirs = match ranking_of(&registry.model(task, &champion)?, prepared, trained) {
        Ok(ranking) => ranking,
        Err(error) => return Ok((false, format!("the champion {champion} cannot judge the same rows: {error}"))),
    };
    let (holds, said) = evidence::holds_against(ranking, &theirs);
    Ok((holds, format!("{said} ({champion})")))
}

/// How a model ranks the rows that judged. It may have learned from them: then it has an advantage, which is on the safe side.
fn ranking_of(model: &Model, prepared: &Prepared, trained: &Trained) -> Result<Ranking, ModelError> {
    // The history of these rows stands in the table already.
    let table = prepared.table.take(&trained.judged.rows);
    let probabilities = model.probabilities(&model.ensemble.encoder.encode(&table)?, 1);
    Ok(metrics::ranking(&probabilities, &trained.judged.positive))
}
