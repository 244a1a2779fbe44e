//! What is remembered outside the database, in one file per replica: the last checkpoint of every org, what may
//! have lost something whenever an epoch moved on, and that the database was found to be another one. A database that is
//! older than this file says so when it is opened.
//!
//! JSON lines, only ever appended, synced before anybody is told; compacted into a new file that replaces the old one
//! in one step. It must never hold a secret, and never grow without bound: of each org the last [`MOST_MOVES`] moves
//! are told apart, older ones together count as one that ended everything.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, Metadata, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Take},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

use super::{disk_turns::DiskTurns, lock};
use crate::domain::{EntryId, OrgId, entry::Epoch};

pub use following::OrgState;
use kept::anything;
pub(super) use kept::{Fact, Heard, Line};
pub use kept::{Kept, NO_OUTSIDE_CHECKPOINT};
use waiting::Waiting;

mod following;
mod kept;
mod waiting;

/// How far an org has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// The counter of its epoch.
    pub counter: i64,
    /// The size of its log.
    pub size: u64,
}

impl Reached {
    /// Whether anything here lies behind the other.
    #[must_use]
    pub fn is_behind(self, other: Self) -> bool {
        self.counter < other.counter || self.size < other.size
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// It cannot be read or written.
    #[error("{path}: {cause}")]
    Io {
        /// Which file.
        path: String,
        /// What the system said.
        cause: io::Error,
    },
    /// Another process writes it. Each would replace the other's file and remember nothing any more.
    #[error("{path}: another process is using this data directory; every process has its own")]
    InUse {
        /// Which file.
        path: String,
    },
    /// A line is none of ours: the file proves nothing.
    #[error("{path}: line {line} is damaged; move the file away and run `postern recover`")]
    Damaged {
        /// Which file.
        path: String,
        /// From 1.
        line: usize,
    },
}

/// The open file of this replica.
#[derive(Debug)]
pub struct Outside {
    path: PathBuf,
    /// Lines that are not in the file yet. Adding one never waits for the disk.
    waiting: Mutex<Waiting>,
    /// How far every org had come of which it says anything, or is about to.
    known: Mutex<HashMap<OrgId, Heard>>,
    file: Mutex<Appending>,
    /// Turns of those who write. Those who read have their own: a long file takes long to read, and no write waits for that.
    writing: DiskTurns,
    reading: DiskTurns,
    lock: File,
}

#[derive(Debug)]
struct Appending {
    file: File,
    id: FileId,
    bytes: u64,
    lines: usize,
    compact_at: usize,
}

/// A file among all of this machine, wherever it is moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for FileId {
    fn from(of: &Metadata) -> Self {
        Self {
            device: of.dev(),
            inode: of.ino(),
        }
    }
}

impl Outside {
    /// Opens, or makes, the file of the replica whose data directory is `dir`, and holds the directory until this is
    /// released or dropped.
    ///
    /// # Errors
    /// When another process holds it, it cannot be read or written, or a line in it is damaged.
    pub fn open(dir: &Path) -> Result<Self, OutsideError> {
        let path = dir.join("checkpoints.jsonl");
        // SECURITY: opening replaces the file. A process that went on writing the old one would forget what it revokes.
        let lock = lock::take(&path.with_extension("lock")).map_err(|cause| failed(&path, cause))?;
        let Some(lock) = lock else {
            return Err(OutsideError::InUse {
                path: path.display().to_string(),
            });
        };
        let kept = read(&path, || ())?;
        let appending = compact(&path, &kept, || {}).map_err(|cause| failed(&path, cause))?;
        Ok(Self {
            path,
            waiting: Mutex::default(),
            known: Mutex::new(kept.iter().map(|(org, kept)| (*org, kept.heard())).collect()),
            file: Mutex::new(appending),
            writing: DiskTurns::default(),
            reading: DiskTurns::default(),
            lock,
        })
    }

    /// Lets another process have the directory, unless it hangs: whoever acts there may yet write. Nothing may be added any more.
    pub(super) async fn release(self: &Arc<Self>) {
        // What fails here ends with the process.
        let unlocked = self.on_disk(&self.writing, |this| {
            // Whoever seals all takes no turn.
            let _file = held(&this.file);
            this.lock.unlock()
        });
        let _unlocked = unlocked.await;
    }

    /// Everything the file says, by org.
    ///
    /// # Errors
    /// When it cannot be read or a line is damaged.
    pub fn kept(&self) -> Result<BTreeMap<OrgId, Kept>, OutsideError> {
        let writing = held(&self.file);
        let opened = open(&self.path)?;
        // Changes wait for the lock. What is there by now stays as it is: lines come after it, another file in its place.
        drop(writing);
        fold(&self.path, opened, || self.reading.step())
    }

    /// Takes lines; [`Outside::flush`] brings them to the disk, also a later one of somebody else.
    pub(super) fn add(&self, lines: impl IntoIterator<Item = Line>) {
        let lines: Vec<Line> = lines.into_iter().collect();
        let mut known = held(&self.known);
        for line in &lines {
            let heard = known.entry(line.org).or_insert_with(|| Heard::new(line.epoch));
            heard.hear(line);
        }
        drop(known);
        held(&self.waiting).add(lines);
    }

