//! Functions over the bytes that handles name: parts, searches, patterns, characters. UTF-8 is trusted, as it was checked where
//! it came in.

use crate::build::{self, Builder, call, place};
use crate::ir::{Elem, Expr as Ir, Function, FunctionId, Scalar, Stmt, Var};
use crate::lower::Lowering;
use crate::lower::text::{handle_length, handle_offset};
use crate::shape::HANDLE_LENGTH_BITS;

/// What a search gives that found nothing.
pub(super) const NOWHERE: u32 = u32::MAX;
/// Elements of patterns: bytes, one character, any run of characters.
pub(super) const ONE: u32 = 256;
pub(super) const MANY: u32 = 257;

fn byte(base: Ir, index: Ir) -> Ir {
    Ir::Load {
        place: place(Elem::U8, base, index),
        constant: true,
    }
}

fn zero() -> Ir {
    build::u32(0)
}

fn returns(f: &mut Builder, value: Ir) {
    f.push(Stmt::Return(value));
}

/// Bytes of the character that begins with this byte.
fn width(first: &Ir) -> Ir {
    let at_least = |byte: u32| first.clone().ge(build::u32(byte));
    at_least(0xf0).select(
        build::u32(4),
        at_least(0xe0).select(build::u32(3), at_least(0xc0).select(build::u32(2), build::u32(1))),
    )
}

/// True for bytes that go on with a character.
fn continues(byte: Ir) -> Ir {
    byte.and(build::u32(0xc0)).eq(build::u32(0x80))
}

/// A handle's parts, in a function.
struct Bytes {
    base: Ir,
    length: Ir,
}

impl Bytes {
    fn of(f: &mut Builder, handle: Var) -> Self {
        let base = f.set(Scalar::U64, handle_offset(handle.into()));
        let length = f.set(Scalar::U32, handle_length(handle.into()));
        Self {
            base: base.into(),
            length: length.into(),
        }
    }

    fn at(&self, index: Ir) -> Ir {
        byte(self.base.clone(), index)
    }
}

impl Lowering<'_> {
    fn text_call(&mut self, name: &str, make: impl FnOnce() -> Function, args: Vec<Ir>) -> Ir {
        let function = self.function(name, |_| make());
        call(function, args)
    }

    /// Bool: `part` stands in the text at byte `at` (U32).
    pub(super) fn text_at(&mut self, text: Ir, part: Ir, at: Ir) -> Ir {
        self.text_call("text_at", text_at, vec![text, part, at])
    }

    /// U32: the first byte at which `part` stands, from byte `from` (U32) on, or [`NOWHERE`]; so too where `from` is.
    pub(super) fn text_find(&mut self, text: Ir, part: Ir, from: Ir) -> Ir {
        let at = self.function("text_at", |_| text_at());
        self.text_call("text_find", || text_find(at), vec![text, part, from])
    }

    /// Bool: the text matches a pattern of `count` (U32) elements of 16 bits at `base`.
    pub(super) fn text_like(&mut self, text: Ir, base: Ir, count: Ir) -> Ir {
        self.text_call("text_like", text_like, vec![text, base, count])
    }

    /// U32: characters.
    pub(super) fn text_characters(&mut self, text: Ir) -> Ir {
        self.text_call("text_characters", text_characters, vec![text])
    }

    /// U32: the byte at which the character begins that is `count` (U32) after the one at byte `from`; the end when there is none.
    pub(super) fn text_skip(&mut self, text: Ir, from: Ir, count: Ir) -> Ir {
        self.text_call("text_skip", text_skip, vec![text, from, count])
    }

    /// U32: the byte at which the last `count` (U32) characters begin; 0 when there are no more.
    pub(super) fn text_back(&mut self, text: Ir, count: Ir) -> Ir {
        self.text_call("text_back", text_back, vec![text, count])
    }

    /// U64: the text without what 128 flags at `flags` say of ASCII characters at its start or its end.
    pub(super) fn text_trim(&mut self, text: Ir, flags: Ir, at_start: bool) -> Ir {
        let name = if at_start { "text_trim_start" } else { "text_trim_end" };
        self.text_call(name, || text_trim(name, at_start), vec![text, flags])
    }
}

