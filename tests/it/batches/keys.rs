//! One idempotency key twice in a batch (I15).

use super::*;

/// The first to come with it has a decision that was spent already, and gives the key back: the second is told of no call
/// that never was, and may have it.
#[tokio::test]
async fn a_key_that_is_given_back_within_a_batch_is_free_for_who_came_with_it_as_well() {
    for (world, ours, _) in on_each_store().await {
        let gate = &world.deps.gate;
        let key = key(&world, ours, "k".to_owned());
        let (spent, first) = release(&world, ours, &key).await;
        let (decision, second) = release(&world, ours, &key).await;
        let spender = EntryId::new(world.deps.clock.now(), &*world.deps.random).unwrap();
        let claims = spent.claims();
        let spending = format!(
            "INSERT INTO spent (org_id, iss, jti, entry_id, keep_until)
             VALUES ('{}', '{}', '{}', '{spender}', {})",
            ours.caller.org,
            claims.iss,
            claims.jti,
            key.keep_until.unix_micros(),
        );
        database::raw_sql(&world.location, &spending).await;
        let entries = [first.entry.id, second.entry.id];
        let (refused, told) = tokio::join!(gate.release(spent, first), gate.release(decision, second));
        assert!(
            matches!(refused, Err(GateRefusal::Spent { entry }) if entry == spender),
            "{refused:?}"
        );
        assert!(matches!(told, Err(GateRefusal::Stale)), "{told:?}");
        for entry in entries {
            assert!(!is_written(&world, ours.caller.org, entry).await);
        }
        assert_eq!(taken_by(&world, ours.caller.org, &key).await, None);
        // Of two that may both have it, one gets it, and the other is told by whom it is taken.
        let (decision, again) = release(&world, ours, &key).await;
        let (late, too_late) = release(&world, ours, &key).await;
        let entry = again.entry.id;
        let (passed, refused) = tokio::join!(gate.release(decision, again), gate.release(late, too_late));
        assert!(passed.is_ok(), "{passed:?}");
        assert!(
            matches!(&refused, Err(GateRefusal::Taken(record)) if record.entry == entry),
            "{refused:?}"
        );
        assert_eq!(taken_by(&world, ours.caller.org, &key).await, Some(entry));
    }
}
