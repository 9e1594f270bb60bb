//! Slots of accumulators, where they are kept, and how they are folded into each other.
//!
//! ```text
//!  private   registers by slot, or a column of local memory per work-item      plain additions
//!     └─ at the end of a kernel: halved again and again in local memory ─▶ shared, one atomic per word and group
//!  shared    an array of slots in the arena, or a cache of some in local memory  atomics
//! ```
//!
//! What the words mean is the recipe's affair: here are only additions with carry, sums of floats, maxima, texts.

use super::plan::{Fold, Primitive};
use crate::build::{bool, place, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, LocalId, Scalar, Stmt, Target, Var};
use crate::lower::{Lowered, Lowering};

/// A slot that many work-items fold into at once.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    memory: Memory,
    /// The slot's first word: U64 in the arena, U32 in local memory.
    first: Ir,
}

#[derive(Debug, Clone)]
enum Memory {
    /// U64: where the slots are.
    Arena(Ir),
    Local(LocalId),
}

impl Shared {
    /// From word `first` (U64) of the slots at `base` (U64).
    pub(super) fn in_arena(base: Ir, first: Ir) -> Self {
        let memory = Memory::Arena(base);
        Self { memory, first }
    }

    /// From word `first` (U32) of a local array.
    pub(super) fn in_group(array: LocalId, first: Ir) -> Self {
        let memory = Memory::Local(array);
        Self { memory, first }
    }

    /// From the slot's word `at` on.
    pub(super) fn from(&self, at: u32) -> Self {
        let offset = match self.memory {
            _ if at == 0 => return self.clone(),
            Memory::Arena(_) => u64(at.into()),
            Memory::Local(_) => u32(at),
        };
        Self {
            memory: self.memory.clone(),
            first: self.first.clone().plus(offset),
        }
    }

    pub(super) fn target(&self, at: u32) -> Target {
        let place = self.from(at);
        match place.memory {
            Memory::Arena(base) => Target::Arena(self::place(Elem::U64, base, place.first)),
            Memory::Local(array) => Target::Local(array, place.first),
        }
    }

    /// A word, where nobody folds into the slot any more.
    pub(super) fn word(&self, at: u32) -> Ir {
        let place = self.from(at);
        match place.memory {
            Memory::Arena(base) => Ir::Load {
                place: self::place(Elem::U64, base, place.first),
                constant: true,
            },
            Memory::Local(array) => Ir::LoadLocal(array, Box::new(place.first)),
        }
    }
}

/// Words of one slot, to be folded into.
#[derive(Debug, Clone)]
pub(super) enum Cells {
    /// A register per word.
    Registers(Vec<Register>),
    /// Word `at` is element `first + at · stride` (U32) of a local array, this work-item's own.
    Local {
        array: LocalId,
        first: Ir,
        stride: u32,
    },
    Shared(Shared),
}

/// A word of a slot in registers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Register {
    /// U64.
    Word(Var),
    /// I32, which holds all that a work-item meets.
    Signed(Var),
    /// U32, likewise.
    Unsigned(Var),
    /// None: the sign of the word before.
    Sign,
}

impl Register {
    /// For the words of a primitive, of which a work-item meets no more than so many rows.
    pub(super) fn of(l: &mut Lowering<'_>, primitive: &Primitive, rows: Option<u64>) -> Vec<Self> {
        let folds = primitive.operation.folds();
        let magnitudes = match rows {
            Some(rows) => primitive.operation.magnitudes(rows),
            None => vec![None; folds.len()],
        };
        let mut registers = Vec::new();
        for (fold, most) in folds.iter().zip(magnitudes) {
            let within = |limit: u128| most.is_some_and(|most| most <= limit);
            let word = Register::Word;
            registers.push(match fold {
                Fold::Max if within(u32::MAX.into()) => Register::Unsigned(l.b.set(Scalar::U32, u32(0))),
                Fold::Add(_) if within(i32::MAX.unsigned_abs().into()) => {
                    Register::Signed(l.b.set(Scalar::I32, crate::build::i32(0)))
                }
                _ => word(l.b.set(Scalar::U64, u64(0))),
            });
            for _ in 1..fold.words() {
                registers.push(if within(i64::MAX.unsigned_abs().into()) {
                    Register::Sign
                } else {
                    word(l.b.set(Scalar::U64, u64(0)))
                });
            }
        }
        registers
    }

