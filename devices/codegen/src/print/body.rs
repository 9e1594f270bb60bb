//! Functions, kernels and statements as text.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Dialect;
use super::expr::{elem_name, name};
use super::prelude::{Pieces, kernel_piece};
use crate::ir::{Atomic, Body, Const, Expr, Function, Kernel, Local, LocalId, Module, Scalar, Stmt, Target, Var};

/// Writes one body.
pub(super) struct Writer<'a> {
    pub(super) module: &'a Module,
    pub(super) vars: &'a [Scalar],
    pub(super) locals: &'a [Local],
    pub(super) pieces: &'a mut Pieces,
    /// Words that the body reads.
    pub(super) words: BTreeSet<u32>,
    lines: String,
    depth: usize,
}

/// A function.
pub(super) fn function(module: &Module, function: &Function, pieces: &mut Pieces) -> String {
    let mut writer = Writer::new(module, &function.body, &[], pieces);
    writer.block(&function.body.stmts);
    let (lines, _) = writer.end();
    let mut text = format!(
        "FUNCTION {} fn_{}(GLOBAL u8* arena",
        name(function.result),
        function.name
    );
    for (position, scalar) in function.body.vars.iter().take(function.parameters).enumerate() {
        let _ = write!(text, ", {} v{position}", name(*scalar));
    }
    text.push_str(") {\n");
    variables(&mut text, &function.body.vars, function.parameters);
    text + &lines + "}\n"
}

/// A kernel.
pub(super) fn kernel(module: &Module, kernel: &Kernel, pieces: &mut Pieces, dialect: Dialect) -> String {
    pieces.need(kernel_piece(module.group));
    let mut writer = Writer::new(module, &kernel.body, &kernel.locals, pieces);
    writer.block(&kernel.body.stmts);
    let (lines, words) = writer.end();
    let mut text = format!(
        "KERNEL({}) {}(GLOBAL u8* arena, u64 block) {{\n",
        module.group, kernel.name
    );
    for (position, local) in kernel.locals.iter().enumerate() {
        let _ = writeln!(text, "    LOCAL {} l{position}[{}];", elem_name(local.elem), local.len);
    }
    match dialect {
        Dialect::Cuda => pieces.words.extend(words),
        Dialect::OpenCl => {
            for word in words {
                let _ = writeln!(text, "    const u64 w{word} = WORD({word});");
            }
        }
    }
    variables(&mut text, &kernel.body.vars, 0);
    text + &lines + "}\n"
}

/// Declarations, a line per type.
fn variables(text: &mut String, vars: &[Scalar], parameters: usize) {
    let types = [
        Scalar::Bool,
        Scalar::I32,
        Scalar::U32,
        Scalar::I64,
        Scalar::U64,
        Scalar::I128,
        Scalar::F32,
        Scalar::F64,
    ];
    for scalar in types {
        let names: Vec<String> = (parameters..vars.len())
            .filter(|position| vars[*position] == scalar)
            .map(|position| format!("v{position}"))
            .collect();
        for line in names.chunks(20) {
            let _ = writeln!(text, "    {} {};", name(scalar), line.join(", "));
        }
    }
}

impl<'a> Writer<'a> {
    fn new(module: &'a Module, body: &'a Body, locals: &'a [Local], pieces: &'a mut Pieces) -> Self {
        let mut writer = Self {
            module,
            vars: &body.vars,
            locals,
            pieces,
            words: BTreeSet::new(),
            lines: String::new(),
            depth: 1,
        };
        for scalar in body
            .vars
            .iter()
            .copied()
            .chain(locals.iter().map(|local| local.elem.scalar()))
        {
            writer.need_type(scalar);
        }
        writer
    }

    fn end(self) -> (String, BTreeSet<u32>) {
        (self.lines, self.words)
    }

