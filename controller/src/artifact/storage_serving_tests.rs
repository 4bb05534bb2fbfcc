//! Which files may be opened for serving, whatever stands in the directory.

use super::*;

#[test]
fn only_files_that_the_index_names_are_served() {
    let fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"good");
    fs::write(fixture.object_path(&file_of('f')), "forged").unwrap();
    fs::create_dir_all(fixture.path("ocirepository/ns/other")).unwrap();
    fs::copy(
        fixture.object_path(&file_of('a')),
        fixture.path("ocirepository/ns/other").join(file_of('a')),
    )
    .unwrap();
    for path in [
        &path_of('f'),
        "ocirepository/ns/app/.record.json",
        "ocirepository/ns/app/",
        "ocirepository/ns/app",
        "ocirepository/ns/app/../app/latest.tar.gz",
        "ocirepository//ns/app/latest.tar.gz",
        "/ocirepository/ns/app/latest.tar.gz",
        "",
        "ocirepository",
        "ocirepositoryx/ns/app/latest.tar.gz",
        ".staging/0",
        &path_of('a').replace("ns/app", "ns/other"),
    ] {
        assert_eq!(fixture.served(path), None, "{path}");
    }
    assert!(fixture.served(&path_of('a')).is_some());
}

#[test]
fn exchanged_files_and_symlinks_are_not_served() {
    let fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"good");
    let path = fixture.object_path(&file_of('a'));
    fs::write(&path, "evil").unwrap();
    assert_eq!(fixture.served(&path_of('a')), None);
    fs::remove_file(&path).unwrap();
    fs::write(fixture.path("outside"), "good").unwrap();
    symlink(fixture.path("outside"), &path).unwrap();
    assert_eq!(fixture.served(&path_of('a')), None);
    assert!(matches!(fixture.begin("uid-1"), Standing::Lost(_, Loss::Missing)));
}

#[test]
fn directory_that_is_a_symlink_is_not_entered() {
    let fixture = Fixture::new();
    let outside = fixture.directory.path().join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(fixture.path("ocirepository/ns")).unwrap();
    symlink(&outside, fixture.path("ocirepository/ns/app")).unwrap();
    assert_eq!(fixture.begin("uid-1"), Standing::Absent);
    fixture.store("uid-1", &revision('a'), b"good");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fixture.served(&path_of('a')).unwrap(), b"good");
}

#[test]
fn objects_with_the_same_revision_do_not_share_files() {
    let fixture = Fixture::new();
    fixture.begin_and_store("uid-1", &revision('a'), b"mine");
    let other = ObjectKey::new("ns", "other").unwrap();
    fixture.storage.begin_pass(&other, "uid-9", Timestamp::now()).unwrap();
    assert_eq!(fixture.served(&path_of('a').replace("/app/", "/other/")), None);
}

#[test]
fn readers_see_whole_files_while_commits_go_on() {
    let fixture = Arc::new(Fixture::new());
    fixture.begin_and_store("uid-1", &revision('a'), &[0; 1000]);
    let writer = std::thread::spawn({
        let fixture = Arc::clone(&fixture);
        move || {
            for round in 1..=50u8 {
                fixture.begin_and_store("uid-1", &revision('a'), &vec![round; 1000 + usize::from(round)]);
            }
        }
    });
    while !writer.is_finished() {
        let bytes = fixture.served(&path_of('a')).expect("an artifact is always there");
        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        assert_eq!(bytes.len(), 1000 + usize::from(bytes[0]));
    }
    writer.join().unwrap();
}
