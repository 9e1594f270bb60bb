//! Sorting all rows: by one group where they are few for sure, else by samples.
//!
//! ```text
//!  rows as they come ─▶ few: one group sorts their numbers ─▶ rows in order
//!                    ─▶ splitters from a sorted sample (one group) ─▶ bucket of each row, counts
//!                         ─▶ row numbers by bucket ─▶ each bucket sorted by one group ─▶ rows in order
//! ```
//!
//! Equal keys are told apart by row number, so that they spread over buckets as all others do. Rows themselves move once.

use super::group::{Numbers, Rows, Scratch, load, run_rows};
use super::order::{Order, word_value};
use crate::build::{Builder, place, u32, u64};
use crate::ir::{Atomic, Elem, Expr as Ir, LocalId, Scalar, Stmt, Target, Var};
use crate::lower::emit::RowStore;
use crate::lower::source::resident_value;
use crate::lower::{Lowered, Lowering, Row, Sink, Unsupported};
use crate::program::{Fill, Groups, Lifetime, ProgramOutput, Region, When, Word};
use crate::shape::{RegionRef, ResidentColumn, ResidentRows};
use trireme_device_api::SortKey;

/// Runs that one group sorts and merges in reasonable time.
const RUNS_FEW: u64 = 8;

/// Rows of the sample per bucket.
const SAMPLES: u32 = 4;

/// The sink that sorts all rows.
pub(super) struct FullSort<'a> {
    keys: &'a [SortKey],
    limits: Limits,
    /// No more rows arrive than there is room for.
    exact: bool,
    order: Order,
    /// The row's columns, then the words of its keys.
    store: RowStore,
}

/// Which rows of the order are the result.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Left out first.
    pub(super) offset: u64,
    /// Then so many at most.
    pub(super) most: u64,
}

/// What the kernels behind the main one share.
struct Sorting {
    rows: Vec<ResidentColumn>,
    words: Vec<RegionRef>,
    order: Vec<super::order::OrderWord>,
    output: ResidentRows,
    numbers: [RegionRef; 2],
    limits: Limits,
    count: RegionRef,
    capacity: u64,
}

/// Memory for sorting by samples.
struct Areas {
    /// Buckets at most.
    most: u32,
    /// U64: buckets.
    buckets: RegionRef,
    /// Row numbers, U32, one fewer than buckets.
    splitters: RegionRef,
    samples: [RegionRef; 2],
    /// U32s: rows of each bucket.
    counts: RegionRef,
    /// U32s: rows that have been put into each bucket.
    filled: RegionRef,
    /// U32s: where each bucket begins, one more than buckets.
    begins: RegionRef,
    /// U16s: the bucket of each row.
    bucket_of: RegionRef,
}

impl<'a> FullSort<'a> {
    pub(super) fn new(l: &mut Lowering<'_>, keys: &'a [SortKey], limits: Limits) -> Lowered<Self> {
        let capacity = l.rows_guess().max(1);
        if capacity >= 1 << 31 {
            return Err(Unsupported("more rows to sort than kernels number".to_owned()));
        }
        let mut store = RowStore::new(l, "unsorted", capacity, Lifetime::Scratch);
        let (keyed, mut values) = l.look_at_rows(keys)?.unwrap_or_default();
        let order = Order::of(keys, &keyed);
        if l.has_passes() {
            values.extend(order.words.iter().map(|_| word_value(u64(0))));
            store.make(l, &values);
        }
        Ok(Self {
            keys,
            limits,
            exact: l.rows_bound().is_some(),
            order,
            store,
        })
    }
}

