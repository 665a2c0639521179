//! The facts log against restarts, crashes between any two steps, and damage.

use std::sync::Arc;

use cf_types::{Entity, EntityKind, EventId, Group, Item, Member, Position, Tenant};
use proptest::prelude::*;

use super::*;

/// A detection at this second.
fn detection(second: i64) -> Detection {
    let text = |text: &str| Arc::<str>::from(text);
    Detection {
        tenant: Tenant::default(),
        rule: text("rule-1"),
        member: Member {
            time: Time::from_micros(second * 1_000_000 + 17),
            id: EventId([u8::try_from(second.rem_euclid(251)).unwrap(); 16]),
            declared_id: (second % 3 == 0).then(|| text(&format!("id-{second}"))),
            position: Position { origin: text("spool"), offset: u64::MAX, line: 0, index: u32::MAX },
        },
        source: text("syslog"),
        entities: vec![Entity { kind: EntityKind::Address, value: text("192.0.2.7") }],
        items: vec![Item {
            rule: text("corr-1"),
            reference: 2,
            group: Group::new([(text("user"), text("root")), (text("host"), text("web-1"))]),
            value: (second % 2 == 0).then(|| text("alice")),
        }],
    }
}

fn open(dir: &Path) -> (FactsLog, Loaded) {
    FactsLog::open(dir).unwrap()
}

fn seconds(loaded: &Loaded) -> Vec<i64> {
    let mut seconds: Vec<_> = loaded.detections.iter().map(|detection| detection.member.time.cell()).collect();
    seconds.sort_unstable();
    seconds
}

/// The seconds of epoch `e`: three hours get one each.
fn of_epoch(epoch: Epoch) -> Vec<i64> {
    let epoch = i64::try_from(epoch).unwrap();
    vec![epoch, 3_600 + epoch, 7_200 + epoch]
}

fn append(log: &FactsLog, epoch: Epoch) {
    let detections: Vec<_> = of_epoch(epoch).into_iter().map(detection).collect();
    log.append_epoch(epoch, &detections, Some(Time::from_seconds(i64::try_from(epoch).unwrap())));
}

fn wanted(epochs: std::ops::Range<Epoch>) -> Vec<i64> {
    let mut wanted: Vec<_> = epochs.flat_map(of_epoch).collect();
    wanted.sort_unstable();
    wanted
}

#[test]
fn what_was_flushed_is_there_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (log, loaded) = open(dir.path());
    assert_eq!((loaded.frontier, loaded.watermark, loaded.detections.len()), (0, None, 0));
    (1..=4).for_each(|epoch| append(&log, epoch));
    assert_eq!(log.flush(3).unwrap(), 3, "only what history has");
    drop(log);
    let (log, loaded) = open(dir.path());
    assert_eq!((loaded.frontier, loaded.watermark), (3, Some(Time::from_seconds(2))));
    assert_eq!(seconds(&loaded), wanted(1..3));
    assert_eq!(loaded.detections.iter().find(|found| found.member.time.cell() == 3_601), Some(&detection(3_601)));
    // The replay gives epochs again: those below the frontier count once.
    (1..=5).for_each(|epoch| append(&log, epoch));
    assert!(log.pending_bytes() > 0);
    assert_eq!(log.flush(Epoch::MAX).unwrap(), 6);
    assert_eq!(log.pending_bytes(), 0);
    let (_, loaded) = open(dir.path());
    assert_eq!(seconds(&loaded), wanted(1..6));
    assert!(loaded.damage.is_empty());
}

#[test]
fn epochs_without_detections_move_the_frontier() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    log.append_epoch(9, &[], Some(Time::from_seconds(5)));
    assert_eq!(log.flush(Epoch::MAX).unwrap(), 10);
    let (_, loaded) = open(dir.path());
    assert_eq!((loaded.frontier, loaded.watermark), (10, Some(Time::from_seconds(5))));
}

