//! The SQL of DDL → [`Ddl`].
//!
//! Keys are taken out of the parsed statement before DataFusion plans it: they are informational here, while DataFusion
//! would trust them for its optimisations and refuses foreign keys altogether.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::sql::parser::{CreateExternalTable, Statement};
use datafusion::sql::sqlparser::ast::{
    AlterTableOperation, ColumnOption, CreateTable, CreateView, Expr as SqlExpr, ForeignKeyConstraint, ObjectName,
    ObjectType, PrimaryKeyConstraint, SchemaName, Statement as SqlStatement, TableConstraint, Value,
};
use trireme_exec::{ErrorClass, QueryError};

use crate::ddl::{Ddl, ExternalTable, FileFormat, IfExists, Key, ManagedSource};
use crate::functions;
use crate::names::{fold, schema_name, table_name};
use crate::output::stored_schema;
use crate::text::sql_text;
use crate::{pins, secrets};

/// The catalog change a statement asks for; `None` when it is no DDL.
///
/// # Errors
/// Anything wrong with the definition.
pub async fn ddl(
    state: &SessionState,
    statement: &Statement,
    schema: &str,
    sql: &str,
) -> Result<Option<Ddl>, QueryError> {
    match statement {
        Statement::CreateExternalTable(create) => external_table(state, create, schema, sql).await.map(Some),
        Statement::Statement(statement) => sql_ddl(state, statement, schema).await,
        _ => Ok(None),
    }
}

async fn sql_ddl(state: &SessionState, statement: &SqlStatement, schema: &str) -> Result<Option<Ddl>, QueryError> {
    let ddl = match statement {
        SqlStatement::CreateTable(create) => create_table(state, create, schema).await?,
        SqlStatement::CreateView(create) => create_view(state, create, schema).await?,
        SqlStatement::CreateFunction(create) => functions::create_function(state, create, schema)?,
        SqlStatement::DropFunction(drop) => functions::drop_function(state, drop, schema)?,
        SqlStatement::CreateSchema {
            schema_name: SchemaName::Simple(name),
            if_not_exists,
            ..
        } => Ddl::CreateSchema {
            name: schema_name(name)?,
            if_exists: if_exists(false, *if_not_exists)?,
        },
        SqlStatement::Drop {
            object_type,
            if_exists,
            names,
            cascade,
            ..
        } => drop_object(object_type, *if_exists, names, *cascade, schema)?,
        SqlStatement::Analyze(analyze) => match &analyze.table_name {
            Some(name) => Ddl::Analyze {
                name: table_name(name, schema)?,
            },
            None => return Err(QueryError::invalid("ANALYZE needs a table").with_hint("write ANALYZE TABLE name")),
        },
        SqlStatement::AlterTable(alter) => add_key(&alter.name, &alter.operations, schema)?,
        call @ SqlStatement::Call(_) => return pins::ddl(call, schema),
        other => return secrets::ddl(other),
    };
    Ok(Some(ddl))
}

pub(crate) fn if_exists(or_replace: bool, if_not_exists: bool) -> Result<IfExists, QueryError> {
    match (or_replace, if_not_exists) {
        (true, true) => Err(QueryError::invalid("OR REPLACE and IF NOT EXISTS exclude each other")),
        (true, false) => Ok(IfExists::Replace),
        (false, true) => Ok(IfExists::Keep),
        (false, false) => Ok(IfExists::Fail),
    }
}

async fn create_table(state: &SessionState, create: &CreateTable, schema: &str) -> Result<Ddl, QueryError> {
    let name = table_name(&create.name, schema)?;
    let if_exists = if_exists(create.or_replace, create.if_not_exists)?;
    if create.temporary {
        return Err(unsupported("temporary tables are not supported").with_hint("CREATE TABLE and DROP it"));
    }
    let (keys, bare) = take_keys(create, schema)?;
    let partition_columns = partition_columns(create.partition_by.as_deref())?;
    let statement = Statement::Statement(Box::new(SqlStatement::CreateTable(bare)));
    let source = match functions::statement_to_plan(state, statement).await? {
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) => match create.input.as_ref() {
            LogicalPlan::EmptyRelation(empty) => ManagedSource::Columns(stored_schema(empty.schema.as_arrow())),
            _ => ManagedSource::Query(Box::new(create.input.as_ref().clone())),
        },
        _ => return Err(unsupported("this form of CREATE TABLE is not supported")),
    };
    check_key_columns(&source, &keys)?;
    Ok(Ddl::CreateTable {
        name,
        source,
        keys,
        partition_columns,
        if_exists,
    })
}

fn unsupported(message: &str) -> QueryError {
    QueryError::new(ErrorClass::Unsupported, message)
}

