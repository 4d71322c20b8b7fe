//! A TLS connection to a relay that is known by its certificate alone.

use super::Trouble;
use crate::carrier::TLS_BUFFER;
use crate::platform;
use lanrage_common::carrier::ALPN;
use lanrage_common::identity::CertificateFingerprint;
use lanrage_common::protocol::RelayTls;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, PeerIncompatible, SignatureScheme,
};

/// For TCP and TLS together.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to the relay, and to nobody who only has its address.
pub(crate) async fn connect(place: RelayTls) -> Result<TlsStream<TcpStream>, Trouble> {
    let address = place.address;
    let work = async {
        let stream = TcpStream::connect(address).await?;
        platform::prepare_stream((&stream).into())?;
        Ok::<_, io::Error>(stream)
    };
    let stream = match timeout(PATIENCE, work).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Trouble::Other(format!("TCP {address}: {error}"))),
        Err(_) => return Err(Trouble::Other(format!("TCP {address} does not answer"))),
    };
    let pin = Arc::new(Pin::new(place.certificate));
    let config = config(pin.clone()).map_err(|error| Trouble::Other(error.to_string()))?;
    let name = ServerName::IpAddress(address.ip().into());
    match timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await {
        Ok(Ok(mut stream)) => {
            stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
            Ok(stream)
        }
        Ok(Err(error)) => Err(pin.trouble(place, &error)),
        Err(_) => Err(Trouble::Other(format!("TCP {address} answers, but not with TLS"))),
    }
}

fn config(pin: Arc<Pin>) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(pin.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pin)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Accepts one certificate, whatever it says, if the other end has its key.
#[derive(Debug)]
struct Pin {
    provider: Arc<CryptoProvider>,
    wanted: CertificateFingerprint,
    seen: OnceLock<CertificateFingerprint>,
}

impl Pin {
    fn new(wanted: CertificateFingerprint) -> Self {
        Self { provider: Arc::new(aws_lc_rs::default_provider()), wanted, seen: OnceLock::new() }
    }

    fn trouble(&self, place: RelayTls, error: &io::Error) -> Trouble {
        let (address, wanted) = (place.address, self.wanted);
        match self.seen.get().filter(|seen| **seen != wanted) {
            Some(seen) => Trouble::Certificate(format!(
                "TCP {address} shows another certificate than the relay's: SHA-256 {seen} instead of {wanted}"
            )),
            None => Trouble::Other(format!("TLS with {address}: {error}")),
        }
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let seen = *self.seen.get_or_init(|| CertificateFingerprint::of(certificate));
        match seen == self.wanted {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
