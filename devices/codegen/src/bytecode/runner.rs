//! The one kernel: fetches an instruction, finds what it does in a tree of comparisons, does it, until all are at a barrier.
//!
//! ```text
//!  loop {                                            all work-items of a group together
//!      loop { fetch, operands, opcode, result }      each by itself, until its barrier or its end
//!      barrier; over? break
//!  }
//! ```

use super::code::GIVEN;
use super::opcode::{Form, Opcode, UNIFORM};
use crate::build::{Builder, call, place, u32, u64};
use crate::ir::{
    Atomic, Binary, Const, Elem, Expr, Function, FunctionId, Kernel, Module, Scalar, Stmt, Target, Unary, Var,
};

/// Words of the runner's block.
pub(super) mod word {
    /// Where the instructions lie.
    pub(in super::super) const CODE: u32 = 0;
    /// The first of them.
    pub(in super::super) const START: u32 = 1;
    /// Where the program's block lies, with its constants.
    pub(in super::super) const UNIFORMS: u32 = 2;
    /// Where the registers lie.
    pub(in super::super) const REGISTERS: u32 = 3;
    /// Where local memory lies, and its bytes per group.
    pub(in super::super) const LOCALS: u32 = 4;
    pub(in super::super) const LOCAL_BYTES: u32 = 5;
    /// How many there are.
    pub(in super::super) const COUNT: u32 = 6;
}

/// The function that fetches an operand.
const OPERAND: FunctionId = FunctionId(0);

/// The module of the kernel that runs programs as data, for groups of so many work-items.
pub fn runner(group: u32) -> Module {
    Module {
        group,
        functions: vec![operand()],
        kernels: vec![kernel(group)],
    }
}

/// `operand(name, uniforms, registers, work-items, work-item)`.
fn operand() -> Function {
    let mut b = Builder::new();
    let [name, uniforms, registers, items, item] =
        [Scalar::U32, Scalar::U64, Scalar::U64, Scalar::U64, Scalar::U64].map(|scalar| b.var(scalar));
    let number = b.set(
        Scalar::U64,
        Expr::from(name).and(u32(u32::from(UNIFORM) - 1)).to(Scalar::U64),
    );
    let is_uniform = b.set(Scalar::Bool, Expr::from(name).ge(u32(u32::from(UNIFORM))));
    let base = b.set(
        Scalar::U64,
        Expr::from(is_uniform).select(uniforms.into(), registers.into()),
    );
    let own = Expr::from(number).times(items.into()).plus(item.into());
    let index = b.set(Scalar::U64, Expr::from(is_uniform).select(number.into(), own));
    b.push(Stmt::Return(load(Elem::U64, base, index.into())));
    b.function("operand", 5, Scalar::U64)
}

fn load(elem: Elem, base: Var, index: Expr) -> Expr {
    Expr::Load {
        place: place(elem, base.into(), index),
        constant: false,
    }
}

/// What all instructions see.
struct State {
    registers: Var,
    uniforms: Var,
    items: Var,
    item: Var,
    next: Var,
    /// Whether it is at a barrier (1) or its end (2).
    stop: Var,
    /// The second word of the instruction.
    second: Var,
    /// Names of the first two operands and of the result.
    into: Var,
    names: [Var; 2],
    a: Var,
    b: Var,
    result: Var,
}

