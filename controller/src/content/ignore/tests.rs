//! Vectors of the ignore rules, one per rule, with go-git's reading where it differs from git's.

use proptest::prelude::*;
use rstest::rstest;

use super::{Patterns, Verdict};

fn patterns(text: &str) -> Patterns {
    let mut patterns = Patterns::none();
    patterns.add(text, &[]);
    patterns
}

fn excludes(text: &str, path: &str) -> bool {
    let is_directory = path.ends_with('/');
    let elements: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    patterns(text).excludes(&elements, is_directory)
}

#[rstest]
#[case::any_element("name", "a/name/b", true)]
#[case::last_element("name", "a/name", true)]
#[case::whole_element_only("name", "a/names", false)]
#[case::extension("*.png", "a/b.png", true)]
#[case::directory_itself("build/", "build/", true)]
#[case::below_directory("build/", "x/build/file", true)]
#[case::file_of_that_name("build/", "build", false)]
#[case::anchored("/name", "name", true)]
#[case::anchored_below("/name", "a/name", false)]
#[case::anchored_covers_below("/name", "name/a/b", true)]
#[case::inner_slash_is_anchored("a/b", "a/b", true)]
#[case::inner_slash_elsewhere("a/b", "x/a/b", false)]
#[case::longer_than_path("a/b/c", "a/b", false)]
#[case::leading_any_depth("**/name", "name", true)]
#[case::leading_any_depth_deep("**/name", "a/b/name", true)]
#[case::leading_any_depth_covers_below("**/name", "a/name/x", true)]
#[case::inner_any_depth("a/**/b", "a/b", true)]
#[case::inner_any_depth_deep("a/**/b", "a/x/y/b", true)]
#[case::inner_any_depth_miss("a/**/b", "a/x/y", false)]
#[case::trailing_any_depth("a/**", "a/x", true)]
#[case::trailing_any_depth_itself("a/**", "a/", true)]
#[case::trailing_any_depth_file("a/**", "a", true)]
#[case::doubled_slash_at_the_end("a//", "a/", true)]
#[case::any_depth_within_an_element("a/x**y", "a/xxy", false)]
#[case::any_depth_gives_way_once("**/a/b", "a/a/b", false)]
#[case::path_directory_only("a/b/", "a/b", false)]
#[case::path_directory_only_directory("a/b/", "a/b/", true)]
#[case::path_directory_only_below("a/b/", "a/b/c", true)]
#[case::star_stays_in_its_element("/*", "a", true)]
#[case::star_slash("a/*/c", "a/b/c", true)]
#[case::star_is_not_deep("a/*/c", "a/b/b/c", false)]
#[case::class("[ab].txt", "b.txt", true)]
#[case::escaped_hash("\\#a", "#a", true)]
#[case::escaped_exclamation("\\!a", "!a", true)]
#[case::escaped_trailing_space("a\\ ", "a ", true)]
#[case::trailing_spaces_are_cut("a  ", "a", true)]
#[case::malformed("[", "[", false)]
#[case::comment("#a", "#a", false)]
#[case::crlf("a\r\nb\r\n", "a", true)]
#[case::cr_without_lf("a\r", "a", true)]
#[case::only_slash("/", "a", false)]
#[case::only_exclamation("!", "a", false)]
fn single_patterns(#[case] text: &str, #[case] path: &str, #[case] expected: bool) {
    assert_eq!(excludes(text, path), expected);
}

