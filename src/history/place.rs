//! Where history lies: a folder, or a prefix of an S3-compatible object store.
//!
//! A folder of data says it in `history.json` beside the ledger, without any secret, so that readers (`sql`, `explain`)
//! find what the engine wrote. Credentials come from the environment (`AWS_ACCESS_KEY_ID`, ...) or from a file.
//! In an object store a commit of the Delta log is a conditional put (`If-None-Match: *`), so that two writers cannot both
//! make one version; a store that does not know it is refused at the first commit, not trusted.

use std::{
    collections::HashMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError, ensure_table_uri};
use serde::{Deserialize, Serialize};

use crate::{error::HistoryError, schema::Table};

/// The file of a data folder that says where its history is, if it is not beneath.
const FILE: &str = "history.json";

/// A file of credentials is small.
const CREDENTIALS_BYTES_MAX: u64 = 64 << 10;

/// Where history lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder of a local disk.
    Folder(PathBuf),
    /// A prefix in an object store.
    Store(StorePlace),
}

/// A prefix in an object store, and how to reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorePlace {
    /// `s3://BUCKET/PREFIX`.
    pub url: String,
    /// Where the store is, if it is not Amazon's: `http://HOST:PORT`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Region; `us-east-1` where the store does not care.
    #[serde(default)]
    pub region: Option<String>,
    /// Whether the bucket is in the path of a request and not in the name of the host.
    #[serde(default)]
    pub path_style: bool,
    /// File with credentials, in the form of `~/.aws/credentials`; without it the environment has them.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
}

impl From<&Path> for Place {
    fn from(folder: &Path) -> Place {
        Place::Folder(folder.to_owned())
    }
}

impl From<&PathBuf> for Place {
    fn from(folder: &PathBuf) -> Place {
        Place::Folder(folder.clone())
    }
}

impl From<PathBuf> for Place {
    fn from(folder: PathBuf) -> Place {
        Place::Folder(folder)
    }
}

impl From<&Place> for Place {
    fn from(place: &Place) -> Place {
        place.clone()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Folder(folder) => folder.display().fmt(f),
            Place::Store(store) => f.write_str(&store.url),
        }
    }
}

impl Place {
    /// Where the history of a data folder lies.
    ///
    /// # Errors
    ///
    /// When the folder says where and it cannot be read.
    pub fn of_data(data: &Path) -> Result<Place, HistoryError> {
        let path = data.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Place::Folder(data.join("history")));
            }
            Err(error) => return Err(HistoryError::file("read", &path)(error)),
        };
        let store = serde_json::from_slice(&text).map_err(|error| HistoryError::file("read", &path)(error.into()))?;
        Ok(Place::Store(store))
    }

    /// Writes down where the history of a data folder lies.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn keep_in(&self, data: &Path) -> Result<(), HistoryError> {
        let path = data.join(FILE);
        match self {
            Place::Folder(_) => match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(HistoryError::file("remove", &path)(error))
                }
                _ => Ok(()),
            },
            Place::Store(store) => {
                let text = serde_json::to_string(store).unwrap_or_default();
                fs::write(&path, text).map_err(HistoryError::file("write", &path))
            }
        }
    }

    /// Whether anything was ever written there, as far as that can be said without asking a store.
    #[must_use]
    pub fn may_exist(&self) -> bool {
        match self {
            Place::Folder(folder) => folder.is_dir(),
            Place::Store(_) => true,
        }
    }

    /// The folder of a table, on a local disk.
    #[must_use]
    pub fn folder(&self, table: Table) -> Option<PathBuf> {
        match self {
            Place::Folder(folder) => Some(folder.join(table.name())),
            Place::Store(_) => None,
        }
    }

    /// A table there, not loaded yet.
    pub(crate) fn locate(&self, table: Table) -> Result<DeltaTable, HistoryError> {
        let failed = |error| HistoryError::delta("open", table)(error);
        let (text, options) = match self {
            Place::Folder(folder) => {
                let folder = folder.join(table.name());
                let wrong = || DeltaTableError::InvalidTableLocation(format!("{} is not UTF-8", folder.display()));
                (folder.to_str().ok_or_else(wrong).map_err(failed)?.to_owned(), HashMap::new())
            }
            Place::Store(store) => (format!("{}/{}", store.url.trim_end_matches('/'), table.name()), store.options()?),
        };
        let url = ensure_table_uri(text).map_err(failed)?;
        DeltaTableBuilder::from_url(url)
            .map(|builder| builder.with_storage_options(options))
            .and_then(DeltaTableBuilder::build)
            .map_err(failed)
    }
}

