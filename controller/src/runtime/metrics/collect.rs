//! What is computed at the scrape: readiness and reconcile time of each object, and the process's own numbers.

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, family::Family, gauge::ConstGauge, histogram::Histogram},
};

use super::families::ObjectLabels;

/// The objects and whether they are Ready, asked at each scrape.
pub trait ReadySource: Send + Sync {
    /// How many objects there are.
    fn count(&self) -> usize;

    /// Calls `visit(kind, namespace, name, ready)` for each object.
    fn visit(&self, visit: &mut dyn FnMut(&str, &str, &str, bool));
}

/// Decides whether series per object are kept, and keeps them.
pub(super) struct PerObject {
    enabled: bool,
    limit: usize,
    too_many: AtomicBool,
    series: AtomicUsize,
    durations: Family<ObjectLabels, Histogram>,
    source: RwLock<Option<Arc<dyn ReadySource>>>,
}

impl fmt::Debug for PerObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerObject")
            .field("enabled", &self.enabled)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl PerObject {
    pub(super) fn new(enabled: bool, limit: usize, durations: Family<ObjectLabels, Histogram>) -> Self {
        Self {
            enabled,
            limit,
            too_many: AtomicBool::new(false),
            series: AtomicUsize::new(0),
            durations,
            source: RwLock::new(None),
        }
    }

    pub(super) fn set_source(&self, source: Arc<dyn ReadySource>) {
        *self.source.write().unwrap_or_else(PoisonError::into_inner) = Some(source);
    }

    pub(super) fn observe(&self, labels: &ObjectLabels, duration: Duration) {
        if !self.enabled || self.too_many.load(Ordering::Relaxed) {
            return;
        }
        if let Some(histogram) = self.durations.get(labels) {
            histogram.observe(duration.as_secs_f64());
            return;
        }
        let series = self.series.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if !self.leave_out(series) {
            self.durations.get_or_create(labels).observe(duration.as_secs_f64());
        }
    }

    pub(super) fn forget(&self, labels: &ObjectLabels) {
        if self.durations.remove(labels) {
            self.series.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether this many objects are too many; on the way there all series go, with one log line. They come back when a
    /// tenth of the limit is free again.
    fn leave_out(&self, objects: usize) -> bool {
        if objects > self.limit {
            if !self.too_many.swap(true, Ordering::Relaxed) {
                self.durations.clear();
                self.series.store(0, Ordering::Relaxed);
                tracing::info!(limit = self.limit, "metrics per object are left out: too many objects");
            }
            return true;
        }
        if objects <= self.limit - self.limit / 10 {
            self.too_many.store(false, Ordering::Relaxed);
        }
        self.too_many.load(Ordering::Relaxed)
    }
}

impl Collector for PerObject {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let source = self.source.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(source) = source.filter(|_| self.enabled) else {
            return Ok(());
        };
        if self.leave_out(source.count()) {
            return Ok(());
        }
        let mut metric = encoder.encode_descriptor(
            "mintmark_object_ready",
            "Whether the object is Ready.",
            None,
            MetricType::Gauge,
        )?;
        let mut result = Ok(());
        source.visit(&mut |kind, namespace, name, ready| {
            if result.is_ok() {
                let labels = [("kind", kind), ("name", name), ("namespace", namespace)];
                let gauge = ConstGauge::new(i64::from(ready));
                result = metric
                    .encode_family(&labels)
                    .and_then(|of_object| gauge.encode(of_object));
            }
        });
        result
    }
}

/// Memory and processor time of the process under the names that every Prometheus client uses; nothing where `/proc` is
/// not there.
#[derive(Debug)]
pub(super) struct Process;

/// Linux counts processor time for user space in hundredths of a second on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some((cpu_seconds, resident_bytes)) = process_numbers() else {
            return Ok(());
        };
        let cpu = ConstCounterF64::new(cpu_seconds);
        let help = "User and system processor time in seconds.";
        cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?)?;
        let resident = ConstGauge::new(resident_bytes);
        let help = "Resident memory in bytes.";
        resident.encode(encoder.encode_descriptor("process_resident_memory_bytes", help, None, MetricType::Gauge)?)
    }
}

type ConstCounterF64 = prometheus_client::metrics::counter::ConstCounter<f64>;

fn process_numbers() -> Option<(f64, u64)> {
    // The command name in parentheses may contain anything; fields are counted after it (proc_pid_stat(5): the 14th and
    // 15th of the line, the third is the first here).
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().trim_end_matches(" kB").trim().parse().ok()?;
    Some(((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND, kib * 1024))
}
