//! Directories held open by descriptor. Every name is one element, resolved in its directory without following a
//! symlink, so that nothing that appears in the tree can lead an operation out of it.

use std::{
    ffi::{OsStr, OsString},
    fs::{DirBuilder, File},
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStringExt, fs::DirBuilderExt},
    },
    path::Path,
};

use jiff::Timestamp;
use rustix::{
    fs::{self, AtFlags, Mode, OFlags},
    io::Errno,
};

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// How deep a removal descends. Our own layout is two levels; anything deeper was put there by somebody else.
const MAX_REMOVE_DEPTH: u32 = 64;

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
}

/// What identifies a version of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
}

impl Directory {
    /// Opens the root, created with its parents (0700) when missing. The path itself may lead over symlinks.
    pub(super) fn root(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            fd: fs::open(path, flags, Mode::empty())?,
        })
    }

    pub(super) fn open(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self {
            fd: fs::openat(&self.fd, name.as_ref(), flags, Mode::empty())?,
        })
    }

    pub(super) fn open_or_create(&self, name: &str) -> io::Result<Self> {
        match fs::mkdirat(&self.fd, name, Mode::from_raw_mode(DIRECTORY_MODE)) {
            Ok(()) | Err(Errno::EXIST) => self.open(name),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn create_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(fs::openat(
            &self.fd,
            name,
            flags,
            Mode::from_raw_mode(FILE_MODE),
        )?))
    }

    /// Opens a regular file for reading. Never waits, whatever stands there.
    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(fs::openat(&self.fd, name, flags, Mode::empty())?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    pub(super) fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file(name)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Facts of a regular file. `path` may have several elements.
    pub(super) fn stat(&self, path: &str) -> io::Result<Facts> {
        let stat = fs::statat(&self.fd, path, AtFlags::SYMLINK_NOFOLLOW)?;
        if !fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let nanoseconds = i32::try_from(stat.st_mtime_nsec).map_err(io::Error::other)?;
        let mtime = Timestamp::new(stat.st_mtime, nanoseconds).map_err(io::Error::other)?;
        Ok(Facts {
            size: u64::try_from(stat.st_size).map_err(io::Error::other)?,
            mtime,
        })
    }

    pub(super) fn rename(&self, from: &str, to_directory: &Self, to: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.fd, from, &to_directory.fd, to)?)
    }

    /// Makes `name` a symlink to `target`, replacing what was there in one step by way of `by_way_of`.
    pub(super) fn replace_symlink(&self, name: &str, target: &str, by_way_of: &str) -> io::Result<()> {
        if fs::readlinkat(&self.fd, name, Vec::new()).is_ok_and(|there| there.as_bytes() == target.as_bytes()) {
            return Ok(());
        }
        self.remove(OsStr::new(by_way_of))?;
        fs::symlinkat(target, &self.fd, by_way_of)?;
        self.rename(by_way_of, self, name)
    }

    /// Every name in the directory.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        Ok(names)
    }

    /// Removes a file, symlink or whole directory. Nothing there is success.
    pub(super) fn remove(&self, name: &OsStr) -> io::Result<()> {
        self.remove_below(name, MAX_REMOVE_DEPTH)
    }

    fn remove_below(&self, name: &OsStr, depth: u32) -> io::Result<()> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // Linux says ISDIR, POSIX PERM.
            Err(Errno::ISDIR | Errno::PERM) if depth > 0 => {
                let directory = self.open(name)?;
                for child in directory.names()? {
                    directory.remove_below(&child, depth - 1)?;
                }
                match fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a directory if it is empty.
    pub(super) fn remove_if_empty(&self, name: &OsStr) -> io::Result<()> {
        match fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Free (for unprivileged users) and total bytes of the volume.
    pub(super) fn volume(&self) -> io::Result<(u64, u64)> {
        let volume = fs::fstatvfs(&self.fd)?;
        let bytes = |blocks: u64| blocks.saturating_mul(volume.f_frsize);
        Ok((bytes(volume.f_bavail), bytes(volume.f_blocks)))
    }
}

/// Facts of an open file.
pub(super) fn facts(file: &File) -> io::Result<Facts> {
    let metadata = file.metadata()?;
    let mtime = Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)?;
    Ok(Facts {
        size: metadata.len(),
        mtime,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn root() -> (tempfile::TempDir, Directory) {
        let path = tempfile::tempdir().unwrap();
        let directory = Directory::root(&path.path().join("a/b")).unwrap();
        (path, directory)
    }

    #[test]
    fn directories_are_0700_and_files_0600() {
        let (path, root) = root();
        root.open_or_create("d").unwrap().create_file("f").unwrap();
        let mode = |below: &str| std::fs::metadata(path.path().join(below)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            [mode("a"), mode("a/b"), mode("a/b/d"), mode("a/b/d/f")],
            [0o700, 0o700, 0o700, 0o600]
        );
    }

    #[test]
    fn symlinks_are_never_followed() {
        let (path, root) = root();
        let outside = path.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("f"), "secret").unwrap();
        symlink(&outside, path.path().join("a/b/link")).unwrap();
        symlink(outside.join("f"), path.path().join("a/b/file")).unwrap();
        assert!(root.open("link").is_err());
        assert!(root.open_or_create("link").is_err());
        assert!(root.open_file("file").is_err());
        assert!(root.stat("file").is_err());
        assert!(root.create_file("file").is_err());
        root.remove(OsStr::new("link")).unwrap();
        assert!(outside.join("f").exists());
    }

    #[test]
    fn removal_takes_whole_trees_and_tolerates_absence() {
        let (path, root) = root();
        std::fs::create_dir_all(path.path().join("a/b/x/y/z")).unwrap();
        std::fs::write(path.path().join("a/b/x/y/f"), "f").unwrap();
        root.remove(OsStr::new("x")).unwrap();
        root.remove(OsStr::new("x")).unwrap();
        assert!(root.names().unwrap().is_empty());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let (_path, root) = root();
        root.open_or_create("d").unwrap();
        assert!(root.open_file("d").is_err());
        assert!(root.stat("d").is_err());
    }

    #[test]
    fn symlink_is_replaced_in_one_step() {
        let (path, root) = root();
        for target in ["one", "two", "two"] {
            root.replace_symlink("latest", target, ".latest").unwrap();
            assert_eq!(
                std::fs::read_link(path.path().join("a/b/latest")).unwrap(),
                Path::new(target)
            );
        }
        assert_eq!(root.names().unwrap(), ["latest"]);
    }

    #[test]
    fn facts_agree_between_name_and_descriptor() {
        let (_path, root) = root();
        let file = root.create_file("f").unwrap();
        assert_eq!(facts(&file).unwrap(), root.stat("f").unwrap());
    }
}
