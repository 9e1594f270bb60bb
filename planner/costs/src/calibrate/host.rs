//! The micro-kernels of processors: plain loops that the compiler vectorises as it does the engine's, and what they reached on
//! the reference machine.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::calibrate::{Micro, Probe};
use crate::profile::Profile;

/// Larger than most caches of a core, smaller than what many cores share: columns come from there.
const COLUMN_BYTES: usize = 8 << 20;
/// What all workers read: more than caches hold.
const SHARED_BYTES: usize = 32 << 20;
/// Rows of a pass over tables.
const ROWS: usize = 1 << 16;
/// An odd multiplier whose products have random high bits.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Times the processor.
#[derive(Debug)]
pub struct HostProbe {
    workers: u32,
}

impl HostProbe {
    /// With so many threads where all are timed together.
    pub fn new(workers: u32) -> Self {
        Self { workers }
    }
}

impl Probe for HostProbe {
    fn rate(&mut self, micro: Micro, budget: Duration) -> Option<f64> {
        Some(match micro {
            Micro::Stream(1) => stream::<u8>(budget, |value| value < 100),
            Micro::Stream(2) => stream::<u16>(budget, |value| value < 100),
            Micro::Stream(4) => stream::<u32>(budget, |value| value < 100),
            Micro::Stream(_) => stream::<u64>(budget, |value| value < 100),
            Micro::StreamAll => stream_all(self.workers, budget),
            Micro::Write => write(budget),
            Micro::Random(kib) => random(kib, budget),
            Micro::Gather => gather(budget),
            Micro::Update(groups) => update(groups, budget),
            Micro::Hash => hash(budget),
            Micro::Divide => divide(budget),
            Micro::Text => text(budget),
            Micro::Sort => sort(budget),
            _ => return None,
        })
    }

    /// Measured with one worker on the machine whose fragments [`crate::catalogue::reference`] was fitted to; of all workers: two.
    fn reference(&self, micro: Micro, _base: &Profile) -> Option<f64> {
        Some(match micro {
            Micro::Stream(1) => 67e9,
            Micro::Stream(2) => 61e9,
            Micro::Stream(4) => 50e9,
            Micro::Stream(_) => 24e9,
            Micro::StreamAll => 72e9,
            Micro::Write => 48e9,
            Micro::Random(kib) if kib <= 32 => 3.5e9,
            Micro::Random(kib) if kib <= 1 << 10 => 2.1e9,
            Micro::Random(kib) if kib <= 32 << 10 => 280e6,
            Micro::Random(_) => 135e6,
            Micro::Gather => 3.7e9,
            Micro::Update(groups) if groups <= 16 => 2.4e9,
            Micro::Update(groups) if groups <= 1 << 14 => 4.1e9,
            Micro::Update(_) => 1.9e9,
            Micro::Hash => 42e6,
            Micro::Divide => 450e6,
            Micro::Text => 32e9,
            Micro::Sort => 1.9e9,
            _ => return None,
        })
    }
}

/// `amount` per second, by the quickest of the passes that fit into the budget; at least two.
fn quickest(amount: usize, budget: Duration, mut pass: impl FnMut() -> u64) -> f64 {
    let start = Instant::now();
    let mut least = Duration::MAX;
    let mut passes = 0;
    while passes < 2 || start.elapsed() < budget {
        let begin = Instant::now();
        black_box(pass());
        least = least.min(begin.elapsed());
        passes += 1;
    }
    amount as f64 / least.as_secs_f64().max(1e-9)
}

fn stream<T: Copy + Default + 'static>(budget: Duration, passes: impl Fn(T) -> bool + Copy) -> f64 {
    let values = vec![T::default(); COLUMN_BYTES / size_of::<T>()];
    quickest(COLUMN_BYTES, budget, || count(black_box(&values), passes))
}

/// Rows that pass: as a filter, in blocks that a narrow counter holds.
fn count<T: Copy>(values: &[T], passes: impl Fn(T) -> bool) -> u64 {
    let blocks = values.chunks(128);
    blocks
        .map(|block| u64::from(block.iter().map(|value| u8::from(passes(*value))).sum::<u8>()))
        .sum()
}

