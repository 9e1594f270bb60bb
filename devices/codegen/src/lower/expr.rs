//! Expressions: statements that compute them, and what is known of their values.
//!
//! ```text
//!  no column            the host evaluates it once: a literal
//!  one dictionary       the host evaluates it for every entry: a look-up by code
//!  else                 registers: the lane by the range, NULL apart, checks where the range doesn't rule a fault out
//! ```
//!
//! A part that may fail stands where only rows that reach it come; one that can't, and is cheap, is computed for all rows.

mod arithmetic;
mod bound;
mod bytes;
mod calendar;
mod case;
mod cast;
mod compare;
mod dictionary;
mod function;
mod in_list;
mod integral;
mod known;
mod like;
mod logic;
mod range;
mod register;
mod strings;
mod support;
mod table;
mod temporal;
#[cfg(test)]
mod tests;
mod wide;

use trireme_device_api::{
    BinaryOperator, DeviceColumn, DeviceError, Expr, Node, Type, Value as Constant, Values, ZoneMap,
};

pub use support::supports;

use super::{Kind, Lowered, Lowering, Row, Unsupported, Value};
use crate::build;
use crate::ir::Expr as Ir;

/// What expressions share within a program.
#[derive(Default)]
pub(crate) struct State {
    /// Faults that statements so far may raise.
    faults: usize,
    /// Expressions that the host evaluated.
    known: Vec<dictionary::Known>,
    made: strings::Made,
}

/// A constant expression's value, or the error of rows that reach it.
type Folded = Result<Constant, DeviceError>;

