//! The settings that a user may change with `SET` in one session, and those of the query engine that pass through.
//!
//! The engine's own settings are an allow-list of prefixes: those of its runtime would change the memory of everybody,
//! those of its catalog would move the tables, and a few would take away a protection.

use crate::Config;
use crate::error::SettingError;
use crate::nearest::nearest;
use crate::table::{Row, Section};
use crate::value::{Bound, Raw, quoted, words};
use std::collections::BTreeMap;

words! {
    /// Which of the processor's variants runs a query's parts.
    pub enum CpuVariant {
        /// Fused pipelines wherever they scan a table's files, DataFusion's operators elsewhere.
        Auto = "auto",
        /// DataFusion's operators only.
        Datafusion = "datafusion",
        /// Fused pipelines wherever they can run.
        Fused = "fused",
    }
}

words! {
    /// Whether fragments run on devices.
    pub enum DeviceMode {
        /// Where it pays; what fails falls back.
        Auto = "auto",
        /// Never.
        Off = "off",
        /// Wherever it is supported; a failure of a supported fragment fails the query.
        Require = "require",
        /// Wherever it is supported, and on the processor too: the rows must be the same.
        Verify = "verify",
    }
}

words! {
    /// What decides where fragments run, among the devices that a session allows.
    pub enum PlacedBy {
        /// The cost model, fragment by fragment.
        Cost = "cost",
        /// The device takes all that it can.
        Rule = "rule",
    }
}

words! {
    /// Whether fragments are shared by the processor and a device.
    pub enum CoExecution {
        /// Where the cost model expects a gain.
        Auto = "auto",
        /// Never.
        Off = "off",
        /// Wherever it is possible.
        Always = "always",
    }
}

words! {
    /// What placements are to make small.
    pub enum Goal {
        /// Time.
        Latency = "latency",
        /// Rent, by the prices of the devices' profiles.
        Cost = "cost",
        /// Energy.
        Energy = "energy",
        /// The product of the three.
        Balanced = "balanced",
    }
}

settings! {
    /// Names that users `SET` and `SHOW` in SQL; they hold for one session.
    pub struct Declared = "trireme" {
        /// A statement that runs longer is cancelled; 0 means never.
        statement_timeout_ms: u64 = 0, Milliseconds, 0..=31_536_000_000;
        /// Whether text columns of results may be sent as Utf8View, which not every client reads.
        string_views: bool = false, Plain;
        /// Rows of the batches that flow between operators; at first what the server's `exec.batch_rows` says.
        batch_rows: usize = 8_192, Count("rows"), 1..=1_048_576;
        /// Parts of a query that run at the same time; at first what the server's `exec.target_partitions` says.
        target_partitions: usize = 0, Count("partitions"), 0..=4_096;
        /// Which of the processor's variants runs a query's parts: auto, datafusion or fused.
        cpu_variant: CpuVariant = CpuVariant::Auto, Plain;
        /// Whether fragments run on devices: auto; off; require, where the failure of a supported fragment fails the query; or verify, where the processor runs them too and the rows are compared.
        device_mode: DeviceMode = DeviceMode::Auto, Plain;
        /// The devices that fragments may run on beside the processor, by the names in `system.devices`: "cuda0,opencl0" (all of them where costs decide, else the first that is there); auto means all accelerators.
        devices: String = "auto".to_owned(), Plain;
        /// What decides where fragments run, among the devices that the session allows: cost (among all devices, fragment by fragment, when the query runs), or rule (the first device takes all that it can).
        placement: PlacedBy = PlacedBy::Cost, Plain;
        /// What placements are to make small: latency, cost, energy, or balanced.
        objective: Goal = Goal::Latency, Plain;
        /// A query is placed so that it is expected to take at most so long, and fails when no placement is: "200ms"; 0 is no bound.
        max_ms: Bound = Bound(0.0), Milliseconds;
        /// A query is placed so that the rent of what it occupies is at most so many dollars, and fails when no placement is; 0 is no bound.
        max_usd: Bound = Bound(0.0), Plain;
        /// A query is placed so that it takes at most so much energy, and fails when no placement does; 0 is no bound.
        max_joules: Bound = Bound(0.0), Plain;
        /// Devices that fragments must run on, by number, as JSON: {"0": "cpu0"}, or what EXPLAIN (PLACEMENT, FORMAT json) wrote; "" pins none. PIN PLACEMENT keeps it for one statement.
        pinned: String = String::new(), Plain;
        /// Whether what has not started of a running query may go to another device when it runs otherwise than expected, or a device fails.
        resteer: bool = true, Plain;
        /// Whether the processor and a device run parts of one fragment's rows at the same time: auto (where the cost model expects that to end sooner), off, or always (wherever it is possible, for tests).
        co_execution: CoExecution = CoExecution::Auto, Plain;
        /// Faults, slowness and mis-estimates to plant, for tests, where `exec.allow_inject` lets administrators: "oom@opencl0:fragment2, lost@opencl0:morsel3, slow@opencl0:10, busy@opencl0:200, rows@fragment1:1000"; "" is none.
        inject: String = String::new(), Plain;
        /// Whether fused pipelines join in the order of the least estimated cost; else as the statement says.
        reorder_joins: bool = true, Plain;
        /// Whether queries that differ only in constants share a plan.
        plan_cache: bool = true, Plain;
    }
}

