//! Bounds of files' columns as a table's log has them: valid for every row, though not always attained.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};

/// Of one column in one file.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileBounds {
    /// Not above any value; none where it isn't known.
    pub(crate) min: Option<ScalarValue>,
    /// Not below any value.
    pub(crate) max: Option<ScalarValue>,
    /// NULLs, at least.
    pub(crate) nulls: Option<u64>,
}

/// Of all files, as arrays with an entry per file.
#[derive(Debug)]
pub(crate) struct Bounds {
    files: usize,
    rows: ArrayRef,
    columns: HashMap<String, ColumnBounds>,
}

#[derive(Debug)]
struct ColumnBounds {
    min: ArrayRef,
    max: ArrayRef,
    nulls: ArrayRef,
}

impl Bounds {
    /// Of so many files; `rows` has an entry for each. None of it may be wrong: files are left unread by it.
    pub(crate) fn new(rows: Vec<Option<u64>>) -> Self {
        Self {
            files: rows.len(),
            rows: Arc::new(UInt64Array::from(rows)),
            columns: HashMap::new(),
        }
    }

    /// Adds a column by the name that statements use; `files` has an entry for each file, and `null` is its NULL.
    pub(crate) fn insert(&mut self, name: &str, null: &ScalarValue, files: &[FileBounds]) {
        let array = |of: fn(&FileBounds) -> &Option<ScalarValue>| {
            let values = files
                .iter()
                .map(|file| of(file).clone().unwrap_or_else(|| null.clone()));
            ScalarValue::iter_to_array(values).ok()
        };
        let known = |file: &FileBounds| file.min.is_some() || file.max.is_some() || file.nulls.is_some();
        if !files.iter().any(known) {
            return;
        }
        if let (Some(min), Some(max)) = (array(|file| &file.min), array(|file| &file.max)) {
            let nulls = files.iter().map(|file| file.nulls).collect::<UInt64Array>();
            let bounds = ColumnBounds {
                min,
                max,
                nulls: Arc::new(nulls),
            };
            self.columns.insert(name.to_owned(), bounds);
        }
    }
}

impl PruningStatistics for Bounds {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.columns.get(&column.name).map(|bounds| Arc::clone(&bounds.min))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.columns.get(&column.name).map(|bounds| Arc::clone(&bounds.max))
    }

    fn num_containers(&self) -> usize {
        self.files
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        self.columns.get(&column.name).map(|bounds| Arc::clone(&bounds.nulls))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::clone(&self.rows))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
