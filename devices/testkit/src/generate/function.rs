//! Calls of the contract's functions over texts.

use rand::Rng;
use rand::seq::IndexedRandom;
use trireme_device_api::{Expr, FUNCTIONS, Function, Type, Value};

use super::data::{Flavor, value};
use super::expr::Expressions;

/// The types that a function's arguments may have, when its first has this one.
pub fn argument_types(function: Function, text: &Type) -> Vec<Vec<Type>> {
    let text = || text.clone();
    let others = [Type::Int64, text()];
    let mut lists = vec![vec![text()]];
    for one in &others {
        lists.push(vec![text(), one.clone()]);
        for two in &others {
            lists.push(vec![text(), one.clone(), two.clone()]);
        }
    }
    lists.retain(|types| (function.descriptor().result)(types).is_some());
    lists
}

impl Expressions<'_> {
    /// A call of some function with this result over texts of this type; none when there is no such function.
    pub(super) fn function(&mut self, text: &Type, wanted: &Type, depth: usize) -> Option<Expr> {
        let calls: Vec<(Function, Vec<Type>)> = FUNCTIONS
            .iter()
            .flat_map(|descriptor| {
                let lists = argument_types(descriptor.function, text).into_iter();
                lists.map(move |types| (descriptor, types))
            })
            .filter(|(descriptor, types)| (descriptor.result)(types).as_ref() == Some(wanted))
            .map(|(descriptor, types)| (descriptor.function, types))
            .collect();
        let (function, types) = calls.choose(self.rng)?.clone();
        let args = types.iter().enumerate().map(|(position, data_type)| match data_type {
            _ if position == 0 => self.expr(text, depth - 1),
            Type::Int64 => self.count(),
            _ if self.rng.random_bool(0.3) => self.expr(text, depth - 1),
            _ => self.part(text),
        });
        let args = args.collect();
        Some(Expr::call(function, args, wanted.clone()))
    }

    /// A position or length: mostly a small constant that no function refuses.
    fn count(&mut self) -> Expr {
        match self.rng.random_range(0..20) {
            0 | 1 => self.leaf(&Type::Int64),
            2 => Expr::literal(Value::Int(self.rng.random_range(-4..1)), Type::Int64),
            _ => Expr::literal(Value::Int(self.rng.random_range(0..9)), Type::Int64),
        }
    }

    /// A piece of some usual text.
    fn part(&mut self, text: &Type) -> Expr {
        let Value::Bytes(usual) = value(text, Flavor::Small, self.rng) else {
            return Expr::literal(Value::Null, text.clone());
        };
        let usual = String::from_utf8_lossy(&usual).into_owned();
        let first = self.rng.random_range(0..3);
        let count = self.rng.random_range(0..4);
        let piece: String = usual.chars().skip(first).take(count).collect();
        Expr::literal(Value::Bytes(piece.as_bytes().into()), text.clone())
    }
}
