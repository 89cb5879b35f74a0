//! The JSON objects in the body of a request.
//!
//! Owns the limits on size and time, and where one object of a stream ends and the next begins.
//! Never looks into an object.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use store_api::errors;
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, header};

use crate::limits::{JSON_BODY_WAIT, JSON_BYTES_MAX};

/// The whole body, which is one object or nothing.
///
/// # Errors
/// When it is too large, late, or breaks off.
pub(super) async fn whole(headers: &HeaderMap, body: Body) -> Result<Bytes, Status> {
    let told = headers.get(header::CONTENT_LENGTH);
    let told = told.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|length| length > JSON_BYTES_MAX) {
        return Err(errors::request_too_large());
    }
    match timeout(JSON_BODY_WAIT, Limited::new(body, JSON_BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(fault)) if fault.is::<LengthLimitError>() => Err(errors::request_too_large()),
        Ok(Err(fault)) => Err(broken_off(&*fault)),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "skein: the body did not arrive within {} s",
            JSON_BODY_WAIT.as_secs()
        ))),
    }
}

fn broken_off(fault: &(dyn std::error::Error + Send + Sync)) -> Status {
    Status::cancelled(format!("skein: the body broke off: {fault}"))
}

/// The objects of a body, one after the other, as they arrive.
pub(super) struct Objects {
    body: Body,
    arrived: BytesMut,
    cut: Cut,
}

impl Objects {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body,
            arrived: BytesMut::new(),
            cut: Cut::default(),
        }
    }

    /// Waits for the next object; `None` once the client has sent its last.
    ///
    /// # Errors
    /// When what arrives is no object, is too large, or breaks off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            let object = self.cut.next(&mut self.arrived)?;
            if object.as_ref().map_or(self.arrived.len(), Bytes::len) > JSON_BYTES_MAX {
                return Err(errors::request_too_large());
            }
            if object.is_some() {
                return Ok(object);
            }
            let Some(frame) = self.body.frame().await else {
                return match self.arrived.is_empty() {
                    true => Ok(None),
                    false => Err(Status::invalid_argument(
                        "skein: the body ends within a JSON object",
                    )),
                };
            };
            let frame = frame.map_err(|fault| broken_off(&fault))?;
            if let Ok(data) = frame.into_data() {
                self.arrived.extend_from_slice(&data);
            }
        }
    }
}

/// How far an object was looked at.
#[derive(Debug, Default)]
struct Cut {
    looked_at: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Cut {
    /// Cuts off the first object, if all of it has arrived.
    fn next(&mut self, arrived: &mut BytesMut) -> Result<Option<Bytes>, Status> {
        if self.looked_at == 0 {
            let space = arrived.iter().take_while(|byte| byte.is_ascii_whitespace());
            let space = space.count();
            drop(arrived.split_to(space));
            if let Some(&first) = arrived.first().filter(|&&first| first != b'{') {
                return Err(Status::invalid_argument(format!(
                    "skein: a JSON object begins with `{{`, not with `{}`",
                    first.escape_ascii()
                )));
            }
        }
        while let Some(&byte) = arrived.get(self.looked_at) {
            self.looked_at += 1;
            if self.look(byte) {
                let object = arrived.split_to(self.looked_at);
                *self = Self::default();
                return Ok(Some(object.freeze()));
            }
        }
        Ok(None)
    }

    /// Whether the object ends with this byte.
    fn look(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' => self.depth += 1,
            b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn body(text: &'static [u8], piece: usize) -> Body {
        let pieces = text
            .chunks(piece)
            .map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(piece))));
        Body::new(StreamBody::new(futures_util::stream::iter(pieces)))
    }

    async fn all(text: &'static [u8], piece: usize) -> (Vec<String>, Option<Status>) {
        let (mut objects, mut found) = (Objects::new(body(text, piece)), Vec::new());
        loop {
            match objects.next().await {
                Ok(Some(object)) => found.push(String::from_utf8_lossy(&object).into_owned()),
                Ok(None) => return (found, None),
                Err(status) => return (found, Some(status)),
            }
        }
    }

    #[tokio::test]
    async fn objects_are_found_however_they_are_cut() {
        let text = br#" {"a":{"b":"}\"{"}}{}
            {"c":["\\"]} "#;
        for piece in [1, 2, 7, 1000] {
            let (found, fault) = all(text, piece).await;
            assert_eq!(found, [r#"{"a":{"b":"}\"{"}}"#, "{}", r#"{"c":["\\"]}"#]);
            assert!(fault.is_none(), "by {piece}: {fault:?}");
        }
        assert!(all(b" \n", 1).await.0.is_empty());
    }

    #[tokio::test]
    async fn what_is_no_object_is_named_after_those_before_it() {
        let cases: [(&[u8], &str); 4] = [
            (b"{} x", "a JSON object begins with `{`, not with `x`"),
            (b"{}\n\x16\x03", "not with `\\x16`"),
            (b"{}[{}]", "not with `[`"),
            (b"{} {\"a\":", "the body ends within a JSON object"),
        ];
        for (text, says) in cases {
            for piece in [1, 1000] {
                let (found, fault) = all(text, piece).await;
                assert_eq!(found, ["{}"]);
                let fault = fault.expect("a fault");
                assert!(fault.message().contains(says), "{fault}");
            }
        }
    }

    #[tokio::test]
    async fn an_endless_object_ends_at_the_limit() {
        let endless = futures_util::stream::repeat_with(|| {
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from_static(&[b'{'; 65_536])))
        });
        let mut objects = Objects::new(Body::new(StreamBody::new(endless)));
        let fault = objects.next().await.unwrap_err();
        assert_eq!(fault.message(), errors::request_too_large().message());
        assert!(objects.arrived.len() <= JSON_BYTES_MAX + 65_536);
    }
}
