//! The node of `EXPLAIN (PLACEMENT)`: what the cost model says of the fragments below it, and what they took if they ran.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions, execute_stream,
};
use futures::StreamExt;
use trireme_costs::explain;

use super::FragmentExec;
use crate::error::{ErrorClass, QueryError};
use crate::history::{FragmentRun, Resteer};
use crate::placement::Decided;

/// How the answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PlacementFormat {
    /// A row per fragment and candidate.
    #[default]
    Table,
    /// A tree for people.
    Text,
    /// One JSON document.
    Json,
    /// A Mermaid diagram.
    Mermaid,
}

impl PlacementFormat {
    /// The columns of the answer.
    pub fn schema(self, analyze: bool) -> SchemaRef {
        if self != PlacementFormat::Table {
            return Arc::new(Schema::new(vec![Field::new("placement", DataType::Utf8, true)]));
        }
        let columns = columns(&[], analyze);
        let fields = columns
            .iter()
            .map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// See the module.
#[derive(Debug)]
pub struct PlacementExec {
    input: Arc<dyn ExecutionPlan>,
    analyze: bool,
    format: PlacementFormat,
    /// Of the catalogue, in the place of those that are there.
    devices: Vec<String>,
    properties: Arc<PlanProperties>,
}

impl PlacementExec {
    /// Over a statement's plan; with `analyze` it runs first. `devices` are of the catalogue; none: those that are there.
    pub fn new(input: Arc<dyn ExecutionPlan>, analyze: bool, format: PlacementFormat, devices: Vec<String>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(format.schema(analyze)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            input,
            analyze,
            format,
            devices,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for PlacementExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "PlacementExec: analyze={}", self.analyze)
    }
}

impl ExecutionPlan for PlacementExec {
    fn name(&self) -> &'static str {
        "PlacementExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(match children.pop() {
            Some(input) => Arc::new(Self::new(input, self.analyze, self.format, self.devices.clone())),
            None => self,
        })
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (input, analyze, format) = (Arc::clone(&self.input), self.analyze, self.format);
        let devices = self.devices.clone();
        let answer = async move {
            if analyze {
                let mut rows = execute_stream(Arc::clone(&input), context)?;
                while let Some(batch) = rows.next().await {
                    batch?;
                }
            }
            answer(&input, analyze, format, &devices)
        };
        let stream = futures::stream::once(answer);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }
}

/// A graph of the plan, judged.
struct Judged {
    graph: usize,
    decided: Decided,
    runs: Vec<FragmentRun>,
    resteers: Vec<Resteer>,
}

fn answer(
    input: &Arc<dyn ExecutionPlan>,
    analyze: bool,
    format: PlacementFormat,
    devices: &[String],
) -> Result<RecordBatch> {
    let mut judged = Vec::new();
    judge(input, devices, &mut judged)?;
    judged.sort_by_key(|graph| graph.graph);
    let text = |lines: Vec<String>| -> Result<RecordBatch> {
        let column: ArrayRef = Arc::new(StringArray::from(lines));
        Ok(RecordBatch::try_new(format.schema(analyze), vec![column])?)
    };
    match format {
        PlacementFormat::Table => {
            let columns = columns(&judged, analyze).into_iter().map(|(_, column)| column);
            Ok(RecordBatch::try_new(format.schema(analyze), columns.collect())?)
        }
        PlacementFormat::Text => {
            let mut lines = Vec::new();
            for graph in &judged {
                lines.extend(
                    explain::text(&graph.decided.facts, &graph.decided.decision)
                        .lines()
                        .map(ToOwned::to_owned),
                );
                lines.extend(graph.decided.notes.iter().map(|note| format!("note: {note}")));
                lines.extend(graph.runs.iter().map(run_line));
                lines.extend(graph.resteers.iter().map(|resteer| format!("re-steered: {resteer}")));
            }
            text(lines)
        }
        PlacementFormat::Json => {
            let documents = judged.iter().map(json).collect::<std::result::Result<Vec<_>, _>>();
            let documents = documents.map_err(|error| DataFusionError::External(Box::new(error)))?;
            text(vec![format!("[{}]", documents.join(","))])
        }
        PlacementFormat::Mermaid => {
            let diagrams = judged.iter().map(mermaid);
            text(
                diagrams
                    .flat_map(|diagram| diagram.lines().map(ToOwned::to_owned).collect::<Vec<_>>())
                    .collect(),
            )
        }
    }
}

