//! Kernels run by the interpreter, and as real compilers see them: OpenCL text is run where there is a device, CUDA text is
//! compiled where there is NVRTC. All must give what Rust's own arithmetic gives.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests, and of truncation too"
)]

mod cases;
mod host;
mod memory;
mod nvrtc;
mod opencl;
mod pages;
mod usage;
mod values;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use trireme_device_codegen::bytecode::{Bytecode, runner};
use trireme_device_codegen::decode::Encoding;
use trireme_device_codegen::interpreter::{Machine, Schedule};
use trireme_device_codegen::ir::{Elem, Module, Scalar};
use trireme_device_codegen::print::{CUDA_OPTIONS, Dialect, OPENCL_OPTIONS, print};

use cases::Rows;
use host::Host;
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

/// Runs kernels of one module, by name, with so many groups, over an arena that begins with the block.
type Run = Box<dyn Fn(&str, u32, &mut [u8])>;

/// Runs a kernel by position, with so many groups and its block at a place in the arena.
type RunAt = Rc<dyn Fn(usize, u32, &mut [u8], u64)>;

/// A module on everything that runs kernels here, by its own kernels.
fn runs_at(module: &Module) -> Vec<(&'static str, RunAt)> {
    let interpreted = module.clone();
    let interpreter: RunAt = Rc::new(move |kernel, groups, arena, block| {
        let bytes = arena.len().next_multiple_of(8);
        let schedule = if interpreted.kernels[kernel].name == "rows" {
            Schedule::sequential()
        } else {
            Schedule::seeded(3)
        };
        let mut machine = Machine::new(bytes);
        machine.allocate(0, bytes as u64).expect("memory");
        machine.write(0, arena).expect("inside");
        let done = machine.launch(&interpreted, kernel, groups, block, &schedule);
        done.unwrap_or_else(|violation| panic!("{violation}"));
        arena.copy_from_slice(machine.read(0, arena.len() as u64).expect("inside"));
    });
    let mut runs = vec![("interpreter", interpreter)];
    if let Some(opencl) = OpenCl::get() {
        let group = module.group;
        let names: Vec<String> = module.kernels.iter().map(|kernel| kernel.name.clone()).collect();
        let text = print(module, Dialect::OpenCl);
        let program = opencl.build(&text, OPENCL_OPTIONS);
        let program = program.unwrap_or_else(|log| panic!("{log}\n{text}"));
        let run = move |kernel: usize, groups, arena: &mut [u8], block| {
            opencl.run(&program, &names[kernel], groups, group, arena, block);
        };
        runs.push(("OpenCL", Rc::new(run)));
    }
    runs
}

/// A module's kernels as data, by what runs kernels: behind the arena come their instructions and what these work on.
fn as_data(module: &Module, run: RunAt) -> RunAt {
    let words = module.kernels.iter().map(|kernel| kernel.words).max().unwrap_or(0) as usize;
    let data = Bytecode::new(module, words).expect("few registers");
    Rc::new(move |kernel, groups, arena, block| {
        let block = usize::try_from(block).expect("inside");
        let entry = data.entries[kernel];
        let mut all = arena.to_vec();
        all.resize(all.len().next_multiple_of(16), 0);
        let mut put = |words: &[u64]| {
            let at = all.len() as u64;
            words.iter().for_each(|word| all.extend(word.to_le_bytes()));
            at
        };
        let code = put(&data.words);
        let mut uniforms: Vec<u64> = arena[block..][..words * 8].chunks_exact(8).map(word).collect();
        uniforms.extend(&data.constants);
        let uniforms = put(&uniforms);
        let items = (groups * data.group) as usize;
        let registers = put(&vec![0; items * entry.registers as usize]);
        let locals = put(&vec![0; groups as usize * entry.local_bytes as usize / 8 + 1]);
        let header = [
            code,
            u64::from(entry.start),
            uniforms,
            registers,
            locals,
            entry.local_bytes,
        ];
        let header = put(&header);
        run(0, groups, &mut all, header);
        arena.copy_from_slice(&all[..arena.len()]);
    })
}

