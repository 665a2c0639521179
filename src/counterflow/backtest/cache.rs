//! Detections that are kept from backtest to backtest, in `DIR/backtest`: by the file of history and the meaning of the rule.
//!
//! A file of history never changes, and the meaning names all of a rule that decides on what it finds; the program and the
//! way that sources decode are part of each pack's salt. So what is kept is never wrong, only needless. Packs are removed
//! the oldest first when all of them are more than the bound; the folder may be removed at any time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use cf_history::DataFile;
use cf_ingest::SourceOptions;
use cf_types::Detection;
use serde::{Deserialize, Serialize};

use super::{matching::Pool, rule_sets::Meaning};

/// Of the bytes of a pack, behind all others.
const CHECKSUM_BYTES: usize = 32;

/// Packs of a data folder.
pub(super) struct Cache {
    folder: PathBuf,
    salt: [u8; 32],
    bytes_max: u64,
}

/// What stands first in a pack.
#[derive(Serialize, Deserialize)]
struct Head {
    salt: [u8; 32],
    /// Each rule with the length of its part; nothing found is no part.
    parts: Vec<(Meaning, u64)>,
}

impl Cache {
    /// Opens it, makes the folder if need be.
    pub(super) fn open(folder: &Path, sources: &BTreeMap<String, SourceOptions>, bytes_max: u64) -> Result<Cache> {
        fs::create_dir_all(folder)
            .with_context(|| format!("could not make {}; --cache-bytes 0 keeps nothing", folder.display()))?;
        let mut hasher = blake3::Hasher::new_derive_key("counterflow 2026 kept detections 1");
        hasher.update(&serde_json::to_vec(sources)?);
        // Another build may decode or match otherwise.
        let program = std::env::current_exe().and_then(fs::metadata).context("this program cannot be found")?;
        let changed = program.modified().unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH).unwrap_or_default();
        hasher.update(&program.len().to_le_bytes());
        hasher.update(&changed.as_nanos().to_le_bytes());
        Ok(Cache { folder: folder.to_path_buf(), salt: *hasher.finalize().as_bytes(), bytes_max })
    }

    /// The rules whose detections in a file are kept.
    pub(super) fn kept(&self, file: &DataFile) -> BTreeSet<Meaning> {
        let packs = self.packs(file);
        packs.iter().filter_map(|pack| self.read(pack)).flat_map(|(head, _)| head.parts).map(|(one, _)| one).collect()
    }

    /// What is kept of these rules in a file.
    pub(super) fn load(&self, file: &DataFile, wanted: &BTreeSet<Meaning>) -> Pool {
        let mut pool = Pool::new();
        for pack in self.packs(file) {
            let Some((head, bytes)) = self.read(&pack) else { continue };
            let mut rest = bytes.as_slice();
            for (meaning, length) in head.parts {
                let length = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
                let (part, behind) = rest.split_at(length);
                rest = behind;
                if !wanted.contains(&meaning) || pool.contains_key(&meaning) {
                    continue;
                }
                if let Some(found) = unpacked(part) {
                    pool.insert(meaning, found);
                }
            }
        }
        pool
    }

    /// Keeps what rules found in a file. What cannot be kept is found again next time.
    pub(super) fn keep(&self, file: &DataFile, found: &Pool) {
        if let Err(error) = self.try_keep(file, found) {
            tracing::warn!(error = format!("{error:#}"), file = file.path, "detections are not kept");
        }
    }

    fn try_keep(&self, file: &DataFile, found: &Pool) -> Result<()> {
        let mut head = Head { salt: self.salt, parts: Vec::with_capacity(found.len()) };
        let mut body = Vec::new();
        for (meaning, detections) in found {
            let before = body.len();
            if !detections.is_empty() {
                body.extend(zstd::encode_all(postcard::to_stdvec(detections)?.as_slice(), 1)?);
            }
            head.parts.push((*meaning, u64::try_from(body.len() - before)?));
        }
        let head = postcard::to_stdvec(&head)?;
        let mut bytes = u64::try_from(head.len())?.to_le_bytes().to_vec();
        bytes.extend(head);
        bytes.extend(body);
        let checksum = *blake3::hash(&bytes).as_bytes();
        bytes.extend(checksum);
        let folder = self.folder_of(file);
        fs::create_dir_all(&folder)?;
        let name = blake3::hash(&checksum).to_hex();
        let (new, pack) = (folder.join(format!("{name}.new")), folder.join(format!("{name}.pack")));
        fs::write(&new, bytes)?;
        fs::rename(new, pack)?;
        Ok(())
    }

    /// Removes the oldest packs until all are within the bound.
    pub(super) fn bound(&self) -> Result<()> {
        let failed = || format!("could not look through {}", self.folder.display());
        let mut packs: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
        for folder in fs::read_dir(&self.folder).with_context(failed)?.flatten() {
            for pack in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                if let Ok(meta) = pack.metadata() {
                    packs.push((meta.modified().unwrap_or(UNIX_EPOCH), pack.path(), meta.len()));
                }
            }
        }
        packs.sort();
        let mut total: u64 = packs.iter().map(|(_, _, bytes)| bytes).sum();
        for (_, pack, bytes) in packs {
            if total <= self.bytes_max {
                break;
            }
            match fs::remove_file(&pack) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("could not remove {}", pack.display()));
                }
                _ => total -= bytes,
            }
        }
        Ok(())
    }

    /// The packs of a file, in a stated order.
    fn packs(&self, file: &DataFile) -> Vec<PathBuf> {
        let listing = fs::read_dir(self.folder_of(file)).into_iter().flatten().flatten();
        let mut packs: Vec<PathBuf> = listing
            .map(|pack| pack.path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "pack"))
            .collect();
        packs.sort();
        packs
    }

    fn folder_of(&self, file: &DataFile) -> PathBuf {
        let mut name = blake3::hash(format!("{} {}", file.path, file.bytes).as_bytes()).to_hex().to_string();
        name.truncate(32);
        self.folder.join(name)
    }

    /// The head of a pack and the parts behind it; `None` if it is another program's, or damaged.
    fn read(&self, pack: &Path) -> Option<(Head, Vec<u8>)> {
        let mut bytes = fs::read(pack).ok()?;
        let checksum = bytes.split_off(bytes.len().checked_sub(CHECKSUM_BYTES)?);
        if *blake3::hash(&bytes).as_bytes() != *checksum {
            tracing::warn!(pack = %pack.display(), "a pack of kept detections is damaged; it is not used");
            return None;
        }
        let (length, rest) = bytes.split_at_checked(8)?;
        let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        let (head, body) = rest.split_at_checked(length)?;
        let head: Head = postcard::from_bytes(head).ok()?;
        (head.salt == self.salt).then(|| (head, body.to_vec()))
    }
}

fn unpacked(part: &[u8]) -> Option<Vec<Detection>> {
    if part.is_empty() {
        return Some(Vec::new());
    }
    postcard::from_bytes(&zstd::decode_all(part).ok()?).ok()
}
