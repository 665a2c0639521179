//! What erasure takes out of the control log is gone from the disk, or it is said that it is not.

use super::{LedgerError, World, connection, in_postgres, wall};
use crate::{control::FOUND, database};

const SECRET: &str = "somebody-who-wants-to-be-forgotten";

/// Whether some file of the ledger has the words.
fn on_disk(world: &World) -> bool {
    let files = std::fs::read_dir(world.dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.is_file()).collect();
    files.iter().any(|path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
    })
}

#[tokio::test]
async fn who_reads_keeps_what_is_erased_on_the_disk_and_that_is_said() {
    if in_postgres() {
        return; // there the server keeps the files
    }
    let world = World::new().await;
    let body = format!("{{\"found\":[\"{SECRET}\"]}}");
    world.ledger.control_append(FOUND[1], &body, "me", "why", wall(1)).await.unwrap();
    assert!(on_disk(&world));

    let mut reader = connection(world.dir.path()).await;
    reader.run("BEGIN").await.unwrap();
    let seen: i64 = database::query_scalar("SELECT count(*) FROM control").fetch_one(&mut reader).await.unwrap();
    assert!(seen > 0);
    let mut without = |entry: &crate::ControlEntry| entry.body.contains(SECRET).then(|| "{\"found\":[]}".to_owned());
    let erased = world.ledger.control_erase(&mut without).await;
    assert!(matches!(erased, Err(LedgerError::Unswept { .. })), "{erased:?}");
    assert!(on_disk(&world), "the test would show nothing");
    reader.run("COMMIT").await.unwrap();

    // Nothing is left to change; what was left to sweep is swept.
    assert_eq!(world.ledger.control_erase(&mut without).await.unwrap(), 0);
    assert!(!on_disk(&world));
}
