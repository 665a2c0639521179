//! Settings of the response side.

use std::{collections::BTreeMap, path::PathBuf};

use cf_ledger::{Route, Routes};
use cf_types::Level;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who is told, what may be done, and what nothing may touch.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseSettings {
    /// Whether actions are carried out. Off, each is only recorded with the exact command (dry run).
    pub enforce: bool,
    /// Networks that no action may touch, beside the machine's own addresses, loopback and multicast, which never are.
    #[schemars(with = "Vec<String>")]
    pub protected: Vec<IpNet>,
    /// Who is told of alerts.
    pub channels: Vec<ChannelSettings>,
    /// Seconds between two messages about one alert on one channel: amendments within it are folded into one. The first
    /// message and a withdrawal never wait.
    pub amend_interval_s: u32,
    /// The action `block_address`.
    pub block_address: BlockAddressSettings,
    /// When to try again.
    pub retry: RetrySettings,
}

impl Default for ResponseSettings {
    fn default() -> ResponseSettings {
        ResponseSettings {
            enforce: false, // nobody's packets are dropped before somebody said so
            protected: Vec::new(),
            channels: Vec::new(),
            amend_interval_s: 30,
            block_address: BlockAddressSettings::default(),
            retry: RetrySettings::default(),
        }
    }
}

impl ResponseSettings {
    /// The routes that the ledger makes messages by.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let route =
            |channel: &ChannelSettings| Route { channel: channel.name().into(), level_min: channel.level_min() };
        Routes {
            routes: self.channels.iter().map(route).collect(),
            amend_interval_us: i64::from(self.amend_interval_s).saturating_mul(1_000_000),
        }
    }
}

/// One channel.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ChannelSettings {
    /// JSON lines on standard output.
    Stdout(StdoutSettings),
    /// JSON lines in a file.
    File(FileSettings),
    /// A POST of JSON to a URL.
    Webhook(WebhookSettings),
}

impl ChannelSettings {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            ChannelSettings::Stdout(channel) => &channel.name,
            ChannelSettings::File(channel) => &channel.name,
            ChannelSettings::Webhook(channel) => &channel.name,
        }
    }

    fn level_min(&self) -> Level {
        match self {
            ChannelSettings::Stdout(channel) => channel.level_min,
            ChannelSettings::File(channel) => channel.level_min,
            ChannelSettings::Webhook(channel) => channel.level_min,
        }
    }
}

/// JSON lines on standard output. A line may be repeated after a crash, with the same key.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StdoutSettings {
    /// Its name, unique among channels.
    pub name: String,
    /// Alerts of this level or above.
    #[schemars(with = "String")]
    pub level_min: Level,
}

impl Default for StdoutSettings {
    fn default() -> StdoutSettings {
        StdoutSettings { name: "stdout".to_owned(), level_min: Level::Medium }
    }
}

/// JSON lines in a file, each appended once and fsynced.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FileSettings {
    /// Its name, unique among channels.
    pub name: String,
    /// Alerts of this level or above.
    #[schemars(with = "String")]
    pub level_min: Level,
    /// The file; made if it is not there. It is opened anew for each message, so it may be moved away by rotation.
    pub path: PathBuf,
}

impl Default for FileSettings {
    fn default() -> FileSettings {
        FileSettings { name: "file".to_owned(), level_min: Level::Medium, path: PathBuf::from("alerts.jsonl") }
    }
}

/// A POST of JSON to a URL, with the header `Idempotency-Key`: the same for every try of one message. Answered by 2xx it
/// is delivered; 408, 429 (with `Retry-After`) and 5xx are tried again; any other answer is final.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookSettings {
    /// Its name, unique among channels.
    pub name: String,
    /// Alerts of this level or above.
    #[schemars(with = "String")]
    pub level_min: Level,
    /// Where to. Redirects are not followed.
    pub url: String,
    /// Sent as `Authorization: Bearer`, if given.
    pub token: Option<String>,
    /// Further headers.
    pub headers: BTreeMap<String, String>,
    /// Milliseconds until a try without an answer is given up; whether it arrived is unknown then.
    pub timeout_ms: u64,
}

impl Default for WebhookSettings {
    fn default() -> WebhookSettings {
        WebhookSettings {
            name: "webhook".to_owned(),
            level_min: Level::Medium,
            url: String::new(),
            token: None,
            headers: BTreeMap::new(),
            timeout_ms: 5_000, // delivery is promised within five seconds
        }
    }
}

/// `block_address`: nftables drops what comes from an address.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BlockAddressSettings {
    /// The `nft` program.
    pub nft: PathBuf,
    /// A network namespace to act in (`/run/netns/NAME` or `/proc/PID/ns/net`); none: our own.
    pub netns: Option<PathBuf>,
    /// Program and arguments put before `nft`, in place of `netns`: to act inside a container or on another machine. It
    /// must run the command that follows without a shell and pass on its exit code.
    pub command_prefix: Vec<String>,
    /// Milliseconds until a command without an end is given up; its effect is verified then.
    pub timeout_ms: u64,
}

impl Default for BlockAddressSettings {
    fn default() -> BlockAddressSettings {
        BlockAddressSettings {
            nft: PathBuf::from("nft"),
            netns: None,
            command_prefix: Vec::new(),
            timeout_ms: 5_000, // a loaded machine takes tens of milliseconds
        }
    }
}

/// When to try again: `first_ms`, doubled each time up to `max_ms`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// Milliseconds before the second try.
    pub first_ms: u64,
    /// The longest wait, in milliseconds.
    pub max_ms: u64,
    /// Tries before a message or a block is given up. The undoing of an action is never given up.
    pub tries_max: u32,
}

impl Default for RetrySettings {
    fn default() -> RetrySettings {
        // 0.5, 1, 2 ... 60, 60 s: twenty tries are about a quarter of an hour.
        RetrySettings { first_ms: 500, max_ms: 60_000, tries_max: 20 }
    }
}
