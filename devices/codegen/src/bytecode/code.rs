//! Kernels as instructions: operations of the flat form that the host's interpreter runs, in 64-bit registers.

use std::collections::{HashMap, HashSet};

use super::opcode::{Form, Instruction, Opcode, UNIFORM};
use crate::interpreter::Code;
use crate::interpreter::compile::{
    AtomicOp, AtomicPlace, Change, GROUP_INDEX, GROUPS, KernelCode, LOCAL_INDEX, Op, Reg,
};
use crate::ir::{Binary, Compare, Const, Elem, Module, Scalar, Unary};
use crate::lower::Unsupported;

/// Registers that the runner sets: local index, group index, groups, and where the group's local memory begins.
pub(super) const GIVEN: u16 = 4;

/// Where a group's local memory begins.
const LOCAL_BASE: u16 = 3;

/// Where results go that nobody wants.
const NOWHERE: u16 = 4;

/// The first register of a kernel's own.
const FIRST: u16 = 5;

/// Registers and uniforms that an operand can name.
const NAMES_MAX: usize = 0x7ff0;

/// A kernel's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its first instruction.
    pub start: u32,
    /// 64-bit registers of a work-item.
    pub registers: u32,
    /// Bytes of local memory of a group.
    pub local_bytes: u64,
}

/// The kernels of a module as data.
#[derive(Debug, Clone)]
pub struct Bytecode {
    /// Work-items per group.
    pub group: u32,
    /// Instructions of all kernels.
    pub words: Vec<u64>,
    /// What stands behind the words of the block.
    pub constants: Vec<u64>,
    /// By kernel.
    pub entries: Vec<Entry>,
}

impl Bytecode {
    /// Of a module whose block has so many words.
    ///
    /// # Errors
    /// When there are more registers or constants than an instruction can name, or the module is none.
    pub fn new(module: &Module, block_words: usize) -> Result<Self, Unsupported> {
        let code = Code::new(module).map_err(|wrong| Unsupported(wrong.to_string()))?;
        let mut uniforms = Uniforms {
            first: block_words,
            words: Vec::new(),
            known: HashMap::new(),
        };
        // An operand that is not used reads a uniform: there is one.
        uniforms.constant(&[0]);
        let (mut words, mut entries) = (Vec::new(), Vec::new());
        for kernel in &code.kernels {
            let start = words.len() / 2;
            let writer = Writer::new(kernel, &mut uniforms, start);
            let (instructions, registers) = writer.write()?;
            entries.push(Entry {
                start: narrow(start)?,
                registers,
                local_bytes: kernel.local_bytes,
            });
            words.extend(instructions.into_iter().flat_map(Instruction::words));
        }
        if block_words + uniforms.words.len() > NAMES_MAX {
            return Err(Unsupported("more constants than an instruction can name".to_owned()));
        }
        Ok(Self {
            group: code.group,
            words,
            constants: uniforms.words,
            entries,
        })
    }
}

fn narrow(value: usize) -> Result<u32, Unsupported> {
    u32::try_from(value).map_err(|_| Unsupported("too many instructions".to_owned()))
}

/// Words that all work-items read.
struct Uniforms {
    /// Position of the first constant.
    first: usize,
    words: Vec<u64>,
    known: HashMap<Vec<u64>, usize>,
}

impl Uniforms {
    /// The operand of a constant of one or two words.
    fn constant(&mut self, words: &[u64]) -> u16 {
        let at = match self.known.get(words) {
            Some(at) => *at,
            None => {
                let at = self.first + self.words.len();
                self.words.extend(words);
                self.known.insert(words.to_vec(), at);
                at
            }
        };
        // Too many are refused at the end.
        u16::try_from(at).map_or(UNIFORM, |at| at | UNIFORM)
    }
}

fn words_of(value: Const) -> Vec<u64> {
    vec![match value {
        Const::Bool(value) => u64::from(value),
        Const::I32(value) => i64::from(value).cast_unsigned(),
        Const::U32(value) => u64::from(value),
        Const::I64(value) => value.cast_unsigned(),
        Const::U64(value) => value,
        Const::F32(value) => u64::from(value.to_bits()),
        Const::F64(value) => value.to_bits(),
        Const::I128(value) => {
            let value = value.cast_unsigned();
            #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
            return vec![value as u64, (value >> 64) as u64];
        }
    }]
}

