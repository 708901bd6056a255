//! Who signs, and whether anybody will accept it.

use std::path::Path;

use anyhow::Context as _;
use muster_pki::{Certificate, Role, Roots, UnixTime};
use muster_signing::envelope::Signer;

use super::roots;
use crate::cli::SignerFiles;
use crate::{check_signer_role, key};

pub(super) fn signer(files: &SignerFiles) -> anyhow::Result<Signer> {
    Ok(key::open(&files.source())?)
}

/// Names the signer's files where its certificate is refused.
fn signer_name(files: &SignerFiles) -> String {
    files.cert.as_ref().map_or_else(|| files.key.to_string(), |cert| cert.display().to_string())
}

/// Opens the signer, and holds it against the roots of its role in the home, if there is one; `others` only serve to say what
/// the certificate is instead, and a home need not have them.
pub(super) fn signer_for(
    files: &SignerFiles,
    home: Option<&Path>,
    (role, name): (Role, &str),
    others: &[(Role, &str)],
    now: UnixTime,
) -> anyhow::Result<Signer> {
    let signer = signer(files)?;
    if let Some(home) = home {
        let read = |(role, name): &(Role, &str)| Some((*role, roots(home, name).ok()?));
        let others: Vec<(Role, Roots)> = others.iter().filter_map(read).collect();
        check_signer_role(&signer, role, &roots(home, name)?, &others, now)
            .with_context(|| signer_name(files))?;
    }
    Ok(signer)
}

/// Warns of a signer without the certificate of a CA, where no home shows whether one is missing: an envelope holds all that stand between
/// the signer and its root, and whoever verifies it looks nowhere else.
pub(super) fn lone_signer(signer: &Signer, home: Option<&Path>) -> Option<String> {
    let [alone] = signer.chain() else { return None };
    home.is_none().then(|| {
        format!(
            "no certificate of a CA comes with the signer's; where {:?} is no root, nobody accepts the signature: give that certificate, too (--cert with both, \
             or beside the key in its PFX or token), or --home DIR to have it checked",
            alone.issuer()
        )
    })
}

/// Warns of a licence that lasts longer than its signer, or a CA above that; no timestamp makes it outlive them.
pub(super) fn outlasted(signer: &Signer, not_after: UnixTime) -> Option<String> {
    let first = signer.chain().iter().min_by_key(|element| element.not_after().as_secs())?;
    let ends = Certificate::not_after(first);
    (ends < not_after).then(|| {
        format!(
            "the certificate of {:?} ends at {}, before the licence: every client refuses it from then on; have that certificate renewed and the \
             licence issued again before, or give fewer days to --valid",
            first.subject(),
            muster_signing::moment::shown(ends.as_secs())
        )
    })
}
