//! An answer whose first bytes have come, and the race for them.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::future::FutureExt;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{Attributes, GetOptions, GetResultPayload, ObjectMeta, Result};
use tokio::time::Instant;

use super::errors::Broken;
use super::{Requests, Transfer, WAIT_MIN, WAIT_UNKNOWN};
use crate::controller::Slot;

/// See the module.
pub(super) struct Opened {
    pub(super) meta: ObjectMeta,
    pub(super) range: Range<u64>,
    pub(super) attributes: Attributes,
    pub(super) first: Option<Bytes>,
    pub(super) stream: BoxStream<'static, Result<Bytes>>,
}

impl Requests {
    /// Sends a request, and a second one when the first byte is late; gives the answer that begins first.
    pub(super) async fn first_byte(&self, transfer: &Transfer<'_>, bytes: u64) -> Result<Opened> {
        let (location, meter) = (transfer.ask.location, transfer.meter);
        let options = transfer.options();
        let started = Instant::now();
        let deadline = self.first_byte_deadline(bytes, transfer.failed);
        let late = tokio::time::sleep_until(started + deadline);
        tokio::pin!(late);
        meter.add(|account| &account.requests, 1);
        self.hedges.earn();
        let first = self.open(location, options.clone());
        tokio::pin!(first);
        let after = self
            .hedges
            .after(self.controller.measures(), bytes)
            .filter(|after| *after < deadline);
        tokio::select! {
            biased;
            opened = &mut first => return self.came(bytes, started, opened),
            () = tokio::time::sleep_until(started + after.unwrap_or(deadline)) => {}
        }
        let Some(second_slot) = after.and_then(|_| self.hedge()) else {
            return tokio::select! {
                biased;
                opened = &mut first => self.came(bytes, started, opened),
                () = &mut late => self.came(bytes, started, Err(Broken::Timeout(deadline).into_error())),
            };
        };
        meter.add(|account| &account.requests, 1);
        meter.add(|account| &account.hedges, 1);
        let second_started = Instant::now();
        let second = self.open(location, options);
        tokio::pin!(second);
        let (mut first_open, mut second_open) = (true, true);
        let won = loop {
            tokio::select! {
                biased;
                opened = &mut first, if first_open => {
                    first_open = false;
                    if opened.is_ok() || !second_open {
                        break self.came(bytes, started, opened);
                    }
                }
                opened = &mut second, if second_open => {
                    second_open = false;
                    if opened.is_ok() {
                        self.controller.measures().first_byte(bytes, started.elapsed());
                        meter.add(|account| &account.hedges_won, 1);
                    }
                    if opened.is_ok() || !first_open {
                        break self.came(bytes, second_started, opened);
                    }
                }
                () = &mut late => break self.came(bytes, started, Err(Broken::Timeout(deadline).into_error())),
            }
        };
        // What the loser had brought by now; it is dropped, and its connection with it.
        let loser = match (&won, first_open, second_open) {
            (Ok(_), true, false) => first.now_or_never(),
            (Ok(_), false, true) => second.now_or_never(),
            _ => None,
        };
        if let Some(Ok(Opened { first: Some(lost), .. })) = loser {
            meter.add(|account| &account.hedge_bytes, lost.len() as u64);
        }
        drop(second_slot);
        won
    }

    /// A slot for a second request, if one is allowed.
    fn hedge(&self) -> Option<Slot> {
        if !self.hedges.take() {
            return None;
        }
        let slot = self.controller.overdraw();
        if slot.is_none() {
            self.hedges.put_back();
        }
        slot
    }

    fn came(&self, bytes: u64, started: Instant, opened: Result<Opened>) -> Result<Opened> {
        if opened.is_ok() {
            self.controller.measures().first_byte(bytes, started.elapsed());
        }
        opened
    }

    fn first_byte_deadline(&self, bytes: u64, failed: u32) -> Duration {
        let known = self.controller.measures().first_bytes(bytes);
        let usual = known.map_or(WAIT_UNKNOWN, |first| {
            Duration::from_secs_f64(first.p95 * 10.0).max(WAIT_MIN)
        });
        self.patience(usual, failed)
    }

    async fn open(&self, location: &Path, options: GetOptions) -> Result<Opened> {
        let result = self.reader().get_opts(location, options).await?;
        let (meta, range, attributes) = (result.meta.clone(), result.range.clone(), result.attributes.clone());
        let mut stream = match result.payload {
            GetResultPayload::Stream(stream) => stream,
            GetResultPayload::File(..) => result.into_stream(),
        };
        let first = if range.is_empty() {
            None
        } else {
            stream.next().await.transpose()?
        };
        Ok(Opened {
            meta,
            range,
            attributes,
            first,
            stream,
        })
    }
}
