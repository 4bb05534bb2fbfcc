//! What Flux's annotations on a ServiceAccount ask for, for objects that name no credential of their own.
//!
//! Pure. `credential.auth.fluxcd.io/provider` and `…/type` come together or not at all; the other annotations refine them.
//! A value that cannot be acted on is an error, never ignored: what it was to prevent would happen.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mintmark_api::duration::GoDuration;

use super::{Audience, AudienceError, Wanted};

/// What all these annotations begin with.
const PREFIX: &str = "credential.auth.fluxcd.io/";
/// Most audiences, as in `spec.audiences`.
const MAX_AUDIENCES: usize = 16;
/// The API server refuses to issue tokens that live shorter.
const SHORTEST_OF_ACCOUNT: Duration = Duration::from_mins(10);
/// As `--spiffe-jwt-ttl`.
const SHORTEST_OF_OBJECT: Duration = Duration::from_mins(1);
/// The longest life of either.
const LONGEST: Duration = Duration::from_hours(1);

/// Why the annotations cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// One of the two that belong together.
    #[error("annotation {PREFIX}{0} is missing beside {PREFIX}{1}")]
    Incomplete(&'static str, &'static str),
    /// A word that means nothing here.
    #[error("annotation {PREFIX}{name} is {value:?}, not {expected}")]
    Value {
        /// Name after the prefix.
        name: &'static str,
        /// What it says, cut.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
    /// An audience that cannot stand in a token.
    #[error("annotation {PREFIX}audiences: {0}")]
    Audience(#[from] AudienceError),
    /// None, or too many.
    #[error("annotation {PREFIX}audiences names none or more than {MAX_AUDIENCES}")]
    Audiences,
    /// It would end at the colon, or in the middle of a header.
    #[error("annotation {PREFIX}username is empty or has a colon or a control character")]
    Username,
    /// Not Go's notation of a time, or one that is out of bounds.
    #[error("annotation {PREFIX}expiration is not a duration between {} m and 1 h", .shortest.as_secs() / 60)]
    Expiration {
        /// The shortest of this provider.
        shortest: Duration,
    },
    /// An annotation of this family that is not acted on.
    #[error("annotation {PREFIX}{0} is not supported yet")]
    Unsupported(String),
}

/// A credential that an account's annotations ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotated {
    /// The token.
    pub wanted: Wanted,
    /// The token is the password of this user, in HTTP basic authentication.
    pub username: Option<Arc<str>>,
}

impl Annotated {
    /// Whether an annotation of this name is one of those that are read.
    pub fn is_about(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// Reads the annotations of `account`. Without `…/audiences` the token is for `registry` (`host[:port]`).
    pub fn read(
        annotations: &BTreeMap<String, String>,
        account: &str,
        registry: &str,
    ) -> Result<Option<Self>, AnnotationError> {
        let own: BTreeMap<&str, &str> = annotations
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str())))
            .collect();
        let (provider, kind) = match (own.get("provider"), own.get("type")) {
            (None, None) => return Ok(None),
            (Some(_), None) => return Err(AnnotationError::Incomplete("type", "provider")),
            (None, Some(_)) => return Err(AnnotationError::Incomplete("provider", "type")),
            (Some(provider), Some(kind)) => (*provider, *kind),
        };
        let known = ["provider", "type", "audiences", "username", "expiration"];
        if let Some(other) = own.keys().find(|name| !known.contains(name)) {
            return Err(AnnotationError::Unsupported(shown(other)));
        }
        if kind != "jwt" {
            return Err(wrong("type", kind, "jwt"));
        }
        let audiences = audiences(own.get("audiences").copied().unwrap_or(registry))?;
        let life = |shortest| own.get("expiration").map(|text| expiration(text, shortest)).transpose();
        let wanted = match provider {
            "kubernetes" => Wanted::ServiceAccountToken {
                account: Some(account.into()),
                audiences,
                life: life(SHORTEST_OF_ACCOUNT)?,
            },
            "spiffe" => Wanted::SpiffeJwt {
                audiences,
                life: life(SHORTEST_OF_OBJECT)?,
            },
            other => return Err(wrong("provider", other, "kubernetes or spiffe")),
        };
        let username = own.get("username").map(|name| username(name)).transpose()?;
        Ok(Some(Self { wanted, username }))
    }

    /// The first annotation of an account that asks for something else than `wanted`, a token of that account. Annotations
    /// that cannot be followed ask for nothing.
    pub fn contradiction(annotations: &BTreeMap<String, String>, account: &str, wanted: &Wanted) -> Option<String> {
        let annotated = Self::read(annotations, account, account).ok()??;
        let has_audiences = annotations.contains_key(&format!("{PREFIX}audiences"));
        let name = if annotated.wanted.kind() != wanted.kind() {
            "provider"
        } else if has_audiences && annotated.wanted.audiences() != wanted.audiences() {
            "audiences"
        } else if annotated.username.is_some() {
            "username"
        } else {
            return None;
        };
        Some(format!("{PREFIX}{name}"))
    }
}

/// Separated by commas or line ends; sorted, each once.
fn audiences(text: &str) -> Result<Arc<[Audience]>, AnnotationError> {
    let words = text.split([',', '\n']).map(str::trim).filter(|word| !word.is_empty());
    let mut audiences = words.map(Audience::new).collect::<Result<Vec<_>, _>>()?;
    audiences.sort();
    audiences.dedup();
    if audiences.is_empty() || audiences.len() > MAX_AUDIENCES {
        return Err(AnnotationError::Audiences);
    }
    Ok(audiences.into())
}

