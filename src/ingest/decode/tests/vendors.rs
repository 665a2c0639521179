//! Payloads of products: what each declares, its time and id, the names that its row gives it, and its entities.
//!
//! The payloads and what they are built after are in `src/ingest/tests/vendors`; what comes of them is beside each in
//! `NAME.txt`.

use std::path::Path;

use expect_test::expect_file;

use super::*;
use crate::{decode::vendor, mapping::Mapping};

#[test]
fn payloads_get_the_names_that_rules_use() {
    let given = vendor::given_names();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendors");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    assert!(files.len() > 20);
    for file in files {
        let mut shown = String::new();
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            shown += &format!("# {}\n", case["about"].as_str().unwrap());
            let payload = serde_json::to_vec(&case["payload"]).unwrap();
            let mut decoded = decode(&record(&payload, Framing::Http, RECEIVED_AT, None), SourceOptions::default());
            for event in &mut decoded.events {
                // Only what the row gives: which of the payload's own names are known depends on the rules.
                let fields: Vec<_> =
                    event.fields.iter().map(|(name, value, scalar)| (name, value.to_owned(), scalar)).collect();
                event.fields.clear();
                for (name, value, scalar) in fields {
                    if given.contains(&name) {
                        event.fields.push(name, &value, scalar);
                    }
                }
            }
            shown += &show(&decoded);
        }
        expect_file![file.with_extension("txt")].assert_eq(&shown);
    }
}

fn decode_with(payload: &str, mapping: &str) -> String {
    let options = SourceOptions { mapping: Mapping::parse(mapping).unwrap(), ..SourceOptions::default() };
    show(&decode(&record(payload.as_bytes(), Framing::Http, RECEIVED_AT, None), options))
}

const MAPPING: &str = "\
groups:
  own: {User: '{dom}\\{usr}'}
payloads:
  - name: edr
    when: {vendor: [acme*], kind: '*', odd: '-'}
    product: windows
    category: {of: kind, words: {proc: process_creation}, otherwise: file_event}
    service: '{svc}'
    time: [at.ms, at]
    id: nr
    groups: [own, ecs_dns]
    fields:
      CommandLine: [cmd.line, cmd]
      Image: {of: exe, begins: {'\\Device\\HarddiskVolume1': 'C:', '\\Device': 'D:'}}
      cs-uri-stem: {of: url, before: '?'}
      cs-uri-query: {of: url, after: '?'}
      Details: {json: data}
      SecretName: {list: parts, named: secret, front: 's='}
      a: {is: none, unless: cmd}
      b: {is: some, with: cmd}
      c: {each: [x1, x2, 'x={x1}']}
    entities: {user: [User], domain: [query]}
  - name: carrier
    when: {carried: '*'}
    inside: carried
";

