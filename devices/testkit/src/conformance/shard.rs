//! The whole matrix in parts: it takes longer than one run may, so `TRIREME_CONFORMANCE_SHARD=3/40` runs the third of forty parts.
//!
//! Parts take turns in blocks: neighbours are alike and share kernels, blocks are of all sorts. Together they are the matrix,
//! each case once. A part says at its end how long all of them would take.
//!
//! On devices whose compiler takes longer than any kernel runs, cases are [`Case::alike`]: what a kernel is made from doesn't
//! depend on rows, but for whether there may be NULLs and which of few bounds hold them. So one kernel serves all NULL patterns,
//! sizes, slices and segmentations of an operation on a type, and each of these still runs. What else a kernel may be made from
//! (bounds of every width, zone maps, runs of one key) is drawn where cases aren't alike: on the simulated device, in random
//! graphs, and in the part of the matrix that is always run.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Extent, Summary, matrix_cases};
use crate::generate::Case;

/// Neighbours that stay together.
const BLOCK: usize = 32;

/// A part of the whole matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    number: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("\"{text}\" is no part of the matrix: 1/40 is the first of forty");
        let (number, of) = text.split_once('/').ok_or_else(wrong)?;
        let (number, of): (usize, usize) = (number.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
        match number.checked_sub(1) {
            Some(number) if number < of => Ok(Self { number, of }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number + 1, self.of)
    }
}

impl Shard {
    /// The part that `TRIREME_CONFORMANCE_SHARD` names; the only one where `TRIREME_CONFORMANCE_FULL` asks for all of it; else
    /// none.
    ///
    /// # Errors
    /// When it names none.
    pub fn from_env() -> Result<Option<Self>, String> {
        match std::env::var("TRIREME_CONFORMANCE_SHARD") {
            Ok(text) => text.parse().map(Some),
            Err(_) => Ok(std::env::var_os("TRIREME_CONFORMANCE_FULL").map(|_| Self { number: 0, of: 1 })),
        }
    }

    /// Its cases.
    pub fn cases(self, extent: Extent) -> impl Iterator<Item = Case> + Send {
        let cases = matrix_cases(extent).enumerate();
        cases
            .filter(move |(index, _)| index / BLOCK % self.of == self.number)
            .map(|(_, case)| case)
    }

    /// The same, alike.
    pub fn cases_alike(self, extent: Extent) -> impl Iterator<Item = Case> + Send {
        self.cases(extent).map(|case| Case { alike: true, ..case })
    }

    /// Such a part of anything.
    pub fn part<I: IntoIterator>(self, all: I) -> impl Iterator<Item = I::Item> + use<I> {
        all.into_iter().skip(self.number).step_by(self.of)
    }

    /// What was met in so much time, and how long all parts would take.
    pub fn report(self, summary: &Summary, took: Duration) -> String {
        let parts = u32::try_from(self.of).unwrap_or(u32::MAX);
        let minutes = |time: Duration| time.as_secs_f64() / 60.0;
        format!(
            "part {self} of the matrix in {:.1} minutes; all parts take about {:.0}: {summary}",
            minutes(took),
            minutes(took.saturating_mul(parts)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole_and_share_nothing() {
        let key = |case: &Case| format!("{} {}", case.name, case.seed);
        let whole: Vec<String> = matrix_cases(Extent::Quick).map(|case| key(&case)).collect();
        let parts: Vec<Vec<String>> = (1..=3)
            .map(|number| {
                let shard: Shard = format!("{number}/3").parse().unwrap();
                shard.cases(Extent::Quick).map(|case| key(&case)).collect()
            })
            .collect();
        let mut together = Vec::new();
        for turn in 0..whole.len().div_ceil(3 * BLOCK) {
            for part in &parts {
                together.extend(part.iter().skip(turn * BLOCK).take(BLOCK).cloned());
            }
        }
        assert_eq!(together, whole);
    }

    #[test]
    fn wrong_parts_are_refused() {
        for wrong in ["", "1", "0/4", "5/4", "a/4", "1/0"] {
            let refused = wrong.parse::<Shard>().unwrap_err();
            assert!(refused.contains(wrong), "{refused}");
        }
        assert_eq!("4/4".parse::<Shard>().unwrap().to_string(), "4/4");
    }
}
