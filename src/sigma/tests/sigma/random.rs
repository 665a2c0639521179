//! Random rules over the whole grammar on random records, from bytes to hits: decoder and matcher against the oracle.
//!
//! Rules and records draw their values from the same few atoms, so that they often meet: pieces that differ in case or in
//! one character, letters with odd cases, escapes, dashes, paddings around the widths of vector registers.
//! COUNTERFLOW_CASES sets how many (rule set, records) are tried; `scripts/campaign rules` does.

use std::{cell::RefCell, collections::BTreeSet, fmt::Write, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use cf_ingest::{Decoded, Decoder, SourceTable};
use cf_oracle::{Flat, Oracle};
use cf_sigma::{Options, RuleSet, Scanner, Severity, parse};
use cf_types::{Framing, Origin, Position, Record, Tenant, Time};
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::TestRunner,
};

use crate::world::{hits, sources, text};

const CASES: u32 = 192;

/// What values are made of.
const ATOMS: [&str; 58] = [
    "a",
    "b",
    "A",
    "B",
    "ab",
    "AB",
    "abc",
    "abcd",
    "ABCE",
    "wxyz",
    "WXYZ",
    "mimikatz",
    "MimiKatz",
    "powershell",
    ".exe",
    "\\",
    "\\\\",
    "C:\\Windows\\",
    "/",
    "-",
    "–",
    " ",
    "*",
    "?",
    "%",
    "\"",
    "'",
    "\n",
    "\t",
    "\u{0}",
    "\u{7f}",
    "0",
    "1",
    "12",
    "4688",
    "é",
    "É",
    "e\u{301}",
    "ß",
    "ẞ",
    "ss",
    "s",
    "S",
    "ſ",
    "k",
    "K",
    "\u{212a}",
    "i",
    "I",
    "İ",
    "ı",
    "σ",
    "ς",
    "Σ",
    "\u{1fd3}",
    "\u{390}",
    "中",
    "😀",
];
const FLAGS: [&str; 6] = ["-a", " /b", "--c", " –d", "a-b", "- e"];
const FIELDS: [&str; 9] = ["A", "B", "Image", "CommandLine", "C.d", "EventID", "EventType", "Ünï", "q\"\\k"];
const ADDRESSES: [&str; 12] = [
    "10.0.0.1",
    "10.0.1.1",
    "10.1.2.3",
    "192.168.1.200",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "[::1]",
    "::ffff:10.0.0.1",
    "2001:db8::5",
    "10.0.0.256",
    "10.0.0.1 ",
];
const NETWORKS: [&str; 9] = [
    "10.0.0.0/24",
    "10.0.0.0/8",
    "10.0.0.1",
    "0.0.0.0/0",
    "192.168.1.128/25",
    "::1/128",
    "fe80::/10",
    "2001:db8::/32",
    "::/0",
];
const NUMBERS: [&str; 16] = [
    "0",
    "-0",
    "1",
    "-1",
    "5",
    "5.0",
    "5.5",
    "11",
    "12",
    "1e3",
    "1000",
    "9007199254740993",
    "9007199254740992",
    "-9223372036854775808",
    "9223372036854775807",
    " 7 ",
];
const TIMES: [&str; 9] = [
    "2026-01-05T14:07:00Z",
    "2026-01-05 14:07:00",
    "2024-12-30",
    "2027/01/01 00:00",
    "2026-13-01",
    "2000-02-29t23:59",
    "2026-01-05T14",
    "yesterday",
    "2020-11-22 05:16:00.123",
];
const SOURCES: [&str; 12] = [
    "{product: windows, category: process_creation}",
    "{product: windows, service: security}",
    "{product: windows, category: registry_delete}",
    "{product: windows, category: registry_event}",
    "{product: windows, category: registry_set, service: sysmon}",
    "{product: windows}",
    "{category: process_creation}",
    "{category: antivirus}",
    "{product: linux, service: auth}",
    "{product: linux, service: syslog}",
    "{product: windows, service: sysmon}",
    "{product: p}",
];
const CHANNELS: [&str; 6] = [
    "Microsoft-Windows-Sysmon/Operational",
    "Security",
    "SECURITY",
    "Microsoft-Windows-Windows Defender/Operational",
    "Linux-Sysmon/Operational",
    "Other",
];
const EVENT_IDS: [&str; 9] = ["1", "12", "13", "4688", "4624", "1116", "\"12\"", "\"01\"", "999"];
const DECLARED: [&str; 7] = [
    "",
    r#""product":"p","#,
    r#""product":"linux","service":"sshd","#,
    r#""product":"Linux","service":"named","#,
    r#""product":"windows","category":"process_creation","#,
    r#""product":"windows","#,
    r#""category":"process_creation","product":"other","#,
];