    /// The prelude defines the type.
    pub(super) fn need_type(&mut self, scalar: Scalar) {
        if scalar == Scalar::I128 {
            self.pieces.need("wide");
        }
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.lines, "{:1$}{line}", "", self.depth * 4);
    }

    fn block(&mut self, stmts: &[Stmt]) {
        for stmt in stmts {
            self.stmt(stmt);
        }
    }

    fn inner(&mut self, stmts: &[Stmt]) {
        self.depth += 1;
        self.block(stmts);
        self.depth -= 1;
    }

    fn stmt(&mut self, stmt: &Stmt) {
        let line = match stmt {
            Stmt::Assign(Var(var), value) => format!("v{var} = {};", self.text(value)),
            Stmt::Store(place, value) => {
                let value = self.text(value);
                format!("*{} = {value};", self.at(place))
            }
            Stmt::StoreLocal(LocalId(local), index, value) => {
                format!("l{local}[{}] = {};", self.text(index), self.text(value))
            }
            Stmt::Atomic { old, target, op } => {
                let counts = old.is_some() && is_count(target, op);
                let atomic = self.atomic(target, if counts { None } else { Some(op) });
                match old {
                    Some(Var(var)) => format!("v{var} = {atomic};"),
                    None => format!("{atomic};"),
                }
            }
            Stmt::If {
                condition,
                then,
                otherwise,
            } => {
                let condition = self.text(condition);
                return self.branches(&condition, then, otherwise);
            }
            Stmt::Loop(stmts) => {
                self.line("LOOP {");
                self.inner(stmts);
                "}".to_owned()
            }
            Stmt::Break => "break;".to_owned(),
            Stmt::Continue => "continue;".to_owned(),
            Stmt::Barrier => "BARRIER();".to_owned(),
            Stmt::Fence => "FENCE();".to_owned(),
            Stmt::Return(value) => format!("return {};", self.text(value)),
            Stmt::Comment(remark) => {
                for line in remark.lines() {
                    // A backslash at its end would make the next line a remark too.
                    self.line(&format!("// {}", line.trim_end_matches(['\\', ' '])));
                }
                return;
            }
        };
        self.line(&line);
    }

    fn branches(&mut self, condition: &str, then: &[Stmt], otherwise: &[Stmt]) {
        if let ([only @ (Stmt::Break | Stmt::Continue)], []) = (then, otherwise) {
            let word = if matches!(only, Stmt::Break) {
                "break"
            } else {
                "continue"
            };
            return self.line(&format!("if ({condition}) {word};"));
        }
        self.line(&format!("if ({condition}) {{"));
        self.inner(then);
        let mut rest = otherwise;
        while let [
            Stmt::If {
                condition,
                then,
                otherwise,
            },
        ] = rest
        {
            let condition = self.text(condition);
            self.line(&format!("}} else if ({condition}) {{"));
            self.inner(then);
            rest = otherwise;
        }
        if !rest.is_empty() {
            self.line("} else {");
            self.inner(rest);
        }
        self.line("}");
    }

    /// None: it counts, see [`is_count`].
    fn atomic(&mut self, target: &Target, op: Option<&Atomic>) -> String {
        self.pieces.need(if op.is_some() { "atomics" } else { "count" });
        let place = match target {
            Target::Arena(place) => format!("GLOBAL, {}, {}", elem_name(place.elem), self.at(place)),
            Target::Local(LocalId(local), index) => {
                let elem = self.locals[*local as usize].elem;
                format!("LOCAL, {}, &l{local}[{}]", elem_name(elem), self.text(index))
            }
        };
        let Some(op) = op else {
            return format!("ATOMIC_COUNT({place})");
        };
        match op {
            Atomic::Load => format!("ATOMIC_LOAD({place})"),
            Atomic::Store(value) => format!("ATOMIC_STORE({place}, {})", self.text(value)),
            Atomic::Add(value) => format!("ATOMIC_ADD({place}, {})", self.text(value)),
            Atomic::Min(value) => format!("ATOMIC_MIN({place}, {})", self.text(value)),
            Atomic::Max(value) => format!("ATOMIC_MAX({place}, {})", self.text(value)),
            Atomic::Or(value) => format!("ATOMIC_OR({place}, {})", self.text(value)),
            Atomic::Exchange(value) => format!("ATOMIC_EXCHANGE({place}, {})", self.text(value)),
            Atomic::CompareExchange { expected, value } => {
                format!(
                    "ATOMIC_COMPARE_EXCHANGE({place}, {}, {})",
                    self.text(expected),
                    self.text(value)
                )
            }
        }
    }
}

/// It adds 1 to a place that is the same for all work-items: those that arrive together may share one atomic.
fn is_count(target: &Target, op: &Atomic) -> bool {
    let is_one = matches!(op, Atomic::Add(Expr::Const(Const::U64(1) | Const::U32(1))));
    let is_shared = match target {
        Target::Arena(place) => matches!((&*place.base, &*place.index), (Expr::Word(_), Expr::Const(_))),
        Target::Local(_, index) => matches!(index, Expr::Const(_)),
    };
    is_one && is_shared
}
