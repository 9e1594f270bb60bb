//! What the assembler says that kernels take of a processor, read from the compiler's log.

/// Of one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) kernel: String,
    pub(crate) registers: u64,
    /// Local memory: arrays that are indexed, arguments of calls, spills.
    pub(crate) stack_bytes: u64,
    pub(crate) spill_store_bytes: u64,
    pub(crate) spill_load_bytes: u64,
    /// Shared by the group.
    pub(crate) shared_bytes: u64,
}

impl Usage {
    /// Whether registers went to memory and back.
    pub(crate) fn spills(&self) -> bool {
        self.spill_store_bytes + self.spill_load_bytes > 0
    }
}

/// Of each kernel in a log of `--ptxas-options=-v`, in the log's order. Functions that were not inlined count for the kernel
/// before them.
pub(crate) fn usages(log: &str) -> Vec<Usage> {
    let mut usages: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            usages.push(Usage {
                kernel,
                ..Usage::default()
            });
        }
        let Some(usage) = usages.last_mut() else { continue };
        usage.stack_bytes = usage.stack_bytes.max(before(line, " bytes stack frame"));
        usage.spill_store_bytes += before(line, " bytes spill stores");
        usage.spill_load_bytes += before(line, " bytes spill loads");
        usage.shared_bytes += before(line, " bytes smem");
        usage.registers = usage.registers.max(before(line, " registers"));
    }
    usages
}

/// The number before a unit.
fn before(line: &str, unit: &str) -> u64 {
    let number = line.split(unit).next().filter(|number| number.len() < line.len());
    let number = number.and_then(|text| text.rsplit(' ').next()?.parse().ok());
    number.unwrap_or(0)
}
