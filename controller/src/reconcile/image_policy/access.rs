//! Whether a policy may use an ImageRepository. In its own namespace it always may. Elsewhere the flags, the repository's
//! `accessFrom` and the labels of the policy's namespace decide, and what is missing reads like what is denied: nobody learns
//! which repositories another namespace has. Pure.

use std::collections::BTreeMap;

use mintmark_api::{condition::reason, image_repository::ImageRepository};

use crate::{
    reconcile::{Settings, StepError},
    watch::ObjectKey,
};

/// A policy that refers to a repository of another namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Foreign<'a> {
    /// The labels of the policy's namespace; none if it is gone.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// The repository's key.
    pub repository: &'a ObjectKey,
}

impl Foreign<'_> {
    /// Refuses what the flags forbid, whichever repositories there are.
    pub(super) fn check_flags(repository: &ObjectKey, settings: &Settings) -> Result<(), StepError> {
        if settings.no_cross_namespace_refs {
            let why =
                format!("cannot access 'ImageRepository/{repository}', cross-namespace references have been blocked");
            return Err(denied(&why));
        }
        Ok(())
    }

    /// The repository, if it is there and lets the policy's namespace in. The identity it speaks for is its own, so that one
    /// with a credential lends it to whoever it lets in: that is for the operator to allow.
    pub(super) fn admit<T: AsRef<ImageRepository>>(
        &self,
        found: Option<T>,
        settings: &Settings,
    ) -> Result<T, StepError> {
        let admitted = found.filter(|repository| {
            let spec = &repository.as_ref().spec;
            let access = spec.access_from.as_ref();
            let may_lend = spec.credential.is_none() || settings.allow_cross_namespace_credentials;
            may_lend
                && access
                    .zip(self.labels)
                    .is_some_and(|(access, labels)| access.admits(labels))
        });
        admitted.ok_or_else(|| {
            let key = self.repository;
            let hint = if settings.allow_cross_namespace_credentials {
                ""
            } else {
                ", and that it has no spec.credential, which --allow-cross-namespace-credentials would permit"
            };
            denied(&format!(
                "'ImageRepository/{key}' is not accessible from this namespace: check that it exists and that its \
                 spec.accessFrom selects this namespace's labels{hint}"
            ))
        })
    }
}

fn denied(why: &str) -> StepError {
    StepError::dependency(reason::ACCESS_DENIED, format!("access denied: {why}"))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::reconcile::settings::tests::settings;

    fn key() -> ObjectKey {
        ObjectKey {
            namespace: "images".into(),
            name: "app".into(),
        }
    }

    fn repository(more: &Value) -> Arc<ImageRepository> {
        let mut spec = json!({"image": "r.example/app", "interval": "1m"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let object = json!({"apiVersion": "image.toolkit.fluxcd.io/v1", "kind": "ImageRepository",
            "metadata": {"name": "app", "namespace": "images"}, "spec": spec});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn selectors(selectors: &Value) -> Value {
        json!({"accessFrom": {"namespaceSelectors": selectors}})
    }

    fn admits(repository: Option<Arc<ImageRepository>>, settings: &Settings) -> Result<(), String> {
        let labels = BTreeMap::from([
            ("team".to_owned(), "a".to_owned()),
            ("env".to_owned(), "prod".to_owned()),
        ]);
        let foreign = Foreign {
            labels: Some(&labels),
            repository: &key(),
        };
        let admitted = foreign.admit(repository, settings);
        admitted.map(drop).map_err(|error| {
            assert_eq!(error.reason, reason::ACCESS_DENIED);
            assert!(!error.policy.is_stalled());
            error.message
        })
    }

    #[rstest]
    #[case::nobody(json!({}), false)]
    #[case::no_selectors(selectors(&json!([])), false)]
    #[case::everybody(selectors(&json!([{}])), true)]
    #[case::all_labels(selectors(&json!([{"matchLabels": {"team": "a", "env": "prod"}}])), true)]
    #[case::one_label_differs(selectors(&json!([{"matchLabels": {"team": "a", "env": "test"}}])), false)]
    #[case::one_of_two(selectors(&json!([{"matchLabels": {"team": "b"}}, {"matchLabels": {"env": "prod"}}])), true)]
    fn the_repository_says_who_may(#[case] spec: Value, #[case] expected: bool) {
        assert_eq!(admits(Some(repository(&spec)), &settings()).is_ok(), expected);
    }

    #[test]
    fn what_is_missing_reads_like_what_is_denied() {
        let denied = admits(Some(repository(&json!({}))), &settings()).unwrap_err();
        assert_eq!(admits(None, &settings()).unwrap_err(), denied);
    }

    #[test]
    fn an_identity_is_lent_only_where_the_operator_allows_it() {
        let mut spec = selectors(&json!([{}]));
        spec["credential"] = "SpiffeJWT".into();
        spec["audiences"] = json!(["zot"]);
        assert!(admits(Some(repository(&spec)), &settings()).is_err());
        let allowing = Settings {
            allow_cross_namespace_credentials: true,
            ..settings()
        };
        assert_eq!(admits(Some(repository(&spec)), &allowing), Ok(()));
        assert!(admits(Some(repository(&json!({"credential": "SpiffeJWT"}))), &allowing).is_err());
    }

    #[test]
    fn a_namespace_that_is_gone_is_not_let_in() {
        let foreign = Foreign {
            labels: None,
            repository: &key(),
        };
        assert!(
            foreign
                .admit(Some(repository(&selectors(&json!([{}])))), &settings())
                .is_err()
        );
    }

    #[test]
    fn references_to_other_namespaces_can_be_forbidden() {
        assert!(Foreign::check_flags(&key(), &settings()).is_ok());
        let forbidding = Settings {
            no_cross_namespace_refs: true,
            ..settings()
        };
        let error = Foreign::check_flags(&key(), &forbidding).unwrap_err();
        assert_eq!(error.reason, reason::ACCESS_DENIED);
        assert!(
            error.message.contains("cross-namespace references have been blocked"),
            "{error}"
        );
        assert_eq!(forbidding.requeue_dependency, Duration::from_secs(30));
    }
}
