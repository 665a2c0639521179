//! What a YARA rule says about itself, in the words of the other rules.

use std::sync::Arc;

use boreal_parser::rule::{MetadataValue, Rule};
use cf_sigma::rule::{LogSourcePattern, Meta as RuleMeta};
use cf_types::Level;

/// Fields whose values are scanned if the rule does not name its own with `fields = "..."`.
///
/// Script blocks and command lines as Windows, PowerShell, ECS and Linux auditd name them, the text of a message, and
/// the content of a file where an event carries it.
pub const DEFAULT_FIELDS: &[&str] = &[
    "ScriptBlockText",
    "Payload",
    "HostApplication",
    "CommandLine",
    "process.command_line",
    "powershell.file.script_block_text",
    "proctitle",
    "message",
    "file_content",
    "file.content",
];

/// Fields that may hold a file in base64: what it decodes to is scanned besides the text itself.
pub const CONTENT_FIELDS: &[&str] = &["file_content", "file.content"];

/// Fields that one rule may name.
const FIELDS_MAX: usize = 64;

/// The rule's own words.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) id: Arc<str>,
    pub(crate) title: Arc<str>,
    pub(crate) description: Arc<str>,
    pub(crate) level: Level,
    /// A level that is none of ours.
    pub(crate) unknown_level: Option<String>,
    pub(crate) status: Option<Arc<str>>,
    pub(crate) tags: Arc<[Arc<str>]>,
    /// `None` is any value of the event: `fields = "*"`.
    pub(crate) fields: Vec<Option<Arc<str>>>,
    pub(crate) log_source: LogSourcePattern,
    pub(crate) beside: Arc<RuleMeta>,
}

impl Meta {
    pub(crate) fn of(rule: &Rule) -> Meta {
        let meta = Entries(rule);
        let level = meta.first(&["level", "severity", "threat_level", "score"]);
        let known = level.as_deref().map(level_of);
        let description = meta.first(&["description"]).unwrap_or_default();
        let title = meta.first(&["title"]).or_else(|| {
            let short = description.lines().next().filter(|line| (1..=120).contains(&line.chars().count()));
            short.map(str::to_owned)
        });
        let id = meta.first(&["id", "uuid"]);
        Meta {
            id: id.map_or_else(|| Arc::from(format!("yara.{}", rule.name)), |id| Arc::from(id.trim())),
            title: title.map_or_else(|| Arc::from(rule.name.as_str()), |title| Arc::from(title.trim())),
            description: Arc::from(description),
            level: known.flatten().unwrap_or_default(),
            unknown_level: level.filter(|_| known == Some(None)),
            status: meta.first(&["status"]).map(Arc::from),
            tags: tags(rule, &meta),
            fields: fields(&meta),
            log_source: LogSourcePattern {
                product: meta.part("logsource_product"),
                category: meta.part("logsource_category"),
                service: meta.part("logsource_service"),
            },
            beside: Arc::new(RuleMeta {
                license: meta.first(&["license"]).map(Arc::from),
                author: meta.first(&["author"]).map(Arc::from),
                date: meta.first(&["date"]).map(Arc::from),
                modified: meta.first(&["modified"]).map(Arc::from),
                references: meta.all(&["reference", "references"]).map(Arc::from).collect(),
                falsepositives: meta.all(&["falsepositives", "false_positives"]).map(Arc::from).collect(),
                ..RuleMeta::default()
            }),
        }
    }
}

/// The `meta` of a rule; keys in any case, and a key may be given several times.
struct Entries<'a>(&'a Rule);

impl Entries<'_> {
    fn all<'s>(&'s self, keys: &'s [&str]) -> impl Iterator<Item = String> + 's {
        let entries = self.0.metadatas.iter();
        let named = entries.filter(|entry| keys.iter().any(|key| entry.name.eq_ignore_ascii_case(key)));
        named.map(|entry| match &entry.value {
            MetadataValue::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            MetadataValue::Integer(number) => number.to_string(),
            MetadataValue::Boolean(value) => value.to_string(),
        })
    }

    fn first(&self, keys: &[&str]) -> Option<String> {
        // The order of the keys decides, not that of the entries: `level` before `score`.
        keys.iter().find_map(|key| self.all(&[key]).find(|text| !text.trim().is_empty()))
    }

    fn part(&self, key: &str) -> Option<Arc<str>> {
        self.first(&[key]).map(|text| Arc::from(text.trim().to_lowercase()))
    }
}

