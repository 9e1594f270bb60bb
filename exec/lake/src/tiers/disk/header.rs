//! What stands in front of a slot: which ranges of which objects it holds, and their checksums.
//!
//! ```text
//!  slot: │ header, even │ header, odd │ payload: extents one after the other … │
//! ```
//!
//! A slot is written piece by piece, and its header anew after each batch, in turns into either copy: a torn header leaves the
//! one before it, which is still right. All numbers are little-endian.

use std::ops::Range;
use std::sync::Arc;

use object_store::path::Path;

use crate::read::ObjectRef;

/// Changes when the format does.
const MAGIC: [u8; 8] = *b"TRILAKE1";
/// Magic, length and checksum.
pub(super) const PREFIX_BYTES: usize = 16;
/// Bytes of an extent that share a checksum.
pub(super) const CHECKED_BYTES: usize = 64 << 10;

/// Sizes of a tier's slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) slot_bytes: u64,
}

impl Layout {
    /// One copy of the header.
    pub(super) fn header_bytes(self) -> usize {
        usize::try_from((self.slot_bytes / 64).clamp(4 << 10, 256 << 10)).unwrap_or(256 << 10)
    }

    /// Where the payload begins, within the slot.
    pub(super) fn payload_start(self) -> u32 {
        u32::try_from(2 * self.header_bytes()).unwrap_or(u32::MAX)
    }

    /// Where a copy of a slot's header is, within the file.
    pub(super) fn header_at(self, slot: u32, copy: u64) -> u64 {
        u64::from(slot) * self.slot_bytes + (copy % 2) * self.header_bytes() as u64
    }

    /// Where a byte of a slot is, within the file.
    pub(super) fn at(self, slot: u32, offset: u32) -> u64 {
        u64::from(slot) * self.slot_bytes + u64::from(offset)
    }
}

/// One range of an object in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) store: Arc<str>,
    pub(super) object: Arc<ObjectRef>,
    pub(super) range: Range<u64>,
    /// Within the slot.
    pub(super) offset: u32,
    /// Of each [`CHECKED_BYTES`] of it.
    pub(super) checksums: Arc<[u32]>,
}

/// A slot's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) slot: u32,
    /// Larger for what was written later.
    pub(super) sequence: u64,
    pub(super) entries: Vec<Entry>,
}

/// Of each part of `bytes`.
pub(super) fn checksums(bytes: &[u8]) -> Arc<[u32]> {
    bytes.chunks(CHECKED_BYTES).map(crc32fast::hash).collect()
}

/// Bytes that an entry needs in a header, at most.
pub(super) fn entry_bytes(store: &str, object: &ObjectRef, bytes: usize) -> usize {
    64 + store.len() + object.location.as_ref().len() + object.version.len() + 4 * bytes.div_ceil(CHECKED_BYTES)
}

impl Header {
    /// Bytes of an empty one, at most.
    pub(super) const EMPTY_BYTES: usize = PREFIX_BYTES + 64;

    pub(super) fn encode(&self, layout: Layout) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(layout.slot_bytes.to_le_bytes());
        body.extend(self.slot.to_le_bytes());
        body.extend(self.sequence.to_le_bytes());
        put_len(&mut body, self.entries.len());
        for entry in &self.entries {
            put_text(&mut body, &entry.store);
            put_text(&mut body, entry.object.location.as_ref());
            put_text(&mut body, &entry.object.version);
            body.extend(entry.object.size_bytes.to_le_bytes());
            body.extend(entry.range.start.to_le_bytes());
            body.extend(entry.range.end.to_le_bytes());
            body.extend(entry.offset.to_le_bytes());
            put_len(&mut body, entry.checksums.len());
            for checksum in entry.checksums.iter() {
                body.extend(checksum.to_le_bytes());
            }
        }
        let mut bytes = MAGIC.to_vec();
        put_len(&mut bytes, body.len());
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    /// How long the header is that begins with `prefix`, if one does.
    pub(super) fn length(prefix: &[u8], layout: Layout) -> Option<usize> {
        let mut reader = Reader(prefix);
        if reader.bytes(MAGIC.len())? != MAGIC {
            return None;
        }
        let length = PREFIX_BYTES.checked_add(reader.u32()? as usize)?;
        (length <= layout.header_bytes()).then_some(length)
    }

