//! Compiled rules, and scans that end.
//!
//! In: a value or a file's bytes. Out: the rules it fulfils. All rules are one scanner, so a value is scanned once for
//! all of them; each thread remembers the last few values, because several rules ask of the same one.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use boreal::scanner::{ScanError, ScanParams, ScanResult};
use cf_sigma::rule::ValueTest;

/// What a set of YARA rules may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a value that are scanned; what is behind is not looked at, and that is counted.
    pub value_bytes_max: usize,
    /// How long one scan may take. Only a rule (a loop, an expression) made for it comes near.
    pub scan_time: Duration,
    /// Rules in all texts.
    pub rules_max: usize,
    /// Strings in all rules: what the compiled size grows with.
    pub strings_max: usize,
    /// Bytes of all texts.
    pub text_bytes_max: usize,
}

impl Default for Limits {
    /// A value of 1 MiB takes some milliseconds; half a second is out of reach even on a busy machine, so that a result
    /// does not depend on its load. The public collections have some 20,000 rules with 150,000 strings.
    fn default() -> Limits {
        Limits {
            value_bytes_max: 1 << 20,
            scan_time: Duration::from_millis(500),
            rules_max: 50_000,
            strings_max: 500_000,
            text_bytes_max: 64 << 20,
        }
    }
}

/// What scans of this process came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Values and files scanned.
    pub scans_total: u64,
    /// Of these, values of which only the first part was scanned.
    pub cut_total: u64,
    /// Of these, scans that were ended by the limit of time: rules not decided by then count as not fulfilled.
    pub timeouts_total: u64,
    /// Of these, scans in which the engine failed: no rule counts as fulfilled.
    pub failures_total: u64,
}

static SCANS: AtomicU64 = AtomicU64::new(0);
static CUT: AtomicU64 = AtomicU64::new(0);
static TIMEOUTS: AtomicU64 = AtomicU64::new(0);
static FAILURES: AtomicU64 = AtomicU64::new(0);

/// The counters of this process.
#[must_use]
pub fn counters() -> Counters {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Counters {
        scans_total: read(&SCANS),
        cut_total: read(&CUT),
        timeouts_total: read(&TIMEOUTS),
        failures_total: read(&FAILURES),
    }
}

/// Compiled rules.
#[derive(Debug)]
pub struct Engine {
    /// Unlike that of any other engine of this process: a thread's memory may outlive one.
    number: u64,
    scanner: boreal::Scanner,
    /// The same with all matches of all strings, for people.
    thorough: boreal::Scanner,
    by_name: HashMap<String, u32>,
    limits: Limits,
}

/// What one scan found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The rules that hold, in the order of the texts.
    pub found: Vec<Found>,
    /// Whether only the first part was scanned.
    pub cut: bool,
    /// Whether it was ended by the limit of time.
    pub timed_out: bool,
    /// Whether the engine failed.
    pub failed: bool,
}

/// A rule that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its place in [`crate::Read::rules`].
    pub rule: usize,
    /// The strings that were found.
    pub strings: Vec<FoundString>,
}

/// Where a string was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundString {
    /// Its name, without `$`.
    pub name: String,
    /// Bytes before it.
    pub offset: usize,
    /// Its bytes, the first of them if they are many.
    pub bytes: Vec<u8>,
}

/// Places of one string that are counted in a value (`#a`). An expression without a literal is sought anew from behind
/// the begin of each place, to the value's end if it likes, and the engine looks at its clock only in between; so this
/// bounds what a careless expression costs on a value made for it.
const VALUE_MATCHES_MAX: u32 = 250;
/// Places of strings told of one rule.
const STRINGS_SHOWN_MAX: usize = 100;
/// Bytes of a string that are told.
const STRING_BYTES_SHOWN_MAX: usize = 256;

/// A rule as it is known inside: the file's number and the name, which is unique only there.
pub(crate) fn inner_name(file: usize, rule: &str) -> String {
    format!("{file}/{rule}")
}