/// With how the run was placed anew, if it was.
fn json(graph: &Judged) -> std::result::Result<String, serde_json::Error> {
    let Decided { facts, decision, notes } = &graph.decided;
    let text = explain::json(graph.graph, facts, decision, notes)?;
    if graph.resteers.is_empty() {
        return Ok(text);
    }
    let mut document: serde_json::Value = serde_json::from_str(&text)?;
    let resteers = graph.resteers.iter().map(|resteer| {
        serde_json::json!({
            "after_ms": resteer.since.as_secs_f64() * 1e3,
            "trigger": resteer.trigger,
            "fallback": resteer.fallback,
            "moved": resteer.moved,
            "before": resteer.before,
            "after": resteer.after,
            "stay_ms": resteer.stay_ms,
            "go_ms": resteer.go_ms,
        })
    });
    document["resteers"] = resteers.collect();
    serde_json::to_string_pretty(&document)
}

/// Below the diagram a box per look at the running graph, in their order.
fn mermaid(graph: &Judged) -> String {
    let mut text = explain::mermaid(&graph.decided.facts, &graph.decided.decision);
    for (at, resteer) in graph.resteers.iter().enumerate() {
        let label = resteer.to_string().replace('"', "'");
        text += &format!("  r{at}[/\"{label}\"/]\n");
        if at > 0 {
            text += &format!("  r{} --> r{at}\n", at - 1);
        }
    }
    text
}

fn run_line(run: &FragmentRun) -> String {
    format!(
        "ran: fragment {} on {}/{} in {:.3} ms, {} rows{}",
        run.fragment,
        run.device,
        run.variant,
        run.time.as_secs_f64() * 1e3,
        run.report.output_rows.map_or("?".to_owned(), |rows| rows.to_string()),
        run.fallback
            .as_ref()
            .map_or(String::new(), |reason| format!("; it fell back: {reason}")),
    )
}

fn judge(plan: &Arc<dyn ExecutionPlan>, devices: &[String], judged: &mut Vec<Judged>) -> Result<()> {
    if let Some(node) = plan.downcast_ref::<FragmentExec>() {
        let decided = node.decide(devices).map_err(|error| {
            let error = QueryError::new(ErrorClass::Precondition, error.to_string());
            DataFusionError::External(Box::new(
                error.with_hint("system.devices has the devices that are there, SHOW ALL the session's bounds"),
            ))
        })?;
        judged.push(Judged {
            graph: node.plan().choice.graph,
            decided,
            runs: node.observed(),
            resteers: node.resteers(),
        });
    }
    plan.children()
        .into_iter()
        .try_for_each(|child| judge(child, devices, judged))
}

/// A fragment on a candidate, and what it took if it ran there.
struct Line<'a> {
    graph: usize,
    row: explain::Row,
    run: Option<&'a FragmentRun>,
    notes: &'a [String],
}

fn columns(judged: &[Judged], analyze: bool) -> Vec<(&'static str, ArrayRef)> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for of in judged {
        for row in explain::rows(&of.decided.facts, &of.decided.decision) {
            let ran = |run: &&FragmentRun| run.fragment == row.fragment && run.device == row.device;
            let run = of.runs.iter().rev().find(ran);
            lines.push(Line {
                graph: of.graph,
                row,
                run,
                notes: &of.decided.notes,
            });
        }
    }
    let mut columns = expected_columns(&lines);
    if analyze {
        columns.extend(actual_columns(&lines));
    }
    columns
}

/// More about a candidate; what there is to know of the whole stands with what was chosen.
fn detail(line: &Line<'_>) -> String {
    let notes = line.notes.iter().filter(|_| line.row.chosen);
    let own = Some(&line.row.detail).filter(|detail| !detail.is_empty());
    own.into_iter().chain(notes).cloned().collect::<Vec<_>>().join("; ")
}

