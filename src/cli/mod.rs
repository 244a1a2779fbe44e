//! One file per verb; every verb that reads or changes an org is a client of the API.
//!
//! Standard output is data, standard error is for people. Exit codes are typed ([`exit::Exit`]). A secret is never a
//! flag: API keys come from `POSTERN_API_KEY` or `--api-key-file`.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

mod agents;
mod apply;
mod audit;
mod audit_tail;
pub mod audit_verify;
mod client;
mod connect;
mod copy_database;
#[cfg(feature = "dev")]
mod dev;
mod doctor;
mod ending;
mod engines;
mod exit;
mod grants;
mod init;
mod keys;
mod migrate;
mod org;
mod output;
mod policy;
mod recover;
mod revocations;
mod revoke;
mod serve;
mod table;
mod users;
mod vend;

pub use exit::{CliError, Exit};
use output::{Output, Style};

/// Lets an AI agent act in a person's apps only against a signed allow decision for the exact action.
#[derive(Debug, Parser)]
#[command(name = "postern", version, disable_help_subcommand = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "\
Exit codes: 0 ok, 1 failure, 2 usage, 3 not connected, 4 approval pending, 5 denied,
6 revoked, 7 provider unavailable, 8 unauthenticated, 9 a copy differs, 130 interrupted

Example:
  export POSTERN_URL=https://postern.example POSTERN_API_KEY=psa_…
  postern vend acme-mail messages.list --user usr_01h2xcejqtf2nbrexx3vqjhp41 --arg limit:=5";

/// Flags every verb has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every verb")]
struct Global {
    /// Where Postern is.
    #[arg(
        long,
        global = true,
        env = "POSTERN_URL",
        hide_env_values = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:8700"
    )]
    url: String,
    /// A file with the API key, instead of the environment variable POSTERN_API_KEY.
    #[arg(long, global = true, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Print JSON: data on standard output, a refusal on standard error.
    #[arg(long, global = true)]
    json: bool,
    /// Print data and errors only.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Never ask; what would ask fails instead.
    #[arg(long, global = true)]
    no_input: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a demo on loopback: organisation, people, agent and the Acme Mail provider.
    #[cfg(feature = "dev")]
    Dev(dev::Dev),
    /// Start the service.
    Serve(serve::Serve),
    /// Make the first organisation and its admin key.
    Init(init::Init),
    /// Bring a PostgreSQL schema up to date.
    Migrate(migrate::Migrate),
    /// Copy a whole database into another one, SQLite or PostgreSQL.
    CopyDatabase(copy_database::CopyDatabase),
    /// Bring an organisation to the state a file describes.
    Apply(apply::Apply),
    /// Get a link with which a person connects an app.
    Connect(connect::Connect),
    /// Do something in a person's app, or get a token or handle for it.
    Vend(vend::Vend),
    /// Ask whether something would be allowed, and for the signed decision.
    Decide(vend::Decide),
    /// What people have connected.
    #[command(subcommand)]
    Grants(grants::Grants),
    /// The agents of the organisation.
    #[command(subcommand)]
    Agents(agents::Agents),
    /// The people of the organisation.
    #[command(subcommand)]
    Users(users::Users),
    /// The API keys of the organisation.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// The policy engines of the organisation.
    #[command(subcommand)]
    Engines(engines::Engines),
    /// The organisation's own settings: who may be asked, for how much, with whose accounts.
    Org(org::Org),
    /// Look at policies.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// End grants in one action.
    Revoke(revoke::Revoke),
    /// What became of it at the providers.
    Revocations(revocations::Revocations),
    /// Who did what as whom.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Go on with a database that is older than what is known of it.
    Recover(recover::Recover),
    /// Find out what is wrong.
    Doctor(doctor::Doctor),
}

/// Parses the arguments of this process, runs, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    crate::telemetry::quiet_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            let _ = error.print();
            return code.into();
        }
    };
    let runtime = match crate::http::server::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime could not start: {error}");
            return Exit::Failure.into();
        }
    };
    // SECURITY: a variable that is not text is skipped, not guessed at.
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let style = Style {
        json: cli.global.json,
        quiet: cli.global.quiet,
        colour: may_colour(&env, io::stdout().is_terminal()),
        may_ask: !cli.global.no_input && io::stdin().is_terminal() && io::stderr().is_terminal(),
        to_terminal: io::stdout().is_terminal(),
        messages_to_terminal: io::stderr().is_terminal(),
    };
    let mut output = Output::new(style, Box::new(io::stdout()), Box::new(io::stderr()));
    let ended = runtime.block_on(run(cli, &env, &mut output));
    // A blocked read of standard input must not keep an interrupted process alive.
    runtime.shutdown_background();
    match ended {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            output.error(&error);
            error.exit().into()
        }
    }
}

async fn run(cli: Cli, env: &BTreeMap<String, String>, output: &mut Output) -> Result<(), CliError> {
    let Cli { global, verb } = cli;
    match verb {
        // These two end by a signal in their own, orderly way.
        #[cfg(feature = "dev")]
        Verb::Dev(verb) => return verb.run(&global, env).await,
        Verb::Serve(verb) => return verb.run(env).await,
        _ => {}
    }
    tokio::select! {
        ended = run_verb(verb, &global, env, output) => ended,
        _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
    }
}

async fn run_verb(
    verb: Verb,
    global: &Global,
    env: &BTreeMap<String, String>,
    output: &mut Output,
) -> Result<(), CliError> {
    let client = || client::Client::new(global, env);
    match verb {
        #[cfg(feature = "dev")]
        Verb::Dev(_) => Ok(()),
        Verb::Serve(_) => Ok(()),
        Verb::Init(verb) => verb.run(env, output).await,
        Verb::Migrate(verb) => verb.run(env, output).await,
        Verb::CopyDatabase(verb) => verb.run(env, output).await,
        Verb::Apply(verb) => verb.run(&client()?, env, output).await,
        Verb::Connect(verb) => verb.run(&client()?, output).await,
        Verb::Vend(verb) => verb.run(&client()?, output).await,
        Verb::Decide(verb) => verb.run(&client()?, output).await,
        Verb::Grants(verb) => verb.run(&client()?, output).await,
        Verb::Agents(verb) => verb.run(&client()?, output).await,
        Verb::Users(verb) => verb.run(&client()?, output).await,
        Verb::Keys(verb) => verb.run(&client()?, output).await,
        Verb::Engines(verb) => verb.run(&client()?, output).await,
        Verb::Org(verb) => verb.run(&client()?, output).await,
        Verb::Policy(verb) => verb.run(output),
        Verb::Revoke(verb) => verb.run(&client()?, output).await,
        Verb::Revocations(verb) => verb.run(&client()?, output).await,
        Verb::Audit(verb) => verb.run(|| client::Client::new(global, env), output).await,
        Verb::Recover(verb) => verb.run(env, output).await,
        Verb::Doctor(verb) => verb.run(client(), output).await,
    }
}

/// no-color.org, and what a dumb terminal can do.
fn may_colour(env: &BTreeMap<String, String>, to_terminal: bool) -> bool {
    to_terminal
        && env.get("NO_COLOR").is_none_or(String::is_empty)
        && env.get("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests;
