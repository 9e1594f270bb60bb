//! Writes kernels: expressions by methods and operators' names, statements one after another, blocks by closures.

use crate::ir::{
    Atomic, Binary, Body, Compare, Const, Elem, Expr, Function, FunctionId, Kernel, Local, LocalId, Place, Scalar,
    Stmt, Target, Unary, Var,
};

/// A constant of type U64.
pub fn u64(value: u64) -> Expr {
    Expr::Const(Const::U64(value))
}

/// A constant of type I64.
pub fn i64(value: i64) -> Expr {
    Expr::Const(Const::I64(value))
}

/// A constant of type U32.
pub fn u32(value: u32) -> Expr {
    Expr::Const(Const::U32(value))
}

/// A constant of type I32.
pub fn i32(value: i32) -> Expr {
    Expr::Const(Const::I32(value))
}

/// A constant of type Bool.
pub fn bool(value: bool) -> Expr {
    Expr::Const(Const::Bool(value))
}

/// A place in the arena.
pub fn place(elem: Elem, base: Expr, index: Expr) -> Place {
    Place {
        elem,
        base: Box::new(base),
        index: Box::new(index),
    }
}

macro_rules! operators {
    ($($(#[$doc:meta])* $name:ident => $variant:ident($kind:ident)),* $(,)?) => {
        #[expect(clippy::should_implement_trait, reason = "these write programs, and names read better than operators there")]
        impl Expr {
            $($(#[$doc])* #[must_use]
            pub fn $name(self, other: Expr) -> Expr {
                Expr::$kind($kind::$variant, Box::new(self), Box::new(other))
            })*
        }
    };
}

operators! {
    /// Sum.
    plus => Add(Binary),
    /// Difference.
    minus => Subtract(Binary),
    /// Product.
    times => Multiply(Binary),
    /// Quotient.
    over => Divide(Binary),
    /// Remainder.
    rem => Remainder(Binary),
    /// Bits or booleans in both.
    and => And(Binary),
    /// Bits or booleans in either.
    or => Or(Binary),
    /// Bits or booleans in one.
    xor => Xor(Binary),
    /// Shifted left.
    shl => ShiftLeft(Binary),
    /// Shifted right.
    shr => ShiftRight(Binary),
    /// The smaller.
    min => Min(Binary),
    /// The larger.
    max => Max(Binary),
    /// High half of the product.
    times_high => MultiplyHigh(Binary),
    /// Equal.
    eq => Equal(Compare),
    /// Not equal.
    ne => NotEqual(Compare),
    /// Less.
    lt => Less(Compare),
    /// Less or equal.
    le => LessOrEqual(Compare),
    /// Greater.
    gt => Greater(Compare),
    /// Greater or equal.
    ge => GreaterOrEqual(Compare),
}

#[expect(clippy::should_implement_trait, reason = "as above")]
impl Expr {
    /// True where this is false.
    #[must_use]
    pub fn not(self) -> Expr {
        Expr::Unary(Unary::Not, Box::new(self))
    }

    /// Negated.
    #[must_use]
    pub fn negate(self) -> Expr {
        Expr::Unary(Unary::Negate, Box::new(self))
    }

    /// As another type.
    #[must_use]
    pub fn to(self, scalar: Scalar) -> Expr {
        Expr::Convert(scalar, Box::new(self))
    }

    /// The same bits as another type.
    #[must_use]
    pub fn bits(self, scalar: Scalar) -> Expr {
        Expr::Bits(scalar, Box::new(self))
    }

    /// One of two.
    #[must_use]
    pub fn select(self, first: Expr, second: Expr) -> Expr {
        Expr::Select(Box::new(self), Box::new(first), Box::new(second))
    }
}

impl From<Var> for Expr {
    fn from(var: Var) -> Self {
        Expr::Var(var)
    }
}

/// Writes one body.
#[derive(Debug, Default)]
pub struct Builder {
    vars: Vec<Scalar>,
    blocks: Vec<Vec<Stmt>>,
    locals: Vec<Local>,
}

impl Builder {
    /// An empty body.
    pub fn new() -> Self {
        Self {
            vars: Vec::new(),
            blocks: vec![Vec::new()],
            locals: Vec::new(),
        }
    }

    /// A variable without a value.
    pub fn var(&mut self, scalar: Scalar) -> Var {
        let var = Var(u32::try_from(self.vars.len()).unwrap_or(u32::MAX));
        self.vars.push(scalar);
        var
    }

    /// A variable with a value.
    pub fn set(&mut self, scalar: Scalar, value: Expr) -> Var {
        let var = self.var(scalar);
        self.assign(var, value);
        var
    }

    /// The type of a variable.
    pub fn scalar(&self, var: Var) -> Scalar {
        self.vars[var.0 as usize]
    }

    /// A local array.
    pub fn local(&mut self, elem: Elem, len: u32) -> LocalId {
        let id = LocalId(u32::try_from(self.locals.len()).unwrap_or(u32::MAX));
        self.locals.push(Local { elem, len });
        id
    }

    /// Appends a statement.
    pub fn push(&mut self, stmt: Stmt) {
        if let Some(block) = self.blocks.last_mut() {
            block.push(stmt);
        }
    }

    /// Assigns.
    pub fn assign(&mut self, var: Var, value: Expr) {
        self.push(Stmt::Assign(var, value));
    }

    /// Stores into the arena.
    pub fn store(&mut self, place: Place, value: Expr) {
        self.push(Stmt::Store(place, value));
    }

    /// Loads from the arena where nothing writes meanwhile.
    pub fn load(&mut self, place: Place) -> Var {
        let scalar = place.elem.scalar();
        self.set(scalar, Expr::Load { place, constant: true })
    }

    /// An atomic whose old value is of no interest.
    pub fn atomic(&mut self, target: Target, op: Atomic) {
        self.push(Stmt::Atomic { old: None, target, op });
    }

    /// An atomic, with the value before.
    pub fn fetch(&mut self, scalar: Scalar, target: Target, op: Atomic) -> Var {
        let old = self.var(scalar);
        self.push(Stmt::Atomic {
            old: Some(old),
            target,
            op,
        });
        old
    }

    /// Statements of `inside`, apart.
    pub fn block(&mut self, inside: impl FnOnce(&mut Self)) -> Vec<Stmt> {
        self.begin();
        inside(self);
        self.end()
    }

    /// Opens a block by hand, for writers that a closure doesn't suit.
    pub fn begin(&mut self) {
        self.blocks.push(Vec::new());
    }

    /// Closes the block that was opened last.
    pub fn end(&mut self) -> Vec<Stmt> {
        self.blocks.pop().unwrap_or_default()
    }

    /// Runs `inside` when the condition holds.
    pub fn when(&mut self, condition: Expr, inside: impl FnOnce(&mut Self)) {
        let then = self.block(inside);
        self.push(Stmt::If {
            condition,
            then,
            otherwise: Vec::new(),
        });
    }

    /// Repeats until a break.
    pub fn repeat(&mut self, inside: impl FnOnce(&mut Self)) {
        let stmts = self.block(inside);
        self.push(Stmt::Loop(stmts));
    }

    /// `for index in from, from + step … < end`: a variable of the bounds' type. Don't `continue` inside.
    pub fn range(&mut self, scalar: Scalar, from: Expr, end: Expr, step: Expr, inside: impl FnOnce(&mut Self, Var)) {
        let index = self.set(scalar, from);
        self.repeat(|b| {
            b.when(Expr::from(index).ge(end), |b| b.push(Stmt::Break));
            inside(b, index);
            b.assign(index, Expr::from(index).plus(step));
        });
    }

    /// The kernel.
    pub fn kernel(mut self, name: impl Into<String>, words: u32) -> Kernel {
        Kernel {
            name: name.into(),
            locals: std::mem::take(&mut self.locals),
            words,
            body: self.body(),
        }
    }

    /// The function, whose first variables are its parameters.
    pub fn function(self, name: impl Into<String>, parameters: usize, result: Scalar) -> Function {
        Function {
            name: name.into(),
            parameters,
            result,
            body: self.body(),
        }
    }

    fn body(mut self) -> Body {
        Body {
            vars: self.vars,
            stmts: self.blocks.pop().unwrap_or_default(),
        }
    }
}

/// A call.
pub fn call(function: FunctionId, args: impl Into<Vec<Expr>>) -> Expr {
    Expr::Call(function, args.into())
}
