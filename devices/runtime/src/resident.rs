//! What a run leaves in the device's memory, and how rows come back from there.

use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, ScalarBuffer};
use parking_lot::Mutex;
use trireme_device_api::{
    Carrier, Codes, DeviceColumn, DeviceError, DevicePool, Field, Reservation, Resident, Rows, Strings, Values, ZoneMap,
};
use trireme_device_codegen::BuildShape;
use trireme_device_codegen::ir::Elem;
use trireme_device_codegen::shape::{ColumnShape, RegionRef, ResidentRows, Storage};

use crate::accelerator::Core;
use crate::arena::aligned;
use crate::driver::Queue;
use crate::held::Held;
use crate::texts::Texts;

/// A build side in device memory.
pub(crate) struct DeviceBuild {
    pub(crate) held: Arc<Held>,
    pub(crate) shape: BuildShape,
}

/// Rows in device memory.
pub(crate) struct DeviceRows {
    pub(crate) held: Arc<Held>,
    pub(crate) fields: Vec<Field>,
    pub(crate) rows: ResidentRows,
    /// How many there are.
    pub(crate) count: u64,
    pub(crate) pool: Arc<dyn DevicePool>,
    /// Memory of copies in the host's memory.
    pub(crate) reserved: Mutex<Vec<Reservation>>,
}

impl Resident for DeviceRows {
    fn rows_max(&self) -> u64 {
        self.count
    }

