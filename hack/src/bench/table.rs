//! The table that people read: one line per number, with what was to be reached and how far it is off.

use crate::report;

/// What was to be reached, in the unit of the row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// More is worse.
    AtMost(f64),
    /// Less is worse.
    AtLeast(f64),
}

/// One number.
#[derive(Debug, Clone)]
pub struct Row {
    what: String,
    value: f64,
    decimals: usize,
    unit: &'static str,
    target: Option<Target>,
}

impl Row {
    /// `value` of `what`, shown with so many decimals.
    pub fn new(what: impl Into<String>, value: f64, decimals: usize, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            value,
            decimals,
            unit,
            target: None,
        }
    }

    /// The same with a target.
    #[must_use]
    pub fn with(self, target: Target) -> Self {
        Self {
            target: Some(target),
            ..self
        }
    }

    fn verdict(&self) -> String {
        let decimals = self.decimals;
        match self.target {
            None => String::new(),
            Some(Target::AtMost(most)) if self.value <= most => format!("reached (≤ {most:.decimals$})"),
            Some(Target::AtMost(most)) => format!("{:.2} × the target of ≤ {most:.decimals$}", self.value / most),
            Some(Target::AtLeast(least)) if self.value >= least => format!("reached (≥ {least:.decimals$})"),
            Some(Target::AtLeast(least)) => format!("{:.2} × the target of ≥ {least:.decimals$}", self.value / least),
        }
    }

    fn line(&self) -> String {
        let (what, value, decimals, unit) = (&self.what, self.value, self.decimals, self.unit);
        let line = format!("  {what:<58} {value:>10.decimals$} {unit:<12} {}", self.verdict());
        line.trim_end().to_owned()
    }
}

/// Prints `rows` under a title.
pub fn print(title: &str, rows: &[Row]) {
    report::line(title);
    for row in rows {
        report::line(row.line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_how_far_off_a_number_is() {
        let row = |value, target| Row::new("x", value, 1, "s").with(target).verdict();
        assert_eq!(row(6.5, Target::AtMost(6.5)), "reached (≤ 6.5)");
        assert_eq!(row(13.0, Target::AtMost(6.5)), "2.00 × the target of ≤ 6.5");
        assert_eq!(row(9.0, Target::AtLeast(8.0)), "reached (≥ 8.0)");
        assert_eq!(row(4.0, Target::AtLeast(8.0)), "0.50 × the target of ≥ 8.0");
        assert_eq!(Row::new("x", 1.0, 0, "").verdict(), "");
    }
}
