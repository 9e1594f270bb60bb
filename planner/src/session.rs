//! DataFusion's session state as Trireme sets it up: dialect options, catalog defaults, and a session's own settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::CatalogProviderList;
use datafusion::common::config::{ConfigOptions, Dialect};
use datafusion::execution::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::functions::math::signum;
use datafusion::functions_aggregate::variance::var_samp_udaf;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::prelude::SessionConfig;
use trireme_exec::QueryError;
use trireme_exec::fused::FragmentRuntime;

use crate::estimates::Planner;
use crate::foreseen::Foreseen;
use crate::fuse::FuseFragments;
use crate::joins::YieldingJoins;
use crate::names::{CATALOG, DEFAULT_SCHEMA};
use crate::options::TriremeOptions;
use crate::{guards, semantics};

/// What the server decides for all sessions.
#[derive(Debug, Clone)]
pub struct PlannerDefaults {
    /// Partitions of a plan, normally the number of cores.
    pub target_partitions: usize,
    /// Rows of a batch.
    pub batch_rows: usize,
}

/// The state every session starts from; with a runtime for fragments, plans are fused.
pub fn base_state(
    defaults: &PlannerDefaults,
    runtime: Arc<RuntimeEnv>,
    catalogs: Arc<dyn CatalogProviderList>,
    fragments: Option<Arc<FragmentRuntime>>,
) -> SessionState {
    let mut config = SessionConfig::new()
        .with_target_partitions(defaults.target_partitions)
        .with_batch_size(defaults.batch_rows)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
        // The catalog brings its own, which stays whole when one table is damaged.
        .with_information_schema(false);
    let options = config.options_mut();
    options.sql_parser.dialect = Dialect::Generic;
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.parse_float_as_decimal = false;
    options.explain.show_schema = false;
    options.extensions.insert(TriremeOptions::default());
    // A file is not cut where a text may go on behind the line's end.
    options.catalog.newlines_in_values = true;
    // A bound of one aggregate would drop rows that another needs (`max(k), max(c + c)`).
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // The partitions of a top-k share a bound also where a constant was left out of the key of each.
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    // A join takes the other side's column of the same name for its own key, and its bounds prune that one's row groups.
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    // It takes `x IS TRUE` for nullable in one plan and not in the other.
    options.execution.skip_physical_aggregate_schema_check = true;
    let mut builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_catalog_list(catalogs)
        .with_default_features()
        .with_query_planner(Arc::new(Planner))
        .with_optimizer_rules(guards::logical_rules())
        .with_physical_optimizer_rules(semantics::before(guards::physical_rules()))
        .with_physical_optimizer_rule(Arc::new(YieldingJoins));
    builder = semantics::install(builder);
    if let Some(runtime) = fragments {
        builder = builder.with_statistics_registry(Foreseen::registry(&runtime));
        // Last: what it replaces has been optimised, and is the backup.
        builder = builder.with_physical_optimizer_rule(Arc::new(FuseFragments::new(runtime)));
    }
    let mut state = builder.build();
    register(&mut state);
    state
}

/// Names that other systems have for DataFusion's functions, and functions in the place of its own.
fn register(state: &mut SessionState) {
    let variance = var_samp_udaf().as_ref().clone().with_aliases(["variance"]);
    let sign = signum().as_ref().clone().with_aliases(["sign"]);
    // A session refuses none.
    let _ = state.register_udaf(Arc::new(variance));
    let _ = state.register_udaf(Arc::new(semantics::percentile_cont()));
    let _ = state.register_udf(Arc::new(sign));
    let _ = state.register_udf(Arc::new(semantics::interval_times()));
}

/// DataFusion's switch for the statistics that providers give.
const USE_REGISTRY: &str = "datafusion.optimizer.use_statistics_registry";

/// A session's state: the base with its schema and settings. Setting names and values were checked when they were SET.
///
/// # Errors
/// When a value is refused by DataFusion.
pub fn session_state(
    base: &SessionState,
    schema: &str,
    settings: &BTreeMap<String, String>,
) -> Result<SessionState, QueryError> {
    let mut state = base.clone();
    let options = state.config_mut().options_mut();
    schema.clone_into(&mut options.catalog.default_schema);
    for (name, value) in settings {
        apply(options, name, value)?;
    }
    let ours = options.extensions.get::<TriremeOptions>();
    if ours.is_some_and(|ours| ours.cpu_variant == "datafusion" || ours.device_mode == "off")
        && !settings.contains_key(USE_REGISTRY)
    {
        options.optimizer.use_statistics_registry = true;
    }
    Ok(state)
}

fn apply(options: &mut ConfigOptions, name: &str, value: &str) -> Result<(), QueryError> {
    let target = match name {
        "time_zone" => "datafusion.execution.time_zone",
        "trireme.batch_rows" => "datafusion.execution.batch_size",
        "trireme.target_partitions" => "datafusion.execution.target_partitions",
        "trireme.cpu_variant"
        | "trireme.device_mode"
        | "trireme.devices"
        | "trireme.reorder_joins"
        | "trireme.placement"
        | "trireme.objective"
        | "trireme.max_ms"
        | "trireme.max_usd"
        | "trireme.max_joules"
        | "trireme.pinned"
        | "trireme.resteer"
        | "trireme.co_execution"
        | "trireme.inject" => name,
        name if name.starts_with("datafusion.") => name,
        // Read by the engine itself.
        _ => return Ok(()),
    };
    Ok(options.set(target, value)?)
}
