//! One range of an object, read with as many attempts as it takes.
//!
//! ```text
//!  fetch ─▶ slot ─▶ first byte (a second request when it is late) ─▶ body ─▶ all there
//!             ▲                         │                              │
//!             └── pause ◀── 5xx, 429, reset, timeout ◀── stalled, slow, cut short: what came is kept
//! ```
//!
//! Each attempt asks for what is still missing, of the version that the first answer had, and goes to the next of the
//! store's clients, so that it does not meet the same connection again. object_store's own retries are not counted on: the
//! clients that read should have none.

pub(crate) mod errors;
#[cfg(test)]
pub(crate) mod faulty;
mod opened;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{Attributes, Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, Result};
use rand::Rng;
use tokio::time::Instant;

use crate::controller::{Controller, Turn, Urgency};
use crate::hedge::HedgeBudget;
use crate::options::LakeOptions;
use crate::read::{Account, Meter, ObjectRef};
use errors::{Broken, Kind, Replaced, classify};
use opened::Opened;

/// First pause after a failure; doubles, with jitter.
const PAUSE: Duration = Duration::from_millis(40);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// Pauses while the store asks for fewer requests are so much longer.
const THROTTLED_PAUSES: u32 = 3;
/// Attempts that brought bytes don't count against the limit; this many times the limit is the end for them too.
const FRUITFUL: u32 = 4;
/// Attempts to reach a store that has never answered: its address is more likely wrong than its network.
const UNREACHABLE_MAX: u32 = 4;
/// How long a first byte, or the next bytes of a body, are waited for as long as nothing is measured.
const WAIT_UNKNOWN: Duration = Duration::from_secs(4);
/// Bodies are given up, and read on from where they were, when they take so many times what such a body takes.
const SLOW_TIMES: f64 = 4.0;
const SLOW_MIN: Duration = Duration::from_millis(400);
/// Or bring nothing for so many times a late first byte.
const HICCUP_TIMES: f64 = 4.0;
const HICCUP_MIN: Duration = Duration::from_millis(200);
/// What is under way is looked at after each of these.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Sends the requests of one store.
pub(crate) struct Requests {
    readers: Vec<Arc<dyn ObjectStore>>,
    next_reader: AtomicUsize,
    options: LakeOptions,
    controller: Arc<Controller>,
    hedges: HedgeBudget,
    totals: Arc<Account>,
}

/// What to fetch.
pub(crate) struct Ask<'a> {
    pub(crate) location: &'a Path,
    /// None is the whole object.
    pub(crate) range: Option<GetRange>,
    /// Conditions and extensions that each attempt carries; its range is not used.
    pub(crate) template: GetOptions,
    /// What the answer must be of.
    pub(crate) version: Option<&'a ObjectRef>,
}

/// What came.
pub(crate) struct Fetched {
    pub(crate) meta: ObjectMeta,
    pub(crate) range: Range<u64>,
    pub(crate) attributes: Attributes,
    pub(crate) bytes: BytesMut,
}

/// What the first answer said.
struct Head {
    meta: ObjectMeta,
    range: Range<u64>,
    attributes: Attributes,
}

/// One [`Requests::fetch`].
struct Transfer<'a> {
    ask: &'a Ask<'a>,
    meter: &'a Meter,
    head: Option<Head>,
    buffer: BytesMut,
    filled: u64,
    /// Attempts in a row that brought nothing.
    failed: u32,
}

impl Requests {
    pub(crate) fn new(readers: Vec<Arc<dyn ObjectStore>>, options: &LakeOptions, totals: Arc<Account>) -> Self {
        Self {
            readers,
            next_reader: AtomicUsize::new(0),
            controller: Controller::new(options),
            hedges: HedgeBudget::new(options.hedge_percent),
            options: options.clone(),
            totals,
        }
    }

    pub(crate) fn controller(&self) -> &Arc<Controller> {
        &self.controller
    }

    /// The counters of the store, and of whoever reads.
    pub(crate) fn meter(&self, account: Option<Arc<Account>>) -> Meter {
        Meter::new(Arc::clone(&self.totals), account)
    }

