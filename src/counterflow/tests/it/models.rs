//! `train`, `predict`, `models`: the interfaces that stay, and SIGKILL in the middle of a training.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;

use crate::support::{counterflow, lines, run, said};

/// Rows with a pattern; the label is the last column.
fn rows(count: u64, seed: u64) -> String {
    let mut text = "bytes,service,label\n".to_owned();
    for row in 0..count {
        let x = ((row ^ (seed << 20)) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (bad, noise, service) =
            ((x >> 60) < 6, (x >> 40) % 900, ["http", "dns", "irc"][usize::try_from((x >> 20) % 3).unwrap()]);
        let bytes = noise + if bad { 500 } else { 0 };
        writeln!(text, "{bytes},{service},{}", if bad { "neptune" } else { "normal" }).unwrap();
    }
    text
}

fn train(folder: &Path, seed: u64, more: &[&str]) -> Value {
    let input = folder.join(format!("rows{seed}.csv"));
    fs::write(&input, rows(800, seed)).unwrap();
    let models = folder.join("models");
    let fixed = ["train", "--task", "flows", "--input", input.to_str().unwrap(), "--label", "label"];
    let place = ["--models", models.to_str().unwrap(), "--members", "boost"];
    let output = run(&[&fixed[..], &place, more].concat(), b"");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    lines(&output).remove(0)
}

/// Everything below a folder, by path, but what is hidden: there a killed writer leaves what nobody reads.
fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
                continue;
            }
            if path.is_dir() { open.push(path) } else { found.push((path.clone(), fs::read(&path).unwrap())) }
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_trained_predicts_in_the_order_of_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models").display().to_string();
    let first = train(folder.path(), 1, &[]);
    assert_eq!(first["promoted"], true);
    let input = folder.path().join("new.csv");
    // Columns in another order, an unseen service, a number missing; no label.
    fs::write(&input, "service,bytes\nhttp,10\ngopher,1350\ndns,\n").unwrap();
    let predict = ["predict", "--task", "flows", "--input", input.to_str().unwrap(), "--models", &models];
    let output = run(&predict, b"");
    let said_of = lines(&output);
    assert_eq!(said_of.iter().map(|line| line["row"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(said_of[0]["score"].as_f64().unwrap() < 0.2 && said_of[1]["score"].as_f64().unwrap() > 0.8, "{said_of:?}");
    assert_eq!((&said_of[0]["verdict"], &said_of[1]["verdict"]), (&false.into(), &true.into()));
    assert!(said(&output).contains("\"service\": 1 rows have a value that training never saw"), "{}", said(&output));
    let reasons = lines(&run(&[&predict[..], &["--reasons", "1"]].concat(), b""));
    assert_eq!(reasons[1]["reasons"][0]["column"], "bytes");

    let wrong = folder.path().join("wrong.csv");
    fs::write(&wrong, "service,size\nhttp,10\n").unwrap();
    let output = run(&["predict", "--task", "flows", "--input", wrong.to_str().unwrap(), "--models", &models], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("there is no column \"bytes\""), "{}", said(&output));
    let output = run(&["predict", "--task", "urls", "--input", wrong.to_str().unwrap(), "--models", &models], b"");
    assert!(said(&output).contains("run `counterflow train --task urls` first"), "{}", said(&output));
}

#[test]
fn versions_are_listed_promoted_compared_and_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models").display().to_string();
    let first = train(folder.path(), 1, &[])["version"].as_str().unwrap().to_owned();
    let second = train(folder.path(), 2, &["--promote", "never"])["version"].as_str().unwrap().to_owned();
    let ask = |words: &[&str]| {
        let output =
            run(&[&["models", words[0], "--models", &models, "--task", "flows"][..], &words[1..]].concat(), b"");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        lines(&output)
    };
    let states = || {
        let mut states: Vec<_> = ask(&["list"])
            .iter()
            .map(|row| (row["version"].clone(), row["state"].as_str().unwrap().to_owned()))
            .collect();
        states.sort_by_key(|(version, _)| *version != first.as_str());
        states.into_iter().map(|(_, state)| state).collect::<Vec<_>>()
    };
    assert_eq!(states(), ["champion", "challenger"]);
    ask(&["promote", &second]);
    assert_eq!(states(), ["former", "champion"]);
    ask(&["rollback", "--reason", "test"]);
    assert_eq!(states(), ["champion", "challenger"]);
    let input = folder.path().join("other.csv");
    fs::write(&input, rows(500, 3)).unwrap();
    let compared = ask(&["compare", "--input", input.to_str().unwrap(), "--label", "label", &first, &second]);
    assert_eq!(compared.len(), 2);
    assert!(compared.iter().all(|row| row["roc_auc"].as_f64().unwrap() > 0.8 && row["rows"] == 500), "{compared:?}");
    assert_eq!(ask(&["show", &first])[0]["data_rows"], 800);
    let card = run(&["models", "show", "--models", &models, "--task", "flows", "--output", "table"], b"");
    assert!(String::from_utf8(card.stdout).unwrap().starts_with("# Model of task `flows`"));
}

#[test]
fn a_killed_training_leaves_the_registry_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    train(folder.path(), 1, &[]);
    let before = files(&models);
    let input = folder.path().join("many.csv");
    fs::write(&input, rows(6_000, 2)).unwrap();
    for wait in [5, 40, 150, 400] {
        let mut child = counterflow()
            .args(["train", "--task", "flows", "--input", input.to_str().unwrap(), "--label", "label"])
            .args(["--models", models.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        // Done before it was killed: then it is a version more, whole.
        if ended.code() == Some(0) {
            break;
        }
        assert_eq!(files(&models), before, "killed after {wait} ms");
    }
    let at = models.to_str().unwrap();
    let listed = run(&["models", "list", "--models", at], b"");
    assert!(lines(&listed).iter().all(|row| row.get("problem").is_none()), "{}", said(&listed));
}
