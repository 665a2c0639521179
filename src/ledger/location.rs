//! Where the ledger of a data folder is: in the folder (`ledger.db`), or in PostgreSQL.
//!
//! A folder whose ledger is in PostgreSQL says so in `DIR/ledger.location`, one line of JSON with the URL, the path of the
//! password's file and the id of the ledger; the password itself never. `run` writes it by its settings; every command that
//! opens the ledger of a folder finds it there. The id keeps a folder and a ledger together whose epochs belong together.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    str::FromStr as _,
};

use serde::{Deserialize, Serialize};
use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::{LedgerError, schema};

/// Name of the file.
const FILE: &str = "ledger.location";

/// A ledger in PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// `postgres://user@host:port/database?...`, without a password.
    pub url: String,
    /// File with the password; without it `PGPASSWORD` and `~/.pgpass` are looked at, as by `psql`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Id of the ledger; none before it was opened for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
}

impl Location {
    /// The ledger at a URL.
    #[must_use]
    pub fn new(url: &str, password_file: Option<&Path>) -> Location {
        Location { url: url.to_owned(), password_file: password_file.map(Path::to_path_buf), ledger: None }
    }

    /// Where a folder says that its ledger is; `None`: in the folder.
    ///
    /// # Errors
    /// The file cannot be read, or does not read as one of ours.
    pub fn of(dir: &Path) -> Result<Option<Location>, LedgerError> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(source) => return Err(LedgerError::Folder { dir: dir.to_path_buf(), source }),
        };
        let read = serde_json::from_slice(&text);
        read.map(Some).map_err(|error| LedgerError::Location {
            why: format!("{} does not say where the ledger is: {error}", path.display()),
        })
    }

    /// Binds a folder to this ledger, before it is opened. A folder that is bound keeps its ledger's id, so the same ledger
    /// may move to another address.
    ///
    /// # Errors
    /// The folder has a ledger of its own, the URL is not one that we take, or the folder cannot be written.
    pub fn bind(&self, dir: &Path) -> Result<(), LedgerError> {
        self.options()?;
        if dir.join(schema::FILE).exists() {
            let why = format!(
                "data folder {} has a ledger of its own ({}); it is not moved to PostgreSQL: give a new --data folder, or \
                 take ledger.url out of the settings",
                dir.display(),
                schema::FILE
            );
            return Err(LedgerError::Location { why });
        }
        let before = Location::of(dir)?;
        let bound = Location { ledger: before.as_ref().and_then(|before| before.ledger.clone()), ..self.clone() };
        if before.as_ref() == Some(&bound) { Ok(()) } else { bound.write(dir) }
    }

    /// Notes the ledger's id in the folder, or refuses a ledger that is not the folder's. `upper` says whether the ledger
    /// has epochs already.
    pub(crate) fn belongs(&self, dir: &Path, id: &str, upper: i64) -> Result<(), LedgerError> {
        match &self.ledger {
            Some(known) if known == id => Ok(()),
            Some(known) => Err(LedgerError::Location {
                why: format!(
                    "data folder {} belongs to ledger {known}, at {} is ledger {id}; give the address of the right one",
                    dir.display(),
                    self.url
                ),
            }),
            // Its epochs lie in the spool and the facts log of another folder.
            None if upper > 1 => Err(LedgerError::Location {
                why: format!(
                    "the ledger at {} has {} epochs, of another data folder than {}; give that folder, or another \
                     database or schema",
                    self.url,
                    upper - 1,
                    dir.display()
                ),
            }),
            None => Location { ledger: Some(id.to_owned()), ..self.clone() }.write(dir),
        }
    }

    fn write(&self, dir: &Path) -> Result<(), LedgerError> {
        let write = || {
            let (path, new) = (dir.join(FILE), dir.join("ledger.location.new"));
            let mut file = File::create(&new)?;
            writeln!(file, "{}", serde_json::to_string(self)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|source| LedgerError::Folder { dir: dir.to_path_buf(), source })
    }

    /// How to connect.
    pub(crate) fn options(&self) -> Result<PgConnectOptions, LedgerError> {
        let refuse = |why: String| LedgerError::Location { why };
        if !self.url.starts_with("postgres://") && !self.url.starts_with("postgresql://") {
            return Err(refuse(format!("{:?} is no address of a ledger; it begins with postgres://", self.url)));
        }
        let authority = self.url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
        let has_password = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
        if has_password || self.url.contains("password=") {
            let why = "the ledger's URL has a password in it, which would stand in the data folder; put it into a file \
                       and give ledger.password_file, or into PGPASSWORD";
            return Err(refuse(why.to_owned()));
        }
        let options = PgConnectOptions::from_str(&self.url)
            .map_err(|error| refuse(format!("{:?} is no address of a ledger: {error}", self.url)))?;
        if let Some(name) = relative_file(&self.url) {
            let why =
                format!("{name} in the ledger's URL must be an absolute path: it is read by whoever opens the folder");
            return Err(refuse(why));
        }
        let options = secured(options);
        let options = match &self.password_file {
            Some(path) => {
                let password = fs::read_to_string(path).map_err(|error| {
                    refuse(format!("could not read the ledger's password {}: {error}", path.display()))
                })?;
                options.password(password.trim_end_matches(['\r', '\n']))
            }
            None => options,
        };
        // What is answered must be on the disk; who hangs must not hold the locks for ever, and a machine that is gone
        // must be noticed.
        let settings = [
            ("synchronous_commit", "on"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "60s"),
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
        ];
        let name = format!("counterflow {}", std::process::id());
        Ok(options.options(settings).application_name(&name).disable_statement_logging())
    }
}

