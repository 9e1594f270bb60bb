//! Expressions as text, with no more parentheses than a reader wants, and with the types that C would not give them.
//!
//! Sums, products and shifts of signed integers are computed unsigned. Their text stays unsigned ([`Text::raw`]) while only
//! such operators follow, and is cast back where the sign matters.

use super::body::Writer;
use crate::ir::{Binary, Compare, Const, Elem, Expr, Place, Scalar, Unary};

/// How tightly a text binds: what it may stand in without parentheses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Comparisons, bits, shifts, selects: parentheses everywhere.
    Loose,
    Sum,
    Product,
    /// Casts and signs.
    Prefix,
    /// Names, calls.
    Atom,
}

/// An expression's text.
pub(super) struct Text {
    text: String,
    scalar: Scalar,
    level: Level,
    /// Of I32 and I64: the text has the unsigned type of the same width.
    raw: bool,
}

impl Text {
    fn new(scalar: Scalar, level: Level, text: String) -> Self {
        Self {
            text,
            scalar,
            level,
            raw: false,
        }
    }

    fn atom(scalar: Scalar, text: String) -> Self {
        Self::new(scalar, Level::Atom, text)
    }

    /// Its text where operators of `level` surround it.
    fn within(self, level: Level) -> String {
        if self.level < level {
            format!("({})", self.text)
        } else {
            self.text
        }
    }

    /// With the C type of its scalar.
    fn exact(self) -> Self {
        if !self.raw {
            return self;
        }
        let scalar = self.scalar;
        Self::new(
            scalar,
            Level::Prefix,
            format!("({}){}", name(scalar), self.within(Level::Prefix)),
        )
    }

    /// With the unsigned C type where its scalar is a signed integer.
    fn unsigned(self) -> Self {
        let unsigned = match self.scalar {
            _ if self.raw => return self,
            Scalar::I32 => Scalar::U32,
            Scalar::I64 => Scalar::U64,
            _ => return self,
        };
        let scalar = self.scalar;
        let operand = self.within(Level::Prefix);
        // The cast of a literal gives way to this one.
        let literal = operand
            .strip_prefix("(i64)")
            .filter(|digits| digits.starts_with(|c: char| c == '-' || c.is_ascii_digit()));
        let text = format!("({}){}", name(unsigned), literal.unwrap_or(&operand));
        Self {
            text,
            scalar,
            level: Level::Prefix,
            raw: true,
        }
    }
}

/// The C type of a register.
pub(super) fn name(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::Bool => "bool",
        Scalar::I32 => "i32",
        Scalar::U32 => "u32",
        Scalar::I64 => "i64",
        Scalar::U64 => "u64",
        Scalar::I128 => "i128",
        Scalar::F32 => "f32",
        Scalar::F64 => "f64",
    }
}

/// The C type of an element.
pub(super) fn elem_name(elem: Elem) -> &'static str {
    match elem {
        Elem::I8 => "i8",
        Elem::U8 => "u8",
        Elem::I16 => "i16",
        Elem::U16 => "u16",
        other => name(other.scalar()),
    }
}

