//! A data directory that hangs: nobody waits for it without an end, and nothing is said to be done that it has not heard of.

use std::{fs::File, path::PathBuf, process::Command, sync::Arc, time::Duration};

use postern::{
    app::serve,
    flows::{Deps, Refusal, found, revoke, seal, sequence},
    store::Selector,
    workers::Workers,
};
use tokio::time::timeout;

use super::harness::{World, ending, is_held};

/// A pipe that nobody reads, in the place of the file that is to replace the one outside the database: whoever opens it for
/// writing hangs.
struct Pipe(PathBuf);

impl Drop for Pipe {
    fn drop(&mut self) {
        // Linux opens a pipe for both without waiting, and lets go on who waited for a reader.
        let _opened = File::options().read(true).write(true).open(&self.0);
        let _removed = std::fs::remove_file(&self.0);
    }
}

/// A replica whose data directory hangs over what others did, and that directory.
async fn hung(world: &World) -> (Arc<Deps>, PathBuf, Pipe) {
    let dir = world.data_dir();
    let replica = world.replica_in(&dir).await.unwrap();
    let pipe = Pipe(dir.join("checkpoints.new"));
    assert!(Command::new("mkfifo").arg(&pipe.0).status().unwrap().success());
    found::found(&world.deps, "Second", "eve@second.example")
        .await
        .unwrap();
    let kept_up = in_time(seal::keep_up(&replica)).await;
    assert!(
        matches!(kept_up, Err(Refusal::StoreUnavailable(None))),
        "{kept_up:?}"
    );
    (replica, dir, pipe)
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), work)
        .await
        .expect("it waits for the directory")
}

#[tokio::test]
async fn the_log_goes_on_while_the_data_directory_hangs() {
    let world = World::on_postgres().await;
    let (replica, _, _pipe) = hung(&world).await;
    in_time(sequence::round(&replica)).await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_and_releases_nothing_while_the_data_directory_hangs() {
    let world = World::on_postgres().await;
    let (replica, dir, pipe) = hung(&world).await;
    in_time(replica.store.flush_outside()).await.unwrap_err();
    let workers = Workers::start(&replica);
    in_time(serve::stop(&replica, workers, async {})).await;
    // What hangs may yet be written.
    let refused = world.replica_in(&dir).await;
    assert!(refused.is_err_and(|error| is_held(&error)), "it was released");
    drop(pipe);
}

#[tokio::test]
async fn what_the_directory_has_not_heard_of_is_not_said_to_be_done_and_is_there_once_it_goes_on() {
    let world = World::on_postgres().await;
    let (replica, _, pipe) = hung(&world).await;
    let ask = ending(Selector::All(true));
    let revoked = in_time(revoke::run(&replica, world.org, ask)).await;
    assert!(
        matches!(&revoked, Err(Refusal::StoreUnavailable(Some(error))) if error.is_undecided()),
        "{revoked:?}"
    );
    let mut tx = replica.store.read(world.org).await.unwrap();
    let epoch = tx.epoch(world.org).await.unwrap().unwrap();
    drop(tx);
    drop(pipe);
    in_time(async {
        while replica.store.flush_outside().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        replica.store.outside().unwrap().kept().unwrap()[&world.org].epoch,
        epoch
    );
}
