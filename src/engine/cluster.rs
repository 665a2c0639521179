//! The same graph in several processes over TCP: how they find and trust each other before timely gets the sockets.
//!
//! Every process knows the addresses of all, listens on its own, and connects to those before it in the list. On each
//! connection, before a byte of data:
//!
//! ```text
//! both       magic, process, line (data of the graph, or a link), nonce of 32 bytes
//! connector  what it runs (JSON), BLAKE3 keyed with the secret over role, both nonces, both processes, what it runs
//! listener   the same for itself, if the connector's was right; else it closes
//! ```
//!
//! Where the first process deals the input out ([`Cluster::dealt`]), each other has one connection more with it, a link: what
//! goes over it is the caller's ([`crate::Engine::links`]).
//!
//! So both have proved the secret to each other, for this connection and this role; then what they run is compared:
//! version, rules, input, workers. Who does not know the secret learns nothing and stops nobody: its connection is
//! dropped. Without a secret only loopback addresses are taken. What follows is neither encrypted nor signed: the network
//! between the processes must be trusted.
//!
//! A process that dies takes the others along ([`end_with_peers`]): timely has no partial failure. Start all of them
//! again; what was read is read again.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use timely::communication::{
    Hooks,
    allocator::{AllocatorBuilder, ProcessBuilder, zero_copy::initialize::initialize_networking_from_sockets},
};

/// How long a missing process is waited for.
pub const WAIT_FOR_PEERS: Duration = Duration::from_secs(30);
/// How long one step of the handshake may take: a stranger who says nothing must not hold up the others for long.
const STEP: Duration = Duration::from_secs(2);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(100);
const MAGIC: &[u8; 8] = b"CFLOW\x00\x02\n";
/// The longest description of what a process runs, in bytes.
const RUNS_BYTES_MAX: u32 = 65_536;
/// The most processes.
pub const PROCESSES_MAX: usize = 64;

/// This process among the others.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// `HOST:PORT` of each process, in one order for all.
    pub addresses: Vec<String>,
    /// Which one is ours, from 0.
    pub process: usize,
    /// What all must know; without it only loopback addresses are taken.
    pub secret: Option<Vec<u8>>,
    /// How long a missing process is waited for.
    pub wait: Duration,
    /// Whether the first process deals the input out to the others. Else each is fed all of it and takes its share.
    pub dealt: bool,
    /// What all must have alike.
    pub runs: Runs,
}

/// What a process runs. Processes that differ in it would give wrong results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runs {
    /// Version of the engine.
    pub engine: String,
    /// Hash of the rule set.
    pub rules: String,
    /// Workers of each process.
    pub workers: usize,
    /// How many processes.
    pub processes: usize,
    /// Names and sizes of the input.
    pub input: Vec<(String, u64)>,
    /// All other options that matter.
    pub options: String,
    /// Settings that matter, by key.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl Runs {
    /// What differs, in words.
    fn difference(&self, other: &Runs) -> Option<String> {
        let differ = [
            ("engine version", &self.engine, &other.engine),
            ("rule set", &self.rules, &other.rules),
            ("workers", &self.workers.to_string(), &other.workers.to_string()),
            ("number of processes", &self.processes.to_string(), &other.processes.to_string()),
            ("options", &self.options, &other.options),
        ]
        .into_iter()
        .find(|(_, ours, theirs)| ours != theirs)
        .map(|(what, ours, theirs)| format!("{what}: {ours} here, {theirs} there"));
        let differ = differ.or_else(|| self.differing_setting(other));
        differ.or_else(|| (self.input != other.input).then(|| "input: other files, or of other sizes".to_owned()))
    }

    fn differing_setting(&self, other: &Runs) -> Option<String> {
        let shown = |runs: &Runs, key: &str| runs.settings.get(key).cloned().unwrap_or_else(|| "nothing".to_owned());
        let mut keys = self.settings.keys().chain(other.settings.keys());
        let key = keys.find(|key| self.settings.get(*key) != other.settings.get(*key))?;
        Some(format!("setting {key}: {} here, {} there", shown(self, key), shown(other, key)))
    }
}