impl Engine {
    pub(crate) fn new(compiler: boreal::Compiler, by_name: HashMap<String, u32>, limits: &Limits) -> Engine {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let params = ScanParams::default().timeout_duration(Some(limits.scan_time));
        let mut scanner = compiler.finalize();
        scanner.set_scan_params(params.clone().string_max_nb_matches(VALUE_MATCHES_MAX));
        let mut thorough = scanner.clone();
        thorough.set_scan_params(params.compute_full_matches(true).match_max_length(STRING_BYTES_SHOWN_MAX));
        Engine { number: NUMBER.fetch_add(1, Ordering::Relaxed), scanner, thorough, by_name, limits: *limits }
    }

    /// How many rules it has, those that others refer to (private ones) not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Scans bytes as they are, all of them: a file, whose size its reader has bounded.
    #[must_use]
    pub fn scan(&self, bytes: &[u8]) -> Scan {
        let mut scan = self.scan_with(&self.thorough, bytes, |found, rule| {
            let strings = found.matches.iter().flat_map(|string| {
                string.matches.iter().map(|place| FoundString {
                    name: string.name.to_owned(),
                    offset: place.offset,
                    bytes: place.data.to_vec(),
                })
            });
            Found { rule, strings: strings.take(STRINGS_SHOWN_MAX).collect() }
        });
        scan.found.sort_by_key(|found| found.rule);
        scan
    }

    fn scan_with(
        &self,
        scanner: &boreal::Scanner,
        bytes: &[u8],
        make: impl Fn(&boreal::scanner::EvaluatedRule<'_>, usize) -> Found,
    ) -> Scan {
        SCANS.fetch_add(1, Ordering::Relaxed);
        let collect = |result: ScanResult<'_>| -> Vec<Found> {
            let named = result.rules.iter().filter_map(|rule| {
                let number = *self.by_name.get(&format!("{}/{}", rule.namespace, rule.name))?;
                Some(make(rule, usize::try_from(number).ok()?))
            });
            named.collect()
        };
        // The engine reads executables and expressions that an attacker wrote. A panic in there must not end ours.
        let result = catch_unwind(AssertUnwindSafe(|| match scanner.scan_mem(bytes) {
            Ok(result) => Scan { found: collect(result), ..Scan::default() },
            Err((error, result)) => {
                let timed_out = matches!(error, ScanError::Timeout);
                Scan { found: collect(result), timed_out, failed: !timed_out, cut: false }
            }
        }));
        let scan = result.unwrap_or(Scan { failed: true, ..Scan::default() });
        TIMEOUTS.fetch_add(u64::from(scan.timed_out), Ordering::Relaxed);
        FAILURES.fetch_add(u64::from(scan.failed), Ordering::Relaxed);
        scan
    }

    /// The rules that a field's value fulfils, sorted; `content` if it may be a file in base64.
    fn hits(&self, value: &str, content: bool) -> Arc<[u32]> {
        MEMORY.with_borrow_mut(|memory| {
            if let Some(known) = memory.get(self.number, content, value.as_bytes()) {
                return known;
            }
            let hits = self.hits_of(value.as_bytes(), content);
            memory.put(self.number, content, value.as_bytes(), &hits);
            hits
        })
    }

    fn hits_of(&self, value: &[u8], content: bool) -> Arc<[u32]> {
        let decoded = if content { decode(value) } else { None };
        let mut hits: Vec<u32> = Vec::new();
        for bytes in [Some(value), decoded.as_deref()].into_iter().flatten() {
            let part = bytes.get(..self.limits.value_bytes_max).unwrap_or(bytes);
            CUT.fetch_add(u64::from(part.len() < bytes.len()), Ordering::Relaxed);
            let scan = self.scan_with(&self.scanner, part, |_, rule| Found { rule, strings: Vec::new() });
            hits.extend(scan.found.iter().filter_map(|found| u32::try_from(found.rule).ok()));
        }
        hits.sort_unstable();
        hits.dedup();
        hits.into()
    }
}

/// Less is rather a word than a file.
const BASE64_BYTES_MIN: usize = 16;