fn joined(most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(select(&ATOMS[..]), 0..=most).prop_map(|atoms| atoms.concat())
}

/// Lengths around the widths of registers and blocks.
fn padding() -> impl Strategy<Value = String> {
    let lengths = [1_usize, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 255, 1_025, 4_097];
    (select(lengths.to_vec()), select(&["x", "a", " ", "é", "\\", "\"", "ab", "k"][..]))
        .prop_map(|(length, piece)| piece.repeat(length.div_ceil(piece.len())))
}

/// A value of a rule that is a text: wildcards, escapes and dashes as they come.
fn pattern() -> BoxedStrategy<String> {
    prop_oneof![
        8 => joined(4),
        2 => prop::collection::vec(prop_oneof![select(&FLAGS[..]), select(&ATOMS[..])], 1..3).prop_map(|all| all.concat()),
        1 => (joined(2), padding(), joined(2)).prop_map(|(a, b, c)| a + &b + &c),
        1 => select(&["a*b", "*ab*cd*", "?b", "a?c*", "\\*", "\\\\*", "\\?x", "**", "?", "*", "*a*b*c*a*"][..])
            .prop_map(str::to_owned),
    ]
    .boxed()
}

/// The same with nothing in it that means anything, for what is encoded.
fn plain() -> impl Strategy<Value = String> {
    joined(3).prop_map(|text| text.replace(['*', '?', '\\'], "w") + "x")
}

fn yaml(text: &str) -> String {
    serde_json::to_string(text).unwrap().replace('\u{7f}', "\\u007f") // which YAML wants escaped
}

fn list(values: &[String]) -> String {
    format!("[{}]", values.iter().map(|value| yaml(value)).collect::<Vec<_>>().join(", "))
}

/// Field with modifiers, and values.
type Item = (String, String);

fn switches(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let on = prop::bool::weighted(0.2);
    prop::collection::vec(on, words.len())
        .prop_map(move |on| words.iter().zip(on).filter(|(_, on)| *on).map(|(word, _)| format!("|{word}")).collect())
}

fn text_item() -> impl Strategy<Value = Item> {
    let shape = select(&["", "", "|contains", "|contains", "|startswith", "|endswith"][..]);
    let values = prop_oneof![4 => prop::collection::vec(pattern(), 1..4), 1 => prop::collection::vec(pattern(), 4..24)];
    (select(&FIELDS[..]), shape, switches(&["all", "cased", "neq"]), values)
        .prop_map(|(field, shape, switches, values)| (format!("{field}{shape}{switches}"), list(&values)))
}

fn windash_item() -> impl Strategy<Value = Item> {
    let shape = select(&["", "|contains", "|startswith", "|endswith"][..]);
    let values = prop::collection::vec(prop::collection::vec(select(&FLAGS[..]), 1..3), 1..3);
    (select(&FIELDS[..]), shape, switches(&["all", "cased"]), values).prop_map(|(field, shape, switches, values)| {
        let values: Vec<String> = values.iter().map(|flags| flags.concat()).collect();
        (format!("{field}|windash{shape}{switches}"), list(&values))
    })
}

fn encoded_item() -> impl Strategy<Value = Item> {
    let encoding = [
        "base64",
        "base64offset",
        "wide|base64offset",
        "utf16le|base64",
        "utf16be|base64offset",
        "utf16|base64",
        "utf16be|base64",
        "utf16|base64offset",
    ];
    let shape = select(&["|contains", "|contains", "|startswith", ""][..]);
    (select(&FIELDS[..]), select(encoding.to_vec()), shape, switches(&["cased"]), prop::collection::vec(plain(), 1..3))
        .prop_map(|(field, encoding, shape, switches, values)| {
            (format!("{field}|{encoding}{shape}{switches}"), list(&values))
        })
}