    fn store(self, l: &mut Lowering<'_>, value: Ir) {
        match self {
            Register::Word(var) => l.b.assign(var, value),
            Register::Signed(var) => l.b.assign(var, value.to(Scalar::I32)),
            Register::Unsigned(var) => l.b.assign(var, value.to(Scalar::U32)),
            Register::Sign => {}
        }
    }
}

/// The word of registers, U64.
fn register(registers: &[Register], at: usize) -> Ir {
    match registers[at] {
        Register::Word(var) => var.into(),
        Register::Signed(var) | Register::Unsigned(var) => Ir::from(var).to(Scalar::U64),
        Register::Sign => {
            let below = register(registers, at.saturating_sub(1));
            below.to(Scalar::I64).shr(crate::build::i64(63)).to(Scalar::U64)
        }
    }
}

/// Words to fold into a slot.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The first word in the slot.
    pub(super) at: u32,
    pub(super) fold: Fold,
    /// U64 each, cheap expressions; of floats the bits.
    pub(super) words: Vec<Ir>,
}

/// The parts of a slot whose words are `words`.
pub(super) fn parts_of(primitive: &Primitive, words: impl Fn(u32) -> Ir) -> Vec<Part> {
    let mut at = primitive.at;
    let mut parts = Vec::new();
    for fold in primitive.operation.folds() {
        parts.push(Part {
            at,
            fold,
            words: (at..at + fold.words()).map(&words).collect(),
        });
        at += fold.words();
    }
    parts
}

/// A float of stored bits.
pub(super) fn float_of(word: Ir) -> Ir {
    word.bits(Scalar::F64)
}

impl Cells {
    fn load(&self, at: u32) -> Ir {
        match self {
            Cells::Registers(registers) => register(registers, at as usize),
            Cells::Local { array, first, stride } => {
                Ir::LoadLocal(*array, Box::new(first.clone().plus(u32(at * stride))))
            }
            Cells::Shared(shared) => shared.word(at),
        }
    }

    fn store(&self, l: &mut Lowering<'_>, at: u32, value: Ir) {
        match self {
            Cells::Registers(registers) => registers[at as usize].store(l, value),
            Cells::Local { array, first, stride } => {
                let index = first.clone().plus(u32(at * stride));
                l.b.push(Stmt::StoreLocal(*array, index, value));
            }
            Cells::Shared(shared) => l.b.atomic(shared.target(at), Atomic::Store(value)),
        }
    }

    /// Makes a private word that of no rows.
    pub(super) fn clear(&self, l: &mut Lowering<'_>, at: u32) {
        self.store(l, at, u64(0));
    }

    /// Folds private cells into these, whatever they are.
    pub(super) fn take(&self, l: &mut Lowering<'_>, other: &Cells, primitives: &[Primitive]) -> Lowered<()> {
        match self {
            Cells::Shared(shared) => other.flush(l, shared, primitives),
            _ => self.fold_all(l, other, primitives),
        }
    }

    /// Folds words into the slot's.
    pub(super) fn fold(&self, l: &mut Lowering<'_>, part: &Part) -> Lowered<()> {
        match (self, part.fold) {
            // Shared between private slots: what each holds is the same already.
            (_, Fold::Once) => Ok(()),
            (Cells::Shared(shared), fold) => shared.fold(l, part, fold),
            (_, Fold::Add(_)) => {
                self.add(l, part);
                Ok(())
            }
            (_, Fold::AddFloat) => {
                let sum = float_of(self.load(part.at)).plus(float_of(part.words[0].clone()));
                self.store(l, part.at, sum.bits(Scalar::U64));
                Ok(())
            }
            (_, Fold::Max) => {
                let larger = self.load(part.at).max(part.words[0].clone());
                self.store(l, part.at, larger);
                Ok(())
            }
            (_, Fold::Text { max }) => {
                let held = l.b.set(Scalar::U64, self.load(part.at));
                let word = part.words[0].clone();
                let better = better(l, held.into(), word.clone(), max)?;
                l.when(better.into(), |l| {
                    self.store(l, part.at, word);
                    Ok(())
                })
            }
        }
    }

