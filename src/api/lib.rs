//! REST: events in; health, metrics, facts, incidents and alerts out.
//!
//! | route | what |
//! |---|---|
//! | `POST /api/v1/events` | events, answered once they are durable in the spool |
//! | `GET /api/v1/health` | how each component is |
//! | `GET /api/v1/metrics`, `/metrics` | the text format of Prometheus |
//! | `GET /api/v1/facts`, `/facts/{kind}`; `POST`, `DELETE /facts/{kind}` | the control log's facts |
//! | `GET`, `POST /api/v1/rules`; `GET`, `PUT`, `DELETE /rules/{id}` | the rules in force ([`rules`]) |
//! | `GET /api/v1/alerts/{id}/explain` | why there is an alert, down to its events ([`engine`]) |
//! | `POST /api/v1/reload` | settings, rules and sources are read anew ([`engine`]) |
//! | `GET /api/v1/sources`, `POST /api/v1/sources/{name}/resume` | how the sources stand; a stopped one goes on |
//! | `GET /api/v1/sinks`, `/sinks/rejects` | how the sinks stand; what one could not take whole |
//! | `GET /api/v1/incidents`, `/incidents/{number}`, `/alerts` | what the ledger says |
//! | `GET /api/v1/assessments/{alert}` | its score with every factor, and how it was scored before |
//! | `GET /api/v1/risk`, `/risk?entity=host:web01` | entities by risk; one with what its risk is made of and leads to |
//! | `POST /api/v1/sql` | one reading statement over history and live tables ([`sql`]) |
//! | `GET /api/v1/hunts`, `/hunts/{name}`; `POST /hunts/{name}/run` | rules that ask history by time ([`hunts`]) |
//! | `GET /api/v1/rejects`, `/rejects/{id}`; `POST /rejects/retry` | what was refused, and to let it go through again |
//! | `GET /api/v1/suppressed` | alerts that an allow fact or a silence keeps from being told |
//!
//! Every error is `{"error": {"code": .., "message": ..}}`. Bad input never gives a 5xx; those say that this process or
//! its disk is in trouble. There is no login yet: the caller listens on loopback only, and what is not for shippers
//! refuses a `Host` that a page in somebody's browser could have made up ([`guard`]).

use std::{path::PathBuf, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{get, post},
};
use cf_ingest::receive::SpoolAccept;
use cf_ledger::Reader;
use cf_spool::Spool;
use cf_types::Tenant;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

mod body;
pub mod engine;
mod error;
mod events;
mod facts;
mod guard;
pub mod health;
pub mod hunts;
pub mod metrics;
pub mod rejects;
mod risk;
pub mod rules;
mod serve;
pub mod sinks;
pub mod sources;
pub mod sql;
mod views;

pub use engine::Engine;
pub use error::ApiError;
pub use health::{Condition, Health};
pub use hunts::Hunts;
pub use metrics::Page;
pub use rejects::{RejectFilter, Rejects, RejectsAnswer, RejectsError, RetryRequest};
pub use rules::Rules;
pub use serve::serve;
pub use sql::Sql;

/// Bounds of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ApiOptions {
    /// Bytes of the longest body, also after decompression; a longer one is answered with 413.
    pub body_bytes_max: u32,
    /// Bytes of all bodies in memory at once; beyond it senders are answered with 429.
    pub bodies_bytes_max: u32,
    /// Records in one body; those beyond it are rejected.
    pub records_max: u32,
    /// Bytes of the longest event; a longer one is rejected. Should be the `record_bytes_max` of the source `http`.
    pub record_bytes_max: u32,
    /// Seconds that one request's body may take to arrive; then 408.
    pub body_s: u32,
    /// Seconds that a request's head may take to arrive, also on a connection that is kept; then it is closed.
    pub head_s: u32,
    /// Connections at once; more wait to be accepted.
    pub connections_max: u32,
}

impl Default for ApiOptions {
    fn default() -> ApiOptions {
        ApiOptions {
            body_bytes_max: 16 << 20,
            bodies_bytes_max: 128 << 20,
            records_max: 100_000,
            record_bytes_max: 1 << 20,
            body_s: 30,
            head_s: 75, // as nginx keeps connections
            connections_max: 512,
        }
    }
}

/// What the routes work on; cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub(crate) accept: Arc<SpoolAccept>,
    pub(crate) spool: Arc<Spool>,
    pub(crate) tenant: Tenant,
    pub(crate) reader: Reader,
    pub(crate) dir: PathBuf,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<dyn Fn(&mut Page) + Send + Sync>,
    pub(crate) requests: Arc<metrics::Requests>,
    pub(crate) options: ApiOptions,
    pub(crate) bodies: Arc<Semaphore>,
    pub(crate) rules: Option<Arc<dyn Rules>>,
    pub(crate) engine: Option<Arc<dyn Engine>>,
    pub(crate) sources: Option<Arc<dyn sources::Sources>>,
    pub(crate) sinks: Option<Arc<dyn sinks::Sinks>>,
    pub(crate) sql: Option<Arc<dyn Sql>>,
    pub(crate) rejects: Option<Arc<dyn Rejects>>,
    pub(crate) hunts: Option<Arc<dyn Hunts>>,
}

