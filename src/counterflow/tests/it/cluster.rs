//! The same graph in several processes: the same bytes as one, and how they refuse to work together.

use std::{
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
};

use crate::support::{counterflow, free_address, run};

const FILES: [&str; 3] = ["tests/cases/lab/access.log", "tests/cases/lab/auth.log", "tests/cases/lab/cron.log"];

/// A list of that many processes on this machine.
fn list(folder: &Path, processes: usize) -> PathBuf {
    let addresses: Vec<String> = (0..processes).map(|_| free_address().to_string()).collect();
    let file = folder.join("processes");
    std::fs::write(&file, format!("# this machine\n{}\n", addresses.join("\n"))).unwrap();
    file
}

fn start(list: &Path, process: usize, rules: &str, more: &[&str], files: &[&str]) -> Child {
    counterflow()
        .args(["replay", "--rules", rules, "--year", "2026", "--workers", "2"])
        .args(["--processes", list.to_str().unwrap(), "--process", &process.to_string()])
        .args(more)
        .args(files)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn two_processes_give_the_bytes_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let (list, secret) = (list(folder.path(), 2), folder.path().join("secret"));
    std::fs::write(&secret, "a secret of more than sixteen bytes\n").unwrap();
    let more = ["--cluster-secret", secret.to_str().unwrap()];
    let both: Vec<Child> = (0..2).map(|process| start(&list, process, "rules", &more, &FILES)).collect();
    let both: Vec<Output> = both.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    assert!(both.iter().all(|output| output.status.success()), "{} {}", said(&both[0]), said(&both[1]));
    let mut arguments = vec!["replay", "--rules", "rules", "--year", "2026"];
    arguments.extend(FILES);
    let one = run(&arguments, b"");
    assert!(one.stdout.len() > 10_000);
    assert_eq!(both[0].stdout, one.stdout, "{}", said(&both[0]));
    assert!(both[1].stdout.is_empty(), "alerts come to the first process alone");
}

#[test]
fn a_process_that_does_not_come_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let list = list(folder.path(), 2);
    let missing = std::fs::read_to_string(&list).unwrap().lines().nth(2).unwrap().to_owned();
    let output = start(&list, 0, "rules/plan", &["--wait-for-peers", "1s"], &FILES).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains(&format!("waited 1 s for process 1 at {missing}")), "{}", said(&output));
}

#[test]
fn processes_that_run_something_else_refuse_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let list = list(folder.path(), 2);
    let both = [start(&list, 0, "rules/plan", &[], &FILES), start(&list, 1, "rules/ssh", &[], &FILES)];
    for output in both.map(|child| child.wait_with_output().unwrap()) {
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains("runs something else: rule set"), "{}", said(&output));
    }
    // A port that others can reach is not opened without a secret.
    std::fs::write(&list, "0.0.0.0:1\n127.0.0.1:2\n").unwrap();
    let output = start(&list, 0, "rules/plan", &[], &FILES).wait_with_output().unwrap();
    assert!(said(&output).contains("0.0.0.0:1") && said(&output).contains("secret"), "{}", said(&output));
}

#[test]
fn a_process_that_dies_takes_the_other_along() {
    let folder = tempfile::tempdir().unwrap();
    let list = list(folder.path(), 2);
    // Input that does not end: both wait for more of it.
    let pipes: Vec<PathBuf> = (0..2).map(|process| folder.path().join(format!("{process}/pipe"))).collect();
    let mut ends = Vec::new();
    let mut children = Vec::new();
    for (process, pipe) in pipes.iter().enumerate() {
        std::fs::create_dir(pipe.parent().unwrap()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
        // Opened for both ways, so that neither end waits for the other.
        ends.push(std::fs::File::options().read(true).write(true).open(pipe).unwrap());
        children.push(start(&list, process, "rules/plan", &[], &[pipe.to_str().unwrap()]));
    }
    let mut second = children.pop().unwrap();
    let mut first = children.pop().unwrap();
    let met = |child: &Child| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).into_iter().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.into_iter().any(|name| name.starts_with("timely:recv"))
    };
    crate::support::wait_until("the processes are connected", || met(&first) && met(&second));
    second.kill().unwrap();
    second.wait().unwrap();
    crate::support::wait_until("the other ends", || first.try_wait().unwrap().is_some());
    let output = first.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("process 1 of the cluster is gone"), "{}", said(&output));
}
