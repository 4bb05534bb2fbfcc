//! What Flux's annotations on a ServiceAccount ask for, for objects that name no credential of their own.
//!
//! Pure. `credential.auth.fluxcd.io/provider` and `…/type` come together or not at all; the other annotations refine them.
//! A value that cannot be acted on is an error, never ignored: what it was to prevent would happen.

use std::{collections::BTreeMap, sync::Arc};

use super::{Audience, AudienceError, Wanted};

/// What all these annotations begin with.
const PREFIX: &str = "credential.auth.fluxcd.io/";
/// Most audiences, as in `spec.audiences`.
const MAX_AUDIENCES: usize = 16;

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
        let known = ["provider", "type", "audiences", "username"];
        if let Some(other) = own.keys().find(|name| !known.contains(name)) {
            return Err(AnnotationError::Unsupported(shown(other)));
        }
        if kind != "jwt" {
            return Err(wrong("type", kind, "jwt"));
        }
        let audiences = audiences(own.get("audiences").copied().unwrap_or(registry))?;
        let wanted = match provider {
            "kubernetes" => Wanted::ServiceAccountToken {
                account: Some(account.into()),
                audiences,
            },
            "spiffe" => Wanted::SpiffeJwt { audiences },
            other => return Err(wrong("provider", other, "kubernetes or spiffe")),
        };
        let username = own.get("username").map(|name| username(name)).transpose()?;
        Ok(Some(Self { wanted, username }))
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
        ]);
        let wanted = Wanted::SpiffeJwt {
            audiences: audience_list(&["harbor", "zot"]),
        };
        let username = Some("robot".into());
        assert_eq!(annotated, Ok(Some(Annotated { wanted, username })));
    }

    #[rstest]
    #[case(&[("provider", "kubernetes")], "annotation credential.auth.fluxcd.io/type is missing beside credential.auth.fluxcd.io/provider")]
    #[case(&[("type", "jwt")], "annotation credential.auth.fluxcd.io/provider is missing beside credential.auth.fluxcd.io/type")]
    #[case(&[("provider", "aws"), ("type", "jwt")], "annotation credential.auth.fluxcd.io/provider is \"aws\", not kubernetes or spiffe")]
    #[case(&[("provider", "spiffe"), ("type", "x509")], "annotation credential.auth.fluxcd.io/type is \"x509\", not jwt")]
    #[case(&[("provider", "spiffe"), ("type", "jwt"), ("audiences", " ,")], "annotation credential.auth.fluxcd.io/audiences names none or more than 16")]
    #[case(&[("provider", "spiffe"), ("type", "jwt"), ("username", "a:b")], "annotation credential.auth.fluxcd.io/username is empty or has a colon or a control character")]
    #[case(&[("provider", "spiffe"), ("type", "jwt"), ("expiration", "10m")], "annotation credential.auth.fluxcd.io/expiration is not supported yet")]
    fn what_cannot_be_followed_is_an_error(#[case] annotations: &[(&str, &str)], #[case] message: &str) {
        assert_eq!(read(annotations).unwrap_err().to_string(), message);
    }
}
