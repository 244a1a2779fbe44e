//! How long a connection may keep its slot without sending a request, or without reading the answer to one.
//!
//! hyper has one time for a request's head and for the silence before it. A head has to come fast; but a proxy in front
//! keeps its connections for about a minute (nginx and AWS load balancers: 60 s unless told otherwise), and a `POST` that
//! meets a connection on its way to be closed is lost, for it is not sent twice. So there are two times here, and hyper's
//! own is not set.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Semaphore,
    time::{Instant, Sleep},
};

/// The two times, and whether others wait for the slot.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// For a head, from its first byte or, of a new connection's first one, from the start.
    pub(super) head: Duration,
    /// For silence between requests, for a head that was sent before the answer to the one before it, and for a client that
    /// takes nothing more of an answer. No longer than for a head when every slot is taken, the one among them that waits
    /// for the next connection.
    pub(super) idle: Duration,
    pub(super) slots: Arc<Semaphore>,
}

/// Whether a request of the connection is being answered. No time for reads runs then: a request's body and its handler have
/// their own.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Arc<AtomicBool>);

impl Busy {
    pub(super) fn set(&self, busy: bool) {
        // Both sides run in the connection's own task.
        self.0.store(busy, Ordering::Relaxed);
    }
}

/// A connection whose reads and writes fail once it has been waited for too long.
#[derive(Debug)]
pub(super) struct Timed<T> {
    inner: T,
    patience: Patience,
    busy: Busy,
    /// Whether a head has begun.
    begun: bool,
    /// When what is waited for now began: a head, or the silence.
    since: Instant,
    look: Pin<Box<Sleep>>,
    /// Since when nothing of an answer can be written, and when that is looked at next.
    stuck: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<T> Timed<T> {
    pub(super) fn new(inner: T, patience: Patience, busy: Busy) -> Self {
        let since = Instant::now();
        Self {
            inner,
            busy,
            begun: true,
            since,
            look: Box::pin(tokio::time::sleep_until(since + patience.head)),
            stuck: None,
            patience,
        }
    }

    /// An answer is on its way: the silence after it begins at its last byte.
    fn written(&mut self) {
        self.begun = false;
        self.since = Instant::now();
    }

    /// Nothing has come. Ready when nothing may come any more.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let may_idle = !self.begun;
        self.patience
            .poll_over(may_idle, self.since, self.look.as_mut(), cx)
    }

    /// What is written fails once the client has taken nothing for too long.
    fn unless_stuck(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(taken) = &written {
            if taken.as_ref().is_ok_and(|bytes| *bytes > 0) {
                self.stuck = None;
            }
            return written;
        }
        let (since, look) = self.stuck.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(tokio::time::sleep_until(now + self.patience.head)))
        });
        self.patience
            .poll_over(true, *since, look.as_mut(), cx)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the answer is not read")))
    }
}

impl Patience {
    /// Whether what began to be waited for at `since` has been waited for too long; else `look` wakes the task when to ask
    /// again.
    fn poll_over(
        &self,
        may_idle: bool,
        since: Instant,
        mut look: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Self { head, idle, slots } = self;
        while look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let waited = now.saturating_duration_since(since);
            let crowded = slots.available_permits() == 0;
            let most = if may_idle && !crowded { idle } else { head };
            let Some(left) = most.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Poll::Ready(());
            };
            // It may become crowded, and a head may begin, without the time being set anew.
            look.as_mut().reset(now + left.min(*head));
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Timed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if self.busy.0.load(Ordering::Relaxed) {
            return read;
        }
        if read.is_pending() {
            return self
                .poll_end(cx)
                .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "no request came in time")));
        }
        if buf.filled().len() > filled && !self.begun {
            self.begun = true;
            self.since = Instant::now();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Timed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written();
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.unless_stuck(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Says nothing of the client: a socket has nothing to flush, and is always done with it.
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written();
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.unless_stuck(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
