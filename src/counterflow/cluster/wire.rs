//! What leader and followers say to each other, as frames: length, then the message in postcard's form.
//!
//! A frame has at most [`FRAME_BYTES_MAX`]; what can be long is sent in parts ([`parts`]).

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cf_history::Made;
use cf_types::{Epoch, Fact, Record, Reject};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::status::Seen;

/// The longest frame: a record of the longest kind that settings allow (64 MiB), with all that history has of it.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// Parts are about this long; one item may go beyond it.
pub(super) const PART_BYTES: usize = 4 << 20;
/// Facts of one part.
pub(super) const PART_FACTS: usize = 4_096;

/// What the leader says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Nothing, but it is there.
    Beat,
    /// A text of the rule set that is named next.
    Text { file: String, text: String },
    /// The texts are all there: compile them. `columns` are those of events that history has.
    Prepare { rules: String, columns: Vec<String> },
    /// How sources decode from the next epoch on: their options as JSON.
    Sources(Bytes),
    /// Facts of the next epoch.
    Facts(Vec<(Fact, i64)>),
    /// Records of the next epoch, each as in the spool.
    Records(Vec<Bytes>),
    /// The epoch, all of which is there. The rule set from it on, if it changes, is one that was prepared.
    Feed { epoch: Epoch, rules: Option<String> },
    /// Make files of the rows of the epochs after one, up to and with another.
    Make { after: Epoch, upto: Epoch },
    /// History has the rows up to and with this epoch.
    Forget(Epoch),
    /// No epoch follows: work off what there is, and end.
    End,
}

/// What a follower says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Nothing, but it is there.
    Beat,
    /// A rule set is compiled, to this; or why not.
    Prepared { rules: String, compiled: Result<String, String> },
    /// A file of rows that were asked for.
    Made(Made),
    /// All files of the rows up to and with this epoch are sent.
    MadeAll(Epoch),
    /// What was refused when an epoch was decoded.
    Rejects(Epoch, Vec<Reject>),
    /// Events of an epoch that models are asked about, as JSON.
    Candidates(Epoch, Bytes),
    /// One worker has decoded its share of an epoch and said all about it.
    Decoded {
        epoch: Epoch,
        seen: Seen,
        /// What this process's rows take of memory until history is committed.
        bytes: usize,
    },
    /// What rules did since the report before.
    Work(Vec<RuleWork>),
    /// Fields that rules ask for and events had.
    Fields(Vec<String>),
    /// Somebody wants this process to stop.
    Leave,
    /// It cannot go on.
    Failed(String),
}

/// What a rule did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RuleWork {
    pub(super) rule: String,
    pub(super) hits: u64,
    pub(super) candidates: u64,
    pub(super) nanos_sampled: u64,
}

/// A message as the inside of a frame.
pub(super) fn encode<M: Serialize>(message: &M) -> Result<Bytes> {
    let bytes = postcard::to_allocvec(message).context("could not encode a message between processes")?;
    if bytes.len() > FRAME_BYTES_MAX {
        bail!("a message between processes has {} bytes; at most {FRAME_BYTES_MAX} are sent", bytes.len());
    }
    Ok(Bytes::from(bytes))
}

/// Writes a frame.
pub(super) fn write(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_le_bytes())?;
    stream.write_all(message)
}

/// Reads a frame. What cannot be a message of ours is [`io::ErrorKind::InvalidData`].
pub(super) fn read<M: DeserializeOwned>(stream: &mut impl Read) -> io::Result<M> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if length > FRAME_BYTES_MAX {
        return Err(invalid(format!("a message of {length} bytes; at most {FRAME_BYTES_MAX} are read")));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    postcard::from_bytes(&message).map_err(|error| invalid(format!("a message that does not read: {error}")))
}

