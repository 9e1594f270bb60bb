//! Names sub-plans, so that what one run saw is known to the next.

use std::io;

use trireme_device_api::{Fragment, FragmentId, Graph, Source, Step};

/// Names a fragment and all that it reads from: the same for the same shape over tables of the same names, whatever the
/// values of its parameters, and in every process and version of the compiler. FNV-1a, 64 bits.
pub fn fingerprint(graph: &Graph, id: FragmentId) -> u64 {
    let mut names: Vec<u64> = Vec::with_capacity(id + 1);
    for fragment in graph.fragments.iter().take(id + 1) {
        names.push(name(graph, fragment, &names));
    }
    names.last().copied().unwrap_or_default()
}

/// Inputs are named by their own fingerprints, not by where they stand in this graph.
fn name(graph: &Graph, fragment: &Fragment, names: &[u64]) -> u64 {
    let mut digest = Fnv(0xcbf2_9ce4_8422_2325);
    match fragment.source {
        Source::Scan(scan) => digest.add(&graph.scans.get(scan)),
        Source::Stream(stream) => digest.add(&graph.streams.get(stream)),
        Source::Fragment(input) => digest.add(&names.get(input)),
    }
    for step in &fragment.steps {
        match step {
            Step::Probe(probe) => {
                digest.add(&names.get(probe.build));
                digest.add(&(&probe.kind, &probe.keys, &probe.residual));
                digest.add(&(probe.null_equals_null, probe.null_aware));
            }
            other => digest.add(other),
        }
    }
    digest.add(&fragment.sink);
    digest.0
}

struct Fnv(u64);

impl Fnv {
    fn add(&mut self, part: &impl serde::Serialize) {
        // Plain data serialises, and this writer takes everything.
        let _ = serde_json::to_writer(self, part);
    }
}

impl io::Write for &mut Fnv {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
