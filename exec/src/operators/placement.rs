//! The node of `EXPLAIN (PLACEMENT)`: what the cost model says of the fragments below it.

use std::fmt;

/// How the answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PlacementFormat {
    /// A row per fragment and candidate.
    #[default]
    Table,
    /// A tree for people.
    Text,
    /// One JSON document.
    Json,
    /// A Mermaid diagram.
    Mermaid,
}

impl fmt::Display for PlacementFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PlacementFormat::Table => "table",
            PlacementFormat::Text => "text",
            PlacementFormat::Json => "json",
            PlacementFormat::Mermaid => "mermaid",
        })
    }
}