impl Sink for FullSort<'_> {
    fn begin(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        self.store.begin(l)
    }

    fn row(&mut self, l: &mut Lowering<'_>, row: &mut Row) -> Lowered<()> {
        let mut values = l.values(row)?;
        let keys = l.sort_keys(self.keys, row)?;
        values.extend(l.words_in(&self.order, keys)?);
        self.store.row(l, values, 0, !self.exact)
    }

    fn slot_end(&mut self, l: &mut Lowering<'_>) -> Lowered<()> {
        self.store.slot_end(l, 0, !self.exact)
    }

    fn end(&mut self, _: &mut Lowering<'_>) -> Lowered<()> {
        self.store.end();
        Ok(())
    }

    fn finish(&mut self, l: &mut Lowering<'_>) -> Lowered<ProgramOutput> {
        let mut rows = self.store.columns.clone().unwrap_or_default();
        let order = self.order.words.clone();
        let words = rows.split_off(rows.len().saturating_sub(order.len()));
        let words = words.iter().filter_map(|column| column.values).collect();
        let capacity = self.store.capacity;
        let output = output(l, &rows, capacity.min(self.limits.most));
        let mut numbers = |name: &str| scratch(l, name, capacity * 4, Fill::Nothing);
        let sorting = Sorting {
            numbers: [numbers("numbers"), numbers("numbers again")],
            rows,
            words,
            order,
            output,
            limits: self.limits,
            count: self.store.count,
            capacity,
        };
        if sorting.words.is_empty() {
            return Ok(ProgramOutput::Rows(sorting.output));
        }
        if capacity <= RUNS_FEW * u64::from(run_rows(l)) {
            sorting.by_one_group(l, self.exact)?;
        } else {
            sorting.by_samples(l, self.exact)?;
        }
        Ok(ProgramOutput::Rows(sorting.output))
    }
}

pub(super) fn scratch(l: &mut Lowering<'_>, name: &str, bytes: u64, fill: Fill) -> RegionRef {
    l.region(Region {
        name: name.to_owned(),
        bytes,
        fill,
        lifetime: Lifetime::Scratch,
    })
}

/// Columns like these, for a result.
pub(super) fn output(l: &mut Lowering<'_>, like: &[ResidentColumn], bound: u64) -> ResidentRows {
    let bound = bound.max(1);
    let mut region = |name: String, bytes: u64, fill: Fill| {
        l.region(Region {
            name,
            bytes,
            fill,
            lifetime: Lifetime::Output,
        })
    };
    let columns = like.iter().enumerate().map(|(index, column)| {
        let elem = crate::lower::output::storage_elem(column.shape.storage);
        let values = elem.map(|elem| {
            region(
                format!("sorted {index}"),
                bound * u64::from(elem.bytes()),
                Fill::Nothing,
            )
        });
        let validity = column
            .validity
            .map(|_| region(format!("sorted {index} validity"), bound, Fill::Nothing));
        ResidentColumn {
            shape: column.shape.clone(),
            values,
            validity,
        }
    });
    let columns = columns.collect();
    ResidentRows {
        columns,
        count: region("sorted count".to_owned(), 8, Fill::Byte(0)),
        bound,
    }
}

/// Rows of the result among `arrived` (U64) sorted ones, U64.
pub(super) fn kept(l: &mut Lowering<'_>, limits: Limits, arrived: Ir) -> Ir {
    let offset = l.word(Word::Value(limits.offset));
    let most = l.word(Word::Value(limits.most));
    arrived.max(offset.clone()).minus(offset).min(most)
}

/// Copies row `row` (U32) of some columns to place `rank` (U32) of the order, if that is in the result.
pub(super) fn copy_row(
    l: &mut Lowering<'_>,
    (from, to): (&[ResidentColumn], &[ResidentColumn]),
    limits: Limits,
    row: &Ir,
    rank: Ir,
) -> Lowered<()> {
    let offset = l.word(Word::Value(limits.offset));
    let most = l.word(Word::Value(limits.most.min(1 << 40)));
    let index = l.b.set(Scalar::U64, rank.to(Scalar::U64).minus(offset));
    // Ranks below the offset are above any limit.
    let unlimited = limits.offset == 0 && limits.most == u64::MAX;
    let copy = |l: &mut Lowering<'_>| {
        for (from, to) in from.iter().zip(to) {
            let value = resident_value(l, from, row)?;
            l.store_value(to, &value, &index.into())?;
        }
        Ok(())
    };
    if unlimited {
        return copy(l);
    }
    l.when(Ir::from(index).lt(most), copy)
}

