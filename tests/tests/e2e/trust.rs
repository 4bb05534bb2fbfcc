//! What `mintmark trust` prints is started by those it is printed for. Here the CNCF distribution registry: it takes the tokens
//! of a token service within their `access`, our own tokens open nothing but its door, and so do client certificates. (Zot
//! and kube-apiserver have suites of their own; a Keycloak is not at hand.)

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use mintmark_hack::{controller, distribution::Distribution, pki::TestCa};
use mintmark_tests::{
    command::mintmark,
    env::{AUDIENCE, TRUST_DOMAIN},
    token_service::{TokenSigner, configuration},
};
use reqwest::{Client, Identity, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

const TOKEN_ISSUER: &str = "https://tokens.example";

/// A key in a folder, with its public half as a JSON Web Key Set.
struct Desk {
    folder: TempDir,
    ca: TestCa,
    issuer: &'static str,
}

impl Desk {
    fn new(issuer: &'static str) -> Result<Self> {
        let (folder, ca) = (tempfile::tempdir()?, TestCa::new("token service")?);
        let pair = ca.key_and_certificate();
        fs::write(folder.path().join("tls.key"), &pair.key_pem)?;
        fs::write(folder.path().join("tls.crt"), &pair.certificate_pem)?;
        let desk = Self { folder, ca, issuer };
        let site = desk.file("site");
        desk.run(&["keys", "export", "--dir", &site], &["--spiffe-issuer", issuer])?;
        Ok(desk)
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn run(&self, words: &[&str], more: &[&str]) -> Result<String> {
        let (key, cert) = (self.file("tls.key"), self.file("tls.crt"));
        let own = ["--key", &*key, "--cert", &*cert, "--spiffe-trust-domain", TRUST_DOMAIN];
        mintmark(&[words, &own, more].concat())
    }

    /// A JWT-SVID of this key.
    fn svid(&self) -> Result<String> {
        let words = [
            "mint",
            "jwt",
            "--namespace",
            "team-a",
            "--name",
            "app",
            "--audience",
            AUDIENCE,
        ];
        Ok(self.run(&words, &["--spiffe-issuer", self.issuer])?.trim().to_owned())
    }

    /// A client certificate of this CA.
    fn certificate(&self) -> Result<Identity> {
        let folder = self.file("svid");
        self.run(
            &[
                "mint",
                "x509",
                "--namespace",
                "team-a",
                "--name",
                "app",
                "--output-dir",
                &folder,
            ],
            &[],
        )?;
        let read = |name: &str| fs::read_to_string(Path::new(&folder).join(name));
        Ok(Identity::from_pem((read("svid.pem")? + &read("svid.key")?).as_bytes())?)
    }

    /// What a token service answers: a token of this key that grants pulling one repository (CNCF distribution,
    /// "Token Authentication Implementation").
    fn registry_token(&self, repository: &str) -> Result<String> {
        let keys: Value = serde_json::from_slice(&fs::read(self.file("site/keys"))?)?;
        let kid = keys["keys"][0]["kid"].as_str().context("a key id")?;
        TokenSigner::from_pem(&self.ca.key_and_certificate().key_pem, kid, self.issuer)?.token(
            "somebody",
            repository,
            &["pull"],
        )
    }
}

/// One that believes the token service whose keys are on this desk.
async fn behind_token_service(desk: &Desk) -> Result<Distribution> {
    let keys = desk.file("site/keys");
    Distribution::start(|place| {
        let service = ["--audience", AUDIENCE, "--token-realm", "https://tokens.example/token"];
        let issuer = ["--token-issuer", desk.issuer, "--jwks-file", &keys];
        configuration(place, &[service, issuer].concat())
    })
    .await
}

async fn status(
    http: &Client,
    registry: &Distribution,
    path: &str,
    token: Option<&str>,
) -> Result<(StatusCode, String)> {
    let mut request = http.get(format!("{}{path}", registry.origin()));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await?;
    let challenge = answer
        .headers()
        .get("www-authenticate")
        .map(|value| value.to_str())
        .transpose()?;
    Ok((answer.status(), challenge.unwrap_or_default().to_owned()))
}

fn client(registry: &Distribution, certificate: Option<Identity>) -> Result<Client> {
    let mut builder = Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(registry.ca_pem().as_bytes())?])
        .no_proxy();
    if let Some(certificate) = certificate {
        builder = builder.identity(certificate);
    }
    Ok(builder.build()?)
}

const TAGS: &str = "/v2/team/app/tags/list";

