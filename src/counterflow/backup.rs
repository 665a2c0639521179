//! A backup of a data folder, made beside a running or a stopped engine, and a data folder made of it again (OPS-08).
//!
//! The order of copying is that of what rests on what, oldest first, so that the copy is a state in which the engine could
//! have been killed: the facts log; then history, which holds at least the epochs that the facts log has; then the ledger,
//! whose upper lies above history's; then the spool, which holds at least what the ledger's epochs read. Meanwhile the
//! engine takes nothing away ([`Keep`]): what the facts log's frontier needs stays in ledger and spool. Each file is
//! copied as far as it goes at that moment; what is torn at its end was not promised to anybody when the backup began.
//!
//! `MANIFEST.json` is written last, with every file, its length and its BLAKE3 hash: a folder without it is no backup, and
//! what does not agree with it is not restored.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write as _},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use cf_fail as fail;
use cf_ledger::{
    DirLock, LedgerError,
    format::{self, Stated},
    restored,
};
use cf_types::{Time, clock};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::{keep::Keep, output::Failed};

/// What is written last.
const MANIFEST: &str = "MANIFEST.json";
/// The form of the manifest.
const FORM: u32 = 1;
const LEDGER: &str = "ledger.db";
/// Parts of a data folder that are copied in this order.
const FACTS: &str = "facts";
const HISTORY: &str = "history";
const SPOOL: &str = "spool";
/// What belongs to a running process, or can be made again.
const LEFT_OUT: &[&str] = &["lock", "keep", "reserve", "format.new"];
/// Log entries that vanish while they are copied (the engine cleans up behind a checkpoint): so often a table is begun anew.
const TRIES: usize = 5;

/// What a backup is made of.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The form of this file.
    form: u32,
    /// The data folder's format, and which engine made the backup.
    data: Stated,
    /// When it was begun.
    pub(crate) made_at: Time,
    /// The ledger's next epoch.
    pub(crate) upper: u64,
    /// Its generation.
    generation: u64,
    /// Every file, by path.
    pub(crate) files: Vec<Entry>,
}

/// One file of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    path: PathBuf,
    bytes: u64,
    blake3: String,
}

impl Manifest {
    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Makes a backup of `data` in the new folder `to`.
pub(crate) fn make(runtime: &Runtime, data: &Path, to: &Path) -> Result<Manifest> {
    format::check(data)?;
    restored::in_folder(data)?;
    if !data.join(LEDGER).is_file() {
        return Err(LedgerError::Missing { dir: data.to_path_buf() }.into());
    }
    let made = vacant(to)?;
    if made.canonicalize()?.starts_with(data.canonicalize()?) {
        bail!("the backup {} would lie inside the data folder itself; give another folder", to.display());
    }
    copy_all(runtime, data, to).map_err(|error| {
        // What is half must not be taken for whole, nor keep the disk full.
        let rest = match clear(to) {
            Ok(()) => "nothing of it is left".to_owned(),
            Err(left) => {
                format!("and what was written could not be removed ({left}); it has no manifest, so it is no backup")
            }
        };
        Failed(format!("could not make the backup {}; {rest}: {error:#}", to.display())).into()
    })
}

/// Makes sure that a folder is there and empty.
fn vacant(folder: &Path) -> Result<&Path> {
    let context = || format!("could not use {} as a new folder", folder.display());
    fs::create_dir_all(folder).with_context(context)?;
    if fs::read_dir(folder).with_context(context)?.next().is_some() {
        bail!("{} is not empty; give a folder that is not there yet", folder.display());
    }
    Ok(folder)
}

fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    Ok(())
}