impl Writer<'_> {
    /// The text, of the scalar's C type.
    pub(super) fn text(&mut self, expr: &Expr) -> String {
        self.expr(expr).exact().text
    }

    fn expr(&mut self, expr: &Expr) -> Text {
        match expr {
            Expr::Var(var) => {
                let scalar = self.vars[var.0 as usize];
                self.need_type(scalar);
                Text::atom(scalar, format!("v{}", var.0))
            }
            Expr::Const(value) => self.constant(*value),
            Expr::Word(word) => {
                self.words.insert(*word);
                Text::atom(Scalar::U64, format!("w{word}"))
            }
            Expr::Load { place, constant } => self.load(place, *constant),
            Expr::LoadLocal(local, index) => {
                let elem = self.locals[local.0 as usize].elem;
                let text = format!("l{}[{}]", local.0, self.text(index));
                widened(elem, text)
            }
            Expr::Unary(operator, operand) => self.unary(*operator, operand),
            Expr::Binary(operator, left, right) => self.binary(*operator, left, right),
            Expr::Compare(operator, left, right) => self.compare(*operator, left, right),
            Expr::Select(condition, first, second) => {
                let condition = self.expr(condition).within(Level::Prefix);
                let first = self.expr(first).exact();
                let second = self.expr(second).exact();
                let scalar = first.scalar;
                let text = format!(
                    "{condition} ? {} : {}",
                    first.within(Level::Sum),
                    second.within(Level::Sum)
                );
                Text::new(scalar, Level::Loose, text)
            }
            Expr::Convert(scalar, operand) => self.convert(*scalar, operand),
            Expr::Bits(scalar, operand) => self.bits(*scalar, operand),
            Expr::Call(function, args) => {
                let function = &self.module.functions[function.0 as usize];
                let mut text = format!("fn_{}(arena", function.name);
                for arg in args {
                    text = text + ", " + &self.text(arg);
                }
                Text::atom(function.result, text + ")")
            }
            Expr::LocalIndex => Text::atom(Scalar::U32, "LOCAL_INDEX".to_owned()),
            Expr::GroupIndex => Text::atom(Scalar::U32, "GROUP_INDEX".to_owned()),
            Expr::Groups => Text::atom(Scalar::U32, "GROUPS".to_owned()),
        }
    }

    fn constant(&mut self, value: Const) -> Text {
        let scalar = value.scalar();
        let signed = |negative: bool| if negative { Level::Prefix } else { Level::Atom };
        match value {
            Const::Bool(value) => Text::atom(scalar, value.to_string()),
            Const::I32(i32::MIN) => Text::new(scalar, Level::Prefix, "(i32)0x80000000".to_owned()),
            Const::I32(value) => Text::new(scalar, signed(value < 0), value.to_string()),
            Const::U32(value) => Text::atom(scalar, format!("{value}u")),
            Const::I64(i64::MIN) => Text::new(scalar, Level::Prefix, "(i64)0x8000000000000000".to_owned()),
            Const::I64(value) => Text::new(scalar, Level::Prefix, format!("(i64){value}")),
            Const::U64(value) if value > u64::from(u32::MAX) => {
                Text::new(scalar, Level::Prefix, format!("(u64){value:#x}"))
            }
            Const::U64(value) => Text::new(scalar, Level::Prefix, format!("(u64){value}")),
            Const::I128(value) => {
                self.pieces.need("wide");
                match (i64::try_from(value), u64::try_from(value)) {
                    (_, Ok(value)) => Text::atom(scalar, format!("wide_u64({value:#x})")),
                    (Ok(value), _) if value > i64::MIN => Text::atom(scalar, format!("wide_i64({value})")),
                    _ => Text::atom(
                        scalar,
                        format!(
                            "wide({:#x}, {:#x})",
                            value >> 64 & i128::from(u64::MAX),
                            value & i128::from(u64::MAX)
                        ),
                    ),
                }
            }
            // The shortest digits of the same double: one rounding gives the float back.
            Const::F32(value) if value.is_finite() => Text::new(
                scalar,
                signed(value.is_sign_negative()),
                format!("{:?}f", f64::from(value)),
            ),
            Const::F64(value) if value.is_finite() => {
                Text::new(scalar, signed(value.is_sign_negative()), format!("{value:?}"))
            }
            Const::F32(value) => {
                self.pieces.need("bits");
                Text::atom(scalar, format!("as_f32({:#x}u)", value.to_bits()))
            }
            Const::F64(value) => {
                self.pieces.need("bits");
                Text::atom(scalar, format!("as_f64((u64){:#x})", value.to_bits()))
            }
        }
    }

    /// A pointer to an element.
    pub(super) fn at(&mut self, place: &Place) -> String {
        format!("AT({})", self.place(place))
    }

    /// Type, base and index.
    pub(super) fn place(&mut self, place: &Place) -> String {
        self.need_type(place.elem.scalar());
        format!(
            "{}, {}, {}",
            elem_name(place.elem),
            self.text(&place.base),
            self.text(&place.index)
        )
    }

    fn load(&mut self, place: &Place, constant: bool) -> Text {
        if constant && place.elem == Elem::I128 {
            self.pieces.need("wide_load");
            let (base, index) = (self.text(&place.base), self.text(&place.index));
            return Text::atom(Scalar::I128, format!("wide_load(arena, {base}, {index})"));
        }
        let load = if constant { "LOAD_CONSTANT" } else { "LOAD" };
        let text = format!("{load}({})", self.place(place));
        widened(place.elem, text)
    }

    fn unary(&mut self, operator: Unary, operand: &Expr) -> Text {
        let operand = self.expr(operand);
        let scalar = operand.scalar;
        let prefix = |sign: &str, operand: Text, level: Level| Text {
            raw: operand.raw,
            scalar,
            level: Level::Prefix,
            text: sign.to_owned() + &operand.within(level),
        };
        match (operator, scalar) {
            (Unary::Not, _) => prefix("!", operand, Level::Prefix),
            (Unary::Negate, Scalar::I128) => self.call("wide_negate", scalar, [operand]),
            (Unary::Negate, _) => prefix("-", operand.unsigned(), Level::Atom),
            (Unary::Complement, Scalar::I128) => self.call("wide_complement", scalar, [operand]),
            (Unary::Complement, _) => prefix("~", operand, Level::Prefix),
            (Unary::CountOnes, _) => self.call("popcount", scalar, [operand]),
            (Unary::LeadingZeros, _) => self.call("clz", scalar, [operand]),
            (Unary::SquareRoot, Scalar::F32) => self.call("sqrt_f32", scalar, [operand]),
            (Unary::SquareRoot, _) => self.call("sqrt", scalar, [operand]),
            (Unary::Floor, Scalar::F32) => self.call("floor_f32", scalar, [operand]),
            (Unary::Floor, _) => self.call("floor_f64", scalar, [operand]),
            (Unary::High, _) => {
                let text = format!("(i64){}.hi", operand.within(Level::Atom));
                Text::new(Scalar::I64, Level::Prefix, text)
            }
        }
    }

    fn binary(&mut self, operator: Binary, left: &Expr, right: &Expr) -> Text {
        if let Some(other) = without_neutral(operator, left, right) {
            return self.expr(other);
        }
        let (left, right) = (self.expr(left), self.expr(right));
        let scalar = left.scalar;
        if scalar == Scalar::I128 {
            return self.wide(operator, left, right);
        }
        let (word, level, modular) = match operator {
            Binary::Add => ("+", Level::Sum, true),
            Binary::Subtract => ("-", Level::Sum, true),
            Binary::Multiply => ("*", Level::Product, true),
            Binary::Divide if scalar == Scalar::F32 => return self.call("divide_f32", scalar, [left, right]),
            Binary::Divide => ("/", Level::Product, false),
            Binary::Remainder if matches!(scalar, Scalar::F32 | Scalar::F64) => {
                return self.call("fmod", scalar, [left, right]);
            }
            Binary::Remainder => ("%", Level::Product, false),
            Binary::And => ("&", Level::Loose, false),
            Binary::Or => ("|", Level::Loose, false),
            Binary::Xor => ("^", Level::Loose, false),
            Binary::ShiftLeft => {
                let right = right.exact().within(Level::Prefix);
                let left = left.unsigned();
                let raw = left.raw;
                let text = format!("{} << {right}", left.within(Level::Prefix));
                return Text {
                    raw,
                    scalar,
                    level: Level::Loose,
                    text,
                };
            }
            Binary::ShiftRight => (">>", Level::Loose, false),
            Binary::Min => return self.call("min", scalar, [left, right]),
            Binary::Max => return self.call("max", scalar, [left, right]),
            Binary::MultiplyHigh => return self.call("mul_hi", scalar, [left, right]),
        };
        let (left, right) = if modular {
            (left.unsigned(), right.unsigned())
        } else {
            (left.exact(), right.exact())
        };
        let raw = left.raw;
        let (before, after) = match level {
            Level::Sum => (Level::Sum, Level::Product),
            Level::Product => (Level::Product, Level::Prefix),
            _ => (Level::Prefix, Level::Prefix),
        };
        let text = format!("{} {word} {}", left.within(before), right.within(after));
        Text {
            raw,
            scalar,
            level,
            text,
        }
    }

    fn wide(&mut self, operator: Binary, left: Text, right: Text) -> Text {
        let function = match operator {
            Binary::Add => "wide_add",
            Binary::Subtract => "wide_subtract",
            Binary::Multiply => "wide_multiply",
            Binary::Divide => "wide_divide",
            Binary::Remainder => "wide_remainder",
            Binary::And => "wide_and",
            Binary::Or => "wide_or",
            Binary::Xor => "wide_xor",
            Binary::Min => "wide_min",
            Binary::Max => "wide_max",
            // The language has none of these: the compiler will say so.
            Binary::ShiftLeft | Binary::ShiftRight | Binary::MultiplyHigh => "wide_none",
        };
        self.call(function, Scalar::I128, [left, right])
    }

    fn compare(&mut self, operator: Compare, left: &Expr, right: &Expr) -> Text {
        let (left, right) = (self.expr(left).exact(), self.expr(right).exact());
        if left.scalar == Scalar::I128 {
            return match operator {
                Compare::Equal => self.call("wide_equal", Scalar::Bool, [left, right]),
                Compare::NotEqual => negated(self.call("wide_equal", Scalar::Bool, [left, right])),
                Compare::Less => self.call("wide_less", Scalar::Bool, [left, right]),
                Compare::Greater => self.call("wide_less", Scalar::Bool, [right, left]),
                Compare::GreaterOrEqual => negated(self.call("wide_less", Scalar::Bool, [left, right])),
                Compare::LessOrEqual => negated(self.call("wide_less", Scalar::Bool, [right, left])),
            };
        }
        let word = match operator {
            Compare::Equal => "==",
            Compare::NotEqual => "!=",
            Compare::Less => "<",
            Compare::LessOrEqual => "<=",
            Compare::Greater => ">",
            Compare::GreaterOrEqual => ">=",
        };
        let text = format!("{} {word} {}", left.within(Level::Sum), right.within(Level::Sum));
        Text::new(Scalar::Bool, Level::Loose, text)
    }

    fn convert(&mut self, to: Scalar, operand: &Expr) -> Text {
        let operand = self.expr(operand).exact();
        let from = operand.scalar;
        if from == to {
            return operand;
        }
        let cast =
            |scalar: Scalar, operand: String| Text::new(scalar, Level::Prefix, format!("({}){operand}", name(scalar)));
        match (from, to) {
            (Scalar::Bool | Scalar::U32 | Scalar::U64, Scalar::I128) => {
                self.pieces.need("wide");
                Text::atom(to, format!("wide_u64({})", operand.text))
            }
            (Scalar::I32 | Scalar::I64, Scalar::I128) => {
                self.pieces.need("wide");
                Text::atom(to, format!("wide_i64({})", operand.text))
            }
            (_, Scalar::I128) => self.call("wide_f64", to, [operand]),
            (Scalar::I128, Scalar::F32) => self.call("wide_to_f32", to, [operand]),
            (Scalar::I128, Scalar::F64) => self.call("wide_to_f64", to, [operand]),
            (Scalar::I128, Scalar::Bool) => {
                let zero = Text::atom(from, "wide_u64(0)".to_owned());
                negated(self.call("wide_equal", Scalar::Bool, [operand, zero]))
            }
            (Scalar::I128, Scalar::U64) => Text::atom(to, operand.within(Level::Atom) + ".lo"),
            (Scalar::I128, _) => cast(to, operand.within(Level::Atom) + ".lo"),
            (_, Scalar::Bool) => Text::new(to, Level::Loose, operand.within(Level::Sum) + " != 0"),
            _ => cast(to, operand.within(Level::Prefix)),
        }
    }

    fn bits(&mut self, to: Scalar, operand: &Expr) -> Text {
        let operand = self.expr(operand).exact();
        match to {
            Scalar::F32 | Scalar::F64 | Scalar::U32 | Scalar::U64
                if matches!(operand.scalar, Scalar::F32 | Scalar::F64) || matches!(to, Scalar::F32 | Scalar::F64) =>
            {
                self.pieces.need("bits");
                Text::atom(to, format!("as_{}({})", name(to), operand.text))
            }
            _ => Text::new(
                to,
                Level::Prefix,
                format!("({}){}", name(to), operand.within(Level::Prefix)),
            ),
        }
    }

    /// A call of a function of the prelude or of the dialect.
    fn call<const N: usize>(&mut self, function: &'static str, scalar: Scalar, args: [Text; N]) -> Text {
        self.pieces.need(function);
        let args: Vec<String> = args.into_iter().map(|arg| arg.exact().text).collect();
        Text::atom(scalar, format!("{function}({})", args.join(", ")))
    }
}

