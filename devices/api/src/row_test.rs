//! What the readers of a scan ask of its rows, in a form that bounds can decide: which files, row groups, pages and segments
//! hold no row that anybody wants.
//!
//! A test may ask less of a row than the reader does, never more: what can't be said here is [`RowTest::True`]. NULL makes no
//! difference between false and unknown, since only AND and OR are kept.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::column::ZoneMap;
use crate::expr::{BinaryOperator, Expr, Node};
use crate::fragment::{Fragment, Graph, Sink, Source, Step};
use crate::types::Value;

/// Constants that an IN list may have; longer ones take longer to test than to read.
const LIST_MAX: usize = 1024;

/// A condition on rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum RowTest {
    /// Any row.
    #[default]
    True,
    /// Rows that pass all of these; of none: any row.
    All(Vec<RowTest>),
    /// Rows that pass one of these; of none: no row.
    Any(Vec<RowTest>),
    /// Rows whose value of a source column passes.
    Column(usize, ColumnTest),
}

/// A condition on a column's value. Constants are never NULL and of the column's type.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnTest {
    /// Equal, not equal, less, … than a constant.
    Compare(BinaryOperator, Value),
    /// Equal to one of them.
    In(Vec<Value>),
    /// A string that begins so.
    StartsWith(Arc<[u8]>),
    /// NULL.
    IsNull,
    /// Not NULL.
    IsNotNull,
}

/// What is known of some rows' values of a column.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// No value is less; need not occur. None: not known.
    pub low: Option<Value>,
    /// No value is greater; need not occur. None: not known.
    pub high: Option<Value>,
    /// There may be NULLs.
    pub nulls: bool,
    /// There may be values.
    pub values: bool,
}

impl Bounds {
    /// Of a zone map, whose count of NULLs may be too large.
    pub fn of_zone(zone: &ZoneMap) -> Self {
        Self {
            low: zone.range.map(|(low, _)| Value::Int(low)),
            high: zone.range.map(|(_, high)| Value::Int(high)),
            nulls: zone.null_count > 0,
            values: true,
        }
    }
}

impl RowTest {
    /// False when no row passes, by what `may_pass` says of a column's condition.
    pub fn may_pass(&self, may_pass: &mut dyn FnMut(usize, &ColumnTest) -> bool) -> bool {
        match self {
            RowTest::True => true,
            RowTest::All(tests) => tests.iter().all(|test| test.may_pass(may_pass)),
            RowTest::Any(tests) => tests.iter().any(|test| test.may_pass(may_pass)),
            RowTest::Column(column, test) => may_pass(*column, test),
        }
    }

    /// Calls `see` on each column's condition.
    pub fn visit<'a>(&'a self, see: &mut dyn FnMut(usize, &'a ColumnTest)) {
        match self {
            RowTest::True => {}
            RowTest::All(tests) | RowTest::Any(tests) => tests.iter().for_each(|test| test.visit(see)),
            RowTest::Column(column, test) => see(*column, test),
        }
    }

    /// Rows that pass both.
    #[must_use]
    pub fn and(self, other: RowTest) -> RowTest {
        match (self, other) {
            (RowTest::True, other) | (other, RowTest::True) => other,
            (RowTest::All(mut tests), RowTest::All(more)) => {
                tests.extend(more);
                RowTest::All(tests)
            }
            (RowTest::All(mut tests), other) => {
                tests.push(other);
                RowTest::All(tests)
            }
            (one, other) => RowTest::All(vec![one, other]),
        }
    }

    /// Rows that pass one or the other.
    #[must_use]
    pub fn or(self, other: RowTest) -> RowTest {
        match (self, other) {
            (RowTest::True, _) | (_, RowTest::True) => RowTest::True,
            (RowTest::Any(mut tests), RowTest::Any(more)) => {
                tests.extend(more);
                RowTest::Any(tests)
            }
            (RowTest::Any(mut tests), other) | (other, RowTest::Any(mut tests)) => {
                tests.push(other);
                RowTest::Any(tests)
            }
            (one, other) => RowTest::Any(vec![one, other]),
        }
    }

