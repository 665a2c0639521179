//! Who may ask, as long as there is no login: callers that name this machine as themselves would.
//!
//! A page in a browser on this machine can reach loopback under a name of its own (DNS rebinding). It cannot choose the
//! `Host` header, so a name that is neither an address nor `localhost` is refused. Changing requests also need
//! `Content-Type: application/json`, which no page can send to another origin without being asked first.

use axum::{
    extract::Request,
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::error::ApiError;

pub(crate) async fn local_name(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(axum::http::uri::Authority::as_str));
    if host.is_none_or(is_local_name) {
        return next.run(request).await;
    }
    let message = "ask by address or as localhost: other names are refused while there is no login";
    ApiError::new(StatusCode::FORBIDDEN, "host_refused", message).into_response()
}

fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::is_local_name;

    #[test]
    fn only_addresses_and_localhost_are_local_names() {
        for name in ["127.0.0.1", "127.0.0.1:8080", "localhost", "LocalHost:80", "[::1]:80", "[::1]"] {
            assert!(is_local_name(name), "{name}");
        }
        for name in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "", "[x]"] {
            assert!(!is_local_name(name), "{name}");
        }
    }
}
