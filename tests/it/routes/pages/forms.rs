//! A form does something only if it comes from a page of ours, in the hands of the person the page was made for.

use postern::http::pages::Line;

use super::{FORM, Ours, TABLE, csrf, form, place};
use crate::harness::{Answer, Proof};

fn posts() -> Vec<&'static Line> {
    let found: Vec<_> = TABLE.iter().filter(|line| line.method == "post").collect();
    assert!(found.len() >= 12, "only {} forms", found.len());
    found
}

fn assert_refused(line: &Line, how: &str, answer: &Answer) {
    assert_eq!(answer.status, 403, "{}: {}", place(line, how), answer.text());
    assert!(answer.headers.get("set-cookie").is_none(), "{}", place(line, how));
}

#[tokio::test]
async fn a_form_without_its_own_token_changes_nothing() {
    let ours = Ours::new().await;
    let ada = ours.ada().await;
    let again = csrf(&ours.world, &ours.ada().await).await;
    let bens = csrf(&ours.world, &ours.ben().await).await;
    assert!(!again.is_empty() && !bens.is_empty());
    let before = ours.state().await;
    let none = String::new();
    for line in posts() {
        for (how, token) in [
            ("Ada without a token", &none),
            ("Ada with the token of another session of hers", &again),
            ("Ada with Ben's token", &bens),
        ] {
            let answer = ours.ask_with(&ada, line, &ours.ids, token).await;
            assert_refused(line, how, &answer);
        }
    }
    assert_eq!(ours.state().await, before);
    ours.assert_links_work().await;
}

#[tokio::test]
async fn a_form_sent_by_a_page_of_somebody_else_changes_nothing() {
    let ours = Ours::new().await;
    let (ada, before) = (ours.ada().await, ours.state().await);
    // SECURITY: with everything else right, so that it is the origin alone that is refused.
    let token = csrf(&ours.world, &ada).await;
    let Proof::Session(session) = &ada else { panic!() };
    for line in posts() {
        let request = ours.request(line, &ours.ids);
        let body = form(&request.fields, &token);
        let cookies = format!("{session}{}", request.cookies);
        let sent = ours
            .world
            .api()
            .cross_site(&cookies, "POST", &request.path, Some((FORM, body)))
            .await;
        assert_refused(line, "another site", &sent);
    }
    assert_eq!(ours.state().await, before);
    ours.assert_links_work().await;
}
