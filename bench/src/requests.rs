//! HTTP/1.1 requests at a fixed rate: how late each answer is. A request that could not be sent in
//! time, because the answer before it was late, counts from when it was due.
//!
//! A thread per connection: the timers of tokio are no finer than a millisecond.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use crate::figures::Durations;

/// No answer takes longer, or the measurement fails.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// HOST:PORT
    #[arg(long)]
    endpoint: String,
    #[arg(long, default_value_t = 16)]
    connections: u32,
    /// Requests per second, over all connections
    #[arg(long)]
    rate: f64,
    /// Measured time, after a tenth of it to warm up
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    let period = Duration::from_secs_f64(f64::from(arguments.connections) / arguments.rate);
    let began = Instant::now() + Duration::from_millis(100);
    let measured_from = began + Duration::from_secs_f64(arguments.seconds / 10.0);
    let until = measured_from + Duration::from_secs_f64(arguments.seconds);
    let request = format!("GET / HTTP/1.1\r\nhost: {}\r\n\r\n", arguments.endpoint);
    let mut all = Durations::default();
    thread::scope(|scope| {
        let mut connections = Vec::new();
        for at in 0..arguments.connections {
            let stream = TcpStream::connect(&arguments.endpoint)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let connection = Connection {
                stream,
                request: request.as_bytes(),
                due: began + period * at / arguments.connections,
                period,
            };
            connections.push(scope.spawn(move || connection.run(measured_from, until)));
        }
        for connection in connections {
            let found = connection.join().ok();
            all.absorb(found.context("a connection panicked")??);
        }
        anyhow::Ok(())
    })?;
    let requests = all.len();
    let mut figures = all.percentiles();
    figures["requests"] = json!(requests);
    Ok(figures)
}

struct Connection<'a> {
    stream: TcpStream,
    request: &'a [u8],
    /// When the next request is.
    due: Instant,
    period: Duration,
}

impl Connection<'_> {
    fn run(mut self, measured_from: Instant, until: Instant) -> anyhow::Result<Durations> {
        let mut durations = Durations::default();
        let mut buffer = Vec::with_capacity(1024);
        while self.due < until {
            let early = self.due.saturating_duration_since(Instant::now());
            // Waking late is this program's fault; being late from the start is the proxy's.
            let from = if early.is_zero() {
                self.due
            } else {
                thread::sleep(early);
                Instant::now()
            };
            self.stream.write_all(self.request)?;
            self.answer(&mut buffer)?;
            if self.due >= measured_from {
                durations.add(from.elapsed());
            }
            self.due += self.period;
        }
        Ok(durations)
    }

    /// Reads one answer, which must be a 200 with a length.
    fn answer(&mut self, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
        buffer.clear();
        let mut piece = [0; 4096];
        loop {
            let read = self.stream.read(&mut piece)?;
            anyhow::ensure!(read > 0, "the connection ended");
            buffer.extend_from_slice(&piece[..read]);
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut fields);
            let httparse::Status::Complete(head_bytes) = head.parse(buffer)? else {
                continue;
            };
            anyhow::ensure!(head.code == Some(200), "answered with {:?}", head.code);
            let length = head
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case("content-length"))
                .context("an answer without content-length")?;
            let length: usize = std::str::from_utf8(length.value)?.parse()?;
            if buffer.len() >= head_bytes + length {
                return Ok(());
            }
        }
    }
}
