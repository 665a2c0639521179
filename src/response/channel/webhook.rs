//! A webhook: POST of JSON with an idempotency key.
//!
//! A time-out or a connection that breaks after it was made leaves the outcome unknown; nothing can be asked of a
//! webhook, so the message is sent again with the same key, and the receiver tells repeats apart by it.

use std::time::Duration;

use cf_ledger::Intent;
use reqwest::{
    Client, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use serde_json::json;

use super::{End, Sent, message};
use crate::{responder::ResponseError, settings::WebhookSettings};

/// What of an answer is kept in the receipt, in bytes.
const ANSWER_BYTES_MAX: usize = 512;
/// The longest `Retry-After` that is followed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

pub(crate) struct WebhookChannel {
    client: Client,
    url: reqwest::Url,
}

impl WebhookChannel {
    pub(crate) fn new(settings: &WebhookSettings) -> Result<WebhookChannel, ResponseError> {
        let invalid = |why: String| ResponseError::Channel { channel: settings.name.clone(), why };
        let url: reqwest::Url = settings.url.parse().map_err(|error| invalid(format!("url is not valid: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid(format!("url has scheme {:?}, http or https is wanted", url.scheme())));
        }
        let mut headers = HeaderMap::new();
        let token = settings.token.as_ref().map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
        for (name, value) in settings.headers.clone().into_iter().chain(token) {
            let header = HeaderName::try_from(&name).map_err(|_| invalid(format!("{name:?} is no header name")))?;
            let mut value = HeaderValue::try_from(&value)
                .map_err(|_| invalid(format!("the value of header {name:?} has characters that are not allowed")))?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        let timeout = Duration::from_millis(settings.timeout_ms);
        let client = Client::builder()
            .default_headers(headers)
            .user_agent(concat!("counterflow/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            .connect_timeout(timeout)
            .redirect(Policy::none())
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        Ok(WebhookChannel { client, url })
    }

    pub(crate) async fn send(&self, intent: &Intent) -> Sent {
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("idempotency-key", &intent.key)
            .body(message(intent).to_string());
        let mut response = match request.send().await {
            Ok(response) => response,
            // Nothing was sent on a connection that was never made.
            Err(error) => {
                let end = if error.is_connect() { End::Missed { after: None } } else { End::Unknown };
                return Sent { end, receipt: json!({"error": texts(&error)}) };
            }
        };
        let (status, after) = (response.status(), retry_after(response.headers()));
        let mut answer = Vec::new();
        // The status decides; an answer that hangs or is endless is cut.
        while answer.len() < ANSWER_BYTES_MAX
            && let Ok(Some(chunk)) = response.chunk().await
        {
            answer.extend_from_slice(chunk.get(..chunk.len().min(ANSWER_BYTES_MAX)).unwrap_or_default());
        }
        answer.truncate(ANSWER_BYTES_MAX);
        let receipt = json!({"status": status.as_u16(), "answer": String::from_utf8_lossy(&answer)});
        Sent { end: end_of(status, after), receipt }
    }
}

/// What a status means.
fn end_of(status: StatusCode, after: Option<Duration>) -> End {
    match status {
        _ if status.is_success() => End::Delivered,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::TOO_EARLY => End::Missed { after },
        _ if status.is_server_error() => End::Missed { after },
        _ => End::Rejected,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// An error with its causes: reqwest's own text names only the URL (left out here: it may hold a secret).
fn texts(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() { "timed out" } else { "failed" };
    let mut text = kind.to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
