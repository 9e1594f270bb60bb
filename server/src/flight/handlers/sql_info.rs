//! GetSqlInfo: every code of the specification has an answer, since clients fail on missing ones.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetSqlInfo, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedElementActions, SqlSupportedGroupBy, SqlSupportedSubqueries, SqlSupportedTransaction,
    SqlSupportedUnions, SqlSupportsConvert, SqlTransactionIsolationLevel, SupportedSqlGrammar,
};
use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;
use trireme_exec::QueryError;

use super::metadata::built;
use crate::flight::front::Front;

/// Schema of the answer.
pub fn schema() -> SchemaRef {
    Arc::new(SqlInfoDataBuilder::schema().clone())
}

/// GetSqlInfo: the codes asked for, or all. The table is made once; clients ask at every connect.
///
/// # Errors
/// When the answer can't be built.
pub fn answer(front: &Front, command: CommandGetSqlInfo) -> Result<RecordBatch, QueryError> {
    static DATA: OnceLock<Result<SqlInfoData, QueryError>> = OnceLock::new();
    match DATA.get_or_init(|| data(front)) {
        Ok(data) => built(command.into_builder(data).build()),
        Err(error) => Err(error.clone()),
    }
}

/// A value of the answer's union; the crate's own enumeration is private.
enum Value {
    String(String),
    Bool(bool),
    BigInt(i64),
    Bitmask(i32),
    StringList(Vec<String>),
    ListMap(BTreeMap<i32, Vec<i32>>),
}

fn append(builder: &mut SqlInfoDataBuilder, info: SqlInfo, value: Value) {
    match value {
        Value::String(text) => builder.append(info, text.as_str()),
        Value::Bool(flag) => builder.append(info, flag),
        Value::BigInt(number) => builder.append(info, number),
        Value::Bitmask(bits) => builder.append(info, bits),
        Value::StringList(texts) => builder.append(info, texts),
        Value::ListMap(map) => builder.append(info, map),
    }
}

/// The bits of enumerated abilities: bit *n* says that ability *n* is there.
fn bits(values: &[i32]) -> Value {
    Value::Bitmask(values.iter().fold(0, |mask, value| mask | (1 << value)))
}

fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

fn number(value: i64) -> Value {
    Value::BigInt(value)
}

fn yes(value: bool) -> Value {
    Value::Bool(value)
}

fn code(value: i32) -> Value {
    Value::Bitmask(value)
}

fn data(front: &Front) -> Result<SqlInfoData, QueryError> {
    let mut builder = SqlInfoDataBuilder::new();
    for (info, value) in server(front)
        .into_iter()
        .chain(dialect(front))
        .chain(grammar())
        .chain(limits(front))
        .chain(transactions())
    {
        append(&mut builder, info, value);
    }
    builder.build().map_err(|error| QueryError::internal(error.to_string()))
}

fn server(front: &Front) -> Vec<(SqlInfo, Value)> {
    let timeout = i32::try_from(front.sessions.fresh().statement_timeout_ms).unwrap_or(i32::MAX);
    vec![
        (SqlInfo::FlightSqlServerName, text("Trireme")),
        (SqlInfo::FlightSqlServerVersion, text(env!("CARGO_PKG_VERSION"))),
        (SqlInfo::FlightSqlServerArrowVersion, text(arrow::ARROW_VERSION)),
        (SqlInfo::FlightSqlServerReadOnly, yes(false)),
        (SqlInfo::FlightSqlServerSql, yes(true)),
        (SqlInfo::FlightSqlServerSubstrait, yes(false)),
        (SqlInfo::FlightSqlServerSubstraitMinVersion, text("")),
        (SqlInfo::FlightSqlServerSubstraitMaxVersion, text("")),
        // Announcing transactions would turn them on in every Python client, whose writes would then be lost.
        (
            SqlInfo::FlightSqlServerTransaction,
            code(SqlSupportedTransaction::None as i32),
        ),
        (SqlInfo::FlightSqlServerCancel, yes(true)),
        (SqlInfo::FlightSqlServerBulkIngestion, yes(false)),
        (SqlInfo::FlightSqlServerIngestTransactionsSupported, yes(false)),
        (SqlInfo::FlightSqlServerStatementTimeout, code(timeout)),
        (SqlInfo::FlightSqlServerTransactionTimeout, code(0)),
    ]
}