    /// Fetches one range. `buffer` may have room for it already (parts of one allocation).
    pub(crate) async fn fetch(
        &self,
        ask: &Ask<'_>,
        urgency: &Arc<Urgency>,
        meter: &Meter,
        buffer: BytesMut,
    ) -> Result<Fetched> {
        let mut transfer = Transfer {
            ask,
            meter,
            head: None,
            buffer,
            filled: 0,
            failed: 0,
        };
        let (mut attempts, mut turn) = (0_u32, Turn::default());
        loop {
            let before = transfer.filled;
            let slot = self.controller.acquire(urgency, &mut turn).await;
            let outcome = self.attempt(&mut transfer).await;
            drop(slot);
            let Err(error) = outcome else {
                return transfer.finish();
            };
            let kind = classify(&error);
            attempts += 1;
            transfer.failed = if transfer.filled > before {
                0
            } else {
                transfer.failed + 1
            };
            let most = self.attempts_max(kind);
            if transfer.failed >= most || attempts >= most.saturating_mul(FRUITFUL) {
                return Err(transfer.explain(error));
            }
            tracing::debug!(path = %ask.location, %error, attempts, "a read of a store is tried again");
            meter.add(|account| &account.retries, 1);
            pause(kind, transfer.failed).await;
        }
    }

