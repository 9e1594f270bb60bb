//! Whether barriers stand where all work-items of a group get to, whatever the data.
//!
//! A run finds divergence only where its data makes work-items part. This looks at the text: what depends on the work-item
//! (its number, what atomics gave it, what it read at a place of its own, what it assigned where others were elsewhere) is
//! divergent, and so is all that stands under such a condition, or in a loop that is left under one. Values that are read at
//! one place by all are the same for all: that nobody stores there meanwhile is for a run to check.

use crate::ir::{Expr, Function, Kernel, Module, Stmt};

/// The first barrier that some work-items of a group may not reach: its position in the body.
pub(super) fn divergent_barrier(module: &Module, kernel: &Kernel) -> Option<String> {
    let mut own = Vec::new();
    for function in &module.functions {
        let is_own = uses_own(function, &own);
        own.push(is_own);
    }
    let mut flow = Flow {
        functions: &own,
        divergent: vec![false; kernel.body.vars.len()],
        changed: true,
        barrier: None,
    };
    while flow.changed {
        flow.changed = false;
        flow.barrier = None;
        flow.block(&kernel.body.stmts, false, "");
    }
    flow.barrier
}

/// Whether a function's result depends on more than its arguments and memory.
fn uses_own(function: &Function, earlier: &[bool]) -> bool {
    let mut found = false;
    each_expression(&function.body.stmts, &mut |expr| {
        found |= match expr {
            Expr::LocalIndex => true,
            Expr::Call(called, _) => earlier.get(called.0 as usize).copied().unwrap_or(true),
            _ => false,
        };
    });
    found
}

/// Expressions of statements of a function, with those inside them.
fn each_expression(stmts: &[Stmt], see: &mut dyn FnMut(&Expr)) {
    for stmt in stmts {
        match stmt {
            Stmt::Assign(_, value) | Stmt::Return(value) => each_inside(value, see),
            Stmt::If {
                condition,
                then,
                otherwise,
            } => {
                each_inside(condition, see);
                each_expression(then, see);
                each_expression(otherwise, see);
            }
            Stmt::Loop(stmts) => each_expression(stmts, see),
            _ => {}
        }
    }
}

fn each_inside(expr: &Expr, see: &mut dyn FnMut(&Expr)) {
    see(expr);
    operands(expr, &mut |operand| each_inside(operand, see));
}

fn operands(expr: &Expr, see: &mut dyn FnMut(&Expr)) {
    match expr {
        Expr::Load { place, .. } => {
            see(&place.base);
            see(&place.index);
        }
        Expr::LoadLocal(_, a) | Expr::Unary(_, a) | Expr::Convert(_, a) | Expr::Bits(_, a) => see(a),
        Expr::Binary(_, a, b) | Expr::Compare(_, a, b) => {
            see(a);
            see(b);
        }
        Expr::Select(condition, a, b) => {
            see(condition);
            see(a);
            see(b);
        }
        Expr::Call(_, arguments) => arguments.iter().for_each(see),
        Expr::Var(_) | Expr::Const(_) | Expr::Word(_) | Expr::LocalIndex | Expr::GroupIndex | Expr::Groups => {}
    }
}

struct Flow<'m> {
    /// Functions that depend on the work-item.
    functions: &'m [bool],
    /// By variable.
    divergent: Vec<bool>,
    changed: bool,
    barrier: Option<String>,
}

impl Flow<'_> {
    fn is_divergent(&self, expr: &Expr) -> bool {
        let mut found = false;
        each_inside(expr, &mut |expr| {
            found |= match expr {
                Expr::LocalIndex => true,
                Expr::Var(var) => self.divergent[var.0 as usize],
                Expr::Call(called, _) => self.functions[called.0 as usize],
                _ => false,
            };
        });
        found
    }

    fn assigned(&mut self, var: usize, divergent: bool) {
        if divergent && !self.divergent[var] {
            self.divergent[var] = true;
            self.changed = true;
        }
    }

    /// `apart`: not all work-items are here.
    fn block(&mut self, stmts: &[Stmt], apart: bool, path: &str) {
        for (position, stmt) in stmts.iter().enumerate() {
            match stmt {
                Stmt::Assign(var, value) => {
                    let divergent = apart || self.is_divergent(value);
                    self.assigned(var.0 as usize, divergent);
                }
                Stmt::Atomic { old: Some(old), .. } => self.assigned(old.0 as usize, true),
                Stmt::If {
                    condition,
                    then,
                    otherwise,
                } => {
                    let apart = apart || self.is_divergent(condition);
                    self.block(then, apart, &format!("{path}{position}.then."));
                    self.block(otherwise, apart, &format!("{path}{position}.else."));
                }
                Stmt::Loop(stmts) => {
                    let apart = apart || self.parts(stmts, false);
                    self.block(stmts, apart, &format!("{path}{position}.loop."));
                }
                Stmt::Barrier if apart => {
                    self.barrier.get_or_insert_with(|| format!("{path}{position}: barrier"));
                }
                _ => {}
            }
        }
    }

    /// Whether work-items of a loop part: a break or continue of it stands under a divergent condition.
    fn parts(&self, stmts: &[Stmt], apart: bool) -> bool {
        stmts.iter().any(|stmt| match stmt {
            Stmt::Break | Stmt::Continue => apart,
            Stmt::If {
                condition,
                then,
                otherwise,
            } => {
                let apart = apart || self.is_divergent(condition);
                self.parts(then, apart) || self.parts(otherwise, apart)
            }
            _ => false,
        })
    }
}
