//! 128-bit integers of two words, for dialects that have none: the same text in both.
//!
//! Division is long division in digits of 32 bits after Knuth (The Art of Computer Programming 2, 4.3.1, algorithm D), as in
//! Warren, Hacker's Delight, 9-4 and 9-5. Conversions to floats round once, because the bits below the top 64 are kept as one
//! sticky bit.

use super::prelude::Piece;

macro_rules! wide {
    ($($name:literal needs $needs:expr => $text:expr;)*) => {
        /// Pieces in the order in which they are printed.
        pub(super) const WIDE: &[Piece] = &[
            $(Piece { name: $name, needs: $needs, cuda: $text, opencl: $text }),*
        ];
    };
}

wide! {
    "wide" needs &[] => "\
typedef struct { u64 lo, hi; } i128;
INLINE i128 wide(u64 hi, u64 lo) { i128 r; r.lo = lo; r.hi = hi; return r; }
INLINE i128 wide_u64(u64 x) { return wide(0, x); }
INLINE i128 wide_i64(i64 x) { return wide((u64)(x >> 63), (u64)x); }
";
    "wide_load" needs &["wide"] => "\
INLINE i128 wide_load(const GLOBAL u8* arena, u64 base, u64 index) {
    return wide(LOAD_CONSTANT(u64, base, 2 * index + 1), LOAD_CONSTANT(u64, base, 2 * index));
}
";
    "wide_add" needs &["wide"] => "\
INLINE i128 wide_add(i128 a, i128 b) {
    u64 lo = a.lo + b.lo;
    return wide(a.hi + b.hi + (lo < b.lo), lo);
}
";
    "wide_subtract" needs &["wide"] => "\
INLINE i128 wide_subtract(i128 a, i128 b) { return wide(a.hi - b.hi - (a.lo < b.lo), a.lo - b.lo); }
";
    "wide_negate" needs &["wide"] => "\
INLINE i128 wide_negate(i128 a) { return wide(~a.hi + (a.lo == 0), -a.lo); }
";
    "wide_complement" needs &["wide"] => "INLINE i128 wide_complement(i128 a) { return wide(~a.hi, ~a.lo); }\n";
    "wide_multiply" needs &["wide", "mul_hi"] => "\
INLINE i128 wide_multiply(i128 a, i128 b) {
    return wide(mul_hi(a.lo, b.lo) + a.hi * b.lo + a.lo * b.hi, a.lo * b.lo);
}
";
    "wide_and" needs &["wide"] => "INLINE i128 wide_and(i128 a, i128 b) { return wide(a.hi & b.hi, a.lo & b.lo); }\n";
    "wide_or" needs &["wide"] => "INLINE i128 wide_or(i128 a, i128 b) { return wide(a.hi | b.hi, a.lo | b.lo); }\n";
    "wide_xor" needs &["wide"] => "INLINE i128 wide_xor(i128 a, i128 b) { return wide(a.hi ^ b.hi, a.lo ^ b.lo); }\n";
    "wide_equal" needs &["wide"] => "\
INLINE bool wide_equal(i128 a, i128 b) { return ((a.hi ^ b.hi) | (a.lo ^ b.lo)) == 0; }
";
    "wide_less" needs &["wide"] => "\
INLINE bool wide_less(i128 a, i128 b) { return a.hi == b.hi ? a.lo < b.lo : (i64)a.hi < (i64)b.hi; }
";
    "wide_min" needs &["wide_less"] => "INLINE i128 wide_min(i128 a, i128 b) { return wide_less(b, a) ? b : a; }\n";
    "wide_max" needs &["wide_less"] => "INLINE i128 wide_max(i128 a, i128 b) { return wide_less(a, b) ? b : a; }\n";
    "wide_divide" needs &["wide_multiply", "wide_subtract", "wide_negate", "clz"] => DIVIDE;
    "wide_remainder" needs &["wide_divide"] => "\
FUNCTION i128 wide_remainder(i128 a, i128 b) { return wide_subtract(a, wide_multiply(wide_divide(a, b), b)); }
";
    "wide_f64" needs &["wide_negate"] => "\
FUNCTION i128 wide_f64(f64 x) {
    f64 a = x < 0 ? -x : x;
    u64 hi = (u64)(a / 18446744073709551616.0);
    i128 r = wide(hi, (u64)(a - (f64)hi * 18446744073709551616.0));
    return x < 0 ? wide_negate(r) : r;
}
";
    "wide_top" needs &["wide_negate", "clz"] => "\
/* The 64 bits of |a| below its `zeros` leading zeros, the last one set if any bit below is. */
INLINE u64 wide_top(i128 a, u64 zeros) {
    u64 top = zeros == 0 ? a.hi : a.hi << zeros | a.lo >> (64 - zeros);
    return top | (a.lo << zeros != 0);
}
";
    "wide_to_f64" needs &["wide_top", "bits"] => "\
FUNCTION f64 wide_to_f64(i128 a) {
    i128 m = (i64)a.hi < 0 ? wide_negate(a) : a;
    u64 zeros = m.hi == 0 ? 0 : clz(m.hi);
    f64 r = m.hi == 0 ? (f64)m.lo : (f64)wide_top(m, zeros) * as_f64((1087 - zeros) << 52);
    return (i64)a.hi < 0 ? -r : r;
}
";
    "wide_to_f32" needs &["wide_top", "bits"] => "\
FUNCTION f32 wide_to_f32(i128 a) {
    i128 m = (i64)a.hi < 0 ? wide_negate(a) : a;
    u64 zeros = m.hi == 0 ? 0 : clz(m.hi);
    f32 r = m.hi == 0 ? (f32)m.lo : (f32)wide_top(m, zeros) * as_f32((u32)(191 - zeros) << 23);
    return (i64)a.hi < 0 ? -r : r;
}
";
}

