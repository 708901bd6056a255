//! PEM reading that tolerates what people's files hold (T5).
//!
//! Several blocks a file, text between them, CRLF, a byte order mark; one bad block never loses the others. DER and PFX
//! are not read: the error names the command that converts them.

use std::borrow::Cow;

use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::text::is_misleading;

/// Largest file that is read, in bytes; a CRL of 100,000 entries has about 5 MiB.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Reads all certificates of a PEM file; `what` names the file in errors. Bad blocks are skipped, see [`read`].
///
/// # Errors
/// There is no readable certificate in it: it is DER or PFX, or holds something else.
pub fn certificates(bytes: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let contents = read(bytes, what)?;
    if contents.certificates.is_empty() {
        return Err(contents.nothing(what, "certificate"));
    }
    Ok(contents.certificates)
}

/// Reads the first private key of a PEM file (PKCS#8, SEC 1 or PKCS#1); `what` names the file in errors.
///
/// # Errors
/// There is no readable key in it; an encrypted one has an error that names the command that decrypts it.
pub fn private_key(bytes: &[u8], what: &str) -> Result<PrivateKeyDer<'static>, PemError> {
    let mut contents = read(bytes, what)?;
    if contents.keys.is_empty() {
        return Err(contents.nothing(what, "private key"));
    }
    Ok(contents.keys.swap_remove(0))
}

/// Reads all CRLs of a PEM file; `what` names the file in errors. Other than with [`read`] one bad block spoils the file:
/// what is lost with it may be what somebody was revoked by.
///
/// # Errors
/// There is no readable CRL in it, or a block that is damaged.
pub fn crls(bytes: &[u8], what: &str) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    let (mut crls, mut damaged) = (Vec::new(), Vec::new());
    for Item { line, label, content } in items(bytes, what)? {
        match content {
            Content::Crl(der) => crls.push(der),
            Content::Unusable(problem) if problem != UNUSED => {
                damaged.push(format!("line {line}: `{label}`: {problem}"));
            }
            Content::Certificate(_)
            | Content::Key(_)
            | Content::EncryptedKey(_)
            | Content::LegacyEncryptedKey
            | Content::Unusable(_) => {}
        }
    }
    let ends = count(&as_utf8(bytes), CRL_END);
    if damaged.is_empty() && ends != crls.len() {
        damaged.push(format!("{} `X509 CRL` have a BEGIN line and {ends} an END line", crls.len()));
    }
    if !damaged.is_empty() {
        damaged.truncate(DAMAGED_TOLD_MAX);
        return Err(PemError::Damaged { what: what.to_owned(), detail: damaged.join("; ") });
    }
    if crls.is_empty() {
        return Err(read(bytes, what)?.nothing(what, "CRL"));
    }
    Ok(crls)
}

/// Everything that a PEM file holds.
#[derive(Debug)]
pub struct Contents {
    /// Certificates, in the order of the file.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Private keys, in the order of the file.
    pub keys: Vec<PrivateKeyDer<'static>>,
    /// CRLs, in the order of the file.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
    /// What was wrong with the blocks that were skipped, with their line numbers.
    pub skipped: Vec<String>,
}

/// Reads a PEM file block by block; `what` names the file in errors.
///
/// # Errors
/// It is not PEM at all, or too large.
pub fn read(bytes: &[u8], what: &str) -> Result<Contents, PemError> {
    let mut contents =
        Contents { certificates: Vec::new(), keys: Vec::new(), crls: Vec::new(), skipped: Vec::new() };
    for item in items(bytes, what)? {
        contents.take(item);
    }
    Ok(contents)
}

/// One block of a PEM file, for readers that tell their findings by line (T5) or decrypt keys.
#[derive(Debug)]
pub(crate) struct Item {
    /// The line of its BEGIN, from 1.
    pub(crate) line: usize,
    /// What stands between `BEGIN` and the dashes.
    pub(crate) label: String,
    /// What it holds.
    pub(crate) content: Content,
}

