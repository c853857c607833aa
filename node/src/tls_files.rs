//! Whether PEM files make TLS: looked at before a client is made of them, so that what is wrong is said by the file's name.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// What a PEM file holds, and the setting that names it.
#[derive(Clone, Copy, Debug)]
pub struct PemFile<'a> {
    /// The setting.
    pub setting: &'static str,
    /// The file's contents.
    pub contents: &'a [u8],
}

/// Checks a CA, and a certificate with its key. The message names the setting and never repeats the contents.
pub fn check(ca: Option<PemFile<'_>>, client: Option<(PemFile<'_>, PemFile<'_>)>) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = ca {
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| format!("{}: {error}", ca.setting))?;
        }
    }
    let Some((certificate, key)) = client else { return Ok(()) };
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(key.contents).map_err(|error| format!("{}: {error}", key.setting))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map(|config| config.with_root_certificates(roots).with_client_auth_cert(chain, private));
    match config {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) | Err(error) => Err(format!("{} and {}: {error}", certificate.setting, key.setting)),
    }
}

fn certificates(PemFile { setting, contents }: PemFile<'_>) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(contents).collect();
    let read = read.map_err(|error| format!("{setting}: {error}"))?;
    if read.is_empty() { Err(format!("{setting}: holds no certificate in PEM form")) } else { Ok(read) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_named_by_its_setting() {
        let file = |setting, contents| PemFile { setting, contents };
        for contents in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let problem = check(Some(file("A_CA", contents.as_bytes())), None).unwrap_err();
            assert!(problem.starts_with("A_CA: ") && !problem.contains("AAAA"), "{contents:?}: {problem}");
        }
        let key = file("A_KEY", b"");
        assert!(check(None, Some((file("A_CERT", b"no PEM"), key))).unwrap_err().starts_with("A_CERT: "));
        assert!(check(None, None).is_ok());
    }
}
