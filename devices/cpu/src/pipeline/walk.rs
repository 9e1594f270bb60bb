//! How far a step goes through probes that multiply rows, and where the next one goes on.
//!
//! One tile may match any number of build rows, and each pair again at the next probe. So a step ends after so many pairs, or
//! when the client is behind, and leaves what it takes to go on: the place of each probe on the way, as plain numbers. The next
//! step makes the tile again, which gives the same rows, and seeks.
//!
//! ```text
//!  tile ─▶ probe A: piece 7 of its pairs ─▶ probe B: piece 3 │ stops        places: [B after piece 3, A before piece 7]
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

/// Pairs after which a step ends: some milliseconds of work, and so little that making a tile again costs nothing beside it.
pub(crate) const STEP_PAIRS: usize = 1 << 18;

/// Whether a tile went all the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Done,
    /// The walk has the places to go on from.
    Stopped,
}

/// Where a probe goes on with a tile.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// As [`crate::join::probe::Scratch::place`].
    pub(super) pairs: (usize, u32),
    /// By row of the tile, what was found so far: matches, or their absence.
    pub(super) flags: Vec<u8>,
    /// All pairs were seen; what is left is what follows from the flags.
    pub(super) rest: bool,
}

/// One step's way.
pub(super) struct Walk<'w> {
    pairs_left: usize,
    /// Of the step before, the outermost probe's last.
    resume: Vec<Place>,
    /// Of this step, the outermost probe's last.
    places: Vec<Place>,
    /// The client has enough to do for now.
    behind: &'w dyn Fn() -> bool,
    /// No further row matters.
    enough: &'w AtomicBool,
}

impl<'w> Walk<'w> {
    /// Of at most about so many pairs, going on where an earlier one stopped.
    pub(super) fn new(pairs: usize, resume: Vec<Place>, behind: &'w dyn Fn() -> bool, enough: &'w AtomicBool) -> Self {
        Self {
            pairs_left: pairs,
            resume,
            places: Vec::new(),
            behind,
            enough,
        }
    }

    /// Where a probe goes on; none if it begins. To be asked by each probe that makes pairs, from the outermost inwards.
    pub(super) fn enter(&mut self) -> Option<Place> {
        self.resume.pop()
    }

    /// Notes where a probe stopped, from the innermost outwards.
    pub(super) fn stop(&mut self, place: Place) -> Flow {
        self.places.push(place);
        Flow::Stopped
    }

    /// So many pairs were made: true when the step is to end.
    pub(super) fn spend(&mut self, pairs: usize) -> bool {
        self.pairs_left = self.pairs_left.saturating_sub(pairs);
        self.pairs_left == 0 || (self.behind)()
    }

    /// No further row matters.
    pub(super) fn enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    /// The places to go on from.
    pub(super) fn places(self) -> Vec<Place> {
        self.places
    }
}
