//! The log against crashes, damage, full and failing disks.

use std::{
    collections::BTreeMap,
    future::Future,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::{Context, Poll, Wake, Waker},
};

use proptest::prelude::*;

use super::*;

fn options(segment_bytes: u64) -> LogOptions {
    LogOptions { segment_bytes, ..LogOptions::default() }
}

fn payload(row: u64) -> Bytes {
    let length = usize::try_from(row * 7 % 40).unwrap();
    let mut bytes = format!("row {row} ").into_bytes();
    bytes.resize(bytes.len() + length, b'x');
    Bytes::from(bytes)
}

fn open(dir: &Path, segment_bytes: u64) -> (Log, Recovery) {
    Log::open(dir, &options(segment_bytes)).unwrap()
}

fn append(log: &Log, rows: Range<u64>) -> Range<u64> {
    log.append(rows.map(payload).collect()).unwrap().wait().unwrap()
}

fn read_all(log: &Log) -> BTreeMap<u64, Bytes> {
    log.read(log.first_row()).unwrap().map(Result::unwrap).collect()
}

/// A log of `rows` rows in `dir`, each appended (and synced) by itself.
fn written(dir: &Path, rows: u64, segment_bytes: u64) {
    let (log, _) = open(dir, segment_bytes);
    for row in 0..rows {
        assert_eq!(append(&log, row..row + 1), row..row + 1);
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    segment::list(dir).unwrap().into_iter().map(|(_, path)| path).collect()
}

#[test]
fn rows_are_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 50, 300);
    let (log, recovery) = open(dir.path(), 300);
    assert!(recovery.is_clean());
    assert_eq!((recovery.rows.clone(), recovery.good), (0..50, 50));
    assert!(files(dir.path()).len() > 3, "several segments");
    assert_eq!(read_all(&log), (0..50).map(|row| (row, payload(row))).collect());
    assert_eq!(append(&log, 50..53), 50..53);
    let from_middle: Vec<_> = log.read(37).unwrap().map(|found| found.unwrap().0).collect();
    assert_eq!(from_middle, (37..53).collect::<Vec<_>>());
}

#[test]
fn the_index_finds_rows_in_a_long_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), 64 << 20);
    let rows: Vec<_> = (0..3_000_u64).map(|row| Bytes::from(row.to_string().repeat(100))).collect();
    assert_eq!(log.append(rows.clone()).unwrap().wait().unwrap(), 0..3_000);
    for from in [0, 1, 999, 2_999] {
        let first = log.read(from).unwrap().next().unwrap().unwrap();
        assert_eq!(first, (from, rows[usize::try_from(from).unwrap()].clone()));
    }
    drop(log);
    let (log, _) = open(dir.path(), 64 << 20);
    assert_eq!(log.read(2_500).unwrap().next().unwrap().unwrap().0, 2_500);
}

#[test]
fn a_reader_follows_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), 200);
    let mut reader = log.read(0).unwrap();
    assert!(reader.next().is_none());
    for row in 0..40 {
        append(&log, row..row + 1);
        assert_eq!(reader.next().unwrap().unwrap(), (row, payload(row)));
        assert!(reader.next().is_none());
    }
}

#[test]
fn waiting_ends_with_a_row_or_with_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), 200);
    assert_eq!(log.wait(0, Duration::from_millis(1)), 0);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| log.wait(0, Duration::from_secs(20)));
        append(&log, 0..2);
        assert_eq!(waiter.join().unwrap(), 2);
    });
    log.close();
    assert_eq!(log.wait(9, Duration::from_secs(20)), 2, "a closed log keeps nobody waiting");
    assert!(matches!(log.append(vec![payload(0)]), Err(AppendError::Closed)));
}

#[test]
fn many_senders_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let syncs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&syncs);
    let disk = Disk {
        sync: Arc::new(move |file| {
            counted.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2)); // a disk, not a page cache
            file.sync_data()
        }),
        ..Disk::default()
    };
    let (log, _) = Log::open_on(dir.path(), &options(1 << 20), disk).unwrap();
    let mut got: Vec<u64> = std::thread::scope(|scope| {
        let senders: Vec<_> =
            (0..16).map(|_| scope.spawn(|| (0..25).flat_map(|_| append(&log, 0..3)).collect::<Vec<_>>())).collect();
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
    });
    got.sort_unstable();
    assert_eq!(got, (0..16 * 25 * 3).collect::<Vec<_>>());
    assert!(syncs.load(Ordering::Relaxed) < 200, "{} syncs for 400 appends", syncs.load(Ordering::Relaxed));
}