/// Prefixes of the engine's settings that a session may change.
pub(crate) const ALLOWED_PREFIXES: [&str; 4] = [
    "datafusion.execution.",
    "datafusion.optimizer.",
    "datafusion.explain.",
    "datafusion.sql_parser.",
];

const FIXED_DIALECT: &str = "all sessions speak one dialect of SQL";
const PROTECTION: &str = "it protects the server";
const LOSES_ROWS: &str = "results could lack rows";

/// Engine settings below the allowed prefixes that are refused nevertheless, and why.
pub(crate) const REFUSED: [(&str, &str); 9] = [
    ("datafusion.sql_parser.dialect", FIXED_DIALECT),
    ("datafusion.sql_parser.enable_ident_normalization", FIXED_DIALECT),
    ("datafusion.sql_parser.recursion_limit", PROTECTION),
    ("datafusion.sql_parser.collect_spans", "error messages need it"),
    ("datafusion.optimizer.enable_dynamic_filter_pushdown", LOSES_ROWS),
    ("datafusion.optimizer.enable_join_dynamic_filter_pushdown", LOSES_ROWS),
    (
        "datafusion.optimizer.enable_aggregate_dynamic_filter_pushdown",
        LOSES_ROWS,
    ),
    ("datafusion.optimizer.enable_topk_dynamic_filter_pushdown", LOSES_ROWS),
    (
        "datafusion.execution.skip_physical_aggregate_schema_check",
        "valid queries would fail",
    ),
];

/// The engine's name of the time zone, which is the canonical one.
pub const TIME_ZONE: &str = "datafusion.execution.time_zone";

/// Other names of a setting, lower case.
const ALIASES: [(&str, &str); 8] = [
    ("time_zone", TIME_ZONE),
    ("timezone", TIME_ZONE),
    ("time zone", TIME_ZONE),
    ("time.zone", TIME_ZONE),
    ("trireme.time_zone", TIME_ZONE),
    ("statement_timeout", "trireme.statement_timeout_ms"),
    ("datafusion.execution.batch_size", "trireme.batch_rows"),
    ("datafusion.execution.target_partitions", "trireme.target_partitions"),
];

const SERVER_ADVICE: &str = "it belongs to the server; see `trireme settings` and the server's configuration file";
const VALUE_LENGTH_MAX: usize = 1_024;

/// A checked `SET`: the canonical name and the canonical text of the value, which is what `SHOW` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalValue {
    /// `trireme.…` or `datafusion.…`, lower case.
    pub name: String,
    /// Numbers in the unit of the name, `true` or `false`, or text.
    pub value: String,
}

/// The settings of one session.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SessionSettings {
    /// The settings under `trireme.`.
    pub declared: Declared,
    /// Engine settings that this session has set, by their canonical name. [`TIME_ZONE`] is one of them.
    pub engine: BTreeMap<String, String>,
}

impl std::ops::Deref for SessionSettings {
    type Target = Declared;

    fn deref(&self) -> &Declared {
        &self.declared
    }
}

/// One line of `SHOW ALL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettingRow {
    /// Canonical name.
    pub name: String,
    /// The value in force.
    pub value: String,
    /// What it does.
    pub help: String,
}

impl Section for SessionSettings {
    const NAME: &'static str = Declared::NAME;
    const ABOUT: &'static str = Declared::ABOUT;

    fn rows() -> Vec<Row<Self>> {
        Declared::rows()
            .into_iter()
            .map(|row| row.within(|s: &Self| &s.declared, |s| &mut s.declared))
            .collect()
    }
}

impl SessionSettings {
    /// What a new session of this server starts with.
    pub fn for_server(config: &Config) -> Self {
        let declared = Declared {
            batch_rows: config.exec.batch_rows,
            target_partitions: config.resolved().target_partitions,
            ..Declared::default()
        };
        Self {
            declared,
            engine: BTreeMap::new(),
        }
    }

