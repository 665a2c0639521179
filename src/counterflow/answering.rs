//! Threads beside the hot path that answer, from history, what an epoch asked; the answer goes into the control log in
//! slices, from where it enters the graph with later epochs, as any fact does. So a replay does not look again, and what is
//! not answered at a start is asked again.
//!
//! A thread waits until history holds the epoch that asked: then the ledger has it, too, and no other can take its place.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use cf_ledger::{ControlEntry, ControlLog};
use cf_types::{Epoch, clock};
use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime::Runtime;

/// How often history is asked whether it holds an epoch by now.
const WAIT: Duration = Duration::from_millis(50);

/// What an epoch asks.
pub(crate) trait Question: Send + 'static {
    /// The epoch.
    fn epoch(&self) -> Epoch;
    /// For which rules.
    fn rules(&self) -> String;
}

/// The thread that answers questions of one kind.
pub(crate) struct Answering<Q> {
    name: &'static str,
    questions: Sender<Q>,
}

impl<Q: Question> Answering<Q> {
    /// Starts it. `durable` is the last epoch that history holds. It ends with the one who asks.
    pub(crate) fn start(
        name: &'static str,
        durable: Arc<AtomicU64>,
        mut answer: impl FnMut(&Q, &Runtime) -> Result<()> + Send + 'static,
    ) -> Result<Answering<Q>> {
        let (questions, waiting) = mpsc::channel::<Q>();
        // Detached: it holds nothing that must be given back.
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                for question in waiting {
                    while durable.load(Ordering::Acquire) < question.epoch() {
                        thread::sleep(WAIT);
                    }
                    let answered = runtime().and_then(|runtime| answer(&question, &runtime));
                    if let Err(error) = answered {
                        let (error, rules) = (format!("{error:#}"), question.rules());
                        tracing::error!(
                            error,
                            rules,
                            thread = name,
                            "history was not looked at; a restart tries again"
                        );
                    }
                }
            })
            .with_context(|| format!("could not start thread {name}"))?;
        Ok(Answering { name, questions })
    }

    /// Asks; the answers come through the control log.
    pub(crate) fn ask(&self, questions: Vec<Q>) {
        for question in questions {
            if self.questions.send(question).is_err() {
                tracing::error!(thread = self.name, "a thread that looks back has died: a restart asks again");
            }
        }
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// How an answer is cut, and what the control log calls it.
pub(crate) struct Slices {
    pub(crate) kind: &'static str,
    pub(crate) reason: &'static str,
    /// Rows of one entry.
    pub(crate) rows: usize,
    /// How long the entries lie apart.
    pub(crate) every: Duration,
}

impl Slices {
    /// Writes rows into the control log. `answer` makes an entry of some of them, and is told which is the last.
    pub(crate) async fn write<T, A: Serialize>(
        &self,
        log: &mut ControlLog,
        rows: &[T],
        answer: impl Fn(&[T], bool) -> A,
    ) -> Result<()> {
        let mut slices: Vec<&[T]> = rows.chunks(self.rows.max(1)).collect();
        let last = slices.pop().unwrap_or_default();
        for slice in slices {
            self.append(log, &answer(slice, false)).await?;
            tokio::time::sleep(self.every).await;
        }
        self.append(log, &answer(last, true)).await
    }

    async fn append<A: Serialize>(&self, log: &mut ControlLog, answer: &A) -> Result<()> {
        log.append(self.kind, &serde_json::to_string(answer)?, "engine", self.reason, clock::now()).await?;
        Ok(())
    }
}

/// An answer of the control log.
pub(crate) fn read<A: DeserializeOwned>(entry: &ControlEntry) -> Result<A> {
    serde_json::from_str(&entry.body).with_context(|| format!("entry {} of the control log is damaged", entry.seq))
}
