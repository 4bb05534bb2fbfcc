//! `cargo xtask demo`, end to end: it shows what the README says, finds out when it is not so, leaves a given cluster as
//! it was, and whatever way it ends, nothing that it started is left.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use k8s_openapi::{
    api::{core::v1::Namespace, rbac::v1::ClusterRole},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use mintmark_hack::{
    cluster::{self, Cluster, ClusterOptions},
    controller::{self, BINARY_VARIABLE},
    demo::{self, Options, Trust},
    servers::{self, PATHS_VARIABLE},
};
use tempfile::TempDir;

/// In the environment of everything that a demo of this test starts.
const MARK: &str = "MINTMARK_DEMO_TEST";

/// A running `cargo xtask demo` with a temporary folder and a mark of its own.
struct Demo {
    child: Child,
    folder: TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .arg("demo")
            .args(arguments)
            .env(BINARY_VARIABLE, controller::binary().unwrap())
            .env(
                PATHS_VARIABLE,
                serde_json::to_string(servers::ensure().unwrap()).unwrap(),
            )
            .env("TMPDIR", folder.path())
            .env(MARK, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, folder }
    }

    fn interrupt(&self) {
        let kill = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
    }

    /// Waits for its end and returns exit code, standard output and standard error, or what is left of them. Fails if
    /// a process or a file of it is left.
    fn end(mut self) -> (i32, String, String) {
        let (mut output, mut errors) = (String::new(), String::new());
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_string(&mut output).unwrap();
        }
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut errors).unwrap();
        }
        let code = self.child.wait().unwrap().code().unwrap();
        assert_eq!(marked(self.folder.path()), Vec::<String>::new(), "{errors}");
        let files: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|it| it.unwrap().path())
            .collect();
        assert!(files.is_empty(), "{files:?}\n{errors}");
        (code, output, errors)
    }
}

/// Command lines of the processes with this mark.
fn marked(mark: &Path) -> Vec<String> {
    let wanted = format!("{MARK}={}", mark.display());
    let processes = fs::read_dir("/proc").unwrap().filter_map(|it| Some(it.ok()?.path()));
    processes
        .filter(|folder| {
            let environment = fs::read(folder.join("environ")).unwrap_or_default();
            environment
                .split(|&byte| byte == 0)
                .any(|variable| variable == wanted.as_bytes())
        })
        .map(|folder| fs::read_to_string(folder.join("cmdline")).unwrap_or_default())
        .collect()
}

/// Reads lines up to and including the first that begins with `last`.
fn read_until(pipe: &mut impl BufRead, last: &str) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        assert_ne!(pipe.read_line(&mut line).unwrap(), 0, "no {last} after {lines:#?}");
        lines.push(line.trim_end().to_owned());
        if line.starts_with(last) {
            return lines;
        }
    }
}

/// The rows of the table as `(first line, lines below)`.
fn rows(output: &str) -> Vec<(Vec<&str>, Vec<&str>)> {
    let mut rows: Vec<(Vec<&str>, Vec<&str>)> = Vec::new();
    for line in output.lines().skip(1).take_while(|line| !line.is_empty()) {
        if line.starts_with(' ') {
            rows.last_mut().unwrap().1.push(line.trim());
        } else {
            rows.push((line.split_whitespace().collect(), Vec::new()));
        }
    }
    rows
}

fn detail<'a>(lines: &[&'a str], name: &str) -> &'a str {
    let found = lines.iter().find_map(|line| line.strip_prefix(name));
    assert!(found.is_some(), "no {name} in {lines:?}");
    found.unwrap().trim()
}

fn assert_table(output: &str) {
    let header: Vec<_> = output.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["OBJECT", "CREDENTIAL", "SUBJECT", "READY"]);
    let rows = rows(output);
    let spiffe = |id: &str| format!("spiffe://example.org/ocirepositories/{id}");
    let expected = [
        (
            "team-a/web",
            "ServiceAccountToken",
            "system:serviceaccount:team-a:puller".to_owned(),
            "bearer",
        ),
        ("team-b/api", "SpiffeJWT", spiffe("team-b/api"), "bearer"),
        ("team-c/jobs", "SpiffeCertificate", spiffe("team-c/jobs"), "mtls"),
    ];
    assert_eq!(rows.len(), 5, "{output}");
    for ((first, below), (object, credential, subject, kind)) in rows.iter().zip(expected) {
        assert_eq!(*first, [object, credential, &subject, "True"]);
        assert!(
            detail(below, "registry saw").starts_with(&format!("{subject}, {kind}, 200")),
            "{below:?}"
        );
        let digest = detail(below, "revision").strip_prefix("v1@").unwrap();
        let url = detail(below, "artifact");
        assert!(
            url.starts_with("http://127.0.0.1:") && url.ends_with(&format!("/{object}/{digest}.tar.gz")),
            "{url}"
        );
        assert!(detail(below, "fetched").ends_with("digest checked"));
    }
    let (first, below) = rows.get(3).unwrap();
    assert_eq!(
        *first,
        ["team-d/intruder", "SpiffeJWT", &spiffe("team-d/intruder"), "False"]
    );
    assert_eq!(
        detail(below, "registry saw"),
        format!("{}, bearer, 403", spiffe("team-d/intruder"))
    );
    assert!(detail(below, "message").contains("403"));
    assert!(!below.iter().any(|line| line.starts_with("artifact")));
    assert_image(rows.last().unwrap());
}