/// Why processes do not come together.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The list of processes is not right.
    #[error("{0}")]
    List(String),
    /// Others could reach the port, and there is nothing to know them by.
    #[error(
        "{address} of process {process} can be reached from other machines; give all processes one secret, \
         or use loopback addresses"
    )]
    Open {
        /// Which process.
        process: usize,
        /// Its address.
        address: String,
    },
    /// Our address is not to be had.
    #[error("could not listen on {address} for the other processes")]
    Listen {
        /// Which.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Processes did not come.
    #[error("waited {waited_s} s for {missing}{hint}")]
    Missing {
        /// How long.
        waited_s: u64,
        /// Which, with their addresses.
        missing: String,
        /// What was seen meanwhile.
        hint: String,
    },
    /// It does not know the secret, or speaks something else.
    #[error("process {process} at {address} did not prove the shared secret: {why}")]
    Stranger {
        /// Which it should be.
        process: usize,
        /// Its address.
        address: String,
        /// What it did.
        why: String,
    },
    /// It runs something else.
    #[error("process {process} at {address} runs something else: {what}")]
    Differs {
        /// Which.
        process: usize,
        /// Its address.
        address: String,
        /// In what.
        what: String,
    },
    /// The system refused.
    #[error("could not {verb}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn cannot(verb: &'static str) -> impl FnOnce(io::Error) -> ClusterError {
    move |source| ClusterError::Io { verb, source }
}

/// What timely's workers are made of, and the links to the other processes.
pub(crate) struct Allocators {
    pub(crate) builders: Vec<AllocatorBuilder>,
    pub(crate) others: Box<dyn Any + Send>,
    pub(crate) links: Vec<(usize, TcpStream)>,
}

/// The allocators of this process's workers; connects the processes, if there are several.
pub(crate) fn allocators(cluster: Option<Cluster>, workers: usize) -> Result<Allocators, ClusterError> {
    let hooks = Hooks::default();
    let Some(cluster) = cluster.filter(|cluster| cluster.addresses.len() > 1) else {
        let config = match workers {
            1 => timely::CommunicationConfig::Thread,
            workers => timely::CommunicationConfig::Process(workers),
        };
        let (builders, others) = config.try_build().map_err(ClusterError::List)?;
        return Ok(Allocators { builders, others, links: Vec::new() });
    };
    let mut sockets = connect(&cluster)?;
    let mut of = |line| (0..cluster.addresses.len()).map(|at| sockets.remove(&(at, line))).collect::<Vec<_>>();
    let graph = of(Line::Graph);
    let links = (0..).zip(of(Line::Link)).filter_map(|(at, link)| Some((at, link?))).collect();
    let inside = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), hooks.spill.clone());
    let (builders, guard) = initialize_networking_from_sockets(inside, graph, cluster.process, workers, hooks)
        .map_err(cannot("hand the connections to the workers"))?;
    end_with_peers();
    let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
    Ok(Allocators { builders, others: Box::new(guard), links })
}

/// Lets this process end when a connection to another breaks: a thread that serves one panics then, and no worker would
/// ever hear of it.
fn end_with_peers() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        let Some(role) = name.strip_prefix("timely:") else { return before(panic) };
        let who = match role.rsplit_once('-') {
            Some(("recv" | "send", peer)) => format!("process {peer} of the cluster is gone"),
            _ => {
                before(panic);
                "a worker of this process failed, or another process is gone".to_owned()
            }
        };
        end(&who);
    }));
}

/// Set when this process ends for a reason of its own, which its exit code says.
static ENDING: AtomicBool = AtomicBool::new(false);

/// From now on nothing that breaks between the processes ends this one: it ends anyway.
pub(crate) fn ending() {
    ENDING.store(true, Ordering::Release);
}

/// Ends this process because another one failed: `who` says which and how.
pub fn end(who: &str) -> ! {
    while ENDING.load(Ordering::Acquire) {
        std::thread::park();
    }
    let line = format!("error: {who}, so this one ends: the processes of a cluster end together; start all again\n");
    drop(io::stderr().write_all(line.as_bytes()));
    std::process::exit(EXIT_PEER_GONE);
}

/// With this a process ends because another did.
pub const EXIT_PEER_GONE: i32 = 3;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Line {
    /// What the workers exchange.
    Graph,
    /// What the first process and another one say to each other.
    Link,
}

impl Line {
    fn byte(self) -> u8 {
        match self {
            Line::Graph => 0,
            Line::Link => 1,
        }
    }

