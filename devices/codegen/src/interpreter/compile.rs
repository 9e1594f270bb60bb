//! Structured bodies as flat lists of operations on registers, so that a work-item is a program counter and can stop anywhere.
//!
//! ```text
//!  registers of a work-item:  0 local index │ 1 group index │ 2 groups │ variables │ words, constants, intermediate results
//! ```
//!
//! Calls are written out where they stand. A variable that is not assigned on every way to where it is read gets a mark that
//! is looked at there; all others cost nothing.

use std::collections::{BTreeMap, HashSet};

use super::bits::{Bits, constant};
use super::text;
use super::validate::validate;
use super::violation::{Violation, ViolationKind};
use crate::ir::{Atomic, Binary, Compare, Const, Elem, Kernel, LocalId, Module, Scalar, Stmt, Target, Unary, Var};

pub(crate) type Reg = u32;

/// Where each work-item finds what it is.
pub(crate) const LOCAL_INDEX: Reg = 0;
pub(crate) const GROUP_INDEX: Reg = 1;
pub(crate) const GROUPS: Reg = 2;

/// Operations that a kernel may have: calls are written out, so nested ones multiply.
const OPERATIONS_MAX: usize = 4_000_000;

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Copy {
        scalar: Scalar,
        into: Reg,
        from: Reg,
    },
    Unary {
        op: Unary,
        scalar: Scalar,
        into: Reg,
        a: Reg,
    },
    Binary {
        op: Binary,
        scalar: Scalar,
        into: Reg,
        a: Reg,
        b: Reg,
    },
    Compare {
        op: Compare,
        scalar: Scalar,
        into: Reg,
        a: Reg,
        b: Reg,
    },
    Select {
        scalar: Scalar,
        into: Reg,
        condition: Reg,
        a: Reg,
        b: Reg,
    },
    Convert {
        from: Scalar,
        to: Scalar,
        into: Reg,
        a: Reg,
    },
    Load {
        elem: Elem,
        constant: bool,
        into: Reg,
        base: Reg,
        index: Reg,
    },
    LoadLocal {
        into: Reg,
        local: u32,
        index: Reg,
    },
    Store {
        elem: Elem,
        base: Reg,
        index: Reg,
        value: Reg,
    },
    StoreLocal {
        local: u32,
        index: Reg,
        value: Reg,
    },
    Atomic(Box<AtomicOp>),
    Jump(usize),
    JumpUnless {
        condition: Reg,
        target: usize,
    },
    Barrier,
    Fence,
    /// The register has no value from here on.
    Forget(Reg),
    /// It has one.
    Mark(Reg),
    /// It must have one.
    Check {
        reg: Reg,
        name: u32,
    },
    End,
}

#[derive(Debug, Clone)]
pub(crate) struct AtomicOp {
    pub(crate) elem: Elem,
    pub(crate) old: Option<Reg>,
    pub(crate) place: AtomicPlace,
    pub(crate) change: Change,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum AtomicPlace {
    Arena { base: Reg, index: Reg },
    Local { local: u32, index: Reg },
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Load,
    Store(Reg),
    /// The new value is the old one and this one under an operator.
    Modify(Binary, Reg),
    Exchange(Reg),
    CompareExchange {
        expected: Reg,
        value: Reg,
    },
}

/// A local array in the bytes of its group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalPlace {
    pub(crate) elem: Elem,
    pub(crate) len: u32,
    pub(crate) at: u64,
}

/// A kernel as operations.
#[derive(Debug, Clone)]
pub(crate) struct KernelCode {
    pub(crate) name: String,
    pub(crate) ops: Vec<Op>,
    /// Which of `statements` each operation belongs to.
    pub(crate) origins: Vec<u32>,
    pub(crate) statements: Vec<String>,
    /// Registers at the start; constants are in place.
    pub(crate) registers: Vec<Bits>,
    /// Words of the block, and the registers they are put into.
    pub(crate) words: BTreeMap<u32, Reg>,
    /// Constants, and the registers they are in.
    pub(crate) constants: Vec<(Const, Reg)>,
    pub(crate) locals: Vec<LocalPlace>,
    pub(crate) local_bytes: u64,
}

/// A module that is ready to run.
#[derive(Debug, Clone)]
pub struct Code {
    pub(crate) group: u32,
    pub(crate) kernels: Vec<KernelCode>,
}

