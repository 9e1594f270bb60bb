//! Expressions of rows: modules that compute them, and what they must give.

use rand::Rng;
use rand::rngs::StdRng;
use trireme_device_codegen::build::{Builder, place, u32};
use trireme_device_codegen::ir::{Binary, Const, Expr, Module, Scalar, Unary, Var};

use crate::values::{self, BINARY, COMPARE, SCALARS, UNARY};

/// Work-items of a group.
pub(crate) const GROUP: u32 = 64;

/// A kernel that computes expressions of one row per work-item, and what it needs.
pub(crate) struct Rows {
    pub(crate) module: Module,
    /// Input columns: a type and a value per row.
    pub(crate) inputs: Vec<(Scalar, Vec<Const>)>,
    /// Expressions over [`Expr::Var`], which is the input column of that position.
    pub(crate) outputs: Vec<(Scalar, Expr)>,
}

/// Words: inputs, then outputs.
fn word(position: usize) -> Expr {
    Expr::Word(u32::try_from(position).expect("few"))
}

impl Rows {
    pub(crate) fn new(inputs: Vec<(Scalar, Vec<Const>)>, outputs: Vec<(Scalar, Expr)>) -> Self {
        let mut b = Builder::new();
        let row = || {
            Expr::GroupIndex
                .times(u32(GROUP))
                .plus(Expr::LocalIndex)
                .to(Scalar::U64)
        };
        for (position, (scalar, _)) in inputs.iter().enumerate() {
            let place = place(values::elem(*scalar), word(position), row());
            let load = Expr::Load {
                place,
                constant: position % 2 == 0,
            };
            let load = if *scalar == Scalar::Bool { load.ne(u32(0)) } else { load };
            b.set(*scalar, load);
        }
        for (position, (scalar, expr)) in outputs.iter().enumerate() {
            let expr = if *scalar == Scalar::Bool {
                expr.clone().to(Scalar::U32)
            } else {
                expr.clone()
            };
            b.store(place(values::elem(*scalar), word(inputs.len() + position), row()), expr);
        }
        let words = u32::try_from(inputs.len() + outputs.len()).expect("few");
        let module = Module {
            group: GROUP,
            functions: Vec::new(),
            kernels: vec![b.kernel("rows", words)],
        };
        Self {
            module,
            inputs,
            outputs,
        }
    }

    fn rows(&self) -> usize {
        self.inputs[0].1.len()
    }

    /// The arena, with the block at its start, and where each output lies.
    pub(crate) fn arena(&self) -> (Vec<u8>, Vec<usize>) {
        let columns = self.inputs.len() + self.outputs.len();
        let mut arena = vec![0_u8; (columns * 8).next_multiple_of(64)];
        let mut outputs = Vec::new();
        for position in 0..columns {
            let at = arena.len().next_multiple_of(64);
            arena.resize(at, 0);
            arena[position * 8..][..8].copy_from_slice(&(at as u64).to_le_bytes());
            if let Some((_, column)) = self.inputs.get(position) {
                column.iter().for_each(|value| arena.extend(values::bytes(*value)));
            } else {
                outputs.push(at);
                arena.resize(at + self.rows() * 16, 0xcc);
            }
        }
        (arena, outputs)
    }

    /// Groups that cover all rows.
    pub(crate) fn groups(&self) -> u32 {
        u32::try_from(self.rows()).expect("few") / GROUP
    }

    /// Compares what a run left.
    pub(crate) fn check(&self, arena: &[u8], outputs: &[usize], about: &str) {
        for ((scalar, expr), at) in self.outputs.iter().zip(outputs) {
            let bytes = values::elem(*scalar).bytes() as usize;
            for row in 0..self.rows() {
                let inputs: Vec<Const> = self.inputs.iter().map(|(_, column)| column[row]).collect();
                let got = values::read(*scalar, &arena[at + row * bytes..]);
                let expected = evaluate(expr, &inputs);
                assert!(
                    values::same(got, expected),
                    "{about}: {expr:?}\nof {inputs:?}\ngave {got:?}, expected {expected:?}"
                );
            }
        }
    }
}

/// In Rust's own arithmetic.
fn evaluate(expr: &Expr, inputs: &[Const]) -> Const {
    let of = |expr: &Expr| evaluate(expr, inputs);
    match expr {
        Expr::Var(var) => inputs[var.0 as usize],
        Expr::Const(value) => *value,
        Expr::Unary(operator, a) => values::unary(*operator, of(a)),
        Expr::Binary(operator, a, b) => values::binary(*operator, of(a), of(b)),
        Expr::Compare(operator, a, b) => values::compare(*operator, of(a), of(b)),
        Expr::Select(condition, a, b) => {
            if of(condition) == Const::Bool(true) {
                of(a)
            } else {
                of(b)
            }
        }
        Expr::Convert(scalar, a) => values::convert(*scalar, of(a)),
        Expr::Bits(scalar, a) => {
            let bytes = [values::bytes(of(a)), vec![0; 8]].concat();
            values::read(*scalar, &bytes)
        }
        other => panic!("{other:?} is not of rows"),
    }
}

