use expect_test::{Expect, expect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;

/// Everything.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Worker threads.
    workers: u16,
    /// The way in.
    ingest: Ingest,
    sources: Vec<Source>,
}

/// Ingest.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Ingest {
    /// Longest record, in bytes.
    record_bytes_max: u64,
    api_token: Option<String>,
}

impl Default for Ingest {
    fn default() -> Ingest {
        Ingest { record_bytes_max: 1024, api_token: None }
    }
}

/// A source.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Source {
    /// Its name.
    name: String,
}

const FOREIGN: &[Foreign] = &[
    Foreign { path: "redis.*", says: "there is no Redis here" },
    Foreign { path: "app.name", says: "the name is fixed" },
];

#[track_caller]
fn check(text: &str, expect: Expect) {
    let look_up = |asked: &Lookup| match asked {
        Lookup::Environment(name) => (name == "WORKERS").then(|| "8".to_owned()),
        Lookup::File(path) => (path == "/token").then(|| "t0k".to_owned()),
    };
    let flags = [("ingest.record_bytes_max", Value::from(2048))];
    let flags = if text.contains("# flag") { &flags[..] } else { &[] };
    let shown = match load::<Settings>(Some(("c.yaml", text)), flags, FOREIGN, &look_up) {
        Ok(loaded) => {
            let settings = loaded.show().into_iter().map(|s| format!("{} = {} ({:?})", s.path, s.value, s.origin));
            loaded.warnings.iter().map(|w| format!("warning: {w}")).chain(settings).collect::<Vec<_>>().join("\n")
        }
        Err(error) => error.to_string(),
    };
    expect.assert_eq(&shown);
}

#[test]
fn every_value_says_where_it_comes_from() {
    check(
        "workers: ${WORKERS}\ningest: # flag\n  api_token: \"${file:/token}\"\nsources:\n  - name: a\n",
        expect![[r#"
            workers = 8 (Environment { line: 1 })
            ingest.record_bytes_max = 2048 (Flag)
            ingest.api_token = *** (Environment { line: 3 })
            sources.0.name = "a" (File { line: 5 })"#]],
    );
}

#[test]
fn unknown_keys_are_errors_with_line_and_suggestion() {
    check(
        "worker: 1\ningest:\n  record_byte_max: 3\nsources:\n  - nme: a\nzzzzzzzzzz: 1\n",
        expect![[r#"
            settings c.yaml are not valid:
              line 1: unknown key "worker"; did you mean "workers"?
              line 3: unknown key "record_byte_max" in ingest; did you mean "record_bytes_max"?
              line 5: unknown key "nme" in sources.0; did you mean "name"?
              line 6: unknown key "zzzzzzzzzz"; known here: workers, ingest, sources"#]],
    );
}

#[test]
fn wrong_types_are_errors_with_line() {
    check(
        "ingest:\n  record_bytes_max: many\n",
        expect![[r#"
            settings c.yaml are not valid:
              line 2: ingest.record_bytes_max: invalid type: string "many", expected u64"#]],
    );
    check(
        "ingest: 3\n",
        expect![[r#"
            settings c.yaml are not valid:
              line 1: ingest: invalid type: integer `3`, expected struct Ingest"#]],
    );
}

#[test]
fn what_is_not_set_is_an_error() {
    check(
        "workers: ${NOPE}\n",
        expect![[r#"
            settings c.yaml are not valid:
              line 1: environment variable "NOPE" is not set; set it or write the value"#]],
    );
}

#[test]
fn foreign_keys_are_one_warning_each() {
    check(
        "app:\n  name: x\nredis:\n  host: h\n  port: 1\n",
        expect![[r#"
            warning: line 2: app.name has no effect: the name is fixed
            warning: line 4: redis.host has no effect: there is no Redis here
            warning: line 5: redis.port has no effect: there is no Redis here
            workers = 0 (Default)
            ingest.record_bytes_max = 1024 (Default)
            ingest.api_token = null (Default)
            sources = [] (Default)"#]],
    );
}

#[test]
fn the_template_is_made_of_the_doc_comments_and_loads() {
    let text = template::<Settings>();
    expect![[r#"
        # Settings of Counterflow. Every key is optional; what stands here is the default.

        # Worker threads.
        # workers: 0

        # The way in.
        ingest:

          # Longest record, in bytes.
          # record_bytes_max: 1024

          # api_token: null

        # sources: []
        #   each element:
        #     name: Its name.
    "#]]
    .assert_eq(&text);
    assert!(load::<Settings>(Some(("t", &text)), &[], &[], &|_| None).is_ok());
}

#[test]
fn hostile_files_are_refused() {
    let bomb = format!("a: &a [x]\n{}", (0..40).map(|i| format!("b{i}: &b{i} [*a,*a,*a,*a]\n")).collect::<String>());
    for text in ["[1]", "a: [", "\u{0}", &"[".repeat(100_000), &bomb] {
        assert!(load::<Settings>(Some(("t", text)), &[], &[], &|_| None).is_err());
    }
}

/// A section of the template is all comment, and long.
#[test]
fn comments_may_be_long() {
    let comment = "  # a line of it\n".repeat(5_000);
    let text = format!("ingest:\n{comment}\nworkers:\n{comment}  3\n");
    let node = node::parse(&text).unwrap();
    assert_eq!(node.to_value(), serde_json::json!({"ingest": null, "workers": 3}));
}
