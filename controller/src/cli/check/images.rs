//! What would not work of image policies: rules that cannot be read, repositories that are missing or not for them. And the
//! definitions of the image kinds, which a cluster may do without: everything about those is a note. Pure.

use mintmark_api::{
    crd::{IMAGE_POLICY_CRD, IMAGE_REPOSITORY_CRD},
    image_policy::ImagePolicy,
    image_repository::ImageRepository,
};

use super::{
    findings::{Finding, Level, finding, owner, settings, unreadable},
    inventory::{Inventory, Seen},
};
use crate::{
    reconcile::image_policy::ValidatedImagePolicy,
    watch::{CrdState, definition_state},
};

/// How to do without the image kinds.
const WITHOUT: &str = "run with --enable-kinds=OCIRepository";

/// What to know of the definitions of ImageRepository and ImagePolicy.
pub(super) fn image_definitions(inventory: &Inventory) -> Vec<Finding> {
    let note = |name, message: String| finding(Level::Note, "definition", name, message);
    let mut found = Vec::new();
    match &inventory.image_crd {
        None => found.push(note(
            IMAGE_REPOSITORY_CRD,
            format!("is not installed: {WITHOUT}, or apply config/crd"),
        )),
        Some(crd) => {
            let whose = owner(crd).map_or_else(String::new, |owner| format!(" (part of {owner})"));
            match definition_state::<ImageRepository>(crd) {
                CrdState::Complete => {}
                CrdState::Absent => found.push(note(IMAGE_REPOSITORY_CRD, format!("does not serve v1{whose}: {WITHOUT}"))),
                CrdState::Lacks(fields) => found.push(note(
                    IMAGE_REPOSITORY_CRD,
                    format!(
                        "lacks spec.{}{whose}, its objects were not looked at: {WITHOUT}, or apply config/flux-patch or \
                         config/crd",
                        fields.join(", spec.")
                    ),
                )),
            }
        }
    }
    if inventory.image_crd.is_some() && inventory.policy_crd.is_none() {
        found.push(note(IMAGE_POLICY_CRD, "is not installed: apply config/crd".to_owned()));
    }
    found
}

/// Everything about ImagePolicies.
pub(super) fn of_policies(inventory: &Inventory) -> Vec<Finding> {
    let mut found = Vec::new();
    for policy in &inventory.policies {
        match policy {
            Ok(policy) => found.extend(of_policy(policy, inventory)),
            Err(error) => found.push(unreadable("policy", error)),
        }
    }
    found
}

fn of_policy(policy: &ImagePolicy, inventory: &Inventory) -> Vec<Finding> {
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let name = format!("{namespace}/{}", policy.metadata.name.as_deref().unwrap_or_default());
    let of = |level, message: String| finding(level, "policy", &name, message);
    let (spec, mut found) = (&policy.spec, Vec::new());
    if let Err(error) = ValidatedImagePolicy::new(policy, &settings()) {
        found.push(of(Level::Problem, format!("{}: {}", error.reason, error.message)));
    }
    let repository = &spec.image_repository_ref;
    let place = (
        repository.namespace().unwrap_or(namespace).to_owned(),
        repository.name.clone(),
    );
    let shown = format!("{}/{}", place.0, place.1);
    let Some(image) = inventory.image(&place) else {
        found.push(of(Level::Problem, format!("refers to image {shown}, which is missing")));
        return found;
    };
    if place.0 == namespace {
        return found;
    }
    match is_admitted(image, namespace, inventory) {
        Some(true) => {}
        Some(false) => {
            let message =
                format!("may not refer to image {shown}: its spec.accessFrom does not let namespace {namespace} in");
            found.push(of(Level::Problem, message));
        }
        None => {
            let message =
                format!("whether it may refer to image {shown} is unknown: you may not read namespace {namespace}");
            found.push(of(Level::Note, message));
        }
    }
    if image.spec.credential.is_some() {
        let message = format!(
            "refers to image {shown}, which has a credential of its own: that needs --allow-cross-namespace-credentials"
        );
        found.push(of(Level::Note, message));
    }
    found
}

