//! A column whose pages are decoded on the device: what is sent, where it lies, and the table of pages.
//!
//! ```text
//!  staging   [ page │ page │ … │ dictionary │ … ][ dense values of pages with NULLs ]      given back when the run is done
//!              sent, each from a multiple of 8       written and read by the kernel only
//! ```

use std::sync::Arc;

use arrow::buffer::{Buffer, MutableBuffer};
use trireme_device_api::{EncodedColumn, EncodedType, PageEncoding};
use trireme_device_codegen::decode::{Encoding, Lane, Page};
use trireme_device_codegen::ir::Elem;
use trireme_device_codegen::shape::{ColumnShape, Storage};

use crate::image::{Piece, bits};
use crate::uploaded::Uploaded;

/// Where pieces begin: at words, by which kernels read.
const WORD: u64 = 8;

/// A column of one segment, ready to be sent encoded.
pub(crate) struct Packed {
    column: Arc<EncodedColumn>,
    /// What the kernel writes.
    pub(crate) elem: Elem,
    lane: Lane,
    /// What is sent, by place, ascending.
    pieces: Vec<(u64, Buffer)>,
    /// By page.
    places: Vec<u64>,
    /// By dictionary.
    dictionaries: Vec<u64>,
    /// Bytes that are sent.
    sent: u64,
    /// Bytes of the staging memory.
    pub(crate) staging: u64,
}

/// The element of a storage that pages are decoded into.
pub(crate) fn element(storage: Storage) -> Option<Elem> {
    match storage {
        Storage::Integer(Elem::I8) | Storage::Code(Elem::U8) => Some(Elem::U8),
        Storage::Integer(Elem::I16) | Storage::Code(Elem::U16) => Some(Elem::U16),
        Storage::Integer(Elem::I32) | Storage::Code(Elem::U32) | Storage::Float32 => Some(Elem::U32),
        Storage::Integer(Elem::I64) | Storage::Float64 => Some(Elem::U64),
        _ => None,
    }
}

/// What integers of a range become in so many bits; none where they don't fit.
fn lane(bytes: u32, signed: bool, (low, high): (i64, i64), elem: Elem) -> Option<Lane> {
    let span = high.checked_sub(low).map_or(u64::MAX, i64::cast_unsigned);
    let middle = match elem {
        Elem::U8 if span <= 0xff => low.saturating_add(1 << 7),
        Elem::U16 if span <= 0xffff => low.saturating_add(1 << 15),
        Elem::U32 if span <= 0xffff_ffff => low.saturating_add(1 << 31),
        Elem::U64 => 0,
        _ => return None,
    };
    Some(Lane {
        bytes: u64::from(bytes.max(4)),
        signed,
        low,
        span: high.wrapping_sub(low).cast_unsigned(),
        base: middle,
    })
}

impl Packed {
    /// How a column is sent; none where it doesn't lie so in memory, and the host must decode it.
    pub(crate) fn new(column: &Arc<EncodedColumn>, shape: &ColumnShape) -> Option<Self> {
        let elem = element(shape.storage)?;
        let lane = match (column.values, shape.storage) {
            (EncodedType::Integers { bytes, signed, range }, Storage::Integer(_)) => lane(bytes, signed, range, elem)?,
            (EncodedType::Float32, Storage::Float32) | (EncodedType::Float64, Storage::Float64) => Lane::bits(elem),
            (EncodedType::Codes(codes), Storage::Code(_)) => {
                let fits = codes == 0 || elem == Elem::U32 || codes - 1 < 1 << (elem.bytes() * 8);
                fits.then(|| Lane::bits(elem))?
            }
            _ => return None,
        };
        if column.validity.is_some() && !shape.nullable {
            return None;
        }
        let mut packed = Self {
            column: Arc::clone(column),
            elem,
            lane,
            pieces: Vec::new(),
            places: Vec::new(),
            dictionaries: Vec::new(),
            sent: 0,
            staging: 0,
        };
        packed.lay_out();
        Some(packed)
    }

