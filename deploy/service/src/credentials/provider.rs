//! The cryptography of every TLS connection: aws-lc-rs, never the process's default.

use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs::{cipher_suite as suite, default_provider};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{NamedGroup, SupportedCipherSuite, SupportedProtocolVersion, version};

/// TLS 1.3 first; 1.1 and older are refused (spec/trust.md C11).
pub(super) const VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

/// AES-128-GCM first: with AES instructions it is the cheapest to seal a broadcast with (spec/performance.md).
const CIPHER_SUITES: [SupportedCipherSuite; 9] = [
    suite::TLS13_AES_128_GCM_SHA256,
    suite::TLS13_AES_256_GCM_SHA384,
    suite::TLS13_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// Returns the provider with our order of suites and groups; X25519MLKEM768 is the first group.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| {
        let mut kx_groups = default_provider().kx_groups;
        kx_groups.sort_by_key(|group: &&dyn SupportedKxGroup| group.name() != NamedGroup::X25519MLKEM768);
        Arc::new(CryptoProvider { cipher_suites: CIPHER_SUITES.to_vec(), kx_groups, ..default_provider() })
    });
    Arc::clone(provider)
}

#[cfg(test)]
mod tests {
    use rustls::CipherSuite;

    use super::*;

    #[test]
    fn prefers_aes_128_gcm_and_the_hybrid_group() {
        let provider = provider();

        assert_eq!(provider.cipher_suites[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert_eq!(provider.kx_groups[0].name(), NamedGroup::X25519MLKEM768);
        assert!(provider.kx_groups.len() > 1);
    }
}
