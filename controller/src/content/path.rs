//! Entry paths: which ones are refused, and how the rest are normalised. `a//b`, `./a/b` and `a/b/` name the same
//! entry as `a/b`, as they would on a file system.

use super::{error::ContentError, error::shown, limits::Limits};

/// The elements of a safe relative path; none for the root itself (`.`, `./`).
pub(super) fn elements<'a>(raw: &'a [u8], limits: &Limits) -> Result<Vec<&'a str>, ContentError> {
    let unsafe_path = |why| Err(ContentError::UnsafePath { path: shown(raw), why });
    if raw.len() > limits.max_path {
        return Err(ContentError::LongPath {
            path: shown(raw),
            limit: limits.max_path,
            unit: "bytes",
        });
    }
    let Ok(text) = std::str::from_utf8(raw) else {
        return unsafe_path("it is not UTF-8");
    };
    if text.is_empty() {
        return unsafe_path("it is empty");
    }
    if text.contains('\0') {
        return unsafe_path("it contains NUL");
    }
    if text.contains('\\') {
        return unsafe_path("it contains a backslash");
    }
    if text.starts_with('/') {
        return unsafe_path("it is absolute");
    }
    let mut elements = Vec::new();
    for element in text.split('/') {
        match element {
            "" | "." => {}
            ".." => return unsafe_path("it contains '..'"),
            name => elements.push(name),
        }
        if elements.len() > limits.max_depth {
            return Err(ContentError::LongPath {
                path: shown(raw),
                limit: limits.max_depth,
                unit: "levels",
            });
        }
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::absolute(b"/etc/passwd", "absolute")]
    #[case::parent(b"../x", "'..'")]
    #[case::inner_parent(b"a/../../x", "'..'")]
    #[case::trailing_parent(b"a/..", "'..'")]
    #[case::backslash(b"a\\..\\b", "backslash")]
    #[case::empty(b"", "empty")]
    #[case::nul(b"a\0b", "NUL")]
    #[case::not_utf8(b"a\xffb", "UTF-8")]
    fn unsafe_paths_are_refused(#[case] raw: &[u8], #[case] why: &str) {
        let error = elements(raw, &Limits::default()).unwrap_err();
        assert!(matches!(error, ContentError::UnsafePath { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }

    #[rstest]
    #[case::root(b".", &[])]
    #[case::root_slash(b"./", &[])]
    #[case::plain(b"a/b", &["a", "b"])]
    #[case::noise(b"./a//./b/", &["a", "b"])]
    #[case::dots_in_names(b"..a/b../c..d", &["..a", "b..", "c..d"])]
    fn safe_paths_are_normalised(#[case] raw: &[u8], #[case] expected: &[&str]) {
        assert_eq!(elements(raw, &Limits::default()).unwrap(), expected);
    }

    #[test]
    fn length_and_depth_are_capped_at_the_limit() {
        let limits = Limits::default();
        assert!(elements(&[b'a'; 4096], &limits).is_ok());
        assert!(matches!(
            elements(&[b'a'; 4097], &limits),
            Err(ContentError::LongPath { unit: "bytes", .. })
        ));
        assert!(elements("a/".repeat(64).as_bytes(), &limits).is_ok());
        let deep = "a/".repeat(65);
        assert!(matches!(
            elements(deep.as_bytes(), &limits),
            Err(ContentError::LongPath { unit: "levels", .. })
        ));
    }

    proptest! {
        #[test]
        fn accepted_paths_stay_below_the_root(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(elements) = elements(&raw, &Limits::default()) {
                for element in elements {
                    prop_assert!(!element.is_empty() && element != "." && element != "..");
                    prop_assert!(!element.contains(['/', '\\', '\0']));
                }
            }
        }
    }
}
