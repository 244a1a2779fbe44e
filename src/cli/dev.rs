//! `postern dev`: a whole demo on loopback.

use std::{collections::BTreeMap, io::IsTerminal as _, path::PathBuf};

use clap::Args;

use super::{Global, exit::CliError, may_colour};
use crate::{
    app::demo::{self, Announcement},
    telemetry,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  postern dev --port 8700\n  postern dev --json --port 0   # one line of JSON, for scripts"
)]
pub(super) struct Dev {
    /// The port on loopback; 0 picks a free one.
    #[arg(long, default_value_t = 8700)]
    port: u16,
    /// Keep the state in this directory; without it, it is removed at exit.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl Dev {
    pub(super) async fn run(self, global: &Global, env: &BTreeMap<String, String>) -> Result<(), CliError> {
        let colour = may_colour(env, std::io::stderr().is_terminal());
        telemetry::init(telemetry::Format::Human { colour }, "warn")
            .map_err(|error| CliError::Failed(error.to_string()))?;
        let announce = |up: &Announcement| {
            if global.json {
                announce_json(up)
            } else {
                announce_words(up)
            }
        };
        demo::run_demo(self.port, self.data, announce)
            .await
            .map_err(|error| CliError::Failed(error.to_string()))
    }
}

fn announce_json(up: &Announcement) {
    if let Ok(line) = serde_json::to_string(up) {
        print_line(&line);
    }
}

/// What to open, and a command for each next step. The `curl` lines work as they stand, in any shell.
fn announce_words(up: &Announcement) {
    let (Some(agent), [ada, .., ben]) = (up.agents.first(), up.users.as_slice()) else {
        return;
    };
    let vend = |tool: &str, args: &str| {
        format!(
            "curl -s {url}/v1/vend -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n     -d '{{\"connector\":\"acme-mail\",\"user\":\"{user}\",\"tool\":\"{tool}\",\"args\":{args}}}'",
            url = up.url,
            key = agent.key,
            user = ada.id,
        )
    };
    print_line(&format!(
        "Postern is up at {url}, Acme Mail at {acme}. Nothing here leaves this machine.

1. Open this link as Ada (admin), then connect Acme Mail:
   {ada_link}
   The same for Ben (member):
   {ben_link}

2. The agent \"{agent}\" asks as Ada. Read her mail:
   {list}
   Send inside the company:
   {inside}
   Send outside, which the policy denies:
   {outside}

3. Who did what?
   curl -s '{url}/v1/audit/entries?limit=5' -H 'Authorization: Bearer {admin_key}'

4. End everything at Acme Mail in one action; first, what that would be:
   curl -s {url}/v1/revocations -H 'Authorization: Bearer {admin_key}' -H 'Content-Type: application/json' \\
     -d '{{\"selector\":{{\"connector\":\"acme-mail\"}},\"reason\":\"demo\",\"dry_run\":true}}'

For more, in a second terminal:
   export POSTERN_URL={url} POSTERN_API_KEY={admin_key} ADMIN_KEY={admin_key} AGENT_KEY={agent_key} ADA={ada_id}
   postern audit key > log.vkey && postern audit export --out log.jsonl
   postern audit verify log.jsonl --public-key log.vkey

What Acme Mail saw: {acme}/admin/log    Probes: {ops}/readyz    Stop with Ctrl-C.",
        url = up.url,
        acme = up.demo_provider,
        ada_link = ada.login_url,
        ben_link = ben.login_url,
        agent = agent.name,
        agent_key = agent.key,
        ada_id = ada.id,
        list = vend("messages.list", "{\"limit\":3}"),
        inside = vend(
            "messages.send",
            "{\"to\":[\"ben@acme.example\"],\"subject\":\"Lunch\",\"body\":\"At noon?\"}"
        ),
        outside = vend(
            "messages.send",
            "{\"to\":[\"other@else.example\"],\"subject\":\"Lunch\",\"body\":\"At noon?\"}"
        ),
        admin_key = up.admin_key,
        ops = up.ops_url,
    ));
}

fn print_line(text: &str) {
    use std::io::Write as _;

    // Whoever closed standard output does not want to read it.
    let _closed = writeln!(std::io::stdout(), "{text}");
}
