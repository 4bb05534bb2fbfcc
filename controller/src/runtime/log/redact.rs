//! The last line of defence against secrets in text: types keep them out, this catches what slipped through an error
//! message of a library or a registry.

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

/// What replaces a secret.
const REDACTED: &str = "[redacted]";

/// In order: a compact JWS; a bearer or basic credential (a challenge's `Bearer realm=` has a short word there); a PEM
/// private key; the user part of a URL; its query, where presigned URLs carry their signature.
static SECRETS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let patterns = [
        r"eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?",
        r"(?P<a>\b(?:Bearer|Basic|bearer|basic) )[A-Za-z0-9+/._~-]{16,}=*",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
        r"(?P<b>://)[^/\s@'\x22]+@",
        r"(?P<c>https?://[^\s?'\x22]+\?)[^\s'\x22]+",
    ];
    Regex::new(&patterns.join("|")).ok()
});

/// `text` without anything that has the shape of a secret.
pub fn redact(text: &str) -> Cow<'_, str> {
    // Most lines contain none of these, and then no pattern can match.
    if !["eyJ", "earer ", "asic ", "-----BEGIN", "://"]
        .iter()
        .any(|mark| text.contains(mark))
    {
        return Cow::Borrowed(text);
    }
    let Some(secrets) = SECRETS.as_ref() else {
        return Cow::Borrowed("[redacted]");
    };
    secrets.replace_all(text, |found: &regex::Captures<'_>| {
        let kept = ["a", "b", "c"]
            .iter()
            .find_map(|group| found.name(group))
            .map_or("", |part| part.as_str());
        format!("{kept}{REDACTED}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_and_their_surroundings_kept() {
        let cases = [
            (
                "got eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln here",
                "got [redacted] here",
            ),
            (
                "Authorization: Bearer abcdefghijklmnopqrstuvwxyz==",
                "Authorization: Bearer [redacted]",
            ),
            ("Basic dXNlcjpwYXNzd29yZHBhc3M=", "Basic [redacted]"),
            (
                "-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\nrest",
                "[redacted]\nrest",
            ),
            ("-----BEGIN PRIVATE KEY-----\nMHc", "[redacted]"),
            (
                "proxy http://user:secret@proxy:3128 failed",
                "proxy http://[redacted]proxy:3128 failed",
            ),
            (
                "GET https://s3.test/blob?X-Amz-Signature=abc&b=c: 403",
                "GET https://s3.test/blob?[redacted] 403",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text), expected);
        }
    }

    #[test]
    fn ordinary_text_is_left_alone() {
        for text in [
            "stored artifact with revision 'latest@sha256:0123' from 'oci://registry.test/app'",
            r#"Bearer realm="https://auth.test/token",service="r""#,
            "basic authentication is not supported",
            "-----BEGIN CERTIFICATE-----",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
