//! Which of the objects that are due get a pass. Objects of one namespace that pull from one host share a lane; a lane and a
//! namespace get only so many passes at a time, and take turns. So a registry at which everything hangs, for however many
//! objects, holds up nobody who pulls elsewhere. Knows no time and does no I/O; every step takes constant time.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// What objects have in common to wait for each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) namespace: Arc<str>,
    /// Host of the registry, with its port if it is not the default.
    pub(super) host: Arc<str>,
}

/// Bounds on passes at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) per_lane: usize,
    pub(super) per_namespace: usize,
    pub(super) in_all: usize,
}

/// Everybody who waits for a pass, and how many have one.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    bounds: Bounds,
    running: usize,
    waiting: usize,
    namespaces: HashMap<Arc<str>, Namespace<T>>,
    /// Namespaces that may start a pass, the next one first.
    turn: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Namespace<T> {
    running: usize,
    in_turn: bool,
    hosts: HashMap<Arc<str>, Host<T>>,
    /// Hosts that may start a pass, the next one first.
    turn: VecDeque<Arc<str>>,
}

#[derive(Debug)]
struct Host<T> {
    running: usize,
    in_turn: bool,
    waiting: VecDeque<T>,
}

impl<T> Lanes<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            running: 0,
            waiting: 0,
            namespaces: HashMap::new(),
            turn: VecDeque::new(),
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many have a pass.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Lines up behind the others of its lane.
    pub(super) fn line_up(&mut self, lane: &Lane, item: T) {
        self.waiting += 1;
        let namespace = self.namespaces.entry(Arc::clone(&lane.namespace)).or_default();
        let host = namespace.hosts.entry(Arc::clone(&lane.host)).or_default();
        host.waiting.push_back(item);
        self.give_turns(lane);
    }

    /// The next one that gets a pass, which [`Lanes::ended`] is told the end of.
    pub(super) fn start(&mut self) -> Option<(Lane, T)> {
        if self.running >= self.bounds.in_all {
            return None;
        }
        let name = self.turn.pop_front()?;
        let namespace = self.namespaces.get_mut(&name)?;
        namespace.in_turn = false;
        let host_name = namespace.turn.pop_front()?;
        let host = namespace.hosts.get_mut(&host_name)?;
        host.in_turn = false;
        let item = host.waiting.pop_front()?;
        host.running += 1;
        namespace.running += 1;
        self.running += 1;
        self.waiting -= 1;
        let lane = Lane {
            namespace: name,
            host: host_name,
        };
        self.give_turns(&lane);
        Some((lane, item))
    }

    /// A pass of this lane ended.
    pub(super) fn ended(&mut self, lane: &Lane) {
        self.running = self.running.saturating_sub(1);
        let Some(namespace) = self.namespaces.get_mut(&lane.namespace) else {
            return;
        };
        namespace.running = namespace.running.saturating_sub(1);
        if let Some(host) = namespace.hosts.get_mut(&lane.host) {
            host.running = host.running.saturating_sub(1);
            if host.running == 0 && host.waiting.is_empty() {
                namespace.hosts.remove(&lane.host);
            }
        }
        if namespace.hosts.is_empty() {
            self.namespaces.remove(&lane.namespace);
        }
        self.give_turns(lane);
    }

    /// Puts the lane's host, then its namespace, behind those that may start a pass, if they may.
    fn give_turns(&mut self, lane: &Lane) {
        let Some(namespace) = self.namespaces.get_mut(&lane.namespace) else {
            return;
        };
        if let Some(host) = namespace.hosts.get_mut(&lane.host)
            && !host.in_turn
            && !host.waiting.is_empty()
            && host.running < self.bounds.per_lane
        {
            host.in_turn = true;
            namespace.turn.push_back(Arc::clone(&lane.host));
        }
        if !namespace.in_turn && !namespace.turn.is_empty() && namespace.running < self.bounds.per_namespace {
            namespace.in_turn = true;
            self.turn.push_back(Arc::clone(&lane.namespace));
        }
    }
}