#[test]
fn a_crash_before_the_head_leaves_what_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    append(&log, 1);
    log.flush(Epoch::MAX).unwrap();
    let heads: Vec<_> =
        [0, 1].map(|slot| head_path(dir.path(), slot)).into_iter().filter(|path| path.exists()).collect();
    let before: Vec<_> = heads.iter().map(|path| fs::read(path).unwrap()).collect();
    (2..=3).for_each(|epoch| append(&log, epoch));
    log.flush(Epoch::MAX).unwrap();
    drop(log);
    // As if the hours had been written and the head not.
    for slot in [0, 1] {
        drop(fs::remove_file(head_path(dir.path(), slot)));
    }
    heads.iter().zip(&before).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let (log, loaded) = open(dir.path());
    assert_eq!((loaded.frontier, seconds(&loaded), loaded.damage.len()), (2, wanted(1..2), 0));
    (2..=4).for_each(|epoch| append(&log, epoch));
    log.flush(Epoch::MAX).unwrap();
    let (_, loaded) = open(dir.path());
    assert_eq!((loaded.frontier, seconds(&loaded)), (5, wanted(1..5)));
}

#[test]
fn a_torn_head_falls_back_to_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    (1..=3).for_each(|epoch| {
        append(&log, epoch);
        log.flush(Epoch::MAX).unwrap();
    });
    drop(log);
    let newest = head_path(dir.path(), 3);
    let whole = fs::read(&newest).unwrap();
    for cut in 0..whole.len() {
        fs::write(&newest, &whole[..cut]).unwrap();
        let (_, loaded) = open(dir.path());
        assert_eq!((loaded.frontier, seconds(&loaded)), (3, wanted(1..3)), "cut at {cut}");
    }
}

#[test]
fn lost_heads_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    append(&log, 1);
    log.flush(Epoch::MAX).unwrap();
    fs::remove_file(head_path(dir.path(), 1)).unwrap();
    let (log, loaded) = open(dir.path());
    assert_eq!((loaded.frontier, loaded.damage.len(), loaded.detections.len()), (0, 1, 0));
    (1..=2).for_each(|epoch| append(&log, epoch));
    log.flush(Epoch::MAX).unwrap();
    let (_, loaded) = open(dir.path());
    assert_eq!((loaded.frontier, seconds(&loaded)), (3, wanted(1..3)));
}

#[test]
fn any_flipped_bit_sinks_the_frontier_and_a_replay_heals_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    (1..=4).for_each(|epoch| append(&log, epoch));
    log.flush(Epoch::MAX).unwrap();
    drop(log);
    let path = hour_path(dir.path(), 1);
    let whole = fs::read(&path).unwrap();
    let mut lowest = Epoch::MAX;
    for byte in (0..whole.len()).step_by(3) {
        let mut flipped = whole.clone();
        flipped[byte] ^= 1 << (byte % 8);
        fs::write(&path, &flipped).unwrap();
        let (_, loaded) = open(dir.path());
        assert!(loaded.frontier < 5 && loaded.damage.len() == 1, "byte {byte}: {loaded:?}");
        assert_eq!(seconds(&loaded), wanted(1..loaded.frontier.max(1)), "byte {byte}");
        lowest = lowest.min(loaded.frontier);
    }
    assert_eq!(lowest, 0);
    let (log, loaded) = open(dir.path());
    (loaded.frontier.max(1)..=6).for_each(|epoch| append(&log, epoch));
    log.flush(Epoch::MAX).unwrap();
    let (_, loaded) = open(dir.path());
    assert_eq!((loaded.frontier, seconds(&loaded), loaded.damage.len()), (7, wanted(1..7), 0));
}

#[test]
fn a_missing_hour_is_damage_and_an_expired_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    (1..=2).for_each(|epoch| append(&log, epoch));
    log.flush(Epoch::MAX).unwrap();
    assert_eq!(log.expire(Time::from_seconds(3_600 + 99)).unwrap(), 1);
    assert!(!hour_path(dir.path(), 0).exists());
    // What comes for an expired hour is not kept.
    append(&log, 3);
    log.flush(Epoch::MAX).unwrap();
    assert!(!hour_path(dir.path(), 0).exists());
    let (_, loaded) = open(dir.path());
    let kept: Vec<_> = wanted(1..4).into_iter().filter(|second| *second >= 3_600).collect();
    assert_eq!((loaded.frontier, seconds(&loaded), loaded.damage.len()), (4, kept, 0));

    fs::remove_file(hour_path(dir.path(), 1)).unwrap();
    let (_, loaded) = open(dir.path());
    assert_eq!((loaded.frontier, loaded.detections.len(), loaded.damage.len()), (0, 0, 1));
}

