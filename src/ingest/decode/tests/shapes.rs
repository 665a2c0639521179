//! A document gives the same whether its shape is known or not.

use super::*;

/// Decodes each document with a decoder that met all those before it, and with one that met none.
#[track_caller]
fn check(documents: &[&[u8]]) {
    let decoder = || Decoder::new(Arc::new(SourceTable::default()));
    let (mut warm, mut cold) = (decoder(), decoder());
    for round in 0..2 {
        for document in documents {
            let record = record(document, Framing::Http, RECEIVED_AT, None);
            let (mut known, mut parsed) = (Decoded::default(), Decoded::default());
            warm.decode(&record, &mut known);
            cold.work.shapes = Shapes::default();
            cold.decode(&record, &mut parsed);
            let text = String::from_utf8_lossy(document);
            assert_eq!(told(&known), told(&parsed), "round {round}: {text}");
        }
    }
}

/// Everything of what a record gave, as it is held.
fn told(decoded: &Decoded) -> String {
    let mut out = show(decoded);
    for event in &decoded.events {
        event.fields.parts().for_each(|part| out += &format!("{part:?}\n"));
    }
    out
}

/// A Windows event with these parts of `System` and `EventData`.
fn event(system: &str, parts: &str) -> Vec<u8> {
    format!(r#"{{"Event":{{"System":{{"Channel":"C","Computer":"c","EventRecordID":7,{system}}},"EventData":{{{parts}}}}}}}"#)
        .into_bytes()
}

#[test]
fn one_shape_and_many_values() {
    let values = [
        r#""""#,
        r#""a""#,
        r#""a\\b""#,
        r#""\"""#,
        r#""\u0041""#,
        r#""\t\\""#,
        r#""\ud83d\ude00""#,
        r#""\ud83d""#,
        "\"\u{e9}\"",
        "\"a\tb\"",
        r#""\x""#,
        r#""a"#,
        r#"a""#,
        "7",
        "0",
        "-7",
        "-0",
        "07",
        "7.5",
        "7e2",
        "123456789012345678",
        "1234567890123456789",
        "true",
        "false",
        "null",
        "nul",
        "{}",
        "[]",
        r#"["x"]"#,
        r#"{"x":1}"#,
        r##"{"#text":"x"}"##,
        "",
    ];
    let long = format!("\"{}\"", "C:\\\\Windows\\\\".repeat(20));
    let mut documents = Vec::new();
    for value in values.into_iter().chain([long.as_str()]) {
        for key in ["Image", "Data", "Threat Name", "CommandLine", "#attributes", "A\\u0042"] {
            documents.push(event(r#""EventID":1"#, &format!(r#""{key}":{value},"User":"u""#)));
            documents.push(event(r#""EventID":1"#, &format!(r#""{key}" : {value}"#)));
        }
        documents.push(event(&format!(r#""EventID":{value}"#), r#""User":"u""#));
        documents.push(event(&format!(r#""EventID":2,"EventRecordID":{value}"#), r#""User":"u""#));
        documents.push(event(&format!(r#""EventID":3,"TimeCreated":{{"SystemTime":{value}}}"#), r#""User":"u""#));
        documents.push(event(&format!(r#""EventID":4,"Channel":{value}"#), r#""User":"u""#));
        documents.push(format!(r#"{{"EventID":1,"Channel":{value},"Computer":"c"}}"#).into_bytes());
        documents.push(format!(r#"{{"event_id":1,"log_name":{value},"event_data":{{"a":{value}}}}}"#).into_bytes());
        documents
            .push(format!(r#"{{"winlog":{{"channel":"C","event_id":1,"event_data":{{"a":{value}}}}}}}"#).into_bytes());
    }
    check(&documents.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

#[test]
fn names_that_are_values_are_not_taken_from_another_document() {
    let datum = |name: &str| event(r#""EventID":1"#, &format!(r##""Data":[{{"Name":"{name}","#text":"x"}}]"##));
    let documents = [datum("CommandLine"), datum("User"), datum("CommandLine")];
    check(&documents.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

#[test]
fn times_and_channels_of_one_shape() {
    let times = ["2019-04-27T15:57:25.868863Z", "2019-04-27", "", " ", "yesterday", "1767225600", "20190427"];
    let channels = ["Linux-Sysmon/Operational", "Security", "", "a\\\\b", "a\\u0042"];
    let mut documents = Vec::new();
    for (time, channel) in times.iter().flat_map(|time| channels.map(|channel| (time, channel))) {
        let text = format!(
            r#"{{"Event":{{"System":{{"TimeCreated":{{"SystemTime":"{time}"}},"Channel":"{channel}","Computer":"c","EventRecordID":"5"}}}}}}"#
        );
        documents.push(text.into_bytes());
        documents.push(format!(r#"{{"SystemTime":"{time}","Channel":"{channel}","EventID":1}}"#).into_bytes());
    }
    check(&documents.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

#[test]
fn damaged_documents_of_a_known_shape() {
    let whole =
        event(r#""EventID":1,"Version":null"#, r#""Image":"C:\\a.exe","ProcessId":4711,"Signed":true,"User":"u""#);
    let mut documents = vec![whole.clone()];
    for at in 0..whole.len() {
        documents.push(whole.get(..at).unwrap().to_vec());
        for byte in [b'"', b'\\', b'{', b'}', b',', b'0', b' ', b'\n', 0xc3] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            documents.push(damaged);
            let mut longer = whole.clone();
            longer.insert(at, byte);
            documents.push(longer);
        }
    }
    check(&documents.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

#[test]
fn limits_hold_for_known_shapes() {
    let wide = event(r#""EventID":1"#, r#""a":"1","b":"2","c":"3""#);
    let few = SourceOptions { fields_max: 5, ..SourceOptions::default() };
    let flat = SourceOptions { depth_max: 2, ..SourceOptions::default() };
    let sources = [("test", SourceOptions::default()), ("few", few), ("flat", flat)];
    let table = SourceTable::new(&sources.map(|(name, options)| (name.to_owned(), options)).into()).unwrap();
    let mut decoder = Decoder::new(Arc::new(table));
    let mut decode = |source: &str| {
        let mut record = record(&wide, Framing::Http, RECEIVED_AT, None);
        let origin = Origin { source: Arc::from(source), ..(*record.origin).clone() };
        record.origin = Arc::new(origin);
        let mut decoded = Decoded::default();
        decoder.decode(&record, &mut decoded);
        (decoded.events.len(), decoded.rejects.iter().map(|reject| reject.code).collect::<Vec<_>>())
    };
    assert_eq!(decode("test"), (1, vec![]));
    assert_eq!(decode("few"), (0, vec![RejectCode::TooManyFields]));
    let parsed = decode("flat");
    assert_eq!(decode("test"), (1, vec![]));
    assert_eq!(decode("flat"), parsed);
}

#[test]
fn real_windows_events() {
    for file in ["evtx_attack_samples.jsonl.zst", "otrf_windows_400k.jsonl.zst"] {
        let Some(path) = real::shared(file) else { return };
        let options = FileOptions::new(RECEIVED_AT.parse().unwrap());
        let records = file::open(path.to_str().unwrap(), &options).unwrap().take(2_000);
        let documents: Vec<Bytes> = records.map(|record| record.unwrap().bytes).collect();
        check(&documents.iter().map(|bytes| &**bytes).collect::<Vec<_>>());
    }
}
