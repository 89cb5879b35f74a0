//! An upstream that names itself in every answer and can die and return.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A running upstream: HTTP/1.1 with keep-alive; `/healthz` answers too.
pub(crate) struct Upstream {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    name: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    requests: AtomicUsize,
    connections: AtomicUsize,
    sick: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Upstream {
    /// An upstream called `name` at `address` (port 0: any).
    pub(crate) fn start(name: &str, address: impl Into<SocketAddr>) -> Self {
        let listener = TcpListener::bind(address.into()).expect("the upstream's address is free");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let (shared, name) = (Arc::clone(&shared), name.to_owned());
            move || accept(&listener, &shared, &name)
        });
        Self {
            address,
            name: name.to_owned(),
            shared,
            thread: Some(thread),
        }
    }

    /// Requests answered so far, probes not among them.
    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Connections accepted so far, probes among them.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// From now on probes are answered 503; requests are answered as before.
    pub(crate) fn fall_sick(&self) {
        self.shared.sick.store(true, Ordering::Relaxed);
    }

    /// Closes the listener and cuts all connections.
    pub(crate) fn die(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the upstream ends");
        }
        for stream in self.shared.open.lock().expect("not poisoned").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Listens again at the same address.
    pub(crate) fn revive(&mut self) {
        *self = Self::start(&self.name.clone(), self.address);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.die();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, name: &str) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let (shared, name) = (Arc::clone(shared), name.to_owned());
        if let Ok(copy) = stream.try_clone() {
            shared.open.lock().expect("not poisoned").push(copy);
        }
        std::thread::spawn(move || serve(stream, &shared, &name));
    }
}

fn serve(mut stream: TcpStream, shared: &Shared, name: &str) {
    let Ok(copy) = stream.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match reader.read_line(&mut head) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let length = head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<u64>().ok())?
        });
        let mut body = Vec::new();
        if reader
            .by_ref()
            .take(length.unwrap_or(0))
            .read_to_end(&mut body)
            .is_err()
        {
            return;
        }
        let path = head.split(' ').nth(1).unwrap_or("/");
        let is_probe = path == "/healthz";
        if !is_probe {
            shared.requests.fetch_add(1, Ordering::Relaxed);
        }
        let status = match is_probe && shared.sick.load(Ordering::Relaxed) {
            true => "503 Sick",
            false => "200 OK",
        };
        let text = format!("{name} {path} {}\n", body.len());
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
