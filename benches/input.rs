//! What the benches run on: rules from folders, some of them or many copies; events as they are, flat, or generated.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cf_sigma::Text;
use serde_json::{Map, Value, json};

/// All rule files at and below a path, in the order of their names.
///
/// # Errors
///
/// What could not be read.
pub fn rule_texts(path: &Path) -> Result<Vec<Text>> {
    let mut texts = Vec::new();
    collect(path, &mut texts)?;
    Ok(texts)
}

fn collect(path: &Path, texts: &mut Vec<Text>) -> Result<()> {
    if path.is_dir() {
        let entries = fs::read_dir(path).with_context(|| format!("could not read {}", path.display()))?;
        let mut inner: Vec<PathBuf> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        inner.sort();
        return inner.iter().try_for_each(|path| collect(path, texts));
    }
    if path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
        let text = fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
        texts.push(Text { file: path.display().to_string().into(), text });
    }
    Ok(())
}

/// Every n-th text, so that `count` are left, of all kinds.
#[must_use]
pub fn sample(texts: Vec<Text>, count: usize) -> Vec<Text> {
    let step = (texts.len() / count.max(1)).max(1);
    texts.into_iter().step_by(step).take(count).collect()
}

/// The texts, and copies in which the longer words of values have other letters: as many rules as a site could ever have,
/// that look for different things. A copy's words are shifted through the alphabet by its number.
#[must_use]
pub fn copies(texts: Vec<Text>, count: usize) -> Vec<Text> {
    let mut all = texts.clone();
    for copy in 1..count {
        for text in &texts {
            let file = format!("{}#{copy}", text.file).into();
            all.push(Text { file, text: shifted(&text.text, copy) });
        }
    }
    all
}

