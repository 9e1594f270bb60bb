//! The cache and the decoder against Parquet's own Arrow reader.

mod bench;
mod cache;
mod encoded;
mod lake;
mod prune;
mod remote;
mod round_trip;
mod tables;
mod write;
