//! Whether the confidence of an assessment means what it says (RSK-02): of alerts to which it gives 80 %, four in five are
//! attacks.
//!
//! The AIT alerts, each scenario held out once: people have judged alerts of the others, so many of each rule; the
//! assessment of an alert of the scenario that was held out knows nothing but those verdicts. Its confidence is then met
//! with the truth, in ten bins (expected calibration error).
//!
//! That asks whether verdicts carry over to another site. The second question is whether they hold at their own: of the
//! scenario's own alerts so many of each rule are judged, and the others, which nobody judged, are met. Of each scenario the
//! rule is named whose alerts make most of the error.

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
/// The same of the site's own.
const OWN: [usize; 3] = [5, 20, 200];

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
        for judged in OWN {
            say(&format!("  {judged} of each rule of its own judged: {}", own(&rows, &rules, judged, seed)));
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
    met(rows, rules, |scenario| {
        let others = rows.iter().filter(|row| row.scenario != scenario).collect();
        let (verdicts, _) = judge(others, judged, seed);
        (verdicts, rows.iter().filter(|row| row.scenario == scenario).collect())
    })
}

/// Error over all scenarios, of the alerts that nobody judged there; and the bins.
fn own(rows: &[Row], rules: &[String], judged: usize, seed: u64) -> String {
    met(rows, rules, |scenario| judge(rows.iter().filter(|row| row.scenario == scenario).collect(), judged, seed))
}

/// Verdicts by rule.
type Verdicts = BTreeMap<usize, Vec<Verdict>>;

/// Meets alerts of each scenario with what these verdicts say of them.
fn met<'a>(rows: &[Row], rules: &[String], of: impl Fn(usize) -> (Verdicts, Vec<&'a Row>)) -> String {
    let scenarios: BTreeSet<usize> = rows.iter().map(|row| row.scenario).collect();
    let (mut confidences, mut truth, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for scenario in scenarios {
        let (by_rule, inside) = of(scenario);
        let known: BTreeMap<usize, f64> =
            rules.iter().enumerate().map(|(at, name)| (at, confidence(name, by_rule.get(&at)))).collect();
        let said: Vec<f64> = inside.iter().map(|row| known.get(&row.rule).copied().unwrap_or(0.0)).collect();
        let is: Vec<bool> = inside.iter().map(|row| row.is_attack).collect();
        errors.push((metrics::ranking(&said, &is).calibration_error, worst_rule(rules, &inside, &known)));
        confidences.extend(said);
        truth.extend(is);
    }
    let bins: Vec<String> = metrics::reliability(&confidences, &truth)
        .into_iter()
        .map(|(said, is, rows)| format!("{:.0}%:{:.1}%({rows})", said * 100.0, is * 100.0))
        .collect();
    let all = metrics::ranking(&confidences, &truth).calibration_error;
    let (worst, rule) =
        errors.into_iter().max_by(|one, other| one.0.total_cmp(&other.0)).unwrap_or((0.0, String::new()));
    format!("expected calibration error {all:.4}, worst scenario {worst:.4} ({rule}); said:were {}", bins.join(" "))
}

/// The rule whose alerts make most of a scenario's error: what is said of them, and what they are.
fn worst_rule(rules: &[String], inside: &[&Row], known: &BTreeMap<usize, f64>) -> String {
    let mut by_rule: BTreeMap<usize, (u32, u32)> = BTreeMap::new();
    for row in inside {
        let (alerts, attacks) = by_rule.entry(row.rule).or_default();
        *alerts += 1;
        *attacks += u32::from(row.is_attack);
    }
    let off = |(rule, (alerts, attacks)): (usize, (u32, u32))| {
        let said = known.get(&rule).copied().unwrap_or(0.0);
        ((said * f64::from(alerts) - f64::from(attacks)).abs(), rule, alerts, attacks, said)
    };
    let worst = by_rule.into_iter().map(off).max_by(|one, other| one.0.total_cmp(&other.0));
    worst.map_or_else(String::new, |(_, rule, alerts, attacks, said)| {
        let name = rules.get(rule).map_or("", String::as_str);
        format!("most of it by {name:?}: {:.0}% said, {attacks} of {alerts} were", said * 100.0)
    })
}

/// Verdicts on alerts: of each rule so many, spread over them; and the alerts that are not judged.
fn judge(rows: Vec<&Row>, judged: usize, seed: u64) -> (Verdicts, Vec<&Row>) {
    let mut of_rule: BTreeMap<usize, Vec<&Row>> = BTreeMap::new();
    rows.into_iter().for_each(|row| of_rule.entry(row.rule).or_default().push(row));
    let mut random = cf_types::random::Random(seed);
    let mut rest = Vec::new();
    let mut chosen = |mut list: Vec<_>, random: &mut cf_types::random::Random| {
        random.shuffle(&mut list);
        rest.extend(list.split_off(judged.min(list.len())));
        let verdict = |(at, row): (i64, &&Row)| Verdict {
            alert: AlertId::default(),
            judgement: if row.is_attack { Judgement::TruePositive } else { Judgement::FalsePositive },
            rule: "rule".into(),
            at: Time::from_seconds(at),
        };
        (0..).zip(&list).map(verdict).collect::<Vec<_>>()
    };
    let verdicts = of_rule.into_iter().map(|(rule, list)| (rule, chosen(list, &mut random))).collect();
    (verdicts, rest)
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