impl Lowering<'_> {
    /// The value of an expression for the current row; statements that compute it are appended.
    pub(crate) fn expr(&mut self, row: &mut Row, expr: &Expr) -> Lowered<Value> {
        match &expr.node {
            Node::Column(index) if *index < row.slots.len() => return row.column(self, *index),
            Node::Column(index) => return Err(Unsupported(format!("column {index} of {}", row.slots.len()))),
            _ => {}
        }
        if let Some(folded) = self.folded(expr)? {
            return self.constant(folded, &expr.data_type);
        }
        if let Some(value) = self.by_host(row, expr)? {
            return Ok(value);
        }
        self.operator(row, expr)
    }

    /// An expression of one column that has few values, evaluated by the host; none where it isn't such.
    fn by_host(&mut self, row: &mut Row, expr: &Expr) -> Lowered<Option<Value>> {
        let [column] = expr.columns()[..] else {
            return Ok(None);
        };
        let direct = |expr: &Expr| matches!(expr.node, Node::Column(_));
        let as_it_is = match &expr.node {
            Node::IsNull(operand) | Node::IsNotNull(operand) => direct(operand),
            Node::Cast { expr: operand, .. } => direct(operand) && cast::relabels(&operand.data_type, &expr.data_type),
            _ => false,
        };
        if as_it_is || column >= row.slots.len() || matches!(expr.data_type, Type::Interval(_) | Type::Null) {
            return Ok(None);
        }
        let value = row.column(self, column)?;
        match &value.shape.kind {
            Kind::Code(dictionary) => self.over_dictionary(&value, dictionary, expr).map(Some),
            Kind::Integer(_) if support::is_slow(expr) => self.over_integers(&value, expr),
            _ => Ok(None),
        }
    }

    /// Bool: whether a predicate is true, not false nor NULL.
    pub(crate) fn condition(&mut self, row: &mut Row, expr: &Expr) -> Lowered<Ir> {
        self.truth(row, expr)
    }

    fn operator(&mut self, row: &mut Row, expr: &Expr) -> Lowered<Value> {
        match &expr.node {
            Node::Binary { op, left, right } => self.binary(row, expr, *op, left, right),
            Node::Not(operand) => {
                let operand = self.expr(row, operand)?;
                self.not(&operand)
            }
            Node::Negate(operand) => {
                let operand = self.expr(row, operand)?;
                self.negate(&operand, &expr.data_type)
            }
            Node::IsNull(operand) => {
                let operand = self.expr(row, operand)?;
                Ok(self.is_null(&operand, false))
            }
            Node::IsNotNull(operand) => {
                let operand = self.expr(row, operand)?;
                Ok(self.is_null(&operand, true))
            }
            Node::Case { branches, otherwise } => self.case(row, branches, otherwise.as_deref(), &expr.data_type),
            Node::Extract { part, expr: operand } => {
                let operand = self.expr(row, operand)?;
                self.extract(*part, &operand, &expr.data_type)
            }
            Node::InList { .. } | Node::Like { .. } | Node::Cast { .. } | Node::Function { .. } | Node::Host { .. } => {
                self.of_operands(row, expr)
            }
            Node::Column(_) | Node::Literal(_) | Node::Parameter(_) => {
                Err(Unsupported("a column or constant as an operation".to_owned()))
            }
        }
    }

    /// What the host can evaluate where its one operand that isn't constant is a code.
    fn of_operands(&mut self, row: &mut Row, expr: &Expr) -> Lowered<Value> {
        let mut values = Vec::new();
        let mut changing = Vec::new();
        for (at, operand) in expr.children().into_iter().enumerate() {
            if !operand.columns().is_empty() {
                changing.push(at);
            } else if !matches!(expr.node, Node::Function { .. } | Node::Host { .. }) {
                continue;
            }
            values.push(self.expr(row, operand)?);
        }
        let relabels = matches!(&expr.node, Node::Cast { expr: operand, .. }
            if cast::relabels(&operand.data_type, &expr.data_type));
        if let ([at], false) = (changing.as_slice(), relabels) {
            let value = if matches!(expr.node, Node::Function { .. } | Node::Host { .. }) {
                &values[*at]
            } else {
                &values[0]
            };
            if let Kind::Code(dictionary) = &value.shape.kind {
                let mut template = expr.clone();
                if let Some(operand) = template.children_mut().into_iter().nth(*at) {
                    *operand = Expr::column(0, operand.data_type.clone());
                }
                return self.over_dictionary(value, dictionary, &template);
            }
        }
        let first = || Unsupported("an operation without operands".to_owned());
        match &expr.node {
            Node::InList { list, negated, .. } => self.in_list(values.first().ok_or_else(first)?, list, *negated),
            Node::Like {
                pattern,
                negated,
                case_insensitive,
                ..
            } => self.matches(values.first().ok_or_else(first)?, pattern, *negated, *case_insensitive),
            Node::Cast { safe, .. } => self.cast(values.first().ok_or_else(first)?, &expr.data_type, *safe),
            Node::Function { function, args } => self.call_function(*function, args, &values, &expr.data_type),
            Node::Host { function, args } => match known::known(&function.name, args, &expr.data_type) {
                Some(known) if values.len() == args.len() => self.call_known(known, &values, &expr.data_type),
                _ => Err(Unsupported(format!(
                    "{} of other than one string column has no kernel",
                    function.name
                ))),
            },
            _ => Err(first()),
        }
    }

    /// LIKE of a string without a dictionary.
    fn matches(&mut self, value: &Value, pattern: &Expr, negated: bool, case_insensitive: bool) -> Lowered<Value> {
        let pattern = match self.folded(pattern)? {
            Some(Ok(Constant::Bytes(pattern))) => pattern,
            Some(Ok(Constant::Null)) => return Ok(register::null_of(&Type::Boolean)),
            _ => {
                return Err(Unsupported(
                    "LIKE with a pattern that isn't constant has no kernel".to_owned(),
                ));
            }
        };
        if register::is_null(value) {
            return Ok(register::null_of(&Type::Boolean));
        }
        let text = self.handle(value)?;
        let found = self.like(&text, &pattern, case_insensitive)?;
        let ir = self.flag(if negated { found.not() } else { found });
        Ok(register::boolean(ir, value.null.clone()))
    }

    fn binary(&mut self, row: &mut Row, expr: &Expr, op: BinaryOperator, left: &Expr, right: &Expr) -> Lowered<Value> {
        match op {
            BinaryOperator::And | BinaryOperator::Or => self.junction(row, op, left, right),
            BinaryOperator::Add
            | BinaryOperator::Subtract
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Remainder
            | BinaryOperator::BitAnd
            | BinaryOperator::BitOr
            | BinaryOperator::BitXor => self.arithmetic(row, op, (left, right), &expr.data_type),
            _ => self.comparison(row, op, left, right),
        }
    }

    /// The value of an expression without columns; none where there is one.
    fn folded(&mut self, expr: &Expr) -> Lowered<Option<Folded>> {
        match &expr.node {
            Node::Literal(value) => return Ok(Some(Ok(value.clone()))),
            Node::Parameter(index) => {
                let value = self.bound.parameters.get(*index).cloned();
                let value = value.ok_or_else(|| Unsupported(format!("no parameter {index}")))?;
                return Ok(Some(Ok(value)));
            }
            _ => {}
        }
        if !expr.columns().is_empty() {
            return Ok(None);
        }
        let nothing = DeviceColumn {
            data_type: Type::Null,
            rows: 1,
            values: Values::Nulls,
            validity: None,
            zone: ZoneMap::default(),
        };
        match self.bound.host.evaluate(expr, &nothing, self.bound.parameters) {
            Ok(column) => Ok(Some(Ok(value_at(&column, 0)))),
            Err(error @ (DeviceError::Arithmetic(_) | DeviceError::Input(_))) => Ok(Some(Err(error))),
            Err(error) => Err(Unsupported(error.to_string())),
        }
    }

    /// A constant as a value; its error counts for the rows that come here.
    fn constant(&mut self, folded: Folded, data_type: &Type) -> Lowered<Value> {
        match folded {
            Ok(Constant::Bytes(bytes)) => Ok(self.text_constant(&bytes, data_type)),
            Ok(value) => self.plain_constant(&value, data_type),
            Err(error) => {
                self.fail(build::bool(true), None, error);
                Ok(register::null_of(data_type))
            }
        }
    }
}

/// One value of a column.
fn value_at(column: &DeviceColumn, row: usize) -> Constant {
    if column.is_null(row) {
        return Constant::Null;
    }
    match &column.values {
        Values::Integers { carrier, base } => Constant::Int(i128::from(*base) + i128::from(carrier.get(row))),
        Values::Wide(values) => Constant::Int(values[row]),
        Values::Float32(values) => Constant::Float(values[row].into()),
        Values::Float64(values) => Constant::Float(values[row]),
        Values::Booleans(values) => Constant::Boolean(values.value(row)),
        Values::Codes { codes, dictionary } => Constant::Bytes(dictionary.get(codes.get(row)).into()),
        Values::Strings(strings) => Constant::Bytes(strings.get(row).into()),
        Values::Intervals(values) => Constant::Interval(values[row]),
        Values::Nulls => Constant::Null,
    }
}
