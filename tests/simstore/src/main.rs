//! `simstore --port 9100 --profile near`: the simulated store as a program.

fn main() {}
