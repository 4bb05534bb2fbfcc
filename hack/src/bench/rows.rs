//! From reports to lines of the table, with the numbers that were to be reached. Those are for a machine of 2 cores which also
//! runs etcd, kube-apiserver and the registry, and for 1,000 anonymous objects where not said otherwise.

use std::collections::BTreeMap;

use super::{
    Report,
    documents::DocumentsReport,
    fleet::{FleetReport, Steady},
    image_rows, mint,
    observe::ColdStart,
    rig::Presents,
    store::StoreReport,
    table::{self, Row, Target},
    usage::Memory,
};

/// A steady pass with a credential costs at most this much of an anonymous one.
const CREDENTIAL_FACTOR: f64 = 1.5;

/// Prints everything.
pub(super) fn print(bench: &Report) {
    if !bench.mint.is_empty() {
        table::print("minting", &mint::rows(&bench.mint));
    }
    let steady = |fleet: &FleetReport| fleet.steady.as_ref().map(|it| it.controller_cpu_ms_per_pass);
    let anonymous = bench.fleets.iter().filter(|fleet| fleet.presents == Presents::Nothing);
    let anonymous = anonymous.into_iter().find_map(steady);
    for fleet in &bench.fleets {
        let title = format!("{} objects, {}", fleet.objects, fleet.presents.title());
        let is_target = fleet.objects == 1000 && fleet.presents == Presents::Nothing;
        let mut rows = cold_start(&fleet.cold_start, is_target);
        if let Some(steady) = &fleet.steady {
            rows.extend(steady_state(fleet, steady, anonymous));
        }
        table::print(&title, &rows);
    }
    if let Some(report) = &bench.scans {
        image_rows::print_scans(report);
    }
    if let Some(report) = &bench.policies {
        image_rows::print_policies(report);
    }
    if let Some(report) = &bench.store {
        table::print(&format!("a store of {} objects", report.objects), &store(report));
    }
    if let Some(report) = &bench.documents {
        table::print("the issuer's documents", &documents(report));
    }
}

/// `is_target`: of what the numbers to be reached are meant for.
pub(super) fn cold_start(cold: &ColdStart, is_target: bool) -> Vec<Row> {
    let aim = |row: Row, most: f64| if is_target { row.with(Target::AtMost(most)) } else { row };
    let mut rows = vec![
        aim(
            Row::new("from the first create until all are Ready", cold.seconds, 2, "s"),
            6.5,
        ),
        Row::new(
            "  until the API server has taken the creates",
            cold.create_seconds,
            2,
            "s",
        ),
        Row::new(
            "  from the last create until all are Ready",
            cold.seconds - cold.create_seconds,
            2,
            "s",
        ),
        aim(
            Row::new("CPU of the controller", cold.controller_cpu_seconds, 2, "s"),
            1.8,
        ),
    ];
    rows.extend(apart("CPU", &cold.cpu_seconds, 2, "s"));
    let requests = cold.api_requests_per_object.iter();
    // What is asked for once and not per object would be lines of 0.001.
    let requests = requests.filter(|(_, count)| **count >= 0.01);
    rows.extend(requests.map(|(what, count)| Row::new(format!("API requests per object: {what}"), *count, 2, "")));
    rows.push(aim(resident("afterwards", &cold.controller_memory), 30.0));
    rows.push(anonymous("afterwards", &cold.controller_memory));
    rows
}

fn steady_state(fleet: &FleetReport, steady: &Steady, anonymous_ms: Option<f64>) -> Vec<Row> {
    let is_anonymous = fleet.presents == Presents::Nothing;
    let cpu = Row::new(
        "steady: CPU of the controller per pass",
        steady.controller_cpu_ms_per_pass,
        3,
        "ms",
    );
    let most = match anonymous_ms {
        _ if is_anonymous => Some(0.3),
        Some(anonymous) => Some(anonymous * CREDENTIAL_FACTOR),
        None => None,
    };
    let passes = u32::try_from(steady.passes).map_or(f64::INFINITY, f64::from);
    let mut rows = vec![
        Row::new(format!("steady: passes in {:.0} s", steady.seconds), passes, 0, ""),
        match most {
            Some(most) => cpu.with(Target::AtMost(most)),
            None => cpu,
        },
    ];
    rows.extend(apart("steady: CPU per pass", &steady.cpu_ms_per_pass, 3, "ms"));
    rows.push(Row::new("steady: API requests per pass", steady.api_requests_per_pass, 4, "").with(Target::AtMost(0.0)));
    rows.push(Row::new(
        "steady: registry requests per pass",
        steady.registry_requests_per_pass,
        3,
        "",
    ));
    let end = resident("at the end of it", &steady.controller_memory);
    rows.push(if is_anonymous {
        end.with(Target::AtMost(48.0))
    } else {
        end
    });
    rows.push(anonymous("at the end of it", &steady.controller_memory));
    rows
}

/// The processes beside the controller.
pub(super) fn apart(what: &str, values: &BTreeMap<String, f64>, decimals: usize, unit: &'static str) -> Vec<Row> {
    let others = values
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "mintmark" | "guard"));
    others
        .map(|(name, value)| Row::new(format!("  {what} of {name}"), *value, decimals, unit))
        .collect()
}

pub(super) fn resident(when: &str, memory: &Memory) -> Row {
    Row::new(format!("resident memory {when}"), memory.resident, 1, "MiB")
}

pub(super) fn anonymous(when: &str, memory: &Memory) -> Row {
    Row::new(
        format!("  of which not the program's own file, {when}"),
        memory.anonymous,
        1,
        "MiB",
    )
}

fn store(report: &StoreReport) -> Vec<Row> {
    let bytes = u32::try_from(report.object_bytes).map_or(f64::INFINITY, f64::from);
    vec![
        Row::new("bytes of JSON per object in etcd", bytes, 0, ""),
        Row::new(
            "from the start of the process until it is ready",
            report.ready_seconds,
            1,
            "s",
        ),
        Row::new(
            "CPU of the controller until it is at rest",
            report.controller_cpu_seconds,
            2,
            "s",
        ),
        resident("at rest", &report.controller_memory).with(Target::AtMost(200.0)),
        anonymous("at rest", &report.controller_memory),
        Row::new("resident memory at the most", report.controller_memory.peak, 1, "MiB"),
    ]
}

fn documents(report: &DocumentsReport) -> Vec<Row> {
    let mut rows = vec![
        Row::new("offered", f64::from(report.offered_per_second), 0, "/s"),
        Row::new("answered", report.answered_per_second, 0, "/s"),
    ];
    let latencies = report.latency_ms.iter();
    rows.extend(latencies.map(|(percentile, ms)| Row::new(format!("latency {percentile}"), *ms, 3, "ms")));
    rows.push(Row::new(
        "CPU of the controller per request",
        report.cpu_us_per_request,
        1,
        "us",
    ));
    rows
}
