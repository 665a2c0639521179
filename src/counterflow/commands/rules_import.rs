//! `counterflow rules import`: rules of others, brought in with where they are from.
//!
//! A source is a folder or an archive from outside: nothing in it is trusted. All of it is looked at before anything is
//! written; only rule files, licences and readmes are taken; a name that leaves the target, a link or a device is
//! refused and told; what is too much ends the import. The target gets `SOURCES.md` for people and `.source.json`, by
//! which the next import knows what changed.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use cf_types::clock;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    cli::{Cli, ImportArguments},
    output::{self, Exit, Failed, Format},
    rules::{self, RULE_FILE_BYTES_MAX, RuleOptions},
};

/// Bytes of a source, unpacked: the whole public set of Sigma has 12 MB.
const UNPACKED_BYTES_MAX: u64 = 200 << 20;
/// What an archive's own structure may add to that.
const ARCHIVE_BYTES_MAX: u64 = UNPACKED_BYTES_MAX + (64 << 20);
/// Files, folders and whatever else a source has.
const ENTRIES_MAX: usize = 100_000;
/// Folders within folders.
const DEPTH_MAX: usize = 32;
/// Bytes of one name.
const NAME_BYTES_MAX: usize = 255;

/// For the next import.
const MANIFEST: &str = ".source.json";
/// For people.
const ATTRIBUTION: &str = "SOURCES.md";

/// Runs it.
pub(crate) fn run(cli: &Cli, arguments: &ImportArguments) -> Result<Exit> {
    let source = read_source(&arguments.source)?;
    let from = arguments.from.clone().unwrap_or_else(|| arguments.source.display().to_string());
    let before = Manifest::read(&arguments.into)?;
    let plan = Plan::make(source, before.as_ref(), &arguments.into, arguments.replace)?;
    plan.carry_out(&arguments.into)?;
    let manifest = Manifest::of(&plan, from);
    let problems = check(&arguments.into)?;
    manifest.write(&arguments.into, &problems.authors)?;

    let rows = plan.told.iter().map(|(path, (what, why))| json!({ "what": what, "file": path, "why": why }));
    let format = Format::or_default(cli.output);
    output::ignore_closed_pipe(output::rows(format, &["what", "file", "why"], rows))?;
    for problem in &problems.errors {
        output::note(&format!("error: {problem}"));
    }
    let count = |what: &str| plan.told.values().filter(|(told, _)| *told == what).count();
    output::note(&format!(
        "{} new, {} changed, {} same, {} removed, {} kept, {} refused; {} rules load, {} problems",
        count("new"),
        count("changed"),
        plan.same,
        count("removed"),
        count("kept"),
        count("refused"),
        problems.rules,
        problems.errors.len(),
    ));
    let bad = count("refused") + count("kept") + problems.errors.len() > 0;
    Ok(if bad { Exit::Problems } else { Exit::Ok })
}

/// What a source has for us.
#[derive(Debug, Default)]
struct Source {
    /// By path within the source, checked: relative, without `..`.
    files: BTreeMap<String, Vec<u8>>,
    /// By path as the source names it: why it is not taken.
    refused: BTreeMap<String, String>,
    entries: usize,
    bytes: u64,
}

