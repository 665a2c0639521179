//! Programs that tests need and that `scripts/readers fetch` installs; without them a test says that it is skipped.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use crate::support::here;

/// The folder of the programs, fetched if that is possible; `None` with a line that says why not.
pub(crate) fn programs(test: &str) -> Option<PathBuf> {
    let script = here().join("../../scripts/readers");
    let run = |word: &str| Command::new(&script).arg(word).output();
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match run("fetch") {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            eprintln!("skipped: {test}: scripts/readers fetch failed: {}", said(&output));
            return None;
        }
        Err(error) => {
            eprintln!("skipped: {test}: scripts/readers cannot be run: {error}");
            return None;
        }
    }
    let path = run("path").ok()?;
    Some(PathBuf::from(String::from_utf8_lossy(&path.stdout).trim()))
}
