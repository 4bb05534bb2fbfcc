//! Durations as Go's `time.ParseDuration` reads and `Duration.String` prints them: `1h30m`, `1.5s`, `250ms`.
//!
//! The value is a whole number of nanoseconds, 0 to 2⁶³−1 (about 292 years). There is no sign: every duration in these
//! objects is a length of time.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Go's `math.MaxInt64` nanoseconds.
const MAX_NANOS: u64 = i64::MAX as u64;

/// Units by their length in nanoseconds. `µ` exists twice in Unicode and Go accepts both.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Why a text is not a [`GoDuration`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Empty text.
    #[error("a duration is not empty")]
    Empty,
    /// A sign, or something that is no number where a number is expected.
    #[error("a duration is a sequence of numbers with units, such as 1h30m, and has no sign")]
    Number,
    /// A number without a unit, or with another than `ns`, `us`, `ms`, `s`, `m`, `h`.
    #[error("every number of a duration has one of the units ms, s, m, h")]
    Unit,
    /// More than 2⁶³−1 nanoseconds.
    #[error("a duration is at most 292 years")]
    Overflow,
}

/// A length of time with nanosecond resolution, in Go's notation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(u64);

impl GoDuration {
    /// The longest representable duration, about 292 years.
    pub const MAX: Self = Self(MAX_NANOS);

    /// A duration of whole seconds, cut at [`Self::MAX`].
    pub const fn from_secs(seconds: u64) -> Self {
        let nanos = seconds.saturating_mul(1_000_000_000);
        Self(if nanos > MAX_NANOS { MAX_NANOS } else { nanos })
    }

    /// Parses Go's notation. `0` needs no unit, every other number does.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        if text.is_empty() {
            return Err(DurationError::Empty);
        }
        if text == "0" {
            return Ok(Self(0));
        }
        let mut rest = text;
        let mut total = 0_u64;
        while !rest.is_empty() {
            let (term, tail) = parse_term(rest)?;
            total = total
                .checked_add(term)
                .filter(|nanos| *nanos <= MAX_NANOS)
                .ok_or(DurationError::Overflow)?;
            rest = tail;
        }
        Ok(Self(total))
    }

    /// The value as a standard duration.
    pub const fn to_std(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// True for `0s`.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// Reads `<digits>[.<digits>]<unit>` from the start of `text`: nanoseconds and the rest.
fn parse_term(text: &str) -> Result<(u64, &str), DurationError> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), split_digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Number);
    }
    let end = rest
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (name, tail) = rest.split_at_checked(end).ok_or(DurationError::Unit)?;
    let unit = UNITS
        .iter()
        .find(|(unit, _)| *unit == name)
        .map(|(_, nanos)| *nanos)
        .ok_or(DurationError::Unit)?;
    let count = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().map_err(|_| DurationError::Overflow)?
    };
    let nanos = count.checked_mul(unit).ok_or(DurationError::Overflow)?;
    let nanos = nanos
        .checked_add(fraction_nanos(fraction, unit))
        .ok_or(DurationError::Overflow)?;
    Ok((nanos, tail))
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// `0.<digits>` of a unit in whole nanoseconds, rounded down. Digits beyond the eighteenth are below a nanosecond of
/// the longest unit and are not read.
fn fraction_nanos(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0_u128, 1_u128);
    for digit in digits.bytes().take(18) {
        value = value * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    u64::try_from(value * u128::from(unit) / scale).unwrap_or(u64::MAX)
}

/// Go's form: the largest unit that fits below a second (`1.5ms`), hours, minutes and seconds above (`1h0m0s`).
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0;
        match nanos {
            0 => return f.write_str("0s"),
            1..1_000 => return write!(f, "{nanos}ns"),
            1_000..1_000_000 => return write!(f, "{}\u{b5}s", Decimal(nanos, 3)),
            1_000_000..1_000_000_000 => return write!(f, "{}ms", Decimal(nanos, 6)),
            _ => {}
        }
        let minutes = nanos / 60_000_000_000;
        let (hours, minutes) = (minutes / 60, minutes % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", Decimal(nanos % 60_000_000_000, 9))
    }
}

/// `.0` divided by ten to the power `.1`, without trailing zeros.
struct Decimal(u64, u32);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = 10_u64.pow(self.1);
        write!(f, "{}", self.0 / scale)?;
        let (mut fraction, mut width) = (self.0 % scale, self.1 as usize);
        if fraction == 0 {
            return Ok(());
        }
        while fraction % 10 == 0 {
            fraction /= 10;
            width -= 1;
        }
        write!(f, ".{fraction:0width$}")
    }
}

impl From<GoDuration> for Duration {
    fn from(duration: GoDuration) -> Self {
        duration.to_std()
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads as [`GoDuration::parse`] does, except that an overlong duration becomes [`GoDuration::MAX`]: the pattern in
/// the CRD lets `9999999999h` through, and one such object must not stop a whole watch from decoding.
impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match Self::parse(&text) {
            Err(DurationError::Overflow) => Ok(Self::MAX),
            other => other.map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests;