    /// The canonical name of a setting that a session may change.
    ///
    /// # Errors
    /// Unknown names, with the nearest one, and names of the server and the engine that a session may not change.
    pub fn canonical_name(name: &str) -> Result<String, SettingError> {
        let lower = name.trim().trim_matches('"').to_lowercase();
        if let Some((_, canonical)) = ALIASES.iter().find(|(alias, _)| *alias == lower) {
            return Ok((*canonical).to_string());
        }
        let declared = declared_names();
        if declared.contains(&lower) {
            return Ok(lower);
        }
        let refused = |advice| {
            Err(SettingError::Refused {
                name: lower.clone(),
                advice,
            })
        };
        if let Some((_, advice)) = REFUSED.iter().find(|(refused, _)| *refused == lower) {
            return refused(*advice);
        }
        if ALLOWED_PREFIXES
            .iter()
            .any(|prefix| lower.len() > prefix.len() && lower.starts_with(prefix))
        {
            return Ok(lower);
        }
        if lower.starts_with("datafusion.") || Config::rows().iter().any(|row| row.key() == lower) {
            return refused(SERVER_ADVICE);
        }
        let known = declared.iter().map(String::as_str).chain(["time_zone"]);
        Err(SettingError::Unknown {
            nearest: nearest(&lower, known),
            name: name.to_string(),
        })
    }

    /// Checks a `SET name = value`. Whether an engine setting exists and takes the value is the engine's to say.
    ///
    /// # Errors
    /// Unknown or refused names; values of the wrong type or out of range.
    pub fn validate(name: &str, value: &str) -> Result<CanonicalValue, SettingError> {
        let name = Self::canonical_name(name)?;
        let bad = |name: &str, expected: String| SettingError::BadValue {
            name: name.to_string(),
            value: quoted(value),
            expected,
        };
        for row in Self::rows() {
            if name.strip_prefix("trireme.") == Some(row.key) {
                let mut scratch = Self::default();
                row.read(&mut scratch, &Raw::Untyped(value.to_string()))
                    .map_err(|expected| bad(&name, expected))?;
                return Ok(CanonicalValue {
                    value: row.write(&scratch).plain(),
                    name,
                });
            }
        }
        if name == TIME_ZONE {
            let zone = time_zone(value).ok_or_else(|| {
                bad(
                    &name,
                    "an IANA name such as \"Europe/Athens\" or an offset such as \"+02:00\"".to_string(),
                )
            })?;
            return Ok(CanonicalValue { name, value: zone });
        }
        if value.len() > VALUE_LENGTH_MAX {
            return Err(bad(&name, format!("at most {VALUE_LENGTH_MAX} bytes of text")));
        }
        Ok(CanonicalValue {
            name,
            value: value.to_string(),
        })
    }

    /// Puts a checked value in force.
    pub fn apply(&mut self, checked: &CanonicalValue) {
        for row in Self::rows() {
            if checked.name.strip_prefix("trireme.") == Some(row.key) {
                // A checked value reads back: `validate` wrote it.
                let _ = row.read(self, &Raw::Untyped(checked.value.clone()));
                return;
            }
        }
        self.engine.insert(checked.name.clone(), checked.value.clone());
    }

    /// Back to what `fresh` (a new session) has; `name` must be canonical.
    pub fn reset(&mut self, name: &str, fresh: &Self) {
        for row in Self::rows() {
            if name.strip_prefix("trireme.") == Some(row.key) {
                let _ = row.read(self, &Raw::Untyped(row.write(fresh).plain()));
                return;
            }
        }
        match fresh.engine.get(name) {
            Some(value) => self.engine.insert(name.to_string(), value.clone()),
            None => self.engine.remove(name),
        };
    }

    /// The value of a canonical name, if this crate knows it: an engine setting that was not set is the engine's.
    pub fn get(&self, name: &str) -> Option<String> {
        let declared = Self::rows()
            .into_iter()
            .find(|row| name.strip_prefix("trireme.") == Some(row.key));
        match declared {
            Some(row) => Some(row.write(self).plain()),
            None => self.engine.get(name).cloned(),
        }
    }

    /// The settings under `trireme.`, and the engine settings that this session has set.
    pub fn describe(&self) -> Vec<SessionSettingRow> {
        let declared = Self::rows().into_iter().map(|row| SessionSettingRow {
            name: format!("{}.{}", Self::NAME, row.key),
            value: row.write(self).plain(),
            help: row.help.clone(),
        });
        let engine = self.engine.iter().map(|(name, value)| SessionSettingRow {
            name: name.clone(),
            value: value.clone(),
            help: String::new(),
        });
        declared.chain(engine).collect()
    }
}

