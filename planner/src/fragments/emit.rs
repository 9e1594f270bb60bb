//! Cuts relations into fragments.
//!
//! ```text
//!  Pipe   source ─ steps ─▶ row:  [ f0 f1 f2 … ]        what the fragment carries at this point
//!                           cols: [ Some(#2) None … ]    the relation's columns over that row; none: pruned
//! ```
//!
//! Projections that only rearrange columns make no step; they rearrange `cols`. Equal fragments are made once.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use trireme_device_api::{
    Aggregate, BuildSide, Expr, Field, Fragment, FragmentId, GRAPH_VERSION, Graph, JoinKind, Node, Probe, ScanSource,
    Sink, SortKey, Source, Step, Type,
};
use trireme_exec::operators::{FileScan, ScanStatistics};

use super::needs::{Needs, join_columns};
use super::reduce::reduce;
use super::tree::{Join, Op, RelationId, Tree, same_scan};

/// A stream and which of its columns the graph reads.
#[derive(Debug, Clone)]
pub(super) struct StreamColumns {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) columns: Vec<usize>,
}

/// A graph and what it runs on.
pub(super) struct Emitted {
    pub(super) graph: Graph,
    pub(super) scans: Vec<FileScan>,
    pub(super) streams: Vec<StreamColumns>,
}

/// The graph of the first `output.len()` columns of `root`.
pub(super) fn emit(
    tree: &Tree,
    root: RelationId,
    output: Vec<Field>,
    parameters: Vec<Type>,
) -> Result<Emitted, String> {
    let mut emission = Emission {
        tree,
        needs: Needs::of(tree, root, output.len()),
        graph: Graph {
            version: GRAPH_VERSION,
            fragments: Vec::new(),
            scans: Vec::new(),
            streams: Vec::new(),
            parameters,
            output,
        },
        scans: Vec::new(),
        streams: Vec::new(),
        kept: HashMap::new(),
    };
    emission.root(root)?;
    reduce(&mut emission.graph);
    Ok(Emitted {
        graph: emission.graph,
        scans: emission.scans,
        streams: emission.streams,
    })
}

/// A fragment without its sink.
#[derive(Clone)]
struct Pipe {
    source: Source,
    steps: Vec<Step>,
    row: Vec<Field>,
    cols: Vec<Option<Expr>>,
}

impl Pipe {
    /// An expression over the relation's columns as one over the row.
    fn expr(&self, expr: &Expr) -> Result<Expr, String> {
        let mut expr = expr.clone();
        replace(&mut expr, &self.cols)?;
        Ok(expr)
    }

    fn exprs<'e>(&self, exprs: impl IntoIterator<Item = &'e Expr>) -> Result<Vec<Expr>, String> {
        exprs.into_iter().map(|expr| self.expr(expr)).collect()
    }

    fn column(&self, index: usize) -> Result<Expr, String> {
        self.cols[index]
            .clone()
            .ok_or_else(|| format!("column {index} was left out"))
    }

    fn columns(&self, indexes: &[usize]) -> Result<Vec<Expr>, String> {
        indexes.iter().map(|index| self.column(*index)).collect()
    }

    /// Makes the row these expressions, unless it is already.
    fn project(&mut self, exprs: Vec<Expr>, fields: Vec<Field>) {
        let as_is = exprs.len() == self.row.len()
            && exprs
                .iter()
                .enumerate()
                .all(|(index, expr)| matches!(expr.node, Node::Column(column) if column == index));
        if !as_is {
            self.steps.push(Step::Project(exprs));
        }
        self.row = fields;
    }
}

fn replace(expr: &mut Expr, columns: &[Option<Expr>]) -> Result<(), String> {
    if let Node::Column(index) = expr.node {
        let column = columns.get(index).and_then(Option::as_ref);
        expr.clone_from(column.ok_or_else(|| format!("column {index} was left out"))?);
        return Ok(());
    }
    expr.children_mut()
        .into_iter()
        .try_for_each(|child| replace(child, columns))
}

/// Columns of a relation of `width`, those at `indexes` being the row's first.
fn placed(width: usize, indexes: &[usize], fields: &[Field]) -> Vec<Option<Expr>> {
    let mut cols = vec![None; width];
    for (position, index) in indexes.iter().enumerate() {
        cols[*index] = Some(Expr::column(position, fields[*index].data_type.clone()));
    }
    cols
}

