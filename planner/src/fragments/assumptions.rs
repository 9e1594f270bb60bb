//! What the order of a plan's joins was chosen by, so that a cached plan is not used for values that would order them
//! otherwise.

use std::sync::Arc;

use trireme_device_api::{Expr, Node, Value};
use trireme_exec::operators::PlanValidity;

use super::estimate::Estimator;
use super::tree::{Op, Tree};
use trireme_costs::rows::{Estimate, Rules};

/// Rows that may turn out so many times more or fewer than assumed.
const FACTOR: f64 = 8.0;
/// Differences of so few rows decide nothing.
const FEW_ROWS: f64 = 20_000.0;

/// The rows that filtered scans were expected to give.
#[derive(Debug, Clone, Default)]
pub(super) struct Assumptions {
    scans: Vec<Assumed>,
}

#[derive(Debug, Clone)]
struct Assumed {
    scan: Arc<Estimate>,
    predicates: Vec<Expr>,
    rows: f64,
}

impl Assumptions {
    /// Of a tree with joins whose scans are filtered by parameters; none of others.
    pub(super) fn of(tree: &Tree, parameters: &[Value]) -> Self {
        let relations = || (0..tree.len()).map(|id| &tree.get(id).op);
        let mut found = Self::default();
        if !relations().any(|op| matches!(op, Op::Join(_))) {
            return found;
        }
        let mut estimator = Estimator::new(parameters);
        for op in relations() {
            if let Op::Filter { input, predicates } = op
                && matches!(tree.get(*input).op, Op::Scan(_))
                && predicates.iter().any(reads_parameter)
            {
                let scan = estimator.of(tree, *input);
                let rows = estimator.rules.filtered(&scan, predicates).rows;
                found.scans.push(Assumed {
                    scan,
                    predicates: predicates.clone(),
                    rows,
                });
            }
        }
        found
    }
}

impl PlanValidity for Assumptions {
    fn holds(&self, parameters: &[Value]) -> bool {
        let rules = Rules::new(parameters);
        self.scans.iter().all(|assumed| {
            let rows = rules.filtered(&assumed.scan, &assumed.predicates).rows;
            (rows - assumed.rows).abs() < FEW_ROWS || rows < assumed.rows * FACTOR && assumed.rows < rows * FACTOR
        })
    }
}

fn reads_parameter(expr: &Expr) -> bool {
    let mut found = false;
    expr.visit(&mut |expr| found |= matches!(expr.node, Node::Parameter(_)));
    found
}

#[cfg(test)]
mod tests {
    use trireme_costs::rows::ColumnEstimate;
    use trireme_device_api::{BinaryOperator, Type};

    use super::*;

    #[test]
    fn values_of_another_magnitude_make_another_plan() {
        let date = |days: i128| vec![Value::Int(days)];
        let column = ColumnEstimate {
            distinct: 1000.0,
            domain: 1000.0,
            base_rows: 1e6,
            range: Some((0.0, 999.0)),
            ..ColumnEstimate::default()
        };
        let below = Expr::binary(
            BinaryOperator::Less,
            Expr::column(0, Type::Date32),
            Expr {
                node: Node::Parameter(0),
                data_type: Type::Date32,
            },
            Type::Boolean,
        );
        let scan = Arc::new(Estimate {
            rows: 1e6,
            columns: vec![column],
            parts: Arc::default(),
        });
        let first = date(500);
        let rows = Rules::new(&first).filtered(&scan, std::slice::from_ref(&below)).rows;
        assert!((rows - 5e5).abs() < 1e3, "{rows}");
        let assumptions = Assumptions {
            scans: vec![Assumed {
                scan,
                predicates: vec![below],
                rows,
            }],
        };
        assert!(assumptions.holds(&date(400)));
        assert!(assumptions.holds(&date(999)));
        assert!(!assumptions.holds(&date(10)));
    }
}
