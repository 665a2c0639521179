//! The facts log: the graph's inputs within the horizon, so that a restart replays seconds and not a day
//! (`streaming.md`, *Durability and recovery*, F).
//!
//! In: the detections of each epoch, in order of epochs. Out, at the next start: all of them below a frontier `f`; what
//! is at or above `f` comes again from the spool. It holds inputs, not the graph's state, so it is independent of
//! workers and of the engine's version.
//!
//! ```text
//! DIR/<hour>.facts   frames (row = epoch, payload = the epoch's detections of that hour of event time), epochs ascend
//! DIR/head.0, head.1 one frame each, written in turn: frontier, watermark, and per hour the length that belongs to it
//! ```
//!
//! The hours are synced before the head that speaks of them, so the head on disk is always true: what lies behind its
//! lengths was never promised and is cut. If an hour holds less than its head says, `f` sinks to the first epoch that
//! may be missing: nothing is ever silently lost, the spool decides whether that is far enough back.
//!
//! Memory: what was appended since the last flush. Nothing here is on the critical path: [`FactsLog::append_epoch`]
//! touches memory only, [`FactsLog::flush`] belongs on a thread of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cf_fail as fail;
use cf_spool::frame::{self, Found, Frames};
use cf_types::{Detection, Epoch, Time};
use thiserror::Error;

mod codec;
mod erase;

pub use erase::erase;

const HOUR_S: i64 = 3_600;
const SUFFIX: &str = ".facts";
/// Heads need no secret: nobody sends them.
const HEAD_SALT: u64 = 0x0063_662d_6865_6164;
const HEAD_FORMAT: u64 = 1;

/// An hour of event time, counted since 1970.
type Hour = i64;

/// Why the facts log could not be read or written.
#[derive(Debug, Error)]
pub enum FactsLogError {
    /// The system refused.
    #[error("could not {verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A sync failed before: what is on the disk is not known. Only a restart helps; until then the frontier stands.
    #[error(
        "the facts log in {0} could not be synced before, so it is not written any more. hint: check the disk, restart"
    )]
    Poisoned(PathBuf),
}

fn at(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FactsLogError {
    move |source| FactsLogError::Io { verb, path: path.to_owned(), source }
}

/// What the log holds at a start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Epochs below this one are in; the others must come from the spool. 0 when the log is empty.
    pub frontier: Epoch,
    /// The watermark after the last epoch below the frontier.
    pub watermark: Option<Time>,
    /// The detections of the epochs below the frontier, by hour of event time, then epoch.
    pub detections: Vec<Detection>,
    /// Which epoch each of them is of.
    pub epochs: Vec<Epoch>,
    /// What was found damaged, in sentences for people; the frontier has sunk below it.
    pub damage: Vec<String>,
}

impl Loaded {
    /// Takes the items away that count no more, because their rule began empty in a later epoch (`since`, by rule).
    pub fn forget_before(&mut self, since: &BTreeMap<String, Epoch>) {
        if since.is_empty() {
            return;
        }
        for (detection, epoch) in self.detections.iter_mut().zip(&self.epochs) {
            detection.items.retain(|item| since.get(&*item.rule).is_none_or(|begun| begun <= epoch));
        }
    }
}

/// The log. Safe to share between threads.
#[derive(Debug)]
pub struct FactsLog {
    dir: PathBuf,
    pending: Mutex<Pending>,
    /// Locked after `pending`, never before.
    disk: Mutex<Disk>,
}

#[derive(Debug, Default)]
struct Pending {
    epochs: BTreeMap<Epoch, PendingEpoch>,
    bytes: usize,
    /// The next epoch to be taken: those before are in.
    next: Epoch,
}

#[derive(Debug, Default)]
struct PendingEpoch {
    hours: BTreeMap<Hour, Vec<u8>>,
    watermark: Option<Time>,
}

#[derive(Debug)]
struct Disk {
    head: Head,
    /// Files hold more than the head says: they must be cut before anything is added.
    excess: bool,
    poisoned: bool,
}

/// What is promised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Head {
    sequence: u64,
    salt: u64,
    frontier: Epoch,
    watermark: Option<Time>,
    /// Hours below this one have been expired.
    floor: Option<Hour>,
    /// Bytes of each hour's file.
    hours: BTreeMap<Hour, u64>,
}

