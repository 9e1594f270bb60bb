//! Hive partitions: `key=value` folders become columns, typed from their values.

use arrow::datatypes::DataType;
use chrono::NaiveDate;
use datafusion::common::ScalarValue;

use crate::error::CatalogError;

/// One partition column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionColumn {
    pub(crate) name: String,
    pub(crate) data_type: DataType,
}

/// What writers name the folder of rows without a value.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

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
        })
        .collect())
}

/// The values of a file's folders, one per column.
pub(crate) fn values(path: &str, columns: &[PartitionColumn]) -> Result<Vec<ScalarValue>, CatalogError> {
    let mut pairs = folders(path).map_while(|folder| folder.split_once('='));
    let value = |column: &PartitionColumn| {
        let pair = pairs.next().filter(|(key, _)| *key == column.name);
        let (_, text) = pair.ok_or_else(|| {
            CatalogError::invalid_hint(
                format!("{path} is in no folder {}=…", column.name),
                "give every file of the folder the same key=value folders",
            )
        })?;
        let text = decoded(text);
        if text == NULL_FOLDER {
            return Ok(ScalarValue::try_from(&column.data_type)?);
        }
        ScalarValue::try_from_string(text, &column.data_type).map_err(|_| {
            CatalogError::invalid(format!(
                "the folder of {path} has no {} for {}",
                column.data_type, column.name
            ))
        })
    };
    columns.iter().map(value).collect()
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

#[derive(Default)]
struct ValueKinds {
    any: bool,
    not_integers: bool,
    not_dates: bool,
}

impl ValueKinds {
    fn add(&mut self, value: &str) {
        if value == NULL_FOLDER {
            return;
        }
        self.any = true;
        self.not_integers |= value.parse::<i64>().is_err();
        self.not_dates |= value.len() != 10 || NaiveDate::parse_from_str(value, "%Y-%m-%d").is_err();
    }

    fn data_type(&self) -> DataType {
        match (self.not_integers, self.not_dates) {
            (false, _) if self.any => DataType::Int64,
            (_, false) if self.any => DataType::Date32,
            _ => DataType::Utf8,
        }
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
            .map(|column| (column.name.as_str(), column.data_type.clone()))
            .collect();
        assert_eq!(
            types,
            [
                ("y", DataType::Int64),
                ("m", DataType::Int64),
                ("d", DataType::Date32),
                ("k", DataType::Utf8)
            ]
        );
        let spelled = |path| {
            values(path, &columns)
                .unwrap()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            spelled("y=2024/m=01/d=2024-01-02/k=a%2Fb/f"),
            ["2024", "1", "2024-01-02", "a/b"]
        );
        assert_eq!(spelled("y=1/m=__HIVE_DEFAULT_PARTITION__/d=2024-01-02/k=/f")[1], "NULL");
        assert!(values("y=x/m=1/d=2024-01-02/k=a/f", &columns).is_err());
        assert!(values("y=1/f", &columns).is_err());
        let typed = infer(["y=1/f", "y=__HIVE_DEFAULT_PARTITION__/f"].into_iter()).unwrap();
        assert_eq!(typed[0].data_type, DataType::Int64);
        assert!(infer(["a=1/f", "b=1/f"].into_iter()).is_err());
        assert!(infer(["f", "g", "plain/a=1/f"].into_iter()).unwrap().is_empty());
    }
}