fn kernel(group: u32) -> Kernel {
    let mut b = Builder::new();
    let over = b.local(Elem::U32, 2);
    let group = u64(u64::from(group));
    let local = || Expr::LocalIndex.to(Scalar::U64);
    let number = || Expr::GroupIndex.to(Scalar::U64);
    let code = b.set(Scalar::U64, Expr::Word(word::CODE));
    let state = State {
        registers: b.set(Scalar::U64, Expr::Word(word::REGISTERS)),
        uniforms: b.set(Scalar::U64, Expr::Word(word::UNIFORMS)),
        items: b.set(Scalar::U64, Expr::Groups.to(Scalar::U64).times(group.clone())),
        item: b.set(Scalar::U64, number().times(group).plus(local())),
        next: b.set(Scalar::U64, Expr::Word(word::START)),
        stop: b.set(Scalar::U32, u32(0)),
        second: b.var(Scalar::U64),
        into: b.var(Scalar::U32),
        names: [b.var(Scalar::U32), b.var(Scalar::U32)],
        a: b.var(Scalar::U64),
        b: b.var(Scalar::U64),
        result: b.var(Scalar::U64),
    };
    let locals = Expr::Word(word::LOCALS).plus(number().times(Expr::Word(word::LOCAL_BYTES)));
    let given: [Expr; GIVEN as usize] = [local(), number(), Expr::Groups.to(Scalar::U64), locals];
    for (register, value) in (0..).zip(given) {
        state.put(&mut b, u32(register), value);
    }
    let turn = b.set(Scalar::U32, u32(0));
    b.repeat(|b| {
        b.repeat(|b| state.step(b, code));
        b.when(Expr::LocalIndex.eq(u32(0)), |b| {
            b.push(Stmt::StoreLocal(over, turn.into(), state.stop.into()));
        });
        b.push(Stmt::Barrier);
        let all = Expr::LoadLocal(over, Box::new(turn.into()));
        b.when(all.eq(u32(STOP_END)), |b| b.push(Stmt::Break));
        b.assign(turn, Expr::from(turn).xor(u32(1)));
    });
    b.kernel("runner", word::COUNT)
}

const STOP_BARRIER: u32 = 1;
const STOP_END: u32 = 2;

/// Sixteen bits of a word.
fn field(word: Var, from: u64) -> Expr {
    Expr::from(word).shr(u64(from)).and(u64(0xffff)).to(Scalar::U32)
}

impl State {
    fn at(&self, name: Expr) -> crate::ir::Place {
        let index = name.to(Scalar::U64).times(self.items.into()).plus(self.item.into());
        place(Elem::U64, self.registers.into(), index)
    }

    fn put(&self, b: &mut Builder, name: Expr, value: Expr) {
        b.store(self.at(name), value);
    }

    fn operand(&self, name: Expr) -> Expr {
        let state = [self.uniforms, self.registers, self.items, self.item].map(Expr::from);
        let mut all = vec![name];
        all.extend(state);
        call(OPERAND, all)
    }

    /// The third and fourth operand.
    fn third(&self) -> Expr {
        self.operand(field(self.second, 0))
    }

    fn fourth(&self) -> Expr {
        self.operand(field(self.second, 16))
    }

    fn target(&self) -> Expr {
        Expr::from(self.second).shr(u64(32))
    }

    /// One instruction.
    fn step(&self, b: &mut Builder, code: Var) {
        let at = |word: u64| load(Elem::U64, code, Expr::from(self.next).times(u64(2)).plus(u64(word)));
        let first = b.set(Scalar::U64, at(0));
        b.assign(self.second, at(1));
        b.assign(self.next, Expr::from(self.next).plus(u64(1)));
        b.assign(self.into, field(first, 16));
        b.assign(self.names[0], field(first, 32));
        b.assign(self.names[1], field(first, 48));
        b.assign(self.a, self.operand(self.names[0].into()));
        b.assign(self.b, self.operand(self.names[1].into()));
        let opcode = b.set(Scalar::U32, Expr::from(first).and(u64(0xff)).to(Scalar::U32));
        self.choose(b, opcode, 0, Opcode::ALL.len());
        let form = b.set(Scalar::U64, Expr::from(first).shr(u64(8)).and(u64(0xff)));
        let is = |wanted: Form| Expr::from(form).eq(u64(wanted as u64));
        let whole = Expr::from(self.result);
        let signed = whole.clone().to(Scalar::I32).to(Scalar::I64).to(Scalar::U64);
        let unsigned = whole.clone().to(Scalar::U32).to(Scalar::U64);
        let value = is(Form::Whole).select(whole, is(Form::Signed).select(signed, unsigned));
        self.put(b, self.into.into(), value);
    }

    /// The statements of the opcodes in a range, by halves.
    fn choose(&self, b: &mut Builder, opcode: Var, from: usize, to: usize) {
        if to - from == 1 {
            return self.opcode(b, Opcode::ALL[from]);
        }
        let middle = usize::midpoint(from, to);
        let then = b.block(|b| self.choose(b, opcode, from, middle));
        let otherwise = b.block(|b| self.choose(b, opcode, middle, to));
        let middle = u32::try_from(middle).unwrap_or(u32::MAX);
        b.push(Stmt::If {
            condition: Expr::from(opcode).lt(u32(middle)),
            then,
            otherwise,
        });
    }