/// What a block holds.
#[derive(Debug)]
pub(crate) enum Content {
    /// A certificate, not parsed.
    Certificate(CertificateDer<'static>),
    /// A private key.
    Key(PrivateKeyDer<'static>),
    /// The DER of an `ENCRYPTED PRIVATE KEY` (RFC 5958 §3).
    EncryptedKey(Vec<u8>),
    /// A key that is encrypted in the way of OpenSSL before PKCS#8 (`Proc-Type: 4,ENCRYPTED`).
    LegacyEncryptedKey,
    /// A CRL, not parsed.
    Crl(CertificateRevocationListDer<'static>),
    /// Not readable, or nothing that is used here; the text says what is wrong.
    Unusable(String),
}

/// Cuts a PEM file into its blocks and decodes each; `what` names the file in errors.
///
/// # Errors
/// It is not PEM at all, or too large.
pub(crate) fn items(bytes: &[u8], what: &str) -> Result<Vec<Item>, PemError> {
    let what = what.to_owned();
    if bytes.len() > FILE_BYTES_MAX {
        return Err(PemError::TooLarge { what, got: bytes.len() });
    }
    if bytes.first() == Some(&0x30) && !has_block(bytes) {
        return Err(if is_pfx(bytes) { PemError::Pfx { what } } else { PemError::Der { what } });
    }
    Ok(blocks(&as_utf8(bytes)).iter().map(Block::item).collect())
}

/// Turns UTF-16, which Windows PowerShell's `>` writes, into UTF-8; anything else stays as it is.
pub(crate) fn as_utf8(bytes: &[u8]) -> Cow<'_, [u8]> {
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return Cow::Borrowed(bytes),
    };
    let (pairs, _) = bytes.as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().skip(1).map(|pair| unit(*pair)).collect();
    Cow::Owned(String::from_utf16_lossy(&units).into_bytes())
}

/// A block of any label.
pub(crate) struct Section {
    /// The line of its BEGIN, from 1.
    pub(crate) line: usize,
    /// Its label, safe to show.
    pub(crate) label: String,
    /// It is a private key under a passphrase.
    pub(crate) is_encrypted: bool,
    /// Its content, or why there is none. It may be a private key.
    pub(crate) der: Result<Zeroizing<Vec<u8>>, String>,
}

/// Returns every block of a file, whatever its label.
pub(crate) fn sections(bytes: &[u8]) -> Vec<Section> {
    let section = |block: Block<'_>| {
        let is_encrypted = block.is_encrypted();
        let der = match block.is_ended {
            _ if is_encrypted => Err(ENCRYPTED.to_owned()),
            true => block.der(),
            false => Err("no END line".to_owned()),
        };
        Section { line: block.line, label: block.label, is_encrypted, der }
    };
    blocks(bytes).into_iter().map(section).collect()
}

/// Encodes `der` as one PEM block with lines of 64 characters.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    // Fails for labels that are no PEM labels only; ours are constants.
    der::pem::encode_string(label, der::pem::LineEnding::LF, der).unwrap_or_default()
}