impl Source {
    /// Counts an entry, of whatever kind.
    fn entry(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            bail!(Failed(format!("the source has more than {ENTRIES_MAX} entries; nothing was imported")));
        }
        Ok(())
    }

    fn refuse(&mut self, name: &str, why: impl Into<String>) {
        self.refused.insert(output::printable(name).chars().take(300).collect(), why.into());
    }

    /// Takes a file in if it is of use; its bytes count in any case.
    fn file(&mut self, name: &str, content: &mut dyn Read) -> Result<()> {
        let path = match checked(name) {
            Ok(path) => Some(path),
            Err(why) => {
                self.refuse(name, why);
                None
            }
        };
        let left = UNPACKED_BYTES_MAX - self.bytes;
        let mut content = content.take(left + 1);
        let mut bytes = Vec::new();
        let wanted = path.filter(|path| is_wanted(path));
        let read = if wanted.is_some() {
            content.read_to_end(&mut bytes).map(|read| u64::try_from(read).unwrap_or(u64::MAX))
        } else {
            io::copy(&mut content, &mut io::sink())
        };
        self.bytes +=
            read.with_context(|| Failed(format!("could not read {} of the source", output::printable(name))))?;
        if self.bytes > UNPACKED_BYTES_MAX {
            let most = UNPACKED_BYTES_MAX >> 20;
            bail!(Failed(format!("the source has more than {most} MB unpacked; nothing was imported")));
        }
        let Some(path) = wanted else { return Ok(()) };
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > RULE_FILE_BYTES_MAX {
            self.refuse(name, format!("it has more than {} MB", RULE_FILE_BYTES_MAX >> 20));
            return Ok(());
        }
        match self.files.entry(path) {
            Entry::Vacant(place) => {
                place.insert(bytes);
            }
            Entry::Occupied(_) => self.refuse(name, "there are two of that name"),
        }
        Ok(())
    }
}

/// A name as a path below the target, or why it cannot be one.
fn checked(name: &str) -> Result<String, String> {
    let mut parts = Vec::new();
    if name.starts_with(['/', '\\']) {
        return Err("its path is absolute".to_owned());
    }
    if name.chars().any(|c| c.is_control() || c == '\\' || c == ':' || c == '\u{fffd}') {
        return Err("its name has characters that no rule file needs".to_owned());
    }
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("its path leaves the folder".to_owned()),
            part if part.len() > NAME_BYTES_MAX => return Err("its name is too long".to_owned()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() || parts.len() > DEPTH_MAX {
        return Err("its path is empty or too deep".to_owned());
    }
    Ok(parts.join("/"))
}

/// Rule files, and what says whose they are.
fn is_wanted(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    // Hidden files are for other programs, the editor's and version control's.
    if path.split('/').any(|part| part.starts_with('.')) || name == ATTRIBUTION {
        return false;
    }
    rules::is_rule_file(Path::new(path)) || is_licence(path)
}

fn is_licence(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default().to_lowercase();
    ["license", "licence", "copying", "notice", "readme", "authors"].iter().any(|begin| name.starts_with(begin))
}

fn read_source(path: &Path) -> Result<Source> {
    let mut source = Source::default();
    let meta = fs::metadata(path).with_context(|| format!("could not read {}", path.display()))?;
    if meta.is_dir() {
        folder(path, "", 0, &mut source)?;
        return Ok(source);
    }
    let mut file = fs::File::open(path).with_context(|| format!("could not open {}", path.display()))?;
    let mut head = Vec::new();
    Read::by_ref(&mut file)
        .take(512)
        .read_to_end(&mut head)
        .with_context(|| format!("could not read {}", path.display()))?;
    file.seek(SeekFrom::Start(0)).with_context(|| format!("could not read {}", path.display()))?;
    let file = io::BufReader::new(file);
    let read = match head.as_slice() {
        [b'P', b'K', 3 | 5, ..] => zipped(file, &mut source),
        [0x1f, 0x8b, ..] => tarred(flate2::bufread::MultiGzDecoder::new(file), &mut source),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::Decoder::with_buffer(file)
            .context("could not begin to unpack")
            .and_then(|unpacked| tarred(unpacked, &mut source)),
        head if head.get(257..262) == Some(b"ustar") => tarred(file, &mut source),
        _ => bail!("{} is neither a folder nor a .zip, .tar, .tar.gz or .tar.zst archive", path.display()),
    };
    read.with_context(|| format!("could not import {}", path.display()))?;
    Ok(source)
}

fn folder(path: &Path, name: &str, depth: usize, source: &mut Source) -> Result<()> {
    let told = || format!("could not list {}", path.display());
    let mut entries = fs::read_dir(path).with_context(told)?.collect::<Result<Vec<_>, _>>().with_context(told)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        source.entry()?;
        let kind = entry.file_type().with_context(told)?;
        let part = entry.file_name();
        let part = part.to_string_lossy();
        let name = if name.is_empty() { part.into_owned() } else { format!("{name}/{part}") };
        if kind.is_dir() {
            if depth >= DEPTH_MAX {
                source.refuse(&name, "folders are nested too deep");
            } else if !name.rsplit('/').next().is_some_and(|part| part.starts_with('.')) {
                folder(&entry.path(), &name, depth + 1, source)?;
            }
        } else if kind.is_file() {
            let mut file = fs::File::open(entry.path()).with_context(|| Failed(format!("could not open {name}")))?;
            source.file(&name, &mut file)?;
        } else {
            source.refuse(&name, "it is a link or a device");
        }
    }
    Ok(())
}

