//! Bytes of a record: no panic; JSON is taken exactly if serde_json takes it, and has the oracle's fields.
#![no_main]

use cf_oracle::{Event, Flat};
use cf_types::{Framing, RejectCode};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // As a line of any kind: only that it ends well.
    let _decoded = cf_fuzz::decoded(bytes, Framing::Record);
    let decoded = cf_fuzz::decoded(bytes, Framing::Http);
    let bare = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
    let read = serde_json::from_slice::<serde_json::Value>(bare);
    if read.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range")) {
        return; // JSON by its grammar, but beyond serde_json
    }
    let broken = |code: RejectCode| matches!(code, RejectCode::InvalidJson | RejectCode::InvalidUtf8);
    if read.is_ok() {
        assert!(!decoded.rejects.iter().any(|reject| broken(reject.code)), "JSON, but {:?}", decoded.rejects);
    } else {
        assert!(decoded.events.is_empty() && !decoded.rejects.is_empty(), "no JSON, but an event");
    }
    if let (Flat::Event(flat), [event]) = (cf_oracle::flatten(bare), decoded.events.as_slice()) {
        assert_eq!(Event::of(event).asked_for(), flat.asked_for());
    }
});
