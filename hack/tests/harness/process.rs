use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    time::Duration,
};

use mintmark_hack::process::{Guard, Guarded};

/// Starts a shell that says its process id and then sleeps for an hour. Its standard output ends when it ends.
fn sleeper(folder: &Path, grace: Duration, script: &str) -> (Guarded, BufReader<std::process::ChildStdout>) {
    let log = folder.join("sleeper.log");
    let guard = Guard {
        name: "sleeper",
        log: &log,
        grace,
        remove: Some(folder),
        capture: true,
        environment: &[],
    };
    let mut child = guard.start(Path::new("/bin/sh"), ["-c", script]).unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, output)
}

fn quick(log: &Path) -> Guard<'_> {
    Guard {
        name: "sh",
        log,
        grace: Duration::from_secs(1),
        remove: None,
        capture: true,
        environment: &[],
    }
}

#[test]
fn a_child_ends_when_its_parent_lets_go() {
    let folder = tempfile::tempdir().unwrap().keep();
    let (child, mut output) = sleeper(&folder, Duration::from_secs(30), "echo ready; exec sleep 3600");
    drop(child);
    // Guard and child hold the pipe: its end is their end. Guard deletes the folder before it ends itself.
    output.read_to_end(&mut Vec::new()).unwrap();
    assert!(!folder.exists());
}

#[test]
fn a_child_that_ignores_sigterm_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let (child, mut output) = sleeper(folder.path(), Duration::from_millis(200), script);
    let status = child.stop().unwrap();
    assert_eq!(status.code(), Some(128 + 9));
    output.read_to_end(&mut Vec::new()).unwrap();
    assert!(folder.path().exists(), "only an abandoned child's folder is deleted");
}

#[test]
fn a_crash_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 1; done";
    let (child, mut output) = sleeper(folder.path(), Duration::from_hours(1), script);
    assert_eq!(child.kill().unwrap().code(), Some(128 + 9), "SIGKILL, not SIGTERM");
    output.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn the_environment_is_handed_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let guard = Guard {
        environment: &[("NAMESPACE", "here")],
        ..quick(&log)
    };
    let mut child = guard.start(Path::new("/bin/sh"), ["-c", "echo $NAMESPACE"]).unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "here\n");
}

#[test]
fn the_exit_code_is_handed_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let guard = quick(&log);
    let mut child = guard.start(Path::new("/bin/sh"), ["-c", "exit 7"]).unwrap();
    child.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(child.stop().unwrap().code(), Some(7));
}
