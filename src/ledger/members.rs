//! What of an alert's members is shown with it: the first and last of them. The graph's content has counts only; the
//! output stage, which has the items, gives the lists.

use cf_types::{Alert, Member, Time};
use serde::{Deserialize, Serialize};

/// The members of an alert, cut to what is kept inline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSummary {
    /// Event time of the first.
    pub first: Time,
    /// Event time of the last.
    pub last: Time,
    /// How many there are, exactly.
    pub count: u64,
    /// The first [`MemberSummary::INLINE`], by time, then id.
    pub first_members: Vec<MemberRef>,
    /// The last [`MemberSummary::INLINE`] of those that are not among the first.
    pub last_members: Vec<MemberRef>,
}

impl MemberSummary {
    /// Members kept at each end.
    pub const INLINE: usize = 20;

    /// Sums up members that are sorted by time, then id. `None` when there are none.
    #[must_use]
    pub fn of(sorted: &[Member]) -> Option<MemberSummary> {
        let (first, last) = (sorted.first()?, sorted.last()?);
        let head = sorted.len().min(Self::INLINE);
        let tail = sorted.len().saturating_sub(Self::INLINE).max(head);
        Some(MemberSummary {
            first: first.time,
            last: last.time,
            count: u64::try_from(sorted.len()).unwrap_or(u64::MAX),
            first_members: sorted.iter().take(head).map(MemberRef::of).collect(),
            last_members: sorted.iter().skip(tail).map(MemberRef::of).collect(),
        })
    }
}

/// One member as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRef {
    /// The id that people see.
    pub event_id: String,
    /// When it happened.
    pub time: Time,
    /// File, spool stream, or topic and partition.
    pub origin: String,
    /// Byte offset or row.
    pub offset: u64,
    /// Line, from 1; 0 where there are none.
    pub line: u64,
}

impl MemberRef {
    fn of(member: &Member) -> MemberRef {
        MemberRef {
            event_id: member.shown_id(),
            time: member.time,
            origin: member.position.origin.to_string(),
            offset: member.position.offset,
            line: member.position.line,
        }
    }
}

/// Gives the members of an alert that came or changed in the epoch; `None` when they are not at hand (then what is
/// stored stays). Called once per such alert, inside the transaction: it must not block.
pub type MembersOf<'a> = dyn Fn(&Alert) -> Option<MemberSummary> + Send + Sync + 'a;
