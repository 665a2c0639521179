//! Hunts in the ledger: each row once, forgotten behind the horizon, runs that failed.

use cf_types::{Detection, EventId, Member, Position, Tenant, Time};
use serde_json::json;

use super::{folder, wall};
use crate::{ControlLog, HuntRow, HuntRun, HuntState, Ledger, Reader, control, hunts};

fn row(id: u8, second: i64) -> HuntRow {
    let member = Member {
        time: Time::from_seconds(second),
        id: EventId([id; 16]),
        declared_id: None,
        position: Position::default(),
    };
    let detection = Detection {
        tenant: Tenant::default(),
        rule: "h".into(),
        member,
        source: "hunt".into(),
        entities: Vec::new(),
        items: Vec::new(),
    };
    HuntRow { detection, row: json!({ "id": id }) }
}

fn run(at: u64) -> HuntRun {
    HuntRun { hunt: "h".to_owned(), version: "1".to_owned(), at: wall(at), ..HuntRun::default() }
}

/// Ids and seconds of rows that a run finds, the horizon; how many were new and how many behind it.
async fn check(log: &mut ControlLog, rows: &[(u8, i64)], horizon: i64, expect: (u64, u64)) {
    let rows: Vec<HuntRow> = rows.iter().map(|(id, second)| row(*id, *second)).collect();
    let (run, new) = log.hunt_ran(run(1), rows, Some(Time::from_seconds(horizon))).await.unwrap();
    assert_eq!((run.new, run.behind), expect);
    assert_eq!(u64::try_from(new.len()).unwrap(), run.new);
}

#[tokio::test]
async fn a_row_is_new_once_until_its_time_lies_behind_the_horizon() {
    let dir = folder().await;
    drop(Ledger::open(dir.path()).await.unwrap());
    let mut log = ControlLog::open(dir.path()).await.unwrap();
    check(&mut log, &[(1, 100), (2, 110), (1, 120)], 0, (2, 0)).await;
    check(&mut log, &[(1, 100), (2, 115)], 50, (0, 0)).await;
    // Opened anew, as after a kill.
    drop(log);
    let mut log = ControlLog::open(dir.path()).await.unwrap();
    check(&mut log, &[(1, 130), (3, 90), (4, 40)], 100, (0, 2)).await;
    // 1 was found at 100: forgotten now, and new at its new time. 2 is known still.
    check(&mut log, &[(1, 130), (2, 130)], 101, (1, 0)).await;
    let reader = Reader::open(dir.path()).await.unwrap();
    let found = reader.hunt_rows("h", 10).await.unwrap();
    assert_eq!(found.iter().map(|row| row.row["id"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 1, 2]);
    // What enters the graph is what the entries say.
    let entries = reader.control_since(0).await.unwrap();
    let seconds: Vec<i64> =
        entries.iter().flat_map(|entry| hunts::found(entry).unwrap()).map(|found| found.member.time.cell()).collect();
    assert_eq!(seconds, [100, 110, 130]);
    assert!(entries.iter().all(|entry| entry.kind == hunts::HUNT_FOUND && entry.kind != control::RULE));
    assert_eq!(reader.hunt_rows("other", 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_run_that_failed_is_counted_and_leaves_the_last_good_one() {
    let dir = folder().await;
    drop(Ledger::open(dir.path()).await.unwrap());
    let mut log = ControlLog::open(dir.path()).await.unwrap();
    assert_eq!(log.hunt_state("h").await.unwrap(), None);
    log.hunt_ran(run(1), Vec::new(), None).await.unwrap();
    let failed = || HuntRun { code: Some("time_limit".to_owned()), ..run(2) };
    log.hunt_ran(failed(), Vec::new(), None).await.unwrap();
    log.hunt_ran(failed(), Vec::new(), None).await.unwrap();
    let HuntState { last, done } = log.hunt_state("h").await.unwrap().unwrap();
    assert_eq!((last.failures, last.at, done.unwrap().at), (2, wall(2), wall(1)));
    log.hunt_ran(run(3), Vec::new(), None).await.unwrap();
    let states = Reader::open(dir.path()).await.unwrap().hunts().await.unwrap();
    assert_eq!(states.iter().map(|state| (state.last.failures, state.last.at)).collect::<Vec<_>>(), [(0, wall(3))]);
}

/// A folder that an engine of before has left has no tables for hunts.
#[tokio::test]
async fn a_ledger_of_before_opens() {
    if super::in_postgres() {
        return; // there was none
    }
    let dir = folder().await;
    drop(Ledger::open(dir.path()).await.unwrap());
    {
        let mut connection = super::connection(dir.path()).await;
        connection.run("DROP TABLE hunt_rows; DROP TABLE hunt_runs").await.unwrap();
    }
    assert_eq!(Reader::open(dir.path()).await.unwrap().hunts().await.unwrap(), []);
    let mut log = ControlLog::open(dir.path()).await.unwrap();
    let (run, _) = log.hunt_ran(run(1), vec![row(1, 5)], None).await.unwrap();
    assert_eq!(run.new, 1);
}
