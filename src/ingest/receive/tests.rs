//! The receivers over real sockets, into a real spool and into one that is slow, full or broken.

use std::{
    net::SocketAddr,
    sync::{Mutex, atomic::AtomicBool},
};

use cf_spool::LogOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
};

use super::*;

/// Takes everything, unless it is full or broken.
#[derive(Default)]
struct Sink {
    taken: Mutex<Vec<(Framing, String)>>,
    full: AtomicBool,
    broken: AtomicBool,
}

impl Accept for Sink {
    async fn accept(&self, source: &Arc<str>, records: &[(Framing, Bytes)]) -> Result<(), Refused> {
        assert_eq!(&**source, "syslog");
        tokio::task::yield_now().await;
        if self.broken.load(Ordering::Relaxed) {
            return Err(Refused::Failed(AppendError::Closed));
        }
        if self.full.load(Ordering::Relaxed) {
            return Err(Refused::Full(AppendError::Busy));
        }
        let shown = |(framing, bytes): &(Framing, Bytes)| (*framing, String::from_utf8_lossy(bytes).into_owned());
        self.taken.lock().unwrap().extend(records.iter().map(shown));
        Ok(())
    }
}

impl Sink {
    fn texts(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }
}

struct Running {
    address: SocketAddr,
    counts: Arc<ReceiverCounts>,
    stopper: Stopper,
    task: JoinHandle<Result<(), ReceiveError>>,
}

impl Running {
    async fn stop(self) -> Result<Arc<ReceiverCounts>, ReceiveError> {
        self.stopper.stop();
        self.task.await.unwrap().map(|()| self.counts)
    }
}

fn options() -> SyslogOptions {
    SyslogOptions { message_bytes_max: 1_000, connections_max: 20, ..SyslogOptions::default() }
}

async fn tcp<A: Accept>(accept: Arc<A>, options: SyslogOptions) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (counts, (stopper, stop)) = (Arc::new(ReceiverCounts::default()), Stopper::new());
    let counted = Arc::clone(&counts);
    let task =
        tokio::spawn(async move { syslog_tcp(listener, Arc::from("syslog"), accept, &options, counted, stop).await });
    Running { address, counts, stopper, task }
}

async fn udp<A: Accept>(accept: Arc<A>) -> Running {
    let socket = bind_udp("127.0.0.1:0".parse().unwrap(), &options()).await.unwrap();
    let address = socket.local_addr().unwrap();
    let (counts, (stopper, stop)) = (Arc::new(ReceiverCounts::default()), Stopper::new());
    let task = tokio::spawn(syslog_udp(socket, Arc::from("syslog"), accept, Arc::clone(&counts), stop));
    Running { address, counts, stopper, task }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test]
