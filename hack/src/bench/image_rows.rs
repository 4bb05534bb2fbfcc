//! From what scans and policies took to lines of the table.

use super::{
    policies::{PoliciesReport, Update},
    rows::{anonymous, apart, cold_start, resident},
    scans::{OneScan, ScansReport, SteadyScans},
    table::{self, Row},
    usage::Memory,
};

/// Both parts of a report on scans.
pub(super) fn print_scans(report: &ScansReport) {
    let mut rows = cold_start(&report.cold_start, false);
    rows.extend(steady(&report.steady));
    let title = format!("{} ImageRepositories of {} tags", report.objects, report.tags);
    table::print(&title, &rows);
    let large = &report.large;
    let mut rows = vec![
        Row::new("bytes of the tags", count(large.tag_bytes), 0, ""),
        resident("before", &large.idle),
    ];
    rows.extend(one("first scan", &large.first, &large.idle));
    rows.extend(one("again", &large.again, &large.idle));
    table::print(&format!("one ImageRepository of {} tags", large.tags), &rows);
}

fn steady(steady: &SteadyScans) -> Vec<Row> {
    vec![
        Row::new(
            format!("steady: scans in {:.0} s", steady.seconds),
            count(steady.scans),
            0,
            "",
        ),
        Row::new(
            "steady: CPU of the controller per scan",
            steady.controller_cpu_ms_per_scan,
            3,
            "ms",
        ),
        Row::new("steady: API requests per scan", steady.api_requests_per_scan, 4, ""),
        Row::new(
            "steady: registry requests per scan",
            steady.registry_requests_per_scan,
            3,
            "",
        ),
        resident("at the end of it", &steady.controller_memory),
        anonymous("at the end of it", &steady.controller_memory),
    ]
}

fn one(what: &str, scan: &OneScan, idle: &Memory) -> Vec<Row> {
    let memory = &scan.controller_memory;
    vec![
        Row::new(format!("{what}: duration of the pass"), scan.seconds, 2, "s"),
        Row::new(
            format!("{what}: CPU of the controller"),
            scan.controller_cpu_seconds,
            2,
            "s",
        ),
        Row::new(
            format!("{what}: peak of memory above what was before"),
            memory.peak - idle.resident,
            1,
            "MiB",
        ),
        resident(&format!("after it ({what})"), memory),
    ]
}

/// Both parts of a report on policies.
pub(super) fn print_policies(report: &PoliciesReport) {
    let mut rows = cold_start(&report.cold_start, false);
    rows.extend(update(&report.update));
    let title = format!("{} ImagePolicies on one image of {} tags", report.objects, report.tags);
    table::print(&title, &rows);
}

fn update(update: &Update) -> Vec<Row> {
    let mut rows = vec![
        Row::new(
            "a new tag: from the request for a scan to the last policy",
            update.seconds,
            2,
            "s",
        ),
        Row::new(
            "a new tag: CPU of the controller",
            update.controller_cpu_seconds,
            2,
            "s",
        ),
    ];
    rows.extend(apart("a new tag: CPU", &update.cpu_seconds, 2, "s"));
    let requests = update.api_requests_per_object.iter();
    let requests = requests.filter(|(_, count)| **count >= 0.01);
    rows.extend(
        requests.map(|(what, count)| Row::new(format!("a new tag: API requests per policy: {what}"), *count, 2, "")),
    );
    rows.push(Row::new(
        "a new tag: registry requests",
        count(update.registry_requests),
        0,
        "",
    ));
    rows.push(Row::new(
        "a new tag: reads of the stored tags",
        update.tag_list_reads,
        0,
        "",
    ));
    rows.push(resident("after it", &update.controller_memory));
    rows
}

fn count(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
