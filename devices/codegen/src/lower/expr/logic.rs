//! Three-valued logic: AND, OR, NOT, IS NULL. The right side is computed where the left one doesn't decide, if it may fail or
//! costs more than a branch.

use trireme_device_api::{BinaryOperator, Expr, Node};

use super::register::{boolean, is_null, null_of};
use crate::build;
use crate::ir::{Expr as Ir, Scalar, Stmt};
use crate::lower::{Kind, Lowered, Lowering, Row, Unsupported, Value};

/// What statements may cost that are executed for rows that don't need them.
pub(super) const EAGER_COST: u32 = 48;

/// Statements that wait for a decision where they go, and the row as it is after them.
pub(super) struct Apart {
    pub(super) stmts: Vec<Stmt>,
    pub(super) row: Row,
    /// They raise errors.
    pub(super) fails: bool,
    /// They raise errors, or cost too much to be executed for all rows.
    pub(super) selective: bool,
    pub(super) cost: u32,
}

/// A boolean, as whether it is true and whether it is false: never both.
struct Truth {
    is_true: Ir,
    is_false: Ir,
}

impl Lowering<'_> {
    /// Lowers something apart from the statements so far.
    pub(super) fn apart<T>(
        &mut self,
        row: &Row,
        lower: impl FnOnce(&mut Self, &mut Row) -> Lowered<T>,
    ) -> Lowered<(T, Apart)> {
        let mut row = row.clone();
        let faults = self.parts.expressions.faults;
        self.b.begin();
        let result = lower(self, &mut row);
        let stmts = self.b.end();
        let (fails, cost) = (self.parts.expressions.faults > faults, cost(&stmts));
        let apart = Apart {
            stmts,
            row,
            fails,
            selective: fails || cost > EAGER_COST,
            cost,
        };
        Ok((result?, apart))
    }

    /// Appends statements.
    pub(super) fn append(&mut self, stmts: Vec<Stmt>) {
        for stmt in stmts {
            self.b.push(stmt);
        }
    }

    /// AND, OR.
    pub(super) fn junction(&mut self, row: &mut Row, op: BinaryOperator, left: &Expr, right: &Expr) -> Lowered<Value> {
        let and = op == BinaryOperator::And;
        let l = self.expr(row, left)?;
        let lt = self.truth_of(&l)?;
        if let Some(decided) = decided(&l, and) {
            return Ok(decided);
        }
        let (r, apart) = self.apart(row, |l, row| l.expr(row, right))?;
        if !apart.selective {
            self.append(apart.stmts);
            *row = apart.row;
            let rt = self.truth_of(&r)?;
            let (is_true, is_false) = if and {
                (lt.is_true.and(rt.is_true), lt.is_false.or(rt.is_false))
            } else {
                (lt.is_true.or(rt.is_true), lt.is_false.and(rt.is_false))
            };
            let value = self.flag(is_true);
            let null = (l.null.is_some() || r.null.is_some()).then(|| self.flag(value.clone().or(is_false).not()));
            return Ok(boolean(value, null));
        }
        let nullable = l.null.is_some() || r.null.is_some();
        let value = self.b.set(Scalar::Bool, build::bool(!and));
        let null = nullable.then(|| self.b.set(Scalar::Bool, build::bool(false)));
        self.b.begin();
        self.append(apart.stmts);
        let rt = self.truth_of(&r)?;
        // The left side is true (of OR: false) or NULL here.
        let (is_true, is_false) = if and {
            (lt.is_true.and(rt.is_true), rt.is_false)
        } else {
            (rt.is_true, lt.is_false.and(rt.is_false))
        };
        self.b.assign(value, is_true);
        if let Some(null) = null {
            self.b.assign(null, Ir::from(value).or(is_false).not());
        }
        let then = self.b.end();
        let decides = if and {
            self.truth_of(&l)?.is_false
        } else {
            self.truth_of(&l)?.is_true
        };
        self.b.push(Stmt::If {
            condition: decides.not(),
            then,
            otherwise: Vec::new(),
        });
        Ok(boolean(value.into(), null.map(Ir::from)))
    }

    /// Whether a predicate is true.
    pub(super) fn truth(&mut self, row: &mut Row, expr: &Expr) -> Lowered<Ir> {
        if let Node::Binary {
            op: BinaryOperator::And,
            left,
            right,
        } = &expr.node
            && expr.columns().len() > 1
        {
            return self.conjunction(row, expr, left, right);
        }
        let value = self.expr(row, expr)?;
        let truth = self.truth_of(&value)?;
        Ok(self.flag(truth.is_true))
    }

    fn conjunction(&mut self, row: &mut Row, expr: &Expr, left: &Expr, right: &Expr) -> Lowered<Ir> {
        let faults = self.parts.expressions.faults;
        let (l, first) = self.apart(row, |l, row| l.truth(row, left))?;
        let (r, second) = self.apart(&first.row, |l, row| l.truth(row, right))?;
        if self.parts.expressions.faults > faults {
            // What may fail must see rows for which the left side is NULL: truth alone doesn't tell them from false ones.
            self.parts.expressions.faults = faults;
            let value = self.expr(row, expr)?;
            let truth = self.truth_of(&value)?;
            return Ok(self.flag(truth.is_true));
        }
        self.append(first.stmts);
        *row = first.row;
        if !second.selective {
            self.append(second.stmts);
            *row = second.row;
            return Ok(self.flag(l.and(r)));
        }
        let value = self.b.set(Scalar::Bool, build::bool(false));
        self.b.begin();
        self.append(second.stmts);
        self.b.assign(value, r);
        let then = self.b.end();
        self.b.push(Stmt::If {
            condition: l,
            then,
            otherwise: Vec::new(),
        });
        Ok(value.into())
    }

    fn truth_of(&mut self, value: &Value) -> Lowered<Truth> {
        let no = || build::bool(false);
        Ok(match (&value.shape.kind, &value.null) {
            (Kind::Null, _) => Truth {
                is_true: no(),
                is_false: no(),
            },
            (Kind::Boolean, None) => Truth {
                is_true: value.ir.clone(),
                is_false: value.ir.clone().not(),
            },
            (Kind::Boolean, Some(null)) => {
                let valid = null.clone().not();
                Truth {
                    is_true: value.ir.clone().and(valid.clone()),
                    is_false: value.ir.clone().not().and(valid),
                }
            }
            _ => return Err(Unsupported(format!("{:?} as a condition", value.shape.data_type))),
        })
    }

    /// NOT.
    pub(super) fn not(&mut self, operand: &Value) -> Lowered<Value> {
        match &operand.shape.kind {
            Kind::Null => Ok(null_of(&operand.shape.data_type)),
            Kind::Boolean => {
                let ir = self.flag(operand.ir.clone().not());
                Ok(boolean(ir, operand.null.clone()))
            }
            _ => Err(Unsupported(format!("NOT of {:?}", operand.shape.data_type))),
        }
    }

    /// IS NULL, or with `negated` IS NOT NULL.
    pub(super) fn is_null(&mut self, operand: &Value, negated: bool) -> Value {
        let ir = match &operand.null {
            _ if is_null(operand) => build::bool(!negated),
            None => build::bool(negated),
            Some(null) if negated => self.flag(null.clone().not()),
            // Kernels of passes know columns to be NULL: what is known of the result must be the same in all kernels.
            Some(null @ Ir::Const(_)) => self.b.set(Scalar::Bool, null.clone()).into(),
            Some(null) => null.clone(),
        };
        boolean(ir, None)
    }
}

