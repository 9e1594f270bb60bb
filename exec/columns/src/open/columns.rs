//! What is known of a table's columns before they are decoded.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use trireme_device_api::{ColumnProfile, DeviceError, ZoneMap};

use super::Opening;
use super::constant::Constants;
use super::dictionaries::Dictionaries;
use super::kept::KeptRows;
use crate::cache::ColumnCache;
use crate::files::{ColumnRequest, ColumnSource};
use crate::footer::{FileColumn, FileMeta};
use crate::scan::{Column, ColumnKind, Core};
use crate::segments::{self, Promise, Segment};

/// Where a column's values are; nothing is promised yet. `rows` is the table's.
pub(super) fn column(
    cache: &ColumnCache,
    opening: &Opening,
    request: &ColumnRequest,
    metas: &[Arc<FileMeta>],
    rows: usize,
) -> Result<Column, DeviceError> {
    let table = &opening.table;
    let (name, kind) = match &request.source {
        ColumnSource::Partition(at) => {
            let missing = || DeviceError::Internal(format!("a file without partition value {at}"));
            let value = |file: &crate::TableFile| file.partition.get(*at).cloned().ok_or_else(missing);
            let values = table.files.iter().map(value).collect::<Result<Vec<_>, _>>()?;
            let constants = Constants::new(values, &request.data_type);
            (format!("partition {at}").into(), ColumnKind::Constant(constants))
        }
        ColumnSource::Kept => {
            let kept = table.files.iter().map(|file| file.kept.clone());
            ("kept rows".into(), ColumnKind::Kept(KeptRows::new(kept.collect())))
        }
        ColumnSource::File(name) => {
            let of = |meta: &Arc<FileMeta>| meta.column(name, &request.data_type);
            let files = metas.iter().map(of).collect::<Result<Vec<_>, _>>()?;
            let name: Arc<str> = name.as_str().into();
            let text = request.data_type.is_text();
            let domain = request
                .data_type
                .is_bytes()
                .then(|| cache.inner.domain(&table.name, &name, text, rows));
            (name, ColumnKind::Stored { files, domain })
        }
    };
    let is_raw = match &kind {
        ColumnKind::Stored {
            domain: Some(domain), ..
        } => domain.is_raw,
        _ => false,
    };
    Ok(Column {
        request: request.clone(),
        name,
        kind,
        is_raw: AtomicBool::new(is_raw),
        promises: Vec::new(),
        left_out: None,
    })
}

/// What a file promises of a column of a segment.
pub(super) fn promise(column: &Column, segment: &Segment, metas: &[Arc<FileMeta>]) -> Promise {
    let data_type = &column.request.data_type;
    let known = |zone| Promise {
        zone,
        known_nulls: true,
    };
    let files = match &column.kind {
        ColumnKind::Constant(constants) => return known(constants.zone(segment.file, segment.rows)),
        ColumnKind::Kept(_) => return known(KeptRows::zone()),
        ColumnKind::Stored { files, .. } => files,
    };
    let metadata = &metas[segment.file].metadata;
    match &files[segment.file] {
        FileColumn::Missing => known(ZoneMap {
            range: None,
            null_count: segment.rows,
            sorted: true,
            run_length: segment.rows as f32,
        }),
        FileColumn::Pages { leaf, physical } => segments::promise(metadata, segment, *leaf, Some(*physical), data_type),
        FileColumn::Arrow { leaf } => segments::promise(metadata, segment, *leaf, None, data_type),
    }
}

/// What holds for each column over all segments.
pub(super) fn profiles(core: &Core, dictionaries: Dictionaries) -> Vec<ColumnProfile> {
    let of = |(at, dictionary): (usize, Option<Arc<trireme_device_api::Dictionary>>)| {
        let column = &core.columns[at];
        let data_type = &column.request.data_type;
        match &column.kind {
            ColumnKind::Constant(constants) => return constants.profile(data_type),
            ColumnKind::Kept(_) => return KeptRows::profile(),
            ColumnKind::Stored { .. } => {}
        }
        let left_out = column.left_out.map(|promise| promise.zone);
        let mut range: Option<(i128, i128)> = left_out.and_then(|zone| zone.range);
        let mut nullable = left_out.is_some_and(|zone| zone.null_count > 0);
        for (segment, promise) in column.promises.iter().enumerate() {
            let held = core.cache.peek(&core.key(segment, at));
            let zone = held.map_or(promise.zone, |held| held.zone);
            nullable |= zone.null_count > 0;
            range = union(range, zone.range);
        }
        ColumnProfile {
            data_type: data_type.clone(),
            range: range.or_else(|| data_type.is_integral().then_some((0, 0))),
            nullable,
            distinct: dictionary.as_ref().map(|dictionary| dictionary.len()),
            dictionary,
        }
    };
    dictionaries.into_iter().enumerate().map(of).collect()
}

/// Bounds of both.
pub(super) fn union(left: Option<(i128, i128)>, right: Option<(i128, i128)>) -> Option<(i128, i128)> {
    match (left, right) {
        (Some((low, high)), Some((l, h))) => Some((low.min(l), high.max(h))),
        (left, right) => left.or(right),
    }
}
