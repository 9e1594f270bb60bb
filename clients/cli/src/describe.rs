//! `\d`, `\dt`, `\dv`, `\dn`, `\l`: lists and descriptions, as results that any format can print.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};

use crate::catalog::{self, ForeignKey, Table};
use crate::connection::Connection;
use crate::error::Failure;
use crate::format::text_batch;
use crate::meta::Relation;
use crate::pattern::Pattern;

/// Field metadata that Flight SQL servers set: the type as SQL names it, and a comment.
const TYPE_NAME: &str = "ARROW:FLIGHT:SQL:TYPE_NAME";
const REMARKS: &str = "ARROW:FLIGHT:SQL:REMARKS";

/// A table to print and what stands around it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) title: Option<String>,
    pub(crate) batch: RecordBatch,
    pub(crate) footer: Vec<String>,
    pub(crate) count_rows: bool,
}

/// `\d NAME`: one report per table that matches.
pub(crate) async fn describe(connection: &Connection, pattern: &Pattern) -> Result<Vec<Report>, Failure> {
    let all = catalog::tables(connection).await?;
    let mut found: Vec<&Table> = all.iter().filter(|table| matches(pattern, table)).collect();
    if pattern.schema.is_none() && found.iter().any(|table| !table.is_system()) {
        found.retain(|table| !table.is_system());
    }
    if found.is_empty() {
        return Err(not_found(pattern, &all));
    }
    let mut reports = Vec::new();
    for table in found {
        // Keys are an extra: a server that does not offer them still has columns to show.
        let primary_key = catalog::primary_key(connection, table).await.unwrap_or_default();
        let foreign_keys = catalog::foreign_keys(connection, table).await.unwrap_or_default();
        let table = &catalog::with_columns(connection, table).await?;
        reports.push(table_report(table, &primary_key, &foreign_keys)?);
    }
    Ok(reports)
}

/// `\dt`, `\dv`, and `\d` without a name, which lists both.
pub(crate) async fn list_tables(
    connection: &Connection,
    what: Option<Relation>,
    pattern: Option<&Pattern>,
    with_system: bool,
) -> Result<Report, Failure> {
    let with_system = with_system || pattern.is_some_and(|pattern| pattern.schema.is_some());
    let mut tables = catalog::tables(connection).await?;
    tables.retain(|table| {
        let kind_fits = match what {
            Some(Relation::Table) => !table.is_view(),
            Some(Relation::View) => table.is_view(),
            None => true,
        };
        kind_fits && (with_system || !table.is_system()) && pattern.is_none_or(|pattern| matches(pattern, table))
    });
    tables.sort_by(|a, b| (&a.catalog, &a.schema, &a.name).cmp(&(&b.catalog, &b.schema, &b.name)));
    let many_catalogs = tables.windows(2).any(|pair| pair[0].catalog != pair[1].catalog);
    let rows: Vec<Vec<Option<String>>> = tables
        .into_iter()
        .map(|table| {
            let kind = Some(table.kind.to_lowercase());
            let mut row = vec![table.schema, Some(table.name), kind];
            if many_catalogs {
                row.insert(0, table.catalog);
            }
            row
        })
        .collect();
    let headers: &[&str] = if many_catalogs {
        &["Catalog", "Schema", "Name", "Type"]
    } else {
        &["Schema", "Name", "Type"]
    };
    let title = match what {
        Some(Relation::Table) => "List of tables",
        Some(Relation::View) => "List of views",
        None => "List of relations",
    };
    list(title, headers, &rows)
}

pub(crate) async fn list_schemas(connection: &Connection, pattern: Option<&Pattern>) -> Result<Report, Failure> {
    let mut schemas = catalog::schemas(connection).await?;
    schemas.retain(|(_, schema)| pattern.is_none_or(|pattern| pattern.name.matches(schema)));
    schemas.sort();
    let rows: Vec<_> = schemas
        .into_iter()
        .map(|(catalog, schema)| vec![Some(catalog), Some(schema)])
        .collect();
    list("List of schemas", &["Catalog", "Name"], &rows)
}

pub(crate) async fn list_catalogs(connection: &Connection) -> Result<Report, Failure> {
    let mut catalogs = catalog::catalogs(connection).await?;
    catalogs.sort();
    let rows: Vec<_> = catalogs.into_iter().map(|name| vec![Some(name)]).collect();
    list("List of catalogs", &["Name"], &rows)
}

fn list(title: &str, headers: &[&str], rows: &[Vec<Option<String>>]) -> Result<Report, Failure> {
    Ok(Report {
        title: Some(title.to_owned()),
        batch: text_batch(headers, rows)?,
        footer: Vec::new(),
        count_rows: true,
    })
}

fn matches(pattern: &Pattern, table: &Table) -> bool {
    pattern.matches(
        table.catalog.as_deref().unwrap_or_default(),
        table.schema.as_deref().unwrap_or_default(),
        &table.name,
    )
}

