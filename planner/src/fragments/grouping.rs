//! Grouping sets: each row once for each set, its keys that the set leaves out as NULL, and the set's number as one more key.
//!
//! ```text
//!  rows ─▶ aggregate by all keys ─▶ × sets [kept_0, kept_1, …, empty, __grouping_id] ─▶ aggregate by CASE WHEN kept_i THEN key_i END, …
//! ```
//!
//! The sets are a stream of a few rows, and the product a join without keys, so devices need to know nothing of them. Where
//! aggregates can be made of others', rows are first aggregated by all keys: then groups are multiplied, not rows. A set without
//! keys has a group also when there are no rows: then the join is outer, and a mark tells rows from what stands for none.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_plan::ExecutionPlan;
use trireme_device_api::{Aggregate, AggregateFunction, BinaryOperator, Expr, Field, JoinKind, Node, Type, Value};

use super::tree::{Join, Op, RelationId, Tree, identity};

/// Digits of a count.
const COUNT_TYPE: Type = Type::Decimal {
    precision: 20,
    scale: 0,
};

/// What an aggregate over grouping sets is made of.
pub(super) struct Grouping<'a> {
    pub(super) keys: Vec<Expr>,
    /// For each set, whether it leaves a key out.
    pub(super) sets: &'a [Vec<bool>],
    pub(super) aggregates: Vec<Aggregate>,
    /// The result's columns: keys, the set's number, aggregates.
    pub(super) fields: Vec<Field>,
}

/// The rows of sets that a tree has already.
pub(super) type KnownSets = Vec<(Vec<Vec<bool>>, Type, RelationId)>;

/// The aggregate of `input` over grouping sets.
pub(super) fn aggregated(
    tree: &mut Tree,
    known: &mut KnownSets,
    input: RelationId,
    grouping: Grouping<'_>,
) -> Result<RelationId, String> {
    let Grouping {
        keys,
        sets,
        aggregates,
        fields,
    } = grouping;
    let width = keys.len();
    let number = fields.get(width).ok_or("grouping sets without their number")?.clone();
    let has_finest = sets.iter().any(|left_out| !left_out.contains(&true));
    let parts: Option<Vec<_>> = aggregates
        .iter()
        .map(|aggregate| Parts::of(aggregate).filter(|parts| has_finest || !parts.may_overflow()))
        .collect();
    let Some(parts) = parts else {
        let product = multiplied(tree, known, input, keys, sets, &number)?;
        let only_rows = |aggregate| only_marked(aggregate, product.mark.as_ref());
        let op = Op::Aggregate {
            input: product.relation,
            groups: product.keys,
            aggregates: aggregates.into_iter().map(only_rows).collect(),
        };
        return Ok(tree.add(op, fields));
    };
    let finest = by_all_keys(tree, input, keys, &parts, &fields);
    let columns = identity(&tree.fields(finest)[..width]);
    let product = multiplied(tree, known, finest, columns, sets, &number)?;
    let outer: Vec<_> = (width..)
        .zip(parts.iter().flat_map(|parts| &parts.made))
        .map(again)
        .collect();
    let mut made = fields[..=width].to_vec();
    made.extend(outer.iter().map(|aggregate| nullable("part", &aggregate.data_type)));
    let whole = tree.add(
        Op::Aggregate {
            input: product.relation,
            groups: product.keys,
            aggregates: outer,
        },
        made,
    );
    let mut exprs = tree.columns(whole);
    let sums = exprs.split_off(width + 1);
    let mut sums = sums.into_iter();
    for (parts, field) in parts.iter().zip(&fields[width + 1..]) {
        let values: Vec<_> = sums.by_ref().take(parts.made.len()).collect();
        exprs.push(parts.result(values, &field.data_type)?);
    }
    Ok(tree.project(whole, exprs, fields))
}

/// The parts of all aggregates by all keys.
fn by_all_keys(tree: &mut Tree, input: RelationId, keys: Vec<Expr>, parts: &[Parts], fields: &[Field]) -> RelationId {
    let aggregates: Vec<_> = parts.iter().flat_map(|parts| parts.made.clone()).collect();
    let mut made = fields[..keys.len()].to_vec();
    made.extend(
        aggregates
            .iter()
            .map(|aggregate| nullable("part", &aggregate.data_type)),
    );
    let op = Op::Aggregate {
        input,
        groups: keys,
        aggregates,
    };
    tree.add(op, made)
}

/// Each row once for each set.
struct Product {
    relation: RelationId,
    /// The keys as the set has them, and its number.
    keys: Vec<Expr>,
    /// NULL where there is no row, if that can be.
    mark: Option<Expr>,
}