fn dialect(front: &Front) -> Vec<(SqlInfo, Value)> {
    let functions = front.engine.functions();
    let keywords = ALL_KEYWORDS.iter().map(|word| (*word).to_owned()).collect();
    vec![
        (SqlInfo::SqlDdlCatalog, yes(false)),
        (SqlInfo::SqlDdlSchema, yes(true)),
        (SqlInfo::SqlDdlTable, yes(true)),
        (
            SqlInfo::SqlIdentifierCase,
            code(SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32),
        ),
        (SqlInfo::SqlIdentifierQuoteChar, text("\"")),
        (
            SqlInfo::SqlQuotedIdentifierCase,
            code(SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32),
        ),
        (SqlInfo::SqlAllTablesAreSelectable, yes(true)),
        (
            SqlInfo::SqlNullOrdering,
            code(SqlNullOrdering::SqlNullsSortedHigh as i32),
        ),
        (SqlInfo::SqlKeywords, Value::StringList(keywords)),
        (SqlInfo::SqlNumericFunctions, Value::StringList(functions.numeric)),
        (SqlInfo::SqlStringFunctions, Value::StringList(functions.string)),
        (SqlInfo::SqlSystemFunctions, Value::StringList(functions.system)),
        (SqlInfo::SqlDatetimeFunctions, Value::StringList(functions.datetime)),
        (SqlInfo::SqlSearchStringEscape, text("\\")),
        (SqlInfo::SqlExtraNameCharacters, text("")),
        (SqlInfo::SqlSupportsColumnAliasing, yes(true)),
        (SqlInfo::SqlNullPlusNullIsNull, yes(true)),
        (SqlInfo::SqlSupportsConvert, Value::ListMap(conversions())),
        (SqlInfo::SqlSupportsTableCorrelationNames, yes(true)),
        (SqlInfo::SqlSupportsDifferentTableCorrelationNames, yes(false)),
        (SqlInfo::SqlSchemaTerm, text("schema")),
        (SqlInfo::SqlProcedureTerm, text("procedure")),
        (SqlInfo::SqlCatalogTerm, text("catalog")),
        (SqlInfo::SqlCatalogAtStart, yes(true)),
        (SqlInfo::SqlSchemasSupportedActions, all_actions()),
        (SqlInfo::SqlCatalogsSupportedActions, all_actions()),
    ]
}

fn all_actions() -> Value {
    bits(&[
        SqlSupportedElementActions::SqlElementInProcedureCalls as i32,
        SqlSupportedElementActions::SqlElementInIndexDefinitions as i32,
        SqlSupportedElementActions::SqlElementInPrivilegeDefinitions as i32,
    ])
}

/// CAST between the scalar types: every one to text and back, numbers among each other, moments among each other.
fn conversions() -> BTreeMap<i32, Vec<i32>> {
    use SqlSupportsConvert as T;
    let numbers = [
        T::SqlConvertBigint,
        T::SqlConvertDecimal,
        T::SqlConvertFloat,
        T::SqlConvertInteger,
    ]
    .into_iter()
    .chain([
        T::SqlConvertNumeric,
        T::SqlConvertReal,
        T::SqlConvertSmallint,
        T::SqlConvertTinyint,
        T::SqlConvertBit,
    ]);
    let numbers: Vec<_> = numbers.map(|kind| kind as i32).collect();
    let moments: Vec<_> = [T::SqlConvertDate, T::SqlConvertTimestamp]
        .map(|kind| kind as i32)
        .to_vec();
    let text = T::SqlConvertVarchar as i32;
    let mut map = BTreeMap::new();
    for family in [&numbers, &moments] {
        for kind in family {
            map.insert(*kind, family.iter().copied().chain([text]).collect());
        }
    }
    map.insert(text, numbers.iter().chain(&moments).copied().chain([text]).collect());
    map
}