#[test]
fn a_mapping_of_the_source_is_asked_first() {
    let one = r#"{"vendor":"ACME EDR","kind":"proc","svc":"s","at":1767607200,"nr":7,"dom":"CORP","usr":"bob","cmd":"a b","exe":"\\Device\\HarddiskVolume1\\x.exe","url":"/a?b=1","data":{"k":[1,null,"\"q\""]},"parts":[{"Name":"other","Value":"1"},{"Name":"Secret","Value":["2","3"]}],"x1":[1,2],"x2":null,"dns":{"question":{"name":"n.example"}}}"#;
    expect![[r#"
        2026-01-05T10:00:00Z Declared windows/process_creation/s id 7
          vendor=ACME EDR
          kind=proc
          svc=s
          dom=CORP
          usr=bob
          cmd=a b
          exe=\Device\HarddiskVolume1\x.exe
          url=/a?b=1
          x1=~1
          x1=~2
          x2=~
          dns.question.name=n.example
          CommandLine=a b
          Details={"k":[1,null,"\"q\""]}
          Image=C:\x.exe
          QueryName=n.example
          SecretName=s=2
          SecretName=s=3
          User=CORP\bob
          b=some
          c=~1
          c=~2
          c=x=1
          cs-uri-query=b=1
          cs-uri-stem=/a
          query=n.example
          user:CORP\bob
          process:C:\x.exe
          domain:n.example
    "#]]
    .assert_eq(&decode_with(one, MAPPING));
    let carried = format!(r#"{{"id":"outer","carried":{},"vendor":"hidden"}}"#, serde_json::to_string(one).unwrap());
    assert_eq!(decode_with(&carried, MAPPING).lines().next(), decode_with(one, MAPPING).lines().next());
    let odd = one.replacen('{', r#"{"odd":1,"#, 1);
    assert!(
        decode_with(&odd, MAPPING).starts_with("2026-01-05T14:00:00Z Received -/-/-"),
        "{}",
        decode_with(&odd, MAPPING)
    );
}

#[test]
fn mappings_that_cannot_be_are_refused() {
    let check = |mapping: &str, expect: Expect| {
        let options = SourceOptions { mapping: Mapping::parse(mapping).unwrap(), ..SourceOptions::default() };
        let error = SourceTable::new(&BTreeMap::from([("edr".to_owned(), options)])).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap();
        expect.assert_eq(&format!("{error}: {cause}"));
    };
    check(
        "payloads: [{name: x}]",
        expect![[
            r#"source "edr" is not valid: payload "x" of the mapping is not valid: `when` must name a member that is there; hint: when: {vendor.id: '*'}"#
        ]],
    );
    check(
        "payloads: [{name: x, when: {a: '*'}, groups: [nobody]}]",
        expect![[r#"source "edr" is not valid: payload "x" of the mapping is not valid: unknown group "nobody""#]],
    );
    check(
        "payloads: [{name: x, when: {a: '*'}, fields: {User: '{a'}}]",
        expect![[
            r#"source "edr" is not valid: payload "x" of the mapping is not valid: "{a" has a brace that nothing closes"#
        ]],
    );
    check(
        "payloads: [{name: x, when: {a: '*'}, fields: {User: {words: {a: b}}}}]",
        expect![[
            r#"source "edr" is not valid: payload "x" of the mapping is not valid: a field says nothing that can be given; hint: a path, `each`, `of` (with `words`, `begins`, `after` or `before`), `json`, `list` with `named`, or `is`"#
        ]],
    );
    check(
        "payloads: [{name: x, when: {a: '*'}, entities: {person: [a]}}]",
        expect![[
            r#"source "edr" is not valid: payload "x" of the mapping is not valid: unknown kind of entity "person"; hint: host, user, address, process, file_hash, domain"#
        ]],
    );
    assert!(Mapping::parse("payloads: [{nam: x}]").is_err());
    assert!(Mapping::parse(&"#".repeat(2 << 20)).is_err());
}

#[test]
fn what_is_spread_is_bounded() {
    // Each of many findings repeats what stands around it: only small things are repeated.
    let findings: Vec<String> = (0..500).map(|n| format!(r#"{{"VulnerabilityID":"CVE-{n}","PkgName":"p"}}"#)).collect();
    let report = format!(
        r#"{{"SchemaVersion":2,"ArtifactName":"a","Big":"{}","Results":[{{"Target":"t","Vulnerabilities":[{}]}}]}}"#,
        "x".repeat(100_000),
        findings.join(",")
    );
    let decoded = decode(&record(report.as_bytes(), Framing::Http, RECEIVED_AT, None), SourceOptions::default());
    assert_eq!((decoded.events.len(), decoded.rejects.len()), (500, 0));
    assert!(decoded.events.iter().all(|event| event.raw.len() < 300));
    let indexes: Vec<u32> = decoded.events.iter().map(|event| event.position.index).collect();
    assert_eq!(indexes, (0..500).collect::<Vec<u32>>());
}

#[test]
fn payloads_in_payloads_end_somewhere() {
    let mut inner = r#"{"eventSource":"a","eventName":"b","awsRegion":"c"}"#.to_owned();
    for _ in 0..8 {
        let text = serde_json::to_string(&inner).unwrap();
        inner = format!(r#"{{"Type":"Notification","TopicArn":"t","Message":{text}}}"#);
    }
    let decoded = decode(&record(inner.as_bytes(), Framing::Http, RECEIVED_AT, None), SourceOptions::default());
    assert_eq!((decoded.events.len(), decoded.rejects.len()), (1, 0));
}