/// What a text in base64 (either alphabet, padded or not, lines broken or not) stands for.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let packed: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if packed.len() < BASE64_BYTES_MIN {
        return None;
    }
    let alphabet = if packed.iter().any(|byte| matches!(byte, b'-' | b'_')) { &URL_SAFE } else { &STANDARD };
    GeneralPurpose::new(alphabet, LENIENT).decode(packed).ok()
}

/// One rule, asked of one value.
#[derive(Debug)]
pub(crate) struct YaraTest {
    engine: Arc<Engine>,
    rule: u32,
    content: bool,
    key: String,
    necessary: Option<Vec<String>>,
}

impl YaraTest {
    pub(crate) fn new(engine: &Arc<Engine>, rule: u32, content: bool, necessary: Option<Vec<String>>) -> YaraTest {
        let key = format!("yara {}/{rule}{}", engine.number, if content { " content" } else { "" });
        // What base64 hides is not in the text.
        let necessary = necessary.filter(|_| !content);
        YaraTest { engine: Arc::clone(engine), rule, content, key, necessary }
    }
}

impl ValueTest for YaraTest {
    fn fits(&self, value: &str) -> bool {
        self.engine.hits(value, self.content).binary_search(&self.rule).is_ok()
    }

    fn key(&self) -> &str {
        &self.key
    }

    fn necessary(&self) -> Option<Vec<String>> {
        self.necessary.clone()
    }
}

/// Values that a thread remembers.
const VALUES_KEPT: usize = 8;
/// Bytes of them in all.
const VALUE_BYTES_KEPT: usize = 4 << 20;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// The last values, with what they fulfil. Compared byte for byte: nobody can make two values look alike.
#[derive(Default)]
struct Memory(VecDeque<Remembered>);

struct Remembered {
    engine: u64,
    content: bool,
    value: Box<[u8]>,
    hits: Arc<[u32]>,
}

impl Memory {
    fn get(&self, engine: u64, content: bool, value: &[u8]) -> Option<Arc<[u32]>> {
        let same = |known: &&Remembered| known.engine == engine && known.content == content && *known.value == *value;
        self.0.iter().find(same).map(|known| Arc::clone(&known.hits))
    }

    fn put(&mut self, engine: u64, content: bool, value: &[u8], hits: &Arc<[u32]>) {
        if value.len() > VALUE_BYTES_KEPT {
            return;
        }
        self.0.push_front(Remembered { engine, content, value: value.into(), hits: Arc::clone(hits) });
        let mut bytes = 0;
        let within = |known: &Remembered| {
            bytes += known.value.len();
            bytes <= VALUE_BYTES_KEPT
        };
        let kept = self.0.iter().take(VALUES_KEPT).map(within).take_while(|within| *within).count();
        self.0.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_in_its_usual_forms() {
        let text = b"evil payload \xff\xfe";
        for form in ["ZXZpbCBwYXlsb2FkIP/+", "ZXZpbCBw\r\nYXlsb2FkIP/+\n", "ZXZpbCBwYXlsb2FkIP_-"] {
            assert_eq!(decode(form.as_bytes()).as_deref(), Some(&text[..]), "{form}");
        }
        assert_eq!(decode(b"ZXZpbCBwYXlsb2FkIQ"), decode(b"ZXZpbCBwYXlsb2FkIQ=="));
        assert_eq!(decode(b"cmd"), None);
        assert_eq!(decode(b"powershell.exe -enc x y z"), None);
    }

    #[test]
    fn memory_is_bounded_and_exact() {
        let hits: Arc<[u32]> = Arc::from([1]);
        let mut memory = Memory::default();
        for value in 0..20_u8 {
            memory.put(0, false, &[value], &hits);
        }
        assert_eq!(memory.0.len(), VALUES_KEPT);
        assert!(memory.get(0, false, &[19]).is_some() && memory.get(0, false, &[0]).is_none());
        assert!(memory.get(1, false, &[19]).is_none() && memory.get(0, true, &[19]).is_none());
        memory.put(0, false, &vec![0; VALUE_BYTES_KEPT], &hits);
        assert_eq!(memory.0.len(), 1);
        memory.put(0, false, &vec![0; VALUE_BYTES_KEPT + 1], &hits);
        assert_eq!(memory.0.len(), 1);
    }
}
