//! A follower's rows of history, on a thread of their own: kept until the leader asks for files of them, and until it says that
//! those are committed.
//!
//! Memory: the rows between two commits of the leader, who is told how many bytes that are and commits sooner when they are
//! many; [`JOBS_MAX`] batches on their way here, beyond which workers wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use anyhow::{Context, Result};
use cf_history::{Batch, Maker, Table};
use cf_types::Epoch;

use super::{link::Outbox, wire::Report};

/// Batches and orders that wait for the thread.
const JOBS_MAX: usize = 64;

/// What the thread is asked for.
enum Job {
    Keep(Batch),
    Make { after: Epoch, upto: Epoch },
    Forget(Epoch),
}

/// Where rows are given, and orders about them.
#[derive(Clone)]
pub(super) struct Rows {
    jobs: SyncSender<Job>,
    bytes: Arc<AtomicUsize>,
}

impl Rows {
    /// Starts the thread of a process. It ends when nobody can ask it any more.
    pub(super) fn start(process: usize, outbox: Outbox) -> Result<Rows> {
        let (jobs, waiting) = sync_channel(JOBS_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let (mut maker, counted) = (Maker::new(Table::Events, process), Arc::clone(&bytes));
        let work = move || {
            if let Err(error) = work(&mut maker, &waiting, &outbox, &counted) {
                // The leader ends the cluster: it would lack rows.
                drop(outbox.send(&Report::Failed(format!("{error:#}"))));
            }
        };
        thread::Builder::new().name("rows".to_owned()).spawn(work).context("could not start the thread of rows")?;
        Ok(Rows { jobs, bytes })
    }

    /// Keeps rows; waits while too many come.
    pub(super) fn keep(&self, rows: Batch) {
        self.ask(Job::Keep(rows));
    }

    /// Has files made of the rows of epochs, and sent.
    pub(super) fn make(&self, after: Epoch, upto: Epoch) {
        self.ask(Job::Make { after, upto });
    }

    /// Lets go of what is committed.
    pub(super) fn forget(&self, upto: Epoch) {
        self.ask(Job::Forget(upto));
    }

    /// What the rows take of memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn ask(&self, job: Job) {
        // A thread that has ended has said so to the leader.
        drop(self.jobs.send(job));
    }
}

fn work(maker: &mut Maker, jobs: &Receiver<Job>, outbox: &Outbox, bytes: &AtomicUsize) -> Result<()> {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Keep(rows) => maker.append(rows),
            Job::Forget(upto) => maker.forget(upto)?,
            Job::Make { after, upto } => {
                for made in maker.make(after, upto)? {
                    outbox.send(&Report::Made(made))?;
                }
                outbox.send(&Report::MadeAll(upto))?;
            }
        }
        bytes.store(maker.bytes(), Ordering::Relaxed);
    }
    Ok(())
}