/// Why a file has not what was asked of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Binary DER.
    #[error(
        "{what}: binary DER; wanted PEM; convert it: `openssl x509 -inform DER -in {what} -out {what}.pem` (a key: `openssl pkey -inform DER …`, a CRL: `openssl crl -inform DER …`)"
    )]
    Der {
        /// The file.
        what: String,
    },
    /// A PKCS#12 file.
    #[error(
        "{what}: a PFX (PKCS#12) file; wanted PEM; convert it: `openssl pkcs12 -in {what} -nodes -out {what}.pem` (an old one: add `-legacy`)"
    )]
    Pfx {
        /// The file.
        what: String,
    },
    /// An encrypted private key.
    #[error(
        "{what}: the private key is encrypted; wanted an unencrypted one in a file that only its service can read; convert it: `openssl pkey -in {what} -out {what}.key`"
    )]
    EncryptedKey {
        /// The file.
        what: String,
    },
    /// No such block.
    #[error("{what}: no {wanted} found; wanted a PEM block `-----BEGIN …-----`{detail}")]
    Nothing {
        /// The file.
        what: String,
        /// What was looked for.
        wanted: &'static str,
        /// What stands there instead.
        detail: String,
    },
    /// A block of a file that counts as a whole is damaged.
    #[error(
        "{what}: damaged: {detail}; none of the file is used, since what is lost may revoke somebody; fetch or publish it again"
    )]
    Damaged {
        /// The file.
        what: String,
        /// Which blocks, by their lines.
        detail: String,
    },
    /// More bytes than any such file needs.
    #[error("{what}: {got} bytes; wanted at most {FILE_BYTES_MAX}")]
    TooLarge {
        /// The file.
        what: String,
        /// Its size in bytes.
        got: usize,
    },
}

/// One block: where it begins, its label, and its text from BEGIN up to and with END.
struct Block<'a> {
    line: usize,
    label: String,
    text: &'a [u8],
    is_ended: bool,
}

impl Block<'_> {
    fn is_encrypted(&self) -> bool {
        self.label == "ENCRYPTED PRIVATE KEY" || find(self.text, b"Proc-Type: 4,ENCRYPTED").is_some()
    }

    /// Decodes the text between BEGIN and END, however its lines are broken.
    fn der(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let lines = self.text.split(|byte| *byte == b'\n').skip(1).map(<[u8]>::trim_ascii);
        let inside = lines.take_while(|line| !line.starts_with(END));
        let digits: Zeroizing<Vec<u8>> =
            Zeroizing::new(inside.flatten().copied().filter(|byte| !byte.is_ascii_whitespace()).collect());
        let mut block = Zeroizing::new(b"-----BEGIN X-----\n".to_vec());
        for line in digits.chunks(64) {
            block.extend_from_slice(line);
            block.push(b'\n');
        }
        block.extend_from_slice(b"-----END X-----\n");
        let decoded = der::pem::decode_vec(&block).map_err(|error| format!("bad base64: {error}"))?;
        Ok(Zeroizing::new(decoded.1))
    }
}

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const CRL_END: &[u8] = b"-----END X509 CRL-----";
/// Damaged blocks that are told; a file of junk would otherwise fill the log.
const DAMAGED_TOLD_MAX: usize = 3;
/// What a block is that is whole and of no use here.
const UNUSED: &str = "not used here";
const ENCRYPTED: &str = "the private key is encrypted";

impl Block<'_> {
    fn item(&self) -> Item {
        Item { line: self.line, label: self.label.clone(), content: self.content() }
    }

    fn content(&self) -> Content {
        if find(self.text, b"Proc-Type: 4,ENCRYPTED").is_some() {
            return Content::LegacyEncryptedKey;
        }
        if !self.is_ended {
            return Content::Unusable("no END line".to_owned());
        }
        if self.label == "ENCRYPTED PRIVATE KEY" {
            return self.encrypted_key();
        }
        match <(SectionKind, Vec<u8>)>::from_pem_slice(self.text) {
            Ok((SectionKind::Certificate, der)) => Content::Certificate(der.into()),
            Ok((SectionKind::Crl, der)) => Content::Crl(der.into()),
            Ok((SectionKind::PrivateKey, der)) => Content::Key(PrivateKeyDer::Pkcs8(der.into())),
            Ok((SectionKind::EcPrivateKey, der)) => Content::Key(PrivateKeyDer::Sec1(der.into())),
            Ok((SectionKind::RsaPrivateKey, der)) => Content::Key(PrivateKeyDer::Pkcs1(der.into())),
            Ok(_) | Err(rustls_pki_types::pem::Error::NoItemsFound) => Content::Unusable(UNUSED.to_owned()),
            Err(error) => Content::Unusable(error.to_string()),
        }
    }

    /// Decodes a label that rustls-pki-types does not know.
    fn encrypted_key(&self) -> Content {
        match self.der() {
            Ok(der) => Content::EncryptedKey(der.to_vec()),
            Err(problem) => Content::Unusable(problem),
        }
    }
}

