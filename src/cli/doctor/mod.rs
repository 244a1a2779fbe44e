//! `postern doctor`: asks the questions an operator would ask, and says what to do about each answer.
//!
//! It changes nothing and asks only what the API and the probes tell anyway. Every look ends in a [`Finding`], also the one
//! that could not be taken. Something wrong is exit code 1; a warning is not.

mod finding;
mod log;
mod org;
mod server;

use clap::Args;
use url::Url;

use super::{
    client::Client,
    exit::{CliError, Exit},
    output::Output,
};
use crate::{
    app::clock::SystemClock,
    domain::{Clock as _, Time, principal::KeyKind},
};
use finding::{Check, Finding, Verdict};

#[derive(Debug, Args)]
#[command(
    after_help = "With an admin key it also looks at policies, apps, agents, connections and the log.
Results: ok, warning, wrong, unknown. Exit code 1 if anything is wrong.

Example:
  postern doctor --ops-url http://127.0.0.1:8701"
)]
pub(super) struct Doctor {
    /// Where the operations listener is, to ask whether the replica is ready.
    #[arg(long, env = "POSTERN_OPS_URL", hide_env_values = true, value_name = "URL")]
    ops_url: Option<Url>,
}

impl Doctor {
    pub(super) async fn run(
        self,
        client: Result<Client, CliError>,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let findings = self.look(&client?).await;
        let rows: Vec<_> = findings.iter().map(Finding::to_json).collect();
        output.list(
            &rows,
            &[
                ("/check", "CHECK"),
                ("/result", "RESULT"),
                ("/found", "FOUND"),
                ("/fix", "FIX"),
            ],
        );
        let wrong = findings
            .iter()
            .filter(|one| one.verdict == Verdict::Wrong)
            .count();
        match wrong {
            0 => Ok(()),
            1 => Err(CliError::Failed("1 thing is wrong".to_owned())),
            many => Err(CliError::Failed(format!("{many} things are wrong"))),
        }
    }

    /// From the outside in: what does not answer is not asked more.
    async fn look(self, client: &Client) -> Vec<Finding> {
        let (mut findings, reached) = server::reach(client).await;
        findings.extend(server::ready(client, self.ops_url).await);
        let Some(server_time) = reached else {
            return findings;
        };
        findings.push(server::version(client).await);
        findings.push(server::clock(&server_time));
        let (found, kind) = server::key(client).await;
        findings.push(found);
        match kind {
            Some(KeyKind::Admin) => {
                let now = server_time.now();
                findings.extend(org::policies(client).await);
                findings.extend(org::agents(client).await);
                findings.extend(org::connections(client, now).await);
                findings.extend(log::look(client, now).await);
            }
            Some(_) => findings.push(Finding::unknown(
                Check::Policies,
                "policies, apps, agents, connections and the log are for admin keys",
                "run it once more with an admin key (psd_…)",
            )),
            None => {}
        }
        findings
    }
}

/// The server's clock as one answer told it, and ours around that answer.
#[derive(Debug, Clone, Copy)]
struct ServerTime {
    before: Time,
    after: Time,
    /// RFC 9110 §6.6.1, to the second; nothing if the answer had no `Date`.
    said: Option<Time>,
}

impl ServerTime {
    /// The server's time, as well as it is known: ages of what it wrote are counted from here.
    fn now(&self) -> Time {
        self.said.unwrap_or(self.after)
    }
}

/// Takes what a look found, or says why it could not be taken.
fn or_why(check: Check, looked: Result<Vec<Finding>, CliError>) -> Vec<Finding> {
    looked.unwrap_or_else(|error| {
        let fix = match error.exit() {
            Exit::Denied => "give a key that may see it",
            _ => "look at the service's log for this moment",
        };
        vec![Finding::wrong(check, error.to_string(), fix)]
    })
}

fn now() -> Time {
    SystemClock.now()
}
