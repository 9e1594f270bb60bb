//! Buffers that keep something alive: how a column's memory stays accounted for until its last reader lets go.
//!
//! A [`DeviceColumn`] is plain data that kernels take apart and hold pieces of. So what must outlive the pieces (a lease of
//! the budget, an entry of the cache) hangs on the buffers themselves.

use std::any::Any;
use std::sync::Arc;

use arrow::buffer::{BooleanBuffer, Buffer, ScalarBuffer};
use arrow::datatypes::ArrowNativeType;
use bytes::Bytes;
use trireme_device_api::{Carrier, Codes, DeviceColumn, Strings, Values};

/// What a buffer keeps.
pub(crate) type Kept = Arc<dyn Any + Send + Sync>;

struct Owned {
    buffer: Buffer,
    _kept: Kept,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

/// The same bytes at the same place, keeping `kept`.
pub(crate) fn buffer(buffer: Buffer, kept: &Kept) -> Buffer {
    if buffer.is_empty() {
        return buffer;
    }
    Buffer::from(Bytes::from_owner(Owned {
        buffer,
        _kept: Arc::clone(kept),
    }))
}

fn scalars<T: ArrowNativeType>(values: ScalarBuffer<T>, kept: &Kept) -> ScalarBuffer<T> {
    buffer(values.into_inner(), kept).into()
}

fn bits(values: &BooleanBuffer, kept: &Kept) -> BooleanBuffer {
    BooleanBuffer::new(buffer(values.inner().clone(), kept), values.offset(), values.len())
}

/// Strings that keep `kept`.
pub(crate) fn strings(strings: Strings, kept: &Kept) -> Strings {
    Strings {
        offsets: scalars(strings.offsets, kept),
        bytes: buffer(strings.bytes, kept),
    }
}

/// Codes that keep `kept`.
pub(crate) fn codes(codes: Codes, kept: &Kept) -> Codes {
    match codes {
        Codes::U8(values) => Codes::U8(scalars(values, kept)),
        Codes::U16(values) => Codes::U16(scalars(values, kept)),
        Codes::U32(values) => Codes::U32(scalars(values, kept)),
    }
}

/// A column whose buffers keep `kept`. Intervals have no buffer of this kind; they are small and rare.
pub(crate) fn column(column: DeviceColumn, kept: &Kept) -> DeviceColumn {
    let values = match column.values {
        Values::Integers { carrier, base } => Values::Integers {
            carrier: match carrier {
                Carrier::I8(values) => Carrier::I8(scalars(values, kept)),
                Carrier::I16(values) => Carrier::I16(scalars(values, kept)),
                Carrier::I32(values) => Carrier::I32(scalars(values, kept)),
                Carrier::I64(values) => Carrier::I64(scalars(values, kept)),
            },
            base,
        },
        Values::Wide(values) => Values::Wide(scalars(values, kept)),
        Values::Float32(values) => Values::Float32(scalars(values, kept)),
        Values::Float64(values) => Values::Float64(scalars(values, kept)),
        Values::Booleans(values) => Values::Booleans(bits(&values, kept)),
        Values::Codes { codes: of, dictionary } => Values::Codes {
            codes: codes(of, kept),
            dictionary,
        },
        Values::Strings(values) => Values::Strings(strings(values, kept)),
        other => other,
    };
    DeviceColumn {
        values,
        validity: column.validity.map(|valid| bits(&valid, kept)),
        ..column
    }
}