/// The other operand, where one changes nothing. Not of floats, whose zeros have signs.
fn without_neutral<'e>(operator: Binary, left: &'e Expr, right: &'e Expr) -> Option<&'e Expr> {
    let zero = |expr: &Expr| {
        use Const::{Bool, I32, I64, I128, U32, U64};
        matches!(
            expr,
            Expr::Const(Bool(false) | I32(0) | U32(0) | I64(0) | U64(0) | I128(0))
        )
    };
    let is_true = |expr: &Expr| matches!(expr, Expr::Const(Const::Bool(true)));
    match operator {
        Binary::Add | Binary::Or | Binary::Xor if zero(left) => Some(right),
        Binary::Add | Binary::Subtract | Binary::Or | Binary::Xor | Binary::ShiftLeft | Binary::ShiftRight
            if zero(right) =>
        {
            Some(left)
        }
        Binary::And if is_true(left) => Some(right),
        Binary::And if is_true(right) => Some(left),
        _ => None,
    }
}

fn negated(text: Text) -> Text {
    Text::new(
        Scalar::Bool,
        Level::Prefix,
        "!".to_owned() + &text.within(Level::Prefix),
    )
}

/// A loaded element as its scalar; C would compute with `int` where it is narrower.
fn widened(elem: Elem, text: String) -> Text {
    let scalar = elem.scalar();
    if elem.bytes() < 4 {
        Text::new(scalar, Level::Prefix, format!("({}){text}", name(scalar)))
    } else {
        Text::atom(scalar, text)
    }
}