/// Cuts items into parts of about [`PART_BYTES`].
pub(super) fn parts<T>(items: Vec<T>, bytes_of: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        bytes += bytes_of(&item);
        part.push(item);
        if bytes >= PART_BYTES {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// Records as orders.
pub(super) fn orders_of(records: &[Record]) -> Vec<Order> {
    let rows = records.iter().map(cf_spool::record::encode).collect();
    parts(rows, Bytes::len).into_iter().map(Order::Records).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cf_types::{Framing, Origin, Position, RejectCode, Tenant, Time};
    use serde_json::json;

    use super::*;

    fn over<M: Serialize + DeserializeOwned>(message: &M) -> M {
        let mut wire = Vec::new();
        write(&mut wire, &encode(message).unwrap()).unwrap();
        read(&mut wire.as_slice()).unwrap()
    }

    /// Facts of every kind, each with and without what may be left out: the graph sends them between processes, too.
    fn facts() -> Vec<Fact> {
        let texts = [
            json!({"allow": {"network": "10.0.0.0/8"}}),
            json!({"policy": {"name": "p", "level_min": "high", "rules": [], "tags": ["t"], "action": "block_address", "ttl_s": 9}}),
            json!({"silence": {"name": "s", "from": "2026-01-05T14:00:00Z", "until": "2026-01-05T15:00:00Z"}}),
            json!({"silence": {"name": "s", "rules": ["r"], "level_max": "low", "entities": [{"kind": "host", "value": "h"}],
                "tags": ["t"], "from": "2026-01-05T14:00:00Z", "until": "2026-01-05T15:00:00Z"}}),
            json!({"asset": {"entity": {"kind": "host", "value": "db01"}, "criticality": 5}}),
            json!({"asset": {"entity": {"kind": "host", "value": "db01"}, "criticality": 5, "owner": "ops",
                "exposure": "internal", "tags": ["pci"]}}),
            json!({"edge": {"from": {"kind": "user", "value": "a"}, "to": {"kind": "host", "value": "h"}, "access": "admin"}}),
            json!({"identity": {"user": {"kind": "user", "value": "a"}}}),
            json!({"identity": {"user": {"kind": "user", "value": "a"}, "aliases": [{"kind": "user", "value": "b"}],
                "privileged": true, "department": "it"}}),
            json!({"indicator": {"pattern": {"domain": "evil.example"}, "confidence": 90}}),
            json!({"indicator": {"pattern": {"address": "10.0.0.7/32"}, "confidence": 9, "from": "2026-01-05T14:00:00Z",
                "until": "2026-01-05T15:00:00Z", "source": "feed", "tags": ["t"]}}),
            json!({"verdict": {"alert": "00000000000000000000000000000001", "judgement": "benign"}}),
        ];
        let fact = |body| serde_json::from_value(json!({"tenant": "default", "body": body})).unwrap();
        texts.into_iter().map(fact).collect()
    }

    #[test]
    fn facts_of_all_kinds_come_over_as_they_were() {
        let facts: Vec<(Fact, i64)> = facts().into_iter().map(|fact| (fact, -1)).collect();
        let Order::Facts(read) = over(&Order::Facts(facts.clone())) else { panic!("other orders") };
        assert_eq!(read, facts);
    }

    #[test]
    fn records_and_rejects_come_over_as_they_were() {
        let origin = Arc::new(Origin {
            tenant: Tenant::default(),
            source: Arc::from("app"),
            received_at: Time::from_micros(1_500),
            year: Some(2026),
            framing: Framing::Syslog,
        });
        let position = Position { origin: Arc::from("spool"), offset: 7, line: 3, index: 1 };
        let bytes = Bytes::from_static(b"\xff\x00<13>x");
        let record = Record { origin: Arc::clone(&origin), position: position.clone(), bytes: bytes.clone() };
        let mut decoder = cf_spool::record::RecordDecoder::default();
        for order in orders_of(std::slice::from_ref(&record)) {
            let Order::Records(rows) = over(&order) else { panic!("other orders") };
            assert_eq!(decoder.decode(0, rows[0].clone()).unwrap(), record);
        }
        let reject =
            Reject { origin, position, code: RejectCode::TooLong, reason: "long".to_owned(), time: None, raw: bytes };
        let Report::Rejects(4, read) = over(&Report::Rejects(4, vec![reject.clone()])) else {
            panic!("another report")
        };
        assert_eq!(format!("{read:?}"), format!("{:?}", [reject]));
    }

    #[test]
    fn what_is_long_goes_in_parts_and_what_is_too_long_is_refused() {
        let parts = parts(vec![PART_BYTES / 2, PART_BYTES / 2, PART_BYTES * 3, 1], |bytes| *bytes);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1]);
        let wrong = |wire: &[u8]| read::<Order>(&mut &*wire).unwrap_err().kind();
        assert_eq!(wrong(&u32::MAX.to_le_bytes()), io::ErrorKind::InvalidData);
        assert_eq!(wrong(&[1, 0, 0, 0, 99]), io::ErrorKind::InvalidData);
        assert_eq!(wrong(&[9, 0, 0, 0, 1]), io::ErrorKind::UnexpectedEof);
    }
}
