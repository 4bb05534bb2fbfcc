//! `mintmark run` with flags that are missing or wrong ends at once: status 2 and one line that names the flag, or status 1
//! and one line for what the machine refuses. Nothing is asked of any API server.

use std::{
    io::Write,
    net::TcpListener,
    process::{Command, Output, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use mintmark_hack::controller::binary;
use rstest::rstest;
use tempfile::TempDir;

/// How long a process that has to give up may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// A kubeconfig whose server nobody listens at.
const KUBECONFIG: &str = "apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:9'}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
";

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kubeconfig"), KUBECONFIG).unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    folder
});

/// What a line needs beside the flags under test: all of it is good.
fn good() -> Vec<String> {
    let folder = FOLDER.path().display();
    vec![
        format!("--kubeconfig={folder}/kubeconfig"),
        format!("--storage-path={folder}/data"),
        "--runtime-namespace=mintmark-system".to_owned(),
        "--storage-addr=127.0.0.1:0".to_owned(),
        "--storage-adv-addr=127.0.0.1".to_owned(),
        "--issuer-addr=".to_owned(),
        "--metrics-addr=".to_owned(),
        "--health-addr=".to_owned(),
    ]
}

/// The good line with `flags` added; a flag that is in both replaces the good one, and `--name` alone removes it.
fn line(flags: &[&str]) -> Vec<String> {
    let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
    let mut line: Vec<_> = good()
        .into_iter()
        .filter(|good| flags.iter().all(|flag| name(flag) != name(good)))
        .collect();
    let added = flags
        .iter()
        .filter(|flag| flag.contains('=') || flag.starts_with("--no-such"));
    line.extend(added.map(|flag| (*flag).to_owned()));
    line
}

