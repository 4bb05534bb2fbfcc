//! Which paths an archive leaves out: patterns in the syntax of gitignore, read as go-git 5.16 reads them, because
//! Flux has a copy of that and users' patterns were written against it.
//!
//! The last pattern that matches decides. Patterns are scoped to the directory their file stands in (their *domain*).
//! Excluded directories are still descended, so `/*` followed by `!/deploy` keeps `deploy`.

mod builtin;
mod collect;
mod glob;
mod pattern;

pub(crate) use glob::Glob;
use pattern::Pattern;

/// What the patterns say about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The last match is a plain pattern.
    Excluded,
    /// The last match is a `!` pattern.
    Included,
    /// Nothing matches.
    Unmentioned,
}

/// An ordered list of patterns.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    list: Vec<Pattern>,
}

impl Patterns {
    /// No pattern: nothing is excluded.
    pub fn none() -> Self {
        Self::default()
    }

    /// What applies when neither `spec.ignore` nor any `.sourceignore` brings a pattern: version control, media and
    /// archive files, CI configuration, tool configuration.
    pub fn built_in() -> Self {
        let mut patterns = Self::default();
        for text in [
            builtin::VERSION_CONTROL,
            builtin::EXTENSIONS,
            builtin::CONTINUOUS_INTEGRATION,
            builtin::EXTRA,
        ] {
            patterns.add(text, &[]);
        }
        patterns
    }

    /// What users' own patterns are added to: version control only.
    pub fn version_control() -> Self {
        let mut patterns = Self::default();
        patterns.add(builtin::VERSION_CONTROL, &[]);
        patterns
    }

    /// Appends the patterns of another list.
    fn append(&mut self, other: Self) {
        self.list.extend(other.list);
    }

    /// Appends the patterns of one text, a pattern per line, scoped to the directory `domain` (elements from the root).
    /// Blank lines and lines that begin with `#` are skipped; one CR at the end of a line is no part of it.
    pub fn add(&mut self, text: &str, domain: &[&str]) {
        let lines = text
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        self.list.extend(lines.map(|line| Pattern::parse(line, domain)));
    }

    /// True when there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What the last pattern that matches says about `path` (its elements from the root).
    pub fn verdict(&self, path: &[&str], is_directory: bool) -> Verdict {
        self.verdict_within(path, is_directory, &mut 0)
    }

    /// [`Self::verdict`]; adds to `steps` what it took: at most patterns' length × path's length, most often far less.
    pub(super) fn verdict_within(&self, path: &[&str], is_directory: bool, steps: &mut u64) -> Verdict {
        match self
            .list
            .iter()
            .rev()
            .find(|pattern| pattern.matches(path, is_directory, steps))
        {
            Some(pattern) if pattern.includes() => Verdict::Included,
            Some(_) => Verdict::Excluded,
            None => Verdict::Unmentioned,
        }
    }

    /// True when `path` is left out.
    pub fn excludes(&self, path: &[&str], is_directory: bool) -> bool {
        self.verdict(path, is_directory) == Verdict::Excluded
    }
}

#[cfg(test)]
mod tests;
