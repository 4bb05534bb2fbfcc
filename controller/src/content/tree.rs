//! What a layer contains: directories and files in memory by name, contents in one spool. Nothing is ever created on
//! disk under a name from the layer, so there is no path to traverse: a tree of name → node is the whole file system.

use std::{
    collections::BTreeMap,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use tempfile::SpooledTempFile;

use super::{
    error::{Cap, ContentError, shown},
    limits::Limits,
};

/// An extracted layer. Contents beyond [`Limits::spool_memory`] live in an unlinked file that goes with this value.
#[derive(Debug)]
pub struct Tree {
    pub(super) nodes: Nodes,
    pub(super) contents: SpooledTempFile,
}

pub(super) type NodeId = usize;

/// Directories and files; the root is number 0.
#[derive(Debug)]
pub(super) struct Nodes {
    list: Vec<Node>,
}

#[derive(Debug)]
pub(super) enum Node {
    /// Children by name, in the byte order of their names.
    Directory(BTreeMap<Box<str>, NodeId>),
    File(FileNode),
}

/// Where a file's contents stand in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileNode {
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Any of the three execute bits is set.
    pub(super) executable: bool,
}

impl Nodes {
    pub(super) const ROOT: NodeId = 0;

    pub(super) fn get(&self, id: NodeId) -> Option<&Node> {
        self.list.get(id)
    }

    /// Directories and files, the root included.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The directory at `path`, created together with its missing parents.
    pub(super) fn directory(&mut self, path: &[&str]) -> Result<NodeId, ContentError> {
        let mut at = Self::ROOT;
        for (depth, name) in path.iter().enumerate() {
            at = self
                .child_or_insert(at, name, || Node::Directory(BTreeMap::new()))
                .filter(|id| matches!(self.list.get(*id), Some(Node::Directory(_))))
                .ok_or_else(|| conflict(path.get(..=depth).unwrap_or(path)))?;
        }
        Ok(at)
    }

    /// Puts a file at `path`; a file that stands there already is replaced, as by untar.
    pub(super) fn file(&mut self, path: &[&str], file: FileNode) -> Result<(), ContentError> {
        let (name, parents) = path.split_last().ok_or_else(|| conflict(path))?;
        let parent = self.directory(parents)?;
        let id = self
            .child_or_insert(parent, name, || Node::File(file))
            .ok_or_else(|| conflict(parents))?;
        match self.list.get_mut(id) {
            Some(Node::File(there)) => {
                *there = file;
                Ok(())
            }
            _ => Err(conflict(path)),
        }
    }

    /// The child of that name, inserted when there is none; nothing when `parent` is a file.
    fn child_or_insert(&mut self, parent: NodeId, name: &str, make: impl FnOnce() -> Node) -> Option<NodeId> {
        let next = self.list.len();
        let Some(Node::Directory(children)) = self.list.get_mut(parent) else {
            return None;
        };
        if let Some(id) = children.get(name) {
            return Some(*id);
        }
        children.insert(name.into(), next);
        self.list.push(make());
        Some(next)
    }
}

fn conflict(path: &[&str]) -> ContentError {
    let path = if path.is_empty() {
        ".".to_owned()
    } else {
        shown(path.join("/").as_bytes())
    };
    ContentError::Conflict { path }
}

impl Tree {
    pub(super) fn new(limits: &Limits, spool_dir: &Path) -> Self {
        Self {
            nodes: Nodes {
                list: vec![Node::Directory(BTreeMap::new())],
            },
            contents: tempfile::spooled_tempfile_in(limits.spool_memory, spool_dir),
        }
    }

    /// Directories count too, also those that only the path of a file implies: 64 of them fit into one short path.
    pub(super) fn check_count(&self, limits: &Limits) -> Result<(), ContentError> {
        let beyond_root = self.nodes.len().saturating_sub(1);
        if beyond_root > limits.max_entries as usize {
            return Err(ContentError::TooLarge(Cap::Entries(limits.max_entries)));
        }
        Ok(())
    }

    /// Appends contents to the spool, whose position is always its end while the layer is read.
    pub(super) fn spool(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        self.contents.write_all(bytes).map_err(ContentError::Spool)
    }

    /// Reads a file's contents, as far as `limit` bytes.
    pub(super) fn read(&mut self, file: &FileNode, limit: u64) -> io::Result<Vec<u8>> {
        Self::seek(&mut self.contents, file)?;
        let mut bytes = Vec::new();
        Read::take(&mut self.contents, file.size.min(limit)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Positions the spool at a file's first byte.
    pub(super) fn seek(contents: &mut SpooledTempFile, file: &FileNode) -> io::Result<()> {
        contents.seek(SeekFrom::Start(file.offset)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Nodes {
        Nodes {
            list: vec![Node::Directory(BTreeMap::new())],
        }
    }

    const FILE: FileNode = FileNode {
        offset: 0,
        size: 1,
        executable: false,
    };

    #[test]
    fn missing_parents_are_made() {
        let mut nodes = nodes();
        nodes.file(&["a", "b", "c"], FILE).unwrap();
        assert_eq!(nodes.len(), 4);
        nodes.directory(&["a", "b"]).unwrap();
        assert_eq!(nodes.len(), 4);
    }

    #[test]
    fn later_file_replaces_the_earlier() {
        let mut nodes = nodes();
        nodes.file(&["a"], FILE).unwrap();
        let later = FileNode {
            offset: 9,
            size: 2,
            executable: true,
        };
        nodes.file(&["a"], later).unwrap();
        assert!(matches!(nodes.get(1), Some(Node::File(file)) if *file == later));
    }

    #[test]
    fn file_and_directory_of_one_name_conflict() {
        let mut nodes = nodes();
        nodes.file(&["a"], FILE).unwrap();
        nodes.directory(&["d"]).unwrap();
        let under_file = nodes.file(&["a", "b"], FILE).unwrap_err();
        assert_eq!(under_file.to_string(), "tar entry 'a' is both a file and a directory");
        assert!(matches!(nodes.directory(&["a"]), Err(ContentError::Conflict { .. })));
        assert!(matches!(nodes.file(&["d"], FILE), Err(ContentError::Conflict { .. })));
        assert!(matches!(nodes.file(&[], FILE), Err(ContentError::Conflict { path }) if path == "."));
    }
}
