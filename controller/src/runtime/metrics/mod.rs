//! Everything `/metrics` shows, in one value that is cheap to clone.
//!
//! Every family and its labels are declared in [`families`]; callers use the methods here, so that a label takes only
//! values that are bounded: kinds, reasons and outcomes are `&'static str`, hosts are capped, series of one object go
//! with it and are left out altogether above a number of objects.

mod collect;
mod families;
mod hosts;
mod service;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;

pub use self::collect::ReadySource;
use self::{
    collect::PerObject,
    families::{Families, ObjectLabels},
};

/// Above this many objects no series per object is kept, unless told otherwise: 12 series each would be 60,000.
pub const PER_OBJECT_LIMIT: usize = 5_000;

/// What a Secret that is followed is worth right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningSecretState {
    /// Its current content is used.
    Valid,
    /// It is bad or gone, an earlier content is used on.
    LastGood,
    /// There is nothing to use.
    Absent,
}

impl SigningSecretState {
    const LABELS: [(&'static str, Self); 3] = [
        ("valid", Self::Valid),
        ("last_good", Self::LastGood),
        ("absent", Self::Absent),
    ];
}

/// Where an event goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventSink {
    /// Kubernetes Events.
    Kubernetes,
    /// `--events-addr`.
    Webhook,
}

impl EventSink {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Webhook => "webhook",
        }
    }
}

/// The metrics of the process.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    families: Families,
    per_object: Arc<PerObject>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(true, PER_OBJECT_LIMIT)
    }
}

/// A duration or a count as a metric's value; sizes above 2^53 lose precision, which no graph shows.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
const fn number(value: usize) -> f64 {
    value as f64
}

impl Metrics {
    /// `per_object`: `--per-object-metrics`; `limit`: the number of objects above which they are left out.
    pub fn new(per_object: bool, limit: usize) -> Self {
        let mut registry = Registry::default();
        let families = Families::register(&mut registry);
        let per_object = Arc::new(PerObject::new(per_object, limit, families.reconcile_duration.clone()));
        registry.register_collector(Box::new(Arc::clone(&per_object)));
        registry.register_collector(Box::new(collect::Process));
        families
            .build_info
            .get_or_create(&[("version", env!("CARGO_PKG_VERSION"))])
            .set(1.0);
        Self(Arc::new(Inner {
            registry,
            families,
            per_object,
        }))
    }

    fn families(&self) -> &Families {
        &self.0.families
    }

    /// Where `mintmark_object_ready` comes from at each scrape.
    pub fn set_ready_source(&self, source: Arc<dyn ReadySource>) {
        self.0.per_object.set_source(source);
    }

    /// One pass over an object took `duration`.
    pub fn observe_reconcile(&self, kind: &'static str, namespace: &str, name: &str, duration: Duration) {
        self.0
            .per_object
            .observe(&ObjectLabels::new(kind, namespace, name), duration);
    }

    /// Removes all series of a deleted object.
    pub fn forget_object(&self, kind: &'static str, namespace: &str, name: &str) {
        self.0.per_object.forget(&ObjectLabels::new(kind, namespace, name));
    }

    /// A credential of this type was minted or requested within `duration`.
    pub fn credential_issued(&self, credential: &'static str, duration: Duration) {
        self.families()
            .credentials_issued
            .get_or_create(&[("type", credential)])
            .inc();
        self.families().credential_issue_seconds.observe(duration.as_secs_f64());
    }

    /// A credential of this type could not be had.
    pub fn credential_failed(&self, credential: &'static str, reason: &'static str) {
        self.families()
            .credential_failures
            .get_or_create(&[("type", credential), ("reason", reason)])
            .inc();
    }

    /// A request to a registry ended. `host` is the registry of the object's URL, with its port if any.
    pub fn registry_request(&self, host: &str, outcome: &'static str) {
        self.families().registry_requests.record(host, outcome);
    }