    /// What a row for which the predicate is true passes.
    pub fn of(predicate: &Expr, parameters: &[Value]) -> Self {
        match &predicate.node {
            Node::Column(column) => RowTest::Column(*column, compare(BinaryOperator::Equal, Value::Boolean(true))),
            Node::Not(expr) => match expr.node {
                Node::Column(column) => RowTest::Column(column, compare(BinaryOperator::Equal, Value::Boolean(false))),
                _ => RowTest::True,
            },
            Node::IsNull(expr) => on_column(expr, ColumnTest::IsNull),
            Node::IsNotNull(expr) => on_column(expr, ColumnTest::IsNotNull),
            Node::Binary { op, left, right } => of_binary(*op, left, right, parameters),
            Node::InList { expr, list, negated } => of_list(expr, list, *negated, parameters),
            Node::Like {
                expr,
                pattern,
                negated: false,
                case_insensitive: false,
            } => of_pattern(expr, pattern, parameters),
            _ => RowTest::True,
        }
    }
}

impl Fragment {
    /// What rows of the source must pass to get beyond the filters that stand before anything else.
    pub fn row_test(&self, parameters: &[Value]) -> RowTest {
        let mut test = RowTest::True;
        for step in &self.steps {
            let Step::Filter(predicate) = step else { break };
            test = test.and(RowTest::of(predicate, parameters));
        }
        test
    }
}

impl Graph {
    /// What rows of a scan must pass to be of use to any fragment.
    pub fn scan_test(&self, scan: usize, parameters: &[Value]) -> RowTest {
        let readers = self.readers(scan).map(|fragment| fragment.row_test(parameters));
        readers.reduce(RowTest::or).unwrap_or_default()
    }

    /// Rows of a scan that are enough, whichever they are: its only reader takes so many and leaves none out.
    pub fn scan_limit(&self, scan: usize) -> Option<usize> {
        let mut readers = self.readers(scan);
        let (reader, None) = (readers.next()?, readers.next()) else {
            return None;
        };
        match reader.sink {
            Sink::Emit {
                limit: Some(limit),
                offset,
            } if reader.steps.iter().all(|step| matches!(step, Step::Project(_))) => limit.checked_add(offset),
            _ => None,
        }
    }

    /// Whether the only reader of a scan stops when it has so many rows, but leaves some out before.
    pub fn scan_stops(&self, scan: usize) -> bool {
        let mut readers = self.readers(scan);
        let (Some(reader), None) = (readers.next(), readers.next()) else {
            return false;
        };
        matches!(reader.sink, Sink::Emit { limit: Some(_), .. }) && self.scan_limit(scan).is_none()
    }

    /// Fragments that read a scan.
    pub fn readers(&self, scan: usize) -> impl Iterator<Item = &Fragment> {
        let reads = move |fragment: &&Fragment| matches!(fragment.source, Source::Scan(index) if index == scan);
        self.fragments.iter().filter(reads)
    }
}

fn compare(op: BinaryOperator, value: Value) -> ColumnTest {
    ColumnTest::Compare(op, value)
}

fn on_column(expr: &Expr, test: ColumnTest) -> RowTest {
    match expr.node {
        Node::Column(column) => RowTest::Column(column, test),
        _ => RowTest::True,
    }
}

fn constant<'a>(expr: &'a Expr, parameters: &'a [Value]) -> Option<&'a Value> {
    match &expr.node {
        Node::Literal(value) => Some(value),
        Node::Parameter(index) => parameters.get(*index),
        _ => None,
    }
}

/// Values of both are compared as the column's bounds are.
fn comparable(column: &Expr, constant: &Expr) -> bool {
    let (left, right) = (&column.data_type, &constant.data_type);
    left == right || (left.is_bytes() && right.is_bytes())
}