fn zipped(file: impl Read + Seek, source: &mut Source) -> Result<()> {
    let mut archive = zip::ZipArchive::new(file).context("it is no zip archive that can be read")?;
    for index in 0..archive.len() {
        source.entry()?;
        let name = archive.name_for_index(index).and_then(Result::ok);
        let name = name.map_or_else(|| "?".to_owned(), std::borrow::Cow::into_owned);
        let mut entry = match archive.by_index(index) {
            Ok(entry) => entry,
            Err(error) => {
                // Encrypted, or packed in a way that is not supported.
                source.refuse(&name, error.to_string());
                continue;
            }
        };
        // Unix keeps the kind of a file in the upper bits of its mode; regular files and folders are wanted.
        let kind = entry.unix_mode().map_or(0, |mode| mode & 0o170_000);
        if entry.is_dir() {
            continue;
        }
        if entry.is_symlink() || !matches!(kind, 0 | 0o100_000) {
            source.refuse(&name, "it is a link or a device");
            continue;
        }
        source.file(&name, &mut entry)?;
    }
    Ok(())
}

fn tarred(unpacked: impl Read, source: &mut Source) -> Result<()> {
    let mut archive = tar::Archive::new(Capped { inner: unpacked, left: ARCHIVE_BYTES_MAX });
    for entry in archive.entries().context("it is no tar archive that can be read")? {
        source.entry()?;
        let mut entry = entry.context("the archive is damaged, or more than is allowed")?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => source.file(&name, &mut entry)?,
            tar::EntryType::Directory | tar::EntryType::XGlobalHeader => {}
            _ => source.refuse(&name, "it is a link or a device"),
        }
    }
    Ok(())
}

/// Ends with an error where an archive unpacks to more than it may: the tar reader keeps long names in memory.
struct Capped<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let count = u64::try_from(read).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(count).ok_or_else(|| {
            let most = ARCHIVE_BYTES_MAX >> 20;
            io::Error::other(format!("the archive unpacks to more than {most} MB; nothing was imported"))
        })?;
        Ok(read)
    }
}

