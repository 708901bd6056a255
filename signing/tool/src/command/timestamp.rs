//! `muster-sign timestamp`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use muster_pki::{Certificate, Roots, UnixTime};
use muster_signing::envelope::{self, ContentType};
use muster_signing::moment;
use muster_signing::timestamp::{ClaimedStamp, Request, Stamp, TOKEN_BYTES_MAX, Token};
use serde_json::{Value, json};

use super::out::{Out, Product, Sources};
use super::{inside, merge, person, random, read, revocation, show, warn, write};
use crate::cli::{StampAtOnce, StampDocument};
use crate::{Existing, FileKind, Stamped, ToolError, existing_timestamps, read_envelope, stamp_envelope};

/// How long an authority may take, from the connection to the last byte of its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The roots of timestamp authorities in an operator's home.
pub(super) const ROOTS: &str = "timestamps";

/// Returns the home's roots of timestamp authorities, if it has any.
pub(super) fn roots(home: &Path) -> anyhow::Result<Option<Roots>> {
    let path = file(home);
    if path.exists() { super::roots(home, ROOTS).map(Some) } else { Ok(None) }
}

fn file(home: &Path) -> PathBuf {
    home.join("trust").join(format!("{ROOTS}.pem"))
}

pub(super) fn stamp(arguments: &StampDocument, now: UnixTime) -> anyhow::Result<String> {
    let name = arguments.file.display();
    if let (Some(url), None) = (&arguments.url, &arguments.request) {
        check_url(url)?;
    }
    let bytes = read(&arguments.file, FileKind::ENVELOPE)?;
    let envelope = read_envelope(&bytes).with_context(|| name.to_string())?;
    let kind =
        envelope::inspect(&envelope).map_err(ToolError::from).with_context(|| name.to_string())?.content_type;
    anyhow::ensure!(
        kind != ContentType::LicenceRequest,
        "{name}: a {}, which has no timestamp, and nobody takes one that has; send it as it is",
        kind.name()
    );
    let out = out(arguments, kind)?;
    let path = match (&arguments.roots, &arguments.home) {
        (Some(path), _) => path.clone(),
        (None, Some(home)) => file(home),
        (None, None) => {
            anyhow::bail!(
                "whose timestamps are believed? give --roots FILE, or --home with trust/{ROOTS}.pem"
            )
        }
    };
    let roots = super::roots_of(&path)?;
    if !arguments.replace {
        check_unstamped(&arguments.file, &envelope, &arguments.crl, &roots, now)?;
        check_stays_unstamped(arguments, &envelope, &roots, now)?;
    }
    // Who signed the list of a timestamp authority's issuing CA is in the answer alone.
    let revoked = |token: &Token| {
        let mut certificates = inside(&envelope);
        certificates.extend(token.claimed().chain);
        revocation(&arguments.crl, [&roots], certificates, now)
    };
    // A request in a file wins over an address that only the environment names.
    let stamped = match (&arguments.url, &arguments.request, &arguments.answer) {
        (Some(url), None, _) => stamp_envelope(&envelope, &roots, revoked, now, random, |request| {
            ask(url, request).with_context(|| format!("timestamp authority {url}"))
        }),
        (_, Some(request), None) => return write_request(arguments, &envelope, kind, request, &out),
        (_, Some(request), Some(answer)) => {
            let asked = read(request, FileKind::TIMESTAMP)?;
            let nonce = || Request::nonce_of(&asked).with_context(|| request.display().to_string());
            stamp_envelope(&envelope, &roots, revoked, now, nonce, |_| read(answer, FileKind::TIMESTAMP))
        }
        (None, None, _) => {
            anyhow::bail!("who gives the timestamp? give --url, or --request and then --answer")
        }
    };
    let Stamped { envelope, stamps } = stamped.with_context(|| name.to_string())?;
    write(&out, &envelope)?;
    let stamps: Vec<Value> = stamps.iter().map(stamp_report).collect();
    let mut report = json!({
        "timestamps": stamps,
        "digest": envelope::digest(&envelope).to_string(),
        "out": out.path().display().to_string(),
    });
    warn(&mut report, in_vain(kind));
    Ok(show(&report, arguments.output))
}

