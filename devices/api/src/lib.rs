//! The contract between Trireme and its devices.
//!
//! A device crate implements [`Backend`] and [`Variant`]; planner writes [`Graph`]s of [`Fragment`]s; exec binds their
//! inputs and runs the [`Kernel`]s that a variant prepares. Everything that crosses the line is plain data or a small trait,
//! so that a device builds and is tested without the query engine.
//!
//! ```text
//!  planner ── Graph { Fragment: source → steps → sink } ──▶ Variant::support → Supported | Unsupported { reason }
//!  exec    ── Inputs (segments of DeviceColumns, streams, parameters) ──▶ Variant::prepare → Kernel: step… finish → Output
//! ```
#![deny(missing_docs)]

mod arrow_columns;
mod column;
mod cost;
mod device;
mod encoded;
mod error;
mod expr;
mod fragment;
mod function;
mod memory;
mod row_test;
mod types;
mod variant;

pub use column::{
    Carrier, Codes, ColumnProfile, DeviceColumn, Dictionary, MORSEL_ROWS, Residency, ScanInput, Strings, Values,
    ZoneMap,
};
pub use cost::{Cost, Workload};
pub use device::{Backend, Device, DeviceInfo, DeviceKind, DeviceState, Probed, Vitals};
pub use encoded::{EncodedColumn, EncodedPage, EncodedType, Loaded, PageEncoding};
pub use error::{DeviceError, ErrorAction, ReadFault};
pub use expr::{BinaryOperator, DatePart, Expr, HostFunction, HostFunctionRef, Node};
pub use fragment::{
    Aggregate, AggregateFunction, BuildSide, Field, Fragment, FragmentId, GRAPH_VERSION, Graph, JoinKind, Probe,
    ScanSource, Sink, SortKey, Source, Step,
};
pub use function::{Answer, Answered, Argument, Descriptor, FUNCTIONS, Function, substring_range};
pub use memory::{DevicePool, Reservation, Unlimited};
pub use row_test::{Bounds, ColumnTest, RowTest};
pub use types::{Interval, IntervalKind, TimeUnit, Type, Value};
pub use variant::{
    Emit, FragmentReport, Inputs, Kernel, Output, Progress, Resident, Rows, Shared, StreamInput, StreamPoll, Support,
    Variant,
};
