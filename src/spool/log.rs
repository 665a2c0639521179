//! The log: appends from many threads, one `fdatasync` for all that wait.
//!
//! One writer thread takes whatever is queued, writes it, syncs it, and answers; while it syncs, the next batch gathers.
//! So latency is one sync when little comes, and throughput does not depend on the number of senders. Rows get their
//! numbers from the writer: a batch that could not be written (disk full) takes none with it.
//!
//! Memory: [`LogOptions::pending_bytes_max`] of payloads on their way, and one index entry per 64 KiB on disk.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use cf_fail as fail;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    frame::{self, Found, Frames},
    lock,
    reader::LogReader,
    segment::{self, HEADER_BYTES, Header, Segment},
    slot::{Answerer, Appended},
    wide,
};

/// How a log keeps its rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// A new file is begun when the last one has this many bytes. Whole files are trimmed, so smaller ones free space
    /// sooner; each costs one more sync.
    pub segment_bytes: u64,
    /// Bytes on disk above which appends are refused, so that senders wait instead of the disk filling up.
    pub bytes_max: u64,
    /// Bytes that must stay free on the disk (at most an eighth of it): below, appends are refused, so that what makes
    /// room again - history, facts log, ledger - has room itself.
    pub free_bytes_min: u64,
    /// Bytes in memory on their way to the disk above which appends are refused.
    pub pending_bytes_max: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 64 << 20,
            // About an hour of 2,000 events a second of 1 KiB.
            bytes_max: 8 << 30,
            free_bytes_min: 64 << 20,
            // Twice the longest HTTP body: two of the longest can be on their way at once.
            pending_bytes_max: 32 << 20,
        }
    }
}

/// Why rows were not appended.
#[derive(Clone, Debug, Error)]
pub enum AppendError {
    /// The log holds as much as it may. Try again when rows have been trimmed.
    #[error("the spool is full: {bytes} of {bytes_max} bytes. hint: what reads it is behind, or its limit is low")]
    Full {
        /// What it would hold.
        bytes: u64,
        /// What it may hold.
        bytes_max: u64,
    },
    /// Too much is on its way to the disk. Try again at once.
    #[error("too many bytes are on their way to the spool's disk")]
    Busy,
    /// The disk is full; what is left of it is kept for the ledger. Try again later.
    #[error("the disk is full: what is left of it is kept for the ledger. hint: free space, it goes on by itself")]
    NoRoom,
    /// The rows could not be written, and nothing of them is left: disk full, or no permission. Try again later.
    #[error("could not write to the spool")]
    Write(#[source] Arc<io::Error>),
    /// One payload is longer than a frame may be.
    #[error("a payload of {bytes} bytes is longer than a frame may be")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A sync failed once: what is on the disk is not known, nothing is accepted any more. Only a restart helps.
    #[error(
        "the spool could not be synced to disk, so nothing is acknowledged any more. hint: check the disk, restart"
    )]
    Poisoned(#[source] Arc<io::Error>),
    /// The log was closed.
    #[error("the spool is closed")]
    Closed,
}

impl AppendError {
    /// Whether the same append may succeed later without anybody's help: senders should wait and repeat.
    #[must_use]
    pub fn is_back_pressure(&self) -> bool {
        matches!(self, AppendError::Full { .. } | AppendError::Busy | AppendError::NoRoom | AppendError::Write(_))
    }
}

/// Why a log could not be opened, read or trimmed.
#[derive(Debug, Error)]
pub enum LogError {
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
    /// Another process has it open.
    #[error("the log {0} is open in another process")]
    Locked(PathBuf),
    /// The rows asked for are gone.
    #[error("row {wanted} was trimmed: the log begins with row {floor}")]
    Trimmed {
        /// What was asked for.
        wanted: u64,
        /// The first row there is.
        floor: u64,
    },
}

fn at(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError::Io { verb, path: path.to_owned(), source }
}

