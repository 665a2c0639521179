//! A runaway query is stopped at its limit, and harms nothing else.

use std::time::Duration;

use super::*;

fn limited(case: &Case, options: Options) -> Session {
    Session::open(case._dir.path(), options).unwrap()
}

/// Answers well after something went wrong.
#[track_caller]
fn still_answers(session: &Session) {
    assert_eq!(run(session, "SELECT count(*) AS n FROM events", Format::Json).unwrap(), "{\"n\":7}\n");
}

#[test]
fn queries_without_end_are_stopped() {
    let case = Case::new();
    let session = limited(&case, Options { time_max: Some(Duration::from_secs(2)), ..Options::default() });
    for endless in [
        "SELECT count(*) FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b",
        "SELECT sum(a.value * b.value) FROM generate_series(1, 10000000) a JOIN generate_series(1, 10000000) b ON a.value % 7 < b.value % 3",
        "SELECT a.value FROM generate_series(1, 100000000) a WHERE regexp_like(repeat('a', 1000) || a.value, '(a+)+b')",
    ] {
        let error = run(&session, endless, Format::Json).unwrap_err();
        assert!(matches!(error, QueryError::TooSlow { seconds: 2 } | QueryError::Memory { .. }), "{endless}: {error}");
        still_answers(&session);
    }
    let recursion = "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t";
    let error = run(&session, recursion, Format::Json).unwrap_err();
    assert!(error.to_string().contains("ecursive"), "{error}");
}

#[test]
fn answers_are_not_longer_than_allowed() {
    let case = Case::new();
    let session = limited(&case, Options { rows_max: Some(1_000), ..Options::default() });
    assert!(run(&session, "SELECT value FROM generate_series(1, 1000)", Format::Csv).is_ok());
    let error = run(&session, "SELECT value FROM generate_series(1, 1001)", Format::Csv).unwrap_err();
    assert!(matches!(error, QueryError::TooManyRows { max: 1_000 }), "{error}");
    assert!(run(&session, "SELECT count(*) FROM generate_series(1, 100000)", Format::Csv).is_ok());
    still_answers(&session);
}

#[test]
fn more_queries_than_allowed_wait() {
    let case = Case::new();
    let session =
        limited(&case, Options { queries_max: 1, time_max: Some(Duration::from_secs(2)), ..Options::default() });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let held = session.query("SELECT value FROM generate_series(1, 100000)").await.unwrap();
        let refused = session.query("SELECT 1").await.unwrap_err();
        assert!(matches!(refused, QueryError::Busy), "{refused}");
        drop(held);
        assert!(session.query("SELECT 1").await.is_ok());
    });
}

/// On a stack as those threads have that plan.
#[test]
fn monstrous_statements_are_refused_or_answered() {
    std::thread::Builder::new().stack_size(16 << 20).spawn(monstrous_statements).unwrap().join().unwrap();
}

fn monstrous_statements() {
    let case = Case::new();
    let session = limited(&case, Options { time_max: Some(Duration::from_secs(20)), ..Options::default() });
    let list = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
    let sql = format!("SELECT count(*) AS n FROM events WHERE line IN ({})", list(2_000));
    assert_eq!(run(&session, &sql, Format::Json).unwrap(), "{\"n\":7}\n");
    let chain = |part: &str, n: usize| format!("SELECT 1 {}", part.repeat(n));
    let select = "SELECT 1 UNION ALL ".repeat(2_000) + "SELECT 1";
    let tables = format!("SELECT 1 FROM {}", vec!["epochs"; 1_000].join(","));
    for (what, sql) in [
        ("sum", chain("+1", 400_000)),
        ("or", format!("SELECT 1 WHERE true {}", "OR true ".repeat(100_000))),
        ("cast", chain("::int", 100_000)),
        ("is null", chain("IS NULL ", 80_000)),
        ("not", format!("SELECT {} true", "NOT ".repeat(200_000))),
        ("minus", format!("SELECT {}1", "- ".repeat(400_000))),
        ("parentheses", format!("SELECT {}1{}", "(".repeat(400_000), ")".repeat(400_000))),
        ("array", format!("SELECT {}1{}", "[".repeat(400_000), "]".repeat(400_000))),
        ("case", format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(20_000), " END".repeat(20_000))),
        ("function", format!("SELECT {}1{}", "abs(".repeat(100_000), ")".repeat(100_000))),
        ("list", format!("SELECT count(*) AS n FROM events WHERE line IN ({})", list(100_000))),
        ("union", select),
        ("tables", tables),
        ("subqueries", format!("SELECT * FROM {}events{}", "(SELECT * FROM ".repeat(5_000), ")".repeat(5_000))),
        ("megabytes", format!("SELECT '{}'", "x".repeat(2 << 20))),
        ("quote", format!("SELECT '{}", "x".repeat(100_000))),
    ] {
        let answer = run(&session, &sql, Format::Json);
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
    // As long as is allowed: it is planned, and run.
    assert!(run(&session, &chain("+1", 2_000), Format::Json).is_ok());
    still_answers(&session);
}

#[test]
fn a_greedy_query_leaves_others_their_memory() {
    let case = Case::new();
    let options = Options {
        memory_bytes: 32 << 20,
        spill_bytes: 1 << 20,
        time_max: Some(Duration::from_secs(30)),
        ..Options::default()
    };
    let session = limited(&case, options);
    for greedy in [
        "SELECT count(DISTINCT value) FROM generate_series(1, 50000000)",
        "SELECT array_agg(repeat('x', 1000)) FROM generate_series(1, 200000)",
        "SELECT value, row_number() OVER (ORDER BY value % 1000) FROM generate_series(1, 50000000)",
        "SELECT a.value FROM generate_series(1, 20000000) a JOIN generate_series(1, 20000000) b USING (value)",
    ] {
        let error = run(&session, &format!("SELECT count(*) FROM ({greedy})"), Format::Json);
        if let Err(error) = error {
            assert!(
                matches!(error, QueryError::Memory { .. } | QueryError::TooSlow { .. } | QueryError::Sql(_)),
                "{greedy}: {error}"
            );
        }
        still_answers(&session);
    }
}
