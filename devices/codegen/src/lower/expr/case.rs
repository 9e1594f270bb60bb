//! CASE. Where nothing can fail and all is cheap, all branches are computed and one is selected; else each stands where only the
//! rows come that reach it.

use std::sync::Arc;

use trireme_device_api::{Dictionary, Expr, Type};

use super::logic::{Apart, EAGER_COST};
use super::range::{Range, union};
use super::register::{Number, boolean, constant, integral, is_null, null_of, number, other};
use super::strings::United;
use crate::build;
use crate::ir::{Const, Expr as Ir, Scalar, Stmt, Var};
use crate::lower::{Kind, Lowered, Lowering, Row, Shape, Unsupported, Value};

/// What holds the results of all branches.
enum Target {
    Integer(Range),
    Boolean,
    Float(Kind, Scalar),
    /// Codes of this dictionary; by branch the codes in it, where they differ.
    Codes(Arc<Dictionary>, Option<Vec<super::table::Table>>),
    Text,
}

impl Target {
    fn scalar(&self) -> Scalar {
        match self {
            Target::Integer(range) => Shape::lane(*range),
            Target::Boolean => Scalar::Bool,
            Target::Float(_, scalar) => *scalar,
            Target::Codes(..) => Scalar::U32,
            Target::Text => Scalar::U64,
        }
    }

    fn value(&self, data_type: &Type, ir: Ir, null: Option<Ir>) -> Value {
        match self {
            Target::Integer(range) => integral(data_type, Number { ir, range: *range }, null),
            Target::Boolean => boolean(ir, null),
            Target::Float(kind, _) => other(data_type, kind.clone(), ir, null),
            Target::Codes(dictionary, _) => other(data_type, Kind::Code(Arc::clone(dictionary)), ir, null),
            Target::Text => other(data_type, Kind::Text, ir, null),
        }
    }
}

/// A condition and its value, or only the value of ELSE.
struct Branch {
    condition: Option<(Ir, Apart)>,
    value: Value,
    apart: Apart,
}

