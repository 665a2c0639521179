use proptest::prelude::*;

use super::*;

fn records() -> impl Strategy<Value = Record> {
    let framing =
        prop::sample::select(vec![Framing::Record, Framing::Syslog, Framing::Http, Framing::Evtx, Framing::Unframed]);
    let origin = ("[a-c]{0,2}", "\\PC{0,3}", any::<i64>(), any::<Option<i16>>(), framing);
    let position = ("\\PC{0,4}", any::<u64>(), any::<u64>(), any::<u32>());
    (origin, position, prop::collection::vec(any::<u8>(), 0..50)).prop_map(
        |((tenant, source, received, year, framing), (origin, offset, line, index), bytes)| Record {
            origin: Arc::new(Origin {
                tenant: Tenant::new(&tenant),
                source: Arc::from(source),
                received_at: Time::from_micros(received),
                year,
                framing,
            }),
            position: Position { origin: Arc::from(origin), offset, line, index },
            bytes: Bytes::from(bytes),
        },
    )
}

proptest! {
    #[test]
    fn records_come_back_alike(records in prop::collection::vec(records(), 1..8)) {
        let mut decoder = RecordDecoder::default();
        for (row, record) in (7..).zip(records) {
            let decoded = decoder.decode(row, encode(&record)).unwrap();
            let position = if record.position.origin.is_empty() {
                Position { origin: Arc::from("spool"), offset: row, line: 0, index: 0 }
            } else {
                record.position.clone()
            };
            prop_assert_eq!(decoded, Record { position, ..record });
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), version: bool) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut().filter(|_| version) {
            *first = VERSION;
        }
        drop(RecordDecoder::default().decode(0, Bytes::from(bytes)));
    }
}

#[test]
fn origins_that_follow_each_other_are_shared() {
    let origin = |received| Origin {
        tenant: Tenant::default(),
        source: Arc::from("http"),
        received_at: Time::from_micros(received),
        year: None,
        framing: Framing::Http,
    };
    let row = |received| {
        encode(&Record {
            origin: Arc::new(origin(received)),
            position: Position::default(),
            bytes: Bytes::from_static(b"{}"),
        })
    };
    let mut decoder = RecordDecoder::default();
    let decoded: Vec<_> = [1, 1, 2].into_iter().map(|time| decoder.decode(0, row(time)).unwrap()).collect();
    assert!(Arc::ptr_eq(&decoded[0].origin, &decoded[1].origin));
    assert!(!Arc::ptr_eq(&decoded[1].origin, &decoded[2].origin));
    assert!(Arc::ptr_eq(&decoded[1].origin.source, &decoded[2].origin.source));
}

#[test]
fn a_later_version_is_named() {
    assert_eq!(RecordDecoder::default().decode(0, Bytes::from_static(b"\x09...")), Err(DecodeError::Version(9)));
}
