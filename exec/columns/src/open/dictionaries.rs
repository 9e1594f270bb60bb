//! Complete dictionaries of string columns: what the cache lacks is decoded as its bytes come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use trireme_device_api::{DeviceError, Dictionary};

use super::Opener;
use super::footers::in_parallel;
use crate::decode::{self, Failure};
use crate::dictionary::Domain;
use crate::footer::FileColumn;
use crate::scan::{Column, ColumnKind, Core};
use crate::segments::Segment;

/// Bytes of dictionary pages that are worth a thread of their own.
const THREAD_BYTES: usize = 256 << 10;

/// Entries of the list that are looked at for one whose bytes are here.
const LOOK_AHEAD: usize = 256;

/// By column; none where a column is strings, or of another type.
pub(super) type Dictionaries = Vec<Option<Arc<Dictionary>>>;

/// A column of a segment of a scan.
#[derive(Clone, Copy)]
pub(super) struct Unknown {
    pub(super) scan: usize,
    pub(super) segment: usize,
    pub(super) column: usize,
    /// Its column is probably none of codes, which an earlier segment will tell.
    pub(super) doubtful: bool,
}

/// Segments of string columns whose values may lack a code, in the order of their use. With `in_passing` none when there are
/// any, or another scan adds values at this moment. Of a scan whose reader may stop early, such columns become strings instead.
pub(super) fn unknown(opener: &Opener, cores: &[Core], in_passing: bool) -> Option<Vec<Unknown>> {
    let mut unknown = Vec::new();
    for scan in opener.order() {
        let core = &cores[scan];
        let first = unknown.len();
        for (column, of) in core.columns.iter().enumerate() {
            let Some((domain, files)) = coded(of) else { continue };
            let values = match in_passing {
                false => domain.lock(),
                true => domain.try_lock()?,
            };
            let in_file = |segment: &&Segment| files[segment.file].leaf().is_some();
            let segments = core.segments.iter().enumerate().filter(|(_, segment)| in_file(segment));
            let lacks: Vec<_> = segments
                .filter(|(_, segment)| !values.covers(&core.place(segment)))
                .collect();
            // To know all values is to read all segments; where nothing of that is kept, they would be read twice.
            let twice =
                || !core.cache.is_enabled() && lacks.iter().any(|(_, at)| core.listed_bytes(at, column).is_none());
            if !lacks.is_empty() && (core.stops || twice()) {
                of.is_raw.store(true, Ordering::Release);
                continue;
            }
            let mut seen = false;
            unknown.extend(lacks.into_iter().map(|(segment, at)| Unknown {
                scan,
                segment,
                column,
                doubtful: std::mem::replace(&mut seen, true) && core.is_spelled_out(at, column),
            }));
        }
        // Each column's first segment comes early: it tells soonest that there are too many values.
        unknown[first..].sort_by_key(|each| (each.doubtful, each.segment));
    }
    (!in_passing || unknown.is_empty()).then_some(unknown)
}

/// Gives all their values codes.
pub(super) fn read(opener: &Opener, cores: &[Core], unknown: Vec<Unknown>) -> Result<(), DeviceError> {
    let count = unknown.len();
    let threads = threads(opener, cores, &unknown);
    let (doubtful, certain): (VecDeque<_>, _) = unknown.into_iter().partition(|each| each.doubtful);
    let waiting = Mutex::new([certain, doubtful]);
    in_parallel(count, threads, |_| {
        let each = next(opener, cores, &waiting)?;
        each.map_or(Ok(()), |each| intern(&cores[each.scan], each.segment, each.column))
    })
}

/// As many as there are workers, if that is worth the start of a thread.
fn threads(opener: &Opener, cores: &[Core], unknown: &[Unknown]) -> usize {
    let bytes = |each: &Unknown| {
        let core = &cores[each.scan];
        let at = &core.segments[each.segment];
        core.listed_bytes(at, each.column).unwrap_or(usize::MAX)
    };
    let bytes = unknown.iter().map(bytes).fold(0, usize::saturating_add);
    (bytes / THREAD_BYTES).clamp(1, opener.options.workers.max(1))
}

/// The first whose bytes are here, of the first list that isn't empty; waits for one. What is asked for becomes urgent: what
/// is doubtful is not asked for before it must be.
fn next(
    opener: &Opener,
    cores: &[Core],
    waiting: &Mutex<[VecDeque<Unknown>; 2]>,
) -> Result<Option<Unknown>, DeviceError> {
    let ready = |each: &Unknown| {
        let core = &cores[each.scan];
        coded(&core.columns[each.column]).is_none() || !core.is_under_way(each.segment, each.column)
    };
    loop {
        if opener.is_dropped() {
            return Err(DeviceError::Cancelled);
        }
        let seen = opener.arrivals.count();
        {
            let mut waiting = waiting.lock();
            let Some(list) = waiting.iter_mut().find(|list| !list.is_empty()) else {
                return Ok(None);
            };
            if let Some(at) = list.iter().take(LOOK_AHEAD).position(ready) {
                return Ok(list.remove(at));
            }
        }
        opener.arrivals.wait(seen);
    }
}

fn coded(column: &Column) -> Option<(&Arc<Domain>, &[FileColumn])> {
    match &column.kind {
        ColumnKind::Stored {
            files,
            domain: Some(domain),
        } if !column.is_raw.load(Ordering::Acquire) => Some((domain, files)),
        _ => None,
    }
}

/// Gives codes to all values of a segment, or finds that they are too many.
fn intern(core: &Core, segment: usize, column: usize) -> Result<(), DeviceError> {
    let of = &core.columns[column];
    let Some((domain, _)) = coded(of) else {
        return Ok(());
    };
    let interned = match core.with_task(segment, column, |task, _| decode::listed::intern(task))? {
        Ok(false) => core.fetch(segment, column).map(|_| ()),
        other => other.map(|_| ()),
    };
    match interned {
        Ok(()) => {
            let at = &core.segments[segment];
            domain.lock().cover(core.place(at), at.rows);
            Ok(())
        }
        Err(Failure::TooMany) => {
            of.is_raw.store(true, Ordering::Release);
            core.cache.make_raw(domain);
            Ok(())
        }
        Err(Failure::Device(error)) => Err(error),
    }
}

/// What all segments' codes mean.
pub(super) fn complete(core: &Core) -> Dictionaries {
    let of = |column: &Column| {
        let (domain, _) = coded(column)?;
        let mut values = domain.lock();
        let dictionary = values.snapshot();
        let cached = values.is_cached();
        drop(values);
        if !cached {
            core.cache.forget(domain);
        }
        Some(dictionary)
    };
    core.columns.iter().map(of).collect()
}
