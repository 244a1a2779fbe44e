//! Background work: sequencing the log, having it witnessed, revoking upstream, asking again what is in doubt,
//! renewing ahead, telling the operator's webhook, sweeping. Each worker looks, does what is due and looks
//! again; what it could not do waits for the next look.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{Id, JoinSet},
};

use crate::flows::{Deps, Refusal, notify, refresh, seal, sequence, sinks, sweep, upstream, witness};

/// Workers under way. Dropping it stops them; [`Workers::stop`] lets them finish what they hold.
#[derive(Debug)]
pub struct Workers {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Workers {
    /// Starts every worker.
    #[must_use]
    pub fn start(deps: &Arc<Deps>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let work = {
            let (deps, stopped) = (Arc::clone(deps), stopped.clone());
            move || sequence_all(Arc::clone(&deps), stopped.clone())
        };
        tasks.spawn(every("sequencer", SEQUENCE_EVERY, stopped.clone(), work));
        for sink in &deps.sinks {
            let (deps, sink) = (Arc::clone(deps), Arc::clone(sink));
            // Each sink has its own task: a slow one holds up nobody.
            let work = move || {
                let (deps, sink) = (Arc::clone(&deps), Arc::clone(&sink));
                async move { sinks::drain(&deps, &*sink).await.map(drop) }
            };
            tasks.spawn(every("sink", SINK_EVERY, stopped.clone(), work));
        }
        if let Some(witness) = &deps.witness {
            let (deps, witness) = (Arc::clone(deps), Arc::clone(witness));
            let work = move || {
                let (deps, witness) = (Arc::clone(&deps), Arc::clone(&witness));
                async move { witness::round(&deps, &witness).await.map(drop) }
            };
            tasks.spawn(every("witness", SINK_EVERY, stopped.clone(), work));
        }
        tasks.spawn(every(
            "fan-out",
            OUTBOX_EVERY,
            stopped.clone(),
            with(deps, fan_out),
        ));
        tasks.spawn(end_upstream(Arc::clone(deps), stopped.clone()));
        tasks.spawn(every(
            "refresh",
            REFRESH_EVERY,
            stopped.clone(),
            with(deps, settle_refreshes),
        ));
        tasks.spawn(every(
            "renewals",
            REFRESH_EVERY,
            stopped.clone(),
            with(deps, look_ahead),
        ));
        tasks.spawn(every("notices", REFRESH_EVERY, stopped.clone(), with(deps, tell)));
        tasks.spawn(every(
            "replica",
            REPLICA_EVERY,
            stopped.clone(),
            with(deps, renew_name),
        ));
        tasks.spawn(every(
            "others",
            FOLLOW_EVERY,
            stopped.clone(),
            with(deps, follow_others),
        ));
        tasks.spawn(every("sweep", SWEEP_EVERY, stopped, with(deps, sweep_once)));
        Self { tasks, stop }
    }