/// Of a result of this type.
fn form(scalar: Scalar) -> Form {
    match scalar {
        Scalar::I32 => Form::Signed,
        Scalar::U32 => Form::Unsigned,
        _ => Form::Whole,
    }
}

fn is_signed(scalar: Scalar) -> bool {
    matches!(scalar, Scalar::I32 | Scalar::I64)
}

struct Writer<'k> {
    kernel: &'k KernelCode,
    uniforms: &'k mut Uniforms,
    /// Instructions before the kernel's.
    start: usize,
    out: Vec<Instruction>,
    /// Where each register is.
    places: HashMap<Reg, u16>,
    registers: usize,
    /// Registers that hold 128 bits at some time.
    wide: HashSet<Reg>,
    /// By local array: the register of its address.
    locals: Vec<u16>,
}

impl<'k> Writer<'k> {
    fn new(kernel: &'k KernelCode, uniforms: &'k mut Uniforms, start: usize) -> Self {
        let mut places = HashMap::from([(LOCAL_INDEX, 0), (GROUP_INDEX, 1), (GROUPS, 2)]);
        for (word, reg) in &kernel.words {
            let at = u16::try_from(*word).unwrap_or(0);
            places.insert(*reg, at | UNIFORM);
        }
        for (value, reg) in &kernel.constants {
            places.insert(*reg, uniforms.constant(&words_of(*value)));
        }
        Self {
            kernel,
            uniforms,
            start,
            out: Vec::new(),
            places,
            registers: usize::from(FIRST),
            wide: kernel.ops.iter().filter_map(|op| wide(kernel, op)).collect(),
            locals: Vec::new(),
        }
    }

    /// The instructions, and how many registers they use.
    fn write(mut self) -> Result<(Vec<Instruction>, u32), Unsupported> {
        for local in &self.kernel.locals {
            let register = self.fresh(1);
            let offset = self.uniforms.constant(&[local.at]);
            self.emit(Opcode::Add, register, &[LOCAL_BASE, offset]);
            self.locals.push(register);
        }
        // Jumps name operations; these are where their instructions begin.
        let mut begins = Vec::with_capacity(self.kernel.ops.len());
        let mut jumps = Vec::new();
        for op in &self.kernel.ops {
            begins.push(self.out.len());
            match *op {
                Op::Jump(target) => {
                    jumps.push((self.out.len(), target));
                    self.emit(Opcode::Jump, NOWHERE, &[]);
                }
                Op::JumpUnless { condition, target } => {
                    let condition = self.at(condition);
                    jumps.push((self.out.len(), target));
                    self.emit(Opcode::Unless, NOWHERE, &[condition]);
                }
                _ => self.op(op),
            }
        }
        if self.registers > NAMES_MAX {
            return Err(Unsupported("more registers than an instruction can name".to_owned()));
        }
        for (at, target) in jumps {
            self.out[at] = self.out[at].to(narrow(self.start + begins[target])?);
        }
        Ok((self.out, narrow(self.registers)?))
    }

    fn emit(&mut self, opcode: Opcode, into: u16, operands: &[u16]) {
        self.out.push(Instruction::new(opcode, into, operands));
    }

    fn emit_as(&mut self, scalar: Scalar, opcode: Opcode, into: u16, operands: &[u16]) {
        self.out
            .push(Instruction::new(opcode, into, operands).with(form(scalar)));
    }

    fn fresh(&mut self, words: usize) -> u16 {
        let at = self.registers;
        self.registers += words;
        // Too many are refused at the end.
        u16::try_from(at).unwrap_or(0)
    }

    /// Where a register is. A result is never put where an operand of the same operation is, except whole.
    fn at(&mut self, reg: Reg) -> u16 {
        if let Some(at) = self.places.get(&reg) {
            return *at;
        }
        let at = self.fresh(if self.wide.contains(&reg) { 2 } else { 1 });
        self.places.insert(reg, at);
        at
    }

