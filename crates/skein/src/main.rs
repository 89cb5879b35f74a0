//! The `skein` binary.
//!
//! Owns the process: its allocator, its arguments and its exit code. Never does the work: commands
//! do, each in a module of its own.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

mod age;
mod apply;
mod auth;
mod changes;
mod cli;
mod completions;
mod config;
mod demo;
mod documents;
mod downgrade;
mod escape;
mod explain;
mod failure;
mod graph;
mod in_force;
mod keygen;
mod keys;
mod line_diff;
mod manifest;
mod member;
mod members;
mod node;
mod options;
mod output;
mod peers;
mod recover;
mod register;
mod role;
mod row;
mod session;
mod snapshot;
mod status;
mod table;
mod user;
mod validate;
mod watch;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match cli::Cli::try_parse_from(&arguments) {
        Ok(cli) => cli.command.run(),
        Err(error) => cli::explain_usage(&error, &arguments),
    }
}
