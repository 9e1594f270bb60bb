//! Look-up tables: contents in the narrowest elements, and the loads from them.

use std::sync::Arc;

use super::range::Range;
use crate::build::place;
use crate::ir::{Const, Elem, Expr as Ir, Scalar};
use crate::lower::{Lowering, Shape};
use crate::program::Word;

/// Elements, one after another.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) elem: Elem,
    pub(super) content: Arc<[u8]>,
}

impl Table {
    /// Codes below `count`.
    pub(super) fn of_codes(codes: &[u32], count: usize) -> Self {
        let bytes = |width: usize| -> Arc<[u8]> {
            codes
                .iter()
                .flat_map(|code| code.to_le_bytes().into_iter().take(width))
                .collect()
        };
        let (elem, width) = match count {
            0..=0x100 => (Elem::U8, 1),
            0x101..=0x1_0000 => (Elem::U16, 2),
            _ => (Elem::U32, 4),
        };
        Self {
            elem,
            content: bytes(width),
        }
    }

    /// Any 32-bit numbers.
    pub(super) fn of_u32(values: &[u32]) -> Self {
        Self {
            elem: Elem::U32,
            content: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    /// Flags.
    pub(super) fn of_flags(values: impl Iterator<Item = bool>) -> Self {
        Self {
            elem: Elem::U8,
            content: values.map(u8::from).collect(),
        }
    }

    /// Integers of a range, which sits within 128 bits.
    pub(super) fn of_integers(values: impl Iterator<Item = i128>, range: Range) -> Self {
        let within = |least: i128, most: i128| range.0 >= least && range.1 <= most;
        let (elem, width) = if within(i8::MIN.into(), i8::MAX.into()) {
            (Elem::I8, 1)
        } else if within(i16::MIN.into(), i16::MAX.into()) {
            (Elem::I16, 2)
        } else {
            match Shape::lane(range) {
                Scalar::I32 => (Elem::I32, 4),
                Scalar::I64 => (Elem::I64, 8),
                _ => (Elem::I128, 16),
            }
        };
        Self {
            elem,
            content: values
                .flat_map(|value| value.to_le_bytes().into_iter().take(width))
                .collect(),
        }
    }
}

impl Lowering<'_> {
    /// The element at an index (U32), in a variable of the element's type.
    pub(super) fn look_up(&mut self, table: &Table, index: Ir) -> Ir {
        if let (Elem::U8 | Elem::U16 | Elem::U32, Ir::Const(Const::U32(at))) = (table.elem, &index) {
            let width = table.elem.bytes() as usize;
            let bytes = table.content.iter().skip(*at as usize * width).take(width);
            let value = bytes.rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            return self.word(Word::Value(value)).to(Scalar::U32);
        }
        let base = self.table(Arc::clone(&table.content));
        self.b.load(place(table.elem, base, index)).into()
    }
}
