//! The patterns that apply to one layer: its `.sourceignore` files, each scoped to its directory, then `spec.ignore`, below
//! them the lists that are built in. Reads the extracted tree; fails on more text than anybody writes by hand.

use super::Patterns;
use crate::content::{
    Tree,
    error::{Cap, ContentError},
    tree::{FileNode, Node, NodeId, Nodes},
};

/// Name of the files in a layer that bring patterns.
const SOURCE_IGNORE: &str = ".sourceignore";
/// Where no such file is looked for.
const SKIPPED: &str = ".git";
/// Most bytes of all such files and `spec.ignore` together.
const MAX_TEXT: u64 = 256 * 1024;

impl Tree {
    /// The patterns for this layer: the version control list and below it those of the layer and of `spec_ignore`, or, if
    /// these bring none at all, the built-in lists. The order is Flux's: a directory's file before those of its
    /// subdirectories by name, excluded directories included, and `spec.ignore` last.
    pub fn patterns(&mut self, spec_ignore: Option<&str>) -> Result<Patterns, ContentError> {
        let spec_ignore = spec_ignore.unwrap_or_default();
        let mut room = MAX_TEXT;
        take(&mut room, spec_ignore.len() as u64)?;
        let mut own = Patterns::none();
        for (domain, file) in self.nodes.source_ignores() {
            take(&mut room, file.size)?;
            let text = self.read(&file, MAX_TEXT).map_err(ContentError::SourceIgnore)?;
            let domain: Vec<&str> = domain.iter().map(|element| &**element).collect();
            own.add(&String::from_utf8_lossy(&text), &domain);
        }
        own.add(spec_ignore, &[]);
        if own.is_empty() {
            return Ok(Patterns::built_in());
        }
        let mut patterns = Patterns::version_control();
        patterns.append(own);
        Ok(patterns)
    }
}

fn take(room: &mut u64, size: u64) -> Result<(), ContentError> {
    *room = room
        .checked_sub(size)
        .ok_or(ContentError::TooLarge(Cap::IgnoreRules(MAX_TEXT)))?;
    Ok(())
}

/// The directory of a file, and the file.
type Found = (Vec<Box<str>>, FileNode);

impl Nodes {
    fn source_ignores(&self) -> Vec<Found> {
        let mut found = Vec::new();
        self.find_source_ignores(Self::ROOT, &mut Vec::new(), &mut found);
        found
    }

    /// Recursion is as deep as [`crate::content::Limits::max_depth`] lets a tree be.
    fn find_source_ignores(&self, at: NodeId, path: &mut Vec<Box<str>>, found: &mut Vec<Found>) {
        let Some(Node::Directory(children)) = self.get(at) else {
            return;
        };
        if let Some(Node::File(file)) = children.get(SOURCE_IGNORE).and_then(|id| self.get(*id)) {
            found.push((path.clone(), *file));
        }
        for (name, child) in children.iter().filter(|(name, _)| &***name != SKIPPED) {
            path.push(name.clone());
            self.find_source_ignores(*child, path, found);
            path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::content::{
        Cap, ContentError, Limits,
        testing::{Layer, extract_with, listing},
    };

    fn layer(files: &[(&str, &str)]) -> Vec<u8> {
        let add = |layer: Layer, (name, text): &(&str, &str)| layer.file(name, text.as_bytes());
        files.iter().fold(Layer::new(), add).gzip()
    }

    /// Files in the archive of these files, under `spec_ignore`.
    fn kept(files: &[(&str, &str)], spec_ignore: Option<&str>) -> Vec<String> {
        let mut tree = extract_with(&layer(files), &Limits::default()).unwrap();
        let patterns = tree.patterns(spec_ignore).unwrap();
        let mut archive = Vec::new();
        tree.write_archive(&patterns, &mut archive).unwrap();
        let files = listing(&archive).into_iter().filter_map(|line| {
            let (name, rest) = line.split_once(' ')?;
            rest.starts_with('-').then(|| name.to_owned())
        });
        files.collect()
    }

    #[test]
    fn without_patterns_the_built_in_lists_apply() {
        let files = [("a.yaml", ""), ("b.png", ""), (".gitignore", "")];
        for none in [None, Some(""), Some("# nothing\n\n")] {
            assert_eq!(kept(&files, none), ["a.yaml"], "{none:?}");
        }
    }

    #[test]
    fn any_pattern_leaves_only_the_version_control_list_of_them() {
        let files = [("a.yaml", ""), ("b.png", ""), (".gitignore", ""), ("c.txt", "")];
        assert_eq!(kept(&files, Some("*.txt")), ["a.yaml", "b.png"]);
        let files = [(".sourceignore", "*.txt"), ("b.png", ""), ("c.txt", "")];
        assert_eq!(kept(&files, None), [".sourceignore", "b.png"]);
    }

    #[test]
    fn files_are_scoped_to_their_directory_and_the_spec_has_the_last_word() {
        let files = [
            (".sourceignore", "*.md\n"),
            ("a.md", ""),
            ("docs/.sourceignore", "!keep.md\n/only\n.sourceignore"),
            ("docs/keep.md", ""),
            ("docs/only", ""),
            ("docs/sub/only", ""),
            ("only", ""),
            ("other/keep.md", ""),
        ];
        assert_eq!(
            kept(&files, None),
            [".sourceignore", "docs/keep.md", "docs/sub/only", "only"]
        );
        assert_eq!(
            kept(&files, Some("keep.md")),
            [".sourceignore", "docs/sub/only", "only"]
        );
    }

    #[test]
    fn files_in_excluded_directories_count_and_in_git_directories_do_not() {
        let files = [
            (".sourceignore", "/vendor\n"),
            (".git/.sourceignore", "!*\n"),
            (".git/config", ""),
            ("vendor/.sourceignore", "!keep\n"),
            ("vendor/keep", ""),
            ("vendor/other", ""),
        ];
        assert_eq!(kept(&files, None), [".sourceignore", "vendor/keep"]);
    }

    #[test]
    fn a_directory_of_that_name_brings_nothing() {
        let files = [(".sourceignore/a.yaml", "*"), ("b.png", "")];
        assert_eq!(kept(&files, None), [".sourceignore/a.yaml"]);
    }

    #[test]
    fn text_has_a_largest_size() {
        let long = "#\n".repeat(131_073);
        let layer = layer(&[("a/.sourceignore", &long)]);
        let mut tree = extract_with(&layer, &Limits::default()).unwrap();
        let error = tree.patterns(None).unwrap_err();
        assert!(matches!(error, ContentError::TooLarge(Cap::IgnoreRules(_))), "{error}");
        assert!(error.is_layer_fault());
        assert!(tree.patterns(Some(&long)).is_err());
    }
}
