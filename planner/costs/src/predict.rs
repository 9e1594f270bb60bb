//! What a fragment would cost on a device: the formulas.
//!
//! ```text
//!  total = compile + queue + start + max(load, upload, kernel) + fill + download
//!    compile   compile_ms(nodes) / expected uses, if its kernel isn't there yet
//!    queue     the wait for the device
//!    start     start_ms + launches × chunks × launch_ms, node_ms for each node; wake_ms of a graph's first fragment
//!    load      max(fetch from the store, decode by the host) of what isn't in the host's memory   (the host decodes itself: in its kernel's place)
//!    upload    source bytes that aren't in the device's memory: latency + bytes / rate
//!    kernel    overlap × max(terms) + (1 − overlap) × sum(terms), at the rate of the workers that the rows keep busy: one for
//!              the first spread_ms
//!      stream    Σ bytes / rate(carrier)            lookup  Σ accesses / rate(footprint)
//!      table     inserts / rate + updates / rate    compute operations, gathers, text, host calls, comparisons
//!      (what is hashed, in lookup and table: + rows / hashes per second; + new groups / theirs)
//!    fill      what the longest of load, upload, kernel doesn't hide of the others: their sum / chunks
//!    chunks    rows / chunk_rows; 1 on an accelerator whose memory holds the whole source: it is copied, then worked at
//!    download  what crosses to another device: sync + latency + bytes / rate   (an edge, see [`transfer`])
//!  usd    = occupied ms × price per hour      joules = occupied ms × active watts
//! ```

use serde::Serialize;

use crate::facts::{FragmentFacts, Random, Updates, Work};
use crate::profile::{Curve, Link, Profile};

const MS_PER_SECOND: f64 = 1e3;
const MS_PER_HOUR: f64 = 3.6e6;
/// Rows between the host and a device are buffered twice.
const BUFFERS: f64 = 2.0;

/// What surrounds a device at this moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Surroundings {
    /// Share of the scanned columns' bytes that is in the host's memory, 0 … 1; the rest is in the store.
    pub host_share: f64,
    /// Share that is in the device's own memory, 0 … 1.
    pub device_share: f64,
    /// Rate at which the store gives bytes.
    pub store_bytes_per_second: f64,
    /// Time until the store's first byte.
    pub store_latency_ms: f64,
    /// Rate at which the host decodes pages, in bytes of memory.
    pub host_decode_bytes_per_second: f64,
    /// Wait for the device.
    pub queue_ms: f64,
    /// Part of the device's rates that is free, 0 … 1.
    pub free_share: f64,
    /// Memory of the device that is free, or can be made free. An accelerator takes its source whole when it fits, and only then
    /// computes; else in chunks, of which one is copied while the one before is worked at.
    pub free_bytes: f64,
    /// The kernel is compiled.
    pub warm: bool,
    /// Runs that a kernel which is compiled now will serve.
    pub expected_uses: f64,
}

impl Default for Surroundings {
    /// Everything in the host's memory, nothing else running.
    fn default() -> Self {
        Self {
            host_share: 1.0,
            device_share: 0.0,
            store_bytes_per_second: 1e9,
            store_latency_ms: 0.0,
            host_decode_bytes_per_second: 1e9,
            queue_ms: 0.0,
            free_share: 1.0,
            free_bytes: f64::INFINITY,
            warm: true,
            expected_uses: 1.0,
        }
    }
}

