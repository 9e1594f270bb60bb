//! NVRTC without a device: what the check of kernels needs.
//!
//! Without NVRTC these tests say so and pass, unless `TRIREME_REQUIRE_NVRTC=1`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking; numbers are cut on purpose"
)]

use trireme_device_api::DeviceError;
use trireme_device_codegen::build::{Builder, place, u64};
use trireme_device_codegen::ir::{Atomic, Elem, Expr, Module, Target};
use trireme_device_codegen::print::{Dialect, print};
use trireme_device_cuda::{Compiler, CudaSettings};

fn compiler() -> Option<std::sync::Arc<Compiler>> {
    match Compiler::open(&CudaSettings::default(), None) {
        Ok(compiler) => Some(compiler),
        Err(reason) => {
            assert!(std::env::var("TRIREME_REQUIRE_NVRTC").is_err(), "no NVRTC: {reason}");
            println!("skipped: no NVRTC: {reason}");
            None
        }
    }
}

fn counting() -> Module {
    let mut b = Builder::new();
    let row = Expr::GroupIndex
        .times(trireme_device_codegen::build::u32(64))
        .plus(Expr::LocalIndex);
    b.when(row.to(trireme_device_codegen::ir::Scalar::U64).lt(Expr::Word(0)), |b| {
        b.atomic(
            Target::Arena(place(Elem::U64, Expr::Word(1), u64(0))),
            Atomic::Add(u64(1)),
        );
    });
    Module {
        group: 64,
        functions: Vec::new(),
        kernels: vec![b.kernel("counting", 2)],
    }
}

#[test]
fn kernels_become_machine_code_of_each_architecture() {
    let Some(compiler) = compiler() else { return };
    let text = print(&counting(), Dialect::Cuda);
    assert!(compiler.version().0 >= 12, "{:?}", compiler.version());
    for architecture in [80, 90, 100]
        .into_iter()
        .filter(|number| compiler.architectures().contains(number))
    {
        let compiled = compiler
            .compile_for(&format!("sm_{architecture}"), &text)
            .expect("compiled");
        assert!(compiled.cubin.starts_with(b"\x7fELF"));
        let [usage] = compiled.usage.as_slice() else {
            panic!("one kernel: {}", compiled.log)
        };
        assert_eq!(usage.kernel, "counting");
        assert!((4..64).contains(&usage.registers), "{}", compiled.log);
        assert_eq!((usage.spill_store_bytes, usage.spill_load_bytes), (0, 0));
    }
}

#[test]
fn the_same_text_is_the_same_machine_code() {
    let Some(compiler) = compiler() else { return };
    let text = print(&counting(), Dialect::Cuda);
    let first = compiler.compile_for("sm_90", &text).expect("compiled");
    let again = compiler.compile_for("sm_90", &text).expect("compiled");
    assert!(first.cubin == again.cubin);
}

#[test]
fn spills_are_seen() {
    let Some(compiler) = compiler() else { return };
    // Many values at once, and few registers because groups are large and many.
    let text = r#"
extern "C" __global__ void __launch_bounds__(1024, 2) spilling(unsigned char* arena, unsigned long long block) {
    double* at = (double*)(arena + block);
    double values[64];
    #pragma unroll
    for (int i = 0; i < 64; i++) values[i] = at[threadIdx.x * 64 + i];
    __syncthreads();
    #pragma unroll
    for (int i = 0; i < 64; i++) at[threadIdx.x * 64 + 63 - i] = values[i] * values[(i * 7) % 64];
}
"#;
    let compiled = compiler.compile_for("sm_90", text).expect("compiled");
    let [usage] = compiled.usage.as_slice() else {
        panic!("one kernel: {}", compiled.log)
    };
    assert!(usage.spill_store_bytes > 0 && usage.stack_bytes > 0, "{}", compiled.log);
}

#[test]
fn refusals_have_the_compilers_words() {
    let Some(compiler) = compiler() else { return };
    let refused = compiler.compile_for("sm_90", "nonsense");
    let Err(DeviceError::Internal(text)) = refused else {
        panic!("{refused:?}")
    };
    assert!(text.contains("nonsense"), "{text}");
    assert!(compiler.compile_for("sm_1", "").is_err());
    assert!(compiler.compile_for("sm_90", "a\0b").is_err());
}
