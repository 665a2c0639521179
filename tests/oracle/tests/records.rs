//! The decoder on JSON that is almost right: it takes what `serde_json` takes, and then gives the fields that the oracle
//! gives; all else goes to rejects.
//!
//! A fast reader looks at blocks of 16 to 64 bytes, so every construct is tried at every place of a block. Exceptions are
//! limits: nesting, lengths, number of fields; what an event may not be though it is JSON (no object, a time that is none);
//! and numbers beyond all floats (`1e400`), which the grammar allows and `serde_json` cannot hold. COUNTERFLOW_CASES and COUNTERFLOW_SEED set how many damaged records are tried; `scripts/campaign records` does.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::as_conversions, clippy::indexing_slicing)]

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use cf_ingest::{Decoded, Decoder, SourceTable};
use cf_oracle::{Event, Flat};
use cf_types::{Framing, Origin, Position, Record, RejectCode, Tenant, Time, field::Name};

const CASES: u64 = 60_000;

struct Check {
    decoder: Decoder,
    decoded: Decoded,
    origin: Arc<Origin>,
    valid: u64,
    invalid: u64,
    compared: u64,
}

impl Check {
    fn new() -> Check {
        let origin = Origin {
            tenant: Tenant::default(),
            source: "test".into(),
            received_at: Time::from_seconds(1_767_225_600),
            year: None,
            framing: Framing::Http,
        };
        Check {
            decoder: Decoder::new(Arc::new(SourceTable::default())),
            decoded: Decoded::default(),
            origin: Arc::new(origin),
            valid: 0,
            invalid: 0,
            compared: 0,
        }
    }

    /// One document by both ways.
    fn meet(&mut self, bytes: &[u8]) {
        if let Err(difference) = self.compare(bytes) {
            panic!("{difference}\n{}\n{bytes:?}", String::from_utf8_lossy(bytes));
        }
    }

    fn compare(&mut self, bytes: &[u8]) -> Result<(), String> {
        // Records come trimmed; the byte order mark and white space around them are no part of the document.
        let bare = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
        let serde = serde_json::from_slice::<serde_json::Value>(bare);
        let record = Record {
            origin: Arc::clone(&self.origin),
            position: Position::default(),
            bytes: Bytes::copy_from_slice(bytes),
        };
        self.decoded.clear();
        self.decoder.decode(&record, &mut self.decoded);
        let broken = |code: RejectCode| matches!(code, RejectCode::InvalidJson | RejectCode::InvalidUtf8);
        let limit = |code: RejectCode| matches!(code, RejectCode::TooDeep | RejectCode::TooLong | RejectCode::Empty);
        let Decoded { events, rejects, .. } = &self.decoded;
        match serde {
            Ok(_) => {
                self.valid += 1;
                if let Some(reject) = rejects.iter().find(|reject| broken(reject.code)) {
                    return Err(format!("JSON, but refused: {}", reject.reason));
                }
            }
            Err(error) if error.to_string().starts_with("number out of range") => {}
            Err(error) => {
                self.invalid += 1;
                let refused = rejects.iter().any(|reject| broken(reject.code) || limit(reject.code));
                if !events.is_empty() || !refused {
                    return Err(format!("no JSON ({error}), but {} events and {rejects:?}", events.len()));
                }
            }
        }
        let (Flat::Event(flat), [event]) = (cf_oracle::flatten(bare), events.as_slice()) else { return Ok(()) };
        self.compared += 1;
        let ours = Event::of(event);
        let (left, right) = (ours.asked_for(), flat.asked_for());
        if left != right {
            return Err(format!("fields differ: {:?}", left.symmetric_difference(&right).collect::<Vec<_>>()));
        }
        if ours.log_source != flat.log_source {
            return Err(format!("log sources differ: {:?} {:?}", ours.log_source, flat.log_source));
        }
        Ok(())
    }
}

