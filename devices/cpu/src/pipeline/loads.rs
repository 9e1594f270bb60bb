//! How long a source's columns were being loaded: what of a fragment's time is not its own.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time in which at least one worker loads.
#[derive(Default)]
pub(super) struct Loads(Mutex<State>);

#[derive(Default)]
struct State {
    workers: usize,
    began: Option<Instant>,
    total: Duration,
}

impl Loads {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads something.
    pub(super) fn during<T>(&self, load: impl FnOnce() -> T) -> T {
        {
            let mut state = self.lock();
            state.workers += 1;
            state.began.get_or_insert_with(Instant::now);
        }
        let loaded = load();
        let mut state = self.lock();
        state.workers -= 1;
        if state.workers == 0 {
            let took = state.began.take().map_or(Duration::ZERO, |began| began.elapsed());
            state.total += took;
        }
        loaded
    }

    pub(super) fn total(&self) -> Duration {
        self.lock().total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_side_by_side_count_once_and_pauses_do_not() {
        let (loads, nap) = (Loads::default(), Duration::from_millis(20));
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| loads.during(|| std::thread::sleep(nap)));
            }
        });
        let (first, all) = (loads.total(), began.elapsed());
        assert!(first >= nap && first <= all, "{first:?} of {all:?}");
        std::thread::sleep(nap);
        assert_eq!(loads.total(), first);
        assert_eq!(loads.during(|| 7), 7);
    }
}
