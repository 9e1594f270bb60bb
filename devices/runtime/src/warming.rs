//! Kernels compiled in the background, for graphs that run elsewhere meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trireme_device_codegen::ir::Module;

use crate::accelerator::Core;
use crate::background::yields_to_others;
use crate::decoding;
use crate::kernels::Peeked;
use crate::programs::Lowered;

/// Threads per process that compile at once; what finds none free is compiled when it is wanted again.
const THREADS_MAX: usize = 2;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// The programs whose modules aren't loaded.
pub(crate) fn cold(core: &Core, programs: Vec<Arc<Lowered>>) -> Vec<Arc<Lowered>> {
    programs.into_iter().filter(|lowered| is_cold(core, lowered)).collect()
}

/// Whether a program's module isn't loaded.
pub(crate) fn is_cold(core: &Core, lowered: &Lowered) -> bool {
    match &lowered.program {
        Ok(program) if lowered.module.get().is_none() => match core.kernels.peek(&program.module) {
            Peeked::Loaded(loaded) => {
                // Another thread may have found it too.
                let _ = lowered.module.set(loaded);
                false
            }
            // The run meets the error, falls back and says so.
            Peeked::Failed => false,
            Peeked::Unknown => true,
        },
        _ => false,
    }
}

/// The kernels that decode pages, as far as they aren't loaded.
pub(crate) fn cold_decoders(core: &Core) -> Vec<Module> {
    if !core.takes_pages() {
        return Vec::new();
    }
    let is_cold = |module: &Module| matches!(core.kernels.peek(module), Peeked::Unknown);
    decoding::modules(core).into_iter().filter(is_cold).collect()
}

/// Compiles them on a thread of its own, unless enough threads do that already.
pub(crate) fn compile(core: &Arc<Core>, mut programs: Vec<Arc<Lowered>>, decoders: Vec<Module>) {
    programs.retain(|lowered| !lowered.warming.load(Ordering::SeqCst));
    if programs.is_empty() && decoders.is_empty() {
        return;
    }
    if THREADS.fetch_add(1, Ordering::SeqCst) >= THREADS_MAX {
        THREADS.fetch_sub(1, Ordering::SeqCst);
        return;
    }
    for lowered in &programs {
        lowered.warming.store(true, Ordering::SeqCst);
    }
    let core = Arc::clone(core);
    let work = move || {
        let _leaves = Leaves;
        yields_to_others();
        for lowered in programs {
            let Ok(program) = &lowered.program else { continue };
            match core.kernels.get(&program.module) {
                Ok((loaded, _)) => {
                    // Whoever ran it first has set the same one.
                    let _ = lowered.module.set(loaded);
                }
                // A run that needs it meets it too, and says so.
                Err(error) => return core.note(&error),
            }
        }
        for module in decoders {
            if let Err(error) = core.kernels.get(&module) {
                // Columns are decoded on the host then.
                core.note(&error);
            }
        }
    };
    if std::thread::Builder::new()
        .name("compile".to_owned())
        .spawn(work)
        .is_err()
    {
        THREADS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts its thread out, however it ends.
struct Leaves;

impl Drop for Leaves {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::SeqCst);
    }
}