    /// The properties of an object.
    pub(crate) async fn head(
        &self,
        location: &Path,
        options: &GetOptions,
        urgency: &Arc<Urgency>,
        meter: &Meter,
    ) -> Result<GetResult> {
        let (mut failed, mut turn) = (0, Turn::default());
        loop {
            let slot = self.controller.acquire(urgency, &mut turn).await;
            meter.asked();
            let asked = self.reader().get_opts(location, options.clone());
            let timeout = self.options.attempt_timeout;
            let outcome = match tokio::time::timeout(timeout, asked).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Broken::Timeout(timeout).into_error()),
            };
            let error = match outcome {
                Ok(result) => {
                    self.controller.answered(false);
                    return Ok(result);
                }
                Err(error) => error,
            };
            let kind = classify(&error);
            self.note(kind);
            drop(slot);
            failed += 1;
            if failed >= self.attempts_max(kind) {
                return Err(error);
            }
            meter.add(|account| &account.retries, 1);
            pause(kind, failed).await;
        }
    }

    fn note(&self, kind: Kind) {
        match kind {
            Kind::Throttled => self.controller.answered(true),
            Kind::Fatal => self.controller.answered(false),
            Kind::Transient | Kind::Unreachable => {}
        }
    }

    /// Attempts after which an error of this kind is given to the caller.
    fn attempts_max(&self, kind: Kind) -> u32 {
        let most = self.options.attempts_max.max(1);
        match kind {
            Kind::Fatal => 0,
            Kind::Unreachable if !self.controller.has_answered() => most.min(UNREACHABLE_MAX),
            _ => most,
        }
    }

    fn reader(&self) -> &Arc<dyn ObjectStore> {
        let next = self.next_reader.fetch_add(1, Ordering::Relaxed);
        &self.readers[next % self.readers.len()]
    }

    async fn attempt(&self, transfer: &mut Transfer<'_>) -> Result<()> {
        let missing = transfer.missing_bytes();
        if missing == Some(0) {
            return Ok(());
        }
        let opened = match self.first_byte(transfer, missing.unwrap_or(0)).await {
            Ok(opened) => opened,
            Err(error) => {
                self.note(classify(&error));
                return Err(error);
            }
        };
        self.controller.answered(false);
        transfer.check(&opened)?;
        self.body(transfer, opened).await
    }

    /// Reads the body until all is there, as long as bytes keep coming.
    async fn body(&self, transfer: &mut Transfer<'_>, opened: Opened) -> Result<()> {
        let Opened { first, mut stream, .. } = opened;
        let (started, before) = (Instant::now(), transfer.filled);
        let outcome = {
            if let Some(first) = &first {
                transfer.take(first, &self.controller);
            }
            drop(first);
            self.drain(transfer, &mut stream).await
        };
        self.controller
            .measures()
            .body(transfer.filled - before, started.elapsed());
        outcome
    }

    async fn drain(&self, transfer: &mut Transfer<'_>, stream: &mut BoxStream<'static, Result<Bytes>>) -> Result<()> {
        let missing = |transfer: &Transfer<'_>| transfer.missing_bytes().unwrap_or(0);
        let (started, bytes) = (Instant::now(), missing(transfer));
        let mut last = started;
        let timer = tokio::time::sleep(LOOK_AGAIN);
        tokio::pin!(timer);
        while missing(transfer) > 0 {
            tokio::select! {
                biased;
                chunk = stream.next() => match chunk {
                    None => return Err(Broken::Short(missing(transfer)).into_error()),
                    Some(Err(error)) => return Err(error),
                    Some(Ok(chunk)) => {
                        last = Instant::now();
                        transfer.take(&chunk, &self.controller);
                    }
                },
                () = &mut timer => {
                    self.still_worth_it(last.elapsed(), started.elapsed(), bytes, transfer.failed)?;
                    timer.as_mut().reset(Instant::now() + LOOK_AGAIN);
                }
            }
        }
        Ok(())
    }

    /// Gives up a body that has brought nothing for too long, or is slow, by what is known now: others may have been
    /// measured since it began.
    fn still_worth_it(&self, silent: Duration, taken: Duration, bytes: u64, failed: u32) -> Result<()> {
        let (hiccup, stall) = self.silences(failed);
        if silent >= stall {
            return Err(Broken::Stalled(stall).into_error());
        }
        let late = silent >= hiccup || self.slow_after(bytes).is_some_and(|slow| taken >= slow);
        if late && self.hedges.take() {
            return Err(Broken::Slow.into_error());
        }
        Ok(())
    }

    /// How long a body may bring nothing: before another connection is tried if second requests are left, and at all.
    fn silences(&self, failed: u32) -> (Duration, Duration) {
        let first = self.controller.measures().any_first_bytes();
        let times = |times: f64| first.map(|first| Duration::from_secs_f64(first.p95 * times));
        let hiccup = times(HICCUP_TIMES).map_or(WAIT_UNKNOWN, |hiccup| hiccup.max(HICCUP_MIN));
        let stall = times(10.0).unwrap_or(WAIT_UNKNOWN);
        (hiccup, self.patience(stall, failed))
    }

    /// Longer with each failed attempt: what is measured may not hold any more.
    fn patience(&self, usual: Duration, failed: u32) -> Duration {
        usual
            .max(self.options.late_min)
            .saturating_mul(1 << failed.min(10))
            .min(self.options.attempt_timeout)
    }

    /// When a body of so many bytes is slow, compared with what connections lately gave.
    fn slow_after(&self, bytes: u64) -> Option<Duration> {
        let rates = self.controller.measures().rates()?;
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let usual = bytes as f64 / rates.p50.max(1.0);
        Some(Duration::from_secs_f64((usual * SLOW_TIMES).min(3600.0)).max(SLOW_MIN))
    }
}

