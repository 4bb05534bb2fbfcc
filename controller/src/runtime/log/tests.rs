use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn json(&self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn logged(level: LogLevel, encoding: LogEncoding, work: impl FnOnce()) -> Lines {
    let lines = Lines::default();
    tracing::subscriber::with_default(subscriber(level, encoding, lines.clone()), work);
    lines
}

#[test]
fn a_line_has_the_fields_flux_reads() {
    let lines = logged(LogLevel::Info, LogEncoding::Json, || {
        let span = tracing::info_span!(
            "pass",
            controllerKind = "OCIRepository",
            name = "app",
            namespace = "team",
            pass = 1
        );
        let _entered = span.enter();
        let error = io::Error::other("connection refused");
        tracing::error!(
            error = &error as &dyn std::error::Error,
            pass = 2,
            "reconciliation \"failed\"\nagain"
        );
    });
    let line = &lines.json()[0];
    assert_eq!(lines.text().lines().count(), 1);
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "reconciliation \"failed\"\nagain");
    assert_eq!(line["error"], "connection refused");
    assert_eq!(line["controllerKind"], "OCIRepository");
    assert_eq!(line["name"], "app");
    assert_eq!(line["namespace"], "team");
    assert_eq!(line["pass"], 2, "the inner field wins, and stays a number");
    let ts = line["ts"].as_str().unwrap();
    assert_eq!(ts.len(), "2026-11-22T18:45:14.123Z".len());
    ts.parse::<jiff::Timestamp>().unwrap();
}

#[test]
fn recorded_span_fields_appear() {
    let lines = logged(LogLevel::Info, LogEncoding::Json, || {
        let span = tracing::info_span!("pass", revision = tracing::field::Empty);
        let _entered = span.enter();
        span.record("revision", "latest");
        tracing::info!("done");
    });
    assert_eq!(lines.json()[0]["revision"], "latest");
}

#[test]
fn causes_of_an_error_are_written() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot pull")]
    struct Outer(#[source] io::Error);
    let lines = logged(LogLevel::Info, LogEncoding::Json, || {
        let error = Outer(io::Error::other("reset by peer"));
        tracing::info!(error = &error as &dyn std::error::Error, "x");
    });
    assert_eq!(lines.json()[0]["error"], "cannot pull: reset by peer");
}

#[test]
fn fields_cannot_take_the_place_of_the_lines_own() {
    let lines = logged(LogLevel::Info, LogEncoding::Json, || {
        tracing::info!(level = "error", ts = "never", msg = "forged", "true");
    });
    let line = &lines.json()[0];
    assert_eq!(
        (line["level"].as_str(), line["msg"].as_str()),
        (Some("info"), Some("true"))
    );
    assert_eq!(line["field.ts"], "never");
    assert_eq!(lines.text().matches("\"level\":").count(), 1);
}

#[test]
fn the_level_decides_except_for_audit() {
    let work = || {
        tracing::debug!("debug");
        tracing::info!("info");
        tracing::error!("error");
        tracing::info!(target: AUDIT, "audit");
    };
    let messages = |level| {
        let lines = logged(level, LogEncoding::Json, work).json();
        lines
            .iter()
            .map(|line| line["msg"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(messages(LogLevel::Error), ["error", "audit"]);
    assert_eq!(messages(LogLevel::Info), ["info", "error", "audit"]);
    assert_eq!(messages(LogLevel::Debug), ["debug", "info", "error", "audit"]);
}

#[test]
fn libraries_never_write_their_details() {
    let lines = logged(LogLevel::Trace, LogEncoding::Json, || {
        tracing::debug!(target: "hyper::proto::h1", "authorization: Bearer abcdefghijklmnopqrst");
        tracing::warn!(target: "reqwest::connect", "header");
        tracing::info!(target: "kube_client::client", "request");
        tracing::trace!(target: "some_library", "detail");
        tracing::warn!(target: "some_library", "important");
    });
    let messages: Vec<_> = lines.json().iter().map(|line| line["msg"].clone()).collect();
    assert_eq!(messages, ["important"]);
}

#[test]
fn secrets_are_removed_from_messages_fields_errors_and_spans() {
    let token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
    for encoding in [LogEncoding::Json, LogEncoding::Console] {
        let lines = logged(LogLevel::Info, encoding, || {
            let _entered = tracing::info_span!("pass", header = format!("Bearer {token}")).entered();
            let error = io::Error::other(format!("refused {token}"));
            tracing::info!(error = &error as &dyn std::error::Error, debug = ?vec![token], plain = token, "{token}");
        });
        assert!(!lines.text().contains("c2lnbmF0dXJl"), "{}", lines.text());
        assert!(lines.text().matches("[redacted]").count() >= 5, "{}", lines.text());
    }
}

#[test]
fn console_lines_are_one_line_each() {
    let lines = logged(LogLevel::Info, LogEncoding::Console, || {
        tracing::info!(name = "app", count = 3, note = "two words", "first\nsecond");
    });
    let text = lines.text();
    assert_eq!(text.lines().count(), 1);
    assert!(
        text.contains(r#" INFO  first\nsecond name=app count=3 note="two words""#),
        "{text}"
    );
}
