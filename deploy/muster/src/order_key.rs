//! The key that signs orders: the home's, or one that was named, in a file or a token (G7).

use muster_pki::Role;
use muster_sign::FileKind;
use muster_sign::key::{self, KeySource, SignerSource};
use muster_signing::envelope::Signer;

use crate::cli::OrderKey;
use crate::exit::{Exit, Failure};
use crate::home::{Home, read_file};
use crate::provision;

/// Opens the order key: the one that was named, else the home's.
pub(crate) fn open(home: &Home, named: &OrderKey) -> Result<Signer, Failure> {
    let next = &provision::how_to_have(home, Role::OrderSigner, "operator/order");
    let (key, certificate) = match &named.order_key {
        Some(key) => (key.clone(), named.order_cert.clone()),
        None => {
            let (key, certificate) = (home.path("operator/order.key"), home.path("operator/order.pem"));
            if let Some(missing) = [&certificate, &key].into_iter().find(|path| !path.exists()) {
                // Says why, in the words of every other file of the home.
                read_file(missing, FileKind::KEY, next)?;
            }
            (KeySource::File(key), Some(certificate))
        }
    };
    let source = SignerSource {
        key,
        certificate,
        password_file: named.key_password_file.clone(),
        module: named.pkcs11_module.clone(),
    };
    key::open(&source).map_err(|error| {
        let failure = Failure::new(Exit::Refused, format!("the order-signing key: {error}"));
        // What is wrong with a key that was named, its error says itself.
        if named.order_key.is_some() { failure } else { failure.with_next(next) }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use muster_pki::UnixTime;
    use muster_pki::authority::{Authority, Request};

    use super::*;

    /// Makes `ann.pem`, `ann.key` and `ann.pfx` there; the certificate's thumbprint.
    fn ann(folder: &Path) -> String {
        let now = UnixTime::now();
        let root = Authority::root("orders", Duration::from_secs(86_400), now).unwrap();
        let request = Request {
            common_name: "ann".to_owned(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            role: Role::OrderSigner,
            not_before: now,
            not_after: UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 3_600)),
            crl_url: None,
        };
        let issued = root.issue(&request).unwrap();
        std::fs::write(folder.join("ann.pem"), &issued.chain_pem).unwrap();
        std::fs::write(folder.join("ann.key"), &issued.key_pem).unwrap();
        let pfx = "pkcs12 -export -in ann.pem -inkey ann.key -passout pass:secret -out ann.pfx";
        let made = Command::new("openssl").args(pfx.split(' ')).current_dir(folder).status().unwrap();
        assert!(made.success());
        std::fs::write(folder.join("password"), "secret\n").unwrap();
        Signer::from_pem(&issued.chain_pem, &issued.key_pem)
            .unwrap()
            .certificate()
            .unwrap()
            .thumbprint()
            .to_string()
    }

    fn opened(home: &Home, named: &OrderKey) -> Result<String, Failure> {
        open(home, named).map(|signer| signer.certificate().unwrap().thumbprint().to_string())
    }

    #[test]
    fn g7_an_order_is_signed_with_the_homes_key_or_with_one_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        let thumbprint = ann(folder.path());
        let pfx = OrderKey {
            order_key: Some(KeySource::File(folder.path().join("ann.pfx"))),
            key_password_file: Some(folder.path().join("password")),
            ..OrderKey::default()
        };

        assert_eq!(opened(&home, &pfx).unwrap(), thumbprint);
        let missing = opened(&home, &OrderKey::default()).unwrap_err();
        std::fs::create_dir(folder.path().join("operator")).unwrap();
        for end in ["pem", "key"] {
            let (from, to) = (format!("ann.{end}"), format!("operator/order.{end}"));
            std::fs::rename(folder.path().join(from), folder.path().join(to)).unwrap();
        }
        assert_eq!(opened(&home, &OrderKey::default()).unwrap(), thumbprint);

        assert!(missing.to_string().contains("operator/order.pem: No such file"), "{missing}");
        assert!(missing.next().unwrap().contains("muster pki init"));
    }

    #[test]
    fn g7_an_order_key_that_does_not_open_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        let token = OrderKey {
            order_key: Some("pkcs11:object=ann?module-path=/no/such.so".parse().unwrap()),
            ..OrderKey::default()
        };

        let failure = opened(&home, &token).unwrap_err();

        assert_eq!(failure.exit(), Exit::Refused, "nobody denied anything");
        assert!(failure.to_string().contains("/no/such.so: No such file"), "{failure}");
        assert_eq!(failure.next(), None, "the error itself says what to do");
    }
}
