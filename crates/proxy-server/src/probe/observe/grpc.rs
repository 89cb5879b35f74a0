//! A call of gRPC's health service (`grpc.health.v1.Health/Check`), by hand: two fields do not need a
//! compiler of protobuf.
//!
//! Owns one stream on one connection. Reads no more of an answer than a health service ever says.

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Request, header};

use super::ProbeFault;
use crate::wire::Stream;

/// An answer is a handful of bytes.
const ANSWER_BYTES_MAX: usize = 1024;
/// `status = SERVING`, the one field of the answer.
const SERVING: &[u8] = &[0x08, 0x01];

/// Asks for a service, empty for the whole server.
pub(super) async fn ask(stream: Stream, service: &str, host: &str) -> Result<(), ProbeFault> {
    let scheme = if stream.is_tls() { "https" } else { "http" };
    let url = format!("{scheme}://{host}/grpc.health.v1.Health/Check");
    let (send, connection) = h2::client::handshake(stream).await?;
    tokio::select! {
        asked = call(send, service, &url) => asked,
        ended = connection => Err(ended.map_or_else(ProbeFault::Http2, |()| ProbeFault::Closed)),
    }
}

async fn call(
    send: h2::client::SendRequest<Bytes>,
    service: &str,
    url: &str,
) -> Result<(), ProbeFault> {
    let request = Request::post(url)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "skein-probe")
        .body(())
        .map_err(|_| ProbeFault::NotHttp)?;
    let mut send = send.ready().await?;
    let (response, mut body) = send.send_request(request, false)?;
    body.send_data(message(service), true)?;
    let (head, mut body) = response.await?.into_parts();
    if head.status != 200 {
        return Err(ProbeFault::Status(head.status.as_u16()));
    }
    passed(&head.headers)?;
    let answer = read(&mut body).await?;
    if let Some(trailers) = body.trailers().await? {
        passed(&trailers)?;
    }
    // A flag, four bytes of length, the message.
    match answer.get(5..) {
        Some(SERVING) => Ok(()),
        Some(_) => Err(ProbeFault::NotServing),
        None => Err(ProbeFault::Closed),
    }
}

/// Not a status other than OK.
fn passed(fields: &HeaderMap) -> Result<(), ProbeFault> {
    match fields.get("grpc-status") {
        Some(status) if status != "0" => {
            let status = String::from_utf8_lossy(status.as_bytes());
            Err(ProbeFault::Grpc(status.into_owned()))
        }
        _ => Ok(()),
    }
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, ProbeFault> {
    let mut answer = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        if answer.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(ProbeFault::NotServing);
        }
        answer.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(answer)
}

/// `service`, the one field of the question, in gRPC's framing.
fn message(service: &str) -> Bytes {
    let mut field = Vec::new();
    if !service.is_empty() {
        field.push(0x0a);
        let mut rest = service.len();
        while rest >= 128 {
            field.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        field.push(rest as u8);
        field.extend_from_slice(service.as_bytes());
    }
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(&field);
    message.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Response;
    use proxy_config::compiled::{Probe, ProbeKind};
    use tokio::net::TcpListener;

    use super::*;
    use crate::probe::callers::Callers;
    use crate::probe::observe::observe;

    /// Probes a server that answers like this; what it was asked.
    async fn probe(data: &'static [u8], status: &'static str) -> (Result<(), ProbeFault>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            tokio::spawn(async move { while connection.accept().await.is_some() {} });
            let asked = read(&mut request.into_body()).await.unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(data), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.parse().unwrap());
            stream.send_trailers(trailers).unwrap();
            asked
        });
        let probe = Probe {
            tls: None,
            socket: None,
            proxy_protocol: None,
            kind: ProbeKind::Grpc {
                service: "a.B".into(),
                host: None,
            },
            every: Duration::from_millis(50),
            timeout: Duration::from_secs(5),
            unhealthy_after: 1,
            healthy_after: 1,
        };
        (
            observe(address, &probe, &Callers::default()).await,
            server.await.unwrap(),
        )
    }

    #[tokio::test]
    async fn serving_is_healthy_and_nothing_else() {
        let (result, asked) = probe(&[0, 0, 0, 0, 2, 8, 1], "0").await;
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(asked, b"\0\0\0\0\x05\x0a\x03a.B");
        let (result, _) = probe(&[0, 0, 0, 0, 2, 8, 2], "0").await;
        assert!(matches!(result, Err(ProbeFault::NotServing)), "{result:?}");
        let (result, _) = probe(&[], "5").await;
        assert!(
            matches!(&result, Err(ProbeFault::Grpc(code)) if code == "5"),
            "{result:?}"
        );
    }
}
