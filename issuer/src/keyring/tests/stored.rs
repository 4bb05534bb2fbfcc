//! The stored form: what is written is read back, and one vector per way in which it is refused.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::test_support::{DAY, TestCa, now, valid};

type Data = std::collections::BTreeMap<String, Vec<u8>>;

/// A world that has seen two Secrets: one key retired, one signing, per use.
fn world() -> World {
    let mut world = World::new();
    for _ in 0..2 {
        world.secret(
            &TestCa::root(|params| valid(params, -DAY, 30 * DAY)).load(),
            clocks(0, 0),
        );
    }
    world
}

fn data(world: &World) -> Data {
    world.state.as_ref().expect("stored").to_data().expect("data")
}

fn read(data: &Data) -> Result<Option<StoredState>, StateError> {
    StoredState::from_data(
        data.iter().map(|(name, value)| (name.as_str(), value.as_slice())),
        now(),
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
#[case::sequence("bundle.json", "/spiffe_sequence", json!(1), StateError::Document("bundle.json"))]
#[case::anchor("bundle.json", "/keys/0/x5c", json!(["AAAA"]), StateError::Document("bundle.json"))]
#[case::fewer_anchors("bundle.json", "/keys", json!([]), StateError::Document("bundle.json"))]
fn refuses(#[case] document: &str, #[case] at: &str, #[case] to: Value, #[case] expected: StateError) {
    let mut data = data(&world());
    change(&mut data, document, |value| *value.pointer_mut(at).expect(at) = to);
    assert_eq!(read(&data), Err(expected));
}

#[test]
fn refuses_another_trust_domain() {
    let mut world = world();
    let state = world.state.take().expect("stored");
    let policy = RingPolicy {
        trust_domain: crate::TrustDomain::parse("other.org").expect("domain"),
        ..policy()
    };
    let refused = KeyRing::restore(policy, state, &world.keys, clocks(0, 0)).err();
    assert_eq!(refused, Some(StateError::TrustDomain("example.org".into())));
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
#[case::published_in_the_future("/jwt/1/publishedAt", json!("2027-01-01T00:01:01Z"))]
#[case::signing_in_the_future("/jwt/1/signingAt", json!("2027-01-01T00:01:01Z"))]
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
        state["jwt"][1]["signingAt"] = json!("2027-01-01T00:01:00Z");
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
    let mut bent = data(&world());
    let ids = ["a".repeat(64), "_".repeat(43)];
    change(&mut bent, "state.json", |state| {
        state["version"] = json!(2);
        state["revoked"] = json!([ids[0], ids[1], "a mistake"]);
    });
    assert_eq!(read(&bent), Err(StateError::Version(2)));
    let read = |data: &Data| revoked_ids(data.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
    assert_eq!(
        read(&bent).into_iter().collect::<std::collections::HashSet<_>>(),
        ids.into()
    );
    bent.insert("state.json".into(), b"garbage".to_vec());
    assert!(read(&bent).is_empty());
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
fn refuses_a_private_key_of_another_entry() {
    let (one, other) = (world(), world());
    let mut keys = one.keys.clone();
    let foreign = other.keys.jwt.values().next().expect("a key");
    keys.jwt.values_mut().for_each(|key| *key = Arc::clone(foreign));
    let state = one.state.clone().expect("stored");
    let refused = KeyRing::restore(policy(), state, &keys, clocks(0, 0));
    assert!(matches!(refused, Err(StateError::PrivateKey(_))));
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
    let damaged = StoredKeys::from_data([("jwt.x.pem", b"garbage".as_slice())]);
    assert!(matches!(damaged, Err(StateError::Key(id, _)) if id == "x"));
    assert!(StoredKeys::from_data([("other", b"garbage".as_slice())]).is_ok());
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
