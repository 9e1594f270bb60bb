//! Expressions as operations: each result in a register of its own, in the order in which they are written.

use super::compile::{Compiler, GROUP_INDEX, GROUPS, LOCAL_INDEX, Op, Reg};
use crate::ir::{Expr, Place, Scalar, Unary};

impl Compiler<'_> {
    /// The register of a value, and its type.
    pub(super) fn expression(&mut self, expr: &Expr) -> (Reg, Scalar) {
        match expr {
            Expr::Var(var) => self.read(*var),
            Expr::Const(value) => (self.constant(*value), value.scalar()),
            Expr::Word(word) => (self.word(*word), Scalar::U64),
            Expr::Load { place, constant } => {
                let (base, index) = self.place(place);
                let into = self.temporary();
                self.emit(Op::Load {
                    elem: place.elem,
                    constant: *constant,
                    into,
                    base,
                    index,
                });
                (into, place.elem.scalar())
            }
            Expr::LoadLocal(local, index) => {
                let (index, _) = self.expression(index);
                let into = self.temporary();
                self.emit(Op::LoadLocal {
                    into,
                    local: local.0,
                    index,
                });
                (into, self.local_elem(*local).scalar())
            }
            Expr::Call(function, arguments) => self.call(function.0 as usize, arguments),
            Expr::LocalIndex => (LOCAL_INDEX, Scalar::U32),
            Expr::GroupIndex => (GROUP_INDEX, Scalar::U32),
            Expr::Groups => (GROUPS, Scalar::U32),
            _ => self.operator(expr),
        }
    }

    fn operator(&mut self, expr: &Expr) -> (Reg, Scalar) {
        match expr {
            Expr::Unary(op, a) => {
                let (a, scalar) = self.expression(a);
                let into = self.temporary();
                self.emit(Op::Unary {
                    op: *op,
                    scalar,
                    into,
                    a,
                });
                (into, if *op == Unary::High { Scalar::I64 } else { scalar })
            }
            Expr::Binary(op, a, b) => {
                let (a, scalar) = self.expression(a);
                let (b, _) = self.expression(b);
                let into = self.temporary();
                self.emit(Op::Binary {
                    op: *op,
                    scalar,
                    into,
                    a,
                    b,
                });
                (into, scalar)
            }
            Expr::Compare(op, a, b) => {
                let (a, scalar) = self.expression(a);
                let (b, _) = self.expression(b);
                let into = self.temporary();
                self.emit(Op::Compare {
                    op: *op,
                    scalar,
                    into,
                    a,
                    b,
                });
                (into, Scalar::Bool)
            }
            Expr::Select(condition, a, b) => {
                let (condition, _) = self.expression(condition);
                let (a, scalar) = self.expression(a);
                let (b, _) = self.expression(b);
                let into = self.temporary();
                self.emit(Op::Select {
                    scalar,
                    into,
                    condition,
                    a,
                    b,
                });
                (into, scalar)
            }
            Expr::Convert(to, a) => {
                let (a, from) = self.expression(a);
                if from == *to {
                    return (a, from);
                }
                let into = self.temporary();
                self.emit(Op::Convert { from, to: *to, into, a });
                (into, *to)
            }
            // Registers are bits already.
            Expr::Bits(to, a) => (self.expression(a).0, *to),
            // All others are no operators.
            _ => (LOCAL_INDEX, Scalar::U32),
        }
    }

    /// Base and index.
    pub(super) fn place(&mut self, place: &Place) -> (Reg, Reg) {
        let (base, _) = self.expression(&place.base);
        let (index, _) = self.expression(&place.index);
        (base, index)
    }

    fn call(&mut self, function: usize, arguments: &[Expr]) -> (Reg, Scalar) {
        let arguments: Vec<Reg> = arguments.iter().map(|argument| self.expression(argument).0).collect();
        let result = self.temporary();
        self.enter(function, &arguments, result);
        let module = self.module;
        self.block(&module.functions[function].body.stmts, "");
        self.leave();
        (result, module.functions[function].result)
    }
}
