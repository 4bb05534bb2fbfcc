//! What the index tells whom, in every order in which a reader and the watch may see a change.

use super::*;

fn object(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: "a".into(),
        name: name.into(),
    }
}

fn secret(name: &str) -> ReferentKey {
    ReferentKey {
        kind: ReferentKind::Secret,
        key: object(name),
    }
}

/// A watched index in which `app` has read version 5 of Secret `login`.
fn index() -> ReferentIndex {
    let index = ReferentIndex::default();
    list(&index, &[]);
    assert_eq!(index.depend(&object("app"), &secret("login")), 0);
    index.has_read(&secret("login"), 5, true);
    index
}

/// A whole list of both kinds; returns who has to look again.
fn list(index: &ReferentIndex, secrets: &[(&str, Version)]) -> Vec<ObjectKey> {
    index.list_begins(ReferentKind::Secret);
    index.list_begins(ReferentKind::ServiceAccount);
    let mut told = Vec::new();
    for (name, version) in secrets {
        told.extend(index.listed(&secret(name), *version));
    }
    for kind in [ReferentKind::Secret, ReferentKind::ServiceAccount] {
        told.extend(index.list_ends(kind).into_iter().flatten());
    }
    told
}

#[test]
fn a_change_is_told_once_to_those_who_refer_to_it() {
    let index = index();
    assert!(index.is_newest(&secret("login"), 5));
    assert_eq!(index.changed(&secret("other"), 6), []);
    assert_eq!(index.changed(&secret("login"), 7), [object("app")]);
    assert!(!index.is_newest(&secret("login"), 5));
    assert_eq!(index.changed(&secret("login"), 7), [], "told already");
    index.has_read(&secret("login"), 7, true);
    assert!(index.is_newest(&secret("login"), 7));
}

#[test]
fn what_a_reader_has_seen_is_no_news() {
    let index = index();
    index.has_read(&secret("login"), 9, true);
    assert_eq!(index.changed(&secret("login"), 8), []);
    assert_eq!(index.deleted(&secret("login"), 8), [], "recreated since");
    assert_eq!(index.changed(&secret("login"), 9), []);
    assert!(index.is_newest(&secret("login"), 9));
}

#[test]
fn a_change_while_it_is_read_outdates_the_reading() {
    let index = ReferentIndex::default();
    list(&index, &[]);
    index.depend(&object("app"), &secret("login"));
    assert_eq!(index.changed(&secret("login"), 6), [], "the reader finds out itself");
    index.has_read(&secret("login"), 5, true);
    assert!(index.is_outdated(&secret("login"), 5) && !index.is_newest(&secret("login"), 5));
}

#[test]
fn what_is_absent_is_known_until_it_appears_and_again_when_it_goes() {
    let index = ReferentIndex::default();
    list(&index, &[]);
    let known = index.depend(&object("app"), &secret("login"));
    index.has_read(&secret("login"), known, false);
    assert!(index.is_newest(&secret("login"), known));
    assert_eq!(index.changed(&secret("login"), 3), [object("app")]);
    index.has_read(&secret("login"), 3, true);
    assert_eq!(index.deleted(&secret("login"), 4), [object("app")]);
    assert_eq!(index.depend(&object("app"), &secret("login")), 4);
}

#[test]
fn a_new_list_tells_what_was_missed() {
    let index = index();
    index.depend(&object("app"), &secret("ca"));
    index.has_read(&secret("ca"), 6, true);
    index.lost();
    assert!(!index.is_newest(&secret("ca"), 6));
    assert_eq!(list(&index, &[("login", 5), ("ca", 6)]), []);
    assert_eq!(list(&index, &[("login", 8), ("ca", 6)]), [object("app")], "changed");
    assert_eq!(list(&index, &[("login", 8)]), [object("app")], "deleted");
    assert_eq!(list(&index, &[("login", 8)]), [], "once");
    assert!(!index.is_newest(&secret("ca"), 6));
    assert_eq!(
        list(&index, &[("login", 8), ("ca", 8)]),
        [object("app")],
        "created again"
    );
}

#[test]
fn what_is_first_read_during_a_list_is_not_gone() {
    let index = ReferentIndex::default();
    index.list_begins(ReferentKind::Secret);
    index.depend(&object("app"), &secret("login"));
    index.has_read(&secret("login"), 5, true);
    assert!(index.list_ends(ReferentKind::Secret).is_empty());
    assert!(!index.is_watched(), "the service accounts are not listed yet");
}

#[test]
fn nothing_is_kept_of_what_nobody_refers_to() {
    let index = index();
    index.depend(&object("other"), &secret("login"));
    index.depend(&object("app"), &secret("ca"));
    let kept = HashSet::from([secret("ca")]);
    assert_eq!(index.keep_only(&object("app"), &kept), []);
    assert_eq!(index.changed(&secret("login"), 6), [object("other")]);
    assert_eq!(index.keep_only(&object("other"), &HashSet::new()), [secret("login")]);
    assert!(!index.is_referred_to(&secret("login")) && !index.has_referents(&object("other")));
    assert_eq!(index.keep_only(&object("app"), &HashSet::new()), [secret("ca")]);
    assert!(index.lock().entries.is_empty() && index.lock().of_objects.is_empty());
}
