//! Names of sub-plans, and estimates by what ANALYZE and earlier runs found.

use std::sync::Arc;

use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use trireme_device_api::Sink;
use trireme_exec::operators::{Expected, Provenance};
use trireme_exec::statistics::{Feedback, Statistics};

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