/// What running a fragment on a device would cost, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Prediction {
    /// From its start to its last row, with copies of its inputs from other devices left out.
    pub total_ms: f64,
    /// Of that: compiling.
    pub compile_ms: f64,
    /// Waiting for the device.
    pub queue_ms: f64,
    /// Preparing and launching.
    pub start_ms: f64,
    /// Fetching from the store.
    pub fetch_ms: f64,
    /// Decoding by the host.
    pub decode_ms: f64,
    /// Copying the source to the device.
    pub upload_ms: f64,
    /// Computing.
    pub kernel_ms: f64,
    /// Of that: reading columns in order.
    pub stream_ms: f64,
    /// Looking rows up.
    pub lookup_ms: f64,
    /// Filling tables.
    pub table_ms: f64,
    /// Expressions and comparisons.
    pub compute_ms: f64,
    /// What the parts that run side by side don't hide of each other.
    pub fill_ms: f64,
    /// The learned factor that is in `total_ms`; 1 where none is used.
    pub correction: f64,
    /// One standard deviation of the error in `total_ms`; 0 when unknown.
    pub sigma_ms: f64,
    /// Bytes copied to the device.
    pub upload_bytes: f64,
    /// Rent.
    pub usd: f64,
    /// Energy.
    pub joules: f64,
    /// Memory of the device: tables, result, and as much of the source as is there at once.
    pub memory_bytes: f64,
}

/// Predicts a fragment.
pub fn predict(facts: &FragmentFacts, device: &Profile, around: &Surroundings) -> Prediction {
    let bytes = facts.source_bytes;
    let in_store = if facts.source_fragment().is_some() {
        0.0
    } else {
        1.0 - around.host_share.max(around.device_share).clamp(0.0, 1.0)
    };
    let to_device = match device.is_host() || facts.source_fragment().is_some() {
        true => 0.0,
        false => bytes * (1.0 - around.device_share.clamp(0.0, 1.0)),
    };
    let is_whole = !device.is_host() && bytes + facts.table_bytes + facts.output_bytes <= around.free_bytes;
    let chunks = match is_whole {
        true => 1.0,
        false => (facts.source_rows.rows / device.chunk_rows).ceil().max(1.0),
    };
    let compile_ms = match around.warm {
        true => 0.0,
        false => device.compile_ms_by_nodes.at(facts.nodes.max(1.0)) / around.expected_uses.max(1.0),
    };
    let wake_ms = if facts.first { device.wake_ms } else { 0.0 };
    let prepared_ms = device.node_ms * facts.nodes;
    let start_ms = device.start_ms + wake_ms + prepared_ms + device.launches * chunks * device.launch_ms;
    let fetch_ms = match in_store > 0.0 {
        true => around.store_latency_ms + per_second_ms(facts.encoded_bytes * in_store, around.store_bytes_per_second),
        false => 0.0,
    };
    let decode_rate = device
        .decode_bytes_per_second
        .map_or(around.host_decode_bytes_per_second, |rate| {
            rate * workers_busy(facts.source_rows.rows, device)
        });
    let decode_ms = per_second_ms(bytes * in_store, decode_rate);
    let upload_ms = device.upload.as_ref().map_or(0.0, |link| copy_ms(link, to_device));
    let kernel = kernel(&facts.work, device, around.free_share);

    // A processor's workers decode and compute in turn; an accelerator computes while the host decodes.
    let parts = match device.is_host() {
        true => [fetch_ms, decode_ms + kernel.total_ms, 0.0],
        false => [fetch_ms.max(decode_ms), upload_ms, kernel.total_ms],
    };
    let longest_ms = parts.into_iter().fold(0.0, f64::max);
    let fill_ms = (parts.into_iter().sum::<f64>() - longest_ms) / chunks;
    let occupied_ms = compile_ms + start_ms + longest_ms + fill_ms;
    let at_once = (1.0_f64).min(BUFFERS * device.chunk_rows / facts.source_rows.rows.max(1.0));
    Prediction {
        total_ms: around.queue_ms + occupied_ms,
        compile_ms,
        queue_ms: around.queue_ms,
        start_ms,
        fetch_ms,
        decode_ms,
        upload_ms,
        kernel_ms: kernel.total_ms,
        stream_ms: kernel.stream_ms,
        lookup_ms: kernel.lookup_ms,
        table_ms: kernel.table_ms,
        compute_ms: kernel.compute_ms,
        fill_ms,
        correction: 1.0,
        sigma_ms: 0.0,
        upload_bytes: to_device,
        usd: occupied_ms * device.price_usd_per_hour / MS_PER_HOUR,
        joules: occupied_ms * device.power.active_watts / MS_PER_SECOND,
        memory_bytes: bytes * at_once + facts.table_bytes + facts.output_bytes,
    }
}

