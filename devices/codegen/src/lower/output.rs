//! Resident columns: made for the shape of a value, and stored into.
//!
//! The value that a column is made for decides how it lies. What is stored, also by the kernels of passes, is of the same shape
//! or a narrower one, or NULL.

use std::sync::Arc;

use super::{Kind, Lowered, Lowering, Unsupported, Value};
use crate::build::{bool, place, u32, u64};
use crate::ir::{Const, Elem, Expr as Ir, Scalar};
use crate::program::{Fill, Lifetime, Region};
use crate::shape::{ColumnShape, ResidentColumn, Storage};

/// The smallest element for values of a range.
pub(crate) fn narrowest((low, high): (i128, i128)) -> Storage {
    let fits = |least: i128, most: i128| low >= least && high <= most;
    if fits(i8::MIN.into(), i8::MAX.into()) {
        Storage::Integer(Elem::I8)
    } else if fits(i16::MIN.into(), i16::MAX.into()) {
        Storage::Integer(Elem::I16)
    } else if fits(i32::MIN.into(), i32::MAX.into()) {
        Storage::Integer(Elem::I32)
    } else if fits(i64::MIN.into(), i64::MAX.into()) {
        Storage::Integer(Elem::I64)
    } else {
        Storage::Wide
    }
}

/// The smallest element for codes of so many entries.
pub(crate) fn code_elem(entries: usize) -> Elem {
    match entries {
        0..=0x100 => Elem::U8,
        0x101..=0x1_0000 => Elem::U16,
        _ => Elem::U32,
    }
}

/// The element of a stored value; none where nothing is stored.
pub(crate) fn storage_elem(storage: Storage) -> Option<Elem> {
    Some(match storage {
        Storage::Integer(elem) | Storage::Code(elem) => elem,
        Storage::Wide => Elem::I128,
        Storage::Float32 => Elem::F32,
        Storage::Float64 => Elem::F64,
        Storage::Bytes | Storage::Bits => Elem::U8,
        Storage::Offsets => Elem::U32,
        Storage::Handles => Elem::U64,
        Storage::Null => return None,
    })
}

impl Value {
    /// How a resident column of such values lies.
    pub(crate) fn column_shape(&self) -> ColumnShape {
        let mut dictionary = None;
        let storage = match &self.shape.kind {
            Kind::Boolean => Storage::Bytes,
            Kind::Integer(lane) => match (self.shape.range, lane) {
                (Some(range), _) => narrowest(range),
                (None, Scalar::I32) => Storage::Integer(Elem::I32),
                (None, Scalar::I64) => Storage::Integer(Elem::I64),
                (None, _) => Storage::Wide,
            },
            Kind::Float32 => Storage::Float32,
            Kind::Float64 => Storage::Float64,
            Kind::Code(known) => {
                dictionary = Some(Arc::clone(known));
                Storage::Code(code_elem(known.len()))
            }
            Kind::Text => Storage::Handles,
            Kind::Null => Storage::Null,
        };
        ColumnShape {
            data_type: self.shape.data_type.clone(),
            storage,
            nullable: self.null.is_some() || storage == Storage::Null,
            range: self.shape.range,
            dictionary,
            clustered: false,
        }
    }
}

impl Lowering<'_> {
    /// A column for values such as this one.
    pub(crate) fn resident_column(
        &mut self,
        name: &str,
        value: &Value,
        capacity: u64,
        lifetime: Lifetime,
    ) -> ResidentColumn {
        let shape = value.column_shape();
        let mut region = |name: String, bytes: u64| {
            self.region(Region {
                name,
                bytes,
                fill: Fill::Nothing,
                lifetime,
            })
        };
        let elem = storage_elem(shape.storage);
        let values = elem.map(|elem| region(name.to_owned(), capacity * u64::from(elem.bytes())));
        let validity = (shape.nullable && values.is_some()).then(|| region(format!("{name} validity"), capacity));
        ResidentColumn {
            shape,
            values,
            validity,
        }
    }

    /// Stores a value as row `index` (U32 or U64) of a column.
    pub(crate) fn store_value(&mut self, column: &ResidentColumn, value: &Value, index: &Ir) -> Lowered<()> {
        let (Some(values), Some(elem)) = (column.values, storage_elem(column.shape.storage)) else {
            return match value.shape.kind {
                Kind::Null => Ok(()),
                _ => Err(Unsupported("a column of NULLs that has values too".to_owned())),
            };
        };
        let stored = self.stored(column, value, elem)?;
        let values = self.base(values);
        self.b.store(place(elem, values, index.clone()), stored);
        match (column.validity, &value.null) {
            (Some(validity), null) => {
                let valid = null.as_ref().map_or(u32(1), |null| null.clone().select(u32(0), u32(1)));
                let validity = self.base(validity);
                self.b.store(place(Elem::U8, validity, index.clone()), valid);
                Ok(())
            }
            (None, None) => Ok(()),
            (None, Some(_)) => Err(Unsupported("NULLs in a column that has none in other rows".to_owned())),
        }
    }
}

impl Lowering<'_> {
    /// The value as the column's element.
    fn stored(&mut self, column: &ResidentColumn, value: &Value, elem: Elem) -> Lowered<Ir> {
        let differs = || Err(Unsupported("a column whose rows differ in shape".to_owned()));
        let ir = value.ir.clone();
        Ok(match (&value.shape.kind, column.shape.storage) {
            (Kind::Null, _) => any_value(column, elem),
            (Kind::Boolean, Storage::Bytes) => ir.select(u32(1), u32(0)),
            (Kind::Integer(_), Storage::Integer(_) | Storage::Wide) => {
                let inside = match (column.shape.range, value.shape.range) {
                    (Some((low, high)), Some((least, most))) => low <= least && most <= high,
                    _ => true,
                };
                if !inside {
                    return differs();
                }
                ir.to(elem.scalar())
            }
            (Kind::Float32, Storage::Float32) | (Kind::Float64, Storage::Float64) | (Kind::Text, Storage::Handles) => {
                ir
            }
            (Kind::Code(_), Storage::Handles) => self.handle(value)?,
            (Kind::Code(dictionary), Storage::Code(_)) => {
                if !column
                    .shape
                    .dictionary
                    .as_ref()
                    .is_some_and(|known| Arc::ptr_eq(known, dictionary))
                {
                    return differs();
                }
                ir
            }
            _ => return differs(),
        })
    }
}

/// Something that a NULL row may hold: a value in the column's range.
fn any_value(column: &ResidentColumn, elem: Elem) -> Ir {
    let least = column.shape.range.map_or(0, |(low, _)| low);
    match elem.scalar() {
        Scalar::I32 => Ir::Const(Const::I32(i32::try_from(least).unwrap_or(0))),
        Scalar::I64 => Ir::Const(Const::I64(i64::try_from(least).unwrap_or(0))),
        Scalar::I128 => Ir::Const(Const::I128(least)),
        Scalar::U32 => u32(0),
        Scalar::U64 => u64(0),
        Scalar::F32 => Ir::Const(Const::F32(0.0)),
        Scalar::F64 => Ir::Const(Const::F64(0.0)),
        Scalar::Bool => bool(false),
    }
}