async fn messages_of_many_connections_arrive_whole_and_in_order() {
    let sink = Arc::new(Sink::default());
    let running = tcp(Arc::clone(&sink), options()).await;
    let senders: Vec<_> = (0..8)
        .map(|sender| {
            let address = running.address;
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                for n in 0..50 {
                    let message = format!("<13>s{sender} n{n:02}");
                    let framed =
                        if n % 2 == 0 { format!("{message}\n") } else { format!("{} {message}", message.len()) };
                    // In two writes, so that messages arrive in pieces.
                    let (head, tail) = framed.as_bytes().split_at(5);
                    stream.write_all(head).await.unwrap();
                    tokio::task::yield_now().await;
                    stream.write_all(tail).await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    until("400 messages", || count(&running.counts.records) >= 400).await;
    until("all closed", || count(&running.counts.connections) == 0).await;
    running.stop().await.unwrap();
    let texts = sink.texts();
    for sender in 0..8 {
        let own: Vec<_> = texts.iter().filter(|text| text.starts_with(&format!("<13>s{sender} "))).cloned().collect();
        assert_eq!(own, (0..50).map(|n| format!("<13>s{sender} n{n:02}")).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn too_long_a_message_becomes_a_reject_and_its_neighbours_do_not() {
    let sink = Arc::new(Sink::default());
    let running = tcp(Arc::clone(&sink), options()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"<1>before\n").await.unwrap();
    for _ in 0..3_000 {
        stream.write_all(&[b'x'; 1_000]).await.unwrap(); // 3 MB in one line
    }
    stream.write_all(b"\n<1>after").await.unwrap();
    drop(stream);
    until("three records", || count(&running.counts.records) == 3).await;
    assert_eq!(count(&running.counts.unframed), 1);
    running.stop().await.unwrap();
    let taken = sink.taken.lock().unwrap();
    let shown: Vec<_> = taken.iter().map(|(framing, text)| (*framing, text.len())).collect();
    assert_eq!(shown, [(Framing::Syslog, 9), (Framing::Unframed, 1_001), (Framing::Syslog, 8)]);
}

#[tokio::test]
async fn a_full_spool_stops_the_reading_and_nothing_is_lost() {
    let sink = Arc::new(Sink::default());
    sink.full.store(true, Ordering::Relaxed);
    let running = tcp(Arc::clone(&sink), options()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let lines: Vec<_> = (0..40_000).map(|n| format!("<13>message number {n:06} {}\n", "x".repeat(200))).collect();
    let sent: Vec<_> = lines.iter().map(|line| line.trim_end().to_owned()).collect();
    let sender = tokio::spawn(async move {
        for chunk in lines.chunks(100) {
            stream.write_all(chunk.concat().as_bytes()).await.unwrap();
        }
    });
    until("a refusal", || count(&running.counts.waits) > 2).await;
    assert!(!sender.is_finished(), "9 MB do not fit the kernel's buffers: the sender waits");
    assert_eq!(sink.texts().len(), 0);
    sink.full.store(false, Ordering::Relaxed);
    sender.await.unwrap();
    until("all", || count(&running.counts.records) == 40_000).await;
    let counts = running.stop().await.unwrap();
    assert_eq!(count(&counts.lost), 0);
    assert!(sink.texts() == sent, "each once, in order");
}

#[tokio::test]
async fn slow_and_idle_senders_are_closed() {
    let sink = Arc::new(Sink::default());
    let running = tcp(Arc::clone(&sink), SyslogOptions { idle_s: 1, message_s: 1, ..options() }).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    // Bytes come all the time, but the message never ends.
    let trickle = tokio::spawn(async move {
        let begun = tokio::time::Instant::now();
        while slow.write_all(b"x").await.is_ok() && begun.elapsed() < Duration::from_secs(8) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        begun.elapsed()
    });
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(trickle.await.unwrap() < Duration::from_secs(5));
    until("two timeouts", || count(&running.counts.timeouts) == 2).await;
    running.stop().await.unwrap();
    let taken = sink.taken.lock().unwrap();
    assert!(matches!(&taken[..], [(Framing::Unframed, text)] if text.starts_with("xxx")), "{taken:?}");
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_others_are_not() {
    let sink = Arc::new(Sink::default());
    let running = tcp(Arc::clone(&sink), SyslogOptions { connections_max: 2, ..options() }).await;
    let mut streams = Vec::new();
    for n in 0..2 {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"<1>hello\n").await.unwrap();
        until("the message", || count(&running.counts.records) == n + 1).await;
        streams.push(stream);
    }
    let mut third = TcpStream::connect(running.address).await.unwrap();
    assert!(matches!(third.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert_eq!(count(&running.counts.connections_refused), 1);
    streams[0].write_all(b"<1>still here\n").await.unwrap();
    until("the message", || count(&running.counts.records) == 3).await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn stopping_takes_what_was_received() {
    let sink = Arc::new(Sink::default());
    sink.full.store(true, Ordering::Relaxed);
    let running = tcp(Arc::clone(&sink), options()).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"<1>first\n").await.unwrap();
    until("a refusal", || count(&running.counts.waits) > 0).await;
    // Lies in the kernel when the stop comes.
    stream.write_all("<1>more\n".repeat(5_000).as_bytes()).await.unwrap();
    stream.write_all(b"<1>no line feed").await.unwrap();
    running.stopper.stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    sink.full.store(false, Ordering::Relaxed);
    let counts = running.stop().await.unwrap();
    assert_eq!((count(&counts.records), count(&counts.lost)), (5_002, 0));
    assert_eq!(sink.texts().last().unwrap(), "<1>no line feed");
}

#[tokio::test]
async fn a_broken_spool_ends_the_receivers() {
    let sink = Arc::new(Sink::default());
    sink.broken.store(true, Ordering::Relaxed);
    let (tcp, udp) = (tcp(Arc::clone(&sink), options()).await, udp(Arc::clone(&sink)).await);
    let mut stream = TcpStream::connect(tcp.address).await.unwrap();
    stream.write_all(b"<1>a\n").await.unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    sender.send_to(b"<1>a", udp.address).await.unwrap();
    for running in [tcp, udp] {
        assert!(matches!(running.task.await.unwrap(), Err(ReceiveError::Refused(AppendError::Closed))));
        assert_eq!(count(&running.counts.lost), 1);
    }
}

#[tokio::test]
async fn one_datagram_is_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path(), &LogOptions::default()).unwrap();
    let spool = Arc::new(spool);
    let running = udp(Arc::new(SpoolAccept::new(Arc::clone(&spool), Tenant::default()))).await;
    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let long = vec![b'x'; 65_507];
    let datagrams: [&[u8]; 5] = [b"<13>one\n", b"", b"<13>two\nlines", &long, b"\xff\xfe"];
    for datagram in datagrams {
        sender.send_to(datagram, running.address).await.unwrap();
    }
    until("five records", || count(&running.counts.records) == 5).await;
    let drops = kernel_drops(running.address.port());
    assert_eq!(drops, Some(0));
    running.stop().await.unwrap();
    let records: Vec<_> = spool.read(0).unwrap().map(|found| found.unwrap().1).collect();
    let bytes: Vec<_> = records.iter().map(|record| &record.bytes[..]).collect();
    assert_eq!(bytes, [b"<13>one", &b""[..], b"<13>two\nlines", &long, b"\xff\xfe"]);
    assert!(records.iter().all(|record| record.origin.framing == Framing::Syslog && record.origin.year.is_none()));
    assert!(records.iter().all(|record| record.origin.received_at > cf_types::Time::from_seconds(1_700_000_000)));
}

#[tokio::test]
async fn a_stop_takes_the_datagrams_that_lie_in_the_kernel() {
    let sink = Arc::new(Sink::default());
    let running = udp(Arc::clone(&sink)).await;
    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for n in 0..200 {
        sender.send_to(format!("<1>{n}").as_bytes(), running.address).await.unwrap();
    }
    let counts = running.stop().await.unwrap();
    assert_eq!(count(&counts.records), 200);
}