/// What an import will do.
struct Plan {
    files: BTreeMap<String, Vec<u8>>,
    /// Paths to write.
    write: BTreeSet<String>,
    /// Paths to remove.
    remove: BTreeSet<String>,
    /// By path: what happens, and why.
    told: BTreeMap<String, (&'static str, String)>,
    same: usize,
}

impl Plan {
    fn make(source: Source, before: Option<&Manifest>, into: &Path, replace: bool) -> Result<Plan> {
        let Source { files, refused, .. } = source;
        if !files.keys().any(|path| rules::is_rule_file(Path::new(path))) {
            bail!("the source has no rule files (*.yml, *.yaml, *.yar, *.yara)");
        }
        let mut plan = Plan { files, write: BTreeSet::new(), remove: BTreeSet::new(), told: BTreeMap::new(), same: 0 };
        plan.told.extend(refused.into_iter().map(|(path, why)| (path, ("refused", why))));
        for (path, bytes) in &plan.files {
            let told = match existing(into, path)? {
                Existing::None => Some(("new", String::new())),
                Existing::File(there) if there == *bytes => None,
                Existing::File(_) if replace => Some(("changed", String::new())),
                Existing::File(_) => Some(("kept", "it is there and differs; --replace overwrites it".to_owned())),
                Existing::Other(why) => Some(("refused", why)),
            };
            match told {
                None => plan.same += 1,
                Some((what, why)) => {
                    if matches!(what, "new" | "changed") {
                        plan.write.insert(path.clone());
                    }
                    plan.told.insert(path.clone(), (what, why));
                }
            }
        }
        // Only what an import brought is removed by one.
        for path in before.iter().flat_map(|manifest| manifest.files.keys()) {
            let gone = !plan.files.contains_key(path) && checked(path).as_ref() == Ok(path);
            if gone && matches!(existing(into, path)?, Existing::File(_)) {
                if replace {
                    plan.remove.insert(path.clone());
                    plan.told.insert(path.clone(), ("removed", "the source no longer has it".to_owned()));
                } else {
                    let why = "the source no longer has it; --replace removes it".to_owned();
                    plan.told.insert(path.clone(), ("kept", why));
                }
            }
        }
        Ok(plan)
    }

    fn carry_out(&self, into: &Path) -> Result<()> {
        for path in &self.write {
            let Some(bytes) = self.files.get(path) else { continue };
            write_whole(&into.join(path), bytes)?;
        }
        for path in &self.remove {
            let full = into.join(path);
            fs::remove_file(&full).with_context(|| Failed(format!("could not remove {}", full.display())))?;
        }
        Ok(())
    }
}

/// What is at a path of the target.
enum Existing {
    None,
    File(Vec<u8>),
    /// Something that must not be written to or through.
    Other(String),
}

/// No folder on the way may be a link: what is below it would lie outside.
fn existing(into: &Path, path: &str) -> Result<Existing> {
    let mut full = into.to_path_buf();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        full.push(part);
        let meta = match fs::symlink_metadata(&full) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Existing::None),
            Err(error) => return Ok(Existing::Other(error.to_string())),
        };
        let last = parts.peek().is_none();
        if meta.is_symlink() {
            return Ok(Existing::Other("there is a link in its place or on its way".to_owned()));
        }
        if last && meta.is_file() && meta.len() <= RULE_FILE_BYTES_MAX {
            let bytes = fs::read(&full).with_context(|| format!("could not read {}", full.display()))?;
            return Ok(Existing::File(bytes));
        }
        if last || !meta.is_dir() {
            return Ok(Existing::Other("something that is no rule file is in its place".to_owned()));
        }
    }
    Ok(Existing::None)
}

/// Whole or not at all: under another name first.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let told = || Failed(format!("could not write {}", path.display()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(told)?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A name that is too long with the rest is cut: it is there for a moment only.
    let short: String = name.chars().take(40).collect();
    let draft: PathBuf = path.with_file_name(format!(".{short}.{}.draft", std::process::id()));
    let mut file = fs::File::options().write(true).create_new(true).open(&draft).with_context(told)?;
    let written = file.write_all(bytes).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        drop(fs::remove_file(&draft));
    }
    written.with_context(told)
}

/// What the next import needs to know of this one.
#[derive(Debug, Deserialize, Serialize)]
struct Manifest {
    /// Where the rules are from, as the person said.
    from: String,
    imported_at: String,
    /// BLAKE3 over paths and contents.
    digest: String,
    rule_files: usize,
    licence_files: Vec<String>,
    /// BLAKE3 of each file.
    files: BTreeMap<String, String>,
}

