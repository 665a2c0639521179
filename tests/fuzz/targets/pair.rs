//! A rule of one item on a record of one field: engine and oracle agree. Input: which modifiers, the rule's value, the
//! event's value.
#![no_main]

const KEYS: [&str; 24] = [
    "F",
    "F|contains",
    "F|startswith",
    "F|endswith",
    "F|cased",
    "F|contains|cased",
    "F|neq",
    "F|windash|contains",
    "F|base64",
    "F|base64offset|contains",
    "F|wide|base64offset|contains",
    "F|utf16be|base64",
    "F|re",
    "F|re|i",
    "F|cidr",
    "F|gt",
    "F|lte",
    "F|fieldref",
    "F|fieldref|contains",
    "F|hour",
    "F|week",
    "|contains",
    "|all",
    "F|endswith|cased",
];

libfuzzer_sys::fuzz_target!(|input: (u8, &str, &str)| {
    let (key, wanted, value) = input;
    let key = KEYS[usize::from(key) % KEYS.len()];
    let rule = cf_fuzz::rule(key, wanted);
    if let Some(event) = cf_fuzz::event(value) {
        cf_fuzz::agree(&rule, &event);
    }
});