    /// Brings every line taken so far to the disk.
    ///
    /// # Errors
    /// When the disk does not take them: they stay, for the next attempt. [`io::ErrorKind::TimedOut`] if the directory hangs: they
    /// are written by whoever has the turn, or by a later flush.
    pub async fn flush(self: &Arc<Self>) -> io::Result<()> {
        self.on_disk(&self.writing, Self::flush_now).await
    }

    /// How far an org had come when the file last heard of it; `None` if it never has.
    pub(super) fn knows(&self, org: OrgId) -> Option<Heard> {
        held(&self.known).get(&org).copied()
    }

    /// The newest entry of which it has heard, but for the orgs that are left out, with its org and the epoch known of that.
    pub(super) fn newest(&self, is_left_out: impl Fn(OrgId) -> bool) -> Option<(OrgId, Epoch, EntryId)> {
        let known = held(&self.known);
        let heard = known.iter().filter(|(org, _)| !is_left_out(**org));
        let newest = heard.filter_map(|(org, heard)| Some((*org, heard.epoch, heard.newest()?)));
        newest.max_by_key(|(_, _, entry)| *entry)
    }

    /// How far every org had come of which it says anything.
    pub(super) fn knows_all(&self) -> HashMap<OrgId, Reached> {
        let known = held(&self.known);
        known.iter().map(|(org, heard)| (*org, heard.reached())).collect()
    }

    /// Writes of every org that it knows that the database is another one, before it returns: whatever becomes of the process,
    /// and however far that database counts on meanwhile, the next one starts sealed. If the directory hangs, others still have to
    /// hear of it: then it is written once that goes on.
    pub(super) fn seal_all(self: &Arc<Self>, why: &str) {
        let known: Vec<(OrgId, Heard)> = held(&self.known)
            .iter()
            .map(|(org, heard)| (*org, *heard))
            .collect();
        self.add(known.into_iter().map(|(org, heard)| Line {
            org,
            epoch: heard.epoch,
            entry: None,
            fact: Fact::Sealed { why: why.to_owned() },
        }));
        let (done, flushed) = mpsc::channel();
        let this = Arc::clone(self);
        let flushing = thread::Builder::new().spawn(move || {
            let flushed = this.flush_now();
            // Whoever hears of it may give the directory to another process.
            drop(this);
            let _nobody_waits = done.send(flushed);
        });
        let flushed = flushing.and_then(|_| {
            let timed_out = |_| Err(io::ErrorKind::TimedOut.into());
            flushed
                .recv_timeout(self.writing.within)
                .unwrap_or_else(timed_out)
        });
        waits(flushed);
    }

    /// Adds orgs that it says nothing of yet, or that are sealed because it did not: all of them or, whenever the process
    /// dies, none.
    ///
    /// # Errors
    /// When the disk does not take them: the file says what it said.
    pub(super) async fn adopt(self: &Arc<Self>, lines: Vec<Line>) -> io::Result<()> {
        self.on_disk(&self.writing, |this| {
            let mut appending = held(&this.file);
            appending.expect_at(&this.path)?;
            let mut kept = read(&this.path, || this.step()).map_err(io::Error::other)?;
            let mut adopted = BTreeMap::new();
            for line in lines {
                // What the process has written of the org itself meanwhile is newer.
                if kept.get(&line.org).is_none_or(Kept::is_stranger) {
                    hear(&mut adopted, line);
                }
            }
            // Of a stranger nothing is known; of another, what the process has added meanwhile comes behind this in the file.
            let reached: Vec<_> = adopted
                .iter()
                .map(|(org, adopted)| (*org, adopted.heard(), !kept.contains_key(org)))
                .collect();
            kept.append(&mut adopted);
            *appending = compact(&this.path, &kept, || this.step())?;
            let mut known = held(&this.known);
            for (org, heard, is_new) in reached {
                let own = known.get(&org).copied().filter(|_| is_new);
                known.insert(org, own.map_or(heard, |own| own.later(heard)));
            }
            Ok(())
        })
        .await
    }

    async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        turns: &DiskTurns,
        act: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let this = Arc::clone(self);
        turns.take(move || act(&this)).await
    }

    fn flush_now(&self) -> io::Result<()> {
        let mut appending = held(&self.file);
        let at_its_place = appending.expect_at(&self.path);
        let lines = held(&self.waiting).take();
        if lines.is_empty() {
            return at_its_place;
        }
        if let Err(error) = appending.append(&lines) {
            held(&self.waiting).put_back(lines);
            return Err(error);
        }
        // Whoever puts the file back finds them in it.
        at_its_place?;
        if appending.lines > appending.compact_at
            && let Err(error) = self.compact_now(&mut appending)
        {
            // What was written is there; the file only stays long. Nor is all of it read again with every line.
            tracing::error!(cause = %error, "the file outside the database cannot be compacted; it is tried again later");
            appending.compact_at = appending.lines + COMPACT_AFTER;
            // A full disk has room for what comes next instead.
            let _removed = std::fs::remove_file(unfinished(&self.path));
        }
        Ok(())
    }

    fn compact_now(&self, appending: &mut Appending) -> io::Result<()> {
        appending.expect_at(&self.path)?;
        let kept = read(&self.path, || self.step()).map_err(io::Error::other)?;
        *appending = compact(&self.path, &kept, || self.step())?;
        Ok(())
    }

    /// Whoever has the file has come on. Those who read wait for it, too.
    fn step(&self) {
        self.writing.step();
        self.reading.step();
    }
}

