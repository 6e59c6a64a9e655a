//! What was met already while one message is looked at, so that nothing is asked twice, however
//! often a client writes it.

/// A set of small numbers that is emptied at no cost.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The round in which each number was last added.
    rounds: Box<[u32]>,
    /// No number was added in a round before the first.
    now: u32,
}

impl Marks {
    /// For the numbers below that one.
    pub(super) fn new(below: usize) -> Self {
        Self { rounds: vec![0; below].into(), now: 1 }
    }

    /// None is in it any more.
    pub(super) fn clear(&mut self) {
        self.now = self.now.checked_add(1).unwrap_or_else(|| {
            self.rounds.fill(0);
            1
        });
    }

    pub(super) fn has(&self, number: usize) -> bool {
        self.rounds[number] == self.now
    }

    /// Whether it was not in it yet.
    pub(super) fn add(&mut self, number: usize) -> bool {
        let is_new = !self.has(number);
        self.rounds[number] = self.now;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_new_once_in_each_round_and_after_the_last_round_too() {
        let mut marks = Marks::new(2);
        for now in [1, 2, u32::MAX - 1, u32::MAX] {
            marks.now = now;
            marks.clear();
            assert!(!marks.has(1));
            assert!(marks.add(1) && !marks.add(1));
            assert!(marks.has(1) && !marks.has(0));
        }
    }
}
