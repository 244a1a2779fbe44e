//! Files only this process's user may read: opened, checked and created without a gap between check and use.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, RenameFlags, fstat, open, renameat_with},
    io::Errno,
    process::geteuid,
};
use zeroize::Zeroizing;

use super::LocalKeyError;

/// Reads a small private file whole.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, LocalKeyError> {
    // SECURITY: no symbolic link is followed and a pipe does not block; all checks are made on the open file.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty()).map_err(|error| match error {
        Errno::LOOP => LocalKeyError::NotRegular,
        other => LocalKeyError::Io(other.into()),
    })?;
    let stat = fstat(&file).map_err(std::io::Error::from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(LocalKeyError::NotRegular);
    }
    if stat.st_uid != geteuid().as_raw() {
        return Err(LocalKeyError::ForeignOwner);
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    if mode.intersects(Mode::RWXG | Mode::RWXO) {
        return Err(LocalKeyError::OpenToOthers {
            mode: mode.as_raw_mode() & 0o7777,
        });
    }
    // One fixed buffer: nothing is left behind by growing.
    let mut bytes = Zeroizing::new(vec![0_u8; MAX_BYTES + 1]);
    let mut file = File::from(file);
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..)
        && !rest.is_empty()
    {
        match file.read(rest)? {
            0 => break,
            count => length += count,
        }
    }
    if length > MAX_BYTES {
        return Err(LocalKeyError::Malformed);
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Creates a private file that must not exist yet and makes it durable: whenever the process dies, it is whole or not there.
pub(super) fn create(path: &Path, content: &[u8]) -> Result<(), LocalKeyError> {
    let draft = draft_of(path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open(&draft, flags, Mode::RUSR | Mode::WUSR).map_err(std::io::Error::from)?;
    let mut file = File::from(file);
    let created = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| put_in_place(&draft, path));
    if created.is_err() {
        let _removed = std::fs::remove_file(&draft);
    }
    created?;
    File::open(folder_of(path))?.sync_all()?;
    Ok(())
}

/// Gives the draft its name, and takes nobody's place.
fn put_in_place(draft: &Path, path: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(draft, path) {
        Ok(()) => match std::fs::remove_file(draft) {
            // Whoever settles it was faster.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        },
        // FAT, exFAT, some network and FUSE file systems have no links.
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK)
            ) =>
        {
            Ok(renameat_with(CWD, draft, CWD, path, RenameFlags::NOREPLACE)?)
        }
        Err(error) => Err(error),
    }
}

/// Ends what a process that died may have left undone beside a file that is there: its name is made durable, and drafts of it,
/// which may be the same file under another name, are removed.
pub(super) fn settle(path: &Path) -> Result<(), LocalKeyError> {
    let folder = folder_of(path);
    // Where it may not be listed, nothing was made here either.
    let Ok(files) = std::fs::read_dir(folder) else {
        return Ok(());
    };
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    for file in files {
        let file = file?;
        if is_draft(file.file_name().as_encoded_bytes(), name) {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(File::open(folder)?.sync_all()?)
}

/// Whether a file of this name is a draft of the file `of`.
fn is_draft(name: &[u8], of: &[u8]) -> bool {
    let middle = name
        .strip_prefix(of)
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(UNFINISHED.as_bytes()));
    middle.is_some_and(|middle| middle.len() == 16 && middle.iter().all(u8::is_ascii_hexdigit))
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// A name that nobody else uses beside `path`: what a process that died left there is in nobody's way.
fn draft_of(path: &Path) -> Result<PathBuf, LocalKeyError> {
    let mut random = [0_u8; 8];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| LocalKeyError::Randomness)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:016x}{UNFINISHED}", u64::from_be_bytes(random)));
    Ok(draft.into())
}

/// How the name of a draft ends.
const UNFINISHED: &str = ".unfinished";
const MAX_BYTES: usize = 1024;