fn declared_names() -> Vec<String> {
    Declared::rows()
        .iter()
        .map(|row| format!("{}.{}", Declared::NAME, row.key))
        .collect()
}

/// The zone in the form that the engine reads: an IANA name, or an offset `+hh:mm`.
fn time_zone(value: &str) -> Option<String> {
    let value = value.trim();
    if let Some(zone) = chrono_tz::TZ_VARIANTS
        .iter()
        .find(|zone| zone.name().eq_ignore_ascii_case(value))
    {
        return Some(zone.name().to_string());
    }
    let sign = value.chars().next().filter(|c| matches!(c, '+' | '-'))?;
    let digits: String = value[1..].chars().filter(|c| *c != ':').collect();
    if !digits.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = match digits.len() {
        1 | 2 => (digits.parse::<u32>().ok()?, 0),
        4 => (digits[..2].parse().ok()?, digits[2..].parse::<u32>().ok()?),
        _ => return None,
    };
    (hours <= 18 && minutes < 60).then(|| format!("{sign}{hours:02}:{minutes:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> Result<(String, String), String> {
        SessionSettings::validate(name, value)
            .map(|checked| (checked.name, checked.value))
            .map_err(|error| format!("{error}; {}", error.hint()))
    }

    fn ok(name: &str, value: &str) -> Result<(String, String), String> {
        Ok((name.to_string(), value.to_string()))
    }

    #[test]
    fn values_become_canonical() {
        assert_eq!(
            set("trireme.statement_timeout_ms", "30s"),
            ok("trireme.statement_timeout_ms", "30000")
        );
        assert_eq!(set("Trireme.String_Views", "on"), ok("trireme.string_views", "true"));
        assert_eq!(
            set("datafusion.execution.batch_size", "10"),
            ok("trireme.batch_rows", "10")
        );
        assert_eq!(set("TIMEZONE", "europe/athens"), ok(TIME_ZONE, "Europe/Athens"));
        assert_eq!(set("time_zone", "+2"), ok(TIME_ZONE, "+02:00"));
        assert_eq!(set("time_zone", "-0330"), ok(TIME_ZONE, "-03:30"));
        assert_eq!(
            set("datafusion.explain.format", "tree"),
            ok("datafusion.explain.format", "tree")
        );
    }

    #[test]
    fn refusals_say_what_to_do() {
        let error = |name, value| set(name, value).unwrap_err();
        assert_eq!(
            error("trireme.batch_row", "1"),
            "unknown setting \"trireme.batch_row\"; did you mean `trireme.batch_rows`?"
        );
        assert_eq!(
            error("batch_rows", "1"),
            "unknown setting \"batch_rows\"; did you mean `trireme.batch_rows`?"
        );
        assert_eq!(
            error("extra_float_digits", "1"),
            "unknown setting \"extra_float_digits\"; SHOW ALL lists the settings"
        );
        assert_eq!(
            error("trireme.batch_rows", "0"),
            "setting \"trireme.batch_rows\" cannot be \"0\"; allowed: a number of rows, from 1 to 1048576"
        );
        assert!(error("time_zone", "Mars/Olympus").contains("IANA"));
        assert!(error("time_zone", "+é:00").contains("IANA"));
        for name in [
            "datafusion.runtime.memory_limit",
            "datafusion.catalog.default_schema",
            "exec.memory_bytes",
        ] {
            assert!(error(name, "1").contains("belongs to the server"), "{name}");
        }
        assert!(error("datafusion.sql_parser.dialect", "mysql").contains("one dialect"));
        assert!(error("datafusion.execution.", "1").contains("cannot be changed"));
    }

    #[test]
    fn set_and_reset() {
        let mut config = Config::default();
        config.exec.batch_rows = 77;
        let fresh = SessionSettings::for_server(&config);
        let mut session = fresh.clone();
        assert_eq!(session.batch_rows, 77);
        for (name, value) in [
            ("trireme.batch_rows", "5"),
            ("time_zone", "UTC"),
            ("trireme.string_views", "1"),
        ] {
            session.apply(&SessionSettings::validate(name, value).unwrap());
        }
        assert_eq!((session.batch_rows, session.string_views), (5, true));
        assert_eq!(session.get(TIME_ZONE).as_deref(), Some("UTC"));
        assert_eq!(session.describe().len(), 19);
        for name in ["trireme.batch_rows", "time_zone", "trireme.string_views"] {
            session.reset(&SessionSettings::canonical_name(name).unwrap(), &fresh);
        }
        assert_eq!(session, fresh);
    }
}