fn check_key_columns(source: &ManagedSource, keys: &[Key]) -> Result<(), QueryError> {
    let schema: SchemaRef = match source {
        ManagedSource::Columns(schema) => Arc::clone(schema),
        ManagedSource::Query(plan) => Arc::new(plan.schema().as_arrow().clone()),
    };
    for key in keys {
        let (Key::Primary { columns, .. } | Key::Foreign { columns, .. }) = key;
        if let Some(missing) = columns.iter().find(|column| schema.field_with_name(column).is_err()) {
            return Err(QueryError::invalid(format!(
                "the key's column {missing} is not a column of the table"
            )));
        }
    }
    Ok(())
}

/// The statement's keys, and the statement without any constraint but NOT NULL.
fn take_keys(create: &CreateTable, schema: &str) -> Result<(Vec<Key>, CreateTable), QueryError> {
    let mut bare = create.clone();
    let mut keys = Vec::new();
    for column in &mut bare.columns {
        let column_name = fold(&column.name);
        let options = std::mem::take(&mut column.options);
        for option in options {
            match option.option {
                ColumnOption::PrimaryKey(_) => keys.push(Key::Primary {
                    name: None,
                    columns: vec![column_name.clone()],
                }),
                ColumnOption::ForeignKey(key) => {
                    keys.push(foreign_key(&key, Some(vec![column_name.clone()]), schema)?);
                }
                ColumnOption::Null | ColumnOption::NotNull | ColumnOption::Comment(_) => column.options.push(option),
                other => {
                    return Err(unsupported(&format!("the column option {other} is not supported"))
                        .with_hint("columns take NOT NULL, PRIMARY KEY and REFERENCES"));
                }
            }
        }
    }
    for constraint in std::mem::take(&mut bare.constraints) {
        keys.push(key(&constraint, schema)?);
    }
    bare.partition_by = None;
    Ok((keys, bare))
}

fn key(constraint: &TableConstraint, schema: &str) -> Result<Key, QueryError> {
    match constraint {
        TableConstraint::PrimaryKey(key) => primary_key(key),
        TableConstraint::ForeignKey(key) => foreign_key(key, None, schema),
        other => Err(unsupported(&format!("the constraint {other} is not supported"))
            .with_hint("PRIMARY KEY and FOREIGN KEY are kept as information; others are not")),
    }
}

fn primary_key(key: &PrimaryKeyConstraint) -> Result<Key, QueryError> {
    let columns = key
        .columns
        .iter()
        .map(|column| match &column.column.expr {
            SqlExpr::Identifier(ident) => Ok(fold(ident)),
            other => Err(QueryError::invalid(format!("{other} is not a column"))),
        })
        .collect::<Result<_, _>>()?;
    Ok(Key::Primary {
        name: key.name.as_ref().map(fold),
        columns,
    })
}

fn foreign_key(key: &ForeignKeyConstraint, own: Option<Vec<String>>, schema: &str) -> Result<Key, QueryError> {
    Ok(Key::Foreign {
        name: key.name.as_ref().map(fold),
        columns: own.unwrap_or_else(|| key.columns.iter().map(fold).collect()),
        references: table_name(&key.foreign_table, schema)?,
        referenced_columns: key.referred_columns.iter().map(fold).collect(),
    })
}

fn partition_columns(partition_by: Option<&SqlExpr>) -> Result<Vec<String>, QueryError> {
    let column = |expr: &SqlExpr| match expr {
        SqlExpr::Identifier(ident) => Ok(fold(ident)),
        other => Err(QueryError::invalid(format!("PARTITION BY takes columns, not {other}"))),
    };
    match partition_by {
        None => Ok(Vec::new()),
        Some(SqlExpr::Tuple(columns)) => columns.iter().map(column).collect(),
        Some(SqlExpr::Nested(inner)) => Ok(vec![column(inner)?]),
        Some(expr) => Ok(vec![column(expr)?]),
    }
}

async fn create_view(state: &SessionState, create: &CreateView, schema: &str) -> Result<Ddl, QueryError> {
    if create.materialized || create.temporary {
        return Err(
            unsupported("materialized and temporary views are not supported").with_hint("use CREATE TABLE … AS")
        );
    }
    let name = table_name(&create.name, schema)?;
    let if_exists = if_exists(create.or_replace, create.if_not_exists)?;
    let mut query_sql = sql_text(create.query.as_ref());
    if !create.columns.is_empty() {
        let columns: Vec<_> = create.columns.iter().map(|column| column.name.to_string()).collect();
        query_sql = format!("SELECT * FROM ({query_sql}) AS named_columns ({})", columns.join(", "));
    }
    let mut statement = crate::parse::parse(&query_sql)?;
    crate::bind::bind(&mut statement)?;
    let plan = functions::statement_to_plan(state, statement).await?;
    if !plan.get_parameter_names()?.is_empty() {
        return Err(QueryError::invalid("a view takes no parameters"));
    }
    Ok(Ddl::CreateView {
        name,
        query_sql,
        plan: Box::new(plan),
        if_exists,
    })
}

