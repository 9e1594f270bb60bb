//! Dense values to rows: the value of a row that is not NULL stands at the number of such rows before it.

use super::page::{Places, fault, scan};
use crate::build::{Builder, place, u64};
use crate::ir::{Elem, Expr, LocalId, Scalar};

/// Fills the wanted rows of a page. Rows that are NULL get the least value: kernels look values up without asking for NULL, and
/// element 0 is a value that may lie outside of the column's range.
pub(super) fn ranks(b: &mut Builder, group: u32, elem: Elem, sums: LocalId, places: &Places) {
    let before = b.set(Scalar::U64, places.passed.into());
    let step = u64(u64::from(group));
    let scalar = elem.scalar();
    let least = places.least(b, elem);
    b.range(Scalar::U64, u64(0), places.keep.into(), step, |b, tile| {
        let row = b.set(Scalar::U64, Expr::from(tile).plus(Expr::LocalIndex.to(Scalar::U64)));
        let inside = b.set(Scalar::Bool, Expr::from(row).lt(places.keep.into()));
        let at = b.set(Scalar::U64, Expr::from(places.first).plus(row.into()));
        let valid = b.set(Scalar::U64, u64(0));
        b.when(inside.into(), |b| {
            let place = place(Elem::U8, places.validity.into(), Expr::from(at).shr(u64(3)));
            let byte = b.load(place);
            let bit = Expr::from(byte).to(Scalar::U64).shr(Expr::from(at).and(u64(7)));
            b.assign(valid, bit.and(u64(1)));
        });
        let (sum, all) = scan(b, group, sums, valid);
        b.when(inside.into(), |b| {
            let rank = b.set(Scalar::U64, Expr::from(before).plus(sum.into()).minus(u64(1)));
            let value = b.set(scalar, least.into());
            let is_valid = || Expr::from(valid).ne(u64(0));
            let known = Expr::from(rank).lt(places.values.into());
            b.when(is_valid().and(known.clone()), |b| {
                let place = place(elem, places.dense.into(), rank.into());
                b.assign(value, Expr::Load { place, constant: false });
            });
            b.when(is_valid().and(known.not()), |b| fault(b, places.fault));
            b.store(place(elem, places.output.into(), at.into()), value.into());
        });
        b.assign(before, Expr::from(before).plus(all.into()));
    });
}
