//! What the dialects differ in: a few words, defined at the top of each text.
//!
//! The text is cut into pieces; a module gets the basis and the pieces that it uses, because a compiler's time is spent on
//! each line.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Dialect;
use super::wide::WIDE;

/// Part of the prelude.
pub(super) struct Piece {
    /// What the printer asks for.
    pub(super) name: &'static str,
    /// Earlier pieces that it is made of.
    pub(super) needs: &'static [&'static str],
    /// Its text; none where the dialect has it built in.
    pub(super) cuda: &'static str,
    /// Likewise.
    pub(super) opencl: &'static str,
}

/// Pieces that a module uses.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    names: Vec<&'static str>,
    /// Words of the block that have a name in all of the text.
    pub(super) words: BTreeSet<u32>,
}

impl Pieces {
    /// Asks for a piece.
    pub(super) fn need(&mut self, name: &'static str) {
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }

    /// The prelude: each piece after those that it is made of.
    pub(super) fn text(mut self, dialect: Dialect) -> String {
        let all: Vec<&Piece> = PIECES.iter().chain(WIDE).collect();
        for piece in all.iter().rev() {
            if self.names.contains(&piece.name) {
                piece.needs.iter().for_each(|name| self.need(name));
            }
        }
        let mut text = match dialect {
            Dialect::Cuda => CUDA,
            Dialect::OpenCl => OPENCL,
        }
        .to_owned();
        for piece in all.iter().filter(|piece| self.names.contains(&piece.name)) {
            text.push_str(match dialect {
                Dialect::Cuda => piece.cuda,
                Dialect::OpenCl => piece.opencl,
            });
        }
        for word in &self.words {
            let _ = writeln!(text, "#define w{word} WORD({word})");
        }
        text
    }
}

/// Loops stay loops: NVRTC would unroll the items of a tile and the rounds of a reduction, which takes a third more of its time
/// while rows stand behind branches anyway.
const CUDA: &str = "\
typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;
#define GLOBAL
#define LOCAL __shared__
#define INLINE static __device__ __forceinline__
#define FUNCTION static __device__
#define WORD(index) __ldg((const u64*)(arena + block) + (index))
#define AT(T, base, index) ((T*)(arena + (base)) + (index))
#define LOAD(T, base, index) (*AT(T, base, index))
#define LOAD_CONSTANT(T, base, index) __ldg((const T*)(arena + (base)) + (index))
#define LOOP _Pragma(\"unroll 1\") for (;;)
#define LOCAL_INDEX threadIdx.x
#define GROUP_INDEX blockIdx.x
#define GROUPS gridDim.x
#define BARRIER() __syncthreads()
#define FENCE() __threadfence()
";

const OPENCL: &str = "\
#pragma OPENCL FP_CONTRACT OFF
#pragma OPENCL EXTENSION cl_khr_int64_base_atomics : enable
#pragma OPENCL EXTENSION cl_khr_int64_extended_atomics : enable
typedef char i8;
typedef uchar u8;
typedef short i16;
typedef ushort u16;
typedef int i32;
typedef uint u32;
typedef long i64;
typedef ulong u64;
typedef float f32;
typedef double f64;
#define GLOBAL __global
#define LOCAL __local
#define INLINE static inline
#define FUNCTION static
#define WORD(index) (((const GLOBAL u64*)(arena + block))[index])
#define AT(T, base, index) ((GLOBAL T*)(arena + (base)) + (index))
#define LOAD(T, base, index) (*AT(T, base, index))
#define LOAD_CONSTANT(T, base, index) (*((const GLOBAL T*)(arena + (base)) + (index)))
#define LOOP for (;;)
#define LOCAL_INDEX ((u32)get_local_id(0))
#define GROUP_INDEX ((u32)get_group_id(0))
#define GROUPS ((u32)get_num_groups(0))
#define BARRIER() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#define FENCE() atomic_work_item_fence(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE, memory_order_acq_rel, memory_scope_device)
";

/// Groups of up to so many work-items can be launched with as many registers as a kernel may have at all. For them the assembler
/// isn't told the size, because it would spill a few registers to make room for one more group.
const GROUP_ANY_REGISTERS: u32 = 256;