fn expression() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        4 => select(&ATOMS[..]).prop_map(regex::escape),
        1 => select(&[".", "[a-c]", "[^a]", "\\w", "\\d+", "^", "$", ".*", "[\\\\/]", "\\s"][..]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 1..4).prop_map(|all| all.concat()),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}|{b})")),
            1 => (inner, select(&["?", "*", "+", "{1,2}"][..])).prop_map(|(a, times)| format!("(?:{a}){times}")),
        ]
    })
    .boxed()
}

fn other_item() -> impl Strategy<Value = Item> {
    let some = |all: &'static [&'static str]| prop::collection::vec(select(all), 1..3);
    let owned = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let item = prop_oneof![
        3 => (select(&["|re", "|re|i", "|re|m", "|re|s", "|re|i|s|m"][..]), prop::collection::vec(expression(), 1..3))
            .prop_map(|(modifiers, values)| (modifiers.to_owned(), list(&values))),
        1 => some(&NETWORKS).prop_map(move |values| ("|cidr".to_owned(), list(&owned(values)))),
        1 => (select(&["|gt", "|gte", "|lt", "|lte"][..]), select(&NUMBERS[..]))
            .prop_map(|(modifier, number)| (modifier.to_owned(), yaml(number))),
        1 => (select(&["minute", "hour", "day", "week", "month", "year"][..]), 0..54_i64, select(&["", "|gt", "|lte"][..]))
            .prop_map(|(part, number, compared)| {
                let number = match part {
                    "year" => 2_000 + number,
                    "hour" => number % 22 + 1,
                    "minute" => number,
                    "week" => number % 51 + 1,
                    _ => number % 11 + 1,
                };
                (format!("|{part}{compared}"), number.to_string())
            }),
        1 => any::<bool>().prop_map(|there| ("|exists".to_owned(), there.to_string())),
        2 => (select(&FIELDS[..]), select(&["", "|startswith", "|endswith", "|contains"][..]), switches(&["cased", "neq"]))
            .prop_map(|(other, shape, switches)| (format!("|fieldref{shape}{switches}"), yaml(other))),
        1 => select(&["null", "", "~", "''", "[null, 'ab']", "'null'"][..]).prop_map(|value| (String::new(), value.to_owned())),
        1 => select(&["4688", "1", "-1", "5.5", "true", "false", "[1, 12]", "0"][..])
            .prop_map(|value| (String::new(), value.to_owned())),
        1 => select(&["null", "1", "'a*'"][..]).prop_map(|value| ("|neq".to_owned(), value.to_owned())),
    ];
    (select(&FIELDS[..]), item).prop_map(|(field, (modifiers, value))| (format!("{field}{modifiers}"), value))
}

fn keyword_item() -> impl Strategy<Value = Item> {
    let modifiers = select(&["|all", "|cased", "|contains", "|all|cased", "|startswith", "|endswith", "|windash"][..]);
    prop_oneof![
        3 => (modifiers, prop::collection::vec(pattern(), 1..3))
            .prop_map(|(modifiers, values)| (modifiers.to_owned(), list(&values))),
        1 => expression().prop_map(|value| ("|re".to_owned(), yaml(&value))),
    ]
}

fn item() -> BoxedStrategy<Item> {
    prop_oneof![8 => text_item(), 2 => windash_item(), 2 => encoded_item(), 6 => other_item(), 1 => keyword_item()]
        .boxed()
}

/// A map on one line; a key stands in it once.
fn map() -> BoxedStrategy<String> {
    prop::collection::vec(item(), 1..4)
        .prop_map(|items| {
            let mut seen = BTreeSet::new();
            let once = items.into_iter().filter(|(key, _)| seen.insert(key.clone()));
            format!(
                "{{{}}}",
                once.map(|(key, value)| format!("{}: {value}", yaml(&key))).collect::<Vec<_>>().join(", ")
            )
        })
        .boxed()
}

fn selection() -> BoxedStrategy<String> {
    prop_oneof![
        6 => map(),
        2 => prop::collection::vec(map(), 1..3).prop_map(|maps| format!("[{}]", maps.join(", "))),
        1 => prop::collection::vec(pattern(), 1..4).prop_map(|words| list(&words)),
        1 => (pattern(), map()).prop_map(|(word, map)| format!("[{}, {map}]", yaml(&word))),
        1 => pattern().prop_map(|word| yaml(&word)),
    ]
    .boxed()
}

