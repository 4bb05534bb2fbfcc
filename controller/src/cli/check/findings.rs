//! From what a cluster holds to what would not work in it. Pure. Objects go through the controller's own validation, so that
//! this command and a pass never disagree about a spec.

use std::{fmt, time::Duration};

use k8s_openapi::api::apps::v1::Deployment;
use mintmark_api::{condition::reason, oci_repository::OciRepository};
use serde::Serialize;
use serde_json::Value;

use super::{
    asking::Asking,
    images::{image_definitions, of_policies},
    inventory::Inventory,
    referents::of_referents,
};
use crate::{
    content::Limits,
    reconcile::Settings,
    watch::{CrdState, definition_state},
};

/// The label selector of Flux's controllers that leaves our shard to us.
const EXCLUDES_SHARDS: &str = "!sharding.fluxcd.io/key";

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// It would not work.
    Problem,
    /// It may not, or works differently than with source-controller.
    Note,
}

/// One thing to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// What was looked at: `definition`, `sources`, `object` (an OCIRepository), `image` (an ImageRepository), `policy` (an
    /// ImagePolicy), `secret`, `account`, `deployment`.
    pub(super) about: &'static str,
    /// Its name, with its namespace if it has one.
    pub(super) name: String,
    pub(super) message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Problem => "problem",
            Level::Note => "note",
        };
        write!(f, "{level:8}{} {}: {}", self.about, self.name, self.message)
    }
}

/// Everything that would not work, problems first.
pub(super) fn findings(inventory: &Inventory) -> Vec<Finding> {
    let mut found = definition(inventory.crd.as_ref());
    found.extend(image_definitions(inventory));
    for (kind, count) in &inventory.sources {
        if *count > 0 {
            let message = format!("{count} in use: only source-controller serves them, run beside it");
            found.push(finding(Level::Problem, "sources", kind, message));
        }
    }
    for object in &inventory.objects {
        match object {
            Ok(object) => found.extend(of_object(object, inventory)),
            Err(error) => found.push(unreadable("object", error)),
        }
    }
    found.extend(of_policies(inventory));
    for deployment in &inventory.deployments {
        found.extend(of_deployment(deployment, inventory.serves_images()));
    }
    found.sort_by_key(|finding| finding.level);
    found
}

pub(super) fn finding(level: Level, about: &'static str, name: &str, message: impl Into<String>) -> Finding {
    Finding {
        level,
        about,
        name: name.to_owned(),
        message: message.into(),
    }
}

/// An object that is not what its kind says.
pub(super) fn unreadable(about: &'static str, error: &str) -> Finding {
    finding(Level::Problem, about, "", format!("cannot be read: {error}"))
}

/// Whose a definition is, by its label.
pub(super) fn owner(crd: &Value) -> Option<&str> {
    let labels = crd.pointer("/metadata/labels");
    labels.and_then(|labels| labels.get("app.kubernetes.io/part-of")?.as_str())
}

fn definition(crd: Option<&Value>) -> Vec<Finding> {
    let name = mintmark_api::crd::OCI_REPOSITORY_CRD;
    let about = |level, message: String| finding(level, "definition", name, message);
    let Some(crd) = crd else {
        return vec![about(
            Level::Problem,
            "is not installed: apply config/crd, or Flux's with config/flux-patch".to_owned(),
        )];
    };
    let owner = owner(crd);
    let whose = owner.map_or_else(String::new, |owner| format!(" (part of {owner})"));
    match definition_state::<OciRepository>(crd) {
        CrdState::Absent => vec![about(Level::Problem, format!("does not serve v1{whose}"))],
        CrdState::Lacks(fields) => vec![about(
            Level::Problem,
            format!(
                "lacks spec.{}{whose}: nothing is reconciled until config/flux-patch or config/crd is applied",
                fields.join(", spec.")
            ),
        )],
        CrdState::Complete if owner == Some("flux") => vec![about(
            Level::Note,
            "has our fields and is part of flux: keep config/flux-patch in flux-system, or the next upgrade removes them"
                .to_owned(),
        )],
        CrdState::Complete => Vec::new(),
    }
}

