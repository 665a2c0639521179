//! The loop: one task per channel and one for actions, each working off its intents.
//!
//! Woken by the ledger after each epoch that made intents, and by time (retries, ends of actions). A task handles its
//! intents one after the other; a channel that hangs holds up its own messages only.

use std::{
    future::Future,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use cf_fail as fail;
use cf_ledger::{Intent, Ledger, LedgerError, Operation, Outcome, Try, outbox::BLOCK_ADDRESS};
use cf_types::{Time, clock};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};
use tracing::{error, info, warn};

use crate::{
    channel::{Channel, End, Sent},
    nftables::{NftError, Nftables},
    protect::Protected,
    retry::retry_at,
    settings::ResponseSettings,
};

/// The response side cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// A channel's settings are not valid.
    #[error("channel {channel:?} is not valid: {why}")]
    Channel {
        /// Which.
        channel: String,
        /// Why.
        why: String,
    },
    /// Two channels have one name.
    #[error("two channels are named {name:?}; names must differ, because what was sent is kept by name")]
    Twice {
        /// Which name.
        name: String,
    },
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Makes the world match the ledger.
pub struct Responder {
    shared: Arc<Shared>,
    channels: Vec<(String, Channel)>,
}

struct Shared {
    ledger: Ledger,
    settings: ResponseSettings,
    protected: Protected,
    nftables: Nftables,
    hooks: Hooks,
}

/// A step between two durable states, where a test may end the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The intent is there, nothing is noted yet.
    BeforeTry,
    /// It is noted that it is tried; no effect yet.
    BeforeEffect,
    /// The effect is there, not noted.
    AfterEffect,
    /// All is noted.
    AfterFinish,
}

/// Where a test wants the work to end; nothing outside of tests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hooks {
    #[cfg(test)]
    pub(crate) die_at: Option<Step>,
}

/// The work must end here, as if the process had been killed. Only tests make one.
struct Died;

impl Hooks {
    #[cfg(test)]
    fn reach(&self, step: Step) -> Result<(), Died> {
        if self.die_at == Some(step) { Err(Died) } else { Ok(()) }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps)] // the shape of the test's
    const fn reach(&self, _step: Step) -> Result<(), Died> {
        Ok(())
    }
}

impl Responder {
    /// Sets the response side up; nothing happens before [`Responder::run`].
    ///
    /// # Errors
    /// A channel's settings are not valid.
    pub fn new(ledger: Ledger, settings: ResponseSettings) -> Result<Responder, ResponseError> {
        Responder::with_hooks(ledger, settings, Hooks::default())
    }

    pub(crate) fn with_hooks(
        ledger: Ledger,
        settings: ResponseSettings,
        hooks: Hooks,
    ) -> Result<Responder, ResponseError> {
        let mut channels: Vec<(String, Channel)> = Vec::new();
        for channel in &settings.channels {
            let name = channel.name();
            if channels.iter().any(|(other, _)| other == name) || name.starts_with("action:") || name.is_empty() {
                return Err(ResponseError::Twice { name: name.to_owned() });
            }
            channels.push((name.to_owned(), Channel::new(channel)?));
        }
        let shared = Shared {
            protected: Protected::new(&settings.protected),
            nftables: Nftables::new(&settings.block_address),
            ledger,
            settings,
            hooks,
        };
        Ok(Responder { shared: Arc::new(shared), channels })
    }

    /// Works until `shutdown`, then ends what is being tried and returns.
    ///
    /// Call [`Ledger::begin_generation`] before: it marks what a dead engine was trying as *verify first*.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        self.warn_of_orphans().await;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (name, channel) in self.channels {
            tasks.spawn(Arc::clone(&self.shared).serve(Receiver::Channel(name, channel), stopped.clone()));
        }
        tasks.spawn(Arc::clone(&self.shared).serve(Receiver::BlockAddress, stopped));
        shutdown.await;
        stop.send_replace(true);
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                error!(%error, "response task failed");
            }
        }
    }

    /// Messages for a channel that the settings know no longer wait until it is back; that must be said.
    async fn warn_of_orphans(&self) {
        match self.shared.ledger.receivers().await {
            Ok(receivers) => {
                for receiver in receivers {
                    let known = receiver == BLOCK_ADDRESS || self.channels.iter().any(|(name, _)| *name == receiver);
                    if !known {
                        warn!(%receiver, "messages wait for a channel that the settings do not have");
                    }
                }
            }
            Err(error) => error!(%error, "could not look for waiting messages"),
        }
    }
}

enum Receiver {
    Channel(String, Channel),
    BlockAddress,
}

impl Receiver {
    fn name(&self) -> &str {
        match self {
            Receiver::Channel(name, _) => name,
            Receiver::BlockAddress => BLOCK_ADDRESS,
        }
    }

