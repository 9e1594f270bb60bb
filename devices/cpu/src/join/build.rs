//! The rows of a build side while they come: what its probes need of them, and what each worker keeps.

use std::sync::Arc;

use trireme_device_api::{DeviceError, DevicePool, FragmentId, Graph, JoinKind, Reservation, Step};

use super::encode::{ByteColumn, EncodedKeys};
use super::keys::{KeyColumn, KeyKind, Numbers};
use super::order::Order;
use super::table::hash::BLOOM_FROM_BYTES;
use crate::builder::{ColumnBuilder, MAX_ROWS};
use crate::isa::Isa;
use crate::vector::{Data, Shape, Vector};

/// What the probes of a build side need of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BuildUse {
    /// Some probe needs build rows, not only whether there is one.
    pub(crate) rows: bool,
    /// Some probe's NULL keys match NULLs.
    pub(crate) nulls_equal: bool,
}

impl BuildUse {
    /// By all probes of a fragment's build side.
    pub(crate) fn of(graph: &Graph, build: FragmentId) -> Self {
        let mut uses = Self {
            rows: false,
            nulls_equal: false,
        };
        for step in graph.fragments.iter().flat_map(|fragment| &fragment.steps) {
            if let Step::Probe(probe) = step
                && probe.build == build
            {
                let exists = matches!(probe.kind, JoinKind::Semi | JoinKind::Anti | JoinKind::Mark);
                uses.rows |= !exists || probe.residual.is_some() || probe.keys.is_empty();
                uses.nulls_equal |= probe.null_equals_null;
            }
        }
        uses
    }
}

/// Which table to make; all but `Auto` are for tests.
#[cfg_attr(not(test), expect(dead_code, reason = "only tests force a table"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ladder {
    /// By the data.
    Auto,
    Dense,
    Ranked,
    Bitmap,
    /// Packed keys in tags if they fit, otherwise compared.
    Hash,
    /// Packed keys compared, of 64 bits if they fit.
    Compared,
    /// Packed keys compared, of 128 bits.
    Wide,
    /// Encoded keys.
    Encoded,
}

/// What is known of a build side before its rows.
#[derive(Clone)]
pub(crate) struct BuildPlan {
    pub(super) keys: Vec<Shape>,
    pub(super) kinds: Vec<KeyKind>,
    pub(super) payload: Vec<Shape>,
    pub(super) uses: BuildUse,
    pub(super) pool: Arc<dyn DevicePool>,
    pub(super) isa: Isa,
    pub(super) ladder: Ladder,
    pub(super) bloom_from_bytes: usize,
}

impl BuildPlan {
    /// For keys and payload of these shapes. The payload is kept only if some probe needs rows.
    pub(crate) fn new(keys: &[Shape], payload: &[Shape], uses: BuildUse, pool: &Arc<dyn DevicePool>, isa: Isa) -> Self {
        Self {
            keys: keys.to_vec(),
            kinds: keys.iter().map(KeyKind::of).collect(),
            payload: if uses.rows { payload.to_vec() } else { Vec::new() },
            uses,
            pool: Arc::clone(pool),
            isa,
            ladder: Ladder::Auto,
            bloom_from_bytes: BLOOM_FROM_BYTES,
        }
    }

    /// With this table, whatever the data.
    #[cfg(test)]
    pub(crate) fn forced(mut self, ladder: Ladder, bloom: bool) -> Self {
        self.ladder = ladder;
        self.bloom_from_bytes = if bloom { 0 } else { usize::MAX };
        self
    }

    /// Keys become bytes when they come: some aren't numbers.
    pub(super) fn encodes_at_once(&self) -> bool {
        self.ladder == Ladder::Encoded || !self.kinds.iter().all(KeyKind::is_number)
    }
}

/// Rows of one worker.
pub(crate) struct BuildLocal {
    plan: Arc<BuildPlan>,
    pub(super) keys: LocalKeys,
    pub(super) order: Order,
    /// Bounds of each key so far.
    pub(super) bounds: Vec<Option<(i128, i128)>>,
    /// Keys that held a NULL.
    pub(super) nulls: Vec<bool>,
    /// Columns, each with the memory that it holds.
    pub(super) payload: Vec<(ColumnBuilder, Reservation)>,
    pub(super) rows: usize,
    /// Memory of the keys.
    pub(super) reservation: Reservation,
}

/// The keys of a worker's rows.
pub(super) enum LocalKeys {
    Numbers(Vec<ColumnBuilder>),
    Encoded(EncodedKeys),
}

impl BuildLocal {
    /// Without rows.
    pub(crate) fn new(plan: &Arc<BuildPlan>) -> Self {
        let keys = if plan.encodes_at_once() {
            LocalKeys::Encoded(EncodedKeys::default())
        } else {
            LocalKeys::Numbers(plan.keys.iter().map(ColumnBuilder::new).collect())
        };
        Self {
            plan: Arc::clone(plan),
            keys,
            order: Order::new(matches!(plan.kinds.as_slice(), [KeyKind::Integer(_)]) && plan.ladder == Ladder::Auto),
            bounds: vec![None; plan.keys.len()],
            nulls: vec![false; plan.keys.len()],
            payload: plan
                .payload
                .iter()
                .map(|shape| (ColumnBuilder::new(shape), Reservation::new(&plan.pool)))
                .collect(),
            rows: 0,
            reservation: Reservation::new(&plan.pool),
        }
    }

