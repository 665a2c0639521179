use std::{collections::BTreeMap, path::PathBuf};

use cf_types::{EntityKind, Origin, Scalar, Tenant};
use expect_test::{Expect, expect};

use super::*;
use crate::{
    file::{self, FileOptions},
    options::SourceOptions,
};

mod cases;
mod json;
mod products;
mod real;
mod shapes;
mod text;
mod times;
mod vendors;

const RECEIVED_AT: &str = "2026-01-05T14:00:00Z";

fn record(text: &[u8], framing: Framing, received_at: &str, year: Option<i16>) -> Record {
    let origin = Origin {
        tenant: Tenant::default(),
        source: Arc::from("test"),
        received_at: received_at.parse().unwrap(),
        year,
        framing,
    };
    Record { origin: Arc::new(origin), position: Position::default(), bytes: Bytes::copy_from_slice(text) }
}

fn decode(record: &Record, options: SourceOptions) -> Decoded {
    // What rules would ask for, all at once: what is shown must not depend on which test ran before.
    let _names = Name::intern_all([
        "EventID",
        "Channel",
        "Provider_Name",
        "Computer",
        "CommandLine",
        "Data",
        "ThreatName",
        "Param1",
        "a",
        "a.b",
        "actor",
        "user",
        "raw_data",
        "raw_data.user",
        "normalized_data.actor",
        "severity",
        "n",
        "big",
        "eventName",
        "awsRegion",
        "USER",
    ]);
    let _names = Name::intern_all(ASKED_OF_TEXT.iter().copied());
    let table = SourceTable::new(&BTreeMap::from([("test".to_owned(), options)])).unwrap();
    let mut decoded = Decoded::default();
    Decoder::new(Arc::new(table)).decode(record, &mut decoded);
    decoded
}

/// One event as lines: time and log source, declared id, then `field=value` (`~` before a value that is no text), then
/// its entities.
fn show(decoded: &Decoded) -> String {
    let mut out = String::new();
    for event in &decoded.events {
        let source = &event.log_source;
        let words =
            [&source.product, &source.category, &source.service].map(|word| word.as_deref().unwrap_or("-").to_owned());
        out += &format!("{} {:?} {}", event.time, event.time_basis, words.join("/"));
        if event.position.index > 0 {
            out += &format!(" index {}", event.position.index);
        }
        if let Some(id) = &event.declared_id {
            out += &format!(" id {id}");
        }
        out += "\n";
        for (name, value, scalar) in event.fields.iter().filter(|(name, _, _)| *name != Name::UNKNOWN) {
            let kind = if scalar == Scalar::Text { "" } else { "~" };
            out += &format!("  {}={kind}{value}\n", name.text());
        }
        for entity in &event.entities {
            out += &format!("  {entity}\n");
        }
    }
    for reject in &decoded.rejects {
        out += &format!("reject {}: {}\n", reject.code.as_str(), reject.reason);
    }
    out
}

/// Names that rules ask for and decoders give only then.
const ASKED_OF_TEXT: &[&str] = &[
    "a0",
    "a1",
    "a2",
    "key",
    "exe",
    "comm",
    "syscall",
    "name",
    "nametype",
    "cwd",
    "euid",
    "cfgpath",
    "logid",
    "subtype",
    "rule",
    "app",
    "sc-substatus",
    "s-port",
    "id.orig_h",
    "id.resp_h",
    "id.resp_p",
    "qtype_name",
    "answers",
    "method",
    "uri",
    "user_agent",
    "Firewall Rule",
    "EventID",
    "Image",
    "CommandLine",
    "ParentImage",
    "User",
    "Channel",
    "Provider_Name",
    "Computer",
];

proptest::proptest! {
    /// Arbitrary bytes and damaged records never panic, give the same twice, and give something.
    #[test]
    fn whatever_comes_is_events_or_rejects(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        which in 0usize..SAMPLES.len(),
        at in proptest::prelude::any::<proptest::sample::Index>(),
        cut in proptest::bool::ANY,
    ) {
        let mut damaged = SAMPLES[which].as_bytes().to_vec();
        let at = at.index(damaged.len());
        if cut { damaged.truncate(at) } else { damaged.splice(at..at, bytes.iter().copied().take(3)); }
        for input in [bytes, damaged] {
            for framing in [Framing::Record, Framing::Syslog, Framing::Http, Framing::Unframed] {
                let record = record(&input, framing, RECEIVED_AT, None);
                let mut decoder = Decoder::new(Arc::new(SourceTable::default()));
                let (mut once, mut twice) = (Decoded::default(), Decoded::default());
                decoder.decode(&record, &mut once);
                decoder.decode(&record, &mut twice);
                proptest::prop_assert_eq!(show(&once), show(&twice));
                let empty_list = matches!(input.trim_ascii(), [b'[', inner @ .., b']'] if inner.trim_ascii().is_empty());
                proptest::prop_assert!(empty_list || !once.events.is_empty() || !once.rejects.is_empty());
            }
        }
    }
}

