//! Who runs next, and how far.

/// Order of the work-items that may run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One access each, in turn.
    RoundRobin,
    /// Each as far as it gets, in ascending order.
    OneByOne,
    /// Each as far as it gets, in descending order.
    Reverse,
    /// Any, for 1 … `burst` accesses.
    Random {
        /// Longest run.
        burst: u32,
    },
    /// As random, but one work-item is interrupted somewhere and goes on only when no other can.
    Starve {
        /// Longest run.
        burst: u32,
    },
}

/// Order of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupOrder {
    /// All at once.
    Interleaved,
    /// One after another.
    Ascending,
    /// One after another, the last one first.
    Descending,
}

/// How a launch runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Of whatever is drawn.
    pub seed: u64,
    /// Order of work-items.
    pub order: Order,
    /// Order of groups.
    pub groups: GroupOrder,
    /// Whether to look for races.
    pub races: bool,
    /// Whether atomic loads may give older values than the last; only where races are looked for.
    pub stale: bool,
    /// Operations that a work-item may take.
    pub operations_max: u64,
}

impl Schedule {
    /// What a plain processor does: one work-item after another, races not looked for.
    pub fn sequential() -> Self {
        Self {
            seed: 0,
            order: Order::OneByOne,
            groups: GroupOrder::Ascending,
            races: false,
            stale: false,
            operations_max: 100_000_000,
        }
    }

    /// Any schedule, drawn by a seed; looks for races. Seeds 0 to 3 are the plain ones.
    pub fn seeded(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let burst = [1, 2, 4, 16, 64, 1000][random.below(6)];
        let order = match seed {
            0 => Order::OneByOne,
            1 => Order::RoundRobin,
            2 => Order::Reverse,
            3 => Order::Random { burst: 1 },
            _ => match random.below(8) {
                0 => Order::RoundRobin,
                1 => Order::OneByOne,
                2 => Order::Reverse,
                3 | 4 => Order::Starve { burst },
                _ => Order::Random { burst },
            },
        };
        let groups = match random.below(6) {
            0 => GroupOrder::Ascending,
            1 => GroupOrder::Descending,
            _ => GroupOrder::Interleaved,
        };
        Self {
            seed,
            order,
            groups,
            races: true,
            stale: seed > 3 && random.below(2) == 0,
            ..Self::sequential()
        }
    }
}

/// A small generator (splitmix64), so that a seed means the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of 0 … `bound` − 1; 0 for an empty range.
    pub fn below(&mut self, bound: usize) -> usize {
        let drawn = u128::from(self.draw()) * u128::try_from(bound).unwrap_or(0);
        usize::try_from(drawn >> 64).unwrap_or(0)
    }
}
