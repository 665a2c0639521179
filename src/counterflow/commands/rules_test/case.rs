//! One line of a `.test.jsonl`: what must or must not fire, and over which records.
//!
//! The records are written in the case (`lines`), or are those of a recording in this repository (`file`, relative to
//! the test), or of the given data (`shared`, below the folder `COUNTERFLOW_SHARED`; gzip, zstd, `member` of a tar). Of a
//! file all lines count, or those that hold a text (`containing`), or those of these `numbers`. Data that is referred
//! to and not here skips its case: it may not be copied into the repository.

use std::{
    collections::HashMap,
    env,
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// Bytes of one unpacked file.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Records of one case.
const LINES_MAX: usize = 100_000;

/// A case as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Case {
    pub(super) fires: bool,
    pub(super) why: String,
    /// Which of the file's rules; any of them if it is not said.
    pub(super) rule: Option<String>,
    lines: Vec<String>,
    file: Option<PathBuf>,
    shared: Option<PathBuf>,
    member: Option<PathBuf>,
    containing: Option<String>,
    numbers: Vec<usize>,
}

/// What reading a case gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Records {
    /// In the order in which they would come.
    Here(Vec<String>),
    /// The given data is not on this machine; where it was looked for.
    Absent(PathBuf),
}

/// Files that were read, by where they are: many cases refer to few.
#[derive(Default)]
pub(super) struct Files(HashMap<(PathBuf, Option<PathBuf>), String>);

impl Case {
    /// Reads a case of the test in `folder`.
    pub(super) fn parse(line: &str) -> Result<Case> {
        let case: Case = serde_json::from_str(line)?;
        let written: HashMap<String, serde::de::IgnoredAny> = serde_json::from_str(line)?;
        ensure!(written.contains_key("fires"), "it does not say whether it `fires`");
        let sources = [!case.lines.is_empty(), case.file.is_some(), case.shared.is_some()];
        ensure!(sources.iter().filter(|given| **given).count() == 1, "it needs one of `lines`, `file` and `shared`");
        let picks = case.containing.is_some() || !case.numbers.is_empty() || case.member.is_some();
        ensure!(case.lines.is_empty() || !picks, "`containing`, `numbers` and `member` are of files");
        Ok(case)
    }

    /// Its records; `folder` is that of the test.
    pub(super) fn records(&self, folder: &Path, files: &mut Files) -> Result<Records> {
        let path = match (&self.file, &self.shared) {
            (Some(file), _) => folder.join(file),
            (None, Some(shared)) => {
                let path = shared_folder().join(shared);
                if !path.exists() {
                    return Ok(Records::Absent(path));
                }
                path
            }
            (None, None) => return Ok(Records::Here(self.lines.clone())),
        };
        let picked: Vec<String> = files
            .text(&path, self.member.as_deref())?
            .lines()
            .enumerate()
            .filter(|(index, _)| self.numbers.is_empty() || self.numbers.contains(&(index + 1)))
            .map(|(_, line)| line)
            .filter(|line| self.containing.as_ref().is_none_or(|text| line.contains(text)))
            .take(LINES_MAX + 1)
            .map(str::to_owned)
            .collect();
        ensure!(!picked.is_empty(), "no such line in {}", path.display());
        ensure!(picked.len() <= LINES_MAX, "more than {LINES_MAX} lines of {}", path.display());
        Ok(Records::Here(picked))
    }
}

fn shared_folder() -> PathBuf {
    env::var_os("COUNTERFLOW_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from)
}

impl Files {
    fn text(&mut self, path: &Path, member: Option<&Path>) -> Result<&str> {
        let key = (path.to_owned(), member.map(Path::to_owned));
        if !self.0.contains_key(&key) {
            let text = read(path, member).with_context(|| format!("could not read {}", path.display()))?;
            self.0.insert(key.clone(), text);
        }
        self.0.get(&key).map(String::as_str).context("it was read before")
    }
}

fn read(path: &Path, member: Option<&Path>) -> Result<String> {
    let input = BufReader::new(File::open(path)?);
    let input: Box<dyn Read> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("zst") => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        _ => Box::new(input),
    };
    let Some(member) = member else { return text_of(input) };
    for entry in tar::Archive::new(input.take(FILE_BYTES_MAX)).entries()? {
        let entry = entry?;
        let found = entry.path()?;
        if found.strip_prefix(".").unwrap_or(&found) == member {
            return text_of(entry);
        }
    }
    bail!("it has no member {}", member.display())
}

/// Bytes that are no text stay what they are to a rule: something else.
fn text_of(input: impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    input.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    ensure!(u64::try_from(bytes.len())? <= FILE_BYTES_MAX, "longer than {FILE_BYTES_MAX} bytes");
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(case: &str) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases/lab");
        let read = Case::parse(case).and_then(|case| case.records(&folder, &mut Files::default()));
        match read {
            Ok(Records::Here(lines)) => format!("{} lines", lines.len()),
            Ok(Records::Absent(_)) => "absent".to_owned(),
            Err(error) => format!("{error:#}").split(": ").next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn a_case_has_its_records_in_it_or_in_a_file() {
        for (case, expected) in [
            (r#"{"fires": true, "lines": ["a", "b"]}"#, "2 lines"),
            (r#"{"fires": true, "file": "auth.log", "numbers": [1, 3]}"#, "2 lines"),
            (r#"{"fires": true, "file": "auth.log", "containing": "COMMAND=/usr/bin/cat /etc/shadow"}"#, "1 lines"),
            (r#"{"fires": true, "file": "auth.log", "containing": "nobody wrote this"}"#, "no such line in"),
            (r#"{"fires": true, "shared": "data/no/such/file"}"#, "absent"),
            (r#"{"fires": true}"#, "it needs one of `lines`, `file` and `shared`"),
            (r#"{"fires": true, "lines": ["a"], "file": "auth.log"}"#, "it needs one of `lines`, `file` and `shared`"),
            (r#"{"fires": true, "lines": ["a"], "numbers": [1]}"#, "`containing`, `numbers` and `member` are of files"),
            (r#"{"lines": ["a"]}"#, "it does not say whether it `fires`"),
        ] {
            assert!(records(case).starts_with(expected), "{case} gave {}", records(case));
        }
    }
}
