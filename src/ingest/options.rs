//! What the settings say about a source, checked once.

use std::{collections::BTreeMap, sync::Arc};

use cf_types::Framing;
use jiff::tz::TimeZone;
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    decode::vendor,
    mapping::{Mapping, MappingError},
};

/// How the records of one source are decoded. What is not given is found out from the record.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SourceOptions {
    /// Sigma's product of all its events (`linux`, `windows`, `aws`); wins over what the record says.
    pub product: Option<String>,
    /// Sigma's category of all its events (`webserver`, `firewall`); wins over what the record says.
    pub category: Option<String>,
    /// Sigma's service of all its events (`sshd`, `cloudtrail`); wins over what the record says.
    pub service: Option<String>,
    /// The zone of times that name none: an IANA name (`Europe/Berlin`) or an offset (`+02:00`).
    pub zone: String,
    /// Which field of a JSON record is its time, with dots (`event.created`). Default: `timestamp`, `@timestamp`, `time`.
    pub time_field: Option<String>,
    /// The columns of its lines, in order, for logs that name them only in a header line (`#Fields:` of W3C logs,
    /// `#fields` of Zeek): names as there. Lines with another number of columns are decoded as if this were not given.
    pub columns: Vec<String>,
    /// JSON payloads of products that the program does not know, or knows otherwise; asked before the shipped ones.
    pub mapping: Mapping,
    /// Bytes of the longest record; what is longer is rejected and its first 64 KiB are kept. At most 64 MiB.
    pub record_bytes_max: u32,
    /// How deep JSON may nest; what is deeper is rejected. At most 512.
    pub depth_max: u32,
    /// Fields of one event; a record with more is rejected. At most 65,536.
    pub fields_max: u32,
}

impl Default for SourceOptions {
    fn default() -> SourceOptions {
        SourceOptions {
            product: None,
            category: None,
            service: None,
            zone: "UTC".to_owned(),
            time_field: None,
            columns: Vec::new(),
            mapping: Mapping::default(),
            record_bytes_max: 1 << 20, // 1 MiB: the largest real records (PowerShell script blocks) have some 100 KiB
            depth_max: 64,             // real records nest up to 20
            fields_max: 4_096,         // real records have up to 500
        }
    }
}

/// Settings of a source that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The zone is neither a name nor an offset.
    #[error(
        "source {name:?} is not valid: unknown zone {zone:?}; hint: an IANA name (Europe/Berlin) or an offset (+02:00)"
    )]
    Zone {
        /// The source.
        name: String,
        /// What stood there.
        zone: String,
        /// What the zone data says.
        #[source]
        cause: jiff::Error,
    },
    /// A row of its mapping says what cannot be.
    #[error("source {name:?} is not valid")]
    Mapping {
        /// The source.
        name: String,
        /// Which row, and what is wrong with it.
        #[source]
        cause: MappingError,
    },
    /// A limit is zero or above what we can promise.
    #[error("source {name:?} is not valid: {key} is {value}; it must lie between 1 and {max}")]
    Limit {
        /// The source.
        name: String,
        /// The setting.
        key: &'static str,
        /// What stood there.
        value: u32,
        /// The highest value.
        max: u32,
    },
}

/// The options of all sources by name; a source that is not in it has the default.
#[derive(Clone, Debug)]
pub struct SourceTable {
    options: BTreeMap<String, SourceOptions>,
    by_name: FxHashMap<String, Arc<Source>>,
    default: Arc<Source>,
}

impl SourceTable {
    /// Checks the options of all sources.
    ///
    /// # Errors
    ///
    /// The first option that cannot be.
    pub fn new(options: &BTreeMap<String, SourceOptions>) -> Result<SourceTable, OptionsError> {
        let by_name = options
            .iter()
            .map(|(name, options)| Ok((name.clone(), Arc::new(Source::check(name, options)?))))
            .collect::<Result<_, OptionsError>>()?;
        Ok(SourceTable { options: options.clone(), by_name, ..SourceTable::default() })
    }

    /// What it was made of, for those who make it again in another process.
    #[must_use]
    pub fn options(&self) -> &BTreeMap<String, SourceOptions> {
        &self.options
    }

