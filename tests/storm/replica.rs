//! A replica: this program started again, built of the parts that `postern serve` is built of, with waiters inside.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Instant,
};

use postern::{
    app,
    crypto::digest,
    domain::{OrgId, grant::Grant},
    flows::{
        Deps,
        refresh::{self, Obtained, Want},
    },
    http::{guard::RequestIds, router, security::Site, server},
    workers::Workers,
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{
    machine,
    plan::{ISSUER, Orders, waiters},
};

/// What a replica's waiters came to.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    /// How many got a token.
    pub(crate) satisfied: usize,
    /// Why the others did not.
    pub(crate) refused: BTreeMap<String, usize>,
    /// By grant: the generation of the token, and the SHA-256 of the sealed value.
    pub(crate) tokens: BTreeMap<usize, (u64, String)>,
    /// How long it took, by the replica's own clock.
    pub(crate) took_ms: u64,
    /// What it cost until then.
    pub(crate) cpu_ms: u64,
    pub(crate) memory_kib: u64,
}

/// Says where it serves, waits for a word, lets everybody wait at once, says what came of it; ends with its input.
pub(crate) async fn run(orders: Orders) {
    let deps = app::open(orders.parts()).await.unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let site = Site::new(&ISSUER.parse().unwrap()).unwrap();
    let ids = RequestIds::new(&*deps.random).unwrap();
    let app = router::app(Arc::clone(&deps), site);
    let workers = Workers::start(&deps);
    let limits = server::Limits::default();
    tokio::spawn(server::serve(listener, app, limits, ids, std::future::pending()));

    let (go, gone) = watch::channel(false);
    let done = Arc::new(Mutex::new(Done::default()));
    let mut tasks = JoinSet::new();
    for (number, grant) in expired(&deps, &orders).await {
        for _ in 0..waiters(number, orders.number) {
            tasks.spawn(wait(
                Arc::clone(&deps),
                grant.clone(),
                number,
                gone.clone(),
                Arc::clone(&done),
            ));
        }
    }
    say(&address.to_string());
    if !heard_a_word().await {
        return;
    }
    let (began, before) = (Instant::now(), machine::cpu(std::process::id()));
    go.send_replace(true);
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let mut done = std::mem::take(&mut *done.lock().unwrap());
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap();
    done.took_ms = ms(began.elapsed());
    done.cpu_ms = ms(machine::cpu(std::process::id()) - before);
    done.memory_kib = machine::memory_kib();
    say(&serde_json::to_string(&done).unwrap());
    // Others may still wait for what this replica serves.
    while heard_a_word().await {}
    workers.stop().await;
    deps.store.close().await;
}

/// One waiter: for a token that will do, as a vend waits for it.
async fn wait(
    deps: Arc<Deps>,
    grant: Arc<Grant>,
    number: usize,
    mut gone: watch::Receiver<bool>,
    done: Arc<Mutex<Done>>,
) {
    gone.wait_for(|go| *go).await.unwrap();
    let got = refresh::ensure(&deps, &grant, Want::Renewed { than: None }).await;
    let mut done = done.lock().unwrap();
    match got {
        Ok(Obtained { row, .. }) => {
            let token = (row.generation, digest::hex(&digest::sha256(&row.sealed.sealed)));
            done.satisfied += 1;
            let first = done.tokens.entry(number).or_insert_with(|| token.clone());
            assert_eq!(*first, token, "two waiters for grant {number} got two tokens");
        }
        Err(refusal) => *done.refused.entry(refusal.to_string()).or_default() += 1,
    }
}

/// The grants and their numbers, in an order that is this replica's own: nobody's callers come in anybody else's order.
async fn expired(deps: &Deps, orders: &Orders) -> Vec<(usize, Arc<Grant>)> {
    let mut grants = Vec::new();
    for org in &orders.orgs {
        let org: OrgId = org.parse().unwrap();
        let mut tx = deps.store.read(org).await.unwrap();
        let mut after = None;
        loop {
            let page = tx.grants(org, after, 1000).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for grant in page {
                let number = grant.account.id.as_deref().unwrap().parse().unwrap();
                grants.push((number, Arc::new(grant)));
            }
        }
    }
    grants.sort_by_key(|(number, _)| digest::sha256(format!("{} {number}", orders.number).as_bytes()));
    grants
}

/// Waits for a line; `false` at the end of the input.
async fn heard_a_word() -> bool {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    read.await.unwrap().unwrap() > 0
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}