/// How kernels begin that have so many work-items per group.
pub(super) fn kernel_piece(group: u32) -> &'static str {
    if group <= GROUP_ANY_REGISTERS {
        "kernel"
    } else {
        "large_kernel"
    }
}

const OPENCL_KERNEL: &str = "\
#define KERNEL(group) __kernel __attribute__((reqd_work_group_size(group, 1, 1))) void
";

/// Pieces in the order in which they are printed; those of [`WIDE`] follow.
const PIECES: &[Piece] = &[
    Piece {
        name: "kernel",
        needs: &[],
        cuda: "#define KERNEL(group) extern \"C\" __global__ void\n",
        opencl: OPENCL_KERNEL,
    },
    Piece {
        name: "large_kernel",
        needs: &[],
        cuda: "#define KERNEL(group) extern \"C\" __global__ void __launch_bounds__(group)\n",
        opencl: OPENCL_KERNEL,
    },
    Piece {
        name: "bits",
        needs: &[],
        cuda: "\
#define as_u32(x) __float_as_uint(x)
#define as_f32(x) __uint_as_float(x)
#define as_u64(x) ((u64)__double_as_longlong(x))
#define as_f64(x) __longlong_as_double((i64)(x))
",
        opencl: "\
#define as_u32(x) as_uint(x)
#define as_f32(x) as_float(x)
#define as_u64(x) as_ulong(x)
#define as_f64(x) as_double(x)
",
    },
    Piece {
        name: "mul_hi",
        needs: &[],
        cuda: "\
INLINE u32 mul_hi(u32 a, u32 b) { return __umulhi(a, b); }
INLINE u64 mul_hi(u64 a, u64 b) { return __umul64hi(a, b); }
INLINE i64 mul_hi(i64 a, i64 b) { return __mul64hi(a, b); }
",
        opencl: "",
    },
    Piece {
        name: "popcount",
        needs: &[],
        cuda: "\
INLINE u32 popcount(u32 x) { return __popc(x); }
INLINE u64 popcount(u64 x) { return __popcll(x); }
",
        opencl: "",
    },
    Piece {
        name: "clz",
        needs: &[],
        cuda: "\
INLINE u32 clz(u32 x) { return __clz(x); }
INLINE u64 clz(u64 x) { return __clzll(x); }
",
        opencl: "",
    },
    Piece {
        name: "divide_f32",
        needs: &[],
        cuda: "#define divide_f32(a, b) __fdiv_rn(a, b)\n",
        opencl: "INLINE f32 divide_f32(f32 a, f32 b) { return (f32)((f64)a / (f64)b); }\n",
    },
    Piece {
        name: "sqrt_f32",
        needs: &[],
        cuda: "#define sqrt_f32(x) __fsqrt_rn(x)\n",
        opencl: "INLINE f32 sqrt_f32(f32 x) { return (f32)sqrt((f64)x); }\n",
    },
    // PoCL's compiler takes a NaN that it knows for no argument of floor, and leaves the result undefined.
    Piece {
        name: "floor_f32",
        needs: &[],
        cuda: "#define floor_f32(x) floor(x)\n",
        opencl: "INLINE f32 floor_f32(f32 x) { return x != x ? x : floor(x); }\n",
    },
    Piece {
        name: "floor_f64",
        needs: &[],
        cuda: "#define floor_f64(x) floor(x)\n",
        opencl: "INLINE f64 floor_f64(f64 x) { return x != x ? x : floor(x); }\n",
    },
    Piece {
        name: "atomics",
        needs: &[],
        cuda: CUDA_ATOMICS,
        opencl: OPENCL_ATOMICS,
    },
    Piece {
        name: "count",
        needs: &["atomics"],
        cuda: CUDA_COUNT,
        opencl: "#define ATOMIC_COUNT(S, T, p) atomic_fetch_add_explicit((volatile S atomic_##T*)(p), (T)1, SCOPE_##S)\n",
    },
];

