//! Files and standard input as streams of records.
//!
//! What a file is shows in its first bytes: gzip, zstd (several frames one after another too), EVTX, or text. Text is
//! JSON in any arrangement (one document, several one after another, printed over lines or not, arrays, lines), plain
//! lines, or a mixture. Memory is bounded by the longest record allowed, never by the file or by a line.

use std::{
    fs,
    io::{self, BufReader, Read},
    path::Path,
    sync::Arc,
};

use cf_types::{Framing, Origin, Record, Tenant, Time};

use crate::decode::year_of;

mod evtx;
mod frame;
mod scan;

/// What the caller knows of a file.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// Whose records they are.
    pub tenant: Tenant,
    /// The source's name in the settings.
    pub source: Arc<str>,
    /// When the file was opened; there is no clock here.
    pub received_at: Time,
    /// The year of times that have none (`--year`); without it the file's modification time says which.
    pub year: Option<i16>,
    /// Bytes of the longest record; what is longer is cut and becomes a reject.
    pub record_bytes_max: usize,
}

impl FileOptions {
    /// Options for the source `file` of the default tenant.
    #[must_use]
    pub fn new(received_at: Time) -> FileOptions {
        FileOptions {
            tenant: Tenant::default(),
            source: Arc::from("file"),
            received_at,
            year: None,
            record_bytes_max: 1 << 20,
        }
    }
}

/// Why a file cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It could not be opened.
    #[error("could not open {path:?}")]
    Open {
        /// As given.
        path: String,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// Reading or decompressing it stopped. What was read before is whole; nothing follows.
    #[error("could not read {path:?} beyond byte {offset} of its content")]
    Read {
        /// As given.
        path: String,
        /// How much of the uncompressed content was read.
        offset: u64,
        /// What the system or the decompressor says.
        #[source]
        cause: io::Error,
    },
}

/// The records of one file. After an error it ends.
pub struct FileReader(Format);

enum Format {
    Text(Box<frame::Frames>),
    Evtx(Box<evtx::Chunks>),
}

impl Iterator for FileReader {
    type Item = Result<Record, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Format::Text(frames) => frames.next(),
            Format::Evtx(chunks) => chunks.next(),
        }
    }
}

/// Opens a file, or standard input as `-`.
///
/// # Errors
///
/// It cannot be opened, or its first bytes cannot be read.
pub fn open(path: &str, options: &FileOptions) -> Result<FileReader, FileError> {
    if path == "-" {
        return read(path, Box::new(io::stdin()), None, options);
    }
    let refused = |cause| FileError::Open { path: path.to_owned(), cause };
    let file = fs::File::open(Path::new(path)).map_err(refused)?;
    let metadata = file.metadata().map_err(refused)?;
    if metadata.is_dir() {
        return Err(refused(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    let modified = metadata.modified().ok().filter(|_| metadata.is_file()).and_then(unix_time);
    read(path, Box::new(file), modified, options)
}

/// Reads from anything under a path's name.
///
/// `modified` is the time of the last change, for the year of times that have none.
///
/// # Errors
///
/// Its first bytes cannot be read.
pub fn read(
    path: &str,
    input: Box<dyn Read + Send>,
    modified: Option<Time>,
    options: &FileOptions,
) -> Result<FileReader, FileError> {
    let failed = |cause| FileError::Read { path: path.to_owned(), offset: 0, cause };
    let (magic, input) = peek(input, 8).map_err(failed)?;
    let input: Box<dyn Read + Send> = if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(65_536, input)))
    } else if is_zstd(&magic) {
        Box::new(zstd::stream::read::Decoder::new(input).map_err(failed)?)
    } else {
        input
    };
    let (magic, input) = peek(input, 8).map_err(failed)?;
    let origins = Origins::new(modified, options);
    Ok(FileReader(if magic.starts_with(b"ElfFile\0") {
        Format::Evtx(Box::new(evtx::Chunks::new(path, input, &origins)))
    } else {
        Format::Text(Box::new(frame::Frames::new(path, input, origins, options.record_bytes_max.max(1))))
    }))
}