/// Bytes of a segment that are no rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's file.
    pub path: PathBuf,
    /// Where in the file.
    pub bytes: Range<u64>,
    /// The rows that may have been there: after the last good one, before the next good one.
    pub rows: Range<u64>,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The rows there are, from the first to the next one to be written. Numbers may be missing where damage was.
    pub rows: Range<u64>,
    /// Good rows.
    pub good: u64,
    /// The end of the last segment, cut: a write that a crash interrupted. It was never acknowledged, unless the disk
    /// lost what it had confirmed.
    pub torn: Option<Damage>,
    /// Damage with good rows behind it, skipped: at most [`Recovery::DAMAGED_MAX`] are listed.
    pub damaged: Vec<Damage>,
    /// How many there are in all.
    pub damaged_total: u64,
}

impl Recovery {
    /// How many damaged ranges are listed.
    pub const DAMAGED_MAX: usize = 1_000;

    /// Whether all is as it was written.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.torn.is_none() && self.damaged_total == 0
    }

    fn skip(&mut self, damage: Damage) {
        self.damaged_total += 1;
        if self.damaged.len() < Self::DAMAGED_MAX {
            self.damaged.push(damage);
        }
    }
}

/// How the log makes its files durable: a seam, so that tests can let it fail.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) sync: Arc<dyn Fn(&File) -> io::Result<()> + Send + Sync>,
    pub(crate) write: Arc<dyn Fn(&File, &[u8], u64) -> io::Result<()> + Send + Sync>,
    /// Whether there is room for so many bytes.
    pub(crate) room: Arc<dyn Fn(&Path, &LogOptions, u64) -> io::Result<()> + Send + Sync>,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk {
            sync: Arc::new(File::sync_data),
            write: Arc::new(|file, bytes, offset| file.write_all_at(bytes, offset)),
            room: Arc::new(room),
        }
    }
}

/// A segmented log of rows. See the module.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    _lock: File,
}

#[derive(Debug)]
pub(crate) struct Shared {
    dir: PathBuf,
    options: LogOptions,
    queue: Mutex<Queue>,
    queued: Condvar,
    durable: Mutex<Durable>,
    grown: Condvar,
    /// Somebody needs the disk more: see [`Log::hold`].
    held: AtomicBool,
    /// The last batch could not be written.
    failing: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    appends: Vec<Append>,
    /// Payload bytes of `appends` and of the batch being written.
    bytes: u64,
    /// No row before this one is given out.
    row_min: u64,
    /// Why nothing is accepted any more.
    ended: Option<AppendError>,
}

#[derive(Debug)]
struct Append {
    payloads: Vec<Bytes>,
    bytes: u64,
    answerer: Answerer,
}

#[derive(Debug, Default)]
pub(crate) struct Durable {
    /// The next row to be written.
    pub(crate) end: u64,
    /// Ascending, never empty once something was written.
    pub(crate) segments: Vec<Segment>,
    bytes: u64,
    ended: bool,
}

impl Log {
    /// Opens the log in `dir`, which is made if it is not there, checks every row, and cuts a torn end.
    ///
    /// # Errors
    ///
    /// When another process has it open, or the system refuses. Damage is no error: see [`Recovery`].
    pub fn open(dir: &Path, options: &LogOptions) -> Result<(Log, Recovery), LogError> {
        Log::open_on(dir, options, Disk::default())
    }

