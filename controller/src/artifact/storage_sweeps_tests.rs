//! What a sweep takes away, and what it must leave.

use super::*;

#[test]
fn directories_without_a_live_object_go() {
    let mut fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"a");
    fixture.restart();
    fs::create_dir_all(fixture.path("ocirepository/ns/Not_A_Name/x")).unwrap();
    fs::write(fixture.path("ocirepository/stray"), "x").unwrap();
    symlink("/", fixture.path("ocirepository/link")).unwrap();
    let report = fixture.storage.sweep(|_| None).unwrap();
    assert_eq!(report, SweepReport { objects: 1, files: 3 });
    assert_eq!(fs::read_dir(fixture.path("ocirepository")).unwrap().count(), 0);
    assert_eq!(fixture.storage.sweep(|_| None).unwrap(), SweepReport::default());
}

#[test]
fn live_objects_keep_what_their_records_name_and_lose_strangers() {
    let fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"a");
    fixture.begin_and_store("uid-1", &revision('b'), b"b");
    fs::write(fixture.object_path("stranger"), "x").unwrap();
    let report = fixture.storage.sweep(|_| Some("uid-1".to_owned())).unwrap();
    assert_eq!(report, SweepReport { objects: 0, files: 1 });
    assert!(fixture.served(&path_of('a')).is_some());
    assert!(fixture.served(&path_of('b')).is_some());
}

#[test]
fn recreated_object_loses_the_old_ones_files() {
    let mut fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"a");
    let live = |_: &ObjectKey| Some("uid-2".to_owned());
    assert_eq!(fixture.storage.sweep(live).unwrap().objects, 1);
    assert_eq!(fixture.served(&path_of('a')), None);
    fixture.begin_and_store("uid-1", &revision('a'), b"a");
    fixture.restart();
    assert_eq!(fixture.storage.sweep(live).unwrap().objects, 1);
    assert!(fixture.files().is_empty());
}

#[test]
fn objects_before_their_first_pass_keep_their_files() {
    let mut fixture = Fixture::new();
    let record = fixture.begin_and_store("uid-1", &revision('a'), b"a");
    fixture.restart();
    assert_eq!(
        fixture.storage.sweep(|_| Some("uid-1".to_owned())).unwrap(),
        SweepReport::default()
    );
    assert_eq!(fixture.begin("uid-1"), Standing::Stored(record));
}

#[test]
fn objects_that_never_stored_anything_leave_the_index() {
    let fixture = Fixture::new();
    fixture.begin("uid-1");
    fixture.storage.sweep(|_| None).unwrap();
    assert!(fixture.storage.0.slots.keys().is_empty());
}

#[test]
fn what_an_earlier_process_left_is_found_and_released_unless_it_lives() {
    let mut fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"a");
    assert_eq!(fixture.storage.owner(&fixture.key).as_deref(), Some("uid-1"));
    fixture.restart();
    assert_eq!(fixture.storage.owner(&fixture.key), None);
    let unclaimed = fixture.storage.unclaimed(|_| None).unwrap();
    assert_eq!(unclaimed, [(fixture.key.clone(), "uid-1".to_owned())]);
    let live = |_: &ObjectKey| Some("uid-1".to_owned());
    assert!(fixture.storage.unclaimed(live).unwrap().is_empty());
    fixture.storage.release(&fixture.key, live).unwrap();
    assert!(!fixture.files().is_empty());
    fixture.storage.release(&fixture.key, |_| None).unwrap();
    assert!(!fixture.object_path("").exists());
}
