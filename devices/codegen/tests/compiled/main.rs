//! Kernels as real compilers see them: OpenCL text is run where there is a device, CUDA text is compiled where there is NVRTC.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests, and of truncation too"
)]

mod cases;
mod memory;
mod nvrtc;
mod opencl;
mod values;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_codegen::ir::Module;
use trireme_device_codegen::print::{CUDA_OPTIONS, Dialect, OPENCL_OPTIONS, print};

use cases::Rows;
use nvrtc::Nvrtc;
use opencl::OpenCl;

fn seeded(about: &str) -> StdRng {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| rand::rng().random());
    println!("{about}: SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn run(opencl: &OpenCl, rows: &Rows, about: &str) {
    let text = print(&rows.module, Dialect::OpenCl);
    let program = opencl
        .build(&text, OPENCL_OPTIONS)
        .unwrap_or_else(|log| panic!("{about}: {log}\n{text}"));
    let (mut arena, outputs) = rows.arena();
    opencl.run(&program, "rows", rows.groups(), cases::GROUP, &mut arena, 0);
    rows.check(&arena, &outputs, about);
}

#[test]
fn operators_of_every_type_in_opencl() {
    let Some(opencl) = OpenCl::get() else { return };
    let mut rng = seeded("operators");
    for scalar in values::SCALARS {
        run(opencl, &cases::operators(scalar, &mut rng), &format!("{scalar:?}"));
    }
}

#[test]
fn random_expressions_in_opencl() {
    let Some(opencl) = OpenCl::get() else { return };
    let mut rng = seeded("expressions");
    for depth in 2..5 {
        run(
            opencl,
            &cases::expressions(&mut rng, 24, depth),
            &format!("depth {depth}"),
        );
    }
}

#[test]
fn memory_and_atomics_in_opencl() {
    let Some(opencl) = OpenCl::get() else { return };
    let text = print(&memory::module(), Dialect::OpenCl);
    let program = opencl
        .build(&text, OPENCL_OPTIONS)
        .unwrap_or_else(|log| panic!("{log}\n{text}"));
    let mut rng = seeded("memory");
    let (groups, rows) = (8, 8 * memory::GROUP as usize);
    let words = 16;
    let numbers: Vec<u64> = (0..rows)
        .map(|_| rng.random::<u64>() >> rng.random_range(12..60))
        .collect();
    let mut arena: Vec<u64> = (0..words).map(|word| (words + word * 3 * rows as u64) * 8).collect();
    arena.resize(words as usize + 12 * 3 * rows, 0);
    arena[16..16 + rows].copy_from_slice(&numbers);
    let mut bytes: Vec<u8> = arena.iter().flat_map(|word| word.to_le_bytes()).collect();
    let column = |bytes: &[u8], position: usize, row: usize| {
        i64::from_le_bytes(
            bytes[(16 + position * 3 * rows + row) * 8..][..8]
                .try_into()
                .expect("a word"),
        )
    };

    opencl.run(&program, "loops", groups, memory::GROUP, &mut bytes, 0);
    for (row, number) in numbers.iter().enumerate() {
        assert_eq!(column(&bytes, 1, row), memory::steps(*number), "{number}");
    }
    opencl.run(&program, "widths", groups, memory::GROUP, &mut bytes, 0);
    for (row, number) in numbers.iter().enumerate() {
        let got: Vec<i64> = (1..12).map(|position| column(&bytes, position, row)).collect();
        assert_eq!(got, memory::widened(*number as i64), "{number}");
    }
    bytes[16 * 8..].fill(0);
    opencl.run(&program, "atomics", groups, memory::GROUP, &mut bytes, 0);
    for (position, elem) in memory::ATOMIC.into_iter().enumerate() {
        for (slot, expected) in memory::slots(rows as i64, elem).into_iter().enumerate() {
            let got = column(&bytes, 0, position * memory::SLOTS + slot) as u64;
            assert!(
                expected.is_none_or(|expected| expected == got),
                "{elem:?} {slot}: {got:#x} is not {expected:#x?}"
            );
        }
    }
}

#[test]
fn everything_compiles_for_cuda() {
    let Some(nvrtc) = Nvrtc::get() else { return };
    let mut rng = seeded("cuda");
    let mut modules: Vec<Module> = values::SCALARS
        .map(|scalar| cases::operators(scalar, &mut rng).module)
        .into();
    modules.push(memory::module());
    modules.push(cases::expressions(&mut rng, 16, 3).module);
    for module in modules {
        let text = print(&module, Dialect::Cuda);
        for architecture in nvrtc::ARCHITECTURES {
            let compiled = nvrtc.compile(&text, architecture, CUDA_OPTIONS);
            assert!(compiled.cubin.is_some(), "{}\n{text}", compiled.log);
            println!("{architecture} {:?}", compiled.time);
        }
    }
}
