//! Conditional requests (RFC 9110 §13): whether a file has to be sent at all, and whether a range of it may be. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, header};

/// What identifies the version of a file to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validators {
    /// A strong entity tag, quotes included.
    pub(super) etag: String,
    /// Cut to the whole second, which is all that HTTP dates can say.
    pub(super) modified: SystemTime,
}

/// What the preconditions of a GET or HEAD come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it.
    Send,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

impl Validators {
    pub(super) fn new(digest: &str, modified: SystemTime) -> Self {
        let seconds = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            etag: format!("\"{digest}\""),
            modified: UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    /// Evaluates in the order of §13.2.2.
    pub(super) fn evaluate(&self, headers: &HeaderMap) -> Verdict {
        if headers.contains_key(header::IF_MATCH) {
            if !self.is_listed(headers, &header::IF_MATCH, Comparison::Strong) {
                return Verdict::Failed;
            }
        } else if date(headers, &header::IF_UNMODIFIED_SINCE).is_some_and(|date| self.modified > date) {
            return Verdict::Failed;
        }
        let not_modified = if headers.contains_key(header::IF_NONE_MATCH) {
            self.is_listed(headers, &header::IF_NONE_MATCH, Comparison::Weak)
        } else {
            date(headers, &header::IF_MODIFIED_SINCE).is_some_and(|date| self.modified <= date)
        };
        if not_modified {
            Verdict::NotModified
        } else {
            Verdict::Send
        }
    }

    /// Whether `If-Range` (§13.1.5), if there is one, lets a range be sent: the same strong tag or the exact date.
    pub(super) fn allow_range(&self, headers: &HeaderMap) -> bool {
        match headers
            .get(header::IF_RANGE)
            .map(|value| value.to_str().unwrap_or_default())
        {
            None => true,
            Some(tag) if tag.starts_with('"') => tag == self.etag,
            Some(other) => httpdate::parse_http_date(other).is_ok_and(|date| date == self.modified),
        }
    }

    fn is_listed(&self, headers: &HeaderMap, name: &HeaderName, comparison: Comparison) -> bool {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        // A digest holds neither comma nor quote, so splitting at commas cannot cut ours in two.
        values
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .any(|tag| match tag.strip_prefix("W/") {
                Some(weak) => comparison == Comparison::Weak && weak == self.etag,
                None => tag == "*" || tag == self.etag,
            })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rstest::rstest;

    use super::*;

    const BEFORE: &str = "Tue, 14 Nov 2023 22:13:19 GMT";
    const SAME: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
    const AFTER: &str = "Tue, 14 Nov 2023 22:13:21 GMT";

    fn validators() -> Validators {
        Validators::new("sha256:ab", UNIX_EPOCH + Duration::from_millis(1_700_000_000_700))
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[rstest]
    #[case::nothing(&[], Verdict::Send)]
    #[case::same_tag(&[(header::IF_NONE_MATCH, "\"sha256:ab\"")], Verdict::NotModified)]
    #[case::weak_tag(&[(header::IF_NONE_MATCH, "W/\"sha256:ab\"")], Verdict::NotModified)]
    #[case::tag_in_list(&[(header::IF_NONE_MATCH, "\"x\", \"sha256:ab\"")], Verdict::NotModified)]
    #[case::any_tag(&[(header::IF_NONE_MATCH, "*")], Verdict::NotModified)]
    #[case::other_tag(&[(header::IF_NONE_MATCH, "\"x\"")], Verdict::Send)]
    #[case::same_date(&[(header::IF_MODIFIED_SINCE, SAME)], Verdict::NotModified)]
    #[case::later_date(&[(header::IF_MODIFIED_SINCE, AFTER)], Verdict::NotModified)]
    #[case::earlier_date(&[(header::IF_MODIFIED_SINCE, BEFORE)], Verdict::Send)]
    #[case::no_date(&[(header::IF_MODIFIED_SINCE, "yesterday")], Verdict::Send)]
    #[case::tag_outranks_date(&[(header::IF_NONE_MATCH, "\"x\""), (header::IF_MODIFIED_SINCE, AFTER)], Verdict::Send)]
    #[case::match_same(&[(header::IF_MATCH, "\"sha256:ab\"")], Verdict::Send)]
    #[case::match_any(&[(header::IF_MATCH, "*")], Verdict::Send)]
    #[case::match_weak(&[(header::IF_MATCH, "W/\"sha256:ab\"")], Verdict::Failed)]
    #[case::match_other(&[(header::IF_MATCH, "\"x\"")], Verdict::Failed)]
    #[case::unmodified(&[(header::IF_UNMODIFIED_SINCE, SAME)], Verdict::Send)]
    #[case::modified(&[(header::IF_UNMODIFIED_SINCE, BEFORE)], Verdict::Failed)]
    #[case::match_outranks_date(&[(header::IF_MATCH, "*"), (header::IF_UNMODIFIED_SINCE, BEFORE)], Verdict::Send)]
    fn preconditions(#[case] pairs: &[(HeaderName, &str)], #[case] expected: Verdict) {
        assert_eq!(validators().evaluate(&headers(pairs)), expected);
    }

    #[rstest]
    #[case::none(None, true)]
    #[case::same_tag(Some("\"sha256:ab\""), true)]
    #[case::weak_tag(Some("W/\"sha256:ab\""), false)]
    #[case::other_tag(Some("\"x\""), false)]
    #[case::same_date(Some(SAME), true)]
    #[case::later_date(Some(AFTER), false)]
    #[case::neither(Some("x"), false)]
    fn if_range(#[case] value: Option<&str>, #[case] expected: bool) {
        let headers = value.map_or_else(HeaderMap::new, |value| headers(&[(header::IF_RANGE, value)]));
        assert_eq!(validators().allow_range(&headers), expected);
    }
}