#[tokio::test]
async fn distribution_takes_tokens_of_the_token_service_for_what_they_grant() -> Result<()> {
    let desk = Desk::new(TOKEN_ISSUER)?;
    let registry = behind_token_service(&desk).await?;
    let http = client(&registry, None)?;
    let (code, challenge) = status(&http, &registry, TAGS, None).await?;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    let expected = format!(
        "Bearer realm=\"https://tokens.example/token\",service=\"{AUDIENCE}\",scope=\"repository:team/app:pull\""
    );
    assert!(challenge.starts_with(&expected), "{challenge}");
    // Nothing was pushed: whoever may read it learns that it is not there.
    let granted = desk.registry_token("team/app")?;
    assert_eq!(
        status(&http, &registry, TAGS, Some(&granted)).await?.0,
        StatusCode::NOT_FOUND
    );
    let other = desk.registry_token("team/other")?;
    let (code, challenge) = status(&http, &registry, TAGS, Some(&other)).await?;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    assert!(challenge.contains("insufficient_scope"), "{challenge}");
    let stranger = Desk::new(TOKEN_ISSUER)?.registry_token("team/app")?;
    let (code, challenge) = status(&http, &registry, TAGS, Some(&stranger)).await?;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    assert!(challenge.contains("invalid_token"), "{challenge}");
    Ok(())
}

#[tokio::test]
async fn a_jwt_svid_itself_opens_no_repository_of_distribution() -> Result<()> {
    let desk = Desk::new("https://issuer.example")?;
    let registry = behind_token_service(&desk).await?;
    let http = client(&registry, None)?;
    let svid = desk.svid()?;
    assert_eq!(status(&http, &registry, "/v2/", Some(&svid)).await?.0, StatusCode::OK);
    let (code, challenge) = status(&http, &registry, TAGS, Some(&svid)).await?;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    assert!(challenge.contains("insufficient_scope"), "{challenge}");
    Ok(())
}

#[tokio::test]
async fn distribution_asks_for_a_certificate_and_for_nothing_else() -> Result<()> {
    let desk = Desk::new(TOKEN_ISSUER)?;
    let ca = desk.file("site/spiffe/bundle.pem");
    let registry =
        Distribution::start(|place| configuration(place, &["--credential", "x509", "--ca-file", &ca])).await?;
    let known = client(&registry, Some(desk.certificate()?))?;
    assert_eq!(status(&known, &registry, TAGS, None).await?.0, StatusCode::NOT_FOUND);
    let stranger = Desk::new(TOKEN_ISSUER)?.certificate()?;
    for refused in [client(&registry, None)?, client(&registry, Some(stranger))?] {
        assert!(status(&refused, &registry, TAGS, None).await.is_err());
    }
    Ok(())
}

#[test]
fn text_and_json_say_the_same_and_a_mistake_ends_with_status_2() -> Result<()> {
    let desk = Desk::new(TOKEN_ISSUER)?;
    let ca = desk.file("tls.crt");
    let domain = ["--spiffe-trust-domain", TRUST_DOMAIN];
    let issuer = ["--spiffe-issuer", "https://issuer.example"];
    let verifiers: [(&str, &[&str]); 4] = [
        ("zot", &["--storage", "s", "--audience", AUDIENCE]),
        ("kube-apiserver", &["--audience", AUDIENCE, "--ca-file", &ca]),
        ("keycloak", &["--object", "team-a/app"]),
        (
            "distribution",
            &[
                "--storage",
                "s",
                "--credential",
                "x509",
                "--ca-file",
                "c",
                "--tls-cert-file",
                "c",
                "--tls-key-file",
                "k",
            ],
        ),
    ];
    for (verifier, more) in verifiers {
        let mut words = vec!["trust", verifier];
        words.extend(more);
        if verifier != "distribution" {
            words.extend(domain.iter().chain(&issuer));
        }
        let text: Value = serde_yaml_ng::from_str(&mintmark(&words)?)?;
        let json = mintmark(&[&words[..], &["-o", "json"]].concat())?;
        assert_eq!(json.lines().count(), 1, "{verifier}");
        assert_eq!(text, serde_json::from_str::<Value>(&json)?, "{verifier}");
    }
    for (line, flag) in [
        (
            "zot --storage s --spiffe-trust-domain a --spiffe-issuer https://i.example",
            "--audience",
        ),
        ("zot --listen here --storage s --spiffe-trust-domain a", "--listen"),
        (
            "keycloak --object a/b --spiffe-trust-domain a --spiffe-issuer http://localhost",
            "--spiffe-issuer",
        ),
    ] {
        let output = Command::new(controller::binary()?)
            .arg("trust")
            .args(line.split(' '))
            .output()?;
        let error = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(2), "{line}: {error}");
        assert!(error.contains(flag) && error.lines().count() == 1, "{line}: {error}");
        assert!(output.stdout.is_empty(), "{line}");
    }
    Ok(())
}