/// The handle of bytes `from..to` (U32) of a text.
pub(super) fn part_of(text: Ir, from: Ir, to: Ir) -> Ir {
    let shift = || build::u64(HANDLE_LENGTH_BITS.into());
    let offset = text.shr(shift()).plus(from.clone().to(Scalar::U64));
    offset.shl(shift()).or(to.minus(from).to(Scalar::U64))
}

fn text_at() -> Function {
    let mut f = Builder::new();
    let (text, part, at) = (f.var(Scalar::U64), f.var(Scalar::U64), f.var(Scalar::U32));
    let (text, part) = (Bytes::of(&mut f, text), Bytes::of(&mut f, part));
    let end = Ir::from(at).plus(part.length.clone());
    f.when(end.gt(text.length.clone()), |f| returns(f, build::bool(false)));
    f.range(Scalar::U32, zero(), part.length.clone(), build::u32(1), |f, i| {
        let differ = text.at(Ir::from(at).plus(i.into())).ne(part.at(i.into()));
        f.when(differ, |f| returns(f, build::bool(false)));
    });
    returns(&mut f, build::bool(true));
    f.function("text_at", 3, Scalar::Bool)
}

fn text_find(text_at: FunctionId) -> Function {
    let mut f = Builder::new();
    let (text, part, from) = (f.var(Scalar::U64), f.var(Scalar::U64), f.var(Scalar::U32));
    let (bytes, wanted) = (Bytes::of(&mut f, text), Bytes::of(&mut f, part));
    let short = wanted.length.clone().gt(bytes.length.clone());
    f.when(short.or(Ir::from(from).gt(bytes.length.clone())), |f| {
        returns(f, build::u32(NOWHERE));
    });
    f.when(wanted.length.clone().eq(zero()), |f| returns(f, from.into()));
    let first = f.set(Scalar::U32, wanted.at(zero()));
    let end = bytes.length.clone().minus(wanted.length.clone()).plus(build::u32(1));
    let end = f.set(Scalar::U32, end);
    f.range(Scalar::U32, from.into(), end.into(), build::u32(1), |f, i| {
        f.when(bytes.at(i.into()).eq(first.into()), |f| {
            let found = call(text_at, [text.into(), part.into(), i.into()]);
            f.when(found, |f| returns(f, i.into()));
        });
    });
    returns(&mut f, build::u32(NOWHERE));
    f.function("text_find", 3, Scalar::U32)
}

/// Greedy, with one point to come back to: the last run.
fn text_like() -> Function {
    let mut f = Builder::new();
    let (text, base, count) = (f.var(Scalar::U64), f.var(Scalar::U64), f.var(Scalar::U32));
    let bytes = Bytes::of(&mut f, text);
    let (item, at) = (f.set(Scalar::U32, zero()), f.set(Scalar::U32, zero()));
    // The item after the last run, and the byte from which it was tried; no run yet: beyond all items.
    let (again, from) = (f.set(Scalar::U32, build::u32(NOWHERE)), f.set(Scalar::U32, zero()));
    f.repeat(|f| {
        let matched = f.set(Scalar::U32, zero());
        let then = f.block(|f| {
            let element = f.load(place(Elem::U16, base.into(), item.into()));
            f.when(Ir::from(element).eq(build::u32(MANY)), |f| {
                f.assign(item, Ir::from(item).plus(build::u32(1)));
                f.assign(again, item.into());
                f.assign(from, at.into());
                f.push(Stmt::Continue);
            });
            f.when(Ir::from(at).lt(bytes.length.clone()), |f| {
                let next = f.set(Scalar::U32, bytes.at(at.into()));
                let one = Ir::from(element).eq(build::u32(ONE));
                let exact = Ir::from(next).eq(element.into()).select(build::u32(1), zero());
                f.assign(matched, one.select(width(&next.into()), exact));
            });
        });
        let otherwise = f.block(|f| {
            f.when(Ir::from(at).eq(bytes.length.clone()), |f| returns(f, build::bool(true)));
        });
        f.push(Stmt::If {
            condition: Ir::from(item).lt(count.into()),
            then,
            otherwise,
        });
        let advance = f.block(|f| {
            f.assign(item, Ir::from(item).plus(build::u32(1)));
            f.assign(at, Ir::from(at).plus(matched.into()));
        });
        let retreat = f.block(|f| {
            let stuck = Ir::from(again)
                .eq(build::u32(NOWHERE))
                .or(Ir::from(from).ge(bytes.length.clone()));
            f.when(stuck, |f| returns(f, build::bool(false)));
            let first = f.set(Scalar::U32, bytes.at(from.into()));
            f.assign(from, Ir::from(from).plus(width(&first.into())));
            f.assign(item, again.into());
            f.assign(at, from.into());
        });
        f.push(Stmt::If {
            condition: Ir::from(matched).ne(zero()),
            then: advance,
            otherwise: retreat,
        });
    });
    returns(&mut f, build::bool(false));
    f.function("text_like", 3, Scalar::Bool)
}

