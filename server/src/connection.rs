//! Connections: counted, limited, and known by number, so that a client without token or cookie keeps its session.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tonic::transport::server::Connected;

use crate::telemetry::Metrics;

/// The number of a connection; unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Number.
    pub id: u64,
}

/// An accepted connection; tells when it goes away.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    id: u64,
    _gone: Gone,
}

#[derive(Debug)]
struct Gone {
    id: u64,
    closed: mpsc::UnboundedSender<u64>,
    open: Arc<AtomicUsize>,
    gauge: prometheus::IntGauge,
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
        // The receiver is gone only when the server stops.
        let _ = self.closed.send(self.id);
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        ConnectionInfo { id: self.id }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Accepts connections up to a limit; those beyond it are closed at once. `closed` gets the number of each that ends.
pub fn accept(
    listener: TcpListener,
    connections_max: usize,
    metrics: Metrics,
    closed: mpsc::UnboundedSender<u64>,
) -> impl Stream<Item = io::Result<Connection>> {
    let open = Arc::new(AtomicUsize::new(0));
    let next = Arc::new(AtomicU64::new(1));
    futures::stream::unfold(listener, move |listener| {
        let (metrics, closed, open, next) = (metrics.clone(), closed.clone(), Arc::clone(&open), Arc::clone(&next));
        async move {
            loop {
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a connection can't be accepted");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    }
                };
                if open.load(Ordering::Relaxed) >= connections_max {
                    metrics.connections_rejected_total.inc();
                    continue;
                }
                // Small answers must not wait for more data to send.
                let _ = stream.set_nodelay(true);
                let id = next.fetch_add(1, Ordering::Relaxed);
                open.fetch_add(1, Ordering::Relaxed);
                metrics.connections.inc();
                let gone = Gone {
                    id,
                    closed,
                    open,
                    gauge: metrics.connections.clone(),
                };
                return Some((
                    Ok(Connection {
                        stream,
                        id,
                        _gone: gone,
                    }),
                    listener,
                ));
            }
        }
    })
}