fn multiplied(
    tree: &mut Tree,
    known: &mut KnownSets,
    input: RelationId,
    keys: Vec<Expr>,
    sets: &[Vec<bool>],
    number: &Field,
) -> Result<Product, String> {
    let build = rows_of(tree, known, sets, number)?;
    let has_empty = sets.iter().any(|left_out| left_out.iter().all(|left_out| *left_out));
    let probe = if has_empty { marked(tree, input) } else { input };
    let before = tree.fields(probe).len();
    let join = Join {
        probe,
        build,
        kind: if has_empty {
            JoinKind::BuildOuter
        } else {
            JoinKind::Inner
        },
        probe_keys: Vec::new(),
        build_keys: Vec::new(),
        residual: None,
        null_equals_null: false,
        null_aware: false,
    };
    let mut relation = tree.join(join, None);
    let width = keys.len();
    let mark = has_empty.then(|| Expr::column(before - 1, Type::Boolean));
    if let Some(mark) = &mark {
        let empty = Expr::column(before + width, Type::Boolean);
        let stays = Expr::binary(BinaryOperator::Or, present(mark), empty, Type::Boolean);
        relation = tree.filter(relation, vec![stays]);
    }
    let masked = keys.into_iter().enumerate().map(|(index, key)| {
        if sets.iter().all(|left_out| !left_out[index]) {
            return key;
        }
        let data_type = key.data_type.clone();
        let kept = Expr::column(before + index, Type::Boolean);
        Expr {
            node: Node::Case {
                branches: vec![(kept, key)],
                otherwise: None,
            },
            data_type,
        }
    });
    let mut keys: Vec<_> = masked.collect();
    keys.push(Expr::column(before + width + 1, number.data_type.clone()));
    Ok(Product { relation, keys, mark })
}

/// The rows with a column more that is never NULL.
fn marked(tree: &mut Tree, input: RelationId) -> RelationId {
    let mut exprs = tree.columns(input);
    exprs.push(Expr::literal(Value::Boolean(true), Type::Boolean));
    let mut fields = tree.fields(input).to_vec();
    fields.push(flag("row"));
    tree.project(input, exprs, fields)
}

fn present(value: &Expr) -> Expr {
    Expr {
        node: Node::IsNotNull(Box::new(value.clone())),
        data_type: Type::Boolean,
    }
}

/// The aggregate of those rows that are some.
fn only_marked(aggregate: Aggregate, mark: Option<&Expr>) -> Aggregate {
    let Some(mark) = mark else {
        return aggregate;
    };
    let filter = match aggregate.filter {
        Some(filter) => Expr::binary(BinaryOperator::And, present(mark), filter, Type::Boolean),
        None => present(mark),
    };
    Aggregate {
        filter: Some(filter),
        ..aggregate
    }
}

/// The sets as rows: which keys are kept, whether there are none, then the set's number.
fn rows_of(tree: &mut Tree, known: &mut KnownSets, sets: &[Vec<bool>], number: &Field) -> Result<RelationId, String> {
    let same = known
        .iter()
        .find(|(other, data_type, _)| other == sets && *data_type == number.data_type);
    if let Some((.., id)) = same {
        return Ok(*id);
    }
    let width = sets.first().map_or(0, Vec::len);
    let mut fields: Vec<_> = (0..width).map(|index| flag(&format!("kept_{index}"))).collect();
    fields.push(flag("empty"));
    fields.push(Field {
        nullable: false,
        ..number.clone()
    });
    let plan = constant_rows(sets, width, &number.data_type.to_arrow()).map_err(|error| error.strip_backtrace())?;
    let id = tree.add(Op::Stream(plan), fields);
    known.push((sets.to_vec(), number.data_type.clone(), id));
    Ok(id)
}

fn constant_rows(
    sets: &[Vec<bool>],
    width: usize,
    number: &DataType,
) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    let mut columns: Vec<ArrayRef> = (0..width)
        .map(|index| {
            Arc::new(
                sets.iter()
                    .map(|left_out| Some(!left_out[index]))
                    .collect::<BooleanArray>(),
            ) as _
        })
        .collect();
    let empty = sets
        .iter()
        .map(|left_out| Some(left_out.iter().all(|left_out| *left_out)));
    columns.push(Arc::new(empty.collect::<BooleanArray>()));
    columns.push(cast(&UInt64Array::from(numbers(sets)), number)?);
    let fields = columns.iter().enumerate().map(|(index, column)| {
        let name = format!("set_{index}");
        ArrowField::new(name, column.data_type().clone(), false)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None)?)
}

/// The numbers that DataFusion gives to sets: a bit for each key that is left out, the first key's highest; above them which
/// of several equal sets it is.
fn numbers(sets: &[Vec<bool>]) -> Vec<u64> {
    sets.iter()
        .enumerate()
        .map(|(at, set)| {
            let bits = set.iter().fold(0, |bits, left_out| bits << 1 | u64::from(*left_out));
            let before = sets[..at].iter().filter(|other| *other == set).count() as u64;
            // DataFusion refuses what doesn't fit into 64 bits.
            bits | before.wrapping_mul(1 << set.len().min(63))
        })
        .collect()
}

