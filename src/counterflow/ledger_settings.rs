//! Settings: where the ledger is.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cf_ledger::Location;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The ledger: what was decided and done.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LedgerSettings {
    /// Where it is, if not in the data folder: `postgres://USER@HOST:PORT/DATABASE`, of a PostgreSQL from 13 on. Another machine
    /// is reached by TLS and must prove its name (`sslmode=verify-full`), by the system's authorities or `sslrootcert=/FILE`.
    pub(crate) url: Option<String>,
    /// File with the password. Without it `PGPASSWORD` and `~/.pgpass` count, as for `psql`; the URL has none.
    pub(crate) password_file: Option<PathBuf>,
}

impl LedgerSettings {
    /// Lets a data folder say where its ledger is. One that says so already, and settings that do not, agree: a ledger is
    /// never begun anew beside the one that there is.
    pub(crate) fn bind(&self, data: &Path) -> Result<()> {
        let Some(url) = &self.url else { return Ok(()) };
        let password_file = self.password_file.as_deref().map(std::path::absolute).transpose();
        let password_file = password_file.context("could not make ledger.password_file absolute")?;
        Ok(Location::new(url, password_file.as_deref()).bind(data)?)
    }
}