impl Contents {
    fn take(&mut self, item: Item) {
        match item.content {
            Content::Certificate(der) => self.certificates.push(der),
            Content::Key(key) => self.keys.push(key),
            Content::Crl(der) => self.crls.push(der),
            Content::EncryptedKey(_) | Content::LegacyEncryptedKey => {
                self.skip(item.line, &item.label, ENCRYPTED);
            }
            Content::Unusable(problem) => self.skip(item.line, &item.label, &problem),
        }
    }

    fn skip(&mut self, line: usize, label: &str, problem: &str) {
        self.skipped.push(format!("line {line}: `{label}`: {problem}"));
    }

    fn nothing(&self, what: &str, wanted: &'static str) -> PemError {
        let what = what.to_owned();
        if wanted == "private key" && self.skipped.iter().any(|skipped| skipped.ends_with(ENCRYPTED)) {
            return PemError::EncryptedKey { what };
        }
        let mut detail = String::new();
        for (count, name) in [
            (self.certificates.len(), "certificate(s)"),
            (self.keys.len(), "private key(s)"),
            (self.crls.len(), "CRL(s)"),
        ] {
            if count > 0 {
                detail += &format!("; it holds {count} {name}");
            }
        }
        // A few say what is wrong; a file of junk would otherwise fill the log.
        for skipped in self.skipped.iter().take(3) {
            detail += "; ";
            detail += skipped;
        }
        PemError::Nothing { what, wanted, detail }
    }
}

/// Returns how often `text` stands in `bytes`.
fn count(bytes: &[u8], text: &[u8]) -> usize {
    bytes.windows(text.len()).filter(|window| window == &text).count()
}

/// Returns whether a PEM block begins anywhere in `bytes`.
pub(crate) fn has_block(bytes: &[u8]) -> bool {
    find(bytes, BEGIN).is_some()
}

/// Cuts a file into its blocks. A BEGIN line ends a block that has no END, so that a torn one costs only itself.
fn blocks(bytes: &[u8]) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    let mut at = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let start = at;
        at += line.len();
        let mark = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
        let is_begin = mark.starts_with(BEGIN);
        if let Some((line, from, label)) = open.take_if(|_| is_begin || mark.starts_with(END)) {
            let to = if is_begin { start } else { at };
            let text = bytes.get(from..to).unwrap_or_default();
            blocks.push(Block { line, label, text, is_ended: !is_begin });
        }
        if is_begin {
            let offset = find(line, BEGIN).unwrap_or(0);
            open = Some((index + 1, start + offset, label_of(mark)));
        }
    }
    if let Some((line, from, label)) = open {
        blocks.push(Block { line, label, text: bytes.get(from..).unwrap_or_default(), is_ended: false });
    }
    blocks
}

/// Returns a BEGIN line's label; control characters are replaced, since it is shown in errors.
fn label_of(mark: &[u8]) -> String {
    let label = mark.get(BEGIN.len()..).unwrap_or_default();
    let text = String::from_utf8_lossy(label);
    text.trim_end_matches('-').chars().take(40).map(|c| if is_misleading(c) { '?' } else { c }).collect()
}

/// Returns whether DER looks like a PFX: SEQUENCE { INTEGER 3, … } (RFC 7292 §4).
pub(crate) fn is_pfx(bytes: &[u8]) -> bool {
    let header = match bytes.get(1) {
        Some(length) if *length < 0x80 => 2,
        Some(0x80) => 2,
        Some(length) => 2 + usize::from(*length & 0x7f),
        None => return false,
    };
    bytes.get(header..).is_some_and(|body| body.starts_with(&[0x02, 0x01, 0x03]))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