    /// Tag lists had so many entries that are no tags.
    pub fn invalid_tags(&self, count: usize) {
        self.families()
            .invalid_tags
            .inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Objects of `kind` that wait for a pass.
    pub fn set_queue_depth(&self, kind: &'static str, depth: usize) {
        self.families()
            .queue_depth
            .get_or_create(&[("kind", kind)])
            .set(number(depth));
    }

    /// An object waited this long from becoming due to the begin of its pass.
    pub fn observe_queue_latency(&self, kind: &'static str, waited: Duration) {
        self.families()
            .queue_latency
            .get_or_create(&[("kind", kind)])
            .observe(waited.as_secs_f64());
    }

    /// Passes of `kind` that are running.
    pub fn set_running_passes(&self, kind: &'static str, running: usize) {
        self.families()
            .running_passes
            .get_or_create(&[("kind", kind)])
            .set(number(running));
    }

    /// Entries of a cache (`tokens`, `credentials`, `connections`, `referents` …).
    pub fn set_cache_entries(&self, cache: &'static str, entries: usize) {
        self.families()
            .cache_entries
            .get_or_create(&[("cache", cache)])
            .set(number(entries));
    }

    /// What artifact storage holds, and what its volume has free.
    pub fn set_storage(&self, artifacts: usize, bytes: u64, free_bytes: u64) {
        let families = self.families();
        families.storage_objects.set(number(artifacts));
        families
            .storage_bytes
            .set(number(usize::try_from(bytes).unwrap_or(usize::MAX)));
        families
            .storage_free_bytes
            .set(number(usize::try_from(free_bytes).unwrap_or(usize::MAX)));
    }

    /// Whether the served CRD of `kind` has all our fields.
    pub fn set_crd_compatible(&self, kind: &'static str, compatible: bool) {
        self.families()
            .crd_compatible
            .get_or_create(&[("kind", kind)])
            .set(f64::from(u8::from(compatible)));
    }

    /// Exactly one state is 1.
    pub fn set_signing_secret(&self, state: SigningSecretState) {
        for (label, of) in SigningSecretState::LABELS {
            let value = f64::from(u8::from(of == state));
            self.families()
                .signing_secret
                .get_or_create(&[("state", label)])
                .set(value);
        }
    }

    /// What an input of the issuer's port (`state`, `tls`) is worth; exactly one state of each input is 1.
    pub fn set_issuer_input(&self, input: &'static str, state: SigningSecretState) {
        for (label, of) in SigningSecretState::LABELS {
            let value = f64::from(u8::from(of == state));
            self.families()
                .issuer_input
                .get_or_create(&[("input", input), ("state", label)])
                .set(value);
        }
    }

    /// Whether something that SPIFFE advises is missing in the signing CA (`path_len_zero`, `name_constraints` …).
    pub fn set_signing_advisory(&self, advisory: &'static str, missing: bool) {
        let value = f64::from(u8::from(missing));
        self.families()
            .signing_advisory
            .get_or_create(&[("advisory", advisory)])
            .set(value);
    }

    /// The states of all keys of the ring: replaces what was shown. States are `published`, `signing`, `retired`.
    pub fn set_key_states<'a>(&self, keys: impl IntoIterator<Item = (&'a str, &'static str)>) {
        let family = &self.families().key_state;
        family.clear();
        for (kid, state) in keys {
            family
                .get_or_create(&vec![("kid", kid.to_owned()), ("state", state.to_owned())])
                .set(1.0);
        }
    }

    /// The key ring's Secrets could not be read or written (`operation`: `read`, `write`).
    pub fn key_store_failed(&self, operation: &'static str, reason: &'static str) {
        self.families()
            .key_store_failures
            .get_or_create(&[("operation", operation), ("reason", reason)])
            .inc();
    }

    /// The stored key ring was `refused`, `changed` by somebody else, or `missing`.
    pub fn key_store_replaced(&self, what: &'static str) {
        self.families()
            .key_store_replaced
            .get_or_create(&[("what", what)])
            .inc();
    }

    /// Our clock minus the API server's.
    pub fn set_clock_skew(&self, seconds: f64) {
        self.families().clock_skew.set(seconds);
    }

    /// What this process is under `lease`: exactly one of `standby`, `leading`, `detached` is 1.
    pub fn set_leader_state(&self, lease: &str, state: &'static str) {
        for label in ["standby", "leading", "detached"] {
            self.families()
                .leader
                .get_or_create(&vec![("lease", lease.to_owned()), ("state", label.to_owned())])
                .set(f64::from(u8::from(label == state)));
        }
    }

    /// This process became `state` under `lease`.
    pub fn leader_transition(&self, lease: &str, state: &'static str) {
        self.families()
            .leader_transitions
            .get_or_create(&vec![("lease", lease.to_owned()), ("to", state.to_owned())])
            .inc();
    }

    /// Whether referenced Secrets and service accounts are watched (else they are read in each pass).
    pub fn set_referents_watched(&self, watched: bool) {
        self.families().referents_watched.set(f64::from(u8::from(watched)));
    }

    /// So many objects are left to other controllers.
    pub fn set_left_alone(&self, kind: &'static str, count: usize) {
        let gauge = self.families().left_alone.get_or_create(&[("kind", kind)]);
        gauge.set(number(count));
    }

    /// Somebody else wrote the status of an object of `kind` after us.
    pub fn foreign_status_write(&self, kind: &'static str) {
        self.families()
            .foreign_status_writes
            .get_or_create(&[("kind", kind)])
            .inc();
    }

    /// A stored tag list was read from disk.
    pub fn tag_list_read(&self) {
        self.families().tag_list_reads.inc();
    }

    /// An event left for `sink`, or could not (`outcome`: `sent`, `failed`, `duplicate`).
    pub fn event_sent(&self, sink: EventSink, outcome: &'static str) {
        self.families()
            .events_sent
            .get_or_create(&[("sink", sink.as_str()), ("outcome", outcome)])
            .inc();
    }

    /// An event was given up because the queue of `sink` was full.
    pub fn event_dropped(&self, sink: EventSink) {
        self.families()
            .events_dropped
            .get_or_create(&[("sink", sink.as_str())])
            .inc();
    }

    /// Counts a connection of `server` until the result is dropped.
    pub fn connection_opened(&self, server: &'static str) -> OpenConnection {
        let open = self.families().connections.get_or_create_owned(&[("server", server)]);
        open.inc();
        OpenConnection(open)
    }

    /// A connection of `server` was closed because of a limit.
    pub fn connection_cut(&self, server: &'static str, reason: &'static str) {
        self.families()
            .connections_cut
            .get_or_create(&[("server", server), ("reason", reason)])
            .inc();
    }

    /// The exposition in `OpenMetrics` text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

/// Counts as an open connection while it lives.
#[derive(Debug)]
pub struct OpenConnection(families::Number);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
