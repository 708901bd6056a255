//! What can be typed, and what is said of it: help, hints and documents name only commands that are there.

use std::path::{Path, PathBuf};

use clap::{Command as Clap, CommandFactory as _};

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_of_every_command_has_examples_that_can_be_typed() {
    each_command(&Cli::command(), &mut |command| {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let examples = typed_in(&help);

        assert!(!examples.is_empty(), "no example in the help of `{}`", command.get_name());
        for example in examples {
            check(&example);
        }
    });
}

#[test]
fn the_commands_of_the_readme_can_be_typed() {
    let examples = typed_in(include_str!("../../../../README.md"));

    assert!(examples.len() >= 5, "{examples:#?}");
    for example in examples {
        check(&example);
    }
}

#[test]
fn the_metrics_of_the_readme_are_counted_somewhere() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["switch/src", "background-channel/src", "client/src", "deploy/service/src"] {
        walk(&repository.join(folder), &mut files);
    }
    let code: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let readme = include_str!("../../../../README.md");

    let named: Vec<&str> = readme.split('`').filter(|word| word.starts_with("muster_")).collect();

    assert!(named.len() >= 5, "{named:?}");
    for name in named {
        assert!(code.contains(&format!("\"{name}\"")), "{name}");
    }
}

#[test]
fn every_command_that_a_text_names_exists() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    walk(&repository.join("deploy/muster/src"), &mut files);
    files.extend(
        ["README.md", "SECURITY.md", "PROTOCOL.md", "deploy/README.md"].map(|file| repository.join(file)),
    );
    let known = Cli::command();

    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // A command stands in backticks, or begins a hint.
        for mentioned in ["`muster ", "\"muster ", "or: muster ", "or   muster "] {
            for (at, _) in text.match_indices(mentioned) {
                let words = &text[at + mentioned.len()..];
                assert!(exists(&known, words), "{}: muster {words:.40}", file.display());
            }
        }
    }
}

/// Whether the words begin with commands that are there; an option or a value ends them.
fn exists(command: &Clap, words: &str) -> bool {
    let length = words.find(|letter: char| !letter.is_ascii_lowercase()).unwrap_or(words.len());
    let (word, rest) = words.split_at(length);
    if word.is_empty() || command.get_subcommands().next().is_none() {
        return true;
    }
    let found = command.find_subcommand(word);
    found.is_some_and(|found| rest.strip_prefix(' ').is_none_or(|rest| exists(found, rest)))
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // This file is about commands that do not exist.
        if path.is_dir() {
            walk(&path, files);
        } else if !path.ends_with("cli/tests.rs") {
            files.push(path);
        }
    }
}

fn each_command(command: &Clap, visit: &mut impl FnMut(&Clap)) {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        visit(inner);
        each_command(inner, visit);
    }
}

/// The lines of a text that are commands of ours, whole, without the remarks and the pipes behind them.
fn typed_in(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with("muster "));
    let command = |line: &str| {
        let end = ["    (", "   #", " > ", " | "].iter().filter_map(|mark| line.find(mark)).min();
        line[..end.unwrap_or(line.len())].to_owned()
    };
    lines.map(command).collect()
}

fn check(example: &str) {
    let words = shell_words(example);
    if let Err(error) = Cli::try_parse_from(words) {
        panic!("{example}\n{error}");
    }
}

/// Splits as a shell does; quotes and their contents are enough here.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == letter => quote = None,
            (None, ' ') => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn the_help_names_every_role_that_the_development_ca_issues_for() {
    let cli = Cli::command();
    let pki = cli.find_subcommand("pki").unwrap();
    for verb in ["issue", "check"] {
        let command = pki.find_subcommand(verb).unwrap();
        let role = command.get_arguments().find(|argument| argument.get_id() == "role").unwrap();
        let help = role.get_help().unwrap().to_string();
        let named: Vec<&str> = help.split(", ").collect();

        for (role, _) in crate::pki_home::ROLES {
            let is_named = |name: &&str| name.parse::<muster_pki::Role>() == Ok(role);
            assert!(named.iter().any(is_named), "`muster pki {verb} --help` does not name {role}: {help}");
        }
    }
}