/// The first file of keys or certificates in a URL whose path depends on where a command is started.
fn relative_file(url: &str) -> Option<&str> {
    const FILES: [&str; 7] = ["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"];
    let is_absolute = |path: &str| path.starts_with('/') || path.starts_with("%2F") || path.starts_with("%2f");
    let parameters = url.split(['?', '&']).filter_map(|parameter| parameter.split_once('='));
    let mut files = parameters.filter(|(name, _)| FILES.contains(name));
    files.find(|(_, path)| !is_absolute(path)).map(|(name, _)| name)
}

/// What leaves the machine is encrypted, and the server proves its name, unless the URL says `disable`, `require` or
/// `verify-ca`: what would go on in the clear when the server has no TLS does not count.
fn secured(options: PgConnectOptions) -> PgConnectOptions {
    let host = options.get_host();
    let is_here = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    match options.get_ssl_mode() {
        PgSslMode::Allow | PgSslMode::Prefer if !is_here => options.ssl_mode(PgSslMode::VerifyFull),
        _ => options,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SEC-06: nothing goes to another machine in the clear that nobody asked for.
    #[test]
    fn another_machine_proves_its_name() {
        let mode = |url: &str| Location::new(url, None).options().unwrap().get_ssl_mode();
        assert!(matches!(mode("postgres://me@db.example/db"), PgSslMode::VerifyFull));
        assert!(matches!(mode("postgres://me@10.0.0.1/db?sslmode=prefer"), PgSslMode::VerifyFull));
        assert!(matches!(mode("postgres://me@db.example/db?sslmode=require"), PgSslMode::Require));
        assert!(matches!(mode("postgres://me@db.example/db?sslmode=disable"), PgSslMode::Disable));
        assert!(matches!(mode("postgres://me@127.0.0.1/db"), PgSslMode::Prefer));
        assert!(matches!(mode("postgres://me@localhost/db?host=/run/postgresql"), PgSslMode::Prefer));
    }

    #[test]
    fn files_are_named_by_absolute_paths() {
        let why = |url: &str| Location::new(url, None).options().err().map(|error| error.to_string());
        let relative = why("postgres://me@db.example/db?sslmode=verify-full&sslrootcert=ca.pem").unwrap();
        assert!(relative.contains("sslrootcert"), "{relative}");
        assert_eq!(why("postgres://me@db.example/db?sslrootcert=/etc/ca.pem&sslkey=%2Fetc%2Fkey.pem"), None);
    }
}