proptest::proptest! {
    /// Words of all formats in any order: what looks like several kinds at once, and like none to its end.
    #[test]
    fn words_of_all_formats_in_any_order(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..24)) {
        let line = words.concat();
        let record = record(line.as_bytes(), Framing::Record, RECEIVED_AT, None);
        let mut decoder = Decoder::new(Arc::new(SourceTable::default()));
        let mut decoded = Decoded::default();
        decoder.decode(&record, &mut decoded);
        let array = line.trim_start().starts_with('[') && line.trim_end().ends_with(']');
        proptest::prop_assert!(array || decoded.events.len() + decoded.rejects.len() == 1);
        proptest::prop_assert!(decoded.events.iter().all(|event| !event.fields.is_empty()));
    }
}

const WORDS: &[&str] = &[
    " ",
    "=",
    ":",
    ": ",
    "\"",
    "'",
    "[",
    "]",
    "] ",
    "(",
    ")",
    "<",
    ">",
    "|",
    ",",
    ", ",
    "/",
    "?",
    "&",
    "%",
    "#",
    "\\",
    "\t",
    "{",
    "}",
    "-",
    "- - ",
    "é",
    "\u{1d}",
    "1",
    "200",
    "1.2.3.4",
    "::1",
    "[::1]:5",
    "1.2.3.4:55",
    "<34>",
    "<34>1 ",
    "Jan  5 13:00:00 ",
    "2026-01-05T13:00:00Z ",
    "2026-01-05 13:00:00 ",
    "[05/Jan/2026:13:00:00 +0000] ",
    "web ",
    "sshd[7]: ",
    "kernel: ",
    "dovecot: ",
    "named[1]: ",
    "sudo: ",
    "useradd[1]: ",
    "CRON[1]: ",
    "filterlog[1]: ",
    "dnsmasq[1]: ",
    "Failed password for ",
    "Invalid user ",
    "from ",
    " port ",
    "type=EXECVE ",
    "msg=audit(1604996384.965:1): ",
    "a0=2D63 ",
    "a1[0]=41 ",
    "CEF:0|",
    "LEEF:2.0|",
    "src=",
    "cs1Label=",
    "1,2026/01/05 13:00:00,01,THREAT,url,",
    "date=2026-01-05 ",
    "logid=1 ",
    "type=utm ",
    "%ASA-4-106023: ",
    "%%01BGP/3/",
    "Deny tcp src ",
    " dst ",
    " -> ",
    "IN= OUT= SRC=",
    " DST=",
    " PROTO=",
    "firewall,info ",
    "in:",
    "out:",
    "proto ",
    "\"GET / HTTP/1.1\" ",
    "[GIN] ",
    "1286536309.450 1 ",
    "TCP_MISS/200 ",
    "client ",
    "query: ",
    "query[A] ",
    " IN A ",
    " PACKET ",
    "(3)www(0)",
    "01/28/2021-13:35:54 ",
    "[**] [1:2:3] ",
    "[**] ",
    "{TCP} ",
    "CMdzit1AMNsmfAIiQc\t",
    "<Event>",
    "<System>",
    "<EventID>",
    "</EventID>",
    "<Data Name=\"A\">",
    "</Data>",
    "&amp;",
    "&#x26;",
    "user=<",
    "rip=",
    "(auth failed,",
    "new user: name=",
    "(root) CMD (",
    "@cee: ",
    "stdout F ",
    "{\"a\":1}",
    ", client: ",
    "[client ",
    "[error] ",
    "8#8: *1 ",
];

