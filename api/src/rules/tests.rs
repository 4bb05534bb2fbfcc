//! One vector per rule, named after it, and the combinations that are allowed.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::oci_repository::OciRepositorySpec;

fn spec(fields: &Value) -> OciRepositorySpec {
    let mut object = json!({"url": "oci://registry.example.org/apps/web", "interval": "5m"});
    object
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

#[rstest]
#[case::anonymous(json!({}))]
#[case::cloud(json!({"provider": "aws"}))]
#[case::pull_secret(json!({"secretRef": {"name": "s"}, "serviceAccountName": "sa", "insecure": true}))]
#[case::token(json!({"credential": "ServiceAccountToken", "audiences": ["a"], "serviceAccountName": "sa"}))]
#[case::token_over_http(json!({"credential": "ServiceAccountToken", "audiences": ["a"], "insecure": true}))]
#[case::jwt(json!({"credential": "SpiffeJWT", "audiences": ["a", "b"], "provider": "generic"}))]
#[case::jwt_with_ca_and_proxy(json!({"credential": "SpiffeJWT", "audiences": ["a"], "certSecretRef": {"name": "c"},
    "proxySecretRef": {"name": "p"}, "serviceAccountName": ""}))]
#[case::certificate(json!({"credential": "SpiffeCertificate", "insecure": false}))]
fn allowed(#[case] fields: Value) {
    assert_eq!(credential_contradictions(&spec(&fields)), Ok(()));
}

#[rstest]
#[case(json!({"credential": "ServiceAccountToken"}), CredentialRule::AudiencesRequired)]
#[case(json!({"credential": "SpiffeJWT"}), CredentialRule::AudiencesRequired)]
#[case(json!({"credential": "SpiffeJWT", "audiences": []}), CredentialRule::AudiencesRequired)]
#[case(json!({"audiences": ["a"]}), CredentialRule::AudiencesWithoutCredential)]
#[case(json!({"audiences": []}), CredentialRule::AudiencesWithoutCredential)]
#[case(json!({"credential": "SpiffeCertificate", "audiences": ["a"]}), CredentialRule::AudiencesWithCertificate)]
#[case(json!({"credential": "SpiffeCertificate", "provider": "aws"}), CredentialRule::ProviderNotGeneric)]
#[case(json!({"credential": "SpiffeCertificate", "provider": "of-tomorrow"}), CredentialRule::ProviderNotGeneric)]
#[case(json!({"credential": "SpiffeCertificate", "secretRef": {"name": "s"}}), CredentialRule::SecretRef)]
#[case(json!({"credential": "SpiffeCertificate", "serviceAccountName": "a"}), CredentialRule::ServiceAccountName)]
#[case(json!({"credential": "SpiffeJWT", "audiences": ["a"], "serviceAccountName": "a"}),
    CredentialRule::ServiceAccountName)]
#[case(json!({"credential": "SpiffeCertificate", "insecure": true}), CredentialRule::Insecure)]
#[case(json!({"credential": "Tomorrow"}), CredentialRule::UnknownKind)]
#[case(json!({"credential": "SpiffeJWT", "audiences": (0..17).map(|n| n.to_string()).collect::<Vec<_>>()}),
    CredentialRule::TooManyAudiences)]
#[case(json!({"credential": "SpiffeJWT", "audiences": [""]}), CredentialRule::AudienceLength)]
#[case(json!({"credential": "SpiffeJWT", "audiences": ["a".repeat(256)]}), CredentialRule::AudienceLength)]
#[case(json!({"credential": "SpiffeJWT", "audiences": ["a", "a"]}), CredentialRule::DuplicateAudience)]
fn refused(#[case] fields: Value, #[case] rule: CredentialRule) {
    assert_eq!(credential_contradictions(&spec(&fields)), Err(rule));
}

#[test]
fn messages_are_distinct() {
    let messages: BTreeSet<_> = CredentialRule::CEL.into_iter().map(CredentialRule::message).collect();
    assert_eq!(messages.len(), CredentialRule::CEL.len());
}

#[test]
fn every_cel_rule_has_an_expression() {
    assert!(CredentialRule::CEL.into_iter().all(|rule| rule.cel().is_some()));
    assert!(CredentialRule::UnknownKind.cel().is_none());
}