fn run(arguments: &[String]) -> Output {
    let mut command = Command::new(binary().unwrap());
    // Nothing of this machine: no KUBECONFIG, no RUNTIME_NAMESPACE, no ~/.kube/config.
    command.env_clear().env("HOME", FOLDER.path()).args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() >= deadline {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("still running: {}", String::from_utf8_lossy(&output.stderr));
        }
        thread::park_timeout(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

/// The only line that the process says.
#[track_caller]
fn only_line(output: &Output, status: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(
        text.ends_with('\n') && text.lines().count() == 1,
        "not one line: {text:?}"
    );
    text.trim_end().to_owned()
}

fn run_with(flags: &[&str]) -> Output {
    let arguments: Vec<_> = std::iter::once("run".to_owned()).chain(line(flags)).collect();
    run(&arguments)
}

const DOMAIN: &str = "--spiffe-trust-domain=cluster.example";
const SECRET: &str = "--spiffe-secret-name=signing";

#[rstest]
#[case::capital_letters("--spiffe-trust-domain", &["--spiffe-trust-domain=Cluster.example", SECRET])]
#[case::empty_label("--spiffe-trust-domain", &["--spiffe-trust-domain=cluster..example", SECRET])]
#[case::trailing_dot("--spiffe-trust-domain", &["--spiffe-trust-domain=cluster.example.", SECRET])]
#[case::empty_domain("--spiffe-trust-domain", &["--spiffe-trust-domain=", SECRET])]
#[case::path_in_domain("--spiffe-trust-domain", &["--spiffe-trust-domain=cluster.example/a", SECRET])]
#[case::issuer_query("--spiffe-issuer", &[DOMAIN, SECRET, "--spiffe-issuer=https://issuer.example?a=b"])]
#[case::issuer_fragment("--spiffe-issuer", &[DOMAIN, SECRET, "--spiffe-issuer=https://issuer.example#a"])]
#[case::issuer_plain("--spiffe-issuer", &[DOMAIN, SECRET, "--spiffe-issuer=http://issuer.example"])]
#[case::issuer_scheme("--spiffe-issuer", &[DOMAIN, SECRET, "--spiffe-issuer=ftp://issuer.example"])]
#[case::issuer_no_url("--spiffe-issuer", &[DOMAIN, SECRET, "--spiffe-issuer=issuer.example"])]
#[case::secret_without_domain("--spiffe-secret-name", &[SECRET])]
#[case::domain_without_secret("--spiffe-trust-domain", &[DOMAIN])]
#[case::issuer_without_secret("--spiffe-issuer", &["--spiffe-issuer=https://issuer.example"])]
#[case::denied_network("--registry-deny-cidrs", &["--registry-deny-cidrs=10.0.0.0/33"])]
#[case::allowed_network("--registry-allow-cidrs", &["--registry-allow-cidrs=registry.example"])]
#[case::duration_unit("--min-interval", &["--min-interval=5 minutes"])]
#[case::duration_without_unit("--max-timeout", &["--max-timeout=10"])]
#[case::short_token("--spiffe-jwt-ttl", &["--spiffe-jwt-ttl=10s"])]
#[case::long_certificate("--spiffe-x509-ttl", &["--spiffe-x509-ttl=48h"])]
#[case::short_account_token("--service-account-token-ttl", &["--service-account-token-ttl=1m"])]
#[case::retry_order("--min-retry-delay", &["--min-retry-delay=1m", "--max-retry-delay=1s"])]
#[case::number("--concurrent", &["--concurrent=0"])]
#[case::truth_value("--watch-all-namespaces", &["--watch-all-namespaces=perhaps"])]
#[case::log_level("--log-level", &["--log-level=loud"])]
#[case::listen_address("--issuer-addr", &["--issuer-addr=nowhere"])]
#[case::advertised_address("--storage-adv-addr", &["--storage-adv-addr=a b"])]
#[case::events_url("--events-addr", &["--events-addr=not a url"])]
#[case::storage_no_folder("--storage-path", &["--storage-path=/dev/null"])]
#[case::unknown_flag("--no-such-flag", &["--no-such-flag"])]
#[case::unknown_flag_with_value("--no-such-flag", &["--no-such-flag=1"])]
#[case::gate("--feature-gates", &["--feature-gates=ObjectLevelWorkloadIdentity=true"])]
#[case::gate_value("--feature-gates", &["--feature-gates=OptimizedGitClones=perhaps"])]
#[case::mutual_tls("--authorized-kustomize-controller-spiffe-id", &["--authorized-kustomize-controller-spiffe-id=spiffe://a/b"])]
#[case::request_rate("--kube-api-qps", &["--kube-api-qps=0"])]
#[case::request_burst("--kube-api-burst", &["--kube-api-burst=0"])]
#[case::policies_alone("--enable-kinds", &["--enable-kinds=OCIRepository,ImagePolicy"])]
#[case::no_kinds("--enable-kinds", &["--enable-kinds="])]
#[case::unknown_kind("--enable-kinds", &["--enable-kinds=GitRepository"])]
#[case::no_delay("--requeue-dependency", &["--requeue-dependency=0s"])]
#[case::no_namespace("--runtime-namespace", &["--runtime-namespace"])]
#[case::empty_namespace("--runtime-namespace", &["--runtime-namespace="])]
#[case::kubeconfig_absent("--kubeconfig", &["--kubeconfig=/nonexistent/kubeconfig"])]
#[case::kubeconfig_folder("--kubeconfig", &["--kubeconfig=/"])]
#[case::no_kubeconfig("--kubeconfig", &["--kubeconfig"])]
fn a_wrong_flag_ends_the_start_with_one_line(#[case] flag: &str, #[case] flags: &[&str]) {
    let line = only_line(&run_with(flags), 2);
    assert!(line.contains(flag), "{line}");
}

#[test]
fn a_kubeconfig_that_is_none_is_named_with_its_path() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"token: planted\nclusters: [\n  this is\n: not yaml")
        .unwrap();
    let path = file.path().to_str().unwrap();
    let line = only_line(&run_with(&[&format!("--kubeconfig={path}")]), 2);
    assert!(line.contains("--kubeconfig") && line.contains(path), "{line}");
    assert!(!line.contains("planted"), "{line}");
}

#[rstest]
#[case::artifacts("--storage-addr")]
#[case::issuer("--issuer-addr")]
#[case::metrics("--metrics-addr")]
#[case::health("--health-addr")]
fn a_port_in_use_ends_the_start_with_one_line(#[case] flag: &str) {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let line = only_line(&run_with(&[&format!("{flag}={address}")]), 1);
    assert!(line.contains(&address), "{line}");
}

#[test]
fn no_subcommand_and_an_unknown_one_are_told_in_one_line() {
    only_line(&run(&[]), 2);
    let line = only_line(&run(&["serve".to_owned()]), 2);
    assert!(line.contains("serve"), "{line}");
}
