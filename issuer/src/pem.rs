//! Reading PEM (RFC 7468) of Secrets: labels are kept, so that a key can be refused by name, and decoded bytes are wiped
//! on drop. Text outside of sections is ignored, as OpenSSL writes some; a section that does not decode is an error.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

/// One `-----BEGIN label-----` section.
pub(crate) struct Section {
    /// E.g. `EC PRIVATE KEY`.
    pub(crate) label: String,
    /// Whether RFC 1421 headers say that the body is encrypted (`Proc-Type: 4,ENCRYPTED`).
    pub(crate) encrypted: bool,
    /// The decoded body; empty for an encrypted section.
    pub(crate) der: Zeroizing<Vec<u8>>,
}

/// Why a text is not PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Binary data, most often DER.
    #[error("not PEM text (is it DER?)")]
    NotText,
    /// No `-----BEGIN …-----` line.
    #[error("no PEM section found")]
    NoSection,
    /// A section without its end line, or with the end line of another.
    #[error("a PEM section has no matching end line")]
    NoEnd,
    /// The body is not base64.
    #[error("the body of a PEM section is not base64")]
    NotBase64,
}

/// All sections in order; at least one.
pub(crate) fn sections(text: &[u8]) -> Result<Vec<Section>, PemError> {
    let text = std::str::from_utf8(text).map_err(|_| PemError::NotText)?;
    let mut lines = text.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(label) = line
            .strip_prefix("-----BEGIN ")
            .and_then(|rest| rest.strip_suffix("-----"))
        else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut body = Zeroizing::new(String::with_capacity(text.len()));
        let mut encrypted = false;
        loop {
            match lines.next() {
                Some(line) if line == end => break,
                Some(line) if line.starts_with("-----") => return Err(PemError::NoEnd),
                Some(line) if line.contains(':') => encrypted |= line.contains("ENCRYPTED"),
                Some(line) => body.push_str(line),
                None => return Err(PemError::NoEnd),
            }
        }
        let der = if encrypted {
            Zeroizing::default()
        } else {
            decode(&body)?
        };
        found.push(Section {
            label: label.to_owned(),
            encrypted,
            der,
        });
    }
    if found.is_empty() {
        Err(PemError::NoSection)
    } else {
        Ok(found)
    }
}

/// Writes one section with lines of 64 characters.
pub(crate) fn write(label: &str, der: &[u8]) -> Zeroizing<String> {
    let mut body = STANDARD.encode(der);
    let mut out = Zeroizing::new(String::with_capacity(
        body.len() + body.len() / 64 + 2 * label.len() + 40,
    ));
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    body.zeroize();
    out
}

fn decode(body: &str) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let mut der = Zeroizing::new(Vec::with_capacity(body.len()));
    STANDARD.decode_vec(body, &mut der).map_err(|_| PemError::NotBase64)?;
    if der.is_empty() {
        Err(PemError::NotBase64)
    } else {
        Ok(der)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::der(b"\x30\x82\xff", PemError::NotText)]
    #[case::no_section(b"hello", PemError::NoSection)]
    #[case::no_end(b"-----BEGIN X-----\nAAAA\n", PemError::NoEnd)]
    #[case::other_end(b"-----BEGIN X-----\nAAAA\n-----END Y-----\n", PemError::NoEnd)]
    #[case::not_base64(b"-----BEGIN X-----\n!!!!\n-----END X-----\n", PemError::NotBase64)]
    #[case::empty_body(b"-----BEGIN X-----\n-----END X-----\n", PemError::NotBase64)]
    fn refuses(#[case] text: &[u8], #[case] expected: PemError) {
        assert_eq!(sections(text).err(), Some(expected));
    }

    #[test]
    fn legacy_encryption_is_seen() {
        let text = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----";
        let found = sections(text.as_bytes()).expect("sections");
        assert!(
            found
                .iter()
                .all(|section| section.encrypted && section.label == "RSA PRIVATE KEY")
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(der in proptest::collection::vec(any::<u8>(), 1..400)) {
            let text = format!("subject=x\n{}{}", write("A B", &der).as_str(), write("C", &der).as_str());
            let found = sections(text.as_bytes()).expect("sections");
            prop_assert_eq!(found.len(), 2);
            prop_assert!(found.iter().all(|section| section.der.as_slice() == der));
        }
    }
}
