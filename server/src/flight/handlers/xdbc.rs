//! Types as XDBC (ODBC, JDBC) names them: GetXdbcTypeInfo, and the type names of columns.

use std::sync::OnceLock;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{CommandGetXdbcTypeInfo, Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};
use trireme_exec::QueryError;

use super::metadata::built;

/// SQL name of an Arrow type.
pub fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Null => "NULL",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "DECIMAL"
        }
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "VARBINARY",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::ListView(_)
        | DataType::LargeListView(_) => "ARRAY",
        DataType::Struct(_) => "STRUCT",
        DataType::Map(..) => "MAP",
        DataType::Dictionary(_, value) => type_name(value),
        DataType::RunEndEncoded(_, values) => type_name(values.data_type()),
        DataType::Union(..) => "UNION",
    }
}

/// Decimal digits and scale of a type, where they mean something.
pub fn precision_and_scale(data_type: &DataType) -> (Option<i32>, Option<i32>) {
    match data_type {
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            (Some(i32::from(*precision)), Some(i32::from(*scale)))
        }
        DataType::Int8 | DataType::UInt8 => (Some(3), Some(0)),
        DataType::Int16 | DataType::UInt16 => (Some(5), Some(0)),
        DataType::Int32 | DataType::UInt32 => (Some(10), Some(0)),
        DataType::Int64 => (Some(19), Some(0)),
        DataType::UInt64 => (Some(20), Some(0)),
        DataType::Float32 => (Some(7), None),
        DataType::Float64 => (Some(15), None),
        DataType::Date32 | DataType::Date64 => (Some(10), None),
        _ => (None, None),
    }
}

/// Schema of the answer.
pub fn schema() -> SchemaRef {
    XdbcTypeInfoDataBuilder::new().schema()
}

/// GetXdbcTypeInfo.
///
/// # Errors
/// When the answer can't be built.
pub fn answer(command: CommandGetXdbcTypeInfo) -> Result<RecordBatch, QueryError> {
    static DATA: OnceLock<Result<XdbcTypeInfoData, QueryError>> = OnceLock::new();
    let data = DATA.get_or_init(|| {
        let mut builder = XdbcTypeInfoDataBuilder::new();
        TYPES.iter().for_each(|row| builder.append(row.info()));
        builder.build().map_err(|error| QueryError::internal(error.to_string()))
    });
    match data {
        Ok(data) => built(command.into_builder(data).build()),
        Err(error) => Err(error.clone()),
    }
}

/// How values are written and compared; one row of the type table.
#[derive(Clone, Copy)]
enum Literal {
    Number,
    Text,
    Moment(&'static str, Option<XdbcDatetimeSubcode>),
    Plain,
}

struct Row {
    name: &'static str,
    data_type: XdbcDataType,
    size: i32,
    literal: Literal,
    scales: Option<(i32, i32)>,
    params: &'static [&'static str],
}

const fn row(name: &'static str, data_type: XdbcDataType, size: i32, literal: Literal) -> Row {
    Row {
        name,
        data_type,
        size,
        literal,
        scales: None,
        params: &[],
    }
}

/// Code 1 is SQL_CODE_DATE; the protocol's enumeration has only the interval's name for it.
const SUBCODE_DATE: XdbcDatetimeSubcode = XdbcDatetimeSubcode::XdbcSubcodeYear;

const TEXT_MAX: i32 = i32::MAX;

/// Sorted by data type, as the specification asks.
const TYPES: [Row; 14] = [
    row(
        "TIME",
        XdbcDataType::XdbcTime,
        15,
        Literal::Moment("TIME '", Some(XdbcDatetimeSubcode::XdbcSubcodeTime)),
    ),
    row(
        "DATE",
        XdbcDataType::XdbcDate,
        10,
        Literal::Moment("DATE '", Some(SUBCODE_DATE)),
    ),
    row(
        "TIMESTAMP",
        XdbcDataType::XdbcTimestamp,
        29,
        Literal::Moment("TIMESTAMP '", Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp)),
    ),
    row(
        "TIMESTAMP WITH TIME ZONE",
        XdbcDataType::XdbcTimestamp,
        35,
        Literal::Moment("TIMESTAMP '", Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp)),
    ),
    row("BOOLEAN", XdbcDataType::XdbcBit, 1, Literal::Plain),
    row("TINYINT", XdbcDataType::XdbcTinyint, 3, Literal::Number),
    row("BIGINT", XdbcDataType::XdbcBigint, 19, Literal::Number),
    row(
        "VARBINARY",
        XdbcDataType::XdbcVarbinary,
        TEXT_MAX,
        Literal::Moment("X'", None),
    ),
    Row {
        scales: Some((0, 38)),
        params: &["precision", "scale"],
        ..row("DECIMAL", XdbcDataType::XdbcDecimal, 38, Literal::Number)
    },
    row("INTEGER", XdbcDataType::XdbcInteger, 10, Literal::Number),
    row("SMALLINT", XdbcDataType::XdbcSmallint, 5, Literal::Number),
    row("REAL", XdbcDataType::XdbcFloat, 7, Literal::Number),
    row("DOUBLE", XdbcDataType::XdbcDouble, 15, Literal::Number),
    row("VARCHAR", XdbcDataType::XdbcVarchar, TEXT_MAX, Literal::Text),
];

impl Row {
    fn info(&self) -> XdbcTypeInfo {
        let number = matches!(self.literal, Literal::Number);
        let (prefix, suffix, subcode) = match self.literal {
            Literal::Number | Literal::Plain => (None, None, None),
            Literal::Text => (Some("'"), Some("'"), None),
            Literal::Moment(prefix, subcode) => (Some(prefix), Some("'"), subcode),
        };
        let sql_data_type = if subcode.is_some() {
            XdbcDataType::XdbcDatetime
        } else {
            self.data_type
        };
        XdbcTypeInfo {
            type_name: self.name.into(),
            data_type: self.data_type,
            column_size: Some(self.size),
            literal_prefix: prefix.map(Into::into),
            literal_suffix: suffix.map(Into::into),
            create_params: (!self.params.is_empty()).then(|| self.params.iter().map(ToString::to_string).collect()),
            nullable: Nullable::NullabilityNullable,
            case_sensitive: matches!(self.literal, Literal::Text),
            searchable: Searchable::Full,
            unsigned_attribute: number.then_some(false),
            fixed_prec_scale: false,
            auto_increment: number.then_some(false),
            local_type_name: Some(self.name.into()),
            minimum_scale: self.scales.map(|(minimum, _)| minimum),
            maximum_scale: self.scales.map(|(_, maximum)| maximum),
            sql_data_type,
            datetime_subcode: subcode,
            num_prec_radix: number.then_some(10),
            interval_precision: None,
        }
    }
}
