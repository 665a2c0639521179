//! Webhooks that fail in every way; the server is real.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

use super::{World, came, quick};
use crate::settings::{ChannelSettings, WebhookSettings};

/// What the server does with one request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Status(u16),
    Busy { seconds: u32 },
    Hang,
}

#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<(String, serde_json::Value)>>>);

impl Received {
    fn keys(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(key, _)| key.clone()).collect()
    }
}

/// Answers the first requests as told, the rest with 200.
async fn server(answers: Vec<Answer>) -> (String, Received) {
    let received = Received::default();
    let (seen, answers) = (received.clone(), Arc::new(Mutex::new(answers.into_iter())));
    let handle = move |headers: HeaderMap, body: String| {
        let key = headers.get("idempotency-key").unwrap().to_str().unwrap().to_owned();
        assert_eq!(headers.get("authorization").unwrap(), "Bearer s3cret");
        seen.0.lock().unwrap().push((key, serde_json::from_str(&body).unwrap()));
        let answer = answers.lock().unwrap().next().unwrap_or(Answer::Status(200));
        async move { answer_as(answer).await }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let app = Router::new().route("/hook", post(handle));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, received)
}

async fn answer_as(answer: Answer) -> Response {
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Busy { seconds } => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())]).into_response()
        }
        Answer::Hang => std::future::pending().await,
    }
}

/// Accepts and closes each of the first connections at once, then gives the rest to the real server.
async fn resetting(times: usize, target: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for _ in 0..times {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _some = stream.read(&mut [0; 16]).await.unwrap();
        }
        let target = target.trim_start_matches("http://").trim_end_matches("/hook").to_owned();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut behind = tokio::net::TcpStream::connect(&target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut behind).await.ok() });
        }
    });
    url
}

fn webhook(url: String, timeout_ms: u64) -> ChannelSettings {
    ChannelSettings::Webhook(WebhookSettings {
        url,
        timeout_ms,
        token: Some("s3cret".to_owned()),
        ..WebhookSettings::default()
    })
}

/// One message against the answers: how often it was sent (always with one key), and how it ended.
#[track_caller]
fn check(answers: &[Answer], expect: (usize, &str)) -> impl Future<Output = ()> {
    let (answers, place) = (answers.to_vec(), std::panic::Location::caller());
    let (times, state) = (expect.0, expect.1.to_owned());
    async move {
        let (url, received) = server(answers.clone()).await;
        let mut world = World::new(quick()).await;
        world.settings.channels.push(webhook(url, 150));
        world.epoch(vec![came("a")]).await;
        world.run().await;
        let intent = world.intents().await.remove(0);
        let keys = received.keys();
        assert_eq!((keys.len(), intent.state), (times, state), "{answers:?} at {place}");
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([intent.key]));
    }
}

#[tokio::test]
async fn faults_are_tried_again_with_one_key() {
    use Answer::{Busy, Hang, Status};
    check(&[], (1, "confirmed")).await;
    check(&[Status(500), Status(503)], (3, "confirmed")).await;
    check(&[Hang], (2, "confirmed")).await;
    check(&[Status(500); 9], (4, "failed")).await;
    check(&[Status(400)], (1, "failed")).await;
    check(&[Status(302)], (1, "failed")).await;
    check(&[Busy { seconds: 0 }], (2, "confirmed")).await;
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let (url, received) = server(vec![Answer::Busy { seconds: 1 }]).await;
    let mut world = World::new(quick()).await;
    world.settings.channels.push(webhook(url, 500));
    world.epoch(vec![came("a")]).await;
    let took = world.run().await;
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert_eq!(received.keys().len(), 2);
}

#[tokio::test]
async fn a_broken_connection_is_unknown_and_sent_again_with_its_key() {
    let (url, received) = server(Vec::new()).await;
    let url = resetting(1, url).await;
    let mut world = World::new(quick()).await;
    world.settings.channels.push(webhook(url, 500));
    world.epoch(vec![came("a")]).await;
    world.run().await;
    let intent = world.intents().await.remove(0);
    assert_eq!((intent.state.as_str(), intent.tries), ("confirmed", 2));
    assert_eq!(received.keys(), [intent.key]);
    let audit = world.ledger.reader().await.unwrap().audit(0, 100).await.unwrap();
    assert!(audit.iter().any(|record| record.action == "intent_unknown"));
}

#[tokio::test]
async fn a_refused_connection_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    drop(listener);
    let mut world = World::new(quick()).await;
    world.settings.channels.push(webhook(url, 500));
    world.epoch(vec![came("a")]).await;
    world.run().await;
    let intent = world.intents().await.remove(0);
    assert_eq!((intent.state.as_str(), intent.tries), ("failed", 4));
    let receipt = intent.receipt.unwrap().to_string();
    assert!(receipt.contains("refused") && !receipt.contains("/hook"), "{receipt}");
}

#[tokio::test]
async fn a_hanging_channel_delays_no_other() {
    let (url, received) = server(vec![Answer::Hang; 100]).await;
    let mut world = World::new(quick()).await.with_file();
    world.settings.channels.push(webhook(url, 2_000));
    world.epoch((0..20).map(|n| came(&format!("u{n}"))).collect()).await;
    let took = world.run_until(async || world.lines().len() == 20).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(received.keys().len(), 1, "one try is on its way, the rest wait behind it");
}
