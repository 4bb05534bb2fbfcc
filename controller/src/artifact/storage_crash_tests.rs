//! The states that a kill between two steps of a commit leaves, and what the next process makes of them.

use super::*;

fn crash_after_one() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"good");
    fixture.restart();
    fixture
}

#[test]
fn between_the_file_and_its_record() {
    // A new revision's file is in place, the record still tells of the old one: the old one stands.
    let fixture = crash_after_one();
    fs::write(fixture.object_path(&file_of('b')), "new").unwrap();
    assert!(matches!(fixture.begin("uid-1"), Standing::Stored(record) if record.revision == revision('a')));
    assert_eq!(fixture.served(&path_of('a')).unwrap(), b"good");
    assert_eq!(fixture.served(&path_of('b')), None);
    assert!(!fixture.files().contains(&file_of('b')));
}

#[test]
fn between_a_replaced_file_and_its_record() {
    // Same revision, other contents (spec.ignore changed): the record's digest is not the file's any more.
    for contents in ["evil", "longer than before"] {
        let fixture = crash_after_one();
        fs::write(fixture.object_path(&file_of('a')), contents).unwrap();
        assert!(matches!(fixture.begin("uid-1"), Standing::Lost(_, Loss::Damaged)));
        assert_eq!(fixture.served(&path_of('a')), None);
        assert_eq!(fixture.begin("uid-1"), Standing::Absent);
        let record = fixture.store("uid-1", &revision('a'), b"rebuilt");
        assert_eq!(fixture.begin("uid-1"), Standing::Stored(record));
    }
}

#[test]
fn torn_file_of_the_right_size_and_time() {
    let fixture = crash_after_one();
    let path = fixture.object_path(&file_of('a'));
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, [0; 4]).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(mtime)
        .unwrap();
    assert!(matches!(fixture.begin("uid-1"), Standing::Lost(_, Loss::Damaged)));
}

#[test]
fn record_without_its_file() {
    let fixture = crash_after_one();
    fs::remove_file(fixture.object_path(&file_of('a'))).unwrap();
    assert!(matches!(fixture.begin("uid-1"), Standing::Lost(_, Loss::Missing)));
    assert_eq!(fixture.served(&path_of('a')), None);
}

#[test]
fn torn_foreign_or_missing_record() {
    let good = fs::read_to_string(crash_after_one().object_path(".record.json")).unwrap();
    let other_path = good.replace("ns/app/", "ns/other/");
    let other_format = good.replace("\"format\":1", "\"format\":2");
    assert!(other_path != good && other_format != good);
    for json in ["", &good[..good.len() / 2], "{}", &other_path, &other_format] {
        let fixture = crash_after_one();
        fs::write(fixture.object_path(".record.json"), json).unwrap();
        assert_eq!(fixture.begin("uid-1"), Standing::Absent, "{json}");
        assert!(fixture.files().is_empty());
    }
    let fixture = crash_after_one();
    fs::remove_file(fixture.object_path(".record.json")).unwrap();
    symlink("/etc/passwd", fixture.object_path(".record.json")).unwrap();
    assert_eq!(fixture.begin("uid-1"), Standing::Absent);
    assert!(fixture.files().is_empty());
    let fixture = crash_after_one();
    fs::remove_file(fixture.object_path(".record.json")).unwrap();
    assert_eq!(fixture.begin("uid-1"), Standing::Absent);
    assert!(fixture.files().is_empty());
}

#[test]
fn before_the_link_was_replaced() {
    let fixture = crash_after_one();
    let link = fixture.object_path("latest.tar.gz");
    fs::remove_file(&link).unwrap();
    symlink(file_of('0'), &link).unwrap();
    symlink(file_of('0'), fixture.object_path(".latest.new")).unwrap();
    fixture.begin("uid-1");
    assert_eq!(fs::read_link(&link).unwrap(), PathBuf::from(file_of('a')));
    assert!(!fixture.files().contains(&".latest.new".to_owned()));
}
