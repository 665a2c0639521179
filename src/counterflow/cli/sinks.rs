//! Arguments of `counterflow sinks`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum SinksCommand {
    /// List the sinks: state, changes that wait, records sent, rejects, last error
    List {
        /// Folder of the engine
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
    },
    /// Try each sink of the settings (--config): address, login, certificate, topics, transactions; exit 1 with what is wrong
    Check {
        /// Only these
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// List the records that a sink could not take whole
    Rejects {
        /// Only of this sink
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// Folder of the engine
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
    },
    /// Tell a sink everything again as it stands, for a topic that was made anew; beside a running or a stopped engine
    Resend {
        /// The sink's name
        #[arg(value_name = "NAME")]
        name: String,
        /// Folder of the engine
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
    },
    /// Forget a sink that is not in the settings any more: nothing is noted for it from then on
    Forget {
        /// The sink's name
        #[arg(value_name = "NAME")]
        name: String,
        /// Folder of the engine
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
    },
}
