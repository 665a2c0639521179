//! The API over real sockets: what senders send, good and bad, many at once, slow, in the wrong form.

use std::{
    io::Write,
    net::SocketAddr,
    time::{Duration, Instant},
};

use cf_ingest::{
    Decoded, Decoder, SourceTable,
    receive::{Stop, Stopper},
};
use cf_ledger::Ledger;
use cf_spool::{LogOptions, Recovery};
use cf_types::{Framing, RejectCode};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::*;

struct Running {
    address: SocketAddr,
    spool: Arc<Spool>,
    health: Arc<Health>,
    stopper: Stopper,
    task: JoinHandle<std::io::Result<()>>,
    _ledger: Ledger,
    _dir: tempfile::TempDir,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}

async fn start(options: ApiOptions, spool_options: LogOptions) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).await.unwrap();
    let (spool, _): (_, Recovery) = Spool::open(&dir.path().join("spool"), &spool_options).unwrap();
    let (spool, health) = (Arc::new(spool), Arc::new(Health::default()));
    let reader = Reader::open(dir.path()).await.unwrap();
    let metrics = Arc::new(|page: &mut Page| page.single("epoch", metrics::Kind::Gauge, "The last epoch.", 7));
    let state =
        ApiState::new(Arc::clone(&spool), reader, dir.path().to_owned(), Arc::clone(&health), metrics, options.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stopper, stop): (_, Stop) = Stopper::new();
    let task = tokio::spawn(async move { serve(listener, router(state), &options, stop).await });
    Running { address, spool, health, stopper, task, _ledger: ledger, _dir: dir }
}

async fn started() -> Running {
    start(ApiOptions::default(), LogOptions::default()).await
}

impl Running {
    /// Sends a request as it stands and reads the answer to the end of the connection.
    async fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may answer before it has read all.
        drop(stream.write_all(request).await);
        let mut bytes = Vec::new();
        drop(stream.read_to_end(&mut bytes).await);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n")
                .into_bytes();
        request.extend_from_slice(body);
        self.raw(&request).await
    }

    async fn post(&self, content_type: &str, body: impl AsRef<[u8]>) -> Answer {
        self.send("POST", "/api/v1/events", &format!("Content-Type: {content_type}\r\n"), body.as_ref()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"").await
    }

    /// What the spool holds: framing and text.
    fn spooled(&self) -> Vec<(Framing, String)> {
        let records = self.spool.read(0).unwrap().map(|found| found.unwrap().1);
        records.map(|record| (record.origin.framing, String::from_utf8_lossy(&record.bytes).into_owned())).collect()
    }

    /// The codes of the rejects that a decoder makes of what the spool holds.
    fn rejects(&self) -> Vec<RejectCode> {
        let mut decoder = Decoder::new(Arc::new(SourceTable::default()));
        let mut out = Decoded::default();
        for found in self.spool.read(0).unwrap() {
            decoder.decode(&found.unwrap().1, &mut out);
        }
        out.rejects.iter().map(|reject| reject.code).collect()
    }
}

const ENVELOPE: &str = r#"{
    "event_id": "0f8fad5b-d9cb-469f-a165-70867728950e", "timestamp": "2026-01-05T14:00:00Z", "source": "app",
    "event_type": "authentication_failed", "severity": "high", "raw_data": {"a": 1},
    "normalized_data": {"actor": "bob", "action": "login", "target": "db", "result": "failure"},
    "enrichments": {"geo_location": {}, "threat_intel": {}, "asset_info": {}}
}"#;

#[tokio::test]
async fn the_envelope_is_accepted_and_spooled_as_it_was_sent() {
    let api = started().await;
    let answer = api.post("application/json", ENVELOPE).await;
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (202, Some(1)));
    assert_eq!(answer.json()["rejected"], serde_json::json!([]));
    assert_eq!(api.spooled(), [(Framing::Http, ENVELOPE.to_owned())]);
    assert_eq!(api.rejects(), []);
}

#[tokio::test]
async fn what_is_no_event_is_named_and_becomes_a_reject() {
    let api = started().await;
    let answer = api.post("application/x-ndjson", "{\"a\":1}\nnonsense\n[]\n{\"b\":2}\n").await;
    assert_eq!(answer.status, 202);
    let answer = answer.json();
    assert_eq!((answer["accepted"].as_u64(), answer["rejected_total"].as_u64()), (Some(2), Some(2)));
    let named: Vec<_> =
        answer["rejected"].as_array().unwrap().iter().map(|r| (r["index"].as_u64(), r["code"].as_str())).collect();
    assert_eq!(named, [(Some(1), Some("invalid_json")), (Some(2), Some("not_an_object"))]);
    assert!(answer["rejected"][0]["reason"].as_str().unwrap().len() > 5);
    let framings: Vec<_> = api.spooled().into_iter().map(|(framing, _)| framing).collect();
    assert_eq!(framings, [Framing::Http, Framing::Unframed, Framing::Unframed, Framing::Http]);
    assert_eq!(api.rejects().len(), 2);
}