fn text_of(lines: &[Line<'_>], of: impl Fn(&Line<'_>) -> String) -> ArrayRef {
    Arc::new(lines.iter().map(|line| Some(of(line))).collect::<StringArray>())
}

fn real(lines: &[Line<'_>], of: impl Fn(&Line<'_>) -> Option<f64>) -> ArrayRef {
    Arc::new(lines.iter().map(of).collect::<Float64Array>())
}

fn expected_columns(lines: &[Line<'_>]) -> Vec<(&'static str, ArrayRef)> {
    let count = |of: fn(&Line<'_>) -> usize| -> ArrayRef {
        let numbers = lines.iter().map(|line| i64::try_from(of(line)).ok());
        Arc::new(numbers.collect::<Int64Array>())
    };
    let cost = |of: fn(&trireme_costs::Prediction) -> f64| real(lines, move |line| line.row.cost.as_ref().map(of));
    let chosen: ArrayRef = Arc::new(lines.iter().map(|line| Some(line.row.chosen)).collect::<BooleanArray>());
    vec![
        ("graph", count(|line| line.graph)),
        ("fragment", count(|line| line.row.fragment)),
        ("work", text_of(lines, |line| line.row.text.clone())),
        ("device", text_of(lines, |line| line.row.device.clone())),
        ("variant", text_of(lines, |line| line.row.variant.clone())),
        ("chosen", chosen),
        ("reason", text_of(lines, |line| line.row.reason.name().to_owned())),
        ("detail", text_of(lines, detail)),
        ("margin_ms", real(lines, |line| line.row.margin_ms)),
        ("source_rows", real(lines, |line| Some(line.row.source_rows))),
        (
            "source_rows_from",
            text_of(lines, |line| line.row.source_rows_from.name().to_owned()),
        ),
        ("output_rows", real(lines, |line| Some(line.row.output_rows))),
        (
            "output_rows_from",
            text_of(lines, |line| line.row.output_rows_from.name().to_owned()),
        ),
        ("source_bytes", real(lines, |line| Some(line.row.source_bytes))),
        ("total_ms", cost(|cost| cost.total_ms)),
        ("compile_ms", cost(|cost| cost.compile_ms)),
        ("queue_ms", cost(|cost| cost.queue_ms)),
        ("start_ms", cost(|cost| cost.start_ms)),
        ("fetch_ms", cost(|cost| cost.fetch_ms)),
        ("decode_ms", cost(|cost| cost.decode_ms)),
        ("upload_ms", cost(|cost| cost.upload_ms)),
        ("kernel_ms", cost(|cost| cost.kernel_ms)),
        ("sigma_ms", cost(|cost| cost.sigma_ms)),
        ("correction", cost(|cost| cost.correction)),
        ("usd", cost(|cost| cost.usd)),
        ("joules", cost(|cost| cost.joules)),
        ("memory_bytes", cost(|cost| cost.memory_bytes)),
    ]
}

fn actual_columns(lines: &[Line<'_>]) -> Vec<(&'static str, ArrayRef)> {
    let run = |of: fn(&FragmentRun) -> Option<f64>| real(lines, move |line| line.run.and_then(of));
    let error = |expected: f64, actual: f64| {
        let (expected, actual) = (expected.max(1e-9), actual.max(1e-9));
        (expected / actual).max(actual / expected)
    };
    let rows_error = real(lines, |line| {
        let actual = line.run?.report.output_rows? as f64;
        Some(error(line.row.output_rows.max(1.0), actual.max(1.0)))
    });
    let time_error = real(lines, |line| {
        let actual_ms = line.run?.time.as_secs_f64() * 1e3;
        Some(error(line.row.cost.as_ref()?.total_ms, actual_ms))
    });
    let fallback = lines.iter().map(|line| line.run.and_then(|run| run.fallback.clone()));
    vec![
        ("actual_source_rows", run(|run| Some(run.report.input_rows as f64))),
        ("actual_output_rows", run(|run| Some(run.report.output_rows? as f64))),
        ("actual_ms", run(|run| Some(run.time.as_secs_f64() * 1e3))),
        ("rows_q_error", rows_error),
        ("ms_q_error", time_error),
        ("fallback", Arc::new(fallback.collect::<StringArray>())),
    ]
}