impl Code {
    /// Validates and translates a module.
    ///
    /// # Errors
    /// [`ViolationKind::Invalid`], with what is wrong.
    pub fn new(module: &Module) -> Result<Self, Violation> {
        validate(module)?;
        let kernels = module.kernels.iter().map(|kernel| compile(module, kernel));
        Ok(Self {
            group: module.group,
            kernels: kernels.collect::<Result<_, _>>()?,
        })
    }

    /// The kernels' names, in order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|kernel| kernel.name.as_str())
    }
}

/// Variables that need marks: function (0 is the kernel) and position.
pub(super) type Doubtful = HashSet<(usize, u32)>;

fn compile(module: &Module, kernel: &Kernel) -> Result<KernelCode, Violation> {
    let mut doubtful = Doubtful::new();
    loop {
        let mut compiler = Compiler::new(module, kernel, doubtful.clone());
        compiler.block(&kernel.body.stmts, "");
        compiler.emit(Op::End);
        if compiler.ops.len() > OPERATIONS_MAX {
            return Err(Violation {
                kind: ViolationKind::Invalid,
                kernel: kernel.name.clone(),
                statement: String::new(),
                item: None,
                address: None,
                what: format!("more than {OPERATIONS_MAX} operations with all calls written out"),
            });
        }
        // Marks are only written where a first translation found them wanting.
        if compiler.found == doubtful {
            return Ok(compiler.finish());
        }
        doubtful = compiler.found;
    }
}

/// The body that is being translated: the kernel's, or one of a call.
pub(super) struct Frame {
    /// Position of the function and one; 0 for the kernel.
    pub(super) function: usize,
    pub(super) registers: Vec<Reg>,
    pub(super) types: Vec<Scalar>,
    /// Variables that have a value for certain; none where nothing gets to.
    pub(super) assigned: Option<Vec<bool>>,
    /// Result, and jumps behind the call.
    pub(super) returns: Option<(Reg, Vec<usize>)>,
    loops: Vec<LoopFrame>,
}

struct LoopFrame {
    start: usize,
    breaks: Vec<usize>,
    /// What is assigned at all breaks.
    assigned: Option<Vec<bool>>,
}

pub(super) struct Compiler<'m> {
    pub(super) module: &'m Module,
    kernel: &'m Kernel,
    pub(super) ops: Vec<Op>,
    origins: Vec<u32>,
    statements: Vec<String>,
    registers: Vec<Bits>,
    pub(super) words: BTreeMap<u32, Reg>,
    /// By type and bits.
    constants: BTreeMap<(u8, Bits), (Const, Reg)>,
    free: Vec<Reg>,
    taken: Vec<Reg>,
    pub(super) frames: Vec<Frame>,
    doubtful: Doubtful,
    found: Doubtful,
}

impl<'m> Compiler<'m> {
    fn new(module: &'m Module, kernel: &'m Kernel, doubtful: Doubtful) -> Self {
        let mut compiler = Self {
            module,
            kernel,
            ops: Vec::new(),
            origins: Vec::new(),
            statements: vec!["the end".to_owned()],
            registers: vec![0; 3],
            words: BTreeMap::new(),
            constants: BTreeMap::new(),
            free: Vec::new(),
            taken: Vec::new(),
            frames: Vec::new(),
            found: doubtful.clone(),
            doubtful,
        };
        let types = kernel.body.vars.clone();
        let registers = types.iter().map(|_| compiler.register(0)).collect();
        compiler.frames.push(Frame {
            function: 0,
            registers,
            assigned: Some(vec![false; types.len()]),
            types,
            returns: None,
            loops: Vec::new(),
        });
        compiler
    }

    fn finish(self) -> KernelCode {
        let mut at = 0;
        let locals = self.kernel.locals.iter().map(|local| {
            let place = LocalPlace {
                elem: local.elem,
                len: local.len,
                at,
            };
            at += (u64::from(local.elem.bytes()) * u64::from(local.len)).next_multiple_of(16);
            place
        });
        KernelCode {
            name: self.kernel.name.clone(),
            locals: locals.collect(),
            local_bytes: at,
            ops: self.ops,
            origins: self.origins,
            statements: self.statements,
            registers: self.registers,
            words: self.words,
            constants: self.constants.into_values().collect(),
        }
    }

    pub(super) fn emit(&mut self, op: Op) {
        self.ops.push(op);
        self.origins.push(u32::try_from(self.statements.len() - 1).unwrap_or(0));
    }

    fn register(&mut self, value: Bits) -> Reg {
        self.registers.push(value);
        Reg::try_from(self.registers.len() - 1).unwrap_or(Reg::MAX)
    }

