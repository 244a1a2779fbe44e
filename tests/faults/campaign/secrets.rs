//! I7 and I8, on what lies on disks: no secret in the clear, and none that opens in another's place.

use std::{path::PathBuf, process::Command, time::Duration};

use crate::{
    deployment::{Deployment, Store},
    load::{Want, asked},
};

/// I7: neither tokens nor keys in anything that was written: databases, WALs, spools, logs, exports.
pub(crate) fn nothing_is_in_the_clear(deployment: &Deployment) -> Result<(), String> {
    let home = deployment.dir.path();
    // What is looked for must be found where it is.
    let canary = home.join("canary");
    std::fs::write(&canary, format!("acme_rt_{}", "x".repeat(43))).unwrap();
    let mut patterns = vec!["acme_(at|rt|ac)_[A-Za-z0-9_-]{20}".to_owned()];
    for tenant in &deployment.tenants {
        patterns.extend([tenant.admin_key.clone(), tenant.agent_key.clone()]);
    }
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C").args(["-rlasE", "--exclude=kek"]);
    for pattern in &patterns {
        grep.arg("-e").arg(pattern);
    }
    grep.arg(home);
    if let Store::Postgres(server) = &deployment.store {
        grep.arg(server.files());
    }
    let found = String::from_utf8(grep.output().unwrap().stdout).unwrap();
    let found: Vec<PathBuf> = found.lines().map(PathBuf::from).collect();
    if found != [canary] {
        return Err(format!("I7: secrets in {found:?}"));
    }
    Ok(())
}

/// I8: two people's sealed tokens change places; neither opens. They change back; both open.
pub(crate) async fn sealed_values_open_only_at_home(
    deployment: &Deployment,
    numbers: &mut dyn FnMut() -> u64,
) -> Result<(), String> {
    let people = [(0, 0), (0, 1)];
    let (one, other) = (deployment.grant_of(0, 0), deployment.grant_of(0, 1));
    for (swapped, expected) in [(true, false), (false, true)] {
        for kind in ["access_token", "refresh_token"] {
            deployment.raw_sql(&swap(&one, &other, kind)).await;
        }
        for who in people {
            let mut ask = asked(deployment, who, Want::List, numbers());
            ask.ask(deployment.replicas[0].listen, Duration::from_secs(30))
                .await;
            if ask.released() != expected {
                return Err(format!("I8: swapped: {swapped}: {ask:?}"));
            }
        }
    }
    Ok(())
}

/// Each row gets the generation its grant has, so that nothing but the seal tells that it is at the wrong place.
fn swap(one: &str, other: &str, kind: &str) -> String {
    format!(
        "UPDATE secrets SET row_id = 'elsewhere' WHERE row_id = '{one}' AND kind = '{kind}';
         UPDATE secrets SET row_id = '{one}' WHERE row_id = '{other}' AND kind = '{kind}';
         UPDATE secrets SET row_id = '{other}' WHERE row_id = 'elsewhere' AND kind = '{kind}';
         UPDATE secrets SET generation = (SELECT generation FROM grants WHERE grants.id = secrets.row_id)
           WHERE row_id IN ('{one}', '{other}') AND kind = '{kind}'"
    )
}