impl FactsLog {
    /// Opens the log in `dir`, which is made if it is not there, and reads it.
    ///
    /// # Errors
    ///
    /// When the system refuses. Damage is no error: see [`Loaded::damage`].
    pub fn open(dir: &Path) -> Result<(FactsLog, Loaded), FactsLogError> {
        fs::create_dir_all(dir).map_err(at("make", dir))?;
        let mut loaded = Loaded::default();
        let files = list(dir)?;
        let found = newest_head(dir)?;
        if found.is_none() && !files.is_empty() {
            loaded.damage.push(format!("no head of the facts log in {} reads: all of it is lost", dir.display()));
        }
        let mut head = found.unwrap_or_else(|| Head { salt: frame::fresh_salt(), ..Head::default() });
        let mut hours = BTreeMap::new();
        for (hour, promised) in &head.hours {
            hours.insert(*hour, read_hour(dir, &head, *hour, *promised, &mut loaded)?);
        }
        let frontier = hours.values().map(|read| read.whole_before).min().unwrap_or(Epoch::MAX).min(head.frontier);
        let sunk = frontier < head.frontier;
        head.frontier = frontier;
        if sunk {
            // An older watermark is not known; the replayed epochs give it again.
            head.watermark = None;
        }
        head.hours.clear();
        for (hour, read) in hours {
            let kept = read.frames.into_iter().take_while(|frame| frame.epoch < frontier);
            let mut bytes = 0;
            for frame in kept {
                bytes = frame.end;
                loaded.epochs.extend(frame.detections.iter().map(|_| frame.epoch));
                loaded.detections.extend(frame.detections);
            }
            if bytes > 0 {
                head.hours.insert(hour, bytes);
            }
        }
        (loaded.frontier, loaded.watermark) = (head.frontier, head.watermark);
        let pending = Pending { next: head.frontier, ..Pending::default() };
        // Whether there really is excess is seen when it is cut.
        let disk = Disk { head, excess: true, poisoned: false };
        Ok((FactsLog { dir: dir.to_owned(), pending: Mutex::new(pending), disk: Mutex::new(disk) }, loaded))
    }

    /// Takes an epoch's detections, in memory. Epochs that are in already (a replay gives them again) are passed over.
    pub fn append_epoch(&self, epoch: Epoch, detections: &[Detection], watermark: Option<Time>) {
        let mut hours: BTreeMap<Hour, Vec<&Detection>> = BTreeMap::new();
        for detection in detections {
            hours.entry(detection.member.time.cell().div_euclid(HOUR_S)).or_default().push(detection);
        }
        let hours: BTreeMap<Hour, Vec<u8>> =
            hours.into_iter().map(|(hour, detections)| (hour, codec::encode(&detections))).collect();
        let mut pending = lock(&self.pending);
        if epoch < pending.next {
            return;
        }
        pending.next = epoch.saturating_add(1);
        pending.bytes += hours.values().map(Vec::len).sum::<usize>();
        pending.epochs.insert(epoch, PendingEpoch { hours, watermark });
    }

    /// Makes the epochs below `before` durable ([`Epoch::MAX`]: all that were taken); gives the frontier: what lies
    /// below it needs the spool no more.
    ///
    /// `before` should be the upper of the history: the spool is trimmed by this frontier, and what history lacks must
    /// still come from the spool.
    ///
    /// # Errors
    ///
    /// When the disk refuses; the epochs are kept and written by the next call, unless a sync failed.
    pub fn flush(&self, before: Epoch) -> Result<Epoch, FactsLogError> {
        let mut disk = lock(&self.disk);
        let mut taken = self.take(before);
        match self.write(&mut disk, &mut taken) {
            Ok(()) => Ok(disk.head.frontier),
            Err(error) => {
                let mut pending = lock(&self.pending);
                pending.bytes += bytes_of(&taken);
                pending.epochs.append(&mut taken);
                Err(error)
            }
        }
    }

    /// Removes the hours that end before `before`; gives how many.
    ///
    /// # Errors
    ///
    /// When the disk refuses.
    pub fn expire(&self, before: Time) -> Result<usize, FactsLogError> {
        let floor = before.cell().div_euclid(HOUR_S);
        let mut disk = lock(&self.disk);
        let mut head = disk.head.clone();
        let kept = head.hours.split_off(&floor);
        let gone = std::mem::replace(&mut head.hours, kept);
        if gone.is_empty() {
            return Ok(0);
        }
        head.floor = head.floor.max(Some(floor));
        // The head first: an hour that is gone and still promised would be damage.
        self.put_head(&mut disk, head)?;
        fail::point("facts.hours_expired");
        for hour in gone.keys() {
            let path = self.hour_path(*hour);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at("remove", &path)(error)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(gone.len())
    }

    /// Epochs below this one are durable here.
    #[must_use]
    pub fn frontier(&self) -> Epoch {
        lock(&self.disk).head.frontier
    }

    /// Bytes in memory that wait for a flush.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        lock(&self.pending).bytes
    }

