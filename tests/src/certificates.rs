//! Certificates for servers on loopback, and for their clients: an authority and what it has signed.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Whoever trusts its certificate trusts all that it has signed.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its private key, as PEM.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl Authority {
    /// A new one, that nobody trusts yet.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate().context("making the authority's key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self(CertifiedIssuer::self_signed(params, key).context("signing the authority's certificate")?))
    }

    /// Its own certificate and key, for a server that signs for others.
    pub fn itself(&self) -> Signed {
        Signed { cert: self.0.pem(), key: self.0.key().serialize_pem() }
    }

    /// Signs for a server with these host names and addresses, or for a client with this name and group. Kubernetes takes
    /// the common name for a user's and the organization for a group's.
    pub fn sign(&self, common_name: &str, organization: Option<&str>, hosts: &[String]) -> Result<Signed> {
        let key = KeyPair::generate().context("making a key")?;
        let mut params = CertificateParams::new(hosts).context("naming the servers")?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.0).context("signing a certificate")?.pem();
        Ok(Signed { cert, key: key.serialize_pem() })
    }
}

/// PEM files that servers and clients take. Server and client use the same certificate: what is tested is who has none.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// A certificate for 127.0.0.1 and localhost, signed by the authority, for servers and clients.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes an authority and a certificate, and writes them into `folder`.
    pub fn write(folder: &Path) -> Result<Self> {
        let authority = Authority::new()?;
        let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let signed = authority.sign("a server of the tests", None, &hosts)?;
        let write = |name: &str, contents: &str| {
            let path = folder.join(name);
            std::fs::write(&path, contents).with_context(|| format!("writing {name}"))?;
            Ok::<_, anyhow::Error>(path)
        };
        Ok(Self {
            ca: write("ca.pem", &authority.itself().cert)?,
            cert: write("cert.pem", &signed.cert)?,
            key: write("key.pem", &signed.key)?,
        })
    }
}
