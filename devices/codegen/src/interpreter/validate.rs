//! Whether a module is one: types of all expressions, names, breaks, returns and barriers where they belong.

use std::collections::HashSet;

use super::text;
use super::uniform::divergent_barrier;
use super::violation::{Violation, ViolationKind};
use crate::ir::{
    Atomic, Binary, Body, Compare, Elem, Expr, Function, Kernel, LocalId, Module, Place, Scalar, Stmt, Target, Unary,
    Var,
};

/// Checks a module.
///
/// # Errors
/// [`ViolationKind::Invalid`]: the first thing that is wrong, and where it stands.
pub fn validate(module: &Module) -> Result<(), Violation> {
    let wrong = |name: &str, what: String| Violation {
        kind: ViolationKind::Invalid,
        kernel: name.to_owned(),
        statement: String::new(),
        item: None,
        address: None,
        what,
    };
    if !module.group.is_power_of_two() {
        return Err(wrong("the module", format!("groups of {} work-items", module.group)));
    }
    let mut names = HashSet::new();
    let functions = module.functions.iter().map(|function| function.name.as_str());
    for name in functions.chain(module.kernels.iter().map(|kernel| kernel.name.as_str())) {
        let mut letters = name.chars();
        let starts = letters
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        if !starts || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            return Err(wrong(name, "the name is no identifier".to_owned()));
        }
        if !names.insert(name) {
            return Err(wrong(name, "two have this name".to_owned()));
        }
    }
    for (position, function) in module.functions.iter().enumerate() {
        check_function(module, position, function)?;
    }
    for kernel in &module.kernels {
        if let Some(position) = kernel.locals.iter().position(|local| local.len == 0) {
            return Err(wrong(&kernel.name, format!("local{position} has no elements")));
        }
        Checker {
            module,
            name: &kernel.name,
            body: &kernel.body,
            owner: Owner::Kernel(kernel),
        }
        .block(&kernel.body.stmts, "", 0)?;
        if let Some(place) = divergent_barrier(module, kernel) {
            let what = format!("not all work-items of a group may get to the barrier at {place}");
            return Err(wrong(&kernel.name, what));
        }
    }
    Ok(())
}

fn check_function(module: &Module, position: usize, function: &Function) -> Result<(), Violation> {
    let checker = Checker {
        module,
        name: &function.name,
        body: &function.body,
        owner: Owner::Function(position, function),
    };
    if function.parameters > function.body.vars.len() {
        return Err(checker.at("", "it has fewer variables than parameters".to_owned()));
    }
    checker.block(&function.body.stmts, "", 0)?;
    if falls_through(&function.body.stmts) {
        return Err(checker.at("", "not every path returns".to_owned()));
    }
    Ok(())
}

/// Whether the end of a block can be reached.
fn falls_through(stmts: &[Stmt]) -> bool {
    stmts.iter().all(|stmt| match stmt {
        Stmt::Return(_) | Stmt::Break | Stmt::Continue => false,
        Stmt::If { then, otherwise, .. } => falls_through(then) || falls_through(otherwise),
        Stmt::Loop(stmts) => breaks(stmts),
        _ => true,
    })
}

/// Whether a loop's body has a break of its own.
fn breaks(stmts: &[Stmt]) -> bool {
    stmts.iter().any(|stmt| match stmt {
        Stmt::Break => true,
        Stmt::If { then, otherwise, .. } => breaks(then) || breaks(otherwise),
        _ => false,
    })
}

enum Owner<'m> {
    Kernel(&'m Kernel),
    Function(usize, &'m Function),
}

struct Checker<'m> {
    module: &'m Module,
    name: &'m str,
    body: &'m Body,
    owner: Owner<'m>,
}

/// What is wrong, or a type.
type Typed = Result<Scalar, String>;