    fn opcode(&self, b: &mut Builder, opcode: Opcode) {
        let value = self
            .integer(opcode)
            .or_else(|| self.float(opcode))
            .or_else(|| self.single(opcode))
            .or_else(|| self.wide(b, opcode));
        match value {
            Some(value) => b.assign(self.result, value),
            None => self.memory(b, opcode),
        }
    }

    fn integer(&self, opcode: Opcode) -> Option<Expr> {
        use Binary as B;
        use Opcode as O;
        let (a, b) = (Expr::from(self.a), Expr::from(self.b));
        let both = |op: Binary| Expr::Binary(op, Box::new(a.clone()), Box::new(b.clone()));
        let signed = |op: Binary| {
            let [a, b] = [a.clone(), b.clone()].map(|operand| Box::new(operand.to(Scalar::I64)));
            Expr::Binary(op, a, b).to(Scalar::U64)
        };
        let [x, y] = [a.clone(), b.clone()].map(|operand| operand.to(Scalar::I64));
        let truth = |condition: Expr| Some(condition.to(Scalar::U64));
        let unary = |op: Unary, operand: Expr| Expr::Unary(op, Box::new(operand));
        Some(match opcode {
            O::Copy => a,
            O::Add => both(B::Add),
            O::Subtract => both(B::Subtract),
            O::Multiply => both(B::Multiply),
            O::DivideS => signed(B::Divide),
            O::DivideU => both(B::Divide),
            O::RemainderS => signed(B::Remainder),
            O::RemainderU => both(B::Remainder),
            O::And => both(B::And),
            O::Or => both(B::Or),
            O::Xor => both(B::Xor),
            O::ShiftLeft => both(B::ShiftLeft),
            O::ShiftRightS => signed(B::ShiftRight),
            O::ShiftRightU => both(B::ShiftRight),
            O::MinS => signed(B::Min),
            O::MinU => both(B::Min),
            O::MaxS => signed(B::Max),
            O::MaxU => both(B::Max),
            O::HighS => signed(B::MultiplyHigh),
            O::HighU => both(B::MultiplyHigh),
            O::High32 => both(B::Multiply).shr(u64(32)),
            O::Ones => unary(Unary::CountOnes, a),
            O::Zeros => unary(Unary::LeadingZeros, a),
            O::Zeros32 => unary(Unary::LeadingZeros, a.to(Scalar::U32)).to(Scalar::U64),
            O::Equal => return truth(a.eq(b)),
            O::NotEqual => return truth(a.ne(b)),
            O::LessS => return truth(x.lt(y)),
            O::LessOrEqualS => return truth(x.le(y)),
            O::LessU => return truth(a.lt(b)),
            O::LessOrEqualU => return truth(a.le(b)),
            O::Select => self.third().ne(u64(0)).select(a, b),
            _ => return None,
        })
    }

    fn float(&self, opcode: Opcode) -> Option<Expr> {
        use Opcode as O;
        let (x, y) = (Expr::from(self.a), Expr::from(self.b));
        let [a, b] = [x.clone(), y].map(|operand| operand.bits(Scalar::F64));
        let unary = |op: Unary, operand: Expr| Expr::Unary(op, Box::new(operand));
        let truth = |condition: Expr| Some(condition.to(Scalar::U64));
        let single = |operand: Expr| operand.to(Scalar::F32).bits(Scalar::U32).to(Scalar::U64);
        let double = match opcode {
            O::AddF => a.plus(b),
            O::SubtractF => a.minus(b),
            O::MultiplyF => a.times(b),
            O::DivideF => a.over(b),
            O::RemainderF => a.rem(b),
            O::NegateF => unary(Unary::Negate, a),
            O::RootF => unary(Unary::SquareRoot, a),
            O::FloorF => unary(Unary::Floor, a),
            O::EqualF => return truth(a.eq(b)),
            O::NotEqualF => return truth(a.ne(b)),
            O::LessF => return truth(a.lt(b)),
            O::LessOrEqualF => return truth(a.le(b)),
            O::SToF => x.to(Scalar::I64).to(Scalar::F64),
            O::UToF => x.to(Scalar::F64),
            O::SToG => return Some(single(x.to(Scalar::I64))),
            O::UToG => return Some(single(x)),
            O::FToG => return Some(single(a)),
            O::GToF => x.to(Scalar::U32).bits(Scalar::F32).to(Scalar::F64),
            O::FToS => return Some(a.to(Scalar::I64).to(Scalar::U64)),
            O::FToU => return Some(a.to(Scalar::U64)),
            _ => return None,
        };
        Some(double.bits(Scalar::U64))
    }

