//! Graphs, rows and cases as text for people.

use std::fmt::Write;
use std::sync::Arc;

use trireme_device_api::{
    Aggregate, BinaryOperator, Expr, Field, Fragment, Graph, IntervalKind, Node, Sink, SortKey, Step, Type, Value,
};

use crate::generate::Case;
use crate::values::Row;

/// Rows beyond these are counted, not shown.
const ROWS_SHOWN: usize = 40;

/// A type, short.
pub fn type_name(data_type: &Type) -> String {
    match data_type {
        Type::Decimal { precision, scale } => format!("Decimal({precision},{scale})"),
        Type::Timestamp { unit, zone: None } => format!("Timestamp({unit:?})"),
        Type::Timestamp { unit, zone: Some(zone) } => format!("Timestamp({unit:?},{zone})"),
        Type::Interval(IntervalKind::MonthDayNano) => "Interval".to_owned(),
        other => format!("{other:?}"),
    }
}

/// A value.
pub(super) fn value_text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Boolean(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => format!("{value:?}"),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => format!("{text:?}"),
            Err(_) => format!("{bytes:02x?}"),
        },
        Value::Interval(value) => format!("{}m{}d{}ns", value.months, value.days, value.nanoseconds),
    }
}

fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    items.iter().map(show).collect::<Vec<_>>().join(", ")
}

fn symbol(op: BinaryOperator) -> &'static str {
    match op {
        BinaryOperator::Add => "+",
        BinaryOperator::Subtract => "-",
        BinaryOperator::Multiply => "*",
        BinaryOperator::Divide => "/",
        BinaryOperator::Remainder => "%",
        BinaryOperator::Equal => "=",
        BinaryOperator::NotEqual => "<>",
        BinaryOperator::Less => "<",
        BinaryOperator::LessOrEqual => "<=",
        BinaryOperator::Greater => ">",
        BinaryOperator::GreaterOrEqual => ">=",
        BinaryOperator::Distinct => "IS DISTINCT FROM",
        BinaryOperator::NotDistinct => "IS NOT DISTINCT FROM",
        BinaryOperator::And => "AND",
        BinaryOperator::Or => "OR",
        BinaryOperator::BitAnd => "&",
        BinaryOperator::BitOr => "|",
        BinaryOperator::BitXor => "^",
    }
}

/// An expression; columns as `#position`, parameters as `$position`.
pub fn expr_text(expr: &Expr) -> String {
    let typed = type_name(&expr.data_type);
    match &expr.node {
        Node::Column(index) => format!("#{index}"),
        Node::Literal(value) => format!("{}::{typed}", value_text(value)),
        Node::Parameter(index) => format!("${index}::{typed}"),
        Node::Binary { op, left, right } => {
            let operation = format!("({} {} {})", expr_text(left), symbol(*op), expr_text(right));
            if matches!(expr.data_type, Type::Boolean) {
                operation
            } else {
                format!("{operation}::{typed}")
            }
        }
        Node::Not(operand) => format!("NOT {}", expr_text(operand)),
        Node::Negate(operand) => format!("(- {})", expr_text(operand)),
        Node::IsNull(operand) => format!("{} IS NULL", expr_text(operand)),
        Node::IsNotNull(operand) => format!("{} IS NOT NULL", expr_text(operand)),
        Node::Cast { expr: operand, safe } => {
            let name = if *safe { "TRY_CAST" } else { "CAST" };
            format!(
                "{name}({} [{}] AS {typed})",
                expr_text(operand),
                type_name(&operand.data_type)
            )
        }
        Node::Case { branches, otherwise } => {
            let branches = list(branches, |(condition, value)| {
                format!("WHEN {} THEN {}", expr_text(condition), expr_text(value))
            });
            let otherwise = otherwise
                .as_ref()
                .map(|otherwise| format!(" ELSE {}", expr_text(otherwise)));
            format!("CASE {branches}{} END", otherwise.unwrap_or_default())
        }
        Node::InList {
            expr: operand,
            list: items,
            negated,
        } => format!(
            "{}{} IN ({})",
            expr_text(operand),
            not(*negated),
            list(items, expr_text)
        ),
        Node::Like {
            expr: operand,
            pattern,
            negated,
            case_insensitive,
        } => {
            let name = if *case_insensitive { "ILIKE" } else { "LIKE" };
            format!(
                "({}{} {name} {})",
                expr_text(operand),
                not(*negated),
                expr_text(pattern)
            )
        }
        Node::Extract { part, expr: operand } => format!("EXTRACT({part:?} FROM {})", expr_text(operand)),
        Node::Function { function, args } => format!("{}({})", function.name(), list(args, expr_text)),
        Node::Host { function, args } => format!("{}({})", function.name, list(args, expr_text)),
    }
}