    /// Words of a sum that have a place of their own.
    fn own_words(&self, part: &Part) -> u32 {
        let all = part.fold.words();
        let Cells::Registers(registers) = self else {
            return all;
        };
        let sign = |at: &u32| matches!(registers[*at as usize], Register::Sign);
        (part.at..part.at + all).find(sign).map_or(all, |at| at - part.at)
    }

    fn add(&self, l: &mut Lowering<'_>, part: &Part) {
        let mut carry: Option<Ir> = None;
        let words = self.own_words(part);
        for (at, word) in (part.at..part.at + words).zip(&part.words) {
            let last = at + 1 == part.at + words;
            if words == 1 {
                let sum = self.load(at).plus(word.clone());
                self.store(l, at, sum);
                return;
            }
            let addend = match &carry {
                Some(carry) => l.b.set(Scalar::U64, word.clone().plus(carry.clone())).into(),
                None => word.clone(),
            };
            let sum = l.b.set(Scalar::U64, self.load(at).plus(addend.clone()));
            self.store(l, at, sum.into());
            if !last {
                carry = Some(carried(l, sum.into(), addend, carry));
            }
        }
    }
}

/// U64: 1 where adding `addend`, to which `carry` was added before, gave the wrapped `sum`.
fn carried(l: &mut Lowering<'_>, sum: Ir, addend: Ir, carry: Option<Ir>) -> Ir {
    let mut wrapped = sum.lt(addend.clone());
    if let Some(carry) = carry {
        wrapped = wrapped.or(addend.lt(carry));
    }
    l.b.set(Scalar::U64, wrapped.select(u64(1), u64(0))).into()
}

/// Bool: the handle plus one `word` says more than `held`; both may be 0, which says nothing.
fn better(l: &mut Lowering<'_>, held: Ir, word: Ir, max: bool) -> Lowered<Var> {
    let better = l.b.set(Scalar::Bool, word.clone().ne(u64(0)));
    l.when(Ir::from(better).and(held.clone().ne(u64(0))), |l| {
        let order = l.text_compare(word.minus(u64(1)), held.minus(u64(1)));
        let zero = crate::build::i32(0);
        let wins = if max { order.gt(zero) } else { order.lt(zero) };
        l.b.assign(better, wins);
        Ok(())
    })?;
    Ok(better)
}

impl Shared {
    fn fold(&self, l: &mut Lowering<'_>, part: &Part, fold: Fold) -> Lowered<()> {
        match fold {
            Fold::Once => Ok(()),
            Fold::Add(1) => {
                l.b.atomic(self.target(part.at), Atomic::Add(part.words[0].clone()));
                Ok(())
            }
            Fold::Add(_) => self.add(l, part),
            Fold::AddFloat => self.replace(l, part.at, |l, held| {
                let sum = float_of(held).plus(float_of(part.words[0].clone()));
                Ok((None, l.b.set(Scalar::U64, sum.bits(Scalar::U64)).into()))
            }),
            Fold::Max => {
                let word = part.words[0].clone();
                let held = l.b.fetch(Scalar::U64, self.target(part.at), Atomic::Load);
                let target = self.target(part.at);
                l.b.when(word.clone().gt(held.into()), |b| b.atomic(target, Atomic::Max(word)));
                Ok(())
            }
            Fold::Text { max } => self.replace(l, part.at, |l, held| {
                let word = part.words[0].clone();
                let better = better(l, held, word.clone(), max)?;
                Ok((Some(better.into()), word))
            }),
        }
    }

    /// With carry from word to word; the last words are mostly left alone.
    fn add(&self, l: &mut Lowering<'_>, part: &Part) -> Lowered<()> {
        let mut carry: Option<Ir> = None;
        for (at, word) in (part.at..).zip(&part.words) {
            let last = at + 1 == part.at + part.fold.words();
            let addend = match &carry {
                Some(carry) => word.clone().plus(carry.clone()),
                None => word.clone(),
            };
            let addend: Ir = l.b.set(Scalar::U64, addend).into();
            let target = self.target(at);
            if last {
                l.b.when(addend.clone().ne(u64(0)), |b| b.atomic(target, Atomic::Add(addend)));
                return Ok(());
            }
            let old = l.b.fetch(Scalar::U64, target, Atomic::Add(addend.clone()));
            carry = Some(carried(l, Ir::from(old).plus(addend.clone()), addend, carry));
        }
        Ok(())
    }

