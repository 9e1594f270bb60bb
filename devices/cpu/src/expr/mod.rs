//! Expressions, compiled against the shapes of a row and evaluated tile by tile.
//!
//! Compilation decides everything that doesn't depend on a row: lanes by range analysis, which overflow checks are needed,
//! constants, comparisons that the ranges decide, and expressions of one dictionary column, which are evaluated once per
//! entry. What stays is a tree of nodes, each of which makes one vector of its operands' vectors.
//!
//! ```text
//!  Expr ──support──▶ reason, or
//!       ──compile──▶ Program { Node, Shape }  ──eval(tile)──▶ Vector of exactly that Shape
//!                                             ──mask(tile)──▶ a byte per row, 1 where TRUE
//! ```
//!
//! Errors come only from rows that reach an expression: nodes that may fail see the rows selected by [`Input`], no others.

mod arithmetic;
mod arrow;
mod bound;
mod calendar;
mod case;
mod cast;
mod compare;
mod compile;
mod constant;
mod dictionary;
mod extract;
mod float;
mod function;
mod host;
mod in_list;
mod integral;
mod interval;
mod like;
mod logic;
mod range;
mod sieve;
mod slice;
mod support;
mod text;
mod wide;
mod words;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use trireme_device_api::{DeviceError, Expr, Value};

use crate::isa::Isa;
use crate::number::{and_bytes, map_values, zip};
use crate::tile::{RawStrings, Tile};
use crate::vector::{Data, Shape, Vector};

pub(crate) use sieve::{ColumnTest, Span};
pub(crate) use support::support;
use words::Words;

/// A compiled expression.
pub(crate) struct Program {
    root: Compiled,
    columns: Vec<usize>,
    isa: Isa,
}

impl Program {
    /// Compiles against the shapes of the row's columns and the values of the parameters.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] as [`support`] says.
    pub(crate) fn compile(expr: &Expr, row: &[Shape], parameters: &[Value], isa: Isa) -> Result<Self, DeviceError> {
        support(expr).map_err(DeviceError::Unsupported)?;
        let compiler = Compiler {
            row,
            parameters,
            isa,
            tables: true,
        };
        Ok(Self {
            root: compiler.compile(expr)?,
            columns: expr.columns(),
            isa,
        })
    }

    /// Type, range, nullability and dictionary of the result; vectors have exactly its lane.
    pub(crate) fn shape(&self) -> &Shape {
        &self.root.shape
    }

    /// True when a row may raise an error: then it must see only rows that count.
    pub(crate) fn can_fail(&self) -> bool {
        self.root.fails
    }

    /// It must see only rows that count, or had better, as it is slow.
    pub(crate) fn is_selective(&self) -> bool {
        self.root.selective()
    }

    /// The columns that it reads, ascending.
    pub(crate) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The column that it is, as it is.
    pub(crate) fn column(&self) -> Option<usize> {
        self.root.column
    }

    /// Moves conjuncts of a predicate that test source columns to `tests`; true when none is left. The row's columns are the
    /// source's.
    pub(crate) fn take_tests(&mut self, tests: &mut Vec<ColumnTest>) -> bool {
        !self.can_fail() && self.root.node.take_tests(tests)
    }

    /// The value of all rows, when it is known before any row is seen.
    #[cfg(test)]
    pub(crate) fn constant(&self) -> Option<&Value> {
        self.root.constant.as_ref()
    }