#[test]
fn an_append_can_be_awaited() {
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), 200);
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut appended = std::pin::pin!(log.append(vec![payload(0)]).unwrap());
    loop {
        match appended.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(rows) => break assert_eq!(rows.unwrap(), 0..1),
            Poll::Pending => {
                while !flag.0.swap(false, Ordering::Acquire) {
                    std::thread::yield_now();
                }
            }
        }
    }
}

#[test]
fn only_whole_segments_are_trimmed_and_the_last_stays() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 50, 300);
    let (log, _) = open(dir.path(), 300);
    assert!(log.trim(20).unwrap() > 0);
    let floor = log.first_row();
    assert!(floor > 0 && floor <= 20);
    assert!(matches!(log.read(floor - 1), Err(LogError::Trimmed { floor: found, .. }) if found == floor));
    assert_eq!(read_all(&log).keys().copied().collect::<Vec<_>>(), (floor..50).collect::<Vec<_>>());
    log.trim(1_000).unwrap();
    assert_eq!((log.durable_end(), files(dir.path()).len()), (50, 1));
    drop(log);
    let (log, recovery) = open(dir.path(), 300);
    assert!(recovery.is_clean());
    assert_eq!(append(&log, 0..1), 50..51);
}

#[test]
fn a_full_log_refuses_until_it_is_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) =
        Log::open(dir.path(), &LogOptions { segment_bytes: 400, bytes_max: 2_000, ..LogOptions::default() }).unwrap();
    let mut rows = 0;
    let refused = loop {
        match log.append(vec![payload(rows)]) {
            Ok(appended) => rows = appended.wait().unwrap().end,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Full { bytes_max: 2_000, .. }) && refused.is_back_pressure());
    assert!(log.bytes() <= 2_000);
    log.trim(rows).unwrap();
    assert_eq!(append(&log, 0..1), rows..rows + 1);
}

/// ING-04: the disk is not filled to its end, and what others need is not taken from them.
#[test]
fn what_is_kept_free_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let room = Arc::new(AtomicBool::new(false));
    let has_room = Arc::clone(&room);
    let no_room = move |_: &Path, _: &LogOptions, _: u64| match has_room.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err(io::ErrorKind::StorageFull.into()),
    };
    let disk = Disk { room: Arc::new(no_room), ..Disk::default() };
    let (log, _) = Log::open_on(dir.path(), &options(1_000), disk).unwrap();
    let refused = log.append(vec![payload(0)]).unwrap().wait().unwrap_err();
    assert!(matches!(refused, AppendError::Write(_)) && refused.is_back_pressure() && log.is_refusing());
    assert!(files(dir.path()).is_empty());
    room.store(true, Ordering::Relaxed);
    assert_eq!(append(&log, 0..1), 0..1);
    assert!(!log.is_refusing());

    log.hold(true);
    let refused = log.append(vec![payload(1)]).unwrap_err();
    assert!(matches!(refused, AppendError::NoRoom) && refused.is_back_pressure() && log.is_refusing());
    log.hold(false);
    assert_eq!(append(&log, 1..2), 1..2);
    // More than there is can never be free: at most an eighth of the disk must be.
    let all = LogOptions { free_bytes_min: u64::MAX, ..LogOptions::default() };
    assert!(super::room(dir.path(), &all, u64::MAX).is_err());
    assert!(super::room(dir.path(), &LogOptions { free_bytes_min: 0, ..all }, 1).is_ok());
}

