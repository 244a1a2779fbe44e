//! The replica processes, as the one sees them that started them.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{plan::Orders, replica::Done};

/// One of them. It ends with its input, so also with this process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a replica and waits until its waiters are there.
    pub(crate) async fn start(orders: &Orders) -> Self {
        let (variable, file) = orders.written();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(variable, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let (said, output) = next(output).await;
        Self {
            address: said.parse().unwrap(),
            child,
            input,
            output,
        }
    }

    /// Lets its waiters wait.
    pub(crate) fn go(&mut self) {
        self.input.write_all(b"go\n").unwrap();
    }

    /// What they came to, once they have come to it.
    pub(crate) async fn done(self) -> (Self, Done) {
        let (said, output) = next(self.output).await;
        (Self { output, ..self }, serde_json::from_str(&said).unwrap())
    }

    /// Stops in order.
    pub(crate) async fn stop(mut self) {
        drop(self.input);
        let ended = tokio::task::spawn_blocking(move || self.child.wait()).await;
        assert!(ended.unwrap().unwrap().success());
    }
}

/// The next line that it says.
async fn next(mut output: Lines<BufReader<ChildStdout>>) -> (String, Lines<BufReader<ChildStdout>>) {
    tokio::task::spawn_blocking(move || {
        let said = output.next().expect("a replica ended").unwrap();
        (said, output)
    })
    .await
    .unwrap()
}
