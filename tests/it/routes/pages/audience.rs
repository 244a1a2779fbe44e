//! Whom a page answers, and that everybody else gets one answer whatever its address holds.

use postern::http::pages::{Audience, TABLE};

use super::{Ids, Ours, no_people, pages, place};
use crate::harness::{Answer, Proof};

#[test]
fn every_audience_has_its_pages() {
    let count = |audience| pages(&[audience]).len();
    let found = [
        Audience::Everybody,
        Audience::Link,
        Audience::Provider,
        Audience::Person,
        Audience::Admin,
    ]
    .map(count);
    assert!(found.iter().all(|count| *count >= 2), "{found:?}");
    assert_eq!(found.iter().sum::<usize>(), TABLE.len());
}

#[tokio::test]
async fn nobody_and_no_key_reaches_a_page_of_people() {
    let ours = Ours::new().await;
    let before = ours.state().await;
    let mut first: Option<Answer> = None;
    for line in pages(&[Audience::Person, Audience::Admin]) {
        for caller in no_people(&ours.world) {
            let answer = ours.ask(&caller.proof, line, &ours.ids).await;
            let place = place(line, caller.name);
            assert_eq!(answer.status, 401, "{place}: {}", answer.text());
            let first = first.get_or_insert_with(|| answer.clone());
            assert_eq!(&answer, first, "{place}");
        }
    }
    ours.assert_silent(&first.unwrap(), "the answer to nobody");
    assert_eq!(ours.state().await, before);
}

#[tokio::test]
async fn a_key_opens_no_more_of_a_link_than_nobody_does() {
    let ours = Ours::new().await;
    let before = ours.state().await;
    for line in pages(&[Audience::Link, Audience::Provider]) {
        let nobody = ours.ask(&Proof::Nothing, line, &ours.ids).await;
        // Whom a login link signs in is for whoever has the link.
        if !line.path.starts_with("/login/") {
            ours.assert_silent(&nobody, &place(line, "nobody"));
            assert!(nobody.status >= 400, "{}: {}", line.path, nobody.text());
        }
        // The browser that went out, with no session: what a key in the place of one is compared with.
        let browser = Proof::Session("x".to_owned());
        let browser = ours.ask(&browser, line, &ours.ids).await;
        for caller in no_people(&ours.world) {
            let answer = ours.ask(&caller.proof, line, &ours.ids).await;
            let same = match caller.proof {
                Proof::Session(_) => &browser,
                _ => &nobody,
            };
            assert_eq!(&answer, same, "{}", place(line, caller.name));
        }
    }
    assert_eq!(ours.state().await, before);
    ours.assert_links_work().await;
}

#[tokio::test]
async fn a_page_for_everybody_says_nothing_of_anybody() {
    let ours = Ours::new().await;
    for line in pages(&[Audience::Everybody]) {
        for caller in no_people(&ours.world) {
            let answer = ours.ask(&caller.proof, line, &ours.ids).await;
            let place = place(line, caller.name);
            assert!(answer.status < 400, "{place}: {}", answer.text());
            ours.assert_silent(&answer, &place);
        }
    }
}

#[tokio::test]
async fn a_member_gets_one_answer_from_every_page_of_admins() {
    let ours = Ours::new().await;
    let (ben, before) = (ours.ben().await, ours.state().await);
    let mut first: Option<Answer> = None;
    for line in pages(&[Audience::Admin]) {
        for ids in [&ours.ids, &Ids::absent()] {
            let answer = ours.ask(&ben, line, ids).await;
            let place = place(line, "member");
            assert_eq!(answer.status, 403, "{place}: {}", answer.text());
            let first = first.get_or_insert_with(|| answer.clone());
            assert_eq!(&answer, first, "{place}");
        }
    }
    assert_eq!(ours.state().await, before);
}

#[tokio::test]
async fn whom_a_page_is_for_is_let_in() {
    let ours = Ours::new().await;
    let ada = ours.ada().await;
    let (reads, changes): (Vec<_>, Vec<_>) = pages(&[Audience::Person, Audience::Admin])
        .into_iter()
        .partition(|line| line.method == "get");
    for line in reads {
        let answer = ours.ask(&ada, line, &ours.ids).await;
        assert_eq!(answer.status, 200, "{}: {}", place(line, "Ada"), answer.text());
    }
    // Each ends what the next one would need.
    for line in changes {
        let ours = Ours::new().await;
        let ada = ours.ada().await;
        let before = ours.state().await;
        let answer = ours.ask(&ada, line, &ours.ids).await;
        let place = place(line, "Ada");
        assert!(matches!(answer.status, 200 | 303), "{place}: {}", answer.text());
        // What changes nothing an admin sees: a dry run, a link's beginning.
        let silent = [
            "/admin/revoke/preview",
            "/connections/connect",
            "/connections/{id}/reconnect",
        ];
        assert_eq!(
            ours.state().await == before,
            silent.contains(&line.path),
            "{place}"
        );
    }
    ours.assert_links_work().await;
}

#[tokio::test]
async fn a_callback_is_run_by_no_other_method() {
    let ours = Ours::new().await;
    let (ada, before) = (ours.ada().await, ours.state().await);
    let head = pages(&[Audience::Provider]);
    let head = head.iter().find(|line| line.method == "head").unwrap();
    let answer = ours.ask(&ada, head, &ours.ids).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(ours.state().await, before);
    ours.assert_links_work().await;
}