    /// The depth that a JSON parser must allow for all of them.
    pub(crate) fn depth_max(&self) -> usize {
        self.by_name.values().map(|source| source.depth_max).max().unwrap_or(0).max(self.default.depth_max)
    }

    /// The mappings of all of them.
    pub(crate) fn mappings(&self) -> impl Iterator<Item = &vendor::table::Table> {
        self.by_name.values().map(|source| &*source.mapping)
    }

    /// The options of one source.
    pub(crate) fn get(&self, name: &str) -> &Arc<Source> {
        self.by_name.get(name).unwrap_or(&self.default)
    }
}

impl Default for SourceTable {
    fn default() -> SourceTable {
        let default = Source::check("default", &SourceOptions::default()).expect("the defaults are valid");
        SourceTable { options: BTreeMap::new(), by_name: FxHashMap::default(), default: Arc::new(default) }
    }
}

/// [`SourceOptions`], checked: nothing in it can be wrong.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) product: Option<Arc<str>>,
    pub(crate) category: Option<Arc<str>>,
    pub(crate) service: Option<Arc<str>>,
    pub(crate) zone: TimeZone,
    pub(crate) time_field: Option<Arc<str>>,
    pub(crate) columns: Vec<String>,
    pub(crate) mapping: Arc<vendor::table::Table>,
    pub(crate) record_bytes_max: usize,
    pub(crate) depth_max: usize,
    pub(crate) fields_max: usize,
}

impl Source {
    fn check(name: &str, options: &SourceOptions) -> Result<Source, OptionsError> {
        let zone = parse_zone(&options.zone).map_err(|cause| OptionsError::Zone {
            name: name.to_owned(),
            zone: options.zone.clone(),
            cause,
        })?;
        let limit = |key, value: u32, max: u32| match usize::try_from(value) {
            Ok(size) if (1..=max).contains(&value) => Ok(size),
            _ => Err(OptionsError::Limit { name: name.to_owned(), key, value, max }),
        };
        let mapping = vendor::table::Table::new(&options.mapping, vendor::shipped_mapping)
            .map_err(|cause| OptionsError::Mapping { name: name.to_owned(), cause })?;
        let shared = |text: &Option<String>| text.as_deref().map(Arc::from);
        Ok(Source {
            product: shared(&options.product),
            category: shared(&options.category),
            service: shared(&options.service),
            zone,
            time_field: shared(&options.time_field),
            columns: options.columns.clone(),
            mapping: Arc::new(mapping),
            record_bytes_max: limit("record_bytes_max", options.record_bytes_max, 64 << 20)?,
            depth_max: limit("depth_max", options.depth_max, 512)?,
            fields_max: limit("fields_max", options.fields_max, 65_536)?,
        })
    }

    /// Whether the settings say something of the log source.
    pub(crate) const fn names_log_source(&self) -> bool {
        self.product.is_some() || self.category.is_some() || self.service.is_some()
    }

    /// Whether nothing in the settings makes what a document gives depend on more than its shape.
    pub(crate) fn fits_shapes(&self) -> bool {
        self.time_field.is_none() && self.mapping.rows.is_empty()
    }

    /// Whether records of this framing are JSON by contract, whatever they begin with.
    pub(crate) const fn wants_json(framing: Framing) -> bool {
        matches!(framing, Framing::Http | Framing::Evtx)
    }
}

fn parse_zone(text: &str) -> Result<TimeZone, jiff::Error> {
    if text.eq_ignore_ascii_case("utc") || text == "Z" {
        return Ok(TimeZone::UTC);
    }
    if text.starts_with(['+', '-']) {
        // jiff reads an offset as part of a time, so one is given to it.
        let pieces: jiff::fmt::temporal::Pieces<'_> =
            jiff::fmt::temporal::Pieces::parse(&format!("2000-01-01T00:00{text}"))
                .map(jiff::fmt::temporal::Pieces::into_owned)?;
        if let Some(offset) = pieces.to_numeric_offset() {
            return Ok(TimeZone::fixed(offset));
        }
    }
    TimeZone::get(text)
}
