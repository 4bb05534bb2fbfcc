//! The issuer's documents as a verifier meets them over HTTP: content, media types, caching, methods, paths.

use anyhow::{Context, Result};
use mintmark_hack::svid::Bundle;
use mintmark_tests::{
    env::{Env, TRUST_DOMAIN},
    fault_registry::{Artifact, FaultRegistry},
    specs,
};
use reqwest::{Client, Method, StatusCode, header};
use serde_json::{Value, json};

/// Waits until the controller has something to publish: until an object could present a JWT.
async fn has_signed(env: &Env) -> Result<()> {
    let namespace = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    registry.push("team/app", "v1", &Artifact::flux(&[("a.yaml", "a")]));
    env.create(
        &namespace,
        "one",
        specs::jwt(&format!("oci://{}/team/app", registry.host())),
    )
    .await?;
    env.ready(&namespace, "one").await?;
    Ok(())
}

#[tokio::test]
async fn every_document_is_served_with_its_headers_and_nothing_else_is() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    has_signed(&env).await?;
    let (http, issuer) = (Client::new(), env.ports.issuer_url());
    for (path, media_type) in [
        ("/.well-known/openid-configuration", "application/json"),
        ("/.well-known/oauth-authorization-server", "application/json"),
        ("/keys", "application/json"),
        ("/spiffe/bundle.json", "application/json"),
        ("/spiffe/bundle.pem", "application/pem-certificate-chain"),
    ] {
        let url = format!("{issuer}{path}");
        let got = http.get(&url).send().await?;
        assert_eq!(got.status(), StatusCode::OK, "{path}");
        let headers = got.headers().clone();
        let body = got.bytes().await?;
        assert_eq!(headers[header::CONTENT_TYPE], media_type, "{path}");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*", "{path}");
        assert_eq!(headers[header::CACHE_CONTROL], "max-age=50", "{path}");
        assert_eq!(
            headers[header::CONTENT_LENGTH],
            body.len().to_string().as_str(),
            "{path}"
        );
        let tag = headers[header::ETAG].to_str()?;
        assert!(
            tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2,
            "{path}: {tag}"
        );

        let head = http.head(&url).send().await?;
        assert_eq!(head.status(), StatusCode::OK, "{path}");
        for name in [
            header::CONTENT_TYPE,
            header::ETAG,
            header::CONTENT_LENGTH,
            header::CACHE_CONTROL,
        ] {
            assert_eq!(head.headers()[&name], headers[&name], "{path}: {name}");
        }
        assert!(head.bytes().await?.is_empty());

        for condition in [tag.to_owned(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            let known = http.get(&url).header(header::IF_NONE_MATCH, &condition).send().await?;
            assert_eq!(known.status(), StatusCode::NOT_MODIFIED, "{path}: {condition}");
            assert_eq!(known.headers()[header::ETAG], tag, "{path}");
            assert_eq!(known.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*", "{path}");
            assert!(known.bytes().await?.is_empty());
        }
        let other = http.get(&url).header(header::IF_NONE_MATCH, "\"other\"").send().await?;
        assert_eq!(other.bytes().await?, body, "{path}");
        let posted = http.post(&url).body("x").send().await?;
        assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(posted.headers()[header::ALLOW], "GET, HEAD", "{path}");
    }
    for path in [
        "/",
        "/keys/",
        "/KEYS",
        "//keys",
        "/spiffe/",
        "/metrics",
        "/spiffe/../keys/x",
        "/.well-known/",
    ] {
        for method in [Method::GET, Method::HEAD] {
            let answer = http.request(method, format!("{issuer}{path}")).send().await?;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_documents_say_what_verifiers_need_and_go_spiffe_reads_the_bundle() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    has_signed(&env).await?;
    let issuer = env.ports.issuer_url();
    let read = async |path: &str| -> Result<Value> { Ok(reqwest::get(format!("{issuer}{path}")).await?.json().await?) };
    let discovery = json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "ES384", "RS256"],
    });
    assert_eq!(read("/.well-known/openid-configuration").await?, discovery);
    assert_eq!(read("/.well-known/oauth-authorization-server").await?, discovery);

    let keys = read("/keys").await?;
    let [key] = keys["keys"].as_array().context("no keys")?.as_slice() else {
        anyhow::bail!("not one key: {keys}")
    };
    let (kid, x, y) = (&key["kid"], &key["x"], &key["y"]);
    let public = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "alg": "ES256", "use": "sig"});
    assert_eq!(*key, public);

    let bundle = read("/spiffe/bundle.json").await?;
    let ca: String = env.ca.pem().lines().filter(|line| !line.starts_with('-')).collect();
    let expected = json!([
        {"kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "x509-svid", "x5c": [ca]},
        {"kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "jwt-svid", "kid": kid},
    ]);
    assert_eq!(bundle["keys"], expected);
    let url = format!("{issuer}/spiffe/bundle.json");
    let judged = Bundle {
        source: &url,
        trust_domain: TRUST_DOMAIN,
    };
    let verdict = judged.parse().await?;
    assert_eq!(verdict.x509_authorities, ["CN=mintmark test CA"]);
    assert_eq!(verdict.jwt_key_ids, [kid.as_str().context("kid is no string")?]);
    assert_eq!(verdict.refresh_hint_seconds, Some(60));
    assert_eq!(verdict.sequence, bundle["spiffe_sequence"].as_u64());
    assert!(verdict.sequence.is_some_and(|sequence| sequence > 1_700_000_000));
    Ok(())
}

#[tokio::test]
async fn an_issuer_with_a_path_is_served_below_it() -> Result<()> {
    let env = Env::new().await?;
    let issuer = format!("{}/clusters/one/", env.ports.issuer_url());
    let controller = env.start_as(&issuer, &[])?;
    controller.wait_ready().await?;
    has_signed(&env).await?;
    let origin = env.ports.issuer_url();
    for path in [
        "/clusters/one/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/clusters/one",
    ] {
        let document: Value = reqwest::get(format!("{origin}{path}"))
            .await?
            .error_for_status()?
            .json()
            .await?;
        assert_eq!(document["issuer"], json!(issuer), "{path}");
        assert_eq!(
            document["jwks_uri"],
            json!(format!("{origin}/clusters/one/keys")),
            "{path}"
        );
    }
    for (path, status) in [
        ("/clusters/one/keys", 200),
        ("/clusters/one/spiffe/bundle.json", 200),
        ("/keys", 404),
        ("/.well-known/openid-configuration", 404),
        ("/clusters/one/.well-known/oauth-authorization-server", 404),
    ] {
        assert_eq!(
            reqwest::get(format!("{origin}{path}")).await?.status(),
            status,
            "{path}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn before_the_first_key_there_is_nothing_to_trust() -> Result<()> {
    let env = Env::new().await?;
    env.delete_signing_secret().await?;
    let _controller = env.controller(&[]).await?;
    for path in [
        "/.well-known/openid-configuration",
        "/keys",
        "/spiffe/bundle.json",
        "/elsewhere",
    ] {
        let answer = reqwest::get(format!("{}{path}", env.ports.issuer_url())).await?;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(answer.headers().contains_key(header::RETRY_AFTER));
    }
    env.sign_with(env.ca.key_and_certificate()).await?;
    has_signed(&env).await?;
    let answer = reqwest::get(format!("{}/keys", env.ports.issuer_url())).await?;
    assert_eq!(answer.status(), StatusCode::OK);
    Ok(())
}
