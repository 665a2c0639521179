//! A file of JSON lines: each message once, durable before it counts as delivered.
//!
//! The file has one writer, and messages go one after the other, so the line of an interrupted try can only be the last
//! of ours: its tail is searched for the key. A torn last line of ours is cut off, one of others is ended.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use cf_fail as fail;
use cf_ledger::Intent;
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use super::{End, Sent, message};

/// How much of the file's end is read to find the last line; a message is some ten kilobytes at most.
const LINE_BYTES: u64 = 1 << 20;
/// How much of it is searched for a key: after a restore from a backup, what the engine before it told since.
const SEARCHED_BYTES: u64 = 16 << 20;

pub(crate) struct FileChannel {
    path: PathBuf,
}

impl FileChannel {
    pub(crate) fn new(path: PathBuf) -> FileChannel {
        FileChannel { path }
    }

    pub(crate) async fn send(&self, intent: &Intent) -> Sent {
        let (path, key, verify) = (self.path.clone(), intent.key.clone(), intent.verify_first);
        let mut line = message(intent).to_string();
        line.push('\n');
        // fsync may take long: not on the runtime's threads.
        let appended = tokio::task::spawn_blocking(move || append(&path, &key, &line, verify)).await;
        let file = self.path.display().to_string();
        match appended {
            Ok(Ok(there)) => Sent { end: End::Delivered, receipt: json!({"file": file, "was_there": there}) },
            Ok(Err(error)) => {
                Sent { end: End::Missed { after: None }, receipt: json!({"file": file, "error": error.to_string()}) }
            }
            Err(error) => Sent { end: End::Unknown, receipt: json!({"file": file, "error": error.to_string()}) },
        }
    }
}

/// Appends the line unless it is there; gives whether it was.
fn append(path: &Path, key: &str, line: &str, verify: bool) -> io::Result<bool> {
    let made = !path.exists();
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    let begin = mend(&mut file)?;
    if verify && has_key(&mut file, key)? {
        file.sync_all()?;
        return Ok(true);
    }
    let written = file.write_all(line.as_bytes());
    fail::point("channel.written");
    if let Err(error) = written.and_then(|()| file.sync_all()) {
        // A line half written (disk full) must not stand before the next one. If this fails too, `mend` does it later.
        file.set_len(begin).ok();
        return Err(error);
    }
    if made && let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(false)
}

/// Makes the file end with a whole line; gives its length.
fn mend(file: &mut File) -> io::Result<u64> {
    let (end, tail) = tail(file, LINE_BYTES)?;
    let kept = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let torn = tail.get(kept..).unwrap_or_default();
    if torn.is_empty() {
        return Ok(end);
    }
    let ours = b"{\"key\":\"";
    if torn.starts_with(ours) || ours.starts_with(torn) {
        let length = end.saturating_sub(u64::try_from(torn.len()).unwrap_or(0));
        file.set_len(length)?;
        return Ok(length);
    }
    file.write_all(b"\n")?;
    Ok(end.saturating_add(1))
}

fn has_key(file: &mut File, key: &str) -> io::Result<bool> {
    let (_, tail) = tail(file, SEARCHED_BYTES)?;
    let wanted = format!("{{\"key\":\"{key}\"");
    Ok(tail.split(|byte| *byte == b'\n').any(|line| line.starts_with(wanted.as_bytes())))
}

/// Length of the file, and so many of its last bytes.
fn tail(file: &mut File, bytes: u64) -> io::Result<(u64, Vec<u8>)> {
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(bytes)))?;
    let mut tail = Vec::new();
    file.take(bytes).read_to_end(&mut tail)?;
    Ok((end, tail))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What is in the file before, and after the line `k1` was sent with `verify first`.
    #[track_caller]
    fn check(before: &str, after: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        fs::write(&path, before).unwrap();
        append(&path, "k1", "{\"key\":\"k1\",\"n\":1}\n", true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), after);
    }

    #[test]
    fn a_line_is_appended_once_and_torn_ones_are_mended() {
        let line = "{\"key\":\"k1\",\"n\":1}\n";
        check("", line);
        check(line, line);
        check("{\"key\":\"k0\"}\n{\"ke", &format!("{{\"key\":\"k0\"}}\n{line}"));
        check("{\"key\":\"k1\",\"n", line);
        check(&format!("{line}{{\"key\":\"k2\"}}\n"), &format!("{line}{{\"key\":\"k2\"}}\n"));
        check("not ours", &format!("not ours\n{line}"));
    }
}