    fn take(&self, before: Epoch) -> BTreeMap<Epoch, PendingEpoch> {
        let mut pending = lock(&self.pending);
        let later = pending.epochs.split_off(&before);
        let taken = std::mem::replace(&mut pending.epochs, later);
        pending.bytes = bytes_of(&pending.epochs);
        taken
    }

    fn write(&self, disk: &mut Disk, taken: &mut BTreeMap<Epoch, PendingEpoch>) -> Result<(), FactsLogError> {
        if disk.poisoned {
            return Err(FactsLogError::Poisoned(self.dir.clone()));
        }
        let Some((last, PendingEpoch { watermark, .. })) = taken.last_key_value() else { return Ok(()) };
        let mut head = disk.head.clone();
        head.frontier = last.saturating_add(1);
        head.watermark = watermark.or(head.watermark);
        if disk.excess {
            self.cut_excess(&head)?;
            disk.excess = false;
        }
        let mut additions: BTreeMap<Hour, Vec<u8>> = BTreeMap::new();
        for (epoch, hours) in taken.iter().map(|(epoch, pending)| (*epoch, &pending.hours)) {
            // What is older than all that is kept would be expired at once.
            for (hour, payload) in hours.iter().filter(|(hour, _)| head.floor.is_none_or(|floor| **hour >= floor)) {
                frame::put(head.salt, epoch, payload, additions.entry(*hour).or_default());
            }
        }
        let mut files = Vec::new();
        for (hour, bytes) in &additions {
            files.push(self.add(&mut head, *hour, bytes)?);
        }
        fail::point("facts.hours_written");
        for file in &files {
            fail::sync("facts.sync", || file.sync_data()).map_err(|error| self.poison(disk, error))?;
        }
        if !files.is_empty() {
            let dir = File::open(&self.dir).map_err(at("open", &self.dir))?;
            fail::sync("facts.sync", || dir.sync_all()).map_err(|error| self.poison(disk, error))?;
        }
        fail::point("facts.hours_synced");
        self.put_head(disk, head)?;
        fail::point("facts.flushed");
        taken.clear();
        Ok(())
    }

    /// Writes behind what is promised; a failed attempt is overwritten by the next.
    fn add(&self, head: &mut Head, hour: Hour, bytes: &[u8]) -> Result<File, FactsLogError> {
        let path = self.hour_path(hour);
        let end = head.hours.entry(hour).or_insert(0);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(at("open", &path))?;
        file.write_all_at(bytes, *end).map_err(at("write to", &path))?;
        *end += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(file)
    }

    fn poison(&self, disk: &mut Disk, source: io::Error) -> FactsLogError {
        disk.poisoned = true;
        FactsLogError::Io { verb: "sync", path: self.dir.clone(), source }
    }

    /// Writes the head into the slot that does not hold the present one.
    fn put_head(&self, disk: &mut Disk, mut head: Head) -> Result<(), FactsLogError> {
        if disk.poisoned {
            return Err(FactsLogError::Poisoned(self.dir.clone()));
        }
        head.sequence += 1;
        let path = head_path(&self.dir, head.sequence);
        let fresh = !path.exists();
        let mut bytes = Vec::new();
        frame::put(HEAD_SALT, head.sequence, &head.to_bytes(), &mut bytes);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(at("open", &path))?;
        file.set_len(0).and_then(|()| file.write_all_at(&bytes, 0)).map_err(at("write to", &path))?;
        fail::point("facts.head_written");
        fail::sync("facts.sync", || file.sync_all()).map_err(|error| self.poison(disk, error))?;
        if fresh {
            let dir = File::open(&self.dir).map_err(at("open", &self.dir))?;
            fail::sync("facts.sync", || dir.sync_all()).map_err(|error| self.poison(disk, error))?;
        }
        disk.head = head;
        Ok(())
    }

