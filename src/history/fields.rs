//! Which column a field of events lies in: common ones in ECS names, others that rules name under their own.
//!
//! Every table of events has the common columns ([`COMMON`]). A field that rules name and that is none of these gets a
//! column of its own: its name in lower case, with `_` for what is neither letter nor digit, so that SQL needs no quotes
//! (`cs-uri-stem` is `cs_uri_stem`). At most [`FIELD_COLUMNS_MAX`] such columns are made, those first that the most rules
//! name; what is beyond stays in `raw` and `fields`, where SQL reaches it by the functions over JSON. A column once made
//! stays. The type is text; of a field that has several values the column has the first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cf_types::{
    Fields, Name,
    field::{Form, Scalar, unescape},
};

use crate::schema::{Kind, Table};

/// Columns by rules' fields at most, beside the common ones. Each costs some bytes per file and row group even where few
/// events have it.
pub const FIELD_COLUMNS_MAX: usize = 64;

/// Longer names are no columns.
const NAME_MAX: usize = 64;

/// A longer value is cut in its column: all of it is in `raw`.
const VALUE_BYTES_MAX: usize = 4_096;

/// Fields, by the names in use (Sigma's taxonomy, Windows, Zeek, AWS), and the common column that each lies in. Of several
/// fields of one event for one column, the first in this list counts.
pub const COMMON: &[(&str, &str)] = &[
    ("EventID", "event_code"),
    ("event.code", "event_code"),
    ("eventName", "event_action"),
    ("event.action", "event_action"),
    ("Provider_Name", "event_provider"),
    ("eventSource", "event_provider"),
    ("event.provider", "event_provider"),
    ("Image", "process_executable"),
    ("NewProcessName", "process_executable"),
    ("process.executable", "process_executable"),
    ("CommandLine", "process_command_line"),
    ("process.command_line", "process_command_line"),
    ("ProcessId", "process_pid"),
    ("NewProcessId", "process_pid"),
    ("process.pid", "process_pid"),
    ("ParentImage", "process_parent_executable"),
    ("ParentProcessName", "process_parent_executable"),
    ("process.parent.executable", "process_parent_executable"),
    ("ParentCommandLine", "process_parent_command_line"),
    ("process.parent.command_line", "process_parent_command_line"),
    ("User", "user_name"),
    ("SubjectUserName", "user_name"),
    ("user.name", "user_name"),
    ("TargetUserName", "user_target_name"),
    ("TargetUser", "user_target_name"),
    ("SourceIp", "source_ip"),
    ("src_ip", "source_ip"),
    ("IpAddress", "source_ip"),
    ("c-ip", "source_ip"),
    ("sourceIPAddress", "source_ip"),
    ("id.orig_h", "source_ip"),
    ("source.ip", "source_ip"),
    ("SourcePort", "source_port"),
    ("src_port", "source_port"),
    ("IpPort", "source_port"),
    ("source.port", "source_port"),
    ("DestinationIp", "destination_ip"),
    ("dst_ip", "destination_ip"),
    ("id.resp_h", "destination_ip"),
    ("destination.ip", "destination_ip"),
    ("DestinationPort", "destination_port"),
    ("dst_port", "destination_port"),
    ("destination.port", "destination_port"),
    ("DestinationHostname", "destination_domain"),
    ("destination.domain", "destination_domain"),
    ("QueryName", "dns_question_name"),
    ("query", "dns_question_name"),
    ("dns.question.name", "dns_question_name"),
    ("TargetFilename", "file_path"),
    ("file.path", "file_path"),
    ("ImageLoaded", "dll_path"),
    ("dll.path", "dll_path"),
    ("TargetObject", "registry_path"),
    ("registry.path", "registry_path"),
    ("c-uri", "url_original"),
    ("url", "url_original"),
    ("url.original", "url_original"),
    ("cs-method", "http_request_method"),
    ("http.request.method", "http_request_method"),
    ("sc-status", "http_response_status_code"),
    ("http.response.status_code", "http_response_status_code"),
    ("c-useragent", "user_agent_original"),
    ("user_agent.original", "user_agent_original"),
];

