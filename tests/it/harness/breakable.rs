//! A key service that panics once when it is told to: a fault of Postern's own, in the middle of whatever asks for a key. It
//! also refuses an organisation's keys, as one does whose key was switched off.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use postern::domain::OrgId;
use postern_kms::{BoxFuture, KeyContext, KeyError, KeyService, KeyStatus, PlainKey};

use super::World;

#[derive(Debug)]
pub struct Breakable {
    inner: Arc<dyn KeyService>,
    order: PathBuf,
    dir: PathBuf,
}

impl Breakable {
    pub fn new(inner: Arc<dyn KeyService>, dir: &Path) -> Self {
        Self {
            inner,
            order: order(dir),
            dir: dir.to_owned(),
        }
    }
}

/// The file that is the order. Whoever obeys removes it: one that is gone proves that it was obeyed.
fn order(dir: &Path) -> PathBuf {
    dir.join("break-a-key")
}

/// Whoever asks the key service next panics; what was unwrapped before has become too old by then.
pub fn break_next(world: &World) {
    world.later(Duration::from_secs(31));
    std::fs::write(order(world.dir.path()), "").unwrap();
}

/// Whether somebody panicked.
pub fn broke(world: &World) -> bool {
    !order(world.dir.path()).exists()
}

/// The file that says whose keys are refused; it grows by a byte with every key that is asked for.
fn switch(dir: &Path, org: &str) -> PathBuf {
    dir.join(format!("switched-off-{org}"))
}

/// An organisation's key is switched off; what was unwrapped before has become too old by then.
pub fn switch_off(world: &World, org: OrgId) {
    world.later(Duration::from_secs(31));
    std::fs::write(switch(world.dir.path(), &org.to_string()), "").unwrap();
}

/// The key is switched on again; returns how often it was asked for meanwhile.
pub fn switch_on(world: &World, org: OrgId) -> usize {
    let switch = switch(world.dir.path(), &org.to_string());
    let asked = std::fs::read(&switch).unwrap().len();
    std::fs::remove_file(switch).unwrap();
    asked
}

impl KeyService for Breakable {
    fn wrap<'a>(
        &'a self,
        key_ref: &'a str,
        context: &'a KeyContext,
        plaintext: &'a [u8; 32],
    ) -> BoxFuture<'a, Result<Vec<u8>, KeyError>> {
        self.inner.wrap(key_ref, context, plaintext)
    }

    fn unwrap<'a>(
        &'a self,
        key_ref: &'a str,
        context: &'a KeyContext,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<PlainKey, KeyError>> {
        Box::pin(async move {
            assert!(std::fs::remove_file(&self.order).is_err(), "told to break");
            let org = context.org.as_deref().unwrap_or_default();
            if let Ok(mut off) = std::fs::File::options().append(true).open(switch(&self.dir, org)) {
                off.write_all(b".").unwrap();
                return Err(KeyError::Disabled);
            }
            self.inner.unwrap(key_ref, context, wrapped).await
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<Vec<KeyStatus>, KeyError>> {
        self.inner.status()
    }
}
