//! The columns of each table. New ones are added at the end of their table, and can be null.

use super::{Column, Kind};

const fn must(name: &'static str, kind: Kind, meaning: &'static str) -> Column {
    Column { name, kind, nullable: false, meaning }
}

const fn may(name: &'static str, kind: Kind, meaning: &'static str) -> Column {
    Column { name, kind, nullable: true, meaning }
}

const fn field(name: &'static str, meaning: &'static str) -> Column {
    may(name, Kind::Field, meaning)
}

const TENANT: Column = must("tenant", Kind::Word, "whose it is");
const DAY: Column =
    may("day", Kind::Day, "partition: the day (UTC) of its time; null for days that hold next to nothing");
const EPOCH: Column = must("epoch", Kind::Integer, "the epoch that made it");
const SOURCE: Column = must("source", Kind::Word, "name of the source in the settings");
const ORIGIN: Column = must("origin", Kind::Word, "file, or stream of the spool");
const LINE: Column = must("line", Kind::Integer, "line where the record begins, from 1; 0 where there are none");
const OFFSET: Column =
    must("record_offset", Kind::Integer, "where the record begins: byte in the file, or row in the spool");
const INDEX: Column = must("record_index", Kind::Integer, "which event of the record, from 0");
const ENTITIES: Column = must("entities", Kind::Words, "whom it speaks of, each as kind:value");

pub(super) const EVENTS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("event_id", Kind::Text, "the id that people see: the declared one, else the identity"),
    may("id", Kind::Text, "the identity, 32 hexadecimal digits; null where the source declares ids"),
    must("time", Kind::Time, "when it happened"),
    must("time_basis", Kind::Word, "how we know: declared, assumed (year or zone), received"),
    must("received_at", Kind::Time, "when it was received; for files when the file was opened"),
    SOURCE,
    ORIGIN,
    LINE,
    OFFSET,
    INDEX,
    may("product", Kind::Word, "Sigma's product"),
    may("category", Kind::Word, "Sigma's category"),
    may("service", Kind::Word, "Sigma's service"),
    may("host", Kind::Word, "its first host entity (ECS host.name)"),
    may("user", Kind::Word, "its first user entity (ECS user.name)"),
    may("address", Kind::Word, "its first address entity (ECS source.ip)"),
    may("process", Kind::Word, "its first process entity (ECS process.executable)"),
    may("file_hash", Kind::Word, "its first file hash entity (ECS file.hash)"),
    may("domain", Kind::Word, "its first domain entity (ECS dns.question.name)"),
    ENTITIES,
    may("fields", Kind::Text, "named fields of a text record as JSON; null for JSON records, where raw has all"),
    must("raw", Kind::Text, "the record as it came"),
    may("framing", Kind::Word, "how it was framed: record, syslog, http, evtx"),
    may("year", Kind::Integer, "the year that was assumed for times that have none"),
    may("urls", Kind::Words, "URLs in it, as indicators are compared: scheme and host in lower case, no fragment"),
    field("event_code", "ECS event.code: EventID"),
    field("event_action", "ECS event.action: eventName"),
    field("event_provider", "ECS event.provider: Provider_Name, eventSource"),
    field("process_executable", "ECS process.executable: Image, NewProcessName"),
    field("process_command_line", "ECS process.command_line: CommandLine"),
    field("process_pid", "ECS process.pid: ProcessId, NewProcessId"),
    field("process_parent_executable", "ECS process.parent.executable: ParentImage, ParentProcessName"),
    field("process_parent_command_line", "ECS process.parent.command_line: ParentCommandLine"),
    field("user_name", "ECS user.name: User, SubjectUserName"),
    field("user_target_name", "ECS user.target.name: TargetUserName, TargetUser"),
    field("source_ip", "ECS source.ip: SourceIp, src_ip, IpAddress, c-ip"),
    field("source_port", "ECS source.port: SourcePort, src_port, IpPort"),
    field("destination_ip", "ECS destination.ip: DestinationIp, dst_ip"),
    field("destination_port", "ECS destination.port: DestinationPort, dst_port"),
    field("destination_domain", "ECS destination.domain: DestinationHostname"),
    field("dns_question_name", "ECS dns.question.name: QueryName, query"),
    field("file_path", "ECS file.path: TargetFilename"),
    field("dll_path", "ECS dll.path: ImageLoaded"),
    field("registry_path", "ECS registry.path: TargetObject"),
    field("url_original", "ECS url.original: c-uri, url"),
    field("http_request_method", "ECS http.request.method: cs-method"),
    field("http_response_status_code", "ECS http.response.status_code: sc-status"),
    field("user_agent_original", "ECS user_agent.original: c-useragent"),
];

