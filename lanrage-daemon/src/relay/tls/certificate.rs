//! The relay's certificate: configured, or made at first start. Members know it by its fingerprint only.

use crate::config::RelayConfig;
use crate::files;
use anyhow::Context as _;
use lanrage_common::identity::CertificateFingerprint;
use std::io::ErrorKind;
use std::path::Path;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const FILE: &str = "relay-tls.pem";
/// What the certificate that nobody reads says; never a name that exists (RFC 2606).
const NAME: &str = "relay.lanrage.invalid";

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Identity {
    /// The certificate, and those that vouch for it.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) fingerprint: CertificateFingerprint,
}

impl Identity {
    fn parse(certificates: &[u8], key: &[u8]) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>()?;
        let first = chain.first().context("there is no certificate in it")?;
        let fingerprint = CertificateFingerprint::of(first);
        let key = PrivateKeyDer::from_pem_slice(key).context("there is no private key in it")?;
        Ok(Self { chain, key, fingerprint })
    }
}

/// The configured certificate, or the one in `state_dir`, which is made with mode 0600 at first use.
pub(super) fn load_or_create(config: &RelayConfig, state_dir: &Path) -> anyhow::Result<Identity> {
    if let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) {
        let read =
            |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        return Identity::parse(&read(certificate)?, &read(key)?)
            .with_context(|| format!("{} and {} cannot be used", certificate.display(), key.display()));
    }
    let path = state_dir.join(FILE);
    match std::fs::read(&path) {
        Ok(pem) => Identity::parse(&pem, &pem)
            .with_context(|| format!("{} is damaged: delete it and restart", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => create(state_dir, &path).with_context(|| {
            format!("cannot write {}: check that the directory is writable", path.display())
        }),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn create(state_dir: &Path, path: &Path) -> anyhow::Result<Identity> {
    std::fs::create_dir_all(state_dir)?;
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let pem = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem());
    files::replace_private(path, pem.as_bytes())?;
    Identity::parse(pem.as_bytes(), pem.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_stays_the_same_and_its_key_private() {
        let dir = tempfile::tempdir().unwrap();
        let made = load_or_create(&RelayConfig::default(), dir.path()).unwrap();
        let loaded = load_or_create(&RelayConfig::default(), dir.path()).unwrap();
        assert_eq!((made.fingerprint, made.chain), (loaded.fingerprint, loaded.chain));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "half").unwrap();
        let error = format!("{:#}", load_or_create(&RelayConfig::default(), dir.path()).unwrap_err());
        assert!(error.contains(FILE) && error.contains("delete it"), "{error}");
    }

    #[test]
    fn a_configured_certificate_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let made = load_or_create(&RelayConfig::default(), dir.path()).unwrap();
        let file = Some(dir.path().join(FILE));
        let config = RelayConfig { tls_cert: file.clone(), tls_key: file, ..RelayConfig::default() };
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(load_or_create(&config, elsewhere.path()).unwrap().fingerprint, made.fingerprint);
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);

        let missing = RelayConfig { tls_key: Some("/nonexistent".into()), ..config };
        let error = format!("{:#}", load_or_create(&missing, dir.path()).unwrap_err());
        assert!(error.contains("/nonexistent"), "{error}");
    }
}
