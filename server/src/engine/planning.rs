//! What the engine does around a statement's plan: takes its hints and pins, describes it, looks at its tables' files, checks
//! where COPY writes, and answers `EXPLAIN (PLACEMENT)`.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::dml::CopyTo;
use datafusion::sql::parser::Statement;
use trireme_costs::calibrate::Effort;
use trireme_exec::QueryError;
use trireme_exec::io::{Access, StoreOptions};
use trireme_exec::operators::PlacementExec;
use trireme_planner::explain_placement::{PlacementRequest, placement_request};
use trireme_planner::plan_cache::PlanKey;
use trireme_planner::plan_cache::shape::{self, Shape};
use trireme_planner::statement::PlannedStatement;
use trireme_planner::{Planned, functions, hints, output, parameters, physical, pins};

use super::local::LocalEngine;
use super::{Description, Outcome, SessionSpec, Submit, Submitted};

/// The setting that pins fragments to devices.
const PINNED: &str = "trireme.pinned";

/// What `EXPLAIN (PLACEMENT)` gives; none for other statements.
pub(super) fn described_placement(sql: &str) -> Result<Option<Description>, QueryError> {
    let described = |request: PlacementRequest| Description {
        command: "EXPLAIN".to_owned(),
        update: false,
        schema: request.format.schema(request.analyze),
        parameters: Arc::new(Schema::empty()),
    };
    Ok(placement_request(sql)?.map(described))
}

impl LocalEngine {
    /// What a statement would return. A kept plan of its shape says it without planning.
    pub(super) async fn describe(&self, session: &SessionSpec, sql: &str) -> Result<Description, QueryError> {
        let asked = self.asked(session, sql)?;
        let session = asked.as_ref().unwrap_or(session);
        let state = self.state(session)?;
        if let Some(described) = described_placement(sql)? {
            return Ok(described);
        }
        if let Some((key, _, statement)) = self.shape(&state, session, sql)?
            && let Some(schema) = self.plans.schema(&key, &state).await
        {
            return Ok(Description {
                command: trireme_planner::parse::command(&statement),
                update: false,
                schema,
                parameters: Arc::new(Schema::empty()),
            });
        }
        let PlannedStatement { command, planned } = trireme_planner::plan(&state, sql).await?;
        let parameters = planned
            .logical_plan()
            .map_or_else(|| Ok(Arc::new(Schema::empty())), parameters::parameter_schema)?;
        let schema = match &planned {
            Planned::Rows(plan) => output::advertised_schema(
                physical::analyze(&state, plan)?.schema().as_arrow(),
                session.string_views,
            ),
            _ => Arc::new(Schema::empty()),
        };
        Ok(Description {
            command,
            update: planned.is_update(),
            schema,
            parameters,
        })
    }

    /// The statement's shape, if its plan may come from the cache.
    pub(super) fn shape(
        &self,
        state: &SessionState,
        session: &SessionSpec,
        sql: &str,
    ) -> Result<Option<(PlanKey, Shape, Statement)>, QueryError> {
        let off = session
            .settings
            .get("trireme.plan_cache")
            .is_some_and(|value| value == "false");
        if off {
            return Ok(None);
        }
        let mut statement = trireme_planner::parse::parse(sql)?;
        trireme_planner::bind::bind(&mut statement)?;
        let Some(shape) = shape::shape(&statement) else {
            return Ok(None);
        };
        // A plan holds the bodies of the functions that it calls.
        let functions = functions::of_state(state).map_or(0, |functions| functions.version());
        let key = PlanKey {
            session: format!(
                "{} {} {} {:?} {functions}",
                session.user, session.schema, session.string_views, session.settings
            ),
            shape: shape.text.clone(),
        };
        Ok(Some((key, shape, statement)))
    }

    /// Planning asks for one table after the other; whoever reads from a store waits for all of them at once.
    pub(super) async fn look_at_tables(&self, request: &Submit) -> Result<(), QueryError> {
        let statement = trireme_planner::parse::parse(&request.sql)?;
        let tables = trireme_planner::parse::named_tables(&statement, &request.session.schema);
        if tables.len() > 1 {
            self.catalog.look_at(&tables).await;
        }
        Ok(())
    }

