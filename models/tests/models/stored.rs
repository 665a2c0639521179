//! What is stored comes back bit by bit, or not at all (ML-05, SEC: model files are data only).

use std::{fs, path::Path};

use cf_models::{
    members::Kind,
    model::{Model, Verdict},
    publish::{self, Gate},
    reasons::Names,
    registry::Registry,
};

use crate::support::{Dice, flows, request, table, trained};

/// Trains on rows of a seed and publishes; the version.
fn put(root: &Path, seed: u64, gate: Gate) -> publish::Published {
    let mut asked = request(&[Kind::Forest, Kind::Boost, Kind::Network]);
    asked.recipe.settings.forest.trees = 5;
    let (prepared, trained) = trained(&flows(1_200, seed, 0.1), &asked).unwrap();
    publish::publish(&Registry::new(root), &asked, &prepared, &trained, gate).unwrap()
}

/// Every file below a folder with its bytes.
fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push((path.strip_prefix(root).unwrap().display().to_string(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_model_comes_back_bit_by_bit() {
    let (prepared, trained) = trained(&flows(500, 1, 0.1), &request(&Kind::ALL)).unwrap();
    let bytes = trained.model.to_bytes().unwrap();
    let back = Model::from_bytes(&bytes).unwrap();
    assert_eq!(back, trained.model);
    assert_eq!(back.to_bytes().unwrap(), bytes);
    let (a, b) = (trained.model.encode(&prepared.table).unwrap(), back.encode(&prepared.table).unwrap());
    // In batches, alone, on other threads: the same bits.
    let together = trained.model.probabilities(&a, 3);
    let alone: Vec<u64> = (0..b.rows).map(|row| back.probability(b.row(row)).to_bits()).collect();
    assert_eq!(together.iter().map(|p| p.to_bits()).collect::<Vec<_>>(), alone);
}

#[test]
fn hostile_model_files_are_refused_or_predict() {
    let mut asked = request(&Kind::ALL);
    asked.recipe.settings.forest.trees = 2;
    asked.recipe.settings.boost.trees = 3;
    asked.recipe.settings.isolation.trees = 2;
    let (prepared, trained) = trained(&flows(300, 1, 0.1), &asked).unwrap();
    let bytes = trained.model.to_bytes().unwrap();
    let table = prepared.table.take(&[0, 1, 2]);
    for end in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        assert!(Model::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
    }
    assert!(Model::from_bytes(&[&bytes[..], b"x"].concat()).unwrap_err().contains("left over"));
    let mut dice = Dice::new(3);
    let mut refused = 0;
    for _ in 0..3_000 {
        let mut damaged = bytes.clone();
        for _ in 0..=dice.roll(3) {
            let at = dice.roll(damaged.len() as u64) as usize;
            damaged[at] = [0, 0xFF, 0x7F, 0x80, dice.roll(256) as u8][dice.roll(5) as usize];
        }
        // Never a panic, never an endless walk, never a huge allocation; what loads predicts or names a column.
        match Model::from_bytes(&damaged) {
            Err(_) => refused += 1,
            Ok(model) => {
                if let Ok(matrix) = model.encode(&table) {
                    let _probabilities = model.probabilities(&matrix, 1);
                    let (_, effects) = model.explained(&matrix);
                    let _reasons = Names::of(&model.ensemble.encoder).largest(&effects[..matrix.columns()], 5);
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn the_first_version_predicts_and_the_next_must_be_as_good() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(folder.path());
    let first = put(folder.path(), 1, Gate::Evidence);
    assert!(first.promoted, "{}", first.why);
    assert_eq!(registry.find("flows", "champion").unwrap(), first.version);
    assert_eq!(registry.check_probe("flows", &first.version).unwrap(), 600);
    // Trained on noise: it is stored, and does not predict.
    let mut asked = request(&[Kind::Boost]);
    asked.recipe.seed = 9;
    let (prepared, mut worse) = trained(&flows(1_200, 1, 0.1), &asked).unwrap();
    worse.evaluation.ranking.roc_auc = 0.6;
    let second = publish::publish(&registry, &asked, &prepared, &worse, Gate::Evidence).unwrap();
    assert!(!second.promoted && second.why.contains("0.6000"), "{}", second.why);
    assert_eq!(registry.find("flows", "champion").unwrap(), first.version);
}

/// Seen: the first version had an area of 0.5, and answered.
#[test]
fn what_is_no_better_than_chance_does_not_predict_by_itself_also_as_the_first() {
    for seed in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::new(folder.path());
        let asked = request(&[Kind::Boost]);
        let (prepared, noise) = trained(&flows(600, seed, 2.0), &asked).unwrap();
        let first = publish::publish(&registry, &asked, &prepared, &noise, Gate::Evidence).unwrap();
        assert!(!first.promoted && first.why.contains("better than chance"), "{}", first.why);
        assert_eq!(registry.state("flows").unwrap().champion, None);
        assert_eq!(registry.find("flows", &first.version).unwrap(), first.version, "it is stored");
        // What knows something may be the first after it.
        let good = put(folder.path(), seed, Gate::Evidence);
        assert!(good.promoted && good.why.contains("it is the first"), "{}", good.why);
    }
}

#[test]
fn the_same_training_is_the_same_version_and_the_same_bytes() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let version = put(one.path(), 1, Gate::Evidence).version;
    let before = files(&one.path().join("flows/versions"));
    assert_eq!(put(one.path(), 1, Gate::Evidence).version, version);
    assert_eq!(put(two.path(), 1, Gate::Evidence).version, version);
    assert_eq!(files(&one.path().join("flows/versions")), before);
    assert_eq!(files(&two.path().join("flows/versions")), before);
}

#[test]
fn rolling_back_gives_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(folder.path());
    let rows = table(&flows(1_000, 50, 0.1)).unwrap();
    let bits = || -> Vec<u64> {
        let model = registry.model("flows", &registry.find("flows", "champion").unwrap()).unwrap();
        model.probabilities(&model.encode(&rows).unwrap(), 1).iter().map(|p| p.to_bits()).collect()
    };
    let first = put(folder.path(), 1, Gate::Evidence).version;
    let before = bits();
    let second = put(folder.path(), 2, Gate::Always).version;
    assert_ne!(bits(), before);
    let lock = registry.lock("flows").unwrap();
    assert_eq!(registry.roll_back(&lock, "flows", "worse on Monday").unwrap(), first);
    assert_eq!(bits(), before);
    assert!(registry.roll_back(&lock, "flows", "").unwrap_err().to_string().contains("model from before"));
    registry.promote(&lock, "flows", &second, "").unwrap();
    let state = registry.state("flows").unwrap();
    let happened: Vec<&str> = state.happened.iter().map(|h| h.what.as_str()).collect();
    assert_eq!(happened, ["added", "promoted", "added", "promoted", "rolled back", "promoted"]);
    assert_eq!(state.before, [first]);
}

#[test]
fn damage_is_found_before_it_predicts() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(folder.path());
    let version = put(folder.path(), 1, Gate::Evidence).version;
    let place = folder.path().join("flows/versions").join(&version);
    for name in ["model.bin", "probe.json", "manifest.json"] {
        let path = place.join(name);
        let bytes = fs::read(&path).unwrap();
        let mut damaged = bytes.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let error = registry.check_probe("flows", &version).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("SHA-256"), "{error}");
        fs::write(&path, &bytes).unwrap();
    }
    assert!(registry.check_probe("flows", &version).is_ok());
    let error = registry.find("flows", "../../etc").unwrap_err().to_string();
    assert!(error.contains("has no version"), "{error}");
}

#[test]
fn what_a_killed_training_left_is_not_seen_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::new(folder.path());
    put(folder.path(), 1, Gate::Evidence);
    let before = files(folder.path());
    let left = folder.path().join("flows/versions/.0123456789ab");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("model.bin"), b"half").unwrap();
    assert_eq!(registry.versions("flows").unwrap().len(), 1);
    let lock = registry.lock("flows").unwrap();
    assert_eq!(files(folder.path()), before);
    assert!(registry.lock("flows").unwrap_err().to_string().contains("is locked"));
    drop(lock);
    assert!(registry.lock("flows").is_ok());
}

#[test]
fn verdicts_say_unknown_where_neither_class_is_supported() {
    let (_, trained) = trained(&flows(2_000, 1, 0.1), &request(&[Kind::Boost])).unwrap();
    let model = trained.model;
    assert_eq!(model.verdict(1.0), Verdict::True);
    assert_eq!(model.verdict(0.0), Verdict::False);
    for step in 0..=1_000 {
        let p = f64::from(step) / 1_000.0;
        let set = model.conformal.set(p);
        match model.verdict(p) {
            Verdict::True => assert!(p > model.threshold && !(set.negative && set.positive)),
            Verdict::False => assert!(p <= model.threshold && set.negative && !set.positive),
            Verdict::Unknown => assert!((set.negative && set.positive) || (p <= model.threshold && !set.negative)),
        }
    }
    let said: Vec<String> =
        [Verdict::True, Verdict::False, Verdict::Unknown].iter().map(|v| serde_json::to_string(v).unwrap()).collect();
    assert_eq!(said, ["true", "false", "\"unknown\""]);
}
