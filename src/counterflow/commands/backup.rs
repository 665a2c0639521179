//! `counterflow backup | restore`.

use anyhow::{Context, Result};

use crate::{
    backup,
    cli::{BackupArguments, RestoreArguments},
    output::{self, Exit},
};

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("could not start")
}

/// Makes a backup, beside a running or a stopped engine.
pub(crate) fn make(arguments: &BackupArguments) -> Result<Exit> {
    let made = backup::make(&runtime()?, &arguments.data, &arguments.to)?;
    let (files, bytes, upto) = (made.files.len(), made.bytes(), made.upper.saturating_sub(1));
    output::note(&format!("{}: {files} files, {bytes} bytes, whole up to epoch {upto}", arguments.to.display()));
    Ok(Exit::Ok)
}

/// Makes a data folder of a backup.
pub(crate) fn restore(arguments: &RestoreArguments) -> Result<Exit> {
    let made = backup::restore(&runtime()?, &arguments.backup, &arguments.data)?;
    let (data, upto) = (arguments.data.display(), made.upper.saturating_sub(1));
    output::note(&format!(
        "{data}: restored as of {}, epoch {upto}; what waits to be sent or done is verified first. See that the engine it \
         is from does not run any more, then start `counterflow run --data {data}`",
        made.made_at
    ));
    Ok(Exit::Ok)
}