fn not(negated: bool) -> &'static str {
    if negated { " NOT" } else { "" }
}

fn sort_key_text(key: &SortKey) -> String {
    let direction = if key.descending { "DESC" } else { "ASC" };
    let nulls = if key.nulls_first { "FIRST" } else { "LAST" };
    format!(
        "{} [{}] {direction} NULLS {nulls}",
        expr_text(&key.expr),
        type_name(&key.expr.data_type)
    )
}

fn aggregate_text(aggregate: &Aggregate) -> String {
    let argument = aggregate.argument.as_ref().map_or("*".to_owned(), |argument| {
        format!("{} [{}]", expr_text(argument), type_name(&argument.data_type))
    });
    let distinct = if aggregate.distinct { "DISTINCT " } else { "" };
    let mut text = format!("{:?}({distinct}{argument}", aggregate.function);
    if !aggregate.order.is_empty() {
        text += &format!(" ORDER BY {}", list(&aggregate.order, sort_key_text));
    }
    text += &format!(")::{}", type_name(&aggregate.data_type));
    if let Some(filter) = &aggregate.filter {
        text += &format!(" FILTER {}", expr_text(filter));
    }
    text
}

fn fields_text(fields: &[Field]) -> String {
    list(fields, |field| {
        format!(
            "{} {}{}",
            field.name,
            type_name(&field.data_type),
            if field.nullable { "" } else { " NOT NULL" }
        )
    })
}

fn step_text(step: &Step) -> String {
    match step {
        Step::Filter(predicate) => format!("filter {}", expr_text(predicate)),
        Step::Project(exprs) => format!("project {}", list(exprs, expr_text)),
        Step::Probe(probe) => {
            let mut text = format!(
                "probe {:?} fragment {} on ({})",
                probe.kind,
                probe.build,
                list(&probe.keys, expr_text)
            );
            if let Some(residual) = &probe.residual {
                text += &format!(" residual {}", expr_text(residual));
            }
            if probe.null_equals_null {
                text += " null_equals_null";
            }
            if probe.null_aware {
                text += " null_aware";
            }
            text
        }
    }
}

fn sink_text(sink: &Sink) -> String {
    match sink {
        Sink::Aggregate { groups, aggregates } => {
            format!(
                "aggregate by ({}): {}",
                list(groups, expr_text),
                list(aggregates, aggregate_text)
            )
        }
        Sink::Build(side) => format!(
            "build ({}) payload {}",
            list(&side.keys, expr_text),
            list(&side.payload, expr_text)
        ),
        Sink::Sort { keys, limit, offset } => {
            format!("sort {} limit {limit:?} offset {offset}", list(keys, sort_key_text))
        }
        Sink::Emit { limit, offset } => format!("emit limit {limit:?} offset {offset}"),
    }
}

fn fragment_text(id: usize, fragment: &Fragment) -> String {
    let mut text = format!("fragment {id}: from {:?}\n", fragment.source);
    for step in &fragment.steps {
        text += &format!("    {}\n", step_text(step));
    }
    text + &format!(
        "    {}\n    = {}\n",
        sink_text(&fragment.sink),
        fields_text(&fragment.output)
    )
}

/// A graph, without its data.
pub fn graph_text(graph: &Graph) -> String {
    let fragments = graph.fragments.iter().enumerate();
    fragments.map(|(id, fragment)| fragment_text(id, fragment)).collect()
}

/// Rows, one a line.
pub fn rows_text(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows.iter().take(ROWS_SHOWN) {
        text += &format!("    {}\n", list(row, value_text));
    }
    if rows.len() > ROWS_SHOWN {
        text += &format!("    … {} rows in all\n", rows.len());
    }
    text
}

/// A case with its inputs.
pub fn case_text(case: &Case) -> String {
    let mut text = format!("{} (seed {}, {:?})\n", case.name, case.seed, case.segmentation);
    let Case { graph, data, .. } = case;
    for (index, (source, rows)) in graph.scans.iter().zip(&data.scans).enumerate() {
        let _ = writeln!(
            text,
            "Scan({index}): {}\n{}",
            fields_text(&source.columns),
            rows_text(rows)
        );
    }
    for (index, (fields, rows)) in graph.streams.iter().zip(&data.streams).enumerate() {
        let _ = writeln!(text, "Stream({index}): {}\n{}", fields_text(fields), rows_text(rows));
    }
    for (index, value) in data.parameters.iter().enumerate() {
        let _ = writeln!(text, "${index} = {}", value_text(value));
    }
    text + &graph_text(&Arc::clone(graph))
}
