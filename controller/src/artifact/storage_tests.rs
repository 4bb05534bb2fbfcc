//! The promises of the storage, each against a real directory: what is served, what survives a crash, what goes.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    super::{Binding, Draft, Record},
    *,
};

struct Fixture {
    directory: tempfile::TempDir,
    storage: Storage,
    key: ObjectKey,
}

fn config(root: &std::path::Path) -> StorageConfig {
    StorageConfig {
        min_free_percent: 0,
        ..StorageConfig::new(root.join("data"))
    }
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::open(config(directory.path())).unwrap();
        Self {
            directory,
            storage,
            key: ObjectKey::new("ns", "app").unwrap(),
        }
    }

    /// A new process on the same directory: after a crash or a restart.
    fn restart(&mut self) {
        self.storage = Storage::open(config(self.directory.path())).unwrap();
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join("data").join(below)
    }

    fn object_path(&self, file: &str) -> PathBuf {
        self.path("ocirepository/ns/app").join(file)
    }

    fn begin(&self, uid: &str) -> Standing {
        self.storage.begin_pass(&self.key, uid, Timestamp::now()).unwrap()
    }

    fn store(&self, uid: &str, revision: &str, bytes: &[u8]) -> Arc<Record> {
        let mut staged = self.storage.stage(&self.key).unwrap();
        staged.write_all(bytes).unwrap();
        staged.commit(draft(uid, revision), Timestamp::now()).unwrap()
    }

    fn begin_and_store(&self, uid: &str, revision: &str, bytes: &[u8]) -> Arc<Record> {
        self.begin(uid);
        self.store(uid, revision, bytes)
    }

    fn served(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.storage.open_served(path)?.file.read_to_end(&mut bytes).unwrap();
        Some(bytes)
    }

    fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.object_path("")) else {
            return Vec::new();
        };
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn staged_files(&self) -> usize {
        fs::read_dir(self.storage.staging_path()).unwrap().count()
    }
}

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

fn revision(letter: char) -> String {
    format!("v1@{}", digest(letter))
}

fn file_of(letter: char) -> String {
    format!("{}.tar.gz", digest(letter))
}

fn path_of(letter: char) -> String {
    format!("ocirepository/ns/app/{}", file_of(letter))
}

fn draft(uid: &str, revision: &str) -> Draft {
    let binding = Binding {
        uid: uid.to_owned(),
        url: "oci://registry/app".to_owned(),
        ..Binding::default()
    };
    Draft {
        binding,
        revision: revision.to_owned(),
        ..Draft::default()
    }
}

#[test]
fn stored_artifact_is_as_recorded_and_served() {
    let fixture = Fixture::new();
    assert_eq!(fixture.begin("uid-1"), Standing::Absent);
    let record = fixture.store("uid-1", &revision('a'), b"hello");
    assert_eq!(record.path, path_of('a'));
    assert_eq!(record.file.size, 5);
    assert_eq!(
        record.file.digest,
        "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );
    assert_eq!(fixture.begin("uid-1"), Standing::Stored(record));
    assert_eq!(fixture.served(&path_of('a')).unwrap(), b"hello");
    let latest = fixture.storage.latest_path(&fixture.key);
    assert_eq!(latest, "ocirepository/ns/app/latest.tar.gz");
    assert_eq!(fixture.served(&latest).unwrap(), b"hello");
    assert_eq!(
        fixture.files(),
        [".record.json".to_owned(), "latest.tar.gz".to_owned(), file_of('a')]
    );
    assert_eq!(
        fs::read_link(fixture.object_path("latest.tar.gz")).unwrap(),
        PathBuf::from(file_of('a'))
    );
    assert_eq!(
        fixture.storage.usage(),
        Usage {
            objects: 1,
            files: 1,
            bytes: 5
        }
    );
    assert_eq!(fixture.staged_files(), 0);
}

#[test]
fn modes_keep_other_accounts_out() {
    let fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"hello");
    let mode = |path: PathBuf| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    for directory in [
        "",
        ".staging",
        "ocirepository",
        "ocirepository/ns",
        "ocirepository/ns/app",
    ] {
        assert_eq!(mode(fixture.path(directory)), 0o700, "{directory}");
    }
    for file in [file_of('a').as_str(), ".record.json"] {
        assert_eq!(mode(fixture.object_path(file)), 0o600, "{file}");
    }
}

