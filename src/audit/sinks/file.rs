//! A file of JSON lines: entries as an export has them, or as OCSF events. Opened for every batch, so that whoever
//! rotates it may move it away at any time.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{Delivery, Sink, SinkBatch, SinkError, Standing, ocsf};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `{"entry":…,"index":N}`, the entry's bytes as hashed.
    Entries,
    /// An OCSF event.
    Ocsf,
}

/// The file.
#[derive(Debug)]
pub struct FileSink {
    name: String,
    path: PathBuf,
    form: Form,
    standing: Standing,
}

impl FileSink {
    /// A sink that appends to `path`, which it makes if it is not there.
    #[must_use]
    pub fn new(name: String, path: PathBuf, form: Form) -> Self {
        Self {
            name,
            path,
            form,
            standing: Standing::default(),
        }
    }

    fn lines(&self, batch: &SinkBatch) -> Result<Vec<u8>, SinkError> {
        let mut text = Vec::new();
        for (index, entry) in &batch.entries {
            match self.form {
                Form::Entries => writeln!(text, "{{\"entry\":{entry},\"index\":{index}}}")?,
                Form::Ocsf => {
                    let event = ocsf::event(*index, entry)?;
                    serde_json::to_writer(&mut text, &event).map_err(|_| SinkError::Entry)?;
                    text.push(b'\n');
                }
            }
        }
        Ok(text)
    }
}

impl Sink for FileSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn deliver<'a>(&'a self, batch: &'a SinkBatch) -> Delivery<'a> {
        Box::pin(async move {
            let text = Arc::new(self.lines(batch)?);
            let until = Instant::now() + LOCKED_WITHIN;
            loop {
                let (path, text) = (self.path.clone(), Arc::clone(&text));
                let written = tokio::task::spawn_blocking(move || append(&path, &text))
                    .await
                    .unwrap_or_else(|_| Err(io::Error::other("the writer stopped")));
                match written {
                    // Somebody who holds it for longer is in trouble, and must not be waited for without end.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                        tokio::time::sleep(LOCKED_PAUSE).await;
                    }
                    written => return Ok(written?),
                }
            }
        })
    }
}

/// Appends and syncs, all or nothing: what a crash or a full disk left of an earlier attempt is cut off first. Says
/// [`io::ErrorKind::WouldBlock`] while it is somebody else's turn.
fn append(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    // Another replica on this host may write to it: what it has written is not to be cut off (flock(2); until it is closed).
    file.try_lock()?;
    if !is_at(&file, path)? {
        // It was moved away before it was locked: whoever reads it takes it for finished.
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let whole = end_of_last_line(&mut file)?;
    file.set_len(whole)?;
    let written = file
        .write_all(text)
        .and_then(|()| file.sync_data())
        .and_then(|()| if whole == 0 { keep_name(path) } else { Ok(()) });
    if written.is_err() {
        let _cut = file.set_len(whole);
    }
    written
}

/// Whether an open file is the one that has this name now.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Without this a crash of the machine could take the name of a new file away again, and all that is in it.
fn keep_name(path: &Path) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir)?.sync_all()
}

/// How long the file is up to its last newline.
fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut part = [0_u8; 4096];
    while end > 0 {
        let length = end.min(4096);
        let Some(part) = usize::try_from(length)
            .ok()
            .and_then(|length| part.get_mut(..length))
        else {
            break;
        };
        file.seek(SeekFrom::Start(end - length))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(end - length + u64::try_from(at).unwrap_or(0) + 1);
        }
        end -= length;
    }
    Ok(0)
}

/// How long one delivery waits for its turn.
const LOCKED_WITHIN: Duration = Duration::from_secs(2);
/// Between two tries.
const LOCKED_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_not_at_its_path_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        File::create(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
    }
}