fn int(scalar: Scalar, value: i64) -> Expr {
    Expr::Const(values::convert(scalar, Const::I64(value)))
}

fn minimum(scalar: Scalar) -> Option<Expr> {
    Some(Expr::Const(match scalar {
        Scalar::I32 => Const::I32(i32::MIN),
        Scalar::I64 => Const::I64(i64::MIN),
        Scalar::I128 => Const::I128(i128::MIN),
        _ => return None,
    }))
}

fn bits(scalar: Scalar) -> i64 {
    if matches!(scalar, Scalar::I32 | Scalar::U32) {
        32
    } else {
        64
    }
}

/// The operator where its rules allow it, of something near where they don't.
fn guarded(operator: Binary, scalar: Scalar, a: Expr, b: Expr) -> Expr {
    let b = match operator {
        Binary::ShiftLeft | Binary::ShiftRight => b.and(int(scalar, bits(scalar) - 1)),
        Binary::Divide | Binary::Remainder if !matches!(scalar, Scalar::F32 | Scalar::F64) => {
            let zero = b.clone().eq(int(scalar, 0));
            let bad = match minimum(scalar) {
                Some(minimum) => zero.or(a.clone().eq(minimum).and(b.clone().eq(int(scalar, -1)))),
                None => zero,
            };
            bad.select(int(scalar, 3), b)
        }
        _ => b,
    };
    Expr::Binary(operator, Box::new(a), Box::new(b))
}

/// Likewise: floats become integers only inside of their range.
fn converted(from: Scalar, to: Scalar, a: Expr) -> Option<Expr> {
    let float = |value: f64| {
        Expr::Const(if from == Scalar::F32 {
            Const::F32(value as f32)
        } else {
            Const::F64(value)
        })
    };
    // The largest float of the type that is inside; `f32` has 24 bits.
    let inside = |low: f64, high: f64| {
        let below = if from == Scalar::F32 {
            f64::from((high as f32).next_down())
        } else {
            high.next_down()
        };
        let good = a.clone().ge(float(low)).and(a.clone().le(float(below)));
        good.select(a.clone(), float(2.75)).to(to)
    };
    let two = 2.0_f64;
    if !matches!(from, Scalar::F32 | Scalar::F64) || matches!(to, Scalar::F32 | Scalar::F64) {
        return (to != Scalar::Bool && !(from == Scalar::Bool && matches!(to, Scalar::F32 | Scalar::F64)))
            .then(|| a.to(to));
    }
    Some(match to {
        Scalar::I32 => inside(-two.powi(31), two.powi(31)),
        Scalar::U32 => inside(0.0, two.powi(32)),
        Scalar::I64 => inside(-two.powi(63), two.powi(63)),
        Scalar::U64 => inside(0.0, two.powi(64)),
        Scalar::I128 => inside(-two.powi(127), two.powi(127)),
        _ => return None,
    })
}

fn same_bits(scalar: Scalar) -> Option<Scalar> {
    Some(match scalar {
        Scalar::F32 => Scalar::U32,
        Scalar::U32 => Scalar::F32,
        Scalar::F64 => Scalar::U64,
        Scalar::U64 => Scalar::F64,
        _ => return None,
    })
}

/// Every operator of a type, of all pairs of its edges and of random ones.
pub(crate) fn operators(scalar: Scalar, rng: &mut StdRng) -> Rows {
    let edges = values::edges(scalar);
    let mut pairs: Vec<(Const, Const)> = edges.iter().flat_map(|a| edges.iter().map(move |b| (*a, *b))).collect();
    while pairs.len() < 1024 {
        pairs.push((values::random(rng, scalar), values::random(rng, scalar)));
    }
    let (left, right): (Vec<Const>, Vec<Const>) = pairs.into_iter().unzip();
    let a = || Expr::Var(Var(0));
    let b = || Expr::Var(Var(1));
    let mut outputs = Vec::new();
    for operator in UNARY
        .into_iter()
        .filter(|operator| values::has_unary(*operator, scalar))
    {
        let result = values::result(operator, scalar);
        outputs.push((result, Expr::Unary(operator, Box::new(a()))));
    }
    for operator in BINARY
        .into_iter()
        .filter(|operator| values::has_binary(*operator, scalar))
    {
        outputs.push((scalar, guarded(operator, scalar, a(), b())));
    }
    for operator in COMPARE
        .into_iter()
        .filter(|operator| values::has_compare(*operator, scalar))
    {
        outputs.push((Scalar::Bool, Expr::Compare(operator, Box::new(a()), Box::new(b()))));
    }
    for to in SCALARS {
        outputs.extend(converted(scalar, to, a()).map(|expr| (to, expr)));
    }
    outputs.extend(same_bits(scalar).map(|to| (to, a().bits(to))));
    outputs.push((scalar, a().ne(b()).select(b(), a())));
    Rows::new(vec![(scalar, left), (scalar, right)], outputs)
}

