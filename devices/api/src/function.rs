//! Scalar functions, one [`Descriptor`] each: the names SQL knows it by, its types, its rule for NULL, which calls may fail, and
//! the reference that every variant's result equals.
//!
//! A new function is an entry here: the lowering finds it by name, the interpreter and the tests run the reference, and a
//! variant without a loop of its own calls the reference row by row. Results are DataFusion's.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::DeviceError;
use crate::expr::{Expr, Node};
use crate::types::{Type, Value};

/// A scalar function of a row's values alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Function {
    /// `substr(text, start [, length])`: characters from the 1-based `start` on; what lies before the first counts as length.
    Substring,
    /// `left(text, n)`: the first n characters, or all but the last −n.
    Left,
    /// `right(text, n)`: the last n characters, or all but the first −n.
    Right,
    /// `character_length(text)`.
    CharacterLength,
    /// `octet_length(text)`.
    OctetLength,
    /// `strpos(text, part)`: the 1-based character where the part begins first, 0 when it isn't there.
    Position,
    /// `starts_with(text, prefix)`.
    StartsWith,
    /// `ends_with(text, suffix)`.
    EndsWith,
    /// `contains(text, part)`.
    Contains,
    /// `upper(text)`, by Unicode.
    Upper,
    /// `lower(text)`, by Unicode.
    Lower,
    /// `btrim(text [, characters])`: without these characters (spaces) at both ends.
    Trim,
    /// `ltrim(text [, characters])`.
    TrimStart,
    /// `rtrim(text [, characters])`.
    TrimEnd,
    /// `concat(text, …)`: skips NULLs, so it is never NULL.
    Concat,
    /// `text || text`.
    Append,
}

/// An argument's value, as references see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument<'v> {
    /// NULL; only functions that are not strict see it.
    Null,
    /// An integer.
    Int(i64),
    /// A string.
    Text(&'v str),
}

/// A result, as references give it.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer<'v> {
    /// A boolean.
    Boolean(bool),
    /// An integer.
    Int(i64),
    /// A string: borrowed when it is a part of an argument.
    Text(Cow<'v, str>),
}

/// A result, or a fault of the values, for people.
pub type Answered<'v> = Result<Answer<'v>, String>;

/// What there is to know of a function.
#[derive(Debug)]
pub struct Descriptor {
    /// The function.
    pub function: Function,
    /// DataFusion's name of it first, then others; operators by their sign.
    pub names: &'static [&'static str],
    /// The result's type for arguments of these types; none when it has no such arguments.
    pub result: fn(&[Type]) -> Option<Type>,
    /// NULL when an argument is NULL, without looking at the others.
    pub strict: bool,
    /// Whether a call may fail, given the arguments that are constant (others are none).
    pub may_fail: fn(&[Option<Value>]) -> bool,
    /// The result for arguments of the right types.
    pub reference: for<'v> fn(&[Argument<'v>]) -> Answered<'v>,
}

/// All functions.
pub static FUNCTIONS: [Descriptor; 16] = [
    entry(Function::Substring, &["substr", "substring"], part_of_text, substring).failing(negative_length),
    entry(Function::Left, &["left"], end_of_text, left),
    entry(Function::Right, &["right"], end_of_text, right),
    entry(
        Function::CharacterLength,
        &["character_length", "length", "char_length"],
        length_of_text,
        |args| match args {
            [Argument::Text(text)] => integer(text.chars().count()),
            _ => mismatch(),
        },
    ),
    entry(
        Function::OctetLength,
        &["octet_length"],
        length_of_text,
        |args| match args {
            [Argument::Text(text)] => integer(text.len()),
            _ => mismatch(),
        },
    ),
    entry(
        Function::Position,
        &["strpos", "instr", "position"],
        position_in_text,
        position,
    ),
    entry(Function::StartsWith, &["starts_with"], test_of_texts, |args| {
        test(args, |text, prefix| text.starts_with(prefix))
    }),
    entry(Function::EndsWith, &["ends_with"], test_of_texts, |args| {
        test(args, |text, suffix| text.ends_with(suffix))
    }),
    entry(Function::Contains, &["contains"], test_of_texts, |args| {
        test(args, |text, part| text.contains(part))
    }),
    entry(Function::Upper, &["upper"], same_text, |args| {
        changed(args, str::to_uppercase)
    }),
    entry(Function::Lower, &["lower"], same_text, |args| {
        changed(args, str::to_lowercase)
    }),
    entry(Function::Trim, &["btrim", "trim"], trimmed_text, |args| {
        trimmed(args, true, true)
    }),
    entry(Function::TrimStart, &["ltrim"], trimmed_text, |args| {
        trimmed(args, true, false)
    }),
    entry(Function::TrimEnd, &["rtrim"], trimmed_text, |args| {
        trimmed(args, false, true)
    }),
    entry(Function::Concat, &["concat"], joined_texts, concat).lenient(),
    entry(Function::Append, &["||"], joined_two, concat),
];