/// Whether policies of this namespace may refer to the image; none where that cannot be seen.
fn is_admitted(image: &ImageRepository, namespace: &str, inventory: &Inventory) -> Option<bool> {
    let Some(access) = &image.spec.access_from else {
        return Some(false);
    };
    match inventory.namespaces.get(namespace)? {
        Seen::Found(labels) => Some(access.admits(labels)),
        Seen::Absent => Some(false),
        Seen::Forbidden => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::{super::asking::Asking, *};

    fn image(more: &Value) -> Asking {
        let mut spec = json!({"image": "registry.example/app", "interval": "1m"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let object = json!({"apiVersion": "image.toolkit.fluxcd.io/v1", "kind": "ImageRepository",
            "metadata": {"name": "app", "namespace": "a"}, "spec": spec});
        Asking::Image(Box::new(serde_json::from_value(object).unwrap()))
    }

    fn policy(namespace: &str, more: &Value) -> ImagePolicy {
        let mut spec = json!({"imageRepositoryRef": {"name": "app", "namespace": "a"},
            "policy": {"semver": {"range": "1.x"}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(
            json!({"apiVersion": "image.toolkit.fluxcd.io/v1", "kind": "ImagePolicy",
            "metadata": {"name": "newest", "namespace": namespace}, "spec": spec}),
        )
        .unwrap()
    }

    /// What is found about a policy where image `a/app` is as given, and namespace `b` has the label `team: b`.
    fn found(image: Asking, policy: ImagePolicy) -> Vec<String> {
        let labels = BTreeMap::from([("team".to_owned(), "b".to_owned())]);
        let inventory = Inventory {
            objects: vec![Ok(image)],
            policies: vec![Ok(policy)],
            namespaces: [("b".to_owned(), Seen::Found(labels)), ("c".to_owned(), Seen::Forbidden)].into(),
            ..Inventory::default()
        };
        of_policies(&inventory).iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn one(lines: &[String], begin: &str, part: &str) {
        assert!(
            lines.len() == 1 && lines[0].starts_with(begin) && lines[0].contains(part),
            "{lines:?}"
        );
    }

    #[test]
    fn a_policy_can_be_read_and_has_its_image() {
        let with = |more: Value| found(image(&json!({})), policy("a", &more));
        assert_eq!(with(json!({})), Vec::<String>::new());
        let lines = with(json!({"policy": {"semver": {"range": "newest"}}}));
        one(&lines, "problem policy a/newest: InvalidPolicy: ", "invalid policy");
        let lines = with(json!({"digestReflectionPolicy": "Always"}));
        one(
            &lines,
            "problem policy a/newest: IntervalNotConfigured",
            "spec.interval must be set",
        );
        let lines = with(json!({"imageRepositoryRef": {"name": "other"}}));
        one(
            &lines,
            "problem policy a/newest: ",
            "refers to image a/other, which is missing",
        );
    }

    #[test]
    fn other_namespaces_are_let_in_by_the_image() {
        let from = |labels: Value| json!({"accessFrom": {"namespaceSelectors": [{"matchLabels": labels}]}});
        let with = |more: &Value, namespace| found(image(more), policy(namespace, &json!({})));
        one(
            &with(&json!({}), "b"),
            "problem policy b/newest: ",
            "does not let namespace b in",
        );
        one(
            &with(&from(json!({"team": "c"})), "b"),
            "problem",
            "does not let namespace b in",
        );
        assert_eq!(with(&from(json!({"team": "b"})), "b"), Vec::<String>::new());
        one(
            &with(&from(json!({})), "c"),
            "note    policy c/newest: ",
            "you may not read namespace c",
        );
        let mut minted = from(json!({}));
        minted["credential"] = "SpiffeCertificate".into();
        one(
            &with(&minted, "b"),
            "note    policy b/newest: ",
            "--allow-cross-namespace-credentials",
        );
        assert_eq!(with(&minted, "a"), Vec::<String>::new());
    }

    #[test]
    fn a_cluster_may_do_without_the_image_kinds() {
        let lines = |inventory: &Inventory| -> Vec<String> {
            image_definitions(inventory).iter().map(ToString::to_string).collect()
        };
        let mut inventory = Inventory::default();
        one(
            &lines(&inventory),
            "note    definition imagerepositories",
            "--enable-kinds=OCIRepository",
        );
        let served = json!({"metadata": {"labels": {"app.kubernetes.io/part-of": "flux"}}, "spec": {"versions": [{"name":
            "v1", "served": true, "schema": {}}]}});
        inventory.image_crd = Some(served.clone());
        inventory.policy_crd = Some(served);
        one(
            &lines(&inventory),
            "note    definition imagerepositories",
            "lacks spec.credential, spec.audiences (part of flux)",
        );
    }
}
