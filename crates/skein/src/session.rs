//! A connection to the mesh, as one command uses it.
//!
//! Owns the runtime that a command runs in and the typed calls of `skein.v1`. Never retries on its
//! own: fail-over is `store-client`'s.

use std::pin::Pin;
use std::time::Duration;

use control_api::MESSAGE_BYTES_MAX;
use control_api::v1;
use control_api::v1::config_client::ConfigClient;
use control_api::v1::mesh_client::MeshClient;
use store_client::{CallChannel, Client, ClientOptions, Credentials};
use tls::Dialer;

use crate::failure::Failure;
use crate::options::Options;
use crate::output::Output;

/// How long one endpoint may take to accept a connection, unless the whole deadline is shorter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A command that talks to the mesh.
pub(crate) trait MeshCommand {
    /// Does its work and shows the result.
    async fn run(self, session: &Session, output: &mut Output<'_>) -> Result<(), Failure>;
}

/// What a command needs to talk to the mesh.
pub(crate) struct Session {
    client: Client,
    endpoints: Vec<String>,
    credentials: Option<Credentials>,
    timeout: Duration,
    tls: Option<Dialer>,
    namespace: Option<String>,
}

/// Runs `command` with a session of its own, to its end.
pub(crate) fn run(
    command: impl MeshCommand,
    options: &Options,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    // Everything waits for one connection: a second thread would have nothing to do.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    // One type for all commands: each would be built with a runtime of its own otherwise.
    let work: Pin<Box<dyn Future<Output = Result<(), Failure>> + '_>> = Box::pin(async {
        let session = Session::open(options)?;
        command.run(&session, output).await
    });
    runtime.block_on(work)
}

impl Session {
    /// A session with the options' endpoints; connects when first used.
    pub(crate) fn open(options: &Options) -> Result<Self, Failure> {
        let (tls, credentials) = (options.tls()?, options.credentials()?);
        let endpoints = &options.endpoints;
        let client = connect(endpoints, options.timeout, tls.clone(), credentials.clone())?;
        let (timeout, namespace) = (options.timeout, options.namespace.clone());
        Ok(Self {
            client,
            endpoints: options.endpoints.clone(),
            credentials,
            timeout,
            tls,
            namespace,
        })
    }

    /// The endpoints, in the order in which they are tried.
    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The store's client, for etcd's calls.
    pub(crate) fn store(&self) -> &Client {
        &self.client
    }

    /// A client of one node only, for what only that node can do.
    pub(crate) fn at(&self, endpoint: &str) -> Result<Client, Failure> {
        let (tls, credentials) = (self.tls.clone(), self.credentials.clone());
        connect(&[endpoint.to_owned()], self.timeout, tls, credentials)
    }

    /// How long to wait for an answer.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The namespace asked for, if one was.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Changes the config.
    pub(crate) async fn apply(
        &self,
        request: v1::ApplyRequest,
    ) -> Result<v1::ApplyResponse, Failure> {
        let call = |channel: CallChannel| {
            let request = request.clone();
            async move {
                let mut client = ConfigClient::new(channel)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX);
                Ok(client.apply(request).await?.into_inner())
            }
        };
        // A dry run changes nothing, so that another endpoint may always be asked.
        let answer = if request.dry_run {
            self.client.read(call).await
        } else {
            self.client.write(call).await
        };
        Ok(answer?)
    }

    /// Every node, as the node that answers sees it.
    pub(crate) async fn status(&self) -> Result<v1::StatusResponse, Failure> {
        let call = |channel| async move {
            Ok(mesh(channel)
                .status(v1::StatusRequest {})
                .await?
                .into_inner())
        };
        Ok(self.client.read(call).await?)
    }

    /// Everyone that gossip knows.
    pub(crate) async fn peers(&self) -> Result<v1::PeersResponse, Failure> {
        let call = |channel| async move {
            Ok(mesh(channel).peers(v1::PeersRequest {}).await?.into_inner())
        };
        Ok(self.client.read(call).await?)
    }

    /// What `node` (or the first that answers) would do with a request.
    pub(crate) async fn explain(
        &self,
        node: Option<&str>,
        request: v1::ExplainRequest,
    ) -> Result<v1::ExplainResponse, Failure> {
        let call = |channel| {
            let request = request.clone();
            async move { Ok(mesh(channel).explain(request).await?.into_inner()) }
        };
        let answer = match node {
            None => self.client.read(call).await,
            Some(name) => {
                let address = self.client_address(name).await?;
                self.at(&address)?.read(call).await
            }
        };
        Ok(answer?)
    }

    /// The compiled config of the node that answers.
    pub(crate) async fn graph(&self) -> Result<v1::GraphResponse, Failure> {
        let call = |channel| async move {
            Ok(mesh(channel).graph(v1::GraphRequest {}).await?.into_inner())
        };
        Ok(self.client.read(call).await?)
    }

    async fn client_address(&self, name: &str) -> Result<String, Failure> {
        let nodes = self.status().await?.nodes;
        let Some(node) = nodes.iter().find(|node| node.name == name) else {
            let names: Vec<_> = nodes.iter().map(|node| &*node.name).collect();
            let known = names.join(", ");
            return Err(Failure::not_found(format!(
                "no node is called `{name}`; there are: {known}"
            )));
        };
        match node.addresses.as_ref().map(|addresses| &addresses.client) {
            Some(address) if !address.is_empty() => Ok(address.clone()),
            _ => Err(Failure::failed(format!(
                "the client address of node `{name}` is not known; name it with --endpoints"
            ))),
        }
    }
}

fn connect(
    endpoints: &[String],
    timeout: Duration,
    tls: Option<Dialer>,
    credentials: Option<Credentials>,
) -> Result<Client, Failure> {
    let options = ClientOptions {
        deadline: timeout,
        connect_timeout: timeout.min(CONNECT_TIMEOUT),
        tls,
        credentials,
    };
    Ok(Client::new(endpoints, options)?)
}

fn mesh(channel: CallChannel) -> MeshClient<CallChannel> {
    MeshClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}