pub(super) const REJECTS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    may("time", Kind::Time, "when it happened, if that was understood"),
    must("received_at", Kind::Time, "when it was received"),
    SOURCE,
    ORIGIN,
    LINE,
    OFFSET,
    INDEX,
    must("code", Kind::Word, "why, one word of a closed set"),
    must("reason", Kind::Word, "what exactly"),
    must("raw", Kind::Text, "the record, at most 64 KiB; what is not UTF-8 in it is shown as U+FFFD"),
    may("raw_bytes", Kind::Bytes, "the same bytes where they are not UTF-8"),
];

pub(super) const DETECTIONS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("rule_id", Kind::Word, "id of the rule"),
    must("event_id", Kind::Text, "the id that people see"),
    must("id", Kind::Text, "identity of the event, 32 hexadecimal digits"),
    must("time", Kind::Time, "when the event happened"),
    SOURCE,
    ORIGIN,
    LINE,
    OFFSET,
    INDEX,
    may("host", Kind::Word, "its first host entity"),
    may("user", Kind::Word, "its first user entity"),
    may("address", Kind::Word, "its first address entity"),
    ENTITIES,
    must("items", Kind::Text, "where it counts, as JSON: rule_id, reference, group, value"),
];

pub(super) const ALERTS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("alert_id", Kind::Text, "its stable id"),
    must("thread", Kind::Text, "first id of its lineage, which messages and tickets follow"),
    must("revision", Kind::Integer, "counts the revisions of the thread, from 1"),
    must("event", Kind::Word, "what the revision is: opened, amended, withdrawn, ..."),
    must("state", Kind::Word, "open, sealed, withdrawn, superseded"),
    may("reason", Kind::Word, "why it changed"),
    must("rule_id", Kind::Word, "id of the rule"),
    must("title", Kind::Word, "title of the rule"),
    must("level", Kind::Word, "level of the rule"),
    must("score", Kind::Float, "threat score, 0.0 to 10.0"),
    must("group_fields", Kind::Word, "the group as JSON, field to value"),
    must("first", Kind::Time, "event time of its first cell"),
    must("last", Kind::Time, "event time of its last cell"),
    must("count", Kind::Integer, "its members"),
    must("peak", Kind::Integer, "highest count of one window"),
    ENTITIES,
    must("tags", Kind::Words, "ATT&CK and other tags of the rule"),
    may("incident", Kind::Integer, "number of its incident"),
    may("members", Kind::Text, "first and last members as JSON"),
    must("revised_at", Kind::Time, "wall time of the revision"),
    may("superseded_by", Kind::Text, "the alert that stands for it now"),
    may("base_score", Kind::Float, "what the rule's level alone would give, 0.0 to 10.0"),
    may("risk_level", Kind::Word, "the band of its score: none, low, medium, high, critical"),
    may("confidence_percent", Kind::Integer, "the chance that it is an attack"),
    may("confidence", Kind::Word, "that chance in a word"),
    may("vector", Kind::Word, "how the attacker gets there"),
    may("tactics", Kind::Words, "ATT&CK tactics of its rule"),
    may("techniques", Kind::Words, "ATT&CK techniques of its rule"),
    may("factors", Kind::Text, "what its score is made of, as JSON: factor, value, weight_permille"),
];

pub(super) const INCIDENTS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("incident", Kind::Integer, "its number"),
    must("incident_id", Kind::Text, "its stable id"),
    must("state", Kind::Word, "open, closed, withdrawn, merged"),
    may("redirect", Kind::Integer, "the incident that it was merged into"),
    may("title", Kind::Word, "for people"),
    may("score", Kind::Float, "threat score, 0.0 to 10.0"),
    may("first", Kind::Time, "event time of its first alert"),
    must("count", Kind::Integer, "its alerts"),
    must("alerts", Kind::Words, "ids of its alerts by time"),
    ENTITIES,
    must("revised_at", Kind::Time, "wall time of the revision"),
    may("type", Kind::Word, "what kind of attack it is"),
    may("severity", Kind::Word, "how bad it is"),
    may("tactics", Kind::Words, "ATT&CK tactics of its alerts, in the order of an attack"),
    may("hubs", Kind::Text, "entities that do not connect, as JSON: entity, day, neighbours"),
];

