//! PFX (PKCS#12) files: certificates and keys that a password protects (C5, C13).
//!
//! Reads what `openssl pkcs12 -export` writes (PBES2 with AES, HMAC-SHA-256), with `-legacy` as well (RC2, 3DES, SHA-1
//! MAC), and what Windows exports. Cryptography is aws-lc-rs'; RC2 and 3DES, which it has not, are RustCrypto's.
//!
//! It writes none, verifies no chain, and does not read files that are bound to a Windows account or to public keys.
//! [`crate::Identity`] makes a leaf, its chain and its key of what stands here.

mod asn1;
mod derivation;
mod encryption;

use der::asn1::OctetStringRef;
use der::{Decode, Encode};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use self::asn1::{CertificateBag, ContentInfo, EncryptedData, EncryptedPrivateKey, Pfx, SafeBag};
use self::derivation::{Budget, Password};
pub(crate) use self::encryption::DecryptError;
use crate::format::Format;

/// Largest PFX that is read, in bytes; one with a key and a chain has 3 to 10 KiB.
pub const PFX_BYTES_MAX: usize = 1024 * 1024;

/// Most rounds of hashing that one file may ask for, over all its derivations: one to three seconds of one core.
///
/// OpenSSL asks for 2,048 iterations for each of three derivations. A million for each still opens, also in old files,
/// whose derivation needs seven blocks of key in all.
pub const ROUNDS_MAX: u64 = 8_000_000;

/// Everything that a PFX holds, in the order of the file.
#[derive(Debug, Default)]
pub struct Contents {
    /// Certificates, not parsed.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Private keys in PKCS#8, not parsed.
    pub keys: Vec<PrivateKeyDer<'static>>,
    /// What was left out: CRLs, secrets, certificates of other kinds.
    pub skipped: Vec<String>,
}

/// Opens a PFX; `what` names the file in errors. Without a password the empty one is tried.
///
/// # Errors
/// It is no PFX, truncated, or damaged; the password is wrong or missing; an algorithm is not read; or opening it would
/// take more than [`ROUNDS_MAX`].
pub fn read(bytes: &[u8], password: Option<&str>, what: &str) -> Result<Contents, PfxError> {
    let pfx = parse(bytes, what)?;
    let mut budget = Budget::default();
    for candidate in Password::candidates(password.unwrap_or_default()) {
        match Opened::open(&pfx, &candidate, &mut budget) {
            Ok(contents) => return Ok(contents),
            Err(DecryptError::Password) => {} // The next form of it, if there is one.
            Err(error) => return Err(PfxError::of(error, what)),
        }
    }
    let what = what.to_owned();
    Err(if password.is_none() {
        PfxError::PasswordMissing { what }
    } else {
        PfxError::PasswordWrong { what }
    })
}

/// Decrypts the DER of an `ENCRYPTED PRIVATE KEY`.
pub(crate) fn decrypt_key(der: &[u8], password: &str) -> Result<PrivateKeyDer<'static>, DecryptError> {
    let key =
        EncryptedPrivateKey::from_der(der).map_err(|error| DecryptError::Malformed(error.to_string()))?;
    let mut budget = Budget::default();
    // PKCS#8 has no MAC, and no program leaves out the end mark here: one form of the password is enough.
    let Some(password) = Password::candidates(password).into_iter().next() else {
        return Err(DecryptError::Password);
    };
    let plain = encryption::decrypt_key(&key, &password, &mut budget)?;
    // Wrong passwords give a right padding once in 256 times.
    if !is_sequence(&plain) {
        return Err(DecryptError::Password);
    }
    Ok(PrivatePkcs8KeyDer::from(plain.to_vec()).into())
}

/// Reads the outermost structure, and tells what else it is.
fn parse<'a>(bytes: &'a [u8], what: &str) -> Result<Pfx<'a>, PfxError> {
    let name = || what.to_owned();
    if bytes.len() > PFX_BYTES_MAX {
        return Err(PfxError::TooLarge { what: name(), got: bytes.len() });
    }
    let found = Format::of(bytes);
    if found == Format::Empty {
        return Err(PfxError::Empty { what: name() });
    }
    if found != Format::Pfx {
        return Err(PfxError::Format { what: name(), found, fix: conversion_to_pfx(found, what) });
    }
    if bytes.get(1) == Some(&0x80) {
        return Err(PfxError::IndefiniteLength { what: name() });
    }
    if let Some(wanted) = asn1::announced_length(bytes).filter(|length| *length > bytes.len()) {
        return Err(PfxError::Truncated { what: name(), got: bytes.len(), wanted });
    }
    let malformed = |problem: String| PfxError::Malformed { what: name(), problem };
    let pfx = Pfx::from_der(bytes).map_err(|error| malformed(error.to_string()))?;
    if pfx.version != 3 {
        return Err(malformed(format!("version {}, wanted 3", pfx.version)));
    }
    Ok(pfx)
}

