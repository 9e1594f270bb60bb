//! Hive partitions: `key=value` folders become columns, typed from their values.

use arrow::datatypes::DataType;
use chrono::NaiveDate;

use crate::error::CatalogError;

/// One partition column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionColumn {
    pub(crate) name: String,
    pub(crate) data_type: DataType,
    /// Some folder spells its value in another way than its type prints it (`month=01`). Then an equality must not be
    /// turned into a folder name.
    pub(crate) loose: bool,
}

/// The columns of these paths (relative to the table's folder), which must all agree. Only the leading folders count: the
/// reader looks for the columns there.
pub(crate) fn infer<'a>(paths: impl Iterator<Item = &'a str>) -> Result<Vec<PartitionColumn>, CatalogError> {
    let mut keys: Option<Vec<String>> = None;
    let mut seen: Vec<ValueKinds> = Vec::new();
    for path in paths {
        let pairs: Vec<(&str, &str)> = folders(path).map_while(|folder| folder.split_once('=')).collect();
        let names: Vec<String> = pairs.iter().map(|(key, _)| (*key).to_owned()).collect();
        match &keys {
            None => {
                seen = pairs.iter().map(|_| ValueKinds::default()).collect();
                keys = Some(names);
            }
            Some(known) if *known != names => return Err(mixed(known, &names, path)),
            Some(_) => {}
        }
        for (kinds, (_, value)) in seen.iter_mut().zip(&pairs) {
            kinds.add(&decoded(value));
        }
    }
    let columns = keys.unwrap_or_default().into_iter().zip(seen);
    Ok(columns
        .map(|(name, kinds)| PartitionColumn {
            name,
            data_type: kinds.data_type(),
            loose: kinds.loose(),
        })
        .collect())
}

/// Folders of a file's path, without the file.
fn folders(path: &str) -> impl Iterator<Item = &str> {
    path.rsplit_once('/').map_or("", |(folders, _)| folders).split('/')
}

fn mixed(known: &[String], other: &[String], path: &str) -> CatalogError {
    let list = |names: &[String]| {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    CatalogError::invalid_hint(
        format!(
            "partition folders disagree: {} in some files, {} at {path}",
            list(known),
            list(other)
        ),
        "give every file of the folder the same key=value folders",
    )
}

struct ValueKinds {
    integers: bool,
    dates: bool,
    canonical: bool,
}

impl Default for ValueKinds {
    fn default() -> Self {
        Self {
            integers: true,
            dates: true,
            canonical: true,
        }
    }
}

impl ValueKinds {
    fn add(&mut self, value: &str) {
        match value.parse::<i64>() {
            Ok(number) => self.canonical &= number.to_string() == value,
            Err(_) => self.integers = false,
        }
        self.dates &= value.len() == 10 && NaiveDate::parse_from_str(value, "%Y-%m-%d").is_ok();
    }

    fn data_type(&self) -> DataType {
        match (self.integers, self.dates) {
            (true, _) => DataType::Int64,
            (false, true) => DataType::Date32,
            (false, false) => DataType::Utf8,
        }
    }

    fn loose(&self) -> bool {
        self.integers && !self.canonical
    }
}

fn decoded(value: &str) -> String {
    // The same decoding that the reader applies to the values it returns.
    url::form_urlencoded::parse(format!("v={}", value.replace('+', "%2B").replace('&', "%26")).as_bytes())
        .next()
        .map_or_else(|| value.to_owned(), |(_, decoded)| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_come_from_all_values() {
        let columns = infer(["y=2024/m=01/d=2024-01-02/k=a/f", "y=2023/m=2/d=2024-01-03/k=1/f"].into_iter()).unwrap();
        let types: Vec<_> = columns
            .iter()
            .map(|column| (column.name.as_str(), column.data_type.clone(), column.loose))
            .collect();
        assert_eq!(
            types,
            [
                ("y", DataType::Int64, false),
                ("m", DataType::Int64, true),
                ("d", DataType::Date32, false),
                ("k", DataType::Utf8, false)
            ]
        );
        assert!(infer(["a=1/f", "b=1/f"].into_iter()).is_err());
        assert!(infer(["f", "g", "plain/a=1/f"].into_iter()).unwrap().is_empty());
    }
}
