//! Operations of one work-item, with all checks.

use super::bits::{self, Bits};
use super::compile::{AtomicOp, AtomicPlace, Change, Op, Reg};
use super::machine::position;
use super::races::{Access, Actor};
use super::run::{Running, State};
use super::violation::{ViolationKind, Wrong};
use crate::ir::{Compare, Elem};

/// Where an access goes: the arena, or local memory of a group.
#[derive(Debug, Clone, Copy)]
struct At {
    group: Option<usize>,
    address: u64,
    elem: Elem,
}

impl Op {
    /// Whether others can see it, so that it matters who goes first.
    fn is_shared(&self) -> bool {
        match self {
            Op::Load { constant, .. } => !constant,
            Op::Store { .. }
            | Op::StoreLocal { .. }
            | Op::LoadLocal { .. }
            | Op::Atomic(_)
            | Op::Barrier
            | Op::Fence => true,
            _ => false,
        }
    }
}

impl Running<'_> {
    /// Runs a work-item for so many accesses that others can see, or until it waits or ends.
    pub(super) fn advance(&mut self, item: usize, accesses: u64) -> Result<(), Wrong> {
        let ops = &self.code.ops;
        let mut left = accesses;
        let mut operations = 0;
        while self.items[item].state == State::Ready {
            let next = self.items[item].next;
            let op = &ops[next];
            if op.is_shared() {
                if left == 0 {
                    break;
                }
                left -= 1;
                self.stats.accesses += 1;
            }
            operations += 1;
            self.items[item].next = next + 1;
            if self.items[item].operations + operations > self.operations_max() {
                return Err(Wrong::new(
                    ViolationKind::Endless,
                    format!("not done after {} operations", self.operations_max()),
                ));
            }
            self.operation(item, op)?;
        }
        self.stats.operations += operations;
        self.items[item].operations += operations;
        Ok(())
    }

    fn operation(&mut self, item: usize, op: &Op) -> Result<(), Wrong> {
        let this = &mut self.items[item];
        let registers = &mut this.registers;
        let get = |reg: Reg| registers[reg as usize];
        let (into, value) = match *op {
            Op::Copy { into, from, .. } => (into, get(from)),
            Op::Unary { op, scalar, into, a } => (into, bits::unary(op, scalar, get(a))?),
            Op::Binary { op, scalar, into, a, b } => (into, bits::binary(op, scalar, get(a), get(b))?),
            Op::Compare { op, scalar, into, a, b } => (into, bits::compare(op, scalar, get(a), get(b))),
            Op::Select {
                into, condition, a, b, ..
            } => (into, if get(condition) == 0 { get(b) } else { get(a) }),
            Op::Convert { from, to, into, a } => (into, bits::convert(from, to, get(a))?),
            Op::Jump(target) => {
                this.next = target;
                return Ok(());
            }
            Op::JumpUnless { condition, target } => {
                if get(condition) == 0 {
                    this.next = target;
                }
                return Ok(());
            }
            _ => return self.shared(item, op),
        };
        registers[into as usize] = value;
        Ok(())
    }

    fn shared(&mut self, item: usize, op: &Op) -> Result<(), Wrong> {
        match *op {
            Op::Load {
                elem,
                constant,
                into,
                base,
                index,
            } => {
                let at = self.in_arena(item, elem, base, index)?;
                let access = if constant { Access::ReadConstant } else { Access::Read };
                let value = self.load(item, at, access)?;
                self.items[item].registers[into as usize] = bits::loaded(elem, value);
            }
            Op::LoadLocal { into, local, index } => {
                let at = self.in_local(item, local, index)?;
                let value = self.load(item, at, Access::Read)?;
                self.items[item].registers[into as usize] = bits::loaded(at.elem, value);
            }
            Op::Store {
                elem,
                base,
                index,
                value,
            } => {
                let at = self.in_arena(item, elem, base, index)?;
                let value = self.register(item, value);
                self.store(item, at, Access::Write, value)?;
            }
            Op::StoreLocal { local, index, value } => {
                let at = self.in_local(item, local, index)?;
                let value = self.register(item, value);
                self.store(item, at, Access::Write, value)?;
            }
            Op::Atomic(ref atomic) => self.atomic(item, atomic)?,
            Op::Barrier => self.items[item].state = State::AtBarrier,
            Op::Fence => {
                if let Some((races, _)) = &mut self.races {
                    races.fence(actor(item, 0).item);
                }
            }
            Op::Forget(reg) => self.items[item].marks[reg as usize] = false,
            Op::Mark(reg) => self.items[item].marks[reg as usize] = true,
            Op::Check { reg, name } if !self.items[item].marks[reg as usize] => {
                return Err(Wrong::new(
                    ViolationKind::UninitialisedVariable,
                    format!("v{name} is read before it is assigned"),
                ));
            }
            Op::End => self.items[item].state = State::Done,
            _ => {}
        }
        Ok(())
    }

    fn register(&self, item: usize, reg: Reg) -> Bits {
        self.items[item].registers[reg as usize]
    }

    /// An element of the arena, inside the allocation that its base points into.
    fn in_arena(&mut self, item: usize, elem: Elem, base: Reg, index: Reg) -> Result<At, Wrong> {
        let (base, index) = (self.register(item, base), self.register(item, index));
        let bytes = u64::from(elem.bytes());
        let base = u64::try_from(base).unwrap_or(u64::MAX);
        let slot = self.items[item].next % self.recent.len();
        let (mut start, mut end) = self.recent[slot];
        if !(start..end).contains(&base) {
            (start, end) = self.allocations.find(base)?;
            self.recent[slot] = (start, end);
        }
        let wide = u128::from(base) + index * u128::from(bytes);
        let address = u64::try_from(wide).unwrap_or(u64::MAX);
        if wide + u128::from(bytes) > u128::from(end) {
            return Err(Wrong::at(
                ViolationKind::OutOfBounds,
                address,
                format!("element {index} ({elem:?}) of the array at {base}; the allocation is {start} … {end}"),
            ));
        }
        if !address.is_multiple_of(bytes.min(8)) {
            return Err(Wrong::at(
                ViolationKind::Misaligned,
                address,
                format!("element {index} ({elem:?}) of the array at {base}"),
            ));
        }
        Ok(At {
            group: None,
            address,
            elem,
        })
    }

    fn in_local(&self, item: usize, local: u32, index: Reg) -> Result<At, Wrong> {
        let place = self.code.locals[local as usize];
        let index = self.register(item, index);
        if index >= u128::from(place.len) {
            return Err(Wrong::new(
                ViolationKind::LocalOutOfBounds,
                format!("element {index} of local{local}, which has {}", place.len),
            ));
        }
        let offset = u64::try_from(index).unwrap_or(0) * u64::from(place.elem.bytes());
        Ok(At {
            group: Some(self.group_of(item)),
            address: place.at + offset,
            elem: place.elem,
        })
    }

    /// Looks for races of an access.
    fn watch(&mut self, item: usize, at: At, access: Access) -> Result<(), Wrong> {
        let op = self.items[item].next - 1;
        let Some((races, shadow)) = &mut self.races else {
            return Ok(());
        };
        let shadow = match at.group {
            Some(group) => &mut self.groups[group].shadow,
            None => shadow,
        };
        let found = races.access(shadow, at.address, u64::from(at.elem.bytes()), access, actor(item, op));
        found.map_err(|race| self.raced(&race, at.address))
    }

    fn load(&mut self, item: usize, at: At, access: Access) -> Result<Bits, Wrong> {
        self.watch(item, at, access)?;
        let bytes = at.elem.bytes() as usize;
        let (memory, kind) = match at.group {
            Some(group) => (&self.groups[group].local, ViolationKind::UninitialisedLocal),
            None => (&*self.memory, ViolationKind::UninitialisedMemory),
        };
        let place = position(at.address);
        if !memory.is_written(place, bytes) {
            return Err(Wrong::at(kind, at.address, format!("{bytes} bytes that hold nothing")));
        }
        Ok(memory.get(place, bytes))
    }

    fn store(&mut self, item: usize, at: At, access: Access, value: Bits) -> Result<(), Wrong> {
        self.watch(item, at, access)?;
        let bytes = at.elem.bytes() as usize;
        match at.group {
            Some(group) => self.groups[group].local.put(position(at.address), bytes, value),
            None => self.memory.put(position(at.address), bytes, value),
        }
        Ok(())
    }

    /// What an atomic finds, if there is something.
    fn value_before(&self, at: At, reads: bool, old: Bits) -> Option<Bits> {
        if reads || !self.stale {
            return Some(old);
        }
        let memory = match at.group {
            Some(group) => &self.groups[group].local,
            None => &*self.memory,
        };
        let (place, bytes) = (position(at.address), at.elem.bytes() as usize);
        memory.is_written(place, bytes).then(|| memory.get(place, bytes))
    }

    fn atomic(&mut self, item: usize, atomic: &AtomicOp) -> Result<(), Wrong> {
        let at = match atomic.place {
            AtomicPlace::Arena { base, index } => self.in_arena(item, atomic.elem, base, index)?,
            AtomicPlace::Local { local, index } => self.in_local(item, local, index)?,
        };
        let scalar = atomic.elem.scalar();
        let reads = !matches!(atomic.change, Change::Store(_)) || atomic.old.is_some();
        let mut old = if reads {
            self.load(item, at, Access::AtomicRead)?
        } else {
            0
        };
        let new = match atomic.change {
            Change::Load => None,
            Change::Store(value) | Change::Exchange(value) => Some(self.register(item, value)),
            Change::Modify(op, value) => Some(bits::binary(op, scalar, old, self.register(item, value))?),
            Change::CompareExchange { expected, value } => {
                let hit = bits::compare(Compare::Equal, scalar, old, self.register(item, expected)) == 1;
                hit.then(|| self.register(item, value))
            }
        };
        let before = self.value_before(at, reads, old);
        if let Some(value) = new {
            self.store(item, at, Access::AtomicWrite, value)?;
        }
        let stale = self.stale;
        if let Some((races, shadow)) = &mut self.races {
            let shadow = match at.group {
                Some(group) => &mut self.groups[group].shadow,
                None => shadow,
            };
            let (place, number) = ((at.address, u64::from(at.elem.bytes())), actor(item, 0).item);
            let older = match atomic.change {
                Change::Load if stale => races.older(shadow, place, number, &mut self.random),
                _ => None,
            };
            if let Some(value) = older {
                old = value;
            } else {
                races.atomic(shadow, place.0, place.1, reads, new.is_some(), number);
            }
            match (atomic.change, before) {
                (Change::Load, _) => {}
                (_, Some(before)) if stale => races.changed(shadow, place, number, (before, new)),
                _ => {}
            }
        }
        if let Some(into) = atomic.old {
            self.items[item].registers[into as usize] = old;
        }
        Ok(())
    }
}

fn actor(item: usize, op: usize) -> Actor {
    Actor {
        item: u32::try_from(item).unwrap_or(u32::MAX),
        op: u32::try_from(op).unwrap_or(u32::MAX),
    }
}