fn username(name: &str) -> Result<Arc<str>, AnnotationError> {
    if name.is_empty() || name.contains(|c: char| c == ':' || c.is_control()) {
        return Err(AnnotationError::Username);
    }
    Ok(name.into())
}

fn expiration(text: &str, shortest: Duration) -> Result<Duration, AnnotationError> {
    let life = GoDuration::parse(text).map(GoDuration::to_std).ok();
    life.filter(|life| (shortest..=LONGEST).contains(life))
        .ok_or(AnnotationError::Expiration { shortest })
}

fn wrong(name: &'static str, value: &str, expected: &'static str) -> AnnotationError {
    AnnotationError::Value {
        name,
        value: shown(value),
        expected,
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn read(annotations: &[(&str, &str)]) -> Result<Option<Annotated>, AnnotationError> {
        let annotations = annotations
            .iter()
            .map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()))
            .chain([("other.example/provider".to_owned(), "x".to_owned())])
            .collect();
        Annotated::read(&annotations, "puller", "r.example:5000")
    }

    fn audience_list(words: &[&str]) -> Arc<[Audience]> {
        words.iter().map(|word| Audience::new(*word).unwrap()).collect()
    }

    #[test]
    fn neither_annotation_is_no_credential() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("audiences", "a")]), Ok(None));
    }

    #[test]
    fn a_token_of_the_account_is_for_the_registry_by_default() {
        let annotated = read(&[("provider", "kubernetes"), ("type", "jwt")]).unwrap().unwrap();
        let wanted = Wanted::ServiceAccountToken {
            account: Some("puller".into()),
            audiences: audience_list(&["r.example:5000"]),
            life: None,
        };
        assert_eq!(annotated, Annotated { wanted, username: None });
    }

    #[test]
    fn a_token_of_the_object_with_audiences_and_a_user_name() {
        let annotated = read(&[
            ("provider", "spiffe"),
            ("type", "jwt"),
            ("audiences", "zot, harbor\nzot,\n"),
            ("username", "robot"),
            ("expiration", "1m60s"),
        ]);
        let wanted = Wanted::SpiffeJwt {
            audiences: audience_list(&["harbor", "zot"]),
            life: Some(Duration::from_mins(2)),
        };
        let username = Some("robot".into());
        assert_eq!(annotated, Ok(Some(Annotated { wanted, username })));
    }

    #[rstest]
    #[case(&[("provider", "spiffe")], Some("provider"))]
    #[case(&[("audiences", "zot,harbor")], None)]
    #[case(&[("audiences", "zot")], Some("audiences"))]
    #[case(&[("username", "robot")], Some("username"))]
    #[case(&[("expiration", "30m")], None)]
    #[case(&[("type", "x509"), ("provider", "spiffe")], None)]
    fn what_contradicts_a_credential(#[case] more: &[(&str, &str)], #[case] expected: Option<&str>) {
        let annotations = [("provider", "kubernetes"), ("type", "jwt")].iter().chain(more);
        let annotations = annotations
            .map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()))
            .collect();
        let wanted = Wanted::ServiceAccountToken {
            account: Some("puller".into()),
            audiences: audience_list(&["harbor", "zot"]),
            life: None,
        };
        let found = Annotated::contradiction(&annotations, "puller", &wanted);
        assert_eq!(found, expected.map(|name| format!("{PREFIX}{name}")));
    }

    #[rstest]
    #[case(&[("provider", "kubernetes")], "annotation credential.auth.fluxcd.io/type is missing beside credential.auth.fluxcd.io/provider")]
    #[case(&[("type", "jwt")], "annotation credential.auth.fluxcd.io/provider is missing beside credential.auth.fluxcd.io/type")]
    #[case(&[("provider", "aws"), ("type", "jwt")], "annotation credential.auth.fluxcd.io/provider is \"aws\", not kubernetes or spiffe")]
    #[case(&[("provider", "spiffe"), ("type", "x509")], "annotation credential.auth.fluxcd.io/type is \"x509\", not jwt")]
    #[case(&[("provider", "spiffe"), ("type", "jwt"), ("audiences", " ,")], "annotation credential.auth.fluxcd.io/audiences names none or more than 16")]
    #[case(&[("provider", "spiffe"), ("type", "jwt"), ("username", "a:b")], "annotation credential.auth.fluxcd.io/username is empty or has a colon or a control character")]
    #[case(&[("provider", "spiffe"), ("type", "jwt"), ("expiration", "10")], "annotation credential.auth.fluxcd.io/expiration is not a duration between 1 m and 1 h")]
    #[case(&[("provider", "spiffe"), ("type", "jwt"), ("expiration", "61m")], "annotation credential.auth.fluxcd.io/expiration is not a duration between 1 m and 1 h")]
    #[case(&[("provider", "kubernetes"), ("type", "jwt"), ("expiration", "9m")], "annotation credential.auth.fluxcd.io/expiration is not a duration between 10 m and 1 h")]
    #[case(&[("provider", "spiffe"), ("type", "jwt"), ("colour", "red")], "annotation credential.auth.fluxcd.io/colour is not supported yet")]
    fn what_cannot_be_followed_is_an_error(#[case] annotations: &[(&str, &str)], #[case] message: &str) {
        assert_eq!(read(annotations).unwrap_err().to_string(), message);
    }
}
