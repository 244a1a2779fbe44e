//! The audit log as an auditor gets it: exported over the API, verified by Postern's own verb and by the independent tool.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{deployment::Deployment, replica::without_settings};

/// A verified export.
#[derive(Debug)]
pub(crate) struct Log {
    /// In the order of the log.
    pub(crate) entries: Vec<Value>,
    by_id: BTreeMap<String, usize>,
}

impl Log {
    /// Exports an org's log and has it verified twice.
    pub(crate) fn export(deployment: &Deployment, tenant: usize) -> Result<Self, String> {
        let home = deployment.dir.path();
        let (out, key) = (
            home.join(format!("{tenant}.jsonl")),
            home.join(format!("{tenant}.vkey")),
        );
        // Postern never writes over an export.
        let _old = std::fs::remove_file(&out);
        let shown = postern(deployment, tenant, &["audit", "key"])?;
        std::fs::write(&key, shown.stdout).unwrap();
        let (out_text, key_text) = (text(&out), text(&key));
        postern(deployment, tenant, &["audit", "export", "--out", &out_text])?;
        postern(
            deployment,
            tenant,
            &["audit", "verify", &out_text, "--public-key", &key_text],
        )?;
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/verify_audit.py");
        done(Command::new("/usr/bin/python3").args([tool, &out_text, &key_text]))?;
        let lines = std::fs::read_to_string(&out).unwrap();
        let entries: Vec<Value> = lines.lines().filter_map(entry).collect();
        let by_id = entries
            .iter()
            .enumerate()
            .map(|(place, entry)| (entry["id"].as_str().unwrap().to_owned(), place))
            .collect();
        Ok(Self { entries, by_id })
    }

    pub(crate) fn entry(&self, id: &str) -> Option<&Value> {
        self.by_id.get(id).map(|&place| &self.entries[place])
    }
}

/// The entry of a line of the export; the first and the last line hold none.
fn entry(line: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).unwrap();
    line["entry"].is_object().then(|| line["entry"].clone())
}

/// Runs a verb of Postern as an org's admin.
fn postern(deployment: &Deployment, tenant: usize, arguments: &[&str]) -> Result<Output, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    without_settings(&mut command);
    done(
        command
            .args(arguments)
            .env("POSTERN_URL", format!("http://{}", deployment.replicas[0].public))
            .env("POSTERN_API_KEY", &deployment.tenants[tenant].admin_key),
    )
}

fn done(command: &mut Command) -> Result<Output, String> {
    let out = command.output().unwrap();
    if out.status.success() {
        return Ok(out);
    }
    let said = [out.stdout, out.stderr].concat();
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&said)))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
