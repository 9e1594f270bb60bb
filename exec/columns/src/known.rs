//! What held columns tell of a table, for those who estimate its rows.

use object_store::path::Path;
use trireme_device_api::{Values, ZoneMap};

use crate::TableFile;
use crate::cache::ColumnCache;
use crate::files::FileId;

/// Tables of more files are not looked through.
const FILES_MAX: usize = 64;
/// Runs of fewer rows on average are single rows.
const UNIQUE: f64 = 1.01;

/// A segment of a held column: its first row, its rows, what is known of them.
struct Held {
    first_row: u64,
    rows: usize,
    zone: ZoneMap,
}

impl ColumnCache {
    /// Distinct values of a table's column of integral values that is held whole and never descends: each has one run of rows.
    /// `rows` are the table's. None where it is not so, or not known.
    pub fn distinct_in_order(
        &self,
        store_url: &str,
        files: impl ExactSizeIterator<Item = TableFile>,
        column: &str,
        rows: f64,
    ) -> Option<f64> {
        if files.len() > FILES_MAX || rows < 1.0 {
            return None;
        }
        let mut held = Vec::with_capacity(files.len());
        for file in files {
            held.push(self.in_order(store_url, &file, column)?);
        }
        held.sort_by_key(|(_, range)| *range);
        let one_after_another = held.windows(2).all(|pair| pair[0].1.1 < pair[1].1.0);
        let (known, distinct) = held.iter().fold((0.0, 0.0), |(rows, distinct), (file, _)| {
            (rows + file.0, distinct + file.1)
        });
        (one_after_another && known >= rows).then_some(distinct)
    }

    /// Rows and distinct values of one file's column, and its range.
    fn in_order(&self, store_url: &str, file: &TableFile, column: &str) -> Option<((f64, f64), (i128, i128))> {
        let mut segments = self.held(store_url, file, column);
        segments.sort_by_key(|segment| segment.first_row);
        let (mut rows, mut runs, mut range) = (0_u64, 0.0, None::<(i128, i128)>);
        for Held {
            first_row,
            rows: own,
            zone,
        } in &segments
        {
            let (low, high) = zone.range?;
            if *first_row != rows || !zone.sorted || range.is_some_and(|(_, last)| last > low) {
                return None;
            }
            let goes_on = range.is_some_and(|(_, last)| last == low);
            let present = own - zone.null_count.min(*own);
            // Samples count their last runs as longer ones.
            let run_rows = f64::from(zone.run_length).max(1.0);
            let run_rows = if run_rows < UNIQUE { 1.0 } else { run_rows };
            runs += present as f64 / run_rows - f64::from(u8::from(goes_on));
            range = Some((range.map_or(low, |(first, _)| first), high));
            rows += *own as u64;
        }
        let range = range?;
        let most = range.1.abs_diff(range.0) as f64 + 1.0;
        Some(((rows as f64, runs.clamp(1.0, most)), range))
    }

    fn held(&self, store_url: &str, file: &TableFile, column: &str) -> Vec<Held> {
        let place = |id: &FileId| (id.size_bytes, id.version.as_str()) == (file.size_bytes, file.version.as_str());
        let location: &Path = &file.location;
        self.inner.each_of_file(store_url, location, |key, entry| {
            let is_whole = place(&key.file) && key.selection.is_none() && *key.column == *column;
            let is_integral = matches!(entry.column.values, Values::Integers { .. });
            (is_whole && is_integral).then(|| Held {
                first_row: key.first_row,
                rows: entry.column.rows,
                zone: entry.column.zone,
            })
        })
    }
}