    fn download(&self) -> Result<Arc<Rows>, DeviceError> {
        let _stays = self.held.pin_within()?;
        let mut reservation = Reservation::new(&self.pool);
        let source = Source {
            core: &self.held.core,
            place: &|region| self.held.place(region),
            texts: &self.held.texts,
            known: (0, &[]),
            syncs: Cell::new(0),
            bytes: Cell::new(0),
        };
        let rows = source.download(&self.rows, &self.fields, self.count, &mut reservation)?;
        self.reserved.lock().push(reservation);
        Ok(Arc::new(rows))
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

/// Where rows are copied from.
pub(crate) struct Source<'a> {
    pub(crate) core: &'a Core,
    pub(crate) place: &'a dyn Fn(RegionRef) -> Option<u64>,
    pub(crate) texts: &'a Texts,
    /// A part of the arena that was copied already, and where it lies.
    pub(crate) known: (u64, &'a [u8]),
    /// Waits and bytes of copies.
    pub(crate) syncs: Cell<u32>,
    pub(crate) bytes: Cell<u64>,
}

/// An array to copy.
struct Part {
    from: u64,
    /// In the copy.
    to: usize,
    bytes: usize,
}

/// Parts of each column, and the bytes of a copy of all.
type Parts = (Vec<[Option<Part>; 2]>, usize);

/// Bytes and rows of one copy to the host, about.
const PIECE_BYTES: u64 = 64 << 20;
const PIECE_ROWS: u64 = 4 << 20;

/// Bytes of an element of a resident column.
pub(crate) fn element_bytes(storage: Storage) -> usize {
    match storage {
        Storage::Integer(elem) | Storage::Code(elem) => elem.bytes() as usize,
        Storage::Wide => 16,
        Storage::Float32 => 4,
        Storage::Float64 | Storage::Handles => 8,
        Storage::Bytes | Storage::Bits => 1,
        Storage::Offsets => 4,
        Storage::Null => 0,
    }
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

impl Source<'_> {
    /// The arrays of `count` rows from `first`: for each column its values and validity.
    fn parts(&self, rows: &ResidentRows, first: u64, count: usize) -> Result<Parts, DeviceError> {
        let mut end = 0;
        let mut part = |region: Option<RegionRef>, width: usize| {
            let Some(region) = region.filter(|_| width > 0) else {
                return Ok(None);
            };
            let from = (self.place)(region)
                .ok_or_else(|| DeviceError::Internal(format!("{region:?} is not in the device's memory")))?;
            let part = Part {
                from: from + first * width as u64,
                to: end,
                bytes: count * width,
            };
            end += size(aligned((count * width) as u64));
            Ok(Some(part))
        };
        let mut parts = Vec::new();
        for column in &rows.columns {
            let values = part(column.values, element_bytes(column.shape.storage))?;
            parts.push([values, part(column.validity, 1)?]);
        }
        Ok((parts, end))
    }

    /// The first `count` rows, in the host's memory, which `reservation` is grown by. Many rows come in several segments.
    ///
    /// # Errors
    /// When memory is short, or the device is lost.
    pub(crate) fn download(
        &self,
        rows: &ResidentRows,
        fields: &[Field],
        count: u64,
        reservation: &mut Reservation,
    ) -> Result<Rows, DeviceError> {
        let width: usize = rows
            .columns
            .iter()
            .map(|column| element_bytes(column.shape.storage) + 1)
            .sum();
        let step = (PIECE_BYTES / width.max(1) as u64).clamp(1, PIECE_ROWS);
        let mut segments = Vec::new();
        let mut first = 0;
        while first < count {
            let piece = step.min(count - first);
            segments.push(self.piece(rows, fields, first, size(piece), reservation)?);
            first += piece;
        }
        Ok(Rows {
            segments,
            held: Vec::new(),
        })
    }

    fn piece(
        &self,
        rows: &ResidentRows,
        fields: &[Field],
        first: u64,
        count: usize,
        reservation: &mut Reservation,
    ) -> Result<(usize, Vec<Arc<DeviceColumn>>), DeviceError> {
        let (parts, bytes) = self.parts(rows, first, count)?;
        reservation.grow(bytes)?;
        let mut copy = MutableBuffer::from_len_zeroed(bytes);
        self.copy(&parts, &mut copy)?;
        let copy = Buffer::from(copy);
        let mut columns = Vec::new();
        for ((column, parts), field) in rows.columns.iter().zip(&parts).zip(fields) {
            let [values, validity] = parts;
            let bytes_of = |part: &Part| copy.slice_with_length(part.to, part.bytes);
            let values = values.as_ref().map(bytes_of).unwrap_or_default();
            let validity = validity.as_ref().map(bytes_of);
            columns.push(Arc::new(self.column(
                &column.shape,
                field,
                count,
                values,
                validity,
                reservation,
            )?));
        }
        Ok((count, columns))
    }

    /// All parts with one wait, where there is room to put them together; else each by itself.
    fn copy(&self, parts: &[[Option<Part>; 2]], into: &mut MutableBuffer) -> Result<(), DeviceError> {
        let parts: Vec<&Part> = parts.iter().flatten().flatten().collect();
        let (core, driver) = (self.core, &self.core.driver);
        let bytes = into.len();
        if parts.iter().all(|part| self.known(part).is_some()) {
            for part in parts {
                let known = self.known(part).unwrap_or_default();
                into.as_slice_mut()[part.to..part.to + part.bytes].copy_from_slice(known);
            }
            return Ok(());
        }
        if parts.len() > 1
            && let Some(together) = core.room(bytes as u64)?
        {
            let copied = parts
                .iter()
                .try_for_each(|part| {
                    let to = together.at() + part.to as u64;
                    driver.copy(Queue::Compute, part.from, to, part.bytes as u64)
                })
                .and_then(|()| self.wait_for(together.at(), into.as_slice_mut()));
            if copied.is_err() {
                // Copies into the block may still be queued.
                core.idle();
            }
            return copied;
        }
        for part in parts {
            self.wait_for(part.from, &mut into.as_slice_mut()[part.to..part.to + part.bytes])?;
        }
        Ok(())
    }

    fn wait_for(&self, at: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.syncs.set(self.syncs.get() + 1);
        self.bytes.set(self.bytes.get() + into.len() as u64);
        self.core.download(at, into)
    }

    /// A part that was copied already.
    fn known(&self, part: &Part) -> Option<&[u8]> {
        let (at, bytes) = self.known;
        let start = size(part.from.checked_sub(at)?);
        bytes.get(start..start.checked_add(part.bytes)?)
    }

    fn column(
        &self,
        shape: &ColumnShape,
        field: &Field,
        rows: usize,
        values: Buffer,
        validity: Option<Buffer>,
        reservation: &mut Reservation,
    ) -> Result<DeviceColumn, DeviceError> {
        let valid = validity.map(|bytes| BooleanBuffer::collect_bool(rows, |row| bytes[row] != 0));
        let null_count = match (&valid, shape.storage) {
            (_, Storage::Null) => rows,
            (Some(valid), _) => rows - valid.count_set_bits(),
            (None, _) => 0,
        };
        let valid = valid.filter(|_| null_count > 0 && shape.storage != Storage::Null);
        let is_null = |row: usize| valid.as_ref().is_some_and(|valid| !valid.value(row));
        let values = match shape.storage {
            Storage::Integer(elem) => Values::Integers {
                carrier: carrier(elem, values)?,
                base: 0,
            },
            Storage::Wide => Values::Wide(ScalarBuffer::from(values)),
            Storage::Float32 => Values::Float32(ScalarBuffer::from(values)),
            Storage::Float64 => Values::Float64(ScalarBuffer::from(values)),
            Storage::Bytes => Values::Booleans(BooleanBuffer::collect_bool(rows, |row| values[row] != 0)),
            Storage::Code(elem) => codes(elem, values, shape, rows, &is_null)?,
            Storage::Handles => Values::Strings(self.strings(&ScalarBuffer::from(values), &is_null, reservation)?),
            Storage::Null => Values::Nulls,
            Storage::Bits | Storage::Offsets => {
                return Err(DeviceError::Internal(format!("resident rows as {:?}", shape.storage)));
            }
        };
        let known = shape
            .range
            .filter(|_| null_count < rows && field.data_type.is_integral());
        Ok(DeviceColumn {
            data_type: field.data_type.clone(),
            rows,
            values,
            validity: valid,
            zone: ZoneMap {
                range: known,
                null_count,
                sorted: false,
                run_length: 1.0,
            },
        })
    }

    fn strings(
        &self,
        handles: &ScalarBuffer<u64>,
        is_null: &dyn Fn(usize) -> bool,
        reservation: &mut Reservation,
    ) -> Result<Strings, DeviceError> {
        let mut found: Vec<&[u8]> = Vec::with_capacity(handles.len());
        for (row, handle) in handles.iter().enumerate() {
            found.push(if is_null(row) { &[] } else { self.texts.get(*handle)? });
        }
        let bytes: usize = found.iter().map(|text| text.len()).sum();
        if u32::try_from(bytes).is_err() {
            return Err(DeviceError::Unsupported(
                "more than 4 GiB of strings in one result".to_owned(),
            ));
        }
        reservation.grow(bytes + (found.len() + 1) * 4)?;
        Ok(Strings::from_values(found))
    }
}

fn carrier(elem: Elem, values: Buffer) -> Result<Carrier, DeviceError> {
    Ok(match elem {
        Elem::I8 => Carrier::I8(ScalarBuffer::from(values)),
        Elem::I16 => Carrier::I16(ScalarBuffer::from(values)),
        Elem::I32 => Carrier::I32(ScalarBuffer::from(values)),
        Elem::I64 => Carrier::I64(ScalarBuffer::from(values)),
        _ => return Err(DeviceError::Internal(format!("integers as {elem:?}"))),
    })
}

/// Codes, of which those of NULL rows are brought into the dictionary.
fn codes(
    elem: Elem,
    values: Buffer,
    shape: &ColumnShape,
    rows: usize,
    is_null: &dyn Fn(usize) -> bool,
) -> Result<Values, DeviceError> {
    let dictionary = shape
        .dictionary
        .clone()
        .ok_or_else(|| DeviceError::Internal("codes without a dictionary".to_owned()))?;
    let mut codes = match elem {
        Elem::U8 => Codes::U8(ScalarBuffer::from(values)),
        Elem::U16 => Codes::U16(ScalarBuffer::from(values)),
        Elem::U32 => Codes::U32(ScalarBuffer::from(values)),
        _ => return Err(DeviceError::Internal(format!("codes as {elem:?}"))),
    };
    let outside = |row: &usize| codes.get(*row) as usize >= dictionary.len();
    if let Some(row) = (0..rows).find(|row| outside(row) && !is_null(*row)) {
        let code = codes.get(row);
        return Err(DeviceError::Internal(format!(
            "code {code} of a dictionary of {}",
            dictionary.len()
        )));
    }
    if (0..rows).any(|row| outside(&row)) {
        let inside = |row: usize| if is_null(row) { 0 } else { codes.get(row) };
        codes = Codes::U32((0..rows).map(inside).collect());
    }
    Ok(Values::Codes { codes, dictionary })
}
