//! The entry point: a graph, what it needs, what there is to run it on, what is wanted → where each fragment runs, and why.

use trireme_device_api::{FragmentId, Graph, Source, Support};

use crate::facts::Facts;
use crate::objective::{Objective, Totals};
use crate::predict::{Prediction, Surroundings, Transfer, predict, transfer};
use crate::profile::Profile;
use crate::residual::Library;
use crate::search::{CANDIDATES_MAX, Found, Problem, islands};
use crate::split::{self, CoExecution, Split};

/// A device that fragments may run on.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// Its rates.
    pub profile: &'a Profile,
    /// Its way of running fragments: `fused`.
    pub variant: &'a str,
    /// By fragment, as [`trireme_device_api::Variant::support_bound`] says; what is missing is supported.
    pub support: Vec<Support>,
    /// By scan: the share of its columns' bytes in the device's memory; the host's for the processor. What is missing is 0
    /// for accelerators and 1 for the processor.
    pub resident: Vec<f64>,
    /// By scan: time in which the host decodes what the device lacks of it, where that is known; else bytes and rates tell.
    pub decode_ms: Vec<f64>,
    /// All kernels are compiled, as [`trireme_device_api::Variant::warm`] says.
    pub warm: bool,
    /// Time until the device takes work.
    pub queue_ms: f64,
    /// Of each run that shares the device, what is left of its time: both go on in turn until one ends.
    pub others_ms: Vec<f64>,
    /// Part of its rates that others leave, 0 … 1.
    pub free_share: f64,
    /// Memory that is free, or can be made free.
    pub free_bytes: f64,
}

impl<'a> Candidate<'a> {
    /// An idle device with kernels compiled, that supports everything.
    pub fn new(profile: &'a Profile) -> Self {
        Self {
            profile,
            variant: "fused",
            support: Vec::new(),
            resident: Vec::new(),
            decode_ms: Vec::new(),
            warm: true,
            queue_ms: 0.0,
            others_ms: Vec::new(),
            free_share: 1.0,
            free_bytes: profile.memory_bytes,
        }
    }

    fn resident(&self, scan: usize) -> f64 {
        let otherwise = if self.profile.is_host() { 1.0 } else { 0.0 };
        self.resident.get(scan).copied().unwrap_or(otherwise)
    }
}

/// What is the same for all devices.
#[derive(Debug, Clone)]
pub struct Environment<'a> {
    /// Rate at which the store gives bytes.
    pub store_bytes_per_second: f64,
    /// Time until its first byte.
    pub store_latency_ms: f64,
    /// Runs that a kernel which is compiled now will serve.
    pub expected_uses: f64,
    /// Learned corrections.
    pub library: Option<&'a Library>,
}

impl Default for Environment<'_> {
    fn default() -> Self {
        Self {
            store_bytes_per_second: 1e9,
            store_latency_ms: 0.0,
            expected_uses: 1.0,
            library: None,
        }
    }
}

/// Why no placement was found.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlaceError {
    /// The first candidate is where everything can run.
    #[error("the first candidate must be the processor, and there may be at most {CANDIDATES_MAX}")]
    Candidates,
    /// Pins can't be kept.
    #[error("fragment {fragment} is pinned to \"{device}\": {reason}")]
    Pinned {
        /// The fragment.
        fragment: FragmentId,
        /// The device.
        device: String,
        /// Why it can't run there.
        reason: String,
    },
    /// No placement runs all fragments.
    #[error("no device runs fragment {fragment}: {reason}")]
    Unsupported {
        /// The fragment.
        fragment: FragmentId,
        /// Why the processor can't.
        reason: String,
    },
    /// No placement is within the bounds.
    #[error(
        "no placement is within {bounds}; the nearest takes {:.3} ms, {:.3e} USD and {:.3} J on {devices}", nearest.ms, nearest.usd, nearest.joules
    )]
    Infeasible {
        /// The bounds.
        bounds: String,
        /// What comes nearest.
        nearest: Totals,
        /// Its devices, by fragment.
        devices: String,
    },
}

/// Why a placement was chosen as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is the best by the objective.
    Best,
    /// The processor ends so soon that nothing was searched.
    Short,
    /// Leaving the processor would gain too little.
    DoNoHarm,
    /// There is only the processor.
    Alone,
}

