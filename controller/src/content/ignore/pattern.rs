//! One line of an ignore file, with the corners of go-git's reading where they differ from git's: a pattern that
//! matches a directory covers what is below it, `**` counts only as a whole element and gives way to the first element
//! that fits, and any element of a path satisfies a pattern without a slash.

use super::glob::Glob;

#[derive(Debug, Clone)]
pub(super) struct Pattern {
    domain: Vec<Box<str>>,
    includes: bool,
    directories_only: bool,
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    /// No slash but perhaps a trailing one: matches any element.
    Name(Glob),
    /// Elements from the domain on.
    Path(Vec<Element>),
}

#[derive(Debug, Clone)]
enum Element {
    /// Before a leading slash, or between two.
    Empty,
    /// `**`.
    AnyDepth,
    Glob(Glob),
    /// `**` within an element: the pattern matches nothing.
    Never,
}

impl Pattern {
    pub(super) fn parse(line: &str, domain: &[&str]) -> Self {
        let (includes, line) = match line.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        // An escaped space at the end is part of the name.
        let line = if line.ends_with("\\ ") {
            line
        } else {
            line.trim_end_matches(' ')
        };
        let (directories_only, line) = match line.strip_suffix('/') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let shape = if line.contains('/') {
            Shape::Path(line.split('/').map(Element::parse).collect())
        } else {
            Shape::Name(Glob::new(line))
        };
        Self {
            domain: domain.iter().map(|element| (*element).into()).collect(),
            includes,
            directories_only,
            shape,
        }
    }

    pub(super) fn includes(&self) -> bool {
        self.includes
    }

    /// Whether the pattern speaks of `path`. Adds what it took to `steps`.
    pub(super) fn matches(&self, path: &[&str], is_directory: bool, steps: &mut u64) -> bool {
        *steps += 1;
        let Some((parents, path)) = path.split_at_checked(self.domain.len()) else {
            return false;
        };
        if path.is_empty()
            || parents
                .iter()
                .zip(&self.domain)
                .any(|(element, domain)| **element != **domain)
        {
            return false;
        }
        match &self.shape {
            Shape::Name(glob) => self.matches_name(glob, path, is_directory, steps),
            Shape::Path(elements) => self.matches_path(elements, path, is_directory, steps),
        }
    }

    /// The first element that fits decides.
    fn matches_name(&self, glob: &Glob, path: &[&str], is_directory: bool, steps: &mut u64) -> bool {
        match path.iter().position(|element| glob.matches(element, steps)) {
            Some(at) => !(self.directories_only && !is_directory && at + 1 == path.len()),
            None => false,
        }
    }

    fn matches_path(&self, elements: &[Element], mut path: &[&str], is_directory: bool, steps: &mut u64) -> bool {
        let mut matched = false;
        let mut any_depth = false;
        for (index, element) in elements.iter().enumerate() {
            let is_last = index + 1 == elements.len();
            match element {
                Element::Empty => any_depth = false,
                Element::AnyDepth if is_last => break,
                Element::AnyDepth => any_depth = true,
                Element::Never => return false,
                Element::Glob(glob) => {
                    let within = if any_depth {
                        path
                    } else {
                        path.get(..1).unwrap_or_default()
                    };
                    let Some(at) = within.iter().position(|element| glob.matches(element, steps)) else {
                        return false;
                    };
                    path = path.get(at + 1..).unwrap_or_default();
                    // Also when only `**` follows: `dir/**` means `dir` itself too.
                    matched = true;
                    any_depth = false;
                }
            }
        }
        matched && !(self.directories_only && !is_directory && path.is_empty())
    }
}

impl Element {
    fn parse(text: &str) -> Self {
        match text {
            "" => Self::Empty,
            "**" => Self::AnyDepth,
            other if other.contains("**") => Self::Never,
            other => Self::Glob(Glob::new(other)),
        }
    }
}