fn stream_all(workers: u32, budget: Duration) -> f64 {
    let each = budget / 2;
    let rates = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers.max(1))
            .map(|_| {
                scope.spawn(move || {
                    let values = vec![1_u64; SHARED_BYTES / 8];
                    quickest(SHARED_BYTES, each, || {
                        black_box(&values)
                            .iter()
                            .fold(0, |sum: u64, value| sum.wrapping_add(*value))
                    })
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum::<f64>()
    });
    rates.max(1.0)
}

fn write(budget: Duration) -> f64 {
    let mut values = vec![0_u64; COLUMN_BYTES / 8];
    let mut round = 0;
    quickest(COLUMN_BYTES, budget, || {
        round += 1;
        for (value, row) in values.iter_mut().zip(0_u64..) {
            *value = row.wrapping_add(round);
        }
        black_box(&values);
        round
    })
}

fn random(kib: u32, budget: Duration) -> f64 {
    let slots = (kib as usize * 256).next_power_of_two();
    let table: Vec<u32> = (0_u32..).take(slots).collect();
    let mut key = 1_u64;
    quickest(ROWS, budget, || {
        let mut sum = 0_u64;
        for _ in 0..ROWS {
            key = key.wrapping_add(MULTIPLIER);
            let [.., a, b, c, d] = (key.wrapping_mul(MULTIPLIER)).to_le_bytes();
            let place = u32::from_le_bytes([a, b, c, d]) as usize & (slots - 1);
            sum += u64::from(table[place]);
        }
        sum
    })
}

fn gather(budget: Duration) -> f64 {
    let values = vec![1_u32; ROWS * 8];
    let positions: Vec<u32> = (0_u32..).map(|row| row * 7 + row % 3).take(ROWS).collect();
    quickest(ROWS, budget, || {
        let values = black_box(&values);
        let read = |position: &u32| u64::from(values.get(*position as usize).copied().unwrap_or_default());
        positions.iter().map(read).sum()
    })
}

fn update(groups: u32, budget: Duration) -> f64 {
    let mut sums = vec![0_u64; groups as usize];
    let rows: Vec<u32> = (0_u64..)
        .map(|row| ((row.wrapping_mul(MULTIPLIER) >> 32) % u64::from(groups)) as u32)
        .take(ROWS)
        .collect();
    quickest(ROWS, budget, || {
        for group in &rows {
            if let Some(sum) = sums.get_mut(*group as usize) {
                *sum = sum.wrapping_add(1);
            }
        }
        sums.first().copied().unwrap_or_default()
    })
}

fn hash(budget: Duration) -> f64 {
    const SLOTS: usize = 1 << 17;
    let mut table = vec![0_u64; SLOTS];
    let place = |key: u64| (key.wrapping_mul(MULTIPLIER) >> 47) as usize % SLOTS;
    let keys: Vec<u64> = (1_u64..)
        .map(|row| row.wrapping_mul(MULTIPLIER) | 1)
        .take(ROWS)
        .collect();
    let find = |table: &[u64], key: u64| {
        let mut at = place(key);
        while table[at] != 0 && table[at] != key {
            at = (at + 1) % SLOTS;
        }
        at
    };
    for key in &keys {
        let at = find(&table, *key);
        table[at] = *key;
    }
    quickest(ROWS, budget, || keys.iter().map(|key| find(&table, *key) as u64).sum())
}

fn divide(budget: Duration) -> f64 {
    let values: Vec<u64> = (1_u64..)
        .map(|row| row.wrapping_mul(MULTIPLIER) >> 8)
        .take(ROWS)
        .collect();
    quickest(ROWS, budget, || {
        let divisor = black_box(9_973_u64);
        values.iter().map(|value| value / divisor).fold(0, u64::wrapping_add)
    })
}

fn text(budget: Duration) -> f64 {
    let text = "the quick brown fox jumps over the lazy dog and runs away from it ".repeat(1 << 10);
    quickest(text.len(), budget, || u64::from(black_box(&text).contains("jumped")))
}

fn sort(budget: Duration) -> f64 {
    let values: Vec<u64> = (0_u64..).map(|row| row.wrapping_mul(MULTIPLIER)).take(ROWS).collect();
    let mut sorted = values.clone();
    let comparisons = ROWS * ROWS.ilog2() as usize;
    quickest(comparisons, budget, || {
        sorted.copy_from_slice(&values);
        sorted.sort_unstable();
        sorted.first().copied().unwrap_or_default()
    })
}
