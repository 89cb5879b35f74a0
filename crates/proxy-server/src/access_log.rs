//! The access log: one JSON object per request, on its way to an output off the workers' path.
//!
//! Owns the buffers in between. A worker hands over whole buffers, at a size or at a tick, to one
//! writer thread; when that thread is behind, buffers are dropped and their lines counted. Never
//! blocks a worker.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

/// A worker hands its buffer over when it has so many bytes.
const BUFFER_BYTES: usize = 32 * 1024;
/// So many buffers may wait for the writer; more are dropped.
const QUEUE_BUFFERS: usize = 64;

/// A line in the making.
#[derive(Debug)]
pub(crate) struct Line(String);

impl Line {
    /// A line with its time stamp.
    pub(crate) fn new(time: &str) -> Self {
        let mut line = String::with_capacity(512);
        line.push_str("{\"time\":\"");
        line.push_str(time);
        line.push('"');
        Self(line)
    }

    /// Adds a text, escaped.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.0.push('"');
        for c in value.chars() {
            match c {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                c if c.is_control() => {
                    write!(self.0, "\\u{:04x}", u32::from(c)).expect("a String takes every write");
                }
                c => self.0.push(c),
            }
        }
        self.0.push('"');
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        write!(self.0, "{value}").expect("a String takes every write");
    }

    /// Adds a duration in milliseconds, to the microsecond.
    pub(crate) fn millis(&mut self, name: &str, value: Duration) {
        self.name(name);
        let millis = value.as_secs_f64() * 1000.0;
        write!(self.0, "{millis:.3}").expect("a String takes every write");
    }

    fn name(&mut self, name: &str) {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }
}

/// The way to the writer thread, shared by all workers.
#[derive(Debug, Clone)]
pub(crate) struct LogQueue {
    queue: SyncSender<Buffer>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
}

impl LogQueue {
    /// Starts the writer thread, which ends when the last queue is dropped.
    pub(crate) fn start(mut output: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let (queue, buffers) = sync_channel::<Buffer>(QUEUE_BUFFERS);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = dropped.clone();
        thread::Builder::new()
            .name("access-log".into())
            .spawn(move || {
                for buffer in buffers {
                    // Nobody reads the output any more, or the disk is full: traffic goes on.
                    if output.write_all(&buffer.bytes).is_err() || output.flush().is_err() {
                        lost.fetch_add(buffer.lines, Ordering::Relaxed);
                    }
                }
            })?;
        Ok(Self { queue, dropped })
    }

    /// Lines that were lost because the output did not keep up, or failed.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn hand_over(&self, buffer: Buffer) {
        if let Err(TrySendError::Full(buffer) | TrySendError::Disconnected(buffer)) =
            self.queue.try_send(buffer)
        {
            self.dropped.fetch_add(buffer.lines, Ordering::Relaxed);
        }
    }
}

/// A worker's buffer of lines.
#[derive(Debug)]
pub(crate) struct AccessLog {
    queue: LogQueue,
    buffer: RefCell<Buffer>,
}

impl AccessLog {
    pub(crate) fn new(queue: LogQueue) -> Self {
        Self {
            queue,
            buffer: RefCell::default(),
        }
    }

    /// Adds a line.
    pub(crate) fn write(&self, line: Line) {
        let mut buffer = self.buffer.borrow_mut();
        buffer.bytes.extend_from_slice(line.0.as_bytes());
        buffer.bytes.extend_from_slice(b"}\n");
        buffer.lines += 1;
        if buffer.bytes.len() >= BUFFER_BYTES {
            self.queue.hand_over(std::mem::take(&mut *buffer));
        }
    }

    /// Hands over what is there.
    pub(crate) fn flush(&self) {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.lines > 0 {
            self.queue.hand_over(std::mem::take(&mut *buffer));
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// Blocks in its first write until it is told to go on.
    struct Slow(Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.recv().ok();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_json_whatever_is_in_them() {
        let mut line = Line::new("now");
        line.text("a", "q\"b\\s\n\u{1}é");
        line.number("n", 7);
        line.millis("d", Duration::from_micros(1500));
        let parsed: serde_json::Value = serde_json::from_str(&format!("{}}}", line.0)).unwrap();
        assert_eq!(parsed["a"], "q\"b\\s\n\u{1}é");
        assert_eq!((&parsed["n"], &parsed["d"]), (&7.into(), &1.5.into()));
    }

    #[test]
    fn a_slow_output_loses_lines_and_counts_them_but_blocks_nobody() {
        let (go, wait) = channel();
        let queue = LogQueue::start(Box::new(Slow(wait))).unwrap();
        let log = AccessLog::new(queue.clone());
        let buffers = QUEUE_BUFFERS as u64 + 10;
        for _ in 0..buffers {
            log.write(Line::new("now"));
            log.flush();
        }
        // One buffer may be in the writer's hands.
        assert!((9..=10).contains(&queue.dropped()), "{}", queue.dropped());
        drop(go);
    }
}
