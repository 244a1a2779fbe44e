//! The log, witnessed: a server that keeps what it cosigned, checks every proof by the RFC and refuses every fork.

mod damaged;
mod hostile;
mod last;
mod round;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::{Path, State},
    response::IntoResponse,
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, SigningKey};
use http::StatusCode;
use postern::{
    audit::{
        Checkpoint, FindingKind, VerifierKey, WitnessKey, verify, verify_witnessed, witness::Witness as Port,
    },
    crypto::digest::{hex, sha256},
    domain::{GrantId, OrgId},
    egress::operator_client,
    flows::{
        Refusal, audit,
        recover::{self, Vouch},
        sequence, witness,
    },
    store::Selector,
};

use super::{
    harness::World,
    sealed::{copied, plans, put_file_back},
};

const NAME: &str = "witness.example/w1";

/// A witness (C2SP tlog-witness) on loopback.
struct Witness {
    url: String,
    /// By origin: the largest log it cosigned.
    logs: Mutex<HashMap<String, (u64, [u8; 32])>>,
    keys: Mutex<HashMap<String, VerifierKey>>,
    /// What it answers instead of working; 0: it works.
    broken: AtomicU16,
    /// By origin: the logs about which it answers 500.
    broken_for: Mutex<HashSet<String>>,
    /// What it signs in place of the text, if anything.
    lie: Mutex<Option<String>>,
    /// The size it claims whatever it is shown, if any.
    claim: Mutex<Option<u64>>,
    /// By hash of the origin: the last checkpoint it was shown and cosigned, as it shows it.
    shown: Mutex<HashMap<String, String>>,
    asked: AtomicUsize,
}

fn signing() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

fn key_id() -> [u8; 4] {
    let public = signing().verifying_key().to_bytes();
    let [a, b, c, d, ..] = sha256(&[NAME.as_bytes(), b"\n\x04", &public].concat());
    [a, b, c, d]
}

fn vkey() -> String {
    let public = signing().verifying_key().to_bytes();
    let id: String = key_id().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{NAME}+{id}+{}", STANDARD.encode([&[4], &public[..]].concat()))
}

/// RFC 9162 §2.1.4.2, word for word.
fn consistent(first: u64, second: u64, proof: &[[u8; 32]], old: [u8; 32], new: [u8; 32]) -> bool {
    if first == second {
        return proof.is_empty() && old == new;
    }
    let mut path = proof.to_vec();
    if first.is_power_of_two() {
        path.insert(0, old);
    }
    let node = |left: [u8; 32], right: [u8; 32]| sha256(&[&[1_u8][..], &left, &right].concat());
    let (mut f, mut s) = (first - 1, second - 1);
    while f & 1 == 1 {
        (f, s) = (f >> 1, s >> 1);
    }
    let Some((start, rest)) = path.split_first() else {
        return false;
    };
    let (mut fr, mut sr) = (*start, *start);
    for hash in rest {
        if s == 0 {
            return false;
        }
        if f & 1 == 1 || f == s {
            fr = node(*hash, fr);
            sr = node(*hash, sr);
            while f & 1 == 0 && f != 0 {
                (f, s) = (f >> 1, s >> 1);
            }
        } else {
            sr = node(sr, *hash);
        }
        (f, s) = (f >> 1, s >> 1);
    }
    s == 0 && fr == old && sr == new
}

