//! Serves the routes on a listener: bounded connections, bounded time for a request's head, an end in order.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use cf_ingest::receive::Stop;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::ApiOptions;

/// How long requests that have begun may take to end after it is time to stop.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Serves until told to stop; requests that have begun are answered first.
///
/// # Errors
///
/// None now: what goes wrong with one connection ends only that one.
pub async fn serve(listener: TcpListener, routes: Router, options: &ApiOptions, mut stop: Stop) -> io::Result<()> {
    let head = Duration::from_secs(u64::from(options.head_s));
    let slots = usize::try_from(options.connections_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    let slots = Arc::new(Semaphore::new(slots));
    let mut connections = JoinSet::new();
    loop {
        // Without a free slot nothing is accepted: callers wait in the kernel's queue.
        let accepted = tokio::select! {
            biased;
            () = stop.stopped() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let (routes, stop) = (routes.clone(), stop.clone());
                connections.spawn(async move {
                    connection(stream, routes, head, stop).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept an HTTP connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let ended = tokio::time::timeout(STOP_GRACE, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!(connections = connections.len(), "requests that did not end were cut off");
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

async fn connection(stream: TcpStream, routes: Router, head: Duration, mut stop: Stop) {
    let service = TowerToHyperService::new(routes);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = stop.stopped() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}
