use std::io::{self, Read, Write};

use cf_types::Framing;
use expect_test::{Expect, expect};

use super::*;

/// Reads `input` and shows each record as `line@offset framing text`.
fn show(input: &[u8], record_bytes_max: usize) -> String {
    let options = FileOptions { record_bytes_max, ..FileOptions::new("2026-01-05T14:00:00Z".parse().unwrap()) };
    let reader = read("f", Box::new(io::Cursor::new(input.to_vec())), None, &options).unwrap();
    let mut out = String::new();
    for record in reader {
        match record {
            Ok(record) => {
                let kind = match record.origin.framing {
                    Framing::Unframed => "!",
                    _ => " ",
                };
                let text = String::from_utf8_lossy(&record.bytes).replace('\n', "\\n").replace('\0', "\\0");
                out += &format!("{}@{}{kind}{text}\n", record.position.line, record.position.offset);
            }
            Err(error) => out += &format!("error: {error}\n"),
        }
    }
    out
}

#[track_caller]
fn check(input: &str, expect: Expect) {
    expect.assert_eq(&show(input.as_bytes(), 64));
}

#[test]
fn lines_of_text() {
    check(
        "a\nb\r\n\n  \n c",
        expect![[r#"
        1@0 a
        2@2 b
        5@9  c
    "#]],
    );
}

#[test]
fn lines_of_json_and_text_mixed() {
    check(
        "{\"a\":1}\nplain {x}\n{\"b\":\"}{\"}\r\n[error] no list\n[1]\n",
        expect![[r#"
        1@0 {"a":1}
        2@8 plain {x}
        3@18 {"b":"}{"}
        4@30 [error] no list
        5@47!1
    "#]],
    );
}

#[test]
fn documents_one_after_another_and_over_lines() {
    check(
        "{\"a\":1}{\"b\":2} {\"c\":\n{\n\"d\": \"}\"}\n}\n{\"e\":5},\n{\"f\":6}",
        expect![[r#"
        1@0 {"a":1}
        1@7 {"b":2}
        1@15 {"c":\n{\n"d": "}"}\n}
        5@35 {"e":5}
        6@44 {"f":6}
    "#]],
    );
}

#[test]
fn arrays_are_read_element_by_element() {
    check(
        "[{\"a\":1}, {\"b\":\n2}\n,3]\n[]\n[\n  {\"c\":3}\n]\n",
        expect![[r#"
        1@1 {"a":1}
        1@10 {"b":\n2}
        3@20!3
        6@30 {"c":3}
    "#]],
    );
}

#[test]
fn a_broken_document_is_one_record_and_costs_no_other() {
    check(
        "{\"a\":1\n{\"b\":2}\n{\"c\": tru\n{\"d\":{\"x\":1}}\n{\"e\":\n{\"f\":3}\n{\"g\":4}\n",
        expect![[r#"
        1@0!{"a":1
        2@7 {"b":2}
        3@15!{"c": tru
        4@25 {"d":{"x":1}}
        5@39!{"e":
        6@45 {"f":3}
        7@53 {"g":4}
    "#]],
    );
    check(
        "{\"a\": \"x\ny\"}\n{\"b\":2} tail\nz",
        expect![[r#"
        1@0!{"a": "x
        2@9 y"}
        3@13 {"b":2}
        3@20! tail
        4@26 z
    "#]],
    );
    check(
        "{\n \"a\": 1\n \"b\": 2\n}\n{\"c\":3}",
        expect![[r#"
        1@0!{\n "a": 1\n "b": 2
        4@18 }
        5@20 {"c":3}
    "#]],
    );
    check(
        "[{\"a\":1},",
        expect![[r#"
        1@1 {"a":1}
        1@0![
    "#]],
    );
    check(
        "{\"a\":",
        expect![[r#"
        1@0!{"a":
    "#]],
    );
}

#[test]
fn what_is_too_long_is_cut_and_the_rest_read_on() {
    let long = "x".repeat(500_000);
    let input = format!("{long}\n{{\"a\":\"{long}\"}}{{\"b\":2}}\n{{\"c\":\n[{long}\nend");
    let shown = show(input.as_bytes(), 64).replace(&"x".repeat(50), "~");
    expect![[r#"
        1@0!~xxxxxxxxxxxxxxx
        2@500001!{"a":"~xxxxxxxxx
        2@1000009 {"b":2}
        3@1000017!{"c":
        4@1000023![~xxxxxxxxxxxxxx
        5@1500025 end
    "#]]
    .assert_eq(&shown);
}

#[test]
fn a_byte_order_mark_and_nul_bytes_are_no_harm() {
    check(
        "\u{feff}{\"a\":1}\na\0b\n",
        expect![[r#"
        1@3 {"a":1}
        2@11 a\0b
    "#]],
    );
}

#[test]
fn compressed_files_show_by_their_first_bytes() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(b"a\nb\n").unwrap();
    let mut gz = gz.finish().unwrap();
    gz.extend(gz.clone());
    assert_eq!(show(&gz, 64), "1@0 a\n2@2 b\n3@4 a\n4@6 b\n");
    let mut zst = zstd::encode_all(&b"a\n"[..], 1).unwrap();
    zst.extend(zstd::encode_all(&b"b\n"[..], 1).unwrap());
    assert_eq!(show(&zst, 64), "1@0 a\n2@2 b\n");
    zst.truncate(zst.len() - 3);
    let shown = show(&zst, 64);
    assert!(shown.starts_with("1@0 a\n") && shown.contains("error: could not read \"f\""), "{shown}");
}

#[test]
fn a_file_of_january_has_december_of_the_year_before() {
    let options = FileOptions::new("2026-01-05T14:00:00Z".parse().unwrap());
    let text = "Dec 31 23:59:59 h a: x\n<34>Jan  1 00:00:00 h a: y\nJan  2 00:00:00 h a: z\n";
    let year = |modified: &str, options: &FileOptions| -> Vec<_> {
        let input = Box::new(io::Cursor::new(text));
        let reader = read("f", input, Some(modified.parse().unwrap()), options).unwrap();
        reader.map(|record| record.unwrap().origin.year.unwrap()).collect()
    };
    assert_eq!(year("2024-01-02T03:00:00Z", &options), [2023, 2024, 2024]);
    assert_eq!(year("2023-12-31T23:59:59Z", &options), [2023, 2023, 2023]);
    assert_eq!(year("2024-01-02T03:00:00Z", &FileOptions { year: Some(2020), ..options }), [2020, 2020, 2020]);
}

#[test]
fn missing_files_and_folders_are_errors() {
    let options = FileOptions::new(Time::default());
    assert_eq!(open("/no/such", &options).err().unwrap().to_string(), "could not open \"/no/such\"");
    assert!(open("/tmp", &options).is_err());
}

/// A hundred megabytes in one line, without holding them.
#[test]
fn a_line_of_100_mb_costs_bounded_memory() {
    struct Endless(u64);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = usize::try_from(self.0).unwrap().min(buffer.len());
            buffer[..len].fill(b'x');
            self.0 -= u64::try_from(len).unwrap();
            Ok(len)
        }
    }
    let input = Endless(100 << 20).chain(io::Cursor::new(b"\nafter\n"));
    let options = FileOptions::new(Time::default());
    let mut reader = read("f", Box::new(input), None, &options).unwrap();
    let first = reader.next().unwrap().unwrap();
    assert_eq!((first.bytes.len(), first.origin.framing), ((1 << 20) + 1, Framing::Unframed));
    let Format::Text(frames) = &reader.0 else { panic!() };
    assert!(frames.held() < 2 << 20);
    assert_eq!(&*reader.next().unwrap().unwrap().bytes, b"after");
    assert!(reader.next().is_none());
}

proptest::proptest! {
    /// Every byte that is no white space (or array punctuation) comes out, in order, whatever the input.
    #[test]
    fn nothing_is_lost_and_nothing_loops(input in "([a{}\\[\\]\",: \n\\\\1]|\\{\"a\":1\\}){0,60}") {
        let shown = show(input.as_bytes(), 16);
        let letters = |text: &str| text.chars().filter(|c| matches!(c, 'a' | '1' | '{' | '}')).count();
        let given: usize = shown.lines().map(|line| letters(line.split_once('@').unwrap().1.trim_start_matches(|c: char| c.is_ascii_digit()))).sum();
        // Cut records lose what is beyond the cut.
        if input.len() <= 16 {
            proptest::prop_assert!(given >= letters(&input), "{input:?}\n{shown}");
        }
    }
}