fn shifted(text: &str, by: usize) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut in_detection = false;
    for line in text.lines() {
        if !line.starts_with([' ', '#', '-']) && !line.trim().is_empty() {
            in_detection = line.starts_with("detection:");
        }
        let value_at = line.find(": ").map(|at| at + 2).or_else(|| line.find("- ").map(|at| at + 2));
        match value_at {
            _ if line.starts_with("id: ") => out.push_str(&with_other_id(line, by)),
            Some(at) if in_detection && !line.trim_start().starts_with("condition:") => {
                let (head, value) = line.split_at(at);
                out.push_str(head);
                out.push_str(&with_other_words(value, by));
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// The same id but for its first digits, which no two copies share.
fn with_other_id(line: &str, by: usize) -> String {
    let tail: String = line.chars().skip("id: ".len() + 4).collect();
    format!("id: {by:04x}{tail}")
}

fn with_other_words(value: &str, by: usize) -> String {
    let mut out = String::with_capacity(value.len());
    let mut word = String::new();
    for c in value.chars().chain(['\0']) {
        if c.is_ascii_alphabetic() {
            word.push(c);
            continue;
        }
        // Short words are often syntax: of regular expressions, of switches.
        let shift = if word.len() >= 4 && !matches!(word.as_str(), "true" | "false" | "null") { by } else { 0 };
        out.extend(word.drain(..).map(|letter| shifted_letter(letter, shift)));
        if c != '\0' {
            out.push(c);
        }
    }
    out
}

fn shifted_letter(letter: char, by: usize) -> char {
    let first = if letter.is_ascii_uppercase() { b'A' } else { b'a' };
    let place = usize::from(u8::try_from(letter).unwrap_or(first).saturating_sub(first));
    u8::try_from((place + by) % 26).map_or(letter, |place| char::from(first + place))
}

/// Nested Windows events as shippers flatten them: the members of `System` and `EventData` side by side.
#[must_use]
pub fn flat(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    for line in raw.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let Ok(value) = serde_json::from_slice::<Value>(line) else { continue };
        let event = value.get("Event").unwrap_or(&value);
        let mut row = Map::new();
        for (key, value) in event.get("System").and_then(Value::as_object).into_iter().flatten() {
            match (key.as_str(), value) {
                ("TimeCreated", value) => {
                    row.insert("SystemTime".to_owned(), value["#attributes"]["SystemTime"].clone());
                }
                ("Provider", value) => {
                    row.insert("Provider_Name".to_owned(), value["#attributes"]["Name"].clone());
                }
                ("EventID", Value::Object(id)) => {
                    row.insert(key.clone(), id.get("#text").cloned().unwrap_or_default());
                }
                (_, Value::Object(_) | Value::Null) => {}
                _ => {
                    row.insert(key.clone(), value.clone());
                }
            }
        }
        for part in ["EventData", "UserData"] {
            for (key, value) in event.get(part).and_then(Value::as_object).into_iter().flatten() {
                row.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        if serde_json::to_writer(&mut out, &row).is_ok() {
            out.push(b'\n');
        }
    }
    out
}

/// A benign mix of flat Sysmon and Security events, about 1 kB each, from a seed: programs of an ordinary desktop, in the
/// shares in which they come.
#[must_use]
pub fn benign_mix(events: u64, seed: u64) -> Vec<u8> {
    const IMAGES: &[&str] = &[
        r"C:\Windows\System32\svchost.exe",
        r"C:\Program Files\Google\Chrome\Application\chrome.exe",
        r"C:\Program Files\Microsoft Office\root\Office16\OUTLOOK.EXE",
        r"C:\Windows\explorer.exe",
        r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
        r"C:\Windows\System32\SearchIndexer.exe",
        r"C:\Users\alice\AppData\Local\Microsoft\Teams\current\Teams.exe",
        r"C:\Windows\System32\taskhostw.exe",
        r"C:\ProgramData\Microsoft\Windows Defender\Platform\4.18\MsMpEng.exe",
        r"C:\Windows\System32\RuntimeBroker.exe",
    ];
    let mut state = seed | 1;
    let mut next = |below: usize| {
        // xorshift64 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 16).unwrap_or(0) % below
    };
    let mut out = Vec::new();
    for number in 0..events {
        let image = IMAGES[next(IMAGES.len())];
        let parent = IMAGES[next(IMAGES.len())];
        let (pid, user) = (next(30_000), ["CORP\\alice", "CORP\\bob", "NT AUTHORITY\\SYSTEM"][next(3)]);
        let mut row = json!({
            "Channel": "Microsoft-Windows-Sysmon/Operational", "Provider_Name": "Microsoft-Windows-Sysmon",
            "Computer": format!("ws{:03}.corp.example", next(400)), "EventRecordID": number,
            "SystemTime": "2026-11-22T08:00:00.123Z", "UtcTime": "2026-11-22 08:00:00.123", "RuleName": "-",
            "ProcessGuid": format!("{{5770385f-c22a-43e0-{:04x}-06f5698ffbd9}}", next(65_536)), "ProcessId": pid,
            "Image": image, "User": user, "Version": 5, "Level": 4, "Task": 1, "Opcode": 0, "Keywords": "0x8000000000000000",
        });
        let more = match next(10) {
            0..=1 => json!({
                "EventID": 1, "CommandLine": format!("\"{image}\" --type=renderer --field-trial-handle={} --lang=en-US --instance {}", next(9_999), next(99)),
                "CurrentDirectory": r"C:\Windows\system32\", "ParentImage": parent, "ParentCommandLine": format!("{parent} -k netsvcs -p"),
                "ParentProcessId": next(30_000), "IntegrityLevel": "Medium", "LogonId": "0x3e7", "TerminalSessionId": 1,
                "OriginalFileName": image.rsplit('\\').next(), "Company": "Example Corporation", "Product": "Example", "Description": "Example program",
                "Hashes": format!("SHA1={:040x},MD5={:032x},SHA256={:064x},IMPHASH={:032x}", next(1 << 40), next(1 << 40), next(1 << 40), next(1 << 40)),
            }),
            2..=3 => json!({
                "EventID": 3, "Protocol": "tcp", "Initiated": true, "SourceIp": format!("10.1.{}.{}", next(255), next(255)), "SourcePort": next(60_000),
                "DestinationIp": format!("93.184.{}.{}", next(255), next(255)), "DestinationPort": 443, "DestinationHostname": "edge.example.net",
            }),
            4..=5 => json!({
                "EventID": 7, "ImageLoaded": format!(r"C:\Windows\System32\module{}.dll", next(300)), "Signed": "true", "Signature": "Example Corporation",
                "SignatureStatus": "Valid", "OriginalFileName": "module.dll", "Hashes": format!("SHA256={:064x}", next(1 << 40)),
            }),
            6 => {
                json!({ "EventID": 11, "TargetFilename": format!(r"C:\Users\alice\AppData\Local\Temp\etilqs_{:08x}", next(1 << 30)), "CreationUtcTime": "2026-11-22 08:00:00.123" })
            }
            7..=8 => json!({
                "EventID": 13, "EventType": "SetValue", "Details": format!("DWORD (0x{:08x})", next(1 << 30)),
                "TargetObject": format!(r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Diagnostics\Counter{}", next(900)),
            }),
            _ => {
                json!({ "EventID": 22, "QueryName": format!("cdn{}.example.com", next(500)), "QueryStatus": "0", "QueryResults": "::ffff:93.184.216.34;" })
            }
        };
        if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
            row.extend(more);
        }
        if serde_json::to_writer(&mut out, &row).is_ok() {
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_rules_that_look_for_other_things() {
        let text = "title: t\nid: 9b5e3a0c-5a2f-4d32-8f0f-2a37c4a3a001\ndetection:\n    s:\n        Image|endswith:\n            - '\\whoami.exe'\n        EventID: 1\n    condition: s\nlevel: high\n";
        let all = copies(vec![Text { file: "a.yml".into(), text: text.to_owned() }], 2);
        assert_eq!(all.len(), 2);
        assert!(all[1].text.contains("'\\xipbnj.exe'"), "{}", all[1].text);
        assert!(all[1].text.contains("id: 00013a0c-5a2f-4d32-8f0f-2a37c4a3a001"));
        assert!(all[1].text.contains("condition: s\nlevel: high"));
    }

    #[test]
    fn flat_events_keep_what_rules_ask_for() {
        let nested = br##"{"Event":{"System":{"EventID":{"#text":1},"Channel":"C","TimeCreated":{"#attributes":{"SystemTime":"T"}}},"EventData":{"Image":"a"}}}"##;
        assert_eq!(flat(nested), b"{\"EventID\":1,\"Channel\":\"C\",\"SystemTime\":\"T\",\"Image\":\"a\"}\n");
    }

    #[test]
    fn the_mix_is_json_and_the_same_for_a_seed() {
        let mix = benign_mix(200, 7);
        assert_eq!(mix, benign_mix(200, 7));
        let lines: Vec<&[u8]> = mix.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 200);
        assert!(lines.iter().all(|line| serde_json::from_slice::<Value>(line).is_ok()));
    }
}