impl Sorting {
    /// How many rows there are, U32; with `note` a fault is noted if there wasn't room for all.
    fn rows_here(&self, l: &mut Lowering<'_>, note: bool) -> Lowered<Ir> {
        let count = l.base(self.count);
        let arrived = l.b.load(place(Elem::U64, count, u64(0)));
        let capacity = l.word(Word::Value(self.capacity));
        if note {
            let first = Ir::GroupIndex.plus(Ir::LocalIndex).eq(u32(0));
            l.when(first.and(Ir::from(arrived).gt(capacity.clone())), |l| {
                l.capacity_fault(arrived.into());
                Ok(())
            })?;
        }
        let rows = Ir::from(arrived).min(capacity).to(Scalar::U32);
        Ok(l.b.set(Scalar::U32, rows).into())
    }

    fn comparable(&self, l: &mut Lowering<'_>) -> Rows {
        let words = self.words.iter().map(|word| l.base(*word)).collect();
        Rows::new(l, &self.order, words)
    }

    fn store_count(&self, l: &mut Lowering<'_>, rows: Ir) {
        let kept = kept(l, self.limits, rows.to(Scalar::U64));
        let count = l.base(self.output.count);
        l.b.when(Ir::GroupIndex.plus(Ir::LocalIndex).eq(u32(0)), |b| {
            b.store(place(Elem::U64, count, u64(0)), kept);
        });
    }

    /// Sorts the rows of one bucket and writes them. Uniform code.
    fn sort_and_write(
        &self,
        l: &mut Lowering<'_>,
        (comparable, local): (&Rows, &Scratch),
        counted: bool,
        (begin, rows): (Ir, Ir),
    ) -> Lowered<()> {
        let [from, to] = self.numbers.map(|region| l.base(region));
        let numbers = Numbers {
            from: l.b.set(Scalar::U64, from),
            to: l.b.set(Scalar::U64, to),
            counted,
        };
        comparable.sort(&mut l.b, local, &numbers, (begin.clone(), rows.clone()));
        let group = u32(l.target.group);
        l.range(Scalar::U32, (Ir::LocalIndex, rows, group), |l, index| {
            let rank = l.b.set(Scalar::U32, begin.plus(index));
            let row = l.b.set(Scalar::U32, load(Elem::U32, numbers.from.into(), rank.into()));
            copy_row(
                l,
                (&self.rows, &self.output.columns),
                self.limits,
                &row.into(),
                rank.into(),
            )
        })
    }

    fn by_one_group(&self, l: &mut Lowering<'_>, exact: bool) -> Lowered<()> {
        let kernel = l.kernel("sort", |l| {
            let rows = self.rows_here(l, !exact)?;
            self.store_count(l, rows.clone());
            let local = Scratch::new(l);
            let comparable = self.comparable(l);
            self.sort_and_write(l, (&comparable, &local), true, (u32(0), rows))
        })?;
        l.launch(kernel, Groups::One, When::After);
        Ok(())
    }

    fn by_samples(&self, l: &mut Lowering<'_>, exact: bool) -> Lowered<()> {
        // Splitters and counts of buckets take half of the local memory at most.
        let most = 1 << (l.target.local_bytes / 32).clamp(8, 1024).ilog2();
        let buckets = u64::from(most);
        let areas = Areas {
            most,
            buckets: scratch(l, "buckets", 8, Fill::Nothing),
            splitters: scratch(l, "splitters", buckets * 4, Fill::Nothing),
            samples: ["samples", "samples again"]
                .map(|name| scratch(l, name, buckets * u64::from(SAMPLES) * 4, Fill::Nothing)),
            counts: scratch(l, "bucket counts", buckets * 4, Fill::Byte(0)),
            filled: scratch(l, "bucket fills", buckets * 4, Fill::Byte(0)),
            begins: scratch(l, "bucket begins", (buckets + 1) * 4, Fill::Nothing),
            bucket_of: scratch(l, "bucket of rows", self.capacity * 2, Fill::Nothing),
        };
        let rows = Groups::Rows(self.capacity);
        let split = l.kernel("split", |l| self.split(l, &areas, exact))?;
        l.launch(split, Groups::One, When::After);
        let classify = l.kernel("classify", |l| self.classify(l, &areas))?;
        l.launch(classify, rows, When::After);
        let scatter = l.kernel("scatter", |l| self.scatter(l, &areas))?;
        l.launch(scatter, rows, When::After);
        let sort = l.kernel("sort", |l| self.sort_buckets(l, &areas))?;
        l.launch(sort, rows, When::After);
        Ok(())
    }

