//! Names of sub-plans, and estimates by what ANALYZE and earlier runs found.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use trireme_device_api::{BinaryOperator, Expr, Sink, Type, Value};
use trireme_exec::operators::{Expected, Provenance};
use trireme_exec::statistics::{Feedback, Statistics, TableSketch};

use super::super::estimate::{ColumnEstimate, Estimate, Estimator};
use super::super::sample::Part;
use super::super::{JoinOrder, rewrite};
use super::{fused, plan, tables};

async fn expected(context: &SessionContext, sql: &str) -> Vec<Expected> {
    let lowered = fused(&plan(context, sql).await).unwrap();
    lowered.expectations.rows(&lowered.graph, &[], &[])
}

/// The name of the rows that reach the last aggregate.
async fn name(context: &SessionContext, sql: &str) -> u64 {
    let lowered = fused(&plan(context, sql).await).unwrap();
    let expected = lowered.expectations.rows(&lowered.graph, &[], &[]);
    let fragments = lowered.graph.fragments.iter().zip(&expected);
    let named = fragments.filter(|(fragment, _)| matches!(fragment.sink, Sink::Aggregate { .. }));
    named
        .filter_map(|(_, expected)| expected.sink_name)
        .next_back()
        .unwrap()
}

#[tokio::test]
async fn a_sub_plan_has_one_name_in_every_order() {
    let (_folder, context) = tables::session().await;
    let conditions =
        "c_custkey = o_custkey AND l_orderkey = o_orderkey AND c_nationkey = n_nationkey AND o_totalprice > 10";
    let orders = [
        "customer, orders, lineitem, nation",
        "nation, customer, orders, lineitem",
        "lineitem, orders, customer, nation",
        "orders, nation, lineitem, customer",
    ];
    let mut names = Vec::new();
    for tables in orders {
        names.push(
            name(
                &context,
                &format!("SELECT count(*), sum(l_tax) FROM {tables} WHERE {conditions}"),
            )
            .await,
        );
    }
    assert!(names.iter().all(|name| *name == names[0]), "{names:x?}");
    let other = format!("SELECT count(*), sum(l_tax) FROM {} WHERE {conditions}1", orders[0]);
    assert_ne!(name(&context, &other).await, names[0], "another constant");
    let without = conditions.replace("AND o_totalprice > 10", "");
    let other = format!("SELECT count(*), sum(l_tax) FROM {} WHERE {without}", orders[0]);
    assert_ne!(name(&context, &other).await, names[0], "a condition less");
}

#[tokio::test]
async fn files_that_changed_have_another_name() {
    let (folder, context) = tables::session().await;
    let sql = "SELECT count(*) FROM orders WHERE o_shippriority < 7";
    let before = name(&context, sql).await;
    assert_eq!(name(&context, sql).await, before);
    let path = folder.path().join("nation.parquet");
    tables::write(&path, &tables::batch("n_nationkey i64, n_name text", 24));
    assert_eq!(name(&context, sql).await, before, "it reads other files");
    let path = folder.path().join("orders.parquet");
    let columns = "o_orderkey i64, o_custkey i64, o_orderstatus text, o_totalprice money, o_orderdate date, \
                   o_orderpriority text, o_clerk text, o_shippriority i32, o_comment text";
    tables::write(&path, &tables::batch(columns, 2_000));
    let anew = tables::context(SessionConfig::new());
    let path = path.to_str().unwrap();
    anew.register_parquet("orders", path, ParquetReadOptions::default())
        .await
        .unwrap();
    assert_ne!(name(&anew, sql).await, before);
}

#[tokio::test]
async fn what_a_limit_cuts_short_has_no_name() {
    let (_folder, context) = tables::session().await;
    let expected = expected(
        &context,
        "SELECT o_orderkey FROM orders WHERE o_shippriority > 1 LIMIT 5",
    )
    .await;
    let last = expected.last().unwrap();
    assert_eq!((last.sink_name, last.output_name), (None, None));
}

