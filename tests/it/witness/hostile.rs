//! A witness that answers what it should not, late, or never the same.

use std::{collections::BTreeMap, sync::atomic::AtomicU64, time::Duration};

use axum::response::Response;
use postern::audit::{chain::ChainHead, witness::WitnessError};

use super::{
    last::{grows, kept},
    *,
};

/// The way to a witness that is served here.
pub(super) async fn port_of(app: Router) -> Port {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: url::Url = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let client = operator_client().unwrap();
    Port::new(vkey().parse().unwrap(), url.clone(), url, client)
}

/// A witness that answers this, and how often it was asked.
async fn that_answers<F>(answer: F) -> (Port, Arc<AtomicUsize>)
where
    F: Fn() -> Response + Clone + Send + Sync + 'static,
{
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let app = Router::new().fallback(move || {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(answer())
    });
    (port_of(app).await, asked)
}

/// The witness's line over this text.
fn line(text: &str) -> String {
    let at = 1_800_000_000_u64;
    let signature = signing().sign(format!("cosignature/v1\ntime {at}\n{text}").as_bytes());
    let blob = [&key_id()[..], &at.to_be_bytes(), &signature.to_bytes()].concat();
    format!("\u{2014} {NAME} {}\n", STANDARD.encode(blob))
}

#[tokio::test]
async fn what_is_no_cosignature_of_just_this_head_takes_the_place_of_none() {
    let (server, world, grant) = started().await;
    witness::round(&world.deps, &server.port()).await.unwrap();
    let head = kept(&world).await;
    grows(&world, grant).await;
    let (text, older) = (note(&world).await, head.lines().last().unwrap());
    let text = format!("{}\n", text.rsplit_once("\n\n").unwrap().0);
    let size = text.lines().nth(1).unwrap();
    let answers = [
        String::new(),
        format!("{older}\n"),
        line(&text.replace(&format!("\n{size}\n"), "\n1000000\n")),
        line(&text.replacen("/orgs/", "/org/", 1)),
        format!("{}{}", line(&text), line("another log\n1\n\n")),
        line(&text).repeat(1_000),
        "x".repeat(4 << 20),
    ];
    for answer in answers {
        let begins: String = answer.chars().take(200).collect();
        let (port, asked) = that_answers(move || answer.clone().into_response()).await;
        assert_eq!(witness::round(&world.deps, &port).await.unwrap(), 0, "{begins}");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert_eq!(kept(&world).await, head, "{begins}");
    }
    // What holds is taken all the same.
    let answer = line(&text);
    let (port, _) = that_answers(move || answer.clone().into_response()).await;
    assert_eq!(witness::round(&world.deps, &port).await.unwrap(), 1);
    assert_ne!(kept(&world).await, head);
}

#[tokio::test]
async fn a_witness_that_names_another_size_each_time_is_left_alone_until_the_next_look() {
    let (_server, world, _) = started().await;
    let size = Arc::new(AtomicU64::new(0));
    let answer = move || {
        let size = 1 + size.fetch_add(1, Ordering::Relaxed) % 2;
        (StatusCode::CONFLICT, format!("{size}\n")).into_response()
    };
    let (port, asked) = that_answers(answer).await;
    let ended = witness::show(&world.deps, &port, world.org).await;
    assert!(
        matches!(ended, Err(witness::Failed::Witness(WitnessError::Unsettled))),
        "{ended:?}"
    );
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_witness_that_takes_its_time_for_an_answer_is_not_asked_again_in_that_look() {
    let (_server, world, _) = started().await;
    let clock = Arc::clone(&world.clock);
    let answer = move || {
        clock.advance(Duration::from_secs(6));
        (StatusCode::CONFLICT, "1\n").into_response()
    };
    let (port, asked) = that_answers(answer).await;
    let ended = witness::show(&world.deps, &port, world.org).await;
    assert!(
        matches!(ended, Err(witness::Failed::Witness(WitnessError::Slow))),
        "{ended:?}"
    );
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_conflict_without_a_size_is_another_history_only_where_the_size_is_the_same() {
    let (server, world, _) = started().await;
    for body in ["", "<html>\n", "-1\n", "01\n", "0\n"] {
        let (port, _) = that_answers(move || (StatusCode::CONFLICT, body).into_response()).await;
        let ended = witness::show(&world.deps, &port, world.org).await;
        assert!(
            matches!(ended, Err(witness::Failed::Witness(WitnessError::Status(409)))),
            "{body:?}: {ended:?}"
        );
    }
    witness::round(&world.deps, &server.port()).await.unwrap();
    let (port, _) = that_answers(|| StatusCode::CONFLICT.into_response()).await;
    let ended = witness::show(&world.deps, &port, world.org).await;
    assert!(matches!(ended, Ok(witness::Shown::Contradicts)), "{ended:?}");
}

/// Each has a line in the checkpoint: this one is longer than any answer with a cosignature.
#[tokio::test]
async fn a_longer_log_of_very_many_writers_seals_as_any_other() {
    let (server, world, _) = started().await;
    let log: VerifierKey = audit::verifier_key(&world.deps, world.org)
        .unwrap()
        .parse()
        .unwrap();
    let last = ChainHead {
        seq: 1,
        hash: [3; 32],
    };
    let writers: BTreeMap<String, ChainHead> = (0..2_000)
        .map(|number| (format!("replica-{number:04}/hot"), last))
        .collect();
    let longer = Checkpoint {
        origin: log.name().to_owned(),
        size: 1_000_000,
        root: [7; 32],
        writers,
    };
    let checkpoints = &world.deps.checkpoints;
    let longer = longer
        .sign(&log, |text| checkpoints.sign_note(text).unwrap())
        .unwrap();
    assert!(longer.len() > 64 * 1024);
    let shown = (hex(&sha256(log.name().as_bytes())), longer);
    server.shown.lock().unwrap().extend([shown]);
    *server.claim.lock().unwrap() = Some(1_000_000);
    assert_eq!(witness::round(&world.deps, &server.port()).await.unwrap(), 0);
    assert!(world.deps.store.is_sealed(world.org));
}
