//! What the processes that this one started have used, as Linux tells it in `/proc`, and what this one has: it is the client
//! that creates objects.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::controller;

/// Ticks per second of the times in `/proc/<pid>/stat`: `USER_HZ` is 100 on every architecture Linux has today.
const TICKS: f64 = 100.0;

/// What messages and reports call the process that measures.
pub const OWN_NAME: &str = "this bench";

/// CPU seconds and memory of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time since it started.
    pub cpu_seconds: f64,
    /// Memory now.
    pub memory: Memory,
}

/// Resident memory in MiB.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Memory {
    /// All of it: what a container's limit and `VmRSS` count.
    #[serde(rename = "resident_mib")]
    pub resident: f64,
    /// Of which heap and stacks; the rest is the program itself, and files.
    #[serde(rename = "anonymous_mib")]
    pub anonymous: f64,
    /// The most that was resident at a time since the process began.
    #[serde(rename = "peak_mib")]
    pub peak: f64,
}

/// A moment: what each process has used by then, by program name. Two of one name are added.
#[derive(Debug, Clone, Default)]
pub struct Snapshot(BTreeMap<String, Usage>);

impl Snapshot {
    /// Every process below this one, and this one.
    pub fn take() -> Result<Self> {
        let own = std::process::id();
        let mut used: BTreeMap<String, Usage> = BTreeMap::new();
        for process in own_processes()? {
            let name = if process.id == own { OWN_NAME } else { &process.name };
            used.entry(name.to_owned()).or_default().add(process.usage);
        }
        Ok(Self(used))
    }

    /// The controller's.
    pub fn controller(&self) -> Usage {
        controller_name()
            .and_then(|name| self.0.get(&name).copied())
            .unwrap_or_default()
    }

    /// CPU seconds of the controller since `before`.
    pub fn controller_cpu_since(&self, before: &Self) -> f64 {
        self.controller().cpu_seconds - before.controller().cpu_seconds
    }

    /// CPU seconds of each process since `before`; of those that used any.
    pub fn cpu_since(&self, before: &Self) -> BTreeMap<String, f64> {
        let earlier = |name: &String| before.0.get(name).map_or(0.0, |usage| usage.cpu_seconds);
        self.0
            .iter()
            .map(|(name, usage)| (name.clone(), usage.cpu_seconds - earlier(name)))
            .filter(|(_, seconds)| *seconds > 0.0)
            .collect()
    }

    /// Memory of each process.
    pub fn memory(&self) -> BTreeMap<String, Memory> {
        self.0
            .iter()
            .map(|(name, usage)| (name.clone(), usage.memory))
            .collect()
    }
}

impl Usage {
    fn add(&mut self, other: Self) {
        self.cpu_seconds += other.cpu_seconds;
        self.memory.resident += other.memory.resident;
        self.memory.anonymous += other.memory.anonymous;
        self.memory.peak += other.memory.peak;
    }
}

/// Makes the controller's peak begin anew with what is resident now.
pub fn forget_controller_peak() -> Result<()> {
    let name = controller_name();
    for process in own_processes()?.iter().filter(|it| Some(&it.name) == name.as_ref()) {
        let file = format!("/proc/{}/clear_refs", process.id);
        // Resets VmHWM, see proc_pid_clear_refs(5).
        fs::write(&file, "5").with_context(|| format!("cannot write {file}"))?;
    }
    Ok(())
}

/// This process and every one below it.
fn own_processes() -> Result<Vec<Process>> {
    let all: Vec<Process> = fs::read_dir("/proc")
        .context("this bench reads /proc")?
        .filter_map(|entry| Process::read(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect();
    let own = std::process::id();
    let is_own = |process: &&Process| process.id == own || is_below(process, own, &all);
    Ok(all.iter().filter(is_own).cloned().collect())
}

/// Name of the controller's process, as Linux cuts it.
fn controller_name() -> Option<String> {
    let name = controller::binary().ok()?.file_name()?;
    Some(name.to_string_lossy().chars().take(15).collect())
}

fn is_below(process: &Process, ancestor: u32, all: &[Process]) -> bool {
    let mut parent = process.parent;
    while parent != 0 {
        if parent == ancestor {
            return true;
        }
        parent = all
            .iter()
            .find(|other| other.id == parent)
            .map_or(0, |other| other.parent);
    }
    false
}

#[derive(Clone)]
struct Process {
    id: u32,
    parent: u32,
    name: String,
    usage: Usage,
}

impl Process {
    /// None for a process that has ended meanwhile.
    fn read(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name stands in parentheses and may contain anything; fields are counted after the last one.
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u32>().ok();
        let ticks = f64::from(number(11)?) + f64::from(number(12)?);
        Some(Self {
            id,
            parent: number(1)?,
            name,
            usage: Usage {
                cpu_seconds: ticks / TICKS,
                memory: memory(id).unwrap_or_default(),
            },
        })
    }
}

fn memory(id: u32) -> Option<Memory> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let mib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kib: u32 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(f64::from(kib) / 1024.0)
    };
    Some(Memory {
        resident: mib("VmRSS:")?,
        anonymous: mib("RssAnon:")?,
        peak: mib("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_this_process() {
        let own = Process::read(std::process::id()).expect("this process");
        let memory = own.usage.memory;
        assert!(memory.anonymous > 0.1 && memory.resident > memory.anonymous);
        assert!(memory.peak >= memory.resident);
        assert!(Process::read(u32::MAX).is_none());
    }

    #[test]
    fn names_what_used_cpu_since() {
        let at = |seconds: f64| {
            let usage = Usage {
                cpu_seconds: seconds,
                ..Usage::default()
            };
            Snapshot(BTreeMap::from([
                ("etcd".to_owned(), usage),
                ("idle".to_owned(), Usage::default()),
            ]))
        };
        let used = at(3.0).cpu_since(&at(1.0));
        assert_eq!(used, BTreeMap::from([("etcd".to_owned(), 2.0)]));
    }
}
