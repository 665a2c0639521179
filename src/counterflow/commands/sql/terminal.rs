//! Reads lines from a terminal, with history and completion.
//!
//! The terminal's mode is changed by `stty`, line by line: a library for it would turn on features that DataFusion's crates share.

use std::{
    io::{self, Read as _, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use super::line::{Key, Line, key};

/// Lines that are kept, in memory and in the file.
const KEPT_MAX: usize = 10_000;

/// Columns where the terminal does not say.
const COLUMNS: usize = 80;

/// Candidates that are shown.
const SHOWN_MAX: usize = 60;

/// What a person said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Line(String),
    /// Ctrl-C: the line is thrown away.
    Interrupted,
    /// Ctrl-D on an empty line, or the terminal is gone.
    Closed,
}

/// A terminal with what was typed before.
pub(super) struct Terminal {
    kept: Vec<String>,
    file: Option<PathBuf>,
    words: Vec<String>,
    /// Bytes that came and are no line yet.
    pending: Vec<u8>,
}

impl Terminal {
    /// With words to complete, sorted.
    pub(super) fn new(words: Vec<String>) -> Terminal {
        let file = history_file();
        let text = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let kept = lines.iter().skip(lines.len().saturating_sub(KEPT_MAX)).map(ToString::to_string).collect();
        Terminal { kept, file, words, pending: Vec::new() }
    }

    /// Reads one line.
    pub(super) fn read(&mut self, prompt: &str) -> io::Result<Said> {
        let Some(raw) = Raw::enter() else { return plain(prompt) };
        let said = self.edit(prompt);
        drop(raw);
        println_end();
        if let Ok(Said::Line(line)) = &said
            && !line.trim().is_empty()
            && self.kept.last() != Some(line)
        {
            self.keep(line.clone());
        }
        said
    }

    fn keep(&mut self, line: String) {
        if let Some(file) = &self.file {
            let append = std::fs::File::options().create(true).append(true).open(file);
            // Without the file the lines are known as long as the shell runs.
            drop(append.and_then(|mut file| writeln!(file, "{line}")));
        }
        self.kept.push(line);
    }

    fn edit(&mut self, prompt: &str) -> io::Result<Said> {
        let columns = columns();
        let (mut line, mut typed) = (Line::default(), Line::default());
        let mut place = self.kept.len();
        loop {
            show(prompt, &line, columns)?;
            let Some(key) = self.next_key()? else { return Ok(Said::Closed) };
            match key {
                Key::Enter => return Ok(Said::Line(line.text())),
                Key::Interrupt => return Ok(Said::Interrupted),
                Key::Close if line.is_empty() => return Ok(Said::Closed),
                Key::Close => line.edit(Key::Delete),
                Key::Tab => self.complete(&mut line)?,
                Key::Up | Key::Down => {
                    let to = if key == Key::Up { place.saturating_sub(1) } else { (place + 1).min(self.kept.len()) };
                    if place == self.kept.len() && to < place {
                        typed = line.clone();
                    }
                    if to != place {
                        place = to;
                        line = self.kept.get(place).map_or_else(|| typed.clone(), |kept| Line::of(kept));
                    }
                }
                other => line.edit(other),
            }
        }
    }

    fn next_key(&mut self) -> io::Result<Option<Key>> {
        loop {
            if let Some((key, taken)) = key(&self.pending) {
                self.pending.drain(..taken.min(self.pending.len()));
                return Ok(Some(key));
            }
            let mut bytes = [0; 1024];
            let read = io::stdin().lock().read(&mut bytes)?;
            if read == 0 {
                return Ok(None);
            }
            self.pending.extend(bytes.iter().take(read));
        }
    }

    fn complete(&self, line: &mut Line) -> io::Result<()> {
        let before = line.before();
        let (word, fitting) = candidates(&self.words, &before);
        let Some(common) = common_prefix(&fitting) else { return Ok(()) };
        if common.chars().count() > word.chars().count() || fitting.len() == 1 {
            // The word as it is known, also in case.
            word.chars().for_each(|_| line.edit(Key::Backspace));
            line.insert(&common);
        } else {
            let shown: Vec<&str> = fitting.iter().take(SHOWN_MAX).copied().collect();
            write!(io::stdout(), "\r\n{}\r\n", shown.join("  "))?;
        }
        Ok(())
    }
}

/// The word before the cursor, and what it may become.
pub(super) fn candidates<'a>(words: &'a [String], before: &str) -> (String, Vec<&'a str>) {
    let reversed: String = before.chars().rev().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
    let word: String = reversed.chars().rev().collect();
    if word.is_empty() {
        return (word, Vec::new());
    }
    let begin = word.to_lowercase();
    let fitting = words.iter().filter(|known| known.to_lowercase().starts_with(&begin)).map(String::as_str).collect();
    (word, fitting)
}

fn common_prefix(words: &[&str]) -> Option<String> {
    let (first, rest) = words.split_first()?;
    let mut common: Vec<char> = first.chars().collect();
    for word in rest {
        let same = common.iter().zip(word.chars()).take_while(|(a, b)| a.eq_ignore_ascii_case(b)).count();
        common.truncate(same);
    }
    Some(common.into_iter().collect())
}

fn show(prompt: &str, line: &Line, columns: usize) -> io::Result<()> {
    let (text, at) = line.window(columns.saturating_sub(prompt.chars().count() + 1));
    let mut out = io::stdout().lock();
    // Control characters that were pasted are not sent back.
    let text: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    write!(out, "\r{prompt}{text}\x1b[K\r\x1b[{}C", prompt.chars().count() + at)?;
    out.flush()
}

fn println_end() {
    drop(writeln!(io::stdout()));
}

/// Without editing: the terminal does what it can.
fn plain(prompt: &str) -> io::Result<Said> {
    write!(io::stdout(), "{prompt}")?;
    io::stdout().flush()?;
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line)?;
    Ok(if read == 0 { Said::Closed } else { Said::Line(line.trim_end_matches(['\n', '\r']).to_owned()) })
}

/// The terminal gives keys as they come, as long as this lives.
struct Raw {
    before: String,
}

impl Raw {
    fn enter() -> Option<Raw> {
        let before = stty(&["-g"])?.trim().to_owned();
        stty(&["-icanon", "-echo", "-isig", "-ixon", "min", "1", "time", "0"])?;
        Some(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _restored = stty(&[&self.before]);
    }
}

fn stty(arguments: &[&str]) -> Option<String> {
    let output = Command::new("stty").args(arguments).stdin(Stdio::inherit()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn columns() -> usize {
    let size = stty(&["size"]).unwrap_or_default();
    let columns = size.split_whitespace().nth(1).and_then(|columns| columns.parse().ok());
    columns.filter(|columns| *columns > 0).unwrap_or(COLUMNS)
}

/// Where the lines are kept, by the conventions of the system.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    let folder = state.join("counterflow");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("sql_history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_completed() {
        let words = ["SELECT", "address", "alerts", "alerts_now", "cidr_match("].map(str::to_owned);
        for (before, common, fitting) in [
            ("sel", Some("SELECT"), vec!["SELECT"]),
            ("select * from al", Some("alerts"), vec!["alerts", "alerts_now"]),
            ("select ci", Some("cidr_match("), vec!["cidr_match("]),
            ("select count(ad", Some("address"), vec!["address"]),
            ("select ", None, vec![]),
            ("zz", None, vec![]),
        ] {
            let (_, found) = candidates(&words, before);
            assert_eq!((common_prefix(&found).as_deref(), found), (common, fitting), "{before}");
        }
    }
}
