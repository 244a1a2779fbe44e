//! Ids of decisions; and that a decision of Postern's own is judged alike, as its text and as it was made.

use std::sync::LazyLock;

use proptest::{prelude::*, sample::subsequence};

use super::*;
use crate::{
    crypto::{SigningKey, instance::Purpose},
    domain::{
        ApprovalId, Mode,
        decision::{Actor, ApprovalRef, Confirmation, Constraints, Layers, PolicyRef},
    },
};

#[test]
fn an_id_of_a_decision_is_a_text_of_1_to_128_characters_without_controls() {
    let longest = "é".repeat(128);
    for jti in ["a", "a b", "house/4711", "决定", &longest] {
        assert!(is_decision_id(jti), "{jti:?}");
    }
    let too_long = "é".repeat(129);
    for jti in [
        "",
        "a\0b",
        "\0",
        "a\nb",
        "\u{1b}[2J",
        "\u{7f}",
        "\u{85}",
        &too_long,
    ] {
        assert!(!is_decision_id(jti), "{jti:?}");
    }
}

const ISSUER: &str = "https://postern.example";
const NOW: i64 = 1_800_000_000;
const ACTION: ActionHash = ActionHash([7; 32]);
const ORG: OrgId = OrgId::from_bytes([1; 16]);
const USER: UserId = UserId::from_bytes([2; 16]);
const AGENT: AgentId = AgentId::from_bytes([3; 16]);
const GRANT: GrantId = GrantId::from_bytes([4; 16]);
const ENTRY: EntryId = EntryId::from_bytes([5; 16]);

static NOTARY: LazyLock<SigningKey> = LazyLock::new(|| jose::key_for_tests(Purpose::Notary));

/// A decision that holds.
fn right() -> DecisionClaims {
    DecisionClaims {
        act: Actor {
            run: None,
            sub: AGENT,
        },
        action_hash: digest::action_hash_text(&ACTION),
        approvals: Vec::new(),
        aud: audience(ISSUER, ORG, None),
        constraints: Constraints::default(),
        context_digest: None,
        exp: NOW + 60,
        grant: GRANT,
        iat: NOW,
        iss: ISSUER.to_owned(),
        jti: "dec_00000000000000000000000007".to_owned(),
        layers: Layers::default(),
        live_session: false,
        org: ORG,
        outcome: Outcome::Allow,
        policy: PolicyRef {
            digest: "sha256:00".to_owned(),
            id: "org".to_owned(),
            version: "1".to_owned(),
        },
        sub: USER,
        tool: "messages.list".to_owned(),
        ver: 1,
    }
}

fn connector() -> ConnectorId {
    "acme-mail".parse().unwrap()
}

fn expected<'a>(connector: &'a ConnectorId, context_digest: Option<&'a str>) -> Expected<'a> {
    Expected {
        issuer: ISSUER,
        org: ORG,
        user: USER,
        agent: AGENT,
        grant: GRANT,
        connector,
        tool: "messages.list",
        action_hash: ACTION,
        context_digest,
        now: Time::from_unix_seconds(NOW),
        revoked_at: Some(Time::from_unix_seconds(NOW - 1)),
    }
}

fn trusted() -> TrustedKey {
    TrustedKey {
        key: NOTARY.public().clone(),
        iss: ISSUER.to_owned(),
        ceiling: None,
    }
}

fn signed(claims: &DecisionClaims) -> OwnDecision {
    OwnDecision::sign(&NOTARY, claims.clone()).unwrap()
}

/// The same, made out to the entry instead of the org. What else is wrong with its audience stays so.
fn for_entry(claims: &DecisionClaims) -> DecisionClaims {
    let [org, entry] = [None, Some(ENTRY)].map(|entry| audience(ISSUER, ORG, entry));
    DecisionClaims {
        aud: claims.aud.replace(&org, &entry),
        ..claims.clone()
    }
}

/// Judges it both ways: as one that was made here for the entry, and by the text of one that was given away.
fn judged(claims: &DecisionClaims, expected: &Expected<'_>) -> [Result<VerifiedDecision, DecisionError>; 2] {
    let trusted = trusted();
    let (text, _) = signed(claims).into_text();
    [
        own(signed(&for_entry(claims)), NOTARY.public(), expected, ENTRY),
        verify(&UnverifiedDecision(text), [&trusted], expected),
    ]
}