#[test]
fn record_survives_a_restart_with_all_it_binds() {
    let mut fixture = Fixture::new();
    fixture.begin("uid-1");
    let mut staged = fixture.storage.stage(&fixture.key).unwrap();
    staged.write_all(b"hello").unwrap();
    let mut draft = draft("uid-1", &revision('a'));
    draft.binding.ignore = Some(String::new());
    draft.binding.referents.insert("Secret/ca".to_owned(), "42".to_owned());
    draft.binding.credential = Some(super::super::CredentialBinding {
        kind: "SpiffeJWT".to_owned(),
        subject: Some("spiffe://example.org/ocirepositories/ns/app".to_owned()),
        audiences: vec!["registry".to_owned()],
    });
    draft.binding.layer_selector = Some(super::super::LayerBinding::default());
    draft
        .metadata
        .insert("org.opencontainers.image.source".to_owned(), "x".to_owned());
    let record = staged.commit(draft, Timestamp::now()).unwrap();
    fixture.restart();
    assert_eq!(
        fixture.served(&path_of('a')),
        None,
        "nothing is served before the object's first pass"
    );
    assert_eq!(fixture.begin("uid-1"), Standing::Stored(record));
    assert_eq!(fixture.served(&path_of('a')).unwrap(), b"hello");
}

#[test]
fn another_uid_gets_nothing_of_the_old_object() {
    let mut fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"secret");
    assert_eq!(fixture.begin("uid-2"), Standing::Absent);
    assert_eq!(fixture.served(&path_of('a')), None);
    assert!(fixture.files().is_empty());
    fixture.begin_and_store("uid-1", &revision('a'), b"secret");
    fixture.restart();
    assert_eq!(fixture.begin("uid-2"), Standing::Absent);
    assert!(fixture.files().is_empty());
}

#[test]
fn pass_of_a_replaced_object_stores_nothing() {
    let fixture = Fixture::new();
    fixture.begin("uid-1");
    let mut staged = fixture.storage.stage(&fixture.key).unwrap();
    staged.write_all(b"late").unwrap();
    fixture.begin("uid-2");
    assert!(matches!(
        staged.commit(draft("uid-1", &revision('a')), Timestamp::now()),
        Err(StorageError::Superseded)
    ));
    assert!(fixture.files().is_empty());
    assert_eq!(fixture.staged_files(), 0);
}

#[test]
fn pass_of_a_deleted_object_stores_nothing() {
    let fixture = Fixture::new();
    fixture.begin("uid-1");
    let staged = fixture.storage.stage(&fixture.key).unwrap();
    assert!(fixture.storage.remove(&fixture.key, "uid-1").unwrap());
    assert!(matches!(
        staged.commit(draft("uid-1", &revision('a')), Timestamp::now()),
        Err(StorageError::Superseded)
    ));
    assert!(!fixture.path("ocirepository/ns").exists());
}

#[test]
fn removal_takes_the_artifact_but_never_a_successors() {
    let mut fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"one");
    assert!(fixture.storage.remove(&fixture.key, "uid-1").unwrap());
    assert_eq!(fixture.served(&path_of('a')), None);
    assert!(!fixture.path("ocirepository/ns").exists());

    let record = fixture.begin_and_store("uid-2", &revision('a'), b"two");
    assert!(!fixture.storage.remove(&fixture.key, "uid-1").unwrap());
    assert_eq!(fixture.served(&path_of('a')).unwrap(), b"two");
    fixture.restart();
    assert!(!fixture.storage.remove(&fixture.key, "uid-1").unwrap());
    assert_eq!(fixture.begin("uid-2"), Standing::Stored(record));
    assert!(fixture.storage.remove(&fixture.key, "uid-2").unwrap());
    assert!(fixture.files().is_empty());
}

#[test]
fn dropped_staging_leaves_nothing() {
    let fixture = Fixture::new();
    fixture.begin("uid-1");
    let mut staged = fixture.storage.stage(&fixture.key).unwrap();
    staged.write_all(&vec![0; 200_000]).unwrap();
    assert_eq!(fixture.staged_files(), 1);
    drop(staged);
    assert_eq!(fixture.staged_files(), 0);
    let staged = fixture.storage.stage(&fixture.key).unwrap();
    assert!(matches!(
        staged.commit(draft("uid-1", "latest"), Timestamp::now()),
        Err(StorageError::InvalidRevision(_))
    ));
    assert_eq!(fixture.staged_files(), 0);
}

#[test]
fn start_empties_the_staging_directory() {
    let mut fixture = Fixture::new();
    fs::write(fixture.storage.staging_path().join("1-1"), "torn").unwrap();
    fixture.restart();
    assert_eq!(fixture.staged_files(), 0);
}

#[path = "storage_crash_tests.rs"]
mod crash;

#[test]
fn touched_but_whole_file_is_hashed_once_and_kept() {
    let mut fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"good");
    let path = fixture.object_path(&file_of('a'));
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    assert_eq!(fixture.served(&path_of('a')), None, "not before it was hashed");
    let Standing::Stored(touched) = fixture.begin("uid-1") else {
        panic!("whole file was given up")
    };
    assert_eq!(touched.file.mtime, Timestamp::from_second(1_000_000).unwrap());
    assert_eq!(fixture.served(&path_of('a')).unwrap(), b"good");
    fixture.restart();
    assert_eq!(fixture.begin("uid-1"), Standing::Stored(touched));
}