    fn of_byte(byte: u8) -> io::Result<Line> {
        let lines = [Line::Graph, Line::Link].into_iter();
        lines.into_iter().find(|line| line.byte() == byte).ok_or_else(|| io::Error::other("it wants an unknown line"))
    }
}

/// Connections, by process and by what they are for.
type Sockets = BTreeMap<(usize, Line), TcpStream>;

/// The connections that a process needs.
fn needed(cluster: &Cluster) -> Vec<(usize, Line)> {
    let others = || (0..cluster.addresses.len()).filter(|at| *at != cluster.process);
    let linked = others().filter(|at| cluster.dealt && (cluster.process == 0 || *at == 0));
    others().map(|at| (at, Line::Graph)).chain(linked.map(|at| (at, Line::Link))).collect()
}

/// The connections to all other processes.
fn connect(cluster: &Cluster) -> Result<Sockets, ClusterError> {
    let Cluster { addresses, process, .. } = cluster;
    let ours = addresses
        .get(*process)
        .ok_or_else(|| ClusterError::List(format!("there is no process {process} in a list of {}", addresses.len())))?;
    if addresses.len() > PROCESSES_MAX {
        return Err(ClusterError::List(format!("{} processes are listed; at most {PROCESSES_MAX}", addresses.len())));
    }
    refuse_open(cluster)?;
    let listen = |source| ClusterError::Listen { address: ours.clone(), source };
    let listener = TcpListener::bind(ours.as_str()).map_err(listen)?;
    listener.set_nonblocking(true).map_err(cannot("listen without waiting"))?;
    let key = blake3::derive_key("counterflow 2026 cluster secret", cluster.secret.as_deref().unwrap_or_default());
    let deadline = Instant::now() + cluster.wait;
    let mut sockets = Sockets::new();
    let needed = needed(cluster);
    let mut seen = String::new();
    loop {
        let missing: Vec<(usize, Line)> = needed.iter().filter(|one| !sockets.contains_key(*one)).copied().collect();
        if missing.is_empty() {
            return Ok(sockets);
        }
        if Instant::now() >= deadline {
            let name = |at: &usize| format!("process {at} at {}", addresses.get(*at).map_or("?", String::as_str));
            let missing: BTreeSet<usize> = missing.into_iter().map(|(at, _)| at).collect();
            let missing = missing.iter().map(name).collect::<Vec<_>>().join(", ");
            return Err(ClusterError::Missing { waited_s: cluster.wait.as_secs(), missing, hint: seen });
        }
        for (at, line) in missing.into_iter().filter(|(at, _)| at < process) {
            if let Some(stream) = call(cluster, (at, line), &key)? {
                sockets.insert((at, line), stream);
            }
        }
        match listener.accept() {
            Ok((stream, from)) => match answer(cluster, stream, &key) {
                Ok((one, stream)) => drop(sockets.insert(one, stream)),
                Err(Refusal::Stranger(why)) => {
                    tracing::warn!(%from, why, "a connection did not prove the shared secret; it is closed");
                    seen = format!("; {from} called and did not prove the shared secret ({why})");
                }
                Err(Refusal::Peer(error)) => return Err(error),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY),
            Err(error) => return Err(cannot("take connections of the other processes")(error)),
        }
    }
}

/// Without a secret nobody beyond this machine may reach a port.
fn refuse_open(cluster: &Cluster) -> Result<(), ClusterError> {
    if cluster.secret.is_some() {
        return Ok(());
    }
    for (process, address) in cluster.addresses.iter().enumerate() {
        let resolved: Vec<SocketAddr> = address.to_socket_addrs().map_err(cannot("resolve an address"))?.collect();
        if resolved.is_empty() || !resolved.iter().all(|address| address.ip().is_loopback()) {
            return Err(ClusterError::Open { process, address: address.clone() });
        }
    }
    Ok(())
}

/// What is said first: which process, what for, and a number that was never used.
struct Greeting {
    process: usize,
    line: Line,
    nonce: [u8; 32],
}

