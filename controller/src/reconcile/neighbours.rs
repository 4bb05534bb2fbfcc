//! What is remembered of other controllers that work on the same objects, so that each thing is told once: objects that are
//! left to them, and their writes of a status that is ours.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;

use crate::watch::{ForeignWrite, ObjectKey};

/// Which version of an object was left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Left {
    uid: String,
    generation: i64,
}

/// What was told of other controllers.
#[derive(Debug, Default)]
pub struct Neighbours {
    left: Mutex<HashMap<ObjectKey, Left>>,
    told: Mutex<HashMap<ObjectKey, Timestamp>>,
}

impl Neighbours {
    /// The object is left to another controller. Returns whether that is new for this UID and generation.
    pub fn leave(&self, key: &ObjectKey, uid: &str, generation: i64) -> bool {
        let left = Left {
            uid: uid.to_owned(),
            generation,
        };
        let mut held = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(key.clone(), left.clone()) != Some(left)
    }

    /// The object is ours. Returns whether it was left to another controller before.
    pub fn take(&self, key: &ObjectKey) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.remove(key).is_some()
    }

    /// How many objects are left to other controllers.
    pub fn left(&self) -> usize {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Another controller wrote the object's status. Returns whether this write is still to be told.
    pub fn overwritten(&self, key: &ObjectKey, write: &ForeignWrite) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(key.clone(), write.time) != Some(write.time)
    }

    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.take(key);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ObjectKey {
        ObjectKey {
            namespace: "a".into(),
            name: "app".into(),
        }
    }

    #[test]
    fn each_generation_left_is_told_once() {
        let neighbours = Neighbours::default();
        assert!(neighbours.leave(&key(), "u", 1));
        assert!(!neighbours.leave(&key(), "u", 1));
        assert!(neighbours.leave(&key(), "u", 2), "edited");
        assert!(neighbours.leave(&key(), "v", 2), "recreated");
        assert_eq!(neighbours.left(), 1);
        assert!(neighbours.take(&key()) && !neighbours.take(&key()));
        assert!(neighbours.leave(&key(), "v", 2), "left again");
    }

    #[test]
    fn each_foreign_write_is_told_once() {
        let neighbours = Neighbours::default();
        let write = |second| ForeignWrite {
            manager: "other".to_owned(),
            time: Timestamp::from_second(second).unwrap(),
        };
        assert!(neighbours.overwritten(&key(), &write(1)));
        assert!(!neighbours.overwritten(&key(), &write(1)));
        assert!(neighbours.overwritten(&key(), &write(2)));
        neighbours.forget(&key());
        assert!(neighbours.overwritten(&key(), &write(2)));
    }
}
