//! Energy of the processor, by the counters that its maker put into it (RAPL), where the system shows them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::profile::{Power, Provenance};

/// Where Linux shows energy counters.
pub const POWERCAP: &str = "/sys/class/powercap";

/// Energy counters of a machine's processors, one per package.
#[derive(Debug, Clone, PartialEq)]
pub struct Counters {
    /// Folder and the value at which the counter starts anew, in microjoules.
    packages: Vec<(PathBuf, f64)>,
}

impl Counters {
    /// Those of a folder such as [`POWERCAP`]; none when there are none or they can't be read, as on most virtual machines.
    pub fn open(folder: &Path) -> Option<Self> {
        let mut packages = Vec::new();
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            let name = std::fs::read_to_string(path.join("name")).unwrap_or_default();
            // A package's parts (cores, memory) are in its own counter, or beside it.
            if name.trim().starts_with("package") && number(&path, "energy_uj").is_some() {
                let range = number(&path, "max_energy_range_uj").unwrap_or(f64::INFINITY);
                packages.push((path, range));
            }
        }
        packages.sort_by(|a, b| a.0.cmp(&b.0));
        (!packages.is_empty()).then_some(Self { packages })
    }

    /// Power drawn while something runs; none when a counter fails.
    pub fn watts(&self, work: impl FnOnce()) -> Option<f64> {
        let before = self.read()?;
        let began = Instant::now();
        work();
        let seconds = began.elapsed().as_secs_f64().max(1e-6);
        let after = self.read()?;
        let each = self.packages.iter().zip(before.iter().zip(&after));
        let joules: f64 = each
            .map(
                |((_, range), (before, after))| match after < before && range.is_finite() {
                    true => after + range - before,
                    false => after - before,
                },
            )
            .sum::<f64>()
            / 1e6;
        Some(joules / seconds).filter(|watts| watts.is_finite() && *watts > 0.0)
    }

    /// Power while all of so many workers compute, and while nothing is asked of them.
    pub fn power(&self, workers: u32, each: Duration) -> Option<Power> {
        let idle_watts = self.watts(|| std::thread::sleep(each))?;
        let active_watts = self.watts(|| {
            std::thread::scope(|scope| {
                for _ in 0..workers.max(1) {
                    scope.spawn(|| spin(each));
                }
            });
        })?;
        Some(Power {
            active_watts,
            // Others may have worked meanwhile.
            idle_watts: idle_watts.min(active_watts),
            provenance: Provenance::Measured,
        })
    }

    fn read(&self) -> Option<Vec<f64>> {
        let each = self.packages.iter().map(|(path, _)| number(path, "energy_uj"));
        each.collect()
    }
}

fn number(folder: &Path, file: &str) -> Option<f64> {
    std::fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
}

fn spin(time: Duration) {
    let began = Instant::now();
    let mut value = 1_u64;
    while began.elapsed() < time {
        for _ in 0..1_000 {
            value = std::hint::black_box(value.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (value >> 7));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("trireme-powercap-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn package(folder: &Path, id: &str, name: &str, energy: u64) {
        let path = folder.join(id);
        std::fs::create_dir_all(&path).unwrap();
        for (file, text) in [
            ("name", name.to_owned()),
            ("energy_uj", energy.to_string()),
            ("max_energy_range_uj", "1000000".to_owned()),
        ] {
            std::fs::write(path.join(file), text).unwrap();
        }
    }

    #[test]
    fn packages_are_added_up_and_counters_start_anew() {
        let folder = folder("two");
        package(&folder, "intel-rapl:0", "package-0", 100);
        package(&folder, "intel-rapl:1", "package-1", 999_000);
        package(&folder, "intel-rapl:0:0", "core", 5);
        let counters = Counters::open(&folder).unwrap();
        let began = Instant::now();
        let watts = counters.watts(|| {
            package(&folder, "intel-rapl:0", "package-0", 400_100);
            package(&folder, "intel-rapl:1", "package-1", 99_000);
            std::thread::sleep(Duration::from_millis(50));
        });
        let seconds = began.elapsed().as_secs_f64();
        // 0.4 J and 0.1 J in at least 50 ms, and at most what passed here.
        let is_sound = |watts: f64| watts * seconds > 0.499 && watts <= 10.0;
        assert!(watts.is_some_and(is_sound), "{watts:?} in {seconds} s");
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(counters.watts(|| ()), None);
    }

    #[test]
    fn a_machine_without_counters_measures_nothing() {
        let folder = folder("none");
        assert_eq!(Counters::open(&folder), None);
        package(&folder, "dtpm:0", "psys", 5);
        assert_eq!(Counters::open(&folder), None);
        // Counters that stand still are no power of zero.
        package(&folder, "intel-rapl:0", "package-0", 5);
        let counters = Counters::open(&folder).unwrap();
        assert_eq!(counters.power(1, Duration::from_millis(2)), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