impl Greeting {
    fn ours(cluster: &Cluster, line: Line) -> io::Result<Greeting> {
        let mut nonce = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut nonce)?;
        Ok(Greeting { process: cluster.process, line, nonce })
    }

    fn write(&self, stream: &mut TcpStream) -> io::Result<()> {
        let process = u32::try_from(self.process).unwrap_or(u32::MAX).to_le_bytes();
        stream.write_all(&[&MAGIC[..], &process, &[self.line.byte()], &self.nonce].concat())
    }

    fn read(stream: &mut TcpStream) -> io::Result<Greeting> {
        let (mut magic, mut process, mut line, mut nonce) = ([0; 8], [0; 4], [0; 1], [0; 32]);
        stream.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(io::Error::other("it speaks another language"));
        }
        stream.read_exact(&mut process)?;
        stream.read_exact(&mut line)?;
        stream.read_exact(&mut nonce)?;
        let process = usize::try_from(u32::from_le_bytes(process)).unwrap_or(usize::MAX);
        Ok(Greeting { process, line: Line::of_byte(u8::from_le_bytes(line))?, nonce })
    }
}

/// Which end of a connection one is: a proof of one is none of the other.
#[derive(Clone, Copy)]
enum Role {
    Connector,
    Listener,
}

/// The proof that one knows the secret and runs this, for this connection.
fn proof(key: &[u8; 32], role: Role, connector: &Greeting, listener: &Greeting, runs: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(match role {
        Role::Connector => b"connector",
        Role::Listener => b"listener.",
    });
    for greeting in [connector, listener] {
        hasher.update(&u32::try_from(greeting.process).unwrap_or(u32::MAX).to_le_bytes());
        hasher.update(&[greeting.line.byte()]);
        hasher.update(&greeting.nonce);
    }
    hasher.update(runs);
    hasher.finalize()
}

fn write_runs(stream: &mut TcpStream, runs: &[u8], proof: blake3::Hash) -> io::Result<()> {
    let length = u32::try_from(runs.len()).unwrap_or(u32::MAX);
    stream.write_all(&[&length.to_le_bytes()[..], runs, proof.as_bytes()].concat())
}

fn read_runs(stream: &mut TcpStream) -> io::Result<(Vec<u8>, blake3::Hash)> {
    let (mut length, mut proof) = ([0; 4], [0; 32]);
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > RUNS_BYTES_MAX {
        return Err(io::Error::other("it says too much"));
    }
    let mut runs = vec![0; usize::try_from(length).unwrap_or(0)];
    stream.read_exact(&mut runs)?;
    stream.read_exact(&mut proof)?;
    Ok((runs, blake3::Hash::from_bytes(proof)))
}

fn patient(stream: &TcpStream, limit: Option<Duration>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)
}

/// Calls a process before ours in the list; `None` if it is not there yet.
fn call(cluster: &Cluster, (at, line): (usize, Line), key: &[u8; 32]) -> Result<Option<TcpStream>, ClusterError> {
    let address = cluster.addresses.get(at).cloned().unwrap_or_default();
    let resolved = address.to_socket_addrs().map_err(cannot("resolve an address"))?.next();
    let Some(Ok(mut stream)) = resolved.map(|address| TcpStream::connect_timeout(&address, STEP)) else {
        return Ok(None);
    };
    let stranger = |why: io::Error| ClusterError::Stranger {
        process: at,
        address: address.clone(),
        why: match why.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "it closed the connection".to_owned(),
            _ => why.to_string(),
        },
    };
    let runs = serde_json::to_vec(&cluster.runs).unwrap_or_default();
    let talk = |stream: &mut TcpStream| {
        patient(stream, Some(STEP.max(cluster.wait)))?; // it may be busy with a stranger
        let ours = Greeting::ours(cluster, line)?;
        ours.write(stream)?;
        let theirs = Greeting::read(stream)?;
        write_runs(stream, &runs, proof(key, Role::Connector, &ours, &theirs, &runs))?;
        let (their_runs, their_proof) = read_runs(stream)?;
        if (theirs.process, theirs.line) != (at, line) {
            return Err(io::Error::other(format!("it is process {}", theirs.process)));
        }
        if their_proof != proof(key, Role::Listener, &ours, &theirs, &their_runs) {
            return Err(io::Error::other("its proof is wrong"));
        }
        patient(stream, None)?;
        Ok(their_runs)
    };
    let their_runs = talk(&mut stream).map_err(stranger)?;
    compare(cluster, at, &their_runs)?;
    Ok(Some(stream))
}