#[tokio::test]
async fn the_next_plan_expects_what_a_run_counted() {
    let (_folder, context) = tables::session().await;
    let statistics = Arc::new(Statistics {
        feedback: Feedback::new(100),
        ..Statistics::default()
    });
    let sql = "SELECT count(*) FROM orders, customer WHERE o_custkey = c_custkey AND o_clerk LIKE '%3%'";
    let expect = || async {
        let joins = JoinOrder {
            by_cost: true,
            distinct: &|_, _| None,
            statistics: &statistics,
        };
        let found = std::cell::RefCell::new(Vec::new());
        let make = |lowered: super::Lowered, backup: Arc<dyn datafusion::physical_plan::ExecutionPlan>| {
            *found.borrow_mut() = lowered.expectations.rows(&lowered.graph, &[], &[]);
            Ok(backup)
        };
        rewrite(plan(&context, sql).await, joins, &|_| Ok(()), &make).unwrap();
        found.into_inner()
    };
    let before = expect().await;
    let last = before.last().unwrap();
    assert_ne!(last.provenance, Provenance::Feedback);
    let text: Arc<str> = "join".into();
    statistics
        .feedback
        .learn(last.sink_name.unwrap(), 1_234.0, last.sink_rows(), &text);
    let after = expect().await;
    let last = after.last().unwrap();
    assert_eq!((last.sink_rows(), last.provenance), (1_234.0, Provenance::Feedback));
}

/// Rows whose two columns say the same, and one in a hundred is `rare`.
fn sketch(rows: i64, of: f64) -> Arc<TableSketch> {
    let city: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row % 20)));
    let country: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row % 20 / 4)));
    let text = (0..rows).map(|row| if row % 100 == 0 { "rare one" } else { "common" });
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(text));
    let batch = RecordBatch::try_from_iter([("city", city), ("country", country), ("text", text)]).unwrap();
    Arc::new(TableSketch::new(of, &batch, &|name| {
        (name != "text").then_some(if name == "city" { 20.0 } else { 5.0 })
    }))
}

fn sampled(rows: f64) -> Estimate {
    let column = |at: u16, distinct: f64| ColumnEstimate {
        distinct,
        domain: distinct,
        base_rows: rows,
        counted: true,
        sampled: Some((0, at)),
        ..ColumnEstimate::default()
    };
    Estimate {
        rows,
        columns: vec![column(0, 20.0), column(1, 5.0), column(2, 1_000.0)],
        parts: Arc::new([Part::of(&sketch(10_000, rows), rows)]),
    }
}

fn compared(column: usize, value: Value, data_type: Type) -> Expr {
    Expr::binary(
        BinaryOperator::Equal,
        Expr::column(column, data_type.clone()),
        Expr::literal(value, data_type),
        Type::Boolean,
    )
}

#[test]
fn samples_see_conditions_that_go_together() {
    let estimator = Estimator::new(&[], None);
    let input = sampled(1e6);
    let both = [
        compared(0, Value::Int(7), Type::Int64),
        compared(1, Value::Int(1), Type::Int64),
    ];
    let rows = estimator.filtered(&input, &both).rows;
    assert!((rows - 5e4).abs() < 1e3, "{rows}: one in twenty, not one in a hundred");
    let never = [
        compared(0, Value::Int(7), Type::Int64),
        compared(1, Value::Int(2), Type::Int64),
    ];
    let rows = estimator.filtered(&input, &never).rows;
    assert!(rows < 500.0, "{rows}: they exclude each other");
}

#[test]
fn samples_see_text_and_rare_values() {
    let estimator = Estimator::new(&[], None);
    let input = sampled(1e6);
    let rare = compared(2, Value::Bytes(b"rare one".as_slice().into()), Type::Utf8);
    let rows = estimator.filtered(&input, &[rare]).rows;
    assert!((rows - 1e4).abs() < 500.0, "{rows}");
    let absent = compared(2, Value::Bytes(b"absent".as_slice().into()), Type::Utf8);
    let rows = estimator.filtered(&input, &[absent]).rows;
    assert!(rows <= 1e3 + 1.0, "{rows}: as if one of a thousand values");
}

#[test]
fn samples_see_which_values_stand_together() {
    let input = sampled(1e6);
    let groups = [Expr::column(0, Type::Int64), Expr::column(1, Type::Int64)];
    let rows = super::super::estimate::grouped(&input, &groups, &[], &[]).rows;
    assert!((rows - 20.0).abs() < 1.0, "{rows}: not a hundred");
}
