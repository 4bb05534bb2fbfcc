//! What a controller really sends to registries and publishes for them, judged by go-spiffe, go-oidc and openssl against the
//! documents as they are served, and compared with the promised profile claim by claim and extension by extension.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use kube::ResourceExt;
use mintmark_hack::{
    pki::TestCa,
    svid::{Bundle, verify_oidc},
};
use mintmark_tests::{
    env::{AUDIENCE, Env, TRUST_DOMAIN},
    fault_registry::{Artifact, FaultRegistry},
    issuer::{chain_pem, chains, mutual_tls, tokens},
    specs,
};
use serde_json::{Value, json};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

/// The SPIFFE bundle as the controller serves it.
async fn published(env: &Env, name: &str) -> Result<String> {
    let url = format!("{}{name}", env.ports.issuer_url());
    Ok(reqwest::get(url).await?.error_for_status()?.text().await?)
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect()
}

/// The RFC 7638 thumbprint of an EC key of a JWKS.
fn thumbprint(key: &Value) -> String {
    let (crv, kty, x, y) = (&key["crv"], &key["kty"], &key["x"], &key["y"]);
    let canonical = format!(r#"{{"crv":{crv},"kty":{kty},"x":{x},"y":{y}}}"#);
    BASE64_URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, canonical.as_bytes()))
}

#[tokio::test]
async fn every_jwt_svid_is_what_it_should_be_and_both_judges_accept_it() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let namespace = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    registry.push("team/app", "v1", &Artifact::flux(&[("a.yaml", "a")]));
    let url = format!("oci://{}/team/app", registry.host());
    let one = env.create(&namespace, "one", specs::jwt(&url)).await?;
    env.ready(&namespace, "one").await?;
    let mut spec = specs::jwt(&url);
    // The token has them sorted: the order in the object means nothing.
    spec["audiences"] = json!(["second.example", AUDIENCE]);
    let two = env.create(&namespace, "two", spec).await?;
    env.ready(&namespace, "two").await?;

    let now = Timestamp::now().as_second();
    let jwks: Value = serde_json::from_str(&published(&env, "/keys").await?)?;
    let (issuer, bundle_url) = (
        env.ports.issuer_url(),
        format!("{}/spiffe/bundle.json", env.ports.issuer_url()),
    );
    let bundle = Bundle {
        source: &bundle_url,
        trust_domain: TRUST_DOMAIN,
    };
    let tokens = tokens(&registry)?;
    ensure!(tokens.len() == 2, "{} tokens for two objects", tokens.len());
    let mut ids = BTreeSet::new();
    for (token, (object, audiences)) in tokens
        .iter()
        .zip([(&one, json!(AUDIENCE)), (&two, json!([AUDIENCE, "second.example"]))])
    {
        let kid = thumbprint(&jwks["keys"][0]);
        assert_eq!(token.header, json!({"alg": "ES256", "kid": kid, "typ": "JWT"}));
        let (claims, iat) = (&token.claims, token.seconds("iat")?);
        let expected = ["aud", "exp", "iat", "iss", "jti", "mintmark.dev/object", "nbf", "sub"];
        assert_eq!(keys(claims), BTreeSet::from(expected));
        let subject = Env::spiffe_id(&namespace, &object.name_any());
        assert_eq!(claims["iss"], json!(issuer));
        assert_eq!(claims["sub"], json!(subject));
        assert_eq!(claims["aud"], audiences);
        assert_eq!(token.seconds("nbf")?, iat);
        assert_eq!(token.seconds("exp")? - iat, 305);
        assert!((now - 60..=now - 5).contains(&iat), "iat {iat} at {now}");
        let jti = claims["jti"].as_str().context("jti is no string")?;
        assert!(jti.len() == 32 && jti.bytes().all(|c| c.is_ascii_hexdigit()), "{jti}");
        assert!(ids.insert(jti), "two tokens with one jti");
        let object = json!({"kind": "OCIRepository", "namespace": namespace, "name": object.name_any(),
            "uid": object.uid()});
        assert_eq!(claims["mintmark.dev/object"], object);

        let verdict = bundle.verify_jwt(&token.compact, &[AUDIENCE]).await?;
        assert_eq!(verdict.subject, subject);
        assert!(bundle.verify_jwt(&token.compact, &["elsewhere.example"]).await.is_err());
        let verdict = verify_oidc(&issuer, None, &token.compact, AUDIENCE).await?;
        assert_eq!((verdict.subject, verdict.issuer), (subject, issuer.clone()));
        assert!(
            verify_oidc(&issuer, None, &token.compact, "elsewhere.example")
                .await
                .is_err()
        );
    }
    Ok(())
}

