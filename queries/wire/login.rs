//! Who comes in over the Postgres wire: by SCRAM-SHA-256 against a file of users, or from this machine where that is trusted.
//!
//! Without TLS nobody from elsewhere comes in. A name that is not in the file is asked for a password like all others.

use std::{
    collections::HashMap,
    fs,
    io::{self, Error},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use datafusion_postgres::pgwire::{
    api::{
        ClientInfo, ConnectionManager, PidSecretKeyGenerator as _, RandomPidSecretKeyGenerator,
        auth::{
            AuthSource, DefaultServerParameterProvider, LoginInfo, Password, ServerParameterProvider, StartupHandler,
            finish_authentication, protocol_negotiation,
            sasl::{
                SASLAuthStartupHandler,
                scram::{SCRAM_ITERATIONS, ScramAuth, gen_salted_password, random_nonce},
            },
            save_startup_parameters_to_metadata,
        },
    },
    error::{ErrorInfo, PgWireError, PgWireResult},
    messages::{PgWireBackendMessage, PgWireFrontendMessage},
};
use futures::Sink;

use crate::SqlSettings;

/// Lines of the file of users.
const USERS_MAX: usize = 10_000;

/// The version that clients are told: they choose their catalogue queries by it.
pub(super) const SERVER_VERSION: &str = "16.6";

/// Lets one connection in, or not.
pub(super) struct Door {
    scram: Option<SASLAuthStartupHandler<Parameters>>,
    trust_loopback: bool,
    connections: Arc<ConnectionManager>,
}

impl Door {
    pub(super) fn new(settings: &SqlSettings, connections: &Arc<ConnectionManager>) -> Door {
        let scram = settings.users_file.clone().map(|path| {
            SASLAuthStartupHandler::new(Arc::new(Parameters))
                .with_scram(ScramAuth::new(Arc::new(Users { path })))
                .with_connection_manager(Arc::clone(connections))
        });
        Door { scram, trust_loopback: settings.trust_loopback, connections: Arc::clone(connections) }
    }
}

#[async_trait]
impl StartupHandler for Door {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let loopback = client.socket_addr().ip().is_loopback();
        if !loopback && !client.is_secure() {
            return Err(refused("connections from other machines want TLS (sslmode=require)"));
        }
        match (&self.scram, message) {
            (_, PgWireFrontendMessage::Startup(startup)) if loopback && self.trust_loopback => {
                protocol_negotiation(client, &startup).await?;
                save_startup_parameters_to_metadata(client, &startup);
                let (pid, key) = RandomPidSecretKeyGenerator::default().generate(client);
                client.set_pid_and_secret_key(pid, key.clone());
                let (handle, guard) = self.connections.register(pid, key);
                client.session_extensions().insert(handle);
                client.session_extensions().insert(guard);
                finish_authentication(client, &Parameters).await
            }
            (Some(scram), message) => {
                let user = client.metadata().get("user").cloned().unwrap_or_default();
                scram.on_startup(client, message).await.map_err(|error| match error {
                    PgWireError::InvalidPassword(_) => wrong_password(&user),
                    other => other,
                })
            }
            (None, _) => Err(refused("nobody may come in: no users are set")),
        }
    }
}

/// What clients are told of the server.
#[derive(Debug)]
struct Parameters;

impl ServerParameterProvider for Parameters {
    fn server_parameters<C: ClientInfo>(&self, client: &C) -> Option<HashMap<String, String>> {
        let mut parameters = DefaultServerParameterProvider::default().server_parameters(client)?;
        let told = [
            ("server_version", SERVER_VERSION),
            ("is_superuser", "off"),
            ("default_transaction_read_only", "on"),
            ("TimeZone", "UTC"),
        ];
        parameters.extend(told.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Some(parameters)
    }
}

#[derive(Debug)]
struct Users {
    path: PathBuf,
}

#[async_trait]
#[allow(elided_lifetimes_in_paths)] // the trait's own form, which the macro wants alike
impl AuthSource for Users {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        let users = read_users(&self.path).map_err(|error| {
            tracing::error!(path = %self.path.display(), %error, "the SQL users could not be read; nobody is let in");
            refused("the users could not be read; the log says why")
        })?;
        let known = login.user().and_then(|name| users.get(name)).cloned();
        // Who is not known gets a password that nobody knows: the exchange looks the same.
        let password = known.unwrap_or_else(random_nonce);
        let salt = random_nonce().into_bytes();
        let salted = gen_salted_password(&password, &salt, SCRAM_ITERATIONS);
        Ok(Password::new(Some(salt), salted))
    }
}

/// Reads lines `NAME:PASSWORD`; empty ones and those that begin with `#` are none.
pub(super) fn read_users(path: &Path) -> io::Result<HashMap<String, String>> {
    let text = fs::read_to_string(path)?;
    let mut users = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line.split_once(':').filter(|(name, password)| !name.trim().is_empty() && !password.is_empty());
        let Some((name, password)) = pair else {
            return Err(Error::other(format!("line {} is not of the form NAME:PASSWORD", index + 1)));
        };
        users.insert(name.trim().to_owned(), password.to_owned());
        if users.len() > USERS_MAX {
            return Err(Error::other(format!("there are more than {USERS_MAX} users")));
        }
    }
    Ok(users)
}

/// The same words whether there is such a user or not.
fn wrong_password(user: &str) -> PgWireError {
    let user: String = user.chars().take(64).collect();
    let says = format!("password authentication failed for user {user:?}");
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".to_owned(), "28P01".to_owned(), says)))
}

/// Ends the connection.
fn refused(why: &str) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".to_owned(), "28000".to_owned(), why.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, "# who may ask\n\ngrafana:a:b c\r\nalice: x\n").unwrap();
        let users = read_users(&path).unwrap();
        assert_eq!(users.get("grafana").map(String::as_str), Some("a:b c"));
        assert_eq!(users.get("alice").map(String::as_str), Some(" x"));
        for broken in ["alice", "alice:", ":x"] {
            fs::write(&path, broken).unwrap();
            assert!(read_users(&path).is_err(), "{broken}");
        }
    }
}
