//! Revocation for admins: choose, see what would end, type the word, read the receipt (protocol §8).

use axum::{extract::State, response::Response};

use super::{
    Pages,
    answer::{go_to, page, page_with},
    connections::bury_now,
    failure::Failure,
    form::{Form, SignedByAdmin},
    revoke_view::{self as view, Named},
    session::{Admin, Id, Session},
};
use crate::{
    domain::RevocationId,
    flows::{
        Deps, Refusal, oversight,
        revoke::{self, Ask},
    },
    store::Selector,
    web::pages::revoke::{RevokePreviewPage, RevokeProblem, What},
};
use axum::http::StatusCode;

/// `GET /admin/revoke`.
pub(super) async fn choose(State(pages): State<Pages>, Admin(admin): Admin) -> Result<Response, Failure> {
    choosing(&pages.deps, &admin, None, What::User, "").await
}

/// `POST /admin/revoke/preview`: a dry run; nothing ends.
pub(super) async fn preview(State(pages): State<Pages>, signed: SignedByAdmin) -> Result<Response, Failure> {
    let form = signed.form.only(FIELDS, &[])?;
    match Wish::read(&form)? {
        Ok(wish) => previewing(&pages.deps, &signed.admin, wish, false).await,
        Err((problem, what)) => {
            let reason = form.get("reason").unwrap_or_default();
            choosing(&pages.deps, &signed.admin, Some(problem), what, reason).await
        }
    }
}

/// `POST /admin/revoke`: ends it, if the word is right.
pub(super) async fn run(State(pages): State<Pages>, signed: SignedByAdmin) -> Result<Response, Failure> {
    let form = signed.form.only(FIELDS, &[])?;
    let deps = &pages.deps;
    let admin = &signed.admin;
    let wish = match Wish::read(&form)? {
        Ok(wish) => wish,
        Err((problem, what)) => {
            let reason = form.get("reason").unwrap_or_default();
            return choosing(deps, admin, Some(problem), what, reason).await;
        }
    };
    if !form.get("word").is_some_and(|word| wish.what.is_word(word)) {
        return previewing(deps, admin, wish, true).await;
    }
    let ask = Ask {
        selector: wish.selector,
        reason: wish.reason,
        drain: false,
        by: admin.user.id.to_string(),
    };
    let revoked = revoke::run(deps, admin.org.id, ask).await?;
    bury_now(deps, admin.org.id, revoked.id).await;
    // Who ended their own sessions, too, is signed out now; the receipt then asks to sign in.
    go_to(&format!("/admin/revocations/{}", revoked.id))
}

/// `GET /admin/revocations/{id}`.
pub(super) async fn receipt(
    State(pages): State<Pages>,
    Admin(admin): Admin,
    Id(id): Id<RevocationId>,
) -> Result<Response, Failure> {
    let deps = &pages.deps;
    let receipt = oversight::receipt(deps, admin.org.id, id).await?;
    let named = Named::of(deps, &admin, &receipt.row.selector).await?;
    page(&view::receipt(deps, admin.shell(deps)?, named.target, receipt))
}

async fn choosing(
    deps: &Deps,
    admin: &Session,
    problem: Option<RevokeProblem>,
    what: What,
    reason: &str,
) -> Result<Response, Failure> {
    let roster = oversight::roster(deps, admin.org.id).await?;
    let status = match problem {
        None => StatusCode::OK,
        Some(_) => StatusCode::BAD_REQUEST,
    };
    let shell = admin.shell(deps)?;
    page_with(status, &view::choose(deps, shell, problem, what, &roster, reason))
}

async fn previewing(deps: &Deps, admin: &Session, wish: Wish, mistyped: bool) -> Result<Response, Failure> {
    let counts = match revoke::dry_run(deps, admin.org.id, &wish.selector).await {
        Err(Refusal::NotFound) => {
            let problem = Some(RevokeProblem::NothingChosen);
            return choosing(deps, admin, problem, wish.what, &wish.reason).await;
        }
        counts => counts?,
    };
    let named = Named::of(deps, admin, &wish.selector).await?;
    page(&RevokePreviewPage {
        shell: admin.shell(deps)?,
        what: wish.what,
        value: named.value,
        target: named.target,
        reason: wish.reason,
        counts: view::counts(&counts),
        mistyped,
    })
}

/// What the form asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    what: What,
    selector: Selector,
    reason: String,
}

impl Wish {
    /// `Err` inside: what the person has to put right; `Err` outside: no form of ours says that.
    fn read(form: &Form) -> Result<Result<Self, (RevokeProblem, What)>, Failure> {
        let what = form.get("what").unwrap_or(What::User.as_str());
        let what = What::parse(what).ok_or_else(|| Failure::bad_request("nothing of that kind ends"))?;
        let value = match what {
            What::All => None,
            what => form.get(what.as_str()),
        };
        let bad = |cause: &str| Failure::bad_request(cause);
        let selector = match (what, value) {
            (What::All, _) => Selector::All(true),
            (_, None) => return Ok(Err((RevokeProblem::NothingChosen, what))),
            (What::User, Some(id)) => Selector::User(id.parse().map_err(|_| bad("not a person"))?),
            (What::Agent, Some(id)) => Selector::Agent(id.parse().map_err(|_| bad("not an agent"))?),
            (What::Connector, Some(id)) => {
                Selector::Connector(id.parse().map_err(|_| bad("not a connector"))?)
            }
            (What::Grant, Some(id)) => Selector::Grant(id.parse().map_err(|_| bad("not a grant"))?),
        };
        let reason = form.get("reason").unwrap_or_default().trim();
        if reason.is_empty() {
            return Ok(Err((RevokeProblem::NoReason, what)));
        }
        if reason.chars().count() > LONGEST_REASON {
            return Err(bad("a reason longer than the page allows"));
        }
        Ok(Ok(Self {
            what,
            selector,
            reason: reason.to_owned(),
        }))
    }
}

const FIELDS: &[&str] = &["what", "user", "agent", "connector", "grant", "reason", "word"];
/// As the page's own field says; its newlines come as two characters.
const LONGEST_REASON: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::pages::form::form_of;

    const BEN: &str = "usr_00000000000000000000000002";

    #[test]
    fn the_chosen_list_counts_and_no_other() {
        let form = form_of(&format!(
            "what=user&user={BEN}&agent=&connector=slack&grant=&reason=left"
        ));
        let wish = Wish::read(&form).unwrap().unwrap();
        assert_eq!(wish.selector, Selector::User(BEN.parse().unwrap()));
        assert_eq!(wish.reason, "left");
    }

    #[test]
    fn everything_needs_no_choice() {
        let wish = Wish::read(&form_of("what=all&reason=x")).unwrap().unwrap();
        assert_eq!(wish.selector, Selector::All(true));
    }

    #[test]
    fn nothing_chosen_and_no_reason_are_said_in_words() {
        let problem = |text: &str| Wish::read(&form_of(text)).unwrap().unwrap_err().0;
        assert_eq!(
            problem("what=agent&agent=&reason=x"),
            RevokeProblem::NothingChosen
        );
        assert_eq!(problem("what=all&reason=%20"), RevokeProblem::NoReason);
    }

    #[test]
    fn values_no_page_of_ours_sends_are_refused() {
        assert!(Wish::read(&form_of("what=world&reason=x")).is_err());
        assert!(Wish::read(&form_of("what=user&user=agt_00000000000000000000000002&reason=x")).is_err());
    }
}