/// What runs kernels as data, made once per thread: compilers take a second for it.
fn runners(group: u32) -> Vec<(&'static str, RunAt)> {
    thread_local! {
        static MADE: RefCell<HashMap<u32, Vec<(&'static str, RunAt)>>> = RefCell::default();
    }
    MADE.with_borrow_mut(|made| made.entry(group).or_insert_with(|| runs_at(&runner(group))).clone())
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a word"))
}

/// As [`runs_at`], and the same as data for the one kernel that runs it; by name, with the block at the arena's start.
fn runs(module: &Module) -> Vec<(&'static str, Run)> {
    let mut all = runs_at(module);
    let names = [("interpreter", "data by interpreter"), ("OpenCL", "data by OpenCL")];
    for (name, run) in runners(module.group) {
        let (_, name) = names.iter().find(|(other, _)| *other == name).expect("known");
        all.push((name, as_data(module, run)));
    }
    let kernels: Vec<String> = module.kernels.iter().map(|kernel| kernel.name.clone()).collect();
    let by_name = |(name, run): (&'static str, RunAt)| {
        let kernels = kernels.clone();
        let run: Run = Box::new(move |kernel, groups, arena| {
            let position = kernels.iter().position(|each| each == kernel).expect("a kernel");
            run(position, groups, arena, 0);
        });
        (name, run)
    };
    all.into_iter().map(by_name).collect()
}

/// CUDA text of a kernel without barriers, by way of C++.
fn check_cuda(rows: &Rows, about: &str) {
    let text = print(&rows.module, Dialect::Cuda);
    let Some(host) = Host::compile(&text) else { return };
    let (arena, outputs) = rows.arena();
    let words = arena.len().div_ceil(8) * 8;
    let bytes: Vec<u8> = arena.into_iter().chain(std::iter::repeat(0)).take(words).collect();
    let (words, _) = bytes.as_chunks::<8>();
    let mut words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    host.run("rows", rows.groups(), cases::GROUP, &mut words);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    rows.check(&bytes, &outputs, &format!("{about} by CUDA text in C++"));
}

fn check(rows: &Rows, about: &str) {
    check_cuda(rows, about);
    for (name, run) in runs(&rows.module) {
        let (mut arena, outputs) = rows.arena();
        run("rows", rows.groups(), &mut arena);
        rows.check(&arena, &outputs, &format!("{about} by {name}"));
    }
}

#[test]
fn operators_of_every_type() {
    let mut rng = seeded("operators");
    for scalar in values::SCALARS {
        check(&cases::operators(scalar, &mut rng), &format!("{scalar:?}"));
    }
}

#[test]
fn floats_that_the_compiler_knows() {
    for scalar in [Scalar::F32, Scalar::F64] {
        check(&cases::known_floats(scalar), &format!("known {scalar:?}"));
    }
}

#[test]
fn random_expressions() {
    let mut rng = seeded("expressions");
    for depth in 2..5 {
        check(&cases::expressions(&mut rng, 24, depth), &format!("depth {depth}"));
    }
}

#[test]
fn memory_and_atomics() {
    let mut rng = seeded("memory");
    let (groups, rows, words) = (8, 8 * memory::GROUP as usize, 16);
    let numbers: Vec<u64> = (0..rows)
        .map(|_| rng.random::<u64>() >> rng.random_range(12..60))
        .collect();
    let mut arena: Vec<u64> = (0..words).map(|word| (words + word * 3 * rows as u64) * 8).collect();
    arena.resize(words as usize + 12 * 3 * rows, 0);
    arena[16..16 + rows].copy_from_slice(&numbers);
    let column = |bytes: &[u8], position: usize, row: usize| {
        i64::from_le_bytes(
            bytes[(16 + position * 3 * rows + row) * 8..][..8]
                .try_into()
                .expect("a word"),
        )
    };
    for (name, run) in runs(&memory::module()) {
        let mut bytes: Vec<u8> = arena.iter().flat_map(|word| word.to_le_bytes()).collect();
        run("loops", groups, &mut bytes);
        for (row, number) in numbers.iter().enumerate() {
            assert_eq!(column(&bytes, 1, row), memory::steps(*number), "{number} by {name}");
        }
        run("widths", groups, &mut bytes);
        for (row, number) in numbers.iter().enumerate() {
            let got: Vec<i64> = (1..12).map(|position| column(&bytes, position, row)).collect();
            assert_eq!(got, memory::widened(*number as i64), "{number} by {name}");
        }
        bytes[16 * 8..].fill(0);
        run("atomics", groups, &mut bytes);
        for (position, elem) in memory::ATOMIC.into_iter().enumerate() {
            for (slot, expected) in memory::slots(rows as i64, elem).into_iter().enumerate() {
                let got = column(&bytes, 0, position * memory::SLOTS + slot) as u64;
                let right = expected.is_none_or(|expected| expected == got);
                assert!(right, "{elem:?} {slot} by {name}: {got:#x} is not {expected:#x?}");
            }
        }
        bytes[16 * 8..].fill(0);
        run("counting", groups, &mut bytes);
        for position in [0, 1] {
            let mut ids: Vec<i64> = (1..=rows / 2).map(|at| column(&bytes, position, at)).collect();
            ids.sort_unstable();
            let odd: Vec<i64> = (0..rows as i64).filter(|id| id % 2 == 1).collect();
            assert_eq!(ids, odd, "{position} by {name}");
        }
        assert_eq!(column(&bytes, 0, 0), rows as i64 / 2, "by {name}");
    }
}

#[test]
fn pages_are_decoded() {
    let mut rng = seeded("pages");
    for elem in [Elem::U8, Elem::U16, Elem::U32, Elem::U64] {
        let mut runs = runs(&trireme_device_codegen::decode::module(elem, 32));
        if matches!(elem, Elem::U16 | Elem::U32) {
            // Nothing new to a compiler that takes seconds.
            runs.truncate(1);
        }
        for _ in 0..4 {
            let column = pages::Column::random(&mut rng, elem, 6);
            for (name, run) in &runs {
                let mut arena = column.arena();
                run("decode_pages", 4, &mut arena);
                column.check(&arena, &format!("{elem:?} by {name}"));
            }
        }
    }
}

#[test]
fn rows_that_are_null_have_a_value_of_the_range() {
    let column = pages::Column::around(vec![Some(1), Some(-75), Some(1), None, None, Some(-3)]);
    for (name, run) in runs(&trireme_device_codegen::decode::module(Elem::U8, 4)) {
        let mut arena = column.arena();
        run("decode_pages", 1, &mut arena);
        column.check(&arena, name);
        assert_eq!(column.bytes(&arena), [1, -75, 1, -75, -75, -3], "{name}");
    }
}

#[test]
fn rows_of_wrong_pages_have_a_value_of_the_range() {
    let nullable = vec![Some(1), Some(-75), Some(1), None, None, Some(-3)];
    let mut column = pages::Column::around(nullable);
    column.cut();
    for (name, run) in runs(&trireme_device_codegen::decode::module(Elem::U8, 4)) {
        let mut arena = column.arena();
        run("decode_pages", 1, &mut arena);
        assert!(column.is_faulty(&arena), "{name}");
        assert_eq!(column.bytes(&arena), [-75; 6], "{name}");
    }
}

#[test]
fn pages_of_another_writer_are_decoded() {
    let delta = pages::Written {
        encoding: Encoding::Delta,
        values: "80010433e707890f0b0b0000eaa36160254a17d32248c7bd8199de88e7402c26d72980150f85ed5420aa191e0032e46384e5425a03e1\
                 58534dc29bf018684550c6c9afe091309d7cd567ce990f097a242600000000000000000000000000000000000000",
        dictionary: "",
    };
    let squares = (0..60).map(|row| (row % 7 != 3).then_some(row * row * 37 % 1000 - 500));
    let indexes = pages::Written {
        encoding: Encoding::Dictionary,
        values: "020be43839794e4e9293d3551e0112023603360038012402",
        dictionary: "0a000000ecffffffe093040007000000",
    };
    let steps = (0..200_usize).map(|row| {
        let value = [10, -20, 300_000, 7][row / if row < 40 { 1 } else { 30 } % 4];
        (row % 11 != 5 && !(61..80).contains(&row)).then_some(value)
    });
    let columns = [
        pages::Column::written(&delta, squares.collect()),
        pages::Column::written(&indexes, steps.collect()),
    ];
    for (name, run) in runs(&trireme_device_codegen::decode::module(Elem::U32, 32)) {
        for column in &columns {
            let mut arena = column.arena();
            run("decode_pages", 1, &mut arena);
            column.check(&arena, name);
        }
    }
}

#[test]
fn damaged_pages_are_read_inside_of_their_bounds() {
    let mut rng = seeded("damaged pages");
    for elem in [Elem::U8, Elem::U32, Elem::U64] {
        let module = trireme_device_codegen::decode::module(elem, 8);
        for _ in 0..30 {
            let mut column = pages::Column::random(&mut rng, elem, 2);
            column.damage(&mut rng);
            let mut machine = column.machine();
            let done = machine.launch(&module, 0, 2, 0, &Schedule::sequential());
            done.unwrap_or_else(|violation| panic!("{violation}"));
            column.check_range(&machine);
        }
    }
}

#[test]
fn values_out_of_their_range_are_faults() {
    let mut rng = seeded("narrow pages");
    let mut narrow = 0;
    for elem in [Elem::U8, Elem::U16, Elem::U32, Elem::U64] {
        let runs = runs(&trireme_device_codegen::decode::module(elem, 16));
        for _ in 0..8 {
            let mut column = pages::Column::random(&mut rng, elem, 3);
            if !column.narrow() {
                continue;
            }
            narrow += 1;
            let (_, run) = &runs[0];
            let mut arena = column.arena();
            run("decode_pages", 2, &mut arena);
            assert!(column.is_faulty(&arena), "{elem:?}");
        }
    }
    assert!(narrow > 4, "{narrow} columns");
}

#[test]
fn everything_compiles_for_cuda() {
    let Some(nvrtc) = Nvrtc::get() else { return };
    let mut rng = seeded("cuda");
    let mut modules: Vec<Module> = values::SCALARS
        .map(|scalar| cases::operators(scalar, &mut rng).module)
        .into();
    modules.push(memory::module());
    modules.extend([Elem::U8, Elem::U64].map(|elem| trireme_device_codegen::decode::module(elem, 256)));
    modules.push(cases::expressions(&mut rng, 16, 3).module);
    modules.push(runner(256));
    for module in modules {
        let text = print(&module, Dialect::Cuda);
        for architecture in nvrtc::ARCHITECTURES {
            let compiled = nvrtc.compile(&text, architecture, CUDA_OPTIONS);
            assert!(compiled.cubin.is_some(), "{}\n{text}", compiled.log);
            let usages = usage::usages(&compiled.log);
            let mut kernels: Vec<&str> = usages.iter().map(|usage| usage.kernel.as_str()).collect();
            kernels.sort_unstable();
            let mut expected: Vec<&str> = module.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
            expected.sort_unstable();
            assert_eq!(kernels, expected, "{}", compiled.log);
            assert!(usages.iter().all(|usage| usage.registers > 0), "{}", compiled.log);
            println!("{architecture} {:?} {usages:?}", compiled.time);
        }
    }
}

#[test]
fn spills_are_seen() {
    let Some(nvrtc) = Nvrtc::get() else { return };
    let sums: String = (0..90).map(|n| format!("x{n} += a[i] * b[i + {n}];")).collect();
    let ends: String = (0..90).map(|n| format!("b[{n}] = x{n};")).collect();
    let vars: Vec<String> = (0..90).map(|n| format!("x{n} = a[{n}]")).collect();
    let text = format!(
        "extern \"C\" __global__ void __launch_bounds__(1024) narrow(double* a, double* b, int n) {{ \
            __shared__ double s[32]; s[threadIdx.x & 31] = a[threadIdx.x]; __syncthreads(); \
            double {}; for (int i = 0; i < n; i++) {{ {sums} }} {ends} b[99] = s[n]; }}",
        vars.join(", ")
    );
    let compiled = nvrtc.compile(&text, "sm_90", CUDA_OPTIONS);
    let usages = usage::usages(&compiled.log);
    assert!(usages.len() == 1 && usages[0].spills(), "{}", compiled.log);
    assert!(
        usages[0].registers <= 64 && usages[0].stack_bytes > 0,
        "{}",
        compiled.log
    );
    assert_eq!(usages[0].shared_bytes, 256, "{}", compiled.log);
}
