//! Graphs as text, one line per fragment.

use std::fmt::Write as _;

use arrow::temporal_conversions::date32_to_datetime;
use trireme_device_api::{
    Aggregate, AggregateFunction, BinaryOperator, Expr, Fragment, Graph, JoinKind, Node, Probe, Sink, SortKey, Source,
    Step, Type, Value,
};

/// One line per fragment.
pub fn lines(graph: &Graph) -> Vec<String> {
    (0..graph.fragments.len()).map(|id| line(graph, id)).collect()
}

fn line(graph: &Graph, id: usize) -> String {
    let fragment = &graph.fragments[id];
    let mut row = source_names(graph, &fragment.source);
    let mut parts = vec![source(graph, &fragment.source, &row)];
    let mut filters: Vec<String> = Vec::new();
    for step in &fragment.steps {
        if let Step::Filter(predicate) = step {
            filters.push(conjunct(predicate, &row));
            continue;
        }
        flush(&mut parts, &mut filters);
        match step {
            Step::Filter(_) => {}
            Step::Project(exprs) => {
                let shown: Vec<_> = exprs.iter().map(|expr| show(expr, &row)).collect();
                parts.push(format!("project [{}]", shown.join(", ")));
                row = shown;
            }
            Step::Probe(probe) => {
                parts.push(show_probe(graph, probe, &row));
                row = probed(graph, probe, row);
            }
        }
    }
    flush(&mut parts, &mut filters);
    parts.extend(sink(fragment, &row));
    format!("fragment {id}: {}", parts.join(" → "))
}

fn conjunct(predicate: &Expr, row: &[String]) -> String {
    let text = show(predicate, row);
    let is_logic = matches!(
        predicate.node,
        Node::Binary {
            op: BinaryOperator::And | BinaryOperator::Or,
            ..
        }
    );
    if is_logic { format!("({text})") } else { text }
}

fn flush(parts: &mut Vec<String>, filters: &mut Vec<String>) {
    if !filters.is_empty() {
        parts.push(format!("filter {}", filters.join(" and ")));
        filters.clear();
    }
}

fn names(fields: &[trireme_device_api::Field]) -> Vec<String> {
    fields.iter().map(|field| field.name.clone()).collect()
}

fn source_names(graph: &Graph, source: &Source) -> Vec<String> {
    match source {
        Source::Scan(scan) => names(&graph.scans[*scan].columns),
        Source::Stream(stream) => names(&graph.streams[*stream]),
        Source::Fragment(id) => names(&graph.fragments[*id].output),
    }
}

fn source(graph: &Graph, source: &Source, row: &[String]) -> String {
    match source {
        Source::Scan(scan) => format!("scan {} [{}]", graph.scans[*scan].name, row.join(", ")),
        Source::Stream(stream) => format!("stream {stream} [{}]", row.join(", ")),
        Source::Fragment(id) => format!("read {id}"),
    }
}

fn kind(kind: JoinKind) -> &'static str {
    match kind {
        JoinKind::Inner => "inner",
        JoinKind::Left => "left",
        JoinKind::Semi => "semi",
        JoinKind::Anti => "anti",
        JoinKind::Mark => "mark",
        JoinKind::BuildOuter => "build-outer",
        JoinKind::Full => "full",
        JoinKind::BuildSemi => "build-semi",
        JoinKind::BuildAnti => "build-anti",
    }
}

fn show_probe(graph: &Graph, probe: &Probe, row: &[String]) -> String {
    let mut text = format!(
        "probe {} {} ({})",
        probe.build,
        kind(probe.kind),
        show_all(&probe.keys, row)
    );
    if let Some(residual) = &probe.residual {
        let both: Vec<_> = row
            .iter()
            .cloned()
            .chain(names(&graph.fragments[probe.build].output))
            .collect();
        let _ = write!(text, " if {}", show(residual, &both));
    }
    if probe.null_aware {
        text.push_str(" null-aware");
    }
    if probe.null_equals_null {
        text.push_str(" null = null");
    }
    text
}