fn of_object(object: &Asking, inventory: &Inventory) -> Vec<Finding> {
    let (namespace, name) = object.place();
    let (about, name) = (object.about(), format!("{namespace}/{name}"));
    let mut found = Vec::new();
    if let Err(error) = object.validate(&settings()) {
        let message = format!("{}: {}", error.reason, error.message);
        found.push(finding(Level::Problem, about, &name, message));
        let is_left = [reason::PROVIDER_NOT_SUPPORTED, reason::VERIFICATION_NOT_SUPPORTED].contains(&error.reason);
        if is_left && matches!(object, Asking::Artifact(_)) {
            let message = "is left untouched while another controller's artifact is in its status";
            found.push(finding(Level::Note, about, &name, message));
        }
    }
    if object.access().insecure {
        let message =
            "spec.insecure means plain HTTP here: a registry with HTTPS is not asked, whatever its certificate";
        found.push(finding(Level::Note, about, &name, message));
    }
    found.extend(of_referents(object, inventory));
    found
}

/// Flags at their defaults: what they decide is looked at by a pass only.
pub(super) fn settings() -> Settings {
    Settings {
        runtime_namespace: "".into(),
        issuer_secrets: Vec::new(),
        default_service_account: None,
        min_interval: Duration::ZERO,
        max_timeout: Duration::MAX,
        interval_jitter_percent: 0,
        requeue_dependency: Duration::ZERO,
        no_cross_namespace_refs: false,
        allow_cross_namespace_credentials: false,
        artifact_max_size: 0,
        extract_limits: Limits::default(),
    }
}

/// The kinds that a controller of Flux's reconciles and we do too.
fn same_kind(name: &str, serves_images: bool) -> Option<&'static str> {
    match name {
        "source-controller" => Some("OCIRepository"),
        "image-reflector-controller" if serves_images => Some("ImageRepository and ImagePolicy"),
        _ => None,
    }
}