/// A Sigma level, its usual other words, or a score from 0 to 100.
fn level_of(text: &str) -> Option<Level> {
    let text = text.trim().to_lowercase();
    if let Ok(score) = text.parse::<i64>() {
        return Some(match score {
            ..20 => Level::Informational,
            20..40 => Level::Low,
            40..70 => Level::Medium,
            70..90 => Level::High,
            90.. => Level::Critical,
        });
    }
    Some(match text.as_str() {
        "informational" | "info" => Level::Informational,
        "low" => Level::Low,
        "medium" | "moderate" => Level::Medium,
        "high" => Level::High,
        "critical" => Level::Critical,
        _ => return None,
    })
}

/// YARA's tags, and ATT&CK ids from tags and meta in the form that Sigma uses: `attack.t1059.001`.
fn tags(rule: &Rule, meta: &Entries<'_>) -> Arc<[Arc<str>]> {
    let own = rule.tags.iter().map(|tag| tag.tag.clone());
    let attack: Vec<String> = meta.all(&["attack", "mitre_attack", "mitre_att", "technique"]).collect();
    let attack = attack.iter().flat_map(|text| text.split([',', ' ', ';'])).filter(|word| !word.is_empty());
    let attack = attack.map(|word| {
        let tag = tag_of(word);
        if tag.contains('.') { tag } else { format!("attack.{tag}") }
    });
    let mut tags: Vec<Arc<str>> = Vec::new();
    for tag in own.map(|tag| tag_of(&tag)).chain(attack) {
        if !tags.iter().any(|known| **known == *tag) {
            tags.push(Arc::from(tag));
        }
    }
    tags.into()
}

/// `T1059_001` (tags cannot have a dot) and `T1059.001` become `attack.t1059.001`; other words stay, in small letters.
fn tag_of(word: &str) -> String {
    let word = word.trim().to_lowercase();
    let number = word.strip_prefix('t').unwrap_or_default();
    let (technique, sub) = number.split_once(['.', '_']).unwrap_or((number, ""));
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    match (digits(technique, 4), sub) {
        (true, "") => format!("attack.t{technique}"),
        (true, sub) if digits(sub, 3) => format!("attack.t{technique}.{sub}"),
        _ => word,
    }
}

fn fields(meta: &Entries<'_>) -> Vec<Option<Arc<str>>> {
    let own: Vec<String> = meta.all(&["fields"]).collect();
    let mut names: Vec<&str> =
        own.iter().flat_map(|text| text.split([',', ' '])).filter(|name| !name.is_empty()).take(FIELDS_MAX).collect();
    if names.contains(&"*") {
        return vec![None];
    }
    if names.is_empty() {
        names.extend(DEFAULT_FIELDS);
    }
    names.into_iter().map(|name| Some(Arc::from(name))).collect()
}

#[cfg(test)]
mod tests {
    use boreal_parser::file::YaraFileComponent;

    use super::*;

    fn meta(head: &str, entries: &str) -> Meta {
        let text = format!("rule {head} {{ meta: a = 1 {entries} condition: true }}");
        match boreal_parser::parse(&text).unwrap().components.remove(0) {
            YaraFileComponent::Rule(rule) => Meta::of(&rule),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn levels_come_as_words_or_scores() {
        for (entries, level) in [
            ("", Level::Medium),
            (r#"level = "high""#, Level::High),
            (r#"severity = "Critical""#, Level::Critical),
            ("score = 75", Level::High),
            ("score = 10", Level::Informational),
            (r#"score = 90 level = "low""#, Level::Low),
        ] {
            assert_eq!(meta("r", entries).level, level, "{entries}");
        }
        assert_eq!(meta("r", r#"level = "severe""#).unknown_level.as_deref(), Some("severe"));
    }

    #[test]
    fn names_and_tags_are_those_of_other_rules() {
        let own = meta("Own_Name : APT T1059_001", r#"attack = "T1027, execution" mitre_att = "T1059.001""#);
        assert_eq!((&*own.id, &*own.title), ("yara.Own_Name", "Own_Name"));
        assert_eq!(own.tags.join(" "), "apt attack.t1059.001 attack.t1027 attack.execution");
        let given = meta("r", r#"id = "42" description = "Finds it" fields = "A, B.c" logsource_product = "Windows""#);
        assert_eq!((&*given.id, &*given.title, given.fields.len()), ("42", "Finds it", 2));
        assert_eq!(given.log_source.product.as_deref(), Some("windows"));
        assert_eq!(meta("r", r#"fields = "*""#).fields, [None]);
    }
}