    fn op(&mut self, op: &Op) {
        match *op {
            Op::Copy { scalar, into, from } => {
                let (into, from) = (self.at(into), self.at(from));
                self.copy(scalar, into, from);
            }
            Op::Unary { op, scalar, into, a } => {
                let (into, a) = (self.at(into), self.at(a));
                self.unary(op, scalar, into, a);
            }
            Op::Binary { op, scalar, into, a, b } => {
                let (into, a, b) = (self.at(into), self.at(a), self.at(b));
                self.binary(op, scalar, into, [a, b]);
            }
            Op::Compare { op, scalar, into, a, b } => {
                let (into, a, b) = (self.at(into), self.at(a), self.at(b));
                self.compare(op, scalar, into, [a, b]);
            }
            Op::Select {
                scalar,
                into,
                condition,
                a,
                b,
            } => {
                let [into, condition, a, b] = [into, condition, a, b].map(|reg| self.at(reg));
                self.emit(Opcode::Select, into, &[a, b, condition]);
                if scalar == Scalar::I128 {
                    self.emit(Opcode::Select, into + 1, &[a + 1, b + 1, condition]);
                }
            }
            Op::Convert { from, to, into, a } => {
                let (into, a) = (self.at(into), self.at(a));
                self.convert(from, to, into, a);
            }
            Op::Load {
                elem,
                into,
                base,
                index,
                ..
            } => {
                let [into, base, index] = [into, base, index].map(|reg| self.at(reg));
                self.emit(load(elem), into, &[base, index]);
            }
            Op::LoadLocal { into, local, index } => {
                let (into, index) = (self.at(into), self.at(index));
                let (base, elem) = self.local(local);
                self.emit(load(elem), into, &[base, index]);
            }
            Op::Store {
                elem,
                base,
                index,
                value,
            } => {
                let [base, index, value] = [base, index, value].map(|reg| self.at(reg));
                self.emit(store(elem), NOWHERE, &[base, index, value]);
            }
            Op::StoreLocal { local, index, value } => {
                let (index, value) = (self.at(index), self.at(value));
                let (base, elem) = self.local(local);
                self.emit(store(elem), NOWHERE, &[base, index, value]);
            }
            Op::Atomic(ref atomic) => self.atomic(atomic),
            Op::Barrier => self.emit(Opcode::Barrier, NOWHERE, &[]),
            Op::Fence => self.emit(Opcode::Fence, NOWHERE, &[]),
            Op::End => self.emit(Opcode::End, NOWHERE, &[]),
            // What only the host's interpreter looks at, and what was written before.
            Op::Forget(_) | Op::Mark(_) | Op::Check { .. } | Op::Jump(_) | Op::JumpUnless { .. } => {}
        }
    }

    fn local(&self, local: u32) -> (u16, Elem) {
        let local = local as usize;
        (self.locals[local], self.kernel.locals[local].elem)
    }

    fn copy(&mut self, scalar: Scalar, into: u16, from: u16) {
        self.emit(Opcode::Copy, into, &[from]);
        if scalar == Scalar::I128 {
            self.emit(Opcode::Copy, into + 1, &[from + 1]);
        }
    }

    fn unary(&mut self, op: Unary, scalar: Scalar, into: u16, a: u16) {
        let is_single = scalar == Scalar::F32;
        let [zero, one, all] = [0, 1, u64::MAX].map(|word| self.uniforms.constant(&[word]));
        match (op, scalar) {
            (Unary::Not, _) => self.emit(Opcode::Xor, into, &[a, one]),
            (Unary::Negate, Scalar::I128) => {
                let zero = self.uniforms.constant(&[0, 0]);
                self.emit(Opcode::SubtractW, into, &[zero, a]);
            }
            (Unary::Negate, Scalar::F64) => self.emit(Opcode::NegateF, into, &[a]),
            (Unary::Negate, Scalar::F32) => self.emit(Opcode::NegateG, into, &[a]),
            (Unary::Negate, _) => self.emit_as(scalar, Opcode::Subtract, into, &[zero, a]),
            (Unary::Complement, _) => self.emit_as(scalar, Opcode::Xor, into, &[a, all]),
            (Unary::CountOnes, _) => self.emit(Opcode::Ones, into, &[a]),
            (Unary::LeadingZeros, Scalar::U32) => self.emit(Opcode::Zeros32, into, &[a]),
            (Unary::LeadingZeros, _) => self.emit(Opcode::Zeros, into, &[a]),
            (Unary::SquareRoot, _) if is_single => self.emit(Opcode::RootG, into, &[a]),
            (Unary::SquareRoot, _) => self.emit(Opcode::RootF, into, &[a]),
            (Unary::Floor, _) if is_single => self.emit(Opcode::FloorG, into, &[a]),
            (Unary::Floor, _) => self.emit(Opcode::FloorF, into, &[a]),
            (Unary::High, _) => self.emit(Opcode::Copy, into, &[a + 1]),
        }
    }