#[test]
fn a_failed_sync_is_never_followed_by_an_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let fail = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fail);
    let disk = Disk {
        sync: Arc::new(move |file| match failing.swap(false, Ordering::Relaxed) {
            true => Err(io::Error::other("I/O error")), // once: the next sync would say that all is well
            false => file.sync_data(),
        }),
        ..Disk::default()
    };
    let (log, _) = Log::open_on(dir.path(), &options(1 << 20), disk).unwrap();
    append(&log, 0..2);
    fail.store(true, Ordering::Relaxed);
    assert!(matches!(log.append(vec![payload(2)]).unwrap().wait(), Err(AppendError::Poisoned(_))));
    match log.append(vec![payload(3)]) {
        Err(AppendError::Poisoned(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(log.durable_end(), 2);
    assert_eq!(read_all(&log).len(), 2, "readers see nothing that is not durable");
    assert!(!log.ended().unwrap().is_back_pressure());
}

#[test]
fn a_failed_write_is_undone_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let failures = Arc::new(AtomicU64::new(0));
    let left = Arc::clone(&failures);
    let disk = Disk {
        write: Arc::new(move |file, bytes, offset| {
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.write_all_at(bytes, offset)
        }),
        ..Disk::default()
    };
    // So small that some of the failures hit the header of a new segment.
    let (log, _) = Log::open_on(dir.path(), &options(200), disk).unwrap();
    for row in 0..60 {
        failures.store(row % 3, Ordering::Relaxed);
        while let Err(error) = log.append(vec![payload(row)]).unwrap().wait() {
            assert!(error.is_back_pressure(), "{error}");
        }
    }
    drop(log);
    let (log, recovery) = open(dir.path(), 200);
    assert!(recovery.is_clean(), "{recovery:?}");
    assert_eq!(read_all(&log), (0..60).map(|row| (row, payload(row))).collect());
}

#[test]
fn numbers_below_a_reservation_are_not_given_out() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 3, 300);
    let (log, _) = open(dir.path(), 300);
    log.reserve(10);
    assert_eq!(log.durable_end(), 10);
    let mut reader = log.read(10).unwrap();
    assert!(reader.next().is_none());
    assert_eq!(append(&log, 0..2), 10..12);
    assert_eq!(reader.map(|found| found.unwrap().0).collect::<Vec<_>>(), [10, 11]);
    assert_eq!(read_all(&log).into_keys().collect::<Vec<_>>(), [0, 1, 2, 10, 11]);
}

#[test]
fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, _) = open(dir.path(), 300);
    assert!(matches!(Log::open(dir.path(), &LogOptions::default()), Err(LogError::Locked(_))));
}

#[test]
fn too_long_a_payload_is_refused_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), 300);
    let long = Bytes::from(vec![0; frame::PAYLOAD_BYTES_MAX + 1]);
    assert!(matches!(log.append(vec![payload(0), long]), Err(AppendError::TooLong { .. })));
    assert_eq!(append(&log, 0..1), 0..1);
}

#[test]
fn a_log_cut_at_any_byte_opens_to_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 12, 1 << 20);
    let file = files(dir.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let mut seen = 0;
    for cut in (0..whole.len()).rev() {
        fs::write(&file, &whole[..cut]).unwrap();
        let (log, recovery) = open(dir.path(), 1 << 20);
        let rows = read_all(&log);
        let prefix = wide(rows.len());
        assert_eq!(rows, (0..prefix).map(|row| (row, payload(row))).collect(), "cut at {cut}");
        assert_eq!(recovery.good, prefix);
        let at_border = cut >= usize::try_from(HEADER_BYTES).unwrap() && recovery.torn.is_none();
        assert!(at_border || recovery.torn.is_some() || recovery.damaged_total > 0, "cut at {cut} is reported");
        let next = append(&log, 0..1);
        assert!(next.start >= prefix, "no number twice");
        assert_eq!(log.read(next.start).unwrap().next().unwrap().unwrap(), (next.start, payload(0)));
        seen = seen.max(prefix);
        drop(log);
        clean(dir.path());
    }
    assert_eq!(seen, 11);
}

/// Removes what a test round left, so that the next begins anew.
fn clean(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

#[test]
fn one_flipped_bit_costs_one_row_at_most_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 12, 1 << 20);
    let file = files(dir.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let (mut skipped, mut torn) = (0, 0);
    for byte in 0..whole.len() {
        clean(dir.path());
        let mut flipped = whole.clone();
        flipped[byte] ^= 1 << (byte % 8);
        fs::write(&file, &flipped).unwrap();
        let (log, recovery) = open(dir.path(), 1 << 20);
        let rows = read_all(&log);
        assert!(rows.len() >= 11, "byte {byte}: {} rows left", rows.len());
        assert!(rows.iter().all(|(row, found)| *found == payload(*row)), "byte {byte}: a row was renumbered");
        // The header's copies and padding are the only bytes that may change without anybody's noticing.
        assert!(!recovery.is_clean() || byte < usize::try_from(HEADER_BYTES).unwrap(), "byte {byte} is reported");
        assert_eq!(recovery.is_clean(), rows.len() == 12);
        skipped += recovery.damaged_total;
        torn += u64::from(recovery.torn.is_some());
        assert!(append(&log, 0..1).start >= 12, "byte {byte}: a number was given out twice");
    }
    assert!(skipped > 300 && torn > 20, "{skipped} skipped, {torn} torn");
}