    /// The values of a tile's rows.
    ///
    /// # Errors
    /// [`DeviceError::Arithmetic`] when a row's value is at fault.
    pub(crate) fn eval<'a>(&self, tile: &Tile<'a>) -> Result<Vector<'a>, DeviceError> {
        self.root.eval(&Input::new(&Detached(tile), tile.rows, self.isa))
    }

    /// As [`Program::eval`], borrowing also from the tile's computed columns.
    ///
    /// # Errors
    /// As [`Program::eval`].
    pub(crate) fn view<'t>(&self, tile: &'t Tile<'_>) -> Result<Vector<'t>, DeviceError> {
        self.root.eval(&Input::new(&Viewed(tile), tile.rows, self.isa))
    }

    /// A predicate's rows: 1 where it is TRUE, 0 where it is FALSE or NULL; none when it is TRUE for all.
    ///
    /// # Errors
    /// As [`Program::eval`].
    pub(crate) fn mask(&self, tile: &Tile<'_>) -> Result<Option<Vec<u8>>, DeviceError> {
        let mut mask = Mask::default();
        self.root
            .truth(&Input::new(&Viewed(tile), tile.rows, self.isa), &mut mask)?;
        Ok(mask.bytes)
    }
}

/// Where nodes get columns from.
trait Slots<'x> {
    /// A column, of its shape: all rows, or those selected.
    fn slot(&self, index: usize, shape: &Shape, selected: Option<&[u32]>, isa: Isa) -> Result<Vector<'x>, DeviceError>;

    /// All rows' strings as they lie in the segment, where [`Tile::raw_strings`] has them.
    fn raw_strings(&self, _index: usize) -> Option<RawStrings<'x>> {
        None
    }

    /// All rows' codes as they lie in the segment, where [`Tile::narrow_codes`] has them.
    fn narrow_codes(&self, _index: usize) -> Option<&'x [u8]> {
        None
    }
}

/// Vectors outlive the tile.
struct Detached<'t, 'a>(&'t Tile<'a>);

impl<'a> Slots<'a> for Detached<'_, 'a> {
    fn slot(&self, index: usize, shape: &Shape, selected: Option<&[u32]>, isa: Isa) -> Result<Vector<'a>, DeviceError> {
        match selected {
            None => self.0.slot(index, shape, isa),
            Some(rows) => self.0.picked(index, shape, rows, isa),
        }
    }

    fn raw_strings(&self, index: usize) -> Option<RawStrings<'a>> {
        self.0.raw_strings(index)
    }

    fn narrow_codes(&self, index: usize) -> Option<&'a [u8]> {
        self.0.narrow_codes(index)
    }
}

/// Vectors live as long as the tile.
struct Viewed<'t, 'a>(&'t Tile<'a>);

impl<'t> Slots<'t> for Viewed<'t, '_> {
    fn slot(&self, index: usize, shape: &Shape, selected: Option<&[u32]>, isa: Isa) -> Result<Vector<'t>, DeviceError> {
        match selected {
            None => self.0.view(index, shape, isa),
            Some(rows) => self.0.picked(index, shape, rows, isa),
        }
    }

    fn raw_strings(&self, index: usize) -> Option<RawStrings<'t>> {
        self.0.raw_strings(index)
    }

    fn narrow_codes(&self, index: usize) -> Option<&'t [u8]> {
        self.0.narrow_codes(index)
    }
}

/// The rows that a node sees.
struct Input<'s, 'x> {
    slots: &'s dyn Slots<'x>,
    /// Rows of the tile; none for all.
    selected: Option<Vec<u32>>,
    rows: usize,
    isa: Isa,
}

impl<'s, 'x> Input<'s, 'x> {
    fn new(slots: &'s dyn Slots<'x>, rows: usize, isa: Isa) -> Self {
        Self {
            slots,
            selected: None,
            rows,
            isa,
        }
    }

    /// Only these of the rows.
    fn select(&self, rows: &[u32]) -> Input<'s, 'x> {
        let selected = match &self.selected {
            None => rows.to_vec(),
            Some(outer) => map_values(rows, |row| outer.get(row as usize).copied().unwrap_or_default()),
        };
        Input {
            slots: self.slots,
            rows: selected.len(),
            selected: Some(selected),
            isa: self.isa,
        }
    }