const fn entry(
    function: Function,
    names: &'static [&'static str],
    result: fn(&[Type]) -> Option<Type>,
    reference: for<'v> fn(&[Argument<'v>]) -> Answered<'v>,
) -> Descriptor {
    Descriptor {
        function,
        names,
        result,
        strict: true,
        may_fail: |_| false,
        reference,
    }
}

impl Descriptor {
    const fn lenient(mut self) -> Self {
        self.strict = false;
        self
    }

    const fn failing(mut self, may_fail: fn(&[Option<Value>]) -> bool) -> Self {
        self.may_fail = may_fail;
        self
    }
}

impl Function {
    /// The function of a name, for arguments of these types, if its result has this type.
    pub fn named(name: &str, arguments: &[Type], result: &Type) -> Option<Self> {
        let found = FUNCTIONS.iter().find(|descriptor| descriptor.names.contains(&name))?;
        ((found.result)(arguments).as_ref() == Some(result)).then_some(found.function)
    }

    /// What there is to know of it.
    pub fn descriptor(self) -> &'static Descriptor {
        let found = FUNCTIONS.iter().find(|descriptor| descriptor.function == self);
        found.unwrap_or(&FUNCTIONS[0])
    }

    /// DataFusion's name of it.
    pub fn name(self) -> &'static str {
        self.descriptor().names[0]
    }

    /// Whether a call with these arguments may fail.
    pub fn may_fail(self, args: &[Expr]) -> bool {
        let constant = |arg: &Expr| match &arg.node {
            Node::Literal(value) => Some(value.clone()),
            _ => None,
        };
        (self.descriptor().may_fail)(&args.iter().map(constant).collect::<Vec<_>>())
    }

    /// Its value for these arguments.
    ///
    /// # Errors
    /// [`DeviceError::Arithmetic`] for a fault of the values; [`DeviceError::Internal`] for arguments of other types.
    pub fn evaluate(self, args: &[Value]) -> Result<Value, DeviceError> {
        let descriptor = self.descriptor();
        if descriptor.strict && args.contains(&Value::Null) {
            return Ok(Value::Null);
        }
        let args = args.iter().map(Argument::of).collect::<Result<Vec<_>, _>>()?;
        Ok(match (descriptor.reference)(&args).map_err(DeviceError::Arithmetic)? {
            Answer::Boolean(value) => Value::Boolean(value),
            Answer::Int(value) => Value::Int(value.into()),
            Answer::Text(text) => Value::Bytes(text.as_bytes().into()),
        })
    }
}

impl<'v> Argument<'v> {
    fn of(value: &'v Value) -> Result<Self, DeviceError> {
        let other = || DeviceError::Internal(format!("{value:?} as an argument"));
        Ok(match value {
            Value::Null => Argument::Null,
            Value::Int(value) => Argument::Int(i64::try_from(*value).map_err(|_| other())?),
            Value::Bytes(bytes) => Argument::Text(std::str::from_utf8(bytes).map_err(|_| other())?),
            _ => return Err(other()),
        })
    }
}

fn part_of_text(arguments: &[Type]) -> Option<Type> {
    match arguments {
        [text, Type::Int64] | [text, Type::Int64, Type::Int64] => same_text(std::slice::from_ref(text)),
        _ => None,
    }
}