struct Emission<'a> {
    tree: &'a Tree,
    needs: Needs,
    graph: Graph,
    scans: Vec<FileScan>,
    streams: Vec<StreamColumns>,
    /// Relations whose rows are some fragment's output.
    kept: HashMap<RelationId, Pipe>,
}

impl Emission<'_> {
    fn root(&mut self, root: RelationId) -> Result<(), String> {
        let mut pipe = self.pipe(root)?;
        let width = self.graph.output.len();
        let exprs = pipe.columns(&(0..width).collect::<Vec<_>>())?;
        let in_place = exprs
            .iter()
            .enumerate()
            .all(|(index, expr)| matches!(expr.node, Node::Column(column) if column == index));
        let last = self.graph.fragments.len().checked_sub(1);
        let is_last = last.is_some_and(|last| pipe.source == Source::Fragment(last));
        // A sorted fragment may end in columns that it was only sorted by.
        let sorted = last.is_some_and(|last| matches!(self.graph.fragments[last].sink, Sink::Sort { .. }));
        if is_last && pipe.steps.is_empty() && in_place && (sorted || pipe.row.len() == width) {
            return Ok(());
        }
        let output = self.graph.output.clone();
        pipe.project(exprs, output.clone());
        let sink = Sink::Emit { limit: None, offset: 0 };
        self.graph.fragments.push(Fragment {
            source: pipe.source,
            steps: pipe.steps,
            sink,
            output,
        });
        Ok(())
    }

    /// Ends a fragment; an equal one that stands already is used again.
    fn close(&mut self, pipe: Pipe, sink: Sink, output: Vec<Field>) -> FragmentId {
        let fragment = Fragment {
            source: pipe.source,
            steps: pipe.steps,
            sink,
            output,
        };
        if let Some(id) = self.graph.fragments.iter().position(|other| *other == fragment) {
            return id;
        }
        self.graph.fragments.push(fragment);
        self.graph.fragments.len() - 1
    }

    fn fields(&self, id: RelationId, indexes: &[usize]) -> Vec<Field> {
        indexes
            .iter()
            .map(|index| self.tree.fields(id)[*index].clone())
            .collect()
    }

    fn pipe(&mut self, id: RelationId) -> Result<Pipe, String> {
        if let Some(pipe) = self.kept.get(&id) {
            return Ok(pipe.clone());
        }
        let tree = self.tree;
        match &tree.get(id).op {
            Op::Scan(scan) => Ok(self.scan(id, scan)),
            Op::Stream(plan) => Ok(self.stream(id, plan)),
            Op::Filter { input, predicates } => {
                let mut pipe = self.pipe(*input)?;
                for predicate in predicates {
                    pipe.steps.push(Step::Filter(pipe.expr(predicate)?));
                }
                Ok(pipe)
            }
            Op::Project { input, exprs } => self.project(id, *input, exprs),
            Op::Join(join) => self.join(id, join),
            Op::Aggregate {
                input,
                groups,
                aggregates,
            } => self.aggregate(id, *input, groups, aggregates),
            Op::Sort {
                input,
                keys,
                limit,
                offset,
            } => self.sort(id, *input, keys, (*limit, *offset)),
            Op::Limit { input, limit, offset } => {
                let sink = Sink::Emit {
                    limit: *limit,
                    offset: *offset,
                };
                let mut pipe = self.pipe(*input)?;
                let kept = self.needs.columns(id);
                let fields = self.fields(id, &kept);
                pipe.project(pipe.columns(&kept)?, fields.clone());
                let fragment = self.close(pipe, sink, fields);
                Ok(self.keep(id, fragment, &kept))
            }
        }
    }

    /// The rows of a fragment as the relation's: columns `kept` of it, in that order.
    fn keep(&mut self, id: RelationId, fragment: FragmentId, kept: &[usize]) -> Pipe {
        let fields = self.tree.fields(id);
        let pipe = Pipe {
            source: Source::Fragment(fragment),
            steps: Vec::new(),
            row: self.fields(id, kept),
            cols: placed(fields.len(), kept, fields),
        };
        self.kept.insert(id, pipe.clone());
        pipe
    }

    fn scan(&mut self, id: RelationId, scan: &FileScan) -> Pipe {
        let needed = self.needs.columns(id);
        let known = |index: &usize| scan.statistics.columns.get(*index).copied().unwrap_or_default();
        let pruned = FileScan {
            columns: needed.iter().map(|index| scan.columns[*index].clone()).collect(),
            statistics: ScanStatistics {
                columns: needed.iter().map(known).collect(),
                ..scan.statistics.clone()
            },
            ..scan.clone()
        };
        let row = self.fields(id, &needed);
        let position = self.scans.iter().position(|other| same_scan(other, &pruned));
        let position = position.unwrap_or_else(|| {
            self.graph.scans.push(ScanSource {
                name: pruned.name.clone(),
                columns: row.clone(),
            });
            self.scans.push(pruned);
            self.scans.len() - 1
        });
        let fields = self.tree.fields(id);
        Pipe {
            source: Source::Scan(position),
            steps: Vec::new(),
            row,
            cols: placed(fields.len(), &needed, fields),
        }
    }

    fn stream(&mut self, id: RelationId, plan: &Arc<dyn ExecutionPlan>) -> Pipe {
        let needed = self.needs.columns(id);
        let row = self.fields(id, &needed);
        self.graph.streams.push(row.clone());
        self.streams.push(StreamColumns {
            plan: Arc::clone(plan),
            columns: needed.clone(),
        });
        let fields = self.tree.fields(id);
        Pipe {
            source: Source::Stream(self.streams.len() - 1),
            steps: Vec::new(),
            row,
            cols: placed(fields.len(), &needed, fields),
        }
    }

    fn project(&mut self, id: RelationId, input: RelationId, exprs: &[Expr]) -> Result<Pipe, String> {
        let mut pipe = self.pipe(input)?;
        let needed = self.needs.columns(id);
        let made = pipe.exprs(needed.iter().map(|index| &exprs[*index]))?;
        let width = exprs.len();
        if made
            .iter()
            .all(|expr| matches!(expr.node, Node::Column(_) | Node::Literal(_) | Node::Parameter(_)))
        {
            let mut cols = vec![None; width];
            for (index, expr) in needed.into_iter().zip(made) {
                cols[index] = Some(expr);
            }
            pipe.cols = cols;
            return Ok(pipe);
        }
        let fields = self.fields(id, &needed);
        pipe.project(made, fields);
        pipe.cols = placed(width, &needed, self.tree.fields(id));
        Ok(pipe)
    }

    fn join(&mut self, id: RelationId, join: &Join) -> Result<Pipe, String> {
        let needed = self.needs.columns(id);
        let probe_fields = self.tree.fields(join.probe);
        let build_fields = self.tree.fields(join.build);
        let (_, kept) = join_columns(join, probe_fields.len(), &needed);
        let build = self.build(join, &kept)?;
        let mut pipe = self.pipe(join.probe)?;
        if matches!(join.kind, JoinKind::BuildOuter | JoinKind::Full) {
            constants_into_row(&mut pipe, probe_fields);
        }
        let keys = pipe.exprs(&join.probe_keys)?;
        // Probe columns over the row, then build columns behind it.
        let width = pipe.row.len();
        let mut both = pipe.cols.clone();
        both.resize(probe_fields.len() + build_fields.len(), None);
        for (position, index) in kept.iter().enumerate() {
            both[probe_fields.len() + index] =
                Some(Expr::column(width + position, build_fields[*index].data_type.clone()));
        }
        let residual = join
            .residual
            .as_ref()
            .map(|residual| {
                let mut residual = residual.clone();
                replace(&mut residual, &both).map(|()| residual)
            })
            .transpose()?;
        pipe.steps.push(Step::Probe(Probe {
            build,
            kind: join.kind,
            keys,
            residual,
            null_equals_null: join.null_equals_null,
            null_aware: join.null_aware,
        }));
        let payload = self.fields(join.build, &kept);
        match join.kind {
            JoinKind::Inner | JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full => {
                pipe.row.extend(payload);
                pipe.cols = both;
            }
            JoinKind::Semi | JoinKind::Anti => {}
            JoinKind::Mark => {
                pipe.row.extend(self.tree.fields(id).last().cloned());
                pipe.cols.push(Some(Expr::column(width, Type::Boolean)));
            }
            JoinKind::BuildSemi | JoinKind::BuildAnti => {
                pipe.cols = placed(build_fields.len(), &kept, build_fields);
                pipe.row = payload;
            }
        }
        Ok(pipe)
    }

    fn build(&mut self, join: &Join, kept: &[usize]) -> Result<FragmentId, String> {
        let pipe = self.pipe(join.build)?;
        let side = BuildSide {
            keys: pipe.exprs(&join.build_keys)?,
            payload: pipe.columns(kept)?,
        };
        let output = self.fields(join.build, kept);
        Ok(self.close(pipe, Sink::Build(side), output))
    }

    fn aggregate(
        &mut self,
        id: RelationId,
        input: RelationId,
        groups: &[Expr],
        aggregates: &[Aggregate],
    ) -> Result<Pipe, String> {
        let pipe = self.pipe(input)?;
        let mut kept: Vec<_> = (0..groups.len()).collect();
        kept.extend(
            self.needs
                .columns(id)
                .into_iter()
                .filter(|index| *index >= groups.len()),
        );
        let sink = Sink::Aggregate {
            groups: pipe.exprs(groups)?,
            aggregates: kept[groups.len()..]
                .iter()
                .map(|index| over_row(&pipe, &aggregates[index - groups.len()]))
                .collect::<Result<_, _>>()?,
        };
        let output = self.fields(id, &kept);
        let fragment = self.close(pipe, sink, output);
        Ok(self.keep(id, fragment, &kept))
    }

    fn sort(
        &mut self,
        id: RelationId,
        input: RelationId,
        keys: &[SortKey],
        (limit, offset): (Option<usize>, usize),
    ) -> Result<Pipe, String> {
        let mut pipe = self.pipe(input)?;
        let mut kept = self.needs.columns(id);
        for column in keys.iter().flat_map(|key| key.expr.columns()) {
            if !kept.contains(&column) {
                kept.push(column);
            }
        }
        let fields = self.fields(id, &kept);
        pipe.project(pipe.columns(&kept)?, fields.clone());
        pipe.cols = placed(self.tree.fields(id).len(), &kept, self.tree.fields(id));
        let keys = keys
            .iter()
            .map(|key| key_over_row(&pipe, key))
            .collect::<Result<_, _>>()?;
        let fragment = self.close(pipe, Sink::Sort { keys, limit, offset }, fields);
        Ok(self.keep(id, fragment, &kept))
    }
}

