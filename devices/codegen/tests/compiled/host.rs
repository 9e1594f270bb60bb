//! CUDA text run by the host's C++ compiler, where there is one: what a text means in C++, without a GPU. One work-item after
//! another, so only for kernels without barriers and atomics. Signed overflow and shifts by too much trap.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use libloading::{Library, Symbol};

/// What CUDA's compiler has built in, in C++.
const BUILT_IN: &str = r#"
#include <algorithm>
#include <cmath>
#include <cstring>
using std::floor; using std::fmod; using std::max; using std::min; using std::sqrt;
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(group)
static struct { unsigned x; } threadIdx, blockIdx, gridDim;
extern "C" void place(unsigned item, unsigned group, unsigned groups) {
    threadIdx.x = item; blockIdx.x = group; gridDim.x = groups;
}
template <typename T> static T __ldg(const T* p) { return *p; }
template <typename To, typename From> static To bits(From x) {
    static_assert(sizeof(To) == sizeof(From));
    To to; std::memcpy(&to, &x, sizeof x); return to;
}
#define __float_as_uint(x) bits<unsigned>((float)(x))
#define __uint_as_float(x) bits<float>((unsigned)(x))
#define __double_as_longlong(x) bits<long long>((double)(x))
#define __longlong_as_double(x) bits<double>((long long)(x))
#define __umulhi(a, b) ((unsigned)((unsigned long long)(a) * (b) >> 32))
#define __umul64hi(a, b) ((unsigned long long)((unsigned __int128)(a) * (b) >> 64))
#define __mul64hi(a, b) ((long long)((__int128)(a) * (b) >> 64))
#define __popc(x) __builtin_popcount(x)
#define __popcll(x) __builtin_popcountll(x)
#define __clz(x) ((x) == 0 ? 32 : __builtin_clz(x))
#define __clzll(x) ((x) == 0 ? 64 : __builtin_clzll(x))
#define __fdiv_rn(a, b) ((a) / (b))
#define __fsqrt_rn(x) std::sqrt((float)(x))
"#;

const OPTIONS: [&str; 10] = [
    "-x",
    "c++",
    "-std=c++17",
    "-O1",
    "-w",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",
    "-fsanitize=signed-integer-overflow,shift,integer-divide-by-zero",
    "-fsanitize-undefined-trap-on-error",
];

/// Compiled text.
pub(crate) struct Host {
    library: Library,
}

impl Host {
    /// Compiles; none, with a word about it, where there is no compiler.
    pub(crate) fn compile(text: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kernels-{}-{number}.so", std::process::id()));
        let compiler = std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"));
        let mut command = Command::new(compiler);
        command
            .args(OPTIONS)
            .arg("-o")
            .arg(&path)
            .arg("-")
            .stdin(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            eprintln!("skipped: no C++ compiler; CXX names it");
            return None;
        };
        let mut input = child.stdin.take().expect("piped");
        input
            .write_all((BUILT_IN.to_owned() + text).as_bytes())
            .expect("written");
        drop(input);
        assert!(child.wait().expect("a status").success(), "{text}");
        // SAFETY: the library has no initialisers.
        let library = unsafe { Library::new(&path) }.expect("a library");
        std::fs::remove_file(&path).expect("removed");
        Some(Self { library })
    }

    /// Runs a kernel over the arena, which begins with the block.
    pub(crate) fn run(&self, kernel: &str, groups: u32, group: u32, arena: &mut [u64]) {
        // SAFETY: the signatures are those of the texts; kernels stay in the arena, which the interpreter has checked.
        unsafe {
            let place: Symbol<'_, unsafe extern "C" fn(u32, u32, u32)> = self.library.get("place").expect("a symbol");
            let kernel: Symbol<'_, unsafe extern "C" fn(*mut u64, u64)> = self.library.get(kernel).expect("a kernel");
            for item in 0..groups * group {
                place(item % group, item / group, groups);
                kernel(arena.as_mut_ptr(), 0);
            }
        }
    }
}
