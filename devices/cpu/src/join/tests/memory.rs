//! Memory of build sides: reserved before it is taken, and given back.

use super::*;

/// Counts what is reserved, up to a limit.
struct Counted {
    held_bytes: std::sync::atomic::AtomicUsize,
    limit_bytes: usize,
}

impl DevicePool for Counted {
    fn reserve(&self, bytes: usize) -> Result<(), trireme_device_api::DeviceError> {
        let order = std::sync::atomic::Ordering::SeqCst;
        if self.held_bytes.fetch_add(bytes, order) + bytes > self.limit_bytes {
            self.held_bytes.fetch_sub(bytes, order);
            return Err(trireme_device_api::DeviceError::OutOfMemory("no more".into()));
        }
        Ok(())
    }

    fn release(&self, bytes: usize) {
        self.held_bytes.fetch_sub(bytes, std::sync::atomic::Ordering::SeqCst);
    }
}

/// Bytes held by a finished table, of 20,000 rows by two workers; then all are given back.
fn held_bytes(side: &Side, limit_bytes: usize) -> Result<usize, trireme_device_api::DeviceError> {
    let counted = Arc::new(Counted {
        held_bytes: std::sync::atomic::AtomicUsize::new(0),
        limit_bytes,
    });
    let held = || counted.held_bytes.load(std::sync::atomic::Ordering::SeqCst);
    let pool: Arc<dyn DevicePool> = Arc::clone(&counted) as Arc<dyn DevicePool>;
    let uses = BuildUse {
        rows: true,
        nulls_equal: false,
    };
    let result = (|| {
        let shape = [side.shape()];
        let plan = Arc::new(BuildPlan::new(&shape, &shape, uses, &pool, Isa::detect()));
        let mut locals = vec![BuildLocal::new(&plan), BuildLocal::new(&plan)];
        let mut random = StdRng::seed_from_u64(4);
        for _ in 0..10 {
            for local in &mut locals {
                let values: Vec<_> = (0..1000).map(|_| side.random(&mut random, true)).collect();
                local.push(&[side.vector(&values)], &[side.vector(&values)], 1000)?;
            }
        }
        let building = Building::new(&plan, locals)?;
        (0..building.tasks()).try_for_each(|task| building.run_task(task))?;
        let table = building.finish()?;
        assert!(held() >= table.payload()[0].size_bytes() + 4 * table.rows());
        Ok(held())
    })();
    assert_eq!(held(), 0, "all memory was given back");
    result
}

#[test]
fn memory_is_reserved_and_given_back() {
    for side in [Side::Int(0, 100), Side::Int(0, 1 << 60), Side::Bytes] {
        let needed = held_bytes(&side, usize::MAX).unwrap();
        assert!(needed < 20_000 * 200, "{side:?} holds {needed}");
        for part in [0, 10_000, needed / 2, needed - 1] {
            assert!(held_bytes(&side, part).is_err());
        }
    }
}
