//! Certificates that are made when a test runs, and ends of TLS that are not ours: tokio-rustls'.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::rig::{Client, PATIENCE};

/// A client's end of TLS.
pub(crate) type Tls = TlsStream<TcpStream>;

/// A CA, and a folder for what it issues.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, in files.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        parameters.distinguished_name.push(DnType::CommonName, "ca");
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(parameters, key),
            folder,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The file with its certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    /// A certificate for these names, in files of this name.
    pub(crate) fn issue(&self, file: &str, names: &[&str]) -> Pair {
        self.issue_with(file, names, |_| {})
    }

    /// One that ended long ago.
    pub(crate) fn issue_expired(&self, file: &str, names: &[&str]) -> Pair {
        self.issue_with(file, names, |parameters| {
            parameters.not_before = date_time_ymd(2020, 1, 1);
            parameters.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    pub(crate) fn issue_with(
        &self,
        file: &str,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let mut parameters = CertificateParams::default();
        let name = |name: &&str| match name.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) if name.contains("://") => SanType::URI((*name).try_into().unwrap()),
            Err(_) => SanType::DnsName((*name).try_into().unwrap()),
        };
        parameters.subject_alt_names = names.iter().map(name).collect();
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut parameters);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            certificate: self.path().join(format!("{file}.crt")),
            key: self.path().join(format!("{file}.key")),
        };
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        std::fs::write(&pair.certificate, certificate.pem()).unwrap();
        pair
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.ca()).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        roots
    }

    /// A client that trusts it, and shows `own`.
    pub(crate) fn client(&self, own: Option<&Pair>) -> ClientConfig {
        self.client_of(own, false)
    }

    /// One that speaks TLS 1.2 only.
    pub(crate) fn old_client(&self) -> ClientConfig {
        self.client_of(None, true)
    }

    fn client_of(&self, own: Option<&Pair>, is_old: bool) -> ClientConfig {
        let versions: &[_] = if is_old { &[&TLS12] } else { &[&TLS13, &TLS12] };
        let builder = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(self.roots());
        match own {
            Some(own) => {
                let (chain, key) = own.read();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        }
    }

    /// A server that shows `own` and speaks these protocols.
    pub(crate) fn server_of(&self, own: &Pair, alpn: &[&str]) -> TlsAcceptor {
        let mut config = ServerConfig::clone(self.server(own, false).config());
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config).into()
    }

    /// A server that shows `own`, and asks for certificates of this CA if `asks`.
    pub(crate) fn server(&self, own: &Pair, asks: bool) -> TlsAcceptor {
        let builder = ServerConfig::builder();
        let builder = if asks {
            let verifier = WebPkiClientVerifier::builder(self.roots().into()).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (chain, key) = own.read();
        let config = builder.with_single_cert(chain, key).unwrap();
        Arc::new(config).into()
    }
}

impl Pair {
    pub(crate) fn read(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_file_iter(&self.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        (chain.map(Result::unwrap).collect(), key)
    }

    /// As an entry of `certificates`.
    pub(crate) fn yaml(&self) -> String {
        format!(
            "{{ certificate_chain: {}, private_key: {} }}",
            self.certificate.display(),
            self.key.display()
        )
    }
}

/// A TLS connection that asks for this name.
pub(crate) async fn try_connect(
    config: impl Into<Arc<ClientConfig>>,
    address: SocketAddr,
    name: &str,
) -> std::io::Result<Tls> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connect = TlsConnector::from(config.into()).connect(name, stream);
    timeout(PATIENCE, connect)
        .await
        .expect("a handshake in time")
}

/// A client on a TLS connection.
pub(crate) async fn connect(
    config: impl Into<Arc<ClientConfig>>,
    address: SocketAddr,
    name: &str,
) -> Client<Tls> {
    Client::on(try_connect(config, address, name).await.unwrap())
}

/// The certificate that was shown.
pub(crate) fn shown(client: &Client<Tls>) -> CertificateDer<'static> {
    let (_, session) = client.stream.get_ref();
    session.peer_certificates().unwrap()[0].clone()
}
