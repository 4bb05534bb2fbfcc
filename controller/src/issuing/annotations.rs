//! The two annotations by which the owner of a signing Secret speaks to the key ring. They are read whatever the Secret's
//! data is worth; a value that is no id is told and does not take the others with it.

use std::collections::{BTreeMap, BTreeSet};

use mintmark_issuer::{is_authority_id, is_id};

/// Key and authority ids that are never to be used again.
pub const REVOKE: &str = "mintmark.dev/revoke";
/// Authority ids whose overlap ends early.
pub const ACTIVATE: &str = "mintmark.dev/activate";

/// What the annotations of one signing Secret say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// [`REVOKE`].
    pub revoked: BTreeSet<String>,
    /// [`ACTIVATE`].
    pub activated: BTreeSet<String>,
    /// Annotation and value of everything that has not the form of an id.
    pub malformed: BTreeSet<(&'static str, String)>,
}

impl Annotations {
    /// Reads them: ids separated by commas, spaces around them allowed.
    pub fn of(annotations: Option<&BTreeMap<String, String>>) -> Self {
        let mut read = Self::default();
        for (annotation, accepted) in [
            (REVOKE, is_id as fn(&str) -> bool),
            (ACTIVATE, is_authority_id as fn(&str) -> bool),
        ] {
            let value = annotations.and_then(|annotations| annotations.get(annotation));
            let ids = value.into_iter().flat_map(|value| value.split(','));
            for id in ids.map(str::trim).filter(|id| !id.is_empty()) {
                if !accepted(id) {
                    // Nobody needs more of a mistake than this to find it.
                    read.malformed.insert((annotation, id.chars().take(100).collect()));
                } else if annotation == REVOKE {
                    read.revoked.insert(id.to_owned());
                } else {
                    read.activated.insert(id.to_owned());
                }
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_separated_by_commas_and_a_mistake_takes_no_other_with_it() {
        let (kid, authority) = ("a-_Z".repeat(11)[..43].to_owned(), "0f".repeat(32));
        let annotations = BTreeMap::from([
            (REVOKE.to_owned(), format!(" {kid} ,{authority}, ,my-key")),
            (ACTIVATE.to_owned(), format!("{kid},\n{authority}")),
        ]);
        let read = Annotations::of(Some(&annotations));
        assert_eq!(read.revoked, BTreeSet::from([kid.clone(), authority.clone()]));
        assert_eq!(read.activated, BTreeSet::from([authority]));
        let malformed = BTreeSet::from([(REVOKE, "my-key".to_owned()), (ACTIVATE, kid)]);
        assert_eq!(read.malformed, malformed, "a JWT key has no overlap that ends early");
        assert_eq!(Annotations::of(None), Annotations::default());
    }
}
