//! Names: case folding, qualification, and the nearest known name for an error's hint.

use datafusion::sql::planner::IdentNormalizer;
use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, SelectItem};
use trireme_exec::{Position, QueryError};

use crate::ddl::TableName;

/// The one catalog.
pub const CATALOG: &str = "trireme";

/// The schema of a new session.
pub const DEFAULT_SCHEMA: &str = "public";

/// Folds an identifier as SQL says: quoted as written, otherwise lower case.
pub fn fold(ident: &Ident) -> String {
    IdentNormalizer::new(true).normalize(ident.clone())
}

/// The name of a result, if it has one.
pub(crate) fn result_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(fold(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(fold),
        _ => None,
    }
}

/// The folded parts of a dotted name.
///
/// # Errors
/// When a part is no plain identifier.
pub fn parts(name: &ObjectName) -> Result<Vec<String>, QueryError> {
    name.0
        .iter()
        .map(|part| {
            part.as_ident()
                .map(fold)
                .ok_or_else(|| QueryError::invalid(format!("{name} is not a plain name")))
        })
        .collect()
}

/// Qualifies a table's name with the session's schema.
///
/// # Errors
/// For a catalog other than ours, or too many parts.
pub fn table_name(name: &ObjectName, schema: &str) -> Result<TableName, QueryError> {
    let mut parts = parts(name)?;
    if parts.len() == 3 {
        let catalog = parts.remove(0);
        check_catalog(&catalog)?;
    }
    match <[String; 2]>::try_from(parts) {
        Ok([schema, table]) => Ok(TableName { schema, table }),
        Err(mut parts) if parts.len() == 1 => Ok(TableName {
            schema: schema.to_owned(),
            table: parts.remove(0),
        }),
        Err(_) => Err(QueryError::invalid(format!("{name} has too many parts")).with_hint("write schema.table")),
    }
}

/// A schema's name, with or without the catalog before it.
///
/// # Errors
/// For a catalog other than ours, or too many parts.
pub fn schema_name(name: &ObjectName) -> Result<String, QueryError> {
    let mut parts = parts(name)?;
    if parts.len() == 2 {
        let catalog = parts.remove(0);
        check_catalog(&catalog)?;
    }
    match (parts.pop(), parts.is_empty()) {
        (Some(schema), true) => Ok(schema),
        _ => Err(QueryError::invalid(format!("{name} is not a schema's name"))),
    }
}

fn check_catalog(catalog: &str) -> Result<(), QueryError> {
    if catalog == CATALOG {
        return Ok(());
    }
    Err(QueryError::invalid(format!("catalog {catalog} does not exist"))
        .with_hint(format!("the one catalog is {CATALOG}")))
}

/// The known name nearest to `wanted`, if any is near enough to be meant.
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&name.to_lowercase(), &wanted), name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2.max(wanted.chars().count() / 3))
        .map(|(_, name)| name)
}

/// Where `word` first stands as a whole word in the statement; a fallback where the planner keeps no position.
pub fn locate(sql: &str, word: &str) -> Option<Position> {
    if word.is_empty() {
        return None;
    }
    let (text, word) = (sql.to_ascii_lowercase(), word.to_ascii_lowercase());
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let start = text.match_indices(&word).map(|(at, _)| at).find(|&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })?;
    let head = &sql[..start];
    let line = head.matches('\n').count() as u64 + 1;
    let column = head.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
    Some(Position { line, column })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locate_finds_whole_words_only() {
        assert_eq!(
            locate("SELECT ax,\n a FROM t", "a"),
            Some(Position { line: 2, column: 2 })
        );
        assert_eq!(locate("SELECT 1", "x"), None);
    }

    #[test]
    fn nearest_is_near() {
        assert_eq!(nearest("lineitm", ["orders", "lineitem"]), Some("lineitem"));
        assert_eq!(nearest("zzz", ["orders", "lineitem"]), None);
    }
}
