//! Which policies select from which repository: they have a pass when its tags changed, or when they may be let in
//! differently.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use kube::ResourceExt;
use mintmark_api::image_repository::ImageRepository;

use crate::{
    reconcile::context::generation,
    watch::{ObjectKey, Queue},
};

/// The policies of each repository.
#[derive(Debug, Default)]
pub struct Dependents {
    inner: Mutex<Inner>,
    queue: OnceLock<Arc<Queue<ObjectKey>>>,
}

#[derive(Debug, Default)]
struct Inner {
    policies: HashMap<ObjectKey, HashSet<ObjectKey>>,
    repositories: HashMap<ObjectKey, ObjectKey>,
    /// The last pass over each repository in this process.
    passed: HashMap<ObjectKey, Passed>,
}

/// Over which object, and which of its specs, a pass went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    uid: Box<str>,
    generation: i64,
}

impl Passed {
    /// A pass over `repository` as it is.
    pub fn over(repository: &ImageRepository) -> Self {
        Self {
            uid: repository.uid().unwrap_or_default().into(),
            generation: generation(repository),
        }
    }
}

impl Inner {
    fn forget(&mut self, policy: &ObjectKey) {
        let Some(repository) = self.repositories.remove(policy) else {
            return;
        };
        if let Some(policies) = self.policies.get_mut(&repository) {
            policies.remove(policy);
            if policies.is_empty() {
                self.policies.remove(&repository);
            }
        }
    }
}

impl Dependents {
    /// Where policies are queued; until this is known nobody is.
    pub fn attach(&self, queue: Arc<Queue<ObjectKey>>) {
        // There is one queue of policies in a process.
        let _ = self.queue.set(queue);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `policy` selects from `repository` and from no other. To be called before anything of the repository is read, so that
    /// no change in between is lost.
    pub(super) fn depend(&self, policy: &ObjectKey, repository: &ObjectKey) {
        let mut inner = self.lock();
        if inner.repositories.get(policy) == Some(repository) {
            return;
        }
        inner.forget(policy);
        inner.repositories.insert(policy.clone(), repository.clone());
        inner
            .policies
            .entry(repository.clone())
            .or_default()
            .insert(policy.clone());
    }

    /// The policy is gone.
    pub(super) fn forget(&self, policy: &ObjectKey) {
        self.lock().forget(policy);
    }

    /// A pass over the repository ended. Its policies have to look if its tags are other ones than before, or if it was the
    /// first one over this object or its spec.
    pub fn passed(&self, repository: &ObjectKey, pass: Passed, has_changed: bool) {
        let mut inner = self.lock();
        let is_first = inner.passed.get(repository) != Some(&pass);
        if is_first {
            inner.passed.insert(repository.clone(), pass);
        }
        if is_first || has_changed {
            self.push(inner.policies.get(repository).into_iter().flatten());
        }
    }

    /// The tags that are stored for the repository are known while a pass over it, which may take long, goes on. Its policies
    /// have to look if none has ended yet.
    pub fn known(&self, repository: &ObjectKey) {
        let inner = self.lock();
        if !inner.passed.contains_key(repository) {
            self.push(inner.policies.get(repository).into_iter().flatten());
        }
    }

    /// Whether such a pass was the last over the repository in this process.
    pub(super) fn has_passed(&self, repository: &ObjectKey, pass: &Passed) -> bool {
        self.lock().passed.get(repository) == Some(pass)
    }

    /// The repository is gone.
    pub fn repository_gone(&self, repository: &ObjectKey) {
        self.lock().passed.remove(repository);
    }

    /// Something about the repository changed that its policies have to look at.
    pub fn wake(&self, repository: &ObjectKey) {
        let inner = self.lock();
        self.push(inner.policies.get(repository).into_iter().flatten());
    }

    /// The labels of this namespace changed: its policies that refer to another one have to look again.
    pub fn wake_namespace(&self, namespace: &str) {
        let inner = self.lock();
        let foreign = inner
            .repositories
            .iter()
            .filter(|(policy, repository)| &*policy.namespace == namespace && policy.namespace != repository.namespace);
        self.push(foreign.map(|(policy, _)| policy));
    }

    fn push<'a>(&self, policies: impl Iterator<Item = &'a ObjectKey>) {
        if let Some(queue) = self.queue.get() {
            policies.for_each(|policy| queue.push(policy));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> ObjectKey {
        ObjectKey {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    fn woken(wake: impl Fn(&Dependents)) -> Vec<String> {
        let dependents = Dependents::default();
        let queue = Arc::new(Queue::default());
        dependents.attach(queue.clone());
        let app = key("images", "app");
        dependents.depend(&key("images", "own"), &app);
        dependents.depend(&key("a", "foreign"), &app);
        dependents.depend(&key("a", "moved"), &app);
        dependents.depend(&key("a", "moved"), &key("a", "app"));
        dependents.depend(&key("b", "gone"), &app);
        dependents.forget(&key("b", "gone"));
        wake(&dependents);
        let mut woken = Vec::new();
        while let Some(Some((key, _))) = futures::FutureExt::now_or_never(queue.next()).map(Some) {
            woken.push(key.to_string());
        }
        woken.sort();
        woken
    }

    #[tokio::test]
    async fn those_who_select_from_a_repository_look_again() {
        assert_eq!(
            woken(|dependents| dependents.wake(&key("images", "app"))),
            ["a/foreign", "images/own"]
        );
        assert_eq!(woken(|dependents| dependents.wake(&key("a", "app"))), ["a/moved"]);
        assert!(woken(|dependents| dependents.wake(&key("b", "app"))).is_empty());
    }

    fn over(uid: &str, generation: i64) -> Passed {
        Passed {
            uid: uid.into(),
            generation,
        }
    }

    #[tokio::test]
    async fn a_pass_over_the_repository_is_told_when_it_is_the_first_or_changed_the_tags() {
        let app = key("images", "app");
        let both = ["a/foreign", "images/own"];
        assert_eq!(woken(|dependents| dependents.passed(&app, over("u", 1), false)), both);
        let after_another = |pass: Passed, has_changed: bool| {
            woken(|dependents| {
                dependents.lock().passed.insert(app.clone(), over("u", 1));
                dependents.passed(&app, pass.clone(), has_changed);
                assert!(dependents.has_passed(&app, &pass));
            })
        };
        assert!(after_another(over("u", 1), false).is_empty());
        assert_eq!(after_another(over("u", 1), true), both);
        assert_eq!(after_another(over("u", 2), false), both, "another spec");
        assert_eq!(after_another(over("v", 1), false), both, "another object");
    }

    #[tokio::test]
    async fn tags_that_are_known_before_the_first_pass_ends_are_told() {
        let app = key("images", "app");
        assert_eq!(woken(|dependents| dependents.known(&app)), ["a/foreign", "images/own"]);
        let later = |dependents: &Dependents| {
            dependents.lock().passed.insert(app.clone(), over("u", 1));
            dependents.known(&app);
            dependents.repository_gone(&app);
            assert!(!dependents.has_passed(&app, &over("u", 1)));
        };
        assert!(woken(later).is_empty());
    }

    #[tokio::test]
    async fn labels_of_a_namespace_concern_its_foreign_references_only() {
        assert_eq!(woken(|dependents| dependents.wake_namespace("a")), ["a/foreign"]);
        assert!(woken(|dependents| dependents.wake_namespace("images")).is_empty());
    }
}
