//! A device's context, its two streams, and events with the device's time.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use trireme_device_api::DeviceError;
use trireme_device_runtime::{Event, Queue};

use crate::error::{Health, NOT_READY};
use crate::sys::{Cuda, Handle, Ordinal};

/// `CU_STREAM_NON_BLOCKING`: not ordered with the default stream.
const NON_BLOCKING: u32 = 1;

/// From so many milliseconds on, times are measured from a later event: differences are 32-bit floats.
const REBASE_MS: f32 = 1000.0;

/// A driver's handle that may be used from all threads.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub(crate) Handle);

// SAFETY: contexts, streams, events, modules and functions may be used from all threads, one call at a time or many; the
// pointers are only ever passed to the driver.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// A device's primary context; released on drop.
pub(crate) struct Context {
    pub(crate) cuda: Arc<Cuda>,
    pub(crate) ordinal: Ordinal,
    pub(crate) health: Arc<Health>,
    raw: Shared,
}

impl Context {
    /// # Errors
    /// When the device gives none.
    pub(crate) fn open(cuda: &Arc<Cuda>, ordinal: Ordinal, health: &Arc<Health>) -> Result<Arc<Self>, DeviceError> {
        let mut raw: Handle = std::ptr::null_mut();
        // SAFETY: the device was listed; a place for a handle.
        let code = unsafe { (cuda.retain_context)(&raw mut raw, ordinal) };
        health.check("taking a context", code)?;
        Ok(Arc::new(Self {
            cuda: Arc::clone(cuda),
            ordinal,
            health: Arc::clone(health),
            raw: Shared(raw),
        }))
    }

    /// Makes the context this thread's, as calls need it.
    ///
    /// # Errors
    /// When the device is lost.
    pub(crate) fn enter(&self) -> Result<&Cuda, DeviceError> {
        self.health.alive()?;
        // SAFETY: the context is retained.
        let code = unsafe { (self.cuda.set_context)(self.raw.0) };
        self.health.check("entering the context", code)?;
        Ok(&self.cuda)
    }

    /// As [`Context::enter`], for giving things back: also of a lost device.
    pub(crate) fn leave(&self) -> &Cuda {
        // SAFETY: the context is retained. An answer changes nothing: what is given back fails too.
        unsafe { (self.cuda.set_context)(self.raw.0) };
        &self.cuda
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once.
        unsafe { (self.cuda.release_context)(self.ordinal) };
    }
}

/// The streams, and the clock of their events.
pub(crate) struct Streams {
    pub(crate) context: Arc<Context>,
    compute: Shared,
    copy: Shared,
    clock: Arc<Clock>,
}

impl Streams {
    /// # Errors
    /// When the device gives none.
    pub(crate) fn open(context: &Arc<Context>) -> Result<Self, DeviceError> {
        let cuda = context.enter()?;
        let stream = || {
            let mut raw: Handle = std::ptr::null_mut();
            // SAFETY: the context is current; a place for a handle.
            let code = unsafe { (cuda.create_stream)(&raw mut raw, NON_BLOCKING) };
            context.health.check("making a stream", code).map(|()| Shared(raw))
        };
        Ok(Self {
            compute: stream()?,
            copy: stream()?,
            context: Arc::clone(context),
            clock: Arc::default(),
        })
    }

    pub(crate) fn raw(&self, queue: Queue) -> Handle {
        match queue {
            Queue::Compute => self.compute.0,
            Queue::Copy => self.copy.0,
        }
    }

    /// A point in a queue.
    pub(crate) fn mark(&self, queue: Queue) -> Result<CudaEvent, DeviceError> {
        let event = self.event()?;
        self.record(&event, queue)?;
        Ok(event)
    }

    /// An event that marks nothing yet.
    pub(crate) fn event(&self) -> Result<CudaEvent, DeviceError> {
        let cuda = self.context.enter()?;
        let mut raw: Handle = std::ptr::null_mut();
        // SAFETY: the context is current; a place for a handle; flags 0: with time.
        let code = unsafe { (cuda.create_event)(&raw mut raw, 0) };
        self.context.health.check("making an event", code)?;
        Ok(CudaEvent {
            point: Arc::new(Point {
                context: Arc::clone(&self.context),
                raw: Shared(raw),
            }),
            clock: Arc::clone(&self.clock),
            time_ns: OnceLock::new(),
        })
    }