impl Appending {
    /// Whether the path still leads to the file. Where it was moved away or another one stands in its place, nobody would find
    /// what is written, and compacting would forget all of it.
    fn expect_at(&self, path: &Path) -> io::Result<()> {
        let found = match std::fs::metadata(path) {
            Ok(found) => Some(FileId::from(&found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if found == Some(self.id) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{} was moved away or replaced while it was in use: put that very file back, a copy will not do",
            path.display()
        )))
    }

    fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        // INVARIANT: no half line stays before a whole one, and no hole: a disk that fills up takes a part of what is written.
        self.file.set_len(self.bytes)?;
        let written = self.file.write_all_at(&text, self.bytes);
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            // Nobody is told of it. If even that fails, it is cut before anything else is written.
            let _cut = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += u64::try_from(text.len()).unwrap_or(0);
        self.lines += lines.len();
        Ok(())
    }
}

/// Everything the file says.
fn read(path: &Path, step: impl Fn()) -> Result<BTreeMap<OrgId, Kept>, OutsideError> {
    fold(path, open(path)?, step)
}

/// The file up to where it ends now; `None` where there is none.
fn open(path: &Path) -> Result<Option<Take<File>>, OutsideError> {
    let opened = File::open(path).and_then(|file| {
        let bytes = file.metadata()?.len();
        Ok(file.take(bytes))
    });
    match opened {
        Ok(whole) => Ok(Some(whole)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed(path, cause)),
    }
}

/// Folds the lines, each of them a `step`. The last one may be half: the process died while it wrote, and nobody was told of it.
fn fold(
    path: &Path,
    whole: Option<Take<File>>,
    step: impl Fn(),
) -> Result<BTreeMap<OrgId, Kept>, OutsideError> {
    let mut kept = BTreeMap::new();
    let Some(whole) = whole else { return Ok(kept) };
    let mut reader = BufReader::new(whole);
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        reader
            .read_until(b'\n', &mut text)
            .map_err(|cause| failed(path, cause))?;
        if text.last() != Some(&b'\n') {
            break;
        }
        let line: Line = serde_json::from_slice(&text).map_err(|_| OutsideError::Damaged {
            path: path.display().to_string(),
            line: number,
        })?;
        hear(&mut kept, line);
        step();
    }
    Ok(kept)
}

fn hear(kept: &mut BTreeMap<OrgId, Kept>, line: Line) {
    kept.entry(line.org)
        .or_insert_with(|| Kept::before(&line))
        .hear(line);
}

/// Where the compacted file is written before it takes the old one's place.
fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Writes what is worth keeping into a new file and puts it in the old one's place.
fn compact(path: &Path, kept: &BTreeMap<OrgId, Kept>, step: impl Fn()) -> io::Result<Appending> {
    let unfinished = unfinished(path);
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    let mut appending = Appending {
        id: FileId::from(&file.metadata()?),
        file,
        bytes: 0,
        lines: 0,
        compact_at: 0,
    };
    let lines: Vec<Line> = kept.iter().flat_map(|(org, kept)| kept.lines(*org)).collect();
    for part in lines.chunks(AT_ONCE) {
        appending.append(part)?;
        step();
    }
    appending.file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    // INVARIANT: from here on the new file is the one that is written, whatever else fails. If the name does not become
    // durable, a power cut brings back the old file, which says the same up to here.
    if let Some(dir) = path.parent()
        && let Err(error) = File::open(dir).and_then(|dir| dir.sync_all())
    {
        tracing::error!(cause = %error, "the directory of the file outside the database cannot be synced");
    }
    appending.compact_at = lines.len() * 2 + COMPACT_AFTER;
    Ok(appending)
}

/// What could not be written is tried again with the next lines.
pub(super) fn waits(written: io::Result<()>) {
    if let Err(error) = written {
        tracing::error!(cause = %error, "the file outside the database cannot be written; it is tried again");
    }
}

fn failed(path: &Path, cause: io::Error) -> OutsideError {
    OutsideError::Io {
        path: path.display().to_string(),
        cause,
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can be left half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves of one org that are told apart.
pub const MOST_MOVES: usize = 512;
/// The file is compacted when it has so many lines more than twice what is worth keeping.
const COMPACT_AFTER: usize = 10_000;
/// So many lines of a compacted file go to the disk in one piece, some megabytes.
const AT_ONCE: usize = 1 << 15;

#[cfg(test)]
mod tests;
