//! What the settings come to on this machine: a 0 that stands for "as the machine allows" becomes a number here, once,
//! so that no two rooms of the server resolve it differently.

use crate::Config;
use std::path::PathBuf;

/// Settings whose default depends on the machine or on another setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// `exec.memory_bytes`, or 60 % of the memory that this process may use.
    pub memory_bytes: usize,
    /// `exec.query_memory_bytes`, or all of `memory_bytes`.
    pub query_memory_bytes: usize,
    /// `exec.column_cache_bytes`, or a quarter of the memory that this process may use.
    pub column_cache_bytes: usize,
    /// `exec.target_partitions`, or the number of cores.
    pub target_partitions: usize,
    /// `limits.max_running`, or max(8, 4 × cores).
    pub max_running: usize,
    /// `exec.spill_dir`, or `.trireme/spill` in the data folder.
    pub spill_dir: PathBuf,
}

impl Config {
    /// The settings that depend on the machine, as numbers.
    pub fn resolved(&self) -> Resolved {
        let or = |value: usize, otherwise: usize| if value == 0 { otherwise } else { value };
        let memory_bytes = or(self.exec.memory_bytes, physical_memory_bytes() / 10 * 6);
        Resolved {
            memory_bytes,
            query_memory_bytes: or(self.exec.query_memory_bytes, memory_bytes).min(memory_bytes),
            column_cache_bytes: or(self.exec.column_cache_bytes, physical_memory_bytes() / 4),
            target_partitions: or(self.exec.target_partitions, cores()),
            max_running: or(self.limits.max_running, (4 * cores()).max(8)),
            spill_dir: self
                .exec
                .spill_dir
                .clone()
                .unwrap_or_else(|| self.server.data_dir.join(".trireme/spill")),
        }
    }
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Memory that this process may use: the machine's, or the limit of its control group if that is lower.
pub fn physical_memory_bytes() -> usize {
    /// Assumed where the system does not say.
    const FALLBACK_BYTES: usize = 4 << 30;
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_bytes(&text));
    let group = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok())
    .min();
    match (machine, group) {
        (Some(machine), Some(group)) => machine.min(group),
        (Some(bytes), None) | (None, Some(bytes)) => bytes,
        (None, None) => FALLBACK_BYTES,
    }
}

fn total_bytes(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_means_what_the_machine_has() {
        let config = Config::default();
        let resolved = config.resolved();
        assert!(resolved.memory_bytes > 0 && resolved.memory_bytes < physical_memory_bytes());
        assert_eq!(resolved.query_memory_bytes, resolved.memory_bytes);
        assert_eq!(resolved.target_partitions, cores());
        assert!(resolved.max_running >= 8);
        assert_eq!(resolved.spill_dir, PathBuf::from("./trireme-data/.trireme/spill"));
    }

    #[test]
    fn a_query_never_gets_more_than_all() {
        let mut config = Config::default();
        config.exec.memory_bytes = 100;
        config.exec.query_memory_bytes = 1000;
        assert_eq!(config.resolved().query_memory_bytes, 100);
        assert_eq!(total_bytes("MemTotal:       16 kB\n"), Some(16 << 10));
    }
}