/// What go-git 5.16.4 says about 600 random lists of patterns and paths, half of them excluded. A line holds the patterns as
/// a JSON array, the path (a directory ends with a slash) and the verdict.
#[test]
fn verdicts_are_those_of_go_git() {
    let vectors = include_str!("vectors.tsv").lines();
    let mut wrong = Vec::new();
    for line in vectors {
        let fields: Vec<&str> = line.split('\t').collect();
        let lines: Vec<String> = serde_json::from_str(fields[0]).unwrap();
        if excludes(&lines.join("\n"), fields[1]) != (fields[2] == "excluded") {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn last_match_wins() {
    assert!(!excludes("*.txt\n!keep.txt\n", "keep.txt"));
    assert!(excludes("!keep.txt\n*.txt\n", "keep.txt"));
    assert!(excludes("*.txt\n!keep.txt\n", "other.txt"));
}

#[test]
fn excluded_directory_with_an_included_child() {
    assert!(!excludes("/*\n!/deploy\n", "deploy/a.yaml"));
    assert!(excludes("/*\n!/deploy\n", "docs/a.yaml"));
    assert!(!excludes("/a\n!/a/b\n", "a/b/c"));
}

#[test]
fn verdict_tells_included_from_unmentioned() {
    let patterns = patterns("!a\nb\n");
    assert_eq!(patterns.verdict(&["a"], false), Verdict::Included);
    assert_eq!(patterns.verdict(&["b"], false), Verdict::Excluded);
    assert_eq!(patterns.verdict(&["c"], false), Verdict::Unmentioned);
}

#[test]
fn patterns_are_scoped_to_their_domain() {
    let mut patterns = Patterns::none();
    patterns.add("*.md\n/only\n", &["docs", "api"]);
    assert!(patterns.excludes(&["docs", "api", "a.md"], false));
    assert!(patterns.excludes(&["docs", "api", "x", "a.md"], false));
    assert!(patterns.excludes(&["docs", "api", "only"], false));
    assert!(!patterns.excludes(&["docs", "api", "x", "only"], false));
    assert!(!patterns.excludes(&["docs", "a.md"], false));
    assert!(!patterns.excludes(&["docs", "apis", "a.md"], false));
    assert!(!patterns.excludes(&["docs", "api"], true));
}

#[rstest]
#[case(".git/", true)]
#[case("sub/.git/config", true)]
#[case(".gitignore", true)]
#[case("a/photo.jpeg", true)]
#[case("chart.tar.gz", true)]
#[case("chart.tgz", false)]
#[case(".github/workflows/x.yml", true)]
#[case("sub/.travis.yml", true)]
#[case("a/b/.sops.yaml", true)]
#[case(".flux.yaml", true)]
#[case("deploy.yaml", false)]
#[case(".sourceignore", false)]
fn built_in_lists(#[case] path: &str, #[case] expected: bool) {
    let is_directory = path.ends_with('/');
    let elements: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    assert_eq!(Patterns::built_in().excludes(&elements, is_directory), expected);
}

#[test]
fn user_patterns_replace_all_but_version_control() {
    let mut patterns = Patterns::version_control();
    assert!(!patterns.is_empty());
    patterns.add("*.yaml", &[]);
    assert!(patterns.excludes(&[".git"], true));
    assert!(!patterns.excludes(&["a.png"], false));
    assert!(patterns.excludes(&["a.yaml"], false));
}

proptest! {
    #[test]
    fn never_panics(text in ".{0,40}", path in proptest::collection::vec("[a-c*]{1,3}", 0..5)) {
        let elements: Vec<&str> = path.iter().map(String::as_str).collect();
        let _ = patterns(&text).verdict(&elements, true);
    }

    #[test]
    fn what_excludes_a_directory_excludes_what_is_below(
        text in "/?[abc*?]{1,2}(/([abc*?]{1,2}|\\*\\*)){0,2}/?",
        path in proptest::collection::vec("[abc]{1,2}", 1..4),
        below in proptest::collection::vec("[abc]{1,2}", 1..3),
    ) {
        let patterns = patterns(&text);
        let mut elements: Vec<&str> = path.iter().map(String::as_str).collect();
        if patterns.excludes(&elements, true) {
            elements.extend(below.iter().map(String::as_str));
            prop_assert!(patterns.excludes(&elements, false), "{text} {elements:?}");
        }
    }
}
