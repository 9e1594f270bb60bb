//! Statements as short text, for people who read violations. The dialects' text is [`crate::print`]'s.

use std::fmt::Write;

use crate::ir::{Atomic, Binary, Compare, Const, Expr, Module, Place, Stmt, Target, Unary};

/// Longer texts are cut.
const CHARACTERS_MAX: usize = 240;

/// A statement, without those inside it.
pub(super) fn statement(stmt: &Stmt, module: &Module) -> String {
    let text = match stmt {
        Stmt::Assign(var, value) => format!("v{} = {}", var.0, expression(value, module)),
        Stmt::Store(to, value) => format!("{} = {}", place(to, module), expression(value, module)),
        Stmt::StoreLocal(local, index, value) => format!(
            "local{}[{}] = {}",
            local.0,
            expression(index, module),
            expression(value, module)
        ),
        Stmt::Atomic { old, target, op } => {
            let old = old.map_or(String::new(), |var| format!("v{} = ", var.0));
            let at = match target {
                Target::Arena(at) => place(at, module),
                Target::Local(local, index) => format!("local{}[{}]", local.0, expression(index, module)),
            };
            format!("{old}atomic {} {at}", change(op, module))
        }
        Stmt::If { condition, .. } => format!("if {}", expression(condition, module)),
        Stmt::Loop(_) => "loop".to_owned(),
        Stmt::Break => "break".to_owned(),
        Stmt::Continue => "continue".to_owned(),
        Stmt::Barrier => "barrier".to_owned(),
        Stmt::Fence => "fence".to_owned(),
        Stmt::Return(value) => format!("return {}", expression(value, module)),
        Stmt::Comment(text) => format!("// {text}"),
    };
    if text.chars().count() <= CHARACTERS_MAX {
        return text;
    }
    let mut cut: String = text.chars().take(CHARACTERS_MAX).collect();
    cut.push('…');
    cut
}

fn change(op: &Atomic, module: &Module) -> String {
    let (name, value) = match op {
        Atomic::Load => return "load".to_owned(),
        Atomic::CompareExchange { expected, value } => {
            return format!(
                "exchange {} for {}",
                expression(expected, module),
                expression(value, module)
            );
        }
        Atomic::Store(value) => ("store", value),
        Atomic::Add(value) => ("add", value),
        Atomic::Min(value) => ("min", value),
        Atomic::Max(value) => ("max", value),
        Atomic::Or(value) => ("or", value),
        Atomic::Exchange(value) => ("exchange", value),
    };
    format!("{name} {}", expression(value, module))
}

fn place(at: &Place, module: &Module) -> String {
    format!(
        "{:?} {}[{}]",
        at.elem,
        expression(&at.base, module),
        expression(&at.index, module)
    )
}

pub(super) fn expression(expr: &Expr, module: &Module) -> String {
    let of = |inner: &Expr| expression(inner, module);
    match expr {
        Expr::Var(var) => format!("v{}", var.0),
        Expr::Const(value) => literal(*value),
        Expr::Word(word) => format!("word{word}"),
        Expr::Load { place: at, constant } => {
            format!("{}{}", if *constant { "constant " } else { "" }, place(at, module))
        }
        Expr::LoadLocal(local, index) => format!("local{}[{}]", local.0, of(index)),
        Expr::Unary(Unary::Not, a) => format!("!{}", of(a)),
        Expr::Unary(Unary::Negate, a) => format!("-{}", of(a)),
        Expr::Unary(op, a) => format!("{op:?}({})", of(a)),
        Expr::Binary(op, a, b) => match symbol(*op) {
            Some(symbol) => format!("({} {symbol} {})", of(a), of(b)),
            None => format!("{op:?}({}, {})", of(a), of(b)),
        },
        Expr::Compare(op, a, b) => format!("({} {} {})", of(a), relation(*op), of(b)),
        Expr::Select(condition, a, b) => format!("({} ? {} : {})", of(condition), of(a), of(b)),
        Expr::Convert(to, a) => format!("{to:?}({})", of(a)),
        Expr::Bits(to, a) => format!("bits {to:?}({})", of(a)),
        Expr::Call(function, arguments) => {
            let name = module.functions.get(function.0 as usize);
            let mut text = name.map_or("?", |function| function.name.as_str()).to_owned();
            text.push('(');
            for (position, argument) in arguments.iter().enumerate() {
                let comma = if position == 0 { "" } else { ", " };
                // Writing to a string never fails.
                let _ = write!(text, "{comma}{}", of(argument));
            }
            text + ")"
        }
        Expr::LocalIndex => "local index".to_owned(),
        Expr::GroupIndex => "group index".to_owned(),
        Expr::Groups => "groups".to_owned(),
    }
}

fn literal(value: Const) -> String {
    match value {
        Const::Bool(value) => value.to_string(),
        Const::I32(value) => value.to_string(),
        Const::U32(value) => value.to_string(),
        Const::I64(value) => value.to_string(),
        Const::U64(value) => value.to_string(),
        Const::I128(value) => value.to_string(),
        Const::F32(value) => format!("{value:?}"),
        Const::F64(value) => format!("{value:?}"),
    }
}

fn symbol(op: Binary) -> Option<&'static str> {
    Some(match op {
        Binary::Add => "+",
        Binary::Subtract => "-",
        Binary::Multiply => "*",
        Binary::Divide => "/",
        Binary::Remainder => "%",
        Binary::And => "&",
        Binary::Or => "|",
        Binary::Xor => "^",
        Binary::ShiftLeft => "<<",
        Binary::ShiftRight => ">>",
        Binary::Min | Binary::Max | Binary::MultiplyHigh => return None,
    })
}

fn relation(op: Compare) -> &'static str {
    match op {
        Compare::Equal => "==",
        Compare::NotEqual => "!=",
        Compare::Less => "<",
        Compare::LessOrEqual => "<=",
        Compare::Greater => ">",
        Compare::GreaterOrEqual => ">=",
    }
}
