//! Runs rewritten plans: a node that interprets its graph in the place of the device that will run it.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions, collect,
    collect_partitioned, displayable,
};
use datafusion::prelude::SessionContext;
use trireme_device_api::{Field, Value};
use trireme_device_testkit::arrays::{array_of, batch_of, rows_of, value_at};
use trireme_device_testkit::interpreter::{Data, interpret};
use trireme_exec::operators::{ColumnSource, FileScan};

use super::super::{Lowered, Reason, rewrite};
use super::joins;

/// Interprets a graph.
struct InterpretedExec {
    lowered: Lowered,
    backup: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl InterpretedExec {
    fn new(lowered: Lowered, backup: Arc<dyn ExecutionPlan>) -> Self {
        let mut equivalences = EquivalenceProperties::new(backup.schema());
        if let Some(ordering) = backup.properties().output_ordering().filter(|_| lowered.ordered) {
            equivalences.add_ordering(ordering.clone());
        }
        let properties = PlanProperties::new(
            equivalences,
            Partitioning::UnknownPartitioning(1),
            EmissionType::Both,
            Boundedness::Bounded,
        );
        Self {
            lowered,
            backup,
            properties: Arc::new(properties),
        }
    }
}

impl fmt::Debug for InterpretedExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InterpretedExec")
    }
}

impl DisplayAs for InterpretedExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("InterpretedExec")
    }
}

impl ExecutionPlan for InterpretedExec {
    fn name(&self) -> &'static str {
        "InterpretedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.lowered.streams.iter().collect()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let lowered = Lowered {
            streams: children,
            ..self.lowered.clone()
        };
        Ok(Arc::new(Self::new(lowered, Arc::clone(&self.backup))))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let options = ReplaceChildrenOptions::new(datafusion::physical_plan::ChildrenPropertiesMode::Recompute);
        self.replace_children(children, options)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        assert_eq!(partition, 0);
        let (lowered, schema) = (self.lowered.clone(), self.schema());
        let rows = async move {
            let mut data = Data::default();
            for scan in &lowered.scans {
                data.scans.push(read(scan));
            }
            for (stream, fields) in lowered.streams.iter().zip(&lowered.graph.streams) {
                let parts = collect_partitioned(Arc::clone(stream), Arc::clone(&context)).await?;
                let rows = parts.iter().flatten().map(|batch| rows_of(batch, fields).unwrap());
                data.streams.push(rows.flatten().collect());
            }
            let answer =
                interpret(&lowered.graph, &data).map_err(|error| DataFusionError::Execution(error.to_string()))?;
            let fields = &lowered.graph.output;
            let rows: Vec<_> = answer
                .rows
                .into_iter()
                .map(|row| row.into_iter().take(fields.len()).collect())
                .collect();
            Ok(batch_of(&rows, fields).unwrap().with_schema(schema).unwrap())
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), once(rows))))
    }
}

fn once(
    batch: impl Future<Output = Result<RecordBatch>> + Send + 'static,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static {
    futures::stream::once(batch)
}

/// The rows of a scan, read as its files and columns say.
fn read(scan: &FileScan) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for file in &scan.files {
        let path = format!("/{}", file.object_meta.location);
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            let columns: Vec<_> = scan
                .columns
                .iter()
                .map(|column| {
                    let data_type = column.data_type.to_arrow();
                    let array = match column.source {
                        ColumnSource::Partition(position) => file.partition_values[position]
                            .to_array_of_size(batch.num_rows())
                            .unwrap(),
                        ColumnSource::Kept => panic!("the test's files keep all rows"),
                        ColumnSource::File => match batch.column_by_name(&column.name) {
                            Some(array) => Arc::clone(array),
                            None => array_of(&vec![Value::Null; batch.num_rows()], &column.data_type).unwrap(),
                        },
                    };
                    cast(&array, &data_type).unwrap()
                })
                .collect();
            rows.extend((0..batch.num_rows()).map(|row| {
                let values = columns.iter().zip(&scan.columns);
                values
                    .map(|(array, column)| value_at(array, row, &column.data_type).unwrap())
                    .collect::<Vec<_>>()
            }));
        }
    }
    rows
}

/// A plan's result as rows of text.
fn texts(batches: &[RecordBatch], fields: &[Field]) -> Vec<String> {
    batches
        .iter()
        .flat_map(|batch| rows_of(batch, fields).unwrap())
        .map(|row| {
            let shown: Vec<_> = row
                .iter()
                .map(|value| match value {
                    // Sums of floats depend on the order.
                    Value::Float(value) => format!("{:.6e}", value + 0.0),
                    Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    other => format!("{other:?}"),
                })
                .collect();
            shown.join(" | ")
        })
        .collect()
}

/// What became of a statement.
pub(super) struct Ran {
    /// Graphs in the rewritten plan.
    pub(super) graphs: Vec<Lowered>,
    pub(super) reasons: Vec<Reason>,
    pub(super) rows: usize,
    /// As rewritten.
    pub(super) plan: String,
}

fn rewritten(plan: &Arc<dyn ExecutionPlan>) -> (Arc<dyn ExecutionPlan>, Vec<Lowered>, Vec<Reason>) {
    let graphs = RefCell::new(Vec::new());
    let make = |lowered: Lowered, backup: Arc<dyn ExecutionPlan>| {
        super::valid::check(&lowered.graph, backup.schema().as_ref());
        graphs.borrow_mut().push(lowered.clone());
        Ok(Arc::new(InterpretedExec::new(lowered, backup)) as Arc<dyn ExecutionPlan>)
    };
    let (new, reasons) = rewrite(Arc::clone(plan), joins(), &|_| Ok(()), &make).unwrap();
    (new, graphs.into_inner(), reasons)
}

/// Runs a statement as planned and as rewritten; both must give the same rows, in the same order if it ends in one.
pub(super) async fn same(context: &SessionContext, sql: &str) -> Ran {
    let plan = super::plan(context, sql).await;
    let (new, graphs, reasons) = rewritten(&plan);
    assert_eq!(new.schema(), plan.schema(), "{sql}");
    let expected = collect(super::plan(context, sql).await, context.task_ctx()).await;
    let shown = displayable(new.as_ref()).indent(false).to_string();
    let given = collect(new, context.task_ctx()).await;
    let fields = super::super::lower::fused_fields(&plan.schema()).unwrap();
    let (expected, given) = match (expected, given) {
        (Ok(expected), Ok(given)) => (texts(&expected, &fields), texts(&given, &fields)),
        (Err(_), Err(_)) => (Vec::new(), Vec::new()),
        (expected, given) => panic!("{sql}: {expected:?} but {given:?}"),
    };
    let (mut sorted, mut also) = (expected.clone(), given.clone());
    sorted.sort();
    also.sort();
    assert_eq!(sorted, also, "{sql}\n{}", displayable(plan.as_ref()).indent(false));
    if sql.to_lowercase().contains("order by all") || sql.contains("/* ordered */") {
        assert_eq!(expected, given, "{sql}");
    }
    Ran {
        graphs,
        reasons,
        rows: given.len(),
        plan: shown,
    }
}