    /// Sorts a sample and takes splitters from it.
    fn split(&self, l: &mut Lowering<'_>, areas: &Areas, exact: bool) -> Lowered<()> {
        let rows = self.rows_here(l, !exact)?;
        self.store_count(l, rows.clone());
        let half = run_rows(l) / 2;
        let some = rows.clone().over(u32(half)).plus(u32(1)).min(u32(areas.most));
        let few = rows.clone().le(u32(2 * half));
        let buckets = l.b.set(Scalar::U32, few.select(u32(1), some));
        let place_of_buckets = l.base(areas.buckets);
        let group = u32(l.target.group);
        let [from, to] = areas.samples.map(|region| l.base(region));
        let splitters = l.base(areas.splitters);
        let local = Scratch::new(l);
        let comparable = self.comparable(l);
        l.b.when(Ir::LocalIndex.eq(u32(0)), |b| {
            b.store(
                place(Elem::U64, place_of_buckets, u64(0)),
                Ir::from(buckets).to(Scalar::U64),
            );
        });
        let samples = Ir::from(buckets).minus(u32(1)).times(u32(SAMPLES));
        let samples = l.b.set(Scalar::U32, samples);
        let b = &mut l.b;
        b.range(
            Scalar::U32,
            Ir::LocalIndex,
            samples.into(),
            group.clone(),
            |b, index| {
                let row = Ir::from(index).to(Scalar::U64).times(rows.clone().to(Scalar::U64));
                let row = row.over(Ir::from(samples).to(Scalar::U64).max(u64(1))).to(Scalar::U32);
                b.store(place(Elem::U32, from.clone(), index.into()), row);
            },
        );
        b.push(Stmt::Barrier);
        let numbers = Numbers {
            from: b.set(Scalar::U64, from),
            to: b.set(Scalar::U64, to),
            counted: false,
        };
        comparable.sort(b, &local, &numbers, (u32(0), samples.into()));
        let count = Ir::from(buckets).minus(u32(1));
        b.range(Scalar::U32, Ir::LocalIndex, count, group, |b, index| {
            let at = Ir::from(index).times(u32(SAMPLES)).plus(u32(SAMPLES / 2));
            let row = load(Elem::U32, numbers.from.into(), at);
            b.store(place(Elem::U32, splitters, index.into()), row);
        });
        Ok(())
    }

    fn buckets(&self, l: &mut Lowering<'_>, areas: &Areas) -> Var {
        let buckets = l.base(areas.buckets);
        let buckets = l.b.load(place(Elem::U64, buckets, u64(0)));
        l.b.set(Scalar::U32, Ir::from(buckets).to(Scalar::U32))
    }