fn copy_all(runtime: &Runtime, data: &Path, to: &Path) -> Result<Manifest> {
    let made_at = clock::now();
    // No engine may start in the middle of it; one that runs already is asked to keep everything.
    let _offline = match DirLock::take(data) {
        Ok(lock) => Some(lock),
        Err(LedgerError::Held { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let keep = Keep::open(data)?;
    let _kept = keep.shared()?;
    let mut copier = Copier { from: data, to, files: Vec::new() };
    copier.others()?;
    copier.facts()?;
    copier.history()?;
    let engine = runtime.block_on(restored::copy(data, &to.join(LEDGER)))?;
    copier.taken(Path::new(LEDGER))?;
    copier.folder(Path::new(SPOOL), &|name| name.ends_with(".log"))?;
    let mut files = copier.files;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let data = Stated { format: format::stated(data)?.map_or(1, |stated| stated.format), ..Stated::ours() };
    let manifest = Manifest { form: FORM, data, made_at, upper: engine.upper, generation: engine.generation, files };
    fail::point("backup.copied");
    finish(to, &manifest)?;
    Ok(manifest)
}

/// Makes all names durable, then writes the manifest, whole or not at all.
fn finish(to: &Path, manifest: &Manifest) -> Result<()> {
    let folders: BTreeSet<PathBuf> =
        manifest.files.iter().flat_map(|file| file.path.ancestors().skip(1).map(|folder| to.join(folder))).collect();
    for folder in folders {
        sync_folder(&folder)?;
    }
    let (path, new) = (to.join(MANIFEST), to.join("MANIFEST.new"));
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)
    });
    written.with_context(|| format!("could not write {}", path.display()))?;
    sync_folder(to)
}

fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("could not sync {}", folder.display()))
}

/// Copies files and notes what it copied.
struct Copier<'a> {
    from: &'a Path,
    to: &'a Path,
    files: Vec<Entry>,
}

impl Copier<'_> {
    /// What lies in the data folder and is none of the parts that change together.
    fn others(&mut self) -> Result<()> {
        for name in names(self.from)? {
            let path = Path::new(&name);
            let part = [FACTS, HISTORY, SPOOL].contains(&&*name);
            if part || LEFT_OUT.contains(&&*name) || name.starts_with("ledger.") {
                continue;
            }
            if self.from.join(path).is_dir() { self.folder(path, &|_| true)? } else { self.file(path)? }
        }
        Ok(())
    }

    /// Heads before hours: an hour holds at least what a head of before promises.
    fn facts(&mut self) -> Result<()> {
        let folder = Path::new(FACTS);
        self.folder(folder, &|name| name.starts_with("head."))?;
        self.folder(folder, &|name| name.ends_with(".facts"))
    }

    fn history(&mut self) -> Result<()> {
        let history = Path::new(HISTORY);
        if !self.from.join(history).is_dir() {
            return Ok(());
        }
        for name in names(&self.from.join(history))? {
            self.table(&history.join(name))?;
        }
        Ok(())
    }

    /// A Delta table as its log stands now. The pointer to the last checkpoint first, then the log, then the data: what a
    /// log names is there before it. Files of a commit that is not in the log are known by their names when it is opened.
    fn table(&mut self, table: &Path) -> Result<()> {
        let log = table.join("_delta_log");
        for attempt in 1..=TRIES {
            let before = self.files.len();
            let copied = self.folder(&log, &|name| name == "_last_checkpoint").and_then(|()| {
                self.folder(&log, &|name| name != "_last_checkpoint" && !name.starts_with(['.', '_']))?;
                self.folder(table, &|name| name.ends_with(".parquet"))
            });
            match copied {
                Err(error) if is_missing(&error) && attempt < TRIES => {
                    self.files.truncate(before);
                    fs::remove_dir_all(self.to.join(table)).context("could not begin a table anew")?;
                }
                other => return other,
            }
        }
        Ok(())
    }

    /// Copies the files of these names that are in a folder now, and in those below it that hold no log of Delta.
    fn folder(&mut self, folder: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<()> {
        if !self.from.join(folder).is_dir() {
            return Ok(());
        }
        for name in names(&self.from.join(folder))? {
            let path = folder.join(&name);
            if self.from.join(&path).is_dir() {
                if name != "_delta_log" {
                    self.folder(&path, wanted)?;
                }
            } else if wanted(&name) {
                self.file(&path)?;
            }
        }
        Ok(())
    }

    /// Copies one file as far as it goes now.
    fn file(&mut self, path: &Path) -> Result<()> {
        let from = self.from.join(path);
        let source = File::open(&from).with_context(|| format!("could not read {}", from.display()))?;
        let length = source.metadata().with_context(|| format!("could not look at {}", from.display()))?.len();
        let (bytes, blake3) = copy(source.take(length), &from, &self.to.join(path))?;
        self.files.push(Entry { path: path.to_path_buf(), bytes, blake3 });
        Ok(())
    }

    /// Notes a file that is in the backup already.
    fn taken(&mut self, path: &Path) -> Result<()> {
        let full = self.to.join(path);
        let read = || -> io::Result<(u64, String)> {
            let mut hasher = blake3::Hasher::new();
            let mut file = File::open(&full)?;
            let bytes = io::copy(&mut file, &mut hasher)?;
            Ok((bytes, hasher.finalize().to_hex().to_string()))
        };
        let (bytes, blake3) = read().with_context(|| format!("could not read {}", full.display()))?;
        self.files.push(Entry { path: path.to_path_buf(), bytes, blake3 });
        Ok(())
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::NotFound))
}

