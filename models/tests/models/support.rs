//! Made-up rows with a known pattern, and requests for them.

use std::{fmt::Write, path::PathBuf};

use cf_models::{
    ModelError,
    balance::Balance,
    ensemble::{Blend, Recipe},
    features::Spec,
    members::{Kind, Settings},
    table::Table,
    task::Task,
    train::{self, Prepared, Request, Trained},
};

/// Numbers that are the same on every run, apart from those of the crate.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9).wrapping_add(77))
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    pub(crate) fn unit(&mut self) -> f64 {
        self.roll(1 << 20) as f64 / (1 << 20) as f64
    }
}

/// Flows: bad ones send more and use odd services; one in ten is mislabelled, `noise` of 2 makes labels random.
pub(crate) fn flows(rows: usize, seed: u64, noise: f64) -> String {
    let mut dice = Dice::new(seed);
    let mut text = "bytes,rate,service,flag,constant,label\n".to_owned();
    for row in 0..rows {
        let bad = dice.unit() < 0.4;
        let shift = if bad { 1.2 } else { 0.0 };
        let bytes = (dice.unit() + dice.unit() + shift) * 500.0;
        let rate = dice.unit() + shift * 0.4;
        let service = ["http", "dns", "smtp", "irc"][if bad { 1 + dice.roll(3) } else { dice.roll(3) } as usize];
        let flag = if dice.unit() < if bad { 0.7 } else { 0.2 } { "S0" } else { "SF" };
        let said = if dice.unit() < noise / 2.0 { dice.unit() < 0.5 } else { bad };
        let label = if said { ["probe", "dos"][row % 2] } else { "normal" };
        writeln!(text, "{bytes:.2},{rate:.4},{service},{flag},7,{label}").unwrap();
    }
    text
}

/// A file of a text, deleted with the folder.
pub(crate) fn file(text: &str, name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

pub(crate) fn table(text: &str) -> Result<Table, ModelError> {
    let (_folder, path) = file(text, "rows.csv");
    Table::read(&path)
}

/// A quick training of the task `flows`.
pub(crate) fn request(members: &[Kind]) -> Request {
    let mut settings = Settings::default();
    settings.forest.trees = 20;
    settings.boost.trees = 30;
    settings.network.rounds = 4;
    settings.isolation.trees = 30;
    let recipe = Recipe {
        spec: Spec::default(),
        members: members.to_vec(),
        settings,
        balance: Balance::Labels,
        blend: Blend::Rarity,
        seed: 7,
    };
    Request {
        task: Task::new("flows").unwrap(),
        input: PathBuf::from("rows.csv"),
        label: "label".to_owned(),
        positive: None,
        group: None,
        time: None,
        allow_leak: Vec::new(),
        recipe,
        budget: Some(0.05),
        confidence: 0.95,
        threads: 2,
    }
}

pub(crate) fn trained(text: &str, request: &Request) -> Result<(Prepared, Trained), ModelError> {
    let prepared = Prepared::new(request, table(text)?)?;
    let trained = train::train(request, &prepared, &mut |_, _, _| {})?;
    Ok((prepared, trained))
}

/// The given data, or `None` after saying that the test is skipped.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
    let base = std::env::var_os("COUNTERFLOW_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    let path = base.join("data/ml").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there", path.display());
    None
}