fn are_alike(claims: &DecisionClaims, expected: &Expected<'_>) -> Result<(), TestCaseError> {
    match judged(claims, expected) {
        [Ok(own), Ok(read)] => {
            prop_assert_eq!(&own.claims, &for_entry(claims));
            prop_assert_eq!(&read.claims, claims);
            let (text, _) = signed(&own.claims).into_text();
            prop_assert_eq!(own.sha256, digest::hex(&digest::sha256(text.as_bytes())));
            prop_assert_eq!((own.origin, read.origin), (Origin::Here(ENTRY), Origin::Notary));
        }
        [Err(own), Err(read)] => {
            prop_assert_eq!(own, read);
        }
        other => return Err(TestCaseError::fail(format!("{other:?}"))),
    }
    Ok(())
}

#[test]
fn only_what_was_made_in_this_call_has_an_entry_that_spends_it() {
    let connector = connector();
    let [own, read] = judged(&right(), &expected(&connector, None)).map(Result::unwrap);
    assert_eq!(own.entry(), Some(ENTRY));
    assert_eq!(read.entry(), None, "whoever has its text may spend it");
}

/// Whoever came by its text has nothing: it holds for the one entry, and only where it was made.
#[test]
fn what_is_made_out_to_an_entry_is_of_no_use_elsewhere() {
    let (connector, trusted) = (connector(), trusted());
    let expected = expected(&connector, None);
    let claims = for_entry(&right());
    let (text, _) = signed(&claims).into_text();
    let brought = verify(&UnverifiedDecision(text), [&trusted], &expected);
    assert_eq!(brought.unwrap_err(), DecisionError::WrongAudience);
    for (claims, entry) in [(&claims, EntryId::from_bytes([6; 16])), (&right(), ENTRY)] {
        let refused = own(signed(claims), NOTARY.public(), &expected, entry);
        assert_eq!(
            refused.unwrap_err(),
            DecisionError::WrongAudience,
            "{}",
            claims.aud
        );
    }
}

#[test]
fn a_decision_made_here_does_not_hold_under_another_key() {
    let connector = connector();
    let other = jose::key_for_tests(Purpose::Notary);
    let refused = own(
        signed(&for_entry(&right())),
        other.public(),
        &expected(&connector, None),
        ENTRY,
    );
    assert_eq!(refused.unwrap_err(), DecisionError::BadSignature);
}

#[test]
fn a_key_for_something_else_signs_no_decision() {
    for purpose in Purpose::ALL {
        if purpose.signs() && purpose != Purpose::Notary {
            let other = jose::key_for_tests(purpose);
            assert!(OwnDecision::sign(&other, right()).is_none(), "{purpose}");
        }
    }
}

