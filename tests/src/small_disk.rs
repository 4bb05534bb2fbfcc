//! A real file system of a few mebibytes for one controller's storage, which a test fills up and makes read-only. It is a
//! tmpfs in a user and mount namespace of the controller's own, so that no privilege is needed and nobody else sees it.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// What the launcher does inside of the namespaces before it becomes the controller.
const MOUNT: &str = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && echo $$ >"$2.pid" && shift 2 && exec "$@""#;
const FILLER: &str = "filler";

/// The disk. It goes with the controller's process, and is empty again when that is started anew.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
    bytes: u64,
}

impl SmallDisk {
    /// A disk of this size. Fails where the machine does not allow namespaces: then nothing here can be tested.
    pub fn new(bytes: u64) -> Result<Self> {
        let disk = Self {
            folder: tempfile::Builder::new().prefix("mintmark-disk-").tempdir()?,
            bytes,
        };
        fs::create_dir(disk.mount_point())?;
        let tried = command(&disk.launcher())
            .arg("true")
            .output()
            .context("cannot run unshare (util-linux)")?;
        ensure!(
            tried.status.success(),
            "this machine allows no user namespaces with mounts (`unshare --user --map-root-user --mount`), which a full or \
             read-only disk is tested with; see kernel.apparmor_restrict_unprivileged_userns and the container's seccomp \
             profile: {}",
            String::from_utf8_lossy(&tried.stderr)
        );
        Ok(disk)
    }

    /// The program that mounts the disk and becomes the command behind it.
    pub(crate) fn launcher(&self) -> Vec<String> {
        let (size, mount_point) = (self.bytes.to_string(), self.mount_point().display().to_string());
        let fixed = [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            MOUNT,
            "sh",
        ];
        fixed
            .into_iter()
            .map(str::to_owned)
            .chain([size, mount_point])
            .collect()
    }

    /// The flag that puts the storage on the disk.
    pub(crate) fn storage_flag(&self) -> String {
        format!("--storage-path={}", self.mount_point().join("data").display())
    }

    /// The storage as this process reaches it.
    pub fn storage(&self) -> Result<PathBuf> {
        Ok(self.seen()?.join("data"))
    }

    /// Writes until nothing more can be written.
    pub fn fill(&self) -> Result<()> {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.seen()?.join(FILLER))?;
        // The last bytes one page at a time.
        loop {
            match file.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes until less than this percentage is free.
    pub fn fill_up_to(&self, percent_free: u64) -> Result<()> {
        let used = self.bytes - self.bytes * percent_free / 100;
        Ok(fs::File::create(self.seen()?.join(FILLER))?.write_all(&vec![0; usize::try_from(used)?])?)
    }

    /// Takes away again what filled it.
    pub fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.seen()?.join(FILLER))?)
    }

    /// Makes it read-only, or writable again. Refused by the kernel while a file is being written.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let process = format!("--target={}", self.process()?);
        let option = if read_only { "remount,ro" } else { "remount,rw" };
        let changed = Command::new("nsenter")
            .args([&process, "--user", "--mount", "mount", "-o", option])
            .arg(self.mount_point())
            .output()
            .context("cannot run nsenter (util-linux)")?;
        ensure!(
            changed.status.success(),
            "{option}: {}",
            String::from_utf8_lossy(&changed.stderr)
        );
        Ok(())
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// The mount point from outside of the namespace.
    fn seen(&self) -> Result<PathBuf> {
        let inside = self.mount_point();
        Ok(Path::new("/proc")
            .join(self.process()?)
            .join("root")
            .join(inside.strip_prefix("/")?))
    }

    fn process(&self) -> Result<String> {
        let id = fs::read_to_string(self.folder.path().join("disk.pid")).context("nothing runs on the disk")?;
        Ok(id.trim().to_owned())
    }
}

fn command(launcher: &[String]) -> Command {
    let (program, arguments) = launcher
        .split_first()
        .map_or(("", &[][..]), |(program, rest)| (program.as_str(), rest));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