const DIVIDE: &str = "\
/* One digit of 32 bits of u : next / v; v has its highest bit set, u < v. */
INLINE u64 wide_digit(u64 u, u64 next, u64 v) {
    u64 v1 = v >> 32, v0 = v & 0xffffffff;
    u64 q = u / v1, r = u - q * v1;
    while (q >> 32 != 0 || q * v0 > (r << 32 | next)) {
        q -= 1;
        r += v1;
        if (r >> 32 != 0) break;
    }
    return q;
}
/* hi : lo / v, where hi < v. */
FUNCTION u64 wide_words(u64 hi, u64 lo, u64 v) {
    u64 s = clz(v), q1, q0, rest;
    v <<= s;
    hi = s == 0 ? hi : hi << s | lo >> (64 - s);
    lo <<= s;
    q1 = wide_digit(hi, lo >> 32, v);
    rest = (hi << 32 | lo >> 32) - q1 * v;
    q0 = wide_digit(rest, lo & 0xffffffff, v);
    return (q1 << 32) + q0;
}
/* Of magnitudes. */
FUNCTION i128 wide_quotient(i128 a, i128 b) {
    u64 hi, s, v, q;
    i128 r;
    if (b.hi == 0) {
        if (a.hi == 0) return wide(0, a.lo / b.lo);
        hi = a.hi / b.lo;
        return wide(hi, wide_words(a.hi - hi * b.lo, a.lo, b.lo));
    }
    s = clz(b.hi);
    v = s == 0 ? b.hi : b.hi << s | b.lo >> (64 - s);
    q = wide_words(a.hi >> 1, a.hi << 63 | a.lo >> 1, v) >> (63 - s);
    q -= q != 0;
    r = wide_subtract(a, wide_multiply(wide(0, q), b));
    return wide(0, q + (r.hi > b.hi || (r.hi == b.hi && r.lo >= b.lo)));
}
FUNCTION i128 wide_divide(i128 a, i128 b) {
    i128 q = wide_quotient((i64)a.hi < 0 ? wide_negate(a) : a, (i64)b.hi < 0 ? wide_negate(b) : b);
    return (i64)(a.hi ^ b.hi) < 0 ? wide_negate(q) : q;
}
";
