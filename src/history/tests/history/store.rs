//! History in an S3-compatible store (moto's), through a proxy that makes it answer 503, slowly, or not at all.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::Duration,
};

use cf_history::{Deliveries, Housekeeper, Place, Span, StorePlace, Table, Writer};

use crate::{support::*, tools::programs};

const GOOD: u8 = 0;
const UNAVAILABLE: u8 = 1;
const SLOW: u8 = 2;
const AWAY: u8 = 3;

/// A server that ends with its test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _waited = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn moto(programs: &std::path::Path) -> (Server, SocketAddr) {
    let port = free_port();
    let child = Command::new(programs.join("moto_server"))
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server(child);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    for _ in 0..600 {
        if TcpStream::connect(address).is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"PUT /bucket HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\nauthorization: AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=b\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    let _read = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    (server, address)
}

/// Passes connections on to the store, as the mode allows. Threads end with their connections.
fn proxy(store: SocketAddr, mode: Arc<AtomicU8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mode = Arc::clone(&mode);
            thread::spawn(move || serve(stream, store, &mode));
        }
    });
    address
}

fn serve(mut stream: TcpStream, store: SocketAddr, mode: &AtomicU8) {
    let now = mode.load(Ordering::SeqCst);
    match now {
        AWAY => return,
        UNAVAILABLE => {
            let mut buffer = [0; 65_536];
            let _request = stream.read(&mut buffer);
            let _sent =
                stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            return;
        }
        SLOW => thread::sleep(Duration::from_millis(300)),
        _ => {}
    }
    let Ok(upstream) = TcpStream::connect(store) else { return };
    let pairs = [
        (stream.try_clone().unwrap(), upstream.try_clone().unwrap()),
        (upstream.try_clone().unwrap(), stream.try_clone().unwrap()),
    ];
    thread::scope(|scope| {
        for (mut from, mut to) in pairs {
            scope.spawn(move || {
                from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                let mut buffer = [0; 65_536];
                // A connection that is there ends when the mode changes: the store has changed.
                while mode.load(Ordering::SeqCst) == now {
                    match from.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(read) if to.write_all(&buffer[..read]).is_ok() => {}
                        Err(error)
                            if matches!(
                                error.kind(),
                                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                            ) => {}
                        _ => break,
                    }
                }
                let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            });
        }
    });
}

struct Store {
    _server: Server,
    mode: Arc<AtomicU8>,
    place: Place,
    _credentials: tempfile::TempDir,
}

fn store(programs: &std::path::Path) -> Store {
    let (server, address) = moto(programs);
    let mode = Arc::new(AtomicU8::new(GOOD));
    let endpoint = proxy(address, Arc::clone(&mode));
    let credentials = tempfile::tempdir().unwrap();
    let file: PathBuf = credentials.path().join("credentials");
    std::fs::write(&file, "[default]\naws_access_key_id=a\naws_secret_access_key=b\n").unwrap();
    let place = Place::Store(StorePlace {
        url: "s3://bucket/engine one/history".replace(' ', "-"),
        endpoint: Some(format!("http://{endpoint}")),
        region: Some("us-east-1".to_owned()),
        path_style: true,
        credentials_file: Some(file),
    });
    Store { _server: server, mode, place, _credentials: credentials }
}

fn give(writer: &mut Writer, epoch: u64) {
    writer.write(epoch, &[event(epoch, time("2026-01-05T14:00:00Z"))]).unwrap();
    writer.write(epoch, &[entry(epoch)]).unwrap();
}

/// Rows by epoch, through the store.
fn rows(place: &Place, table: Table) -> BTreeMap<i64, usize> {
    use arrow::{array::AsArray, datatypes::Int64Type};
    let mut rows = BTreeMap::new();
    let mut keeper = Housekeeper::new(place).unwrap();
    keeper
        .read(table, &|_| true, &mut |batch| {
            let epochs = batch.column_by_name("epoch").unwrap().as_primitive::<Int64Type>();
            epochs.values().iter().for_each(|epoch| *rows.entry(*epoch).or_default() += 1);
        })
        .unwrap();
    rows
}

#[test]
fn a_store_that_fails_loses_nothing_and_is_written_when_it_is_back() {
    let Some(programs) = programs("a_store_that_fails_loses_nothing_and_is_written_when_it_is_back") else { return };
    let store = store(&programs);
    let mut writer = Writer::open(&store.place, OPTIONS).unwrap();
    give(&mut writer, 1);
    assert_eq!(writer.commit(1).unwrap().epoch, 1);
    for (epoch, mode) in [(2, UNAVAILABLE), (3, AWAY), (4, SLOW)] {
        give(&mut writer, epoch);
        store.mode.store(mode, Ordering::SeqCst);
        if mode == SLOW {
            assert_eq!(writer.commit(epoch).unwrap().epoch, epoch);
        } else {
            let error = writer.commit(epoch).unwrap_err();
            assert!(error.may_pass(), "{error}");
            assert!(writer.buffered_bytes() > 0);
        }
        store.mode.store(GOOD, Ordering::SeqCst);
        assert_eq!(writer.commit(epoch).unwrap().epoch, epoch);
    }
    drop(writer);

    // After a restart it goes on; what is given again is there once.
    let mut writer = Writer::open(&store.place, OPTIONS).unwrap();
    assert_eq!(writer.last_epoch(Table::Epochs), 4);
    give(&mut writer, 4);
    give(&mut writer, 5);
    writer.commit(5).unwrap();
    let all = (1..=5).map(|epoch| (epoch, 1)).collect::<BTreeMap<_, _>>();
    assert_eq!(rows(&store.place, Table::Events), all);

    // Files are joined and removed there, too.
    let mut keeper = Housekeeper::new(&store.place).unwrap();
    let replacement = keeper.compact(Table::Events, true).unwrap().unwrap();
    assert_eq!(replacement.files(), (5, 1));
    assert!(writer.replace(replacement).unwrap());
    assert_eq!(rows(&store.place, Table::Events), all);
    thread::sleep(Duration::from_millis(1_100)); // the store tells times in seconds
    assert!(keeper.vacuum(0).unwrap().0 >= 5);
    assert_eq!(rows(&store.place, Table::Events), all);

    // Replay, backtest and warm start read records from there as from a disk.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let span = Span { upto: 4, ..Span::default() };
    let deliveries = runtime.block_on(Deliveries::open(&store.place, span)).unwrap();
    let mut read = Vec::new();
    for file in deliveries.files() {
        for batch in deliveries.read(file).unwrap() {
            read.extend(batch.unwrap().into_iter().map(|delivery| (delivery.epoch, delivery.record.bytes.clone())));
        }
    }
    read.sort();
    assert_eq!(read.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(read.iter().all(|(_, record)| !record.is_empty()));
    store.mode.store(AWAY, Ordering::SeqCst);
    assert!(deliveries.read(&deliveries.files()[0]).is_err(), "what cannot be read is told, not passed over");
    store.mode.store(GOOD, Ordering::SeqCst);
    drop(deliveries);

    // A second writer is found out by the conditional put.
    let mut second = Writer::open(&store.place, OPTIONS).unwrap();
    give(&mut writer, 6);
    give(&mut second, 6);
    writer.commit(6).unwrap();
    assert!(second.commit(6).is_err());
    let error = second.commit(6).unwrap_err();
    assert!(!error.may_pass() && error.to_string().contains("another writer"), "{error}");
    assert_eq!(rows(&store.place, Table::Events).get(&6), Some(&1));
}