#[tokio::test]
async fn a_body_without_events_is_a_bad_request_and_kept() {
    let api = started().await;
    for (content_type, body) in [
        ("application/json", "nonsense"),
        ("application/json", "17"),
        ("application/x-ndjson", "a\nb\n"),
        ("application/json", "[{\"a\":1},"),
    ] {
        let answer = api.post(content_type, body).await;
        assert_eq!((answer.status, answer.code()), (400, "bad_request".to_owned()), "{body}");
        assert_eq!(answer.json()["accepted"], 0);
    }
    assert_eq!(api.rejects().len(), 5);
    assert_eq!(api.post("application/json", "").await.status, 400);
}

#[tokio::test]
async fn wrong_types_are_refused_and_nothing_is_spooled() {
    let api = started().await;
    for headers in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: multipart/form-data; boundary=x\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: application/jsonx\r\n",
        "Content-Type: application/json; charset=utf-16\r\n",
        "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
        "Content-Type: application/json, text/plain\r\n",
        "Content-Type: application/json\r\nContent-Encoding: br\r\n",
        "Content-Type: application/json\r\nContent-Encoding: gzip, gzip\r\n",
        "Content-Type: \u{1}\r\n",
    ] {
        let answer = api.send("POST", "/api/v1/events", headers, b"{\"a\":1}").await;
        assert!([400, 415].contains(&answer.status), "{headers:?}: {answer:?}");
    }
    assert_eq!(api.spooled(), []);
    let good = api.send("POST", "/api/v1/events", "content-type: Application/JSON; Charset=\"UTF-8\"\r\n", b"{}").await;
    assert_eq!(good.status, 202);
}

#[tokio::test]
async fn gzip_is_taken_and_a_bomb_is_not() {
    let api = start(ApiOptions { body_bytes_max: 100_000, ..ApiOptions::default() }, LogOptions::default()).await;
    let gzip = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    };
    let headers = "Content-Type: application/x-ndjson\r\nContent-Encoding: gzip\r\n";
    let answer = api.send("POST", "/api/v1/events", headers, &gzip(b"{\"a\":1}\n{\"a\":2}\n")).await;
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (202, Some(2)));
    let answer = api.send("POST", "/api/v1/events", headers, &gzip(&vec![b' '; 30 << 20])).await;
    assert_eq!((answer.status, answer.code()), (413, "too_large".to_owned()));
    let answer = api.send("POST", "/api/v1/events", headers, b"{\"a\":1}").await;
    assert_eq!(answer.status, 400, "no gzip");
}

#[tokio::test]
async fn too_long_bodies_and_events_are_refused() {
    let options = ApiOptions { body_bytes_max: 10_000, record_bytes_max: 1_000, ..ApiOptions::default() };
    let api = start(options, LogOptions::default()).await;
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(20_000));
    assert_eq!(api.post("application/json", &long).await.status, 413);
    let chunked = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n0\r\n\r\n",
        long.len()
    );
    assert_eq!(api.raw(chunked.as_bytes()).await.status, 413);
    assert_eq!(api.spooled(), []);
    let answer = api.post("application/json", format!("[{{}}, {}\"}}]", long.get(..2_000).unwrap())).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["rejected"][0]["code"], "too_long");
    assert_eq!(api.spooled()[1].1.len(), 1_001);
}

#[tokio::test]
async fn a_full_spool_answers_429_and_says_when_to_come_back() {
    let spool = LogOptions { bytes_max: 5_000, segment_bytes: 1_000, ..LogOptions::default() };
    let api = start(ApiOptions::default(), spool).await;
    let event = format!("{{\"a\":\"{}\"}}", "x".repeat(500));
    let mut accepted = 0;
    let refused = loop {
        let answer = api.post("application/json", &event).await;
        match answer.status {
            202 => accepted += 1,
            _ => break answer,
        }
    };
    assert_eq!((refused.status, refused.code()), (429, "spool_full".to_owned()));
    assert!(refused.head.contains("\r\nretry-after: 5"), "{}", refused.head);
    assert_eq!(api.spooled().len(), accepted, "all that was acknowledged, and nothing else");
    api.spool.log().trim(u64::try_from(accepted).unwrap()).unwrap();
    assert_eq!(api.post("application/json", &event).await.status, 202);
}

