//! Spreads recorded Windows events: many copies of a file, each on days, hosts, users, process ids, addresses and hashes of
//! its own, so that a large history does not consist of repeats. A pure function of line and copy.
//!
//! What is changed is found in the text: it keeps its length class, so that sizes stay comparable.

/// Keys of JSON whose value is a user.
const USERS: [&str; 5] =
    ["\"User\":\"", "\"SubjectUserName\":\"", "\"TargetUserName\":\"", "\"SourceUser\":\"", "\"TargetUser\":\""];
/// Keys of JSON whose value is the id of a process, as a text or as a number.
const PROCESSES: [&str; 5] =
    ["\"ProcessId\":", "\"ProcessID\":", "\"NewProcessId\":", "\"ParentProcessId\":", "\"SourceProcessId\":"];
const HOST: &str = "\"Computer\":\"";

/// The line as it is in this copy; copy 0 is the line itself.
#[must_use]
pub fn spread(line: &str, copy: u32) -> String {
    if copy == 0 {
        return line.to_owned();
    }
    let mut text = line.to_owned();
    if let Some(host) = value(&text, HOST).and_then(|host| host.split('.').next()).filter(|host| host.len() > 2) {
        text = text.replace(host, &format!("{host}-{copy:02}"));
    }
    for key in USERS {
        text = after(&text, key, |user| {
            let is_person = !user.is_empty() && !user.contains("SYSTEM") && !user.ends_with('$') && user != "-";
            is_person.then(|| format!("{user}{copy:02}"))
        });
    }
    for key in PROCESSES {
        text = numbers_after(&text, key, copy);
    }
    runs(&text, copy)
}

/// The text behind a key, up to the next quote.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.get(text.find(key)? + key.len()..)?.split('"').next()
}

/// Replaces each value behind a key.
fn after(text: &str, key: &str, change: impl Fn(&str) -> Option<String>) -> String {
    let mut parts = text.split(key);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(key);
        let (value, rest) = part.split_once('"').map_or((part, None), |(value, rest)| (value, Some(rest)));
        out.push_str(&change(value).unwrap_or_else(|| value.to_owned()));
        if let Some(rest) = rest {
            out.push('"');
            out.push_str(rest);
        }
    }
    out
}

/// Adds to each decimal number behind a key.
fn numbers_after(text: &str, key: &str, copy: u32) -> String {
    let mut parts = text.split(key);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(key);
        let quote = usize::from(part.starts_with('"'));
        let digits = part.bytes().skip(quote).take_while(u8::is_ascii_digit).count();
        let number = part.get(quote..quote + digits).and_then(|text| text.parse::<u32>().ok());
        match number.filter(|number| *number > 4) {
            Some(number) => {
                out.push_str(part.get(..quote).unwrap_or_default());
                out.push_str(&(number + copy * 4).to_string());
                out.push_str(part.get(quote + digits..).unwrap_or_default());
            }
            None => out.push_str(part),
        }
    }
    out
}

/// Changes dates, addresses and hashes wherever they stand.
fn runs(text: &str, copy: u32) -> String {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while !rest.is_empty() {
        let len = rest.bytes().take_while(|byte| is_part(*byte)).count();
        let (run, behind) = rest.split_at(len);
        out.push_str(
            &date(run, copy)
                .or_else(|| address(run, copy))
                .or_else(|| hash(run, copy))
                .unwrap_or_else(|| run.to_owned()),
        );
        let gap = behind.char_indices().find(|(_, c)| c.is_ascii() && is_part(u8::try_from(*c).unwrap_or(0)));
        let (gap, behind) = behind.split_at(gap.map_or(behind.len(), |(at, _)| at));
        out.push_str(gap);
        rest = behind;
    }
    out
}

/// `2020-06-10...`, as many days later as there are copies.
fn date(run: &str, copy: u32) -> Option<String> {
    let bytes = run.as_bytes();
    let shaped = bytes.len() >= 10 && bytes.get(4) == Some(&b'-') && bytes.get(7) == Some(&b'-');
    if !shaped {
        return None;
    }
    let midnight: cf_types::Time = format!("{}T00:00:00Z", run.get(..10)?).parse().ok()?;
    let later = midnight.plus_micros(i64::from(copy) * 86_400_000_000).to_string();
    Some(format!("{}{}", later.get(..10)?, run.get(10..)?))
}

/// An IPv4 address in another network.
fn address(run: &str, copy: u32) -> Option<String> {
    let octets: Vec<u8> = run.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [a, b, c, d] = octets[..] else { return None };
    if a == 127 || a == 0 {
        return None;
    }
    let b = u8::try_from((u32::from(b) + copy) % 256).unwrap_or(b);
    Some(format!("{a}.{b}.{c}.{d}"))
}

/// A hash of 32 hexadecimal digits or more, each turned on.
fn hash(run: &str, copy: u32) -> Option<String> {
    let is_hash = run.len() >= 32 && run.bytes().all(|byte| byte.is_ascii_hexdigit());
    let upper = run.bytes().any(|byte| byte.is_ascii_uppercase());
    let digit = |c: char| {
        let turned = char::from_digit((c.to_digit(16)? + copy) % 16, 16)?;
        Some(if upper { turned.to_ascii_uppercase() } else { turned })
    };
    is_hash.then(|| run.chars().map(|c| digit(c).unwrap_or(c)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, copy: u32, expected: &str) {
        assert_eq!(spread(line, copy), expected);
    }

    #[test]
    fn each_copy_has_days_hosts_users_ids_addresses_and_hashes_of_its_own() {
        check(r#"{"a":"2020-06-10T02:50:56.537Z"}"#, 0, r#"{"a":"2020-06-10T02:50:56.537Z"}"#);
        check(
            r#"{"a":"2020-06-30T02:50:56.537Z","b":"2020-12-31 23:00:00"}"#,
            1,
            r#"{"a":"2020-07-01T02:50:56.537Z","b":"2021-01-01 23:00:00"}"#,
        );
        check(r#"{"Computer":"WS5.corp","x":"WS5 said"}"#, 7, r#"{"Computer":"WS5-07.corp","x":"WS5-07 said"}"#);
        check(
            r#"{"User":"CORP\\bob","SubjectUserName":"WS5$"}"#,
            7,
            r#"{"User":"CORP\\bob07","SubjectUserName":"WS5$"}"#,
        );
        check(
            r#"{"ProcessId":"6196","ProcessID":3500,"ThreadID":1}"#,
            2,
            r#"{"ProcessId":"6204","ProcessID":3508,"ThreadID":1}"#,
        );
        check(
            r#"{"ip":"10.0.0.1","v":"1.2.3","lo":"127.0.0.1"}"#,
            3,
            r#"{"ip":"10.3.0.1","v":"1.2.3","lo":"127.0.0.1"}"#,
        );
        check("MD5=0123456789ABCDEF0123456789ABCDEF", 1, "MD5=123456789ABCDEF0123456789ABCDEF0");
        check("äöü 2020-06-10", 1, "äöü 2020-06-11");
    }
}