fn drop_object(
    kind: &ObjectType,
    missing_ok: bool,
    names: &[ObjectName],
    cascade: bool,
    schema: &str,
) -> Result<Ddl, QueryError> {
    let [name] = names else {
        return Err(QueryError::invalid("DROP takes one name at a time"));
    };
    match kind {
        ObjectType::Table => Ok(Ddl::DropTable {
            name: table_name(name, schema)?,
            missing_ok,
        }),
        ObjectType::View => Ok(Ddl::DropView {
            name: table_name(name, schema)?,
            missing_ok,
        }),
        ObjectType::Schema => Ok(Ddl::DropSchema {
            name: schema_name(name)?,
            missing_ok,
            cascade,
        }),
        other => Err(unsupported(&format!("DROP {other} is not supported"))),
    }
}

fn add_key(name: &ObjectName, operations: &[AlterTableOperation], schema: &str) -> Result<Ddl, QueryError> {
    let name = table_name(name, schema)?;
    match operations {
        [AlterTableOperation::AddConstraint { constraint, .. }] => {
            let key = key(constraint, schema)?;
            Ok(Ddl::AddKey { name, key })
        }
        _ => Err(unsupported("this ALTER TABLE is not supported")
            .with_hint("ALTER TABLE … ADD PRIMARY KEY (…) or ADD FOREIGN KEY (…) REFERENCES … (…)")),
    }
}

async fn external_table(
    state: &SessionState,
    create: &CreateExternalTable,
    schema: &str,
    sql: &str,
) -> Result<Ddl, QueryError> {
    let name = table_name(&create.name, schema)?;
    let if_exists = if_exists(create.or_replace, create.if_not_exists)?;
    if create.temporary || create.unbounded || !create.order_exprs.is_empty() {
        return Err(unsupported(
            "TEMPORARY, UNBOUNDED and WITH ORDER are not supported for external tables",
        ));
    }
    let [location] = create.locations.as_slice() else {
        return Err(unsupported("an external table has one location").with_hint("a glob or a folder covers many files"));
    };
    let keys = create
        .constraints
        .iter()
        .map(|constraint| key(constraint, schema))
        .collect::<Result<Vec<_>, _>>()?;
    let columns = if create.columns.is_empty() {
        None
    } else {
        Some(declared_columns(state, create).await?)
    };
    let table = ExternalTable {
        name,
        columns,
        format: file_format(&create.file_type)?,
        location: location.clone(),
        partition_columns: create.table_partition_cols.clone(),
        options: options(&create.options)?,
        keys,
        sql: sql.to_owned(),
    };
    Ok(Ddl::CreateExternalTable { table, if_exists })
}

async fn declared_columns(state: &SessionState, create: &CreateExternalTable) -> Result<SchemaRef, QueryError> {
    let mut bare = create.clone();
    bare.constraints.clear();
    bare.table_partition_cols.clear();
    bare.options.clear();
    match state.statement_to_plan(Statement::CreateExternalTable(bare)).await? {
        LogicalPlan::Ddl(DdlStatement::CreateExternalTable(create)) => Ok(stored_schema(create.schema.as_arrow())),
        _ => Ok(Arc::new(Schema::empty())),
    }
}

/// What is said of the format, wherever it is met.
pub const ICEBERG: &str = "Iceberg tables can't be read yet";

fn file_format(text: &str) -> Result<FileFormat, QueryError> {
    match text.to_uppercase().as_str() {
        "PARQUET" => Ok(FileFormat::Parquet),
        "CSV" => Ok(FileFormat::Csv),
        "JSON" | "NDJSON" | "JSONL" => Ok(FileFormat::Json),
        "AVRO" => Ok(FileFormat::Avro),
        "ARROW" => Ok(FileFormat::Arrow),
        "DELTA" | "DELTATABLE" => Ok(FileFormat::Delta),
        "ICEBERG" => Err(QueryError::new(ErrorClass::Unsupported, ICEBERG).with_hint("see docs/formats.md")),
        other => Err(QueryError::invalid(format!("STORED AS {other} is not known"))
            .with_hint("formats: PARQUET, CSV, JSON, AVRO, ARROW, DELTA")),
    }
}

fn options(options: &[(String, Value)]) -> Result<BTreeMap<String, String>, QueryError> {
    options
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => text.clone(),
                Value::Number(text, _) => text.to_string(),
                Value::Boolean(flag) => flag.to_string(),
                _ => return Err(QueryError::invalid(format!("the option {key} needs a literal"))),
            };
            Ok((key.to_lowercase(), value))
        })
        .collect()
}
