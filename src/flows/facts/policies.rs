//! Compiled policies, org by org: compiled once for as long as the texts stand, all against one vocabulary, and held of
//! the orgs that asked last. Views hold them too, so an org whose set is given up loses its views; what calls still have of
//! it is shared until the last of them ends.
//!
//! Compiling takes a processor for seconds where texts are long. It is done apart from the runtime's workers, one piece at
//! a time, first come first served, and an org comes once at a time.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use tokio::sync::OwnedMutexGuard;

use crate::{
    connectors::Catalogue,
    domain::{OrgId, decision::PolicyRef},
    flows::{Refusal, question},
    policy::{CompiledPolicies, PolicyFinding, PolicySources, Vocabulary},
    store::{PolicyRow, PolicyText},
};

/// The policies of the orgs that asked last.
#[derive(Debug, Default)]
pub(super) struct Policies {
    /// What policies may name: the catalogue does not change while the process runs.
    vocabulary: Arc<OnceLock<Arc<Vocabulary>>>,
    sets: Mutex<Sets<CompiledPolicies>>,
    /// The orgs that compile or wait for it.
    compiling: Mutex<HashMap<OrgId, Weak<tokio::sync::Mutex<()>>>>,
    /// Held by whoever compiles: one at a time.
    compiler: Arc<tokio::sync::Mutex<()>>,
}

/// Policies as they were read, and what they are known by.
#[derive(Debug)]
pub(super) struct Texts {
    sources: PolicySources,
    reference: PolicyRef,
}

impl From<PolicyRow> for Texts {
    fn from(row: PolicyRow) -> Self {
        let sources = question::sources(row.version, row.org, row.agent);
        // SECURITY: a set is known by its texts. The version counts in the database: an older one, put back under this
        // process, gives the same number to other texts. The row's own digest is only what was written beside them.
        let reference = sources.reference();
        Self { sources, reference }
    }
}

impl Policies {
    /// These very texts, if they were compiled and anybody has them.
    pub(super) fn find(&self, org: OrgId, texts: &Texts) -> Option<Arc<CompiledPolicies>> {
        self.sets().find(org, &texts.reference, weight(&texts.sources))
    }

    /// The org's set is in use, by whoever has it at hand.
    pub(super) fn needed_by(&self, org: OrgId) {
        self.sets().ask(org);
    }

    /// Whether this set of the org is held here.
    pub(super) fn holds(&self, org: OrgId, set: &Arc<CompiledPolicies>) -> bool {
        let sets = self.sets();
        sets.orgs.get(&org).is_some_and(|of| Arc::ptr_eq(&of.set, set))
    }

    /// The sets that are held here no longer, each told once: whoever is told forgets the views that hold them.
    pub(super) fn given_up(&self) -> Vec<(OrgId, Arc<CompiledPolicies>)> {
        mem::take(&mut self.sets().given_up)
    }

    /// The org has its one place among those that compile until this is dropped.
    pub(super) async fn alone(&self, org: OrgId) -> OwnedMutexGuard<()> {
        let place = {
            let mut compiling = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
            compiling.retain(|_, place| place.strong_count() > 0);
            let known = compiling.get(&org).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let place = Arc::default();
                compiling.insert(org, Arc::downgrade(&place));
                place
            })
        };
        place.lock_owned().await
    }

    /// The org's policies, compiled unless these very texts are at hand.
    ///
    /// # Errors
    /// When they do not compile.
    pub(super) async fn compiled(
        &self,
        catalogue: &Catalogue,
        org: OrgId,
        texts: Texts,
    ) -> Result<Arc<CompiledPolicies>, Refusal> {
        if let Some(set) = self.find(org, &texts) {
            return Ok(set);
        }
        let Texts { sources, reference } = texts;
        let weight = weight(&sources);
        let (vocabulary, catalogue) = (Arc::clone(&self.vocabulary), catalogue.clone());
        let compile = move || question::compile(&sources, &shared(&vocabulary, &catalogue)?);
        let compiled = self.apart(compile).await??;
        Ok(self.sets().keep(org, reference, weight, Arc::new(compiled)))
    }

    /// What is wrong with policies; nothing if they compile.
    ///
    /// # Errors
    /// When it could not be found out.
    pub(super) async fn findings(
        &self,
        catalogue: &Catalogue,
        org: Vec<PolicyText>,
        agent: Vec<PolicyText>,
    ) -> Result<Vec<PolicyFinding>, Refusal> {
        let catalogue = catalogue.clone();
        let compile = move || question::compile_texts(&catalogue, 0, &org, &agent).err();
        Ok(self.apart(compile).await?.unwrap_or_default())
    }

    /// Does this where it keeps no worker of the runtime, after what came before. It has its place until it is done, even if
    /// whoever waits for it goes away.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let place = Arc::clone(&self.compiler).lock_owned().await;
        let work = move || {
            let _place = place;
            work()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Refusal::Broken)
    }

    fn sets(&self) -> MutexGuard<'_, Sets<CompiledPolicies>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one vocabulary; made if it is not there yet.