/// Asks for all fields of a document, so that their names are compared.
fn ask_for_fields(document: &[u8]) {
    if let Flat::Event(event) = cf_oracle::flatten(document) {
        let _names = Name::intern_all(event.fields.iter().map(|field| field.name.as_str()));
    }
}

/// Values, good and bad ones, each as it may stand behind a colon. After JSONTestSuite's cases (Seriot, 2016).
const VALUES: &[&[u8]] = &[
    br#""""#,
    br#""a""#,
    br#""\"""#,
    br#""\\""#,
    br#""\\\"""#,
    br#""\\\\""#,
    br#""\\\\\"x""#,
    br#""\/\b\f\n\r\t""#,
    br#""\u0041\u00e9\u4e2d""#,
    br#""\u0000""#,
    br#""\uD83D\uDE00""#,
    br#""\ud83d\ude00\ud83d\ude00""#,
    "\"é中😀\u{7f}\u{2028}\u{feff}\"".as_bytes(),
    b"0",
    b"-0",
    b"-1",
    b"1.5",
    b"1.10",
    b"1e5",
    b"1E+5",
    b"-1.5e-5",
    b"0e1",
    b"0.0",
    b"-0.0",
    b"123456789012345678",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775809",
    b"123456789012345678901234567890",
    b"0.1234567890123456789",
    b"1700759035.6624937",
    b"2.2250738585072014e-308",
    b"1e-400",
    b"true",
    b"false",
    b"null",
    b"[]",
    b"{}",
    b"[[],{}]",
    br#"[1,"a",null,[true]]"#,
    br#"{"a":{"b":[1,{"c":2}]}}"#,
    br#"{"a":1,"a":2}"#,
    br#"{"":1}"#,
    br#"{"a\"b\\":1,"\u0061":2}"#,
    b" \t\r\n 1 \t\r\n ",
    br#"[ ]"#,
    br#"{ }"#,
    // None of these is JSON.
    b"",
    b" ",
    br#"""#,
    br#""a"#,
    br#""\""#,
    br#""\\\""#,
    br#""\x""#,
    br#""\a""#,
    br#""\0""#,
    br#""\'""#,
    br#""\u""#,
    br#""\u12""#,
    br#""\u123g""#,
    br#""\U0041""#,
    br#""\ud83d""#,
    br#""\ud83dx""#,
    br#""\ud83d\n""#,
    br#""\ud83d\u0041""#,
    br#""\ud83d\ud83d""#,
    br#""\ude00""#,
    b"\"\n\"",
    b"\"\t\"",
    b"\"\x00\"",
    b"\"\x1f\"",
    b"\"\xff\"",
    b"\"\xc3\"",
    b"\"\xc0\xaf\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xf4\x90\x80\x80\"",
    b"\"\xe4\xb8\"",
    b"'a'",
    b"a",
    b"\"a\"b",
    b"\"a\"\"b\"",
    b"\"a\" 1",
    b"01",
    b"-01",
    b"-",
    b"--1",
    b"+1",
    b".5",
    b"1.",
    b"1.e1",
    b"1e",
    b"1e+",
    b"1ea",
    b"1.5.5",
    b"0x10",
    b"1_000",
    b"1 2",
    b"1a",
    b"1e400",
    b"-1e400",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"tru",
    b"truee",
    b"True",
    b"TRUE",
    b"fals",
    b"nul",
    b"nulll",
    b"null1",
    b"true false",
    b"[",
    b"]",
    b"[1",
    b"[1,]",
    b"[,1]",
    b"[1,,2]",
    b"[1 2]",
    b"[1}",
    b"[:]",
    b"[\"a\":1]",
    b"{",
    b"{\"a\"",
    b"{\"a\":",
    b"{\"a\":}",
    b"{\"a\":1",
    b"{\"a\":1,}",
    b"{,}",
    b"{\"a\" 1}",
    b"{\"a\"::1}",
    b"{\"a\",1}",
    b"{a:1}",
    b"{1:1}",
    b"{null:1}",
    b"{[]:1}",
    b"{\"a\":1]",
    b"{\"a\":1 \"b\":2}",
    b"{\"a\":1,,\"b\":2}",
    b"{\"a\":1}}",
    b"[]]",
    b"/**/1",
    b"1//",
    b"#1",
    b"\x0c1",
    b"\x0b1",
    b"\xc2\xa01",
    b"\xef\xbb\xbf1",
    b"\xe2\x80\x831",
    b"1\x00",
    b"\x00",
    b"1,",
    b":1",
    b"\\u0031",
    b"[\"\\\"]",
    b"1e1.5",
    b"[1]\n[2]",
];

