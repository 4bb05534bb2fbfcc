//! `mintmark check` on a cluster as Flux leaves it, and on one where everything works.

use anyhow::Result;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Namespace, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use mintmark_api::{
    crd::{self, IMAGE_REPOSITORY_CRD, OCI_REPOSITORY_CRD},
    image_policy::ImagePolicy,
    image_repository::ImageRepository,
    oci_repository::OciRepository,
};
use mintmark_hack::{
    cluster::{Cluster, ClusterOptions},
    controller,
};
use mintmark_tests::{env::DEADLINE, http::until};
use serde_json::{Value, json};

/// Exit code and report.
fn check(cluster: &Cluster) -> Result<(Option<i32>, Value)> {
    let output = std::process::Command::new(controller::binary()?)
        .args(["check", "-o", "json", "--kubeconfig"])
        .arg(cluster.admin_kubeconfig())
        .output()?;
    let report = serde_json::from_slice(&output.stdout);
    let report = report.map_err(|error| anyhow::anyhow!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code(), report))
}

/// The findings as `<level> <about> <name>`.
fn summary(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    let field = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let line = |finding| ["level", "about", "name"].map(|name| field(finding, name)).join(" ");
    findings.iter().map(line).collect()
}

async fn install_flux(client: &Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let flux = serde_json::from_str(include_str!("../../../api/tests/flux-1.9.1.json"))?;
    crds.create(&PostParams::default(), &flux).await?;
    let established = await_condition(crds, OCI_REPOSITORY_CRD, conditions::is_crd_established());
    tokio::time::timeout(DEADLINE, established).await??;
    let namespace = serde_json::from_value(json!({"metadata": {"name": "flux-system"}}))?;
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    let labels = json!({"app.kubernetes.io/part-of": "flux", "app": "source-controller"});
    let deployment = serde_json::from_value(json!({
        "metadata": {"name": "source-controller", "labels": labels},
        "spec": {"selector": {"matchLabels": {"app": "source-controller"}}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "manager", "image": "source-controller", "args": ["--log-level=info"]}]}}}}))?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "flux-system");
    deployments.create(&PostParams::default(), &deployment).await?;
    Ok(())
}

#[tokio::test]
async fn what_would_not_work_is_reported_until_nothing_is_left() -> Result<()> {
    // Of its own: it has Flux's definition.
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let client = cluster.client().await?;
    let (code, report) = check(&cluster)?;
    let definition = format!("problem definition {OCI_REPOSITORY_CRD}");
    let without_images = format!("note definition {IMAGE_REPOSITORY_CRD}");
    assert_eq!(
        (code, summary(&report)),
        (Some(1), vec![definition.clone(), without_images]),
        "{report}"
    );

    install_flux(&client).await?;
    let objects: Api<OciRepository> = Api::namespaced(client.clone(), "default");
    let object = |name: &str, mut spec: Value| {
        spec["url"] = "oci://registry.example.org/app".into();
        spec["interval"] = "1m".into();
        serde_json::from_value(
            json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository",
            "metadata": {"name": name}, "spec": spec}),
        )
    };
    for (name, spec) in [
        ("good", json!({})),
        ("cloud", json!({"provider": "aws"})),
        ("secret", json!({"secretRef": {"name": "none"}})),
        ("account", json!({"serviceAccountName": "puller"})),
        ("accountless", json!({"serviceAccountName": "nobody"})),
    ] {
        objects.create(&PostParams::default(), &object(name, spec)?).await?;
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let puller =
        serde_json::from_value(json!({"metadata": {"name": "puller"}, "imagePullSecrets": [{"name": "gone"}]}))?;
    accounts.create(&PostParams::default(), &puller).await?;
    let (code, report) = check(&cluster)?;
    let mut found = summary(&report);
    found.retain(|line| line.starts_with("problem"));
    let expected = [
        definition.as_str(),
        "problem secret default/gone",
        "problem account default/nobody",
        "problem object default/cloud",
        "problem secret default/none",
        "problem deployment flux-system/source-controller",
    ];
    assert_eq!(
        (code, found),
        (Some(1), expected.map(str::to_owned).to_vec()),
        "{report}"
    );
    assert_eq!(report["objects"], 5);

    for name in ["cloud", "secret", "account", "accountless"] {
        objects.delete(name, &DeleteParams::default()).await?;
    }
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "flux-system");
    let scaled = Patch::Merge(json!({"spec": {"replicas": 0}}));
    deployments
        .patch("source-controller", &PatchParams::default(), &scaled)
        .await?;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let ours = serde_json::to_value(crd::oci_repository())?;
    let patch = Patch::Merge(json!({"spec": {"versions": ours["spec"]["versions"]}}));
    crds.patch(OCI_REPOSITORY_CRD, &PatchParams::default(), &patch).await?;
    until("nothing is left", || async { Ok(check(&cluster)?.0 == Some(0)) }).await?;
    images_are_looked_at_too(&cluster, &client).await
}

async fn images_are_looked_at_too(cluster: &Cluster, client: &Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for ours in [crd::image_repository(), crd::image_policy()] {
        crds.create(&PostParams::default(), &ours).await?;
        let name = ours.metadata.name.as_deref().unwrap_or_default();
        let established = await_condition(crds.clone(), name, conditions::is_crd_established());
        tokio::time::timeout(DEADLINE, established).await??;
    }
    let other = serde_json::from_value(json!({"metadata": {"name": "other", "labels": {"team": "other"}}}))?;
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &other)
        .await?;
    let images: Api<ImageRepository> = Api::namespaced(client.clone(), "default");
    for (name, selector) in [
        ("shared", json!({"team": "other"})),
        ("secret", json!({"team": "none"})),
    ] {
        let spec = json!({"image": "registry.example.org/app", "interval": "1m",
            "accessFrom": {"namespaceSelectors": [{"matchLabels": selector}]},
            "secretRef": if name == "secret" { json!({"name": "none"}) } else { Value::Null }});
        let image = ImageRepository::new(name, serde_json::from_value(spec)?);
        images.create(&PostParams::default(), &image).await?;
    }
    let policies: Api<ImagePolicy> = Api::namespaced(client.clone(), "other");
    for name in ["shared", "secret", "missing"] {
        let spec = json!({"imageRepositoryRef": {"name": name, "namespace": "default"},
            "policy": {"semver": {"range": "1.x"}}});
        let policy = ImagePolicy::new(name, serde_json::from_value(spec)?);
        policies.create(&PostParams::default(), &policy).await?;
    }
    let (code, report) = check(cluster)?;
    let expected = [
        "problem secret default/none",
        "problem policy other/missing",
        "problem policy other/secret",
    ];
    assert_eq!(
        (code, summary(&report)),
        (Some(1), expected.map(str::to_owned).to_vec()),
        "{report}"
    );
    Ok(())
}
