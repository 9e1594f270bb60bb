//! Expressions of fragments: typed, small, plain data.
//!
//! Every node carries its result type. Operands of arithmetic and comparisons have the types that DataFusion's coercion gave
//! them; `SEMANTICS.md` says what each operator does with NULL, overflow, division by zero and NaN, and every variant does
//! exactly that.

use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;
use serde::{Deserialize, Serialize};

use crate::function::Function;
use crate::types::{Type, Value};

/// An expression and its type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expr {
    /// What it does.
    pub node: Node,
    /// Type of the result.
    pub data_type: Type,
}

/// What an expression does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Node {
    /// Column of the current row, by position.
    Column(usize),
    /// A constant.
    Literal(Value),
    /// A constant that is known when the graph is bound: position in [`crate::Inputs::parameters`].
    Parameter(usize),
    /// Arithmetic, comparison, logic.
    Binary {
        /// Operator.
        op: BinaryOperator,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
    },
    /// Three-valued NOT.
    Not(Box<Expr>),
    /// Arithmetic negation; the smallest integer overflows.
    Negate(Box<Expr>),
    /// IS NULL.
    IsNull(Box<Expr>),
    /// IS NOT NULL.
    IsNotNull(Box<Expr>),
    /// CAST to the expression's type; with `safe` (TRY_CAST) a value that doesn't fit is NULL, else an error.
    Cast {
        /// Operand.
        expr: Box<Expr>,
        /// TRY_CAST.
        safe: bool,
    },
    /// Searched CASE. A branch is evaluated only for rows that reach it: its errors count only there.
    Case {
        /// Conditions and their values.
        branches: Vec<(Expr, Expr)>,
        /// ELSE; NULL when absent.
        otherwise: Option<Box<Expr>>,
    },
    /// IN over constants (literals and parameters); a NULL among them makes "not found" NULL.
    InList {
        /// Operand.
        expr: Box<Expr>,
        /// Constants.
        list: Vec<Expr>,
        /// NOT IN.
        negated: bool,
    },
    /// LIKE and ILIKE with a constant pattern; `%`, `_`, and backslash as escape.
    Like {
        /// Operand.
        expr: Box<Expr>,
        /// Pattern: a literal or a parameter.
        pattern: Box<Expr>,
        /// NOT LIKE.
        negated: bool,
        /// ILIKE.
        case_insensitive: bool,
    },
    /// A part of a date or timestamp, as an integer of the expression's type (Int32).
    Extract {
        /// Which part.
        part: DatePart,
        /// A Date32 or a Timestamp without zone.
        expr: Box<Expr>,
    },
    /// A scalar function of the contract.
    Function {
        /// Which one.
        function: Function,
        /// Its arguments, in order.
        args: Vec<Expr>,
    },
    /// A scalar function that is evaluated by the host over Arrow arrays: once per dictionary entry where its only column is
    /// a dictionary column, else tile by tile. Never a function of time, randomness or session.
    Host {
        /// The function.
        function: HostFunctionRef,
        /// Its arguments, in order.
        args: Vec<Expr>,
    },
}

/// Operators of two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum BinaryOperator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// IS DISTINCT FROM: NULL is a value.
    Distinct,
    /// IS NOT DISTINCT FROM.
    NotDistinct,
    And,
    Or,
    BitAnd,
    BitOr,
    BitXor,
}

impl BinaryOperator {
    /// `a operator b` as `b mirrored a`; what is no order stays as it is.
    pub fn mirrored(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            other => other,
        }
    }
}

/// Parts of a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum DatePart {
    Year,
    Quarter,
    Month,
    /// ISO week.
    Week,
    Day,
    /// Sunday is 0.
    DayOfWeek,
    DayOfYear,
    Hour,
    Minute,
    Second,
}

/// A scalar function over Arrow arrays, of equal length, of the argument types it was made for.
pub trait HostFunction: Send + Sync {
    /// Evaluates all rows.
    ///
    /// # Errors
    /// What is wrong with a value, for people; the query fails with it.
    fn evaluate(&self, args: &[ArrayRef], rows: usize) -> Result<ArrayRef, String>;
}