fn shared(known: &OnceLock<Arc<Vocabulary>>, catalogue: &Catalogue) -> Result<Arc<Vocabulary>, Refusal> {
    if let Some(vocabulary) = known.get() {
        return Ok(Arc::clone(vocabulary));
    }
    let vocabulary = question::vocabulary(catalogue)?;
    Ok(Arc::clone(known.get_or_init(|| vocabulary)))
}

/// INVARIANT: never more than [`MOST`] is held, and of an org one set at most.
#[derive(Debug)]
struct Sets<P> {
    orgs: HashMap<OrgId, OfOrg<P>>,
    held: usize,
    /// The last set of each org that is not held, as long as others have it.
    elsewhere: HashMap<OrgId, (PolicyRef, Weak<P>)>,
    /// What is held no longer, until its views are forgotten.
    given_up: Vec<(OrgId, Arc<P>)>,
    /// How often was asked until now: a clock for who asked last.
    asked: u64,
}

#[derive(Debug)]
struct OfOrg<P> {
    reference: PolicyRef,
    set: Arc<P>,
    weight: usize,
    asked: u64,
}

impl<P> Default for Sets<P> {
    fn default() -> Self {
        Self {
            orgs: HashMap::new(),
            held: 0,
            elsewhere: HashMap::new(),
            given_up: Vec::new(),
            asked: 0,
        }
    }
}

impl<P> Sets<P> {
    fn ask(&mut self, org: OrgId) {
        self.asked += 1;
        if let Some(of) = self.orgs.get_mut(&org) {
            of.asked = self.asked;
        }
    }

    /// The org's set, if it is this one and anybody has it.
    fn find(&mut self, org: OrgId, reference: &PolicyRef, weight: usize) -> Option<Arc<P>> {
        self.asked += 1;
        if let Some(of) = self.orgs.get_mut(&org)
            && of.reference == *reference
        {
            of.asked = self.asked;
            return Some(Arc::clone(&of.set));
        }
        let (known, set) = self.elsewhere.get(&org)?;
        let set = set.upgrade().filter(|_| *known == *reference)?;
        // Not in place of what was put in force since.
        if !self.orgs.contains_key(&org) {
            self.hold(org, reference.clone(), weight, &set);
        }
        Some(set)
    }

    /// Holds the set in place of the one that the org had before. What was compiled of the same texts at the same time
    /// and came first stays: everybody shares that.
    fn keep(&mut self, org: OrgId, reference: PolicyRef, weight: usize, set: Arc<P>) -> Arc<P> {
        if let Some(first) = self.find(org, &reference, weight) {
            return first;
        }
        self.forget(org);
        self.hold(org, reference, weight, &set);
        set
    }

    /// Holds a set of an org that has none here.
    fn hold(&mut self, org: OrgId, reference: PolicyRef, weight: usize, set: &Arc<P>) {
        if weight > LARGEST {
            self.elsewhere.insert(org, (reference, Arc::downgrade(set)));
            return;
        }
        self.make_room(weight);
        self.held += weight;
        let of = OfOrg {
            reference,
            set: Arc::clone(set),
            weight,
            asked: self.asked,
        };
        self.orgs.insert(org, of);
    }

    /// Gives up the sets of those who have not asked for the longest time. An org holds one set, of a part of all that may
    /// be held: however large its policies are and however often they change, the rest is the others'.
    fn make_room(&mut self, weight: usize) {
        while self.held + weight > MOST {
            let longest = self.orgs.iter().min_by_key(|(_, of)| of.asked);
            let Some((&org, _)) = longest else { return };
            self.forget(org);
        }
    }

    fn forget(&mut self, org: OrgId) {
        let Some(of) = self.orgs.remove(&org) else { return };
        self.held -= of.weight;
        self.elsewhere.retain(|_, (_, set)| set.strong_count() > 0);
        self.elsewhere
            .insert(org, (of.reference, Arc::downgrade(&of.set)));
        self.given_up.push((org, of.set));
    }
}

/// The bytes of the texts; an empty set takes something, too.
fn weight(sources: &PolicySources) -> usize {
    let files = sources.org.iter().chain(&sources.agent);
    files.map(|file| file.text.len()).sum::<usize>().max(LEAST)
}

/// What is held at most, in bytes of texts. What is made of them is about fifty times as much, so 100 MiB: of hundreds of orgs
/// with the usual few kilobytes, and of 2,048 at most.
const MOST: usize = 1 << 21;
/// What one org's texts may weigh to be held: all that two calls of `apply` (512 KiB) can put in force. Longer ones would be
/// compiled for every call that finds nobody else's.
const LARGEST: usize = MOST / 2;
/// What a set weighs at least.
const LEAST: usize = 1 << 10;

#[cfg(test)]
mod tests;