impl Prediction {
    /// With a learned factor on what the device does itself: not on waits and compilation, nor on so much else.
    pub(crate) fn corrected(mut self, factor: f64, sigma: f64, else_ms: f64) -> Self {
        let fixed_ms = self.queue_ms + self.compile_ms + else_ms;
        let ran_ms = self.total_ms - fixed_ms;
        let occupied_ms = self.total_ms - self.queue_ms;
        self.total_ms = fixed_ms + ran_ms * factor;
        let grown = (self.total_ms - self.queue_ms) / occupied_ms.max(1e-9);
        self.usd *= grown;
        self.joules *= grown;
        self.correction = factor;
        self.sigma_ms = ran_ms * factor * sigma;
        self
    }
}

impl Prediction {
    /// As if all columns were where they are read.
    pub(crate) fn resident(self) -> Self {
        let own_ms = self.queue_ms + self.compile_ms + self.start_ms + self.kernel_ms;
        Self {
            fetch_ms: 0.0,
            decode_ms: 0.0,
            upload_ms: 0.0,
            total_ms: self.total_ms.min(own_ms),
            ..self
        }
    }

    /// After the host has decoded for so long, whatever was learned of running.
    pub(crate) fn after_decoding(mut self, decode_ms: f64, device: &Profile) -> Self {
        self.decode_ms += decode_ms;
        self.total_ms += decode_ms;
        self.usd += decode_ms * device.price_usd_per_hour / MS_PER_HOUR;
        self.joules += decode_ms * device.power.active_watts / MS_PER_SECOND;
        self
    }
}

/// Time and rent of rows that go from one device to another, by way of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Transfer {
    /// Waiting for the first device, copying from it, and to the second.
    pub total_ms: f64,
    /// Rent of both meanwhile.
    pub usd: f64,
    /// Energy of both meanwhile.
    pub joules: f64,
}

/// So many bytes from one device to another; none is the client, or the host's memory.
pub fn transfer(bytes: f64, from: Option<&Profile>, to: Option<&Profile>) -> Transfer {
    let mut sum = Transfer::default();
    let mut add = |device: &Profile, ms: f64| {
        sum.total_ms += ms;
        sum.usd += ms * device.price_usd_per_hour / MS_PER_HOUR;
        sum.joules += ms * device.power.active_watts / MS_PER_SECOND;
    };
    if let Some(device) = from
        && let Some(link) = &device.download
    {
        add(device, device.sync_ms + copy_ms(link, bytes));
    }
    if let Some(device) = to
        && let Some(link) = &device.upload
    {
        add(device, copy_ms(link, bytes));
    }
    sum
}

#[derive(Default)]
struct Kernel {
    total_ms: f64,
    stream_ms: f64,
    lookup_ms: f64,
    table_ms: f64,
    compute_ms: f64,
}

/// The time of computing: by one worker until the others have joined it, by all that have work from then on.
fn kernel(work: &Work, device: &Profile, free_share: f64) -> Kernel {
    let free = free_share.clamp(0.01, 1.0);
    let workers = workers_busy(work.rows, device);
    let together = kernel_by(work, device, workers * free);
    if workers <= 1.0 || device.spread_ms <= 0.0 {
        return together;
    }
    let alone_ms = kernel_by(work, device, free).total_ms.max(1e-12);
    let share = (device.spread_ms / alone_ms).min(1.0);
    let factor = (1.0 - share) + share * alone_ms / together.total_ms.max(1e-12);
    Kernel {
        total_ms: together.total_ms * factor,
        stream_ms: together.stream_ms * factor,
        lookup_ms: together.lookup_ms * factor,
        table_ms: together.table_ms * factor,
        compute_ms: together.compute_ms * factor,
    }
}

