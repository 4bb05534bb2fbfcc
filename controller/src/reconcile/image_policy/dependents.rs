//! Which policies select from which repository: they have a pass when its tags changed, or when they may be let in
//! differently.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use crate::watch::{ObjectKey, Queue};

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
    /// The repositories that had a pass in this process.
    passed: HashMap<ObjectKey, Passed>,
}

/// The newest of a repository that a pass was made over.
#[derive(Debug)]
struct Passed {
    uid: Box<str>,
    generation: i64,
}

impl Passed {
    fn covers(&self, uid: &str, generation: i64) -> bool {
        *self.uid == *uid && self.generation >= generation
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

    /// A pass over this generation of the repository of this UID ended. Its policies have to look if its tags are other ones
    /// than before, or if it was the first one.
    pub fn passed(&self, repository: &ObjectKey, uid: &str, generation: i64, has_changed: bool) {
        let mut inner = self.lock();
        let held = inner.passed.get(repository);
        let is_first = held.is_none_or(|held| !held.covers(uid, generation));
        if is_first {
            let uid = uid.into();
            inner.passed.insert(repository.clone(), Passed { uid, generation });
        }
        if is_first || has_changed {
            self.push(inner.policies.get(repository).into_iter().flatten());
        }
    }

    /// Whether the repository of this UID had a pass in this process since it has this generation.
    pub(super) fn has_passed(&self, repository: &ObjectKey, uid: &str, generation: i64) -> bool {
        let inner = self.lock();
        inner
            .passed
            .get(repository)
            .is_some_and(|held| held.covers(uid, generation))
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

    #[tokio::test]
    async fn a_pass_over_the_repository_is_told_when_it_is_the_first_or_changed_the_tags() {
        let app = key("images", "app");
        let both = ["a/foreign", "images/own"];
        assert_eq!(woken(|dependents| dependents.passed(&app, "u", 1, false)), both);
        let known = |dependents: &Dependents| {
            let (uid, generation) = ("u".into(), 1);
            let mut inner = dependents.inner.lock().unwrap();
            inner.passed.insert(app.clone(), Passed { uid, generation });
        };
        let quiet = |dependents: &Dependents| {
            dependents.repository_gone(&app);
            known(dependents);
            dependents.passed(&app, "u", 1, false);
            assert!(dependents.has_passed(&app, "u", 1) && !dependents.has_passed(&app, "other", 1));
            assert!(!dependents.has_passed(&app, "u", 2));
        };
        assert!(woken(quiet).is_empty());
        let changed = |dependents: &Dependents| {
            known(dependents);
            dependents.passed(&app, "u", 1, true);
        };
        assert_eq!(woken(changed), both);
        let edited = |dependents: &Dependents| {
            known(dependents);
            dependents.passed(&app, "u", 2, false);
            assert!(dependents.has_passed(&app, "u", 2));
        };
        assert_eq!(woken(edited), both);
    }

    #[tokio::test]
    async fn labels_of_a_namespace_concern_its_foreign_references_only() {
        assert_eq!(woken(|dependents| dependents.wake_namespace("a")), ["a/foreign"]);
        assert!(woken(|dependents| dependents.wake_namespace("images")).is_empty());
    }
}