const NAMES: [&str; 5] = ["s1", "s2", "sel_3", "filter", "_hidden"];

fn condition() -> BoxedStrategy<String> {
    let quantified = [
        "1 of s*",
        "all of s*",
        "1 of them",
        "all of them",
        "any of sel_*",
        "2 of s*",
        "all of *",
        "1 of _*",
        "3 of them",
    ];
    let leaf = prop_oneof![5 => select(&NAMES[..]), 2 => select(quantified.to_vec())].prop_map(str::to_owned);
    leaf.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            2 => (inner.clone(), select(&["and", "or", "AND"][..]), inner.clone())
                .prop_map(|(a, word, b)| format!("{a} {word} {b}")),
            2 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} and not {b}")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            1 => inner.clone().prop_map(|a| format!("not ({a})")),
            1 => inner.prop_map(|a| format!("not {a}")),
        ]
    })
    .boxed()
}

fn rule() -> impl Strategy<Value = String> {
    let conditions = prop_oneof![
        9 => condition().prop_map(|one| yaml(&one)),
        1 => (condition(), condition()).prop_map(|(a, b)| list(&[a, b])),
    ];
    (select(&SOURCES[..]), prop::collection::vec(selection(), NAMES.len()), conditions).prop_map(
        |(source, selections, condition)| {
            let mut text = format!("title: t\nlogsource: {source}\ndetection:\n  condition: {condition}\n");
            for (name, selection) in NAMES.iter().zip(&selections) {
                writeln!(text, "  {name}: {selection}").unwrap();
            }
            text
        },
    )
}

/// A value of a record.
#[derive(Clone, Debug)]
enum Json {
    Bare(&'static str),
    Text(String),
    List(Vec<Json>),
}

fn value() -> BoxedStrategy<Json> {
    let encoded = (joined(1), plain(), joined(1), any::<bool>()).prop_map(|(a, b, c, wide)| {
        let text = a + &b + &c;
        let bytes = if wide { text.encode_utf16().flat_map(u16::to_le_bytes).collect() } else { text.into_bytes() };
        STANDARD.encode(bytes)
    });
    let text = prop_oneof![
        8 => joined(4),
        2 => prop::collection::vec(select(&FLAGS[..]), 1..3).prop_map(|flags| flags.concat()),
        2 => (joined(3), padding(), joined(3)).prop_map(|(a, b, c)| a + &b + &c),
        2 => encoded,
        1 => select(&ADDRESSES[..]).prop_map(str::to_owned),
        1 => select(&NUMBERS[..]).prop_map(str::to_owned),
        1 => select(&TIMES[..]).prop_map(str::to_owned),
        1 => select(&["DeleteKey", "CREATEKEY", "DeleteValue", "null", "true"][..]).prop_map(str::to_owned),
    ];
    let bare = ["null", "true", "false", "0", "-1", "12", "4688", "5.5", "5.0", "1e3", "-0", "18446744073709551615"];
    let leaf = prop_oneof![6 => text.prop_map(Json::Text), 1 => select(bare.to_vec()).prop_map(Json::Bare)];
    leaf.prop_recursive(1, 4, 3, |inner| prop::collection::vec(inner, 0..3).prop_map(Json::List)).boxed()
}

/// The forms that a record may have.
#[derive(Clone, Copy, Debug)]
enum Form {
    Generic,
    Flat,
    Nested,
    NestedNamed,
    UserData,
}

#[derive(Clone)]
struct Event {
    form: Form,
    declared: &'static str,
    channel: Option<&'static str>,
    provider: bool,
    event_id: &'static str,
    fields: Vec<(&'static str, Json)>,
    /// Choices of how to write it, used up one by one.
    style: Vec<Index>,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&write(self))
    }
}

fn event() -> impl Strategy<Value = Event> {
    let forms = [Form::Generic, Form::Flat, Form::Nested, Form::NestedNamed, Form::UserData];
    (
        select(forms.to_vec()),
        select(&DECLARED[..]),
        prop::option::weighted(0.8, select(&CHANNELS[..])),
        any::<bool>(),
        select(&EVENT_IDS[..]),
        prop::collection::vec((select(&FIELDS[..]), value()), 0..8),
        prop::collection::vec(any::<Index>(), 16),
    )
        .prop_map(|(form, declared, channel, provider, event_id, fields, style)| Event {
            form,
            declared,
            channel,
            provider,
            event_id,
            fields,
            style,
        })
}