/// Names in a folder, sorted. What is not UTF-8 is nothing of ours.
fn names(folder: &Path) -> Result<Vec<String>> {
    let list = || -> io::Result<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // Links lead out of the folder, sockets hold nothing.
            if entry.file_type()?.is_file() || entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    };
    list().with_context(|| format!("could not list {}", folder.display()))
}

/// Copies, durably; gives length and hash of what was copied.
fn copy(mut source: impl Read, from: &Path, to: &Path) -> Result<(u64, String)> {
    let writing = || format!("could not write {}", to.display());
    fs::create_dir_all(to.parent().unwrap_or(Path::new("."))).with_context(writing)?;
    let mut target = File::create_new(to).with_context(writing)?;
    let mut hasher = blake3::Hasher::new();
    let (mut bytes, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        let read = source.read(&mut buffer).with_context(|| format!("could not read {}", from.display()))?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
        target.write_all(part).with_context(writing)?;
        bytes += u64::try_from(read)?;
    }
    target.sync_all().with_context(writing)?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

/// Makes the new data folder `data` of a backup.
pub(crate) fn restore(runtime: &Runtime, backup: &Path, data: &Path) -> Result<Manifest> {
    let manifest = read(backup)?;
    vacant(data)?;
    let (parent, name) = (data.parent().filter(|parent| !parent.as_os_str().is_empty()), data.file_name());
    let name = name.with_context(|| format!("{} is no name for a data folder", data.display()))?;
    let half = parent.unwrap_or(Path::new(".")).join(format!(".{}.restoring", name.to_string_lossy()));
    if half.exists() {
        // Of a restore that was interrupted.
        fs::remove_dir_all(&half).with_context(|| format!("could not remove {}", half.display()))?;
    }
    let filled = fill(runtime, backup, &half, &manifest).and_then(|()| {
        fail::point("restore.filled");
        fs::rename(&half, data)
            .with_context(|| format!("could not rename {} to {}", half.display(), data.display()))?;
        sync_folder(parent.unwrap_or(Path::new(".")))
    });
    filled.map_err(|error| {
        let _left = fs::remove_dir_all(&half);
        Failed(format!("could not restore {}; {} is as it was: {error:#}", backup.display(), data.display()))
    })?;
    Ok(manifest)
}

fn read(backup: &Path) -> Result<Manifest> {
    let path = backup.join(MANIFEST);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "{} is no whole backup: {MANIFEST} is not there, which is written last; was the backup interrupted?",
            backup.display()
        ),
        other => other.with_context(|| format!("could not read {}", path.display()))?,
    };
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("{} does not read", path.display()))?;
    if manifest.form > FORM || manifest.data.format > format::FORMAT {
        return Err(format::newer(backup, manifest.data.format, Some(manifest.data.written_by)).into());
    }
    let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    match manifest.files.iter().find(|file| !plain(&file.path)) {
        Some(file) => Err(anyhow!("{} names {}, which leads out of the folder", path.display(), file.path.display())),
        None => Ok(manifest),
    }
}

fn fill(runtime: &Runtime, backup: &Path, half: &Path, manifest: &Manifest) -> Result<()> {
    for Entry { path, bytes, blake3 } in &manifest.files {
        let from = backup.join(path);
        let source = File::open(&from).with_context(|| format!("could not read {}", from.display()))?;
        let found = copy(source, &from, &half.join(path))?;
        if (found.0, &found.1) != (*bytes, blake3) {
            bail!("{} is damaged: it is not what {MANIFEST} says of it; take another backup", from.display());
        }
    }
    let said = json!({
        "made_at": manifest.made_at, "upper": manifest.upper, "generation": manifest.generation,
        "engine": manifest.data.written_by,
    });
    runtime.block_on(restored::mark(half, said, clock::now()))?;
    let mut folders: BTreeSet<&Path> = manifest.files.iter().flat_map(|file| file.path.ancestors().skip(1)).collect();
    folders.insert(Path::new(""));
    folders.into_iter().try_for_each(|folder| sync_folder(&half.join(folder)))
}