/// Where each fragment runs, what that costs, and everything that was compared.
#[derive(Debug, Clone)]
pub struct Decision {
    /// By fragment: position among the candidates.
    pub chosen: Vec<usize>,
    /// What that costs.
    pub totals: Totals,
    /// What the processor alone costs; none when it can't run all.
    pub host: Option<Totals>,
    /// The best by the objective, when that isn't what was chosen.
    pub forgone: Option<(Vec<usize>, Totals)>,
    /// Why.
    pub why: Why,
    /// By fragment and candidate: what it costs there, or why it can't run there.
    pub options: Vec<Vec<Result<Prediction, String>>>,
    /// By candidate: ids of devices.
    pub devices: Vec<String>,
    /// By candidate: variants.
    pub variants: Vec<String>,
    /// By fragment: moving its input from where the chosen placement has it.
    pub inputs: Vec<Transfer>,
    /// Moving the result to the client.
    pub result: Transfer,
    /// Labels that were looked at, and those that limits cut: 0 means that the result is exact.
    pub labels: (usize, usize),
    /// The fragment that the processor shares with a device; else why none, where there is something to say.
    pub split: Result<Split, String>,
    pub(crate) problem: Problem,
    pub(crate) objective: Objective,
    pub(crate) pins: Vec<Option<usize>>,
}

impl Decision {
    /// Whether any fragment was demanded to run on a candidate.
    pub fn pins_any(&self, candidate: usize) -> bool {
        self.pins.contains(&Some(candidate))
    }
}