fn text_characters() -> Function {
    let mut f = Builder::new();
    let text = f.var(Scalar::U64);
    let bytes = Bytes::of(&mut f, text);
    let count = f.set(Scalar::U32, zero());
    f.range(Scalar::U32, zero(), bytes.length.clone(), build::u32(1), |f, i| {
        let more = continues(bytes.at(i.into())).select(zero(), build::u32(1));
        f.assign(count, Ir::from(count).plus(more));
    });
    returns(&mut f, count.into());
    f.function("text_characters", 1, Scalar::U32)
}

fn text_skip() -> Function {
    let mut f = Builder::new();
    let (text, from, count) = (f.var(Scalar::U64), f.var(Scalar::U32), f.var(Scalar::U32));
    let bytes = Bytes::of(&mut f, text);
    let at = f.set(Scalar::U32, from.into());
    let left = f.set(Scalar::U32, count.into());
    f.repeat(|f| {
        let done = Ir::from(left).eq(zero()).or(Ir::from(at).ge(bytes.length.clone()));
        f.when(done, |f| f.push(Stmt::Break));
        let first = f.set(Scalar::U32, bytes.at(at.into()));
        f.assign(at, Ir::from(at).plus(width(&first.into())));
        f.assign(left, Ir::from(left).minus(build::u32(1)));
    });
    returns(&mut f, Ir::from(at).min(bytes.length));
    f.function("text_skip", 3, Scalar::U32)
}

fn text_back() -> Function {
    let mut f = Builder::new();
    let (text, count) = (f.var(Scalar::U64), f.var(Scalar::U32));
    let bytes = Bytes::of(&mut f, text);
    let at = f.set(Scalar::U32, bytes.length.clone());
    let left = f.set(Scalar::U32, count.into());
    f.repeat(|f| {
        f.when(Ir::from(left).eq(zero()).or(Ir::from(at).eq(zero())), |f| {
            f.push(Stmt::Break)
        });
        f.assign(at, Ir::from(at).minus(build::u32(1)));
        let begins = continues(bytes.at(at.into())).select(zero(), build::u32(1));
        f.assign(left, Ir::from(left).minus(begins));
    });
    returns(&mut f, at.into());
    f.function("text_back", 2, Scalar::U32)
}

fn text_trim(name: &str, at_start: bool) -> Function {
    let mut f = Builder::new();
    let (text, flags) = (f.var(Scalar::U64), f.var(Scalar::U64));
    let bytes = Bytes::of(&mut f, text);
    let start = f.set(Scalar::U32, zero());
    let end = f.set(Scalar::U32, bytes.length.clone());
    f.repeat(|f| {
        f.when(Ir::from(start).eq(end.into()), |f| f.push(Stmt::Break));
        let at = if at_start {
            Ir::from(start)
        } else {
            Ir::from(end).minus(build::u32(1))
        };
        let next = f.set(Scalar::U32, bytes.at(at));
        f.when(Ir::from(next).ge(build::u32(128)), |f| f.push(Stmt::Break));
        let flag = f.load(place(Elem::U8, flags.into(), next.into()));
        f.when(Ir::from(flag).eq(zero()), |f| f.push(Stmt::Break));
        if at_start {
            f.assign(start, Ir::from(start).plus(build::u32(1)));
        } else {
            f.assign(end, Ir::from(end).minus(build::u32(1)));
        }
    });
    returns(&mut f, part_of(text.into(), start.into(), end.into()));
    f.function(name, 2, Scalar::U64)
}
