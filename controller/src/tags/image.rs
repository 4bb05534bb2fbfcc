//! `spec.image`: the name of an image without scheme, tag and digest. Names are those of [`RepositoryUrl`] but for the
//! scheme, so that the shorthand of Docker Hub means the same; with a credential in force it is refused.

use crate::registry::{RepositoryUrl, UrlError};

/// An image that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// Its repository.
    pub url: RepositoryUrl,
    /// Host and path spelt out: `index.docker.io/library/alpine` for `alpine`.
    pub canonical: String,
}

/// Why a text is no image name. Shown in the condition `ImageURLInvalid`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageNameError {
    /// It begins like a URL.
    #[error("image '{image}' should not include URL scheme; remove '{scheme}://'")]
    Scheme {
        /// As it was written.
        image: String,
        /// What stands before `://`.
        scheme: String,
    },
    /// It has a tag or a digest.
    #[error("image '{0}' should not include a tag or digest")]
    Reference(String),
    /// It is no name of a repository.
    #[error("image '{image}' is invalid: {error}")]
    Name {
        /// As it was written.
        image: String,
        /// What is wrong with it.
        error: UrlError,
    },
}

const SCHEME: &str = "oci://";

impl ImageName {
    /// Parses a `spec.image`.
    pub fn parse(image: &str, credential_in_force: bool) -> Result<Self, ImageNameError> {
        if let Some((scheme, _)) = image.split_once("://") {
            return Err(ImageNameError::Scheme {
                image: image.to_owned(),
                scheme: scheme.to_owned(),
            });
        }
        let url = RepositoryUrl::parse(&format!("{SCHEME}{image}"), credential_in_force);
        let url = url.map_err(|error| match error {
            UrlError::Reference => ImageNameError::Reference(image.to_owned()),
            error => ImageNameError::Name {
                image: image.to_owned(),
                error,
            },
        })?;
        let printed = url.to_string();
        let canonical = printed.strip_prefix(SCHEME).unwrap_or(&printed).to_owned();
        Ok(Self { url, canonical })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("alpine", "index.docker.io/library/alpine")]
    #[case("docker.io/alpine", "index.docker.io/library/alpine")]
    #[case("stefan/podinfo", "index.docker.io/stefan/podinfo")]
    #[case("ghcr.io/stefan/podinfo", "ghcr.io/stefan/podinfo")]
    #[case("Registry.Example:5000/app", "registry.example:5000/app")]
    #[case("localhost/app", "localhost/app")]
    fn names_are_spelt_out(#[case] image: &str, #[case] canonical: &str) {
        assert_eq!(ImageName::parse(image, false).unwrap().canonical, canonical);
    }

    #[rstest]
    #[case(
        "https://ghcr.io/app",
        false,
        "image 'https://ghcr.io/app' should not include URL scheme; remove 'https://'"
    )]
    #[case(
        "oci://ghcr.io/app",
        false,
        "image 'oci://ghcr.io/app' should not include URL scheme; remove 'oci://'"
    )]
    #[case("alpine:3", false, "image 'alpine:3' should not include a tag or digest")]
    #[case("ghcr.io/app:v1", false, "image 'ghcr.io/app:v1' should not include a tag or digest")]
    #[case(
        "ghcr.io/app@sha256:00",
        false,
        "image 'ghcr.io/app@sha256:00' should not include a tag or digest"
    )]
    #[case(
        "ghcr.io/App",
        false,
        "image 'ghcr.io/App' is invalid: a repository name consists of a-z, 0-9, '_', '-', '.' and '/'"
    )]
    #[case("", false, "image '' is invalid: the URL names no repository")]
    #[case(
        "alpine",
        true,
        "image 'alpine' is invalid: the URL names no registry host; with a credential Docker Hub is not assumed"
    )]
    fn what_is_no_name_is_told(#[case] image: &str, #[case] credential_in_force: bool, #[case] message: &str) {
        let error = ImageName::parse(image, credential_in_force).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}