fn end_of_text(arguments: &[Type]) -> Option<Type> {
    part_of_text(arguments).filter(|_| arguments.len() == 2)
}

fn same_text(arguments: &[Type]) -> Option<Type> {
    match arguments {
        [text] if text.is_text() => Some(text.clone()),
        _ => None,
    }
}

fn trimmed_text(arguments: &[Type]) -> Option<Type> {
    match arguments {
        [text] | [text, _] if arguments.iter().all(Type::is_text) => Some(text.clone()),
        _ => None,
    }
}

fn length_of_text(arguments: &[Type]) -> Option<Type> {
    match arguments {
        [Type::LargeUtf8] => Some(Type::Int64),
        [text] if text.is_text() => Some(Type::Int32),
        _ => None,
    }
}

fn position_in_text(arguments: &[Type]) -> Option<Type> {
    match arguments {
        [text, part] if part.is_text() => length_of_text(std::slice::from_ref(text)),
        _ => None,
    }
}

fn test_of_texts(arguments: &[Type]) -> Option<Type> {
    (arguments.len() == 2 && arguments.iter().all(Type::is_text)).then_some(Type::Boolean)
}

fn joined_texts(arguments: &[Type]) -> Option<Type> {
    let all = !arguments.is_empty() && arguments.iter().all(Type::is_text);
    let widest = [Type::Utf8View, Type::LargeUtf8, Type::Utf8];
    widest.into_iter().find(|widest| all && arguments.contains(widest))
}

fn joined_two(arguments: &[Type]) -> Option<Type> {
    match arguments {
        [left, right] if left == right => same_text(std::slice::from_ref(left)),
        _ => None,
    }
}

fn mismatch<'v>() -> Answered<'v> {
    Err("arguments of other types".to_owned())
}

fn integer<'v>(count: usize) -> Answered<'v> {
    i64::try_from(count)
        .map(Answer::Int)
        .map_err(|_| "a string is too long".to_owned())
}

fn test<'v>(args: &[Argument<'v>], test: fn(&str, &str) -> bool) -> Answered<'v> {
    match args {
        [Argument::Text(text), Argument::Text(part)] => Ok(Answer::Boolean(test(text, part))),
        _ => mismatch(),
    }
}

fn changed<'v>(args: &[Argument<'v>], change: fn(&str) -> String) -> Answered<'v> {
    match args {
        [Argument::Text(text)] => Ok(Answer::Text(Cow::Owned(change(text)))),
        _ => mismatch(),
    }
}

fn trimmed<'v>(args: &[Argument<'v>], start: bool, end: bool) -> Answered<'v> {
    let (mut text, characters) = match *args {
        [Argument::Text(text)] => (text, " "),
        [Argument::Text(text), Argument::Text(characters)] => (text, characters),
        _ => return mismatch(),
    };
    let unwanted = |c: char| characters.contains(c);
    if start {
        text = text.trim_start_matches(unwanted);
    }
    if end {
        text = text.trim_end_matches(unwanted);
    }
    Ok(Answer::Text(Cow::Borrowed(text)))
}

fn concat<'v>(args: &[Argument<'v>]) -> Answered<'v> {
    let mut joined = String::new();
    for arg in args {
        match arg {
            Argument::Null => {}
            Argument::Text(text) => joined.push_str(text),
            Argument::Int(_) => return mismatch(),
        }
    }
    Ok(Answer::Text(Cow::Owned(joined)))
}

fn position<'v>(args: &[Argument<'v>]) -> Answered<'v> {
    match args {
        [Argument::Text(text), Argument::Text(part)] => match text.find(part) {
            Some(at) => integer(text[..at].chars().count() + 1),
            None => Ok(Answer::Int(0)),
        },
        _ => mismatch(),
    }
}

/// The byte at which character `n` begins; the end when there are no more than `n`.
fn byte_of(text: &str, n: u64) -> usize {
    let n = usize::try_from(n).unwrap_or(usize::MAX);
    text.char_indices().nth(n).map_or(text.len(), |(at, _)| at)
}