impl Transfer<'_> {
    /// Bytes that are still missing; none before an answer said how many there are.
    fn missing_bytes(&self) -> Option<u64> {
        match (&self.head, &self.ask.range) {
            (Some(head), _) => Some((head.range.end - head.range.start).saturating_sub(self.filled)),
            (None, Some(GetRange::Bounded(range))) => Some(range.end.saturating_sub(range.start)),
            (None, _) => None,
        }
    }

    fn expected(&self) -> Option<&str> {
        self.ask.version.and_then(|version| version.e_tag.as_deref())
    }

    /// What the next attempt asks for.
    fn options(&self) -> GetOptions {
        let mut options = self.ask.template.clone();
        let mut e_tag = self.expected();
        options.range = match &self.head {
            Some(head) => {
                e_tag = e_tag.or(head.meta.e_tag.as_deref());
                Some(GetRange::Bounded(head.range.start + self.filled..head.range.end))
            }
            None => self.ask.range.clone(),
        };
        // A weak tag never matches by `If-Match`; answers are compared with it all the same.
        if options.if_match.is_none() && e_tag.is_some_and(|e_tag| !e_tag.starts_with("W/")) {
            options.if_match = e_tag.map(str::to_owned);
        }
        options
    }

    /// Keeps what the first answer said; later ones must say the same.
    fn check(&mut self, opened: &Opened) -> Result<()> {
        let Some(head) = &self.head else {
            if let Some(version) = self.ask.version {
                let found = opened.meta.e_tag.as_deref();
                let other_tag =
                    matches!((&version.e_tag, found), (Some(expected), Some(found)) if bare(expected) != bare(found));
                if other_tag || opened.meta.size != version.size_bytes {
                    return Err(self.replaced(&version.version, found));
                }
            }
            let bytes = opened.range.end - opened.range.start;
            self.buffer.reserve(usize::try_from(bytes).unwrap_or(0));
            self.head = Some(Head {
                meta: opened.meta.clone(),
                range: opened.range.clone(),
                attributes: opened.attributes.clone(),
            });
            return Ok(());
        };
        let (was, is) = (&head.meta, &opened.meta);
        let other_tag = matches!((&was.e_tag, &is.e_tag), (Some(was), Some(is)) if bare(was) != bare(is));
        if other_tag || was.size != is.size || was.last_modified != is.last_modified {
            let expected = was.e_tag.clone().unwrap_or_else(|| was.last_modified.to_rfc3339());
            return Err(self.replaced(&expected, is.e_tag.as_deref()));
        }
        let asked = head.range.start + self.filled..head.range.end;
        if opened.range != asked {
            return Err(Broken::OtherRange(format!("{:?}", opened.range), format!("{asked:?}")).into_error());
        }
        Ok(())
    }

    fn replaced(&self, expected: &str, found: Option<&str>) -> Error {
        Error::Precondition {
            path: self.ask.location.to_string(),
            source: Box::new(Replaced {
                expected: expected.to_owned(),
                found: found.map(str::to_owned),
            }),
        }
    }

    /// Bytes in their place; more than was asked for is not taken.
    fn take(&mut self, chunk: &Bytes, controller: &Controller) {
        let room = usize::try_from(self.missing_bytes().unwrap_or(0)).unwrap_or(usize::MAX);
        let chunk = &chunk[..chunk.len().min(room)];
        self.buffer.extend_from_slice(chunk);
        self.filled += chunk.len() as u64;
        controller.arrived(chunk.len() as u64);
        self.meter.fetched(chunk.len() as u64, controller.best_rate());
    }

    fn finish(self) -> Result<Fetched> {
        let Some(head) = self.head else {
            return Err(Broken::Ended.into_error());
        };
        Ok(Fetched {
            meta: head.meta,
            range: head.range,
            attributes: head.attributes,
            bytes: self.buffer,
        })
    }

    /// The error as the caller sees it: a failed `If-Match` of ours says what it means.
    fn explain(&self, error: Error) -> Error {
        let first = self.head.as_ref().and_then(|head| head.meta.e_tag.as_deref());
        let expected = self.expected().or(first).or(self.ask.template.if_match.as_deref());
        match (&error, expected) {
            (Error::Precondition { source, .. }, Some(expected)) if !source.is::<Replaced>() => {
                self.replaced(expected, None)
            }
            _ => error,
        }
    }
}

/// An entity tag without its quotes: listings of some stores leave them out.
pub(crate) fn bare(e_tag: &str) -> &str {
    e_tag.trim_matches('"')
}

async fn pause(kind: Kind, failed: u32) {
    let doubled = PAUSE
        .saturating_mul(1 << failed.saturating_sub(1).min(10))
        .min(PAUSE_MAX);
    let most = match kind {
        Kind::Throttled => (doubled * THROTTLED_PAUSES).min(PAUSE_MAX),
        // A connection that broke after it had brought bytes says nothing against the next one.
        _ if failed == 0 => Duration::from_millis(2),
        _ => doubled,
    };
    let jitter = rand::rng().random_range(0.5..1.0);
    tokio::time::sleep(most.mul_f64(jitter)).await;
}
