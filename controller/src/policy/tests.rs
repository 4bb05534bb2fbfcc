//! The policies as upstream's documentation describes them, and what must hold for any tags.

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn policy(choice: &Value, filter: &Value) -> Result<TagPolicy, PolicyError> {
    let filter: Option<TagFilterSpec> = serde_json::from_value(filter.clone()).unwrap();
    TagPolicy::new(&serde_json::from_value(choice.clone()).unwrap(), filter.as_ref())
}

fn select(choice: &Value, filter: &Value, tags: &[&str]) -> Result<String, NoLatest> {
    let policy = policy(choice, filter).unwrap();
    latest(&policy, tags.iter().copied(), || false).map(String::from)
}

fn semver(range: &str) -> Value {
    json!({"semver": {"range": range}})
}

fn order(policy: &str, order: &str) -> Value {
    json!({policy: {"order": order}})
}

#[rstest]
#[case::range(semver("1.x"), Value::Null, &["1.9.0", "v1.10.0", "2.0.0", "latest"], "v1.10.0")]
#[case::last_by_bytes(order("alphabetical", "asc"), Value::Null, &["xenial", "zesty", "artful"], "zesty")]
#[case::first_by_bytes(order("alphabetical", "desc"), Value::Null, &["xenial", "zesty", "artful"], "artful")]
#[case::order_by_default(json!({"alphabetical": {}}), Value::Null, &["a", "b"], "b")]
#[case::bytes_not_letters(order("alphabetical", "asc"), Value::Null, &["Z", "a", "_"], "a")]
#[case::greatest(order("numerical", "asc"), Value::Null, &["9", "10", "-88", "2.5"], "10")]
#[case::least(order("numerical", "desc"), Value::Null, &["9", "10", "-88", "2.5"], "-88")]
#[case::first_choice_counts(json!({"numerical": {}, "alphabetical": {}}), Value::Null, &["9", "10"], "9")]
#[case::filtered(order("alphabetical", "asc"), json!({"pattern": "^main-"}), &["main-1", "main-2", "zzz"], "main-2")]
#[case::no_pattern_is_all(order("alphabetical", "asc"), json!({}), &["a", "b"], "b")]
#[case::extracted(order("numerical", "asc"), json!({"pattern": "^main-[a-f0-9]+-(?P<ts>[0-9]+)$", "extract": "$ts"}),
    &["main-ffff-9", "main-0000-10", "dev-0000-99"], "main-0000-10")]
#[case::extracted_version(semver(">=1.0.0"), json!({"pattern": "^rel-(.*)$", "extract": "$1"}),
    &["rel-1.2.0", "rel-1.10.0", "9.9.9"], "rel-1.10.0")]
#[case::equal_versions(semver("*"), Value::Null, &["1.0.0", "v1.0.0"], "v1.0.0")]
#[case::equal_numbers(order("numerical", "desc"), Value::Null, &["1.0", "1", "1.00"], "1.00")]
#[case::equal_extracts(order("alphabetical", "desc"), json!({"pattern": "^(.)", "extract": "$1"}), &["ab", "ad", "ac"], "ad")]
fn selects(#[case] choice: Value, #[case] filter: Value, #[case] tags: &[&str], #[case] expected: &str) {
    assert_eq!(select(&choice, &filter, tags).as_deref(), Ok(expected));
}

#[rstest]
#[case::no_tags(order("alphabetical", "asc"), Value::Null, &[], NoLatest::Empty)]
#[case::no_tags_for_a_range(semver("*"), Value::Null, &[], NoLatest::Empty)]
#[case::all_filtered(order("numerical", "asc"), json!({"pattern": "x"}), &["1"], NoLatest::Empty)]
#[case::no_version(semver("*"), Value::Null, &["latest", "1.2"], NoLatest::NoVersion)]
#[case::not_in_range(semver(">=2"), Value::Null, &["1.0.0"], NoLatest::NoVersion)]
#[case::one_is_no_number(order("numerical", "asc"), Value::Null, &["1", "1a", "2"], NoLatest::NotANumber("1a".into()))]
#[case::not_finite(order("numerical", "asc"), Value::Null, &["inf"], NoLatest::NotANumber("inf".into()))]
#[case::empty_extract(order("numerical", "asc"), json!({"pattern": "^(x)?", "extract": "$1"}), &["1"],
    NoLatest::NotANumber(String::new()))]
