//! The stored form: what is written is read back, and one vector per way in which it is refused.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::test_support::TestCa;

type Data = std::collections::BTreeMap<String, Vec<u8>>;

/// A world that has seen two Secrets: one key retired, one signing, per use.
fn world() -> World {
    let policy = RingPolicy {
        jwt_overlap: Duration::from_secs(X509_OVERLAP as u64),
        ..policy()
    };
    let mut world = World::with(policy);
    for _ in 0..2 {
        world.secret(&ca(), both(0));
    }
    world.tick(both(X509_OVERLAP));
    world
}

fn data(world: &World) -> Data {
    world.state.as_ref().expect("stored").to_data().expect("data")
}

fn read(data: &Data) -> Result<Option<StoredState>, StateError> {
    StoredState::from_data(
        data.iter().map(|(name, value)| (name.as_str(), value.as_slice())),
        at(X509_OVERLAP),
    )
}

/// Changes one JSON document of the stored data.
fn change(data: &mut Data, name: &str, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&data[name]).expect("json");
    change(&mut value);
    data.insert(name.to_owned(), serde_json::to_vec(&value).expect("json"));
}

#[test]
fn what_is_written_is_read_back() {
    let world = world();
    assert_eq!(read(&data(&world)), Ok(world.state.clone()));
}

#[test]
fn an_empty_secret_is_no_state() {
    assert_eq!(read(&Data::new()), Ok(None));
}

#[test]
fn the_state_has_this_form() {
    let state: Value = serde_json::from_slice(&data(&world())["state.json"]).expect("json");
    let object = state.as_object().expect("an object");
    let names: Vec<_> = object.keys().map(String::as_str).collect();
    let expected = [
        "issuer",
        "jwt",
        "overlapSeconds",
        "path",
        "revision",
        "revoked",
        "sequence",
        "trustDomain",
        "version",
        "x509",
    ];
    assert_eq!(names, expected);
    assert_eq!((&state["path"], &state["version"]), (&json!("/mint"), &json!(1)));
    let names = |entry: &Value| {
        entry
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&state["jwt"][0]),
        [
            "id",
            "key",
            "notAfter",
            "publishedAt",
            "retiredAt",
            "signingAt",
            "state"
        ]
    );
    assert_eq!(
        names(&state["x509"][1]),
        ["certificate", "id", "publishedAt", "signingAt", "state"]
    );
    assert_eq!(state["jwt"][1]["publishedAt"], "2027-01-01T00:00:00Z");
}

#[test]
fn the_state_holds_no_private_key() {
    let world = world();
    let all: Vec<u8> = data(&world).into_values().flatten().collect();
    let all = String::from_utf8(all).expect("text");
    assert!(!all.contains("PRIVATE") && !all.contains("\"d\""));
}

#[rstest]
#[case::version("state.json", "/version", json!(2), StateError::Version(2))]
#[case::kid("state.json", "/jwt/0/id", json!("x"), StateError::Id("x".into()))]
#[case::authority_id("state.json", "/x509/0/id", json!("x"), StateError::Id("x".into()))]
#[case::issuer("state.json", "/issuer", json!("ftp://x"), StateError::Issuer("the issuer's scheme is \"ftp\"; it must be https".into()))]
#[case::other_issuer("state.json", "/issuer", json!("https://x"), StateError::Document("openid-configuration"))]
#[case::discovery("openid-configuration", "/issuer", json!("https://x"), StateError::Document("openid-configuration"))]
#[case::jwks_uri("openid-configuration", "/jwks_uri", json!("https://x"), StateError::Document("openid-configuration"))]
#[case::kid_in_the_jwks("keys.json", "/keys/0/kid", json!("x"), StateError::Document("keys.json"))]
#[case::key_in_the_jwks("keys.json", "/keys/0/x", json!("AAAA"), StateError::Document("keys.json"))]
#[case::fewer_keys_in_the_jwks("keys.json", "/keys", json!([]), StateError::Document("keys.json"))]
#[case::endless_sequence("state.json", "/sequence", json!(u64::MAX), StateError::Number)]
#[case::endless_revision("state.json", "/revision", json!(u64::MAX), StateError::Number)]
#[case::root_of_no_ca("state.json", "/roots", json!({"x": "2027-01-01T00:00:00Z"}), StateError::Contradiction("x".into()))]
#[case::sequence("bundle.json", "/spiffe_sequence", json!(1), StateError::Document("bundle.json"))]
#[case::anchor("bundle.json", "/keys/0/x5c", json!(["AAAA"]), StateError::Document("bundle.json"))]
#[case::fewer_anchors("bundle.json", "/keys", json!([]), StateError::Document("bundle.json"))]
fn refuses(#[case] document: &str, #[case] at: &str, #[case] to: Value, #[case] expected: StateError) {
    let mut data = data(&world());
    change(&mut data, "state.json", |state| state["roots"] = json!({}));
    change(&mut data, document, |value| *value.pointer_mut(at).expect(at) = to);
    assert_eq!(read(&data), Err(expected));
}