#[test]
fn damage_over_several_segments_is_skipped_without_renumbering() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path(), 40, 300);
    let paths = files(dir.path());
    // A burnt header, a hole of zeros, a lost file, rubbish behind the end of a full one.
    let burn = |path: &Path, range: Range<u64>| {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&vec![0; usize::try_from(range.end - range.start).unwrap()], range.start).unwrap();
    };
    burn(&paths[0], 0..HEADER_BYTES);
    burn(&paths[1], HEADER_BYTES + 3..HEADER_BYTES + 90);
    fs::remove_file(&paths[2]).unwrap();
    File::options().append(true).open(&paths[3]).unwrap().write_all(&[7; 50]).unwrap();
    let (log, recovery) = open(dir.path(), 300);
    let rows = read_all(&log);
    assert!(rows.len() > 20 && rows.len() < 40);
    assert!(rows.iter().all(|(row, found)| *found == payload(*row)));
    assert_eq!(recovery.damaged_total, 3, "{recovery:?}");
    assert_eq!(append(&log, 0..1), 40..41);
    let mut reader = log.read(log.first_row()).unwrap();
    assert_eq!(reader.by_ref().count(), rows.len() + 1);
    assert_eq!(reader.damaged(), 2);
}

#[test]
fn a_payload_cannot_forge_a_row_behind_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), 1 << 20);
    let mut forged = vec![b'-'; 10];
    frame::put(0, 1, b"I was never sent", &mut forged);
    log.append(vec![Bytes::from(forged), payload(1)]).unwrap().wait().unwrap();
    drop(log);
    let file = File::options().write(true).open(&files(dir.path())[0]).unwrap();
    file.write_all_at(&[0xff; 4], HEADER_BYTES).unwrap(); // the length, so that a search begins inside the payload
    let (log, recovery) = open(dir.path(), 1 << 20);
    assert_eq!(read_all(&log), BTreeMap::from([(1, payload(1))]));
    assert_eq!(recovery.damaged_total, 1);
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>),
    Reopen,
    CutTail(u64),
    Flip(prop::sample::Index),
    Trim(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let payloads = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..5);
    let step = prop_oneof![
        6 => payloads.prop_map(Step::Append),
        1 => Just(Step::Reopen),
        1 => (1..40_u64).prop_map(Step::CutTail),
        1 => any::<prop::sample::Index>().prop_map(Step::Flip),
        1 => any::<prop::sample::Index>().prop_map(Step::Trim),
    ];
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens, what is read is what was written under that number, in order; without damage nothing is
    /// missing; each act of damage costs few rows and is reported.
    #[test]
    fn what_is_read_is_what_was_written(steps in steps(), segment_bytes in 150..900_u64) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Some(open(dir.path(), segment_bytes).0);
        let mut model: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let (mut intact, mut flips) = (true, 0);
        for step in steps {
            match step {
                Step::Append(payloads) => {
                    let rows = payloads.iter().cloned().map(Bytes::from).collect();
                    let rows = log.as_ref().unwrap().append(rows).unwrap().wait().unwrap();
                    prop_assert!(model.keys().next_back().is_none_or(|last| *last < rows.start || rows.is_empty()));
                    prop_assert_eq!(rows.end - rows.start, wide(payloads.len()));
                    model.extend(rows.zip(payloads));
                }
                Step::Trim(index) => {
                    let log = log.as_ref().unwrap();
                    let before = log.first_row() + wide(index.index(usize::try_from(log.durable_end() + 1).unwrap()));
                    log.trim(before).unwrap();
                    let floor = log.first_row();
                    prop_assert!(floor <= before.max(floor));
                    model.retain(|row, _| *row >= floor);
                }
                Step::Reopen | Step::CutTail(_) | Step::Flip(_) => {
                    drop(log.take());
                    let damaged = damage(dir.path(), &step, flips);
                    intact &= !damaged;
                    flips += u32::from(matches!(step, Step::Flip(_)));
                    let (opened, recovery) = open(dir.path(), segment_bytes);
                    prop_assert!(!intact || recovery.is_clean(), "{recovery:?}");
                    let left = read_all(&opened);
                    if damaged {
                        let lost: Vec<_> = model.keys().filter(|row| !left.contains_key(row)).copied().collect();
                        // A file cut where a row ends looks whole: what `reserve` is for.
                        let cut = matches!(step, Step::CutTail(_));
                        prop_assert!(lost.is_empty() || !recovery.is_clean() || cut);
                        // Two flips may hit both copies of a header.
                        prop_assert!(lost.len() <= 3 || flips > 1, "{} rows lost by one act", lost.len());
                        model.retain(|row, _| left.contains_key(row));
                    }
                    log = Some(opened);
                }
            }
            let read = read_all(log.as_ref().unwrap());
            prop_assert!(read.iter().map(|(row, found)| (*row, found.to_vec())).eq(model.clone()), "{:?} against {:?}", read.keys(), model.keys());
        }
        if intact {
            let end = log.as_ref().unwrap().durable_end();
            prop_assert!(model.into_keys().eq(log.as_ref().unwrap().first_row()..end), "no number is missing");
        }
    }
}