fn selects_nothing(#[case] choice: Value, #[case] filter: Value, #[case] tags: &[&str], #[case] expected: NoLatest) {
    assert_eq!(select(&choice, &filter, tags), Err(expected));
}

#[rstest]
#[case(json!({}), Value::Null, "invalid policy: spec.policy names none of semver, alphabetical and numerical")]
#[case(semver("latest"), Value::Null, "invalid policy: improper constraint: \"latest\"")]
#[case(
    order("numerical", "random"),
    Value::Null,
    "invalid policy: order is one of asc, desc"
)]
#[case(json!({"numerical": {}}), json!({"pattern": "("}),
    "failed to filter tags: invalid regular expression pattern '(': not a regular expression: unclosed group")]
#[case(json!({"numerical": {}}), json!({"pattern": "a", "extract": "a".repeat(1025)}),
    "failed to filter tags: extract has more than 1024 bytes")]
fn no_policy(#[case] choice: Value, #[case] filter: Value, #[case] message: &str) {
    assert_eq!(policy(&choice, &filter).unwrap_err().to_string(), message);
}

#[rstest]
#[case::too_long(json!({"pattern": "a".repeat(1025)}), FilterError::TooLong)]
#[case::too_large(json!({"pattern": "((a{100}){100}){100}"}), FilterError::TooLarge)]
fn patterns_have_limits(#[case] filter: Value, #[case] expected: FilterError) {
    let refused = policy(&json!({"numerical": {}}), &filter).unwrap_err();
    assert!(matches!(refused, PolicyError::Pattern { error, .. } if error == expected));
}

#[test]
fn the_time_of_a_pattern_is_bounded_and_nothing_else_is() {
    let tags = || (0..100).map(|_| "1");
    let filtered = policy(&json!({"numerical": {}}), &json!({"pattern": "1"})).unwrap();
    assert_eq!(latest(&filtered, tags(), || true), Err(NoLatest::TooSlow));
    let looks = std::cell::Cell::new(0);
    let over_at_the_third_look = || looks.replace(looks.get() + 1) == 2;
    assert_eq!(
        latest(&filtered, tags(), over_at_the_third_look),
        Err(NoLatest::TooSlow)
    );
    let plain = policy(&json!({"numerical": {}}), &Value::Null).unwrap();
    assert_eq!(latest(&plain, tags(), || true).as_deref(), Ok("1"));
}

proptest! {
    #[test]
    fn the_order_of_the_tags_does_not_matter(
        tags in prop::collection::vec("v?[0-2]\\.[0-2]\\.[0-2](-[ab])?", 1..12), at in any::<prop::sample::Index>(),
        which in 0..4_usize,
    ) {
        let policies = [
            policy(&semver(">=0.0.0-0"), &Value::Null),
            policy(&order("alphabetical", "desc"), &json!({"pattern": "^v?(.)", "extract": "$1"})),
            policy(&order("numerical", "asc"), &json!({"pattern": "^v?(\\d\\.\\d)", "extract": "$1"})),
            policy(&order("alphabetical", "asc"), &Value::Null),
        ];
        let policy = policies[which].as_ref().unwrap();
        let select = |tags: &[String]| latest(policy, tags.iter().map(String::as_str), || false);
        let mut turned = tags.clone();
        turned.rotate_left(at.index(tags.len()));
        let selected = select(&tags);
        prop_assert_eq!(&selected, &select(&turned));
        turned.reverse();
        prop_assert_eq!(&selected, &select(&turned));
        prop_assert!(selected.is_ok_and(|tag| tags.iter().any(|offered| **offered == *tag)));
    }

    #[test]
    fn nothing_comes_after_the_selected_number(numbers in prop::collection::vec(any::<i32>(), 1..20), ascending in any::<bool>()) {
        let tags: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let policy = policy(&order("numerical", if ascending { "asc" } else { "desc" }), &Value::Null).unwrap();
        let selected = latest(&policy, tags.iter().map(String::as_str), || false).unwrap();
        let expected = if ascending { numbers.iter().max() } else { numbers.iter().min() };
        prop_assert_eq!(selected.parse::<i32>().ok(), expected.copied());
    }

    #[test]
    fn any_template_and_pattern_are_used_or_refused(pattern in "\\PC{0,20}", extract in "[$\\{\\}a-c0-9_é]{0,20}", tag in "[a-c0-9._-]{0,20}") {
        if let Ok(policy) = policy(&json!({"alphabetical": {}}), &json!({"pattern": pattern, "extract": extract})) {
            let _ = latest(&policy, [&*tag], || false);
        }
    }
}