/// Refuses what has no substring; else the first character, from 0, and the one after the last.
///
/// # Errors
/// A negative length; the smallest integer as start.
pub fn substring_range(start: i64, length: Option<i64>) -> Result<(u64, u64), String> {
    if let Some(length) = length.filter(|length| *length < 0) {
        return Err(format!("negative count not allowed: {length}"));
    }
    let Some(first) = start.checked_sub(1) else {
        return Err(format!("start position overflow: {start}"));
    };
    let clamp = |at: i64| u64::try_from(at).unwrap_or(0);
    let after = length.map_or(u64::MAX, |length| clamp(first.saturating_add(length)));
    Ok((clamp(first), after))
}

fn substring<'v>(args: &[Argument<'v>]) -> Answered<'v> {
    let (text, start, length) = match *args {
        [Argument::Text(text), Argument::Int(start)] => (text, start, None),
        [Argument::Text(text), Argument::Int(start), Argument::Int(length)] => (text, start, Some(length)),
        _ => return mismatch(),
    };
    let (first, after) = substring_range(start, length)?;
    let (first, after) = (byte_of(text, first), byte_of(text, after));
    Ok(Answer::Text(Cow::Borrowed(&text[first..after.max(first)])))
}

fn negative_length(args: &[Option<Value>]) -> bool {
    let integer = |arg: &Option<Value>| match arg {
        Some(Value::Int(value)) => i64::try_from(*value).ok(),
        _ => None,
    };
    match args {
        [_, start] => integer(start).is_none_or(|start| substring_range(start, None).is_err()),
        [_, start, length] => match (integer(start), integer(length)) {
            (Some(start), length @ Some(_)) => substring_range(start, length).is_err(),
            _ => true,
        },
        _ => true,
    }
}

fn left<'v>(args: &[Argument<'v>]) -> Answered<'v> {
    match *args {
        [Argument::Text(text), Argument::Int(n)] => Ok(Answer::Text(Cow::Borrowed(&text[..boundary(text, n)]))),
        _ => mismatch(),
    }
}

fn right<'v>(args: &[Argument<'v>]) -> Answered<'v> {
    match *args {
        // DataFusion's answer to the smallest integer, which has no opposite.
        [Argument::Text(_), Argument::Int(0 | i64::MIN)] => Ok(Answer::Text(Cow::Borrowed(""))),
        [Argument::Text(text), Argument::Int(n)] => Ok(Answer::Text(Cow::Borrowed(&text[boundary(text, -n)..]))),
        _ => mismatch(),
    }
}

