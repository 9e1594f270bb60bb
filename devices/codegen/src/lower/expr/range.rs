//! Interval arithmetic: bounds of results from bounds of operands, as the processor's variant has them.
//!
//! All bounds are 128-bit; a bound beyond them is cut off there and said to be inexact, and then the operation is checked.

use trireme_device_api::Type;

/// Smallest and largest value.
pub(super) type Range = (i128, i128);

/// Bounds of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) low: i128,
    pub(super) high: i128,
    /// False when a true bound lies beyond 128 bits.
    pub(super) exact: bool,
}

impl Bounds {
    fn over(corners: [Option<i128>; 4], negative: [bool; 4]) -> Self {
        let mut bounds = Bounds {
            low: i128::MAX,
            high: i128::MIN,
            exact: true,
        };
        for (corner, negative) in corners.into_iter().zip(negative) {
            bounds.exact &= corner.is_some();
            let corner = corner.unwrap_or(if negative { i128::MIN } else { i128::MAX });
            bounds.low = bounds.low.min(corner);
            bounds.high = bounds.high.max(corner);
        }
        bounds
    }

    /// Bounds that are what they say.
    pub(super) fn exactly((low, high): Range) -> Self {
        Bounds { low, high, exact: true }
    }

    /// Both bounds.
    pub(super) fn range(self) -> Range {
        (self.low, self.high)
    }

    /// True when all values lie in the range.
    pub(super) fn within(self, (low, high): Range) -> bool {
        self.exact && self.low >= low && self.high <= high
    }

    /// The part that lies in the range; the range when there is none.
    pub(super) fn clamp(self, (low, high): Range) -> Range {
        let (from, to) = (self.low.max(low), self.high.min(high));
        if from <= to { (from, to) } else { (low, high) }
    }
}

pub(super) fn add(a: Range, b: Range) -> Bounds {
    let corner = |x: i128, y: i128| (x.checked_add(y), x < 0);
    let (low, high) = (corner(a.0, b.0), corner(a.1, b.1));
    Bounds::over([low.0, high.0, low.0, high.0], [low.1, high.1, low.1, high.1])
}

pub(super) fn subtract(a: Range, b: Range) -> Bounds {
    let corner = |x: i128, y: i128| (x.checked_sub(y), x < 0);
    let (low, high) = (corner(a.0, b.1), corner(a.1, b.0));
    Bounds::over([low.0, high.0, low.0, high.0], [low.1, high.1, low.1, high.1])
}

pub(super) fn multiply(a: Range, b: Range) -> Bounds {
    let corners = [(a.0, b.0), (a.0, b.1), (a.1, b.0), (a.1, b.1)];
    Bounds::over(
        corners.map(|(x, y)| x.checked_mul(y)),
        corners.map(|(x, y)| (x < 0) != (y < 0)),
    )
}

/// Of a truncating division by anything in `b` but zero.
pub(super) fn divide(a: Range, b: Range) -> Bounds {
    let mut bounds: Option<Bounds> = None;
    let parts = [(b.0, b.1.min(-1)), (b.0.max(1), b.1)];
    for (low, high) in parts {
        if low > high {
            continue;
        }
        let corners = [(a.0, low), (a.0, high), (a.1, low), (a.1, high)];
        let part = Bounds::over(
            corners.map(|(x, y)| x.checked_div(y)),
            corners.map(|(x, y)| (x < 0) != (y < 0)),
        );
        bounds = Some(bounds.map_or(part, |other| Bounds {
            low: part.low.min(other.low),
            high: part.high.max(other.high),
            exact: part.exact && other.exact,
        }));
    }
    bounds.unwrap_or(Bounds::exactly((0, 0)))
}

/// Of a remainder that has the dividend's sign.
pub(super) fn remainder(a: Range, b: Range) -> Range {
    let largest = b.0.saturating_abs().max(b.1.saturating_abs()).saturating_sub(1).max(0);
    let low = if a.0 < 0 { a.0.max(-largest) } else { 0 };
    let high = if a.1 > 0 { a.1.min(largest) } else { 0 };
    (low, high)
}

/// Of a bitwise operation: no bit is set above those of the operands.
pub(super) fn bits(a: Range, b: Range) -> Range {
    let largest = a.1.max(b.1).max(!a.0).max(!b.0).max(0);
    let ones = i128::MAX.checked_shr(largest.leading_zeros() - 1).unwrap_or(0);
    if a.0 >= 0 && b.0 >= 0 { (0, ones) } else { (!ones, ones) }
}

/// What holds the values of both.
pub(super) fn union(a: Range, b: Range) -> Range {
    (a.0.min(b.0), a.1.max(b.1))
}

/// 10 to the power, if it fits 128 bits.
pub(super) fn power_of_ten(exponent: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

/// The decimal scale of a type; 0 for other types.
pub(super) fn scale(data_type: &Type) -> i32 {
    match data_type {
        Type::Decimal { scale, .. } => i32::from(*scale),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All intervals of small integers, all pairs of their values.
    #[test]
    fn bounds_hold_all_results() {
        let ranges: Vec<Range> = (-4..=4)
            .flat_map(|low| (low..=4).map(move |high| (low, high)))
            .collect();
        for a in &ranges {
            for b in &ranges {
                let pairs = || (a.0..=a.1).flat_map(|x| (b.0..=b.1).map(move |y| (x, y)));
                let extremes = |values: &mut dyn Iterator<Item = i128>| {
                    values.fold((i128::MAX, i128::MIN), |(low, high), value| {
                        (low.min(value), high.max(value))
                    })
                };
                assert_eq!(add(*a, *b).range(), extremes(&mut pairs().map(|(x, y)| x + y)));
                assert_eq!(subtract(*a, *b).range(), extremes(&mut pairs().map(|(x, y)| x - y)));
                assert_eq!(multiply(*a, *b).range(), extremes(&mut pairs().map(|(x, y)| x * y)));
                for (x, y) in pairs().filter(|(_, y)| *y != 0) {
                    let (quotients, rests) = (divide(*a, *b), remainder(*a, *b));
                    assert!((quotients.low..=quotients.high).contains(&(x / y)), "{a:?} / {b:?}");
                    assert!((rests.0..=rests.1).contains(&(x % y)), "{a:?} % {b:?}");
                }
                for (x, y) in pairs() {
                    let (low, high) = bits(*a, *b);
                    for value in [x & y, x | y, x ^ y] {
                        assert!((low..=high).contains(&value), "bits of {a:?} and {b:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn bounds_beyond_128_bits_are_cut_off() {
        let most = (i128::MIN, i128::MAX);
        assert!(!add(most, (1, 1)).exact);
        let product = multiply(most, (2, 2));
        assert_eq!((product.range(), product.exact), (most, false));
        assert!(!multiply((0, 1 << 100), (0, 1 << 100)).within(most));
        assert!(!divide(most, (-1, -1)).exact);
    }
}