#[tokio::test]
async fn a_spool_that_ended_answers_503() {
    let api = started().await;
    api.spool.log().close();
    let answer = api.post("application/json", "{}").await;
    assert_eq!((answer.status, answer.code()), (503, "spool_ended".to_owned()));
    let health = api.get("/api/v1/health").await;
    assert_eq!((health.status, &health.json()["components"]["spool"]["status"]), (503, &Value::from("down")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_senders_lose_nothing_while_slow_ones_hang_about() {
    let api = Arc::new(start(ApiOptions { body_s: 1, ..ApiOptions::default() }, LogOptions::default()).await);
    // A head that promises a body which never comes: 408, and no harm to others.
    let slow: Vec<_> = (0..20)
        .map(|_| {
            let api = Arc::clone(&api);
            tokio::spawn(async move {
                let head = "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                            Connection: close\r\nContent-Length: 1000\r\n\r\n{";
                api.raw(head.as_bytes()).await.status
            })
        })
        .collect();
    let senders: Vec<_> = (0..16)
        .map(|sender| {
            let api = Arc::clone(&api);
            tokio::spawn(async move {
                for request in 0..10 {
                    let lines: String = (0..5).map(|n| format!("{{\"id\":\"{sender}-{request}-{n}\"}}\n")).collect();
                    let answer = api.post("application/x-ndjson", lines).await;
                    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (202, Some(5)));
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let mut texts: Vec<_> = api.spooled().into_iter().map(|(_, text)| text).collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 16 * 10 * 5);
    for slow in slow {
        assert_eq!(slow.await.unwrap(), 408);
    }
}

#[tokio::test]
async fn a_head_that_never_ends_is_closed() {
    let api = start(ApiOptions { head_s: 1, ..ApiOptions::default() }, LogOptions::default()).await;
    let begun = Instant::now();
    let answer = api.raw(b"POST /api/v1/events HTTP/1.1\r\nHost: local").await;
    assert!([0, 408].contains(&answer.status) && begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn bytes_of_all_bodies_together_are_bounded() {
    let options = ApiOptions { bodies_bytes_max: 64 << 10, body_s: 5, ..ApiOptions::default() };
    let api = start(options, LogOptions::default()).await;
    let answer = api.post("application/json", format!("{{\"a\":\"{}\"}}", "x".repeat(100 << 10))).await;
    assert_eq!((answer.status, answer.code()), (429, "busy".to_owned()));
    assert_eq!(api.post("application/json", "{}").await.status, 202, "the memory was given back");
}

#[tokio::test]
async fn health_names_each_component() {
    let api = started().await;
    api.health.component("graph", || (Condition::Ok, "epoch 7".to_owned()));
    api.health.component("history", || (Condition::Degraded, "behind".to_owned()));
    let answer = api.get("/api/v1/health").await;
    let body = answer.json();
    assert_eq!((answer.status, &body["status"]), (200, &Value::from("degraded")));
    assert_eq!(body["components"]["graph"]["detail"], "epoch 7");
    assert_eq!(body["components"]["ledger"]["status"], "ok");
    api.health.component("graph", || (Condition::Down, "panicked".to_owned()));
    assert_eq!(api.get("/api/v1/health").await.status, 503);
}

#[tokio::test]
async fn metrics_are_in_the_format_of_prometheus() {
    let api = started().await;
    api.post("application/json", "{}").await;
    api.get("/no/such/route").await;
    let answer = api.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("text/plain; version=0.0.4"));
    assert_eq!(api.get("/api/v1/metrics").await.status, 200);
    let text = answer.body;
    assert!(text.contains("\ncounterflow_epoch 7\n") && text.contains("\ncounterflow_ledger_readable 1\n"), "{text}");
    assert!(text.contains("_count{route=\"/api/v1/events\",status=\"202\"} 1\n"), "{text}");
    assert!(text.contains("_bucket{route=\"other\",status=\"404\",le=\"+Inf\"} 1\n"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("counterflow_") && value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn facts_are_added_listed_and_removed() {
    let api = started().await;
    let json = "Content-Type: application/json\r\n";
    let say = |method: &'static str, path: &'static str, body: &'static str| {
        let api = &api;
        async move { api.send(method, path, json, body.as_bytes()).await }
    };
    let allow = "/api/v1/facts/allow";
    let added = say("POST", allow, r#"{"value":"192.0.2.7","reason":"ours"}"#).await;
    assert_eq!((added.status, added.json()["changed"].as_bool()), (201, Some(true)));
    assert_eq!(added.json()["fact"]["allow"]["network"], "192.0.2.7/32");
    let again = say("POST", allow, r#"{"value":"192.0.2.7/32"}"#).await;
    assert_eq!((again.status, again.json()["changed"].as_bool()), (200, Some(false)));
    for path in ["/api/v1/facts", allow] {
        let listed = api.get(path).await.json();
        assert_eq!(
            (listed["facts"][0]["reason"].as_str(), listed["facts"].as_array().unwrap().len()),
            (Some("ours"), 1)
        );
    }
    assert_eq!(api.get("/api/v1/facts/policy").await.json()["facts"], serde_json::json!([]));
    assert_eq!(say("DELETE", allow, r#"{"value":"192.0.2.7"}"#).await.status, 200);
    assert_eq!(say("DELETE", allow, r#"{"value":"192.0.2.7"}"#).await.status, 404);
    for (path, body, status) in [
        (allow, "nonsense", 400),
        (allow, r#"{"value":"not an address"}"#, 422),
        (allow, r#"{"network":"192.0.2.7"}"#, 422),
        ("/api/v1/facts/policy", r#"{"value":"x"}"#, 422),
        ("/api/v1/facts/other", r#"{"value":"x"}"#, 404),
        ("/api/v1/facts/asset", r#"{"value":"host:a","criticality":9}"#, 422),
        ("/api/v1/facts/verdict", r#"{"value":"00000000000000000000000000000000"}"#, 422),
        ("/api/v1/facts/asset", r#"{"value":"host:a","criticality":2,"author":"alice"}"#, 201),
        ("/api/v1/facts/asset", r#"{"value":"host:a","criticality":2}"#, 200),
        ("/api/v1/facts/asset", r#"{"value":"host:a","criticality":4}"#, 201),
        ("/api/v1/facts/edge", r#"{"value":"user:a->host:b"}"#, 201),
        ("/api/v1/facts/identity", r#"{"value":"alice","privileged":true}"#, 201),
        ("/api/v1/facts/indicator", r#"{"value":"evil.example"}"#, 201),
        (
            "/api/v1/facts/silence",
            r#"{"value":"n","rules":["a"],"from":"2026-01-05T00:00:00Z","until":"2026-01-06T00:00:00Z"}"#,
            201,
        ),
    ] {
        assert_eq!(say("POST", path, body).await.status, status, "{path} {body}");
    }
    let assets = api.get("/api/v1/facts/asset").await.json();
    assert_eq!(assets["facts"].as_array().unwrap().len(), 1, "the later takes the place of the earlier");
    assert_eq!(assets["facts"][0]["fact"]["asset"]["criticality"], 4);
    assert_eq!(say("DELETE", "/api/v1/facts/asset", r#"{"value":"host:a"}"#).await.status, 200);
    assert_eq!(api.get("/api/v1/suppressed").await.json()["suppressed"], serde_json::json!([]));
    assert_eq!(api.send("POST", allow, "", br#"{"value":"192.0.2.7"}"#).await.status, 415);
}

#[tokio::test]
async fn a_page_that_made_up_a_name_for_us_gets_nothing() {
    let api = started().await;
    for path in ["/api/v1/facts", "/api/v1/incidents", "/api/v1/alerts"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
        assert_eq!(api.raw(request.as_bytes()).await.status, 403, "{path}");
        assert_eq!(api.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn what_is_asked_wrongly_is_said_in_json() {
    let api = started().await;
    for (method, path, status, code) in [
        ("GET", "/", 404, "not_found"),
        ("GET", "/api/v1/events", 405, "method_not_allowed"),
        ("DELETE", "/api/v1/incidents", 405, "method_not_allowed"),
        ("GET", "/api/v1/incidents/one", 400, "bad_request"),
        ("GET", "/api/v1/incidents/99", 404, "not_found"),
        ("GET", "/api/v1/incidents/99999999999999999999", 400, "bad_request"),
        ("GET", "/api/v1/incidents?limit=0", 400, "bad_request"),
        ("GET", "/api/v1/incidents?limit=-1", 400, "bad_request"),
        ("GET", "/api/v1/incidents?colour=red", 400, "bad_request"),
        ("GET", "/api/v1/alerts?limit=10001", 400, "bad_request"),
        ("GET", "/api/v1/alerts?incident=x", 400, "bad_request"),
    ] {
        let answer = api.send(method, path, "", b"").await;
        assert_eq!((answer.status, answer.code()), (status, code.to_owned()), "{method} {path}");
    }
    assert_eq!(api.get("/api/v1/alerts?state=open&rule=x&id=y&limit=5").await.json()["alerts"], serde_json::json!([]));
    assert_eq!(api.get("/api/v1/incidents?merged=true&state=open").await.json()["incidents"], serde_json::json!([]));
}

#[tokio::test]
async fn stopping_answers_what_has_begun() {
    let api = started().await;
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let head = "POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\"";
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    api.stopper.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(b":1}").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    api.task.await.unwrap().unwrap();
    assert_eq!(api.spool.log().durable_end(), 1);
}
