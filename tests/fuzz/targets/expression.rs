//! Regular expressions: the matcher says what the `regex` crate says. Input: expression, line feed, value.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Some((expression, value)) = text.split_once('\n') else { return };
    for (key, i, m, s) in
        [("F|re", false, false, false), ("F|re|i", true, false, false), ("F|re|m|s", false, true, true)]
    {
        let mut builder = regex::RegexBuilder::new(expression);
        let built = builder.case_insensitive(i).multi_line(m).dot_matches_new_line(s).size_limit(1 << 20).build();
        let scanner = cf_fuzz::compiled(&cf_fuzz::rule(key, expression));
        if let (Ok(regex), Some(mut scanner), Some(event)) = (built, scanner, cf_fuzz::event(value)) {
            let met = !cf_fuzz::hits(&mut scanner, &event).is_empty();
            assert_eq!(met, regex.is_match(value), "{expression:?} on {value:?}");
        }
    }
});