/// Where the request goes, or the document with its timestamp.
fn out(arguments: &StampDocument, kind: ContentType) -> anyhow::Result<Out> {
    let sources = Sources::of("--roots", &arguments.roots).and("--crl", &arguments.crl);
    match (&arguments.request, &arguments.answer, &arguments.out) {
        (Some(request), None, _) => {
            let sources = sources.and("FILE", [&arguments.file]);
            Out::new("--request", request, Product::TimestampRequest, &sources)
        }
        (_, _, None) => Ok(Out::in_place(&arguments.file)),
        (_, _, Some(out)) => {
            let sources = sources.and("--request", &arguments.request).and("--answer", &arguments.answer);
            Out::new("--out", out, Product::Envelope(kind), &sources)
        }
    }
}

/// Refuses a document that has a timestamp: a later one proves less, and perhaps nothing any more.
fn check_unstamped(
    file: &Path,
    envelope: &[u8],
    crls: &[PathBuf],
    roots: &Roots,
    now: UnixTime,
) -> anyhow::Result<()> {
    let name = file.display();
    let tokens = envelope::timestamps(envelope).with_context(|| name.to_string())?;
    // Who signed a list may be told by the answer alone, which is yet to come.
    if tokens.iter().all(Option::is_none) {
        return Ok(());
    }
    let revocation = revocation(crls, [roots], inside(envelope), now)?;
    let existing = existing_timestamps(envelope, roots, revocation.as_ref(), now);
    let existing = existing.with_context(|| name.to_string())?;
    let told: Vec<String> = existing.iter().map(in_words).collect();
    anyhow::bail!(
        "{name}: has a timestamp already: {}; a later one in its place proves less; give --replace to have that all the same",
        told.join("; ")
    )
}

/// The same of the file that is written, where it is this document, stamped before.
fn check_stays_unstamped(
    arguments: &StampDocument,
    envelope: &[u8],
    roots: &Roots,
    now: UnixTime,
) -> anyhow::Result<()> {
    let (None, Some(out)) =
        (arguments.request.as_ref().filter(|_| arguments.answer.is_none()), &arguments.out)
    else {
        return Ok(());
    };
    let Ok(there) = read(out, FileKind::ENVELOPE) else { return Ok(()) };
    let Ok(there) = read_envelope(&there) else { return Ok(()) };
    let values = |envelope: &[u8]| envelope::signature_values(envelope).ok();
    if values(&there) == values(envelope) {
        check_unstamped(out, &there, &arguments.crl, roots, now)?;
    }
    Ok(())
}

/// Says whose timestamp it is, and whether it holds.
pub(super) fn in_words(existing: &Existing) -> String {
    let claimed = claimed_in_words(&existing.claimed);
    match &existing.problem {
        None => format!("{claimed}, which holds"),
        Some(problem) => format!("{claimed}, which does not hold by these roots ({problem})"),
    }
}

/// Says whose timestamp it claims to be.
pub(super) fn claimed_in_words(ClaimedStamp { at, chain }: &ClaimedStamp) -> String {
    let at = at.map_or_else(|| "no moment".to_owned(), |at| moment::shown(at.as_secs()));
    format!("of {at}, by {}", chain.first().map_or("nobody", Certificate::subject))
}

/// Warns of a document that no timestamp makes last longer.
fn in_vain(kind: ContentType) -> Option<String> {
    (!kind.outlives_certificate()).then(|| {
        let kind = kind.name();
        format!("the signature of a {kind} ends with its signer's certificate all the same, with a timestamp or without: sign it again before that")
    })
}

/// Stamps what was just signed, where the command line names an authority.
pub(super) fn at_once(
    envelope: Vec<u8>,
    by: &StampAtOnce,
    now: UnixTime,
) -> anyhow::Result<(Vec<u8>, Option<UnixTime>)> {
    let Some(url) = &by.timestamp else { return Ok((envelope, None)) };
    let named = || {
        format!(
            "whose timestamps are believed? give --timestamp-roots FILE, or --home with trust/{ROOTS}.pem"
        )
    };
    let roots = roots_named(by)?.with_context(named)?;
    let authority = || format!("timestamp authority {url}");
    let stamped =
        stamp_envelope(&envelope, &roots, |_token| Ok(None), now, random, |request| ask(url, request));
    let Stamped { envelope, stamps } = stamped.with_context(authority)?;
    Ok((envelope, stamps.first().map(|stamp| stamp.at)))
}