impl Checker<'_> {
    fn at(&self, statement: &str, what: String) -> Violation {
        Violation {
            kind: ViolationKind::Invalid,
            kernel: self.name.to_owned(),
            statement: statement.to_owned(),
            item: None,
            address: None,
            what,
        }
    }

    fn block(&self, stmts: &[Stmt], path: &str, loops: usize) -> Result<(), Violation> {
        for (position, stmt) in stmts.iter().enumerate() {
            let path = format!("{path}{position}");
            self.statement(stmt, loops)
                .map_err(|what| self.at(&format!("{path}: {}", text::statement(stmt, self.module)), what))?;
            match stmt {
                Stmt::If { then, otherwise, .. } => {
                    self.block(then, &format!("{path}.then."), loops)?;
                    self.block(otherwise, &format!("{path}.else."), loops)?;
                }
                Stmt::Loop(stmts) => self.block(stmts, &format!("{path}.loop."), loops + 1)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn statement(&self, stmt: &Stmt, loops: usize) -> Result<(), String> {
        match stmt {
            Stmt::Assign(var, value) => self.expect(value, self.variable(*var)?, "the value"),
            Stmt::Store(place, value) => {
                self.kernel_only("stores")?;
                self.place(place)?;
                self.expect(value, place.elem.scalar(), "the value")
            }
            Stmt::StoreLocal(local, index, value) => {
                let elem = self.local(*local, index)?;
                self.expect(value, elem.scalar(), "the value")
            }
            Stmt::Atomic { old, target, op } => self.atomic(*old, target, op),
            Stmt::If { condition, .. } => self.expect(condition, Scalar::Bool, "the condition"),
            Stmt::Break | Stmt::Continue if loops == 0 => Err("there is no loop around it".to_owned()),
            Stmt::Barrier | Stmt::Fence => self.kernel_only("barriers and fences"),
            Stmt::Return(value) => match &self.owner {
                Owner::Function(_, function) => self.expect(value, function.result, "the value"),
                Owner::Kernel(_) => Err("kernels return nothing".to_owned()),
            },
            Stmt::Loop(_) | Stmt::Comment(_) | Stmt::Break | Stmt::Continue => Ok(()),
        }
    }

    fn atomic(&self, old: Option<Var>, target: &Target, op: &Atomic) -> Result<(), String> {
        self.kernel_only("atomics")?;
        let elem = match target {
            Target::Arena(place) => {
                self.place(place)?;
                place.elem
            }
            Target::Local(local, index) => self.local(*local, index)?,
        };
        if !matches!(elem, Elem::U32 | Elem::I32 | Elem::U64 | Elem::I64) {
            return Err(format!("there are no atomics of {elem:?}"));
        }
        let scalar = elem.scalar();
        if let Some(var) = old
            && self.variable(var)? != scalar
        {
            return Err(format!("v{} is not of type {scalar:?}", var.0));
        }
        match op {
            Atomic::Load => Ok(()),
            Atomic::Store(value)
            | Atomic::Add(value)
            | Atomic::Min(value)
            | Atomic::Max(value)
            | Atomic::Or(value)
            | Atomic::Exchange(value) => self.expect(value, scalar, "the value"),
            Atomic::CompareExchange { expected, value } => {
                self.expect(expected, scalar, "what is expected")?;
                self.expect(value, scalar, "the value")
            }
        }
    }

    fn kernel_only(&self, what: &str) -> Result<(), String> {
        match self.owner {
            Owner::Kernel(_) => Ok(()),
            Owner::Function(..) => Err(format!("functions have no {what}")),
        }
    }

    fn variable(&self, var: Var) -> Typed {
        let known = self.body.vars.get(var.0 as usize);
        known.copied().ok_or_else(|| format!("there is no v{}", var.0))
    }

    fn local(&self, local: LocalId, index: &Expr) -> Result<Elem, String> {
        self.kernel_only("local memory")?;
        self.expect(index, Scalar::U32, "the index")?;
        let Owner::Kernel(kernel) = &self.owner else {
            return Err("functions have no local memory".to_owned());
        };
        let known = kernel.locals.get(local.0 as usize);
        known
            .map(|local| local.elem)
            .ok_or_else(|| format!("there is no local{}", local.0))
    }

    fn place(&self, place: &Place) -> Result<(), String> {
        self.expect(&place.base, Scalar::U64, "the base")?;
        match self.scalar(&place.index)? {
            Scalar::U64 | Scalar::U32 => Ok(()),
            other => Err(format!("the index is of type {other:?}, not U64 or U32")),
        }
    }

    fn expect(&self, expr: &Expr, scalar: Scalar, what: &str) -> Result<(), String> {
        let found = self.scalar(expr)?;
        if found == scalar {
            return Ok(());
        }
        let text = text::expression(expr, self.module);
        Err(format!("{what} is of type {found:?}, not {scalar:?}: {text}"))
    }

    /// The type of an expression.
    fn scalar(&self, expr: &Expr) -> Typed {
        match expr {
            Expr::Var(var) => self.variable(*var),
            Expr::Const(value) => Ok(value.scalar()),
            Expr::Word(word) => match &self.owner {
                Owner::Kernel(kernel) if *word < kernel.words => Ok(Scalar::U64),
                Owner::Kernel(kernel) => Err(format!("the block has {} words, not {word}", kernel.words)),
                Owner::Function(..) => Err("functions don't see the block".to_owned()),
            },
            Expr::Load { place, .. } => {
                self.place(place)?;
                Ok(place.elem.scalar())
            }
            Expr::LoadLocal(local, index) => self.local(*local, index).map(Elem::scalar),
            Expr::Unary(op, a) => {
                let scalar = self.scalar(a)?;
                let result = if *op == Unary::High { Scalar::I64 } else { scalar };
                self.fits(expr, unary_fits(*op, scalar), result)
            }
            Expr::Binary(op, a, b) => {
                let scalar = self.alike(expr, a, b)?;
                self.fits(expr, binary_fits(*op, scalar), scalar)
            }
            Expr::Compare(op, a, b) => {
                let scalar = self.alike(expr, a, b)?;
                let fits = scalar != Scalar::Bool || matches!(op, Compare::Equal | Compare::NotEqual);
                self.fits(expr, fits, scalar)?;
                Ok(Scalar::Bool)
            }
            Expr::Select(condition, a, b) => {
                self.expect(condition, Scalar::Bool, "the condition")?;
                self.alike(expr, a, b)
            }
            Expr::Convert(to, a) => {
                let from = self.scalar(a)?;
                let fits = from == *to || *to != Scalar::Bool;
                self.fits(expr, fits, from)?;
                Ok(*to)
            }
            Expr::Bits(to, a) => {
                let from = self.scalar(a)?;
                let fits = matches!(
                    (from, to),
                    (Scalar::F64, Scalar::U64)
                        | (Scalar::U64, Scalar::F64)
                        | (Scalar::F32, Scalar::U32)
                        | (Scalar::U32, Scalar::F32)
                );
                self.fits(expr, fits, from)?;
                Ok(*to)
            }
            Expr::Call(function, arguments) => self.call(function.0 as usize, arguments),
            Expr::LocalIndex | Expr::GroupIndex | Expr::Groups => Ok(Scalar::U32),
        }
    }

    fn call(&self, position: usize, arguments: &[Expr]) -> Typed {
        let Some(function) = self.module.functions.get(position) else {
            return Err(format!("there is no function {position}"));
        };
        if matches!(self.owner, Owner::Function(own, _) if position >= own) {
            return Err(format!("{} doesn't stand before its caller", function.name));
        }
        if arguments.len() != function.parameters {
            return Err(format!(
                "{} takes {} arguments, not {}",
                function.name,
                function.parameters,
                arguments.len()
            ));
        }
        for (argument, scalar) in arguments.iter().zip(&function.body.vars) {
            self.expect(argument, *scalar, &format!("an argument of {}", function.name))?;
        }
        Ok(function.result)
    }

    fn alike(&self, expr: &Expr, a: &Expr, b: &Expr) -> Typed {
        let (first, second) = (self.scalar(a)?, self.scalar(b)?);
        if first == second {
            return Ok(first);
        }
        let text = text::expression(expr, self.module);
        Err(format!("operands of types {first:?} and {second:?}: {text}"))
    }

    fn fits(&self, expr: &Expr, fits: bool, scalar: Scalar) -> Typed {
        if fits {
            return Ok(scalar);
        }
        Err(format!(
            "not of type {scalar:?}: {}",
            text::expression(expr, self.module)
        ))
    }
}

fn is_float(scalar: Scalar) -> bool {
    matches!(scalar, Scalar::F32 | Scalar::F64)
}

fn unary_fits(op: Unary, scalar: Scalar) -> bool {
    match op {
        Unary::Not => scalar == Scalar::Bool,
        Unary::Negate => scalar != Scalar::Bool,
        Unary::Complement => matches!(scalar, Scalar::I32 | Scalar::U32 | Scalar::I64 | Scalar::U64),
        Unary::CountOnes | Unary::LeadingZeros => matches!(scalar, Scalar::U32 | Scalar::U64),
        Unary::SquareRoot | Unary::Floor => is_float(scalar),
        Unary::High => scalar == Scalar::I128,
    }
}

fn binary_fits(op: Binary, scalar: Scalar) -> bool {
    let is_bool = scalar == Scalar::Bool;
    match op {
        Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder => !is_bool,
        Binary::And | Binary::Or | Binary::Xor => !is_float(scalar),
        Binary::ShiftLeft | Binary::ShiftRight => !is_bool && !is_float(scalar) && scalar != Scalar::I128,
        Binary::Min | Binary::Max => !is_bool && !is_float(scalar),
        Binary::MultiplyHigh => matches!(scalar, Scalar::U32 | Scalar::U64 | Scalar::I64),
    }
}