impl StorePlace {
    /// What the client of the store is told. It tries a little by itself; those who write try on, and say so.
    fn options(&self) -> Result<HashMap<String, String>, HistoryError> {
        let mut options: HashMap<String, String> = [
            ("aws_region", self.region.as_deref().unwrap_or("us-east-1")),
            ("aws_virtual_hosted_style_request", if self.path_style { "false" } else { "true" }),
            ("timeout", "30s"),
            ("connect_timeout", "5s"),
            ("max_retries", "2"),
            ("retry_timeout", "10s"),
            ("aws_conditional_put", "etag"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        if let Some(endpoint) = &self.endpoint {
            options.insert("aws_endpoint".to_owned(), endpoint.clone());
            let is_plain = endpoint.starts_with("http://");
            options.insert("aws_allow_http".to_owned(), is_plain.to_string());
        }
        if let Some(path) = &self.credentials_file {
            options.extend(credentials(path)?);
        }
        Ok(options)
    }
}

/// Reads `key = value` lines of the first profile of a credentials file.
fn credentials(path: &Path) -> Result<Vec<(String, String)>, HistoryError> {
    let file = HistoryError::file("read", path);
    let text = match fs::metadata(path).map(|found| found.len()) {
        Ok(bytes) if bytes > CREDENTIALS_BYTES_MAX => Err(std::io::Error::other("it is too large for credentials")),
        Ok(_) => fs::read_to_string(path),
        Err(error) => Err(error),
    };
    let text = text.map_err(file)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let profile = lines.skip_while(|line| line.starts_with('[')).take_while(|line| !line.starts_with('['));
    let pairs = profile.filter_map(|line| line.split_once('='));
    let known = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
    Ok(pairs
        .map(|(key, value)| (key.trim().to_lowercase(), value.trim().to_owned()))
        .filter(|(key, _)| known.contains(&key.as_str()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_says_where_its_history_is_and_keeps_no_secret() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Place::of_data(data.path()).unwrap(), Place::Folder(data.path().join("history")));
        let secret = data.path().join("credentials");
        fs::write(&secret, "[default]\naws_access_key_id = a\naws_secret_access_key=b\n[other]\naws_session_token=c\n")
            .unwrap();
        let store = StorePlace {
            url: "s3://bucket/prefix".to_owned(),
            endpoint: Some("http://127.0.0.1:1".to_owned()),
            region: None,
            path_style: true,
            credentials_file: Some(secret),
        };
        let place = Place::Store(store.clone());
        place.keep_in(data.path()).unwrap();
        assert_eq!(Place::of_data(data.path()).unwrap(), place);
        let kept = fs::read_to_string(data.path().join(FILE)).unwrap();
        assert!(!kept.contains("aws_secret"), "{kept}");
        let options = store.options().unwrap();
        assert_eq!(options.get("aws_secret_access_key").map(String::as_str), Some("b"));
        assert_eq!(options.get("aws_session_token"), None);
        assert_eq!(options.get("aws_allow_http").map(String::as_str), Some("true"));
        Place::Folder(data.path().join("history")).keep_in(data.path()).unwrap();
        assert!(matches!(Place::of_data(data.path()).unwrap(), Place::Folder(_)));
    }
}
