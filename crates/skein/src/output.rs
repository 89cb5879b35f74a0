//! The only way to standard output and standard error.
//!
//! Owns the two formats and what a failure looks like in each. Never knows what is reported: each
//! command brings a [`Report`].

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::failure::{Failure, FaultLine, Kind};

/// How results and errors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: the fields in docs/cli.md.
    Json,
}

/// A result that can be shown in both formats; the JSON form is its serialization.
pub(crate) trait Report: Serialize {
    /// Writes the form for people, whole lines only.
    fn text(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Where a command writes.
pub(crate) struct Output<'a> {
    format: Format,
    out: Box<dyn Write + 'a>,
    notes: Box<dyn Write + 'a>,
    /// Somebody watches the notes, on a terminal.
    watched: bool,
}

impl Output<'static> {
    /// The process's own standard output and standard error.
    pub(crate) fn standard(format: Format) -> Self {
        let notes = io::stderr();
        let watched = notes.is_terminal();
        Self {
            watched,
            ..Self::new(format, io::BufWriter::new(io::stdout()), notes)
        }
    }
}

impl<'a> Output<'a> {
    /// Results go to `out`; progress and errors go to `notes`.
    pub(crate) fn new(format: Format, out: impl Write + 'a, notes: impl Write + 'a) -> Self {
        Self {
            format,
            out: Box::new(out),
            notes: Box::new(notes),
            watched: false,
        }
    }

    /// The format asked for.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Shows a command's one result.
    pub(crate) fn show(&mut self, report: &impl Report) -> Result<(), Failure> {
        match self.format {
            Format::Text => report.text(&mut *self.out)?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut *self.out, report).map_err(io::Error::from)?;
                self.out.write_all(b"\n")?;
            }
        }
        Ok(self.out.flush()?)
    }

    /// Shows one of many results as soon as it is there: in JSON, one object per line.
    pub(crate) fn stream(&mut self, report: &impl Report) -> Result<(), Failure> {
        match self.format {
            Format::Text => report.text(&mut *self.out)?,
            Format::Json => {
                serde_json::to_writer(&mut *self.out, report).map_err(io::Error::from)?;
                self.out.write_all(b"\n")?;
            }
        }
        Ok(self.out.flush()?)
    }

    /// Writes bytes that have one form only (a schema, a raw value, a completion script).
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes)?;
        Ok(self.out.flush()?)
    }

    /// Tells people about progress; programs hear nothing. That nobody listens is no failure.
    pub(crate) fn note(&mut self, line: &str) {
        if self.format == Format::Text {
            let _ = writeln!(self.notes, "{line}");
        }
    }

    /// Shows how far something is, in place of what was shown before; `""` removes it. Only on a
    /// terminal.
    pub(crate) fn progress(&mut self, line: &str) {
        if self.format == Format::Text && self.watched {
            let _ = write!(self.notes, "\r\x1b[K{line}");
            let _ = self.notes.flush();
        }
    }

    /// Ends a command: says why it failed, if it did, and gives the exit code.
    pub(crate) fn finish(&mut self, result: Result<(), Failure>) -> ExitCode {
        let Err(failure) = result else {
            return ExitCode::SUCCESS;
        };
        // What was written before the failure still belongs to the reader, if there is one.
        let _ = self.out.flush();
        if failure.kind != Kind::OutputClosed {
            let _ = self.write_failure(&failure);
        }
        ExitCode::from(failure.kind.exit_code())
    }

    fn write_failure(&mut self, failure: &Failure) -> io::Result<()> {
        if self.format == Format::Json {
            serde_json::to_writer(&mut *self.notes, &ErrorReport::of(failure))?;
            return self.notes.write_all(b"\n");
        }
        writeln!(self.notes, "skein: {}", failure.message)?;
        for fault in &failure.faults {
            writeln!(self.notes, "  {}", fault.text)?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct ErrorReport<'a> {
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    kind: Kind,
    exit_code: u8,
    message: &'a str,
    faults: &'a [FaultLine],
}

impl<'a> ErrorReport<'a> {
    fn of(failure: &'a Failure) -> Self {
        Self {
            error: ErrorBody {
                kind: failure.kind,
                exit_code: failure.kind.exit_code(),
                message: &failure.message,
                faults: &failure.faults,
            },
        }
    }
}

/// What a report looks like in both formats, for the tests of the reports.
#[cfg(test)]
pub(crate) fn rendered(report: &impl Report) -> (String, serde_json::Value) {
    let mut text = Vec::new();
    report.text(&mut text).unwrap();
    (
        String::from_utf8(text).unwrap(),
        serde_json::to_value(report).unwrap(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Serialize)]
    struct Answer {
        value: u8,
    }

    impl Report for Answer {
        fn text(&self, out: &mut dyn Write) -> io::Result<()> {
            writeln!(out, "the answer is {}", self.value)
        }
    }

    fn refused() -> Failure {
        Failure::refused(vec![FaultLine {
            text: "a.yaml:3:1: Listener edge: bind: bad; good".into(),
            file: Some("a.yaml".into()),
            line: Some(3),
            column: Some(1),
            ..Default::default()
        }])
    }

    #[test]
    fn a_broken_pipe_ends_quietly_in_both_formats() {
        for format in [Format::Text, Format::Json] {
            let mut notes = Vec::new();
            let mut output = Output::new(format, Gone, &mut notes);
            let result = output.show(&Answer { value: 42 });
            assert_eq!(output.finish(result), ExitCode::SUCCESS);
            drop(output);
            assert!(notes.is_empty());
        }
    }

    #[test]
    fn failures_are_text_or_one_json_line_on_the_notes() {
        let mut notes = Vec::new();
        Output::new(Format::Text, io::sink(), &mut notes).finish(Err(refused()));
        assert_eq!(
            String::from_utf8(notes).unwrap(),
            "skein: config refused; nothing was changed\n  a.yaml:3:1: Listener edge: bind: bad; good\n"
        );

        let mut notes = Vec::new();
        Output::new(Format::Json, io::sink(), &mut notes).finish(Err(refused()));
        let line: serde_json::Value = serde_json::from_slice(&notes).unwrap();
        assert_eq!(
            line,
            serde_json::json!({"error": {
                "kind": "refused",
                "exit_code": 3,
                "message": "config refused; nothing was changed",
                "faults": [{
                    "text": "a.yaml:3:1: Listener edge: bind: bad; good",
                    "file": "a.yaml", "line": 3, "column": 1,
                }],
            }})
        );
        assert_eq!(notes.iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn notes_are_for_people_only() {
        let mut notes = Vec::new();
        Output::new(Format::Json, io::sink(), &mut notes).note("working");
        assert!(notes.is_empty());
        Output::new(Format::Text, io::sink(), &mut notes).note("working");
        assert_eq!(notes, b"working\n");
    }

    #[test]
    fn a_stream_has_one_object_per_line() {
        let mut out = Vec::new();
        let mut output = Output::new(Format::Json, &mut out, io::sink());
        output.stream(&Answer { value: 1 }).unwrap();
        output.stream(&Answer { value: 2 }).unwrap();
        drop(output);
        assert_eq!(out, b"{\"value\":1}\n{\"value\":2}\n");
    }
}
