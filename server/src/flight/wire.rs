//! Batches → Flight messages without copying column data.
//!
//! ```text
//!  gRPC message:  [5-byte prefix][FlightData: header field][body field's tag and length] [column buffers … as they lie in memory]
//!                  └──────────── one small allocation ─────────────────────────────────┘ └── shared, never copied ──┘
//! ```
//!
//! tonic's codec would copy every result twice more: into the IPC body, and into its own buffer.

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamEncoder;
use arrow_flight::FlightData;
use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::handlers::statement::schema_bytes;

/// `FlightData.data_header` (Flight.proto).
const HEADER_FIELD: u32 = 2;
/// `FlightData.data_body` (Flight.proto).
const BODY_FIELD: u32 = 1000;
/// Continuation marker and length before an encapsulated IPC message.
const IPC_PREFIX_BYTES: usize = 8;
/// Pieces smaller than this are gathered: a frame of its own would cost more than the copy.
const SMALL_BYTES: usize = 1024;
/// A compression flag and a length before each gRPC message.
const GRPC_PREFIX_BYTES: usize = 5;

/// One Flight message in pieces.
#[derive(Debug)]
pub struct Message {
    header: Bytes,
    body: Vec<Bytes>,
}

impl Message {
    /// Bytes of header and body.
    pub fn len(&self) -> usize {
        self.header.len() + self.body_len()
    }

    /// True when there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn body_len(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// The message for tonic's codec: the body is copied together.
    pub fn into_flight_data(self) -> FlightData {
        let mut body = BytesMut::with_capacity(self.body_len());
        self.body.iter().for_each(|piece| body.put_slice(piece));
        FlightData {
            data_header: self.header,
            data_body: body.freeze(),
            ..FlightData::default()
        }
    }

    /// The gRPC message in pieces that can be sent as they are.
    ///
    /// # Errors
    /// When it is longer than gRPC can say (4 GiB).
    pub fn into_grpc(self) -> Result<Vec<Bytes>, ArrowError> {
        let body_len = self.body_len();
        let field_len = |field, length: usize| key_len(field) + encoded_len_varint(length as u64) + length;
        let total = field_len(HEADER_FIELD, self.header.len())
            + if body_len > 0 {
                field_len(BODY_FIELD, body_len)
            } else {
                0
            };
        let total = u32::try_from(total)
            .map_err(|_| ArrowError::InvalidArgumentError("a message is longer than 4 GiB".into()))?;
        let mut pending = BytesMut::with_capacity(GRPC_PREFIX_BYTES + self.header.len() + 32);
        pending.put_u8(0);
        pending.put_u32(total);
        encode_key(HEADER_FIELD, WireType::LengthDelimited, &mut pending);
        encode_varint(self.header.len() as u64, &mut pending);
        pending.put_slice(&self.header);
        let mut pieces = Vec::with_capacity(self.body.len() * 2);
        if body_len > 0 {
            encode_key(BODY_FIELD, WireType::LengthDelimited, &mut pending);
            encode_varint(body_len as u64, &mut pending);
        }
        for piece in self.body {
            if piece.len() < SMALL_BYTES {
                pending.put_slice(&piece);
            } else {
                pieces.extend((!pending.is_empty()).then(|| pending.split().freeze()));
                pieces.push(piece);
            }
        }
        pieces.extend((!pending.is_empty()).then(|| pending.freeze()));
        Ok(pieces)
    }
}

/// Encodes the batches of one stream. Its schema has no dictionaries: results are hydrated before.
pub struct MessageEncoder {
    encoder: StreamEncoder,
    bytes_max: usize,
}

impl MessageEncoder {
    /// An encoder, and the schema's message, which goes out first.
    ///
    /// # Errors
    /// When the schema can't be encoded.
    pub fn new(schema: &Schema, bytes_max: usize) -> Result<(Self, Message), ArrowError> {
        let encapsulated = schema_bytes(schema).map_err(|error| ArrowError::IpcError(error.to_string()))?;
        let header = encapsulated.slice(IPC_PREFIX_BYTES.min(encapsulated.len())..);
        let mut encoder = StreamEncoder::try_new(schema)?;
        // The first call encodes the schema too, which has just been made.
        encoder.encode(&RecordBatch::new_empty(schema.clone().into()))?;
        Ok((
            Self {
                encoder,
                bytes_max: bytes_max.max(1),
            },
            Message {
                header,
                body: Vec::new(),
            },
        ))
    }