    /// The longest time between two looks: time-outs of actions are by the wall clock, which may jump.
    fn look_every(&self) -> Duration {
        match self {
            Receiver::Channel(..) => Duration::from_secs(5),
            Receiver::BlockAddress => Duration::from_secs(1),
        }
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, receiver: Receiver, mut stopped: watch::Receiver<bool>) {
        let changed = self.ledger.changed();
        loop {
            let mut woken = std::pin::pin!(changed.notified());
            // Before looking, so that a change meanwhile wakes.
            woken.as_mut().enable();
            let wait = match self.round(&receiver, &stopped).await {
                Ok(next) => {
                    let until = next.map_or(i64::MAX, |next| next.micros().saturating_sub(clock::now().micros()));
                    Duration::from_micros(u64::try_from(until).unwrap_or(0))
                        .clamp(Duration::from_millis(20), receiver.look_every())
                }
                Err(Ended::Died) => return,
                Err(Ended::Ledger(error)) => {
                    error!(receiver = receiver.name(), %error, "could not work off intents");
                    Duration::from_secs(1)
                }
            };
            if *stopped.borrow() {
                return;
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(wait) => {}
                _ = stopped.changed() => return,
            }
        }
    }

    /// Works off what is due; gives when the next is.
    async fn round(&self, receiver: &Receiver, stopped: &watch::Receiver<bool>) -> Result<Option<Time>, Ended> {
        loop {
            if matches!(receiver, Receiver::BlockAddress) {
                self.ledger.expire_actions(clock::now()).await?;
            }
            let pending = self.ledger.pending(receiver.name(), clock::now(), 64).await?;
            if pending.is_empty() {
                break;
            }
            for intent in pending {
                if *stopped.borrow() {
                    return Ok(None);
                }
                self.one(receiver, &intent).await?;
            }
        }
        let mut next = self.ledger.next_due(receiver.name()).await?;
        if matches!(receiver, Receiver::BlockAddress) {
            let ends = self.ledger.actions_in_force().await?.into_iter().map(|action| action.until);
            next = next.into_iter().chain(ends).min();
        }
        Ok(next)
    }

