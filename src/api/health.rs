//! `GET /api/v1/health`: how each component is, asked at the moment of the request.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;

use crate::ApiState;

/// How a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It does its work.
    Ok,
    /// It works, but somebody should look: behind, nearly full, something was damaged.
    Degraded,
    /// It does not do its work.
    Down,
}

type Check = Box<dyn Fn() -> (Condition, String) + Send + Sync>;

/// The components and how to ask them. Checks must answer at once: they read what is known, they do not try.
#[derive(Default)]
pub struct Health(Mutex<BTreeMap<String, Check>>);

impl Health {
    /// Adds a component, or replaces the one of this name.
    pub fn component(&self, name: &str, check: impl Fn() -> (Condition, String) + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Box::new(check));
    }

    /// Asks all of them.
    #[must_use]
    pub fn ask(&self) -> BTreeMap<String, (Condition, String)> {
        let components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        components.iter().map(|(name, check)| (name.clone(), check())).collect()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.ask()).finish()
    }
}

/// 200 unless something is down; then 503, so that a supervisor need not read the body.
pub(crate) async fn show(State(state): State<ApiState>) -> Response {
    let mut components = state.health.ask();
    components.entry("spool".to_owned()).or_insert_with(|| spool(&state));
    match state.reader.engine().await {
        Ok(_) => {
            components.entry("ledger".to_owned()).or_insert((Condition::Ok, "readable".to_owned()));
        }
        // Whatever else is known of it.
        Err(error) => {
            components.insert("ledger".to_owned(), (Condition::Down, error.to_string()));
        }
    }
    let worst = components.values().map(|(condition, _)| *condition).max().unwrap_or(Condition::Ok);
    let status = if worst == Condition::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let components: BTreeMap<_, _> = components
        .into_iter()
        .map(|(name, (condition, detail))| (name, json!({"status": condition, "detail": detail})))
        .collect();
    let body = json!({"status": worst, "version": env!("CARGO_PKG_VERSION"), "components": components});
    (status, Json(body)).into_response()
}

fn spool(state: &ApiState) -> (Condition, String) {
    let log = state.spool.log();
    match log.ended() {
        Some(error) => (Condition::Down, error.to_string()),
        None => (Condition::Ok, format!("{} rows, {} bytes on disk", log.durable_end(), log.bytes())),
    }
}