#[test]
fn silent_damage_is_found_after_a_day_but_not_looked_for_before() {
    let fixture = Fixture::new();
    let record = fixture.begin_and_store("uid-1", &revision('a'), b"good");
    let path = fixture.object_path(&file_of('a'));
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, b"evil").unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(mtime)
        .unwrap();
    let later = |hours| record.last_update_time + SignedDuration::from_hours(hours);
    let pass = |hours| fixture.storage.begin_pass(&fixture.key, "uid-1", later(hours)).unwrap();
    assert!(matches!(pass(23), Standing::Stored(_)));
    assert!(matches!(pass(24), Standing::Lost(_, Loss::Damaged)));
}

#[test]
fn replaced_file_is_served_until_the_next_pass_and_then_by_retention() {
    let fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"a");
    fixture.begin_and_store("uid-1", &revision('b'), b"bb");
    assert_eq!(fixture.served(&path_of('a')).unwrap(), b"a");
    assert_eq!(fixture.served(&path_of('b')).unwrap(), b"bb");
    assert_eq!(
        fixture.storage.usage(),
        Usage {
            objects: 1,
            files: 2,
            bytes: 3
        }
    );
    // Young and among the newest two: it stays.
    fixture.begin("uid-1");
    assert!(fixture.served(&path_of('a')).is_some());
    // A third makes it one too many, from the next pass on.
    fixture.store("uid-1", &revision('c'), b"ccc");
    assert!(fixture.served(&path_of('a')).is_some());
    fixture.begin("uid-1");
    assert_eq!(fixture.served(&path_of('a')), None);
    assert!(!fixture.files().contains(&file_of('a')));
    assert!(fixture.served(&path_of('b')).is_some());
    // Older than the time allowed.
    let later = Timestamp::now() + SignedDuration::from_secs(61);
    fixture.storage.begin_pass(&fixture.key, "uid-1", later).unwrap();
    assert_eq!(fixture.served(&path_of('b')), None);
    assert_eq!(fixture.served(&path_of('c')).unwrap(), b"ccc");
    assert_eq!(
        fixture.storage.usage(),
        Usage {
            objects: 1,
            files: 1,
            bytes: 3
        }
    );
}

#[test]
fn going_back_to_an_earlier_revision_keeps_one_file_of_it() {
    let fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"a");
    fixture.begin_and_store("uid-1", &revision('b'), b"b");
    fixture.begin_and_store("uid-1", &revision('a'), b"a again");
    assert_eq!(fixture.served(&path_of('a')).unwrap(), b"a again");
    assert_eq!(fixture.storage.usage().files, 2);
}

#[test]
fn same_revision_with_other_contents_replaces_the_file() {
    let fixture = Fixture::new();
    let first = fixture.begin_and_store("uid-1", &revision('a'), b"first");
    let second = fixture.begin_and_store("uid-1", &revision('a'), b"second");
    assert_ne!(first.file.digest, second.file.digest);
    assert_eq!(fixture.served(&path_of('a')).unwrap(), b"second");
    assert_eq!(fixture.storage.usage().files, 1);
}

#[path = "storage_serving_tests.rs"]
mod serving;

#[path = "storage_sweeps_tests.rs"]
mod sweeps;

#[test]
fn full_volume_refuses_new_artifacts_and_serves_old_ones() {
    let fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"a");
    // No volume has more than all of itself free.
    let full = StorageConfig {
        min_free_percent: 101,
        ..config(fixture.directory.path())
    };
    let storage = Storage::open(full).unwrap();
    assert!(matches!(
        storage.begin_pass(&fixture.key, "uid-1", Timestamp::now()),
        Ok(Standing::Stored(_))
    ));
    assert!(matches!(
        storage.stage(&fixture.key),
        Err(StorageError::Full { min_free_percent: 101 })
    ));
    assert!(storage.open_served(&path_of('a')).is_some());
}

#[test]
fn an_object_is_at_rest_only_while_nothing_is_due() {
    let fixture = Fixture::new();
    let at_rest = |uid: &str, now: Timestamp| fixture.storage.at_rest(&fixture.key, uid, now);
    let now = Timestamp::now();
    assert_eq!(at_rest("uid-1", now), None, "no pass has been here");
    let first = fixture.begin_and_store("uid-1", &revision('a'), b"a");
    assert_eq!(at_rest("uid-1", Timestamp::now()), Some(Arc::clone(&first)));
    assert_eq!(at_rest("uid-2", Timestamp::now()), None, "another object");
    assert_eq!(
        at_rest("uid-1", now + jiff::SignedDuration::from_hours(25)),
        None,
        "to be hashed again"
    );
    fixture.store("uid-1", &revision('b'), b"b");
    assert_eq!(
        at_rest("uid-1", Timestamp::now()),
        None,
        "the earlier file is retained and to be collected"
    );
    let fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"a");
    fs::write(fixture.object_path(&file_of('a')), b"other").unwrap();
    assert_eq!(
        fixture.storage.at_rest(&fixture.key, "uid-1", Timestamp::now()),
        None,
        "touched"
    );
}