    /// Tries one intent: note, effect, note.
    async fn one(&self, receiver: &Receiver, intent: &Intent) -> Result<(), Ended> {
        self.hooks.reach(Step::BeforeTry)?;
        let begun = match self.ledger.begin_try(intent, clock::now()).await {
            Ok(begun) => begun,
            // A newer message took its place between looking and trying.
            Err(LedgerError::Intent { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        fail::point("outbox.trying");
        self.hooks.reach(Step::BeforeEffect)?;
        // `begun.intent` counts this try; whether to verify is as it was before.
        let (outcome, receipt) = match receiver {
            Receiver::Channel(_, channel) => self.tell(channel, &begun.intent).await,
            Receiver::BlockAddress => self.act(&begun.intent).await,
        };
        fail::point("outbox.done");
        self.hooks.reach(Step::AfterEffect)?;
        self.note(receiver, &begun, &outcome, &receipt).await;
        fail::point("outbox.noted");
        self.hooks.reach(Step::AfterFinish)?;
        Ok(())
    }

    /// Notes the outcome. The effect is there, so this is repeated until it is noted; a process that dies meanwhile
    /// verifies on its next start.
    async fn note(&self, receiver: &Receiver, begun: &Try, outcome: &Outcome, receipt: &Value) {
        let intent = &begun.intent;
        match outcome {
            Outcome::Confirmed | Outcome::ConfirmedUntil { .. } | Outcome::DryRun => info!(
                receiver = receiver.name(), intent = intent.id, operation = %intent.operation, key = %intent.key,
                dry_run = matches!(outcome, Outcome::DryRun), "done"
            ),
            Outcome::Failed { retry_at: Some(_) } | Outcome::Unknown { retry_at: Some(_) } => warn!(
                receiver = receiver.name(), intent = intent.id, operation = %intent.operation, tries = intent.tries,
                %receipt, "will be tried again"
            ),
            Outcome::Failed { .. } | Outcome::Unknown { .. } => error!(
                receiver = receiver.name(), intent = intent.id, operation = %intent.operation, tries = intent.tries,
                %receipt, "given up"
            ),
            Outcome::Refused => warn!(
                receiver = receiver.name(), intent = intent.id, operation = %intent.operation, %receipt, "refused"
            ),
        }
        loop {
            match self.ledger.finish(begun, outcome, receipt, clock::now()).await {
                Ok(()) => return,
                Err(error @ LedgerError::Intent { .. }) => {
                    error!(intent = intent.id, %error, "outcome was noted by another");
                    return;
                }
                // Who has the ledger now verifies it before it is done again.
                Err(error) if error.is_fenced() => {
                    error!(intent = intent.id, %error, "the outcome cannot be noted any more");
                    return;
                }
                Err(error) => {
                    error!(intent = intent.id, %error, "could not note an outcome, trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn tell(&self, channel: &Channel, intent: &Intent) -> (Outcome, Value) {
        let begun = Instant::now();
        let Sent { end, mut receipt } = channel.send(intent).await;
        receipt["took_ms"] = json!(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        let again = |after| retry_at(&self.settings.retry, intent.tries, clock::now(), after, false);
        let outcome = match end {
            End::Delivered => Outcome::Confirmed,
            End::Missed { after } => Outcome::Failed { retry_at: again(after) },
            End::Unknown => Outcome::Unknown { retry_at: again(None) },
            End::Rejected => Outcome::Failed { retry_at: None },
        };
        (outcome, receipt)
    }

    /// Applies or undoes a block, verified in the kernel.
    async fn act(&self, intent: &Intent) -> (Outcome, Value) {
        let begun = Instant::now();
        let undo = intent.operation == Operation::Unblock;
        let ended = if undo {
            // Nothing is protected from being let through again.
            match intent.target().and_then(|target| target.parse().ok()) {
                Some(address) => self.unblock(address).await,
                None => Ok((Outcome::Confirmed, json!({"no_address": intent.target()}))),
            }
        } else {
            match self.checked(intent).await {
                Ok(address) => self.block(address, intent).await,
                Err(refused) => refused,
            }
        };
        let (outcome, mut receipt) = match ended {
            Ok(done) => done,
            Err(error) => {
                let unknown = matches!(error, NftError::TimedOut { .. });
                let at = retry_at(&self.settings.retry, intent.tries, clock::now(), None, undo);
                let outcome =
                    if unknown { Outcome::Unknown { retry_at: at } } else { Outcome::Failed { retry_at: at } };
                (outcome, json!({"error": error.to_string()}))
            }
        };
        let decided = clock::now().micros().saturating_sub(intent.made_at.micros());
        receipt["took_ms"] = json!(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        receipt["since_decision_ms"] = json!(decided / 1_000);
        (outcome, receipt)
    }

    /// The target as an address that may be touched. Asked at execution, because own addresses change.
    async fn checked(&self, intent: &Intent) -> Result<IpAddr, Result<(Outcome, Value), NftError>> {
        let own = self.nftables.own_addresses().await.map_err(Err)?;
        let protected = self.protected.clone().with_own(own);
        protected
            .check(intent.target().unwrap_or_default())
            .map_err(|refusal| Ok((Outcome::Refused, json!({"refused": refusal.to_string()}))))
    }

    async fn block(&self, address: IpAddr, intent: &Intent) -> Result<(Outcome, Value), NftError> {
        let ttl_s = intent.ttl_s().unwrap_or(0);
        let command = self.nftables.block_command(address, ttl_s);
        if !self.settings.enforce {
            return Ok((Outcome::DryRun, json!({"dry_run": command})));
        }
        if intent.verify_first
            && let Some(left) = self.nftables.remaining(address).await?.filter(|left| *left > 0)
        {
            let until = clock::now().plus_micros(i64::try_from(left).unwrap_or(0).saturating_mul(1_000_000));
            return Ok((Outcome::ConfirmedUntil { until }, json!({"was_there": true, "seconds_left": left})));
        }
        self.nftables.block(address, ttl_s).await?;
        let Some(left) = self.nftables.remaining(address).await? else {
            // It was said to be done and is not there (or has ended: a very short time to live).
            let at = retry_at(&self.settings.retry, intent.tries, clock::now(), None, false);
            return Ok((Outcome::Failed { retry_at: at }, json!({"error": "not in the kernel after it was applied"})));
        };
        Ok((Outcome::Confirmed, json!({"applied": command, "verified": true, "seconds_left": left})))
    }

    async fn unblock(&self, address: IpAddr) -> Result<(Outcome, Value), NftError> {
        let command = self.nftables.unblock_command(address);
        if !self.settings.enforce {
            // Applied by an enforcing run before this one. We write nothing; the kernel ends it.
            if self.nftables.remaining(address).await?.is_none() {
                return Ok((Outcome::Confirmed, json!({"was_gone": true})));
            }
            let at = clock::now().plus_micros(10_000_000);
            let why = "dry run: still in force from an enforcing run, it ends by itself";
            return Ok((Outcome::Failed { retry_at: Some(at) }, json!({"error": why, "dry_run": command})));
        }
        self.nftables.unblock(address).await?;
        if self.nftables.remaining(address).await?.is_some() {
            let at = clock::now().plus_micros(1_000_000);
            return Ok((Outcome::Failed { retry_at: Some(at) }, json!({"error": "still in the kernel"})));
        }
        Ok((Outcome::Confirmed, json!({"applied": command, "verified": true})))
    }
}

/// Why a round ended early.
enum Ended {
    Died,
    Ledger(LedgerError),
}

impl From<LedgerError> for Ended {
    fn from(error: LedgerError) -> Ended {
        Ended::Ledger(error)
    }
}

impl From<Died> for Ended {
    fn from(_: Died) -> Ended {
        Ended::Died
    }
}
