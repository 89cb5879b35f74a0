//! The command line as a whole.

use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_an_example() {
    fn check(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        if command.has_subcommands() {
            for command in command.get_subcommands() {
                check(command, &path);
            }
        } else {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("Example") && help.contains(path.trim()),
                "{path}"
            );
        }
    }
    for command in Cli::command().get_subcommands() {
        check(command, "skein");
    }
}

#[test]
fn the_format_of_usage_errors_is_found_in_every_spelling() {
    let format =
        |line: &str| asked_format(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
    for json in [
        "skein get -o json",
        "skein get -ojson",
        "skein --output=json",
        "skein --output json",
    ] {
        assert_eq!(format(json), Format::Json, "{json}");
    }
    for text in ["skein get", "skein get -o text", "skein put k -- -o json"] {
        assert_eq!(format(text), Format::Text, "{text}");
    }
}

#[test]
fn a_usage_error_names_the_fault_only() {
    let error = Cli::try_parse_from(["skein", "get", "a", "--limit", "0"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let fault = first_paragraph(&error);
    assert!(
        fault.contains("--limit") && !fault.contains("Usage"),
        "{fault}"
    );
}

#[test]
fn endpoints_are_a_list() {
    let cli = Cli::try_parse_from(["skein", "status", "--endpoints", "a:1,b:2"]).unwrap();
    let Command::Status(status) = cli.command else {
        panic!("not status")
    };
    assert_eq!(status.options.endpoints, ["a:1", "b:2"]);
}
