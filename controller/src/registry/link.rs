//! `Link` headers (RFC 8288 §3): finds the target of `rel=next`. Pure; knows nothing of where the target may lead.

use http::{HeaderMap, header::LINK};

/// A `Link` header that is not of the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// The first target with the relation `next` in any `Link` header, as it stands there. An error when there is none but a
/// header that cannot be read: it might have been meant.
pub(super) fn next(headers: &HeaderMap) -> Result<Option<String>, Malformed> {
    let mut malformed = false;
    for value in headers.get_all(LINK) {
        match value.to_str().map_err(|_| Malformed).and_then(next_of) {
            Ok(Some(target)) => return Ok(Some(target.to_owned())),
            Ok(None) => {}
            Err(Malformed) => malformed = true,
        }
    }
    if malformed { Err(Malformed) } else { Ok(None) }
}

/// The same of one header: `<target> *( ";" parameter )`, between commas.
fn next_of(value: &str) -> Result<Option<&str>, Malformed> {
    let mut rest = blank(value);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(',') {
            rest = blank(after);
            continue;
        }
        let (target, after) = rest
            .strip_prefix('<')
            .and_then(|rest| rest.split_once('>'))
            .ok_or(Malformed)?;
        let (relation, after) = relation(blank(after))?;
        if relation.is_some_and(|types| types.split_ascii_whitespace().any(|it| it.eq_ignore_ascii_case("next"))) {
            return Ok(Some(target));
        }
        rest = after;
    }
    Ok(None)
}

/// The value of the first `rel` among the parameters, and what follows them all: nothing, or a comma.
fn relation(mut rest: &str) -> Result<(Option<&str>, &str), Malformed> {
    let mut found = None;
    while let Some(after) = rest.strip_prefix(';') {
        let after = blank(after);
        let name = after.split([';', ',', '=', ' ', '\t']).next().unwrap_or_default();
        rest = blank(after.strip_prefix(name).ok_or(Malformed)?);
        if let Some(after) = rest.strip_prefix('=') {
            let (value, after) = parameter_value(blank(after))?;
            rest = blank(after);
            if name.eq_ignore_ascii_case("rel") {
                found.get_or_insert(value);
            }
        }
    }
    if rest.is_empty() || rest.starts_with(',') {
        Ok((found, rest))
    } else {
        Err(Malformed)
    }
}

/// A token or a quoted string. Escapes are skipped over and left as they are: no relation type has any.
fn parameter_value(text: &str) -> Result<(&str, &str), Malformed> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',', ' ', '\t']).unwrap_or(text.len());
        return text.split_at_checked(end).ok_or(Malformed);
    };
    let mut escaped = false;
    for (at, byte) in quoted.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                let (value, rest) = quoted.split_at_checked(at).ok_or(Malformed)?;
                return Ok((value, rest.strip_prefix('"').unwrap_or_default()));
            }
            _ => {}
        }
    }
    Err(Malformed)
}

fn blank(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (LINK, value.parse().unwrap())).collect()
    }

    #[rstest]
    #[case::usual(&[r#"</v2/a/tags/list?n=2&last=b>; rel="next""#], Some("/v2/a/tags/list?n=2&last=b"))]
    #[case::token(&["<x>;rel=next"], Some("x"))]
    #[case::case_and_space(&[r#" < x > ; REL = "prev NEXT" "#], Some(" x "))]
    #[case::second(&[r#"<a>; rel="first", <b,;c>; title="a, \"b\"; rel=next"; rel="next""#], Some("b,;c"))]
    #[case::second_header(&["<a>; rel=prev", "<b>; rel=next"], Some("b"))]
    #[case::first_rel_counts(&["<a>; rel=prev; rel=next"], None)]
    #[case::no_relation(&["<a>", "<b>; next"], None)]
    #[case::empty(&["", " , "], None)]
    #[case::none(&[], None)]
    #[case::beside_a_bad_one(&["x", "<b>; rel=next"], Some("b"))]
    fn found(#[case] values: &[&str], #[case] expected: Option<&str>) {
        assert_eq!(next(&headers(values)), Ok(expected.map(str::to_owned)));
    }

    #[rstest]
    #[case::bare("/v2/a/tags/list?last=b; rel=next")]
    #[case::unclosed("</v2/a")]
    #[case::unclosed_quote(r#"<a>; rel="next"#)]
    #[case::junk("<a> rel=next")]
    fn malformed(#[case] value: &str) {
        assert_eq!(next(&headers(&[value])), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~]*", near in "[<>;,=\" \\\\a-c]{0,20}") {
            let _ = (next_of(&text), next_of(&near));
        }

        #[test]
        fn a_target_is_found_among_others(target in "[!-;?-~=]{1,30}", other in "[!-;?-~=]{1,30}") {
            let value = format!("<{other}>; rel=\"prev\", <{target}>; rel=\"next\"");
            prop_assert_eq!(next_of(&value), Ok(Some(target.as_str())));
        }
    }
}
