//! Objects as they are named on the command line, `[KIND/]NAMESPACE/NAME`, and what each may read. Parsing fails with the rule
//! that was broken; clap names the flag.

use std::str::FromStr;

use clap::ValueEnum;
use mintmark_issuer::{SpiffeId, TrustDomain};

use super::FlagError;
use crate::cli::offline::Kind;

/// An object of the cluster.
#[derive(Debug, Clone)]
pub(super) struct Object {
    kind: Kind,
    namespace: String,
    name: String,
}

/// Why a text names no object, or grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum IdentityError {
    /// Other than two or three parts.
    #[error("write [KIND/]NAMESPACE/NAME")]
    Form,
    /// A plural that has no identities.
    #[error("the kind is ocirepositories or imagerepositories")]
    Kind,
    /// No `=`.
    #[error("write [KIND/]NAMESPACE/NAME=REPOSITORY")]
    NoRepository,
    /// Not a repository's name; in a policy, other characters are patterns.
    #[error("a repository is 2 to 255 characters of a-z, 0-9, '.', '_', '-' and '/'")]
    Repository,
}

impl Object {
    /// Its SPIFFE ID; `flag` is where it was named.
    pub(super) fn id(&self, domain: &TrustDomain, flag: &'static str) -> Result<SpiffeId, FlagError> {
        SpiffeId::for_object(domain, self.kind.plural(), &self.namespace, &self.name)
            .map_err(|error| FlagError::new(flag, error.to_string()))
    }
}

impl FromStr for Object {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let (kind, namespace, name) = match parts.as_slice() {
            [namespace, name] => (Kind::Ocirepositories, namespace, name),
            [kind, namespace, name] => (
                Kind::from_str(kind, false).map_err(|_| IdentityError::Kind)?,
                namespace,
                name,
            ),
            _ => return Err(IdentityError::Form),
        };
        if namespace.is_empty() || name.is_empty() {
            return Err(IdentityError::Form);
        }
        Ok(Self {
            kind,
            namespace: (*namespace).to_owned(),
            name: (*name).to_owned(),
        })
    }
}

/// One object that may read one repository.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) object: Object,
    pub(super) repository: String,
}

impl FromStr for Reader {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (object, repository) = text.split_once('=').ok_or(IdentityError::NoRepository)?;
        let allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-' | '/');
        if !(2..=255).contains(&repository.len()) || !repository.chars().all(allowed) {
            return Err(IdentityError::Repository);
        }
        Ok(Self {
            object: object.parse()?,
            repository: repository.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_may_be_left_out() {
        let domain = TrustDomain::parse("example.org").unwrap();
        let id = |text: &str| {
            text.parse::<Object>()
                .unwrap()
                .id(&domain, "object")
                .unwrap()
                .to_string()
        };
        assert_eq!(id("team-a/app"), "spiffe://example.org/ocirepositories/team-a/app");
        assert_eq!(
            id("imagerepositories/team-a/app"),
            "spiffe://example.org/imagerepositories/team-a/app"
        );
    }

    #[test]
    fn what_names_no_object_or_is_a_pattern_is_refused() {
        let problem = |text: &str| text.parse::<Reader>().unwrap_err();
        assert_eq!(problem("team-a/app"), IdentityError::NoRepository);
        assert_eq!(problem("app=team-a/app"), IdentityError::Form);
        assert_eq!(problem("/app=team-a/app"), IdentityError::Form);
        assert_eq!(problem("pods/team-a/app=team-a/app"), IdentityError::Kind);
        for pattern in ["**", "team-a/*", "team-a/{a,b}", "x", ""] {
            assert_eq!(problem(&format!("team-a/app={pattern}")), IdentityError::Repository);
        }
    }
}
