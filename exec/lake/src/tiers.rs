//! Bytes kept near: in memory, then in slots of a local file.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::metrics::{CacheRow, LakeMetrics};
use crate::options::LakeOptions;
use crate::read::{ObjectRef, ReadClass};

/// Where cached bytes were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Memory,
    Disk,
}

/// Both tiers, shared by all stores. Keys are (store key, object version, first byte).
pub(crate) struct Tiers {}

impl Tiers {
    pub(crate) fn new(_options: &LakeOptions) -> Arc<Self> {
        Arc::new(Self {})
    }

    /// The bytes of a range, if one cached range contains it. Never fails: what can't be read is not there.
    pub(crate) async fn get(
        &self,
        _store: &Arc<str>,
        _object: &Arc<ObjectRef>,
        _range: &Range<u64>,
    ) -> Option<(Bytes, Found)> {
        None
    }

    /// What was fetched; whether it is kept, and where, is decided here. Doesn't block.
    pub(crate) fn put(
        &self,
        _store: &Arc<str>,
        _object: &Arc<ObjectRef>,
        _start: u64,
        _bytes: &Bytes,
        _class: ReadClass,
    ) {
    }

    pub(crate) fn metrics(&self) -> LakeMetrics {
        LakeMetrics::default()
    }

    pub(crate) fn rows(&self) -> Vec<CacheRow> {
        Vec::new()
    }
}