    pub(crate) fn open_on(dir: &Path, options: &LogOptions, disk: Disk) -> Result<(Log, Recovery), LogError> {
        fs::create_dir_all(dir).map_err(at("make", dir))?;
        let lock_file = take_lock(dir)?;
        let (durable, recovery) = recover(dir)?;
        // What a killed process wrote may be in the page cache only: it must be durable before anyone builds on it.
        if let Some(last) = durable.segments.last() {
            File::open(&last.path).and_then(|file| file.sync_all()).map_err(at("sync", &last.path))?;
        }
        sync_dir(dir).map_err(at("sync", dir))?;

        let (next_row, last) = (durable.end, durable.segments.last().cloned());
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            options: options.clone(),
            queue: Mutex::default(),
            queued: Condvar::new(),
            durable: Mutex::new(durable),
            grown: Condvar::new(),
            held: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        });
        let current = last.filter(|segment| !is_full(segment, options)).map(Current::resume).transpose()?;
        let writer = Writer { shared: Arc::clone(&shared), disk, current, next_row };
        let thread = std::thread::Builder::new()
            .name("cf-spool".to_owned())
            .spawn(move || writer.run())
            .map_err(at("start the writer of", dir))?;
        Ok((Log { shared, writer: Mutex::new(Some(thread)), _lock: lock_file }, recovery))
    }

    /// Appends rows, all or none, next to each other. They are durable once the answer says so, not before.
    ///
    /// # Errors
    ///
    /// At once, when the log is full, busy, poisoned or closed.
    pub fn append(&self, payloads: Vec<Bytes>) -> Result<Appended, AppendError> {
        if let Some(long) = payloads.iter().find(|payload| payload.len() > frame::PAYLOAD_BYTES_MAX) {
            return Err(AppendError::TooLong { bytes: long.len() });
        }
        let bytes = payloads.iter().map(|payload| wide(payload.len() + frame::HEADER_BYTES)).sum::<u64>();
        let (on_disk, options) = (self.bytes(), &self.shared.options);
        let mut queue = lock(&self.shared.queue);
        if let Some(ended) = &queue.ended {
            return Err(ended.clone());
        }
        if self.shared.held.load(Ordering::Acquire) {
            return Err(AppendError::NoRoom);
        }
        let total = on_disk.saturating_add(queue.bytes).saturating_add(bytes);
        if total > options.bytes_max {
            return Err(AppendError::Full { bytes: total, bytes_max: options.bytes_max });
        }
        if queue.bytes > 0 && queue.bytes.saturating_add(bytes) > options.pending_bytes_max {
            return Err(AppendError::Busy);
        }
        let (answerer, appended) = Appended::new();
        queue.bytes += bytes;
        queue.appends.push(Append { payloads, bytes, answerer });
        drop(queue);
        self.shared.queued.notify_one();
        Ok(appended)
    }

    /// Reads rows from `from_row` on.
    ///
    /// # Errors
    ///
    /// When that row was trimmed.
    pub fn read(&self, from_row: u64) -> Result<LogReader, LogError> {
        let floor = self.first_row();
        if from_row < floor {
            return Err(LogError::Trimmed { wanted: from_row, floor });
        }
        Ok(LogReader::new(Arc::clone(&self.shared), from_row))
    }

    /// The next row to be written: all before it are durable.
    #[must_use]
    pub fn durable_end(&self) -> u64 {
        lock(&self.shared.durable).end
    }

    /// The first row that was not trimmed (whether or not a row with that number is there).
    #[must_use]
    pub fn first_row(&self) -> u64 {
        let durable = lock(&self.shared.durable);
        durable.segments.first().map_or(durable.end, |segment| segment.header.first_row)
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        lock(&self.shared.durable).bytes
    }

    /// Why nothing is accepted any more, if so.
    #[must_use]
    pub fn ended(&self) -> Option<AppendError> {
        lock(&self.shared.queue).ended.clone()
    }

    /// Refuses appends with [`AppendError::NoRoom`] until told otherwise: the ledger needs what is left of the disk.
    pub fn hold(&self, held: bool) {
        self.shared.held.store(held, Ordering::Release);
    }

    /// Whether senders are refused at the moment because the disk takes nothing.
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        self.shared.held.load(Ordering::Acquire) || self.shared.failing.load(Ordering::Acquire)
    }

    /// Waits until `row` is durable, or the time is up, or the log ends; gives [`Log::durable_end`].
    #[must_use]
    pub fn wait(&self, row: u64, timeout: Duration) -> u64 {
        let durable = lock(&self.shared.durable);
        let waiting = |durable: &mut Durable| durable.end <= row && !durable.ended;
        match self.shared.grown.wait_timeout_while(durable, timeout, waiting) {
            Ok((durable, _)) => durable.end,
            Err(poisoned) => poisoned.into_inner().0.end,
        }
    }

    /// Sees to it that no row before `row_min` is ever given out (again).
    ///
    /// To be called on start with the end that the ledger has bound to an epoch: should the disk have lost rows that
    /// it had confirmed, new ones must not take their numbers, else they would count as read.
    pub fn reserve(&self, row_min: u64) {
        let mut queue = lock(&self.shared.queue);
        queue.row_min = queue.row_min.max(row_min);
        drop(queue);
        let mut durable = lock(&self.shared.durable);
        durable.end = durable.end.max(row_min);
    }

    /// Removes the segments all of whose rows lie before `before_row`, the oldest first; gives the bytes freed.
    ///
    /// To be called only when the pointer that says that they are not needed is itself durable.
    ///
    /// # Errors
    ///
    /// When the system refuses; what was removed stays removed.
    pub fn trim(&self, before_row: u64) -> Result<u64, LogError> {
        let mut freed = 0;
        while let Some(segment) = self.first_before(before_row) {
            match fs::remove_file(&segment.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(at("remove", &segment.path)(error));
                }
                Ok(()) | Err(_) => {}
            }
            fail::point("spool.segment_removed");
            let mut durable = lock(&self.shared.durable);
            durable.segments.remove(0);
            durable.bytes = durable.bytes.saturating_sub(segment.bytes);
            freed += segment.bytes;
        }
        if freed > 0 {
            sync_dir(&self.shared.dir).map_err(at("sync", &self.shared.dir))?;
        }
        Ok(freed)
    }

    fn first_before(&self, row: u64) -> Option<Segment> {
        let durable = lock(&self.shared.durable);
        // The last one is being written to.
        let next = durable.segments.get(1)?;
        (next.header.first_row <= row).then(|| durable.segments.first().cloned()).flatten()
    }

    /// Takes no more appends, and returns when those taken are answered.
    pub fn close(&self) {
        let mut queue = lock(&self.shared.queue);
        queue.ended.get_or_insert(AppendError::Closed);
        drop(queue);
        self.shared.queued.notify_one();
        if let Some(thread) = lock(&self.writer).take() {
            // A panic of the writer has answered everyone with `Closed` already.
            drop(thread.join());
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn durable(&self) -> std::sync::MutexGuard<'_, Durable> {
        lock(&self.durable)
    }
}

