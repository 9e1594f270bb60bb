//! The references that are generated from the tables: `SETTINGS.md`, the example file, and the rows of
//! `system.settings`. Nothing here is written by hand, so nothing here can be out of date.

use crate::session::SessionSettings;
use crate::table::Section;
use crate::{Config, ConfigRow, SECTIONS};
use std::fmt::Write;

/// One line of `system.settings`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingRow {
    /// Dotted key.
    pub key: String,
    /// The value in force; secrets are masked. Numbers are in `unit`.
    pub value: String,
    /// The value when nobody sets it.
    pub default: String,
    /// What numbers count; empty for other types.
    pub unit: String,
    /// Accepted type and range.
    pub allowed: String,
    /// What it does.
    pub help: String,
    /// Where the value comes from.
    pub source: String,
}

const MASK: &str = "********";

/// Keys whose values never leave the process.
fn is_secret(key: &str) -> bool {
    ["_password", "_secret", "_token"]
        .iter()
        .any(|suffix| key.ends_with(suffix))
}

impl Config {
    /// Every setting with its value and its source, for `system.settings`.
    pub fn describe(&self) -> Vec<SettingRow> {
        let defaults = Self::default();
        Self::rows()
            .into_iter()
            .map(|row| {
                let key = row.key();
                let value = row.row.write(self).plain();
                SettingRow {
                    value: if is_secret(&key) && !value.is_empty() {
                        MASK.to_string()
                    } else {
                        value
                    },
                    default: row.row.write(&defaults).plain(),
                    unit: row.row.rule.unit.name().to_string(),
                    allowed: row.row.expected.clone(),
                    help: row.row.help.clone(),
                    source: self.source(&key).to_string(),
                    key,
                }
            })
            .collect()
    }

    /// `SETTINGS.md`.
    pub fn reference_markdown() -> String {
        let mut out = String::from(
            "# Settings\n\n\
             Generated from the tables in `config/src`; `UPDATE=1 cargo test --profile ci --workspace` writes it anew.\n\n\
             Later sources win: defaults, the file (`--config FILE` or `TRIREME_CONFIG`), the environment, flags.\n\
             Each setting has the variable `TRIREME_<SECTION>_<KEY>` in capitals: `server.listen` is\n\
             `TRIREME_SERVER_LISTEN`. Lists are separated by commas there. Sizes may be written `64MiB`, times `30s`.\n\
             Relative paths start at the working directory of the process. An unknown key is an error.\n\
             `TRIREME_LOG` is a log filter in `tracing` syntax (`info,trireme_exec=debug`) and wins over\n\
             `server.log_level`.\n",
        );
        let defaults = Self::default();
        let rows = Self::rows();
        for (section, about) in SECTIONS {
            let _ = write!(out, "\n## {section}\n\n{}\n\n", about.trim());
            out.push_str("| key | default | allowed | what it does |\n| --- | --- | --- | --- |\n");
            for row in rows.iter().filter(|row| row.section == section) {
                let default = row.row.write(&defaults).toml(row.row.rule.unit);
                let key = format!("{section}.{}", row.row.key);
                table_line(&mut out, &key, &default, &row.row.expected, &row.row.help);
            }
        }
        session_markdown(&mut out);
        out
    }

    /// `trireme.example.toml`: every setting with its default, commented out.
    pub fn example_toml() -> String {
        let mut out = String::from(
            "# Every setting of Trireme with its default. Generated from the tables in config/src;\n\
             # SETTINGS.md holds the same as a table.\n",
        );
        let defaults = Self::default();
        let rows = Self::rows();
        for (section, about) in SECTIONS {
            let _ = write!(out, "\n# {}\n[{section}]\n", about.trim());
            for ConfigRow { row, .. } in rows.iter().filter(|row| row.section == section) {
                let value = row.write(&defaults).toml(row.rule.unit);
                let _ = write!(
                    out,
                    "\n# {}\n# Allowed: {}.\n# {} = {value}\n",
                    row.help, row.expected, row.key
                );
            }
        }
        out
    }
}

fn session_markdown(out: &mut String) {
    let _ = write!(out, "\n## Session settings\n\n{}\n\n", SessionSettings::ABOUT.trim());
    out.push_str("| name | default | allowed | what it does |\n| --- | --- | --- | --- |\n");
    let defaults = SessionSettings::default();
    for row in SessionSettings::rows() {
        let name = format!("{}.{}", SessionSettings::NAME, row.key);
        let default = row.write(&defaults).toml(row.rule.unit);
        table_line(out, &name, &default, &row.expected, &row.help);
    }
    table_line(
        out,
        "time_zone",
        "\"+00:00\"",
        "an IANA name or an offset such as \"+02:00\"",
        "Time zone of `now()` and of timestamps without one; `SET TIME ZONE` sets it too.",
    );
    let _ = write!(
        out,
        "\nSettings of the query engine under {} may be set too, except {}.\n",
        list(
            crate::session::ALLOWED_PREFIXES
                .iter()
                .map(|prefix| format!("`{prefix}*`"))
        ),
        list(crate::session::REFUSED.iter().map(|(name, _)| format!("`{name}`"))),
    );
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn table_line(out: &mut String, key: &str, default: &str, allowed: &str, help: &str) {
    let cell = |text: &str| text.replace('|', "\\|");
    let _ = writeln!(out, "| `{key}` | `{default}` | {} | {} |", cell(allowed), cell(help));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The files in the tree are what the tables say; `UPDATE=1` writes them.
    #[test]
    fn generated_files_are_fresh() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (name, text) in [
            ("SETTINGS.md", Config::reference_markdown()),
            ("trireme.example.toml", Config::example_toml()),
        ] {
            let path = folder.join(name);
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&path, &text).unwrap();
            }
            let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                on_disk == text,
                "config/{name} is stale; run UPDATE=1 cargo test --profile ci --workspace"
            );
        }
    }

    #[test]
    fn the_example_holds_the_defaults() {
        let live: String = Config::example_toml()
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        std::fs::write(&file, live).unwrap();
        let mut config = Config::load(Some(&file), [], &[]).unwrap();
        assert_eq!(config.sources.len(), Config::rows().len());
        config.sources.clear();
        assert_eq!(config, Config::default());
    }

    /// The rules that the names keep, so that units and variables can be read off them.
    #[test]
    fn rows_are_well_formed() {
        for (section, about) in SECTIONS {
            assert!(!section.contains('_') && !about.is_empty(), "{section}");
        }
        let rows = Config::rows();
        let mut variables: Vec<_> = rows.iter().map(ConfigRow::variable).collect();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), rows.len(), "two settings share a variable");
        for row in &rows {
            let (key, unit) = (row.row.key, row.row.rule.unit.name());
            for suffix in ["bytes", "ms", "seconds"] {
                assert_eq!(
                    key.ends_with(&format!("_{suffix}")),
                    unit == suffix,
                    "{key} counts {unit}"
                );
            }
            assert!(row.row.help.ends_with('.'), "{key}: help is a sentence");
        }
    }

    #[test]
    fn describe_tells_value_unit_and_source() {
        let config = Config::load(None, [], &[("exec.memory_bytes".into(), "1GiB".into())]).unwrap();
        let rows = config.describe();
        let row = rows.iter().find(|row| row.key == "exec.memory_bytes").unwrap();
        assert_eq!(
            (row.value.as_str(), row.default.as_str(), row.unit.as_str()),
            ("1073741824", "0", "bytes")
        );
        assert_eq!(row.source, "command line");
        assert!(is_secret("io.s3_secret") && !is_secret("server.tls_key_file"));
    }
}