impl Witness {
    async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Arc::new(Self {
            url: format!("http://{}/prefix", listener.local_addr().unwrap()),
            logs: Mutex::default(),
            keys: Mutex::default(),
            broken: AtomicU16::new(0),
            broken_for: Mutex::default(),
            lie: Mutex::default(),
            claim: Mutex::default(),
            shown: Mutex::default(),
            asked: AtomicUsize::new(0),
        });
        let app = Router::new()
            .route("/prefix/add-checkpoint", post(Self::add))
            .route("/prefix/{origin}/checkpoint", get(Self::show))
            .with_state(Arc::clone(&this));
        tokio::spawn(async move { axum::serve(listener, app).await });
        this
    }

    /// What the service is told of it.
    fn port(&self) -> Port {
        let url: url::Url = self.url.parse().unwrap();
        Port::new(
            vkey().parse().unwrap(),
            url.clone(),
            url,
            operator_client().unwrap(),
        )
    }

    /// From its next start on, the deployment has this witness.
    fn is_named_by(&self, world: &World) {
        let named = format!("{}\n{}", self.url, vkey());
        std::fs::write(world.dir.path().join("witness"), named).unwrap();
    }

    /// Its operator learns the log's key.
    fn knows(&self, world: &World) {
        self.knows_log(world, world.org);
    }

    /// The same of another org's log; answers with its origin.
    fn knows_log(&self, world: &World, org: OrgId) -> String {
        let key = audit::verifier_key(&world.deps, org).unwrap();
        let key: VerifierKey = key.parse().unwrap();
        let origin = key.name().to_owned();
        self.keys.lock().unwrap().insert(origin.clone(), key);
        origin
    }

    fn size(&self) -> u64 {
        let logs = self.logs.lock().unwrap();
        logs.values().next().map_or(0, |(size, _)| *size)
    }

    async fn show(State(this): State<Arc<Self>>, Path(origin): Path<String>) -> axum::response::Response {
        match this.shown.lock().unwrap().get(&origin) {
            Some(note) => note.clone().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }

    async fn add(State(this): State<Arc<Self>>, body: String) -> axum::response::Response {
        this.asked.fetch_add(1, Ordering::Relaxed);
        let broken = this.broken.load(Ordering::Relaxed);
        if broken != 0 {
            return StatusCode::from_u16(broken).unwrap().into_response();
        }
        if let Some(size) = *this.claim.lock().unwrap() {
            return (StatusCode::CONFLICT, format!("{size}\n")).into_response();
        }
        let (head, note) = body.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let old: u64 = lines
            .next()
            .unwrap()
            .strip_prefix("old ")
            .unwrap()
            .parse()
            .unwrap();
        let proof: Vec<[u8; 32]> = lines
            .map(|line| STANDARD.decode(line).unwrap().try_into().unwrap())
            .collect();
        assert!(proof.len() <= 63 && note.ends_with('\n'));
        let origin = note.lines().next().unwrap().to_owned();
        if this.broken_for.lock().unwrap().contains(&origin) {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        let keys = this.keys.lock().unwrap();
        let Some(key) = keys.get(&origin) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let Ok(checkpoint) = Checkpoint::open(note, key) else {
            return StatusCode::FORBIDDEN.into_response();
        };
        if old > checkpoint.size {
            return StatusCode::BAD_REQUEST.into_response();
        }
        let mut logs = this.logs.lock().unwrap();
        let (size, root) = logs.get(&origin).copied().unwrap_or((0, sha256(b"")));
        let conflict = || {
            let kind = [("content-type", "text/x.tlog.size")];
            (StatusCode::CONFLICT, kind, format!("{size}\n")).into_response()
        };
        if old != size || (size == checkpoint.size && root != checkpoint.root) {
            return conflict();
        }
        let holds = if size == 0 {
            proof.is_empty()
        } else {
            consistent(size, checkpoint.size, &proof, root, checkpoint.root)
        };
        if !holds {
            return StatusCode::UNPROCESSABLE_ENTITY.into_response();
        }
        let shown = (hex(&sha256(origin.as_bytes())), note.to_owned());
        this.shown.lock().unwrap().extend([shown]);
        logs.insert(origin, (checkpoint.size, checkpoint.root));
        let at = 1_800_000_000_u64;
        let text = this.lie.lock().unwrap().clone().unwrap_or(checkpoint.to_string());
        let signature = signing().sign(format!("cosignature/v1\ntime {at}\n{text}").as_bytes());
        let blob = [&key_id()[..], &at.to_be_bytes(), &signature.to_bytes()].concat();
        format!("\u{2014} {NAME} {}\n", STANDARD.encode(blob)).into_response()
    }
}

async fn signed(world: &World) {
    sequence::run(&world.deps, world.org).await.unwrap();
}

async fn note(world: &World) -> String {
    let answer = world.api().get(&world.as_admin(), "/v1/audit/checkpoint").await;
    assert_eq!(answer.status, 200);
    answer.text()
}

fn key() -> WitnessKey {
    vkey().parse().unwrap()
}

async fn started() -> (Arc<Witness>, World, GrantId) {
    let (world, grant) = World::connected().await;
    let server = Witness::start().await;
    server.knows(&world);
    signed(&world).await;
    (server, world, grant)
}

#[tokio::test]
async fn every_head_of_a_growing_log_is_cosigned_and_the_export_proves_it() {
    let (server, world, grant) = started().await;
    let port = server.port();
    for more in 0..6 {
        for _ in 0..more {
            world.vend(world.read(grant)).await.unwrap();
        }
        signed(&world).await;
        let due = usize::from(more != 0 || server.size() == 0);
        assert_eq!(witness::round(&world.deps, &port).await.unwrap(), due);
        let note = note(&world).await;
        assert_eq!(key().cosigned(&note), Ok(Some(1_800_000_000)));
        assert_eq!(Checkpoint::read_unverified(&note).unwrap().size, server.size());
    }
    // What it has, it is not asked again, and the proofs were right at once.
    let asked = server.asked.load(Ordering::Relaxed);
    assert_eq!(witness::round(&world.deps, &port).await.unwrap(), 0);
    assert_eq!((asked, server.asked.load(Ordering::Relaxed)), (6, 6));
    let (export, log) = super::audit::export(&world).await;
    let report = verify_witnessed(export.as_slice(), &log, None, Some(&key())).unwrap();
    assert!(report.verified, "{report:?}");
    assert!(verify(export.as_slice(), &log, None).unwrap().verified);
}

#[tokio::test]
async fn an_export_that_was_not_cosigned_or_falsely_says_so() {
    let (server, world, grant) = started().await;
    let kinds = async |world: &World| {
        let (export, log) = super::audit::export(world).await;
        let report = verify_witnessed(export.as_slice(), &log, None, Some(&key())).unwrap();
        report
            .findings
            .iter()
            .map(|finding| finding.kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(&world).await, [FindingKind::NotCosigned]);
    witness::round(&world.deps, &server.port()).await.unwrap();
    assert_eq!(kinds(&world).await, []);
    // The cosignature of this head under the next one.
    let old = note(&world).await;
    world.vend(world.read(grant)).await.unwrap();
    let new = note(&world).await;
    let line = old.lines().find(|line| line.contains(NAME)).unwrap();
    let (export, log) = super::audit::export(&world).await;
    let last = new.lines().last().unwrap();
    let forged = String::from_utf8(export)
        .unwrap()
        .replace(&format!("{last}\\n"), &format!("{last}\\n{line}\\n"));
    let report = verify_witnessed(forged.as_bytes(), &log, None, Some(&key())).unwrap();
    assert_eq!(report.findings[0].kind, FindingKind::BadCosignature);
}

#[tokio::test]
async fn a_witness_that_is_gone_or_knows_nothing_of_the_log_holds_up_nothing() {
    let (server, world, grant) = started().await;
    for status in [500, 404, 403, 400] {
        server.broken.store(status, Ordering::Relaxed);
        let ended = witness::round(&world.deps, &server.port()).await;
        // One that does not know this log may know the next one's.
        assert_eq!(ended.is_err(), status == 500, "{status}: {ended:?}");
        world.vend(world.read(grant)).await.unwrap();
        signed(&world).await;
        assert_eq!(key().cosigned(&note(&world).await), Ok(None));
    }
    server.broken.store(0, Ordering::Relaxed);
    assert_eq!(witness::round(&world.deps, &server.port()).await.unwrap(), 1);
    assert!(key().cosigned(&note(&world).await).unwrap().is_some());
}

#[tokio::test]
async fn a_false_cosignature_is_not_kept() {
    let (server, world, _) = started().await;
    *server.lie.lock().unwrap() = Some("another log\n1\n\n".to_owned());
    assert_eq!(witness::round(&world.deps, &server.port()).await.unwrap(), 0);
    assert_eq!(key().cosigned(&note(&world).await), Ok(None));
}

#[tokio::test]
async fn what_the_witness_has_is_learnt_from_it_when_it_was_forgotten_here() {
    let (server, world, grant) = started().await;
    witness::round(&world.deps, &server.port()).await.unwrap();
    world.raw_sql("DELETE FROM sink_cursors").await;
    world.vend(world.read(grant)).await.unwrap();
    signed(&world).await;
    assert_eq!(witness::round(&world.deps, &server.port()).await.unwrap(), 1);
    assert_eq!(
        Checkpoint::read_unverified(&note(&world).await).unwrap().size,
        server.size()
    );
}

#[tokio::test]
async fn a_fork_is_not_cosigned_and_vends_go_on() {
    let (server, world, grant) = started().await;
    witness::round(&world.deps, &server.port()).await.unwrap();
    let before = server.size();
    server
        .logs
        .lock()
        .unwrap()
        .values_mut()
        .for_each(|log| log.1 = [9; 32]);
    for _ in 0..2 {
        world.vend(world.read(grant)).await.unwrap();
        signed(&world).await;
        assert_eq!(witness::round(&world.deps, &server.port()).await.unwrap(), 0);
    }
    assert_eq!(server.size(), before);
    assert!(!world.deps.store.is_sealed(world.org));
    assert_eq!(key().cosigned(&note(&world).await), Ok(None));
}

/// A database and the file outside of it restored together agree with each other, and the witness with neither.
async fn restored_with_its_file() -> (Arc<Witness>, World, GrantId) {
    let (world, grant) = World::connected_on_sqlite().await;
    let server = Witness::start().await;
    server.knows(&world);
    server.is_named_by(&world);
    signed(&world).await;
    let file = world.dir.path().join("checkpoints.jsonl");
    let (copy, outside) = (copied(&world).await, std::fs::read(&file).unwrap());
    for _ in 0..4 {
        world.vend(world.read(grant)).await.unwrap();
    }
    signed(&world).await;
    witness::round(&world.deps, &server.port()).await.unwrap();
    let world = world
        .restarted_after(|dir| {
            put_file_back(dir, &copy);
            std::fs::write(dir.join("checkpoints.jsonl"), &outside).unwrap();
        })
        .await;
    (server, world, grant)
}

#[tokio::test]
async fn a_database_restored_together_with_its_file_is_sealed_by_the_witness() {
    let (server, mut world, grant) = restored_with_its_file().await;
    assert!(world.deps.store.is_sealed(world.org));
    assert!(matches!(
        world.vend(world.read(grant)).await,
        Err(Refusal::Sealed)
    ));
    // Nobody's word that it is the newest holds against the witness.
    let plans = plans(&world, Vouch::DatabaseIsCurrent).await;
    assert_eq!(
        (plans[0].why, plans[0].witnessed, plans[0].ends.as_slice()),
        (
            "witness_has_more",
            Some(server.size()),
            &[Selector::All(true)][..]
        )
    );
    recover::run(&world.deps, &plans[0], "test").await.unwrap();
    super::recovered::given_a_key(&mut world).await;
    assert!(matches!(
        world.vend(world.read(grant)).await,
        Err(Refusal::Revoked { .. })
    ));
    // What an admin has seen does not seal the org again.
    let world = world.restarted().await;
    assert!(!world.deps.store.is_sealed(world.org));
}

#[tokio::test]
async fn a_witness_that_does_not_answer_seals_nothing_and_the_worker_seals_once_it_does() {
    let (server, world, grant) = restored_with_its_file().await;
    server.broken.store(503, Ordering::Relaxed);
    let world = world.restarted().await;
    world.vend(world.read(grant)).await.unwrap();
    server.broken.store(0, Ordering::Relaxed);
    signed(&world).await;
    witness::round(&world.deps, &server.port()).await.unwrap();
    assert!(matches!(
        world.vend(world.read(grant)).await,
        Err(Refusal::Sealed)
    ));
}

/// A longer checkpoint of this log that its own key has not signed: by whoever has the seed.
fn forged(world: &World, seed: u8) -> String {
    let name = audit::verifier_key(&world.deps, world.org).unwrap();
    let name = name.split('+').next().unwrap();
    let signer = SigningKey::from_bytes(&[seed; 32]);
    let key = VerifierKey::new(name, signer.verifying_key().to_bytes()).unwrap();
    let checkpoint = Checkpoint {
        origin: name.to_owned(),
        size: 1_000_000,
        root: [7; 32],
        writers: Default::default(),
    };
    checkpoint
        .sign(&key, |text| signer.sign(text).to_bytes())
        .unwrap()
}

#[tokio::test]
async fn a_longer_log_that_a_witness_only_speaks_of_seals_nothing() {
    let (server, world, grant) = started().await;
    server.is_named_by(&world);
    let port = server.port();
    assert_eq!(witness::round(&world.deps, &port).await.unwrap(), 1);
    let origin = server.shown.lock().unwrap().keys().next().unwrap().clone();
    let own = note(&world).await;
    for claim in [server.size() + 1_000, u64::MAX] {
        *server.claim.lock().unwrap() = Some(claim);
        // Nothing, something else, what there was before, and what another key has signed.
        for shown in [
            None,
            Some("4711\n".to_owned()),
            Some(own.clone()),
            Some(forged(&world, 9)),
        ] {
            *server.shown.lock().unwrap() = shown.into_iter().map(|shown| (origin.clone(), shown)).collect();
            world.vend(world.read(grant)).await.unwrap();
            signed(&world).await;
            assert_eq!(witness::round(&world.deps, &port).await.unwrap(), 0);
            assert!(!world.deps.store.is_sealed(world.org));
        }
    }
    let world = world.restarted().await;
    assert!(!world.deps.store.is_sealed(world.org));
    world.vend(world.read(grant)).await.unwrap();
    signed(&world).await;
    // Nor is anything remembered of it.
    *server.claim.lock().unwrap() = None;
    assert_eq!(witness::round(&world.deps, &server.port()).await.unwrap(), 1);
}
