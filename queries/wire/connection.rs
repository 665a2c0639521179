//! One connection: messages in, answers out, each bounded in length and time.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use bytes::BytesMut;
use datafusion_postgres::pgwire::{
    api::{ClientInfo as _, NoopHandler, PgWireConnectionState, cancel::DefaultCancelHandler},
    error::{ErrorInfo, PgWireError},
    messages::{DecodeContext, PgWireFrontendMessage, extendedquery::TARGET_TYPE_BYTE_STATEMENT},
    tokio::server::{negotiate_tls, process_error, process_message},
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{Shared, frame, handler::Handler, login::Door, prepared::Prepared};

/// A connection that is not let in by then is closed.
const LOGIN_MAX: Duration = Duration::from_secs(20);

/// Statements and portals that a connection may keep, and the bytes of them together. Drivers keep 256 to 512.
const KEPT_MAX: usize = 1_024;
const KEPT_BYTES_MAX: usize = 8 << 20;

/// Beyond the time of a query: an answer that is not fetched by then is given up.
const FETCH_GRACE: Duration = Duration::from_secs(10);

pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream) -> io::Result<()> {
    let login_until = Instant::now() + LOGIN_MAX;
    let negotiated = timeout_at(login_until, negotiate_tls::<Prepared>(stream, shared.tls.clone())).await;
    let Some(mut socket) = negotiated.map_err(|_| io::ErrorKind::TimedOut)?? else { return Ok(()) };
    let door = Arc::new(Door::new(&shared.settings, &shared.connections));
    let handler = Arc::new(Handler::new(shared.session.clone()));
    let cancel = Arc::new(DefaultCancelHandler::new(Arc::clone(&shared.connections)));
    let copy = Arc::new(NoopHandler);
    let mut kept = Kept::default();
    // What came with the negotiation.
    let mut buffer: BytesMut = socket.read_buffer_mut().split();
    let query = Duration::from_secs(u64::from(shared.settings.query_s.max(1)));
    let idle = Duration::from_secs(u64::from(shared.settings.idle_s.max(1)));
    loop {
        let login = matches!(
            socket.state(),
            PgWireConnectionState::AwaitingStartup | PgWireConnectionState::AuthenticationInProgress
        );
        let first = matches!(socket.state(), PgWireConnectionState::AwaitingStartup);
        let next = async {
            loop {
                if let Some(message) = frame::take(&mut buffer, first)? {
                    return Ok::<_, io::Error>(Some(message));
                }
                if socket.get_mut().read_buf(&mut buffer).await? == 0 {
                    return Ok(None);
                }
            }
        };
        // A portal or a cursor that is fetched in parts holds a place among the queries: not longer than a query may.
        let wait = if kept.fetching || handler.has_cursors() { query.min(idle) } else { idle };
        let until = if login { login_until } else { Instant::now() + wait };
        let Ok(message) = timeout_at(until, next).await else { return Ok(()) };
        let Some(mut message) = message? else { return Ok(()) };
        let mut context = DecodeContext::new(socket.protocol_version());
        (context.awaiting_frontend_ssl, context.awaiting_frontend_startup) = (false, first);
        let decoded = PgWireFrontendMessage::decode(&mut message, &context).map_err(io::Error::other)?;
        let Some(message) = decoded else { return Err(io::ErrorKind::InvalidData.into()) };
        if matches!(message, PgWireFrontendMessage::Terminate(_)) {
            return Ok(());
        }
        let is_extended = message.is_extended_query();
        let done = match kept.count(&message) {
            Err(error) => Ok(Err(error)),
            Ok(()) => {
                let (door, simple, extended) = (Arc::clone(&door), Arc::clone(&handler), Arc::clone(&handler));
                let work = process_message(
                    message,
                    &mut socket,
                    door,
                    simple,
                    extended,
                    Arc::clone(&copy),
                    Arc::clone(&cancel),
                );
                timeout(query + FETCH_GRACE, Box::pin(work)).await
            }
        };
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let fatal = login;
                process_error(&mut socket, error, is_extended).await?;
                if fatal {
                    return Ok(());
                }
            }
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// What a connection keeps: names with their bytes.
#[derive(Default)]
struct Kept {
    sizes: BTreeMap<(bool, String), usize>,
    bytes: usize,
    fetching: bool,
}

impl Kept {
    fn count(&mut self, message: &PgWireFrontendMessage) -> Result<(), PgWireError> {
        match message {
            PgWireFrontendMessage::Parse(parse) => self.keep(true, parse.name.as_deref(), parse.query.len()),
            PgWireFrontendMessage::Bind(bind) => {
                let bytes = bind.parameters.iter().flatten().map(bytes::Bytes::len).sum();
                self.keep(false, bind.portal_name.as_deref(), bytes)
            }
            PgWireFrontendMessage::Close(close) => {
                let statement = close.target_type == TARGET_TYPE_BYTE_STATEMENT;
                let name = close.name.clone().unwrap_or_default();
                self.bytes -= self.sizes.remove(&(statement, name)).unwrap_or(0).min(self.bytes);
                Ok(())
            }
            PgWireFrontendMessage::Execute(execute) => {
                self.fetching |= execute.max_rows != 0;
                Ok(())
            }
            PgWireFrontendMessage::Query(_) => {
                self.fetching = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn keep(&mut self, statement: bool, name: Option<&str>, bytes: usize) -> Result<(), PgWireError> {
        let name = name.unwrap_or_default();
        let bytes = bytes + name.len();
        let before = self.sizes.insert((statement, name.to_owned()), bytes).unwrap_or(0);
        self.bytes = self.bytes - before.min(self.bytes) + bytes;
        if self.sizes.len() <= KEPT_MAX && self.bytes <= KEPT_BYTES_MAX {
            return Ok(());
        }
        self.bytes -= self.sizes.remove(&(statement, name.to_owned())).unwrap_or(0).min(self.bytes);
        let says = format!("a connection keeps at most {KEPT_MAX} statements and portals of {KEPT_BYTES_MAX} bytes");
        Err(PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), "53400".to_owned(), says))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = Kept::default();
        for n in 0..KEPT_MAX {
            assert!(kept.keep(true, Some(&format!("s{n}")), 10).is_ok());
        }
        assert!(kept.keep(true, Some("one more"), 10).is_err());
        assert!(kept.keep(true, Some("s0"), 10).is_ok(), "the same name takes the old one's place");
        let mut kept = Kept::default();
        assert!(kept.keep(true, None, KEPT_BYTES_MAX).is_ok());
        assert!(kept.keep(false, None, 1).is_err());
        assert!(kept.keep(true, None, 1).is_ok());
        assert!(kept.keep(false, None, 1).is_ok());
    }
}
