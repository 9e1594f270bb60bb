//! `system.secrets`: which secrets there are, and never what is in them.

use std::time::{Duration, UNIX_EPOCH};

use arrow::array::RecordBatch;
use datafusion::error::Result;
use trireme_exec::io::SecretDefinition;

use super::{batch, instant, text, text_opt};

pub(super) fn secrets(rows: &[SecretDefinition]) -> Result<RecordBatch> {
    batch(vec![
        ("name", text(rows, |row| row.name())),
        ("type", text(rows, |row| row.kind().as_str())),
        ("provider", text(rows, |row| row.provider().as_str())),
        (
            "scope",
            text_opt(rows, |row| (!row.scopes().is_empty()).then(|| row.scopes().join(", "))),
        ),
        (
            "created_at",
            instant(rows, |row| Some(UNIX_EPOCH + Duration::from_millis(row.created_ms()))),
        ),
    ])
}
