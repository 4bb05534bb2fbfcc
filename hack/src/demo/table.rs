//! The table at the end: one row per object, with what belongs to it in the lines below. At most as wide as a URL needs,
//! and nothing in it is shortened.

use std::fmt;

use super::verdict::{Seen, Verdict};

/// The longest of the words in the second column.
const REGISTRY_SAW: &str = "registry saw";

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.statuses.is_empty() {
            return f.write_str("nothing");
        }
        let subject = if self.subject.is_empty() {
            "nobody it knows"
        } else {
            &self.subject
        };
        write!(f, "{subject}, {}, ", self.kind)?;
        for (position, run) in self.statuses.chunk_by(|a, b| a == b).enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            let status = run.first().copied().unwrap_or_default();
            write!(f, "{comma}{status}")?;
            if run.len() > 1 {
                write!(f, " ({}×)", run.len())?;
            }
        }
        Ok(())
    }
}

/// The lines of the table, header included.
pub fn lines(verdicts: &[Verdict]) -> Vec<String> {
    let widest = |of: &dyn Fn(&Verdict) -> usize, header: &str| {
        let widest = verdicts.iter().map(of).max().unwrap_or_default();
        widest.max(header.len())
    };
    let (object, credential, subject) = ("OBJECT", "CREDENTIAL", "SUBJECT");
    let first = widest(&|it| it.object.len(), object);
    let second = widest(&|it| it.credential.as_str().len(), credential).max(REGISTRY_SAW.len());
    let third = widest(&|it| name(it).len(), subject);
    let mut lines = vec![format!(
        "{object:first$}  {credential:second$}  {subject:third$}  READY"
    )];
    for verdict in verdicts {
        lines.push(format!(
            "{:first$}  {:second$}  {:third$}  {}",
            verdict.object,
            verdict.credential.as_str(),
            name(verdict),
            verdict.ready.0,
        ));
        for (what, text) in details(verdict) {
            lines.push(format!("{:first$}  {what:second$}  {text}", ""));
        }
    }
    lines
}

fn name(verdict: &Verdict) -> &str {
    verdict.subject.as_deref().unwrap_or("–")
}

fn details(verdict: &Verdict) -> Vec<(&'static str, String)> {
    let mut details = vec![(REGISTRY_SAW, verdict.seen.to_string())];
    details.extend(verdict.got.iter().cloned());
    if verdict.ready.0 != "True" {
        details.push(("message", verdict.ready.1.clone()));
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;
    use mintmark_api::credential::CredentialKind;

    fn seen(subject: &str, statuses: &[u16]) -> Seen {
        Seen {
            subject: subject.to_owned(),
            kind: "bearer".to_owned(),
            statuses: statuses.to_vec(),
        }
    }

    #[test]
    fn equal_answers_in_a_row_are_counted() {
        assert_eq!(
            seen("me", &[401, 200, 200, 200]).to_string(),
            "me, bearer, 401, 200 (3×)"
        );
        assert_eq!(seen("", &[401]).to_string(), "nobody it knows, bearer, 401");
        assert_eq!(Seen::default().to_string(), "nothing");
    }

    #[test]
    fn columns_are_aligned_and_a_refusal_shows_its_message() {
        let verdict = Verdict {
            object: "team-d/intruder".to_owned(),
            credential: CredentialKind::SpiffeJwt,
            subject: Some("spiffe://example.org/x".to_owned()),
            seen: seen("spiffe://example.org/x", &[403]),
            got: Vec::new(),
            ready: ("False".to_owned(), "403, no".to_owned()),
            deviations: Vec::new(),
        };
        assert_eq!(
            lines(&[verdict]),
            [
                "OBJECT           CREDENTIAL    SUBJECT                 READY",
                "team-d/intruder  SpiffeJWT     spiffe://example.org/x  False",
                "                 registry saw  spiffe://example.org/x, bearer, 403",
                "                 message       403, no",
            ]
        );
    }
}
