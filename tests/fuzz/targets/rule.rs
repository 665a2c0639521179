//! Rule texts: no panic, no endless work, and a rule that is taken can be scanned with.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let (Some(mut scanner), Some(event)) = (cf_fuzz::compiled(text), cf_fuzz::event("a value")) {
        let _hits = cf_fuzz::hits(&mut scanner, &event);
    }
});