    /// The session as a statement asks for it: with its hints, and its pinned placement. None: as it is.
    pub(super) fn asked(&self, session: &SessionSpec, sql: &str) -> Result<Option<SessionSpec>, QueryError> {
        let mut settings = hints::hints(sql)?;
        let is_pinned = |settings: &[(String, String)]| settings.iter().any(|(name, _)| name == PINNED);
        // What a hint or the session pins comes before what the catalog has.
        if self.catalog.has_pins()
            && !is_pinned(&settings)
            && session.setting(PINNED).is_none_or(|pins| pins.is_empty())
        {
            let mut statement = trireme_planner::parse::parse(sql)?;
            trireme_planner::bind::bind(&mut statement)?;
            let pinned = pins::key(&statement).and_then(|shape| self.catalog.pinned(&session.schema, &shape));
            settings.extend(pinned.map(|pinned| (PINNED.to_owned(), pinned.pins)));
        }
        if settings.is_empty() {
            return Ok(None);
        }
        let mut asked = session.clone();
        asked.settings.extend(settings);
        Ok(Some(asked))
    }

    /// `EXPLAIN (PLACEMENT)`: the statement's plan below a node that shows what the cost model says of it.
    pub(super) async fn submit_placement(
        &self,
        state: &SessionState,
        request: &Submit,
        placement: &PlacementRequest,
    ) -> Result<Submitted, QueryError> {
        let planned = trireme_planner::plan(state, &placement.statement).await?.planned;
        let Planned::Rows(plan) = planned else {
            return Err(QueryError::invalid("EXPLAIN (PLACEMENT) takes a query")
                .with_hint("statements without rows run where they are sent"));
        };
        parameters::require_bound(&plan)?;
        let plan = physical::physical_plan(state, physical::analyze(state, &plan)?).await?;
        let node = PlacementExec::new(plan, placement.analyze, placement.format, placement.devices.clone());
        let schema = placement.format.schema(placement.analyze);
        self.make_ready(state, request, vec![Arc::new(node)], Arc::clone(&schema));
        Ok(Submitted {
            command: "EXPLAIN".to_owned(),
            schema,
            outcome: Outcome::Rows,
        })
    }

    /// COPY writes only where the allow-list lets it; credentials among its options go to the store, not to the format.
    pub(super) fn allowed_copy(&self, mut copy: CopyTo) -> Result<CopyTo, QueryError> {
        let target = self.stores.locations().resolve(&copy.output_url, Access::Write)?;
        let (store, format): (Vec<_>, Vec<_>) = copy
            .options
            .into_iter()
            .partition(|(key, _)| StoreOptions::is_store_key(key));
        let options = StoreOptions::from_options(target.url.scheme(), &store.into_iter().collect())?;
        copy.output_url = self.stores.bind(&target.url, &options)?.to_string();
        copy.options = format.into_iter().collect();
        Ok(copy)
    }

    /// Measures what nobody measured before on this machine with these drivers, where the cost model has a choice.
    pub(super) fn measure_in_background(&self) {
        let fragments = Arc::clone(&self.fragments);
        if !fragments.costs().measures_unasked() {
            return;
        }
        let measured = std::thread::Builder::new().name("calibrate".to_owned()).spawn(move || {
            let (costs, devices) = (fragments.costs(), &fragments.devices().wait().devices);
            // With the processor alone there is nothing to choose: its cores are spared.
            if devices.is_empty() {
                return;
            }
            let _one = costs.measuring();
            if !costs.is_measured() {
                match costs.calibrate(Effort::Quick) {
                    Ok(profile) => tracing::info!(device = %profile.id, "measured for the cost model"),
                    Err(error) => tracing::warn!(%error, "the processor's profile can't be kept"),
                }
            }
            for device in devices
                .iter()
                .filter(|device| !costs.is_device_measured(&device.info()))
            {
                let id = device.info().id;
                match costs.calibrate_device(device, Effort::Quick) {
                    Ok(_) => tracing::info!(device = %id, "measured for the cost model"),
                    Err(reason) => {
                        tracing::warn!(device = %id, %reason, "a device is not measured; its rates are assumed")
                    }
                }
            }
        });
        if let Err(error) = measured {
            tracing::debug!(%error, "nothing is measured");
        }
    }
}