    /// A register for the rest of the statement.
    pub(super) fn temporary(&mut self) -> Reg {
        let reg = self.free.pop().unwrap_or_else(|| self.register(0));
        self.taken.push(reg);
        reg
    }

    pub(super) fn constant(&mut self, value: Const) -> Reg {
        let bits = constant(value);
        let key = (value.scalar() as u8, bits);
        if let Some((_, reg)) = self.constants.get(&key) {
            return *reg;
        }
        let reg = self.register(bits);
        self.constants.insert(key, (value, reg));
        reg
    }

    pub(super) fn word(&mut self, word: u32) -> Reg {
        if let Some(reg) = self.words.get(&word) {
            return *reg;
        }
        let reg = self.register(0);
        self.words.insert(word, reg);
        reg
    }

    pub(super) fn frame(&mut self) -> &mut Frame {
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    /// A variable that is read.
    pub(super) fn read(&mut self, var: Var) -> (Reg, Scalar) {
        let frame = self.frame();
        let position = var.0 as usize;
        let (reg, scalar, function) = (frame.registers[position], frame.types[position], frame.function);
        if frame.assigned.as_ref().is_some_and(|assigned| !assigned[position]) {
            self.found.insert((function, var.0));
            self.emit(Op::Check { reg, name: var.0 });
        }
        (reg, scalar)
    }

    /// The register of a variable that is about to be assigned.
    fn target(&mut self, var: Var) -> Reg {
        self.frame().registers[var.0 as usize]
    }

    fn assigned(&mut self, var: Var) {
        let frame = self.frame();
        let (reg, function) = (frame.registers[var.0 as usize], frame.function);
        if let Some(assigned) = &mut frame.assigned {
            assigned[var.0 as usize] = true;
        }
        if self.doubtful.contains(&(function, var.0)) {
            self.emit(Op::Mark(reg));
        }
    }

    /// A call begins: its variables have no values yet.
    pub(super) fn enter(&mut self, function: usize, arguments: &[Reg], result: Reg) {
        let body = &self.module.functions[function].body;
        let types = body.vars.clone();
        let registers: Vec<Reg> = types.iter().map(|_| self.temporary()).collect();
        for ((into, from), scalar) in registers.iter().zip(arguments).zip(&types) {
            self.emit(Op::Copy {
                scalar: *scalar,
                into: *into,
                from: *from,
            });
        }
        for (position, reg) in (0_u32..).zip(&registers).skip(arguments.len()) {
            if self.doubtful.contains(&(function + 1, position)) {
                self.emit(Op::Forget(*reg));
            }
        }
        self.frames.push(Frame {
            function: function + 1,
            registers,
            assigned: Some((0..types.len()).map(|var| var < arguments.len()).collect()),
            types,
            returns: Some((result, Vec::new())),
            loops: Vec::new(),
        });
    }

    /// A call ends.
    pub(super) fn leave(&mut self) {
        if let Some(frame) = self.frames.pop()
            && let Some((_, jumps)) = frame.returns
        {
            self.land(&jumps);
        }
    }

    fn land(&mut self, jumps: &[usize]) {
        let here = self.ops.len();
        for jump in jumps {
            match &mut self.ops[*jump] {
                Op::Jump(target) | Op::JumpUnless { target, .. } => *target = here,
                _ => {}
            }
        }
    }

    fn jump(&mut self) -> usize {
        self.emit(Op::Jump(0));
        self.ops.len() - 1
    }

    pub(super) fn block(&mut self, stmts: &[Stmt], path: &str) {
        for (position, stmt) in stmts.iter().enumerate() {
            if self.ops.len() > OPERATIONS_MAX {
                return;
            }
            let taken = self.taken.len();
            let path = format!("{path}{position}");
            if self.frames.len() == 1 {
                self.statements
                    .push(format!("{path}: {}", text::statement(stmt, self.module)));
            }
            self.statement(stmt, &path);
            self.free.extend(self.taken.drain(taken..));
        }
    }

    fn statement(&mut self, stmt: &Stmt, path: &str) {
        match stmt {
            Stmt::Assign(var, value) => {
                let (from, scalar) = self.expression(value);
                let into = self.target(*var);
                self.emit(Op::Copy { scalar, into, from });
                self.assigned(*var);
            }
            Stmt::Store(place, value) => {
                let (base, index) = self.place(place);
                let (value, _) = self.expression(value);
                self.emit(Op::Store {
                    elem: place.elem,
                    base,
                    index,
                    value,
                });
            }
            Stmt::StoreLocal(local, index, value) => {
                let (index, _) = self.expression(index);
                let (value, _) = self.expression(value);
                self.emit(Op::StoreLocal {
                    local: local.0,
                    index,
                    value,
                });
            }
            Stmt::Atomic { old, target, op } => self.atomic(*old, target, op),
            Stmt::If {
                condition,
                then,
                otherwise,
            } => {
                let (condition, _) = self.expression(condition);
                self.branch(condition, then, otherwise, path);
            }
            Stmt::Loop(stmts) => self.repeat(stmts, path),
            Stmt::Break => self.leave_loop(),
            Stmt::Continue => {
                let start = self.frame().loops.last().map_or(0, |inner| inner.start);
                self.emit(Op::Jump(start));
                self.frame().assigned = None;
            }
            Stmt::Barrier => self.emit(Op::Barrier),
            Stmt::Fence => self.emit(Op::Fence),
            Stmt::Return(value) => {
                let (from, scalar) = self.expression(value);
                if let Some((into, _)) = self.frame().returns {
                    self.emit(Op::Copy { scalar, into, from });
                    let jump = self.jump();
                    if let Some((_, jumps)) = &mut self.frame().returns {
                        jumps.push(jump);
                    }
                }
                self.frame().assigned = None;
            }
            Stmt::Comment(_) => {}
        }
    }

    fn branch(&mut self, condition: Reg, then: &[Stmt], otherwise: &[Stmt], path: &str) {
        self.emit(Op::JumpUnless { condition, target: 0 });
        let skip = self.ops.len() - 1;
        let before = self.frame().assigned.clone();
        self.block(then, &format!("{path}.then."));
        let after_then = std::mem::replace(&mut self.frame().assigned, before);
        if otherwise.is_empty() {
            self.land(&[skip]);
        } else {
            let end = self.jump();
            self.land(&[skip]);
            self.block(otherwise, &format!("{path}.else."));
            self.land(&[end]);
        }
        let frame = self.frame();
        frame.assigned = both(frame.assigned.take(), after_then);
    }

    fn repeat(&mut self, stmts: &[Stmt], path: &str) {
        let start = self.ops.len();
        self.frame().loops.push(LoopFrame {
            start,
            breaks: Vec::new(),
            assigned: None,
        });
        self.block(stmts, &format!("{path}.loop."));
        self.emit(Op::Jump(start));
        if let Some(inner) = self.frame().loops.pop() {
            self.land(&inner.breaks);
            self.frame().assigned = inner.assigned;
        }
    }

    fn leave_loop(&mut self) {
        let jump = self.jump();
        let frame = self.frame();
        let here = frame.assigned.take();
        if let Some(inner) = frame.loops.last_mut() {
            inner.breaks.push(jump);
            inner.assigned = both(inner.assigned.take(), here);
        }
    }

    fn atomic(&mut self, old: Option<Var>, target: &Target, op: &Atomic) {
        let (elem, place) = match target {
            Target::Arena(place) => {
                let (base, index) = self.place(place);
                (place.elem, AtomicPlace::Arena { base, index })
            }
            Target::Local(LocalId(local), index) => {
                let (index, _) = self.expression(index);
                (
                    self.kernel.locals[*local as usize].elem,
                    AtomicPlace::Local { local: *local, index },
                )
            }
        };
        let mut value = |expr| self.expression(expr).0;
        let change = match op {
            Atomic::Load => Change::Load,
            Atomic::Store(expr) => Change::Store(value(expr)),
            Atomic::Add(expr) => Change::Modify(Binary::Add, value(expr)),
            Atomic::Min(expr) => Change::Modify(Binary::Min, value(expr)),
            Atomic::Max(expr) => Change::Modify(Binary::Max, value(expr)),
            Atomic::Or(expr) => Change::Modify(Binary::Or, value(expr)),
            Atomic::Exchange(expr) => Change::Exchange(value(expr)),
            Atomic::CompareExchange { expected, value: new } => Change::CompareExchange {
                expected: value(expected),
                value: value(new),
            },
        };
        let into = old.map(|var| self.target(var));
        self.emit(Op::Atomic(Box::new(AtomicOp {
            elem,
            old: into,
            place,
            change,
        })));
        if let Some(var) = old {
            self.assigned(var);
        }
    }

    pub(super) fn local_elem(&self, local: LocalId) -> Elem {
        self.kernel.locals[local.0 as usize].elem
    }
}

/// What is assigned on both ways.
fn both(a: Option<Vec<bool>>, b: Option<Vec<bool>>) -> Option<Vec<bool>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.iter().zip(&b).map(|(a, b)| *a && *b).collect()),
        (way, None) | (None, way) => way,
    }
}
