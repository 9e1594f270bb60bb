//! Instructions, and how they lie in two words.
//!
//! ```text
//!  word 0:  opcode 8 │ form 8 │ into 16 │ a 16 │ b 16        word 1:  c 16 │ d 16 │ target 32
//! ```
//!
//! `a` … `d` name a register, or with [`UNIFORM`] a uniform. 128-bit values take two neighbours, low word first. Registers
//! hold 64 bits: I32 with its sign extended, U32 and F32 with zeros, Bool as 0 and 1.

/// Bit of an operand: it is a uniform.
pub(super) const UNIFORM: u16 = 0x8000;

/// What is done with a result before it is put into its register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Form {
    /// Nothing.
    Whole,
    /// Its low 32 bits, with their sign.
    Signed,
    /// Its low 32 bits, with zeros.
    Unsigned,
}

macro_rules! opcodes {
    ($($name:ident),* $(,)?) => {
        /// What an instruction does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Opcode { $($name),* }

        impl Opcode {
            /// All, in the order of their numbers.
            pub(super) const ALL: &[Opcode] = &[$(Opcode::$name),*];
        }
    };
}

opcodes! {
    // Integers; S is signed, U unsigned.
    Copy, Add, Subtract, Multiply, DivideS, DivideU, RemainderS, RemainderU, And, Or, Xor, ShiftLeft, ShiftRightS,
    ShiftRightU, MinS, MinU, MaxS, MaxU, HighS, HighU, High32, Ones, Zeros, Zeros32,
    Equal, NotEqual, LessS, LessOrEqualS, LessU, LessOrEqualU, Select,
    // F64.
    AddF, SubtractF, MultiplyF, DivideF, RemainderF, NegateF, RootF, FloorF, EqualF, NotEqualF, LessF, LessOrEqualF,
    // F32.
    AddG, SubtractG, MultiplyG, DivideG, RemainderG, NegateG, RootG, FloorG, EqualG, NotEqualG, LessG, LessOrEqualG,
    // Conversions.
    SToF, UToF, SToG, UToG, FToG, GToF, FToS, FToU,
    // I128.
    AddW, SubtractW, MultiplyW, DivideW, RemainderW, MinW, MaxW, FToW, WToF, WToG, EqualW, NotEqualW, LessW, LessOrEqualW,
    // Memory.
    LoadI8, LoadU8, LoadI16, LoadU16, LoadI32, LoadU32, Load64, LoadW, Store8, Store16, Store32, Store64, StoreW,
    Load32A, Store32A, Add32A, MinS32A, MinU32A, MaxS32A, MaxU32A, Or32A, Exchange32A, Compare32A,
    Load64A, Store64A, Add64A, MinS64A, MinU64A, MaxS64A, MaxU64A, Or64A, Exchange64A, Compare64A,
    // Control.
    Jump, Unless, Barrier, Fence, End,
}

/// An instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instruction {
    pub(super) opcode: Opcode,
    pub(super) form: Form,
    pub(super) into: u16,
    /// `a`, `b`, `c`, `d`.
    pub(super) operands: [u16; 4],
    pub(super) target: u32,
}

impl Instruction {
    pub(super) fn new(opcode: Opcode, into: u16, operands: &[u16]) -> Self {
        // What is not used reads the first uniform.
        let mut all = [UNIFORM; 4];
        all[..operands.len()].copy_from_slice(operands);
        Self {
            opcode,
            form: Form::Whole,
            into,
            operands: all,
            target: 0,
        }
    }

    pub(super) fn with(self, form: Form) -> Self {
        Self { form, ..self }
    }

    pub(super) fn to(self, target: u32) -> Self {
        Self { target, ..self }
    }

    pub(super) fn words(self) -> [u64; 2] {
        let [a, b, c, d] = self.operands.map(u64::from);
        let first = self.opcode as u64 | (self.form as u64) << 8 | u64::from(self.into) << 16 | a << 32 | b << 48;
        [first, c | d << 16 | u64::from(self.target) << 32]
    }
}
