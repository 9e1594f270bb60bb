//! The table of settings: one macro that turns rows into a struct with documented fields, their defaults, and the
//! declarations from which files, variables, flags and references are read and written.
//!
//! ```text
//!  /// Help text.
//!  key: Type = default, Unit, low..=high;        one row; the range only for numbers
//! ```

use crate::value::{Literal, Raw, Rule, SettingType};

/// A struct of settings made by [`settings!`].
pub(crate) trait Section: Default + Sized {
    /// One word, without an underscore.
    const NAME: &'static str;
    /// One sentence for the references.
    const ABOUT: &'static str;
    /// The declarations, in order.
    fn rows() -> Vec<Row<Self>>;
}

/// Sets a field of a `T` from its raw text; false when that is not of the accepted form.
type Reader<T> = Box<dyn Fn(&mut T, &Raw, &Rule) -> bool>;

/// The declaration of one setting of a `T`.
pub(crate) struct Row<T> {
    pub(crate) key: &'static str,
    pub(crate) help: String,
    pub(crate) rule: Rule,
    /// Type, unit and range in words, for references and errors.
    pub(crate) expected: String,
    read: Reader<T>,
    write: Box<dyn Fn(&T) -> Literal>,
}

impl<T: 'static> Row<T> {
    pub(crate) fn new<V: SettingType>(
        key: &'static str,
        help: &'static str,
        rule: Rule,
        get: fn(&T) -> &V,
        get_mut: fn(&mut T) -> &mut V,
    ) -> Self {
        Self {
            key,
            help: help.trim().to_string(),
            expected: V::expected(&rule),
            rule,
            read: Box::new(move |target, raw, rule| match V::read(raw, rule) {
                Some(value) => {
                    *get_mut(target) = value;
                    true
                }
                None => false,
            }),
            write: Box::new(move |target| get(target).write()),
        }
    }

    /// Sets the field; the error is the accepted form in words.
    pub(crate) fn read(&self, target: &mut T, raw: &Raw) -> Result<(), String> {
        if (self.read)(target, raw, &self.rule) {
            Ok(())
        } else {
            Err(self.expected.clone())
        }
    }

    pub(crate) fn write(&self, target: &T) -> Literal {
        (self.write)(target)
    }

    /// The same declaration, reached from the struct that holds this section.
    pub(crate) fn within<W: 'static>(self, get: fn(&W) -> &T, get_mut: fn(&mut W) -> &mut T) -> Row<W> {
        let Self {
            key,
            help,
            rule,
            expected,
            read,
            write,
        } = self;
        Row {
            key,
            help,
            rule,
            expected,
            read: Box::new(move |whole, raw, rule| read(get_mut(whole), raw, rule)),
            write: Box::new(move |whole| write(get(whole))),
        }
    }
}

/// Declares a section of settings; see the module for the form of a row.
macro_rules! settings {
    (
        $(#[doc = $about:literal])+
        pub struct $Section:ident = $name:literal {
            $(
                $(#[doc = $help:literal])+
                $key:ident: $Type:ty = $default:expr, $unit:expr $(, $range:expr)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Section {
            $( $(#[doc = $help])+ pub $key: $Type, )+
        }

        impl Default for $Section {
            fn default() -> Self {
                Self { $( $key: $default, )+ }
            }
        }

        impl $crate::table::Section for $Section {
            const NAME: &'static str = $name;
            const ABOUT: &'static str = concat!($($about),+);

            fn rows() -> Vec<$crate::table::Row<Self>> {
                #[allow(unused_imports)]
                use $crate::value::Unit::*;
                vec![$(
                    $crate::table::Row::new(
                        stringify!($key),
                        concat!($($help),+),
                        $crate::value::Rule {
                            unit: $unit,
                            range: [$($range)?].into_iter().next(),
                        },
                        |section: &Self| &section.$key,
                        |section: &mut Self| &mut section.$key,
                    ),
                )+]
            }
        }
    };
}
