//! What is broken, and mended again.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use rustix::process::Signal;
use sqlx::{Connection as _, SqliteConnection};

use crate::{
    deployment::{Deployment, Store},
    door::Way,
    load::{Load, Want},
    replica::Replica,
};

/// One dependency, broken in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    DatabaseGone,
    DatabaseSilent,
    DiskFull,
    OwnDiskFull,
    KeyServiceDown,
    ClockAhead,
    ClockBehind,
    ProviderDown,
    ProviderSilent,
    ReplicaKilled,
    ReplicaStopped,
    ClientsHangUp,
}

impl Fault {
    /// All that can befall a deployment.
    pub(crate) fn all(store: &Store) -> Vec<Self> {
        let mut all = vec![
            Self::DatabaseSilent,
            Self::DiskFull,
            Self::KeyServiceDown,
            Self::ClockAhead,
            Self::ClockBehind,
            Self::ProviderDown,
            Self::ProviderSilent,
            Self::ReplicaKilled,
            Self::ReplicaStopped,
            Self::ClientsHangUp,
        ];
        // A file that was moved away is still there for whoever has it open: SQLite's database does not go while it runs. And
        // it is on the process's own disk.
        if let Store::Postgres(_) = store {
            all.extend([Self::DatabaseGone, Self::OwnDiskFull]);
        }
        all
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DatabaseGone => "database gone",
            Self::DatabaseSilent => "database silent",
            Self::DiskFull => "disk full",
            Self::OwnDiskFull => "own disk full",
            Self::KeyServiceDown => "key service down",
            Self::ClockAhead => "clock 3 h ahead",
            Self::ClockBehind => "clock 3 h behind",
            Self::ProviderDown => "provider down",
            Self::ProviderSilent => "provider silent",
            Self::ReplicaKilled => "replica killed",
            Self::ReplicaStopped => "replica stopped",
            Self::ClientsHangUp => "clients hang up",
        }
    }

    /// How long it lasts.
    pub(crate) fn lasts(self, store: &Store) -> Duration {
        match self {
            // Longer than anybody waits for a statement, or for the place of the one who writes.
            Self::DatabaseSilent => match store {
                Store::Sqlite(_) => Duration::from_secs(7),
                Store::Postgres(_) => Duration::from_secs(14),
            },
            // Longer than a receipt lives.
            Self::ReplicaStopped => Duration::from_millis(6500),
            // Longer than a key may be used that was taken away (P11 of SECURITY.md).
            Self::KeyServiceDown => Duration::from_secs(7),
            _ => Duration::from_secs(3),
        }
    }

    /// How long after it struck a grant is to be ended: in its middle, or once nobody holds a key any more that was taken
    /// away.
    pub(crate) fn revoked_after(self, store: &Store) -> Duration {
        match self {
            Self::KeyServiceDown => Duration::from_millis(5500),
            _ => self.lasts(store) / 2,
        }
    }

    /// From when on nothing of this kind may be released while it lasts; `None` if it may.
    pub(crate) fn forbids(self, want: Want) -> Option<Duration> {
        let at_once = Some(Duration::from_millis(200));
        match self {
            Self::DatabaseGone | Self::DatabaseSilent | Self::DiskFull => at_once,
            Self::KeyServiceDown => Some(Duration::from_millis(5200)),
            Self::ProviderDown | Self::ProviderSilent => at_once.filter(|_| want != Want::Token),
            Self::OwnDiskFull
            | Self::ClockAhead
            | Self::ClockBehind
            | Self::ReplicaKilled
            | Self::ReplicaStopped
            | Self::ClientsHangUp => None,
        }
    }

    /// What the probe of the replica it befalls has to say before it ends, if it lasts long enough for that.
    pub(crate) fn obstacle(self, store: &Store) -> Option<&'static str> {
        let is_server = matches!(store, Store::Postgres(_));
        match self {
            Self::DatabaseGone => Some("store"),
            Self::KeyServiceDown => Some("keys"),
            Self::ClockAhead | Self::ClockBehind => is_server.then_some("clock"),
            _ => None,
        }
    }

    /// Whether a revocation has to be answered while it lasts: everything it needs is there.
    pub(crate) fn lets_revoke(self, replicas: usize) -> bool {
        match self {
            Self::DatabaseGone | Self::DatabaseSilent | Self::DiskFull => false,
            Self::ReplicaKilled | Self::ReplicaStopped => replicas > 1,
            // Ending a grant needs no key; only its token at the provider waits for one.
            Self::KeyServiceDown
            | Self::OwnDiskFull
            | Self::ClockAhead
            | Self::ClockBehind
            | Self::ProviderDown
            | Self::ProviderSilent
            | Self::ClientsHangUp => true,
        }
    }

    /// Whether calls may stay without an outcome until the sweeper gives them one, five minutes later.
    pub(crate) fn leaves_calls_open(self) -> bool {
        matches!(self, Self::ReplicaKilled)
    }

    /// Whether tokens have to be renewed just when it strikes. A provider that is away itself would only be left alone for a
    /// while after it.
    pub(crate) fn strikes_renewals(self) -> bool {
        !matches!(self, Self::ProviderDown | Self::ProviderSilent)
    }

    /// Whether a provider's answer can be lost, so that it has to be asked for again: it does not arrive, whoever has it dies or
    /// stands still, or neither the database nor the spool can take it.
    pub(crate) fn may_lose_answers(self) -> bool {
        matches!(
            self,
            Self::ProviderDown
                | Self::ProviderSilent
                | Self::ReplicaKilled
                | Self::ReplicaStopped
                | Self::DiskFull
        )
    }

    /// Whether nothing can be written while it lasts.
    pub(crate) fn breaks_the_store(self) -> bool {
        matches!(self, Self::DatabaseGone | Self::DatabaseSilent | Self::DiskFull)
    }

    pub(crate) async fn strike(self, whole: &Deployment, load: &Load) {
        match (self, &whole.store) {
            (Self::DatabaseGone, store) => {
                if let Store::Postgres(server) = store {
                    server.crash();
                }
            }
            (Self::DatabaseSilent, Store::Postgres(server)) => server.signal(Signal::STOP),
            (Self::DatabaseSilent, Store::Sqlite(path)) => {
                // Another process writes, and does not come to an end.
                let mut held = SqliteConnection::connect(&path.to_string_lossy()).await.unwrap();
                sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut held).await.unwrap();
                *whole.held.lock().await = Some(held);
            }
            (Self::DiskFull, store) => {
                if let Store::Postgres(server) = store {
                    server.fill_disk();
                }
                limit_files(whole, Some(0));
            }
            // It takes a part of the next line.
            (Self::OwnDiskFull, _) => whole.replicas.iter().for_each(|replica| {
                let outside = std::fs::metadata(replica.dir.join("checkpoints.jsonl")).unwrap();
                replica.limit_files(Some(outside.len() + 50));
            }),
            (Self::KeyServiceDown, _) => std::fs::rename(whole.kek(), away(&whole.kek())).unwrap(),
            (Self::ClockAhead, _) => unlucky(whole).move_clock(3 * 3600),
            (Self::ClockBehind, _) => unlucky(whole).move_clock(-3 * 3600),
            (Self::ProviderDown, _) => whole.door.set(Way::Shut),
            (Self::ProviderSilent, _) => whole.door.set(Way::Silent),
            (Self::ReplicaKilled, _) => unlucky(whole).kill(),
            (Self::ReplicaStopped, _) => unlucky(whole).signal(Signal::STOP),
            (Self::ClientsHangUp, _) => load.hangs_up.store(true, Ordering::Relaxed),
        }
    }

    pub(crate) async fn heal(self, whole: &Deployment, load: &Load) {
        match (self, &whole.store) {
            (Self::DatabaseGone, store) => {
                if let Store::Postgres(server) = store {
                    server.start_again();
                }
            }
            (Self::DatabaseSilent, Store::Postgres(server)) => server.signal(Signal::CONT),
            (Self::DatabaseSilent, Store::Sqlite(_)) => {
                let held = whole.held.lock().await.take().unwrap();
                held.close().await.unwrap();
            }
            (Self::DiskFull, store) => {
                if let Store::Postgres(server) = store {
                    server.make_room();
                }
                limit_files(whole, None);
            }
            (Self::OwnDiskFull, _) => limit_files(whole, None),
            (Self::KeyServiceDown, _) => std::fs::rename(away(&whole.kek()), whole.kek()).unwrap(),
            (Self::ClockAhead | Self::ClockBehind, _) => unlucky(whole).move_clock(0),
            (Self::ProviderDown | Self::ProviderSilent, _) => whole.door.set(Way::Open),
            (Self::ReplicaKilled, _) => unlucky(whole).start().await,
            (Self::ReplicaStopped, _) => unlucky(whole).signal(Signal::CONT),
            (Self::ClientsHangUp, _) => load.hangs_up.store(false, Ordering::Relaxed),
        }
    }
}

/// The replica that something befalls; the first serves the browsers.
pub(crate) fn unlucky(whole: &Deployment) -> &Replica {
    whole.replicas.last().unwrap()
}

/// Lets no replica's files grow beyond this, if anything.
fn limit_files(whole: &Deployment, most: Option<u64>) {
    whole
        .replicas
        .iter()
        .for_each(|replica| replica.limit_files(most));
}

fn away(path: &Path) -> PathBuf {
    path.with_extension("away")
}
