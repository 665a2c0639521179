//! One end of a link: a thread that sends what waits, and says that we are there when nothing does; and reading, which ends
//! this process when the other one is gone or has said nothing for too long.
//!
//! Memory: [`WAITING_MAX`] messages wait; who has more to say waits.

use std::{
    io::{self, BufReader, BufWriter, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::wire;

/// Messages that wait for the connection.
const WAITING_MAX: usize = 32;
/// Within the time after which silence counts as an end, one says so often that one is there.
const BEATS: u32 = 5;

/// The process at the other end.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) process: usize,
    silent_max: Duration,
    /// It was told, or has said, that nothing follows.
    ended: AtomicBool,
}

impl Peer {
    pub(super) fn new(process: usize, silent_max: Duration) -> Arc<Peer> {
        Arc::new(Peer { process, silent_max, ended: AtomicBool::new(false) })
    }

    /// From here on it may go.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Ends this process because of it.
    pub(super) fn fail(&self, how: &str) -> ! {
        cf_engine::cluster::end(&format!("process {} of the cluster {how}", self.process))
    }
}

/// Where messages to a process wait.
#[derive(Clone)]
pub(super) struct Outbox(SyncSender<Option<Bytes>>);

impl Outbox {
    /// Starts the thread, which says `beat` when nothing else is said. It ends after [`Outbox::close`], or with the connection.
    pub(super) fn start<M: Serialize>(
        stream: TcpStream,
        peer: &Arc<Peer>,
        beat: &M,
    ) -> Result<(Outbox, JoinHandle<()>)> {
        let (sender, waiting) = sync_channel(WAITING_MAX);
        let (beat, peer) = (wire::encode(beat)?, Arc::clone(peer));
        let thread = thread::Builder::new()
            .name(format!("link-{}", peer.process))
            .spawn(move || {
                let every = peer.silent_max / BEATS;
                if send_all(stream, &waiting, &beat, every).is_err() && !peer.ended.load(Ordering::Acquire) {
                    peer.fail("is gone");
                }
            })
            .context("could not start a thread for another process")?;
        Ok((Outbox(sender), thread))
    }

    /// Says something; waits while too much waits.
    pub(super) fn send<M: Serialize>(&self, message: &M) -> Result<()> {
        self.send_encoded(wire::encode(message)?);
        Ok(())
    }

    /// Says what was encoded before.
    pub(super) fn send_encoded(&self, message: Bytes) {
        // It fails when the thread has ended: after an orderly end, or just before this process ends.
        drop(self.0.send(Some(message)));
    }

    /// Lets the thread end after what waits.
    pub(super) fn close(&self) {
        drop(self.0.send(None));
    }
}

fn send_all(stream: TcpStream, waiting: &Receiver<Option<Bytes>>, beat: &[u8], every: Duration) -> io::Result<()> {
    let mut stream = BufWriter::new(stream);
    loop {
        match waiting.recv_timeout(every) {
            Ok(Some(message)) => wire::write(&mut stream, &message)?,
            Err(RecvTimeoutError::Timeout) => wire::write(&mut stream, beat)?,
            Ok(None) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        stream.flush()?;
    }
}

/// The reading end.
pub(super) struct Inbox {
    stream: BufReader<TcpStream>,
    peer: Arc<Peer>,
}

impl Inbox {
    pub(super) fn new(stream: TcpStream, peer: &Arc<Peer>) -> Result<Inbox> {
        let failed = "could not limit how long another process may be silent";
        stream.set_read_timeout(Some(peer.silent_max)).context(failed)?;
        Ok(Inbox { stream: BufReader::new(stream), peer: Arc::clone(peer) })
    }

    /// The next message; `None` after an orderly end. Any other end of the connection ends this process.
    pub(super) fn receive<M: DeserializeOwned>(&mut self) -> Option<M> {
        let error = match wire::read(&mut self.stream) {
            Ok(message) => return Some(message),
            Err(error) => error,
        };
        if self.peer.ended.load(Ordering::Acquire) {
            return None;
        }
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                let silent_s = self.peer.silent_max.as_secs();
                self.peer.fail(&format!("has said nothing for {silent_s} s: it is stopped, or cut off"))
            }
            io::ErrorKind::InvalidData => self.peer.fail(&format!("sends {error}")),
            _ => self.peer.fail("is gone"),
        }
    }
}
