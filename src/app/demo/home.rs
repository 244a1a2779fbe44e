//! The directory of a demo, and what is kept in it besides the database.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    app::AppError,
    crypto::{OsRandomness, digest},
    dev::acme_mail::AcmeMail,
    domain::Randomness,
};

/// What a kept data directory remembers in the clear besides the database.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) org: String,
    pub(super) acme_port: u16,
    /// Postern's own; a directory of an earlier build does not say.
    #[serde(default)]
    pub(super) port: Option<u16>,
}

/// The directory of a demo; a temporary one is removed at exit.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    temporary: bool,
}

impl Home {
    pub(super) fn open(data: Option<PathBuf>) -> Result<Self, AppError> {
        let temporary = data.is_none();
        let path = match data {
            Some(path) => std::path::absolute(path).map_err(|cause| AppError::Io {
                what: "the data directory".to_owned(),
                cause,
            })?,
            None => {
                let mut name = [0_u8; 8];
                OsRandomness::new()
                    .fill(&mut name)
                    .map_err(|_| AppError::Refused("no randomness".to_owned()))?;
                std::env::temp_dir().join(format!("postern-dev-{}", digest::hex(&name)))
            }
        };
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .recursive(true)
            .create(&path)
            .map_err(|cause| AppError::Io {
                what: format!("cannot make {}", path.display()),
                cause,
            })?;
        Ok(Self { path, temporary })
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.path.clone()
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join("postern.db")
    }

    pub(super) fn kek(&self) -> PathBuf {
        self.path.join("kek")
    }

    pub(super) fn acme(&self) -> PathBuf {
        self.path.join("acme-mail.json")
    }

    pub(super) fn kept(&self) -> Result<Option<Kept>, AppError> {
        let path = self.path.join("demo.json");
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&path).map_err(|cause| AppError::Io {
            what: format!("{}", path.display()),
            cause,
        })?;
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|_| AppError::Refused(format!("{} is not a demo's file", path.display())))
    }

    pub(super) fn keep(&self, kept: &Kept) -> Result<(), AppError> {
        if self.temporary {
            return Ok(());
        }
        let text = serde_json::to_vec(kept).map_err(|_| AppError::Refused("demo.json".to_owned()))?;
        write_private(&self.path.join("demo.json"), &text)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.temporary {
            // Nothing can be done about a failure at exit.
            let _removed = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Where the state of Acme Mail is kept. One writer at a time: a snapshot never ends up in another's draft, nor an older
/// one in place of a newer one.
#[derive(Debug)]
pub(super) struct Shelf {
    path: PathBuf,
    writing: Mutex<()>,
}

impl Shelf {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            writing: Mutex::default(),
        }
    }

    pub(super) fn save(&self, acme: &AcmeMail) -> Result<(), AppError> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = acme
            .snapshot()
            .map_err(|_| AppError::Refused("the state of acme mail cannot be saved".to_owned()))?;
        write_private(&self.path, snapshot.as_bytes())
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), AppError> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};

    let io = |cause| AppError::Io {
        what: format!("cannot write {}", path.display()),
        cause,
    };
    let draft = path.with_extension("draft");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&draft)
        .map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    std::fs::rename(&draft, path).map_err(io)
}