/// The byte after the first `n` characters; of a negative `n`, before the last `-n`.
fn boundary(text: &str, n: i64) -> usize {
    if n >= 0 {
        return byte_of(text, n.unsigned_abs());
    }
    let back = usize::try_from(n.unsigned_abs() - 1).unwrap_or(usize::MAX);
    text.char_indices().nth_back(back).map_or(0, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::{FUNCTIONS, Function};
    use crate::types::{Type, Value};

    fn call(function: Function, text: &str, integers: &[i128]) -> Result<String, String> {
        let mut args = vec![Value::Bytes(text.as_bytes().into())];
        args.extend(integers.iter().map(|value| Value::Int(*value)));
        match function.evaluate(&args) {
            Ok(Value::Bytes(bytes)) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Ok(other) => Ok(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn each_function_has_one_descriptor_under_names_of_its_own() {
        for (position, descriptor) in FUNCTIONS.iter().enumerate() {
            assert_eq!(descriptor.function.name(), descriptor.names[0]);
            for other in &FUNCTIONS[position + 1..] {
                assert_ne!(descriptor.function, other.function);
                assert!(descriptor.names.iter().all(|name| !other.names.contains(name)));
            }
        }
    }

    #[test]
    fn substrings_are_of_characters() {
        let substring = |text, integers: &[i128]| call(Function::Substring, text, integers);
        for (text, integers, expected) in [
            ("alphabet", &[0_i128][..], "alphabet"),
            ("alphabet", &[-3], "alphabet"),
            ("alphabet", &[3], "phabet"),
            ("alphabet", &[30], ""),
            ("alphabet", &[3, 2], "ph"),
            ("alphabet", &[3, 20], "phabet"),
            ("alphabet", &[0, 5], "alph"),
            ("alphabet", &[-3, 5], "a"),
            ("alphabet", &[-5, 5], ""),
            ("alphabet", &[3, 0], ""),
            ("joséésoj", &[5, 2], "és"),
            ("joséésoj", &[-3, 6], "jo"),
            ("", &[1, 5], ""),
            ("é", &[1, i128::from(i64::MAX)], "é"),
            ("aé", &[i128::from(i64::MAX), i128::from(i64::MAX)], ""),
        ] {
            assert_eq!(
                substring(text, integers),
                Ok(expected.to_owned()),
                "{text} {integers:?}"
            );
        }
        assert_eq!(
            substring("a", &[1, -1]),
            Err("negative count not allowed: -1".to_owned())
        );
        assert_eq!(
            substring("a", &[i64::MIN.into()]),
            Err(format!("start position overflow: {}", i64::MIN))
        );
    }

    #[test]
    fn ends_are_counted_in_characters() {
        for (function, n, expected) in [
            (Function::Left, 2, "aé"),
            (Function::Left, -2, "aé"),
            (Function::Left, -9, ""),
            (Function::Left, 9, "aéb€"),
            (Function::Left, i64::MIN, ""),
            (Function::Right, 2, "b€"),
            (Function::Right, -3, "€"),
            (Function::Right, 0, ""),
            (Function::Right, 9, "aéb€"),
            (Function::Right, i64::MIN, ""),
        ] {
            assert_eq!(call(function, "aéb€", &[n.into()]), Ok(expected.to_owned()), "{n}");
        }
        assert_eq!(call(Function::CharacterLength, "aéb€", &[]), Ok("Int(4)".to_owned()));
        assert_eq!(call(Function::OctetLength, "aéb€", &[]), Ok("Int(7)".to_owned()));
        assert_eq!(call(Function::Trim, "  é  ", &[]), Ok("é".to_owned()));
        assert_eq!(call(Function::TrimEnd, "\t é\t ", &[]), Ok("\t é\t".to_owned()));
        assert_eq!(call(Function::Lower, "ΑΣ", &[]), Ok("ας".to_owned()));
        assert_eq!(call(Function::Upper, "straße", &[]), Ok("STRASSE".to_owned()));
    }

    #[test]
    fn null_makes_null_except_of_concat() {
        let text = |text: &str| Value::Bytes(text.as_bytes().into());
        assert_eq!(Function::Append.evaluate(&[text("a"), Value::Null]), Ok(Value::Null));
        assert_eq!(
            Function::Concat.evaluate(&[text("a"), Value::Null, text("b")]),
            Ok(text("ab"))
        );
        assert_eq!(Function::Concat.evaluate(&[Value::Null]), Ok(text("")));
        assert_eq!(
            Function::Position.evaluate(&[text("aéb"), text("b")]),
            Ok(Value::Int(3))
        );
        assert_eq!(Function::Position.evaluate(&[text("aéb"), text("")]), Ok(Value::Int(1)));
        assert_eq!(
            Function::Substring.evaluate(&[Value::Null, Value::Int(1), Value::Int(-1)]),
            Ok(Value::Null)
        );
    }

    #[test]
    fn names_are_found_for_their_types_only() {
        let found = |name, arguments: &[Type], result| Function::named(name, arguments, &result);
        assert_eq!(
            found("substr", &[Type::Utf8View, Type::Int64], Type::Utf8View),
            Some(Function::Substring)
        );
        assert_eq!(found("substr", &[Type::Utf8View, Type::Int32], Type::Utf8View), None);
        assert_eq!(found("length", &[Type::LargeUtf8], Type::Int32), None);
        assert_eq!(
            found("concat", &[Type::Utf8, Type::Utf8View], Type::Utf8View),
            Some(Function::Concat)
        );
        let three = [Type::Utf8, Type::Int64, Type::Int64];
        assert_eq!(found("substr", &three, Type::Utf8), Some(Function::Substring));
        assert_eq!(found("left", &three, Type::Utf8), None);
        assert_eq!(found("nothing", &[Type::Utf8], Type::Utf8), None);
    }
}