    /// Finds the bucket of each row.
    fn classify(&self, l: &mut Lowering<'_>, areas: &Areas) -> Lowered<()> {
        let rows = self.rows_here(l, false)?;
        let buckets = self.buckets(l, areas);
        let comparable = self.comparable(l);
        let bases = [areas.splitters, areas.counts, areas.bucket_of].map(|region| l.base(region));
        let [splitters, counts, bucket_of] = bases;
        let group = l.target.group;
        let b = &mut l.b;
        let words = b.local(Elem::U64, areas.most);
        let numbers = b.local(Elem::U32, areas.most);
        let tally = b.local(Elem::U32, areas.most);
        b.range(Scalar::U32, Ir::LocalIndex, buckets.into(), u32(group), |b, index| {
            b.push(Stmt::StoreLocal(tally, index.into(), u32(0)));
            b.when(Ir::from(index).plus(u32(1)).lt(buckets.into()), |b| {
                let row = b.load(place(Elem::U32, splitters.clone(), index.into()));
                b.push(Stmt::StoreLocal(numbers, index.into(), row.into()));
                let word = comparable.first_word(row.into());
                b.push(Stmt::StoreLocal(words, index.into(), word));
            });
        });
        b.push(Stmt::Barrier);
        all_rows(b, group, rows, |b, row| {
            let word = b.set(Scalar::U64, comparable.first_word(row.clone()));
            let low = b.set(Scalar::U32, u32(0));
            let high = b.set(Scalar::U32, Ir::from(buckets).minus(u32(1)));
            b.repeat(|b| {
                b.when(Ir::from(low).ge(high.into()), |b| b.push(Stmt::Break));
                let middle = b.set(Scalar::U32, Ir::from(low).plus(high.into()).shr(u32(1)));
                let other = Ir::LoadLocal(words, Box::new(middle.into()));
                let other = b.set(Scalar::U64, other);
                let number = Ir::LoadLocal(numbers, Box::new(middle.into()));
                let before = comparable.comes_before(b, (word.into(), row.clone()), (other.into(), number));
                b.assign(high, Ir::from(before).select(middle.into(), high.into()));
                b.assign(low, Ir::from(before).select(low.into(), Ir::from(middle).plus(u32(1))));
            });
            b.store(place(Elem::U16, bucket_of, row), low.into());
            b.atomic(Target::Local(tally, low.into()), Atomic::Add(u32(1)));
        });
        b.push(Stmt::Barrier);
        b.range(Scalar::U32, Ir::LocalIndex, buckets.into(), u32(group), |b, index| {
            let rows = b.set(Scalar::U32, Ir::LoadLocal(tally, Box::new(index.into())));
            b.when(Ir::from(rows).ne(u32(0)), |b| {
                b.atomic(
                    Target::Arena(place(Elem::U32, counts, index.into())),
                    Atomic::Add(rows.into()),
                );
            });
        });
        Ok(())
    }

    /// Puts the rows' numbers in order of their buckets.
    fn scatter(&self, l: &mut Lowering<'_>, areas: &Areas) -> Lowered<()> {
        let rows = self.rows_here(l, false)?;
        let buckets = self.buckets(l, areas);
        let bases = [
            areas.counts,
            areas.begins,
            areas.filled,
            areas.bucket_of,
            self.numbers[0],
        ];
        let [counts, begins, filled, bucket_of, numbers] = bases.map(|region| l.base(region));
        let group = l.target.group;
        let b = &mut l.b;
        let starts = b.local(Elem::U32, areas.most);
        b.range(Scalar::U32, Ir::LocalIndex, u32(areas.most), u32(group), |b, index| {
            let rows = b.load(place(Elem::U32, counts.clone(), index.into()));
            b.push(Stmt::StoreLocal(starts, index.into(), rows.into()));
        });
        b.push(Stmt::Barrier);
        scan(b, group, (starts, areas.most));
        b.when(Ir::GroupIndex.eq(u32(0)), |b| {
            b.range(Scalar::U32, Ir::LocalIndex, buckets.into(), u32(group), |b, index| {
                let start = Ir::LoadLocal(starts, Box::new(index.into()));
                b.store(place(Elem::U32, begins.clone(), index.into()), start);
            });
            b.when(Ir::LocalIndex.eq(u32(0)), |b| {
                b.store(place(Elem::U32, begins, buckets.into()), rows.clone());
            });
        });
        all_rows(b, group, rows, |b, row| {
            let bucket = b.load(place(Elem::U16, bucket_of, row.clone()));
            let target = Target::Arena(place(Elem::U32, filled, bucket.into()));
            let ahead = b.fetch(Scalar::U32, target, Atomic::Add(u32(1)));
            let start = Ir::LoadLocal(starts, Box::new(bucket.into()));
            b.store(place(Elem::U32, numbers, start.plus(ahead.into())), row);
        });
        Ok(())
    }