/// Returns what to do with a file that is no PFX where one is wanted.
fn conversion_to_pfx(found: Format, what: &str) -> String {
    match found {
        Format::Pem => format!("make one: `openssl pkcs12 -export -in {what} -inkey KEY -out {what}.pfx`"),
        Format::Certificate => format!(
            "it has no key; export the certificate together with its private key, or make a PFX: `openssl x509 -inform DER -in {what} -out {what}.pem`, then `openssl pkcs12 -export -in {what}.pem -inkey KEY -out {what}.pfx`"
        ),
        Format::Empty
        | Format::Pfx
        | Format::PrivateKey
        | Format::EncryptedKey
        | Format::Crl
        | Format::Pkcs7
        | Format::Text
        | Format::Unknown => found.conversion_to_pem(what),
    }
}

/// A PFX on its way out of its wrappings.
struct Opened<'p> {
    contents: Contents,
    password: &'p Password<'p>,
    /// A MAC was right, so that what cannot be read is damage and no wrong password.
    is_verified: bool,
}

impl<'p> Opened<'p> {
    fn open(
        pfx: &Pfx<'_>,
        password: &'p Password<'p>,
        budget: &mut Budget,
    ) -> Result<Contents, DecryptError> {
        let safe = data(&pfx.auth_safe)?;
        if let Some(mac) = &pfx.mac {
            encryption::verify_mac(mac, safe, password, budget)?;
        }
        let mut opened = Self { contents: Contents::default(), password, is_verified: pfx.mac.is_some() };
        for part in Vec::<ContentInfo<'_>>::from_der(safe).map_err(malformed)? {
            opened.part(&part, budget)?;
        }
        Ok(opened.contents)
    }

    fn part(&mut self, part: &ContentInfo<'_>, budget: &mut Budget) -> Result<(), DecryptError> {
        if part.content_type != asn1::ENCRYPTED_DATA {
            let bags = Vec::<SafeBag<'_>>::from_der(data(part)?).map_err(malformed)?;
            return bags.iter().try_for_each(|bag| self.bag(bag, budget));
        }
        let encrypted: EncryptedData<'_> = part.content.decode_as().map_err(malformed)?;
        let Some(bytes) = encrypted.content.bytes else { return Ok(()) };
        let algorithm = &encrypted.content.algorithm;
        let plain = encryption::decrypt(algorithm, bytes.as_bytes(), self.password, budget)?;
        let bags = Vec::<SafeBag<'_>>::from_der(&plain).map_err(|error| self.garbled(error))?;
        bags.iter().try_for_each(|bag| self.bag(bag, budget))
    }

    fn bag(&mut self, bag: &SafeBag<'_>, budget: &mut Budget) -> Result<(), DecryptError> {
        match bag.kind {
            asn1::CERTIFICATE_BAG => {
                let inside: CertificateBag<'_> = bag.value.decode_as().map_err(malformed)?;
                if inside.kind != asn1::X509_CERTIFICATE {
                    self.contents.skipped.push(format!("a certificate of the kind {}", inside.kind));
                    return Ok(());
                }
                let der: OctetStringRef<'_> = inside.value.decode_as().map_err(malformed)?;
                self.contents.certificates.push(der.as_bytes().to_vec().into());
            }
            asn1::KEY_BAG => {
                let der = bag.value.to_der().map_err(malformed)?;
                self.contents.keys.push(PrivatePkcs8KeyDer::from(der).into());
            }
            asn1::SHROUDED_KEY_BAG => {
                let key: EncryptedPrivateKey<'_> = bag.value.decode_as().map_err(malformed)?;
                let plain = encryption::decrypt_key(&key, self.password, budget)?;
                if !self.is_verified && !is_sequence(&plain) {
                    return Err(DecryptError::Password);
                }
                self.contents.keys.push(PrivatePkcs8KeyDer::from(plain.to_vec()).into());
            }
            other => self.contents.skipped.push(format!("a bag of the kind {other}")),
        }
        Ok(())
    }

    /// Decrypted bytes that make no sense: damage after a right MAC, else the password.
    fn garbled(&self, error: der::Error) -> DecryptError {
        if self.is_verified { malformed(error) } else { DecryptError::Password }
    }
}

