//! Cases that chance rarely finds: ends of types, ties, what is not reached.