#[tokio::test]
async fn every_x509_svid_has_the_promised_profile_and_the_judges_accept_it() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let namespace = env.tenant("a").await?;
    let (registry, server_ca) = mutual_tls(env.ca.pem()).await?;
    registry.push("team/app", "v1", &Artifact::flux(&[("a.yaml", "a")]));
    let url = format!("oci://{}/team/app", registry.host());
    env.secret(&namespace, "registry-ca", &[("ca.crt", &server_ca)]).await?;
    for name in ["one", "two"] {
        env.create(&namespace, name, specs::certificate(&url)).await?;
        env.ready(&namespace, name).await?;
    }

    let folder = tempfile::tempdir()?;
    let bundle_url = format!("{}/spiffe/bundle.json", env.ports.issuer_url());
    let bundle = Bundle {
        source: &bundle_url,
        trust_domain: TRUST_DOMAIN,
    };
    let pem = published(&env, "/spiffe/bundle.pem").await?;
    assert_eq!(pem.trim(), env.ca.pem().trim());
    let anchors = folder.path().join("bundle.pem");
    std::fs::write(&anchors, pem)?;
    let chains = chains(&registry);
    ensure!(chains.len() == 2, "{} chains for two objects", chains.len());
    let mut serials = BTreeSet::new();
    for (chain, name) in chains.iter().zip(["one", "two"]) {
        assert_eq!(chain.len(), 1, "a root was sent");
        let leaf = chain.first().context("no leaf")?;
        let subject = Env::spiffe_id(&namespace, name);
        let serial = check_profile(leaf, &subject, env.ca.pem())?;
        let file = folder.path().join(format!("{name}.pem"));
        std::fs::write(&file, chain_pem(chain))?;
        let verdict = bundle.verify_x509(&file).await?;
        assert_eq!((verdict.subject, verdict.chain), (subject, 2));
        assert_eq!(verdict.serial, serial);
        assert!(serials.insert(serial), "two certificates with one serial number");
        for purpose in ["sslclient", "sslserver"] {
            openssl_verify(&anchors, purpose, &file)?;
        }
    }
    Ok(())
}

/// Compares a leaf with RFC 5280, X.509-SVID §3–4 and what this product promises; returns its serial in hexadecimal.
fn check_profile(der: &[u8], subject: &str, ca_pem: &str) -> Result<String> {
    let (rest, leaf) = X509Certificate::from_der(der)?;
    assert!(rest.is_empty());
    let (_, ca) = x509_parser::pem::parse_x509_pem(ca_pem.as_bytes())?;
    let ca = ca.parse_x509()?;
    assert_eq!(leaf.version().0, 2, "not X.509 v3");
    assert_eq!(leaf.subject().as_raw(), [0x30, 0], "the subject is not empty");
    assert_eq!(leaf.issuer().as_raw(), ca.subject().as_raw());
    let serial = leaf.raw_serial();
    assert!(serial.len() == 16 && serial[0] < 0x80, "{serial:02x?}");
    let (from, until) = (
        leaf.validity().not_before.timestamp(),
        leaf.validity().not_after.timestamp(),
    );
    let now = Timestamp::now().as_second();
    assert_eq!(until - from, 3600 + 30);
    assert!((now - 90..=now - 30).contains(&from), "notBefore {from} at {now}");

    let mut extensions = BTreeSet::new();
    let ca_key_id = ca
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
    for extension in leaf.extensions() {
        let name = match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                assert!(matches!(names.general_names.as_slice(), [GeneralName::URI(uri)] if *uri == subject));
                "subjectAltName"
            }
            ParsedExtension::BasicConstraints(constraints) => {
                assert!(!constraints.ca && constraints.path_len_constraint.is_none());
                "basicConstraints"
            }
            ParsedExtension::KeyUsage(usage) => {
                assert_eq!(usage.flags, 1, "more than digitalSignature");
                "keyUsage"
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                assert!(usage.client_auth && usage.server_auth && !usage.any && usage.other.is_empty());
                assert!(!usage.code_signing && !usage.email_protection && !usage.time_stamping && !usage.ocsp_signing);
                "extKeyUsage"
            }
            ParsedExtension::SubjectKeyIdentifier(id) => {
                assert!(!id.0.is_empty());
                "subjectKeyIdentifier"
            }
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                assert_eq!(id.key_identifier.as_ref().map(|id| id.0.to_vec()), ca_key_id);
                "authorityKeyIdentifier"
            }
            other => panic!("an extension that nobody asked for: {other:?}"),
        };
        extensions.insert((name, extension.critical));
    }
    let mut found: Vec<_> = extensions
        .iter()
        .copied()
        .filter(|(name, _)| *name != "basicConstraints")
        .collect();
    found.sort_unstable();
    let expected = [
        ("authorityKeyIdentifier", false),
        ("extKeyUsage", false),
        ("keyUsage", true),
        ("subjectAltName", true),
        ("subjectKeyIdentifier", false),
    ];
    assert_eq!(found, expected);
    assert!(extensions.iter().any(|(name, _)| *name == "basicConstraints"));
    assert_eq!(leaf.public_key().parsed()?.key_size(), 256);
    Ok(mintmark_hack::digest::hex(serial))
}

