//! The device's part of a shared fragment: what it makes first, and which rows it takes. One worker at a time is at it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trireme_device_api::{DeviceError, FragmentId, Inputs, Kernel, Output, Progress};

use super::end::{add, rows_of};
use super::{CHUNK_SHARE, COMPILING, Chunk, Device, End, Host, SplitKernel, whole};

/// What takes so many times as long as expected, while nobody else has anything to do, is taken from the device.
const LATE_FACTOR: f64 = 2.0;
/// Starting and ending a shorter one isn't worth it.
const CHUNK_MS_MIN: f64 = 1.0;

impl SplitKernel {
    pub(super) fn step_device(&self) -> Result<Progress, DeviceError> {
        let mut state = self.state.lock();
        if matches!(state.end, End::Whole(_)) {
            return Ok(Progress::Waiting);
        }
        let stage = std::mem::replace(&mut state.device, Device::Busy);
        let host_is_idle = matches!(state.host, Host::Ended);
        drop(state);
        let (stage, progress) = match stage {
            Device::Begins(aside) => self.begin_device(aside, host_is_idle),
            Device::Builds(kernel, aside) => self.build(kernel, aside, host_is_idle),
            Device::Next(aside) => self.next(aside),
            Device::Chunk(chunk) => self.chunk(chunk, host_is_idle),
            // Not this worker's.
            Device::Busy => return Ok(Progress::Waiting),
            Device::Ended => (Device::Ended, Progress::Waiting),
        };
        let mut state = self.state.lock();
        if matches!(state.host, Host::Ended) && self.morsels.free_rows() > 0 {
            state.host = Host::Begins;
        }
        state.device = stage;
        drop(state);
        if progress == Progress::More {
            self.wake();
        }
        Ok(progress)
    }

    /// Nothing more is asked of the device; what it has not finished goes to the processor.
    fn leave(&self, morsels: &[usize], why: Option<String>) -> (Device, Progress) {
        {
            // The processor must not end in between.
            let _state = self.state.lock();
            self.morsels.give_back(morsels);
        }
        if let Some(why) = why {
            if let Some(steer) = &self.steer {
                steer.alone(self.helper.fragment, self.helper.variant.device(), &why);
            }
            self.state.lock().shared.left = Some(why);
        }
        (Device::Ended, Progress::More)
    }

    /// A planted fault, as if the device failed.
    fn fault(&self) -> Result<(), DeviceError> {
        let device = self.helper.variant.device();
        self.steer
            .as_ref()
            .map_or(Ok(()), |steer| steer.steps(device, &[self.helper.fragment]))
    }