fn of_deployment(deployment: &Deployment, serves_images: bool) -> Vec<Finding> {
    let meta = &deployment.metadata;
    let name = meta.name.as_deref().unwrap_or_default();
    let shown = format!("{}/{name}", meta.namespace.as_deref().unwrap_or_default());
    let Some(spec) = &deployment.spec else {
        return Vec::new();
    };
    let containers = spec.template.spec.iter().flat_map(|pod| &pod.containers);
    let args: Vec<&str> = containers
        .flat_map(|container| {
            container
                .args
                .iter()
                .flatten()
                .chain(container.command.iter().flatten())
        })
        .map(String::as_str)
        .collect();
    let mut found = Vec::new();
    let is_mtls = |arg: &str| arg.starts_with("--authorized-") && arg.contains("-spiffe-id");
    if let Some(flag) = args.iter().find(|arg| is_mtls(arg)) {
        let flag = flag.split('=').next().unwrap_or(flag);
        let message =
            format!("{flag}: it expects mTLS of controllers that serve artifacts, which is not supported yet");
        found.push(finding(Level::Problem, "deployment", &shown, message));
    }
    let is_running = spec.replicas.unwrap_or(1) > 0;
    let excludes = |arg: &str| arg.starts_with("--watch-label-selector") && arg.contains(EXCLUDES_SHARDS);
    let is_next = args
        .windows(2)
        .any(|pair| matches!(pair, ["--watch-label-selector", value] if value.contains(EXCLUDES_SHARDS)));
    let kind = same_kind(name, serves_images).filter(|_| is_running && !is_next);
    if let Some(kind) = kind.filter(|_| !args.iter().any(|arg| excludes(arg))) {
        let message =
            format!("reconciles every {kind}: give it --watch-label-selector={EXCLUDES_SHARDS}, or scale it to 0");
        found.push(finding(Level::Problem, "deployment", &shown, message));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(spec: &Value) -> Asking {
        let mut all = json!({"url": "oci://registry.example/app", "interval": "1m"});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let object = json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository",
            "metadata": {"name": "app", "namespace": "a"}, "spec": all});
        Asking::Artifact(Box::new(serde_json::from_value(object).unwrap()))
    }

    fn deployment(name: &str, replicas: i32, args: &[&str]) -> Deployment {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "flux-system"}, "spec": {
            "replicas": replicas, "selector": {}, "template": {"spec": {"containers": [{"name": "manager", "args": args}]}}}}))
        .unwrap()
    }

    fn crd(fields: &[&str], owner: &str) -> Value {
        let properties: serde_json::Map<_, _> = fields.iter().map(|field| ((*field).to_owned(), json!({}))).collect();
        json!({"metadata": {"labels": {"app.kubernetes.io/part-of": owner}}, "spec": {"versions": [{"name": "v1",
            "served": true, "schema": {"openAPIV3Schema": {"properties": {"spec": {"properties": properties}}}}}]}})
    }

    fn sound() -> Inventory {
        let ours = || Some(crd(&["credential", "audiences"], "mintmark"));
        Inventory {
            crd: ours(),
            image_crd: ours(),
            policy_crd: ours(),
            sources: vec![("Bucket", 0)],
            objects: vec![Ok(object(&json!({})))],
            deployments: vec![
                deployment(
                    "source-controller",
                    1,
                    &["--watch-label-selector=!sharding.fluxcd.io/key"],
                ),
                deployment("kustomize-controller", 1, &["--watch-all-namespaces"]),
            ],
            ..Inventory::default()
        }
    }

    /// What is found once `change` was made to a cluster in which everything works: level, about, and part of the message.
    fn found(change: impl FnOnce(&mut Inventory)) -> Vec<String> {
        let mut inventory = sound();
        change(&mut inventory);
        findings(&inventory).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn nothing_is_found_where_everything_works() {
        assert_eq!(found(|_| {}), Vec::<String>::new());
    }

    #[track_caller]
    fn one(lines: &[String], begin: &str, part: &str) {
        assert!(
            lines.len() == 1 && lines[0].starts_with(begin) && lines[0].contains(part),
            "{lines:?}"
        );
    }

    #[test]
    fn the_definition_must_have_our_fields() {
        one(&found(|it| it.crd = None), "problem definition", "is not installed");
        let lines = found(|it| it.crd = Some(crd(&["credential"], "flux")));
        one(&lines, "problem definition", "lacks spec.audiences (part of flux)");
        let lines = found(|it| it.crd = Some(crd(&["credential", "audiences"], "flux")));
        one(&lines, "note    definition", "keep config/flux-patch");
    }

    #[test]
    fn other_sources_need_their_controller() {
        let lines = found(|it| it.sources = vec![("GitRepository", 3), ("Bucket", 0)]);
        one(&lines, "problem sources GitRepository", "3 in use");
    }

    #[test]
    fn specs_go_through_the_validation_of_a_pass() {
        let lines = found(|it| it.objects = vec![Ok(object(&json!({"provider": "aws"})))]);
        assert!(
            lines[0].starts_with("problem object a/app: ProviderNotSupported"),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with("note    object a/app: is left untouched"),
            "{lines:?}"
        );
        let lines = found(|it| it.objects = vec![Ok(object(&json!({"insecure": true})))]);
        one(&lines, "note    object a/app", "plain HTTP");
        let lines = found(|it| it.objects = vec![Err("a/bad: invalid type".to_owned())]);
        one(&lines, "problem object", "a/bad");
        let image = |spec: &Value| {
            let object = json!({"apiVersion": "image.toolkit.fluxcd.io/v1", "kind": "ImageRepository",
                "metadata": {"name": "app", "namespace": "a"}, "spec": spec});
            Asking::Image(Box::new(serde_json::from_value(object).unwrap()))
        };
        let url = image(&json!({"image": "oci://registry.example/app", "interval": "1m"}));
        one(
            &found(|it| it.objects = vec![Ok(url)]),
            "problem image a/app: ImageURLInvalid",
            "remove 'oci://'",
        );
        let cloud = image(&json!({"image": "registry.example/app", "interval": "1m", "provider": "aws"}));
        one(
            &found(|it| it.objects = vec![Ok(cloud)]),
            "problem image a/app: ProviderNotSupported",
            "only generic",
        );
    }

    #[test]
    fn flux_must_leave_our_objects_alone_and_take_plain_http() {
        let lines = found(|it| it.deployments = vec![deployment("source-controller", 1, &["--log-level=info"])]);
        one(
            &lines,
            "problem deployment flux-system/source-controller",
            "reconciles every OCIRepository",
        );
        assert!(found(|it| it.deployments = vec![deployment("source-controller", 0, &[])]).is_empty());
        let split = ["--watch-label-selector", "!sharding.fluxcd.io/key"];
        assert!(found(|it| it.deployments = vec![deployment("source-controller", 1, &split)]).is_empty());
        let images = || vec![deployment("image-reflector-controller", 1, &[])];
        one(
            &found(|it| it.deployments = images()),
            "problem deployment flux-system/image-reflector-controller",
            "reconciles every ImageRepository",
        );
        let without_ours = found(|it| {
            it.deployments = images();
            it.image_crd = None;
        });
        one(&without_ours, "note    definition", "--enable-kinds=OCIRepository");
        let args = ["--authorized-source-controller-spiffe-id=spiffe://a/b"];
        let lines = found(|it| it.deployments = vec![deployment("kustomize-controller", 1, &args)]);
        one(
            &lines,
            "problem deployment flux-system/kustomize-controller",
            "--authorized-source-controller-spiffe-id: ",
        );
    }
}
