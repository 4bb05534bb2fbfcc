//! Fuzz targets for what registries say of themselves: manifests and `WWW-Authenticate` challenges. Beyond not panicking,
//! they hold what is read to the rules that the rest of the client builds on.

use std::{sync::Arc, time::Instant};

use bolero::check;
use mintmark_api::digest::Digest;
use secrecy::SecretString;
use serde_json::Value;

use super::{
    challenge::{self, Challenge},
    manifest::{self, Document},
    token::{TokenRequest, check_realm},
    url::Origin,
};
use crate::{
    credential::{Audience, CredentialGeneration, JwtCredential, Presented},
    fuzzing::{BRIEFLY, Edited, ROUNDS, assert_fit_for_a_condition},
};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const MANIFESTS: Edited = Edited {
    documents: &[
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.cncf.flux.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2},"layers":[{"mediaType":"application/vnd.cncf.flux.content.v1.tar+gzip","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":512,"urls":["https://elsewhere.example/x"],"annotations":{"a":"b"}}],"annotations":{"org.opencontainers.image.revision":"main@sha1:0"}}"#,
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7143,"platform":{"architecture":"amd64","os":"linux"}},{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":7,"platform":{"architecture":"arm64","os":"linux","variant":"v8"}}]}"#,
        r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":7023,"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"layers":[]}"#,
        r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2},"layers":[],"manifests":[]}"#,
        r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1}]}"#,
    ],
    words: &[
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "null",
        "-1",
        "9223372036854775808",
        "1e400",
        "\\u0000",
        "\\ud800",
        "\"layers\":[],",
        "\"manifests\":[],",
        "\"config\":null,",
        "\"schemaVersion\":1,",
        "sha512:",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    ],
};

const CONTENT_TYPES: [Option<&str>; 6] = [
    None,
    Some("application/vnd.oci.image.manifest.v1+json"),
    Some("application/vnd.oci.image.index.v1+json; charset=utf-8"),
    Some("application/vnd.docker.distribution.manifest.v2+json"),
    Some("application/json"),
    Some("text/html"),
];

#[test]
fn manifest() {
    check!()
        .with_test_time(BRIEFLY)
        .with_iterations(ROUNDS)
        .with_generator((0..CONTENT_TYPES.len(), MANIFESTS))
        .for_each(|(content_type, bytes)| {
            let content_type = CONTENT_TYPES[*content_type];
            match manifest::parse(bytes, content_type) {
                Err(failure) => assert_fit_for_a_condition(&failure.to_string()),
                Ok(document) => {
                    // Half a surrogate pair in a part that nobody reads is valid (RFC 8259 §8.2), but no `Value`.
                    let Ok(json) = serde_json::from_slice(bytes) else {
                        return;
                    };
                    is_of_one_kind(&json, &document);
                    is_what_it_was_called(content_type, &document);
                    is_resolved_as_written(&json, document);
                }
            }
        });
}

/// CVE-2021-41190: nothing that can be read as an image is taken for an index, nor the other way round.
fn is_of_one_kind(json: &Value, document: &Document) {
    // Of two equal keys the last one counts here, elsewhere perhaps the first: the reader must have refused those.
    let is_there = |field: &str| json.get(field).is_some_and(|value| !value.is_null());
    assert_eq!(json["schemaVersion"], 2);
    let (image, index) = (is_there("layers") || is_there("config"), is_there("manifests"));
    match document {
        Document::Image(_) => assert!(image && !index),
        Document::Index(_) => assert!(index && !image),
    }
}

fn is_what_it_was_called(content_type: Option<&str>, document: &Document) {
    let (inside, is_index) = match document {
        Document::Image(image) => (image.media_type.as_deref(), false),
        Document::Index(index) => (index.media_type.as_deref(), true),
    };
    for name in [inside, content_type].into_iter().flatten() {
        assert_ne!(name, "text/html");
        if name.starts_with("application/vnd.") {
            assert_eq!(name.contains("index") || name.contains("list"), is_index, "{name}");
        }
    }
}

/// What is fetched next has a digest and a size that stood in the document.
fn is_resolved_as_written(json: &Value, document: Document) {
    let digest = Digest::parse(DIGEST).expect("a digest");
    let descriptors = match document {
        Document::Index(index) => manifest::choose(&index).map(|child| vec![child]),
        Document::Image(image) => manifest::resolve(*image, digest.clone(), digest).map(|resolved| resolved.layers),
    };
    let descriptors = match descriptors {
        Ok(descriptors) => descriptors,
        Err(error) => return assert_fit_for_a_condition(&error.to_string()),
    };
    let text = json.to_string();
    for descriptor in descriptors {
        assert!(text.contains(&format!("\"{}\"", descriptor.digest)), "{descriptor:?}");
        assert!(text.contains(&descriptor.size.to_string()), "{descriptor:?}");
        assert!(i64::try_from(descriptor.size).is_ok());
    }
}