    fn binary(&mut self, op: Binary, scalar: Scalar, into: u16, [a, b]: [u16; 2]) {
        let bits = match op {
            Binary::And => Some(Opcode::And),
            Binary::Or => Some(Opcode::Or),
            Binary::Xor => Some(Opcode::Xor),
            _ => None,
        };
        match (bits, scalar) {
            (Some(opcode), Scalar::I128) => {
                self.emit(opcode, into, &[a, b]);
                self.emit(opcode, into + 1, &[a + 1, b + 1]);
            }
            (Some(opcode), _) => self.emit(opcode, into, &[a, b]),
            (None, _) => self.emit_as(scalar, binary(op, scalar), into, &[a, b]),
        }
    }

    fn compare(&mut self, op: Compare, scalar: Scalar, into: u16, [a, b]: [u16; 2]) {
        use Opcode::{
            Equal, EqualF, EqualG, EqualW, LessF, LessG, LessOrEqualF, LessOrEqualG, LessOrEqualS, LessOrEqualU,
            LessOrEqualW, LessS, LessU, LessW, NotEqual, NotEqualF, NotEqualG, NotEqualW,
        };
        let [equal, not_equal, less, less_or_equal] = match scalar {
            Scalar::F64 => [EqualF, NotEqualF, LessF, LessOrEqualF],
            Scalar::F32 => [EqualG, NotEqualG, LessG, LessOrEqualG],
            Scalar::I128 => [EqualW, NotEqualW, LessW, LessOrEqualW],
            _ if is_signed(scalar) => [Equal, NotEqual, LessS, LessOrEqualS],
            _ => [Equal, NotEqual, LessU, LessOrEqualU],
        };
        let (opcode, operands) = match op {
            Compare::Equal => (equal, [a, b]),
            Compare::NotEqual => (not_equal, [a, b]),
            Compare::Less => (less, [a, b]),
            Compare::LessOrEqual => (less_or_equal, [a, b]),
            Compare::Greater => (less, [b, a]),
            Compare::GreaterOrEqual => (less_or_equal, [b, a]),
        };
        self.emit(opcode, into, &operands);
    }

    fn convert(&mut self, from: Scalar, to: Scalar, into: u16, a: u16) {
        let opcode = match (from, to) {
            (Scalar::I128, Scalar::F64) => Opcode::WToF,
            (Scalar::I128, Scalar::F32) => Opcode::WToG,
            (Scalar::F64, Scalar::F32) => Opcode::FToG,
            (Scalar::F32, Scalar::F64) => Opcode::GToF,
            (Scalar::F32, _) => {
                // What is a float is a double too.
                self.emit(Opcode::GToF, into, &[a]);
                return self.convert(Scalar::F64, to, into, into);
            }
            (Scalar::F64, Scalar::I128) => Opcode::FToW,
            (Scalar::F64, _) if is_signed(to) => Opcode::FToS,
            (Scalar::F64, _) => Opcode::FToU,
            (_, Scalar::F64) if is_signed(from) => Opcode::SToF,
            (_, Scalar::F64) => Opcode::UToF,
            (_, Scalar::F32) if is_signed(from) => Opcode::SToG,
            (_, Scalar::F32) => Opcode::UToG,
            (_, Scalar::I128) => {
                let [zero, width] = [0, 63].map(|word| self.uniforms.constant(&[word]));
                if is_signed(from) {
                    self.emit(Opcode::ShiftRightS, into + 1, &[a, width]);
                } else {
                    self.emit(Opcode::Copy, into + 1, &[zero]);
                }
                Opcode::Copy
            }
            _ => Opcode::Copy,
        };
        self.emit_as(to, opcode, into, &[a]);
    }