    /// Of F32.
    fn single(&self, opcode: Opcode) -> Option<Expr> {
        use Opcode as O;
        let [a, b] = [self.a, self.b].map(|operand| Expr::from(operand).to(Scalar::U32).bits(Scalar::F32));
        let unary = |op: Unary, operand: Expr| Expr::Unary(op, Box::new(operand));
        let truth = |condition: Expr| Some(condition.to(Scalar::U64));
        let value = match opcode {
            O::AddG => a.plus(b),
            O::SubtractG => a.minus(b),
            O::MultiplyG => a.times(b),
            O::DivideG => a.over(b),
            O::RemainderG => a.rem(b),
            O::NegateG => unary(Unary::Negate, a),
            O::RootG => unary(Unary::SquareRoot, a),
            O::FloorG => unary(Unary::Floor, a),
            O::EqualG => return truth(a.eq(b)),
            O::NotEqualG => return truth(a.ne(b)),
            O::LessG => return truth(a.lt(b)),
            O::LessOrEqualG => return truth(a.le(b)),
            _ => return None,
        };
        Some(value.bits(Scalar::U32).to(Scalar::U64))
    }

    /// Both words of an operand.
    fn both(&self, b: &mut Builder, low: Var, name: Var) -> Var {
        let high = self.operand(Expr::from(name).plus(u32(1)));
        let high = high.to(Scalar::I64).to(Scalar::I128);
        let shift = Expr::Const(Const::I128(1 << 64));
        b.set(Scalar::I128, high.times(shift).plus(Expr::from(low).to(Scalar::I128)))
    }

    /// Stores the high word and gives the low one.
    fn halves(&self, b: &mut Builder, value: Expr) -> Expr {
        let value = b.set(Scalar::I128, value);
        let high = Expr::Unary(Unary::High, Box::new(value.into()));
        self.put(b, Expr::from(self.into).plus(u32(1)), high.to(Scalar::U64));
        Expr::from(value).to(Scalar::U64)
    }

    fn wide(&self, b: &mut Builder, opcode: Opcode) -> Option<Expr> {
        use Opcode as O;
        let double = Expr::from(self.a).bits(Scalar::F64);
        match opcode {
            O::FToW => return Some(self.halves(b, double.to(Scalar::I128))),
            O::LoadW => {
                let value = load(Elem::I128, self.a, self.b.into());
                return Some(self.halves(b, value));
            }
            O::AddW | O::SubtractW | O::MultiplyW | O::DivideW | O::RemainderW | O::MinW | O::MaxW => {}
            O::WToF | O::WToG | O::EqualW | O::NotEqualW | O::LessW | O::LessOrEqualW => {}
            _ => return None,
        }
        let x = Expr::from(self.both(b, self.a, self.names[0]));
        match opcode {
            O::WToF => return Some(x.to(Scalar::F64).bits(Scalar::U64)),
            O::WToG => return Some(x.to(Scalar::F32).bits(Scalar::U32).to(Scalar::U64)),
            _ => {}
        }
        let y = Expr::from(self.both(b, self.b, self.names[1]));
        let value = match opcode {
            O::AddW => x.plus(y),
            O::SubtractW => x.minus(y),
            O::MultiplyW => x.times(y),
            O::DivideW => x.over(y),
            O::RemainderW => x.rem(y),
            O::MinW => x.min(y),
            O::MaxW => x.max(y),
            O::EqualW => return Some(x.eq(y).to(Scalar::U64)),
            O::NotEqualW => return Some(x.ne(y).to(Scalar::U64)),
            O::LessW => return Some(x.lt(y).to(Scalar::U64)),
            _ => return Some(x.le(y).to(Scalar::U64)),
        };
        Some(self.halves(b, value))
    }

