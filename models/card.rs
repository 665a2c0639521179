//! The model card: what a person should know before promoting a version (Mitchell et al. 2019), as Markdown.

use std::fmt::Write;

use crate::{
    metrics,
    registry::Manifest,
    svg,
    train::{Evaluation, Judged, Trained},
};

/// Points of a curve.
const POINTS: usize = 400;

/// The card of a version.
#[must_use]
pub(crate) fn card(manifest: &Manifest) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ok = write_card(&mut text, manifest);
    text
}

fn write_card(out: &mut String, manifest: &Manifest) -> std::fmt::Result {
    let evaluation = &manifest.evaluation;
    writeln!(out, "# Model of task `{}`\n", manifest.task)?;
    writeln!(out, "Positive is {} of column `{}`.\n", manifest.positive, manifest.label)?;
    writeln!(out, "## Data\n\n{} rows, SHA-256 `{}`.", manifest.data_rows, manifest.data_sha256)?;
    for (what, column) in [("Grouped by", &manifest.group), ("Ordered by", &manifest.time)] {
        if let Some(column) = column {
            writeln!(out, "{what} `{column}`.")?;
        }
    }
    for note in &manifest.notes {
        writeln!(out, "- {note}")?;
    }
    writeln!(out, "\n## How it was judged\n\n{}.\n", evaluation.protocol)?;
    write_figures(out, evaluation)?;
    writeln!(
        out,
        "\n## Members, each at its own threshold\n\n| member | weight | ROC-AUC | accuracy | recall | false positives |\n|---|---|---|---|---|---|"
    )?;
    for member in &evaluation.members {
        let decision = &member.decision;
        writeln!(
            out,
            "| {} | {:.3} | {:.4} | {:.4} | {:.4} | {:.4} |",
            member.member,
            member.weight,
            member.roc_auc,
            decision.accuracy,
            decision.recall,
            decision.false_positive_rate
        )?;
    }
    writeln!(out, "\n## Labels\n\n| label | positive | rows | right |\n|---|---|---|---|")?;
    for label in &evaluation.labels {
        let name = label.label.replace('|', "\\|");
        writeln!(
            out,
            "| {name} | {} | {} | {:.3} |",
            if label.positive { "yes" } else { "no" },
            label.rows,
            label.right
        )?;
    }
    let columns: Vec<&str> = manifest.inputs.iter().map(|input| input.column.as_str()).collect();
    writeln!(out, "\n## Features\n\n{}\n\n## What it does not say\n", columns.join(", "))?;
    writeln!(
        out,
        "Probabilities and sets hold for rows like those it was judged on. Where rows drift away, order holds longer than"
    )?;
    writeln!(
        out,
        "probability: watch the drift alarm and the share of `unknown`. Reasons are what trees and the logistic regression"
    )?;
    writeln!(out, "changed on the row's way; they are not causes.")
}

fn write_figures(out: &mut String, evaluation: &Evaluation) -> std::fmt::Result {
    let (ranking, decision) = (&evaluation.ranking, &evaluation.decision);
    let point = match evaluation.budget {
        Some(budget) => format!("{:.2} % of false positives", budget * 100.0),
        None => "the most accurate point".to_owned(),
    };
    writeln!(out, "| figure | value |\n|---|---|")?;
    writeln!(out, "| rows that judged (positive) | {} ({}) |", evaluation.rows, evaluation.positives)?;
    writeln!(out, "| ROC-AUC | {:.4} |\n| PR-AUC | {:.4} |", ranking.roc_auc, ranking.pr_auc)?;
    writeln!(out, "| Brier score | {:.4} |\n| calibration error | {:.4} |", ranking.brier, ranking.calibration_error)?;
    writeln!(out, "| operating point | {point}: above {:.6} |", evaluation.threshold)?;
    writeln!(out, "| accuracy there | {:.4} |\n| macro-F1 there | {:.4} |", decision.accuracy, decision.macro_f1)?;
    writeln!(out, "| recall there | {:.4} |\n| precision there | {:.4} |", decision.recall, decision.precision)?;
    writeln!(
        out,
        "| coverage of the sets | {:.4} |\n| verdicts \"unknown\" | {:.4} |",
        evaluation.coverage, evaluation.unknown
    )
}

/// The curves of a training, by file name.
#[must_use]
pub(crate) fn curves(trained: &Trained) -> Vec<(String, Vec<u8>)> {
    let Judged { probabilities, positive, .. } = &trained.judged;
    let curve = metrics::curve(probabilities, positive, POINTS);
    let precision: Vec<_> = curve.iter().map(|point| (point[1], point[2])).collect();
    let roc: Vec<_> = std::iter::once((0.0, 0.0)).chain(curve.iter().map(|point| (point[3], point[1]))).collect();
    let reliability: Vec<_> = metrics::reliability(probabilities, positive).iter().map(|bin| (bin.0, bin.1)).collect();
    let files = [
        ("precision_recall.svg", svg::chart("Precision and recall", "recall", "precision", &precision, false)),
        ("roc.svg", svg::chart("ROC", "false positive rate", "recall", &roc, true)),
        ("calibration.svg", svg::chart("Calibration", "probability", "share of positives", &reliability, true)),
    ];
    files.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect()
}
