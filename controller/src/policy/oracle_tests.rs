//! What Go's library says, of which Flux's policies are made: the table made by `hack/servers/policy` is judged here in the
//! same way.

use mintmark_api::image_policy::{Order, OrderPolicy, PolicyChoice, TagFilterSpec};
use serde_json::Value;

use super::{TagPolicy, extract::Extraction, latest, number::number};

const TABLE: &str = include_str!("testdata/go.txt");

/// The rows that begin with `kind`.
fn rows(kind: &str) -> impl Iterator<Item = &'static str> {
    TABLE
        .lines()
        .filter_map(move |line| line.strip_prefix(kind)?.strip_prefix(' '))
}

#[test]
fn the_same_texts_are_numbers_of_the_same_value() {
    let (mut read, mut refused) = (0, 0);
    for row in rows("n") {
        let (verdict, text) = row.split_once(' ').unwrap();
        let text: String = serde_json::from_str(text).unwrap();
        let bits = number(&text).map(f64::to_bits);
        let expected = u64::from_str_radix(verdict, 16).ok();
        assert_eq!(bits, expected, "{text:?}");
        read += usize::from(bits.is_some());
        refused += usize::from(bits.is_none());
    }
    assert!(read > 50 && refused > 50, "{read} {refused}");
}

#[test]
fn texts_have_the_same_order() {
    let mut seen = 0;
    for row in rows("s") {
        let texts: Vec<String> = serde_json::from_str(row).unwrap();
        for (order, expected) in [(Order::Asc, texts.last()), (Order::Desc, texts.first())] {
            let choice = PolicyChoice {
                alphabetical: Some(OrderPolicy { order: Some(order) }),
                ..PolicyChoice::default()
            };
            let policy = TagPolicy::new(&choice, None).unwrap();
            let found = latest(&policy, texts.iter().map(String::as_str), || false).unwrap();
            assert_eq!(Some(&*found), expected.map(String::as_str), "{texts:?}");
        }
        seen += 1;
    }
    assert!(seen >= 20);
}

#[test]
fn templates_expand_to_the_same() {
    let (mut matched, mut unmatched) = (0, 0);
    for row in rows("x") {
        let (pattern, template, tag, expected): (String, String, String, Value) = serde_json::from_str(row).unwrap();
        let spec = TagFilterSpec {
            pattern: Some(pattern),
            extract: Some(template),
        };
        let mut text = String::new();
        let found = Extraction::new(&spec).unwrap().extract(&tag, &mut text);
        assert_eq!(found.then_some(text.as_str()), expected.as_str(), "{spec:?} {tag:?}");
        matched += usize::from(found);
        unmatched += usize::from(!found);
    }
    assert!(matched > 500 && unmatched > 500, "{matched} {unmatched}");
}
