//! What links run on: TCP, or TLS 1.3 (RFC 8446) on it where each side shows a certificate.
//!
//! Whoever holds a certificate that the fleet's authorities signed and that names a node is that node, and nobody else is: who
//! dials checks the name that it dials, who is dialed the name in the greeting. The files are read again when they have
//! changed, before the next connection; connections that stand are not touched. So a certificate is renewed by putting the
//! new one in place.
#![forbid(unsafe_code)]

use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// For whoever gets no word from another node.
pub(super) const ALIKE: &str = "fleet_link_tls_ca_file, _cert_file and _key_file must be given to all nodes or to none";

/// Bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a node's part of the fleet's TLS is, in PEM (RFC 7468).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that sign those of nodes.
    pub authorities: PathBuf,
    /// This node's certificate, and those between it and an authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// When each of the files was changed last; `None`: nobody can say.
type Stamps = [Option<SystemTime>; 3];

/// What was made of the files.
struct Loaded {
    stamps: Stamps,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

/// A node's part of the fleet's TLS.
pub struct LinkTls {
    files: TlsFiles,
    node_id: String,
    loaded: Mutex<Loaded>,
}

impl LinkTls {
    /// Reads the files of the node `node_id`.
    ///
    /// # Errors
    /// A file cannot be read or is not what it should be, the certificate does not name the node, or the node's name is
    /// none that a certificate can have.
    pub fn load(files: TlsFiles, node_id: &str) -> Result<Self, String> {
        let loaded = Mutex::new(files.load(node_id)?);
        let node_id = node_id.to_owned();
        Ok(Self { files, node_id, loaded })
    }

    /// What the files say now. When that is of no use, what they said before.
    fn current(&self) -> (TlsAcceptor, TlsConnector) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps();
        if stamps != loaded.stamps {
            match self.files.load(&self.node_id) {
                Ok(now) => {
                    *loaded = now;
                    tracing::info!("links: the certificate was read again");
                }
                Err(error) => {
                    tracing::warn!(error, "links: the old certificate stays in use");
                    loaded.stamps = stamps;
                }
            }
        }
        (loaded.acceptor.clone(), loaded.connector.clone())
    }
}

impl TlsFiles {
    fn stamps(&self) -> Stamps {
        [&self.authorities, &self.certificate, &self.key].map(|path| std::fs::metadata(path).ok()?.modified().ok())
    }

    fn load(&self, node_id: &str) -> Result<Loaded, String> {
        // Before the files: what is changed meanwhile is read again.
        let stamps = self.stamps();
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authorities)? {
            roots
                .add(certificate)
                .map_err(|error| says(&self.authorities, &error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(&self.certificate)?;
        if !names(&chain[0], node_id) {
            let why = format!("does not name this node: its subjectAltName must have DNS:{node_id}");
            return Err(says(&self.certificate, &why));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| says(&self.key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| says(&self.authorities, &error))?;
        let unfit = |error: rustls::Error| says(&self.certificate, &error);
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unfit)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unfit)?;
        let client = client(provider, roots, chain, key).map_err(unfit)?;
        Ok(Loaded {
            stamps,
            acceptor: Arc::new(server).into(),
            connector: Arc::new(client).into(),
        })
    }
}

fn client(
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all = all.map_err(|error| says(path, &error))?;
    if all.is_empty() {
        return Err(says(path, &"no certificate in it"));
    }
    Ok(all)
}

fn says(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

/// Whether a certificate is that of a node.
fn names(certificate: &CertificateDer<'_>, node_id: &str) -> bool {
    let Ok(name) = ServerName::try_from(node_id) else {
        return false;
    };
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

/// Who made a connection, as far as that is proved.
pub(super) enum Shown {
    /// There is no TLS: whoever it says.
    Anybody,
    /// Whom this certificate names.
    Certificate(CertificateDer<'static>),
}

impl Shown {
    /// Whether it may say that it is this node.
    pub(super) fn may_be(&self, node_id: &str) -> bool {
        match self {
            Self::Anybody => true,
            Self::Certificate(certificate) => names(certificate, node_id),
        }
    }
}

/// Connects to the node `node_id` at `address`.
///
/// # Errors
/// It cannot be reached, or does not show a certificate of that node.
pub(super) async fn connect(tls: Option<&LinkTls>, address: &str, node_id: &str) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(node_id.to_owned()).map_err(io::Error::other)?;
    let (_, connector) = tls.current();
    let connected = connector.connect(name, stream).await;
    // One without TLS ends the connection, or says something else.
    let refused = |error: io::Error| io::Error::new(error.kind(), format!("no TLS with it: {error}; {ALIKE}"));
    Ok(Box::new(connected.map_err(refused)?))
}

/// Accepts a connection that somebody made.
///
/// # Errors
/// It is lost, or no certificate of the fleet was shown on it.
pub(super) async fn accept(tls: Option<&LinkTls>, stream: TcpStream) -> io::Result<(Box<dyn Stream>, Shown)> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else {
        return Ok((Box::new(stream), Shown::Anybody));
    };
    let (acceptor, _) = tls.current();
    let stream = acceptor.accept(stream).await?;
    let shown = (stream.get_ref().1.peer_certificates()).and_then(|chain| chain.first().cloned());
    // The verifier lets nobody pass without one.
    let shown = shown.ok_or_else(|| io::Error::other("no certificate"))?;
    Ok((Box::new(stream), Shown::Certificate(shown)))
}
