//! Ending one thing by its id: shown with `--dry-run`, else asked about and done.

use clap::Args;

use super::{client::Client, exit::CliError, output::Output};

/// The flags of every verb that ends one thing.
#[derive(Debug, Args)]
pub(super) struct Ending {
    /// Show what would end, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Ending {
    /// Ends what is at `path`, whose last part is its id; `what` tells the person what that means.
    pub(super) async fn run(
        self,
        client: &Client,
        path: &[&str],
        what: &str,
        output: &mut Output,
    ) -> Result<(), CliError> {
        if self.dry_run {
            output.show(&client.get(path, &[]).await?);
            return Ok(());
        }
        let id = path.last().copied().unwrap_or_default();
        output.confirm(what, id, self.yes).await?;
        output.show(&client.delete(path).await?);
        Ok(())
    }
}
