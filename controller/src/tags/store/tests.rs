//! The tag store on a real directory: what is found again, by whom, and what a crash or a foreign hand leaves.

use std::{fs, path::PathBuf};

use super::*;
use crate::{
    artifact::Loss,
    tags::{Exclusions, TagCollector},
};

struct Fixture {
    directory: tempfile::TempDir,
    store: TagStore,
    key: ObjectKey,
}

fn config(root: &std::path::Path) -> StorageConfig {
    StorageConfig {
        min_free_percent: 0,
        ..StorageConfig::new(root)
    }
}

fn list<S: AsRef<str>>(tags: &[S]) -> TagList {
    let mut collector = TagCollector::new(Exclusions::default());
    collector.add(tags.iter().map(AsRef::as_ref), || false).unwrap();
    collector.finish()
}

fn many(count: usize) -> TagList {
    list(&(0..count).map(|number| format!("1.0.{number}")).collect::<Vec<_>>())
}

fn binding(uid: &str) -> Binding {
    Binding {
        uid: uid.to_owned(),
        url: "r.example/app".to_owned(),
        ..Binding::default()
    }
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            store: TagStore::open(config(directory.path())).unwrap(),
            key: ObjectKey::new("ns", "app").unwrap(),
            directory,
        }
    }

    fn restart(&mut self) {
        self.store = TagStore::open(config(self.directory.path())).unwrap();
    }

    fn begin(&self, uid: &str) -> Standing {
        self.store.begin_pass(&self.key, uid, Timestamp::now()).unwrap()
    }

    fn save(&self, uid: &str, tags: &TagList) -> Arc<Record> {
        let saved = self.store.save(&self.key, tags, binding(uid), None, Timestamp::now());
        saved.unwrap()
    }

    fn read(&self, uid: &str) -> Option<TagList> {
        let found = self.store.read(&self.key, uid).unwrap();
        found.map(|(_, tags)| tags)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join("imagerepository/ns/app").join(file)
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn looking_at_what_is_stored_changes_nothing_and_trusts_no_file_before_its_owners_pass() {
    let mut fixture = Fixture::new();
    fixture.begin("u");
    let saved = fixture.save("u", &list(&["1", "2"]));
    let current = |fixture: &Fixture, uid: &str| fixture.store.storage().current(&fixture.key, uid);
    assert_eq!(current(&fixture, "u"), Some(saved.clone()));
    assert_eq!(current(&fixture, "another"), None);
    fixture.restart();
    assert_eq!(current(&fixture, "u"), None);
    assert!(matches!(fixture.begin("u"), Standing::Stored(_)));
    assert_eq!(current(&fixture, "u"), Some(saved));
}

#[test]
fn tags_are_found_again_also_after_a_restart() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.begin("u"), Standing::Absent);
    let tags = list(&["1.0.0", "latest"]);
    let record = fixture.save("u", &tags);
    assert_eq!(fs::read_to_string(fixture.path("tags.txt")).unwrap(), "latest\n1.0.0\n");
    assert_eq!(fixture.read("u"), Some(tags.clone()));
    fixture.restart();
    assert_eq!(fixture.read("u"), None, "nothing is known before a pass");
    assert_eq!(fixture.begin("u"), Standing::Stored(record));
    assert_eq!(fixture.read("u"), Some(tags));
}

#[test]
fn no_tags_are_not_no_scan() {
    let fixture = Fixture::new();
    fixture.begin("u");
    fixture.save("u", &list::<&str>(&[]));
    assert!(fixture.read("u").is_some_and(|tags| tags.is_empty()));
}

#[test]
fn long_lists_are_compressed_and_the_other_form_goes() {
    let fixture = Fixture::new();
    fixture.begin("u");
    let (short, long) = (many(100), many(20_000));
    fixture.save("u", &short);
    assert_eq!(fixture.files(), [".record.json", "tags.txt"]);
    fixture.save("u", &long);
    assert_eq!(fixture.read("u"), Some(long.clone()));
    fixture.begin("u");
    assert_eq!(fixture.files(), [".record.json", "tags.txt.gz"]);
    let stored = fs::metadata(fixture.path("tags.txt.gz")).unwrap().len();
    assert!(stored * 2 < u64::try_from(long.text().len()).unwrap(), "{stored}");
    fixture.save("u", &short);
    fixture.begin("u");
    assert_eq!(fixture.files(), [".record.json", "tags.txt"]);
    assert_eq!(fixture.read("u"), Some(short));
}