/// Each of these is refused for a reason of its own, and for the same one.
#[test]
fn whatever_is_wrong_with_a_decision_made_here_is_what_its_text_is_refused_for() {
    type Wrong = fn(&mut DecisionClaims);
    let wrongs: [(DecisionError, Wrong); 21] = [
        (DecisionError::Malformed, |claims| claims.jti = "a\0b".to_owned()),
        (DecisionError::Malformed, |claims| claims.iat = i64::MIN),
        (DecisionError::Malformed, |claims| claims.exp = MOST_EXACT + 1),
        (DecisionError::Malformed, |claims| {
            claims.constraints.max_ttl_s = Some(u64::MAX);
        }),
        (DecisionError::WrongIssuer, |claims| claims.iss.push('x')),
        (DecisionError::WrongAudience, |claims| claims.aud.push('x')),
        (DecisionError::UnsupportedVersion, |claims| claims.ver = 2),
        (DecisionError::TooLong, |claims| claims.exp = NOW + 121),
        (DecisionError::Expired, |claims| claims.exp = NOW),
        (DecisionError::NotYetValid, |claims| {
            claims.iat = NOW + 31;
        }),
        (DecisionError::Stale, |claims| claims.iat = NOW - 2),
        (DecisionError::WrongOrg, |claims| {
            claims.org = OrgId::from_bytes([9; 16]);
        }),
        (DecisionError::WrongUser, |claims| {
            claims.sub = UserId::from_bytes([9; 16]);
        }),
        (DecisionError::WrongAgent, |claims| {
            claims.act.sub = AgentId::from_bytes([9; 16]);
        }),
        (DecisionError::WrongGrant, |claims| {
            claims.grant = GrantId::from_bytes([9; 16]);
        }),
        (DecisionError::WrongAction, |claims| claims.tool.push('x')),
        (DecisionError::WrongAction, |claims| claims.action_hash.push('x')),
        (DecisionError::WrongContext, |claims| {
            claims.context_digest = Some("sha256:00".to_owned());
        }),
        (DecisionError::NotAllow, |claims| claims.outcome = Outcome::Deny),
        (DecisionError::UnmetConstraint, |claims| {
            claims.constraints.cnf = Some(Confirmation { jkt: "x".to_owned() });
        }),
        (DecisionError::UnknownApproval, |claims| {
            let id = ApprovalId::from_bytes([9; 16]);
            claims.approvals.push(ApprovalRef { id });
        }),
    ];
    let connector = connector();
    for (error, wrong) in wrongs {
        let mut claims = right();
        wrong(&mut claims);
        let refused = judged(&claims, &expected(&connector, None)).map(Result::unwrap_err);
        assert_eq!(refused, [error, error], "{claims:?}");
    }
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => NOW - 200..NOW + 200,
        1 => MOST_EXACT - 2..MOST_EXACT + 3,
        1 => any::<i64>(),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,40}", "\\PC{0,40}", "[\\x00-\\x20\"\\\\\u{7f}-\u{a0}]{0,10}"]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![8 => Just(Outcome::Allow), 1 => Just(Outcome::Deny), 1 => Just(Outcome::Escalate)]
}

fn constraints() -> impl Strategy<Value = Constraints> {
    (
        proptest::option::weighted(0.1, text()),
        proptest::option::of(prop_oneof![4 => 1..100_000_u64, 1 => any::<u64>()]),
        proptest::option::of(subsequence(Mode::ALL.to_vec(), 0..=4)),
        proptest::option::of(proptest::collection::vec("[!-~]{1,8}", 0..4)),
    )
        .prop_map(|(jkt, max_ttl_s, modes, scopes)| Constraints {
            cnf: jkt.map(|jkt| Confirmation { jkt }),
            max_ttl_s,
            modes: modes.map(|modes| modes.into_iter().collect()),
            scopes: scopes.map(|scopes| scopes.into_iter().collect()),
        })
}

/// Claims of which most hold, whatever stands where nothing is compared.
fn any_claims() -> impl Strategy<Value = DecisionClaims> {
    let times = prop_oneof![4 => Just((NOW, NOW + 60)), 1 => (number(), number())];
    let layers = (
        proptest::option::of(outcome()),
        proptest::option::of(outcome()),
        proptest::option::of(outcome()),
    );
    let policy = (text(), text(), text());
    let names = (
        proptest::option::of(text()),
        text(),
        proptest::option::weighted(0.2, text()),
    );
    (
        times,
        layers,
        policy,
        names,
        constraints(),
        outcome(),
        any::<bool>(),
    )
        .prop_map(
            |(times, layers, policy, names, constraints, outcome, live_session)| {
                let (iat, exp) = times;
                let (agent, org, user) = layers;
                let (digest, id, version) = policy;
                let (run, jti, context_digest) = names;
                DecisionClaims {
                    act: Actor { run, sub: AGENT },
                    constraints,
                    context_digest,
                    exp,
                    iat,
                    jti: format!("dec_{jti}"),
                    layers: Layers { agent, org, user },
                    live_session,
                    outcome,
                    policy: PolicyRef { digest, id, version },
                    ..right()
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_decision_made_here_is_judged_as_its_text_is(claims in any_claims()) {
        let connector = connector();
        are_alike(&claims, &expected(&connector, claims.context_digest.as_deref()))?;
        are_alike(&claims, &expected(&connector, None))?;
    }

    /// What is verified without being read again is what anybody would read.
    #[test]
    fn claims_that_are_written_are_read_as_they_were(claims in any_claims()) {
        let payload = serde_json::to_vec(&claims).unwrap();
        let read = Gate::STRICT.from_slice::<DecisionClaims>(&payload);
        if has_exact_numbers(&claims) {
            prop_assert_eq!(read.unwrap(), claims);
        } else {
            prop_assert!(read.is_err());
        }
    }
}
