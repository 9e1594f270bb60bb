//! A fragment's aggregate as parts that are added up: the graph that each device runs over its rows, and the graph that merges.
//!
//! ```text
//!  f: scan ─▶ steps ─▶ SUM(a), AVG(b) BY k      parts:  scan ─▶ steps ─▶ SUM(a), SUM(b), COUNT(b) BY k        (one per device)
//!                                              merge:  rows of all parts ─▶ SUM, SUM, SUM BY k ─▶ s, sum ÷ count
//! ```
//!
//! The sums of integers and decimals are exact, so that the result doesn't depend on who ran which rows. A part may overflow where
//! the whole would not: then the fragment runs undivided, which decides.

use std::sync::Arc;

use trireme_device_api::{
    Aggregate, AggregateFunction, BinaryOperator, Expr, Field, Fragment, FragmentId, GRAPH_VERSION, Graph, Node, Sink,
    Source, Step, Type,
};

/// The most digits of a sum that is divided later.
const PRECISION_MAX: u8 = 38;
/// Decimal digits of a count.
const COUNT_PRECISION: u8 = 20;

/// See the module.
pub(crate) struct Parts {
    /// What the fragment needs, then the fragment, whose rows are parts.
    pub(crate) graph: Arc<Graph>,
    /// By fragment of `graph`: its position in the whole.
    pub(crate) ids: Vec<FragmentId>,
    /// Merges: the rows of its first fragment are those of all parts, and the last one's are the result.
    pub(crate) merge: Arc<Graph>,
}

impl Parts {
    /// Of a fragment that [`trireme_costs::split::needs_of`] says can be cut, with these before it.
    pub(crate) fn of(graph: &Graph, fragment: FragmentId, needs: &[FragmentId]) -> Option<Self> {
        let ids: Vec<FragmentId> = needs.iter().copied().chain([fragment]).collect();
        let position = |id: FragmentId| ids.iter().position(|each| *each == id);
        let mut fragments = Vec::with_capacity(ids.len());
        for id in &ids {
            let mut copy = graph.fragments.get(*id)?.clone();
            if let Source::Fragment(read) = &mut copy.source {
                *read = position(*read)?;
            }
            for step in &mut copy.steps {
                if let Step::Probe(probe) = step {
                    probe.build = position(probe.build)?;
                }
            }
            fragments.push(copy);
        }
        let cut = fragments.last_mut()?;
        let Sink::Aggregate { groups, aggregates } = &mut cut.sink else {
            return None;
        };
        let merge = Merge::of(groups.len(), aggregates, &cut.output)?;
        *aggregates = merge.partial;
        cut.output.clone_from(&merge.fields);
        let of = |fragments: Vec<Fragment>| Graph {
            version: GRAPH_VERSION,
            output: fragments.last().map(|last| last.output.clone()).unwrap_or_default(),
            fragments,
            scans: graph.scans.clone(),
            streams: graph.streams.clone(),
            parameters: graph.parameters.clone(),
        };
        let merging = of(merge.fragments);
        Some(Self {
            graph: Arc::new(of(fragments)),
            ids,
            merge: Arc::new(merging),
        })
    }

    /// Position of the fragment that is cut.
    pub(crate) fn cut(&self) -> FragmentId {
        self.graph.fragments.len() - 1
    }

    /// Columns of the parts' rows.
    pub(crate) fn fields(&self) -> &[Field] {
        &self.graph.fragments[self.cut()].output
    }
}

/// How parts are made and merged.
struct Merge {
    partial: Vec<Aggregate>,
    fields: Vec<Field>,
    fragments: Vec<Fragment>,
}

fn column(position: usize, data_type: &Type) -> Expr {
    Expr {
        node: Node::Column(position),
        data_type: data_type.clone(),
    }
}