const SAMPLES: &[&str] = &[
    r##"{"Event":{"#attributes":{"xmlns":"x"},"System":{"Provider":{"#attributes":{"Name":"P"}},"EventID":{"#text":1},"Channel":"C","TimeCreated":{"#attributes":{"SystemTime":"2019-04-27T15:57:25.868863Z"}}},"EventData":{"Data":["a","b"],"N":null}}}"##,
    r#"[{"Channel":"Security","EventID":4624,"EventTime":"2020-01-01 00:00:00"},{"a":{"b":[1,2.5,-3,true]}}]"#,
    r#"{"Records":[{"eventSource":"a","eventName":"b","awsRegion":"c","eventTime":"2023-04-11T15:24:00Z","eventID":"1"}]}"#,
    r#"{"event_id":"7","timestamp":"2026-01-05T14:00:00Z","event_type":"x","raw_data":{"a":1},"normalized_data":{"actor":"b"}}"#,
    "<34>1 2003-10-11T22:14:15.003Z h app 1 ID47 [x@1 a=\"b\\]\"] text",
    "Jan  5 14:00:00 web sshd[77]: Failed password for invalid user a b from 1.2.3.4 port 22 ssh2",
    "Jan  5 14:00:00 web sudo: alice : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh -c a ; b",
    "1.2.3.4 - bob [29/Sep/2021:17:29:58 +0200] \"GET /a?b=1 HTTP/1.1\" 404 162 \"-\" \"curl\"",
    "[Wed Jul 05 09:19:24.428126 2023] [proxy:error] [pid 1] [client 33.202.142.97:55309] AH01071: x",
    "node=web type=EXECVE msg=audit(1604996384.965:1): argc=3 a0=\"sh\" a1[0]=2D63 a1[1]=41 a2=6563686F20227822",
    "type=SOCKADDR msg=audit(1604996384.965:7): saddr=0A00115C00000000C0A80107000000000000000000000001",
    "Jan  5 13:00:00 web kernel: [1.2] [UFW BLOCK] IN=eth0 OUT= SRC=1.2.3.4 DST=10.0.0.5 PROTO=TCP SPT=4 DPT=22",
    "Jan  5 13:00:00 fw filterlog[1]: 4,,,10,igb0,match,block,in,4,0x0,,64,0,0,DF,6,tcp,60,1.2.3.4,10.0.0.5,40,22,0",
    "CEF:0|A|B|1|c|n \\| m|5|act=Drop src=1.2.3.4 cs1Label=L cs1=No \\= x msg=two words",
    "LEEF:2.0|Vendor|Product|1.0|login|x09|src=10.0.0.5\tusrName=bob",
    "1,2026/01/05 13:00:00,0128,THREAT,url,2305,2026/01/05 12:59:59,1.1.1.1,2.2.2.2,,,r,\"a \"\"b\"\"\",,w,v,t,u,i,o,d,,1,1,4,80,0,0,0,tcp,block-url,\"e/a?x=1,2\"",
    "date=2024-10-14 time=13:46:41 tz=\"-0700\" logid=\"1\" type=\"utm\" subtype=\"webfilter\" hostname=\"h\" url=\"/x\" action=blocked",
    "<166>Jan 05 2026 13:00:00: %ASA-4-106100: access-list O denied tcp outside/1.2.3.4(4) -> inside/10.0.0.5(22) hit",
    "1286536309.450 192 192.168.0.68 TCP_MISS/200 507 POST http://u@h.example:80/c/x.exe?id=7 bob DIRECT/1.2.3.4 text/html",
    "2026-01-05 13:00:00 10.0.0.1 GET /owa/a.aspx a=1 443 - 203.0.113.9 Mozilla/5.0+(W) - 200 0 0 15",
    "6/15/2023 10:11:12 PM 0E6C PACKET 0 UDP Rcv 10.0.0.5 0002   Q [0001 D NOERROR] A (3)www(7)example(0)",
    "05-Jan-2026 13:00:00.123 queries: info: client @0x7f 10.0.0.5#53124 (a.b): query: a.b IN A +E(0)K (10.0.0.1)",
    "10/05/2021-13:35:54.123456  [**] [1:2:3] ET x [**] [Classification: y] [Priority: 2] {TCP} 1.2.3.4:4 -> 10.0.0.5:22",
    "1591367999.305988\tCMdzit1AMNsmfAIiQc\t192.168.4.76\t36844\t192.168.4.1\t53\tudp\t-\t0.06",
    "<Event><System><Provider Name=\"P\"/><EventID>1</EventID><TimeCreated SystemTime='2026-01-05T13:00:00Z'/></System><EventData><Data Name=\"A\">x &amp; &#x26; <![CDATA[y]]></Data></EventData></Event>",
    "<134>1 2026-01-05T13:00:00Z edge app 1 - - {\"user\":\"bob\",\"n\":{\"m\":[1,\"a\\n\"]}}",
    "time=\"2022-02-14T13:47:54+02:00\" level=error msg=\"no \\\"such\\\" user\" user=bob remote_ip=203.0.113.9",
    "Jan 15 08:00:00 s dovecot: imap-login: Disconnected (auth failed, 1 attempts): user=<a>, method=PLAIN, rip=192.0.2.1, lip=::1",
    "Jan  5 13:00:00 web useradd[9]: new user: name=mallory, UID=1001, GID=1001, home=/home/mallory, shell=/bin/bash",
];
