//! Syslog over TCP (RFC 6587): connections that last, messages framed by `framer`.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

use super::{Accept, ReceiveError, Receiver, ReceiverCounts, Stop, SyslogOptions, add, framer::Framer};

/// How much is read at once.
const READ_BYTES: usize = 16 << 10;
/// How much of a connection is still read after it is time to stop.
const STOP_BYTES_MAX: usize = 8 << 20;

/// Receives until it is told to stop; then takes what the kernel still holds of each connection.
///
/// # Errors
///
/// When the spool fails for good. A failing connection ends only itself.
pub async fn syslog_tcp<A: Accept>(
    listener: TcpListener,
    source: Arc<str>,
    accept: Arc<A>,
    options: &SyslogOptions,
    counts: Arc<ReceiverCounts>,
    mut stop: Stop,
) -> Result<(), ReceiveError> {
    let receiver = Receiver { source, accept, counts, stop: stop.clone() };
    let connections_max = usize::try_from(options.connections_max).unwrap_or(usize::MAX);
    let mut connections: JoinSet<Result<(), ReceiveError>> = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => break,
            Some(ended) = connections.join_next() => ended_well(ended)?,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < connections_max => {
                    connections.spawn(serve(stream, receiver.clone(), options.clone()));
                }
                // Closed by being dropped: the sender sees it and tries again.
                Ok(_) => add(&receiver.counts.connections_refused, 1),
                // Out of descriptors, or the connection went away: it passes.
                Err(error) => {
                    tracing::warn!(%error, "could not accept a syslog connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        ended_well(ended)?;
    }
    Ok(())
}

fn ended_well(ended: Result<Result<(), ReceiveError>, tokio::task::JoinError>) -> Result<(), ReceiveError> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(ReceiveError::Socket(error))) => {
            tracing::debug!(%error, "a syslog connection failed");
            Ok(())
        }
        Ok(Err(error)) => Err(error),
        Err(error) => {
            tracing::error!(%error, "a syslog connection's task died");
            Ok(())
        }
    }
}

/// Why a connection is read no more.
enum End {
    Closed,
    TooSlow,
    Stopped,
}

async fn serve<A: Accept>(
    mut stream: TcpStream,
    receiver: Receiver<A>,
    options: SyslogOptions,
) -> Result<(), ReceiveError> {
    receiver.counts.connections.fetch_add(1, Ordering::Relaxed);
    let result = receive(&mut stream, &receiver, &options).await;
    receiver.counts.connections.fetch_sub(1, Ordering::Relaxed);
    result
}

async fn receive<A: Accept>(
    stream: &mut TcpStream,
    receiver: &Receiver<A>,
    options: &SyslogOptions,
) -> Result<(), ReceiveError> {
    let [idle, message] = [options.idle_s, options.message_s].map(|seconds| Duration::from_secs(u64::from(seconds)));
    let mut framer = Framer::new(usize::try_from(options.message_bytes_max).unwrap_or(usize::MAX - 1));
    let mut buffer = BytesMut::new();
    let mut began: Option<Instant> = None;
    let mut stop = receiver.stop.clone();
    let end = loop {
        let idle_until = Instant::now() + idle;
        let until = began.map_or(idle_until, |began| idle_until.min(began + message));
        buffer.reserve(READ_BYTES);
        let read = tokio::select! {
            biased;
            () = stop.stopped() => break End::Stopped,
            read = tokio::time::timeout_at(until, stream.read_buf(&mut buffer)) => read,
        };
        match read {
            Err(_) => break End::TooSlow,
            Ok(Ok(0)) => break End::Closed,
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => break End::Closed,
            Ok(Err(error)) => return Err(error.into()),
        }
        let whole = deliver_whole(&mut framer, &mut buffer, receiver).await?;
        // The clock of a message begins anew only when one was completed, not with every byte.
        began = match began.filter(|_| !whole) {
            Some(began) => Some(began),
            None => framer.is_inside(&buffer).then(Instant::now),
        };
    };
    if matches!(end, End::Stopped) {
        take_rest(stream, &mut framer, &mut buffer, receiver).await?;
    }
    if matches!(end, End::TooSlow) {
        add(&receiver.counts.timeouts, 1);
    }
    let last: Vec<_> = framer.finish(&mut buffer, matches!(end, End::TooSlow)).into_iter().collect();
    receiver.deliver(&last).await
}

/// Hands over the messages that are whole; whether there was one.
async fn deliver_whole<A: Accept>(
    framer: &mut Framer,
    buffer: &mut BytesMut,
    receiver: &Receiver<A>,
) -> Result<bool, ReceiveError> {
    let mut messages = Vec::new();
    while let Some(message) = framer.next(buffer) {
        messages.push(message);
    }
    receiver.deliver(&messages).await?;
    Ok(!messages.is_empty())
}

/// Reads what has arrived already, without waiting for more.
async fn take_rest<A: Accept>(
    stream: &TcpStream,
    framer: &mut Framer,
    buffer: &mut BytesMut,
    receiver: &Receiver<A>,
) -> Result<(), ReceiveError> {
    let mut read = 0;
    while read < STOP_BYTES_MAX {
        buffer.reserve(READ_BYTES);
        match stream.try_read_buf(buffer) {
            Ok(0) | Err(_) => break,
            Ok(more) => read += more,
        }
        deliver_whole(framer, buffer, receiver).await?;
    }
    Ok(())
}