#[test]
fn every_construct_at_every_place_of_a_block() {
    ask_for_fields(br#"{"p":1,"v":1,"w":1,"v.a":1,"v.a.b":1,"v.a.b.c":1}"#);
    let mut check = Check::new();
    for pad in 0..=70 {
        let filler = "x".repeat(pad);
        for value in VALUES {
            for tail in
                [&b""[..], b",\"w\":\"tail\"", b",\"w\":\"a longer tail that reaches into the next block of 64 bytes\""]
            {
                let document = [b"{\"p\":\"", filler.as_bytes(), b"\",\"v\":", value, tail, b"}"].concat();
                check.meet(&document);
            }
        }
    }
    // The same values as a whole document, as a name, and behind a run of backslashes.
    for value in VALUES {
        check.meet(value);
        check.meet(&[b"{", *value, b":1}"].concat());
        check.meet(&[b"[{\"v\":", *value, b"}]"].concat());
    }
    for backslashes in 0..140 {
        for tail in ["\"}", "\",\"v\":1}", "}", "\\\"\"}"] {
            check.meet(format!("{{\"p\":\"{}{tail}", "\\".repeat(backslashes)).as_bytes());
        }
    }
    eprintln!("{} valid, {} not, {} compared", check.valid, check.invalid, check.compared);
    assert!(check.valid > 1_000 && check.invalid > 1_000 && check.compared > 1_000);
}

#[test]
fn every_byte_of_a_record_replaced_dropped_and_doubled() {
    let document = br##"{"Event":{"System":{"Provider":{"#attributes":{"Name":"S"}},"EventID":1,"Channel":"C\\D"},"EventData":{"A":"x\"\u00e9","B":[-1.5,true,null],"C":"","Path":"C:\\W\\"}}}"##;
    ask_for_fields(document);
    let mut check = Check::new();
    for at in 0..document.len() {
        let mut damaged = document.to_vec();
        for byte in 0..=255 {
            damaged[at] = byte;
            check.meet(&damaged);
        }
        let (before, behind) = document.split_at(at);
        check.meet(before);
        check.meet(&[before, &behind[1..]].concat());
        for byte in b"\"\\{}[]:, \n\0x0-e.\x80\xff".iter() {
            check.meet(&[before, &[*byte], behind].concat());
        }
    }
    eprintln!("{} valid, {} not, {} compared", check.valid, check.invalid, check.compared);
    assert!(check.valid > 1_000 && check.invalid > 1_000 && check.compared > 1_000);
}

/// Numbers from a seed (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, of: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % of.max(1)
    }
}