fn not_found(pattern: &Pattern, all: &[Table]) -> Failure {
    if !pattern.is_plain() {
        return Failure::new("no table or view matches").with_hint("\\d lists all");
    }
    let wanted = pattern.name.text();
    let failure = Failure::new(format!("no table or view is named \"{wanted}\""));
    let lowered = wanted.to_lowercase();
    let nearest = all
        .iter()
        .map(|table| (strsim::jaro_winkler(&table.name.to_lowercase(), &lowered), table))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    failure.with_hint(match nearest {
        Some((_, table)) => format!("did you mean \"{}\"?", table.qualified_name()),
        None => "\\d lists all".to_owned(),
    })
}

fn table_report(table: &Table, primary_key: &[String], foreign_keys: &[ForeignKey]) -> Result<Report, Failure> {
    let schema = table
        .columns
        .as_ref()
        .ok_or_else(|| Failure::new("the server did not send the table's columns"))?;
    let has_remarks = schema
        .fields()
        .iter()
        .any(|field| field.metadata().get(REMARKS).is_some_and(|text| !text.is_empty()));
    let mut headers = vec!["Column", "Type", "Nullable", "Key"];
    if has_remarks {
        headers.push("Comment");
    }
    let rows: Vec<Vec<Option<String>>> = schema
        .fields()
        .iter()
        .map(|field| {
            let nullable = if field.is_nullable() { "" } else { "not null" };
            vec![
                Some(field.name().clone()),
                Some(type_name(field)),
                Some(nullable.to_owned()),
                Some(key_marks(field.name(), primary_key, foreign_keys)),
                field.metadata().get(REMARKS).cloned(),
            ]
        })
        .collect();
    let mut footer = Vec::new();
    if !primary_key.is_empty() {
        footer.push(format!("Primary key: ({})", primary_key.join(", ")));
    }
    if !foreign_keys.is_empty() {
        footer.push("Foreign keys:".to_owned());
    }
    for key in foreign_keys {
        let name = key.name.as_ref().map(|name| format!("\"{name}\" ")).unwrap_or_default();
        footer.push(format!(
            "    {name}({}) references {}({})",
            key.columns.join(", "),
            key.table,
            key.table_columns.join(", ")
        ));
    }
    let what = if table.is_view() { "View" } else { "Table" };
    Ok(Report {
        title: Some(format!("{what} \"{}\"", table.qualified_name())),
        batch: text_batch(&headers, &rows)?,
        footer,
        count_rows: false,
    })
}

fn type_name(field: &Field) -> String {
    let name = match field.metadata().get(TYPE_NAME) {
        Some(name) if !name.is_empty() => name,
        _ => return field.data_type().to_string(),
    };
    match field.data_type() {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if !name.contains('(') =>
        {
            format!("{name}({precision},{scale})")
        }
        _ => name.clone(),
    }
}

fn key_marks(column: &str, primary_key: &[String], foreign_keys: &[ForeignKey]) -> String {
    let mut marks = Vec::new();
    if primary_key.iter().any(|name| name == column) {
        marks.push("primary");
    }
    if foreign_keys
        .iter()
        .any(|key| key.columns.iter().any(|name| name == column))
    {
        marks.push("foreign");
    }
    marks.join(", ")
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;
    use crate::format::{Shape, Style, testing};

    fn orders() -> Table {
        let key = Field::new("id", DataType::Int64, false)
            .with_metadata([(TYPE_NAME.to_owned(), "BIGINT".to_owned())].into());
        Table {
            catalog: Some("trireme".into()),
            schema: Some("public".into()),
            name: "orders".into(),
            kind: "TABLE".into(),
            columns: Some(Schema::new(vec![key, Field::new("customer", DataType::Int32, true)])),
        }
    }

    #[test]
    fn a_table_is_described() {
        let key = ForeignKey {
            name: Some("fk".into()),
            columns: vec!["customer".into()],
            table: "public.customer".into(),
            table_columns: vec!["id".into()],
        };
        let report = table_report(&orders(), &["id".into()], &[key]).unwrap();
        let style = Style {
            title: report.title,
            footer: report.footer,
            count_rows: false,
            ..Style::new(Shape::Table)
        };
        let lines = [
            "         Table \"public.orders\"",
            "  Column  |  Type  | Nullable |   Key   ",
            "----------+--------+----------+---------",
            " id       | BIGINT | not null | primary",
            " customer | Int32  |          | foreign",
            "Primary key: (id)",
            "Foreign keys:",
            "    \"fk\" (customer) references public.customer(id)",
            "",
            "",
        ];
        assert_eq!(testing::print(style, &[report.batch]), lines.join("\n"));
    }

    #[test]
    fn the_nearest_name_is_offered() {
        let pattern = Pattern::parse("ordrs").unwrap();
        let failure = not_found(&pattern, &[orders()]);
        assert_eq!(failure.hint, ["did you mean \"public.orders\"?"]);
    }
}
