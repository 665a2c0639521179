//! `base64offset`: a text is found in what encodes it, wherever it stands. Input: text, line feed, bytes around it.
#![no_main]

use base64::{Engine, engine::general_purpose::STANDARD};

libfuzzer_sys::fuzz_target!(|input: (&str, &[u8], &[u8])| {
    let (text, before, behind) = input;
    // What is shorter has no letter of its own in every place; wildcards cannot be encoded.
    if text.len() < 3 || text.contains(['*', '?', '\\']) {
        return;
    }
    let all = [before, text.as_bytes(), behind].concat();
    let (Some(mut scanner), Some(event)) =
        (cf_fuzz::compiled(&cf_fuzz::rule("F|base64offset|contains", text)), cf_fuzz::event(&STANDARD.encode(&all)))
    else {
        return;
    };
    assert!(!cf_fuzz::hits(&mut scanner, &event).is_empty(), "{text:?} is not found in {all:?}");
    cf_fuzz::agree(&cf_fuzz::rule("F|base64offset|contains", text), &event);
});