fn of_binary(op: BinaryOperator, left: &Expr, right: &Expr, parameters: &[Value]) -> RowTest {
    match op {
        BinaryOperator::And => return RowTest::of(left, parameters).and(RowTest::of(right, parameters)),
        BinaryOperator::Or => return RowTest::of(left, parameters).or(RowTest::of(right, parameters)),
        _ => {}
    }
    let (column, value, op) = match (&left.node, &right.node) {
        (Node::Column(column), _) => (*column, constant(right, parameters), op),
        (_, Node::Column(column)) => (*column, constant(left, parameters), op.mirrored()),
        _ => return RowTest::True,
    };
    let Some(value) = value.filter(|_| comparable(left, right)) else {
        return RowTest::True;
    };
    match (op, value) {
        (BinaryOperator::NotDistinct, Value::Null) => RowTest::Column(column, ColumnTest::IsNull),
        (BinaryOperator::Distinct, Value::Null) => RowTest::Column(column, ColumnTest::IsNotNull),
        (BinaryOperator::NotDistinct, value) => RowTest::Column(column, compare(BinaryOperator::Equal, value.clone())),
        (
            BinaryOperator::Equal
            | BinaryOperator::NotEqual
            | BinaryOperator::Less
            | BinaryOperator::LessOrEqual
            | BinaryOperator::Greater
            | BinaryOperator::GreaterOrEqual,
            value,
        ) if *value != Value::Null => RowTest::Column(column, compare(op, value.clone())),
        // A comparison with NULL passes no row, but other conjuncts may still fail on one.
        _ => RowTest::True,
    }
}

fn of_list(expr: &Expr, list: &[Expr], negated: bool, parameters: &[Value]) -> RowTest {
    let Node::Column(column) = expr.node else {
        return RowTest::True;
    };
    if list.len() > LIST_MAX || !list.iter().all(|item| comparable(expr, item)) {
        return RowTest::True;
    }
    let values: Option<Vec<&Value>> = list.iter().map(|item| constant(item, parameters)).collect();
    let Some(values) = values else { return RowTest::True };
    if !negated {
        let values = values.into_iter().filter(|value| **value != Value::Null);
        return RowTest::Column(column, ColumnTest::In(values.cloned().collect()));
    }
    if values.contains(&&Value::Null) {
        return RowTest::True;
    }
    let each = |value: &Value| RowTest::Column(column, compare(BinaryOperator::NotEqual, value.clone()));
    RowTest::All(values.into_iter().map(each).collect())
}

fn of_pattern(expr: &Expr, pattern: &Expr, parameters: &[Value]) -> RowTest {
    let (Node::Column(column), true) = (&expr.node, expr.data_type.is_text()) else {
        return RowTest::True;
    };
    match constant(pattern, parameters) {
        Some(Value::Bytes(pattern)) => {
            let special = |byte: &u8| matches!(byte, b'%' | b'_' | b'\\');
            match pattern.iter().position(special) {
                None => RowTest::Column(
                    *column,
                    compare(BinaryOperator::Equal, Value::Bytes(Arc::clone(pattern))),
                ),
                Some(0) => RowTest::Column(*column, ColumnTest::IsNotNull),
                Some(length) => RowTest::Column(*column, ColumnTest::StartsWith(pattern[..length].into())),
            }
        }
        _ => RowTest::True,
    }
}

impl ColumnTest {
    /// False when no row with such values passes.
    pub fn may_pass(&self, bounds: &Bounds) -> bool {
        match self {
            ColumnTest::IsNull => bounds.nulls,
            ColumnTest::IsNotNull => bounds.values,
            _ if !bounds.values => false,
            ColumnTest::Compare(op, value) => may_compare(*op, value, bounds),
            ColumnTest::In(values) => values
                .iter()
                .any(|value| may_compare(BinaryOperator::Equal, value, bounds)),
            ColumnTest::StartsWith(prefix) => {
                let before = matches!(&bounds.high, Some(Value::Bytes(high)) if **high < **prefix);
                let after =
                    matches!(&bounds.low, Some(Value::Bytes(low)) if **low > **prefix && !low.starts_with(prefix));
                !before && !after
            }
        }
    }

