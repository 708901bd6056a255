//! `muster-sign file`.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use muster_pki::{Roots, UnixTime};
use muster_signing::envelope::{Anchors, ContentDigest, ContentType, Detached, Digester};
use serde_json::json;

use super::earlier::{Content, Kept, Signing};
use super::out::{Out, Product, Sources};
use super::{inside, merge, person, revocation, show, signer, timestamp, write};
use crate::cli::{Judged, SignFile, VerifyFile};
use crate::read::read_opened;
use crate::{FileKind, ToolError, read_envelope, sign_file, verify_file};

/// What is held of a file at once.
pub(super) const PIECE_BYTES: usize = 128 * 1024;

/// What a signature's name ends with, beside its file.
const SUFFIX: &str = ".p7s";

pub(super) fn sign(arguments: &SignFile, now: UnixTime) -> anyhow::Result<String> {
    let name = arguments.file.display();
    let out = arguments.out.clone().unwrap_or_else(|| beside(&arguments.file));
    let sources = Sources::of("FILE", [&arguments.file]).and_signer(&arguments.signer);
    let product = Product::Envelope(ContentType::File);
    let out = Out::new("--out", &out, product, &sources.and_stamp(&arguments.stamp))?;
    timestamp::check_address(&arguments.stamp)?;
    let signer = signer(&arguments.signer)?;
    let (digest, size) = digest(&arguments.file, Digester::of(&signer))?;
    let again = |earlier: &Detached| Ok(self::digest(&arguments.file, earlier.digester())?.0);
    let content = Content::Beside(&again);
    let signing = Signing { out: &out, content, signer: &signer, replace: arguments.replace };
    let kept = signing.earlier(|| timestamp::roots_named(&arguments.stamp), now)?;
    let (signature, stamped_at) = match &kept {
        Some(kept) => (kept.envelope.clone(), kept.stamped_at),
        None => {
            let signature = sign_file(&digest, &signer, now).with_context(|| name.to_string())?;
            timestamp::at_once(signature, &arguments.stamp, now)?
        }
    };
    write(&out, &signature)?;
    let signed_at = kept.as_ref().and_then(|kept| kept.signed_at).unwrap_or(now);
    let mut report = described(&arguments.file, size, &digest);
    merge(
        &mut report,
        json!({
            "signer": signer.certificate().map(person),
            "signed_at": signed_at.as_secs(),
            "out": out.path().display().to_string(),
        }),
    );
    merge(&mut report, timestamp::proven(&signature, stamped_at));
    super::warn(&mut report, kept.iter().map(Kept::says));
    Ok(show(&report, arguments.output))
}

pub(super) fn verify(arguments: &VerifyFile, now: UnixTime) -> anyhow::Result<String> {
    let path = arguments.signature.clone().unwrap_or_else(|| beside(&arguments.file));
    let name = path.display();
    if arguments.signature.is_none() && !path.exists() {
        let file = arguments.file.display();
        anyhow::bail!(
            "{name}: not there; `muster-sign file sign {file}` makes it, or name the signature's file with --signature"
        );
    }
    let signature = read_envelope(&read_short(&path)?).with_context(|| name.to_string())?;
    let detached = Detached::read(&signature).map_err(ToolError::from).with_context(|| name.to_string())?;
    let trusted = Trusted::read(&arguments.roots, &arguments.trust)?;
    let revocation = revocation(&arguments.trust.crl, trusted.all(), inside(&signature), now)?;
    let (digest, size) = digest(&arguments.file, detached.digester())?;
    let verified = verify_file(&detached, &digest, &trusted.anchors(), revocation.as_ref(), now)
        .with_context(|| arguments.file.display().to_string())?;
    let mut report = described(&arguments.file, size, &digest);
    merge(
        &mut report,
        json!({
            "signer": person(&verified.signer),
            "root": person(&verified.root),
            "signed_at": verified.signing_time.as_secs(),
        }),
    );
    merge(&mut report, timestamp::proven(&signature, verified.stamped_at));
    Ok(show(&report, arguments.output))
}

/// The roots that a command line names.
pub(super) struct Trusted {
    signers: Roots,
    timestamps: Option<Roots>,
}

impl Trusted {
    pub(super) fn read(roots: &Path, by: &Judged) -> anyhow::Result<Self> {
        let timestamps = match (&by.timestamp_roots, &by.home) {
            (Some(path), _) => Some(super::roots_of(path)?),
            (None, Some(home)) => timestamp::roots(home)?,
            (None, None) => None,
        };
        Ok(Self { signers: super::roots_of(roots)?, timestamps })
    }

    pub(super) fn anchors(&self) -> Anchors<'_> {
        Anchors { signers: &self.signers, timestamps: self.timestamps.as_ref() }
    }

    /// Returns the roots of signers and of timestamp authorities.
    pub(super) fn all(&self) -> impl Iterator<Item = &Roots> {
        [&self.signers].into_iter().chain(&self.timestamps)
    }
}

fn described(file: &Path, size: u64, digest: &ContentDigest) -> serde_json::Value {
    json!({
        "file": file.display().to_string(),
        "size": size,
        "digest": digest.to_string(),
        "digest_algorithm": digest.algorithm(),
    })
}

fn beside(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(SUFFIX);
    PathBuf::from(path)
}

/// Opens a regular file. Anything else might have no end, or wait for ever.
pub(super) fn open(path: &Path) -> anyhow::Result<File> {
    let name = || path.display().to_string();
    let is_file = std::fs::metadata(path).with_context(name)?.is_file();
    anyhow::ensure!(is_file, "{}: not a regular file", path.display());
    File::open(path).with_context(name)
}

/// Hashes a file of any size; returns its size, too.
fn digest(path: &Path, mut digester: Digester) -> anyhow::Result<(ContentDigest, u64)> {
    let mut file = open(path)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut size = 0;
    loop {
        let read = file.read(&mut piece).with_context(|| path.display().to_string())?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        digester.update(bytes);
        size += bytes.len() as u64;
    }
    Ok((digester.finish(), size))
}

/// Reads a regular file that should be an envelope.
pub(super) fn read_short(path: &Path) -> anyhow::Result<Vec<u8>> {
    Ok(read_opened(&open(path)?, path, FileKind::ENVELOPE)?)
}
