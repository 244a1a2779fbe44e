//! Page × tenant: what belongs to another org, or to another person of one's own, is not told apart from nothing.

use postern::http::pages::{Audience, TABLE};

use super::{Ids, Ours, other_people, pages, place};
use crate::harness::Member;

/// The other tenant's people, and a member of our own.
async fn strangers(ours: &Ours) -> Vec<Member> {
    let mut found = other_people(&ours.world).await;
    found.push(Member {
        name: "own member",
        is: &["user"],
        proof: ours.ben().await,
    });
    found
}

#[tokio::test]
async fn ids_of_others_are_answered_as_ids_of_nothing() {
    let ours = Ours::new().await;
    let (strangers, before) = (strangers(&ours).await, ours.state().await);
    let mut asked = 0;
    for line in pages(&[Audience::Person, Audience::Admin]) {
        // These take no id, and give or end what is the caller's.
        if matches!(line.path, "/logout" | "/connections/connect") {
            continue;
        }
        for stranger in &strangers {
            let theirs = ours.ask(&stranger.proof, line, &ours.ids).await;
            let nothing = ours.ask(&stranger.proof, line, &Ids::absent()).await;
            let place = place(line, stranger.name);
            let has_id = line.path.contains("{id}") || line.method == "post";
            if has_id {
                assert!(theirs.status >= 400, "{place}: {}", theirs.text());
                asked += 1;
            }
            assert_eq!(theirs, nothing, "{place}");
            if stranger.name != "own member" {
                ours.assert_silent(&theirs, &place);
            }
        }
    }
    assert!(asked > 30, "only {asked} questions: the matrix is too small");
    assert_eq!(ours.state().await, before);
}

#[tokio::test]
async fn a_link_is_of_no_use_to_whoever_is_signed_in_as_somebody_else() {
    let ours = Ours::new().await;
    let (strangers, before) = (strangers(&ours).await, ours.state().await);
    for line in pages(&[Audience::Link, Audience::Provider]) {
        for stranger in &strangers {
            let answer = ours.ask(&stranger.proof, line, &ours.ids).await;
            let place = place(line, stranger.name);
            let expected = if line.method == "head" { 404 } else { 403 };
            assert_eq!(answer.status, expected, "{place}: {}", answer.text());
            if stranger.name != "own member" {
                ours.assert_silent(&answer, &place);
            }
        }
    }
    assert_eq!(ours.state().await, before);
    ours.assert_links_work().await;
}

#[tokio::test]
async fn no_page_of_another_tenant_shows_anything_of_ours() {
    let ours = Ours::new().await;
    let (api, ada) = (ours.world.api(), ours.ada().await);
    let others = other_people(&ours.world).await;
    let Ids {
        agent, user, entry, ..
    } = &ours.ids;
    let mut paths: Vec<String> = TABLE
        .iter()
        .filter(|line| line.method == "get" && !line.path.contains('{'))
        .map(|line| line.path.to_owned())
        .collect();
    paths.extend([
        format!("/activity?user={user}"),
        format!("/activity?agent={agent}"),
        format!("/activity?before={entry}"),
    ]);
    let mut shown_to_us = String::new();
    for path in paths {
        shown_to_us.push_str(&api.get(&ada, &path).await.text());
        for other in &others {
            let answer = api.get(&other.proof, &path).await;
            // A marker in the query is what they wrote themselves.
            ours.assert_silent(&answer, &format!("{path} as {}", other.name));
        }
    }
    for marker in [agent, user, entry, "@acme.example", &ours.ids.grant] {
        assert!(
            shown_to_us.contains(marker),
            "the control failed: our pages lack {marker}"
        );
    }
}
