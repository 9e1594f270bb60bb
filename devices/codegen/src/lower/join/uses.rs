//! What the probes of a graph need of a build side, and the types of rows between steps.
//!
//! A build side is lowered before its probes are; looking ahead at them leaves out what none of them reads.

use trireme_device_api::{Field, Fragment, FragmentId, Graph, JoinKind, Probe, Source, Step, Type};

/// What the probes of a build side need of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uses {
    /// A probe asks for build rows: pairs, a further condition, or rows after probing.
    pub(crate) rows: bool,
    /// A probe gives build rows that no row matched.
    pub(crate) unmatched: bool,
    /// A probe lets NULL keys equal each other.
    pub(crate) nulls_equal: bool,
    /// A probe is a NOT IN.
    pub(crate) null_aware: bool,
    /// Which payload columns are read.
    pub(crate) payload: Vec<bool>,
}

/// The kind gives build rows after all rows were probed.
pub(crate) fn has_pass(kind: JoinKind) -> bool {
    matches!(
        kind,
        JoinKind::BuildOuter | JoinKind::Full | JoinKind::BuildSemi | JoinKind::BuildAnti
    )
}

/// The kind appends build columns to rows.
pub(crate) fn appends(kind: JoinKind) -> bool {
    matches!(
        kind,
        JoinKind::Inner | JoinKind::Left | JoinKind::BuildOuter | JoinKind::Full
    )
}

impl Uses {
    /// Of build side `build`, by all later fragments.
    pub(crate) fn of(graph: &Graph, build: FragmentId) -> Self {
        let payload = graph.fragments.get(build).map_or(0, |fragment| fragment.output.len());
        let mut uses = Uses {
            rows: false,
            unmatched: false,
            nulls_equal: false,
            null_aware: false,
            payload: vec![false; payload],
        };
        for fragment in graph.fragments.iter().skip(build + 1) {
            for (index, step) in fragment.steps.iter().enumerate() {
                if let Step::Probe(probe) = step
                    && probe.build == build
                {
                    uses.add(probe, row_types(graph, fragment, index).len());
                }
            }
        }
        uses
    }

    fn add(&mut self, probe: &Probe, width: usize) {
        let whole = appends(probe.kind) || has_pass(probe.kind);
        self.rows |= whole || probe.residual.is_some();
        self.unmatched |= matches!(probe.kind, JoinKind::BuildOuter | JoinKind::Full | JoinKind::BuildAnti);
        self.nulls_equal |= probe.null_equals_null;
        self.null_aware |= probe.null_aware;
        let residual = probe.residual.iter().flat_map(trireme_device_api::Expr::columns);
        for column in residual {
            if let Some(used) = column
                .checked_sub(width)
                .and_then(|column| self.payload.get_mut(column))
            {
                *used = true;
            }
        }
        if whole {
            self.payload.fill(true);
        }
    }
}

/// Types of the row's columns before step `index`.
pub(crate) fn row_types(graph: &Graph, fragment: &Fragment, index: usize) -> Vec<Type> {
    let of_fields = |fields: &[Field]| fields.iter().map(|field| field.data_type.clone()).collect::<Vec<_>>();
    let of_fragment = |id: FragmentId| {
        graph
            .fragments
            .get(id)
            .map_or(Vec::new(), |fragment| of_fields(&fragment.output))
    };
    let mut types = match fragment.source {
        Source::Scan(scan) => graph
            .scans
            .get(scan)
            .map_or(Vec::new(), |scan| of_fields(&scan.columns)),
        Source::Stream(stream) => graph.streams.get(stream).map_or(Vec::new(), |fields| of_fields(fields)),
        Source::Fragment(id) => of_fragment(id),
    };
    for step in fragment.steps.iter().take(index) {
        match step {
            Step::Filter(_) => {}
            Step::Project(exprs) => types = exprs.iter().map(|expr| expr.data_type.clone()).collect(),
            Step::Probe(probe) if appends(probe.kind) => types.extend(of_fragment(probe.build)),
            Step::Probe(probe) if has_pass(probe.kind) => types = of_fragment(probe.build),
            Step::Probe(probe) if probe.kind == JoinKind::Mark => types.push(Type::Boolean),
            Step::Probe(_) => {}
        }
    }
    types
}
