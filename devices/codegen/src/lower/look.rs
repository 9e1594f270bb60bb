//! What values are like in all kernels of a fragment, before the first of them is written.
//!
//! Rows may arrive at the sink from the main kernel and from those over a probe's build rows, where the same expression may
//! have another shape. Columns and keys of a sink must suit all of them, so the fragment is lowered once for a sink that only
//! looks at its rows.

use std::sync::Arc;

use super::source::{main_kernel, pass_kernels};
use super::{Kind, Lowered, Lowering, ProgramOutput, Row, Shape, Sink, Unsupported, Value};
use crate::build::bool;

/// Gives the values in question of a row that arrives.
type Ask<'q> = dyn Fn(&mut Lowering<'_>, &mut Row) -> Lowered<Vec<Value>> + 'q;

struct Look<'q> {
    ask: &'q Ask<'q>,
    known: Option<Vec<Value>>,
}

impl Sink for Look<'_> {
    fn begin(&mut self, _: &mut Lowering<'_>) -> Lowered<()> {
        Ok(())
    }

    fn row(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<()> {
        let values = (self.ask)(l, row)?;
        match &mut self.known {
            Some(known) => known
                .iter_mut()
                .zip(&values)
                .try_for_each(|(known, value)| unite(known, value)),
            None => {
                self.known = Some(values);
                Ok(())
            }
        }
    }

    fn slot_end(&mut self, _: &mut Lowering<'_>) -> Lowered<()> {
        Ok(())
    }

    fn end(&mut self, _: &mut Lowering<'_>) -> Lowered<()> {
        Ok(())
    }

    fn finish(&mut self, _: &mut Lowering<'_>) -> Lowered<ProgramOutput> {
        Err(Unsupported("a sink that only looks".to_owned()))
    }
}

impl Lowering<'_> {
    /// Values of the shapes that `ask`'s values have in all kernels; nothing but their shapes and whether NULLs occur means
    /// anything. None when no row arrives.
    pub(super) fn look(&mut self, ask: &Ask<'_>) -> Lowered<Option<Vec<Value>>> {
        let mut look = Look { ask, known: None };
        self.dry_run(&mut look)?;
        Ok(look.known)
    }

    /// Lowers the fragment for a sink that only looks. What the host evaluated for it is kept: evaluated again, it would give
    /// other dictionaries.
    fn dry_run(&mut self, sink: &mut dyn Sink) -> Lowered<()> {
        let mut dry = Lowering::new(self.graph, self.fragment, self.bound, self.target);
        dry.parts.expressions = std::mem::take(&mut self.parts.expressions);
        let written = main_kernel(&mut dry, sink).and_then(|_| pass_kernels(&mut dry, sink));
        self.parts.expressions = dry.parts.expressions;
        written
    }
}

/// Widens what is known of a value by another.
fn unite(known: &mut Value, value: &Value) -> Lowered<()> {
    let nullable = known.null.is_some() || value.null.is_some();
    match (&known.shape.kind, &value.shape.kind) {
        (_, Kind::Null) => {}
        (Kind::Null, _) => known.shape = value.shape.clone(),
        (Kind::Integer(_), Kind::Integer(_)) => {
            let range = match (known.shape.range, value.shape.range) {
                (Some((low, high)), Some((least, most))) => Some((low.min(least), high.max(most))),
                _ => known.shape.data_type.value_range(),
            };
            known.shape.range = range;
            known.shape.kind = Kind::Integer(Shape::lane(range.unwrap_or((i128::MIN, i128::MAX))));
        }
        (Kind::Code(first), Kind::Code(second)) if Arc::ptr_eq(first, second) => {}
        (Kind::Code(_) | Kind::Text, Kind::Code(_) | Kind::Text) => known.shape.kind = Kind::Text,
        (Kind::Boolean, Kind::Boolean) | (Kind::Float32, Kind::Float32) | (Kind::Float64, Kind::Float64) => {}
        _ => return Err(Unsupported("a value that is of several shapes".to_owned())),
    }
    let null = matches!(known.shape.kind, Kind::Null) || nullable;
    known.null = null.then(|| bool(true));
    Ok(())
}
