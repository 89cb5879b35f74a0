//! The servers' side of a service: its trait, and what answers its calls by way of the crate `rpc`.
//!
//! Owns nothing but the text. The clients' side is tonic's own.

use std::fmt::Write;

use prost_build::{Method, Service, ServiceGenerator};

/// Writes tonic's client of a service, and our server.
pub struct ClientAndServer {
    pub client: Box<dyn ServiceGenerator>,
}

impl ServiceGenerator for ClientAndServer {
    fn generate(&mut self, service: Service, text: &mut String) {
        server(&service, text);
        self.client.generate(service, text);
    }

    fn finalize(&mut self, text: &mut String) {
        self.client.finalize(text);
    }
}

fn server(service: &Service, text: &mut String) {
    let name = &service.name;
    let full_name = format!("{}.{}", service.package, service.proto_name);
    let module = snake(name);
    let items: String = service.methods.iter().map(declaration).collect();
    let arms: String = service.methods.iter().map(arm).collect();
    let docs = docs(&service.comments.leading);
    let written = write!(
        text,
        r#"
/// Generated server implementations.
pub mod {module}_server {{
    #![allow(missing_docs)]
    use std::sync::Arc;
    {docs}
    pub trait {name}: Send + Sync + 'static {{
        {items}
    }}
    /// Answers the calls of the service by a [`{name}`].
    #[derive(Debug)]
    pub struct {name}Server<T> {{
        inner: Arc<T>,
        limits: rpc::MessageLimits,
    }}
    impl<T> {name}Server<T> {{
        pub fn new(inner: T) -> Self {{
            Self::from_arc(Arc::new(inner))
        }}
        pub fn from_arc(inner: Arc<T>) -> Self {{
            Self {{ inner, limits: rpc::MessageLimits::default() }}
        }}
        /// With other limits to messages than gRPC's customary ones.
        #[must_use]
        pub fn with_limits(self, limits: rpc::MessageLimits) -> Self {{
            Self {{ limits, ..self }}
        }}
    }}
    impl<T> Clone for {name}Server<T> {{
        fn clone(&self) -> Self {{
            Self {{ inner: Arc::clone(&self.inner), limits: self.limits }}
        }}
    }}
    impl<T: {name}> rpc::Service for {name}Server<T> {{
        const NAME: &'static str = "{full_name}";
        fn call(&self, call: rpc::Call) -> rpc::Answering {{
            let (inner, limits) = (Arc::clone(&self.inner), self.limits);
            match rpc::method(&call) {{
                {arms}
                _ => rpc::no_such_method(&call),
            }}
        }}
    }}
}}
"#
    );
    written.expect("a string takes everything");
}

/// A method of the trait, with the type of its stream if it answers one.
fn declaration(method: &Method) -> String {
    let Method {
        name, proto_name, ..
    } = method;
    let docs = docs(&method.comments.leading);
    let (input, output) = (nested(&method.input_type), nested(&method.output_type));
    let input = if method.client_streaming {
        format!("tonic::Streaming<{input}>")
    } else {
        input
    };
    let (stream, output) = if method.server_streaming {
        let stream = format!(
            "/// What [`Self::{name}`] answers.\n\
             type {proto_name}Stream: tonic::codegen::tokio_stream::Stream<\
             Item = Result<{output}, tonic::Status>> + Send + 'static;\n"
        );
        (stream, format!("Self::{proto_name}Stream"))
    } else {
        (String::new(), output)
    };
    format!(
        "{stream}{docs}\nfn {name}(&self, request: tonic::Request<{input}>) \
         -> impl Future<Output = Result<tonic::Response<{output}>, tonic::Status>> + Send;\n"
    )
}

/// What answers a call of a method.
fn arm(method: &Method) -> String {
    let kind = match (method.client_streaming, method.server_streaming) {
        (false, false) => "unary",
        (false, true) => "answers_stream",
        (true, false) => "asks_stream",
        (true, true) => "both_stream",
    };
    let Method {
        name, proto_name, ..
    } = method;
    format!(
        "\"{proto_name}\" => rpc::{kind}(call, limits, move |request| async move {{ \
         inner.{name}(request).await }}),\n"
    )
}

/// A type of the package, or of another one, as it is called from inside a module.
fn nested(rust_type: &str) -> String {
    format!("super::{rust_type}")
}

fn docs(comment: &[String]) -> String {
    let lines = comment.iter().flat_map(|block| block.lines());
    lines.map(|line| format!("///{line}\n")).collect()
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() && !snake.ends_with(char::is_uppercase) {
            snake.push('_');
        }
        snake.push(letter);
    }
    snake.to_lowercase()
}
