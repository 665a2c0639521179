//! From a request to the records of its body: type, encoding, limits, cutting.

use std::{io::Read, pin::Pin, time::Duration};

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, HeaderName, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use cf_ingest::{BodyKind, BodyLimits, body::BodyReject, split_body};
use cf_types::RejectCode;
use serde_json::value::RawValue;
use tokio::sync::SemaphorePermit;

use crate::{ApiState, error::ApiError};

/// How the body was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
}

/// What the headers say about the body.
///
/// Two types, or one that we do not know, are refused: guessing is how content-type confusion begins.
pub(crate) fn kind(headers: &HeaderMap) -> Result<(BodyKind, Encoding), ApiError> {
    let unsupported = |message: &str| ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", message);
    let wanted = "Content-Type must be application/json or application/x-ndjson";
    let content_type =
        single(headers, header::CONTENT_TYPE).map_err(unsupported)?.ok_or_else(|| unsupported(wanted))?;
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let foreign = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        name.eq_ignore_ascii_case("charset") && !value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    if parts.any(foreign) {
        return Err(unsupported("the charset must be utf-8"));
    }
    let kind = match essence.as_str() {
        "application/json" => BodyKind::Json,
        "application/x-ndjson" => BodyKind::Lines,
        _ => return Err(unsupported(wanted)),
    };
    let encoding = single(headers, header::CONTENT_ENCODING).map_err(unsupported)?;
    let encoding = match encoding.unwrap_or("identity").trim().to_ascii_lowercase().as_str() {
        "identity" => Encoding::Identity,
        "gzip" => Encoding::Gzip,
        _ => return Err(unsupported("Content-Encoding must be gzip or absent")),
    };
    Ok((kind, encoding))
}

fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, &'static str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| "a header is not text"),
        (Some(_), Some(_)) => Err("a header is given twice that says what the body is"),
    }
}

/// Reads a body within limits of size, time and memory. The permit gives the memory back when it is dropped.
pub(crate) async fn read<'a>(
    state: &'a ApiState,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Option<SemaphorePermit<'a>>), ApiError> {
    read_at_most(state, headers, body, usize::MAX).await
}

/// The same for a body that may have fewer bytes than others.
pub(crate) async fn read_at_most<'a>(
    state: &'a ApiState,
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<(Bytes, Option<SemaphorePermit<'a>>), ApiError> {
    let bytes_max = usize::try_from(state.options.body_bytes_max).unwrap_or(usize::MAX).min(bytes_max);
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|declared| declared > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let limit = Duration::from_secs(u64::from(state.options.body_s));
    match tokio::time::timeout(limit, collect(state, body, bytes_max)).await {
        Ok(read) => read,
        Err(_) => {
            let message = format!("the body did not arrive within {} s", state.options.body_s);
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "too_slow", message))
        }
    }
}

async fn collect(
    state: &ApiState,
    mut body: Body,
    bytes_max: usize,
) -> Result<(Bytes, Option<SemaphorePermit<'_>>), ApiError> {
    let mut read = BytesMut::new();
    let mut permit: Option<SemaphorePermit<'_>> = None;
    loop {
        // Memory is taken as bytes arrive, so that slow senders hold little.
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(frame) = frame else { return Ok((read.freeze(), permit)) };
        let frame = frame.map_err(|_| ApiError::bad("the body was cut off"))?;
        let Ok(part) = frame.into_data() else { continue };
        if read.len() + part.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        let kib = |bytes: usize| bytes.div_ceil(1_024);
        let more = kib(read.len() + part.len()) - kib(read.len());
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let got =
            state.bodies.try_acquire_many(more).map_err(|_| ApiError::busy("too many bodies are on their way"))?;
        match &mut permit {
            Some(held) => held.merge(got),
            None => permit = Some(got),
        }
        read.extend_from_slice(&part);
    }
}

fn too_large(bytes_max: usize) -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", format!("a body may have {bytes_max} bytes"))
}

/// Takes the compression away, never to more than a body may have.
pub(crate) fn expand(body: Bytes, encoding: Encoding, bytes_max: u32) -> Result<Bytes, ApiError> {
    if encoding == Encoding::Identity {
        return Ok(body);
    }
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut out = Vec::new();
    let reader = flate2::read::MultiGzDecoder::new(&*body);
    let cap = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(cap).read_to_end(&mut out).map_err(|_| ApiError::bad("the body is no whole gzip"))?;
    if out.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    Ok(Bytes::from(out))
}

/// Cuts a body into its events, in order, each a JSON object, or rejected.
///
/// `application/json` may hold several documents, each an object or an array of them; JSON lines one per line.
pub(crate) fn split(kind: BodyKind, body: &Bytes, limits: &BodyLimits) -> Vec<Result<Bytes, BodyReject>> {
    let parts = match kind {
        BodyKind::Lines => split_body(kind, body, limits),
        BodyKind::Json => documents(body, limits),
    };
    let mut parts: Vec<_> = parts.into_iter().map(|part| part.and_then(whole)).collect();
    for (index, part) in parts.iter_mut().enumerate() {
        let limit = limits.records_max;
        if let (true, Ok(raw)) = (index >= limit, &part) {
            let reason = format!("a body may hold {limit} records");
            *part = Err(BodyReject { index, code: RejectCode::TooLong, reason, raw: raw.clone() });
        }
        if let Err(reject) = part {
            reject.index = index;
        }
    }
    parts
}

