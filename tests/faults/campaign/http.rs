//! A client that says what it knows and nothing more: an answer, or none. It can also send a request and go away.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) at: SocketAddr,
    pub(crate) host: String,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) key: String,
    pub(crate) body: Option<Value>,
}

/// What came back; `None` when nothing did: not connected, hung up on, or too late.
pub(crate) type Heard = Option<(u16, Value)>;

impl Call {
    /// Sends it and waits for the answer.
    pub(crate) async fn ask(&self, within: Duration) -> Heard {
        tokio::time::timeout(within, self.exchange()).await.ok()?.ok()?
    }

    /// Sends it and goes away.
    pub(crate) async fn hang_up(&self, after: Duration) {
        // Whoever goes away is not interested in how it went.
        let _ignored = tokio::time::timeout(after, self.exchange()).await;
    }

    async fn exchange(&self) -> std::io::Result<Heard> {
        let mut stream = TcpStream::connect(self.at).await?;
        let body = self.body.as_ref().map(Value::to_string).unwrap_or_default();
        let mut head = format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n",
            self.method, self.path, self.host
        );
        if !self.key.is_empty() {
            head += &format!("authorization: Bearer {}\r\n", self.key);
        }
        if self.body.is_some() {
            head += &format!(
                "content-type: application/json\r\ncontent-length: {}\r\n",
                body.len()
            );
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        Ok(read(&bytes))
    }
}

/// Nothing, unless the answer is whole.
fn read(bytes: &[u8]) -> Heard {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?.to_lowercase();
    let body = &bytes[end + 4..];
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head
        .split("\r\n")
        .find_map(|line| line.strip_prefix("content-length: "))
        .map(|length| length.parse::<usize>().unwrap());
    if length.is_some_and(|length| body.len() < length) {
        return None;
    }
    Some((status, serde_json::from_slice(body).unwrap_or(Value::Null)))
}
