//! `counterflow config print | check | template`.

use anyhow::Result;
use cf_settings::Origin;
use serde_json::json;

use crate::{
    cli::{Cli, ConfigCommand},
    config::{self, Settings},
    output::{self, Exit, Format},
};

/// Runs one of them.
pub(crate) fn run(cli: &Cli, command: &ConfigCommand) -> Result<Exit> {
    match command {
        ConfigCommand::Template => {
            output::ignore_closed_pipe(output::text(&cf_settings::template::<Settings>()))?;
        }
        ConfigCommand::Check => {
            let loaded = config::load(cli, None)?;
            loaded.warnings.iter().for_each(|warning| output::note(&format!("warning: {warning}")));
            output::note("the settings are right");
        }
        ConfigCommand::Print => {
            let loaded = config::load(cli, None)?;
            loaded.warnings.iter().for_each(|warning| output::note(&format!("warning: {warning}")));
            let rows = loaded.show().into_iter().map(
                |setting| json!({ "setting": setting.path, "value": setting.value, "origin": origin(setting.origin) }),
            );
            output::ignore_closed_pipe(output::rows(
                Format::or_default(cli.output),
                &["setting", "value", "origin"],
                rows,
            ))?;
        }
    }
    Ok(Exit::Ok)
}

fn origin(origin: Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File { line } => format!("file, line {line}"),
        Origin::Environment { line } => format!("environment, file line {line}"),
        Origin::Flag => "flag".to_owned(),
    }
}