    fn sort_buckets(&self, l: &mut Lowering<'_>, areas: &Areas) -> Lowered<()> {
        let buckets = self.buckets(l, areas);
        let begins = l.base(areas.begins);
        let local = Scratch::new(l);
        let comparable = self.comparable(l);
        let last = l.word(Word::Value(self.limits.offset.saturating_add(self.limits.most)));
        l.range(
            Scalar::U32,
            (Ir::GroupIndex, buckets.into(), Ir::Groups),
            |l, bucket| {
                let begin = l.b.load(place(Elem::U32, begins.clone(), bucket.clone()));
                let end = l.b.load(place(Elem::U32, begins, bucket.plus(u32(1))));
                let some = Ir::from(begin).to(Scalar::U64).lt(last);
                let rows = some.select(Ir::from(end).minus(begin.into()), u32(0));
                let rows = l.b.set(Scalar::U32, rows);
                self.sort_and_write(l, (&comparable, &local), false, (begin.into(), rows.into()))
            },
        )
    }
}

/// Row numbers 0 … `rows`, shared out among all work-items.
fn all_rows(b: &mut Builder, group: u32, rows: Ir, inside: impl FnOnce(&mut Builder, Ir)) {
    let first = Ir::GroupIndex.times(u32(group)).plus(Ir::LocalIndex);
    let step = Ir::Groups.times(u32(group));
    b.range(Scalar::U32, first, rows, step, |b, row| inside(b, row.into()));
}

/// Replaces each of `count` numbers by the sum of those before it. Uniform code, with a barrier at its end.
fn scan(b: &mut Builder, group: u32, (numbers, count): (LocalId, u32)) {
    let items = count.div_ceil(group);
    let sums = b.local(Elem::U32, group);
    let first = b.set(Scalar::U32, Ir::LocalIndex.times(u32(items)));
    let number = |at: Ir| Ir::LoadLocal(numbers, Box::new(at));
    let sum_at = |at: Ir| Ir::LoadLocal(sums, Box::new(at));
    let own = b.set(Scalar::U32, u32(0));
    let last = b.set(Scalar::U32, Ir::from(first).plus(u32(items)).min(u32(count)));
    b.range(Scalar::U32, first.into(), last.into(), u32(1), |b, at| {
        b.assign(own, Ir::from(own).plus(number(at.into())));
    });
    b.push(Stmt::StoreLocal(sums, Ir::LocalIndex, own.into()));
    b.push(Stmt::Barrier);
    let distance = b.set(Scalar::U32, u32(1));
    b.repeat(|b| {
        b.when(Ir::from(distance).ge(u32(group)), |b| b.push(Stmt::Break));
        let other = b.set(Scalar::U32, u32(0));
        b.when(Ir::LocalIndex.ge(distance.into()), |b| {
            b.assign(other, sum_at(Ir::LocalIndex.minus(distance.into())));
        });
        b.push(Stmt::Barrier);
        let sum = sum_at(Ir::LocalIndex).plus(other.into());
        b.push(Stmt::StoreLocal(sums, Ir::LocalIndex, sum));
        b.push(Stmt::Barrier);
        b.assign(distance, Ir::from(distance).shl(u32(1)));
    });
    let before = b.set(Scalar::U32, sum_at(Ir::LocalIndex).minus(own.into()));
    b.range(Scalar::U32, first.into(), last.into(), u32(1), |b, at| {
        let here = b.set(Scalar::U32, number(at.into()));
        b.push(Stmt::StoreLocal(numbers, at.into(), before.into()));
        b.assign(before, Ir::from(before).plus(here.into()));
    });
    b.push(Stmt::Barrier);
}