fn probed(graph: &Graph, probe: &Probe, mut row: Vec<String>) -> Vec<String> {
    let payload = names(&graph.fragments[probe.build].output);
    match probe.kind {
        JoinKind::Inner | JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => row.extend(payload),
        JoinKind::Semi | JoinKind::Anti => {}
        JoinKind::Mark => row.push("mark".to_owned()),
        JoinKind::BuildSemi | JoinKind::BuildAnti => row = payload,
    }
    row
}

fn sink(fragment: &Fragment, row: &[String]) -> Option<String> {
    Some(match &fragment.sink {
        Sink::Aggregate { groups, aggregates } => {
            let by = if groups.is_empty() {
                String::new()
            } else {
                format!(" by {}", show_all(groups, row))
            };
            let shown: Vec<_> = aggregates
                .iter()
                .map(|aggregate| show_aggregate(aggregate, row))
                .collect();
            let colon = if shown.is_empty() { "" } else { ": " };
            format!("aggregate{by}{colon}{}", shown.join(", "))
        }
        Sink::Build(side) => format!(
            "build ({}) [{}]",
            show_all(&side.keys, row),
            show_all(&side.payload, row)
        ),
        Sink::Sort { keys, limit, offset } => {
            format!("sort {}{}", show_keys(keys, row), show_limit(*limit, *offset))
        }
        Sink::Emit { limit, offset } => format!("emit{}", show_limit(*limit, *offset)),
    })
}

fn show_limit(limit: Option<usize>, offset: usize) -> String {
    let mut text = String::new();
    if let Some(limit) = limit {
        let _ = write!(text, " limit {limit}");
    }
    if offset > 0 {
        let _ = write!(text, " offset {offset}");
    }
    text
}

fn show_keys(keys: &[SortKey], row: &[String]) -> String {
    let shown: Vec<_> = keys
        .iter()
        .map(|key| {
            let direction = if key.descending { " desc" } else { "" };
            // The usual place of NULLs isn't worth a word.
            let nulls = match (key.nulls_first, key.descending) {
                (true, false) => " nulls first",
                (false, true) => " nulls last",
                _ => "",
            };
            format!("{}{direction}{nulls}", show(&key.expr, row))
        })
        .collect();
    shown.join(", ")
}

fn show_aggregate(aggregate: &Aggregate, row: &[String]) -> String {
    let name = match aggregate.function {
        AggregateFunction::Count => "count",
        AggregateFunction::Sum => "sum",
        AggregateFunction::Min => "min",
        AggregateFunction::Max => "max",
        AggregateFunction::Average => "avg",
        AggregateFunction::VarianceSample => "var_samp",
        AggregateFunction::VariancePopulation => "var_pop",
        AggregateFunction::StddevSample => "stddev_samp",
        AggregateFunction::StddevPopulation => "stddev_pop",
        AggregateFunction::BoolAnd => "bool_and",
        AggregateFunction::BoolOr => "bool_or",
        AggregateFunction::First => "first",
        AggregateFunction::Last => "last",
    };
    let argument = aggregate
        .argument
        .as_ref()
        .map_or_else(|| "*".to_owned(), |expr| show(expr, row));
    let distinct = if aggregate.distinct { "distinct " } else { "" };
    let order = if aggregate.order.is_empty() {
        String::new()
    } else {
        format!(" order by {}", show_keys(&aggregate.order, row))
    };
    let filter = aggregate
        .filter
        .as_ref()
        .map_or_else(String::new, |filter| format!(" filter {}", show(filter, row)));
    format!("{name}({distinct}{argument}{order}){filter}")
}

fn show_all(exprs: &[Expr], row: &[String]) -> String {
    exprs.iter().map(|expr| show(expr, row)).collect::<Vec<_>>().join(", ")
}