/// Returns the roots of timestamp authorities that the command line names, or those of its home.
pub(super) fn roots_named(by: &StampAtOnce) -> anyhow::Result<Option<Roots>> {
    match (&by.timestamp_roots, &by.home) {
        (Some(path), _) => super::roots_of(path).map(Some),
        (None, Some(home)) => roots(home),
        (None, None) => Ok(None),
    }
}

/// Refuses an authority's address of another form before anything is read.
pub(super) fn check_address(by: &StampAtOnce) -> Result<(), ToolError> {
    by.timestamp.as_deref().map_or(Ok(()), check_url)
}

fn check_url(url: &str) -> Result<(), ToolError> {
    if url.starts_with("http://") {
        Ok(())
    } else {
        Err(ToolError::AuthorityAddress { url: url.to_owned(), problem: unsendable(url) })
    }
}

/// Reports the timestamp of an envelope that was just made or verified, with who gave it.
pub(super) fn proven(envelope: &[u8], at: Option<UnixTime>) -> Value {
    let authority =
        || envelope::inspect(envelope).ok().and_then(|it| it.stamps.first()?.chain.first().map(person));
    json!({ "timestamp": at.map(|at| at.as_secs()), "timestamp_authority": at.and_then(|_| authority()) })
}

/// Writes the question for an authority that this machine cannot reach.
fn write_request(
    arguments: &StampDocument,
    envelope: &[u8],
    kind: ContentType,
    path: &Path,
    out: &Out,
) -> anyhow::Result<String> {
    let name = arguments.file.display();
    let values = envelope::signature_values(envelope).with_context(|| name.to_string())?;
    let [value] = &values[..] else {
        anyhow::bail!(
            "{name}: {} signatures; a request in a file is for a document with one: use --url",
            values.len()
        );
    };
    let request = Request::new(value, random()?)?;
    write(out, request.der())?;
    let next = format!(
        "send it to a timestamp authority (`curl -H 'Content-Type: {}' --data-binary @{} URL -o answer.tsr`), then give --answer",
        Request::CONTENT_TYPE,
        path.display()
    );
    let mut report = json!({ "request": path.display().to_string(), "next": next });
    warn(&mut report, in_vain(kind));
    Ok(show(&report, arguments.output))
}

/// Sends a request over HTTP (RFC 3161 §3.4).
fn ask(url: &str, request: &Request) -> anyhow::Result<Vec<u8>> {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder().timeout_global(Some(ANSWER_WITHIN)).max_redirects(3).build(),
    );
    let answer = agent
        .post(url)
        .header("Content-Type", Request::CONTENT_TYPE)
        .header("Accept", Request::ANSWER_TYPE)
        .send(request.der())
        // It may have led to an https server.
        .map_err(|error| {
            let is_https = matches!(error, ureq::Error::TlsRequired);
            if is_https { anyhow::anyhow!(unsendable(url)) } else { error.into() }
        })?;
    let kind = answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    anyhow::ensure!(
        kind.starts_with(Request::ANSWER_TYPE),
        "it answers with the type {kind:?}; wanted {:?}: is this the address of a timestamp authority?",
        Request::ANSWER_TYPE
    );
    // One byte beyond the bound is enough to have it refused.
    let most = TOKEN_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    answer.into_body().into_reader().take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What to do with an authority that is not asked over plain HTTP. The answer is signed and tied to its request, so TLS would hide who asks
/// and no more: not worth a stack of it, and its roots, in a tool that holds signing keys.
fn unsendable(url: &str) -> String {
    let kind = Request::CONTENT_TYPE;
    let curl = if url.starts_with("https://") { url } else { "URL" };
    format!(
        "wanted http://HOST…: this tool has no TLS, which would add nothing to an answer that is signed. Where the authority is there over https alone, \
         fetch the timestamp otherwise (of a file's signature, FILE is FILE.p7s, signed without --timestamp):\n  \
         muster-sign timestamp FILE --request FILE.tsq\n  \
         curl -H 'Content-Type: {kind}' --data-binary @FILE.tsq {curl} -o FILE.tsr\n  \
         muster-sign timestamp FILE --request FILE.tsq --answer FILE.tsr\n\
         (each with --home or --roots as here)"
    )
}

fn stamp_report(stamp: &Stamp) -> Value {
    let mut report = json!({ "at": stamp.at.as_secs() });
    merge(&mut report, json!({ "authority": person(&stamp.authority) }));
    report
}