/// The same by so many workers from the start.
fn kernel_by(work: &Work, device: &Profile, workers: f64) -> Kernel {
    let each_ms = |amount: f64, per_second: f64| per_second_ms(amount, per_second * workers);

    let bytes_max = device.memory_bytes_per_second_max;
    let read_ms = |(carrier_bytes, bytes): &(f64, f64)| {
        let rate = device.stream_bytes_per_second_by_carrier_bytes.at(*carrier_bytes) * workers;
        per_second_ms(*bytes, rate.min(bytes_max))
    };
    let stream_ms =
        work.streams.iter().map(read_ms).sum::<f64>() + each_ms(work.written_bytes, device.write_bytes_per_second);

    let rates = &device.operations;
    let hash_ms = |hashed: bool, rows: f64| {
        if hashed {
            each_ms(rows, rates.hashes_per_second)
        } else {
            0.0
        }
    };
    let random = |at: &Random, rates: &Curve| {
        each_ms(at.accesses, rates.at(at.footprint_bytes.max(1.0))) + hash_ms(at.hashed, at.accesses)
    };
    let lookups = &device.random_accesses_per_second_by_footprint_bytes;
    let lookup_ms = work.lookups.iter().map(|lookup| random(lookup, lookups)).sum();

    let inserts = &device.inserts_per_second_by_footprint_bytes;
    let updates = &device.group_updates_per_second_by_groups;
    let update_ms = |update: &Updates| {
        let ms = each_ms(update.rows, updates.at(update.groups.max(1.0))) + hash_ms(update.hashed, update.rows);
        ms + if update.hashed {
            each_ms(update.groups, rates.new_groups_per_second)
        } else {
            0.0
        }
    };
    let table_ms = work.inserts.iter().map(|insert| random(insert, inserts)).sum::<f64>()
        + work.updates.iter().map(update_ms).sum::<f64>();

    let compute_ms = each_ms(work.simple_operations, rates.simple_per_second)
        + each_ms(work.tested_rows, rates.tests_per_second)
        + each_ms(work.gathered_values, rates.gathers_per_second)
        + each_ms(work.wide_operations, rates.wide_per_second)
        + each_ms(work.text_bytes, rates.text_bytes_per_second)
        + each_ms(work.host_calls, rates.host_calls_per_second)
        + each_ms(work.comparisons, rates.comparisons_per_second);

    let terms = [stream_ms, lookup_ms, table_ms, compute_ms];
    let sum: f64 = terms.into_iter().sum();
    let largest = terms.into_iter().fold(0.0, f64::max);
    Kernel {
        total_ms: device.overlap * largest + (1.0 - device.overlap) * sum,
        stream_ms,
        lookup_ms,
        table_ms,
        compute_ms,
    }
}

/// Workers that so many rows keep busy, a further one counting less than the first.
fn workers_busy(rows: f64, device: &Profile) -> f64 {
    let morsels = (rows / device.morsel_rows).ceil().max(1.0);
    let workers = morsels.min(f64::from(device.workers));
    1.0 + (workers - 1.0) * device.worker_efficiency
}

fn copy_ms(link: &Link, bytes: f64) -> f64 {
    match bytes > 0.0 {
        true => link.latency_ms + per_second_ms(bytes, link.bytes_per_second_by_bytes.at(bytes)),
        false => 0.0,
    }
}

fn per_second_ms(amount: f64, per_second: f64) -> f64 {
    match amount > 0.0 {
        true => amount / per_second.max(1e-9) * MS_PER_SECOND,
        false => 0.0,
    }
}

#[cfg(test)]
mod tests;