    fn begin_device(&self, aside: Vec<usize>, host_is_idle: bool) -> (Device, Progress) {
        let device = self.helper.variant.device();
        let busy_ms = self.steer.as_ref().and_then(|steer| steer.busy_ms(device));
        if let Some(busy) = busy_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok())
            && self.began.elapsed() < busy
        {
            return match host_is_idle {
                true => self.leave(&aside, Some(format!("{device} is busy"))),
                false => (Device::Begins(aside), Progress::Waiting),
            };
        }
        let parts = &self.helper.parts;
        let builds: Vec<FragmentId> = (0..parts.cut()).collect();
        if builds.is_empty() {
            return (Device::Next(aside), Progress::More);
        }
        let inputs = Inputs {
            emit: None,
            ..self.inputs.clone()
        };
        let nothing = vec![None; parts.graph.fragments.len()];
        let variant = &self.helper.variant;
        let kernel = self
            .fault()
            .and_then(|()| variant.prepare_many(&parts.graph, &builds, &inputs, &nothing));
        match kernel {
            Ok(kernel) => (Device::Builds(kernel, aside), Progress::More),
            Err(error) => self.leave(&aside, Some(error.to_string())),
        }
    }

    fn build(&self, kernel: Arc<dyn Kernel>, aside: Vec<usize>, host_is_idle: bool) -> (Device, Progress) {
        let expected = Duration::try_from_secs_f64(self.helper.device_ms / 1e3).unwrap_or_default();
        if host_is_idle && let Some(why) = self.late(self.began, expected) {
            return self.leave(&aside, Some(why));
        }
        let step = self.fault().and_then(|()| kernel.step(0));
        let output = match step {
            Ok(Progress::Done) => kernel.finish(),
            Ok(progress) => return (Device::Builds(kernel, aside), progress),
            Err(error) => Err(error),
        };
        match output {
            Ok(Output::Many(outputs)) => {
                let mut state = self.state.lock();
                for (id, output) in outputs {
                    state.made[id] = Some(output);
                }
                (Device::Next(aside), Progress::More)
            }
            Ok(_) => self.leave(&aside, Some("its build sides are not there".to_owned())),
            Err(error) => self.leave(&aside, Some(error.to_string())),
        }
    }

    /// Why nobody waits for it any longer; none while it is in time.
    fn late(&self, began: Instant, expected: Duration) -> Option<String> {
        let late = expected.mul_f64(LATE_FACTOR) + self.helper.late_min;
        let device = self.helper.variant.device();
        (began.elapsed() > late).then(|| format!("{device} took longer than {:.0} ms", late.as_secs_f64() * 1e3))
    }

    /// Rows of a millisecond: (the processor's, the device's).
    fn rates(&self) -> (f64, f64) {
        let elapsed_ms = self.began.elapsed().as_secs_f64() * 1e3;
        let expected = |ms: f64| self.morsels.rows() as f64 / ms.max(1e-3);
        // It claims a morsel before it reads it.
        let host = match self.morsels.host_rows_read() {
            rows if rows > 0 && elapsed_ms > 1.0 => rows as f64 / elapsed_ms,
            _ => expected(self.helper.host_ms),
        };
        let device = self.state.lock().device_rate;
        (host, device.unwrap_or_else(|| expected(self.helper.device_ms)))
    }

    fn next(&self, aside: Vec<usize>) -> (Device, Progress) {
        let (host, device) = self.rates();
        let morsels = match aside.is_empty() {
            false => aside,
            true => {
                let left = self.morsels.free_rows() as f64;
                let half = left * device / (device + host) * CHUNK_SHARE;
                let taken = self.morsels.take(whole(half.max(device * CHUNK_MS_MIN)));
                // The processor would have done them before.
                if self.morsels.rows_of(&taken) as f64 / device > left / host {
                    return self.leave(&taken, None);
                }
                taken
            }
        };
        if morsels.is_empty() {
            return (Device::Ended, Progress::More);
        }
        let (parts, made) = (&self.helper.parts, self.state.lock().made.clone());
        let inputs = self.inputs_with(self.morsels.for_device(&morsels));
        let variant = &self.helper.variant;
        if !variant.warm(&parts.graph, &inputs) {
            self.state.lock().shared.left = Some(COMPILING.to_owned());
            return self.leave(&morsels, None);
        }
        let prepared = self
            .fault()
            .and_then(|()| variant.prepare(&parts.graph, parts.cut(), &inputs, &made));
        let rows = self.morsels.rows_of(&morsels) as f64;
        match prepared {
            Ok(kernel) => {
                let chunk = Chunk {
                    kernel,
                    morsels,
                    began: Instant::now(),
                    expected: Duration::try_from_secs_f64(rows / device / 1e3).unwrap_or_default(),
                    until: None,
                };
                (Device::Chunk(chunk), Progress::More)
            }
            Err(error) => self.leave(&morsels, Some(error.to_string())),
        }
    }

    fn chunk(&self, mut chunk: Chunk, host_is_idle: bool) -> (Device, Progress) {
        if host_is_idle && let Some(why) = self.late(chunk.began, chunk.expected) {
            return self.leave(&chunk.morsels, Some(why));
        }
        if let Some(until) = chunk.until {
            return match Instant::now() < until {
                true => (Device::Chunk(chunk), Progress::Waiting),
                false => self.end_chunk(&chunk),
            };
        }
        match self.fault().and_then(|()| chunk.kernel.step(0)) {
            Ok(Progress::Done) => {
                let device = self.helper.variant.device();
                let held = self.steer.as_ref().and_then(|steer| steer.held(device, chunk.began));
                if held.is_none() {
                    return self.end_chunk(&chunk);
                }
                chunk.until = held;
                (Device::Chunk(chunk), Progress::Waiting)
            }
            Ok(progress) => (Device::Chunk(chunk), progress),
            Err(error) => self.leave(&chunk.morsels, Some(error.to_string())),
        }
    }

    fn end_chunk(&self, chunk: &Chunk) -> (Device, Progress) {
        let rows = match chunk.kernel.finish().and_then(rows_of) {
            Ok(rows) => rows,
            Err(error) => return self.leave(&chunk.morsels, Some(error.to_string())),
        };
        let read = self.morsels.rows_of(&chunk.morsels);
        let mut state = self.state.lock();
        state.parts.push(rows);
        state.shared.rows += read as u64;
        state.shared.chunks += 1;
        state.device_rate = Some(read as f64 / (chunk.began.elapsed().as_secs_f64() * 1e3).max(1e-3));
        for (_, report) in chunk.kernel.reports() {
            add(&mut state.report, &report);
        }
        (Device::Next(Vec::new()), Progress::More)
    }
}
