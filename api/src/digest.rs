//! Content digests in the text form of the OCI image specification: `<algorithm>:<lower-case hex>`.
//!
//! Only sha256, sha384 and sha512 are known. Parsing fails on anything else, so that a digest that was parsed can stand
//! in a path or a URL unescaped.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The hash function of a [`Digest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 64 hex digits.
    Sha256,
    /// SHA-384, 96 hex digits.
    Sha384,
    /// SHA-512, 128 hex digits.
    Sha512,
}

impl Algorithm {
    /// The name as it stands before the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Number of hex digits after the colon.
    pub const fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha384, Self::Sha512]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }
}

/// Why a text is not a [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no colon between algorithm and value.
    #[error("a digest has the form <algorithm>:<hex>")]
    Form,
    /// Another hash function than the three known ones.
    #[error("unknown digest algorithm, expected sha256, sha384 or sha512")]
    Algorithm,
    /// The value has the wrong number of digits.
    #[error("a {} digest has {} hex digits, this one has {actual}", .algorithm.as_str(), .algorithm.hex_len())]
    Length {
        /// The algorithm named by the text.
        algorithm: Algorithm,
        /// Characters found after the colon.
        actual: usize,
    },
    /// The value contains something else than `0-9a-f`.
    #[error("a digest is written in lower-case hex digits")]
    Hex,
}

/// A content digest, for example `sha256:` followed by 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    text: String,
}

impl Digest {
    /// Parses `<algorithm>:<hex>`.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or(DigestError::Form)?;
        let algorithm = Algorithm::from_name(name).ok_or(DigestError::Algorithm)?;
        if hex.len() != algorithm.hex_len() {
            return Err(DigestError::Length {
                algorithm,
                actual: hex.chars().count(),
            });
        }
        if !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Hex);
        }
        Ok(Self {
            algorithm,
            text: text.to_owned(),
        })
    }

    /// The digest of bytes whose SHA-256 is `hash`.
    pub fn sha256(hash: &[u8; 32]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(7 + 64);
        text.push_str("sha256:");
        for byte in hash {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self {
            algorithm: Algorithm::Sha256,
            text,
        }
    }

    /// The hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hex digits after the colon.
    pub fn hex(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The whole text, `<algorithm>:<hex>`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parses_and_prints() {
        let digest = Digest::parse(EMPTY).unwrap();
        assert_eq!(digest.algorithm(), Algorithm::Sha256);
        assert_eq!(digest.hex().len(), 64);
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(
            serde_json::from_value::<Digest>(serde_json::json!(EMPTY)).unwrap(),
            digest
        );
    }

    #[rstest]
    #[case::no_colon("sha256", DigestError::Form)]
    #[case::empty("", DigestError::Form)]
    #[case::md5("md5:d41d8cd98f00b204e9800998ecf8427e", DigestError::Algorithm)]
    #[case::upper_algorithm("SHA256:00", DigestError::Algorithm)]
    #[case::short("sha256:00", DigestError::Length { algorithm: Algorithm::Sha256, actual: 2 })]
    #[case::upper_hex(
        "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
        DigestError::Hex
    )]
    #[case::path(
        "sha256:../44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855a1",
        DigestError::Hex
    )]
    fn refuses(#[case] text: &str, #[case] error: DigestError) {
        assert_eq!(Digest::parse(text), Err(error));
    }

    proptest! {
        #[test]
        fn every_hash_round_trips(hash in any::<[u8; 32]>()) {
            let digest = Digest::sha256(&hash);
            prop_assert_eq!(Digest::parse(digest.as_str()).unwrap(), digest);
        }

        #[test]
        fn longer_algorithms_round_trip(text in "(sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})") {
            prop_assert_eq!(Digest::parse(&text).unwrap().to_string(), text);
        }

        #[test]
        fn never_panics_and_only_yields_what_it_read(text in "\\PC{0,200}") {
            if let Ok(digest) = Digest::parse(&text) {
                prop_assert_eq!(digest.as_str(), text.as_str());
            }
        }
    }
}