/// A left side that decides in every row.
fn decided(left: &Value, and: bool) -> Option<Value> {
    let decides = matches!(left.shape.kind, Kind::Boolean) && left.ir == build::bool(!and) && left.null.is_none();
    decides.then(|| left.clone())
}

/// About how many instructions.
fn cost(stmts: &[Stmt]) -> u32 {
    let one = |stmt: &Stmt| match stmt {
        Stmt::Assign(_, value) => weight(value),
        Stmt::If {
            condition,
            then,
            otherwise,
        } => weight(condition) + 2 + cost(then) + cost(otherwise),
        Stmt::Comment(_) => 0,
        _ => EAGER_COST,
    };
    stmts.iter().fold(0, |sum, stmt| sum.saturating_add(one(stmt)))
}

fn weight(expr: &Ir) -> u32 {
    match expr {
        Ir::Var(_) | Ir::Const(_) | Ir::Word(_) | Ir::LocalIndex | Ir::GroupIndex | Ir::Groups => 0,
        Ir::Load { place, .. } => 2 + weight(&place.base) + weight(&place.index),
        Ir::LoadLocal(_, index) => 2 + weight(index),
        Ir::Unary(_, a) | Ir::Convert(_, a) | Ir::Bits(_, a) => 1 + weight(a),
        Ir::Binary(crate::ir::Binary::Divide | crate::ir::Binary::Remainder, a, b) => 8 + weight(a) + weight(b),
        Ir::Binary(_, a, b) | Ir::Compare(_, a, b) => 1 + weight(a) + weight(b),
        Ir::Select(a, b, c) => 1 + weight(a) + weight(b) + weight(c),
        Ir::Call(..) => EAGER_COST,
    }
}