fn show(expr: &Expr, row: &[String]) -> String {
    let inner = |operand: &Expr| {
        let text = show(operand, row);
        // A chain of one logical operator reads better without parentheses.
        let is_chain = match (&expr.node, &operand.node) {
            (Node::Binary { op, .. }, Node::Binary { op: below, .. }) => {
                op == below && matches!(op, BinaryOperator::And | BinaryOperator::Or)
            }
            _ => false,
        };
        if matches!(operand.node, Node::Binary { .. }) && !is_chain {
            format!("({text})")
        } else {
            text
        }
    };
    match &expr.node {
        Node::Column(index) => row.get(*index).cloned().unwrap_or_else(|| format!("#{index}")),
        Node::Literal(value) => show_value(value, &expr.data_type),
        Node::Parameter(position) => format!("?{position}"),
        Node::Binary { op, left, right } => format!("{} {} {}", inner(left), operator(*op), inner(right)),
        Node::Not(expr) => format!("not {}", inner(expr)),
        Node::Negate(expr) => format!("-{}", inner(expr)),
        Node::IsNull(expr) => format!("{} is null", inner(expr)),
        Node::IsNotNull(expr) => format!("{} is not null", inner(expr)),
        Node::Cast { expr: operand, safe } => {
            let word = if *safe { "try_cast" } else { "cast" };
            format!("{word}({} as {})", show(operand, row), expr.data_type.to_arrow())
        }
        Node::Case { branches, otherwise } => {
            let mut text = "case".to_owned();
            for (when, then) in branches {
                let _ = write!(text, " when {} then {}", show(when, row), show(then, row));
            }
            if let Some(otherwise) = otherwise {
                let _ = write!(text, " else {}", show(otherwise, row));
            }
            text + " end"
        }
        Node::InList { expr, list, negated } => {
            let word = if *negated { "not in" } else { "in" };
            format!("{} {word} ({})", inner(expr), show_all(list, row))
        }
        Node::Like {
            expr,
            pattern,
            negated,
            case_insensitive,
        } => {
            let not = if *negated { "not " } else { "" };
            let word = if *case_insensitive { "ilike" } else { "like" };
            format!("{} {not}{word} {}", inner(expr), show(pattern, row))
        }
        Node::Extract { part, expr } => {
            format!("{}({})", format!("{part:?}").to_lowercase(), show(expr, row))
        }
        Node::Function { function, args } => format!("{}({})", function.name(), show_all(args, row)),
        Node::Host { function, args } => show_host(&function.name, args, row),
    }
}

/// A host function's name with its columns in place.
fn show_host(name: &str, args: &[Expr], row: &[String]) -> String {
    let mut text = name.rsplit_once(" [").map_or(name, |(text, _)| text).to_owned();
    for (position, arg) in args.iter().enumerate() {
        text = text.replace(&format!("${position}@{position}"), &show(arg, row));
    }
    text
}

fn show_value(value: &Value, data_type: &Type) -> String {
    match (value, data_type) {
        (Value::Null, _) => "null".to_owned(),
        (Value::Boolean(value), _) => value.to_string(),
        (Value::Int(value), Type::Decimal { scale, .. }) => show_decimal(*value, *scale),
        (Value::Int(value), Type::Date32) => i32::try_from(*value)
            .ok()
            .and_then(date32_to_datetime)
            .map_or_else(|| value.to_string(), |date| date.date().to_string()),
        (Value::Int(value), _) => value.to_string(),
        (Value::Float(value), _) => value.to_string(),
        (Value::Bytes(bytes), _) => format!("'{}'", String::from_utf8_lossy(bytes)),
        (Value::Interval(value), _) => format!("{} mons {} days {} ns", value.months, value.days, value.nanoseconds),
    }
}

fn show_decimal(value: i128, scale: i8) -> String {
    let Some(scale) = usize::try_from(scale).ok().filter(|scale| *scale > 0) else {
        return value.to_string();
    };
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{whole}.{part}")
}

fn operator(op: BinaryOperator) -> &'static str {
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
        BinaryOperator::Distinct => "is distinct from",
        BinaryOperator::NotDistinct => "is not distinct from",
        BinaryOperator::And => "and",
        BinaryOperator::Or => "or",
        BinaryOperator::BitAnd => "&",
        BinaryOperator::BitOr => "|",
        BinaryOperator::BitXor => "^",
    }
}