impl Merge {
    fn of(groups: usize, aggregates: &[Aggregate], output: &[Field]) -> Option<Self> {
        let keys = output.get(..groups)?.to_vec();
        let mut partial = Vec::new();
        let mut fields = keys.clone();
        let mut results: Vec<Expr> = (0..groups).map(|at| column(at, &keys[at].data_type)).collect();
        for (aggregate, field) in aggregates.iter().zip(output.get(groups..)?) {
            let first = groups + partial.len();
            for part in parts_of(aggregate)? {
                fields.push(Field {
                    name: field.name.clone(),
                    nullable: part.function != AggregateFunction::Count,
                    data_type: part.data_type.clone(),
                });
                partial.push(part);
            }
            results.push(match aggregate.function {
                AggregateFunction::Average => average(first, &fields[first].data_type, &aggregate.data_type),
                _ => column(first, &field.data_type),
            });
        }
        let merged = partial.iter().enumerate().map(|(at, part)| Aggregate {
            function: match part.function {
                AggregateFunction::Count => AggregateFunction::Sum,
                function => function,
            },
            argument: Some(column(groups + at, &part.data_type)),
            filter: None,
            ..part.clone()
        });
        let merges = Fragment {
            source: Source::Fragment(0),
            steps: Vec::new(),
            sink: Sink::Aggregate {
                groups: (0..groups).map(|at| column(at, &keys[at].data_type)).collect(),
                aggregates: merged.collect(),
            },
            output: fields.clone(),
        };
        let emit = |source, steps, output: &[Field]| Fragment {
            source,
            steps,
            sink: Sink::Emit { limit: None, offset: 0 },
            output: output.to_vec(),
        };
        // It stands for the parts, and never runs.
        let mut fragments = vec![emit(Source::Fragment(0), Vec::new(), &fields), merges];
        if partial.len() > aggregates.len() {
            fragments.push(emit(Source::Fragment(1), vec![Step::Project(results)], output));
        }
        Some(Self {
            partial,
            fields,
            fragments,
        })
    }
}

/// What parts have in the place of an aggregate.
fn parts_of(aggregate: &Aggregate) -> Option<Vec<Aggregate>> {
    if aggregate.function != AggregateFunction::Average {
        return Some(vec![aggregate.clone()]);
    }
    let of = |function, data_type| Aggregate {
        function,
        data_type,
        ..aggregate.clone()
    };
    let sum = match &aggregate.argument.as_ref()?.data_type {
        Type::Decimal { scale, .. } => Type::Decimal {
            precision: PRECISION_MAX,
            scale: *scale,
        },
        Type::UInt8 | Type::UInt16 | Type::UInt32 | Type::UInt64 => Type::UInt64,
        Type::Int8 | Type::Int16 | Type::Int32 | Type::Int64 => Type::Int64,
        Type::Float32 | Type::Float64 => Type::Float64,
        _ => return None,
    };
    Some(vec![
        of(AggregateFunction::Sum, sum),
        of(AggregateFunction::Count, Type::Int64),
    ])
}

/// The sum in one column by the count in the next.
fn average(sum: usize, summed: &Type, result: &Type) -> Expr {
    let cast = |expr: Expr, to: &Type| match expr.data_type == *to {
        true => expr,
        false => Expr {
            node: Node::Cast {
                expr: Box::new(expr),
                safe: false,
            },
            data_type: to.clone(),
        },
    };
    let count = column(sum + 1, &Type::Int64);
    let (left, right) = match summed {
        Type::Decimal { .. } => {
            let whole = Type::Decimal {
                precision: COUNT_PRECISION,
                scale: 0,
            };
            (column(sum, summed), cast(count, &whole))
        }
        _ => (cast(column(sum, summed), &Type::Float64), cast(count, &Type::Float64)),
    };
    Expr {
        node: Node::Binary {
            op: BinaryOperator::Divide,
            left: Box::new(left),
            right: Box::new(right),
        },
        data_type: result.clone(),
    }
}
