//! What lies in a controller's storage, held against the objects' statuses: nothing torn, nothing that belongs to nobody.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use mintmark_api::artifact::Artifact;
use serde_json::Value;

use crate::fault_registry::sha256;

const RECORD: &str = ".record.json";
const LATEST: &str = "latest.tar.gz";
const STAGING: &str = ".staging/";

/// Every file and link below `folder`, relative to it.
pub fn files(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(folder)?.display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What belongs into the storage: of every object its archive, its record and the link to the archive.
pub fn expected_files<'a>(stored: impl IntoIterator<Item = &'a Artifact>) -> Vec<String> {
    let mut expected = Vec::new();
    for stored in stored {
        let folder = stored.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        expected.push(stored.path.clone());
        expected.push(format!("{folder}/{RECORD}"));
        expected.push(format!("{folder}/{LATEST}"));
    }
    expected.sort();
    expected
}

/// What is in the one and not in the other, for messages: with `+` what is too much, with `-` what is missing.
pub fn difference(found: &[String], expected: &[String]) -> Vec<String> {
    let (found, expected): (BTreeSet<_>, BTreeSet<_>) = (found.iter().collect(), expected.iter().collect());
    let extra = found.difference(&expected).map(|file| format!("+{file}"));
    extra
        .chain(expected.difference(&found).map(|file| format!("-{file}")))
        .collect()
}

/// What the records of a storage say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// How many name a file that is there.
    pub whole: usize,
    /// UIDs of objects whose record names a file that is not there: a kill in the middle of their removal leaves that.
    pub without_file: Vec<String>,
}

/// Looks at the storage of a controller that does not run: fails if a file is not what its record says, or if an archive
/// outside of the staging folder is torn.
pub fn check_whole(storage: &Path) -> Result<Records> {
    let mut records = Records::default();
    for name in files(storage)?.iter().filter(|name| !name.starts_with(STAGING)) {
        let path = storage.join(name);
        if name.ends_with(RECORD) {
            check_record(&path, &mut records)?;
        } else if name.ends_with(".tar.gz") && !name.ends_with(LATEST) {
            let mut archive = GzDecoder::new(File::open(&path)?);
            io::copy(&mut archive, &mut io::sink()).with_context(|| format!("{name} is torn"))?;
        }
    }
    Ok(records)
}

fn check_record(path: &Path, records: &mut Records) -> Result<()> {
    let record: Value =
        serde_json::from_slice(&fs::read(path)?).with_context(|| format!("{} is torn", path.display()))?;
    let text = |pointer: &str| {
        record
            .pointer(pointer)
            .and_then(Value::as_str)
            .context("an incomplete record")
    };
    let file = path.with_file_name(text("/file/name")?);
    match fs::read(&file) {
        Ok(bytes) => {
            ensure!(
                sha256(&bytes) == text("/file/digest")?,
                "{} is not what its record says",
                file.display()
            );
            records.whole += 1;
        }
        Err(_) => records.without_file.push(text("/binding/uid")?.to_owned()),
    }
    Ok(())
}