    /// The values that a row's must be one of, where the test says so.
    pub fn points(&self) -> Option<&[Value]> {
        match self {
            ColumnTest::Compare(BinaryOperator::Equal, value) => Some(std::slice::from_ref(value)),
            ColumnTest::In(values) => Some(values),
            _ => None,
        }
    }
}

fn may_compare(op: BinaryOperator, value: &Value, bounds: &Bounds) -> bool {
    let order = |bound: &Option<Value>| bound.as_ref().and_then(|bound| order(bound, value));
    let (low, high) = (order(&bounds.low), order(&bounds.high));
    // NaN is in no bounds, and greater or less than all by its sign: only equality is decided for floats.
    let floats = matches!(value, Value::Float(_));
    match op {
        BinaryOperator::Equal => low != Some(Ordering::Greater) && high != Some(Ordering::Less),
        _ if floats => true,
        BinaryOperator::NotEqual => (low, high) != (Some(Ordering::Equal), Some(Ordering::Equal)),
        BinaryOperator::Less => low.is_none_or(Ordering::is_lt),
        BinaryOperator::LessOrEqual => low.is_none_or(Ordering::is_le),
        BinaryOperator::Greater => high.is_none_or(Ordering::is_gt),
        BinaryOperator::GreaterOrEqual => high.is_none_or(Ordering::is_ge),
        _ => true,
    }
}

