//! What an object refers to and would not get: Secrets that are missing or of another type, accounts that are missing or ask
//! for what cannot be followed. Pure.

use super::{
    asking::Asking,
    findings::{Finding, Level, finding},
    inventory::{Inventory, Place, Seen},
};
use crate::{
    credential::{Annotated, Audience, Wanted},
    reconcile::Account,
};

/// Everything about the Secrets and the account of `object`.
pub(super) fn of_referents(object: &Asking, inventory: &Inventory) -> Vec<Finding> {
    let mut found = Vec::new();
    let name = object.shown();
    for (field, place) in object.secrets() {
        let named_by = format!("spec.{field} of {name}");
        found.extend(of_secret(&place, &named_by, field == "secretRef", inventory));
    }
    let Some(place) = object.account() else {
        return found;
    };
    let named_by = format!("spec.serviceAccountName of {name}");
    match inventory.accounts.get(&place) {
        Some(Seen::Found(account)) => {
            if let Some(why) = annotation_problem(object, &place.1, account) {
                let message = format!("{why}; {named_by} names it");
                found.push(finding(Level::Problem, "account", &shown(&place), message));
            }
        }
        Some(Seen::Absent) => found.push(missing("account", &place, &named_by)),
        Some(Seen::Forbidden) => found.push(unknown("account", &place, &named_by)),
        None => {}
    }
    if let Some((account, seen)) = inventory.login_account(object) {
        for secret in &seen.pull_secrets {
            let named_by = format!("imagePullSecrets of account {}, which {name} uses,", shown(&account));
            let place = (account.0.clone(), secret.clone());
            found.extend(of_secret(&place, &named_by, true, inventory));
        }
    }
    found
}

fn of_secret(place: &Place, named_by: &str, is_login: bool, inventory: &Inventory) -> Option<Finding> {
    match inventory.secrets.get(place)? {
        Seen::Absent => Some(missing("secret", place, named_by)),
        Seen::Forbidden => Some(unknown("secret", place, named_by)),
        Seen::Found(kind) if is_login && !is_pull_secret(kind) => {
            let message = format!("is of type {kind}, and {named_by} needs a pull secret");
            Some(finding(Level::Problem, "secret", &shown(place), message))
        }
        Seen::Found(_) => None,
    }
}

/// Why the account's annotations fail the object.
fn annotation_problem(object: &Asking, name: &str, account: &Account) -> Option<String> {
    let spec = object.access();
    if spec.credential.is_none() {
        // An unusable URL is told of already.
        return account.annotated(name, &object.host_port()?).err();
    }
    let audiences = spec.audiences.iter().flatten().map(Audience::new);
    let mut audiences: Vec<_> = audiences.collect::<Result<_, _>>().ok()?;
    audiences.sort();
    let wanted = Wanted::ServiceAccountToken {
        account: Some(name.into()),
        audiences: audiences.into(),
        life: None,
    };
    let annotation = Annotated::contradiction(&account.annotations, name, &wanted)?;
    Some(format!("annotation {annotation} contradicts spec.credential"))
}

fn is_pull_secret(kind: &str) -> bool {
    matches!(kind, "kubernetes.io/dockerconfigjson" | "kubernetes.io/dockercfg")
}

fn missing(about: &'static str, place: &Place, named_by: &str) -> Finding {
    let message = format!("is missing; {named_by} names it");
    finding(Level::Problem, about, &shown(place), message)
}

fn unknown(about: &'static str, place: &Place, named_by: &str) -> Finding {
    let message = format!("may not be read by you; {named_by} names it");
    finding(Level::Note, about, &shown(place), message)
}

fn shown((namespace, name): &Place) -> String {
    format!("{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// An object of namespace `a` with these fields besides.
    fn object(more: &Value) -> Asking {
        let mut spec = json!({"url": "oci://registry.example/app", "interval": "1m"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let object = json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository",
            "metadata": {"name": "app", "namespace": "a"}, "spec": spec});
        Asking::Artifact(Box::new(serde_json::from_value(object).unwrap()))
    }

    fn account(annotations: &[(&str, &str)], pull_secrets: &[&str]) -> Seen<Account> {
        let annotations = annotations
            .iter()
            .map(|(name, value)| (format!("credential.auth.fluxcd.io/{name}"), (*value).to_owned()));
        Seen::Found(Account {
            annotations: annotations.collect(),
            pull_secrets: pull_secrets.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    /// What is found about an object, where Secret `a/s` and account `a/puller` are as given.
    fn found(more: &Value, secret: Seen<String>, account: Seen<Account>) -> String {
        let mut inventory = Inventory::default();
        inventory.secrets.insert(("a".to_owned(), "s".to_owned()), secret);
        inventory
            .accounts
            .insert(("a".to_owned(), "puller".to_owned()), account);
        let found = of_referents(&object(more), &inventory);
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    const LOGIN: &str = "kubernetes.io/dockerconfigjson";

    fn of_type(kind: &str) -> Seen<String> {
        Seen::Found(kind.to_owned())
    }

    #[test]
    fn secrets_are_there_and_of_a_type_that_is_read() {
        let with = |field: &str, seen| found(&json!({field: {"name": "s"}}), seen, Seen::Absent);
        assert_eq!(
            with("certSecretRef", Seen::Absent),
            "problem secret a/s: is missing; spec.certSecretRef of a/app names it"
        );
        assert_eq!(
            with("secretRef", of_type("Opaque")),
            "problem secret a/s: is of type Opaque, and spec.secretRef of a/app needs a pull secret"
        );
        assert!(with("secretRef", Seen::Forbidden).starts_with("note    secret a/s: may not be read"));
        assert_eq!(with("secretRef", of_type(LOGIN)), "");
        assert_eq!(with("certSecretRef", of_type("Opaque")), "");
    }

    #[test]
    fn accounts_are_there_with_their_pull_secrets() {
        let with = |secret, account| found(&json!({"serviceAccountName": "puller"}), secret, account);
        assert_eq!(
            with(Seen::Absent, Seen::Absent),
            "problem account a/puller: is missing; spec.serviceAccountName of a/app names it"
        );
        assert_eq!(
            with(Seen::Absent, account(&[], &["s"])),
            "problem secret a/s: is missing; imagePullSecrets of account a/puller, which a/app uses, names it"
        );
        assert!(with(of_type("Opaque"), account(&[], &["s"])).contains("is of type Opaque"));
        assert_eq!(with(of_type(LOGIN), account(&[], &["s"])), "");
    }

    #[test]
    fn annotations_can_be_followed() {
        let spiffe = [("provider", "spiffe"), ("type", "jwt")];
        let login = json!({"serviceAccountName": "puller"});
        let with = |more, account| found(more, of_type(LOGIN), account);
        assert_eq!(with(&login, account(&spiffe, &[])), "");
        assert!(with(&login, account(&spiffe[..1], &[])).contains("type is missing"));
        assert!(with(&login, account(&spiffe, &["s"])).contains("exclude each other"));
        let token = json!({"serviceAccountName": "puller", "credential": "ServiceAccountToken", "audiences": ["x"]});
        assert!(with(&token, account(&spiffe, &[])).contains("provider contradicts spec.credential"));
        assert_eq!(with(&token, account(&[], &["missing"])), "", "they are not used");
        assert_eq!(
            with(
                &json!({"secretRef": {"name": "s"}, "serviceAccountName": "puller"}),
                Seen::Absent
            ),
            ""
        );
    }
}
