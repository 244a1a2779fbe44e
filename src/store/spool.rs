//! What a provider answered while the database was gone: one file per answer, sealed as the rows would have been.
//!
//! A file is written under another name, synced, renamed, and the directory synced, before anybody is told that it is
//! kept. It holds ids, times, scopes and ciphertext under the org's data key; never a secret in the clear. It is taken
//! away only when the database holds what came of it.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    crypto::{SealedSecret, digest},
    domain::{GrantId, KeyId, OrgId, ScopeSet, Time, grant::Grant},
    failpoints::Failpoint,
};

use super::{SecretKind, SecretRow, disk_turns::DiskTurns};

/// The sealed answer to a refresh, with what it has to be compared with before it is kept.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The tenant.
    pub org: OrgId,
    /// Whose tokens.
    pub grant: GrantId,
    /// The fence of the lease under which the provider was asked.
    pub fence: i64,
    /// The grant's generation when it was asked.
    pub generation: u64,
    /// The epoch at which the grant had been connected then.
    pub connected_epoch: i64,
    /// What the person had consented to then: the secrets are bound to it.
    pub binding: [u8; 32],
    /// What the access token is.
    pub kind: SecretKind,
    /// Sealed for the next generation. Absent where only the refresh token of the answer can be used.
    /// INVARIANT: at least one of the two is there.
    pub access: Option<SecretRow>,
    /// The new refresh token, if one came, sealed for the next generation.
    pub refresh: Option<SecretRow>,
    /// Whether the provider named another account than the grant's.
    pub is_foreign: bool,
}

impl Answered {
    /// The generation of the grant with it.
    #[must_use]
    pub fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    /// The grant as it was when the provider was asked: that is what the secrets are bound to.
    #[must_use]
    pub fn asked_for(&self, grant: &Grant) -> Grant {
        Grant {
            generation: self.generation,
            connected_epoch: self.connected_epoch,
            binding: self.binding,
            ..grant.clone()
        }
    }
}

/// Why an answer is not kept beside the database either.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory or a file cannot be read or written.
    #[error("{path}: {cause}")]
    Io {
        /// Which.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A file is none of ours.
    #[error("{path}: not a spooled answer")]
    Malformed {
        /// Which.
        path: String,
    },
}

/// The directory of spooled answers. Cheap to clone. Whoever waits for it gives up where it hangs.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    held: Mutex<BTreeMap<GrantId, Vec<PathBuf>>>,
    /// Of all but those who keep an answer.
    turns: DiskTurns,
}

