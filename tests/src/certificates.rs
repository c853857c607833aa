//! Certificates for servers on loopback, and for their clients: an authority and what it has signed.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

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
        let authority_key = KeyPair::generate().context("making the authority's key")?;
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let ca = authority.self_signed(&authority_key).context("signing the authority's certificate")?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let key = KeyPair::generate().context("making a key")?;
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut leaf = CertificateParams::new(names).context("naming the servers")?;
        leaf.distinguished_name.push(DnType::CommonName, "a server of the tests");
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = leaf.signed_by(&key, &issuer).context("signing a certificate")?.pem();

        let write = |name: &str, contents: &str| {
            let path = folder.join(name);
            std::fs::write(&path, contents).with_context(|| format!("writing {name}"))?;
            Ok::<_, anyhow::Error>(path)
        };
        Ok(Self {
            ca: write("ca.pem", &ca)?,
            cert: write("cert.pem", &cert)?,
            key: write("key.pem", &key.serialize_pem())?,
        })
    }
}
