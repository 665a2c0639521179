//! Cutting the body of `POST /api/v1/events` into records: one object, an array of them, or JSON lines.

use bytes::Bytes;
use cf_types::RejectCode;

use crate::decode::{element_spans, is_json};

/// What the request's `Content-Type` says the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// `application/json`: one object or an array of objects.
    Json,
    /// `application/x-ndjson`: one object per line.
    Lines,
}

/// Bounds of one body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Bytes of the longest record.
    pub record_bytes_max: usize,
    /// Records of one body; those beyond it are refused one by one.
    pub records_max: usize,
}

impl Default for BodyLimits {
    fn default() -> BodyLimits {
        BodyLimits { record_bytes_max: 1 << 20, records_max: 100_000 }
    }
}

/// A part of a body that is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyReject {
    /// Which of the body's records, from 0.
    pub index: usize,
    /// Why.
    pub code: RejectCode,
    /// What exactly, in a sentence for people.
    pub reason: String,
    /// The part, for the rejects; the whole body when it could not be cut.
    pub raw: Bytes,
}

/// Cuts a body into records, in order. Whether a record decodes is the decoder's matter; here it is an object (begins
/// with a brace) within the limits, or rejected. Empty lines are nothing.
#[must_use]
pub fn split_body(kind: BodyKind, body: &Bytes, limits: &BodyLimits) -> Vec<Result<Bytes, BodyReject>> {
    let parts = match kind {
        BodyKind::Lines => lines(body),
        BodyKind::Json => match document(body) {
            Ok(parts) => parts,
            Err(reject) => return vec![Err(reject)],
        },
    };
    parts.into_iter().enumerate().map(|(index, part)| check(index, part, limits)).collect()
}

fn lines(body: &Bytes) -> Vec<Bytes> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty()).map(|line| body.slice_ref(line)).collect()
}

fn document(body: &Bytes) -> Result<Vec<Bytes>, BodyReject> {
    let whole = body.slice_ref(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii());
    let refuse = |code, reason: String| BodyReject { index: 0, code, reason, raw: whole.clone() };
    match whole.first() {
        None => Err(refuse(RejectCode::Empty, "the body is empty".to_owned())),
        Some(b'[') => {
            // An array that is broken anywhere is refused whole: where its elements end cannot be known.
            let spans = element_spans(&whole).map_err(|(code, reason)| refuse(code, reason))?;
            Ok(spans.into_iter().map(|span| whole.slice(span)).collect())
        }
        Some(_) => Ok(vec![whole]),
    }
}

fn check(index: usize, part: Bytes, limits: &BodyLimits) -> Result<Bytes, BodyReject> {
    let refuse = |code, reason: String, raw: Bytes| Err(BodyReject { index, code, reason, raw });
    if index >= limits.records_max {
        return refuse(RejectCode::TooLong, format!("a body may hold {} records", limits.records_max), part);
    }
    if part.len() > limits.record_bytes_max {
        return refuse(RejectCode::TooLong, format!("longer than {} bytes", limits.record_bytes_max), part);
    }
    if part.first() != Some(&b'{') {
        return match is_json(&part) {
            Ok(()) => refuse(RejectCode::NotAnObject, "an event must be a JSON object".to_owned(), part),
            Err((code, reason)) => refuse(code, reason, part),
        };
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(kind: BodyKind, body: &str, expect: Expect) {
        let limits = BodyLimits { record_bytes_max: 20, records_max: 3 };
        let parts = split_body(kind, &Bytes::copy_from_slice(body.as_bytes()), &limits);
        let shown: String = parts
            .iter()
            .map(|part| match part {
                Ok(bytes) => format!("{}\n", String::from_utf8_lossy(bytes)),
                Err(reject) => format!("{} {}: {}\n", reject.index, reject.code.as_str(), reject.reason),
            })
            .collect();
        expect.assert_eq(&shown);
    }

    #[test]
    fn one_object_or_an_array() {
        check(
            BodyKind::Json,
            " {\"a\":\n1}\n",
            expect![[r#"
            {"a":
            1}
        "#]],
        );
        check(
            BodyKind::Json,
            "[{\"a\":\"]\"}, {\"b\":[1,{}]},3,{}]",
            expect![[r#"
            {"a":"]"}
            {"b":[1,{}]}
            2 not_an_object: an event must be a JSON object
            3 too_long: a body may hold 3 records
        "#]],
        );
        check(BodyKind::Json, "[]", expect![[""]]);
        check(
            BodyKind::Json,
            " ",
            expect![[r#"
            0 empty: the body is empty
        "#]],
        );
        check(
            BodyKind::Json,
            "[{\"a\":1}",
            expect![[r#"
            0 invalid_json: not valid JSON: EOF while parsing a list at line 1 column 8
        "#]],
        );
        check(
            BodyKind::Json,
            "7",
            expect![[r#"
            0 not_an_object: an event must be a JSON object
        "#]],
        );
        check(
            BodyKind::Json,
            "x",
            expect![[r#"
            0 invalid_json: not valid JSON: expected value at line 1 column 1
        "#]],
        );
    }

    #[test]
    fn lines_of_json() {
        check(
            BodyKind::Lines,
            "{\"a\":1}\r\n\n[1]\n{\"a\":\"too long for this\"}\n{}",
            expect![[r#"
            {"a":1}
            1 not_an_object: an event must be a JSON object
            2 too_long: longer than 20 bytes
            3 too_long: a body may hold 3 records
        "#]],
        );
    }
}
