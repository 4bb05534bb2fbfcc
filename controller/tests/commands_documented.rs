//! Every `mintmark` command line in the documentation and in the help texts is one that the binary accepts: its subcommand
//! exists, its flags do, and none that is needed is left out. Values are not used.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test fail the test")]

use std::{fs, path::Path};

use clap::Command;

/// The command lines in a text: those that begin with `mintmark`, up to a pipe or a redirection.
fn lines(text: &str) -> Vec<String> {
    text.replace("\\\n", " ")
        .lines()
        .flat_map(|line| line.split('|'))
        .map(|line| line.split(" > ").next().unwrap_or_default().trim().to_owned())
        .filter(|line| line.starts_with("mintmark ") && !line.contains('…'))
        .collect()
}

/// The shell blocks of a page.
fn shell_blocks(page: &str) -> String {
    let blocks = page.split("```sh\n").skip(1);
    blocks.filter_map(|rest| rest.split("```").next()).collect()
}

fn pages(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

fn helps(command: &Command, found: &mut Vec<(String, String)>) {
    if let Some(help) = command.get_after_help() {
        found.push((command.get_name().to_owned(), help.to_string()));
    }
    for subcommand in command.get_subcommands() {
        helps(subcommand, found);
    }
}

fn check(place: &str, lines: &[String]) {
    for line in lines {
        if let Err(error) = mintmark::cli::command().try_get_matches_from(line.split_whitespace()) {
            panic!("{place}: {line}\n{error}");
        }
    }
}

#[test]
fn commands_in_the_documentation_are_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = vec![(
        "README.md".to_owned(),
        fs::read_to_string(root.join("README.md")).unwrap(),
    )];
    pages(&root.join("docs"), &mut found);
    let mut seen = 0;
    for (path, page) in found {
        let lines = lines(&shell_blocks(&page));
        seen += lines.len();
        check(&path, &lines);
    }
    assert!(seen > 5, "only {seen} command lines were found");
}

#[test]
fn examples_in_the_help_are_accepted() {
    let mut found = Vec::new();
    helps(&mintmark::cli::command(), &mut found);
    assert!(found.len() > 5, "only {} help texts have examples", found.len());
    for (command, help) in found {
        check(&command, &lines(&help));
    }
}