/// Why a connection is not taken.
enum Refusal {
    /// Nobody of ours: it is dropped, the others are waited for.
    Stranger(String),
    /// One of ours that cannot work with us.
    Peer(ClusterError),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal::Stranger(error.to_string())
    }
}

/// Answers a call.
fn answer(cluster: &Cluster, mut stream: TcpStream, key: &[u8; 32]) -> Result<((usize, Line), TcpStream), Refusal> {
    patient(&stream, Some(STEP))?;
    let theirs = Greeting::read(&mut stream)?;
    let ours = Greeting::ours(cluster, theirs.line)?;
    ours.write(&mut stream)?;
    let (their_runs, their_proof) = read_runs(&mut stream)?;
    if their_proof != proof(key, Role::Connector, &theirs, &ours, &their_runs) {
        return Err(Refusal::Stranger("its proof is wrong".to_owned()));
    }
    if theirs.process <= cluster.process || theirs.process >= cluster.addresses.len() {
        return Err(Refusal::Stranger(format!("it says that it is process {}", theirs.process)));
    }
    let runs = serde_json::to_vec(&cluster.runs).unwrap_or_default();
    write_runs(&mut stream, &runs, proof(key, Role::Listener, &theirs, &ours, &runs))?;
    compare(cluster, theirs.process, &their_runs).map_err(Refusal::Peer)?;
    if !needed(cluster).contains(&(theirs.process, theirs.line)) {
        return Err(Refusal::Stranger(format!("it wants a link that process {} has not", cluster.process)));
    }
    patient(&stream, None)?;
    Ok(((theirs.process, theirs.line), stream))
}

