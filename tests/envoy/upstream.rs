//! An upstream that notes every byte which reaches it, and answers what a case says.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::message::{Body, Head, Message, read_body, read_head};
use crate::harness::until;

/// What the upstream does with a request.
#[derive(Debug, Clone)]
pub(super) struct Script {
    /// Answers before it has read the body.
    pub(super) early: bool,
    pub(super) answer: Vec<u8>,
    /// Ends the connection behind the answer.
    pub(super) closes: bool,
}

#[derive(Default)]
struct Shared {
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    /// Counts the cases: what still comes of an old one is not noted.
    case: usize,
    script: Option<Script>,
    seen: Vec<Message>,
    /// Requests whose end has not come.
    open: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().expect("not poisoned")
    }
}

/// A running upstream. It ends with the process.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Upstream {
    pub(super) fn start(ip: IpAddr) -> Self {
        let listener = TcpListener::bind((ip, 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// From now on requests are answered so, and those before are forgotten.
    pub(super) fn expect(&self, script: &Script) {
        let mut noted = self.shared.lock();
        let case = noted.case + 1;
        *noted = Noted {
            case,
            script: Some(script.clone()),
            ..Noted::default()
        };
    }

    /// The requests so far, once none is under way any more.
    pub(super) fn seen(&self) -> Vec<Message> {
        until("the upstream is done", || self.shared.lock().open == 0);
        self.shared.lock().seen.clone()
    }
}

/// Serves a connection until it ends.
fn serve(mut stream: TcpStream, shared: &Shared) {
    // A body that does not come whole is over by then.
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut buffer = Vec::new();
    while let Some(head) = read_patiently(&mut stream, &mut buffer) {
        let (case, script) = {
            let mut noted = shared.lock();
            noted.open += 1;
            (noted.case, noted.script.clone())
        };
        let Some(script) = script else { return };
        if script.early {
            let _ = stream.write_all(&script.answer);
        }
        let body = read_body(&mut stream, &mut buffer, &head, false);
        let is_cut = body.is_none();
        {
            let mut noted = shared.lock();
            if noted.case == case {
                noted.open -= 1;
                noted.seen.push(Message {
                    start: head.start,
                    fields: head.fields,
                    body: body.unwrap_or_else(|| Body {
                        framing: "cut",
                        ..Body::default()
                    }),
                });
            }
        }
        if is_cut || !script.early && stream.write_all(&script.answer).is_err() {
            return;
        }
        if script.closes {
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read(&mut [0; 1024]);
            return;
        }
    }
}

/// A head, however long the connection is idle before.
fn read_patiently(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Head> {
    while buffer.is_empty() {
        let mut first = [0];
        match stream.read(&mut first) {
            Ok(0) => return None,
            Ok(_) => buffer.push(first[0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
    read_head(stream, buffer)
}

/// Fields that each proxy makes anew or in its own way, about itself and not about the message.
const OWN: &[&str] = &[
    "x-request-id",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-internal",
];

/// The address that a proxy gives its client: the client's, or Envoy's own for one on this machine.
pub(super) fn client_of(request: &Message) -> String {
    let mut fields = request.fields.iter();
    let found = fields.find(|(name, _)| name == "x-forwarded-for");
    found.expect("both tell the client").1.clone()
}

/// Requests as they are compared: one line of text each, the client by that name. One that broke off is
/// left out: whether its head went ahead of what was wrong with the body is a matter of moments.
pub(super) fn told(requests: &[Message], client: &str) -> Vec<String> {
    let whole = requests.iter().filter(|it| it.body.framing != "cut");
    let lines = whole.map(|request| {
        let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in &request.fields {
            if !OWN.contains(&&**name) {
                fields.entry(name).or_default().push(value);
            }
        }
        let line = format!("{} {fields:?} {}", request.start, request.body);
        line.replace(client, "CLIENT")
            .replace(",CLIENT", ", CLIENT")
    });
    lines.collect()
}
