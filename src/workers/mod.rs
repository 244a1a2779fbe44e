//! Background work: sequencing the log, having it witnessed, revoking upstream, asking again what is in doubt,
//! renewing ahead, telling the operator's webhook, sweeping. Each worker looks, does what is due and looks
//! again; what it could not do waits for the next look.

use std::{collections::HashMap, fmt, pin::Pin, sync::Arc, time::Duration};

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
        for worker in periodic(deps) {
            tasks.spawn(every(worker, stopped.clone()));
        }
        tasks.spawn(end_upstream(Arc::clone(deps), stopped));
        Self { tasks, stop }
    }

    /// Asks the workers to stop and waits until each has finished what it holds.
    pub async fn stop(mut self) {
        // Nobody listening means that they have ended already.
        let _ended = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// All that is looked at again and again. Only the worker that asks the providers to end tokens is none of these: it looks
/// again while they are still being asked. Tests on a clock of their own take the looks of this list by hand, and
/// [`upstream::drain`] beside it.
#[must_use]
pub fn periodic(deps: &Arc<Deps>) -> Vec<Worker> {
    let mut workers = vec![
        Worker::new(deps, "sequencer", SEQUENCE_EVERY, |deps| async move {
            sequence::round(&deps).await
        }),
        Worker::new(deps, "fan-out", OUTBOX_EVERY, |deps| async move {
            upstream::fan_out(&deps).await.map(no_more)
        }),
        Worker::new(deps, "refresh", REFRESH_EVERY, |deps| async move {
            // What the provider answered comes before what it is to be asked again.
            refresh::spooled::drain(&deps).await;
            refresh::doubt::ask_again(&deps).await.map(no_more)
        }),
        Worker::new(deps, "renewals", REFRESH_EVERY, |deps| async move {
            refresh::ahead::look(&deps).await.map(no_more)
        }),
        Worker::new(deps, "notices", REFRESH_EVERY, |deps| async move {
            notify::tell(&deps).await.map(no_more)
        }),
        Worker::new(deps, "replica", REPLICA_EVERY, |deps| async move {
            deps.store
                .renew_replica()
                .await
                .map(no_more)
                .map_err(Refusal::from)
        }),
        Worker::new(deps, "others", FOLLOW_EVERY, |deps| async move {
            seal::keep_up(&deps).await.map(no_more)
        }),
        Worker::new(deps, "sweep", SWEEP_EVERY, |deps| async move {
            sweep::run(&deps).await.map(no_more)
        }),
    ];
    for sink in &deps.sinks {
        let sink = Arc::clone(sink);
        // Each sink has its own worker: a slow one holds up nobody.
        workers.push(Worker::new(deps, "sink", SINK_EVERY, move |deps| {
            let sink = Arc::clone(&sink);
            async move { sinks::drain(&deps, &*sink).await.map(no_more) }
        }));
    }
    if let Some(witness) = &deps.witness {
        let witness = Arc::clone(witness);
        workers.push(Worker::new(deps, "witness", SINK_EVERY, move |deps| {
            let witness = Arc::clone(&witness);
            async move { witness::round(&deps, &witness).await.map(no_more) }
        }));
    }
    workers
}

/// For those that do all there is in one look.
fn no_more<T>(_done: T) -> bool {
    false
}

/// What is looked at again and again.
pub struct Worker {
    /// What it is called in the log.
    pub name: &'static str,
    pause: Duration,
    look: Box<dyn Fn() -> Look + Send + Sync>,
}

/// A look under way.
type Look = Pin<Box<dyn Future<Output = Result<bool, Refusal>> + Send>>;

impl Worker {
    fn new<F, R>(deps: &Arc<Deps>, name: &'static str, pause: Duration, look: F) -> Self
    where
        F: Fn(Arc<Deps>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<bool, Refusal>> + Send + 'static,
    {
        let deps = Arc::clone(deps);
        let look = move || -> Look { Box::pin(look(Arc::clone(&deps))) };
        Self {
            name,
            pause,
            look: Box::new(look),
        }
    }

    /// Does what is due; whether there is more, for which to look again at once.
    ///
    /// # Errors
    /// When it has to wait for something, for the database mostly: then the next look goes on.
    pub async fn look(&self) -> Result<bool, Refusal> {
        (self.look)().await
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Asks the providers to end what is due, each in a task of its own: a slow one holds up nobody else's.
async fn end_upstream(deps: Arc<Deps>, mut stopped: watch::Receiver<bool>) {
    let mut rounds = JoinSet::new();
    let mut busy: HashMap<Id, String> = HashMap::new();
    while !*stopped.borrow() {
        // In a set of its own, as every look.
        let (mut look, of) = (JoinSet::new(), Arc::clone(&deps));
        look.spawn(async move { upstream::providers(&of).await });
        match look.join_next().await {
            Some(Ok(Ok(providers))) => {
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
            Some(Ok(Err(refusal))) => {
                tracing::warn!(cause = %refusal, "upstream revocations have to wait");
            }
            Some(Err(_)) | None => {
                tracing::error!("a look for upstream revocations stopped unexpectedly and is begun anew");
            }
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

/// Looks, waits, looks again, until told to stop; there is no pause while there is more. Work under way is never cut off, and
/// work that panics is begun anew at the next look: nobody else would notice that a worker is gone.
async fn every(worker: Worker, mut stopped: watch::Receiver<bool>) {
    let name = worker.name;
    while !*stopped.borrow() {
        // In a set: whoever drops the workers stops this one, too.
        let mut look = JoinSet::new();
        look.spawn((worker.look)());
        match look.join_next().await {
            Some(Ok(Ok(true))) => continue,
            Some(Ok(Err(refusal))) => {
                tracing::warn!(worker = name, cause = %refusal, "{name} has to wait");
            }
            Some(Err(_)) => tracing::error!(worker = name, "{name} stopped unexpectedly and is begun anew"),
            Some(Ok(Ok(false))) | None => {}
        }
        tokio::select! {
            () = tokio::time::sleep(worker.pause) => {}
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
pub(crate) const REPLICA_EVERY: Duration = Duration::from_secs(3);
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
            move || -> Look {
                let (looks, twice) = (Arc::clone(&looks), Arc::clone(&twice));
                Box::pin(async move {
                    assert!(
                        looks.fetch_add(1, Ordering::SeqCst) > 0,
                        "the first look goes wrong"
                    );
                    twice.add_permits(1);
                    Ok(false)
                })
            }
        };
        let worker = Worker {
            name: "test",
            pause: Duration::from_millis(1),
            look: Box::new(work),
        };
        let worker = tokio::spawn(every(worker, stopped));
        let again = tokio::time::timeout(Duration::from_secs(60), twice.acquire()).await;
        drop(again.expect("it never looked again").unwrap());
        stop.send(true).unwrap();
        worker.await.unwrap();
    }
}
