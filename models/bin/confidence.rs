//! Whether the confidence of an assessment means what it says (RSK-02): of alerts to which it gives 80 %, four in five are
//! attacks.
//!
//! The AIT alerts, each scenario held out once: people have judged alerts of the others, so many of each rule; the
//! assessment of an alert of the scenario that was held out knows nothing but those verdicts. Its confidence is then met
//! with the truth, in ten bins (expected calibration error).

use std::collections::{BTreeMap, BTreeSet};

use cf_models::{ModelError, metrics, table::Table};
use cf_types::{
    Alert, AlertId, AlertState, Level, Score, Time,
    assess::{Context, Precision, assess},
    fact::{Judgement, Verdict},
};

use super::{data, say};

/// Alerts of one rule that people judge.
const JUDGED: [usize; 3] = [20, 200, usize::MAX];

/// One alert of the data.
struct Row {
    rule: usize,
    scenario: usize,
    is_attack: bool,
}

/// The error by how much is judged.
pub(crate) fn run(seed: u64) -> Result<(), ModelError> {
    let table = Table::read(&data("ait_ads_6.parquet"))?;
    for label in ["time_label", "event_label"] {
        let (rows, rules) = rows(&table, label)?;
        let attacks = rows.iter().filter(|row| row.is_attack).count();
        say(&format!("{label}: {} alerts of {} rules, {attacks} of attacks", rows.len(), rules.len()));
        for judged in JUDGED {
            let many = if judged == usize::MAX { "all".to_owned() } else { format!("{judged} of each rule") };
            say(&format!("  {many} judged: {}", held_out(&rows, &rules, judged, seed)));
        }
    }
    Ok(())
}

fn rows(table: &Table, label: &str) -> Result<(Vec<Row>, Vec<String>), ModelError> {
    let column = |name| table.need(name, "column").map(|column| column.cells.classes());
    let (rules, scenarios, labels) = (column("name")?, column("scenario")?, column(label)?);
    let benign = |row: usize| labels.get(row).is_none_or(|text| matches!(text, "" | "-" | "false_positive"));
    let row = |row: usize| Row {
        rule: rules.codes[row] as usize,
        scenario: scenarios.codes[row] as usize,
        is_attack: !benign(row),
    };
    Ok(((0..table.rows).map(row).collect(), rules.values))
}

/// Error over all scenarios, each held out once; and the bins.
fn held_out(rows: &[Row], rules: &[String], judged: usize, seed: u64) -> String {
    let scenarios: BTreeSet<usize> = rows.iter().map(|row| row.scenario).collect();
    let (mut confidences, mut truth, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for scenario in scenarios {
        let by_rule = judge(rows, scenario, judged, seed);
        let known: BTreeMap<usize, f64> =
            rules.iter().enumerate().map(|(at, name)| (at, confidence(name, by_rule.get(&at)))).collect();
        let inside = || rows.iter().filter(|row| row.scenario == scenario);
        let said: Vec<f64> = inside().map(|row| known.get(&row.rule).copied().unwrap_or(0.0)).collect();
        let is: Vec<bool> = inside().map(|row| row.is_attack).collect();
        errors.push(metrics::ranking(&said, &is).calibration_error);
        confidences.extend(said);
        truth.extend(is);
    }
    let bins: Vec<String> = metrics::reliability(&confidences, &truth)
        .into_iter()
        .map(|(said, is, rows)| format!("{:.0}%:{:.1}%({rows})", said * 100.0, is * 100.0))
        .collect();
    let all = metrics::ranking(&confidences, &truth).calibration_error;
    let worst = errors.iter().copied().fold(0.0, f64::max);
    format!("expected calibration error {all:.4}, worst scenario {worst:.4}; said:were {}", bins.join(" "))
}

/// Verdicts on alerts of all scenarios but one: of each rule so many, spread over its alerts.
fn judge(rows: &[Row], but: usize, judged: usize, seed: u64) -> BTreeMap<usize, Vec<Verdict>> {
    let mut of_rule: BTreeMap<usize, Vec<&Row>> = BTreeMap::new();
    rows.iter().filter(|row| row.scenario != but).for_each(|row| of_rule.entry(row.rule).or_default().push(row));
    let mut random = cf_types::random::Random(seed);
    let chosen = |mut list: Vec<&Row>, random: &mut cf_types::random::Random| {
        random.shuffle(&mut list);
        list.truncate(judged);
        let verdict = |(at, row): (i64, &&Row)| Verdict {
            alert: AlertId::default(),
            judgement: if row.is_attack { Judgement::TruePositive } else { Judgement::FalsePositive },
            rule: "rule".into(),
            at: Time::from_seconds(at),
        };
        (0..).zip(&list).map(verdict).collect::<Vec<_>>()
    };
    of_rule.into_iter().map(|(rule, list)| (rule, chosen(list, &mut random))).collect()
}

/// What the assessment says of an alert of a rule with these verdicts.
fn confidence(rule: &str, verdicts: Option<&Vec<Verdict>>) -> f64 {
    let alert = Alert {
        tenant: Default::default(),
        id: AlertId::default(),
        rule: rule.into(),
        title: rule.into(),
        level: Level::Medium,
        group: Default::default(),
        state: AlertState::Open,
        anchor: 0,
        last_cell: 0,
        count: 1,
        reference_counts: vec![1],
        peak: 1,
        score: Score::of_level(Level::Medium),
        entities: Vec::new(),
        tags: [].into(),
    };
    let context = Context { precision: verdicts.and_then(Precision::of), ..Context::default() };
    f64::from(assess(&alert, &context).confidence_percent) / 100.0
}