    fn lay_out(&mut self) {
        let column = Arc::clone(&self.column);
        let mut last: Option<(*const u8, usize)> = None;
        for page in &column.pages {
            let name = (page.bytes.as_ptr(), page.bytes.len());
            // Several runs of rows of one page.
            let again = last == Some(name);
            let at = match self.places.last() {
                Some(at) if again => *at,
                _ => self.put(page.bytes.clone()),
            };
            self.places.push(at);
            last = Some(name);
        }
        for dictionary in &column.dictionaries {
            let bytes = self.elem.bytes() as usize;
            let base = self.lane.base.cast_unsigned();
            let mut elements = MutableBuffer::with_capacity(dictionary.len() * bytes);
            for value in dictionary {
                elements.extend_from_slice(&value.wrapping_sub(base).to_le_bytes()[..bytes]);
            }
            let at = self.put(elements.into());
            self.dictionaries.push(at);
        }
        self.staging = self.sent;
        for page in column.pages.iter().filter(|page| page.nullable) {
            self.staging += self.dense_bytes(page.values);
        }
    }

    fn put(&mut self, bytes: Buffer) -> u64 {
        let at = self.sent;
        // Nothing has a place of its own too, so that no page begins at its end.
        self.sent += (bytes.len().max(1) as u64).next_multiple_of(WORD);
        self.pieces.push((at, bytes));
        at
    }

    fn dense_bytes(&self, values: usize) -> u64 {
        (values as u64 * u64::from(self.elem.bytes()))
            .max(1)
            .next_multiple_of(WORD)
    }

    /// What is added to each element.
    pub(crate) fn base(&self) -> i64 {
        self.lane.base
    }

    /// Bytes of the decoded values.
    pub(crate) fn values_bytes(&self) -> u64 {
        self.column.rows as u64 * u64::from(self.elem.bytes())
    }

    /// Bits of validity; none when no row is NULL.
    pub(crate) fn validity(&self) -> Option<Piece> {
        self.column.validity.as_ref().map(bits)
    }

    /// Bytes that are sent to the staging memory.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Writes bytes `offset..` of what is sent, as far as the slab goes.
    pub(crate) fn write(&self, offset: u64, slab: &mut [u8]) {
        slab.fill(0);
        let end = offset + slab.len() as u64;
        let first = self
            .pieces
            .partition_point(|(at, bytes)| at + bytes.len() as u64 <= offset);
        for (at, bytes) in self.pieces[first..].iter().take_while(|(at, _)| *at < end) {
            let (from, to) = (size(offset.saturating_sub(*at)), size(at.saturating_sub(offset)));
            let count = (bytes.len() - from.min(bytes.len())).min(slab.len() - to);
            slab[to..to + count].copy_from_slice(&bytes[from..from + count]);
        }
    }

    /// The table of its pages, with what was sent at `staging` and a word for faults.
    pub(crate) fn pages(&self, staging: u64, uploaded: &Uploaded, fault: u64) -> Vec<Page> {
        let at = |block: &Option<crate::arena::Block>| block.as_ref().map_or(0, crate::arena::Block::at);
        let (output, validity) = (at(&uploaded.values), at(&uploaded.validity));
        let mut dense = staging + self.sent;
        let mut pages = Vec::with_capacity(self.places.len());
        for (page, place) in self.column.pages.iter().zip(&self.places) {
            let (encoding, dictionary) = match page.encoding {
                PageEncoding::Plain => (Encoding::Plain, (0, 0)),
                PageEncoding::Delta => (Encoding::Delta, (0, 0)),
                PageEncoding::Dictionary(number) => {
                    let place = self.dictionaries.get(number).map_or(0, |place| staging + place);
                    let entries = self.column.dictionaries.get(number).map_or(0, Vec::len);
                    (Encoding::Dictionary, (place, entries as u64))
                }
            };
            pages.push(Page {
                encoding,
                at: staging + place,
                end: staging + place + page.bytes.len() as u64,
                values: page.values as u64,
                skip: page.skip as u64,
                passed: page.passed as u64,
                keep: page.keep as u64,
                output,
                first: page.first as u64,
                dictionary,
                lane: self.lane,
                validity: page.nullable.then_some(validity),
                dense,
                fault,
            });
            if page.nullable {
                dense += self.dense_bytes(page.values);
            }
        }
        pages
    }
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