    /// Replaces a word by what `next` makes of it, until nobody else did meanwhile; or leaves it where the condition is false.
    fn replace(
        &self,
        l: &mut Lowering<'_>,
        at: u32,
        next: impl FnOnce(&mut Lowering<'_>, Ir) -> Lowered<(Option<Ir>, Ir)>,
    ) -> Lowered<()> {
        let target = self.target(at);
        let held = l.b.fetch(Scalar::U64, target.clone(), Atomic::Load);
        l.repeat(|l| {
            let (condition, value) = next(l, held.into())?;
            if let Some(condition) = condition {
                l.b.when(condition.not(), |b| b.push(Stmt::Break));
            }
            let expected = held.into();
            let seen =
                l.b.fetch(Scalar::U64, target, Atomic::CompareExchange { expected, value });
            l.b.when(Ir::from(seen).eq(held.into()), |b| b.push(Stmt::Break));
            l.b.assign(held, seen.into());
            Ok(())
        })
    }

    /// The word, which `first`, if it is the first to come, makes to be itself. Never 0.
    pub(super) fn once(&self, l: &mut Lowering<'_>, at: u32, first: Ir) -> Var {
        let held = l.b.fetch(Scalar::U64, self.target(at), Atomic::Load);
        let target = self.target(at);
        l.b.when(Ir::from(held).eq(u64(0)), |b| {
            let expected = u64(0);
            let value = first.clone();
            let seen = b.fetch(Scalar::U64, target, Atomic::CompareExchange { expected, value });
            b.assign(held, Ir::from(seen).eq(u64(0)).select(first, seen.into()));
        });
        held
    }
}

impl Cells {
    /// As [`Shared::once`] of the one that decides; these cells keep what it says.
    pub(super) fn once(&self, l: &mut Lowering<'_>, shared: &Shared, at: u32, first: Ir) -> Lowered<Ir> {
        let held = match self {
            Cells::Shared(own) => l.b.fetch(Scalar::U64, own.target(at), Atomic::Load),
            _ => l.b.set(Scalar::U64, self.load(at)),
        };
        l.when(Ir::from(held).eq(u64(0)), |l| {
            let chosen = shared.once(l, at, first);
            l.b.assign(held, chosen.into());
            self.store(l, at, chosen.into());
            Ok(())
        })?;
        Ok(held.into())
    }

    /// Folds other private cells of the same form into these: word by word of the primitives.
    pub(super) fn fold_all(&self, l: &mut Lowering<'_>, other: &Cells, primitives: &[Primitive]) -> Lowered<()> {
        for primitive in primitives {
            for part in parts_of(primitive, |at| other.load(at)) {
                let part = part.held(l);
                self.fold(l, &part)?;
            }
        }
        Ok(())
    }

    /// Folds these words into a shared slot.
    pub(super) fn flush(&self, l: &mut Lowering<'_>, shared: &Shared, primitives: &[Primitive]) -> Lowered<()> {
        for primitive in primitives {
            for part in parts_of(primitive, |at| self.load(at)) {
                let part = part.held(l);
                let says_something = part
                    .words
                    .iter()
                    .cloned()
                    .fold(bool(false), |any, word| any.or(word.ne(u64(0))));
                l.when(says_something, |l| shared.fold(l, &part, part.fold))?;
            }
        }
        Ok(())
    }

    /// Copies words `from` of registers or others here, to words 0 and up.
    pub(super) fn copy(&self, l: &mut Lowering<'_>, other: &Cells, from: std::ops::Range<u32>) {
        for (to, at) in from.enumerate() {
            let value = other.load(at);
            self.store(l, u32::try_from(to).unwrap_or(u32::MAX), value);
        }
    }
}

impl Part {
    /// Its words in variables.
    fn held(mut self, l: &mut Lowering<'_>) -> Self {
        if self.fold == Fold::Once {
            return self;
        }
        for word in &mut self.words {
            *word = l.b.set(Scalar::U64, word.clone()).into();
        }
        self
    }
}
