//! What queries of others may use, and the way in by the Postgres wire.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Options;

/// SQL for others: over HTTP and over the Postgres wire.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SqlSettings {
    /// Postgres wire, `ADDR:PORT`; read-only.
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// Who may ask over the Postgres wire: a file with a line `NAME:PASSWORD` for each. A token is the password of its name. Only
    /// SCRAM-SHA-256 is spoken, so no password crosses the network. Read anew for each login.
    pub users_file: Option<PathBuf>,
    /// Whether connections from this machine need no password. Only on a loopback address.
    pub trust_loopback: bool,
    /// Certificate chain (PEM) of the Postgres wire; with `tls_key`. Without it only loopback addresses are listened on.
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// Connections of the Postgres wire at once; others are refused with SQLSTATE 53300.
    pub connections_max: u32,
    /// Seconds after which a connection that asks nothing is closed.
    pub idle_s: u32,
    /// Queries that run at once, over all ways in; more wait as long as a query may take.
    pub queries_max: u32,
    /// Seconds that one query may take, from its begin to its last row.
    pub query_s: u32,
    /// Rows of one answer; a query with more fails and says so.
    pub rows_max: u64,
    /// Bytes of memory of all queries together. Beyond it sorts, joins and groups go to disk, and what cannot fails alone.
    pub memory_bytes: u64,
    /// Bytes of disk for that, in the system's temporary folder.
    pub spill_bytes: u64,
    /// Threads of all queries together, at the lowest priority; 0: half of the machine's, at least one.
    pub threads: u32,
}

impl Default for SqlSettings {
    fn default() -> SqlSettings {
        SqlSettings {
            listen: None,
            users_file: None,
            trust_loopback: false,
            tls_cert: None,
            tls_key: None,
            connections_max: 64,
            idle_s: 900,
            queries_max: 4,
            query_s: 60,
            rows_max: 1_000_000,
            memory_bytes: 512 << 20, // the engine beside it needs the rest of a small machine
            spill_bytes: 8 << 30,
            threads: 0,
        }
    }
}

impl SqlSettings {
    /// As options of a session.
    #[must_use]
    pub fn options(&self) -> Options {
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Options {
            memory_bytes: size(self.memory_bytes),
            spill_bytes: self.spill_bytes,
            spill_folder: None,
            threads: self.thread_count(),
            queries_max: size(u64::from(self.queries_max)),
            time_max: Some(Duration::from_secs(u64::from(self.query_s.max(1)))),
            rows_max: Some(self.rows_max),
        }
    }

    /// How many threads that is.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        match self.threads {
            0 => (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1),
            some => usize::try_from(some).unwrap_or(1).min(256),
        }
    }

    /// What no type can say.
    ///
    /// # Errors
    ///
    /// In words for who wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            return Err("sql.tls_cert and sql.tls_key belong together; give both or none".to_owned());
        }
        let Some(address) = self.listen else { return Ok(()) };
        let loopback = address.ip().is_loopback();
        if self.trust_loopback && !loopback {
            return Err(format!(
                "sql.trust_loopback lets everybody in, and sql.listen {address} is no loopback address"
            ));
        }
        if self.users_file.is_none() && !self.trust_loopback {
            return Err(
                "sql.listen wants sql.users_file (lines NAME:PASSWORD), or sql.trust_loopback: true on 127.0.0.1"
                    .to_owned(),
            );
        }
        if !loopback && self.tls_cert.is_none() {
            return Err(format!(
                "sql.listen is {address}, which others can reach; it wants sql.tls_cert and sql.tls_key"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(listen: &str, change: impl Fn(&mut SqlSettings), expect: Option<&str>) {
        let mut settings = SqlSettings { listen: listen.parse().ok(), ..SqlSettings::default() };
        change(&mut settings);
        let said = settings.check().err();
        assert_eq!(said.is_some(), expect.is_some(), "{said:?}");
        assert!(said.unwrap_or_default().contains(expect.unwrap_or_default()));
    }

    #[test]
    fn nobody_comes_in_unasked() {
        let file = || Some(PathBuf::from("users"));
        check("", |_| (), None);
        check("127.0.0.1:5432", |_| (), Some("wants sql.users_file"));
        check("127.0.0.1:5432", |s| s.trust_loopback = true, None);
        check("127.0.0.1:5432", |s| s.users_file = file(), None);
        check("0.0.0.0:5432", |s| s.trust_loopback = true, Some("lets everybody in"));
        check("0.0.0.0:5432", |s| s.users_file = file(), Some("wants sql.tls_cert"));
        check("", |s| s.tls_key = file(), Some("belong together"));
        let tls = |s: &mut SqlSettings| (s.users_file, s.tls_cert, s.tls_key) = (file(), file(), file());
        check("0.0.0.0:5432", tls, None);
    }
}
