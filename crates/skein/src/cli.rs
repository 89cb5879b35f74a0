//! The command line: which commands there are, what `--help` teaches, and who runs each.
//!
//! Owns names and examples. Never does a command's work.

mod access;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::access::{AuthCommand, RoleCommand, UserCommand};
use crate::apply::Apply;
use crate::completions::Completions;
use crate::config;
use crate::demo::Demo;
use crate::demo::upstream::Upstream;
use crate::downgrade::DowngradeCommand;
use crate::explain::Explain;
use crate::failure::Failure;
use crate::graph::GraphCommand;
use crate::keygen::Keygen;
use crate::keys::{Del, Get, Put};
use crate::member;
use crate::members::Members;
use crate::node::Node;
use crate::options::Options;
use crate::output::{Format, Output};
use crate::peers::Peers;
use crate::recover::Recover;
use crate::register::Register;
use crate::session::{self, MeshCommand};
use crate::snapshot::SnapshotCommand;
use crate::status::Status;
use crate::validate::{self, Validate};
use crate::watch::Watch;

/// A mesh of plain machines that stores its config, shares its health and proxies its traffic
#[derive(Debug, Parser)]
#[command(name = "skein", version = telemetry::VERSION, max_term_width = 100)]
#[command(after_help = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 refused (the config is not valid, or the quorum would be
endangered), 4 not found.
SKEIN_ENDPOINTS=10.0.0.1:2379,10.0.0.2:2379 saves typing --endpoints; SKEIN_CACERT, SKEIN_CERT and
SKEIN_KEY name the files of TLS.")]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A command that talks to a mesh, with the options that all of those have.
#[derive(Debug, Args)]
pub(crate) struct Remote<C: Args> {
    #[command(flatten)]
    command: C,
    #[command(flatten)]
    options: Options,
}

/// Every command.
#[derive(Debug, Subcommand)]
#[allow(
    clippy::large_enum_variant,
    reason = "one is made per process: their sizes do not matter"
)]
pub(crate) enum Command {
    /// Run a node: store, mesh and proxy in one process
    #[command(after_help = "\
Examples:
  skein node                                                   # a mesh of one on this machine
  skein node --bootstrap-expect 3 --join 10.0.0.1:7946,10.0.0.2:7946,10.0.0.3:7946 \\
      --gossip-key-file gossip.key …                           # the same on each of three machines
  skein node --join 10.0.0.1:7946 --gossip-key-file gossip.key # one more
  skein node --config node.yaml                                # the same names in a file

Started again on its data directory, a node just continues. SIGTERM drains it. Log lines go to stderr;
SKEIN_LOG filters them (`info,openraft=debug`).")]
    Node(Node),

    /// Try a mesh of three nodes on this machine, with traffic
    #[command(after_help = "\
Examples:
  skein demo                   # then follow the screen; Ctrl-C ends and removes everything
  skein demo --dir /tmp/mesh   # keep data, logs and demo.json
  skein demo --smoke           # play the whole story unattended and check it")]
    Demo(Demo),

    /// A tiny upstream of the demo
    #[command(
        hide = true,
        after_help = "Example:\n  skein upstream --name blue --listen 127.0.0.1:18081"
    )]
    Upstream(Upstream),

    /// Write a key
    #[command(after_help = "\
Examples:
  skein put greeting hello
  skein put app/logo - < logo.png      # any bytes, from standard input")]
    Put(Remote<Put>),

    /// Read a key, or the keys with a prefix
    #[command(after_help = "\
Examples:
  skein get greeting
  skein get app/ --prefix --keys-only
  skein get greeting --rev 12          # as it was at revision 12

One key is shown as its value, several as KEY<tab>VALUE. Bytes that are no text are shown as \\xNN;
--print-value-only writes them as they are.")]
    Get(Remote<Get>),

    /// Delete a key, or the keys with a prefix
    #[command(after_help = "\
Examples:
  skein del greeting
  skein del app/ --prefix")]
    Del(Remote<Del>),

    /// Print changes of keys as they happen, until interrupted
    #[command(after_help = "\
Examples:
  skein watch app/ --prefix
  skein watch greeting --rev 12 -o json    # all since revision 12, one JSON object per line")]
    Watch(Remote<Watch>),

    /// Make documents the mesh's config: all of them, or none
    #[command(after_help = "\
Examples:
  skein apply -f shop.yaml
  skein apply -f config/ --dry-run     # check against the mesh and show what would change
  skein apply -f config/ --wait        # until every live node runs it
  sed s/v1/v2/ shop.yaml | skein apply -f -

Resources that are in no document stay as they are. A config that is not valid is refused with every
fault, its place and its remedy, exit code 3; nothing changes then.")]
    Apply(Remote<Apply>),

    /// Look at, compare, check and delete config resources
    #[command(subcommand)]
    Config(ConfigCommand),

    /// Show every node: role, config state, listeners, faults
    #[command(after_help = "\
