//! The declaration of every family: name, labels, help text, buckets.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets, exponential_buckets_range},
    },
    registry::{Metric, Registry},
};
use std::sync::{Arc, atomic::AtomicU64};

use super::hosts::HostRequests;

/// A floating point gauge.
pub(super) type Number = Gauge<f64, AtomicU64>;

/// Labels with values known at compile time.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The labels of a series of one object, as Flux names them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ObjectLabels {
    kind: &'static str,
    name: String,
    namespace: String,
}

impl ObjectLabels {
    pub(super) fn new(kind: &'static str, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        }
    }
}

pub(super) struct Families {
    pub(super) build_info: Family<Labels<1>, Number>,
    pub(super) cache_entries: Family<Labels<1>, Number>,
    pub(super) clock_skew: Number,
    pub(super) connections: Family<Labels<1>, Number>,
    pub(super) connections_cut: Family<Labels<2>, Counter>,
    pub(super) crd_compatible: Family<Labels<1>, Number>,
    pub(super) credential_failures: Family<Labels<2>, Counter>,
    pub(super) credential_issue_seconds: Histogram,
    pub(super) credentials_issued: Family<Labels<1>, Counter>,
    pub(super) events_dropped: Family<Labels<1>, Counter>,
    pub(super) events_sent: Family<Labels<2>, Counter>,
    pub(super) foreign_status_writes: Family<Labels<1>, Counter>,
    pub(super) invalid_tags: Counter,
    pub(super) issuer_input: Family<Labels<2>, Number>,
    pub(super) key_store_failures: Family<Labels<2>, Counter>,
    pub(super) key_store_replaced: Family<Labels<1>, Counter>,
    pub(super) key_state: Family<Vec<(&'static str, String)>, Number>,
    pub(super) leader: Family<Vec<(&'static str, String)>, Number>,
    pub(super) leader_transitions: Family<Vec<(&'static str, String)>, Counter>,
    pub(super) left_alone: Family<Labels<1>, Number>,
    pub(super) queue_depth: Family<Labels<1>, Number>,
    pub(super) queue_latency: Family<Labels<1>, Histogram>,
    pub(super) reconcile_duration: Family<ObjectLabels, Histogram>,
    pub(super) referents_watched: Number,
    pub(super) registry_requests: Arc<HostRequests>,
    pub(super) running_passes: Family<Labels<1>, Number>,
    pub(super) signing_advisory: Family<Labels<1>, Number>,
    pub(super) signing_secret: Family<Labels<1>, Number>,
    pub(super) storage_bytes: Number,
    pub(super) storage_free_bytes: Number,
    pub(super) storage_objects: Number,
    pub(super) tag_list_reads: Counter,
}

/// Registers and hands back, so that declaration and help text stand together.
struct Declare<'a>(&'a mut Registry);

impl Declare<'_> {
    fn metric<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn gauge(&mut self, name: &str, help: &str) -> Number {
        self.metric(name, help, Number::default())
    }

    fn gauges(&mut self, name: &str, help: &str) -> Family<Labels<1>, Number> {
        self.metric(name, help, Family::default())
    }

    fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.metric(name, help, Counter::default())
    }

    fn counters<const N: usize>(&mut self, name: &str, help: &str) -> Family<Labels<N>, Counter>
    where
        Labels<N>: EncodeLabelSet,
    {
        self.metric(name, help, Family::default())
    }
}