/// A host function by name; the implementation doesn't travel and is resolved anew by its name and argument types.
#[derive(Clone, Serialize, Deserialize)]
pub struct HostFunctionRef {
    /// Name and constant configuration, the identity of the function.
    pub name: String,
    /// The implementation in this process.
    #[serde(skip)]
    pub implementation: Option<Arc<dyn HostFunction>>,
}

impl fmt::Debug for HostFunctionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for HostFunctionRef {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Expr {
    /// A call of a function.
    pub fn call(function: Function, args: Vec<Expr>, data_type: Type) -> Self {
        Self {
            node: Node::Function { function, args },
            data_type,
        }
    }

    /// A column.
    pub fn column(index: usize, data_type: Type) -> Self {
        Self {
            node: Node::Column(index),
            data_type,
        }
    }

    /// A constant.
    pub fn literal(value: Value, data_type: Type) -> Self {
        Self {
            node: Node::Literal(value),
            data_type,
        }
    }

    /// An operation of two operands.
    pub fn binary(op: BinaryOperator, left: Expr, right: Expr, data_type: Type) -> Self {
        Self {
            node: Node::Binary {
                op,
                left: Box::new(left),
                right: Box::new(right),
            },
            data_type,
        }
    }

    /// The operands, in order.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.node {
            Node::Column(_) | Node::Literal(_) | Node::Parameter(_) => Vec::new(),
            Node::Binary { left, right, .. } => vec![left, right],
            Node::Not(expr)
            | Node::Negate(expr)
            | Node::IsNull(expr)
            | Node::IsNotNull(expr)
            | Node::Cast { expr, .. }
            | Node::Extract { expr, .. } => vec![expr],
            Node::Case { branches, otherwise } => branches
                .iter()
                .flat_map(|(condition, value)| [condition, value])
                .chain(otherwise.as_deref())
                .collect(),
            Node::InList { expr, list, .. } => std::iter::once(expr.as_ref()).chain(list).collect(),
            Node::Like { expr, pattern, .. } => vec![expr, pattern],
            Node::Function { args, .. } | Node::Host { args, .. } => args.iter().collect(),
        }
    }

    /// The operands, in order, to change.
    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match &mut self.node {
            Node::Column(_) | Node::Literal(_) | Node::Parameter(_) => Vec::new(),
            Node::Binary { left, right, .. } => vec![left, right],
            Node::Not(expr)
            | Node::Negate(expr)
            | Node::IsNull(expr)
            | Node::IsNotNull(expr)
            | Node::Cast { expr, .. }
            | Node::Extract { expr, .. } => vec![expr],
            Node::Case { branches, otherwise } => branches
                .iter_mut()
                .flat_map(|(condition, value)| [condition, value])
                .chain(otherwise.as_deref_mut())
                .collect(),
            Node::InList { expr, list, .. } => std::iter::once(expr.as_mut()).chain(list).collect(),
            Node::Like { expr, pattern, .. } => vec![expr, pattern],
            Node::Function { args, .. } | Node::Host { args, .. } => args.iter_mut().collect(),
        }
    }

    /// Calls `see` on this node and all below it.
    pub fn visit<'a>(&'a self, see: &mut dyn FnMut(&'a Expr)) {
        see(self);
        for child in self.children() {
            child.visit(see);
        }
    }

    /// Positions of the columns it reads, each once, ascending.
    pub fn columns(&self) -> Vec<usize> {
        let mut found = Vec::new();
        self.visit(&mut |expr| {
            if let Node::Column(index) = expr.node {
                found.push(index);
            }
        });
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Replaces the positions of columns.
    pub fn map_columns(&mut self, map: &dyn Fn(usize) -> usize) {
        if let Node::Column(index) = &mut self.node {
            *index = map(*index);
        }
        for child in self.children_mut() {
            child.map_columns(map);
        }
    }
}