/// Returns the octets of an id-data.
fn data<'a>(info: &ContentInfo<'a>) -> Result<&'a [u8], DecryptError> {
    if info.content_type != asn1::DATA {
        // Public-key integrity or privacy modes (RFC 7292 §3.1), and files bound to a Windows account.
        return Err(DecryptError::Unsupported(format!("content of the kind {}", info.content_type)));
    }
    let octets: OctetStringRef<'a> = info.content.decode_as().map_err(malformed)?;
    Ok(octets.as_bytes())
}

/// Returns whether the bytes are exactly one SEQUENCE.
fn is_sequence(der: &[u8]) -> bool {
    der.first() == Some(&0x30) && asn1::announced_length(der) == Some(der.len())
}

fn malformed(error: der::Error) -> DecryptError {
    DecryptError::Malformed(error.to_string())
}

/// Why a PFX is not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PfxError {
    /// No bytes.
    #[error(
        "{what}: an empty file; wanted a PFX (PKCS#12); make it again: `openssl pkcs12 -export -in CHAIN -inkey KEY -out {what}`"
    )]
    Empty {
        /// The file.
        what: String,
    },
    /// PEM, a certificate in DER, or anything else that is no PFX.
    #[error("{what}: {found}; wanted a PFX (PKCS#12); {fix}")]
    Format {
        /// The file.
        what: String,
        /// What it is.
        found: Format,
        /// What to do.
        fix: String,
    },
    /// The end is missing.
    #[error(
        "{what}: ends after {got} of {wanted} bytes; wanted the whole file; copy it again, in binary mode"
    )]
    Truncated {
        /// The file.
        what: String,
        /// Its size in bytes.
        got: usize,
        /// The size that it says it has.
        wanted: usize,
    },
    /// BER instead of DER, as some key stores export.
    #[error(
        "{what}: BER with indefinite lengths; wanted DER; export it again: `openssl pkcs12 -in {what} -nodes -out all.pem`, then `openssl pkcs12 -export -in all.pem -out {what}` and remove all.pem"
    )]
    IndefiniteLength {
        /// The file.
        what: String,
    },
    /// More bytes than any such file needs.
    #[error(
        "{what}: {got} bytes; wanted at most {PFX_BYTES_MAX}; export one certificate with its chain and key alone"
    )]
    TooLarge {
        /// The file.
        what: String,
        /// Its size in bytes.
        got: usize,
    },
    /// It has a password, and none was given.
    #[error("{what}: protected by a password, and none was given; wanted the one that it was exported with")]
    PasswordMissing {
        /// The file.
        what: String,
    },
    /// The password is wrong, or the file was changed; the two cannot be told apart.
    #[error(
        "{what}: the password does not open it (or the file is damaged); wanted the one that it was exported with; try it: `openssl pkcs12 -in {what} -noout` (an old one: add `-legacy`)"
    )]
    PasswordWrong {
        /// The file.
        what: String,
    },
    /// Opening it would take too long.
    #[error(
        "{what}: {iterations} iterations of key derivation, {got} rounds so far; wanted at most {ROUNDS_MAX} rounds in all; export it again with fewer: `openssl pkcs12 -export … -iter 100000`"
    )]
    TooManyRounds {
        /// The file.
        what: String,
        /// The iterations of the derivation that went beyond.
        iterations: u32,
        /// The rounds up to and with it.
        got: u64,
    },
    /// An algorithm, or a kind of protection, that is not read.
    #[error(
        "{what}: {algorithm} is not supported; wanted AES, 3DES or RC2 under a password, and a MAC with SHA-1 or SHA-2; export it again: `openssl pkcs12 -export -keypbe AES-256-CBC -certpbe AES-256-CBC -macalg SHA256 …`"
    )]
    Unsupported {
        /// The file.
        what: String,
        /// The algorithm's OID, with its name if it has one.
        algorithm: String,
    },
    /// Not what RFC 7292 describes.
    #[error("{what}: damaged: {problem}; wanted a PFX as RFC 7292 describes it; copy or export it again")]
    Malformed {
        /// The file.
        what: String,
        /// What the decoder says.
        problem: String,
    },
}

impl PfxError {
    fn of(error: DecryptError, what: &str) -> Self {
        let what = what.to_owned();
        match error {
            DecryptError::Password => Self::PasswordWrong { what },
            DecryptError::Rounds { got, iterations } => Self::TooManyRounds { what, iterations, got },
            DecryptError::Unsupported(algorithm) => Self::Unsupported { what, algorithm },
            DecryptError::Malformed(problem) => Self::Malformed { what, problem },
        }
    }
}