impl<T> Default for Namespace<T> {
    fn default() -> Self {
        Self {
            running: 0,
            in_turn: false,
            hosts: HashMap::new(),
            turn: VecDeque::new(),
        }
    }
}

impl<T> Default for Host<T> {
    fn default() -> Self {
        Self {
            running: 0,
            in_turn: false,
            waiting: VecDeque::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        per_lane: 2,
        per_namespace: 4,
        in_all: 8,
    };

    fn lane(namespace: &str, host: &str) -> Lane {
        Lane {
            namespace: namespace.into(),
            host: host.into(),
        }
    }

    fn start_all(lanes: &mut Lanes<u32>) -> Vec<u32> {
        std::iter::from_fn(|| lanes.start()).map(|(_, item)| item).collect()
    }

    #[test]
    fn a_lane_that_hangs_holds_up_no_other_of_its_namespace() {
        let mut lanes = Lanes::new(BOUNDS);
        for item in 0..1000 {
            lanes.line_up(&lane("a", "hangs"), item);
        }
        lanes.line_up(&lane("a", "works"), 5000);
        assert_eq!(start_all(&mut lanes), [0, 5000, 1], "in turns, and two of the lane");
        assert_eq!((lanes.running(), lanes.waiting()), (3, 998));
        lanes.ended(&lane("a", "hangs"));
        assert_eq!(start_all(&mut lanes), [2], "one for one, in order");
    }

    #[test]
    fn a_namespace_that_hangs_everywhere_holds_up_no_other() {
        let mut lanes = Lanes::new(BOUNDS);
        for item in 0..1000 {
            lanes.line_up(&lane("a", &format!("h{item}")), item);
        }
        lanes.line_up(&lane("b", "works"), 5000);
        let started = start_all(&mut lanes);
        assert_eq!(started.len(), 5);
        assert!(started.contains(&5000));
        lanes.ended(&lane("a", "h0"));
        assert_eq!(start_all(&mut lanes).len(), 1);
    }

    proptest! {
        /// Whatever comes and ends in whatever order: bounds hold, everybody gets a pass, nothing is left behind.
        #[test]
        fn everybody_gets_a_pass(steps in prop::collection::vec((0..3_u8, 0..4_u8, any::<bool>()), 0..300)) {
            let mut lanes = Lanes::new(BOUNDS);
            let mut running: Vec<Lane> = Vec::new();
            let (mut lined_up, mut started) = (0, 0);
            let mut pump = |lanes: &mut Lanes<usize>, running: &mut Vec<Lane>| {
                while let Some((lane, _)) = lanes.start() {
                    started += 1;
                    running.push(lane);
                    assert!(running.len() <= BOUNDS.in_all);
                    let last = running.last().unwrap();
                    assert!(running.iter().filter(|it| *it == last).count() <= BOUNDS.per_lane);
                    let of_namespace = running.iter().filter(|it| it.namespace == last.namespace).count();
                    assert!(of_namespace <= BOUNDS.per_namespace);
                }
                started
            };
            for (namespace, host, end) in steps {
                if end && !running.is_empty() {
                    let lane = running.swap_remove(usize::from(host) % running.len());
                    lanes.ended(&lane);
                } else {
                    lanes.line_up(&lane(&namespace.to_string(), &host.to_string()), lined_up);
                    lined_up += 1;
                }
                pump(&mut lanes, &mut running);
            }
            while let Some(lane) = running.pop() {
                lanes.ended(&lane);
                pump(&mut lanes, &mut running);
            }
            prop_assert_eq!(pump(&mut lanes, &mut running), lined_up);
            prop_assert!(lanes.namespaces.is_empty() && lanes.turn.is_empty());
            prop_assert_eq!((lanes.running(), lanes.waiting()), (0, 0));
        }
    }
}