/// Does what the step says to the files; whether that changed anything.
fn damage(dir: &Path, step: &Step, flips: u32) -> bool {
    let Some(last) = files(dir).pop() else { return false };
    let file = File::options().read(true).write(true).open(&last).unwrap();
    let bytes = file.metadata().unwrap().len();
    match step {
        Step::CutTail(cut) => {
            let cut = (*cut).min(bytes.saturating_sub(HEADER_BYTES));
            file.set_len(bytes - cut).unwrap();
            cut > 0
        }
        Step::Flip(index) => {
            let offset = index.index(usize::try_from(bytes).unwrap());
            let mut whole = fs::read(&last).unwrap();
            whole[offset] ^= 1 << (flips % 8); // another bit each time, else the second repairs the first
            fs::write(&last, whole).unwrap();
            true
        }
        Step::Reopen | Step::Append(_) | Step::Trim(_) => false,
    }
}

const CHILD: &str = "CF_SPOOL_TEST_CHILD_DIR";

/// Not a test of its own: what the child of the next one runs. It says on standard output what was acknowledged.
#[test]
fn child_appends_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let (log, _) = open(Path::new(&dir), 20_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let token = format!("{:016x}", frame::fresh_salt());
                    let rows = log.append(vec![Bytes::from(token.clone()); 3]).unwrap().wait().unwrap();
                    // One write, so that the parent sees whole lines.
                    io::stdout().write_all(format!("ACK {} {token}\n", rows.start).as_bytes()).unwrap();
                    io::stdout().flush().unwrap();
                }
            });
        }
    });
}

#[test]
fn all_that_was_acknowledged_is_there_after_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<u64, String> = BTreeMap::new();
    for kill_after in [1, 40, 7, 300, 111] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::tests::child_appends_until_it_is_killed", "--nocapture", "--test-threads=1"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        let note = |line: String, acknowledged: &mut BTreeMap<u64, String>| {
            let Some((_, ack)) = line.split_once("ACK ") else { return 0 };
            let Some((row, token)) = ack.split_once(' ').filter(|(_, token)| token.len() == 16) else { return 0 };
            acknowledged.insert(row.parse().unwrap(), token.to_owned());
            1
        };
        while seen < kill_after {
            seen += note(lines.next().unwrap().unwrap(), &mut acknowledged);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said before it died counts too.
        for line in lines.map_while(Result::ok) {
            note(line, &mut acknowledged);
        }
        let (log, recovery) = open(dir.path(), 20_000);
        assert_eq!(recovery.damaged_total, 0, "{recovery:?}");
        let rows = read_all(&log);
        for (row, token) in &acknowledged {
            for part in 0..3 {
                assert_eq!(rows.get(&(row + part)).map(|found| &found[..]), Some(token.as_bytes()), "row {row}");
            }
        }
    }
    assert!(acknowledged.len() > 400);
}

#[test]
fn a_full_disk_refuses_loses_nothing_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(dir.path())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: no permission to mount a tmpfs");
        return;
    }
    // Unmounted whatever happens.
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            drop(Command::new("umount").arg("-l").arg(&self.0).status());
        }
    }
    let mounted = Mounted(dir.path().to_owned());
    let (log, _) = open(&mounted.0, 100_000);
    let big = Bytes::from(vec![b'x'; 9_000]);
    let mut rows = 0;
    let error = loop {
        match log.append(vec![big.clone(); 3]).unwrap().wait() {
            Ok(range) => rows = range.end,
            Err(error) => break error,
        }
    };
    assert!(error.is_back_pressure() && rows > 90, "{error} after {rows} rows");
    assert_eq!(read_all(&log).len(), usize::try_from(rows).unwrap());
    log.trim(rows / 2).unwrap();
    assert_eq!(log.append(vec![big.clone(); 3]).unwrap().wait().unwrap(), rows..rows + 3);
    drop(log);
    let (log, recovery) = open(&mounted.0, 100_000);
    assert!(recovery.is_clean(), "{recovery:?}");
    assert_eq!(log.durable_end(), rows + 3);
}