fn grammar() -> Vec<(SqlInfo, Value)> {
    vec![
        (SqlInfo::SqlSupportsExpressionsInOrderBy, yes(true)),
        (SqlInfo::SqlSupportsOrderByUnrelated, yes(true)),
        (
            SqlInfo::SqlSupportedGroupBy,
            bits(&[
                SqlSupportedGroupBy::SqlGroupByUnrelated as i32,
                SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32,
            ]),
        ),
        (SqlInfo::SqlSupportsLikeEscapeClause, yes(true)),
        (SqlInfo::SqlSupportsNonNullableColumns, yes(true)),
        (
            SqlInfo::SqlSupportedGrammar,
            bits(&[
                SupportedSqlGrammar::SqlMinimumGrammar as i32,
                SupportedSqlGrammar::SqlCoreGrammar as i32,
            ]),
        ),
        // Bit 0 is ANSI92_ENTRY_SQL (FlightSql.proto, SupportedAnsi92SqlGrammarLevel).
        (SqlInfo::SqlAnsi92SupportedLevel, bits(&[0])),
        (SqlInfo::SqlSupportsIntegrityEnhancementFacility, yes(false)),
        (
            SqlInfo::SqlOuterJoinsSupportLevel,
            bits(&[
                SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32,
                SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins as i32,
            ]),
        ),
        (SqlInfo::SqlSupportedPositionedCommands, bits(&[])),
        (SqlInfo::SqlSelectForUpdateSupported, yes(false)),
        (SqlInfo::SqlStoredProceduresSupported, yes(false)),
        (
            SqlInfo::SqlSupportedSubqueries,
            bits(&[
                SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
                SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
                SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
            ]),
        ),
        (SqlInfo::SqlCorrelatedSubqueriesSupported, yes(true)),
        (
            SqlInfo::SqlSupportedUnions,
            bits(&[
                SqlSupportedUnions::SqlUnion as i32,
                SqlSupportedUnions::SqlUnionAll as i32,
            ]),
        ),
    ]
}

/// 0 means no limit that we know of.
fn limits(front: &Front) -> Vec<(SqlInfo, Value)> {
    let statement = i64::try_from(front.limits.statement_bytes_max).unwrap_or(i64::MAX);
    let unlimited = [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ];
    let mut rows: Vec<_> = unlimited.into_iter().map(|info| (info, number(0))).collect();
    rows.push((SqlInfo::SqlMaxStatementLength, number(statement)));
    rows.push((SqlInfo::SqlMaxRowSizeIncludesBlobs, yes(true)));
    rows
}

fn transactions() -> Vec<(SqlInfo, Value)> {
    vec![
        (
            SqlInfo::SqlDefaultTransactionIsolation,
            number(SqlTransactionIsolationLevel::SqlTransactionNone as i64),
        ),
        (SqlInfo::SqlTransactionsSupported, yes(false)),
        (
            SqlInfo::SqlSupportedTransactionsIsolationLevels,
            bits(&[SqlTransactionIsolationLevel::SqlTransactionNone as i32]),
        ),
        (SqlInfo::SqlDataDefinitionCausesTransactionCommit, yes(false)),
        (SqlInfo::SqlDataDefinitionsInTransactionsIgnored, yes(false)),
        (SqlInfo::SqlSupportedResultSetTypes, bits(&[1])),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, bits(&[])),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly, bits(&[1])),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, bits(&[])),
        (
            SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive,
            bits(&[]),
        ),
        (SqlInfo::SqlBatchUpdatesSupported, yes(true)),
        (SqlInfo::SqlSavepointsSupported, yes(false)),
        (SqlInfo::SqlNamedParametersSupported, yes(false)),
        (SqlInfo::SqlLocatorsUpdateCopy, yes(false)),
        (SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, yes(false)),
    ]
}