/// None where values are of different kinds, or one is NaN.
fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Bytes(left), Value::Bytes(right)) => Some(left.cmp(right)),
        (Value::Boolean(left), Value::Boolean(right)) => Some(left.cmp(right)),
        (Value::Float(left), Value::Float(right)) => left.partial_cmp(right),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Type;

    fn text(value: &str) -> Value {
        Value::Bytes(value.as_bytes().into())
    }

    fn bounds(low: Value, high: Value) -> Bounds {
        Bounds {
            low: Some(low),
            high: Some(high),
            nulls: false,
            values: true,
        }
    }

    #[test]
    fn bounds_decide_only_what_they_can() {
        let five_to_nine = bounds(Value::Int(5), Value::Int(9));
        let may = |op, value| compare(op, Value::Int(value)).may_pass(&five_to_nine);
        assert!(!may(BinaryOperator::Equal, 4) && may(BinaryOperator::Equal, 5) && !may(BinaryOperator::Equal, 10));
        assert!(!may(BinaryOperator::Less, 5) && may(BinaryOperator::LessOrEqual, 5));
        assert!(!may(BinaryOperator::Greater, 9) && may(BinaryOperator::GreaterOrEqual, 9));
        assert!(may(BinaryOperator::NotEqual, 5));
        assert!(!compare(BinaryOperator::NotEqual, Value::Int(5)).may_pass(&bounds(Value::Int(5), Value::Int(5))));
        let floats = bounds(Value::Float(1.0), Value::Float(2.0));
        assert!(
            compare(BinaryOperator::Greater, Value::Float(3.0)).may_pass(&floats),
            "NaN is greater"
        );
        assert!(!compare(BinaryOperator::Equal, Value::Float(3.0)).may_pass(&floats));
        assert!(compare(BinaryOperator::Equal, Value::Float(f64::NAN)).may_pass(&floats));
    }

    #[test]
    fn prefixes_and_nulls() {
        let words = bounds(text("kos"), text("naxos"));
        let starts = |prefix: &str| ColumnTest::StartsWith(prefix.as_bytes().into()).may_pass(&words);
        assert!(starts("k") && starts("kos") && starts("m") && starts("nax") && !starts("a") && !starts("p"));
        assert!(!starts("ka"));
        assert!(!ColumnTest::IsNull.may_pass(&words));
        let nulls = Bounds {
            low: None,
            high: None,
            nulls: true,
            values: false,
        };
        assert!(ColumnTest::IsNull.may_pass(&nulls));
        assert!(!ColumnTest::IsNotNull.may_pass(&nulls));
        assert!(!compare(BinaryOperator::NotEqual, text("x")).may_pass(&nulls));
    }

    #[test]
    fn predicates_become_tests() {
        let column = Expr::column(3, Type::Int32);
        let number = |value: i128| Expr::literal(Value::Int(value), Type::Int32);
        let binary = |op, left: &Expr, right: Expr| Expr::binary(op, left.clone(), right, Type::Boolean);
        let less = binary(BinaryOperator::Less, &number(7), column.clone());
        let test = RowTest::of(&less, &[]);
        assert_eq!(
            test,
            RowTest::Column(3, compare(BinaryOperator::Greater, Value::Int(7)))
        );
        let unknown = binary(BinaryOperator::Equal, &column, Expr::column(4, Type::Int32));
        assert_eq!(
            RowTest::of(&binary(BinaryOperator::And, &unknown, less.clone()), &[]),
            test
        );
        assert_eq!(
            RowTest::of(&binary(BinaryOperator::Or, &unknown, less), &[]),
            RowTest::True
        );
        let null = binary(BinaryOperator::Less, &column, Expr::literal(Value::Null, Type::Int32));
        assert_eq!(RowTest::of(&null, &[]), RowTest::True);
        let words = Expr::column(0, Type::Utf8View);
        let like = |pattern: &str| Expr {
            node: Node::Like {
                expr: Box::new(words.clone()),
                pattern: Box::new(Expr::literal(text(pattern), Type::Utf8)),
                negated: false,
                case_insensitive: false,
            },
            data_type: Type::Boolean,
        };
        let starts = ColumnTest::StartsWith(b"Na"[..].into());
        assert_eq!(RowTest::of(&like("Na_os"), &[]), RowTest::Column(0, starts));
        assert_eq!(
            RowTest::of(&like("%os"), &[]),
            RowTest::Column(0, ColumnTest::IsNotNull)
        );
    }

    #[test]
    fn a_scan_keeps_what_any_reader_wants() {
        use crate::fragment::{GRAPH_VERSION, ScanSource};
        let compare = |value| {
            let constant = Expr::literal(Value::Int(value), Type::Int32);
            Expr::binary(
                BinaryOperator::Equal,
                Expr::column(0, Type::Int32),
                constant,
                Type::Boolean,
            )
        };
        let reader = |steps| Fragment {
            source: Source::Scan(0),
            steps,
            sink: Sink::Emit { limit: None, offset: 0 },
            output: Vec::new(),
        };
        let graph = |fragments| Graph {
            version: GRAPH_VERSION,
            fragments,
            scans: vec![ScanSource {
                name: String::new(),
                columns: Vec::new(),
            }],
            streams: Vec::new(),
            parameters: Vec::new(),
            output: Vec::new(),
        };
        let both = graph(vec![
            reader(vec![Step::Filter(compare(1))]),
            reader(vec![Step::Filter(compare(5))]),
        ]);
        let wants = |graph: &Graph, value| {
            let bounds = bounds(Value::Int(value), Value::Int(value));
            graph.scan_test(0, &[]).may_pass(&mut |_, test| test.may_pass(&bounds))
        };
        assert!(wants(&both, 1) && wants(&both, 5) && !wants(&both, 3));
        let all = graph(vec![reader(vec![Step::Filter(compare(1))]), reader(Vec::new())]);
        assert!(wants(&all, 3));
        assert_eq!(all.readers(0).count(), 2);
        let mut few = reader(Vec::new());
        few.sink = Sink::Emit {
            limit: Some(10),
            offset: 5,
        };
        assert_eq!(graph(vec![few.clone()]).scan_limit(0), Some(15));
        assert_eq!(graph(vec![few.clone(), reader(Vec::new())]).scan_limit(0), None);
        few.steps.push(Step::Filter(compare(1)));
        assert_eq!(graph(vec![few]).scan_limit(0), None);
    }
}
