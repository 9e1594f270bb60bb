//! Bytes of objects, in pieces that are sent without being copied.
//!
//! Three kinds: pieces in memory (a piece may stand in many objects, and many times in one, so that an object may be larger
//! than memory), a synthetic sequence of a seed, and a local file, which is read as it is sent.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::draw::mix;

/// The synthetic sequence repeats after so many bytes: a prime, so that two aligned parts of one object differ.
const SYNTHETIC_PERIOD: u64 = 4_194_301;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// End offset of each piece, and the piece.
    Pieces(Arc<Vec<(u64, Bytes)>>),
    Synthetic {
        block: Bytes,
        size: u64,
    },
    File {
        file: Arc<File>,
        size: u64,
    },
}

impl Content {
    pub(crate) fn pieces(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let mut end = 0;
        let pieces = pieces
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .map(|piece| {
                end += piece.len() as u64;
                (end, piece)
            })
            .collect();
        Self::Pieces(Arc::new(pieces))
    }

    pub(crate) fn synthetic(seed: u64, size: u64) -> Self {
        Self::Synthetic {
            block: synthetic_block(seed),
            size,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Pieces(pieces) => pieces.last().map_or(0, |(end, _)| *end),
            Self::Synthetic { size, .. } | Self::File { size, .. } => *size,
        }
    }

    /// Some bytes from `start` on: at least one and at most `bytes_max` of them; none at the end.
    ///
    /// # Errors
    /// A local file can't be read, or has become shorter.
    pub(crate) fn chunk(&self, start: u64, bytes_max: u64) -> std::io::Result<Bytes> {
        match self {
            Self::Pieces(pieces) => {
                let index = pieces.partition_point(|(end, _)| *end <= start);
                let Some((end, piece)) = pieces.get(index) else {
                    return Ok(Bytes::new());
                };
                let from = index_of(piece.len() as u64 - (end - start));
                let to = piece.len().min(from.saturating_add(index_of(bytes_max)));
                Ok(piece.slice(from..to))
            }
            Self::Synthetic { block, size } => {
                let from = start % SYNTHETIC_PERIOD;
                let bytes = bytes_max.min(size.saturating_sub(start)).min(SYNTHETIC_PERIOD - from);
                Ok(block.slice(index_of(from)..index_of(from + bytes)))
            }
            Self::File { file, size } => {
                // From the page cache, as a rule: not worth a thread of its own.
                let mut buffer = vec![0; index_of(bytes_max.min(256 << 10).min(size.saturating_sub(start)))];
                file.read_exact_at(&mut buffer, start)?;
                Ok(Bytes::from(buffer))
            }
        }
    }

    /// A range, copied together if it is not in one piece.
    ///
    /// # Errors
    /// As [`Content::chunk`].
    pub(crate) fn range(&self, range: Range<u64>) -> std::io::Result<Bytes> {
        let mut whole = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let chunk = self.chunk(at, range.end - at)?;
            if chunk.is_empty() {
                break;
            }
            at += chunk.len() as u64;
            if whole.is_empty() && at == range.end {
                return Ok(chunk);
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(Bytes::from(whole))
    }
}

/// Offsets within one piece fit: pieces are in memory.
fn index_of(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// What a synthetic object of this seed has in `range`, for comparison.
pub fn synthetic_bytes(seed: u64, range: Range<u64>) -> Bytes {
    let content = Content::synthetic(seed, range.end);
    content.range(range).unwrap_or_default()
}

/// One period of a seed's sequence; the last few seeds' are kept.
fn synthetic_block(seed: u64) -> Bytes {
    static BLOCKS: Mutex<Vec<(u64, Bytes)>> = Mutex::new(Vec::new());
    let mut blocks = BLOCKS.lock();
    if let Some((_, block)) = blocks.iter().find(|(known, _)| *known == seed) {
        return block.clone();
    }
    let mut block = Vec::with_capacity(index_of(SYNTHETIC_PERIOD) + 8);
    let mut word = seed;
    while (block.len() as u64) < SYNTHETIC_PERIOD {
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        block.extend_from_slice(&mix(word).to_le_bytes());
    }
    block.truncate(index_of(SYNTHETIC_PERIOD));
    let block = Bytes::from(block);
    if blocks.len() == 16 {
        blocks.remove(0);
    }
    blocks.push((seed, block.clone()));
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_sequences_are_cut_anywhere() {
        let pieces = Content::pieces([Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"defg")]);
        assert_eq!(pieces.size(), 7);
        assert_eq!(pieces.range(1..6).unwrap(), "bcdef");
        assert_eq!(pieces.chunk(3, 2).unwrap(), "de");
        assert!(pieces.chunk(7, 2).unwrap().is_empty());

        let synthetic = Content::synthetic(7, u64::MAX / 2);
        let over = SYNTHETIC_PERIOD * 1000 - 5;
        let across = synthetic.range(over..over + 10).unwrap();
        assert_eq!(across[5..], synthetic_bytes(7, 0..5)[..]);
        assert_ne!(synthetic_bytes(7, 0..100), synthetic_bytes(8, 0..100));
        assert_ne!(
            synthetic_bytes(7, 0..100),
            synthetic_bytes(7, (8 << 20)..(8 << 20) + 100)
        );
    }
}
