//! The body of an answer: pieces of an object, paced, and ended by a fault if its fate says so.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::content::Content;
use crate::counters::Running;
use crate::pace::chunk_bytes;
use crate::server::{Connection, State};

/// What happens at a place in the body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Turn {
    Stall(Duration),
    Reset,
    Truncate,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SimBody {
    content: Content,
    at: u64,
    end: u64,
    /// Where something happens, and what.
    turn: Option<(u64, Turn)>,
    chunk: Option<Bytes>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// None for what is not part of the simulation.
    flow: Option<Flow>,
}

/// Whose lanes carry the body, and who counts it.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) state: Arc<State>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) running: Running,
}

impl SimBody {
    /// A range of an object.
    pub(crate) fn new(content: Content, start: u64, end: u64) -> Self {
        Self {
            content,
            at: start,
            end,
            turn: None,
            chunk: None,
            sleep: None,
            flow: None,
        }
    }

    /// A few bytes.
    pub(crate) fn of(data: impl Into<Bytes>) -> Self {
        let data = data.into();
        let end = data.len() as u64;
        Self::new(Content::pieces([data]), 0, end)
    }

    pub(crate) fn len(&self) -> u64 {
        self.end - self.at
    }

    /// The range that is left.
    pub(crate) fn range(&self) -> std::ops::Range<u64> {
        self.at..self.end
    }

    /// Gives the body to lanes and counters; `turn` happens at this fraction of it.
    pub(crate) fn through(mut self, flow: Flow, turn: Option<Turn>, place: f64) -> Self {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a fraction of a length"
        )]
        let at = self.at + (self.len() as f64 * place) as u64;
        flow.connection.lane.begin();
        self.turn = turn.map(|turn| (at, turn));
        self.flow = Some(flow);
        self
    }

    /// The next chunk, and when it has been carried.
    fn next(&mut self) -> std::io::Result<(Bytes, Option<Instant>)> {
        let stop = self.turn.map_or(self.end, |(at, _)| at);
        let Some(flow) = &self.flow else {
            return Ok((self.content.chunk(self.at, stop - self.at)?, None));
        };
        let profile = flow.state.profile.read().clone();
        let rate = profile.connection_bytes_per_second;
        let chunk = self.content.chunk(self.at, chunk_bytes(rate).min(stop - self.at))?;
        let bytes = chunk.len() as u64;
        let own = flow.connection.lane.carry(bytes, rate);
        let shared = flow.state.lane.carry(bytes, profile.total_bytes_per_second);
        if let Some(shared) = shared {
            flow.connection.lane.hold(shared);
        }
        Ok((chunk, own.max(shared)))
    }

    /// Something happens here: an error, or a wait.
    fn turn(&mut self, turn: Turn) -> std::io::Result<()> {
        self.turn = None;
        match turn {
            Turn::Stall(time) => {
                self.sleep = Some(Box::pin(tokio::time::sleep(time)));
                return Ok(());
            }
            Turn::Reset => {
                if let Some(flow) = &self.flow {
                    flow.connection.reset();
                }
            }
            Turn::Truncate => {}
        }
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            if let Some(chunk) = self.chunk.take() {
                let bytes = chunk.len() as u64;
                self.at += bytes;
                if let Some(flow) = &mut self.flow {
                    flow.running.sent(bytes);
                }
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            if let Some((_, turn)) = self.turn.filter(|(at, _)| *at == self.at) {
                if let Err(error) = self.turn(turn) {
                    return Poll::Ready(Some(Err(error)));
                }
                continue;
            }
            if self.at >= self.end {
                // Over for the counters now, not when the connection is done with it.
                self.flow = None;
                return Poll::Ready(None);
            }
            let (chunk, when) = match self.next() {
                Ok(next) => next,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            self.chunk = Some(chunk);
            self.sleep = when
                .filter(|when| *when > Instant::now())
                .map(|when| Box::pin(tokio::time::sleep_until(when)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end && self.turn.is_none() && self.chunk.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}