impl Lowering<'_> {
    pub(super) fn case(
        &mut self,
        row: &mut Row,
        conditions: &[(Expr, Expr)],
        otherwise: Option<&Expr>,
        data_type: &Type,
    ) -> Lowered<Value> {
        let branches = self.branches(row, conditions, otherwise, data_type)?;
        let values: Vec<Value> = branches.iter().map(|branch| branch.value.clone()).collect();
        let Some(target) = self.target_of(&values)? else {
            let mut stmts = Vec::new();
            for branch in branches.into_iter().rev() {
                stmts = nested(branch, Vec::new(), stmts);
            }
            self.append(stmts);
            return Ok(null_of(data_type));
        };
        let nullable = values.iter().any(|value| value.null.is_some());
        if is_cheap(&branches) {
            return self.selected(row, branches, &target, data_type, nullable);
        }
        let value = self.b.var(target.scalar());
        let null = nullable.then(|| self.b.var(Scalar::Bool));
        let mut stmts = Vec::new();
        for (at, branch) in branches.into_iter().enumerate().rev() {
            let assign = self.assigned(&branch.value, &target, at, value, null)?;
            stmts = nested(branch, assign, stmts);
        }
        self.append(stmts);
        Ok(target.value(data_type, value.into(), null.map(Ir::from)))
    }

    fn branches(
        &mut self,
        row: &Row,
        conditions: &[(Expr, Expr)],
        otherwise: Option<&Expr>,
        data_type: &Type,
    ) -> Lowered<Vec<Branch>> {
        let mut row = row.clone();
        let mut branches = Vec::new();
        for (condition, value) in conditions {
            let (truth, before) = self.apart(&row, |l, row| l.truth(row, condition))?;
            let always = !before.fails && matches!(truth, Ir::Const(_));
            if always && truth == build::bool(false) {
                continue;
            }
            // What a condition loaded that isn't computed isn't there.
            if !always {
                row = before.row.clone();
            }
            let (value, apart) = self.apart(&row, |l, row| l.expr(row, value))?;
            branches.push(Branch {
                condition: (!always).then_some((truth, before)),
                value,
                apart,
            });
            if always {
                return Ok(branches);
            }
        }
        let (value, apart) = self.apart(&row, |l, row| match otherwise {
            Some(otherwise) => l.expr(row, otherwise),
            None => Ok(null_of(data_type)),
        })?;
        branches.push(Branch {
            condition: None,
            value,
            apart,
        });
        Ok(branches)
    }

    /// All branches, and the choice among them.
    fn selected(
        &mut self,
        row: &mut Row,
        branches: Vec<Branch>,
        target: &Target,
        data_type: &Type,
        nullable: bool,
    ) -> Lowered<Value> {
        let mut parts = Vec::new();
        for (at, branch) in branches.into_iter().enumerate() {
            let truth = branch.condition.map(|(truth, before)| {
                self.append(before.stmts);
                *row = before.row;
                truth
            });
            self.append(branch.apart.stmts);
            parts.push((truth, self.fitted(&branch.value, target, at)?, branch.value.null));
        }
        let mut result: Option<(Ir, Ir)> = None;
        for (truth, value, null) in parts.into_iter().rev() {
            let null = null.unwrap_or(build::bool(false));
            result = Some(match (truth, result) {
                (Some(truth), Some((values, nulls))) => {
                    let values = self.keep(target.scalar(), truth.clone().select(value, values));
                    let nulls = if nullable && null != nulls {
                        self.flag(truth.select(null, nulls))
                    } else {
                        nulls
                    };
                    (values, nulls)
                }
                _ => (value, null),
            });
        }
        let (value, null) = result.ok_or_else(|| Unsupported("CASE without branches".to_owned()))?;
        Ok(target.value(data_type, value, nullable.then_some(null)))
    }

    /// Statements that assign a branch's value, after those that compute it.
    fn assigned(
        &mut self,
        value: &Value,
        target: &Target,
        branch: usize,
        into: Var,
        null: Option<Var>,
    ) -> Lowered<Vec<Stmt>> {
        self.b.begin();
        let fitted = self.fitted(value, target, branch);
        if let Ok(fitted) = &fitted {
            self.b.assign(into, fitted.clone());
        }
        if let Some(null) = null {
            self.b.assign(null, value.null.clone().unwrap_or(build::bool(false)));
        }
        let stmts = self.b.end();
        fitted.map(|_| stmts)
    }

    /// What holds all values; none when all are NULL.
    fn target_of(&mut self, values: &[Value]) -> Lowered<Option<Target>> {
        let real: Vec<&Value> = values.iter().filter(|value| !is_null(value)).collect();
        let Some(first) = real.first() else {
            return Ok(None);
        };
        Ok(Some(match &first.shape.kind {
            Kind::Integer(_) => {
                let mut range = number(first)?.range;
                for value in &real {
                    range = union(range, number(value)?.range);
                }
                Target::Integer(range)
            }
            Kind::Boolean => Target::Boolean,
            Kind::Float32 => Target::Float(Kind::Float32, Scalar::F32),
            Kind::Float64 => Target::Float(Kind::Float64, Scalar::F64),
            Kind::Code(_) | Kind::Text => self.strings_target(values),
            Kind::Null => return Ok(None),
        }))
    }

    fn strings_target(&mut self, values: &[Value]) -> Target {
        let mut dictionaries: Vec<Arc<Dictionary>> = Vec::new();
        for value in values {
            match &value.shape.kind {
                Kind::Code(dictionary) => dictionaries.push(Arc::clone(dictionary)),
                Kind::Null => {}
                _ => return Target::Text,
            }
        }
        if dictionaries.windows(2).all(|pair| Arc::ptr_eq(&pair[0], &pair[1]))
            && let Some(dictionary) = dictionaries.pop()
        {
            return Target::Codes(dictionary, None);
        }
        match self.united(&dictionaries) {
            None => Target::Text,
            Some(United { dictionary, codes }) => {
                let mut codes = codes.into_iter();
                let empty = super::table::Table::of_codes(&[0], 1);
                let by_branch = values.iter().map(|value| match value.shape.kind {
                    Kind::Code(_) => codes.next().unwrap_or_else(|| empty.clone()),
                    _ => empty.clone(),
                });
                Target::Codes(dictionary, Some(by_branch.collect()))
            }
        }
    }

    /// A branch's value as the target has it.
    fn fitted(&mut self, value: &Value, target: &Target, branch: usize) -> Lowered<Ir> {
        if is_null(value) {
            return Ok(match target {
                Target::Integer(range) => constant(Shape::lane(*range), range.0),
                _ => zero(target.scalar()),
            });
        }
        Ok(match (target, &value.shape.kind) {
            (Target::Integer(range), Kind::Integer(_)) => number(value)?.to(Shape::lane(*range)),
            (Target::Boolean, Kind::Boolean)
            | (Target::Float(Kind::Float32, _), Kind::Float32)
            | (Target::Float(Kind::Float64, _), Kind::Float64)
            | (Target::Codes(_, None), Kind::Code(_)) => value.ir.clone(),
            (Target::Codes(_, Some(tables)), Kind::Code(_)) => self.look_up(&tables[branch], value.ir.clone()),
            (Target::Text, Kind::Code(_) | Kind::Text) => self.handle(value)?,
            _ => return Err(Unsupported("CASE of values of different types".to_owned())),
        })
    }
}

/// Whether all branches may be computed for all rows.
fn is_cheap(branches: &[Branch]) -> bool {
    let parts = branches.iter().enumerate().flat_map(|(at, branch)| {
        let condition = branch.condition.iter().filter(move |_| at > 0);
        condition.map(|(_, apart)| apart).chain([&branch.apart])
    });
    let mut total = 0_u32;
    for part in parts {
        if part.selective {
            return false;
        }
        total = total.saturating_add(part.cost);
    }
    total <= EAGER_COST
}

/// `if condition { value; assign } else { rest }`, after what computes the condition.
fn nested(branch: Branch, assign: Vec<Stmt>, rest: Vec<Stmt>) -> Vec<Stmt> {
    let mut then = branch.apart.stmts;
    then.extend(assign);
    let Some((condition, before)) = branch.condition else {
        return then;
    };
    let mut stmts = before.stmts;
    stmts.push(Stmt::If {
        condition,
        then,
        otherwise: rest,
    });
    stmts
}

/// Some value of a register.
pub(super) fn zero(scalar: Scalar) -> Ir {
    Ir::Const(match scalar {
        Scalar::Bool => Const::Bool(false),
        Scalar::I32 => Const::I32(0),
        Scalar::U32 => Const::U32(0),
        Scalar::I64 => Const::I64(0),
        Scalar::U64 => Const::U64(0),
        Scalar::I128 => Const::I128(0),
        Scalar::F32 => Const::F32(0.0),
        Scalar::F64 => Const::F64(0.0),
    })
}
