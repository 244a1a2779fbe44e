//! How far a revocation has come, as the API tells it and as `postern revoke --wait` shows it.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use postern::{
    domain::{RevocationId, entry::EntryType},
    flows::upstream,
    http::{router, security::Site},
    workers::Workers,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    harness::{World, until_counted},
    shared::loopback,
};

async fn everything(world: &World) -> Value {
    let body = json!({"selector": {"all": true}, "reason": "test"});
    let answer = world
        .api()
        .post(&world.as_admin(), "/v1/revocations", &body)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn look(world: &World, id: &Value) -> Value {
    let path = format!("/v1/revocations/{}", id.as_str().unwrap());
    let answer = world.api().get(&world.as_admin(), &path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// So many grants, whose provider answers like this when it is first asked to end one.
async fn connected(grants: usize, first: &Value) -> World {
    let world = World::new().await;
    world.connect_many(grants).await;
    world.fault(first.clone()).await;
    world
}

fn down() -> Value {
    json!({"next": "revoke", "status": 503, "body": "down", "times": 1})
}

/// The same when all of them have been revoked and counted, and the receipt.
async fn counted(grants: usize, first: &Value) -> (World, Value) {
    until_counted(async || {
        let world = connected(grants, first).await;
        let id = everything(&world).await["id"].clone();
        world.counted(id.as_str().unwrap().parse().unwrap()).await?;
        let receipt = look(&world, &id).await;
        Some((world, receipt))
    })
    .await
}

#[tokio::test]
async fn progress_says_how_many_are_queued_and_how_many_have_the_last_word() {
    let (world, receipt) = counted(3, &down()).await;
    assert_eq!(receipt["counts"]["grants"], 3, "{receipt}");
    assert_eq!(receipt["upstream"]["pending"], 3, "{receipt}");
    let id = &receipt["id"];
    let progress = async || {
        let seen = look(&world, id).await;
        assert_eq!(seen["counts"], receipt["counts"]);
        (seen["progress"].clone(), seen["upstream"]["pending"].clone())
    };
    let begun = json!({"total": 3, "queued": 0, "done": 0, "remaining": 3});
    assert_eq!(progress().await, (begun, json!(3)));
    upstream::fan_out(&world.deps).await.unwrap();
    let queued = json!({"total": 3, "queued": 3, "done": 0, "remaining": 3});
    assert_eq!(progress().await, (queued, json!(3)));
    upstream::drain(&world.deps).await.unwrap();
    let asked = json!({"total": 3, "queued": 3, "done": 2, "remaining": 1});
    assert_eq!(progress().await, (asked, json!(1)));
    world.later(Duration::from_secs(10));
    upstream::drain(&world.deps).await.unwrap();
    let done = json!({"total": 3, "queued": 3, "done": 3, "remaining": 0});
    assert_eq!(progress().await, (done, json!(0)));
}

/// As while very many are counted, and as after a process died over it.
#[tokio::test]
async fn what_is_not_counted_is_unknown_and_never_nought() {
    // Counted first: whoever did it would write it down after the line below.
    let (world, receipt) = counted(2, &down()).await;
    world.raw_sql("UPDATE revocations SET counts = 'null'").await;
    let seen = look(&world, &receipt["id"]).await;
    let unknown = json!({"total": null, "queued": 0, "done": 0, "remaining": null});
    assert_eq!((&seen["counts"], &seen["progress"]), (&Value::Null, &unknown));
    assert_eq!(seen["upstream"]["pending"], Value::Null, "{seen}");
    upstream::fan_out(&world.deps).await.unwrap();
    let seen = look(&world, &receipt["id"]).await;
    let known = json!({"total": 2, "queued": 2, "done": 0, "remaining": 2});
    assert_eq!(
        (&seen["progress"], &seen["upstream"]["pending"]),
        (&known, &json!(2))
    );
}

/// The API of a deployment, behind a listener.
pub async fn served(world: &World) -> String {
    let (listener, url) = loopback::listen().await;
    let site = Site::new(&url.parse().unwrap()).unwrap();
    let app = router::app(Arc::clone(&world.deps), site);
    tokio::spawn(loopback::serve(listener, app));
    url
}

/// `postern revoke --all --wait`. Dropping it ends the process.
struct Revoking {
    child: Child,
    messages: mpsc::UnboundedReceiver<String>,
}

impl Revoking {
    async fn begin(world: &World) -> Self {
        let url = served(world).await;
        let mut child = Command::new(env!("CARGO_BIN_EXE_postern"))
            .env_clear()
            .env("POSTERN_API_KEY", &world.admin_key)
            .args(["--url", &url, "--json", "revoke", "--all"])
            .args(["--reason", "test", "--yes", "--wait"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (said, messages) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in lines {
                let _nobody = said.send(line.unwrap());
            }
        });
        Self { child, messages }
    }

    /// The same in a world like that, once it is counted what was ended.
    async fn counted(grants: usize, first: &Value) -> (World, Self) {
        until_counted(async || {
            let world = connected(grants, first).await;
            let revoking = Self::begin(&world).await;
            world.counted(revocation(&world).await).await?;
            Some((world, revoking))
        })
        .await
    }

    /// The next line of progress; what stands before it is left out, and so is what was said before it was counted.
    async fn next(&mut self) -> String {
        let wait = async {
            loop {
                let line = self.messages.recv().await.expect("it ended");
                if line.contains(" % ") && !line.contains("an unknown number") {
                    return line.trim().to_owned();
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap()
    }

    /// Its exit code.
    async fn end(&mut self) -> Option<i32> {
        for _ in 0..3000 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it waits on");
    }
}

/// The one revocation there is, as soon as it has taken effect.
async fn revocation(world: &World) -> RevocationId {
    for _ in 0..600 {
        let entries = world.entries().await;
        if let Some(revoked) = entries.iter().find(|entry| entry.kind == EntryType::Revoke) {
            return revoked.draft.correlation.as_ref().unwrap().parse().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nothing is revoked");
}

impl Drop for Revoking {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoke_waits_for_the_last_provider_and_shows_how_far_it_is() {
    let (world, mut revoking) = Revoking::counted(2, &down()).await;
    let said = |percent: u8, done: u64| {
        format!("{percent} % {done} of 2 grants ended at their providers or given up")
    };
    assert_eq!(revoking.next().await, said(0, 0));
    upstream::fan_out(&world.deps).await.unwrap();
    upstream::drain(&world.deps).await.unwrap();
    assert_eq!(revoking.next().await, said(50, 1));
    assert!(
        revoking.child.try_wait().unwrap().is_none(),
        "one is still to be asked"
    );
    world.later(Duration::from_secs(10));
    upstream::drain(&world.deps).await.unwrap();
    assert_eq!(revoking.next().await, said(100, 2));
    assert_eq!(revoking.end().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_wait_leaves_the_revocation_to_the_server() {
    let slow = json!({"next": "revoke", "delay_ms": 1500, "times": 1});
    let (world, mut revoking) = Revoking::counted(1, &slow).await;
    assert!(revoking.next().await.starts_with("0 %"));
    kill_process(Pid::from_child(&revoking.child), Signal::INT).unwrap();
    assert_eq!(revoking.end().await, Some(130));
    let mut receipt = String::new();
    let mut data = revoking.child.stdout.take().unwrap();
    data.read_to_string(&mut receipt).unwrap();
    let receipt: Value = serde_json::from_str(&receipt).unwrap();
    assert_eq!(look(&world, &receipt["id"]).await["progress"]["remaining"], 1);
    let workers = Workers::start(&world.deps);
    for _ in 0..1000 {
        if look(&world, &receipt["id"]).await["progress"]["remaining"] == 0 {
            workers.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the server never went on");
}
