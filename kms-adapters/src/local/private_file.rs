//! Files only this process's user may read: opened, checked and created without a gap between check and use.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::{
    fs::{FileType, Mode, OFlags, fstat, open},
    process::geteuid,
};
use zeroize::Zeroizing;

use super::LocalKeyError;

/// Reads a small private file whole.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, LocalKeyError> {
    // SECURITY: no symbolic link is followed and a pipe does not block; all checks are made on the open file.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::LOOP => LocalKeyError::NotRegular,
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
        // Unlike a rename, a link takes nobody's place.
        .and_then(|()| std::fs::hard_link(&draft, path));
    let removed = std::fs::remove_file(&draft);
    // The first error is the one that matters.
    created.and(removed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

/// A name that nobody else uses beside `path`: what a process that died left there is in nobody's way.
fn draft_of(path: &Path) -> Result<PathBuf, LocalKeyError> {
    let mut random = [0_u8; 8];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| LocalKeyError::Randomness)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{:016x}.unfinished", u64::from_be_bytes(random)));
    Ok(draft.into())
}

const MAX_BYTES: usize = 1024;
