//! A pool with a limit that counts, fails on demand, and knows what was not given back.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use trireme_device_api::{DeviceError, DevicePool};

/// What is held for so long after a run is never given back. The kit's own tests, one of which leaks, have no threads of
/// devices that may be late.
const LAST_RELEASE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 60 });

#[derive(Debug, Default)]
struct State {
    held: usize,
    most: usize,
    reservations: usize,
    released_too_much: bool,
}

/// Counts what is reserved; refuses beyond a limit, or at the n-th reservation.
#[derive(Debug)]
pub struct CountingPool {
    limit_bytes: usize,
    fail_at: Option<usize>,
    state: Mutex<State>,
}

impl CountingPool {
    /// With a limit.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            fail_at: None,
            state: Mutex::default(),
        }
    }

    /// Without a limit, but the n-th reservation (from 0) and all after it fail.
    pub fn failing_at(reservation: usize) -> Self {
        Self {
            fail_at: Some(reservation),
            ..Self::new(usize::MAX)
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        act(&mut state)
    }

    /// Reservations that were asked for.
    pub fn reservations(&self) -> usize {
        self.with(|state| state.reservations)
    }

    /// The most that was held at once.
    pub fn most_bytes(&self) -> usize {
        self.with(|state| state.most)
    }

    /// That everything was given back, and nothing twice; asked when all kernels and outputs are gone.
    ///
    /// # Errors
    /// [`DeviceError::Internal`] with what is missing.
    pub fn check(&self) -> Result<(), DeviceError> {
        let began = Instant::now();
        // A device's thread lets go of a run just after it has told of its end.
        while self.with(|state| state.held) > 0 && began.elapsed() < LAST_RELEASE {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (held, too_much) = self.with(|state| (state.held, state.released_too_much));
        if too_much {
            return Err(DeviceError::Internal(
                "more memory was given back than was reserved".to_owned(),
            ));
        }
        if held > 0 {
            return Err(DeviceError::Internal(format!("{held} bytes were never given back")));
        }
        Ok(())
    }
}

impl DevicePool for CountingPool {
    fn reserve(&self, bytes: usize) -> Result<(), DeviceError> {
        if bytes == 0 {
            return Ok(());
        }
        self.with(|state| {
            let number = state.reservations;
            state.reservations += 1;
            let wanted = state.held.saturating_add(bytes);
            if wanted > self.limit_bytes || self.fail_at.is_some_and(|fail_at| number >= fail_at) {
                return Err(DeviceError::OutOfMemory(format!(
                    "{bytes} bytes asked, {} held, limit {}",
                    state.held, self.limit_bytes
                )));
            }
            state.held = wanted;
            state.most = state.most.max(wanted);
            Ok(())
        })
    }

    fn release(&self, bytes: usize) {
        self.with(|state| {
            state.released_too_much |= bytes > state.held;
            state.held = state.held.saturating_sub(bytes);
        });
    }
}