    /// The messages of a batch: several when it is large, one when it is empty.
    ///
    /// # Errors
    /// When the batch can't be encoded.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<Message>, ArrowError> {
        let bytes: usize = batch
            .columns()
            .iter()
            .map(|column| column.get_buffer_memory_size())
            .sum();
        let parts = bytes.div_ceil(self.bytes_max).max(1);
        let rows_per_part = batch.num_rows().div_ceil(parts).max(1);
        let mut messages = Vec::with_capacity(parts);
        let mut offset = 0;
        while offset < batch.num_rows() || messages.is_empty() {
            let rows = rows_per_part.min(batch.num_rows() - offset);
            messages.push(self.encode_one(&batch.slice(offset, rows))?);
            offset += rows;
        }
        Ok(messages)
    }

    fn encode_one(&mut self, batch: &RecordBatch) -> Result<Message, ArrowError> {
        let mut pieces = self
            .encoder
            .encode(batch)?
            .into_iter()
            .map(shared)
            .filter(|piece| !piece.is_empty());
        let (prefix, rest) = take(&mut pieces, IPC_PREFIX_BYTES)?;
        let length = prefix
            .get(4..8)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_le_bytes);
        let mut pieces = rest.into_iter().chain(pieces);
        let (header, rest) = take(&mut pieces, length as usize)?;
        Ok(Message {
            header,
            body: rest.into_iter().chain(pieces).collect(),
        })
    }
}

/// A buffer as bytes, without a copy.
fn shared(buffer: Buffer) -> Bytes {
    struct Owner(Buffer);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.as_slice()
        }
    }
    Bytes::from_owner(Owner(buffer))
}

/// The first `wanted` bytes, and what was left of the piece they ended in.
fn take(pieces: &mut impl Iterator<Item = Bytes>, wanted: usize) -> Result<(Bytes, Option<Bytes>), ArrowError> {
    let mut taken = BytesMut::new();
    while taken.len() < wanted {
        let Some(mut piece) = pieces.next() else {
            return Err(ArrowError::IpcError(
                "an encoded message is shorter than its header says".into(),
            ));
        };
        let missing = wanted - taken.len();
        if piece.len() > missing {
            let head = piece.split_to(missing);
            if taken.is_empty() {
                return Ok((head, Some(piece)));
            }
            taken.put_slice(&head);
            return Ok((taken.freeze(), Some(piece)));
        }
        taken.put_slice(&piece);
    }
    Ok((taken.freeze(), None))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int32Type;
    use arrow_flight::decode::FlightRecordBatchStream;
    use arrow_flight::error::FlightError;
    use futures::TryStreamExt;
    use prost::Message as _;

    use super::*;

    fn sample(rows: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(
            (0..rows)
                .map(|row| (row % 7 != 0).then_some(row))
                .collect::<Int64Array>(),
        );
        let texts: ArrayRef = Arc::new(
            (0..rows)
                .map(|row| (row % 5 != 0).then(|| format!("text {row}")))
                .collect::<StringArray>(),
        );
        let flags: ArrayRef = Arc::new((0..rows).map(|row| Some(row % 3 == 0)).collect::<BooleanArray>());
        let lists = (0..rows).map(|row| (row % 4 != 0).then(|| vec![Some(1), None]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists));
        RecordBatch::try_from_iter_with_nullable([
            ("n", numbers, true),
            ("t", texts, true),
            ("f", flags, true),
            ("l", lists, true),
        ])
        .unwrap()
    }

    async fn round_trip(batch: &RecordBatch, bytes_max: usize) -> Vec<RecordBatch> {
        let (mut encoder, schema) = MessageEncoder::new(batch.schema_ref(), bytes_max).unwrap();
        let mut messages = vec![schema];
        messages.extend(encoder.encode(batch).unwrap());
        let decoded = messages.into_iter().map(|message| {
            let grpc: Vec<u8> = message.into_grpc().unwrap().concat();
            assert_eq!(
                u32::from_be_bytes(grpc[1..5].try_into().unwrap()) as usize,
                grpc.len() - GRPC_PREFIX_BYTES
            );
            FlightData::decode(&grpc[GRPC_PREFIX_BYTES..]).map_err(|error| FlightError::DecodeError(error.to_string()))
        });
        let stream = futures::stream::iter(decoded.collect::<Vec<_>>());
        FlightRecordBatchStream::new_from_flight_data(stream)
            .try_collect()
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn batches_slices_and_emptiness_survive() {
        let all = sample(10_000);
        for batch in [all.clone(), all.slice(13, 777), all.slice(9_999, 1), all.slice(0, 0)] {
            for bytes_max in [1 << 21, 5_000] {
                let back = round_trip(&batch, bytes_max).await;
                assert!(!back.is_empty());
                let back = arrow::compute::concat_batches(batch.schema_ref(), &back).unwrap();
                assert_eq!(back, batch);
            }
        }
    }
}