impl Families {
    /// Registers everything. Names of counters are without `_total`, which the encoding adds; help texts have no full stop,
    /// which it adds too.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut declare = Declare(registry);
        let d = &mut declare;
        let registry_requests = Arc::new(HostRequests::default());
        d.0.register_collector(Box::new(Arc::clone(&registry_requests)));
        Self {
            build_info: d.gauges("mintmark_build_info", "The version that runs, always 1"),
            cache_entries: d.gauges("mintmark_cache_entries", "Entries by cache"),
            clock_skew: d.gauge("mintmark_clock_skew_seconds", "Our clock minus the API server's"),
            connections: d.gauges("mintmark_server_connections", "Open connections by server"),
            connections_cut: d.counters(
                "mintmark_server_connections_cut",
                "Connections closed because of a limit",
            ),
            crd_compatible: d.gauges("mintmark_crd_compatible", "Whether the served CRD has all our fields"),
            credential_failures: d.counters(
                "mintmark_credential_issue_failures",
                "Credentials that could not be had, by type and reason",
            ),
            credential_issue_seconds: d.metric(
                "mintmark_credential_issue_seconds",
                "Time to mint or request one credential",
                // Minting takes 30–100 µs, a TokenRequest milliseconds.
                Histogram::new(exponential_buckets(0.000_01, 4.0, 11)),
            ),
            credentials_issued: d.counters(
                "mintmark_credentials_issued",
                "Credentials minted or requested, by type",
            ),
            events_dropped: d.counters("mintmark_events_dropped", "Events given up because a queue was full"),
            events_sent: d.counters("mintmark_events_sent", "Events by sink and outcome"),
            foreign_status_writes: d.counters(
                "mintmark_foreign_status_writes",
                "Objects whose status another writer changed after us",
            ),
            invalid_tags: d.counter(
                "mintmark_registry_invalid_tags",
                "Entries of tag lists that are no tags and were left out",
            ),
            issuer_input: d.metric(
                "mintmark_issuer_input_state",
                "State of what the issuer's port is served from, 1 for the current one",
                Family::default(),
            ),
            key_store_failures: d.counters(
                "mintmark_key_store_failures",
                "Requests for the key ring's Secrets that failed, by operation and reason",
            ),
            key_store_replaced: d.counters(
                "mintmark_key_store_replaced",
                "Times that the stored key ring was not what this process knows, by what it was",
            ),
            key_state: d.metric(
                "mintmark_key_state",
                "State of each signing key, 1 for the current one",
                Family::default(),
            ),
            leader: d.metric(
                "mintmark_leader",
                "What this process is under each lease, 1 for the current state",
                Family::default(),
            ),
            leader_transitions: d.metric(
                "mintmark_leader_transitions",
                "Changes of what this process is under each lease",
                Family::default(),
            ),
            left_alone: d.gauges(
                "mintmark_objects_left_alone",
                "Objects that this version cannot serve and that are left to the controller that did",
            ),
            queue_depth: d.gauges("mintmark_queue_depth", "Objects that wait for a pass"),
            queue_latency: d.metric(
                "mintmark_queue_latency_seconds",
                "Time from becoming due to the begin of the pass",
                Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 4.0, 9))),
            ),
            reconcile_duration: d.metric(
                "gotk_reconcile_duration_seconds",
                "The duration in seconds of a reconciliation",
                Family::new_with_constructor(|| Histogram::new(exponential_buckets_range(0.01, 1800.0, 10))),
            ),
            referents_watched: d.gauge(
                "mintmark_referents_watched",
                "Whether referenced Secrets and ServiceAccounts are watched",
            ),
            registry_requests,
            running_passes: d.gauges("mintmark_running_passes", "Passes that are running"),
            signing_advisory: d.gauges(
                "mintmark_signing_advisory",
                "1 for what the signing CA lacks although SPIFFE advises it",
            ),
            signing_secret: d.gauges(
                "mintmark_signing_secret_state",
                "State of the signing Secret, 1 for the current one",
            ),
            storage_bytes: d.gauge("mintmark_storage_bytes", "Bytes of stored artifacts"),
            storage_free_bytes: d.gauge("mintmark_storage_free_bytes", "Free bytes of the storage volume"),
            storage_objects: d.gauge("mintmark_storage_objects", "Stored artifacts"),
            tag_list_reads: d.counter("mintmark_tag_list_reads", "Stored tag lists read for image policies"),
        }
    }
}