impl Spool {
    /// Opens, or makes, the directory. Files that were being written when their process died held nothing that anybody
    /// was promised; they are removed.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: &Path) -> Result<Self, SpoolError> {
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|cause| failed(dir, cause))?;
        let mut held: BTreeMap<GrantId, Vec<PathBuf>> = BTreeMap::new();
        for file in fs::read_dir(dir).map_err(|cause| failed(dir, cause))? {
            let path = file.map_err(|cause| failed(dir, cause))?.path();
            match path.extension().and_then(|kind| kind.to_str()) {
                Some(DRAFT) => {
                    tracing::warn!(path = %path.display(), "an answer was lost while it was being spooled");
                    fs::remove_file(&path).map_err(|cause| failed(&path, cause))?;
                }
                Some(WHOLE) => {
                    // What cannot be read is lost already; that must not keep everybody else's grants from being served.
                    match read(&path) {
                        Ok(answered) => held.entry(answered.grant).or_default().push(path),
                        Err(error) => tracing::error!(cause = %error, "a spooled answer cannot be read"),
                    }
                }
                // An operator put it aside.
                _ => {}
            }
        }
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            held: Mutex::new(held),
            turns: DiskTurns::default(),
        })))
    }

    /// Keeps an answer. When this returns, it survives the process and the machine.
    ///
    /// # Errors
    /// When it cannot be written: then it is lost. When only its name may not survive the machine, it waits as any other. When the
    /// directory hangs: it is kept once that goes on, if the process lives so long.
    pub async fn put(&self, answered: &Answered) -> Result<(), SpoolError> {
        let (this, answered) = (self.clone(), answered.clone());
        // No turn: nothing is left out because something else hangs, and there are no more of them than providers are asked.
        let put = tokio::task::spawn_blocking(move || this.put_now(&answered));
        let put = tokio::time::timeout(self.0.turns.within, put).await;
        let put = put.map_err(|_| failed(&self.0.dir, io::ErrorKind::TimedOut.into()))?;
        put.unwrap_or_else(|_| Err(failed(&self.0.dir, io::Error::other("it stopped unexpectedly"))))
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Self) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let this = self.clone();
        let acted = self.0.turns.take(move || Ok(act(&this))).await;
        acted.unwrap_or_else(|cause| Err(failed(&self.0.dir, cause)))
    }

    fn put_now(&self, answered: &Answered) -> Result<(), SpoolError> {
        // Without this a crash of the machine could take the new name away again.
        self.put_with(answered, |dir| File::open(dir)?.sync_all())
    }

    fn put_with(
        &self,
        answered: &Answered,
        keep_name: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), SpoolError> {
        let (draft, whole) = (self.0.path(answered, DRAFT), self.0.path(answered, WHOLE));
        let written = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&draft)?;
            Failpoint::SpoolDrafted.reached();
            file.write_all(&serde_json::to_vec(&Kept::from(answered))?)?;
            Failpoint::SpoolWritten.reached();
            file.sync_all()?;
            Failpoint::SpoolSynced.reached();
            fs::rename(&draft, &whole)
        };
        if let Err(cause) = written() {
            // What is left of it would only be removed at the next start.
            let _removed = fs::remove_file(&draft);
            return Err(failed(&whole, cause));
        }
        Failpoint::SpoolRenamed.reached();
        let mut held = self.held();
        let paths = held.entry(answered.grant).or_default();
        if !paths.contains(&whole) {
            paths.push(whole.clone());
        }
        drop(held);
        keep_name(&self.0.dir).map_err(|cause| failed(&whole, cause))
    }

    /// Whether an answer for this grant waits.
    #[must_use]
    pub fn holds(&self, grant: GrantId) -> bool {
        self.held().contains_key(&grant)
    }

    /// The grants for which answers wait.
    #[must_use]
    pub fn grants(&self) -> Vec<GrantId> {
        self.held().keys().copied().collect()
    }

    /// The answers that wait for a grant, the oldest first. One whose file is gone waits no more: somebody drained it at the
    /// same time, or moved it away.
    ///
    /// # Errors
    /// When a file cannot be read, or the directory hangs.
    pub async fn of(&self, grant: GrantId) -> Result<Vec<Answered>, SpoolError> {
        self.in_turn(move |this| this.of_now(grant)).await
    }

    fn of_now(&self, grant: GrantId) -> Result<Vec<Answered>, SpoolError> {
        let paths = self.held().get(&grant).cloned().unwrap_or_default();
        let mut answers = Vec::with_capacity(paths.len());
        for path in paths {
            match read(&path) {
                Ok(answered) => answers.push(answered),
                Err(SpoolError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                    self.miss(grant, &path);
                }
                Err(error) => return Err(error),
            }
        }
        answers.sort_by_key(|answered| answered.fence);
        Ok(answers)
    }

    /// Takes an answer away: the database holds what came of it.
    ///
    /// # Errors
    /// When the file cannot be removed; it is then found again at the next start, and compared again.
    pub async fn remove(&self, answered: &Answered) -> Result<(), SpoolError> {
        let answered = answered.clone();
        self.in_turn(move |this| this.remove_now(&answered)).await
    }

    fn remove_now(&self, answered: &Answered) -> Result<(), SpoolError> {
        self.let_go(answered, |path| match fs::remove_file(path) {
            // Whoever drained it at the same time was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        })
    }

    /// Puts an answer aside for an operator: this database knows nothing it could belong to.
    ///
    /// # Errors
    /// When the file cannot be renamed.
    pub async fn set_aside(&self, answered: &Answered) -> Result<(), SpoolError> {
        let answered = answered.clone();
        self.in_turn(move |this| this.let_go(&answered, |path| fs::rename(path, path.with_extension(ASIDE))))
            .await
    }

    fn let_go(
        &self,
        answered: &Answered,
        how: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), SpoolError> {
        let path = self.0.path(answered, WHOLE);
        let gone = how(&path).map_err(|cause| failed(&path, cause));
        forget(&mut self.held(), answered.grant, &path);
        gone
    }

    /// A file was not found.
    fn miss(&self, grant: GrantId, path: &Path) {
        let mut held = self.held();
        // Under the lock: it may have been put there again meanwhile.
        let is_there = path.try_exists().unwrap_or(true);
        if !is_there && forget(&mut held, grant, path) {
            tracing::warn!(grant.id = %grant, path = %path.display(), "a spooled answer for {grant} is gone");
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<GrantId, Vec<PathBuf>>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a file off the list; whether it was on it.
fn forget(held: &mut BTreeMap<GrantId, Vec<PathBuf>>, grant: GrantId, path: &Path) -> bool {
    let Some(paths) = held.get_mut(&grant) else {
        return false;
    };
    let before = paths.len();
    paths.retain(|kept| kept != path);
    let was_held = paths.len() < before;
    if paths.is_empty() {
        held.remove(&grant);
    }
    was_held
}

impl Inner {
    fn path(&self, answered: &Answered, kind: &str) -> PathBuf {
        self.dir
            .join(format!("{}.{}.{kind}", answered.grant, answered.fence))
    }
}

fn read(path: &Path) -> Result<Answered, SpoolError> {
    let text = fs::read(path).map_err(|cause| failed(path, cause))?;
    serde_json::from_slice::<Kept>(&text)
        .ok()
        .and_then(|kept| Answered::try_from(kept).ok())
        .ok_or_else(|| SpoolError::Malformed {
            path: path.display().to_string(),
        })
}

fn failed(path: &Path, cause: io::Error) -> SpoolError {
    SpoolError::Io {
        path: path.display().to_string(),
        cause,
    }
}

/// A file's text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    org: OrgId,
    grant: GrantId,
    fence: i64,
    generation: u64,
    connected_epoch: i64,
    /// base64url.
    binding: String,
    kind: String,
    access: Option<KeptSecret>,
    refresh: Option<KeptSecret>,
    /// Files of earlier versions have none.
    #[serde(default)]
    is_foreign: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptSecret {
    generation: u64,
    odk: KeyId,
    /// base64url.
    sealed: String,
    /// base64url.
    wrapped_dek: String,
    scopes: Option<ScopeSet>,
    expires_at: Option<Time>,
}

/// A text that says something else than it should.
struct NotKept;

impl From<&Answered> for Kept {
    fn from(answered: &Answered) -> Self {
        Self {
            org: answered.org,
            grant: answered.grant,
            fence: answered.fence,
            generation: answered.generation,
            connected_epoch: answered.connected_epoch,
            binding: digest::base64url(&answered.binding),
            kind: answered.kind.to_string(),
            access: answered.access.as_ref().map(KeptSecret::from),
            refresh: answered.refresh.as_ref().map(KeptSecret::from),
            is_foreign: answered.is_foreign,
        }
    }
}

impl TryFrom<Kept> for Answered {
    type Error = NotKept;

    fn try_from(kept: Kept) -> Result<Self, NotKept> {
        if kept.access.is_none() && kept.refresh.is_none() {
            return Err(NotKept);
        }
        Ok(Self {
            org: kept.org,
            grant: kept.grant,
            fence: kept.fence,
            generation: kept.generation,
            connected_epoch: kept.connected_epoch,
            binding: bytes(&kept.binding)?.try_into().map_err(|_| NotKept)?,
            kind: kept.kind.parse().map_err(|_| NotKept)?,
            access: kept.access.map(SecretRow::try_from).transpose()?,
            refresh: kept.refresh.map(SecretRow::try_from).transpose()?,
            is_foreign: kept.is_foreign,
        })
    }
}

impl From<&SecretRow> for KeptSecret {
    fn from(row: &SecretRow) -> Self {
        Self {
            generation: row.generation,
            odk: row.sealed.odk,
            sealed: digest::base64url(&row.sealed.sealed),
            wrapped_dek: digest::base64url(&row.sealed.wrapped_dek),
            scopes: row.scopes.clone(),
            expires_at: row.expires_at,
        }
    }
}

impl TryFrom<KeptSecret> for SecretRow {
    type Error = NotKept;

    fn try_from(kept: KeptSecret) -> Result<Self, NotKept> {
        Ok(Self {
            generation: kept.generation,
            sealed: SealedSecret {
                odk: kept.odk,
                sealed: bytes(&kept.sealed)?,
                wrapped_dek: bytes(&kept.wrapped_dek)?,
            },
            scopes: kept.scopes,
            expires_at: kept.expires_at,
        })
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, NotKept> {
    digest::base64url_decode(text).ok_or(NotKept)
}

/// The ending of a file that is being written.
const DRAFT: &str = "draft";
/// The ending of a file that is kept.
const WHOLE: &str = "answer";
/// The ending of a file that only a person can make sense of.
const ASIDE: &str = "aside";

#[cfg(test)]
mod tests;
