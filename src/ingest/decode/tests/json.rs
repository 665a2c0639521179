use super::*;

#[track_caller]
fn check(input: &str, expect: Expect) {
    check_with(input, SourceOptions::default(), expect);
}

#[track_caller]
fn check_with(input: &str, options: SourceOptions, expect: Expect) {
    expect.assert_eq(&show(&decode(&record(input.as_bytes(), Framing::Http, RECEIVED_AT, None), options)));
}

#[test]
fn nested_windows_events() {
    check(
        r##"{"Event":{"#attributes":{"xmlns":"x"},"System":{"Provider":{"#attributes":{"Name":"Sysmon","Guid":"g"}},"EventID":{"#text":1,"#attributes":{"Qualifiers":0}},"TimeCreated":{"#attributes":{"SystemTime":"2019-04-27T15:57:25.868863Z"}},"EventRecordID":6575,"Correlation":null,"Channel":"S/Operational","Computer":"WIN7.lan"},"EventData":{"CommandLine":"a \"b\"","User":"WIN7\\bob","Threat Name":"Evil","Hashes":"MD5=42893ADBC36605EC79B5BD610759947E,IMPHASH=42893ADBC36605EC79B5BD610759947E"}}}"##,
        expect![[r#"
            2019-04-27T15:57:25.868863Z Declared windows/-/- id WIN7.lan/S/Operational/6575
              Provider_Name=Sysmon
              EventID=~1
              EventRecordID=~6575
              Channel=S/Operational
              Computer=WIN7.lan
              CommandLine=a "b"
              User=WIN7\bob
              ThreatName=Evil
              Hashes=MD5=42893ADBC36605EC79B5BD610759947E,IMPHASH=42893ADBC36605EC79B5BD610759947E
              host:win7.lan
              user:WIN7\bob
              file_hash:42893adbc36605ec79b5bd610759947e
        "#]],
    );
    check(
        r##"{"Event":{"System":{"EventID":104,"Channel":"System","TimeCreated_attributes":{"SystemTime":"2019-04-27T15:57:25Z"},"Provider_attributes":{"Name":"E"}},"UserData":{"LogFileCleared":{"#attributes":{"xmlns":"y"},"Param1":"x","SubjectUserName":"bob"}}}}"##,
        expect![[r#"
        2019-04-27T15:57:25Z Declared windows/-/-
          EventID=~104
          Channel=System
          Provider_Name=E
          Param1=x
          SubjectUserName=bob
          user:bob
    "#]],
    );
    check(
        r##"{"Event":{"System":{"EventID":"7"},"EventData":{"Data":["one","two"]}}}"##,
        expect![[r#"
        2026-01-05T14:00:00Z Received windows/-/-
          EventID=7
          Data=one
          Data=two
    "#]],
    );
    check(
        r##"{"Event":{"System":{"EventID":7},"EventData":{"Data":[{"#attributes":{"Name":"CommandLine"},"#text":"c"},{"#text":["d","e"]}]}}}"##,
        expect![[r#"
        2026-01-05T14:00:00Z Received windows/-/-
          EventID=~7
          CommandLine=c
          Data=d
          Data=e
    "#]],
    );
    check(
        r##"{"Event":{"System":{"EventID":7,"TimeCreated":{"#attributes":{"SystemTime":"soon"}}}}}"##,
        expect![[r#"
        reject invalid_time: SystemTime is no time: "soon"
    "#]],
    );
}

#[test]
fn flat_windows_events() {
    check(
        r#"{"EventTime":"2020-09-14 09:36:12","Hostname":"WS5","Channel":"Security","EventID":4688,"SourceName":"Auditing","RecordNumber":5,"CommandLine":"x"}"#,
        expect![[r#"
            2020-09-14T09:36:12Z Assumed windows/-/- id WS5/Security/5
              Provider_Name=Auditing
              Computer=WS5
              EventRecordID=~5
              Channel=Security
              EventID=~4688
              CommandLine=x
              host:ws5
        "#]],
    );
    check(
        r#"{"@timestamp":"2020-09-14T09:36:12Z","winlog":{"channel":"Security","event_id":"4624","computer_name":"ws5","record_id":9,"event_data":{"TargetUserName":"bob","IpAddress":"10.0.0.1"}}}"#,
        expect![[r#"
            2020-09-14T09:36:12Z Declared windows/-/- id ws5/Security/9
              EventID=4624
              Channel=Security
              Computer=ws5
              EventRecordID=~9
              TargetUserName=bob
              IpAddress=10.0.0.1
              host:ws5
              user:bob
              address:10.0.0.1
        "#]],
    );
}

#[test]
fn the_envelope() {
    check(
        r#"{"event_id":"7","timestamp":"2026-01-05T14:00:00+01:00","source":"fw","event_type":"login","severity":"high","raw_data":{"user":"raw","a":{"b":1},"product":"Linux","actor":"inner"},"normalized_data":{"actor":"bob","action":"login"},"user":"top"}"#,
        expect![[r#"
            2026-01-05T13:00:00Z Declared linux/-/- id 7
              event_id=7
              source=fw
              event_type=login
              severity=high
              raw_data.user=raw
              normalized_data.actor=bob
              user=top
              a.b=~1
              product=Linux
              actor=inner
              action=login
              user:top
        "#]],
    );
    check(
        r#"{"event_type":"x","event_id":"8","raw_data":"Jan 5 a line"}"#,
        expect![[r#"
            2026-01-05T14:00:00Z Received -/-/- id 8
              event_type=x
              event_id=8
              raw_data=Jan 5 a line
        "#]],
    );
    check(
        r#"{"event_id":7,"event_type":"x"}"#,
        expect![[r#"
        reject invalid_type: event_id of the event schema must be of type string
    "#]],
    );
    check(
        r#"{"raw_data":[1]}"#,
        expect![[r#"
        reject invalid_type: raw_data of the event schema must be of type object or string
    "#]],
    );
    check(
        r#"{"normalized_data":{"actor":{}}}"#,
        expect![[r#"
        reject invalid_type: normalized_data.actor of the event schema must be of type string
    "#]],
    );
    check(
        r#"{"event_id":"9","event_type":"x","timestamp":"yesterday"}"#,
        expect![[r#"
        reject invalid_time: declares a time that is none: "yesterday"; hint: ISO 8601, or epoch seconds or milliseconds
    "#]],
    );
}

#[test]
fn other_json() {
    check(
        r#"{"time":1767621600.25,"a":[{"b":1},{"b":[true,null]}],"n":-1.5e3,"big":123456789012345678901234567890,"event":{"id":"e1"}}"#,
        expect![[r#"
        2026-01-05T14:00:00.25Z Declared -/-/- id e1
          a.b=~1
          a.b=~true
          a.b=~
          n=~-1500.0
          big=~1.2345678901234568e29
    "#]],
    );
    check(
        r#"{"@timestamp":"","timestamp":"bad","time":1767621600123}"#,
        expect![[r#"
        2026-01-05T14:00:00.123Z Declared -/-/-
    "#]],
    );
    check(
        r#"{"time":{"x":1}}"#,
        expect![[r#"
        reject invalid_time: declares a time that is none: an object; hint: ISO 8601, or epoch seconds or milliseconds
    "#]],
    );
    check(
        r#"{"Records":[{"eventVersion":"1","eventSource":"s3","eventName":"Get","awsRegion":"eu","eventTime":"2023-04-11T15:24:00Z","eventID":"i1","sourceIPAddress":"1.2.3.4"},{"a":1}]}"#,
        expect![[r#"
            2023-04-11T15:24:00Z Declared aws/-/cloudtrail id i1
              eventSource=s3
              eventName=Get
              awsRegion=eu
              sourceIPAddress=1.2.3.4
              status=success
              address:1.2.3.4
            2026-01-05T14:00:00Z Received -/-/- index 1
              a=~1
        "#]],
    );
    let options = SourceOptions {
        product: Some("fw".into()),
        time_field: Some("meta.at".into()),
        zone: "+02:00".into(),
        ..SourceOptions::default()
    };
    check_with(
        r#"{"product":"linux","service":"Auth","meta":{"at":"2026-01-05 14:00:00"},"time":1}"#,
        options,
        expect![[r#"
            2026-01-05T12:00:00Z Assumed fw/-/auth
              product=linux
              service=Auth
        "#]],
    );
}

#[test]
fn limits_and_damage_are_rejects_with_a_reason() {
    check(
        "",
        expect![[r#"
        reject empty: nothing but white space
    "#]],
    );
    check(
        "7",
        expect![[r#"
        reject not_an_object: an event must be a JSON object
    "#]],
    );
    check(
        r#"[{"a":1},2,"#,
        expect![[r#"
        reject invalid_json: not valid JSON: EOF while parsing a value at line 1 column 11
    "#]],
    );
    check(
        r#"[{"a":1},2]"#,
        expect![[r#"
        2026-01-05T14:00:00Z Received -/-/-
          a=~1
        reject not_an_object: an event must be a JSON object
    "#]],
    );
    check(
        r#"{"a":1}{"a":2}"#,
        expect![[r#"
        reject invalid_json: not valid JSON: trailing characters at line 1 column 8
    "#]],
    );
    check(
        r#"{"a":01}"#,
        expect![[r#"
        reject invalid_json: not valid JSON: invalid number at line 1 column 7
    "#]],
    );
    check(
        &format!("{{\"a\":{}1{}}}", "[".repeat(70), "]".repeat(70)),
        expect![[r#"
        reject too_deep: nested deeper than 64 levels
    "#]],
    );
    check(
        &format!("{{\"{}\":1}}", "k".repeat(300)),
        expect![[r#"
        reject too_long: a field name has 300 bytes; at most 256 are read
    "#]],
    );
    check(
        &format!("{{\"a\":[{}1]}}", "1,".repeat(4_096)),
        expect![[r#"
        reject too_many_fields: more than 4096 fields
    "#]],
    );
    check_with(
        "{\"a\":1}",
        SourceOptions { record_bytes_max: 5, ..SourceOptions::default() },
        expect![[r#"
        reject too_long: longer than 5 bytes
    "#]],
    );
    let invalid = decode(&record(b"{\"a\":\"\xff\"}", Framing::Record, RECEIVED_AT, None), SourceOptions::default());
    expect![[r#"
        reject invalid_utf8: not valid UTF-8 at byte 6
    "#]]
    .assert_eq(&show(&invalid));
    let invalid = decode(&record(b"a \xff", Framing::Record, RECEIVED_AT, None), SourceOptions::default());
    expect![[r#"
        reject invalid_utf8: not valid UTF-8 at byte 2
    "#]]
    .assert_eq(&show(&invalid));
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let refused = |options| SourceTable::new(&BTreeMap::from([("x".to_owned(), options)])).unwrap_err().to_string();
    expect![[
        r#"source "x" is not valid: unknown zone "Mars"; hint: an IANA name (Europe/Berlin) or an offset (+02:00)"#
    ]]
    .assert_eq(&refused(SourceOptions { zone: "Mars".into(), ..SourceOptions::default() }));
    expect![[r#"source "x" is not valid: depth_max is 0; it must lie between 1 and 512"#]]
        .assert_eq(&refused(SourceOptions { depth_max: 0, ..SourceOptions::default() }));
}
