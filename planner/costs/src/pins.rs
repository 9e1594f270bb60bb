//! Placements that a user demands: which device each fragment of a statement's graphs runs on.
//!
//! Read from what `EXPLAIN (PLACEMENT, FORMAT json)` writes, edited or not, or from short forms; kept and compared in one:
//!
//! ```json
//! [{"graph": 0, "fragments": 3, "devices": {"0": "cpu0", "1": "opencl0"}}]
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Graphs of one statement, and fragments of one graph, at most.
const NUMBER_MAX: usize = 10_000;

/// The pinned fragments of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedGraph {
    /// The graph's number in the statement's plan.
    pub graph: usize,
    /// Fragments that the graph had; none when that isn't known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fragments: Option<usize>,
    /// By fragment: the id of its device. Others are free.
    pub devices: BTreeMap<usize, String>,
}

/// The pinned graphs of a statement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pins(Vec<PinnedGraph>);

impl Pins {
    /// From an export, or from `{"0": "cpu0", …}` (fragments of the first graph), or from `[["cpu0", null], …]`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let graphs = match &value {
            Value::Object(of) if of.contains_key("chosen") || of.contains_key("devices") => vec![graph(0, &value)?],
            Value::Object(_) => vec![PinnedGraph {
                devices: by_fragment(&value)?,
                ..PinnedGraph::default()
            }],
            Value::Array(of) if of.iter().all(|each| each.is_string() || each.is_null()) => vec![graph(0, &value)?],
            Value::Array(of) => {
                let graphs = of.iter().enumerate().map(|(at, value)| graph(at, value));
                graphs.collect::<Result<_, _>>()?
            }
            _ => return Err(EXPECTED.to_owned()),
        };
        let pinned: Vec<_> = graphs.into_iter().filter(|graph| !graph.devices.is_empty()).collect();
        match pinned.is_empty() {
            true => Err("it pins no fragment".to_owned()),
            false => Ok(Self(pinned)),
        }
    }

    /// In the one form that is kept.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Of a graph.
    pub fn of_graph(&self, graph: usize) -> Option<&PinnedGraph> {
        self.0.iter().find(|pinned| pinned.graph == graph)
    }

    /// Every device that it names, each once.
    pub fn devices(&self) -> Vec<&str> {
        let mut names: Vec<_> = self
            .0
            .iter()
            .flat_map(|graph| graph.devices.values().map(String::as_str))
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

const EXPECTED: &str =
    "a pinned placement is what EXPLAIN (PLACEMENT, FORMAT json) writes, or {\"0\": \"cpu0\", …} by fragment";

fn graph(at: usize, value: &Value) -> Result<PinnedGraph, String> {
    let number = |name: &str| {
        value
            .get(name)
            .and_then(Value::as_u64)
            .and_then(|number| usize::try_from(number).ok())
    };
    let chosen = match value {
        Value::Array(_) => Some(value),
        _ => value.get("chosen"),
    };
    let pinned = match (chosen.and_then(Value::as_array), value.get("devices")) {
        (Some(chosen), _) => {
            let mut devices = BTreeMap::new();
            for (id, device) in chosen.iter().enumerate() {
                match device {
                    Value::Null => {}
                    Value::String(name) => {
                        devices.insert(id, name.clone());
                    }
                    other => return Err(format!("{other} is not the name of a device")),
                }
            }
            PinnedGraph {
                graph: number("graph").unwrap_or(at),
                fragments: Some(chosen.len()),
                devices,
            }
        }
        (None, Some(devices)) => PinnedGraph {
            graph: number("graph").unwrap_or(at),
            fragments: number("fragments"),
            devices: by_fragment(devices)?,
        },
        (None, None) => return Err(EXPECTED.to_owned()),
    };
    match pinned.graph.max(pinned.fragments.unwrap_or(0)) <= NUMBER_MAX {
        true => Ok(pinned),
        false => Err(format!("there are at most {NUMBER_MAX} graphs and fragments")),
    }
}

fn by_fragment(value: &Value) -> Result<BTreeMap<usize, String>, String> {
    let Value::Object(entries) = value else {
        return Err(EXPECTED.to_owned());
    };
    let entry = |(id, device): (&String, &Value)| {
        let number = id.parse::<usize>().ok().filter(|id| *id < NUMBER_MAX);
        let number = number.ok_or_else(|| format!("\"{id}\" is not the number of a fragment"))?;
        let name = device
            .as_str()
            .ok_or_else(|| format!("{device} is not the name of a device"))?;
        Ok((number, name.to_owned()))
    };
    entries.iter().map(entry).collect()
}

impl PinnedGraph {
    /// For a graph of so many fragments: the device of each, none where it is free.
    ///
    /// # Errors
    /// When the graph isn't the one that was pinned.
    pub fn by_fragment(&self, count: usize) -> Result<Vec<Option<String>>, String> {
        if let Some(pinned) = self.fragments.filter(|pinned| *pinned != count) {
            return Err(format!("it was made for {pinned} fragments, the plan has {count} now"));
        }
        if let Some(id) = self.devices.keys().find(|id| **id >= count) {
            return Err(format!("it pins fragment {id}, the plan has {count} fragments"));
        }
        Ok((0..count).map(|id| self.devices.get(&id).cloned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_one() {
        let pins = Pins::parse(r#"[{"objective": "latency", "chosen": ["cpu0", "opencl0"], "rows": []}]"#).unwrap();
        assert_eq!(
            pins.to_json(),
            r#"[{"graph":0,"fragments":2,"devices":{"0":"cpu0","1":"opencl0"}}]"#
        );
        assert_eq!(Pins::parse(&pins.to_json()).unwrap(), pins);
        assert_eq!(Pins::parse(r#"["cpu0","opencl0"]"#).unwrap(), pins);
        assert_eq!(Pins::parse(r#"[["cpu0","opencl0"]]"#).unwrap(), pins);
        let short = Pins::parse(r#"{"1": "opencl0"}"#).unwrap();
        let of = short.of_graph(0).unwrap();
        assert_eq!(of.by_fragment(3).unwrap(), [None, Some("opencl0".to_owned()), None]);
        assert!(of.by_fragment(1).unwrap_err().contains("fragment 1"));
        assert!(
            pins.of_graph(0)
                .unwrap()
                .by_fragment(3)
                .unwrap_err()
                .contains("2 fragments")
        );
        assert_eq!((pins.devices(), pins.of_graph(1)), (vec!["cpu0", "opencl0"], None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("{", "JSON"),
            ("1", "EXPLAIN"),
            ("{}", "no fragment"),
            (r#"{"first": "cpu0"}"#, "first"),
            (r#"{"0": 1}"#, "name of a device"),
            (r#"{"99999999": "cpu0"}"#, "number"),
            (r#"[{"devices": 1}]"#, "EXPLAIN"),
        ] {
            let error = Pins::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
