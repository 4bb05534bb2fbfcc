//! What the processes that this one started have used, as Linux tells it in `/proc`.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};

/// Ticks per second of the times in `/proc/<pid>/stat`: `USER_HZ` is 100 on every architecture Linux has today.
const TICKS: f64 = 100.0;

/// CPU seconds and resident bytes of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time since it started.
    pub cpu_seconds: f64,
    /// Resident memory now.
    pub resident_bytes: u64,
}

/// The usage of every process below this one, by program name. Two of one name are added.
pub fn below_this_process() -> Result<BTreeMap<String, Usage>> {
    let processes: Vec<Process> = fs::read_dir("/proc")
        .context("this bench reads /proc")?
        .filter_map(|entry| Process::read(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect();
    let mut used: BTreeMap<String, Usage> = BTreeMap::new();
    for process in &processes {
        if is_below(process, std::process::id(), &processes) {
            let sum = used.entry(process.name.clone()).or_default();
            sum.cpu_seconds += process.usage.cpu_seconds;
            sum.resident_bytes += process.usage.resident_bytes;
        }
    }
    Ok(used)
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
                resident_bytes: resident(id).unwrap_or_default(),
            },
        })
    }
}

fn resident(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_this_process() {
        let own = Process::read(std::process::id()).expect("this process");
        assert!(own.usage.resident_bytes > 1024 * 1024);
        assert!(Process::read(u32::MAX).is_none());
    }
}