/// Writes a record as JSON, each time with other spaces and escapes.
struct Writer<'e> {
    style: &'e [Index],
    used: usize,
    out: String,
}

impl Writer<'_> {
    fn choose(&mut self, of: usize) -> usize {
        self.used += 1;
        // Mixed, so that few choices give many styles.
        (self.style[self.used % self.style.len()].index(1 << 20) + self.used / self.style.len()) % of
    }

    fn space(&mut self) {
        let space = ["", "", "", "", " ", "  ", "\t", "\r\n"][self.choose(8)];
        self.out.push_str(space);
    }

    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.space();
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            let escaped = match c {
                '"' => Some("\\\""),
                '\\' => Some("\\\\"),
                '\n' => Some("\\n"),
                '\t' => Some("\\t"),
                '/' if self.choose(3) == 0 => Some("\\/"),
                _ => None,
            };
            if self.choose(24) == 0 || (c < ' ' && escaped.is_none()) {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    if self.choose(2) == 0 {
                        write!(self.out, "\\u{unit:04x}").unwrap();
                    } else {
                        write!(self.out, "\\u{unit:04X}").unwrap();
                    }
                }
            } else if let Some(escaped) = escaped {
                self.out.push_str(escaped);
            } else {
                self.out.push(c);
            }
        }
        self.out.push('"');
        self.space();
    }

    fn value(&mut self, value: &Json) {
        match value {
            Json::Bare(text) => self.put(text),
            Json::Text(text) => self.string(text),
            Json::List(list) => {
                self.put("[");
                for (number, element) in list.iter().enumerate() {
                    if number > 0 {
                        self.put(",");
                    }
                    self.value(element);
                }
                self.put("]");
            }
        }
    }

    fn member(&mut self, name: &str, value: &Json) {
        self.string(name);
        self.put(":");
        self.value(value);
        self.put(",");
    }

    /// Members with a comma behind each; a field with a dot in its name may be nested.
    fn members(&mut self, fields: &[(&'static str, Json)]) {
        for (name, value) in fields {
            match name.split_once('.') {
                Some((outer, inner)) if self.choose(2) == 0 => {
                    self.string(outer);
                    self.put(":");
                    self.put("{");
                    self.member(inner, value);
                    self.close("}");
                }
                _ => self.member(name, value),
            }
        }
    }

    /// Ends what is open: takes the comma back.
    fn close(&mut self, bracket: &str) {
        let end = self.out.trim_end_matches([' ', '\t', '\r', '\n', ',']).len();
        self.out.truncate(end);
        self.put(bracket);
        self.put(",");
    }

    fn event(mut self, event: &Event) -> String {
        let Event { channel, provider, event_id, fields, .. } = event;
        let provider = ["Microsoft-Windows-Sysmon", "Another"][usize::from(!*provider)];
        self.put("{");
        match event.form {
            Form::Generic => {
                self.out.push_str(event.declared);
                self.members(fields);
            }
            Form::Flat => {
                self.member("Channel", &Json::Text(channel.unwrap_or("").to_owned()));
                self.member("EventID", &Json::Bare(event_id));
                self.member("SourceName", &Json::Text(provider.to_owned()));
                self.members(fields);
            }
            Form::Nested | Form::NestedNamed | Form::UserData => {
                self.put(r#""Event":{"System":{"#);
                if self.choose(2) == 0 {
                    write!(self.out, r##""Provider":{{"#attributes":{{"Name":"{provider}","Guid":"g"}}}},"##).unwrap();
                } else {
                    write!(self.out, r#""Provider_attributes":{{"Name":"{provider}"}},"#).unwrap();
                }
                match self.choose(3) {
                    0 => write!(self.out, r##""EventID":{{"#text":{event_id},"#attributes":{{"Qualifiers":0}}}},"##)
                        .unwrap(),
                    _ => write!(self.out, r#""EventID":{event_id},"#).unwrap(),
                }
                if let Some(channel) = channel {
                    self.member("Channel", &Json::Text((*channel).to_owned()));
                }
                self.close("}");
                self.data(event);
                self.close("}");
            }
        }
        self.close("}");
        let end = self.out.trim_end_matches([' ', '\t', '\r', '\n', ',']).len();
        self.out.truncate(end);
        self.out
    }

    fn data(&mut self, event: &Event) {
        match event.form {
            Form::NestedNamed => {
                self.put(r#""EventData":{"Data":["#);
                for (name, value) in &event.fields {
                    self.put(r##"{"#attributes":{"Name":"##);
                    self.string(name);
                    self.put(r##"},"#text":"##);
                    self.value(value);
                    self.put("},");
                }
                self.close("]");
            }
            Form::UserData => {
                self.put(r##""UserData":{"Wrapped":{"#attributes":{"xmlns":"x"},"##);
                self.members(&event.fields);
                self.close("}");
            }
            _ => {
                self.put(r#""EventData":{"#);
                self.members(&event.fields);
            }
        }
        self.close("}");
    }
}

fn write(event: &Event) -> String {
    Writer { style: &event.style, used: 0, out: String::new() }.event(event)
}

fn record(json: &str) -> Record {
    let origin = Origin {
        tenant: Tenant::default(),
        source: "test".into(),
        received_at: Time::from_seconds(1_767_225_600),
        year: None,
        framing: Framing::Record,
    };
    Record {
        origin: Arc::new(origin),
        position: Position::default(),
        bytes: bytes::Bytes::copy_from_slice(json.as_bytes()),
    }
}

/// What was tried, to see that it was worth it.
#[derive(Debug, Default)]
struct Tally {
    rules: usize,
    records: usize,
    pairs: usize,
    hits: usize,
}

fn check(rules: &[String], events: &[Event], tally: &mut Tally) -> Result<(), TestCaseError> {
    let rule_text =
        |(number, rule): (usize, &String)| text(&format!("{number}.yml"), &format!("id: r{number:02}\n{rule}"));
    let texts: Vec<_> = rules.iter().enumerate().map(rule_text).collect();
    let (compiled, problems) = RuleSet::compile(parse(&texts), &Options::default());
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    prop_assert_eq!(errors, Vec::<String>::new(), "{}", rules.join("\n"));
    let mut scanner = Scanner::new(Arc::new(compiled));
    let oracle = Oracle::new(texts.iter().map(|text| text.text.as_str()), sources());
    prop_assert_eq!(oracle.refused(), Vec::<String>::new(), "{}", rules.join("\n"));
    let mut decoder = Decoder::new(Arc::new(SourceTable::default()));
    for event in events {
        let json = write(event);
        let mut decoded = Decoded::default();
        decoder.decode(&record(&json), &mut decoded);
        prop_assert_eq!(decoded.events.len(), 1, "{:?} of {}", decoded.rejects, json);
        let Flat::Event(flat) = cf_oracle::flatten(json.as_bytes()) else { panic!("the oracle does not read {json}") };
        let ours = cf_oracle::Event::of(&decoded.events[0]);
        prop_assert_eq!(ours.asked_for(), flat.asked_for(), "{}", json);
        prop_assert_eq!(&ours.log_source, &flat.log_source, "{}", json);
        let found = hits(&mut scanner, &decoded.events[0]);
        tally.pairs += rules.len();
        tally.hits += found.len();
        prop_assert_eq!(found, oracle.hits(&flat), "{}\non {}", rules.join("\n"), json);
    }
    tally.rules += rules.len();
    tally.records += events.len();
    Ok(())
}

#[test]
fn random_rules_meet_random_records_as_the_oracle_says() {
    let cases = std::env::var("COUNTERFLOW_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config =
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() };
    let tally = RefCell::new(Tally::default());
    let sets = (prop::collection::vec(rule(), 1..10), prop::collection::vec(event(), 1..12));
    let run = TestRunner::new(config).run(&sets, |(rules, events)| check(&rules, &events, &mut tally.borrow_mut()));
    let tally = tally.into_inner();
    eprintln!("{tally:?}");
    if let Err(error) = run {
        panic!("{error}");
    }
    // Neither never nor always: what rarely meets proves little.
    assert!(tally.hits * 50 > tally.pairs && tally.hits * 2 < tally.pairs, "{tally:?}");
}