fn documents(body: &Bytes, limits: &BodyLimits) -> Vec<Result<Bytes, BodyReject>> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut stream = serde_json::Deserializer::from_slice(text).into_iter::<&RawValue>();
    let mut parts = Vec::new();
    loop {
        let begin = stream.byte_offset();
        match stream.next() {
            None => break,
            Some(Ok(document)) => {
                let document = body.slice_ref(document.get().as_bytes());
                parts.extend(split_body(BodyKind::Json, &document, limits));
            }
            Some(Err(error)) => {
                let raw = body.slice_ref(text.get(begin..).unwrap_or_default());
                parts.push(Err(broken(raw, &error)));
                break;
            }
        }
    }
    if parts.is_empty() {
        // Says why: nothing but white space.
        return split_body(BodyKind::Json, body, limits);
    }
    parts
}

/// Whether a part is one JSON document from its begin to its end.
fn whole(part: Bytes) -> Result<Bytes, BodyReject> {
    match serde_json::from_slice::<&RawValue>(&part) {
        Ok(_) => Ok(part),
        Err(error) => Err(broken(part, &error)),
    }
}

fn broken(raw: Bytes, error: &serde_json::Error) -> BodyReject {
    let (code, reason) = match std::str::from_utf8(&raw) {
        Err(utf8) => (RejectCode::InvalidUtf8, format!("not UTF-8 at byte {}", utf8.valid_up_to())),
        Ok(_) => (RejectCode::InvalidJson, error.to_string()),
    };
    BodyReject { index: 0, code, reason, raw }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows accepted parts as they are, rejected ones as `!code`.
    fn shown(kind: BodyKind, body: &[u8]) -> String {
        let limits = BodyLimits { record_bytes_max: 40, records_max: 5 };
        let parts = split(kind, &Bytes::copy_from_slice(body), &limits);
        let show = |(index, part): (usize, Result<Bytes, BodyReject>)| match part {
            Ok(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Err(reject) => {
                assert_eq!(reject.index, index);
                format!("!{}", reject.code.as_str())
            }
        };
        parts.into_iter().enumerate().map(show).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(kind: BodyKind, body: impl AsRef<[u8]>, expect: &str) {
        assert_eq!(shown(kind, body.as_ref()), expect);
    }

    #[test]
    fn json_is_one_object_an_array_or_several_documents() {
        check(BodyKind::Json, r#"{"a":1}"#, r#"{"a":1}"#);
        check(BodyKind::Json, "\u{feff} [{\"a\":1}, {\"b\":2}] ", r#"{"a":1} {"b":2}"#);
        check(BodyKind::Json, "{\"a\":1}\n{\"b\":2}[{}]", r#"{"a":1} {"b":2} {}"#);
        check(BodyKind::Json, r#"{"a":1} 5 {"b":2}"#, r#"{"a":1} !not_an_object {"b":2}"#);
        check(BodyKind::Json, r#"[{"a":1}, 7]"#, r#"{"a":1} !not_an_object"#);
    }

    #[test]
    fn what_is_broken_is_rejected_and_what_was_before_it_is_not() {
        check(BodyKind::Json, "", "!empty");
        check(BodyKind::Json, "   ", "!empty");
        check(BodyKind::Json, r#"{"a":1} {"b":"#, r#"{"a":1} !invalid_json"#);
        check(BodyKind::Json, r#"[{"a":1},"#, "!invalid_json");
        check(BodyKind::Json, "hello", "!invalid_json");
        check(BodyKind::Json, b"{\"a\":\"\xff\"}", "!invalid_utf8");
    }

    #[test]
    fn lines_stand_for_themselves() {
        check(BodyKind::Lines, "{\"a\":1}\r\n\n{\"b\":\n{\"c\":3}", r#"{"a":1} !invalid_json {"c":3}"#);
        check(BodyKind::Lines, b"{\"a\":\"\xff\"}\n{}\n[1]\n", "!invalid_utf8 {} !not_an_object");
        check(BodyKind::Lines, r#"{"a":1} {"b":2}"#, "!invalid_json");
    }

    #[test]
    fn limits_hold() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(40));
        check(BodyKind::Lines, format!("{long}\n{{}}"), "!too_long {}");
        check(BodyKind::Json, "{} ".repeat(7), "{} {} {} {} {} !too_long !too_long");
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(shown(BodyKind::Json, deep.as_bytes()).starts_with('!'));
    }

    #[test]
    fn a_bomb_is_not_expanded() {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![b' '; 2 << 20]).unwrap();
        let bomb = Bytes::from(gzip.finish().unwrap());
        assert!(bomb.len() < 5_000);
        let status =
            |max| expand(bomb.clone(), Encoding::Gzip, max).map(|out| out.len()).map_err(|error| error.status());
        assert_eq!(status(1 << 20), Err(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(status(2 << 20), Ok(2 << 20));
        let cut = expand(bomb.slice(..bomb.len() - 9), Encoding::Gzip, 4 << 20);
        assert_eq!(cut.unwrap_err().status(), StatusCode::BAD_REQUEST);
    }
}