fn flag(name: &str) -> Field {
    Field {
        name: name.to_owned(),
        data_type: Type::Boolean,
        nullable: false,
    }
}

fn nullable(name: &str, data_type: &Type) -> Field {
    Field {
        name: name.to_owned(),
        data_type: data_type.clone(),
        nullable: true,
    }
}

/// An aggregate as others whose results by all keys can be aggregated again.
struct Parts {
    function: AggregateFunction,
    made: Vec<Aggregate>,
}

impl Parts {
    /// None where a group's result doesn't follow from the results of its parts.
    fn of(aggregate: &Aggregate) -> Option<Self> {
        let function = aggregate.function;
        if aggregate.distinct {
            return None;
        }
        let part = |function, data_type| Aggregate {
            function,
            data_type,
            ..aggregate.clone()
        };
        let made = match function {
            AggregateFunction::Count | AggregateFunction::Sum | AggregateFunction::Min | AggregateFunction::Max => {
                vec![aggregate.clone()]
            }
            AggregateFunction::Average => {
                let argument = &aggregate.argument.as_ref()?.data_type;
                let sum = match (argument, &aggregate.data_type) {
                    (Type::Decimal { scale, .. }, Type::Decimal { .. }) => Type::Decimal {
                        precision: 38,
                        scale: *scale,
                    },
                    // Fewer than 2^31 rows of wider integers could sum to more than 64 bits.
                    (Type::Int8 | Type::Int16 | Type::Int32, Type::Float64) => Type::Int64,
                    _ => return None,
                };
                vec![
                    part(AggregateFunction::Sum, sum),
                    part(AggregateFunction::Count, Type::Int64),
                ]
            }
            _ => return None,
        };
        Some(Self { function, made })
    }

    /// True where a part may not fit although the results of its sets do.
    fn may_overflow(&self) -> bool {
        let whole = |data_type: &Type| !data_type.is_float();
        match self.function {
            AggregateFunction::Sum => self.made.iter().any(|part| whole(&part.data_type)),
            AggregateFunction::Average => self
                .made
                .iter()
                .any(|part| matches!(part.data_type, Type::Decimal { .. })),
            _ => false,
        }
    }

    /// The aggregate's result from those of its parts.
    fn result(&self, mut values: Vec<Expr>, data_type: &Type) -> Result<Expr, String> {
        if self.function == AggregateFunction::Count {
            let count = values.pop().ok_or("a count without parts")?;
            return Ok(or_zero(count));
        }
        if self.function != AggregateFunction::Average {
            return values.pop().ok_or_else(|| "an aggregate without parts".to_owned());
        }
        let (Some(count), Some(sum)) = (values.pop(), values.pop()) else {
            return Err("an average without its parts".to_owned());
        };
        let zero = Expr::literal(Value::Int(0), Type::Int64);
        let some = Expr::binary(BinaryOperator::Greater, count.clone(), zero, Type::Boolean);
        let (sum, count) = if *data_type == Type::Float64 {
            (converted(sum, Type::Float64), converted(count, Type::Float64))
        } else {
            (sum, converted(count, COUNT_TYPE))
        };
        let quotient = Expr::binary(BinaryOperator::Divide, sum, count, data_type.clone());
        Ok(Expr {
            node: Node::Case {
                branches: vec![(some, quotient)],
                otherwise: None,
            },
            data_type: data_type.clone(),
        })
    }
}

/// The aggregate of parts that stand in a column.
fn again((column, part): (usize, &Aggregate)) -> Aggregate {
    let function = match part.function {
        AggregateFunction::Count => AggregateFunction::Sum,
        function => function,
    };
    Aggregate {
        function,
        argument: Some(Expr::column(column, part.data_type.clone())),
        distinct: false,
        filter: None,
        order: Vec::new(),
        data_type: part.data_type.clone(),
    }
}

/// The count of no parts is 0.
fn or_zero(count: Expr) -> Expr {
    let data_type = count.data_type.clone();
    Expr {
        node: Node::Case {
            branches: vec![(present(&count), count)],
            otherwise: Some(Box::new(Expr::literal(Value::Int(0), data_type.clone()))),
        },
        data_type,
    }
}

fn converted(expr: Expr, data_type: Type) -> Expr {
    Expr {
        node: Node::Cast {
            expr: Box::new(expr),
            safe: false,
        },
        data_type,
    }
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn sets_have_datafusions_numbers() {
        let sets = [
            vec![false, false],
            vec![false, true],
            vec![true, true],
            vec![false, true],
        ];
        assert_eq!(numbers(&sets), [0b00, 0b01, 0b11, 0b101]);
    }
}
