//! Syslog over UDP (RFC 5426): one datagram is one message.

use std::{fs, io, net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use cf_types::Framing;
use tokio::net::UdpSocket;

use super::{Accept, ReceiveError, Receiver, ReceiverCounts, Stop, SyslogOptions};

/// More than any datagram can hold, so that none is ever cut.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Datagrams and bytes handed over at once: enough for one sync to carry a burst.
const BATCH_RECORDS: usize = 4_096;
const BATCH_BYTES: usize = 4 << 20;
const STOP_BATCHES_MAX: usize = 64;

/// Opens a socket with a large buffer.
///
/// # Errors
///
/// When the address cannot be bound. A buffer smaller than wished is said in the log, and is no error.
pub async fn bind_udp(address: SocketAddr, options: &SyslogOptions) -> io::Result<UdpSocket> {
    use rustix::net::sockopt;
    let socket = UdpSocket::bind(address).await?;
    let wished = usize::try_from(options.receive_buffer_bytes).unwrap_or(usize::MAX);
    // With privileges beyond the system's limit, else up to it.
    let set = sockopt::set_socket_recv_buffer_size_force(&socket, wished)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, wished));
    // The kernel answers with twice what it was asked for.
    let got = sockopt::socket_recv_buffer_size(&socket).unwrap_or(0) / 2;
    if set.is_err() || got < wished {
        tracing::warn!(wished, got, "the kernel's buffer for datagrams is smaller than wished");
    }
    Ok(socket)
}

/// Receives until it is told to stop; then takes what the kernel still holds.
///
/// # Errors
///
/// When the socket or the spool fails for good.
pub async fn syslog_udp<A: Accept>(
    socket: UdpSocket,
    source: Arc<str>,
    accept: Arc<A>,
    counts: Arc<ReceiverCounts>,
    mut stop: Stop,
) -> Result<(), ReceiveError> {
    let receiver = Receiver { source, accept, counts, stop: stop.clone() };
    let mut buffer = BytesMut::new();
    loop {
        let stopping = tokio::select! {
            biased;
            () = stop.stopped() => true,
            ready = socket.readable() => ready.map(|()| false)?,
        };
        // Told to stop, it takes what lies there, but does not stay for a sender that never ends.
        for _ in 0..STOP_BATCHES_MAX {
            let batch = take_batch(&socket, &mut buffer)?;
            if batch.is_empty() {
                break;
            }
            receiver.deliver(&batch).await?;
        }
        if stopping {
            return Ok(());
        }
    }
}

fn take_batch(socket: &UdpSocket, buffer: &mut BytesMut) -> Result<Vec<(Framing, Bytes)>, ReceiveError> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    while batch.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
        buffer.reserve(DATAGRAM_BYTES_MAX);
        match socket.try_recv_buf(buffer) {
            Ok(length) => {
                bytes += length;
                let mut message = buffer.split_to(length).freeze();
                // Some senders end datagrams like lines.
                let kept = message.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0));
                message.truncate(kept.map_or(0, |last| last + 1));
                batch.push((Framing::Syslog, message));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // An answer to something that was sent from here: not about what is received.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(batch)
}

/// How many datagrams the kernel has dropped because the buffer of this port's sockets was full; `None` where it does
/// not say. Reads `/proc/net/udp`: for a gauge now and then.
#[must_use]
pub fn kernel_drops(port: u16) -> Option<u64> {
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(fs::read_to_string);
    tables.into_iter().flatten().map(|table| drops_in(&table, port)).reduce(|one, other| one.saturating_add(other))
}

fn drops_in(table: &str, port: u16) -> u64 {
    let of_line = |line: &str| -> Option<u64> {
        let mut columns = line.split_ascii_whitespace();
        let (_, local) = columns.nth(1)?.rsplit_once(':')?;
        (u16::from_str_radix(local, 16).ok()? == port).then(|| columns.next_back()?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(of_line).sum()
}

#[cfg(test)]
mod tests {
    use super::drops_in;

    #[test]
    fn the_kernels_drops_are_read_by_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  361: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 20303 2 0000000000000000 7
  362: 0100007F:0203 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 20304 2 0000000000000000 9
";
        assert_eq!((drops_in(table, 514), drops_in(table, 515), drops_in(table, 1)), (7, 9, 0));
        assert_eq!(drops_in("rubbish\n\u{0}:\n", 514), 0);
    }
}