Examples:
  skein status
  skein status -o json | jq '.nodes[] | select(.state != \"SYNCED\")'

States: SYNCED runs the newest config, STALE has been behind for more than 2 s, REFUSED kept the
previous version of a resource (the faults are shown), DOWN is dead or left.")]
    Status(Remote<Status>),

    /// Show the members of the store (Raft)
    #[command(after_help = "\
Example:
  skein members")]
    Members(Remote<Members>),

    /// Look at and change the members of the store (Raft)
    #[command(subcommand)]
    Member(MemberCommand),

    /// Save the store as one file, and look at such files
    #[command(subcommand)]
    Snapshot(SnapshotCommand),

    /// Make a new mesh from what one node has left, after the loss of the quorum
    #[command(after_help = "\
Examples:
  skein recover --data-dir /var/lib/skein          # what is there, what may be lost; then asks
  skein recover --data-dir /var/lib/skein --yes

For the stopped node that has most, when a majority of the voters will never come back. Refused, exit
code 3, while the members that answer could be a quorum. What was there before is kept in a folder
beside the new content. The other nodes then join with empty data directories.")]
    Recover(Recover),

    /// Go back to the minor version before, node by node
    #[command(subcommand)]
    Downgrade(DowngradeCommand),

    /// Switch on and off that callers are asked who they are
    #[command(subcommand)]
    Auth(AuthCommand),

    /// Look at and change users
    #[command(subcommand)]
    User(UserCommand),

    /// Look at and change roles: what their users may do with which keys
    #[command(subcommand)]
    Role(RoleCommand),

    /// Show everyone the gossip knows
    #[command(after_help = "\
Example:
  skein peers")]
    Peers(Remote<Peers>),

    /// Show the config in force as a dataflow graph
    #[command(after_help = "\
Examples:
  skein graph
  skein graph --format dot | dot -Tsvg > mesh.svg")]
    Graph(Remote<GraphCommand>),

    /// Show what a node would do with a request, without sending one
    #[command(after_help = "\
Examples:
  skein explain http://shop.example.com:8080/api/items
  skein explain http://127.0.0.1:8080/api --host shop.example.com -H 'x-tenant: blue' --node n2")]
    Explain(Remote<Explain>),

    /// Make an endpoint part of a service, for as long as this runs
    #[command(after_help = "\
Examples:
  skein register web 10.0.0.7:8000                 # until Ctrl-C or SIGTERM: then it is gone at once
  skein register web 10.0.0.7:8000 --weight 2 --zone b --label version=v2 --ttl 30s

Every cluster with `service: web` uses it. The key is bound to a lease, so it goes by itself when this
machine does; any etcd client can do the same.")]
    Register(Remote<Register>),

    /// Make a new gossip key
    #[command(after_help = "\
Example:
  skein keygen -o gossip.key           # then copy it to every node and pass --gossip-key-file")]
    Keygen(Keygen),

    /// Print a completion script for a shell
    #[command(after_help = "\
Example:
  skein completions bash > /etc/bash_completion.d/skein")]
    Completions(Completions),
}

/// Every command about config resources.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show one resource as YAML
    #[command(after_help = "\
Examples:
  skein config get VirtualHost shop
  skein config get cluster api --namespace team-a -o json")]
    Get(Remote<config::Get>),

    /// List the resources
    #[command(after_help = "\
Examples:
  skein config list
  skein config list cluster --namespace team-a")]
    List(Remote<config::List>),

    /// Delete one resource; refused when another still refers to it
    #[command(after_help = "\
Example:
  skein config delete Cluster api")]
    Delete(Remote<config::Delete>),

    /// Show what applying documents would change, by comparing only
    #[command(after_help = "\
Example:
  skein config diff -f config/

`skein apply --dry-run` also checks the documents against the mesh.")]
    Diff(Remote<config::Diff>),

    /// Write all resources as YAML that `skein apply` takes back
    #[command(after_help = "\
Examples:
  skein config export > mesh.yaml
  skein config export --namespace team-a > team-a.yaml")]
    Export(Remote<config::Export>),

    /// Check documents without a mesh, as if they were the whole config
    #[command(after_help = "\
Example:
  skein config validate -f config/     # exit code 3 and every fault if they are not valid")]
    Validate(Validate),

    /// Write the JSON Schema of all kinds, for editors
    #[command(after_help = "\
Example:
  skein config schema > skein.schema.json
Then begin a document with: # yaml-language-server: $schema=skein.schema.json")]
    Schema,
}

/// Every command about the store's members. They come by `skein node --join`.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// Show the members, as `skein members` does
    #[command(after_help = "\
