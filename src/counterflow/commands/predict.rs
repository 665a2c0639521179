//! `counterflow predict`.

use std::io::{self, Write};

use anyhow::Result;
use cf_models::{
    drift::{Alarm, WINDOW, Watch},
    matrix::Matrix,
    model::Model,
    reasons::Names,
    registry::Registry,
    table::Table,
    task::Task,
};
use serde_json::json;

use crate::{
    cli::PredictArguments,
    output::{self, Exit},
};

/// Scores rows.
pub(crate) fn run(arguments: &PredictArguments) -> Result<Exit> {
    let task = Task::new(&arguments.task)?;
    let registry = Registry::new(&arguments.models);
    let version = registry.find(&task.name, &arguments.model)?;
    let model = registry.model(&task.name, &version)?;
    let table = Table::read(&arguments.input)?;
    for line in
        table.notes.iter().filter(|line| model.inputs.iter().any(|input| line.contains(&format!("{:?}", input.column))))
    {
        output::note(&format!("note: {line}"));
    }
    for (column, rows) in model.ensemble.encoder.unseen(&table) {
        output::note(&format!(
            "note: column {column:?}: {rows} rows have a value that training never saw; it counts as any other"
        ));
    }
    output::ignore_closed_pipe(print(arguments, &model, &table)?)?;
    Ok(Exit::Ok)
}

/// Says when rows are not like those that the model learned from: the first time, and how often.
fn watch(model: &Model, matrix: &Matrix, probabilities: &[f64]) {
    let mut watch = Watch::new(&model.ensemble.reference, model.ensemble.encoder.names());
    let alarms: Vec<Alarm> =
        probabilities.iter().enumerate().filter_map(|(row, &p)| watch.row(matrix.row(row), p)).collect();
    let Some(first) = alarms.first() else { return };
    let columns: Vec<String> =
        first.columns.iter().take(5).map(|(name, index)| format!("{name} ({index:.2})")).collect();
    output::note(&format!(
        "drift: alarm in {} of {} windows, the first at row {}: {}{}; {:.1} % of the verdicts are unknown",
        alarms.len(),
        matrix.rows / WINDOW,
        first.rows,
        columns.join(", "),
        if first.mean_moved { " and the mean of the scores" } else { "" },
        100.0 * model.unknown_share(probabilities),
    ));
}

fn print(arguments: &PredictArguments, model: &Model, table: &Table) -> Result<io::Result<()>> {
    let matrix = model.encode(table)?;
    let (most, width) = (usize::from(arguments.reasons), matrix.columns());
    let (probabilities, effects) = match most {
        0 => (model.probabilities(&matrix, usize::from(arguments.threads)), Vec::new()),
        _ => model.explained(&matrix),
    };
    let names = Names::of(&model.ensemble.encoder);
    watch(model, &matrix, &probabilities);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut write = || {
        for (row, &score) in probabilities.iter().enumerate() {
            let mut line = json!({"row": row, "score": score, "verdict": model.verdict(score)});
            if let Some(effects) = effects.get(row * width..(row + 1) * width) {
                let reasons = names.largest(effects, most).into_iter();
                line["reasons"] = reasons
                    .map(|(column, effect)| json!({"column": column, "effect": effect}))
                    .collect::<Vec<_>>()
                    .into();
            }
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    Ok(write())
}