#[test]
fn refuses_more_keys_than_a_ring_holds() {
    let mut data = data(&world());
    change(&mut data, "state.json", |state| {
        let entry = state["jwt"][0].clone();
        state["jwt"] = Value::Array(vec![entry; MAX_KEYS_PER_USE + 1]);
    });
    assert_eq!(read(&data), Err(StateError::TooMany));
}

#[test]
fn refuses_entries_that_contradict_each_other() {
    let state: Value = serde_json::from_slice(&data(&world())["state.json"]).expect("json");
    let ids = [
        state["jwt"][0]["id"].as_str().expect("id"),
        state["jwt"][1]["id"].as_str().expect("id"),
    ];
    let twice = |state: &mut Value| state["jwt"][1] = state["jwt"][0].clone();
    let both_sign = |state: &mut Value| {
        state["jwt"][0]["state"] = json!("Signing");
        state["jwt"][0]["retiredAt"] = Value::Null;
    };
    let revoked = |state: &mut Value| state["revoked"] = json!([ids[0]]);
    for (name, bend, id) in [
        ("twice", &twice as &dyn Fn(&mut Value), ids[0]),
        ("both sign", &both_sign, ids[1]),
        ("revoked", &revoked, ids[0]),
    ] {
        let mut bent = data(&world());
        bent.insert("state.json".into(), serde_json::to_vec(&state).expect("json"));
        change(&mut bent, "state.json", bend);
        assert_eq!(read(&bent), Err(StateError::Contradiction(id.into())), "{name}");
    }
}

#[rstest]
#[case::published_in_the_future("/jwt/1/publishedAt", json!("2027-01-01T02:01:01Z"))]
#[case::signing_in_the_future("/jwt/1/signingAt", json!("2027-01-01T02:01:01Z"))]
#[case::retired_in_the_future("/jwt/0/retiredAt", json!("2127-01-01T00:00:00Z"))]
#[case::retired_at_no_time("/jwt/0/retiredAt", Value::Null)]
#[case::signing_since_no_time("/jwt/1/signingAt", Value::Null)]
fn refuses_impossible_times(#[case] at: &str, #[case] to: Value) {
    let mut data = data(&world());
    change(&mut data, "state.json", |state| *state.pointer_mut(at).expect(at) = to);
    assert!(matches!(read(&data), Err(StateError::Times(_))));
}

#[test]
fn a_clock_that_is_a_minute_behind_is_accepted() {
    let mut data = data(&world());
    change(&mut data, "state.json", |state| {
        state["jwt"][1]["signingAt"] = json!("2027-01-01T02:01:00Z");
    });
    assert!(read(&data).is_ok());
}

#[test]
fn refuses_an_anchor_that_is_no_ca() {
    let leaf = TestCa::root(|params| params.is_ca = rcgen::IsCa::ExplicitNoCa);
    let mut data = data(&world());
    change(&mut data, "state.json", |state| {
        use base64::Engine;
        state["x509"][0]["certificate"] = json!(base64::engine::general_purpose::STANDARD.encode(&leaf.der));
    });
    assert!(matches!(read(&data), Err(StateError::NotCa(_))));
}