    /// Asks the workers to stop and waits until each has finished what it holds.
    pub async fn stop(mut self) {
        // Nobody listening means that they have ended already.
        let _ended = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// There is no pause while there is more.
async fn sequence_all(deps: Arc<Deps>, stopped: watch::Receiver<bool>) -> Result<(), Refusal> {
    while sequence::round(&deps).await? && !*stopped.borrow() {}
    Ok(())
}

async fn renew_name(deps: Arc<Deps>) -> Result<(), Refusal> {
    Ok(deps.store.renew_replica().await?)
}

async fn follow_others(deps: Arc<Deps>) -> Result<(), Refusal> {
    seal::keep_up(&deps).await
}

async fn fan_out(deps: Arc<Deps>) -> Result<(), Refusal> {
    upstream::fan_out(&deps).await.map(drop)
}

/// Asks the providers to end what is due, each in a task of its own: a slow one holds up nobody else's.
async fn end_upstream(deps: Arc<Deps>, mut stopped: watch::Receiver<bool>) {
    let mut rounds = JoinSet::new();
    let mut busy: HashMap<Id, String> = HashMap::new();
    while !*stopped.borrow() {
        match upstream::providers(&deps).await {
            Ok(providers) => {
                for provider in providers {
                    if busy.values().any(|host| *host == provider.host) {
                        continue;
                    }
                    let (deps, host) = (Arc::clone(&deps), provider.host.clone());
                    let round = rounds.spawn(async move {
                        if let Err(refusal) = upstream::round(&deps, &provider).await {
                            tracing::warn!(cause = %refusal, "upstream revocations have to wait");
                        }
                    });
                    busy.insert(round.id(), host);
                }
            }
            Err(refusal) => tracing::warn!(cause = %refusal, "upstream revocations have to wait"),
        }
        let pause = tokio::time::sleep(OUTBOX_EVERY);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(ended) = rounds.join_next_with_id() => {
                    // Also one that stopped unexpectedly: its provider is asked again at the next look.
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    busy.remove(&id);
                }
                changed = stopped.changed() => if changed.is_err() { return } else { break },
            }
        }
    }
    // Work under way is never cut off.
    while rounds.join_next().await.is_some() {}
}

async fn settle_refreshes(deps: Arc<Deps>) -> Result<(), Refusal> {
    // What the provider answered comes before what it is to be asked again.
    refresh::spooled::drain(&deps).await;
    refresh::doubt::ask_again(&deps).await.map(drop)
}

async fn look_ahead(deps: Arc<Deps>) -> Result<(), Refusal> {
    refresh::ahead::look(&deps).await.map(drop)
}

async fn tell(deps: Arc<Deps>) -> Result<(), Refusal> {
    notify::tell(&deps).await.map(drop)
}

async fn sweep_once(deps: Arc<Deps>) -> Result<(), Refusal> {
    sweep::run(&deps).await.map(drop)
}

fn with<F, R>(deps: &Arc<Deps>, work: F) -> impl Fn() -> R + Send + 'static + use<F, R>
where
    F: Fn(Arc<Deps>) -> R + Send + 'static,
{
    let deps = Arc::clone(deps);
    move || work(Arc::clone(&deps))
}

/// Works, waits, works again, until told to stop. Work under way is never cut off, and work that panics is begun anew at
/// the next look: nobody else would notice that a worker is gone.
async fn every<R>(
    name: &'static str,
    pause: Duration,
    mut stopped: watch::Receiver<bool>,
    work: impl Fn() -> R + Send,
) where
    R: Future<Output = Result<(), Refusal>> + Send + 'static,
{
    while !*stopped.borrow() {
        // In a set: whoever drops the workers stops this one, too.
        let mut look = JoinSet::new();
        look.spawn(work());
        match look.join_next().await {
            Some(Ok(Err(refusal))) => {
                tracing::warn!(worker = name, cause = %refusal, "{name} has to wait");
            }
            Some(Err(_)) => tracing::error!(worker = name, "{name} stopped unexpectedly and is begun anew"),
            Some(Ok(Ok(()))) | None => {}
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = stopped.changed() => if changed.is_err() { return },
        }
    }
}

/// The log grows at most this much later than its entries.
const SEQUENCE_EVERY: Duration = Duration::from_millis(500);
/// Copies of the log are at most this much older, while their receiver takes them.
const SINK_EVERY: Duration = Duration::from_secs(1);
/// What other replicas do is known outside the database at most this much later.
const FOLLOW_EVERY: Duration = Duration::from_secs(30);
/// Revocations reach the provider at most this much later.
const OUTBOX_EVERY: Duration = Duration::from_millis(500);
/// A lost answer is asked for again, a token renewed ahead and a change told at most this much later.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How often the lease on this replica's name is renewed: several times before it would end.
const REPLICA_EVERY: Duration = Duration::from_secs(3);
/// How often overdue things are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_worker_that_panicked_looks_again() {
        let (looks, twice) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (stop, stopped) = watch::channel(false);
        let work = {
            let (looks, twice) = (Arc::clone(&looks), Arc::clone(&twice));
            move || {
                let (looks, twice) = (Arc::clone(&looks), Arc::clone(&twice));
                async move {
                    assert!(
                        looks.fetch_add(1, Ordering::SeqCst) > 0,
                        "the first look goes wrong"
                    );
                    twice.add_permits(1);
                    Ok(())
                }
            }
        };
        let worker = tokio::spawn(every("test", Duration::from_millis(1), stopped, work));
        let again = tokio::time::timeout(Duration::from_secs(60), twice.acquire()).await;
        drop(again.expect("it never looked again").unwrap());
        stop.send(true).unwrap();
        worker.await.unwrap();
    }
}
