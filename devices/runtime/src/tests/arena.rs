//! The arena against a model: a list of what is taken.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::driver::TestDriver;
use crate::arena::{Arena, Block, aligned};
use crate::driver::Driver;

const ARENA_BYTES: u64 = 1 << 16;

fn arena(driver: &Arc<TestDriver>) -> Arc<Arena> {
    let driver: Arc<dyn Driver> = Arc::<TestDriver>::clone(driver);
    Arena::new(driver, ARENA_BYTES)
}

/// Whether a list of blocks leaves a gap of so many bytes.
fn has_gap(blocks: &[Block], bytes: u64) -> bool {
    let mut taken: Vec<_> = blocks
        .iter()
        .map(|block| (block.at(), block.at() + aligned(block.bytes())))
        .collect();
    taken.sort_unstable();
    let starts = std::iter::once(aligned(1)).chain(taken.iter().map(|(_, end)| *end));
    let ends = taken.iter().map(|(start, _)| *start).chain([ARENA_BYTES]);
    starts.zip(ends).any(|(start, end)| end - start >= aligned(bytes))
}

#[test]
fn blocks_never_overlap_and_are_refused_only_without_a_gap() {
    for seed in 0..30 {
        let mut rng = SmallRng::seed_from_u64(seed);
        // The driver's interpreter refuses allocations that overlap.
        let driver = TestDriver::new(ARENA_BYTES);
        let arena = arena(&driver);
        let mut blocks: Vec<Block> = Vec::new();
        for _ in 0..400 {
            if rng.random_bool(0.55) {
                let bytes = match rng.random_range(0..3) {
                    0 => rng.random_range(0..10),
                    1 => rng.random_range(0..2_000),
                    _ => rng.random_range(0..20_000),
                };
                let gap = has_gap(&blocks, bytes);
                match arena.allocate(bytes).unwrap() {
                    Some(block) => {
                        assert!(block.at() >= 256 && block.at().is_multiple_of(256), "seed {seed}");
                        assert!(block.at() + bytes <= ARENA_BYTES, "seed {seed}");
                        blocks.push(block);
                    }
                    None => assert!(!gap, "seed {seed}: {bytes} bytes were refused though there is a gap"),
                }
            } else if !blocks.is_empty() {
                let index = rng.random_range(0..blocks.len());
                blocks.swap_remove(index);
            }
            let taken: u64 = blocks.iter().map(|block| aligned(block.bytes())).sum();
            assert_eq!(arena.used(), taken, "seed {seed}");
        }
        blocks.clear();
        assert_eq!(arena.used(), 0);
        assert_eq!(arena.largest(), arena.bytes());
        assert_eq!(driver.machine.lock().allocated(), (0, 0));
    }
}

#[test]
fn what_the_driver_refuses_is_given_back() {
    let driver = TestDriver::new(ARENA_BYTES);
    let arena = arena(&driver);
    driver.fail_at.store(1, std::sync::atomic::Ordering::SeqCst);
    let first = arena.allocate(100).unwrap().unwrap();
    assert!(arena.allocate(100).is_err());
    assert_eq!(arena.used(), 256);
    drop(first);
    assert_eq!(arena.largest(), arena.bytes());
}
