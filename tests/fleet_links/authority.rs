//! A fleet's certificate authority, and the files of its nodes.

use dispatchd::cold::links::{LinkTls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::Path;
use tempfile::TempDir;

pub struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self {
            directory: TempDir::with_prefix("dispatchd-tls-").expect("a temporary directory"),
            issuer: CertifiedIssuer::self_signed(params, key).expect("signed"),
        }
    }

    /// Writes the files of the node `name`, whose certificate names `named`, or writes them anew.
    pub fn files(&self, name: &str, named: &str) -> TlsFiles {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([named.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let file = |what: &str, pem: String| {
            let path = self.directory.path().join(format!("{name}.{what}.pem"));
            std::fs::write(&path, pem).expect("written");
            path
        };
        TlsFiles {
            authorities: file("ca", self.issuer.pem()),
            certificate: file("cert", certificate.pem()),
            key: file("key", key.serialize_pem()),
        }
    }

    /// What the node `name` needs.
    pub fn of(&self, name: &str) -> LinkTls {
        LinkTls::load(self.files(name, name), name).expect("good files")
    }
}

/// The settings of these files.
pub fn settings(files: &TlsFiles) -> [(&'static str, &Path); 3] {
    [
        ("fleet_link_tls_ca_file", &files.authorities),
        ("fleet_link_tls_cert_file", &files.certificate),
        ("fleet_link_tls_key_file", &files.key),
    ]
}
