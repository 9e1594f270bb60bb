//! Seeded random tests: types, data, expressions, whole graphs.
//!
//! What is generated is sound: types fit as DataFusion's coercion would leave them, and the result doesn't depend on an order
//! that nobody promises (which row comes first among equals, in which order floats are summed). Most data is small, so that
//! most cases give rows and not errors; the rest is extreme.

mod data;
mod expr;
mod function;
mod graph;
mod host;
mod projection;

use std::sync::Arc;

use trireme_device_api::{Field, Graph, Type};

pub use data::{Flavor, Nulls, all_types, column, literal_of, value};
pub use expr::{aggregate_type, arithmetic_type, expression};
pub use function::argument_types;
pub use graph::graph;
pub use projection::{needs_no_dictionary, projection};

use crate::inputs::Segmentation;
use crate::interpreter::Data;

/// A graph and what it runs on.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it tests, for people.
    pub name: String,
    /// The graph.
    pub graph: Arc<Graph>,
    /// Its inputs.
    pub data: Data,
    /// How tables are cut.
    pub segmentation: Segmentation,
    /// Seed of the layouts.
    pub seed: u64,
    /// Layouts are alike ([`crate::inputs::Layout::alike`]): cases share kernels.
    pub alike: bool,
}

/// A column that expressions may use.
#[derive(Debug, Clone)]
pub struct Column {
    /// Name and type.
    pub field: Field,
    /// The same, to the last bit, in every variant; others are only passed on.
    pub exact: bool,
}

impl Column {
    /// A nullable, exact one.
    pub fn new(name: &str, data_type: Type) -> Self {
        Self {
            field: field(name, data_type),
            exact: true,
        }
    }
}

/// A nullable field.
pub fn field(name: &str, data_type: Type) -> Field {
    Field {
        name: name.to_owned(),
        data_type,
        nullable: true,
    }
}