/// A frame of data, or a skippable one before it (as `pzstd` and seekable archives write).
fn is_zstd(magic: &[u8]) -> bool {
    magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Reads the first bytes and gives them back in front of the rest. Where reading them fails after some (a damaged
/// compressed file), the error comes behind these.
fn peek(mut input: Box<dyn Read + Send>, len: u64) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let mut head = Vec::new();
    match input.by_ref().take(len).read_to_end(&mut head) {
        Ok(_) => Ok((head.clone(), Box::new(io::Cursor::new(head).chain(input)))),
        Err(error) if head.is_empty() => Err(error),
        Err(error) => Ok((head.clone(), Box::new(io::Cursor::new(head).chain(Failed(Some(error)))))),
    }
}

/// An input that has failed already.
struct Failed(Option<io::Error>);

impl Read for Failed {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

fn unix_time(time: std::time::SystemTime) -> Option<Time> {
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Time::from_micros(i64::try_from(since.as_micros()).ok()?))
}

/// What the records of one file share.
///
/// Lines without year in a file of known age are of its year, or of the year before: a file last written in January
/// has December's lines too. Which one is chosen here, once, and stored with the record.
pub(crate) struct Origins {
    /// For records whose framing succeeded, by default.
    record: Arc<Origin>,
    unframed: Arc<Origin>,
    evtx: Arc<Origin>,
    /// For lines that would lie behind the file's modification in its own year.
    year_before: Option<YearBefore>,
}

struct YearBefore {
    origin: Arc<Origin>,
    /// Month and day of the day after the modification: later lines are of the year before.
    from: (i8, i8),
}

impl Origins {
    fn new(modified: Option<Time>, options: &FileOptions) -> Origins {
        let year = options.year.or(modified.map(year_of));
        let origin = |framing, year| {
            Arc::new(Origin {
                tenant: options.tenant.clone(),
                source: Arc::clone(&options.source),
                received_at: options.received_at,
                year,
                framing,
            })
        };
        let day_after = modified.filter(|_| options.year.is_none()).and_then(|modified| {
            let day_after = jiff::Timestamp::from_microsecond(modified.plus_micros(86_400_000_000).micros()).ok()?;
            let date = day_after.to_zoned(jiff::tz::TimeZone::UTC).date();
            // On the last day of December no day of the year lies behind.
            (Some(date.year()) == year).then_some((date.month(), date.day()))
        });
        Origins {
            record: origin(Framing::Record, year),
            unframed: origin(Framing::Unframed, year),
            evtx: origin(Framing::Evtx, year),
            year_before: day_after
                .map(|from| YearBefore { origin: origin(Framing::Record, year.map(|year| year - 1)), from }),
        }
    }

    /// The origin of a line.
    fn of_line(&self, line: &[u8]) -> &Arc<Origin> {
        match &self.year_before {
            Some(before) if month_and_day(line).is_some_and(|day| day > before.from) => &before.origin,
            _ => &self.record,
        }
    }
}

/// The day of a line in syslog's old form, with or without priority.
fn month_and_day(line: &[u8]) -> Option<(i8, i8)> {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let line = match line.first() {
        Some(b'<') => line.get(line.iter().take(6).position(|byte| *byte == b'>')? + 1..)?,
        _ => line,
    };
    let name = line.get(..3)?;
    let month = MONTHS.chunks(3).position(|month| month == name)?;
    let rest = line.get(3..)?.strip_prefix(b" ")?.trim_ascii_start();
    let day = rest.iter().take(2).take_while(|byte| byte.is_ascii_digit());
    let day =
        day.fold(0_i8, |sum, digit| sum.saturating_mul(10).saturating_add(i8::try_from(digit - b'0').unwrap_or(0)));
    (day > 0).then_some((i8::try_from(month + 1).ok()?, day))
}

#[cfg(test)]
mod tests;