#[test]
fn revocations_survive_a_refused_state() {
    let world = world();
    let mut bent = data(&world);
    let ids = ["a".repeat(64), "_".repeat(43)];
    change(&mut bent, "state.json", |state| {
        state["version"] = json!(2);
        state["revoked"] = json!([ids[0], ids[1], "a mistake"]);
    });
    assert_eq!(read(&bent), Err(StateError::Version(2)));
    let refused = super::read(&bent, both(X509_OVERLAP)).expect_err("refused");
    assert_eq!(refused.revoked, ids.into());
    let state = world.state.as_ref().expect("stored");
    assert_eq!(
        (refused.sequence, refused.revision),
        (state.ring.sequence, state.revision)
    );
    bent.insert("state.json".into(), b"garbage".to_vec());
    let refused = super::read(&bent, both(X509_OVERLAP)).expect_err("refused");
    assert!(refused.revoked.is_empty() && refused.sequence == 0);
}

#[test]
fn refuses_another_pem_than_the_bundle() {
    let mut bent = data(&world());
    bent.insert("bundle.pem".into(), TestCa::root(|_| {}).pem());
    assert_eq!(read(&bent), Err(StateError::Document("bundle.pem")));
    bent.remove("bundle.pem");
    assert!(matches!(read(&bent), Err(StateError::Documents(_))));
}

#[test]
fn stored_keys_are_named_and_redacted() {
    let world = world();
    let data = world.keys.to_data();
    assert!(
        data.keys()
            .all(|name| name.starts_with("jwt.") || name.starts_with("x509.")),
        "{data:?}"
    );
    assert!(!format!("{:?}", world.keys).contains("pkcs8"));
    let mut data: Data = data.into_iter().map(|(name, value)| (name, value.to_vec())).collect();
    data.insert("jwt.x.pem".into(), b"garbage".to_vec());
    data.insert("other".into(), b"garbage".to_vec());
    let (read, errors) = StoredKeys::from_data(data.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
    assert_eq!(read.jwt.len(), world.keys.jwt.len(), "the others go on");
    assert!(matches!(errors.as_slice(), [StateError::Key(id, _)] if id == "x"));
}

#[test]
fn refuses_two_keys_that_wait_and_documents_without_a_listed_root() {
    let mut bent = data(&world());
    change(&mut bent, "state.json", |state| {
        for index in 0..2 {
            state["jwt"][index]["state"] = json!("Published");
            state["jwt"][index]["retiredAt"] = Value::Null;
        }
    });
    assert!(matches!(read(&bent), Err(StateError::Contradiction(_))));
    let root = TestCa::root(|params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    let ca = crate::test_support::load(&root.issue(|_| {}).secret_under(&[&root])).expect("authority");
    let bundle_root = true;
    let mut world = World::with(RingPolicy {
        bundle_root,
        ..policy()
    });
    world.secret(&ca, both(0));
    assert_eq!(read(&data(&world)), Ok(world.state.clone()));
    let mut bent = data(&world);
    change(&mut bent, "state.json", |state| state["roots"] = json!({}));
    assert_eq!(read(&bent), Err(StateError::Document("bundle.json")));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn bent_state_is_refused_or_means_the_same(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let world = world();
        let mut data = data(&world);
        let state = data.get_mut("state.json").expect("state");
        let index = position.index(state.len());
        state[index] = byte;
        if let Ok(Some(read)) = read(&data) {
            let stored = world.state.as_ref().expect("stored");
            // Without an issuer, its documents are not served; none is ever served that was not stored.
            prop_assert!(read.issuer.is_none() || read.documents.keys() == stored.documents.keys());
            prop_assert_eq!(read.documents.bundle_json(), stored.documents.bundle_json());
            prop_assert_eq!(read.ring.anchors(true), stored.ring.anchors(true));
        }
    }
}
