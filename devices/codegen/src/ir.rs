//! The kernel language: what a fragment becomes before it is text.
//!
//! A small, typed, structured language for kernels of many work-items, near enough to CUDA C and OpenCL C to be printed line by
//! line, and small enough to be interpreted with every schedule that a device might choose. All device memory is one *arena*
//! of bytes; an address is a byte offset into it. A kernel has two arguments: the arena and the offset of its *block*, an array
//! of 64-bit words that holds everything else (offsets, counts, bases, literals), so that one text serves all values.
//!
//! ```text
//!  kernel(arena, block):   groups × GROUP work-items      local arrays per group      barriers only in uniform flow
//! ```
//!
//! Rules that every kernel keeps, checked by the interpreter:
//! - an access is aligned to its element and inside the allocation that its base points into;
//! - a variable is assigned before it is read; local memory is stored before it is loaded;
//! - two accesses to one place, one of them a write and not both atomic, are ordered by a barrier (in a group) or by a fence, an
//!   atomic and a fence (between groups); equal values don't excuse a race; what is loaded as a constant is never written;
//! - all work-items of a group reach the same barriers; no work-item waits for another except at a barrier;
//! - shifts are by less than the width; integer division is never by zero nor MIN / −1.

use std::hash::{Hash, Hasher};

/// Types of values in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Scalar {
    Bool,
    I32,
    U32,
    I64,
    U64,
    /// Two words, two's complement.
    I128,
    F32,
    F64,
}

/// Types of elements in memory. Loads widen: I8 and I16 to [`Scalar::I32`], U8 and U16 to [`Scalar::U32`]; stores truncate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Elem {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    /// 16 bytes, low word first, aligned to 8.
    I128,
    F32,
    F64,
}

impl Elem {
    /// Bytes of one element.
    pub fn bytes(self) -> u32 {
        match self {
            Elem::I8 | Elem::U8 => 1,
            Elem::I16 | Elem::U16 => 2,
            Elem::I32 | Elem::U32 | Elem::F32 => 4,
            Elem::I64 | Elem::U64 | Elem::F64 => 8,
            Elem::I128 => 16,
        }
    }

    /// The type of a loaded value.
    pub fn scalar(self) -> Scalar {
        match self {
            Elem::I8 | Elem::I16 | Elem::I32 => Scalar::I32,
            Elem::U8 | Elem::U16 | Elem::U32 => Scalar::U32,
            Elem::I64 => Scalar::I64,
            Elem::U64 => Scalar::U64,
            Elem::I128 => Scalar::I128,
            Elem::F32 => Scalar::F32,
            Elem::F64 => Scalar::F64,
        }
    }
}

/// A variable of a kernel or function, by position in [`Body::vars`]; the first ones of a function are its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Var(pub u32);

/// A local array of a kernel, by position in [`Kernel::locals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalId(pub u32);

/// A function of the module, by position in [`Module::functions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FunctionId(pub u32);

/// A constant.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Const {
    Bool(bool),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    I128(i128),
    F32(f32),
    F64(f64),
}

/// By its bits: what is equal has the same text except 0.0 and −0.0, which differ here too.
impl Hash for Const {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.scalar().hash(state);
        match *self {
            Const::Bool(value) => value.hash(state),
            Const::I32(value) => value.hash(state),
            Const::U32(value) => value.hash(state),
            Const::I64(value) => value.hash(state),
            Const::U64(value) => value.hash(state),
            Const::I128(value) => value.hash(state),
            Const::F32(value) => value.to_bits().hash(state),
            Const::F64(value) => value.to_bits().hash(state),
        }
    }
}

impl Const {
    /// Its type.
    pub fn scalar(self) -> Scalar {
        match self {
            Const::Bool(_) => Scalar::Bool,
            Const::I32(_) => Scalar::I32,
            Const::U32(_) => Scalar::U32,
            Const::I64(_) => Scalar::I64,
            Const::U64(_) => Scalar::U64,
            Const::I128(_) => Scalar::I128,
            Const::F32(_) => Scalar::F32,
            Const::F64(_) => Scalar::F64,
        }
    }
}

/// A place in the arena: element `index` of the array that begins at byte `base`.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct Place {
    /// Type of the elements.
    pub elem: Elem,
    /// Byte offset of the array, U64: where an allocation begins, or a place inside it.
    pub base: Box<Expr>,
    /// Which element, U64 (or U32, which is widened).
    pub index: Box<Expr>,
}

/// An expression without side effects. Both operands of a binary operation have the same type.
#[derive(Debug, Clone, PartialEq, Hash)]
pub enum Expr {
    /// A variable.
    Var(Var),
    /// A constant.
    Const(Const),
    /// Word `i` of the block, U64. In kernels only: functions take what they need as arguments.
    Word(u32),
    /// A load from the arena. `constant` says that nothing writes there while the kernel runs.
    Load {
        /// Where.
        place: Place,
        /// Nothing writes there while the kernel runs.
        constant: bool,
    },
    /// A load from a local array; the index is U32.
    LoadLocal(LocalId, Box<Expr>),
    /// One operand.
    Unary(Unary, Box<Expr>),
    /// Two operands of one type; the result has it too.
    Binary(Binary, Box<Expr>, Box<Expr>),
    /// Two operands of one type, the result is Bool.
    Compare(Compare, Box<Expr>, Box<Expr>),
    /// `condition ? first : second`; both may be evaluated.
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
    /// To another type, as `as` of Rust, except from floats: those must be in range and are truncated.
    Convert(Scalar, Box<Expr>),
    /// The same bits: F64 ↔ U64, F32 ↔ U32.
    Bits(Scalar, Box<Expr>),
    /// A function of the module.
    Call(FunctionId, Vec<Expr>),
    /// U32: number of the work-item in its group, 0 … GROUP − 1.
    LocalIndex,
    /// U32: number of the group.
    GroupIndex,
    /// U32: number of groups.
    Groups,
}

