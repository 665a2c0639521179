//! The Postgres wire: read-only SQL for psql, drivers, Grafana and Metabase.
//!
//! The protocol is `pgwire`'s, the catalogue (`pg_class`, ..) that of `datafusion-pg-catalog`; both come with `datafusion-postgres`. Its
//! own server is not used: it shares one session between all connections, so a `SET` of one changes the memory limit of
//! all, it limits neither time nor messages, and it takes whatever statement comes. Here each statement passes the same
//! checks and limits as everywhere else.
//!
//! In: connections. Memory: bounded by connections, a message's length, statements kept per connection, and the session's pool.
//! A connection ends when it is idle too long, when a message is too long or broken, or when an answer is not fetched in
//! the time of a query.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use datafusion_postgres::pgwire::{
    api::ConnectionManager,
    tokio::{
        TlsAcceptor,
        tokio_rustls::rustls::{
            ServerConfig,
            crypto::ring,
            pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        },
    },
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::{Session, SqlSettings, error::QueryError};

mod catalogue;
mod clients;
mod command;
mod connection;
mod cursor;
mod frame;
mod handler;
mod login;
mod prepared;

/// How long connections may go on after it is time to stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// The Postgres wire over a session.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

/// What all connections share.
struct Shared {
    session: Session,
    settings: SqlSettings,
    tls: Option<TlsAcceptor>,
    connections: Arc<ConnectionManager>,
    slots: Arc<Semaphore>,
}

impl Server {
    /// Makes a server; reads certificate and key.
    ///
    /// # Errors
    ///
    /// When certificate, key or the file of users cannot be read.
    pub fn new(session: &Session, settings: SqlSettings) -> Result<Server, WireError> {
        let tls = match (&settings.tls_cert, &settings.tls_key) {
            (Some(cert), Some(key)) => Some(acceptor(cert, key)?),
            _ => None,
        };
        if let Some(users) = &settings.users_file {
            login::read_users(users).map_err(|source| WireError::Users { path: users.clone(), source })?;
        }
        let session = catalogue::with_catalogue(session)?;
        let slots = usize::try_from(settings.connections_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Ok(Server {
            shared: Arc::new(Shared {
                session,
                settings,
                tls,
                connections: Arc::new(ConnectionManager::new()),
                slots: Arc::new(Semaphore::new(slots)),
            }),
        })
    }

    /// Serves until `stop` resolves; then what runs is cut off.
    pub async fn serve(&self, listener: TcpListener, stop: impl Future<Output = ()> + Send) {
        let mut stop = std::pin::pin!(stop);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let shared = Arc::clone(&self.shared);
                    connections.spawn(async move { one(shared, stream, peer).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept an SQL connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        connections.abort_all();
        let ended = tokio::time::timeout(STOP_GRACE, async { while connections.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!("SQL connections that did not end were left");
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

async fn one(shared: Arc<Shared>, mut stream: TcpStream, peer: SocketAddr) {
    let Ok(slot) = Arc::clone(&shared.slots).try_acquire_owned() else {
        tracing::warn!(%peer, "an SQL connection was refused: there are too many");
        // Whoever does not read it in a moment is not told.
        drop(tokio::time::timeout(STOP_GRACE, stream.write_all(&too_many())).await);
        return;
    };
    if let Err(error) = connection::serve(shared, stream).await {
        tracing::debug!(%peer, %error, "an SQL connection ended early");
    }
    drop(slot);
}

/// An `ErrorResponse` by hand: before there is a protocol to speak.
fn too_many() -> Vec<u8> {
    let fields = b"SFATAL\0VFATAL\0C53300\0Msorry, too many connections\0\0";
    let length = u32::try_from(fields.len() + 4).unwrap_or(0).to_be_bytes();
    [b"E", length.as_slice(), fields.as_slice()].concat()
}

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, WireError> {
    let broken =
        |path: &Path, why: &dyn std::fmt::Display| WireError::Tls { path: path.to_owned(), why: why.to_string() };
    let chain = CertificateDer::pem_file_iter(cert).map_err(|error| broken(cert, &error))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| broken(cert, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| broken(key, &error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, secret));
    let mut config = config.map_err(|error| broken(cert, &error))?;
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Why the Postgres wire cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The file of users.
    #[error("could not read the SQL users of {}", path.display())]
    Users {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Certificate or key.
    #[error("could not use {} for TLS: {why}", path.display())]
    Tls {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        why: String,
    },
    /// The catalogue could not be made.
    #[error(transparent)]
    Catalogue(#[from] QueryError),
}