pub(super) const ACTIONS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("action_id", Kind::Text, "kind and target as one id"),
    must("number", Kind::Integer, "the ledger's number of this application of it"),
    must("kind", Kind::Word, "block_address, ..."),
    must("target", Kind::Word, "to whom"),
    must("state", Kind::Word, "planned, applying, in_force, undoing, undone, failed, refused, dry_run"),
    may("reason", Kind::Word, "why it came to this state"),
    must("alerts", Kind::Words, "ids of the alerts that are its reason"),
    must("ttl_s", Kind::Integer, "how long the effect lasts"),
    may("until_at", Kind::Time, "when the effect ends"),
    may("detail", Kind::Text, "receipt or error as JSON"),
    must("at", Kind::Time, "wall time of the step"),
];

pub(super) const EPOCHS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("wall", Kind::Time, "when it was cut"),
    must("generation", Kind::Integer, "which start of the engine cut it"),
    must("ends", Kind::Text, "end of each source in this epoch, exclusive, as JSON"),
    must("idle", Kind::Words, "sources that were idle"),
    must("control", Kind::Integer, "the control log up to and with this sequence number is in"),
    must("rules", Kind::Word, "content hash of the rule set"),
    must("engine", Kind::Word, "version of the engine"),
    may("watermark", Kind::Time, "watermark after it"),
    may("newest", Kind::Text, "newest time of each source's events up to it, as JSON"),
    may("begun", Kind::Words, "rules that began empty with it"),
];

pub(super) const RISK: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("entity", Kind::Word, "whose, as kind:value"),
    must("kind", Kind::Word, "host, user, address, process, file_hash, domain"),
    must("value", Kind::Word, "its name"),
    may("score", Kind::Float, "its risk at its newest alert, 0.0 to 10.0; null when it has none any more"),
    may("level", Kind::Word, "the band of its risk at the watermark: none, low, medium, high, critical"),
    may("was", Kind::Word, "the band before, where it changed"),
    may("buckets", Kind::Text, "what the risk is made of, as JSON: hour since 1970, weight in tenths"),
    must("at", Kind::Time, "wall time of the change"),
];

pub(super) const FACTS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("seq", Kind::Integer, "its position in the control log"),
    must("kind", Kind::Word, "fact_add, fact_remove, rule, receipt, indicator_lookup, ..."),
    may("fact", Kind::Word, "of a fact: allow, policy, silence, indicator, asset, edge, identity, verdict"),
    must("body", Kind::Text, "what was said, as JSON"),
    must("author", Kind::Word, "who said it"),
    must("reason", Kind::Word, "why"),
    must("at", Kind::Time, "when"),
];

pub(super) const VERDICTS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("seq", Kind::Integer, "its position in the control log"),
    must("alert_id", Kind::Text, "the alert"),
    may("rule_id", Kind::Word, "the alert's rule"),
    must("judgement", Kind::Word, "what it was: true_positive, false_positive, benign, ..."),
    must("given", Kind::Integer, "1: it was said, -1: it was taken back"),
    must("author", Kind::Word, "who said it"),
    must("reason", Kind::Word, "why"),
    must("at", Kind::Time, "when"),
];

pub(super) const FEATURES: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("subject", Kind::Text, "id of the alert or event that it is of"),
    must("subject_kind", Kind::Word, "alert or event"),
    must("time", Kind::Time, "event time"),
    must("recipe", Kind::Word, "version of how features are made"),
    must("features", Kind::Text, "as JSON, name to number or text; what there is nothing to say of is absent"),
    may("seq", Kind::Integer, "of the decision: its position in the control log"),
    may("rule_id", Kind::Word, "the alert's rule"),
    may("signature", Kind::Text, "what repeats itself, as a hash: an alert's rule in its group, an event's source"),
];

pub(super) const PREDICTIONS: &[Column] = &[
    TENANT,
    DAY,
    EPOCH,
    must("subject", Kind::Text, "id of the alert or event that it is of"),
    must("subject_kind", Kind::Word, "alert or event"),
    must("time", Kind::Time, "event time"),
    must("model", Kind::Word, "name of the model: its task"),
    must("version", Kind::Word, "version of the model"),
    may("score", Kind::Float, "what it gives, 0.0 to 1.0"),
    may("verdict", Kind::Word, "true, false or unknown"),
    may("detail", Kind::Text, "set of possible classes and reasons, as JSON"),
    may("seq", Kind::Integer, "of the decision: its position in the control log"),
    may("role", Kind::Word, "its part: champion, shadow, a, b"),
];