    fn memory(&self, b: &mut Builder, opcode: Opcode) {
        use Opcode as O;
        let elem = match opcode {
            O::LoadI8 => Elem::I8,
            O::LoadU8 | O::Store8 => Elem::U8,
            O::LoadI16 => Elem::I16,
            O::LoadU16 | O::Store16 => Elem::U16,
            O::LoadI32 => Elem::I32,
            O::LoadU32 | O::Store32 => Elem::U32,
            O::Load64 | O::Store64 => Elem::U64,
            O::StoreW => Elem::I128,
            _ => return self.atomic(b, opcode),
        };
        match opcode {
            O::Store8 | O::Store16 | O::Store32 | O::Store64 => {
                let value = self.third().to(elem.scalar());
                b.store(place(elem, self.a.into(), self.b.into()), value);
                b.push(Stmt::Continue);
            }
            O::StoreW => {
                let name = b.set(Scalar::U32, field(self.second, 0));
                let low = b.set(Scalar::U64, self.operand(name.into()));
                let value = self.both(b, low, name);
                b.store(place(elem, self.a.into(), self.b.into()), value.into());
                b.push(Stmt::Continue);
            }
            _ => {
                let value = load(elem, self.a, self.b.into());
                let value = match elem.scalar() {
                    Scalar::I32 => value.to(Scalar::I64).to(Scalar::U64),
                    _ => value.to(Scalar::U64),
                };
                b.assign(self.result, value);
            }
        }
    }

    fn atomic(&self, b: &mut Builder, opcode: Opcode) {
        use Opcode as O;
        type Make = fn(Expr) -> Atomic;
        let (elem, make): (Elem, Make) = match opcode {
            O::Load32A => (Elem::U32, |_| Atomic::Load),
            O::Store32A => (Elem::U32, Atomic::Store),
            O::Add32A => (Elem::U32, Atomic::Add),
            O::MinS32A => (Elem::I32, Atomic::Min),
            O::MinU32A => (Elem::U32, Atomic::Min),
            O::MaxS32A => (Elem::I32, Atomic::Max),
            O::MaxU32A => (Elem::U32, Atomic::Max),
            O::Or32A => (Elem::U32, Atomic::Or),
            O::Exchange32A | O::Compare32A => (Elem::U32, Atomic::Exchange),
            O::Load64A => (Elem::U64, |_| Atomic::Load),
            O::Store64A => (Elem::U64, Atomic::Store),
            O::Add64A => (Elem::U64, Atomic::Add),
            O::MinS64A => (Elem::I64, Atomic::Min),
            O::MinU64A => (Elem::U64, Atomic::Min),
            O::MaxS64A => (Elem::I64, Atomic::Max),
            O::MaxU64A => (Elem::U64, Atomic::Max),
            O::Or64A => (Elem::U64, Atomic::Or),
            O::Exchange64A | O::Compare64A => (Elem::U64, Atomic::Exchange),
            _ => return self.control(b, opcode),
        };
        let target = Target::Arena(place(elem, self.a.into(), self.b.into()));
        let scalar = elem.scalar();
        let value = b.set(scalar, self.third().to(scalar));
        let op = match opcode {
            O::Compare32A | O::Compare64A => Atomic::CompareExchange {
                expected: self.fourth().to(scalar),
                value: value.into(),
            },
            _ => make(value.into()),
        };
        if matches!(opcode, O::Store32A | O::Store64A) {
            b.atomic(target, op);
            return b.push(Stmt::Continue);
        }
        let old = b.fetch(scalar, target, op);
        b.assign(self.result, Expr::from(old).to(Scalar::U64));
    }

    fn control(&self, b: &mut Builder, opcode: Opcode) {
        match opcode {
            Opcode::Jump => b.assign(self.next, self.target()),
            Opcode::Unless => b.when(Expr::from(self.a).eq(u64(0)), |b| b.assign(self.next, self.target())),
            Opcode::Fence => b.push(Stmt::Fence),
            Opcode::Barrier | Opcode::End => {
                let stop = if opcode == Opcode::End { STOP_END } else { STOP_BARRIER };
                b.assign(self.stop, u32(stop));
                return b.push(Stmt::Break);
            }
            _ => {}
        }
        b.push(Stmt::Continue);
    }
}
