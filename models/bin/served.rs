//! How fast models answer: features and answer of one alert, of many at once, and of URLs and flows as events carry them.

use std::time::{Duration, Instant};

use cf_models::{
    ModelError,
    ensemble::Recipe,
    features::{
        alert::{AlertPast, Asked},
        flow,
    },
    publish::{self, Gate},
    registry::Registry,
    served::{self, Labelled, Serving},
    table::Table,
    task::Task,
    train::{self, Prepared, Request},
};
use cf_types::{Alert, AlertId, AlertState, Decision, Group, Level, Score, Tenant, scored::Cells, triage::Role};

use crate::{data, peers::cpu_s, request, say};

/// Alerts that a past is made of, that are learned from, and that are measured.
const BEFORE: u64 = 50_000;
const LEARNED: usize = 3_000;
const MEASURED: usize = 5_000;
/// At once, as the engine asks; and how many are answered so.
const BATCH: usize = 256;
const ANSWERED: usize = 20_000;

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
    rolled_back(&folder, &serving, &rows, seed)?;
    let mut next = BEFORE;
    speed("alerts", |count| {
        let decided: Vec<Decision> = (next..next + count as u64).map(|number| decide(&mut past, number)).collect();
        next += count as u64;
        let features: Vec<&[Option<i64>]> = decided.iter().map(|decision| decision.features.as_slice()).collect();
        Ok(serving.answer(&features, Role::Champion)?.len())
    })?;
    remove(&folder)?;
    events("urls", "phishing_urls.csv", "status", &["url"], seed)?;
    let flows = flow::COLUMNS.map(|(name, _)| name);
    events("flows", "nsl_kdd_train.parquet", "label", &flows, seed)
}

/// Another version is promoted and taken back: how long that takes, with its probe predicted bit by bit.
fn rolled_back(folder: &std::path::Path, serving: &Serving, rows: &[Labelled], seed: u64) -> Result<(), ModelError> {
    let (request, prepared) = asked(rows, seed + 1)?;
    let trained = train::train(&request, &prepared, &mut |_, _, _| {})?;
    let registry = Registry::new(folder);
    publish::publish(&registry, &request, &prepared, &trained, Gate::Always)?;
    let (begun, begun_s) = (Instant::now(), cpu_s());
    let lock = registry.lock("triage")?;
    let version = registry.roll_back(&lock, "triage", "measured")?;
    assert_eq!(*version, *serving.version, "the one before answers");
    say(&format!("triage: rolled back in {:?}, {:.2} CPU s", begun.elapsed(), cpu_s() - begun_s));
    Ok(())
}

fn remove(folder: &std::path::Path) -> Result<(), ModelError> {
    std::fs::remove_dir_all(folder)
        .map_err(|error| ModelError::Setting { what: "the folder".to_owned(), why: error.to_string() })
}

/// One at a time, then many at once; `answer` is given how many it is to answer.
fn speed(what: &str, mut answer: impl FnMut(usize) -> Result<usize, ModelError>) -> Result<(), ModelError> {
    let mut times = Vec::with_capacity(MEASURED);
    for _ in 0..MEASURED {
        let begun = Instant::now();
        assert_eq!(answer(1)?, 1, "a question, an answer");
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 1_000).copied().unwrap_or_default();
    say(&format!("{what}: one p50 {:?} p99 {:?} p99.9 {:?} of {MEASURED}", at(500), at(990), at(999)));
    let (begun, begun_cpu_s) = (Instant::now(), cpu_s());
    let mut answered = 0;
    while answered < ANSWERED {
        answered += answer(BATCH)?;
    }
    say(&format!(
        "{what}: {BATCH} at once {:.0} a second, {:.0} a CPU second, of {answered}",
        answered as f64 / begun.elapsed().max(Duration::from_nanos(1)).as_secs_f64(),
        answered as f64 / (cpu_s() - begun_cpu_s).max(0.01)
    ));
    Ok(())
}

/// What events are asked about: cells in, answers out, as the engine does.
fn events(task: &str, file: &str, label: &str, columns: &[&str], seed: u64) -> Result<(), ModelError> {
    let task = Task::new(task)?;
    let table = Table::read(&data(file))?;
    let mut request = request(&task, &table, file, label, seed);
    request.recipe.spec.only = columns.iter().map(|name| (*name).to_owned()).collect();
    let prepared = Prepared::new(&request, table)?;
    let (folder, serving) = stored(&request, &prepared)?;
    let cells: Vec<Cells> = (0..prepared.table.rows)
        .step_by(prepared.table.rows.div_ceil(MEASURED).max(1))
        .map(|row| {
            let cell = |name: &&str| {
                let column = prepared.table.column(name)?;
                let value = match &column.cells {
                    cf_models::table::Cells::Numbers(numbers) => numbers.get(row).copied()?.into(),
                    cf_models::table::Cells::Texts(texts) => texts.get(row)?.into(),
                };
                Some(((*name).into(), value))
            };
            columns.iter().filter_map(cell).collect()
        })
        .collect();
    let mut at = 0;
    speed(&task.name, |count| {
        let of: Vec<&Cells> = (at..at + count).filter_map(|at| cells.get(at % cells.len())).collect();
        at += count;
        Ok(serving.answer_rows(&served::event_table(&task.name, &of), Role::Champion)?.len())
    })?;
    remove(&folder)
}

fn trained(rows: &[Labelled], seed: u64) -> Result<(std::path::PathBuf, Serving), ModelError> {
    let (request, prepared) = asked(rows, seed)?;
    stored(&request, &prepared)
}

fn asked(rows: &[Labelled], seed: u64) -> Result<(Request, Prepared), ModelError> {
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
    let prepared = Prepared::new(&request, table)?;
    Ok((request, prepared))
}

/// Trains, stores and loads, as the engine does.
fn stored(request: &Request, prepared: &Prepared) -> Result<(std::path::PathBuf, Serving), ModelError> {
    let begun_s = cpu_s();
    let trained = train::train(request, prepared, &mut |_, _, _| {})?;
    let name = format!("counterflow-served-{}-{}", std::process::id(), cf_types::clock::now().micros());
    let folder = std::env::temp_dir().join(name);
    let registry = Registry::new(&folder);
    let task = &request.task.name;
    let version = publish::publish(&registry, request, prepared, &trained, Gate::Always)?.version;
    say(&format!(
        "{task}: trained on {} rows in {:.1} CPU s: ROC-AUC {:.3}",
        prepared.table.rows,
        cpu_s() - begun_s,
        trained.evaluation.ranking.roc_auc
    ));
    let begun = Instant::now();
    let serving = Serving::load(&registry, task, &version)?;
    say(&format!("{task}: loaded, checked and the probe predicted in {:?}", begun.elapsed()));
    Ok((folder, serving))
}