/// The work-items of a warp that are here together count by one atomic, which the first of them does.
const CUDA_COUNT: &str = "\
template <typename T> INLINE T count_up(T* p) {
    const u32 here = __activemask();
    const u32 lane = threadIdx.x & 31u;
    const u32 first = __ffs((int)here) - 1;
    T old = 0;
    if (lane == first) old = atomicAdd(p, (T)__popc(here));
    old = __shfl_sync(here, old, (int)first);
    return old + (T)__popc(here & ((1u << lane) - 1u));
}
#define ATOMIC_COUNT(S, T, p) ((T)count_up((bits_##T*)(p)))
";

/// `S` is GLOBAL or LOCAL, `T` the element. What does not depend on the sign is done unsigned.
const CUDA_ATOMICS: &str = "\
typedef u32 bits_u32;
typedef u32 bits_i32;
typedef u64 bits_u64;
typedef u64 bits_i64;
#define ATOMIC_LOAD(S, T, p) (*(volatile T*)(p))
#define ATOMIC_STORE(S, T, p, x) (*(volatile T*)(p) = (x))
#define ATOMIC_ADD(S, T, p, x) ((T)atomicAdd((bits_##T*)(p), (bits_##T)(x)))
#define ATOMIC_MIN(S, T, p, x) atomicMin(p, x)
#define ATOMIC_MAX(S, T, p, x) atomicMax(p, x)
#define ATOMIC_OR(S, T, p, x) ((T)atomicOr((bits_##T*)(p), (bits_##T)(x)))
#define ATOMIC_EXCHANGE(S, T, p, x) ((T)atomicExch((bits_##T*)(p), (bits_##T)(x)))
#define ATOMIC_COMPARE_EXCHANGE(S, T, p, e, x) ((T)atomicCAS((bits_##T*)(p), (bits_##T)(e), (bits_##T)(x)))
";

const OPENCL_ATOMICS: &str = "\
typedef atomic_uint atomic_u32;
typedef atomic_int atomic_i32;
typedef atomic_ulong atomic_u64;
typedef atomic_long atomic_i64;
#define SCOPE_GLOBAL memory_order_relaxed, memory_scope_device
#define SCOPE_LOCAL memory_order_relaxed, memory_scope_work_group
#define ATOMIC_LOAD(S, T, p) atomic_load_explicit((volatile S atomic_##T*)(p), SCOPE_##S)
#define ATOMIC_STORE(S, T, p, x) atomic_store_explicit((volatile S atomic_##T*)(p), x, SCOPE_##S)
#define ATOMIC_ADD(S, T, p, x) atomic_fetch_add_explicit((volatile S atomic_##T*)(p), x, SCOPE_##S)
#define ATOMIC_MIN(S, T, p, x) atomic_fetch_min_explicit((volatile S atomic_##T*)(p), x, SCOPE_##S)
#define ATOMIC_MAX(S, T, p, x) atomic_fetch_max_explicit((volatile S atomic_##T*)(p), x, SCOPE_##S)
#define ATOMIC_OR(S, T, p, x) atomic_fetch_or_explicit((volatile S atomic_##T*)(p), x, SCOPE_##S)
#define ATOMIC_EXCHANGE(S, T, p, x) atomic_exchange_explicit((volatile S atomic_##T*)(p), x, SCOPE_##S)
#define ATOMIC_COMPARE_EXCHANGE(S, T, p, e, x) exchange_##S##_##T((volatile S atomic_##T*)(p), e, x)
#define DEFINE_EXCHANGE(S, T) \\
INLINE T exchange_##S##_##T(volatile S atomic_##T* p, T e, T x) { \\
    atomic_compare_exchange_strong_explicit(p, &e, x, memory_order_relaxed, SCOPE_##S); \\
    return e; \\
}
DEFINE_EXCHANGE(GLOBAL, u32)
DEFINE_EXCHANGE(GLOBAL, i32)
DEFINE_EXCHANGE(GLOBAL, u64)
DEFINE_EXCHANGE(GLOBAL, i64)
DEFINE_EXCHANGE(LOCAL, u32)
DEFINE_EXCHANGE(LOCAL, i32)
DEFINE_EXCHANGE(LOCAL, u64)
DEFINE_EXCHANGE(LOCAL, i64)
";
