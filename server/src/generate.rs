//! `trireme generate`: the tables of a benchmark as Parquet or CSV files, made on all cores.
//!
//! ```text
//!  files × row groups ─▶ queue ─▶ worker: make rows, encode a row group ─┐   (any order)
//!                                 worker: …                             ─┼─▶ file: append in order ─▶ fsync ─▶ rename
//!                                 worker: …                             ─┘
//! ```
//!
//! The generators can start at any row, so the row groups of one file are made beside one another: the one large table
//! does not keep the other cores waiting. A file appears under its name only when it is whole.

mod output;
mod progress;
mod tables;

use output::{Encoded, Output};
use parking_lot::Mutex;
use progress::Progress;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;
pub use tables::Dataset;
use tables::Table;

/// A row group of about so many rows is large enough to be read fast and small enough to be read beside others.
const ROWS_PER_GROUP: u64 = 1 << 20;
const SCALE_MIN: f64 = 0.001;
const SCALE_MAX: f64 = 100_000.0;
const PARTS_MAX: usize = 10_000;

/// What the files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Comma-separated values with a header.
    Csv,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
        }
    }
}

/// How Parquet pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// Fast to read.
    Snappy,
    /// Small.
    Zstd,
    /// Not at all.
    None,
}

/// What to make.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// The scale factor; 1 is about 1 GB of text.
    pub scale: f64,
    /// Where the files go; it is created.
    pub out: PathBuf,
    /// Files of each table; with more than one, a table is a folder.
    pub parts: usize,
    /// What the files are.
    pub format: Format,
    /// How Parquet pages are compressed.
    pub compression: Compression,
    /// Whether files of the same names are replaced.
    pub overwrite: bool,
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Rows of all tables.
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Files.
    pub files: usize,
}

/// Why nothing, or not everything, was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// A scale or a number of parts that makes no sense.
    #[error("--{option} cannot be {value}; allowed: from {min} to {max}")]
    Range {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// The least.
        min: String,
        /// The most.
        max: String,
    },
    /// Files that are there already.
    #[error("{} exists already; choose another --out, or replace it with --overwrite", path.display())]
    Exists {
        /// One of them.
        path: PathBuf,
    },
    /// A file of somebody else where a table's own folder goes.
    #[error("{} is not a file of this generator; choose another --out, or move it away", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A file or folder that cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        reason: String,
    },
    /// Rows that cannot be encoded.
    #[error("cannot encode {}: {reason}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// Another worker failed first.
    #[error("stopped")]
    Stopped,
}

impl GenerateError {
    fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            reason: error.to_string(),
        }
    }

    fn encode(path: &Path, error: impl std::fmt::Display) -> Self {
        Self::Encode {
            path: path.to_path_buf(),
            reason: error.to_string(),
        }
    }
}

/// One file: its rows are the parts `first_part..first_part + groups` of `part_count` of the table.
struct FilePlan {
    table: &'static dyn Table,
    path: PathBuf,
    groups: usize,
    first_part: usize,
    part_count: usize,
}

/// Makes the tables. Blocks until all files are whole.
///
/// # Errors
/// Options out of range, files that exist, and what can go wrong with writing; unfinished files are removed.
pub fn generate(dataset: Dataset, options: &GenerateOptions) -> Result<Summary, GenerateError> {
    check(options)?;
    let plans = plan(dataset, options);
    let earlier = earlier_files(dataset, options)?;
    create_folders(&plans)?;
    let outputs: Vec<_> = plans
        .iter()
        .map(|plan| Mutex::new(Output::new(plan, dataset, options)))
        .collect();
    let queue: Vec<(usize, usize)> = plans
        .iter()
        .enumerate()
        .flat_map(|(file, plan)| (0..plan.groups).map(move |group| (file, group)))
        .collect();
    let progress = Progress::start(queue.len());
    let started = Instant::now();

    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let first_error = Mutex::new(None);
    let work = || {
        while let Some(&(file, group)) = queue.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = make_group(&plans[file], &outputs[file], group, options, &progress, started) {
                failed.store(true, Ordering::Relaxed);
                first_error.lock().get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..trireme_config::cores().min(queue.len()) {
            scope.spawn(work);
        }
    });
    progress.finish();
    if let Some(error) = first_error.into_inner() {
        return Err(error);
    }
    remove_leftovers(&earlier, &plans)?;
    let mut summary = Summary {
        rows: 0,
        bytes: 0,
        files: plans.len(),
    };
    for output in outputs {
        let output = output.into_inner();
        summary.rows += output.rows;
        summary.bytes += output.bytes;
    }
    Ok(summary)
}

