//! Numbers compared (`lt`, `lte`, `gt`, `gte`).

use std::cmp::Ordering;

/// How a number must compare.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Comparison {
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
}

impl Comparison {
    pub(crate) fn holds(self, left: Number, right: Number) -> bool {
        let order = match (left, right) {
            (Number::Whole(left), Number::Whole(right)) => Some(left.cmp(&right)),
            (left, right) => left.float().partial_cmp(&right.float()),
        };
        match self {
            Comparison::Lt => order == Some(Ordering::Less),
            Comparison::Lte => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Comparison::Gt => order == Some(Ordering::Greater),
            Comparison::Gte => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

/// A number: whole ones exactly, others as binary floating point.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Number {
    Whole(i128),
    Fraction(f64),
}

impl Number {
    /// A decimal number, and nothing else (no `0x10`, no `inf`).
    pub(crate) fn parse(text: &str) -> Option<Number> {
        let text = text.trim();
        if let Ok(whole) = text.parse() {
            return Some(Number::Whole(whole));
        }
        let decimal = text.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
        text.parse().ok().filter(|number: &f64| decimal && number.is_finite()).map(Number::Fraction)
    }

    #[allow(clippy::as_conversions, clippy::cast_precision_loss)] // compared with a fraction, it is one
    const fn float(self) -> f64 {
        match self {
            Number::Whole(whole) => whole as f64,
            Number::Fraction(fraction) => fraction,
        }
    }
}