impl ApiState {
    /// State over a spool and the ledger of the data folder `dir`. `metrics` writes the engine's part of the page.
    #[must_use]
    pub fn new(
        spool: Arc<Spool>,
        reader: Reader,
        dir: PathBuf,
        health: Arc<Health>,
        metrics: Arc<dyn Fn(&mut Page) + Send + Sync>,
        options: ApiOptions,
    ) -> ApiState {
        let tenant = Tenant::default();
        let kib = usize::try_from(options.bodies_bytes_max / 1_024).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        ApiState {
            accept: Arc::new(SpoolAccept::new(Arc::clone(&spool), tenant.clone())),
            spool,
            tenant,
            reader,
            dir,
            health,
            metrics,
            requests: Arc::default(),
            options,
            bodies: Arc::new(Semaphore::new(kib)),
            rules: None,
            engine: None,
            sources: None,
            sinks: None,
            sql: None,
            rejects: None,
            hunts: None,
        }
    }

    /// With the engine's rules; without them the routes for rules are not found.
    #[must_use]
    pub fn with_rules(mut self, rules: Arc<dyn Rules>) -> ApiState {
        self.rules = Some(rules);
        self
    }
}

impl ApiState {
    /// With the engine itself; without it the routes that ask it are not found.
    #[must_use]
    pub fn with_engine(mut self, engine: Arc<dyn Engine>) -> ApiState {
        self.engine = Some(engine);
        self
    }

    /// With what was refused; without it the routes for rejects are not found.
    #[must_use]
    pub fn with_rejects(mut self, rejects: Arc<dyn Rejects>) -> ApiState {
        self.rejects = Some(rejects);
        self
    }
}

impl ApiState {
    /// With the engine's sources; without them their routes are not found.
    #[must_use]
    pub fn with_sources(mut self, sources: Arc<dyn sources::Sources>) -> ApiState {
        self.sources = Some(sources);
        self
    }

    /// With the engine's sinks; without them their route is not found.
    #[must_use]
    pub fn with_sinks(mut self, sinks: Arc<dyn sinks::Sinks>) -> ApiState {
        self.sinks = Some(sinks);
        self
    }
}

impl ApiState {
    /// With the engine's hunts; without them their routes are not found.
    #[must_use]
    pub fn with_hunts(mut self, hunts: Arc<dyn Hunts>) -> ApiState {
        self.hunts = Some(hunts);
        self
    }
}

impl ApiState {
    /// With what answers SQL; without it the route is not found.
    #[must_use]
    pub fn with_sql(mut self, sql: Arc<dyn Sql>) -> ApiState {
        self.sql = Some(sql);
        self
    }
}

/// All routes.
pub fn router(state: ApiState) -> Router {
    let guarded = Router::new()
        .route("/api/v1/facts", get(facts::list))
        .route("/api/v1/facts/{kind}", get(facts::list_kind).post(facts::add).delete(facts::remove))
        .route("/api/v1/incidents", get(views::incidents))
        .route("/api/v1/incidents/{number}", get(views::incident))
        .route("/api/v1/alerts", get(views::alerts))
        .route("/api/v1/alerts/{id}/explain", get(engine::explain))
        .route("/api/v1/reload", post(engine::reload))
        .route("/api/v1/sql", post(sql::ask).layer(DefaultBodyLimit::max(sql::BODY_BYTES_MAX)))
        .route("/api/v1/risk", get(risk::risk))
        .route("/api/v1/suppressed", get(views::suppressed))
        .route("/api/v1/assessments/{alert}", get(risk::assessment))
        .route("/api/v1/sources", get(sources::list))
        .route("/api/v1/sources/{name}/resume", post(sources::resume))
        .route("/api/v1/sinks", get(sinks::list))
        .route("/api/v1/sinks/rejects", get(sinks::rejects))
        .route("/api/v1/rejects", get(rejects::list))
        .route("/api/v1/rejects/retry", post(rejects::retry))
        .route("/api/v1/rejects/{id}", get(rejects::show))
        .route("/api/v1/hunts", get(hunts::list))
        .route("/api/v1/hunts/{name}", get(hunts::show))
        .route("/api/v1/hunts/{name}/run", post(hunts::run))
        .route("/api/v1/rules", get(rules::list).post(rules::make))
        .route("/api/v1/rules/{id}", get(rules::show).put(rules::put).delete(rules::remove))
        .route_layer(middleware::from_fn(guard::local_name));
    Router::new()
        .route("/api/v1/events", post(events::receive))
        .route("/api/v1/health", get(health::show))
        .route("/api/v1/metrics", get(metrics::show))
        .route("/metrics", get(metrics::show))
        .merge(guarded)
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), metrics::count))
        // Ours counts and answers in our form; this one is for what does not use ours.
        .layer(DefaultBodyLimit::max(64 << 10))
        .with_state(state)
}

#[cfg(test)]
mod tests;