    /// Appends `rows` rows.
    ///
    /// # Errors
    /// When memory is short, or rows become too many.
    pub(crate) fn push(&mut self, keys: &[Vector<'_>], payload: &[Vector<'_>], rows: usize) -> Result<(), DeviceError> {
        if self.rows + rows >= MAX_ROWS {
            return Err(too_many_rows());
        }
        for ((builder, reservation), vector) in self.payload.iter_mut().zip(payload) {
            reservation.grow(builder.growth_bytes(Some(vector), rows))?;
            builder.push(vector)?;
        }
        for (vector, null) in keys.iter().zip(&mut self.nulls) {
            *null = *null || vector.has_nulls();
        }
        match &mut self.keys {
            LocalKeys::Numbers(builders) => {
                if let ([builder], [vector], [shape]) = (builders.as_mut_slice(), keys, self.plan.keys.as_slice()) {
                    let how = (self.plan.isa, shape);
                    let known = self.order.note(how, vector, builder, &mut self.reservation)?;
                    if !self.order.is_unkept() {
                        self.reservation.grow(builder.growth_bytes(Some(vector), rows))?;
                        builder.push(vector)?;
                    }
                    let known = known.map(|(least, most)| (least.into(), most.into()));
                    let bounds = known.or_else(|| key_column(vector)?.bounds());
                    self.bounds[0] = joined(self.bounds[0], bounds);
                } else {
                    for ((builder, vector), bounds) in builders.iter_mut().zip(keys).zip(&mut self.bounds) {
                        self.reservation.grow(builder.growth_bytes(Some(vector), rows))?;
                        builder.push(vector)?;
                        *bounds = joined(*bounds, key_column(vector).and_then(|column| column.bounds()));
                    }
                }
            }
            LocalKeys::Encoded(encoded) => {
                let lists: Vec<_> = keys.iter().map(|vector| string_list(&vector.data)).collect();
                let columns: Vec<_> = keys
                    .iter()
                    .zip(&lists)
                    .map(|(vector, list)| byte_column(vector, list))
                    .collect();
                self.reservation.grow(encoded.growth_bytes(&columns, rows))?;
                encoded.push(&columns, rows, self.plan.uses.nulls_equal);
            }
        }
        self.rows += rows;
        Ok(())
    }

    /// Keeps keys that so far were only known by their order.
    ///
    /// # Errors
    /// When memory is short.
    pub(super) fn keep_keys(&mut self) -> Result<(), DeviceError> {
        if let (LocalKeys::Numbers(builders), [shape]) = (&mut self.keys, self.plan.keys.as_slice())
            && let [builder] = builders.as_mut_slice()
        {
            self.order
                .keep((self.plan.isa, shape), builder, &mut self.reservation)?;
        }
        Ok(())
    }
}

pub(super) fn too_many_rows() -> DeviceError {
    DeviceError::Unsupported(format!("a build side of {MAX_ROWS} rows or more is not fused"))
}

pub(super) fn joined(left: Option<(i128, i128)>, right: Option<(i128, i128)>) -> Option<(i128, i128)> {
    match (left, right) {
        (Some(left), Some(right)) => Some((left.0.min(right.0), left.1.max(right.1))),
        (left, right) => left.or(right),
    }
}

/// A key of numbers.
pub(crate) fn key_column<'v>(vector: &'v Vector<'_>) -> Option<KeyColumn<'v>> {
    Some(KeyColumn {
        numbers: Numbers::of(&vector.data)?,
        valid: vector.valid.as_deref(),
    })
}

/// The strings of a vector that holds them in one piece.
pub(crate) fn string_list<'v>(data: &'v Data<'_>) -> Vec<&'v [u8]> {
    match data {
        Data::Strings(values) => (0..values.len()).map(|row| values.get(row)).collect(),
        _ => Vec::new(),
    }
}

/// A key to encode; `list` is its [`string_list`].
pub(crate) fn byte_column<'v>(vector: &'v Vector<'_>, list: &'v [&'v [u8]]) -> ByteColumn<'v> {
    let valid = vector.valid.as_deref();
    match &vector.data {
        Data::Bytes(values) => ByteColumn::Strings(values, valid),
        Data::Strings(_) => ByteColumn::Strings(list, valid),
        Data::Interval(values) => ByteColumn::Intervals(values, valid),
        data => ByteColumn::Numbers(KeyColumn {
            numbers: Numbers::of(data).unwrap_or(Numbers::Null),
            valid,
        }),
    }
}

/// Codes of a dictionary as keys, with the validity of the vector they stand for.
pub(super) fn code_column<'v>(codes: &'v [u32], vector: &'v Vector<'_>) -> KeyColumn<'v> {
    KeyColumn {
        numbers: Numbers::Codes(codes),
        valid: vector.valid.as_deref(),
    }
}

/// The keys that are numbers; those with codes by their codes.
pub(super) fn key_columns<'v>(keys: &'v [Vector<'_>], codes: &'v [Option<Vec<u32>>]) -> Vec<KeyColumn<'v>> {
    let column = |(vector, codes): (&'v Vector<'_>, &'v Option<Vec<u32>>)| match codes {
        Some(codes) => Some(code_column(codes, vector)),
        None => key_column(vector),
    };
    keys.iter().zip(codes).filter_map(column).collect()
}
