//! Whose turn it is: what a receiver does not take of one org holds up no other, for however long and however many.

use postern::{
    audit::sinks::{Delivery, SinkBatch, Standing},
    domain::OrgId,
    egress::Undelivered,
};

use super::*;

/// A receiver that does not take some orgs' entries, and remembers in which order it was asked and what it took.
#[derive(Debug)]
struct Choosy {
    name: &'static str,
    refused: Vec<OrgId>,
    /// With what it refuses them.
    status: u16,
    asked: Mutex<Vec<OrgId>>,
    taken: Mutex<Vec<OrgId>>,
    standing: Standing,
}

impl Choosy {
    fn new(name: &'static str, refused: Vec<OrgId>, status: u16) -> Self {
        Self {
            name,
            refused,
            status,
            asked: Mutex::default(),
            taken: Mutex::default(),
            standing: Standing::default(),
        }
    }

    /// Whom it was asked about since the last time this was asked.
    fn asked(&self) -> Vec<OrgId> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn took(&self, org: OrgId) -> bool {
        self.taken.lock().unwrap().contains(&org)
    }
}

impl Sink for Choosy {
    fn name(&self) -> &str {
        self.name
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn deliver<'a>(&'a self, batch: &'a SinkBatch) -> Delivery<'a> {
        self.asked.lock().unwrap().push(batch.org);
        let refused = self.refused.contains(&batch.org);
        Box::pin(async move {
            if refused {
                return Err(Undelivered::Status(self.status).into());
            }
            self.taken.lock().unwrap().push(batch.org);
            Ok(())
        })
    }
}

#[tokio::test]
async fn one_org_whose_entries_are_not_taken_or_are_very_many_holds_up_no_other() {
    let (world, grant) = World::connected().await;
    world.later(Duration::from_secs(1));
    let second = found::found(&world.deps, "Second", "eve@second.example")
        .await
        .unwrap();
    for _ in 0..450 {
        world.vend(world.read(grant)).await.unwrap();
    }
    for org in [world.org, second.org] {
        sequence::run(&world.deps, org).await.unwrap();
    }
    // The older id goes first: the one that is refused, or has very many.
    for (name, refused, status, before) in [
        ("refuses", Some(world.org), 413, 1),
        ("fails", Some(world.org), 500, 1),
        ("takes all", None, 200, 8),
    ] {
        let sink = Choosy::new(name, refused.into_iter().collect(), status);
        let ended = sinks::drain(&world.deps, &sink).await;
        // What is not about the entries may be over at the next look.
        assert_eq!(ended.is_err(), status == 500, "{name}: {ended:?}");
        let asked = sink.asked();
        let other = asked.iter().position(|org| *org == second.org).unwrap();
        assert_eq!(other, before, "{name}: {asked:?}");
        assert_eq!(asked.len() > 9, refused.is_none(), "{name}: {asked:?}");
        assert!(sink.took(second.org), "{name}");
    }
}

#[tokio::test]
async fn a_receiver_that_fails_is_asked_about_few_orgs_in_a_look_and_the_next_begins_behind_them() {
    let (world, _) = World::connected().await;
    let orgs = world.orgs_with_logs(6).await;
    let [first, second, third, fourth, fifth, whole] = orgs[..] else {
        panic!("{} orgs", orgs.len());
    };
    let mut sink = Choosy::new("fails", vec![first, second, third, fourth, fifth], 500);
    assert!(sinks::drain(&world.deps, &sink).await.is_err());
    assert_eq!(sink.asked(), [first, second, third]);
    assert!(sinks::drain(&world.deps, &sink).await.is_err());
    assert_eq!(sink.asked(), [fourth, fifth, whole, first]);
    assert!(sink.took(whole));
    // It mends: in order again, and nothing was skipped.
    sink.refused.clear();
    let mut taken = 0;
    for org in [first, second, third, fourth, fifth] {
        let log = audit::log_page(&world.deps, org, 0, 10_000).await.unwrap();
        taken += log.len();
    }
    assert_eq!(sinks::drain(&world.deps, &sink).await.unwrap(), taken);
    assert_eq!(sink.asked(), [second, third, fourth, fifth, first]);
    assert_eq!(sinks::drain(&world.deps, &sink).await.unwrap(), 0);
}

/// Six connections read at once over SQLite: so many are held that each of three orgs has its share, and one is left.
#[tokio::test]
async fn orgs_that_have_their_share_of_the_connections_are_no_receiver_that_fails() {
    let (world, _) = World::connected_on_sqlite().await;
    let orgs = world.orgs_with_logs(4).await;
    let mut crowds = Vec::new();
    for (org, count) in orgs.iter().zip([2, 2, 1]) {
        for _ in 0..count {
            crowds.push(world.deps.store.read(*org).await.unwrap());
        }
    }
    let sink = Choosy::new("takes all", Vec::new(), 200);
    sinks::drain(&world.deps, &sink).await.unwrap();
    assert_eq!(sink.asked(), [orgs[3]]);
    drop(crowds);
    sinks::drain(&world.deps, &sink).await.unwrap();
    assert!(orgs.iter().all(|org| sink.took(*org)));
}

#[tokio::test]
async fn a_receiver_that_was_sent_too_much_is_left_alone_for_a_while_and_then_asked_about_others_first() {
    let (world, _) = World::connected().await;
    let orgs = world.orgs_with_logs(2).await;
    let sink = Choosy::new("busy", vec![orgs[0]], 429);
    assert!(sinks::drain(&world.deps, &sink).await.is_err());
    assert_eq!(sink.asked(), [orgs[0]]);
    world.later(Duration::from_secs(9));
    assert_eq!(sinks::drain(&world.deps, &sink).await.unwrap(), 0);
    assert!(sink.asked().is_empty());
    world.later(Duration::from_secs(1));
    assert!(sinks::drain(&world.deps, &sink).await.is_err());
    assert_eq!(sink.asked(), [orgs[1], orgs[0]]);
    assert!(sink.took(orgs[1]));
}
