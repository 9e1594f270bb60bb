//! A truth value per row of a sample.

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(super) fn all(rows: usize) -> Self {
        Self::of(rows, |_| true)
    }

    pub(super) fn of(rows: usize, truth: impl Fn(usize) -> bool) -> Self {
        let word = |at: usize| {
            let bit = |bit: usize| u64::from(at * 64 + bit < rows && truth(at * 64 + bit)) << bit;
            (0..64).fold(0, |word, at| word | bit(at))
        };
        Self {
            words: (0..rows.div_ceil(64)).map(word).collect(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Rows that are in both.
    pub(super) fn common(&self, other: &Self) -> usize {
        let both = self.words.iter().zip(&other.words);
        both.map(|(a, b)| (a & b).count_ones() as usize).sum()
    }

    /// Keeps what the other has, too.
    pub(super) fn keep(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
    }

    /// The rows that are true.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                if left == 0 {
                    return None;
                }
                left &= left - 1;
                Some(at * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_met_and_walked() {
        let (threes, fives) = (Bits::of(130, |row| row % 3 == 0), Bits::of(130, |row| row % 5 == 0));
        assert_eq!((threes.count(), fives.count(), threes.common(&fives)), (44, 26, 9));
        let mut both = Bits::all(130);
        both.keep(&threes);
        both.keep(&fives);
        assert_eq!(
            both.iter().collect::<Vec<_>>(),
            (0..130).step_by(15).collect::<Vec<_>>()
        );
    }
}
