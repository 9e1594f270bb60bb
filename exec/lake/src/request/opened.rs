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
use super::{LOOK_AGAIN, Requests, Transfer, WAIT_UNKNOWN};
use crate::controller::Slot;

/// See the module.
pub(super) struct Opened {
    pub(super) meta: ObjectMeta,
    pub(super) range: Range<u64>,
    pub(super) attributes: Attributes,
    pub(super) first: Option<Bytes>,
    pub(super) stream: BoxStream<'static, Result<Bytes>>,
}

impl Opened {
    fn first_bytes(&self) -> u64 {
        self.first.as_ref().map_or(0, |first| first.len() as u64)
    }
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
        self.hedges.earn();
        meter.asked();
        let first = self.open(location, options.clone());
        tokio::pin!(first);
        let mut look = self.hedge_after(bytes, Duration::ZERO);
        let second_slot = loop {
            tokio::select! {
                biased;
                opened = &mut first => return self.came(bytes, started, opened),
                () = &mut late => return Err(Broken::Timeout(deadline).into_error()),
                () = tokio::time::sleep_until(started + look) => {}
            }
            // What is usual may have become known since, or a second request have been earned.
            let waited = started.elapsed();
            if self
                .hedges
                .after(self.controller.measures(), bytes)
                .is_some_and(|after| waited >= after)
                && let Some(slot) = self.hedge()
            {
                break slot;
            }
            look = self.hedge_after(bytes, waited);
        };
        meter.asked();
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
                () = &mut late => break Err(Broken::Timeout(deadline).into_error()),
            }
        };
        // What the loser had brought by now; it is dropped, and its connection with it.
        let loser = match (&won, first_open, second_open) {
            (Ok(_), true, false) => first.now_or_never(),
            (Ok(_), false, true) => second.now_or_never(),
            _ => None,
        };
        if let Some(Ok(lost)) = loser {
            meter.add(|account| &account.hedge_bytes, lost.first_bytes());
        }
        drop(second_slot);
        won
    }

    /// When to think of a second request next, after waiting so long.
    fn hedge_after(&self, bytes: u64, waited: Duration) -> Duration {
        let after = self.hedges.after(self.controller.measures(), bytes);
        match after.filter(|after| *after > waited) {
            Some(after) => after.min(waited + LOOK_AGAIN),
            None => waited + LOOK_AGAIN,
        }
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
        let usual = known.map_or(WAIT_UNKNOWN, |first| Duration::from_secs_f64(first.p95 * 10.0));
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
