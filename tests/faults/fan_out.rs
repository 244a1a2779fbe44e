//! I2: `kill -9` while what follows a revocation is done. Nothing is released meanwhile, the next process goes on, and the
//! provider is asked again only where its answer was lost.

use std::{collections::HashSet, time::Duration};

use postern::failpoints::Failpoint;

use crate::{provider::Rotation, server::Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_in_a_fan_out_the_next_process_ends_every_token() {
    for (place, calls) in [
        (Failpoint::FanOutBurying, 2),
        (Failpoint::FanOutBuried, 2),
        // Both tokens were ended, and nobody knows.
        (Failpoint::UpstreamAnswered, 4),
    ] {
        let mut server = Server::connected(Rotation::Grace).await;
        server.order(place, "kill");
        // The workers may be quicker than the answer.
        let _answer = server.revoke_all().await;
        server.until_dead().await;
        assert!(server.was_reached(), "{place:?}");
        if place == Failpoint::UpstreamAnswered {
            server.claims_end().await;
        }
        server.start_again().await;
        let refused = server.read().await;
        assert!(
            refused.as_ref().is_some_and(|(status, _)| *status != 200),
            "{place:?}: {refused:?}"
        );
        let entries = server.entries().await;
        let entry = entries.iter().find(|entry| entry["type"] == "revoke").unwrap();
        let id = entry["correlation"].as_str().unwrap().to_owned();
        let mut seen = server.revocation(&id).await;
        for _ in 0..600 {
            if seen["progress"]["remaining"] == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            seen = server.revocation(&id).await;
        }
        assert_eq!(seen["upstream"]["revoked"], 1, "{place:?}: {seen}");
        let asked = server.asked_to_end().await;
        let tokens: HashSet<String> = asked.iter().map(ToString::to_string).collect();
        assert_eq!((asked.len(), tokens.len()), (calls, 2), "{place:?}: {asked:?}");
    }
}