#[test]
fn the_border_between_the_forms_is_64_kib() {
    let fixture = Fixture::new();
    fixture.begin("u");
    // Tags of 7 bytes and a line feed.
    let list_of = |count: usize| list(&(0..count).map(|number| format!("{number:07}")).collect::<Vec<_>>());
    fixture.save("u", &list_of(64 * 1024 / 8 - 1));
    assert!(fixture.path("tags.txt").exists());
    fixture.save("u", &list_of(64 * 1024 / 8));
    assert!(fixture.path("tags.txt.gz").exists());
}

#[test]
fn the_same_tags_cost_a_record_only() {
    let mut fixture = Fixture::new();
    fixture.begin("u");
    let tags = many(3);
    let first = fixture.save("u", &tags);
    let later = first.scan.as_ref().unwrap().time + jiff::SignedDuration::from_mins(5);
    let asked = Some("now".to_owned());
    let second = fixture
        .store
        .save(&fixture.key, &tags, binding("u"), asked.clone(), later)
        .unwrap();
    assert_eq!(second.file, first.file);
    let scan = second.scan.as_ref().unwrap();
    assert_eq!((scan.time, &scan.requested_at), (later, &asked));
    fixture.restart();
    assert_eq!(fixture.begin("u"), Standing::Stored(second));
}

#[test]
fn another_identity_on_the_same_tags_is_recorded() {
    let fixture = Fixture::new();
    fixture.begin("u");
    let first = fixture.save("u", &many(3));
    let other = Binding {
        referents: [("Secret/ca".to_owned(), "2".to_owned())].into(),
        ..binding("u")
    };
    let saved = fixture
        .store
        .save(&fixture.key, &many(3), other.clone(), None, Timestamp::now())
        .unwrap();
    assert_eq!((&saved.binding, &saved.file), (&other, &first.file));
}

#[test]
fn an_object_recreated_by_somebody_else_finds_nothing() {
    let fixture = Fixture::new();
    fixture.begin("u");
    fixture.save("u", &many(3));
    assert_eq!(fixture.read("v"), None);
    assert_eq!(fixture.begin("v"), Standing::Absent);
    assert_eq!(fixture.read("u"), None);
    let late = fixture
        .store
        .save(&fixture.key, &many(4), binding("u"), None, Timestamp::now());
    assert!(matches!(late, Err(TagStoreError::Storage(StorageError::Superseded))));
}

#[test]
fn what_was_changed_by_hand_is_not_read() {
    for (count, file) in [(3, "tags.txt"), (20_000, "tags.txt.gz")] {
        let mut fixture = Fixture::new();
        fixture.begin("u");
        let record = fixture.save("u", &many(count));
        fs::write(fixture.path(file), "9.9.9\n").unwrap();
        assert_eq!(fixture.read("u"), None, "{file}");
        fixture.restart();
        assert_eq!(fixture.begin("u"), Standing::Lost(record, Loss::Damaged), "{file}");
    }
}

#[test]
fn a_longer_file_is_not_read_to_its_end() {
    let fixture = Fixture::new();
    fixture.begin("u");
    let tags = many(3);
    fixture.save("u", &tags);
    fs::write(fixture.path("tags.txt"), format!("{}9.9.9\n", tags.text())).unwrap();
    assert_eq!(fixture.read("u"), None);
}

#[test]
fn artifacts_and_tags_share_a_volume_and_nothing_else() {
    let fixture = Fixture::new();
    fixture.begin("u");
    let artifacts = Storage::open(config(fixture.directory.path())).unwrap();
    fixture.save("u", &many(3));
    assert!(artifacts.open_served("imagerepository/ns/app/tags.txt").is_none());
    assert_eq!(
        artifacts.begin_pass(&fixture.key, "u", Timestamp::now()).unwrap(),
        Standing::Absent
    );
    artifacts.sweep(|_| None).unwrap();
    assert!(fixture.read("u").is_some());
    fixture.store.storage().sweep(|_| None).unwrap();
    assert_eq!(fixture.read("u"), None);
    assert!(!fixture.path("").exists());
}

#[test]
fn what_an_unfinished_write_left_goes_at_the_start() {
    let mut fixture = Fixture::new();
    fixture.begin("u");
    let left = fixture.store.storage().staging_path().join("1-1");
    fs::write(&left, "1.0").unwrap();
    fixture.restart();
    assert!(!left.exists());
}

#[test]
fn a_hundred_thousand_tags() {
    let fixture = Fixture::new();
    fixture.begin("u");
    let tags = many(100_000);
    let record = fixture.save("u", &tags);
    let scan = record.scan.as_ref().unwrap();
    assert_eq!((scan.tag_count, scan.latest_tags.len()), (100_000, 10));
    assert_eq!(fixture.read("u"), Some(tags));
}