fn make_group(
    plan: &FilePlan,
    output: &Mutex<Output>,
    group: usize,
    options: &GenerateOptions,
    progress: &Progress,
    started: Instant,
) -> Result<(), GenerateError> {
    let encoder = output.lock().encoder(group)?;
    let batches = plan
        .table
        .batches(options.scale, plan.first_part + group, plan.part_count);
    let (encoded, rows): (Encoded, u64) = encoder.encode(batches, &plan.path)?;
    let mut output = output.lock();
    if output.append(group, encoded, rows)? {
        progress.file_done(&plan.path, output.rows, output.bytes, started.elapsed());
    }
    progress.group_done();
    Ok(())
}

fn check(options: &GenerateOptions) -> Result<(), GenerateError> {
    if !(SCALE_MIN..=SCALE_MAX).contains(&options.scale) {
        return Err(GenerateError::Range {
            option: "scale",
            value: options.scale.to_string(),
            min: SCALE_MIN.to_string(),
            max: SCALE_MAX.to_string(),
        });
    }
    if !(1..=PARTS_MAX).contains(&options.parts) {
        return Err(GenerateError::Range {
            option: "parts",
            value: options.parts.to_string(),
            min: "1".to_string(),
            max: PARTS_MAX.to_string(),
        });
    }
    Ok(())
}

/// Largest tables first, so that the small ones fill the gaps at the end.
fn plan(dataset: Dataset, options: &GenerateOptions) -> Vec<FilePlan> {
    let mut plans = Vec::new();
    for &table in dataset.tables() {
        let files = if table.is_whole() { 1 } else { options.parts };
        let groups_wanted = usize::try_from(table.rows_about(options.scale).div_ceil(ROWS_PER_GROUP)).unwrap_or(1);
        let groups = if table.is_whole() {
            1
        } else {
            groups_wanted.div_ceil(files).max(1)
        };
        let extension = options.format.extension();
        for file in 0..files {
            let name = if options.parts == 1 {
                PathBuf::from(format!("{}.{extension}", table.name()))
            } else {
                Path::new(table.name()).join(format!("part-{file:05}.{extension}"))
            };
            plans.push(FilePlan {
                table,
                path: options.out.join(name),
                groups,
                first_part: file * groups + 1,
                part_count: files * groups,
            });
        }
    }
    plans
}

/// What an earlier run left under the names of the tables, which is replaced only where the user said so.
fn earlier_files(dataset: Dataset, options: &GenerateOptions) -> Result<Vec<PathBuf>, GenerateError> {
    let mut earlier = Vec::new();
    for &table in dataset.tables() {
        for format in [Format::Parquet, Format::Csv] {
            let file = options.out.join(format!("{}.{}", table.name(), format.extension()));
            if file.exists() {
                earlier.push(file);
            }
        }
        let Ok(entries) = std::fs::read_dir(options.out.join(table.name())) else {
            continue;
        };
        for entry in entries.flatten().map(|entry| entry.path()) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with("part-") || !(name.ends_with(".parquet") || name.ends_with(".csv")) {
                // Not of our making: a table of both would be wrong, and removing it is not ours to do.
                return Err(GenerateError::Foreign { path: entry });
            }
            earlier.push(entry);
        }
    }
    match (options.overwrite, earlier.first()) {
        (false, Some(path)) => Err(GenerateError::Exists { path: path.clone() }),
        _ => Ok(earlier),
    }
}

fn create_folders(plans: &[FilePlan]) -> Result<(), GenerateError> {
    for folder in plans.iter().filter_map(|plan| plan.path.parent()) {
        std::fs::create_dir_all(folder).map_err(|error| GenerateError::io(folder, &error))?;
    }
    Ok(())
}

