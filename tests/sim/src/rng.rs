//! Random numbers: `SplitMix64` (Steele, Lea, Flood 2014). Small, fast, and every stream of a seed is its own.

/// A stream of random numbers. The same seed and name give the same numbers, on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream `number` of `seed`; streams of one seed do not overlap in practice.
    pub fn stream(seed: u64, number: u64) -> Self {
        let mut rng = Self(seed ^ number.wrapping_mul(0xA24B_AED4_963E_E407).rotate_left(17));
        rng.next();
        Self(rng.next() ^ number)
    }

    /// Another stream, which follows from this one and takes nothing of it.
    #[must_use]
    pub fn aside(&self) -> Self {
        const ASIDE: u64 = 900_003;
        Self::stream(self.0, ASIDE)
    }

    /// 64 random bits.
    #[expect(clippy::should_implement_trait, reason = "not an iterator: it never ends")]
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a number below 0");
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// When `high` is less than `low`.
    #[inline]
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range");
        match (high - low).checked_add(1) {
            Some(width) => low + self.below(width),
            None => self.next(),
        }
    }

    /// True in `permille` of a thousand cases.
    #[inline]
    pub fn chance(&mut self, permille: u32) -> bool {
        self.below(1_000) < u64::from(permille)
    }

    /// One of `items`.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_and_repeat() {
        let draw = |seed, number| {
            let mut rng = Rng::stream(seed, number);
            [rng.next(), rng.next(), rng.next()]
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(2, 1));
        assert_ne!(draw(1, 0), draw(1, 1));
    }

    #[test]
    fn ranges_are_kept_and_reached() {
        let mut rng = Rng::stream(3, 0);
        let mut seen = [false; 4];
        for _ in 0..1_000 {
            let drawn = rng.between(5, 8);
            assert!((5..=8).contains(&drawn));
            seen[(drawn - 5) as usize] = true;
        }
        assert_eq!(seen, [true; 4]);
        assert_eq!(rng.between(7, 7), 7);
        assert!(!rng.chance(0));
        assert!(rng.chance(1_000));
    }
}
