//! What the build sides of a fragment's joins say about its source before a row of it is read: bounds of the keys that match.
//!
//! A segment whose zone maps lie outside of them is neither fetched nor decoded. Only probes that drop rows without a match
//! say anything, and none that stands behind one that remembers which build rows were found, or behind an expression that
//! fails for some rows: such a row must be seen.

use trireme_device_api::{
    BinaryOperator, ColumnTest, Expr, Fragment, FragmentId, JoinKind, Node, Output, Probe, RowTest, Step, Value,
};

use crate::join::{BuildTable, KeyBounds};

/// What rows of the source must pass to have a match. `columns` are the source's.
pub(super) fn test(fragment: &Fragment, columns: usize, outputs: &[Option<Output>]) -> RowTest {
    let mut test = RowTest::True;
    // What each column of the current row is: a source column, or something else.
    let mut row: Vec<Option<usize>> = (0..columns).map(Some).collect();
    for step in &fragment.steps {
        if exprs(step).into_iter().any(may_fail) {
            break;
        }
        match step {
            Step::Filter(_) => {}
            Step::Project(exprs) => {
                let source = |node: &Node| match node {
                    Node::Column(index) => row.get(*index).copied().flatten(),
                    _ => None,
                };
                row = exprs.iter().map(|expr| source(&expr.node)).collect();
            }
            Step::Probe(probe) => {
                if drops_rows(probe) {
                    test = test.and(of_probe(probe, &row, outputs));
                }
                let remembers = matches!(
                    probe.kind,
                    JoinKind::BuildOuter | JoinKind::Full | JoinKind::BuildSemi | JoinKind::BuildAnti
                );
                if remembers {
                    break;
                }
                // Columns that a probe appends stand behind the row's; there is no place for them here.
            }
        }
    }
    test
}

fn exprs(step: &Step) -> Vec<&Expr> {
    match step {
        Step::Filter(predicate) => vec![predicate],
        Step::Project(exprs) => exprs.iter().collect(),
        Step::Probe(probe) => probe.keys.iter().chain(&probe.residual).collect(),
    }
}

/// Only what can't fail for certain is said not to.
fn may_fail(expr: &Expr) -> bool {
    let safe = match &expr.node {
        Node::Binary { op, .. } => !matches!(
            op,
            BinaryOperator::Add
                | BinaryOperator::Subtract
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Remainder
        ),
        Node::Cast { safe, .. } => *safe,
        Node::Negate(_) | Node::Function { .. } | Node::Host { .. } => false,
        _ => true,
    };
    !safe || expr.children().into_iter().any(may_fail)
}

/// A row without a match makes no difference.
fn drops_rows(probe: &Probe) -> bool {
    let drops = matches!(
        probe.kind,
        JoinKind::Inner | JoinKind::Semi | JoinKind::BuildOuter | JoinKind::BuildSemi | JoinKind::BuildAnti
    );
    drops && !probe.null_equals_null && !probe.keys.is_empty()
}

fn of_probe(probe: &Probe, row: &[Option<usize>], outputs: &[Option<Output>]) -> RowTest {
    let Some(table) = table(probe.build, outputs) else {
        return RowTest::True;
    };
    let mut test = RowTest::True;
    for (position, key) in probe.keys.iter().enumerate() {
        let bounds = match table.key_bounds(position) {
            KeyBounds::None => return RowTest::Any(Vec::new()),
            KeyBounds::Within(low, high) => Some((low, high)),
            KeyBounds::Unknown => None,
        };
        let column = match key.node {
            Node::Column(index) if key.data_type.is_integral() => row.get(index).copied().flatten(),
            _ => None,
        };
        if let (Some((low, high)), Some(column)) = (bounds, column) {
            let compare = |op, value| RowTest::Column(column, ColumnTest::Compare(op, Value::Int(value)));
            test = test
                .and(compare(BinaryOperator::GreaterOrEqual, low))
                .and(compare(BinaryOperator::LessOrEqual, high));
        }
    }
    test
}

fn table(build: FragmentId, outputs: &[Option<Output>]) -> Option<&BuildTable> {
    match outputs.get(build)? {
        Some(Output::Build { table, .. }) => table.downcast_ref::<BuildTable>(),
        _ => None,
    }
}
