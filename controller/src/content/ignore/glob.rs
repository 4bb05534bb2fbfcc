//! One element of a pattern: the wildcards of Go's `path.Match`. `*` any run of characters, `?` one character,
//! `[a-z]` and `[^a-z]` classes, `\` takes the next character literally. A malformed element matches nothing.

/// A compiled element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob(Option<Vec<Token>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Run,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    pub(crate) fn new(text: &str) -> Self {
        Self(compile(text))
    }

    /// Whether the whole of `name` matches. Takes at most `pattern × name` steps, which it adds to `steps`: a `*` gives
    /// way only to the next one.
    pub(crate) fn matches(&self, name: &str, steps: &mut u64) -> bool {
        let Some(tokens) = &self.0 else {
            return false;
        };
        let mut tokens = tokens.as_slice();
        let mut name = name.chars();
        let mut retry: Option<(&[Token], std::str::Chars<'_>)> = None;
        loop {
            *steps += 1;
            let mut ahead = name.clone();
            match (tokens.split_first(), ahead.next()) {
                (Some((Token::Run, rest)), _) => {
                    retry = Some((rest, name.clone()));
                    tokens = rest;
                    continue;
                }
                (Some((token, rest)), Some(next)) if token.takes(next) => {
                    tokens = rest;
                    name = ahead;
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            // Let the last `*` take one character more.
            let Some((after_run, mut from)) = retry.take() else {
                return false;
            };
            if from.next().is_none() {
                return false;
            }
            tokens = after_run;
            name = from.clone();
            retry = Some((after_run, from));
        }
    }
}

impl Token {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::Literal(own) => *own == character,
            Self::One => true,
            Self::Run => false,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *negated
            }
        }
    }
}

fn compile(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        tokens.push(match next {
            '*' => Token::Run,
            '?' => Token::One,
            '\\' => Token::Literal(rest.next()?),
            '[' => class(&mut rest)?,
            other => Token::Literal(other),
        });
    }
    Some(tokens)
}

/// The class after its `[`, up to its `]`. At least one range; a bare `-` or `]` cannot begin one.
fn class(rest: &mut std::str::Chars<'_>) -> Option<Token> {
    let negated = rest.clone().next() == Some('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.clone().next() == Some(']') {
            rest.next();
            return Some(Token::Class { negated, ranges });
        }
        let low = bound(rest)?;
        let high = if rest.clone().next() == Some('-') {
            rest.next();
            bound(rest)?
        } else {
            low
        };
        ranges.push((low, high));
    }
}

fn bound(rest: &mut std::str::Chars<'_>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        plain => Some(plain),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("abc", "abc", true)]
    #[case("abc", "abcd", false)]
    #[case("*", "", true)]
    #[case("*c", "abc", true)]
    #[case("a*", "abc", true)]
    #[case("a*b*c", "axxbxxc", true)]
    #[case("a*b*c", "axxbxx", false)]
    #[case("*.tar.gz", "x.tar.tar.gz", true)]
    #[case("a?c", "abc", true)]
    #[case("a?c", "ac", false)]
    #[case("a?c", "aäc", true)]
    #[case("[a-c]", "b", true)]
    #[case("[a-c]", "d", false)]
    #[case("[^a-c]", "d", true)]
    #[case("[^a-c]", "b", false)]
    #[case("[a-cx]", "x", true)]
    #[case("[\\]]", "]", true)]
    #[case("[\\-]", "-", true)]
    #[case("[c-a]", "b", false)]
    #[case("\\*", "*", true)]
    #[case("\\*", "x", false)]
    #[case("\\#a", "#a", true)]
    fn matches_as_go_does(#[case] glob: &str, #[case] name: &str, #[case] expected: bool) {
        assert_eq!(Glob::new(glob).matches(name, &mut 0), expected);
    }

    #[rstest]
    #[case("[")]
    #[case("[]")]
    #[case("[]a]")]
    #[case("[-]")]
    #[case("[x-]")]
    #[case("[a")]
    #[case("[^]")]
    #[case("a\\")]
    fn malformed_elements_match_nothing(#[case] glob: &str) {
        assert_eq!(Glob::new(glob), Glob(None));
        assert!(!Glob::new(glob).matches(glob, &mut 0));
    }

    #[test]
    fn many_runs_stay_fast() {
        let glob = Glob::new(&format!("{}b", "a*".repeat(100)));
        assert!(!glob.matches(&"a".repeat(4000), &mut 0));
    }

    proptest! {
        #[test]
        fn escaped_text_matches_itself_only(name in "[a-c*?\\[\\]\\\\-]{0,12}", other in "[a-c*?]{0,12}") {
            let escaped: String = name.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert!(Glob::new(&escaped).matches(&name, &mut 0));
            prop_assert_eq!(Glob::new(&escaped).matches(&other, &mut 0), name == other);
        }

        #[test]
        fn never_panics(glob in ".{0,20}", name in ".{0,20}") {
            let _ = Glob::new(&glob).matches(&name, &mut 0);
        }
    }
}