impl Manifest {
    fn read(into: &Path) -> Result<Option<Manifest>> {
        let path = into.join(MANIFEST);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("could not read {}", path.display())),
        };
        let manifest = serde_json::from_slice(&text);
        manifest.map(Some).with_context(|| format!("{} is damaged; import into another folder", path.display()))
    }

    fn of(plan: &Plan, from: String) -> Manifest {
        let mut whole = blake3::Hasher::new();
        let mut files = BTreeMap::new();
        for (path, bytes) in &plan.files {
            let digest = blake3::hash(bytes);
            whole.update(&u64::try_from(path.len()).unwrap_or(0).to_le_bytes());
            whole.update(path.as_bytes());
            whole.update(digest.as_bytes());
            files.insert(path.clone(), digest.to_hex().to_string());
        }
        let licences = files.keys().filter(|path| is_licence(path) && !rules::is_rule_file(Path::new(path)));
        Manifest {
            from,
            imported_at: clock::now().to_string(),
            digest: whole.finalize().to_hex().to_string(),
            rule_files: files.keys().filter(|path| rules::is_rule_file(Path::new(path))).count(),
            licence_files: licences.cloned().collect(),
            files,
        }
    }

    fn write(&self, into: &Path, authors: &BTreeSet<String>) -> Result<()> {
        let Manifest { from, imported_at, digest, rule_files, licence_files, .. } = self;
        let licences = if licence_files.is_empty() {
            "The source has no licence file: ask its authors before you pass the rules on.".to_owned()
        } else {
            format!("Licence and readme files: {}.", licence_files.join(", "))
        };
        let authors = match authors.len() {
            0 => "The rules name no authors.".to_owned(),
            count => format!(
                "{count} authors, as each rule names them:\n\n- {}",
                authors.iter().cloned().collect::<Vec<_>>().join("\n- ")
            ),
        };
        let text = format!(
            "# Where these rules are from\n\nFrom: {}\nImported: {imported_at}\nRule files: {rule_files}\n\
             Content (BLAKE3): {digest}\n\n{licences}\n\n{authors}\n",
            output::printable(from)
        );
        write_whole(&into.join(ATTRIBUTION), text.as_bytes())?;
        let manifest = serde_json::to_vec_pretty(self)?;
        write_whole(&into.join(MANIFEST), &manifest)
    }
}

/// Authors told in the attribution.
const AUTHORS_MAX: usize = 2_000;

struct Checked {
    rules: usize,
    errors: Vec<String>,
    authors: BTreeSet<String>,
}

/// Loads what is in the target now.
fn check(into: &Path) -> Result<Checked> {
    let loaded = rules::load(&[into.to_path_buf()], &RuleOptions::default())?;
    let errors = loaded.problems.iter().filter(|problem| problem.severity == cf_sigma::Severity::Error);
    let authors = loaded.rules.rules().iter().filter_map(|rule| rule.meta.author.as_deref());
    Ok(Checked {
        rules: loaded.rules.rules().len(),
        errors: errors.map(ToString::to_string).collect(),
        authors: authors.map(|author| output::printable(author.trim())).take(AUTHORS_MAX).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_target() {
        for (name, path) in [
            ("rules/a.yml", Some("rules/a.yml")),
            ("./rules//a.yml", Some("rules/a.yml")),
            ("ä ö/a.yml", Some("ä ö/a.yml")),
            ("../a.yml", None),
            ("rules/../../a.yml", None),
            ("/etc/a.yml", None),
            ("C:\\a.yml", None),
            ("..\\a.yml", None),
            ("a\0.yml", None),
            ("a\n.yml", None),
            ("", None),
            ("./", None),
        ] {
            assert_eq!(checked(name).ok().as_deref(), path, "{name}");
        }
        assert!(checked(&"a/".repeat(40)).is_err() && checked(&"a".repeat(300)).is_err());
    }

    #[test]
    fn rules_licences_and_readmes_are_wanted() {
        for (path, wanted) in [
            ("a/b.yml", true),
            ("b.yaml", true),
            ("c.YAR", true),
            ("LICENSE", true),
            ("docs/README.md", true),
            ("rules/x.py", false),
            (".git/config.yml", false),
            ("rules/.hidden.yml", false),
            ("SOURCES.md", false),
        ] {
            assert_eq!(is_wanted(path), wanted, "{path}");
        }
    }
}