/// Puts columns that are constants into the row, so that an outer join can make them NULL.
fn constants_into_row(pipe: &mut Pipe, fields: &[Field]) {
    let is_column = |col: &Option<Expr>| col.as_ref().is_none_or(|expr| matches!(expr.node, Node::Column(_)));
    if pipe.cols.iter().all(is_column) {
        return;
    }
    let present: Vec<_> = (0..pipe.cols.len())
        .filter(|index| pipe.cols[*index].is_some())
        .collect();
    let exprs = pipe.cols.iter().flatten().cloned().collect();
    let row = present.iter().map(|index| fields[*index].clone()).collect();
    pipe.project(exprs, row);
    pipe.cols = placed(pipe.cols.len(), &present, fields);
}

fn key_over_row(pipe: &Pipe, key: &SortKey) -> Result<SortKey, String> {
    Ok(SortKey {
        expr: pipe.expr(&key.expr)?,
        ..key.clone()
    })
}

fn over_row(pipe: &Pipe, aggregate: &Aggregate) -> Result<Aggregate, String> {
    let optional = |expr: &Option<Expr>| expr.as_ref().map(|expr| pipe.expr(expr)).transpose();
    Ok(Aggregate {
        argument: optional(&aggregate.argument)?,
        filter: optional(&aggregate.filter)?,
        order: aggregate
            .order
            .iter()
            .map(|key| key_over_row(pipe, key))
            .collect::<Result<_, _>>()?,
        ..aggregate.clone()
    })
}