    /// The header of this slot; none when a byte is wrong.
    pub(super) fn decode(bytes: &[u8], layout: Layout, slot: u32) -> Option<Self> {
        let length = Self::length(bytes, layout)?;
        let mut prefix = Reader(bytes.get(MAGIC.len() + 4..PREFIX_BYTES)?);
        let body = bytes.get(PREFIX_BYTES..length)?;
        if prefix.u32()? != crc32fast::hash(body) {
            return None;
        }
        let mut reader = Reader(body);
        if reader.u64()? != layout.slot_bytes || reader.u32()? != slot {
            return None;
        }
        let sequence = reader.u64()?;
        let count = reader.u32()?;
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let entry = reader.entry(entries.last())?;
            let bytes = entry.range.end.checked_sub(entry.range.start)?;
            let end = u64::from(entry.offset).checked_add(bytes)?;
            let fits = bytes > 0 && entry.offset >= layout.payload_start() && end <= layout.slot_bytes;
            if !fits || entry.checksums.len() as u64 != bytes.div_ceil(CHECKED_BYTES as u64) {
                return None;
            }
            entries.push(entry);
        }
        Some(Self {
            slot,
            sequence,
            entries,
        })
    }
}

fn put_len(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_len(bytes, text.len());
    bytes.extend(text.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        std::str::from_utf8(self.bytes(length)?).ok()
    }

    /// Shares what is the same as in the entry before.
    fn entry(&mut self, before: Option<&Entry>) -> Option<Entry> {
        let (store, path, version) = (self.text()?, self.text()?, self.text()?);
        let size_bytes = self.u64()?;
        let range = self.u64()?..self.u64()?;
        let offset = self.u32()?;
        let count = self.u32()? as usize;
        let checksums = (self.bytes(count.checked_mul(4)?)?.chunks_exact(4))
            .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect();
        let same_store = before.filter(|before| *before.store == *store);
        let same_object = before.filter(|before| {
            before.object.location.as_ref() == path
                && before.object.version == version
                && before.object.size_bytes == size_bytes
        });
        Some(Entry {
            store: same_store.map_or_else(|| Arc::from(store), |before| Arc::clone(&before.store)),
            object: match same_object {
                Some(before) => Arc::clone(&before.object),
                None => Arc::new(ObjectRef {
                    location: Path::parse(path).ok()?,
                    size_bytes,
                    e_tag: None,
                    version: version.to_owned(),
                }),
            },
            range,
            offset,
            checksums,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(layout: Layout) -> Header {
        let object = |path: &str| {
            Arc::new(ObjectRef {
                location: Path::from(path),
                size_bytes: 77,
                e_tag: None,
                version: "v\"1".to_owned(),
            })
        };
        let entry = |path: &str, range: Range<u64>| Entry {
            store: Arc::from("s3://b"),
            object: object(path),
            offset: layout.payload_start(),
            checksums: vec![7; ((range.end - range.start) as usize).div_ceil(CHECKED_BYTES)].into(),
            range,
        };
        Header {
            slot: 3,
            sequence: 9,
            entries: vec![entry("a/b c", 5..10), entry("a/b c", 20..200_000), entry("d", 0..1)],
        }
    }

    #[test]
    fn what_was_written_is_read_and_any_wrong_byte_is_seen() {
        let layout = Layout { slot_bytes: 1 << 20 };
        let header = header(layout);
        let bytes = header.encode(layout);
        let most: usize = header
            .entries
            .iter()
            .map(|entry| {
                let bytes = (entry.range.end - entry.range.start) as usize;
                entry_bytes(&entry.store, &entry.object, bytes)
            })
            .sum();
        assert!(bytes.len() <= Header::EMPTY_BYTES + most);
        assert_eq!(Header::decode(&bytes, layout, 3), Some(header));
        assert_eq!(Header::decode(&bytes, layout, 4), None);
        assert_eq!(Header::decode(&bytes, Layout { slot_bytes: 2 << 20 }, 3), None);
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0x40;
            assert_eq!(Header::decode(&wrong, layout, 3), None, "byte {at}");
            assert_eq!(Header::decode(&bytes[..at], layout, 3), None, "{at} bytes");
        }
    }
}
