//! Estimates by what ANALYZE sampled.

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use trireme_device_api::BinaryOperator;

use super::*;

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
    let rules = Rules::new(&[]);
    let input = sampled(1e6);
    let both = [
        compared(0, Value::Int(7), Type::Int64),
        compared(1, Value::Int(1), Type::Int64),
    ];
    let rows = rules.filtered(&input, &both).rows;
    assert!((rows - 5e4).abs() < 1e3, "{rows}: one in twenty, not one in a hundred");
    let never = [
        compared(0, Value::Int(7), Type::Int64),
        compared(1, Value::Int(2), Type::Int64),
    ];
    let rows = rules.filtered(&input, &never).rows;
    assert!(rows < 500.0, "{rows}: they exclude each other");
}

#[test]
fn samples_see_text_and_rare_values() {
    let rules = Rules::new(&[]);
    let input = sampled(1e6);
    let rare = compared(2, Value::Bytes(b"rare one".as_slice().into()), Type::Utf8);
    let rows = rules.filtered(&input, &[rare]).rows;
    assert!((rows - 1e4).abs() < 500.0, "{rows}");
    let absent = compared(2, Value::Bytes(b"absent".as_slice().into()), Type::Utf8);
    let rows = rules.filtered(&input, &[absent]).rows;
    assert!(rows <= 1e3 + 1.0, "{rows}: as if one of a thousand values");
}

#[test]
fn samples_see_which_values_stand_together() {
    let input = sampled(1e6);
    let groups = [Expr::column(0, Type::Int64), Expr::column(1, Type::Int64)];
    let rows = Rules::new(&[]).grouped(&input, &groups, &[]).rows;
    assert!((rows - 20.0).abs() < 1.0, "{rows}: not a hundred");
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} is not {b}");
}

#[test]
fn distinct_values_are_left_by_chance() {
    near(kept_distinct(10.0, 1e6, 1e5), 10.0);
    near(kept_distinct(1e6, 1e6, 1e3), 1e3);
    // Groups by keys of so many combinations that each row is its own.
    near(kept_distinct(1e30, 1e30, 5e4), 5e4);
    assert!((kept_distinct(1e6, 2e6, 1e6) - 0.75e6).abs() < 1e3);
}

#[test]
fn a_plan_looks_at_so_many_values_and_what_was_found_costs_nothing() {
    let input = sampled(1e6);
    let rare = [compared(2, Value::Bytes(b"rare one".as_slice().into()), Type::Utf8)];
    let spent = Rules::within(&[], 0).filtered(&input, &rare).rows;
    assert!((spent - 1e3).abs() < 1.0, "{spent}: one of a thousand values");
    let seen = Rules::new(&[]).filtered(&input, &rare).rows;
    assert!((seen - 1e4).abs() < 500.0, "{seen}");
    assert_eq!(
        Rules::within(&[], 0).filtered(&input, &rare).rows,
        seen,
        "it is known now"
    );
    let parameter = Expr {
        node: Node::Parameter(0),
        data_type: Type::Utf8,
    };
    let bound = [Expr::binary(
        BinaryOperator::Equal,
        Expr::column(2, Type::Utf8),
        parameter,
        Type::Boolean,
    )];
    for (text, rows) in [("rare one", 1e4), ("common", 9.9e5)] {
        let values = [Value::Bytes(text.as_bytes().into())];
        let found = Rules::new(&values).filtered(&input, &bound).rows;
        assert!((found - rows).abs() < 500.0, "{text}: {found}, of another value's mask");
    }
}

#[test]
fn a_column_that_equals_a_constant_has_one_value() {
    let input = sampled(1e6);
    let rules = Rules::new(&[]);
    let kept = rules.filtered(&input, &[compared(0, Value::Int(7), Type::Int64)]);
    let groups = [Expr::column(0, Type::Int64)];
    assert_eq!(rules.grouped(&kept, &groups, &[]).rows, 1.0);
}

#[test]
fn what_a_projection_makes_of_a_sampled_column_is_counted() {
    let input = sampled(1e6);
    let start = |value: i128| Expr::literal(Value::Int(value), Type::Int64);
    let first = Expr {
        node: Node::Function {
            function: Function::Substring,
            args: vec![Expr::column(2, Type::Utf8), start(1), start(2)],
        },
        data_type: Type::Utf8,
    };
    let made = Rules::new(&[]).projected(&input, std::slice::from_ref(&first));
    assert_eq!(made.columns[0].distinct, 2.0, "not a hundred and forty-four");
}

#[test]
fn nulls_that_footers_counted_decide_what_is_null() {
    let rules = Rules::new(&[]);
    let column = ColumnEstimate {
        nulls: Some(0.9),
        ..ColumnEstimate::of_table(1e6, Some(10.0), None, &Type::Int64)
    };
    let input = Estimate {
        rows: 1e6,
        columns: vec![column],
        parts: Arc::default(),
    };
    let of = |node: Node| Expr {
        node,
        data_type: Type::Boolean,
    };
    let value = || Box::new(Expr::column(0, Type::Int64));
    let rows = |condition: Expr| rules.filtered(&input, &[condition]).rows.round();
    assert_eq!(
        (rows(of(Node::IsNull(value()))), rows(of(Node::IsNotNull(value())))),
        (9e5, 1e5)
    );
    assert_eq!(
        rows(compared(0, Value::Int(7), Type::Int64)),
        1e4,
        "a tenth of what has a value"
    );
}