/// What the token is for besides the registry.
const AUDIENCE: &str = "https://auth.example";

const CHALLENGES: Edited = Edited {
    documents: &[
        r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull""#,
        r#"Bearer realm="https://registry.example/zot/auth/token",service="registry.example",scope="""#,
        r#"Basic realm="registry", Bearer realm="http://registry.example/t",error="invalid_token""#,
        r#"Negotiate YIIJvwYGKwYBBQUCoIIJszCCCa+gAwIBAgIB==, Basic realm="a, b", Bearer realm="\"q\\"; charset=utf-8"#,
        "bearer\trealm = https://user:password@auth.example/?x=%00#f , SERVICE=auth.example",
    ],
    words: &[
        "\"",
        "\\",
        "=",
        ",",
        " ",
        "\t",
        "==",
        "Bearer ",
        "Basic",
        "realm=",
        "service=",
        "https://registry.example",
        "https://registry.example:443/x",
        "https://auth.example",
        "https://evil.example",
        "http://auth.example",
        "//",
        "@",
        "https://auth.example@evil.example/",
        "https:\\\\\\\\auth.example",
        "[::1]",
        "é",
        "\u{7f}",
    ],
};

#[test]
fn challenge() {
    let registry = origin("https://registry.example");
    let jwt = Presented::Jwt(JwtCredential {
        token: SecretString::from("token"),
        audiences: Arc::from(vec![Audience::new(AUDIENCE).expect("an audience")]),
        username: None,
        generation: CredentialGeneration("1".into()),
        minted_at: Instant::now(),
    });
    check!()
        .with_test_time(BRIEFLY)
        .with_iterations(ROUNDS)
        .with_generator((CHALLENGES, CHALLENGES))
        .for_each(|(first, second)| {
            let lines = [first, second].map(|line| String::from_utf8_lossy(line).into_owned());
            let challenges = challenge::parse(lines.iter().map(String::as_str));
            assert!(challenges.len() <= 16);
            for challenge in &challenges {
                is_read_as_written(&lines, challenge);
            }
            goes_nowhere_else(&registry, &challenges, &jwt);
        });
}

/// Scheme and parameters stand in one of the lines, and are read again from their canonical form.
fn is_read_as_written(lines: &[String; 2], challenge: &Challenge) {
    let lines = lines.each_ref().map(|line| line.to_ascii_lowercase());
    assert!(!challenge.scheme.is_empty());
    assert!(lines.iter().any(|line| line.contains(&challenge.scheme)));
    let Some(realm) = challenge.param("realm") else {
        return;
    };
    assert!(realm.len() <= 8 * 1024);
    let canonical = format!(
        "{} realm=\"{}\"",
        challenge.scheme,
        realm.replace('\\', "\\\\").replace('"', "\\\"")
    );
    let again = challenge::parse([canonical.as_str()]);
    if canonical.len() <= 8 * 1024 {
        assert_eq!(again.len(), 1, "{canonical}");
        assert_eq!(
            (again[0].scheme.as_str(), again[0].param("realm")),
            (challenge.scheme.as_str(), Some(realm))
        );
    }
}

/// Whatever is written there: a minted token goes to the registry itself, or to the https origin that its audience names
/// and for a service that is the registry or an audience; and nobody leaves https.
fn goes_nowhere_else(registry: &Origin, challenges: &[Challenge], jwt: &Presented) {
    let Some(request) = TokenRequest::for_challenge(challenges) else {
        return;
    };
    let realm = request.realm.as_str();
    let begins_with = |origin: &str| {
        let rest = realm.strip_prefix(origin);
        rest.is_some_and(|rest| rest.starts_with(['/', '?', '#']))
    };
    if check_realm(registry, &request, &Presented::Anonymous).is_ok() {
        assert!(realm.starts_with("https://"), "{realm}");
    }
    if check_realm(registry, &request, jwt).is_err() {
        return;
    }
    // User information would stand between the scheme and the host.
    let service = request.service.as_deref().unwrap_or_default().to_ascii_lowercase();
    let is_ours = ["registry.example", AUDIENCE].contains(&service.as_str());
    assert!(
        begins_with("https://registry.example") || begins_with(AUDIENCE) && is_ours,
        "{realm} for {service:?}"
    );
}

fn origin(url: &str) -> Origin {
    Origin::of(&url::Url::parse(url).expect("a URL")).expect("an origin")
}
