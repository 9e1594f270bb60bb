//! Flight messages that arrow-flight 59 doesn't generate: session options and the closing of sessions.
//!
//! Field numbers are those of the Arrow Flight specification (`Flight.proto`).

use std::collections::HashMap;

/// One value of a session option.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionOptionValue {
    /// Unset removes the option.
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub option_value: Option<OptionValue>,
}

/// The kinds of values.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OptionValue {
    /// Text.
    #[prost(string, tag = "1")]
    String(String),
    /// Truth value.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// Integer.
    #[prost(sfixed64, tag = "3")]
    Int64(i64),
    /// Float.
    #[prost(double, tag = "4")]
    Double(f64),
    /// Texts.
    #[prost(message, tag = "5")]
    StringList(StringListValue),
}

/// Several texts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringListValue {
    /// The texts.
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}

/// `SetSessionOptions`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetSessionOptionsRequest {
    /// Options to set.
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

/// Why an option was not set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetError {
    /// A [`SetErrorValue`].
    #[prost(enumeration = "SetErrorValue", tag = "1")]
    pub value: i32,
}

/// Reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SetErrorValue {
    /// Never sent.
    Unspecified = 0,
    /// No such option.
    InvalidName = 1,
    /// Not a value of this option.
    InvalidValue = 2,
    /// Something else.
    Error = 3,
}

/// The answer: only options that failed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetSessionOptionsResult {
    /// Errors by option.
    #[prost(map = "string, message", tag = "1")]
    pub errors: HashMap<String, SetError>,
}

/// The answer of `GetSessionOptions`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetSessionOptionsResult {
    /// Options that the client set.
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

/// The answer of `CloseSession`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CloseSessionResult {
    /// A [`CloseStatus`].
    #[prost(enumeration = "CloseStatus", tag = "1")]
    pub status: i32,
}

/// What became of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum CloseStatus {
    /// Never sent.
    Unspecified = 0,
    /// It is closed.
    Closed = 1,
    /// It closes.
    Closing = 2,
    /// There was none.
    NotCloseable = 3,
}