/// The row of the image: its tags, and the one that the policy selected.
fn assert_image((first, below): &(Vec<&str>, Vec<&str>)) {
    let id = "spiffe://example.org/imagerepositories/team-e/web";
    assert_eq!(*first, ["team-e/web", "SpiffeJWT", id, "True"]);
    // One for the tags, one for the digest.
    assert_eq!(detail(below, "registry saw"), format!("{id}, bearer, 200 (2×)"));
    assert_eq!(detail(below, "tags"), "4");
    let (image, digest) = detail(below, "selected").split_once("@sha256:").unwrap();
    assert!(
        image.starts_with("127.0.0.1:") && image.ends_with("/team-e/web:1.10.0"),
        "{image}"
    );
    assert_eq!(digest.len(), 64);
}

#[tokio::test]
async fn it_shows_what_it_promises_and_with_keep_stays_until_ctrl_c() {
    let mut demo = Demo::start(&["--keep"]);
    let mut output: BufReader<ChildStdout> = BufReader::new(demo.child.stdout.take().unwrap());
    let lines = read_until(&mut output, "controller's log");
    assert_table(&lines.join("\n"));

    let kubeconfig = lines.iter().find_map(|line| line.strip_prefix("KUBECONFIG=")).unwrap();
    let client = cluster::client(Path::new(kubeconfig)).await.unwrap();
    assert!(Api::<Namespace>::all(client).get("team-d").await.is_ok());
    assert!(!marked(demo.folder.path()).is_empty());

    demo.interrupt();
    let (code, _, errors) = demo.end();
    assert_eq!(code, 0, "{errors}");
}

#[test]
fn ctrl_c_in_the_middle_ends_everything() {
    for step in ["starting etcd", "starting two registries", "starting mintmark"] {
        let mut demo = Demo::start(&[]);
        let mut errors = BufReader::new(demo.child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(step) {
            line.clear();
            assert_ne!(errors.read_line(&mut line).unwrap(), 0, "no {step}");
        }
        demo.interrupt();
        // Its end must not depend on who reads its progress, but it may write some.
        let rest = std::thread::spawn(move || errors.read_to_string(&mut String::new()));
        let (code, output, _) = demo.end();
        rest.join().unwrap().unwrap();
        assert_eq!((code, output.as_str()), (130, ""), "at {step}");
    }
}

#[test]
fn registries_that_trust_nobody_are_found_out() {
    let options = Options {
        trust: Trust::Nobody,
        patience: Duration::from_secs(5),
        ..Options::default()
    };
    let outcome = demo::run(&options).unwrap();
    assert_eq!(outcome.exit_code(), 1);
    let deviations = outcome.deviations();
    for object in ["team-a/web", "team-b/api", "team-c/jobs"] {
        for what in [": Ready is False: ", ": the registry saw ", ": it has no artifact"] {
            let wanted = format!("{object}{what}");
            assert!(
                deviations.iter().any(|it| it.starts_with(&wanted)),
                "no {wanted} in {deviations:#?}"
            );
        }
    }
    for what in [
        ": Ready is False: ",
        ": the registry saw ",
        ": it has no tags",
        ": its policy web selected nothing",
    ] {
        let wanted = format!("team-e/web{what}");
        assert!(
            deviations.iter().any(|it| it.starts_with(&wanted)),
            "no {wanted} in {deviations:#?}"
        );
    }
    // Refused as well, but not because it is known.
    assert!(
        deviations
            .iter()
            .any(|it| it.starts_with("team-d/intruder: Ready is False and not False with a 403"))
    );
    assert!(deviations.iter().all(|it| !it.contains('\n')), "{deviations:#?}");
}

#[tokio::test]
async fn a_given_cluster_is_left_as_it_was_and_nothing_in_it_is_overwritten() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let client = cluster.client().await.unwrap();
    let arguments = ["--kubeconfig", cluster.admin_kubeconfig().to_str().unwrap()];
    let name = "mintmark-mintmark-demo";
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let foreign: ClusterRole =
        serde_json::from_value(serde_json::json!({ "metadata": { "name": name }, "rules": [] })).unwrap();
    roles.create(&PostParams::default(), &foreign).await.unwrap();
    let (code, _, errors) = Demo::start(&arguments).end();
    assert_eq!(code, 1, "{errors}");
    assert!(
        errors.contains(&format!("ClusterRole {name} exists and is not the demo's")),
        "{errors}"
    );
    assert_eq!(roles.get(name).await.unwrap().rules.unwrap_or_default(), []);
    assert_eq!(ours(&client).await, [name], "nothing but the other's own");

    roles.delete(name, &DeleteParams::default()).await.unwrap();
    let (code, output, errors) = Demo::start(&arguments).end();
    assert_eq!(code, 0, "{errors}");
    assert_table(&output);
    assert_eq!(ours(&client).await, Vec::<String>::new());
}

/// What the demo makes and has not deleted. (Without a controller manager a deleted namespace stays `Terminating`.)
async fn ours(client: &Client) -> Vec<String> {
    let mut names = Vec::new();
    let namespaces = Api::<Namespace>::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap();
    names.extend(
        namespaces
            .items
            .into_iter()
            .map(|it| it.metadata)
            .filter(|it| it.deletion_timestamp.is_none()),
    );
    let roles = Api::<ClusterRole>::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap();
    names.extend(roles.items.into_iter().map(|it| it.metadata));
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definitions = definitions.list(&ListParams::default()).await.unwrap();
    names.extend(
        definitions
            .items
            .into_iter()
            .map(|it| it.metadata)
            .filter(|it| it.deletion_timestamp.is_none()),
    );
    let names = names.into_iter().filter_map(|it| it.name);
    names
        .filter(|it| it.starts_with("team-") || it.ends_with("mintmark-demo") || it.ends_with("toolkit.fluxcd.io"))
        .collect()
}
