//! One comparison of a constraint, such as `>= 1.2`. What a missing or wild part means depends on the operator; the rules
//! are those of Masterminds/semver 3.5, including the ones for a wild major, which its documentation tells differently.

use super::{scan::Parts, version::Version};

/// Operators by their spelling; where one begins with another, the longer comes first. Without any it is `Equal`.
pub(super) const OPERATORS: [(&str, Operator); 12] = [
    ("!=", Operator::NotEqual),
    (">=", Operator::GreaterOrEqual),
    ("=>", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("=<", Operator::LessOrEqual),
    ("~>", Operator::Tilde),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("=", Operator::Equal),
    ("~", Operator::Tilde),
    ("^", Operator::Caret),
    ("", Operator::Equal),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    /// Up to the next minor, or major where the minor is not given.
    Tilde,
    /// Up to the next change of the leftmost number that is not 0.
    Caret,
}

/// Which of the numbers are given, from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    None,
    Major,
    Minor,
    All,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparator {
    operator: Operator,
    /// With 0 for what is not given.
    version: Version,
    given: Given,
}

fn is_wild(part: &str) -> bool {
    matches!(part, "x" | "X" | "*")
}

impl Comparator {
    /// None when a part is neither a number nor wild. What stands after a wild part does not count.
    pub(super) fn new(operator: Operator, parts: &Parts<'_>) -> Option<Self> {
        let number = |part: Option<&'_ str>| part.filter(|part| !is_wild(part)).map(str::to_owned);
        let pre = if parts.pre.is_empty() {
            String::new()
        } else {
            format!("-{}", parts.pre)
        };
        let major = parts.major;
        let (given, text) = match (number(Some(major)), number(parts.minor), number(parts.patch)) {
            (None, _, _) => (Given::None, format!("0.0.0{pre}")),
            (Some(_), None, _) => (Given::Major, format!("{major}.0.0{pre}")),
            (Some(_), Some(minor), None) => (Given::Minor, format!("{major}.{minor}.0{pre}")),
            _ => (Given::All, parts.whole.to_owned()),
        };
        Some(Self {
            operator,
            version: Version::parse(&text)?,
            given,
        })
    }

    /// Whether it names a prerelease.
    pub(super) fn names_prerelease(&self) -> bool {
        !self.version.pre.is_empty()
    }

    /// Whether the version is within. Whether prereleases count at all is the group's affair.
    pub(super) fn admits(&self, version: &Version) -> bool {
        let mine = &self.version;
        match (self.operator, self.given) {
            (Operator::Equal, Given::All) => version == mine,
            (Operator::Equal | Operator::Tilde, _) => self.tilde(version),
            (Operator::NotEqual, Given::All | Given::None) => version != mine,
            (Operator::NotEqual, Given::Major) => version.major != mine.major,
            (Operator::NotEqual, Given::Minor) => series(version) != series(mine) || version.pre != mine.pre,
            (Operator::Greater, Given::All | Given::None) => version > mine,
            (Operator::Greater, Given::Major) => version.major > mine.major,
            (Operator::Greater, Given::Minor) => series(version) > series(mine),
            (Operator::GreaterOrEqual, _) => version >= mine,
            (Operator::Less, _) => version < mine,
            (Operator::LessOrEqual, Given::All) => version <= mine,
            (Operator::LessOrEqual, Given::Major) => version.major <= mine.major,
            (Operator::LessOrEqual, Given::Minor | Given::None) => series(version) <= series(mine),
            (Operator::Caret, _) => self.caret(version),
        }
    }

    fn tilde(&self, version: &Version) -> bool {
        let mine = &self.version;
        let unbounded = matches!(self.given, Given::None | Given::All) && numbers(mine) == (0, 0, 0);
        let within = match self.given {
            Given::Major => version.major == mine.major,
            _ => series(version) == series(mine),
        };
        version >= mine && (unbounded || within)
    }

    fn caret(&self, version: &Version) -> bool {
        let mine = &self.version;
        let within = if mine.major > 0 || self.given == Given::Major {
            version.major == mine.major
        } else if mine.minor > 0 || self.given == Given::Minor {
            series(version) == series(mine)
        } else {
            numbers(version) == numbers(mine)
        };
        version >= mine && within
    }
}

fn series(version: &Version) -> (u64, u64) {
    (version.major, version.minor)
}

fn numbers(version: &Version) -> (u64, u64, u64) {
    (version.major, version.minor, version.patch)
}
