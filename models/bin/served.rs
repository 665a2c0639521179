//! How fast alerts are decided about: features and answer of one alert, and of many at once.

use std::time::{Duration, Instant};

use cf_models::{
    ModelError,
    ensemble::Recipe,
    features::alert::{AlertPast, Asked},
    publish::{self, Gate},
    registry::Registry,
    served::{self, Labelled, Serving},
    task::Task,
    train::{self, Prepared, Request},
};
use cf_types::{Alert, AlertId, AlertState, Decision, Group, Level, Score, Tenant, triage::Role};

use crate::{peers::cpu_s, say};

/// Alerts that a past is made of, that are learned from, and that are measured.
const BEFORE: u64 = 50_000;
const LEARNED: usize = 3_000;
const MEASURED: usize = 5_000;
/// Alerts at once, as the engine asks.
const BATCH: usize = 256;

/// Alerts of 40 rules about 2,000 hosts and as many addresses, one a second.
fn alert(number: u64) -> Alert {
    let draw = |salt: u64, below: u64| {
        let mut z = (number ^ (salt << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (z >> 33) % below
    };
    let address = draw(2, 2_000);
    let group = Group::new([
        ("host".into(), format!("host{}", draw(1, 2_000)).into()),
        (
            "source_ip".into(),
            format!("{}.0.{}.{}", if draw(3, 2) == 0 { 10 } else { 203 }, address / 250, address % 250).into(),
        ),
        ("user".into(), format!("user{}", draw(4, 500)).into()),
    ]);
    let at = 1_700_000_000 + i64::try_from(number).unwrap_or(0);
    let mut id = [0; 16];
    id.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
    Alert {
        tenant: Tenant::default(),
        id: AlertId(id),
        rule: format!("rule-{}", draw(5, 40)).into(),
        title: "made up".into(),
        level: [Level::Low, Level::Medium, Level::High][usize::try_from(draw(6, 3)).unwrap_or(0)],
        entities: group.entities(),
        group,
        state: AlertState::Open,
        anchor: at - 30,
        last_cell: at,
        count: 1 + draw(7, 50),
        reference_counts: vec![1],
        peak: 5,
        score: Score::of_level(Level::Medium),
        tags: ["attack.t1110".into(), "attack.credential-access".into()].into(),
    }
}

fn decide(past: &mut AlertPast, number: u64) -> Decision {
    let alert = alert(number);
    past.decide(&Asked { alert: &alert, thread: alert.id, upto: 0 })
}

/// Trains a whole ensemble on made-up labels, then measures.
pub(crate) fn run(seed: u64) -> Result<(), ModelError> {
    let mut past = AlertPast::default();
    let mut decisions: Vec<Decision> = (0..BEFORE).map(|number| decide(&mut past, number)).collect();
    let learned = decisions.split_off(decisions.len() - LEARNED);
    let label = |decision: &Decision| {
        let outside = decision.entities.iter().any(|entity| entity.value.starts_with("203."));
        if outside != decision.signature.is_multiple_of(10) { "true_positive" } else { "benign" }
    };
    let rows: Vec<Labelled> = learned
        .iter()
        .map(|decision| Labelled {
            alert: decision.alert.to_string(),
            cell: decision.cell,
            group: decision.thread.to_string(),
            label: label(decision).to_owned(),
            features: decision.features.clone(),
        })
        .collect();
    let (folder, serving) = trained(&rows, seed)?;
    let mut times = Vec::with_capacity(MEASURED);
    for number in BEFORE..BEFORE + MEASURED as u64 {
        let alert = alert(number);
        let begun = Instant::now();
        let decision = past.decide(&Asked { alert: &alert, thread: alert.id, upto: 0 });
        let answers = serving.answer(&[&decision.features], Role::Champion)?;
        times.push(begun.elapsed());
        assert_eq!(answers.len(), 1, "an alert, an answer");
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 1_000).copied().unwrap_or_default();
    say(&format!("one alert: p50 {:?} p99 {:?} p99.9 {:?} of {MEASURED}", at(500), at(990), at(999)));
    let (begun, begun_cpu_s) = (Instant::now(), cpu_s());
    let mut answered = 0;
    for first in (0..MEASURED as u64).step_by(BATCH) {
        let batch: Vec<Decision> =
            (0..BATCH as u64).map(|at| decide(&mut past, BEFORE + MEASURED as u64 + first + at)).collect();
        let features: Vec<&[Option<i64>]> = batch.iter().map(|decision| decision.features.as_slice()).collect();
        answered += serving.answer(&features, Role::Champion)?.len();
    }
    say(&format!(
        "{BATCH} at once: {:.0} a second, {:.0} a processor second",
        answered as f64 / begun.elapsed().max(Duration::from_nanos(1)).as_secs_f64(),
        answered as f64 / (cpu_s() - begun_cpu_s).max(0.01)
    ));
    std::fs::remove_dir_all(&folder)
        .map_err(|error| ModelError::Setting { what: "the folder".to_owned(), why: error.to_string() })
}

fn trained(rows: &[Labelled], seed: u64) -> Result<(std::path::PathBuf, Serving), ModelError> {
    let task = Task::new("triage")?;
    let table = served::training_table(rows);
    let mut recipe = Recipe::usual(task.budget(), table.rows, seed);
    recipe.spec.leave_out = vec![served::GROUP.to_owned()];
    let request = Request {
        input: std::path::PathBuf::new(),
        label: served::LABEL.to_owned(),
        positive: Some("true_positive".to_owned()),
        group: None,
        time: Some(served::TIME.to_owned()),
        allow_leak: Vec::new(),
        budget: task.budget(),
        recipe,
        confidence: 0.95,
        threads: 2,
        task,
    };
    let begun = Instant::now();
    let prepared = Prepared::new(&request, table)?;
    let trained = train::train(&request, &prepared, &mut |_, _, _| {})?;
    let name = format!("counterflow-served-{}-{}", std::process::id(), cf_types::clock::now().micros());
    let folder = std::env::temp_dir().join(name);
    let registry = Registry::new(&folder);
    let version = publish::publish(&registry, &request, &prepared, &trained, Gate::Always)?.version;
    say(&format!(
        "trained on {} alerts in {:?}: ROC-AUC {:.3}",
        rows.len(),
        begun.elapsed(),
        trained.evaluation.ranking.roc_auc
    ));
    let begun = Instant::now();
    let serving = Serving::load(&registry, "triage", &version)?;
    say(&format!("loaded and checked in {:?}", begun.elapsed()));
    Ok((folder, serving))
}
