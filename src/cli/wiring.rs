//! The call sites into `app` and into rooms that work offline: everything here is one call.

#[cfg(feature = "dev")]
use std::path::PathBuf;

use super::exit::CliError;
use crate::config::Settings;

/// What `postern dev` was asked.
#[cfg(feature = "dev")]
pub(super) struct DevRequest {
    /// Where to listen on loopback; 0 picks one.
    pub(super) port: u16,
    /// Where state is kept; `None` is a temporary directory, removed at exit.
    pub(super) data: Option<PathBuf>,
    /// One line of JSON instead of the guided text.
    pub(super) json: bool,
}

/// WIRE: `app::dev`; prints what to open, runs until SIGINT or SIGTERM.
#[cfg(feature = "dev")]
pub(super) async fn dev(request: DevRequest) -> Result<(), CliError> {
    let DevRequest { port, data, json } = request;
    Err(CliError::Failed(format!(
        "`dev` is not wired yet (port {port}, data {data:?}, json {json})"
    )))
}

/// WIRE: `app::serve`; runs until SIGINT or SIGTERM, then drains.
pub(super) async fn serve(_settings: Settings) -> Result<(), CliError> {
    Err(CliError::Failed("`serve` is not wired yet".into()))
}

/// What `postern init` made. The key is shown once.
pub(super) struct FirstOrg {
    /// `org_…`
    pub(super) org: String,
    /// `usr_…`
    pub(super) admin: String,
    /// The admin key's text, minted for printing exactly once.
    pub(super) admin_key: String,
    /// A login link for the first admin.
    pub(super) login_url: String,
}

/// WIRE: `app::init`; refuses when the database already has an organisation.
pub(super) async fn init(_settings: Settings, _org: &str, _admin: &str) -> Result<FirstOrg, CliError> {
    Err(CliError::Failed("`init` is not wired yet".into()))
}

/// Something to say about a policy file.
pub(super) struct Finding {
    /// Which file.
    pub(super) file: String,
    /// From 1; 0 when it concerns the whole file.
    pub(super) line: usize,
    /// What.
    pub(super) message: String,
}

/// WIRE: `policy`; parses and validates strictly; no finding means all is well.
pub(super) fn policy_check(_files: &[(String, String)]) -> Result<Vec<Finding>, CliError> {
    Err(CliError::Failed("`policy check` is not wired yet".into()))
}

/// What an offline verification came to.
pub(super) struct Verified {
    /// How many entries were read.
    pub(super) entries: u64,
    /// What is wrong, each naming the entry or byte; empty when the export holds.
    pub(super) faults: Vec<String>,
}

/// WIRE: `audit::verify`; needs only the export and the public key.
pub(super) fn audit_verify(_export: &str, _public_key: &str) -> Result<Verified, CliError> {
    Err(CliError::Failed("`audit verify` is not wired yet".into()))
}
