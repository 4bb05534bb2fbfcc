//! The `WWW-Authenticate` grammar of RFC 9110 §11.6.1, as registries use and misuse it.
//!
//! Pure text work: several challenges per header line, several lines, quoted strings with escapes, token68 values.
//! What cannot be read is skipped up to the next challenge; nothing here fails.

/// Longest header line that is looked at, in bytes; hyper itself allows several hundred KiB.
const MAX_LINE: usize = 8 * 1024;
/// Challenges looked at in all.
const MAX_CHALLENGES: usize = 16;

/// One challenge: a scheme and its parameters, both names in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) scheme: String,
    params: Vec<(String, String)>,
}

impl Challenge {
    /// The first parameter of that (lower-case) name.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// All challenges of all header lines, in order.
pub(super) fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for line in lines {
        if line.len() <= MAX_LINE {
            Parser { rest: line }.challenges(&mut challenges);
        }
    }
    challenges.truncate(MAX_CHALLENGES);
    challenges
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn challenges(&mut self, found: &mut Vec<Challenge>) {
        while found.len() < MAX_CHALLENGES {
            self.skip(|c| c == ',' || c.is_ascii_whitespace());
            if self.rest.is_empty() {
                return;
            }
            let name = self.token();
            if name.is_empty() {
                self.advance_past_comma();
                continue;
            }
            let spaced = self.skip(|c| c.is_ascii_whitespace());
            match (self.rest.strip_prefix('='), found.last_mut()) {
                // `name=value` after a comma belongs to the challenge before it.
                (Some(value), Some(challenge)) => {
                    self.rest = value;
                    match self.value() {
                        Some(value) => challenge.params.push((name.to_ascii_lowercase(), value)),
                        None => self.advance_past_comma(),
                    }
                }
                (Some(_), None) => self.advance_past_comma(),
                (None, _) => {
                    found.push(Challenge {
                        scheme: name.to_ascii_lowercase(),
                        params: Vec::new(),
                    });
                    if spaced {
                        self.skip_token68();
                    }
                }
            }
        }
    }

    /// Jumps over a lone token68 (`Negotiate YII==`), which no registry challenge of ours uses.
    fn skip_token68(&mut self) {
        let token = self.rest.split([',', ' ', '\t']).next().unwrap_or_default();
        let body = token.trim_end_matches('=');
        let token68 = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
        let after = self.rest.get(token.len()..).unwrap_or_default().trim_start();
        if !body.is_empty() && body.bytes().all(token68) && (after.is_empty() || after.starts_with(',')) {
            self.rest = after;
        }
    }

    fn value(&mut self) -> Option<String> {
        self.skip(|c| c.is_ascii_whitespace());
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let value = self.token();
            return (!value.is_empty()).then(|| value.to_owned());
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.rest = quoted.get(at + 1..).unwrap_or_default();
                    return Some(value);
                }
                '\\' => value.push(characters.next()?.1),
                c => value.push(c),
            }
        }
        self.rest = "";
        None
    }

    fn token(&mut self) -> &'a str {
        let end = self.rest.find(|c| !is_tchar(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        token
    }

    fn skip(&mut self, what: impl Fn(char) -> bool) -> bool {
        let trimmed = self.rest.trim_start_matches(what);
        let moved = trimmed.len() != self.rest.len();
        self.rest = trimmed;
        moved
    }

    fn advance_past_comma(&mut self) {
        self.rest = self.rest.split_once(',').map_or("", |(_, rest)| rest);
    }
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_tchar(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn one(line: &str) -> Challenge {
        let mut challenges = parse([line]);
        assert_eq!(challenges.len(), 1, "{challenges:?}");
        challenges.remove(0)
    }

    #[test]
    fn reads_a_registry_challenge() {
        let challenge =
            one(r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull""#);
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.param("realm"), Some("https://auth.example/token"));
        assert_eq!(challenge.param("service"), Some("registry.example"));
        assert_eq!(challenge.param("scope"), Some("repository:a/b:pull"));
    }

    #[rstest]
    #[case::spaces(r#"bearer  realm = "x" , service = y"#)]
    #[case::case(r#"BEARER Realm="x",SERVICE=y"#)]
    #[case::escape(r#"Bearer realm="\x",service="y""#)]
    fn reads_variants(#[case] line: &str) {
        let challenge = one(line);
        assert_eq!(
            (challenge.param("realm"), challenge.param("service")),
            (Some("x"), Some("y"))
        );
    }

    #[test]
    fn reads_several_challenges_in_one_and_more_lines() {
        let found = parse([r#"Negotiate YII==, Basic realm="a, b", Bearer realm="c""#, "Digest"]);
        let schemes: Vec<_> = found.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer", "digest"]);
        assert_eq!(found[1].param("realm"), Some("a, b"));
        assert_eq!(found[2].param("realm"), Some("c"));
    }

    #[rstest]
    #[case::empty("")]
    #[case::commas(",,,")]
    #[case::only_a_parameter(r#"realm="x""#)]
    fn finds_nothing(#[case] line: &str) {
        assert_eq!(parse([line]), []);
    }

    #[test]
    fn unterminated_quote_yields_no_parameter() {
        assert_eq!(one(r#"Bearer realm="https://x"#).param("realm"), None);
    }

    #[test]
    fn is_bounded() {
        let many = "Basic,".repeat(100);
        assert_eq!(parse([many.as_str()]).len(), MAX_CHALLENGES);
        let long = format!("Bearer realm=\"{}\"", "x".repeat(MAX_LINE));
        assert_eq!(parse([long.as_str()]), []);
    }

    proptest! {
        #[test]
        fn never_panics(line in "\\PC{0,200}") {
            parse([line.as_str()]);
        }

        #[test]
        fn quoted_values_survive(value in "[ -~]{0,40}") {
            let line = format!("Bearer realm=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
            let challenge = one(&line);
            prop_assert_eq!(challenge.param("realm"), Some(value.as_str()));
        }
    }
}
