//! Two queues in order, and events that order one after the other.

use std::any::Any;
use std::ffi::c_void;
use std::sync::Arc;

use opencl_sys as cl;
use opencl_sys::{cl_event, cl_int};
use trireme_device_api::DeviceError;
use trireme_device_runtime::{Event, Queue};

use crate::error::{Health, name};
use crate::probe::{DeviceId, context};
use crate::sys::{Api, Object, count, number_of, size};

/// A context and its queues.
pub(crate) struct Commands {
    pub(crate) api: Arc<Api>,
    pub(crate) device: DeviceId,
    pub(crate) context: Object,
    pub(crate) compute: Object,
    pub(crate) copy: Object,
    pub(crate) health: Arc<Health>,
}

impl Commands {
    /// # Errors
    /// Why the device can't be used, for people.
    pub(crate) fn open(api: &Arc<Api>, device: DeviceId, health: &Arc<Health>) -> Result<Self, String> {
        let context = context(api, device).map_err(|code| format!("it gives no context: {}", name(code)))?;
        let queue = || queue(api, device, &context).map_err(|code| format!("it gives no queue: {}", name(code)));
        Ok(Self {
            compute: queue()?,
            copy: queue()?,
            api: Arc::clone(api),
            device,
            context,
            health: Arc::clone(health),
        })
    }

    pub(crate) fn queue(&self, queue: Queue) -> *mut c_void {
        match queue {
            Queue::Compute => self.compute.raw(),
            Queue::Copy => self.copy.raw(),
        }
    }

    /// Sends what was enqueued on its way.
    pub(crate) fn flush(&self, queue: Queue) -> Result<(), DeviceError> {
        // SAFETY: the queue is alive.
        let code = unsafe { (self.api.flush)(self.queue(queue)) };
        self.health.check("sending work", code)
    }

    /// Owns an event that a command gave.
    pub(crate) fn event(&self, raw: cl_event) -> OpenClEvent {
        OpenClEvent {
            object: Object::new(&self.api, raw, self.api.release_event),
            api: Arc::clone(&self.api),
            health: Arc::clone(&self.health),
        }
    }

    /// Copies from host memory to a buffer.
    ///
    /// # Safety
    /// `from` stays as it is until the event.
    pub(crate) unsafe fn write(
        &self,
        queue: Queue,
        to: &Object,
        at: u64,
        from: &[u8],
    ) -> Result<OpenClEvent, DeviceError> {
        let mut event: cl_event = std::ptr::null_mut();
        // SAFETY: the buffer is alive; the caller keeps `from`.
        let code = unsafe {
            (self.api.enqueue_write)(
                self.queue(queue),
                to.raw(),
                cl::CL_FALSE,
                size(at),
                from.len(),
                from.as_ptr().cast(),
                0,
                std::ptr::null(),
                &raw mut event,
            )
        };
        self.health.check("copying to the device", code)?;
        let event = self.event(event);
        self.flush(queue)?;
        Ok(event)
    }

    /// A point in a queue.
    pub(crate) fn mark(&self, queue: Queue) -> Result<OpenClEvent, DeviceError> {
        let mut event: cl_event = std::ptr::null_mut();
        // SAFETY: the queue is alive; no wait list.
        let code = unsafe { (self.api.enqueue_marker)(self.queue(queue), 0, std::ptr::null(), &raw mut event) };
        self.health.check("marking a point", code)?;
        let event = self.event(event);
        self.flush(queue)?;
        Ok(event)
    }

    /// Lets a queue wait for an event.
    pub(crate) fn after(&self, queue: Queue, event: &OpenClEvent) -> Result<(), DeviceError> {
        let raw = event.object.raw();
        // SAFETY: the queue and the event are alive; the list has one event.
        let code =
            unsafe { (self.api.enqueue_barrier)(self.queue(queue), count(1), &raw const raw, std::ptr::null_mut()) };
        self.health.check("waiting for the other queue", code)
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        // Slabs and modules go next; nothing may be running that uses them.
        for queue in [Queue::Copy, Queue::Compute] {
            // SAFETY: the queue is alive.
            unsafe { (self.api.finish)(self.queue(queue)) };
        }
    }
}

fn queue(api: &Arc<Api>, device: DeviceId, context: &Object) -> Result<Object, cl_int> {
    let mut code = 0;
    let properties = cl::CL_QUEUE_PROFILING_ENABLE;
    // SAFETY: the context is of this device.
    let raw = unsafe { (api.create_queue)(context.raw(), device.0, properties, &raw mut code) };
    match code {
        0 => Ok(Object::new(api, raw, api.release_queue)),
        code => Err(code),
    }
}

/// A point in a queue.
pub(crate) struct OpenClEvent {
    object: Object,
    api: Arc<Api>,
    health: Arc<Health>,
}

impl OpenClEvent {
    pub(crate) fn reached(&self) -> Result<bool, DeviceError> {
        let ask = self.api.get_event_info;
        let raw = self.object.raw();
        let what = cl::CL_EVENT_COMMAND_EXECUTION_STATUS;
        // SAFETY: the event is alive; `capacity` bytes may be written to `place`.
        let status: Option<cl_int> =
            number_of(|capacity, place, length| unsafe { ask(raw, what, capacity, place, length) });
        match status {
            Some(code) if code < 0 => self.health.check_run("running", code).map(|()| false),
            Some(code) => Ok(code == cl::CL_COMPLETE),
            None => self.health.alive().map(|()| false),
        }
    }

    pub(crate) fn finished(&self) -> Result<(), DeviceError> {
        let raw = self.object.raw();
        // SAFETY: the event is alive; the list has one event.
        let code = unsafe { (self.api.wait_for_events)(count(1), &raw const raw) };
        self.health.check_run("waiting", code)?;
        self.reached().map(|_| ())
    }
}

impl Event for OpenClEvent {
    fn done(&self) -> Result<bool, DeviceError> {
        self.reached()
    }

    fn wait(&self) -> Result<(), DeviceError> {
        self.finished()
    }

    fn time_ns(&self) -> Option<u64> {
        let ask = self.api.get_event_profiling_info;
        let raw = self.object.raw();
        let what = cl::CL_PROFILING_COMMAND_END;
        // SAFETY: the event is alive; `capacity` bytes may be written to `place`.
        number_of(|capacity, place, length| unsafe { ask(raw, what, capacity, place, length) }).filter(|time| *time > 0)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}