fn openssl_verify(anchors: &Path, purpose: &str, chain: &Path) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args([
        "verify",
        "-x509_strict",
        "-check_ss_sig",
        "-purpose",
        purpose,
        "-CAfile",
    ]);
    let output = command.arg(anchors).arg("-untrusted").arg(chain).arg(chain).output();
    let output = output.context("cannot run openssl: install it")?;
    ensure!(
        output.status.success(),
        "openssl refuses for {purpose}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[tokio::test]
async fn a_chain_is_sent_without_its_root_and_verifies_under_the_root() -> Result<()> {
    let env = Env::new().await?;
    let root = TestCa::new("mintmark test root")?;
    let signing = root.intermediate("mintmark test signing CA")?;
    let mut pair = signing.key_and_certificate().clone();
    pair.certificate_pem += root.pem();
    env.sign_with(&pair).await?;
    let _controller = env.controller(&[]).await?;
    let namespace = env.tenant("a").await?;
    let (recording, recording_ca) = mutual_tls(root.pem()).await?;
    recording.push("team/app", "v1", &Artifact::flux(&[("a.yaml", "a")]));
    // crypto/tls, trusting the root alone: it needs the intermediate from us.
    let real = env.mtls_registry(root.pem())?;
    let artifact = mintmark_hack::registry::Artifact::from_files(&[("a.yaml", b"a")])?;
    real.push("team/app", "v1", &artifact).await?;
    real.set_readers("team/app", &[&Env::spiffe_id(&namespace, "real")])?;
    env.secret(
        &namespace,
        "registry-ca",
        &[("ca.crt", &(recording_ca + real.ca_pem()))],
    )
    .await?;
    env.create(&namespace, "real", specs::certificate(&real.url("team/app")))
        .await?;
    let url = format!("oci://{}/team/app", recording.host());
    env.create(&namespace, "recorded", specs::certificate(&url)).await?;
    env.ready(&namespace, "real").await?;
    env.ready(&namespace, "recorded").await?;

    let chain = chains(&recording).pop().context("no certificate")?;
    let signing_der = x509_parser::pem::parse_x509_pem(signing.pem().as_bytes())?.1.contents;
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1], signing_der);
    // What is published is the signing CA: its siblings under the root are not trusted.
    assert_eq!(
        published(&env, "/spiffe/bundle.pem").await?.trim(),
        signing.pem().trim()
    );
    let folder = tempfile::tempdir()?;
    let (file, anchors) = (folder.path().join("chain.pem"), folder.path().join("root.pem"));
    std::fs::write(&file, chain_pem(&chain))?;
    std::fs::write(&anchors, root.pem())?;
    openssl_verify(&anchors, "sslclient", &file)?;
    let bundle_url = format!("{}/spiffe/bundle.json", env.ports.issuer_url());
    let bundle = Bundle {
        source: &bundle_url,
        trust_domain: TRUST_DOMAIN,
    };
    assert_eq!(
        bundle.verify_x509(&file).await?.subject,
        Env::spiffe_id(&namespace, "recorded")
    );
    Ok(())
}