/// Operators of one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    /// Of Bool.
    Not,
    /// Of integers (wrapping) and floats.
    Negate,
    /// Bits of integers up to 64.
    Complement,
    /// Set bits of U32 and U64, in the same type.
    CountOnes,
    /// Leading zeros of U32 and U64, in the same type; of 0 the width.
    LeadingZeros,
    /// Of F64 and F32.
    SquareRoot,
    /// Of F64 and F32.
    Floor,
    /// The high word of I128, as I64.
    High,
}

/// Operators of two operands of one type. Integers wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    /// Truncates towards zero.
    Divide,
    /// Sign of the dividend; of floats as C's fmod.
    Remainder,
    /// Of Bool too, evaluating both sides.
    And,
    Or,
    Xor,
    /// By the right operand's value, below the width. Not of I128.
    ShiftLeft,
    /// Arithmetic for signed types. Not of I128.
    ShiftRight,
    /// Smaller; not for floats.
    Min,
    Max,
    /// High half of the product: U32 and U64 and I64.
    MultiplyHigh,
}

/// Comparisons. Of floats as IEEE: false with NaN, except NotEqual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Where an atomic works: elements U32, I32, U64 or I64.
#[derive(Debug, Clone, PartialEq, Hash)]
pub enum Target {
    /// In the arena.
    Arena(Place),
    /// In a local array; the index is U32.
    Local(LocalId, Expr),
}

/// What an atomic does. All are relaxed: order comes from [`Stmt::Fence`] and barriers.
#[derive(Debug, Clone, PartialEq, Hash)]
pub enum Atomic {
    /// Reads.
    Load,
    /// Writes.
    Store(Expr),
    /// Adds, wrapping.
    Add(Expr),
    /// Keeps the smaller.
    Min(Expr),
    /// Keeps the larger.
    Max(Expr),
    /// Sets bits.
    Or(Expr),
    /// Replaces.
    Exchange(Expr),
    /// Replaces `expected` by `value`.
    CompareExchange {
        /// What must be there.
        expected: Expr,
        /// What is put there.
        value: Expr,
    },
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Hash)]
pub enum Stmt {
    /// Assigns a variable.
    Assign(Var, Expr),
    /// Stores into the arena.
    Store(Place, Expr),
    /// Stores into a local array; the index is U32.
    StoreLocal(LocalId, Expr, Expr),
    /// An atomic; the variable gets the value before.
    Atomic {
        /// Gets the old value.
        old: Option<Var>,
        /// Where.
        target: Target,
        /// What.
        op: Atomic,
    },
    /// Branches.
    If {
        /// Bool.
        condition: Expr,
        /// When true.
        then: Vec<Stmt>,
        /// When false.
        otherwise: Vec<Stmt>,
    },
    /// Repeats until a break.
    Loop(Vec<Stmt>),
    /// Leaves the innermost loop.
    Break,
    /// Goes to the start of the innermost loop.
    Continue,
    /// All work-items of the group arrive here before any goes on; orders their accesses to local memory and the arena.
    Barrier,
    /// Release and acquire between all work-items of the launch, together with an atomic.
    Fence,
    /// Leaves the function with a value. In functions only.
    Return(Expr),
    /// A remark in the text.
    Comment(String),
}

/// Variables and statements.
#[derive(Debug, Clone, PartialEq, Default, Hash)]
pub struct Body {
    /// Types of the variables.
    pub vars: Vec<Scalar>,
    /// The statements.
    pub stmts: Vec<Stmt>,
}

/// A function: no barriers, no atomics, no stores, no local memory, no recursion; every path returns.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct Function {
    /// Name, unique in the module.
    pub name: String,
    /// The first variables are parameters.
    pub parameters: usize,
    /// Type of the result.
    pub result: Scalar,
    /// What it does.
    pub body: Body,
}

/// A local array of a kernel.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct Local {
    /// Type of the elements.
    pub elem: Elem,
    /// Elements.
    pub len: u32,
}

/// A kernel.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct Kernel {
    /// Name, unique in the module.
    pub name: String,
    /// Local arrays, per group.
    pub locals: Vec<Local>,
    /// Words of the block that it reads: 0 … words − 1.
    pub words: u32,
    /// What it does.
    pub body: Body,
}

/// Kernels and functions that are compiled together.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct Module {
    /// Work-items per group, a power of two; a constant of the text.
    pub group: u32,
    /// Functions; each calls only earlier ones.
    pub functions: Vec<Function>,
    /// Kernels.
    pub kernels: Vec<Kernel>,
}