/// Every operator of a float type, of edges that the compiler knows.
pub(crate) fn known_floats(scalar: Scalar) -> Rows {
    let edges = values::edges(scalar);
    let known = |value: &Const| Expr::Const(*value);
    let mut outputs = Vec::new();
    for operator in UNARY {
        if values::has_unary(operator, scalar) {
            let of = |a| Expr::Unary(operator, Box::new(known(a)));
            outputs.extend(edges.iter().map(|a| (scalar, of(a))));
        }
    }
    for operator in BINARY {
        if values::has_binary(operator, scalar) {
            let of = |(a, b)| Expr::Binary(operator, Box::new(known(a)), Box::new(known(b)));
            let pairs = edges.iter().zip(edges.iter().cycle().skip(1));
            outputs.extend(pairs.map(|pair| (scalar, of(pair))));
        }
    }
    let input = vec![edges[0]; GROUP as usize];
    Rows::new(vec![(scalar, input)], outputs)
}

/// Random expressions over two columns of each type.
pub(crate) fn expressions(rng: &mut StdRng, count: usize, depth: u32) -> Rows {
    let inputs = SCALARS
        .iter()
        .chain(&SCALARS)
        .map(|scalar| (*scalar, (0..128).map(|_| values::random(rng, *scalar)).collect()))
        .collect();
    let outputs = (0..count)
        .map(|_| {
            let scalar = SCALARS[rng.random_range(0..SCALARS.len())];
            (scalar, expression(rng, scalar, depth))
        })
        .collect();
    Rows::new(inputs, outputs)
}

fn pick<T: Copy>(rng: &mut StdRng, from: &[T], allowed: impl Fn(T) -> bool) -> Option<T> {
    let from: Vec<T> = from.iter().copied().filter(|each| allowed(*each)).collect();
    (!from.is_empty()).then(|| from[rng.random_range(0..from.len())])
}

fn expression(rng: &mut StdRng, scalar: Scalar, depth: u32) -> Expr {
    if depth == 0 || rng.random_range(0..8) == 0 {
        let position = SCALARS.iter().position(|each| *each == scalar).expect("a type");
        let position = u32::try_from(position).expect("few") + 8 * rng.random_range(0..2);
        return match rng.random_range(0..4) {
            0 => Expr::Const(values::random(rng, scalar)),
            _ => Expr::Var(Var(position)),
        };
    }
    let other = SCALARS[rng.random_range(0..SCALARS.len())];
    match rng.random_range(0..8) {
        0 if scalar == Scalar::Bool => {
            let operator = pick(rng, &COMPARE, |operator| values::has_compare(operator, other)).expect("some");
            Expr::Compare(
                operator,
                Box::new(expression(rng, other, depth - 1)),
                Box::new(expression(rng, other, depth - 1)),
            )
        }
        0 | 1 => {
            let a = expression(rng, other, depth - 1);
            converted(other, scalar, a).unwrap_or_else(|| expression(rng, scalar, depth - 1))
        }
        2 if scalar == Scalar::I64 && rng.random() => {
            Expr::Unary(Unary::High, Box::new(expression(rng, Scalar::I128, depth - 1)))
        }
        2 => match pick(rng, &UNARY, |operator| {
            values::has_unary(operator, scalar) && operator != Unary::High
        }) {
            Some(operator) => Expr::Unary(operator, Box::new(expression(rng, scalar, depth - 1))),
            None => expression(rng, scalar, depth - 1),
        },
        3 => {
            let condition = expression(rng, Scalar::Bool, depth - 1);
            condition.select(expression(rng, scalar, depth - 1), expression(rng, scalar, depth - 1))
        }
        4 => match same_bits(scalar) {
            // Which NaN an operation gives is not said.
            Some(from @ (Scalar::F32 | Scalar::F64)) => {
                let float = expression(rng, from, depth - 1);
                let one = if from == Scalar::F32 {
                    Const::F32(1.0)
                } else {
                    Const::F64(1.0)
                };
                float
                    .clone()
                    .eq(float.clone())
                    .select(float, Expr::Const(one))
                    .bits(scalar)
            }
            Some(from) => expression(rng, from, depth - 1).bits(scalar),
            None => expression(rng, scalar, depth - 1),
        },
        _ => {
            let operator = pick(rng, &BINARY, |operator| values::has_binary(operator, scalar)).expect("some");
            guarded(
                operator,
                scalar,
                expression(rng, scalar, depth - 1),
                expression(rng, scalar, depth - 1),
            )
        }
    }
}