    fn atomic(&mut self, atomic: &AtomicOp) {
        let scalar = atomic.elem.scalar();
        let (base, index) = match atomic.place {
            AtomicPlace::Arena { base, index } => (self.at(base), self.at(index)),
            AtomicPlace::Local { local, index } => (self.local(local).0, self.at(index)),
        };
        let signed = is_signed(scalar);
        let (narrow, whole, operands) = match atomic.change {
            Change::Load => (Opcode::Load32A, Opcode::Load64A, vec![]),
            Change::Store(value) => (Opcode::Store32A, Opcode::Store64A, vec![value]),
            Change::Modify(Binary::Min, value) if signed => (Opcode::MinS32A, Opcode::MinS64A, vec![value]),
            Change::Modify(Binary::Min, value) => (Opcode::MinU32A, Opcode::MinU64A, vec![value]),
            Change::Modify(Binary::Max, value) if signed => (Opcode::MaxS32A, Opcode::MaxS64A, vec![value]),
            Change::Modify(Binary::Max, value) => (Opcode::MaxU32A, Opcode::MaxU64A, vec![value]),
            Change::Modify(Binary::Or, value) => (Opcode::Or32A, Opcode::Or64A, vec![value]),
            Change::Modify(_, value) => (Opcode::Add32A, Opcode::Add64A, vec![value]),
            Change::Exchange(value) => (Opcode::Exchange32A, Opcode::Exchange64A, vec![value]),
            Change::CompareExchange { expected, value } => {
                (Opcode::Compare32A, Opcode::Compare64A, vec![value, expected])
            }
        };
        let mut all = vec![base, index];
        all.extend(operands.into_iter().map(|reg| self.at(reg)));
        let into = atomic.old.map_or(NOWHERE, |old| self.at(old));
        let opcode = if atomic.elem.bytes() == 4 { narrow } else { whole };
        self.emit_as(scalar, opcode, into, &all);
    }
}

/// The register that gets 128 bits.
fn wide(kernel: &KernelCode, op: &Op) -> Option<Reg> {
    let (into, is_wide) = match *op {
        Op::Copy { scalar, into, .. } | Op::Select { scalar, into, .. } | Op::Binary { scalar, into, .. } => {
            (into, scalar == Scalar::I128)
        }
        Op::Unary { op, scalar, into, .. } => (into, scalar == Scalar::I128 && op != Unary::High),
        Op::Convert { to, into, .. } => (into, to == Scalar::I128),
        Op::Load { elem, into, .. } => (into, elem == Elem::I128),
        Op::LoadLocal { into, local, .. } => (into, kernel.locals[local as usize].elem == Elem::I128),
        _ => return None,
    };
    is_wide.then_some(into)
}

/// The opcode of an operator; [`super::Bytecode`] is of modules whose types hold.
fn binary(op: Binary, scalar: Scalar) -> Opcode {
    let signed = is_signed(scalar);
    let by_type = |integer, double, single, wide| match scalar {
        Scalar::F64 => double,
        Scalar::F32 => single,
        Scalar::I128 => wide,
        _ => integer,
    };
    let by_sign = |yes, no| if signed { yes } else { no };
    use Opcode as O;
    match op {
        Binary::Add => by_type(O::Add, O::AddF, O::AddG, O::AddW),
        Binary::Subtract => by_type(O::Subtract, O::SubtractF, O::SubtractG, O::SubtractW),
        Binary::Multiply => by_type(O::Multiply, O::MultiplyF, O::MultiplyG, O::MultiplyW),
        Binary::Divide => by_type(by_sign(O::DivideS, O::DivideU), O::DivideF, O::DivideG, O::DivideW),
        Binary::Remainder => {
            let integer = by_sign(O::RemainderS, O::RemainderU);
            by_type(integer, O::RemainderF, O::RemainderG, O::RemainderW)
        }
        Binary::And => O::And,
        Binary::Or => O::Or,
        Binary::Xor => O::Xor,
        Binary::ShiftLeft => O::ShiftLeft,
        Binary::ShiftRight => by_sign(O::ShiftRightS, O::ShiftRightU),
        Binary::Min if scalar == Scalar::I128 => O::MinW,
        Binary::Min => by_sign(O::MinS, O::MinU),
        Binary::Max if scalar == Scalar::I128 => O::MaxW,
        Binary::Max => by_sign(O::MaxS, O::MaxU),
        Binary::MultiplyHigh if scalar == Scalar::U32 => O::High32,
        Binary::MultiplyHigh => by_sign(O::HighS, O::HighU),
    }
}

fn load(elem: Elem) -> Opcode {
    match elem {
        Elem::I8 => Opcode::LoadI8,
        Elem::U8 => Opcode::LoadU8,
        Elem::I16 => Opcode::LoadI16,
        Elem::U16 => Opcode::LoadU16,
        Elem::I32 => Opcode::LoadI32,
        Elem::U32 | Elem::F32 => Opcode::LoadU32,
        Elem::I64 | Elem::U64 | Elem::F64 => Opcode::Load64,
        Elem::I128 => Opcode::LoadW,
    }
}

fn store(elem: Elem) -> Opcode {
    match elem.bytes() {
        1 => Opcode::Store8,
        2 => Opcode::Store16,
        4 => Opcode::Store32,
        8 => Opcode::Store64,
        _ => Opcode::StoreW,
    }
}