/// Takes away the earlier files that no new file has replaced. It comes last, so that a run that fails takes nothing.
fn remove_leftovers(earlier: &[PathBuf], plans: &[FilePlan]) -> Result<(), GenerateError> {
    for path in earlier
        .iter()
        .filter(|path| plans.iter().all(|plan| plan.path != **path))
    {
        std::fs::remove_file(path).map_err(|error| GenerateError::io(path, &error))?;
        if let Some(folder) = path.parent() {
            // Refused by the system while the folder holds anything, which is what is wanted.
            let _ = std::fs::remove_dir(folder);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    fn options(out: &Path) -> GenerateOptions {
        GenerateOptions {
            scale: 0.01,
            out: out.to_path_buf(),
            parts: 1,
            format: Format::Parquet,
            compression: Compression::Snappy,
            overwrite: false,
        }
    }

    fn rows_of(path: &Path) -> usize {
        let file = std::fs::File::open(path).unwrap();
        ParquetRecordBatchReaderBuilder::try_new(file)
            .unwrap()
            .build()
            .unwrap()
            .map(|b| b.unwrap().num_rows())
            .sum()
    }

    #[test]
    fn parquet_csv_parts_and_refusals() {
        let folder = tempfile::tempdir().unwrap();
        let one = options(folder.path());
        let summary = generate(Dataset::Tpch, &one).unwrap();
        assert_eq!((summary.rows, summary.files), (86_805, 8));
        assert_eq!(rows_of(&folder.path().join("lineitem.parquet")), 60_175);
        assert_eq!(rows_of(&folder.path().join("region.parquet")), 5);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 8, "temporary files are gone");

        assert!(
            generate(Dataset::Tpch, &one)
                .unwrap_err()
                .to_string()
                .contains("--overwrite")
        );
        let many = GenerateOptions {
            parts: 3,
            format: Format::Csv,
            overwrite: true,
            ..one.clone()
        };
        assert_eq!(generate(Dataset::Tpch, &many).unwrap().rows, summary.rows);
        assert!(!folder.path().join("lineitem.parquet").exists());
        let text = std::fs::read_to_string(folder.path().join("nation/part-00000.csv")).unwrap();
        assert!(
            text.starts_with("n_nationkey,n_name,n_regionkey,n_comment\n0,ALGERIA,0,"),
            "{text}"
        );

        let again = GenerateOptions {
            parts: 3,
            overwrite: true,
            compression: Compression::Zstd,
            ..one.clone()
        };
        assert_eq!(generate(Dataset::Tpch, &again).unwrap().rows, summary.rows);
        let parts = (0..3).map(|part| rows_of(&folder.path().join(format!("lineitem/part-{part:05}.parquet"))));
        assert_eq!(parts.sum::<usize>(), 60_175);

        std::fs::write(folder.path().join("orders/mine.parquet"), "x").unwrap();
        assert!(
            generate(Dataset::Tpch, &again)
                .unwrap_err()
                .to_string()
                .contains("mine.parquet")
        );
    }

    #[test]
    fn options_out_of_range() {
        for scale in [0.0, -1.0, f64::NAN, 1e9] {
            assert!(
                generate(
                    Dataset::Tpch,
                    &GenerateOptions {
                        scale,
                        ..options(Path::new("/absent"))
                    }
                )
                .is_err()
            );
        }
        assert!(
            generate(
                Dataset::Tpch,
                &GenerateOptions {
                    parts: 0,
                    ..options(Path::new("/absent"))
                }
            )
            .is_err()
        );
    }

    #[test]
    fn large_tables_have_many_groups() {
        let plans = plan(
            Dataset::Tpch,
            &GenerateOptions {
                scale: 10.0,
                parts: 4,
                ..options(Path::new("/absent"))
            },
        );
        let lineitem: Vec<_> = plans.iter().filter(|plan| plan.table.name() == "lineitem").collect();
        assert_eq!(lineitem.len(), 4);
        assert_eq!(
            (lineitem[1].groups, lineitem[1].first_part, lineitem[1].part_count),
            (15, 16, 60)
        );
    }
}
