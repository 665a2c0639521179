//! Channels: where messages about alerts go.

mod file;
mod webhook;

use std::{io::Write as _, time::Duration};

use cf_ledger::Intent;
use serde_json::{Value, json};

use crate::{responder::ResponseError, settings::ChannelSettings};
use file::FileChannel;
use webhook::WebhookChannel;

/// How a sending ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) end: End,
    pub(crate) receipt: Value,
}

/// The ends of a sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It arrived.
    Delivered,
    /// It did not arrive; not before `after`.
    Missed { after: Option<Duration> },
    /// It may have arrived.
    Unknown,
    /// The receiver does not want it, now or ever.
    Rejected,
}

/// One channel, ready to send.
pub(crate) enum Channel {
    Stdout,
    File(FileChannel),
    Webhook(WebhookChannel),
}

impl Channel {
    pub(crate) fn new(settings: &ChannelSettings) -> Result<Channel, ResponseError> {
        Ok(match settings {
            ChannelSettings::Stdout(_) => Channel::Stdout,
            ChannelSettings::File(settings) => Channel::File(FileChannel::new(settings.path.clone())),
            ChannelSettings::Webhook(settings) => Channel::Webhook(WebhookChannel::new(settings)?),
        })
    }

    /// Sends one message; `intent.verify_first` says that it may have arrived before.
    pub(crate) async fn send(&self, intent: &Intent) -> Sent {
        match self {
            Channel::Stdout => stdout(intent),
            Channel::File(channel) => channel.send(intent).await,
            Channel::Webhook(channel) => channel.send(intent).await,
        }
    }
}

/// The message as it is sent: key and time of decision, then what the ledger wrote.
pub(crate) fn message(intent: &Intent) -> Value {
    let mut message = serde_json::Map::new();
    message.insert("key".to_owned(), Value::from(intent.key.as_str()));
    message.insert("channel".to_owned(), Value::from(intent.receiver.as_str()));
    message.insert("at".to_owned(), json!(intent.made_at));
    if let Value::Object(body) = &intent.body {
        message.extend(body.clone());
    }
    Value::Object(message)
}

/// One line, in one write. Nobody can look whether it came out before a crash: then it comes again, with the same key.
fn stdout(intent: &Intent) -> Sent {
    let mut line = message(intent).to_string();
    line.push('\n');
    let mut out = std::io::stdout().lock();
    match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Sent { end: End::Delivered, receipt: json!({"bytes": line.len(), "repeated": intent.verify_first}) },
        Err(error) => Sent { end: End::Missed { after: None }, receipt: json!({"error": error.to_string()}) },
    }
}
