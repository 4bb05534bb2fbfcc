//! What Go's parser accepts and prints, case by case, and the properties that hold for every text and value.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

#[rstest]
#[case("0", 0)]
#[case("0s", 0)]
#[case("60s", 60_000_000_000)]
#[case("1h30m", 5_400_000_000_000)]
#[case("1.5h", 5_400_000_000_000)]
#[case(".5s", 500_000_000)]
#[case("5.s", 5_000_000_000)]
#[case("250ms", 250_000_000)]
#[case("1m500ms", 60_500_000_000)]
#[case("30m1h", 5_400_000_000_000)]
#[case("1.000000001s", 1_000_000_001)]
#[case("2\u{b5}s3ns", 2_003)]
#[case("0.3333333333333333333h", 1_200_000_000_000 - 1)]
#[case("9223372036854775807ns", i64::MAX as u64)]
fn parses(#[case] text: &str, #[case] nanos: u64) {
    assert_eq!(GoDuration::parse(text), Ok(GoDuration(nanos)));
}

#[rstest]
#[case::empty("", DurationError::Empty)]
#[case::no_unit("5", DurationError::Unit)]
#[case::unknown_unit("5d", DurationError::Unit)]
#[case::missing_last_unit("1h5", DurationError::Unit)]
#[case::negative("-5s", DurationError::Number)]
#[case::only_unit("s", DurationError::Number)]
#[case::only_point(".s", DurationError::Number)]
#[case::space("1h 5m", DurationError::Unit)]
#[case::beyond_i64("9223372036854775808ns", DurationError::Overflow)]
#[case::far_beyond("99999999999999999999999h", DurationError::Overflow)]
#[case::sum_beyond("2562047h2562047h", DurationError::Overflow)]
fn refuses(#[case] text: &str, #[case] error: DurationError) {
    assert_eq!(GoDuration::parse(text), Err(error));
}

#[rstest]
#[case(0, "0s")]
#[case(1, "1ns")]
#[case(1_100, "1.1\u{b5}s")]
#[case(2_200_000, "2.2ms")]
#[case(3_300_000_000, "3.3s")]
#[case(60_000_000_000, "1m0s")]
#[case(245_001_000_000, "4m5.001s")]
#[case(3_600_000_000_000, "1h0m0s")]
#[case(i64::MAX as u64, "2562047h47m16.854775807s")]
fn prints_like_go(#[case] nanos: u64, #[case] text: &str) {
    assert_eq!(GoDuration(nanos).to_string(), text);
}

#[test]
fn an_overlong_stored_value_is_cut_instead_of_refused() {
    let duration: GoDuration = serde_json::from_value(serde_json::json!("9999999999h")).unwrap();
    assert_eq!(duration, GoDuration::MAX);
    assert!(serde_json::from_value::<GoDuration>(serde_json::json!("ten minutes")).is_err());
}

#[test]
fn seconds_saturate() {
    assert_eq!(GoDuration::from_secs(90).to_string(), "1m30s");
    assert_eq!(GoDuration::from_secs(u64::MAX), GoDuration::MAX);
}

proptest! {
    #[test]
    fn printed_values_parse_back(nanos in 0..=MAX_NANOS) {
        let duration = GoDuration(nanos);
        prop_assert_eq!(GoDuration::parse(&duration.to_string()), Ok(duration));
    }

    #[test]
    fn what_the_crd_pattern_admits_decodes(text in "([0-9]{1,12}(\\.[0-9]{1,12})?(ms|s|m|h)){1,4}") {
        prop_assert!(serde_json::from_value::<GoDuration>(serde_json::json!(text)).is_ok());
    }

    #[test]
    fn no_text_panics(text in "[0-9.a-zµ-]{0,40}") {
        let _ = GoDuration::parse(&text);
    }
}