/// The column of `events` that a field lies in if it has one: a common column, else its own name made safe. `None` for a
/// name that cannot be a column.
///
/// ```
/// use cf_history::fields::column_of;
/// assert_eq!(column_of("CommandLine").as_deref(), Some("process_command_line"));
/// assert_eq!(column_of("cs-uri-stem").as_deref(), Some("cs_uri_stem"));
/// assert_eq!(column_of("host").as_deref(), Some("field_host")); // `host` is the entity
/// ```
#[must_use]
pub fn column_of(field: &str) -> Option<String> {
    if let Some((_, column)) = COMMON.iter().find(|(name, _)| *name == field) {
        return Some((*column).to_owned());
    }
    let safe: String =
        field.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    if safe.len() > NAME_MAX || !safe.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let taken = Table::Events.columns().iter().any(|column| column.name == safe && column.kind != Kind::Field);
    let plain = safe.starts_with(|first: char| first.is_ascii_lowercase()) && !taken;
    Some(if plain { safe } else { format!("field_{safe}") })
}

/// The field columns of a table of events, and how they are filled. Immutable: share it among threads.
#[derive(Clone, Debug)]
pub struct FieldColumns {
    /// Columns, the common ones first.
    columns: Vec<Arc<str>>,
    /// Fields that are known, with their column.
    fields: BTreeMap<Arc<str>, usize>,
    /// By the number of a name: column, and rank among the fields of that column.
    by_name: Vec<Option<(usize, usize)>>,
}

impl Default for FieldColumns {
    fn default() -> FieldColumns {
        FieldColumns::new([])
    }
}

