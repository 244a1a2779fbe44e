//! `postern`: parse arguments, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    postern::cli::main()
}