    /// Sets an event to the end of a queue. Should that fail, the queue is waited for: whoever has no mark takes what it stands for as
    /// not begun.
    pub(crate) fn record(&self, event: &CudaEvent, queue: Queue) -> Result<(), DeviceError> {
        let cuda = self.context.enter()?;
        // SAFETY: event and stream are of this context.
        let code = unsafe { (cuda.record_event)(event.point.raw.0, self.raw(queue)) };
        self.context.health.check("marking a point", code).inspect_err(|_| {
            // SAFETY: a stream of this context. What it says is of no use beside the error.
            let _ = unsafe { (cuda.synchronize)(self.raw(queue)) };
        })
    }

    /// Lets a queue wait for an event.
    pub(crate) fn after(&self, queue: Queue, event: &CudaEvent) -> Result<(), DeviceError> {
        let cuda = self.context.enter()?;
        // SAFETY: stream and event are alive; no flags.
        let code = unsafe { (cuda.wait_event)(self.raw(queue), event.point.raw.0, 0) };
        self.context.health.check("waiting for the other queue", code)
    }

    /// Waits for all that was put into a queue.
    pub(crate) fn drain(&self, queue: Queue) -> Result<(), DeviceError> {
        let cuda = self.context.enter()?;
        // SAFETY: the stream is alive.
        let code = unsafe { (cuda.synchronize)(self.raw(queue)) };
        self.context.health.check("waiting", code)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        let cuda = self.context.leave();
        for stream in [self.copy, self.compute] {
            // SAFETY: the streams were made once; work in them ends before their memory is freed.
            unsafe {
                (cuda.synchronize)(stream.0);
                (cuda.destroy_stream)(stream.0);
            }
        }
    }
}

/// The driver's event; destroyed on drop.
struct Point {
    context: Arc<Context>,
    raw: Shared,
}

impl Drop for Point {
    fn drop(&mut self) {
        // SAFETY: made once; the driver keeps what streams still wait for.
        unsafe { (self.context.leave().destroy_event)(self.raw.0) };
    }
}

/// Turns differences between events into times: an event, and its time.
#[derive(Default)]
struct Clock {
    base: Mutex<Option<(Arc<Point>, i64)>>,
}

impl Clock {
    /// The time of an event that is done, from the first one that was asked for.
    fn time_ns(&self, point: &Arc<Point>) -> Option<u64> {
        let mut base = self.base.lock();
        let Some((from, at_ns)) = base.as_ref() else {
            // Later than zero, so that events before it have times too.
            let start_ns = 1_i64 << 40;
            *base = Some((Arc::clone(point), start_ns));
            return u64::try_from(start_ns).ok();
        };
        let cuda = point.context.enter().ok()?;
        let mut elapsed_ms = 0.0_f32;
        // SAFETY: both events are alive; a place for a number.
        let code = unsafe { (cuda.elapsed)(&raw mut elapsed_ms, from.raw.0, point.raw.0) };
        if code != 0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "nanoseconds of a difference between events"
        )]
        let time_ns = at_ns + (f64::from(elapsed_ms) * 1e6) as i64;
        if elapsed_ms > REBASE_MS {
            *base = Some((Arc::clone(point), time_ns));
        }
        u64::try_from(time_ns).ok()
    }
}

/// A point in a stream.
pub(crate) struct CudaEvent {
    point: Arc<Point>,
    clock: Arc<Clock>,
    time_ns: OnceLock<Option<u64>>,
}

impl Event for CudaEvent {
    fn done(&self) -> Result<bool, DeviceError> {
        let cuda = self.point.context.enter()?;
        // SAFETY: the event is alive.
        match unsafe { (cuda.query_event)(self.point.raw.0) } {
            NOT_READY => Ok(false),
            code => self.point.context.health.check("running", code).map(|()| true),
        }
    }

    fn wait(&self) -> Result<(), DeviceError> {
        let cuda = self.point.context.enter()?;
        // SAFETY: the event is alive.
        let code = unsafe { (cuda.synchronize_event)(self.point.raw.0) };
        self.point.context.health.check("running", code)
    }

    fn time_ns(&self) -> Option<u64> {
        if !self.done().ok()? {
            return None;
        }
        *self.time_ns.get_or_init(|| self.clock.time_ns(&self.point))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}
