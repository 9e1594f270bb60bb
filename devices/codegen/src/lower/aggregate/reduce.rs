//! Private slots of a group's work-items folded together, and into the arena.
//!
//! ```text
//!  work-item      0  1  2  3  4  5  6  7
//!                 ├──────────┘  │  │  │        halves folded into halves, a barrier in between
//!                 ├────┘        …
//!                 0 ─▶ one atomic per word
//! ```

use super::Grouping;
use super::cells::Cells;
use super::plan::Primitive;
use crate::build::u32;
use crate::ir::{Elem, Expr as Ir, LocalId, Scalar, Stmt};
use crate::lower::{Lowered, Lowering};

/// Local memory that registers go through at once, in bytes.
const CHUNK_BYTES: u32 = 16 << 10;

/// Primitives next to each other, numbered from the first one's first word.
struct Chunk {
    first: u32,
    words: u32,
    primitives: Vec<Primitive>,
}

fn chunks(primitives: &[Primitive], most: u32) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for primitive in primitives {
        let words = primitive.operation.words();
        let new = match chunks.last() {
            Some(last) => last.words + words > most,
            None => true,
        };
        if new {
            chunks.push(Chunk {
                first: primitive.at,
                words: 0,
                primitives: Vec::new(),
            });
        }
        if let Some(chunk) = chunks.last_mut() {
            let at = primitive.at - chunk.first;
            chunk.words += words;
            chunk.primitives.push(Primitive {
                at,
                ..primitive.clone()
            });
        }
    }
    chunks
}

/// A work-item's own cells (`local + LocalIndex`), and those of the one `distance` (U32) further on.
fn column(array: LocalId, first: Ir, stride: u32) -> Cells {
    Cells::Local { array, first, stride }
}

impl Grouping {
    pub(super) fn flush_registers(&self, l: &mut Lowering<'_>) -> Lowered<()> {
        let group = l.target.group;
        let chunks = chunks(&self.recipe.primitives, (CHUNK_BYTES / 8 / group).max(1));
        let most = chunks.iter().map(|chunk| chunk.words).max().unwrap_or(0);
        if most == 0 {
            return Ok(());
        }
        let array = l.b.local(Elem::U64, most * group);
        let slots = u32(u32::try_from(self.registers.len()).unwrap_or(u32::MAX));
        // A loop, for the text of one slot is long.
        l.range(Scalar::U32, (u32(0), slots, u32(1)), |l, slot| {
            chunks
                .iter()
                .try_for_each(|chunk| self.flush_slot(l, array, &slot, chunk))
        })
    }

    fn flush_slot(&self, l: &mut Lowering<'_>, array: LocalId, slot: &Ir, chunk: &Chunk) -> Lowered<()> {
        let group = l.target.group;
        let own = column(array, Ir::LocalIndex, group);
        let end = chunk.first + chunk.words;
        for (number, registers) in (0..).zip(&self.registers) {
            l.when(slot.clone().eq(u32(number)), |l| {
                own.copy(l, &Cells::Registers(registers.clone()), chunk.first..end);
                Ok(())
            })?;
        }
        halve(l, |l, distance| {
            let other = column(array, Ir::LocalIndex.plus(distance), group);
            own.fold_all(l, &other, &chunk.primitives)
        })?;
        l.when(Ir::LocalIndex.eq(u32(0)), |l| {
            let shared = self.slots.shared(l, slot.clone().to(Scalar::U64)).from(chunk.first);
            own.flush(l, &shared, &chunk.primitives)
        })?;
        l.b.push(Stmt::Barrier);
        Ok(())
    }

    pub(super) fn flush_local(&self, l: &mut Lowering<'_>) -> Lowered<()> {
        let group = l.target.group;
        let slots = u32(u32::try_from(self.slots_at_home()).unwrap_or(u32::MAX));
        let width = self.recipe.words * group;
        halve(l, |l, distance| {
            l.range(Scalar::U32, (u32(0), slots.clone(), u32(1)), |l, slot| {
                let first = slot.times(u32(width)).plus(Ir::LocalIndex);
                let first: Ir = l.b.set(Scalar::U32, first).into();
                let other = self.local_cells(l, first.clone().plus(distance));
                self.local_cells(l, first).fold_all(l, &other, &self.recipe.primitives)
            })
        })?;
        l.range(Scalar::U32, (Ir::LocalIndex, slots, u32(group)), |l, slot| {
            let first = l.b.set(Scalar::U32, slot.clone().times(u32(width)));
            let shared = self.slots.shared(l, slot.to(Scalar::U64));
            self.local_cells(l, first.into())
                .flush(l, &shared, &self.recipe.primitives)
        })
    }
}

/// Folds the upper half of work-items' cells into the lower half, until one is left; `fold` has the distance (U32).
fn halve(l: &mut Lowering<'_>, fold: impl FnOnce(&mut Lowering<'_>, Ir) -> Lowered<()>) -> Lowered<()> {
    let distance = l.b.set(Scalar::U32, u32(l.target.group / 2));
    l.repeat(|l| {
        l.b.push(Stmt::Barrier);
        l.b.when(Ir::from(distance).eq(u32(0)), |b| b.push(Stmt::Break));
        l.when(Ir::LocalIndex.lt(distance.into()), |l| fold(l, distance.into()))?;
        l.b.assign(distance, Ir::from(distance).shr(u32(1)));
        Ok(())
    })
}