#[test]
fn a_refused_write_keeps_the_epochs_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    append(&log, 1);
    fs::create_dir(hour_path(dir.path(), 1)).unwrap(); // opening it for writing fails
    // The first flush looks for excess, and finds a file that it does not know.
    assert!(log.flush(Epoch::MAX).is_err());
    assert!(log.pending_bytes() > 0);
    fs::remove_dir(hour_path(dir.path(), 1)).unwrap();
    append(&log, 2);
    assert_eq!(log.flush(Epoch::MAX).unwrap(), 3);
    let (_, loaded) = open(dir.path());
    assert_eq!(seconds(&loaded), wanted(1..3));
}

proptest! {
    #[test]
    fn numbers_come_back_alike(number: u64, signed: i64) {
        let mut out = codec::Writer::default();
        out.number(number);
        out.signed(signed);
        let bytes = out.into_bytes();
        let mut input = codec::Cursor::new(&bytes);
        prop_assert_eq!((input.number(), input.signed(), input.number()), (Some(number), Some(signed), None));
    }

    #[test]
    fn detections_come_back_alike(seconds in prop::collection::vec(any::<i32>(), 0..20)) {
        let detections: Vec<_> = seconds.into_iter().map(|second| detection(i64::from(second))).collect();
        let bytes = codec::encode(&detections.iter().collect::<Vec<_>>());
        prop_assert_eq!(codec::decode(&bytes, &mut codec::Strings::default()), Some(detections));
    }

    #[test]
    fn no_bytes_make_it_panic(cut: prop::sample::Index, flip: prop::sample::Index, bit in 0..8_u32) {
        let mut bytes = codec::encode(&[&detection(1), &detection(6)]);
        let at = flip.index(bytes.len());
        bytes[at] ^= 1 << bit;
        bytes.truncate(cut.index(bytes.len()) + 1);
        drop(codec::decode(&bytes, &mut codec::Strings::default()));
    }
}

#[test]
fn items_of_before_a_rule_began_anew_are_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path());
    for epoch in 1..=4 {
        append(&log, epoch);
    }
    log.flush(Epoch::MAX).unwrap();
    drop(log);
    let kept = |rule: &str, since: Epoch| {
        let (_, mut loaded) = open(dir.path());
        loaded.forget_before(&BTreeMap::from([(rule.to_owned(), since)]));
        assert_eq!((loaded.detections.len(), loaded.epochs.len()), (12, 12), "the pairs stay known");
        loaded.detections.iter().filter(|detection| !detection.items.is_empty()).count()
    };
    assert_eq!([kept("corr-1", 1), kept("corr-1", 3), kept("corr-1", 5), kept("other", 9)], [12, 6, 0, 12]);
}

#[test]
fn what_is_erased_is_gone_from_the_files_and_the_rest_stands() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("facts");
    let (log, _) = FactsLog::open(&place).unwrap();
    for epoch in 1..=4 {
        let detections: Vec<_> = [("bob", 0), ("ann", 5_000)].map(|(user, later)| of_user(user, epoch, later)).into();
        log.append_epoch(epoch, &detections, Some(Time::from_seconds(i64::try_from(epoch).unwrap())));
    }
    log.flush(Epoch::MAX).unwrap();
    drop(log);
    let is_bob = |detection: &Detection| detection.entities.iter().any(|entity| &*entity.value == "bob");
    assert_eq!(erase(&place, &is_bob).unwrap(), 4);
    assert_eq!(erase(&place, &is_bob).unwrap(), 0);
    let (_log, loaded) = FactsLog::open(&place).unwrap();
    assert_eq!((loaded.frontier, loaded.watermark), (5, Some(Time::from_seconds(4))));
    let mut epochs = loaded.epochs.clone();
    epochs.sort_unstable();
    assert_eq!(epochs, [1, 2, 3, 4]);
    assert!(loaded.damage.is_empty() && !loaded.detections.iter().any(is_bob));
    let bytes: Vec<u8> =
        fs::read_dir(&place).unwrap().flatten().flat_map(|file| fs::read(file.path()).unwrap()).collect();
    assert!(!bytes.windows(3).any(|window| window == b"bob"));
    assert!(!place.with_extension("new").exists());
}

fn of_user(user: &str, epoch: Epoch, later: i64) -> Detection {
    let entities = vec![Entity { kind: EntityKind::User, value: Arc::from(user) }];
    Detection { entities, ..detection(i64::try_from(epoch).unwrap() + later) }
}
