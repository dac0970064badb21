/// A part of a whole, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(f64);

impl Ratio {
    pub const NONE: Self = Self(0.0);
    pub const ALL: Self = Self(1.0);

    /// Nothing for what is no part, such as 1.1 or NaN.
    pub fn new(part: f64) -> Option<Self> {
        (0.0..=1.0).contains(&part).then_some(Self(part))
    }

    pub const fn get(self) -> f64 {
        self.0
    }

    /// Nothing for 0, where that means off.
    pub fn unless_zero(self) -> Option<Self> {
        (self.0 > 0.0).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_a_part() {
        assert_eq!(
            [-0.1, 0.0, 0.5, 1.0, 1.1, f64::NAN].map(|part| Ratio::new(part).is_some()),
            [false, true, true, true, false, false]
        );
        assert_eq!(Ratio::new(0.0).and_then(Ratio::unless_zero), None);
    }
}