/// Whether a process that proved the secret runs what we run.
fn compare(cluster: &Cluster, process: usize, their_runs: &[u8]) -> Result<(), ClusterError> {
    let what = match serde_json::from_slice::<Runs>(their_runs) {
        Ok(theirs) => cluster.runs.difference(&theirs),
        Err(_) => Some("engine version: it describes itself in another way".to_owned()),
    };
    let address = cluster.addresses.get(process).cloned().unwrap_or_default();
    what.map_or(Ok(()), |what| Err(ClusterError::Differs { process, address, what }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: usize) -> Vec<String> {
        let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect()
    }

    fn cluster(addresses: &[String], process: usize, secret: &str, rules: &str) -> Cluster {
        let secret = (!secret.is_empty()).then(|| secret.as_bytes().to_vec());
        let runs = Runs { rules: rules.to_owned(), ..Runs::default() };
        Cluster { addresses: addresses.to_vec(), process, secret, wait: Duration::from_secs(5), dealt: false, runs }
    }

    fn meet(clusters: Vec<Cluster>) -> Vec<Result<Sockets, ClusterError>> {
        let threads: Vec<_> = clusters.into_iter().map(|one| std::thread::spawn(move || connect(&one))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    #[test]
    fn processes_that_know_the_secret_are_connected_each_with_each() {
        let list = addresses(3);
        // A stranger who calls first, says nonsense, and one who says nothing, stop nobody.
        let one = list[0].clone();
        let stranger = std::thread::spawn(move || {
            for says in [&b"GET / HTTP/1.1\r\n\r\n"[..], b""] {
                let Some(mut stream) = (0..50).find_map(|_| {
                    std::thread::sleep(Duration::from_millis(20));
                    TcpStream::connect(&one).ok()
                }) else {
                    return;
                };
                drop(stream.write_all(says));
            }
        });
        let met = meet((0..3).map(|process| cluster(&list, process, "s", "r")).collect());
        stranger.join().unwrap();
        let mut sockets: Vec<_> = met.into_iter().map(|sockets| sockets.unwrap()).collect();
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let mut to = sockets[one].remove(&(other, Line::Graph)).unwrap();
            let mut from = sockets[other].remove(&(one, Line::Graph)).unwrap();
            to.write_all(&[u8::try_from(10 * one + other).unwrap()]).unwrap();
            let mut byte = [0];
            from.read_exact(&mut byte).unwrap();
            assert_eq!(usize::from(byte[0]), 10 * one + other);
        }
        assert!(sockets.iter().all(Sockets::is_empty));
    }

    #[test]
    fn who_is_dealt_to_has_a_link_with_the_first() {
        let list = addresses(3);
        let met = meet((0..3).map(|process| Cluster { dealt: true, ..cluster(&list, process, "s", "r") }).collect());
        let mut sockets: Vec<_> = met.into_iter().map(|sockets| sockets.unwrap()).collect();
        let links = |sockets: &Sockets| sockets.keys().filter(|(_, line)| *line == Line::Link).count();
        assert_eq!(sockets.iter().map(links).collect::<Vec<_>>(), [2, 1, 1]);
        for other in [1, 2] {
            let mut to = sockets[0].remove(&(other, Line::Link)).unwrap();
            let mut from = sockets[other].remove(&(0, Line::Link)).unwrap();
            to.write_all(&[u8::try_from(other).unwrap()]).unwrap();
            let mut byte = [0];
            from.read_exact(&mut byte).unwrap();
            assert_eq!(usize::from(byte[0]), other);
        }
    }

    #[test]
    fn a_setting_that_differs_is_named() {
        let runs = |horizon: &str| Runs {
            settings: BTreeMap::from([
                ("detection.horizon_s".to_owned(), horizon.to_owned()),
                ("scoring".to_owned(), "x".to_owned()),
            ]),
            ..Runs::default()
        };
        assert_eq!(runs("1").difference(&runs("1")), None);
        assert_eq!(runs("1").difference(&runs("2")).unwrap(), "setting detection.horizon_s: 1 here, 2 there");
        assert_eq!(
            runs("1").difference(&Runs::default()).unwrap(),
            "setting detection.horizon_s: 1 here, nothing there"
        );
    }

    #[test]
    fn another_secret_is_none() {
        let list = addresses(2);
        let met = meet(vec![cluster(&list, 0, "s", "r"), cluster(&list, 1, "t", "r")]);
        let shown: Vec<String> = met.iter().map(|met| met.as_ref().unwrap_err().to_string()).collect();
        assert!(
            shown[0].contains(&format!("process 1 at {}", list[1])) && shown[0].contains("did not prove"),
            "{shown:?}"
        );
        assert!(shown[1].contains("process 0") && shown[1].contains("shared secret"), "{shown:?}");
    }

    #[test]
    fn other_rules_refuse_each_other_on_both_sides() {
        let list = addresses(2);
        for error in meet(vec![cluster(&list, 0, "", "r1"), cluster(&list, 1, "", "r2")]) {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("rule set: ") && error.contains("r1") && error.contains("r2"), "{error}");
        }
    }

    #[test]
    fn without_a_secret_nobody_else_can_reach_a_port() {
        let list = ["127.0.0.1:0".to_owned(), "0.0.0.0:7000".to_owned()];
        assert!(matches!(connect(&cluster(&list, 0, "", "r")), Err(ClusterError::Open { process: 1, .. })));
        let one = ["127.0.0.1:0".to_owned()];
        assert!(matches!(connect(&cluster(&one, 1, "", "r")), Err(ClusterError::List(_))));
    }

    #[test]
    fn a_proof_is_of_one_role_and_one_connection() {
        let greeting = |process, nonce| Greeting { process, line: Line::Graph, nonce: [nonce; 32] };
        let key = [7; 32];
        let one = proof(&key, Role::Connector, &greeting(1, 1), &greeting(0, 2), b"x");
        assert_eq!(one, proof(&key, Role::Connector, &greeting(1, 1), &greeting(0, 2), b"x"));
        for other in [
            proof(&key, Role::Listener, &greeting(1, 1), &greeting(0, 2), b"x"),
            proof(&key, Role::Connector, &greeting(1, 3), &greeting(0, 2), b"x"),
            proof(&key, Role::Connector, &greeting(2, 1), &greeting(0, 2), b"x"),
            proof(&key, Role::Connector, &greeting(1, 1), &greeting(0, 2), b"y"),
            proof(&[8; 32], Role::Connector, &greeting(1, 1), &greeting(0, 2), b"x"),
            proof(
                &key,
                Role::Connector,
                &Greeting { line: Line::Link, ..greeting(1, 1) },
                &Greeting { line: Line::Link, ..greeting(0, 2) },
                b"x",
            ),
        ] {
            assert_ne!(one, other);
        }
    }
}
