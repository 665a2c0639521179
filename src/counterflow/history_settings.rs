//! The settings of history: where it lies, how long rows are kept, how large it may grow.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use cf_history::{Place, Retention, StorePlace, Table};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// History: Delta tables of all that was received, found and done.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HistorySettings {
    /// Where it lies, if not in `history` of the data folder: `s3://BUCKET/PREFIX` of an S3-compatible object store that
    /// knows conditional puts (`If-None-Match`). Credentials are taken from the environment (`AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`) or from `credentials_file`. One engine per place.
    pub(crate) url: Option<String>,
    /// Address of the store if it is not Amazon's, `http://HOST:PORT` or `https://HOST:PORT`.
    pub(crate) endpoint: Option<String>,
    /// Region of the bucket; stores other than Amazon's mostly do not care.
    pub(crate) region: Option<String>,
    /// Whether the bucket is in the path of requests (most stores other than Amazon's) and not in the name of the host.
    pub(crate) path_style: bool,
    /// File with credentials in the form of `~/.aws/credentials`; its first profile counts.
    pub(crate) credentials_file: Option<PathBuf>,
    /// Days for which rows are kept, by table: `events: 90`. By event time for events, rejects and detections, by wall time
    /// for the others; tables that are not named keep all. Events and detections that incidents rest on stay. `facts` and
    /// `epochs` are always kept.
    pub(crate) retention_days: BTreeMap<String, u32>,
    /// Bytes of all tables together (without files that only older versions need). Beyond it the oldest of features,
    /// predictions, events and rejects go, then detections and risk; alerts, incidents, actions, verdicts, facts and
    /// epochs never go, nor what incidents rest on.
    pub(crate) bytes_max: Option<u64>,
    /// Hours for which older versions of a table can be read (time travel, long queries): files that were replaced are
    /// removed after that.
    pub(crate) versions_h: u32,
    /// How often small files are looked for and joined, in seconds, at the lowest priority. 0: never, and nothing goes.
    pub(crate) compact_every_s: u32,
}

impl Default for HistorySettings {
    fn default() -> HistorySettings {
        HistorySettings {
            url: None,
            endpoint: None,
            region: None,
            path_style: false,
            credentials_file: None,
            retention_days: BTreeMap::new(),
            bytes_max: None,
            versions_h: 24,      // the Delta log keeps its entries as long
            compact_every_s: 30, // some six commits
        }
    }
}

impl HistorySettings {
    /// What no type can say.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(url) = self.url.as_ref().filter(|url| !url.starts_with("s3://") || url.len() < 6) {
            bail!("history.url is {url:?}; it must be s3://BUCKET/PREFIX");
        }
        let stray = [self.endpoint.is_some(), self.region.is_some(), self.credentials_file.is_some()];
        if self.url.is_none() && stray.contains(&true) {
            bail!("history.endpoint, region and credentials_file are for a store: give history.url, too");
        }
        self.retention().map(drop)
    }

    /// Where history lies.
    pub(crate) fn place(&self, data: &Path) -> Place {
        let Some(url) = &self.url else { return Place::Folder(data.join("history")) };
        Place::Store(StorePlace {
            url: url.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            path_style: self.path_style,
            credentials_file: self.credentials_file.clone(),
        })
    }

    /// Whether anything may go at all.
    pub(crate) fn lets_go(&self) -> bool {
        !self.retention_days.is_empty() || self.bytes_max.is_some()
    }

    /// How long rows are kept.
    pub(crate) fn retention(&self) -> Result<Retention> {
        let mut retention = Retention::default();
        for (name, days) in &self.retention_days {
            let Some(table) = Table::ALL.into_iter().find(|table| table.name() == name) else {
                let known: Vec<_> = Table::ALL.iter().map(|table| table.name()).collect();
                bail!("history.retention_days.{name}: there is no such table; there are {}", known.join(", "));
            };
            if *days == 0 || !retention.set(table, *days) {
                bail!("history.retention_days.{name}: at least a day, and `facts` and `epochs` are always kept");
            }
        }
        Ok(retention)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let wrong = |settings: HistorySettings| settings.check().unwrap_err().to_string();
        let days = |table: &str, days| HistorySettings {
            retention_days: BTreeMap::from([(table.to_owned(), days)]),
            ..HistorySettings::default()
        };
        assert!(wrong(days("event", 1)).contains("history.retention_days.event"));
        assert!(wrong(days("epochs", 1)).contains("always kept"));
        assert!(wrong(days("events", 0)).contains("at least a day"));
        assert!(days("events", 1).check().is_ok());
        let url = |url: &str| HistorySettings { url: Some(url.to_owned()), ..HistorySettings::default() };
        assert!(wrong(url("http://bucket")).contains("history.url"));
        assert!(url("s3://bucket/prefix").check().is_ok());
        let stray = HistorySettings { region: Some("x".to_owned()), ..HistorySettings::default() };
        assert!(wrong(stray).contains("history.url"));
    }
}
