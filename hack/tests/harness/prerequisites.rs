use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use mintmark_hack::servers::PATHS_VARIABLE;

/// Runs `cargo xtask servers` with this `PATH` and an empty cache.
fn servers(path: &Path, cache: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("servers")
        .env_remove(PATHS_VARIABLE)
        .env("PATH", path)
        .env("MINTMARK_CACHE", cache)
        .output()
        .unwrap()
}

fn assert_one_line(output: &Output, parts: &[&str]) {
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_missing_go_is_one_line_that_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let output = servers(folder.path(), folder.path());
    assert_one_line(&output, &["there is no `go`", "install Go 1.26 or later"]);
}

#[test]
fn an_old_go_is_one_line_that_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    fs::write(&go, "#!/bin/sh\necho go version go1.25.4 linux/amd64\n").unwrap();
    fs::set_permissions(&go, fs::Permissions::from_mode(0o755)).unwrap();
    let output = servers(folder.path(), folder.path());
    assert_one_line(&output, &["go1.25.4", "install Go 1.26 or later"]);
}

#[test]
fn a_failed_build_shows_what_the_compiler_said_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let script =
        "#!/bin/sh\ncase $1 in version) echo go version go1.26.0 linux/amd64;; *) echo broken >&2; exit 1;; esac\n";
    fs::write(&go, script).unwrap();
    fs::set_permissions(&go, fs::Permissions::from_mode(0o755)).unwrap();
    let cache = folder.path().join("cache");
    let output = servers(folder.path(), &cache);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("broken"));
    let left: Vec<_> = fs::read_dir(cache.join("servers"))
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    assert_eq!(left, ["tools.lock"]);
}
