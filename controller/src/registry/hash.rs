//! Content hashes: sha256, sha384 and sha512 while bytes stream by.

use mintmark_api::digest::{Algorithm, Digest};
use ring::digest::{Context, SHA256, SHA384, SHA512};

/// Hashes what it is given with the algorithm of the expected digest.
pub(super) struct Hasher(Context);

impl Hasher {
    pub(super) fn for_digest(expected: &Digest) -> Self {
        Self(Context::new(match expected.algorithm() {
            Algorithm::Sha256 => &SHA256,
            Algorithm::Sha384 => &SHA384,
            Algorithm::Sha512 => &SHA512,
        }))
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Whether everything seen so far has this digest.
    pub(super) fn matches(self, expected: &Digest) -> bool {
        let hash = self.0.finish();
        let hex = expected.hex().as_bytes();
        hex.len() == hash.as_ref().len() * 2
            && hash.as_ref().iter().zip(hex.chunks_exact(2)).all(|(byte, pair)| {
                let digit = |nibble: u8| b"0123456789abcdef".get(usize::from(nibble)).copied();
                pair.first().copied() == digit(byte >> 4) && pair.last().copied() == digit(byte & 15)
            })
    }
}

/// Whether `bytes` have this digest.
pub(super) fn matches(bytes: &[u8], expected: &Digest) -> bool {
    let mut hasher = Hasher::for_digest(expected);
    hasher.update(bytes);
    hasher.matches(expected)
}

/// The sha256 digest of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> Digest {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&SHA256, bytes).as_ref());
    Digest::sha256(&hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_its_own_and_no_other() {
        let digest = sha256(b"mint");
        assert!(matches(b"mint", &digest));
        assert!(!matches(b"mark", &digest));
        let empty = format!(
            "sha512:{}",
            "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"
        );
        assert!(matches(b"", &Digest::parse(&empty).unwrap()));
    }
}