/// One to three damages, mostly of the kind that changes structure.
fn damaged(document: &[u8], random: &mut Random) -> Vec<u8> {
    const STRUCTURE: &[u8] = b"\"\"\"\\\\{}[]:,, \n\t0123456789-+.eEtfnu/\x00\x1f\x7f\x80\xbf\xc3\xe4\xf0\xff";
    let mut out = document.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(out.len());
        let byte = STRUCTURE[random.below(STRUCTURE.len())];
        let Some(place) = out.get_mut(at) else { break };
        match random.below(8) {
            0 => *place ^= 1 << random.below(8),
            1 => *place = byte,
            2 => out.truncate(at),
            3 => out.insert(at, byte),
            4 => drop(out.remove(at)),
            5 => {
                // A structural byte nearby, so that nesting changes.
                let near = out[at..].iter().position(|byte| b"\"\\{}[]:,".contains(byte));
                if let Some(near) = near {
                    out[at + near] = byte;
                }
            }
            6 => {
                let end = (at + random.below(80)).min(out.len());
                let piece = out[at..end].to_vec();
                let to = random.below(out.len());
                out.splice(to..to, piece);
            }
            _ => {
                let end = (at + random.below(40)).min(out.len());
                out.drain(at..end);
            }
        }
    }
    out
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Some records of each kind of the given data, and some of our own where it is absent.
fn records() -> Vec<Vec<u8>> {
    let root = std::env::var("COUNTERFLOW_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared").to_owned());
    let events = Path::new(&root).join("data/events");
    let mut records: Vec<Vec<u8>> = VALUES.iter().map(|value| [b"{\"v\":", *value, b"}"].concat()).collect();
    for (file, step) in [("evtx_attack_samples.jsonl.zst", 41), ("otrf_aws_cloudtrail.jsonl", 11)] {
        let Ok(bytes) = std::fs::read(events.join(file)) else {
            eprintln!("skipped: {file} is not there");
            continue;
        };
        let plain = if file.ends_with(".zst") { zstd::decode_all(bytes.as_slice()).unwrap() } else { bytes };
        let lines = plain.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        records.extend(lines.step_by(step).map(<[u8]>::to_vec));
    }
    records
}

#[test]
fn damaged_records_are_taken_exactly_if_they_are_json() {
    let (cases, seed) = (setting("COUNTERFLOW_CASES", CASES), setting("COUNTERFLOW_SEED", 1));
    eprintln!("{cases} cases with seed {seed}");
    let records = records();
    records.iter().for_each(|record| ask_for_fields(record));
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut check = Check::new();
    records.iter().for_each(|record| check.meet(record));
    for _ in 0..cases {
        let record = &records[random.below(records.len())];
        check.meet(&damaged(record, &mut random));
    }
    eprintln!("{} valid, {} not, {} compared", check.valid, check.invalid, check.compared);
    assert!(check.valid * 100 > cases && check.invalid * 10 > cases);
}

#[test]
fn short_texts_of_structure_only() {
    let mut random = Random(setting("COUNTERFLOW_SEED", 1) | 1);
    let pieces: [&[u8]; 22] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b"\"",
        b"\\",
        b"\"a\"",
        b"\"b\"",
        b"\"\\\"\"",
        b"1",
        b"-",
        b".5",
        b"e1",
        b"true",
        b"null",
        b" ",
        b"\n",
        b"\"a\":",
        b"{\"a\":1}",
        b"x",
    ];
    let mut check = Check::new();
    for _ in 0..setting("COUNTERFLOW_CASES", CASES) * 4 {
        let mut document = b"{\"a\":".to_vec();
        for _ in 0..random.below(7) {
            document.extend_from_slice(pieces[random.below(pieces.len())]);
        }
        document.push(b'}');
        check.meet(&document);
    }
    eprintln!("{} valid, {} not, {} compared", check.valid, check.invalid, check.compared);
    assert!(check.valid > 1_000 && check.invalid > 1_000);
}

/// Found by the campaign: what is in a member without a name was read as if it stood around it.
#[test]
fn what_is_in_a_member_without_a_name_is_not_at_the_root() {
    let system = r#""System":{"Channel":"Security","EventID":1}"#;
    let records = [
        r#"{"":{"User":"a"}}"#.to_owned(),
        r#"{"":[{"User":"a"},{"":{"User":"b"}}],"User":"c"}"#.to_owned(),
        format!(r#"{{"Event":{{{system},"":{{"User":"a"}}}}}}"#),
        format!(r#"{{"Event":{{{system},"EventData":{{"":{{"User":"a"}},"User":{{"":"b"}}}}}}}}"#),
    ];
    records.iter().for_each(|record| ask_for_fields(record.as_bytes()));
    let mut check = Check::new();
    records.iter().for_each(|record| check.meet(record.as_bytes()));
    assert_eq!(check.compared, 4);
}