Example:
  skein member list")]
    List(Remote<Members>),

    /// Remove a member for good; refused where the others could not write without it
    #[command(after_help = "\
Examples:
  skein member remove n3
  skein member remove 3f2a90c1d4e5b677 -o json

A node that lives goes on serving the config that it has. Its id never becomes a member again: with an
empty data directory it joins as a new one. The leader hands over before it is removed. A dead node
that comes back empty under its old name takes its place by itself: nothing is to be removed then.")]
    Remove(Remote<member::Remove>),

    /// Give a learner its vote; learners that have caught up get it by themselves
    #[command(after_help = "\
Example:
  skein member promote n4")]
    Promote(Remote<member::Promote>),

    /// Hand leadership to another voter
    #[command(after_help = "\
Example:
  skein member move-leader n2          # before work on the machine that leads")]
    MoveLeader(Remote<member::MoveLeader>),
}

impl Command {
    /// Runs the command to its end.
    pub(crate) fn run(self) -> ExitCode {
        match self {
            Self::Node(command) => command.run(&mut Output::standard(Format::Text)),
            Self::Demo(command) => local(Format::Text, |output| command.run(output)),
            Self::Upstream(command) => local(Format::Text, |_| Ok(command.run()?)),
            Self::Put(command) => command.run(),
            Self::Get(command) => command.run(),
            Self::Del(command) => command.run(),
            Self::Watch(command) => command.run(),
            Self::Apply(command) => command.run(),
            Self::Config(command) => command.run(),
            Self::Status(command) => command.run(),
            Self::Members(command) => command.run(),
            Self::Member(command) => command.run(),
            Self::Snapshot(command) => command.run(),
            Self::Recover(command) => local(command.output, |output| command.run(output)),
            Self::Downgrade(command) => command.run(),
            Self::Auth(command) => command.run(),
            Self::User(command) => command.run(),
            Self::Role(command) => command.run(),
            Self::Peers(command) => command.run(),
            Self::Graph(command) => command.run(),
            Self::Explain(command) => command.run(),
            Self::Register(command) => command.run(),
            Self::Keygen(command) => local(Format::Text, |output| command.run(output)),
            Self::Completions(command) => local(Format::Text, |output| command.run(output)),
        }
    }
}

impl ConfigCommand {
    fn run(self) -> ExitCode {
        match self {
            Self::Get(command) => command.run(),
            Self::List(command) => command.run(),
            Self::Delete(command) => command.run(),
            Self::Diff(command) => command.run(),
            Self::Export(command) => command.run(),
            Self::Validate(command) => local(command.output, |output| command.run(output)),
            Self::Schema => local(Format::Text, validate::write_schema),
        }
    }
}

impl MemberCommand {
    fn run(self) -> ExitCode {
        match self {
            Self::List(command) => command.run(),
            Self::Remove(command) => command.run(),
            Self::Promote(command) => command.run(),
            Self::MoveLeader(command) => command.run(),
        }
    }
}

impl<C: Args + MeshCommand> Remote<C> {
    /// Runs the command with a session of its own.
    pub(crate) fn run(self) -> ExitCode {
        let mut output = Output::standard(self.options.output);
        let result = session::run(self.command, &self.options, &mut output);
        output.finish(result)
    }
}

/// Runs a command that needs no mesh.
pub(crate) fn local(
    format: Format,
    command: impl FnOnce(&mut Output<'_>) -> Result<(), Failure>,
) -> ExitCode {
    let mut output = Output::standard(format);
    let result = command(&mut output);
    output.finish(result)
}

/// Shows help, or says what is wrong with the command line.
pub(crate) fn explain_usage(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if error.use_stderr() && asked_format(arguments) == Format::Json {
        return Output::standard(Format::Json).finish(Err(Failure::usage(first_paragraph(error))));
    }
    // Whether anybody reads it changes nothing about how the command ends.
    let _ = error.print();
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// What is wrong, without the usage that follows.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let fault = text.split("\n\n").next().unwrap_or_default();
    fault
        .strip_prefix("error: ")
        .unwrap_or(fault)
        .trim()
        .to_owned()
}

/// The format of errors when the command line could not be parsed as a whole.
fn asked_format(arguments: &[OsString]) -> Format {
    let options: Vec<&OsStr> = arguments
        .iter()
        .map(OsString::as_os_str)
        .take_while(|argument| *argument != "--")
        .collect();
    let apart = options
        .windows(2)
        .any(|pair| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json");
    let together = ["-ojson", "-o=json", "--output=json"];
    let joined = options
        .iter()
        .any(|option| together.iter().any(|form| option == form));
    if apart || joined {
        Format::Json
    } else {
        Format::Text
    }
}

#[cfg(test)]
mod tests;