/// Refuses what would leave less of the disk free than must stay free.
fn room(dir: &Path, options: &LogOptions, bytes: u64) -> io::Result<()> {
    let disk = rustix::fs::statvfs(dir)?;
    let all = disk.f_blocks.saturating_mul(disk.f_frsize);
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let kept = options.free_bytes_min.min(all / 8);
    if free < kept.saturating_add(bytes) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

fn take_lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(at("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(LogError::Locked(dir.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(at("lock", &path)(error)),
    }
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// How many rows could have been in so many bytes: numbers given to them are never given again.
fn rows_at_most(bytes: u64) -> u64 {
    bytes / wide(frame::HEADER_BYTES)
}

fn recover(dir: &Path) -> Result<(Durable, Recovery), LogError> {
    let mut durable = Durable::default();
    let mut recovery = Recovery::default();
    let files = segment::list(dir).map_err(at("list", dir))?;
    let last_row = files.last().map(|(row, _)| *row);
    if let Some((first, _)) = files.first() {
        durable.end = *first;
    }
    for (first_row, path) in files {
        durable.end = durable.end.max(first_row);
        let file = File::options().read(true).write(true).open(&path).map_err(at("open", &path))?;
        let bytes = file.metadata().map_err(at("look at", &path))?.len();
        let header = Header::read(&file).map_err(at("read", &path))?;
        let Some(header) = header.filter(|header| header.first_row == first_row && bytes >= HEADER_BYTES) else {
            set_aside(&path, bytes, &mut durable, &mut recovery)?;
            continue;
        };
        let mut segment = Segment::new(path, header);
        let tail = check(&file, bytes, &mut segment, &mut durable, &mut recovery).map_err(at("read", &segment.path))?;
        match tail {
            Some(damage) if Some(first_row) == last_row => {
                file.set_len(damage.bytes.start).map_err(at("cut", &segment.path))?;
                segment.bytes = damage.bytes.start;
                recovery.torn = Some(damage);
            }
            Some(damage) => recovery.skip(damage),
            None => {}
        }
        durable.bytes += segment.bytes;
        durable.segments.push(segment);
    }
    recovery.rows = durable.segments.first().map_or(durable.end, |segment| segment.header.first_row)..durable.end;
    Ok((durable, recovery))
}

/// Moves a file without a readable header out of the way; one without rows was being made when a crash came.
fn set_aside(path: &Path, bytes: u64, durable: &mut Durable, recovery: &mut Recovery) -> Result<(), LogError> {
    let next = durable.end.saturating_add(rows_at_most(bytes));
    let damage = Damage { path: path.to_owned(), bytes: 0..bytes, rows: durable.end..next };
    durable.end = next;
    if bytes <= HEADER_BYTES {
        recovery.torn = Some(damage);
        return fs::remove_file(path).map_err(at("remove", path));
    }
    recovery.skip(damage);
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    fs::rename(path, aside).map_err(at("rename", path))
}

/// Goes through a segment; gives what is torn at its end.
fn check(
    file: &File,
    bytes: u64,
    segment: &mut Segment,
    durable: &mut Durable,
    recovery: &mut Recovery,
) -> io::Result<Option<Damage>> {
    let mut frames = Frames::new(file.try_clone()?, segment.header.salt, HEADER_BYTES..bytes);
    let mut open: Vec<Damage> = Vec::new();
    segment.bytes = bytes;
    while let Some(found) = frames.next_found()? {
        match found {
            Found::Row { row, offset, .. } => {
                for mut damage in open.drain(..) {
                    damage.rows.end = row;
                    recovery.skip(damage);
                }
                recovery.good += 1;
                segment.note(row, offset);
                durable.end = row.saturating_add(1);
            }
            Found::Damaged { bytes, row } | Found::Torn { bytes, row } => {
                let start = durable.end;
                durable.end = row.map_or_else(
                    || start.saturating_add(rows_at_most(bytes.end - bytes.start)),
                    |row| start.max(row.saturating_add(1)),
                );
                open.push(Damage { path: segment.path.clone(), bytes, rows: start..durable.end });
            }
        }
    }
    // Nothing good behind these: one torn end.
    let (first, last) = (open.first().cloned(), open.last());
    Ok(first.zip(last).map(|(mut damage, last)| {
        damage.bytes.end = last.bytes.end;
        damage.rows.end = last.rows.end;
        damage
    }))
}

/// The segment that is written to.
struct Current {
    file: File,
    segment: Segment,
    /// Whether the directory knows it for good.
    named: bool,
}

impl Current {
    fn resume(segment: Segment) -> Result<Current, LogError> {
        let file = File::options().write(true).open(&segment.path).map_err(at("open", &segment.path))?;
        Ok(Current { file, segment, named: true })
    }
}

/// An empty one is never full, however small segments shall be: the next would have its name.
fn is_full(segment: &Segment, options: &LogOptions) -> bool {
    segment.bytes >= options.segment_bytes.max(HEADER_BYTES + 1)
}

/// Why a batch was not written.
enum Failure {
    /// Nothing of it is left.
    Undone(io::Error),
    /// What is left is not known.
    Unknown(io::Error),
}

struct Writer {
    shared: Arc<Shared>,
    disk: Disk,
    current: Option<Current>,
    next_row: u64,
}

impl Writer {
    fn run(mut self) {
        while let Some(mut appends) = self.take() {
            let bytes = appends.iter().map(|append| append.bytes).sum::<u64>();
            match self.commit(&mut appends) {
                Ok(ranges) => {
                    if self.shared.failing.swap(false, Ordering::AcqRel) {
                        tracing::info!("the spool can be written again");
                    }
                    for (append, rows) in appends.into_iter().zip(ranges) {
                        append.answerer.answer(Ok(rows));
                    }
                }
                Err(Failure::Undone(error)) => {
                    // Said once: senders ask again all the time.
                    if !self.shared.failing.swap(true, Ordering::AcqRel) {
                        tracing::warn!(%error, "could not write to the spool, senders wait");
                    }
                    let error = Arc::new(error);
                    for append in appends {
                        append.answerer.answer(Err(AppendError::Write(Arc::clone(&error))));
                    }
                }
                Err(Failure::Unknown(error)) => {
                    tracing::error!(%error, "could not sync the spool, nothing is acknowledged any more");
                    self.poison(appends, Arc::new(error));
                    break;
                }
            }
            let mut queue = lock(&self.shared.queue);
            queue.bytes = queue.bytes.saturating_sub(bytes);
        }
    }

    /// Waits for appends; `None` when the log is closed and all are done.
    fn take(&mut self) -> Option<Vec<Append>> {
        let mut queue = lock(&self.shared.queue);
        loop {
            self.next_row = self.next_row.max(queue.row_min);
            if !queue.appends.is_empty() {
                return Some(std::mem::take(&mut queue.appends));
            }
            if queue.ended.is_some() {
                return None;
            }
            queue = self.shared.queued.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn commit(&mut self, appends: &mut [Append]) -> Result<Vec<Range<u64>>, Failure> {
        let bytes = appends.iter().map(|append| append.bytes).sum();
        (self.disk.room)(&self.shared.dir, &self.shared.options, bytes).map_err(Failure::Undone)?;
        let mut current = self.current.take();
        if current.as_ref().is_none_or(|current| is_full(&current.segment, &self.shared.options)) {
            // The full one is dropped only when the new one is there, else its end would be forgotten.
            match self.begin() {
                Ok(begun) => current = Some(begun),
                Err(failure) => {
                    self.current = current;
                    return Err(failure);
                }
            }
        }
        let mut current = current.expect("one was there or has been made");
        let result = self.write(&mut current, appends);
        self.current = Some(current);
        result
    }

    fn begin(&self) -> Result<Current, Failure> {
        let header = Header { first_row: self.next_row, salt: frame::fresh_salt() };
        let path = segment::path(&self.shared.dir, self.next_row);
        let begun = File::options().write(true).create_new(true).open(&path).and_then(|file| {
            (self.disk.write)(&file, &header.to_bytes(), 0)?;
            fail::point("spool.segment_made");
            Ok(file)
        });
        match begun {
            Ok(file) => Ok(Current { file, segment: Segment::new(path, header), named: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::Unknown(error)),
            Err(error) => match fs::remove_file(&path) {
                Err(left) if left.kind() != io::ErrorKind::NotFound => Err(Failure::Unknown(left)),
                Ok(()) | Err(_) => Err(Failure::Undone(error)),
            },
        }
    }

    fn write(&mut self, current: &mut Current, appends: &mut [Append]) -> Result<Vec<Range<u64>>, Failure> {
        let mut segment = current.segment.clone();
        let mut bytes = Vec::new();
        let mut ranges = Vec::with_capacity(appends.len());
        let mut row = self.next_row;
        for append in appends {
            let first = row;
            // Dropped as soon as they are copied: the memory is needed for what comes next.
            for payload in std::mem::take(&mut append.payloads) {
                segment.note(row, segment.bytes + wide(bytes.len()));
                frame::put(segment.header.salt, row, &payload, &mut bytes);
                row += 1;
            }
            ranges.push(first..row);
        }
        if let Err(error) = (self.disk.write)(&current.file, &bytes, segment.bytes) {
            return Err(match current.file.set_len(segment.bytes) {
                Ok(()) => Failure::Undone(error),
                Err(left) => Failure::Unknown(left),
            });
        }
        fail::point("spool.written");
        (self.disk.sync)(&current.file).map_err(Failure::Unknown)?;
        fail::point("spool.synced");
        if !current.named {
            sync_dir(&self.shared.dir).map_err(Failure::Unknown)?;
            current.named = true;
        }
        segment.bytes += wide(bytes.len());
        self.next_row = row;
        current.segment = segment;
        self.publish(&current.segment);
        fail::point("spool.published");
        Ok(ranges)
    }

    fn publish(&self, segment: &Segment) {
        let mut durable = lock(&self.shared.durable);
        let known = durable.segments.last().filter(|last| last.path == segment.path).map(|last| last.bytes);
        durable.bytes += segment.bytes - known.unwrap_or(0);
        if known.is_some() {
            durable.segments.pop();
        }
        durable.segments.push(segment.clone());
        durable.end = durable.end.max(self.next_row);
        drop(durable);
        self.shared.grown.notify_all();
    }

    fn poison(&self, appends: Vec<Append>, error: Arc<io::Error>) {
        let mut queue = lock(&self.shared.queue);
        queue.ended = Some(AppendError::Poisoned(Arc::clone(&error)));
        let queued = std::mem::take(&mut queue.appends);
        drop(queue);
        for append in appends.into_iter().chain(queued) {
            append.answerer.answer(Err(AppendError::Poisoned(Arc::clone(&error))));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Also when it panicked: nobody may queue for a writer that is gone, and nobody waits for rows from it.
        let mut queue = lock(&self.shared.queue);
        queue.ended.get_or_insert(AppendError::Closed);
        drop(std::mem::take(&mut queue.appends));
        drop(queue);
        lock(&self.shared.durable).ended = true;
        self.shared.grown.notify_all();
    }
}

#[cfg(test)]
mod tests;
