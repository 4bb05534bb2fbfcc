//! Puts a stored artifact into a folder: the files of an extracted layer, or the one file of a copied one.

use std::{
    fs::{self, File},
    io,
    path::{Component, Path, PathBuf},
};

use flate2::read::GzDecoder;
use mintmark_api::oci_repository::LayerOperation;
use tar::Archive;

use super::super::FlagError;

/// The name of a copied layer.
const COPY: &str = "layer";

/// A folder that was empty.
#[derive(Debug)]
pub(super) struct Target(PathBuf);

impl Target {
    /// Makes the folder if it is missing; one that holds anything is refused.
    pub(super) fn new(path: &Path) -> Result<Self, FlagError> {
        let refuse = |problem: String| FlagError::new("output", format!("{}: {problem}", path.display()));
        fs::create_dir_all(path).map_err(|error| refuse(error.to_string()))?;
        let mut entries = fs::read_dir(path).map_err(|error| refuse(error.to_string()))?;
        if entries.next().is_some() {
            return Err(refuse("is not empty".to_owned()));
        }
        Ok(Self(path.to_owned()))
    }

    /// Writes what `stored` holds; returns the number of files.
    pub(super) fn fill(&self, stored: &Path, operation: LayerOperation) -> io::Result<usize> {
        if operation == LayerOperation::Copy {
            fs::copy(stored, self.0.join(COPY))?;
            return Ok(1);
        }
        let mut files = 0;
        for entry in Archive::new(GzDecoder::new(File::open(stored)?)).entries()? {
            let mut entry = entry?;
            let Some(path) = self.inside(&entry.path()?) else {
                continue;
            };
            if entry.header().entry_type().is_dir() {
                fs::create_dir_all(path)?;
            } else if entry.header().entry_type().is_file() {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                io::copy(&mut entry, &mut File::create_new(path)?)?;
                files += 1;
            }
        }
        Ok(files)
    }

    /// Our own archives hold plain relative names only; nothing else is written.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        path.components().all(is_plain).then(|| self.0.join(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_folder_is_filled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let target = Target::new(&path).unwrap();
        assert_eq!(target.inside(Path::new("./x/y")), Some(path.join("./x/y")));
        assert_eq!(target.inside(Path::new("../x")), None);
        assert_eq!(target.inside(Path::new("/x")), None);
        fs::write(path.join("x"), "").unwrap();
        assert!(Target::new(&path).unwrap_err().to_string().ends_with("is not empty"));
    }
}
