//! What kernels do that they must not.

use std::fmt;

/// What kind of rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ViolationKind {
    /// The module is not well typed or not well formed.
    Invalid,
    /// An access outside of the allocation that its base points into, or a base that points into none.
    OutOfBounds,
    /// The base points into memory that was given back.
    UseAfterFree,
    /// An address that is no multiple of the element's alignment.
    Misaligned,
    /// A variable is read before it is assigned.
    UninitialisedVariable,
    /// Bytes of the arena are read that nothing has written.
    UninitialisedMemory,
    /// Local memory is read before it is stored.
    UninitialisedLocal,
    /// An index outside of a local array.
    LocalOutOfBounds,
    /// Integer division by zero.
    DivisionByZero,
    /// MIN / −1.
    DivisionOverflow,
    /// A shift by the width or more.
    ShiftWidth,
    /// A float that the integer type it is converted to doesn't hold.
    FloatRange,
    /// Work-items of a group don't reach the same barriers.
    Divergence,
    /// Two accesses to a place that nothing orders, one of them a write, not both atomic.
    Race,
    /// A write to a place that is loaded as a constant, or to the block.
    ConstantWritten,
    /// A work-item doesn't end: it waits for another, or loops for ever.
    Endless,
    /// The host's call is wrong: a kernel or an allocation that isn't there.
    Host,
}

/// A rule that was broken, where, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub kind: ViolationKind,
    /// Name of the kernel, or of the function that validation found wrong.
    pub kernel: String,
    /// The statement, as text, with its position in the body.
    pub statement: String,
    /// Group, and number of the work-item in it.
    pub item: Option<(u32, u32)>,
    /// Byte of the arena, or of local memory.
    pub address: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in {}", self.kind, self.kernel)?;
        if let Some((group, local)) = self.item {
            write!(f, ", work-item {local} of group {group}")?;
        }
        if let Some(address) = self.address {
            write!(f, ", address {address}")?;
        }
        write!(f, ": {}", self.what)?;
        if !self.statement.is_empty() {
            write!(f, "; at {}", self.statement)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

/// A violation whose place is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) kind: ViolationKind,
    pub(super) address: Option<u64>,
    pub(super) what: String,
}

impl Wrong {
    pub(super) fn new(kind: ViolationKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            address: None,
            what: what.into(),
        }
    }

    pub(super) fn at(kind: ViolationKind, address: u64, what: impl Into<String>) -> Self {
        Self {
            kind,
            address: Some(address),
            what: what.into(),
        }
    }

    pub(super) fn host(self) -> Violation {
        Violation {
            kind: self.kind,
            kernel: "the host".to_owned(),
            statement: String::new(),
            item: None,
            address: self.address,
            what: self.what,
        }
    }
}