/// Chooses where the fragments of a graph run. The first candidate is the processor.
///
/// # Errors
/// When bounds or pins can't be kept, or no device runs a fragment.
pub fn place(
    graph: &Graph,
    facts: &Facts,
    candidates: &[Candidate<'_>],
    environment: &Environment<'_>,
    objective: &Objective,
) -> Result<Decision, PlaceError> {
    let has_host = candidates.first().is_some_and(|first| first.profile.is_host());
    if !has_host || candidates.len() > CANDIDATES_MAX {
        return Err(PlaceError::Candidates);
    }
    let options = options(graph, facts, candidates, environment);
    let problem = problem(facts, candidates, &options);
    let pins = pins(objective, candidates, &options)?;
    let (labels, mut picked) = pick(&problem, &pins, objective, candidates, &options)?;
    let split = shared(graph, candidates, &options, &problem, objective, &mut picked);
    let last = picked.found.chosen.last().copied().unwrap_or(0);
    let last_bytes = facts.fragments.last().map_or(0.0, |last| last.output_bytes);
    Ok(Decision {
        inputs: inputs(facts, candidates, &picked.found.chosen),
        result: transfer(last_bytes, Some(candidates[last].profile), None),
        chosen: picked.found.chosen,
        totals: picked.found.totals,
        host: picked.host,
        forgone: picked.forgone.map(|found| (found.chosen, found.totals)),
        why: picked.why,
        options,
        devices: candidates.iter().map(|each| each.profile.id.clone()).collect(),
        variants: candidates.iter().map(|each| each.variant.to_owned()).collect(),
        labels,
        split,
        problem,
        objective: objective.clone(),
        pins,
    })
}

/// Shares a fragment when that gains enough over what was picked, which then is a placement with all that it needs on the processor.
fn shared(
    graph: &Graph,
    candidates: &[Candidate<'_>],
    options: &[Vec<Result<Prediction, String>>],
    problem: &Problem,
    objective: &Objective,
    picked: &mut Picked,
) -> Result<Split, String> {
    let split = split::best(graph, candidates, options, objective)?;
    let mut pins = vec![None; options.len()];
    for id in split.builds.iter().chain([&split.fragment]) {
        pins[*id] = Some(0);
    }
    let beside = pick(problem, &pins, objective, candidates, options);
    let (_, mut beside) = beside.map_err(|error| error.to_string())?;
    let totals = split.applied(beside.found.totals, &candidates[split.candidate]);
    // Either device's error moves the end by its part of the rows.
    let sigma_ms = SIGMA_UNLEARNED * split.ms;
    let gains = objective.gains_enough(&totals, &picked.found.totals, sigma_ms);
    if !gains && objective.co_execution != CoExecution::Always {
        let (fragment, device) = (split.fragment, &candidates[split.candidate].profile.id);
        return Err(format!(
            "fragment {fragment} is not shared with {device}: {:.3} ms together, {:.3} ms as placed",
            totals.ms, picked.found.totals.ms
        ));
    }
    beside.found.totals = totals;
    *picked = Picked {
        host: picked.host,
        forgone: None,
        why: Why::Best,
        ..beside
    };
    Ok(split)
}

/// By fragment and candidate: the cost, or why it can't run there.
fn options(
    graph: &Graph,
    facts: &Facts,
    candidates: &[Candidate<'_>],
    environment: &Environment<'_>,
) -> Vec<Vec<Result<Prediction, String>>> {
    let host = &candidates[0];
    let decode = host.profile.decode_bytes_per_second.unwrap_or(1e9) * f64::from(host.profile.workers);
    let mut options: Vec<Vec<Result<Prediction, String>>> = Vec::with_capacity(facts.fragments.len());
    for (id, needs) in facts.fragments.iter().enumerate() {
        let scan = match graph.fragments.get(id).map(|fragment| &fragment.source) {
            Some(Source::Scan(scan)) => Some(*scan),
            _ => None,
        };
        let share = |candidate: &Candidate<'_>| scan.map_or(1.0, |scan| candidate.resident(scan));
        let of = |candidate: &Candidate<'_>| {
            if let Some(Support::Unsupported { reason }) = candidate.support.get(id) {
                return Err(reason.clone());
            }
            let around = Surroundings {
                host_share: share(host),
                device_share: if candidate.profile.is_host() || scan.is_none() {
                    0.0
                } else {
                    share(candidate)
                },
                store_bytes_per_second: environment.store_bytes_per_second,
                store_latency_ms: environment.store_latency_ms,
                host_decode_bytes_per_second: decode,
                queue_ms: candidate.queue_ms,
                free_share: candidate.free_share,
                free_bytes: candidate.free_bytes,
                warm: candidate.warm,
                expected_uses: environment.expected_uses,
            };
            let bare = predict(needs, candidate.profile, &around);
            let device = candidate.profile.id.as_str();
            let cost = match environment.library {
                Some(library) => library.corrected(device, candidate.variant, needs, bare),
                None => bare,
            };
            let known_ms = scan.and_then(|scan| candidate.decode_ms.get(scan));
            let cost = known_ms.map_or(cost, |ms| cost.after_decoding(*ms, candidate.profile));
            match !candidate.profile.is_host() && cost.memory_bytes > candidate.free_bytes {
                true => Err(format!(
                    "it needs {:.0} MiB of memory, {:.0} MiB are free",
                    cost.memory_bytes / f64::from(1 << 20),
                    candidate.free_bytes / f64::from(1 << 20)
                )),
                false => Ok(cost),
            }
        };
        options.push(candidates.iter().map(of).collect());
    }
    for (at, candidate) in candidates.iter().enumerate() {
        wait_for_others(at, &candidate.others_ms, &mut options);
    }
    keep_together(facts, candidates, &mut options);
    options
}

/// Runs that share a device take turns: each delays another by as long as the shorter of the two lasts. The delay of the whole
/// graph there is spread over its fragments by their times, so that it counts once whatever part of them goes there.
fn wait_for_others(candidate: usize, others_ms: &[f64], options: &mut [Vec<Result<Prediction, String>>]) {
    if others_ms.is_empty() {
        return;
    }
    let costs = || options.iter().filter_map(|of| of[candidate].as_ref().ok());
    let own_ms: f64 = costs().map(|cost| cost.total_ms - cost.queue_ms).sum();
    let delay_ms: f64 = others_ms.iter().map(|left_ms| left_ms.min(own_ms)).sum();
    let delay = delay_ms / own_ms.max(1e-9);
    for cost in options.iter_mut().filter_map(|of| of[candidate].as_mut().ok()) {
        let waits_ms = (cost.total_ms - cost.queue_ms) * delay;
        cost.queue_ms += waits_ms;
        cost.total_ms += waits_ms;
    }
}

/// A fragment that must be with one that can't run on a device can't run there either.
fn keep_together(facts: &Facts, candidates: &[Candidate<'_>], options: &mut [Vec<Result<Prediction, String>>]) {
    let islands = of_facts(facts);
    for candidate in 0..candidates.len() {
        for id in 0..options.len() {
            if options[id][candidate].is_err() {
                continue;
            }
            let holds_back = |other: &usize| islands[*other] == islands[id] && options[*other][candidate].is_err();
            if let Some(other) = (0..options.len()).find(holds_back) {
                options[id][candidate] = Err(format!("{KEPT_WITH}{other}, which can't run there"));
            }
        }
    }
}

/// How the reason of a fragment that is kept with another begins.
pub(crate) const KEPT_WITH: &str = "it joins with fragment ";

fn of_facts(facts: &Facts) -> Vec<usize> {
    let builds: Vec<_> = facts.fragments.iter().map(|needs| needs.builds.as_slice()).collect();
    islands(&builds)
}

fn problem(facts: &Facts, candidates: &[Candidate<'_>], options: &[Vec<Result<Prediction, String>>]) -> Problem {
    let totals = |(cost, candidate): (&Prediction, &Candidate<'_>)| Totals {
        ms: cost.total_ms,
        usd: cost.usd,
        joules: cost.joules,
        device_bytes: if candidate.profile.is_host() {
            0.0
        } else {
            cost.memory_bytes
        },
    };
    let costs = options.iter().map(|of| {
        let of = of.iter().zip(candidates);
        of.map(|(cost, candidate)| cost.as_ref().ok().map(|cost| totals((cost, candidate))))
            .collect()
    });
    let moves = facts.fragments.iter().map(|needs| {
        let from = needs.source_fragment()?;
        let bytes = facts.fragments.get(from)?.output_bytes;
        let pairs = (0..candidates.len()).flat_map(|from| (0..candidates.len()).map(move |to| (from, to)));
        let moved = pairs.map(|(from, to)| match from == to {
            true => Totals::default(),
            false => moved(transfer(
                bytes,
                Some(candidates[from].profile),
                Some(candidates[to].profile),
            )),
        });
        Some((from, moved.collect()))
    });
    let last_bytes = facts.fragments.last().map_or(0.0, |last| last.output_bytes);
    let results = candidates
        .iter()
        .map(|from| moved(transfer(last_bytes, Some(from.profile), None)));
    Problem {
        candidates: candidates.len(),
        costs: costs.collect(),
        islands: of_facts(facts),
        moves: moves.collect(),
        results: results.collect(),
        free_bytes: candidates
            .iter()
            .map(|each| {
                if each.profile.is_host() {
                    f64::INFINITY
                } else {
                    each.free_bytes
                }
            })
            .collect(),
    }
}

fn moved(transfer: Transfer) -> Totals {
    Totals {
        ms: transfer.total_ms,
        usd: transfer.usd,
        joules: transfer.joules,
        device_bytes: 0.0,
    }
}

fn inputs(facts: &Facts, candidates: &[Candidate<'_>], chosen: &[usize]) -> Vec<Transfer> {
    let each = facts.fragments.iter().zip(chosen).map(|(needs, to)| {
        let from = needs.source_fragment().filter(|from| chosen[*from] != *to);
        from.map_or(Transfer::default(), |from| {
            let (device, bytes) = (candidates[chosen[from]].profile, facts.fragments[from].output_bytes);
            transfer(bytes, Some(device), Some(candidates[*to].profile))
        })
    });
    each.collect()
}

/// By fragment: the candidate it is pinned to.
fn pins(
    objective: &Objective,
    candidates: &[Candidate<'_>],
    options: &[Vec<Result<Prediction, String>>],
) -> Result<Vec<Option<usize>>, PlaceError> {
    let mut pins = vec![None; options.len()];
    for (fragment, device) in objective.pinned.iter().enumerate() {
        let Some(device) = device else { continue };
        let pinned = |reason: &str| PlaceError::Pinned {
            fragment,
            device: device.clone(),
            reason: reason.to_owned(),
        };
        let of = options
            .get(fragment)
            .ok_or_else(|| pinned("there is no such fragment"))?;
        let candidate = candidates.iter().position(|each| each.profile.id == *device);
        let candidate =
            candidate.ok_or_else(|| pinned("there is no such device among those that the session allows"))?;
        if let Err(reason) = &of[candidate] {
            return Err(pinned(reason));
        }
        pins[fragment] = Some(candidate);
    }
    Ok(pins)
}

struct Picked {
    found: Found,
    host: Option<Totals>,
    forgone: Option<Found>,
    why: Why,
}

fn pick(
    problem: &Problem,
    pins: &[Option<usize>],
    objective: &Objective,
    candidates: &[Candidate<'_>],
    options: &[Vec<Result<Prediction, String>>],
) -> Result<((usize, usize), Picked), PlaceError> {
    let all_host = vec![0; options.len()];
    let is_pinned_away = pins.iter().flatten().any(|pin| *pin != 0);
    let host = problem.cost_of(&all_host).filter(|_| !is_pinned_away);
    let within = host.filter(|host| objective.excess(host) <= 1.0);
    let stay = |totals: Totals, forgone: Option<Found>, why: Why| Picked {
        found: Found {
            chosen: all_host.clone(),
            totals,
        },
        host: Some(totals),
        forgone,
        why,
    };
    if let Some(totals) = within {
        if candidates.len() == 1 {
            return Ok(((0, 0), stay(totals, None, Why::Alone)));
        }
        if totals.ms < objective.search_ms_min {
            return Ok(((0, 0), stay(totals, None, Why::Short)));
        }
    }
    let front = problem.front(pins, objective);
    let value = |found: &&Found| objective.goal.of(&found.totals);
    let by_value = |a: &&Found, b: &&Found| value(a).total_cmp(&value(b)).then_with(|| a.chosen.cmp(&b.chosen));
    let feasible = front
        .found
        .iter()
        .filter(|found| objective.excess(&found.totals) <= 1.0);
    let Some(best) = feasible.min_by(by_value).cloned() else {
        return Err(impossible(&front.found, objective, candidates, options));
    };
    let labels = (front.labels, front.cut);
    let harms = |host: &Totals| {
        let sigma = sigma_ms(&best.chosen, &all_host, options);
        best.chosen != all_host && !objective.gains_enough(&best.totals, host, sigma)
    };
    let picked = match within.filter(harms) {
        Some(totals) => stay(totals, Some(best), Why::DoNoHarm),
        None => Picked {
            found: best,
            host,
            forgone: None,
            why: Why::Best,
        },
    };
    Ok((labels, picked))
}

/// A kernel's time that no run has corrected is taken to be off by this part. Larger, fewer queries end up slower than on the
/// processor, and more stay there that needn't.
const SIGMA_UNLEARNED: f64 = 0.15;

/// One standard deviation of a placement's time over another's, where they differ; errors of fragments are independent.
fn sigma_ms(chosen: &[usize], host: &[usize], options: &[Vec<Result<Prediction, String>>]) -> f64 {
    let of = |(options, at): (&Vec<Result<Prediction, String>>, usize)| match &options[at] {
        Ok(cost) if cost.sigma_ms > 0.0 => cost.sigma_ms,
        Ok(cost) => SIGMA_UNLEARNED * cost.kernel_ms,
        Err(_) => 0.0,
    };
    let differ = options
        .iter()
        .zip(chosen.iter().zip(host))
        .filter(|(_, (chosen, host))| chosen != host);
    let square = differ.map(|(options, (chosen, host))| of((options, *chosen)).powi(2) + of((options, *host)).powi(2));
    square.sum::<f64>().sqrt()
}

fn impossible(
    found: &[Found],
    objective: &Objective,
    candidates: &[Candidate<'_>],
    options: &[Vec<Result<Prediction, String>>],
) -> PlaceError {
    let nearest = found
        .iter()
        .min_by(|a, b| objective.excess(&a.totals).total_cmp(&objective.excess(&b.totals)));
    if let Some(nearest) = nearest {
        let devices = nearest.chosen.iter().map(|at| candidates[*at].profile.id.as_str());
        return PlaceError::Infeasible {
            bounds: objective.bounds_text(),
            nearest: nearest.totals,
            devices: devices.collect::<Vec<_>>().join(", "),
        };
    }
    // Without bounds only support, memory and pins are left.
    let nowhere = options.iter().position(|of| of.iter().all(Result::is_err));
    let fragment = nowhere.unwrap_or(0);
    let reason = match nowhere.and_then(|id| options[id][0].as_ref().err()) {
        Some(reason) => reason.clone(),
        None => "pins, memory and builds that must be with their probes leave no placement".to_owned(),
    };
    PlaceError::Unsupported { fragment, reason }
}

#[cfg(test)]
pub(crate) mod tests;