    /// Takes away what lies behind the promised lengths: epochs that come again.
    fn cut_excess(&self, head: &Head) -> Result<(), FactsLogError> {
        for (hour, path) in list(&self.dir)? {
            match head.hours.get(&hour) {
                None => fs::remove_file(&path).map_err(at("remove", &path))?,
                Some(bytes) => {
                    let file = File::options().write(true).open(&path).map_err(at("open", &path))?;
                    let length = file.metadata().map_err(at("look at", &path))?.len();
                    if length > *bytes {
                        file.set_len(*bytes).map_err(at("cut", &path))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn hour_path(&self, hour: Hour) -> PathBuf {
        hour_path(&self.dir, hour)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes_of(epochs: &BTreeMap<Epoch, PendingEpoch>) -> usize {
    epochs.values().flat_map(|epoch| epoch.hours.values()).map(Vec::len).sum()
}

/// What one hour's file gave.
struct HourRead {
    frames: Vec<HourFrame>,
    /// No epoch below this one is missing in it.
    whole_before: Epoch,
}

struct HourFrame {
    epoch: Epoch,
    /// Where it ends in the file.
    end: u64,
    detections: Vec<Detection>,
}

fn read_hour(
    dir: &Path,
    head: &Head,
    hour: Hour,
    promised: u64,
    loaded: &mut Loaded,
) -> Result<HourRead, FactsLogError> {
    let path = hour_path(dir, hour);
    let mut read = HourRead { frames: Vec::new(), whole_before: Epoch::MAX };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            loaded.damage.push(format!("{} is missing", path.display()));
            read.whole_before = 0;
            return Ok(read);
        }
        Err(error) => return Err(at("open", &path)(error)),
    };
    let mut frames = Frames::new(file, head.salt, 0..promised);
    let mut decoder = codec::Strings::default();
    let mut next_epoch = 0;
    while let Some(found) = frames.next_found().map_err(at("read", &path))? {
        let damaged = match found {
            Found::Row { row: epoch, offset, payload } => {
                let length = frame::HEADER_BYTES + payload.len();
                let end = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
                next_epoch = epoch.saturating_add(1);
                match codec::decode(&payload, &mut decoder) {
                    Some(detections) => {
                        read.frames.push(HourFrame { epoch, end, detections });
                        continue;
                    }
                    None => (offset..end, epoch),
                }
            }
            Found::Damaged { bytes, row } | Found::Torn { bytes, row } => (bytes, row.unwrap_or(next_epoch)),
        };
        let (bytes, epoch) = damaged;
        loaded.damage.push(format!(
            "{} is damaged in bytes {}..{}: epochs from {epoch} on must come from the spool",
            path.display(),
            bytes.start,
            bytes.end
        ));
        read.whole_before = read.whole_before.min(epoch);
    }
    Ok(read)
}

fn hour_path(dir: &Path, hour: Hour) -> PathBuf {
    dir.join(format!("{hour}{SUFFIX}"))
}

fn head_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(if sequence.is_multiple_of(2) { "head.0" } else { "head.1" })
}

fn list(dir: &Path) -> Result<Vec<(Hour, PathBuf)>, FactsLogError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(at("list", dir))? {
        let entry = entry.map_err(at("list", dir))?;
        let name = entry.file_name();
        let hour = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(hour) = hour.and_then(|hour| hour.parse().ok()) {
            found.push((hour, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The later of the heads that read.
fn newest_head(dir: &Path) -> Result<Option<Head>, FactsLogError> {
    let mut newest: Option<Head> = None;
    for path in [0, 1].map(|slot| head_path(dir, slot)) {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at("open", &path)(error)),
        };
        let bytes = file.metadata().map_err(at("look at", &path))?.len();
        let mut frames = Frames::new(file, HEAD_SALT, 0..bytes);
        let found = frames.next_found().map_err(at("read", &path))?;
        let Some(Found::Row { row, payload, .. }) = found else { continue };
        let head = Head::read(row, &payload);
        newest = newest.into_iter().chain(head).max_by_key(|head| head.sequence);
    }
    Ok(newest)
}

impl Head {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = codec::Writer::default();
        out.number(HEAD_FORMAT);
        out.number(self.salt);
        out.number(self.frontier);
        out.option(self.watermark.map(Time::micros), codec::Writer::signed);
        out.option(self.floor, codec::Writer::signed);
        out.number(u64::try_from(self.hours.len()).unwrap_or(u64::MAX));
        for (hour, bytes) in &self.hours {
            out.signed(*hour);
            out.number(*bytes);
        }
        out.into_bytes()
    }

    fn read(sequence: u64, bytes: &[u8]) -> Option<Head> {
        let mut input = codec::Cursor::new(bytes);
        if input.number()? != HEAD_FORMAT {
            return None;
        }
        let mut head = Head { sequence, salt: input.number()?, frontier: input.number()?, ..Head::default() };
        head.watermark = input.option(codec::Cursor::signed)?.map(Time::from_micros);
        head.floor = input.option(codec::Cursor::signed)?;
        for _ in 0..input.number()? {
            let (hour, bytes) = (input.signed()?, input.number()?);
            head.hours.insert(hour, bytes);
        }
        Some(head)
    }
}

#[cfg(test)]
mod tests;