    fn raw_strings(&self, index: usize) -> Option<RawStrings<'x>> {
        if self.selected.is_some() {
            return None;
        }
        self.slots.raw_strings(index)
    }

    fn narrow_codes(&self, index: usize) -> Option<&'x [u8]> {
        if self.selected.is_some() {
            return None;
        }
        self.slots.narrow_codes(index)
    }

    fn column(&self, index: usize, shape: &Shape) -> Result<Vector<'x>, DeviceError> {
        self.slots.slot(index, shape, self.selected.as_deref(), self.isa)
    }
}

/// The rows for which all conjuncts so far are TRUE.
#[derive(Debug, Default)]
struct Mask {
    /// A byte per row; none when all are.
    bytes: Option<Vec<u8>>,
}

impl Mask {
    fn and(&mut self, other: Cow<'_, [u8]>, isa: Isa) {
        match &mut self.bytes {
            None => self.bytes = Some(other.into_owned()),
            Some(bytes) => and_bytes(isa, bytes, &other),
        }
    }
}

/// One step of an evaluation.
trait Node: Send + Sync {
    /// A vector of the node's shape, a value per row of the input.
    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError>;

    /// The values of strings as words, where that is faster than by way of vectors.
    fn words<'x>(&self, _input: &Input<'_, 'x>) -> Result<Option<Words<'x>>, DeviceError> {
        Ok(None)
    }

    /// Moves what it asks of source columns, as far as it is TRUE only where they say so, to `tests`; true when that is all it
    /// asks. It can't fail.
    fn take_tests(&mut self, _tests: &mut Vec<ColumnTest>) -> bool {
        false
    }

    /// Takes the rows out of the mask for which it isn't TRUE.
    fn truth(&self, input: &Input<'_, '_>, mask: &mut Mask) -> Result<(), DeviceError> {
        let vector = self.eval(input)?;
        let Data::Bool(values) = vector.data else {
            mask.and(vec![0; input.rows].into(), input.isa);
            return Ok(());
        };
        match vector.valid {
            None => mask.and(values, input.isa),
            Some(valid) => mask.and(zip(input.isa, &values, &valid, |a: u8, b: u8| a & b).into(), input.isa),
        }
        Ok(())
    }
}

/// A node and what is known of it.
struct Compiled {
    node: Box<dyn Node>,
    shape: Shape,
    /// May raise an error.
    fails: bool,
    /// So slow that it pays to see only rows that count.
    costly: bool,
    /// The value of all rows.
    constant: Option<Value>,
    /// It is this column, as it is.
    column: Option<usize>,
}

impl Compiled {
    fn new(node: impl Node + 'static, shape: Shape, fails: bool, costly: bool) -> Self {
        Self {
            node: Box::new(node),
            shape,
            fails,
            costly,
            constant: None,
            column: None,
        }
    }

    fn eval<'x>(&self, input: &Input<'_, 'x>) -> Result<Vector<'x>, DeviceError> {
        let vector = self.node.eval(input)?;
        debug_assert_eq!(vector.len(), input.rows);
        Ok(vector)
    }

    fn truth(&self, input: &Input<'_, '_>, mask: &mut Mask) -> Result<(), DeviceError> {
        self.node.truth(input, mask)
    }

    /// Must see only rows that count, or had better.
    fn selective(&self) -> bool {
        self.fails || self.costly
    }

    /// The integer that all rows are.
    fn integer(&self) -> Option<i128> {
        match self.constant {
            Some(Value::Int(value)) => Some(value),
            _ => None,
        }
    }

    /// Bounds of an integral value.
    fn range(&self) -> Result<(i128, i128), DeviceError> {
        self.shape
            .range
            .ok_or_else(|| DeviceError::Internal(format!("{:?} is not integral", self.shape.data_type)))
    }
}

/// What a compilation knows.
struct Compiler<'c> {
    row: &'c [Shape],
    parameters: &'c [Value],
    isa: Isa,
    /// Evaluate expressions of one column once per value where that pays.
    tables: bool,
}

fn not_boolean() -> DeviceError {
    DeviceError::Internal("an operand is not boolean".to_owned())
}

fn not_integral() -> DeviceError {
    DeviceError::Internal("an operand is not integral".to_owned())
}