impl FieldColumns {
    /// The common columns, and those of a table that is there.
    #[must_use]
    pub fn new<'a>(present: impl IntoIterator<Item = &'a str>) -> FieldColumns {
        let common = Table::Events.columns().iter().filter(|column| column.kind == Kind::Field);
        let mut columns: Vec<Arc<str>> = common.map(|column| Arc::from(column.name)).collect();
        let known: BTreeSet<Arc<str>> = columns.iter().cloned().collect();
        columns.extend(present.into_iter().filter(|name| !known.contains(*name)).map(Arc::from));
        let mut made = FieldColumns { columns, fields: BTreeMap::new(), by_name: Vec::new() };
        for (field, column) in COMMON {
            if let Some(at) = made.position(column) {
                made.fields.insert(Arc::from(*field), at);
            }
        }
        made.index();
        made
    }

    /// The same with columns for more fields, those that come first before others. Gives the fields that found no place.
    #[must_use]
    pub fn with(&self, fields: &[Arc<str>]) -> (FieldColumns, usize) {
        let mut more = self.clone();
        let room = Table::Events.columns().iter().filter(|column| column.kind == Kind::Field).count();
        let mut left_out = 0;
        for field in fields.iter().filter(|field| !self.fields.contains_key(*field)) {
            let Some(column) = column_of(field) else {
                left_out += 1;
                continue;
            };
            let at = match more.position(&column) {
                Some(at) => at,
                None if more.columns.len() < room + FIELD_COLUMNS_MAX => {
                    more.columns.push(Arc::from(column));
                    more.columns.len() - 1
                }
                None => {
                    left_out += 1;
                    continue;
                }
            };
            more.fields.insert(Arc::clone(field), at);
        }
        more.index();
        (more, left_out)
    }

    /// The columns, the common ones first.
    #[must_use]
    pub fn columns(&self) -> &[Arc<str>] {
        &self.columns
    }

    fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|known| **known == *column)
    }

    fn index(&mut self) {
        let rank = |field: &str| COMMON.iter().position(|(name, _)| *name == field).unwrap_or(COMMON.len());
        let names = Name::intern_all(self.fields.keys().map(|field| &**field));
        self.by_name.clear();
        for (name, (field, at)) in names.into_iter().zip(&self.fields) {
            if self.by_name.len() <= name.index() {
                self.by_name.resize(name.index() + 1, None);
            }
            if let Some(slot) = self.by_name.get_mut(name.index()) {
                *slot = Some((*at, rank(field)));
            }
        }
    }

    /// Gives each column that an event fills, with its text, in the order of the columns.
    pub(crate) fn of_event(&self, fields: &Fields, each: &mut dyn FnMut(usize, &str)) {
        let mut found: Vec<(usize, usize, usize)> = Vec::new(); // column, rank, place among the fields
        for (place, part) in fields.parts().enumerate() {
            if part.scalar == Scalar::Null {
                continue;
            }
            if let Some((column, rank)) = self.by_name.get(part.name.index()).copied().flatten() {
                found.push((column, rank, place));
            }
        }
        found.sort_unstable();
        found.dedup_by_key(|(column, ..)| *column);
        let mut plain = String::new();
        for (column, _, place) in found {
            let Some(part) = fields.part(place) else { continue };
            let text = match part.form {
                Form::Plain | Form::Json => part.text,
                Form::Escaped | Form::EscapedOddly => {
                    plain.clear();
                    unescape(part.text, &mut plain);
                    &plain
                }
            };
            each(column, cut(text));
        }
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(VALUE_BYTES_MAX)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_safe_and_never_take_a_column_of_ours() {
        for (field, column) in [
            ("Image", Some("process_executable")),
            ("LogonType", Some("logontype")),
            ("process.name", Some("process_name")),
            ("user", Some("field_user")),
            ("Raw", Some("field_raw")),
            ("2nd", Some("field_2nd")),
            ("ünïcode", Some("field__n_code")),
            ("\"; drop table", Some("field____drop_table")),
            ("", None),
            ("---", None),
        ] {
            assert_eq!(column_of(field).as_deref(), column, "{field}");
        }
        assert_eq!(column_of(&"a".repeat(65)), None);
    }

    #[test]
    fn every_common_column_is_in_the_schema_and_has_a_field() {
        let columns: BTreeSet<&str> =
            Table::Events.columns().iter().filter(|c| c.kind == Kind::Field).map(|c| c.name).collect();
        assert_eq!(COMMON.iter().map(|(_, column)| *column).collect::<BTreeSet<_>>(), columns);
    }

    #[test]
    fn columns_are_bounded_and_stay() {
        let fields: Vec<Arc<str>> = (0..FIELD_COLUMNS_MAX + 3).map(|i| Arc::from(format!("Field{i:03}"))).collect();
        let (columns, left_out) = FieldColumns::default().with(&fields);
        assert_eq!(left_out, 3);
        let common = FieldColumns::default().columns().len();
        assert_eq!(columns.columns().len(), common + FIELD_COLUMNS_MAX);
        let (again, left_out) = columns.with(&[Arc::from("Field000"), Arc::from("Another")]);
        assert_eq!((again.columns().len(), left_out), (common + FIELD_COLUMNS_MAX, 1));
        let reopened = FieldColumns::new(columns.columns().iter().map(|column| &**column));
        assert_eq!(reopened.columns(), columns.columns());
    }

    #[test]
    fn the_first_value_of_the_first_field_counts() {
        let (columns, _) = FieldColumns::default().with(&[Arc::from("LogonType")]);
        let mut fields = Fields::default();
        for (name, value, scalar) in [
            ("NewProcessName", "second.exe", Scalar::Text),
            ("Image", "", Scalar::Null),
            ("Image", "first.exe", Scalar::Text),
            ("LogonType", "3", Scalar::Number),
            ("LogonType", "9", Scalar::Number),
            ("Unasked", "x", Scalar::Text),
        ] {
            fields.push(Name::intern(name), value, scalar);
        }
        let mut seen = Vec::new();
        columns
            .of_event(&fields, &mut |column, text| seen.push((columns.columns()[column].to_string(), text.to_owned())));
        assert_eq!(
            seen,
            [("process_executable".to_owned(), "first.exe".to_owned()), ("logontype".to_owned(), "3".to_owned())]
        );
        assert_eq!(cut(&"ä".repeat(3_000)).len(), VALUE_BYTES_MAX);
    }
}
