//! The words of `counterflow hunts`.

use std::path::PathBuf;

use cf_types::Time;
use clap::{Args, Subcommand};

use super::RuleInputs;

#[derive(Debug, Subcommand)]
pub(crate) enum HuntsCommand {
    /// List the hunts in force, each with its last run: when, how long, rows, new ones, and why it came to nothing
    List(HuntsArguments),
    /// Show one: what it asks, how it stands, what it found last
    Show(ShowHuntArguments),
    /// Exit 0 when hunts load and what they ask can be asked, 1 with what is wrong
    Check(CheckHuntsArguments),
    /// Run one now and print its rows; what is new becomes detections, in a running engine or at its next start
    Run(RunHuntArguments),
}

#[derive(Debug, Args)]
pub(crate) struct HuntsArguments {
    /// Folder of the engine, running or not
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ShowHuntArguments {
    /// Its id, name or title
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Rows of what it found that are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,

    /// Folder of the engine, running or not
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct CheckHuntsArguments {
    /// Rule files or folders; of other rules in them only errors are told
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    /// Look at the tables of this folder, too: they have the columns of fields that rules name
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RunHuntArguments {
    /// Its id, name or title
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Folder of the engine, running or not
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,

    /// Take it from these files instead of the rules in force: then nothing is recorded
    #[arg(long = "rules", value_name = "PATH")]
    pub(crate) rules: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) inputs: RuleInputs,

    /// Begin of the event time that is looked at, in the place of the hunt's own
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<Time>,

    /// Its end, exclusive
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<Time>,

    /// Print the rows and record nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}
