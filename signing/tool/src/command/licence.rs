//! `muster-sign licence`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use muster_pki::{Role, Thumbprint, UnixTime};
use muster_signing::envelope::{self, ContentType};
use muster_signing::licence::{Licence, LicenceRequest, VerifiedRequest};
use muster_signing::moment::shown;
use serde_json::{Value, json};

use super::out::{Out, Product, Sources};
use super::signer::{lone_signer, outlasted, signer, signer_for};
use super::{merge, person, read, roots, show, signed_to, warn, write};
use crate::cli::{Inspect, IssueLicence, NamedSigner, RequestLicence};
use crate::licence::thumbprint;
use crate::{
    FileKind, NewLicence, ToolError, issue_licence, read_envelope, request_licence, verify_licence,
    verify_request,
};

pub(super) fn request(arguments: &RequestLicence, now: UnixTime) -> anyhow::Result<String> {
    let sources = Sources::default().and_signer(&arguments.signer);
    let product = Product::Envelope(ContentType::LicenceRequest);
    let out = Out::new("--out", &arguments.out, product, &sources)?;
    let signer = signer(&arguments.signer)?;
    let request = LicenceRequest {
        licensee: arguments.licensee.clone(),
        tenant: arguments.tenant.clone(),
        prefixes: arguments.prefixes.iter().cloned().collect(),
        authorities: BTreeSet::new(),
    };
    let envelope = request_licence(request, &signer, now)?;
    write(&out, &envelope)?;
    let mut report = request_summary(&verify_request(&envelope, None, now)?);
    let next = format!(
        "send {} to the licensor, and tell them the thumbprint on another way, such as by telephone",
        arguments.out.display()
    );
    merge(&mut report, json!({ "out": arguments.out.display().to_string(), "next": next }));
    Ok(show(&report, arguments.output))
}

pub(super) fn inspect(arguments: &Inspect, now: UnixTime) -> anyhow::Result<String> {
    let file = arguments.file.display();
    let Ok(envelope) = read_envelope(&read(&arguments.file, FileKind::DOCUMENT)?) else {
        // An authored text, or nothing at all, which is told there.
        return super::inspect(arguments, ContentType::Licence);
    };
    let is_request = envelope::inspect(&envelope)
        .is_ok_and(|inspection| inspection.content_type == ContentType::LicenceRequest);
    if !is_request {
        return super::inspect(arguments, ContentType::Licence);
    }
    let verified = verify_request(&envelope, None, now).with_context(|| file.to_string())?;
    let mut report = request_summary(&verified);
    merge(&mut report, json!({ "text": verified.text }));
    Ok(show(&report, arguments.output))
}

/// What a request asks for, and what it proves.
fn request_summary(verified: &VerifiedRequest) -> Value {
    let request = &verified.request;
    let above: Vec<&str> = verified.authorities.iter().map(muster_pki::Certificate::subject).collect();
    json!({
        "request": true,
        "licensee": request.licensee,
        "tenant": request.tenant,
        "prefixes": request.prefixes,
        "publisher": person(&verified.signer),
        "below": above,
        "made_at": verified.signing_time.as_secs(),
        "proves": "whoever made it has the publisher's key; not who that is",
    })
}

/// Puts together what the licence is to say, of the arguments and the requests.
fn terms(arguments: &IssueLicence, now: UnixTime) -> anyhow::Result<NewLicence> {
    let mut prefixes = Vec::new();
    for (prefix, files) in &arguments.prefixes {
        for file in files {
            prefixes.push((prefix.clone(), read(file, FileKind::CERTIFICATES)?));
        }
    }
    let authors = match (&arguments.home, arguments.requests.is_empty()) {
        (Some(home), false) => Some(roots(home, "authors")?),
        (Some(_) | None, _) => None,
    };
    let mut new = match (&arguments.renew, &arguments.home) {
        (Some(file), Some(home)) => NewLicence::after(&former(file, home, now)?, arguments.valid),
        (Some(_), None) | (None, _) => NewLicence::default(),
    };
    withdraw(&mut new, arguments)?;
    let said = |former: &str| Some(former.to_owned()).filter(|former| !former.is_empty());
    let mut licensee = arguments.licensee.clone().or_else(|| said(&new.licensee));
    let mut tenant = arguments.tenant.clone().or_else(|| said(&new.tenant));
    for path in &arguments.requests {
        let file = path.display().to_string();
        let envelope = read_envelope(&read(path, FileKind::ENVELOPE)?).with_context(|| file.clone())?;
        let verified = verify_request(&envelope, authors.as_ref(), now).with_context(|| file.clone())?;
        agree(&mut licensee, verified.request.licensee, "licensee").with_context(|| file.clone())?;
        agree(&mut tenant, verified.request.tenant, "tenant").with_context(|| file.clone())?;
        let certificate = verified.signer.pem();
        let asked = verified.request.prefixes.into_iter();
        prefixes.extend(asked.map(|prefix| (prefix, certificate.clone().into_bytes())));
    }
    let wanted = |what: &str| format!("no {what}: neither --{what} nor a request says it; give --{what}");
    new.licensee = licensee.with_context(|| wanted("licensee"))?;
    new.tenant = tenant.with_context(|| wanted("tenant"))?;
    new.valid_days = arguments.valid;
    new.refresh_days = arguments.refresh;
    new.prefixes = prefixes;
    limit(&mut new, arguments)?;
    Ok(new)
}

/// Takes away what the former licence had; what is given beside comes after it.
fn withdraw(new: &mut NewLicence, arguments: &IssueLicence) -> anyhow::Result<()> {
    for prefix in &arguments.withdrawn_prefixes {
        new.withdraw_prefix(prefix)?;
    }
    for who in &arguments.withdrawn_signers {
        new.withdraw_signer(&named(who, "withdraw-signer")?)?;
    }
    Ok(())
}

/// Returns the thumbprint of a signer whom an argument names.
fn named(who: &NamedSigner, argument: &str) -> anyhow::Result<Thumbprint> {
    match who {
        NamedSigner::Thumbprint(thumbprint) => Ok(*thumbprint),
        NamedSigner::File(file) => thumbprint(&read(file, FileKind::CERTIFICATES)?)
            .map_err(|problem| anyhow::anyhow!("--{argument} {}: {problem}", file.display())),
    }
}

/// Adds the serial, and what is told of signers, versions and features.
fn limit(new: &mut NewLicence, arguments: &IssueLicence) -> anyhow::Result<()> {
    if let Some(serial) = arguments.serial {
        anyhow::ensure!(
            serial >= new.serial,
            "--serial {serial} is not above the former licence's; wanted {} or more, or leave it out",
            new.serial
        );
        new.serial = serial;
    }
    new.features.extend(arguments.features.iter().cloned());
    raise_minimums(new, arguments)?;
    distrust(new, arguments)
}

/// Raises the lowest versions. None goes below the former licence's: what it keeps out would come back, which is more likely a slip.
fn raise_minimums(new: &mut NewLicence, arguments: &IssueLicence) -> anyhow::Result<()> {
    let before = new.minimum_versions.clone();
    let mut given = BTreeSet::new();
    for (name, minimum) in &arguments.minimum_versions {
        if let Some(before) = before.get(name).filter(|before| minimum < *before) {
            anyhow::bail!(
                "--minimum-version {name}={minimum}: the former licence has {before}, and the versions between them could be issued again; leave it \
                 out, and {before} goes on, or give a later one. Without --renew, all that a licence says is yours to say anew"
            );
        }
        anyhow::ensure!(
            given.insert(name),
            "--minimum-version {name}: given twice; give it once, with the later version"
        );
        new.minimum_versions.insert(name.clone(), minimum.clone());
    }
    Ok(())
}

/// Adds the signers who are distrusted, none later than before.
fn distrust(new: &mut NewLicence, arguments: &IssueLicence) -> anyhow::Result<()> {
    let before = new.distrusted.clone();
    let mut given = BTreeSet::new();
    for (who, after) in &arguments.distrusted {
        let signer = named(who, "distrust")?;
        let after = UnixTime::since_unix_epoch(Duration::from_secs(*after));
        if let Some(before) = before.get(&signer).filter(|before| after > **before) {
            let [before, after] = [*before, after].map(|moment| shown(moment.as_secs()));
            anyhow::bail!(
                "--distrust {signer} from {after} on: the former licence distrusts it from {before} on, and what was stamped between them \
                 would count again; leave it out, and {before} goes on, or give an earlier moment. Without --renew, all that a licence says is \
                 yours to say anew"
            );
        }
        anyhow::ensure!(
            given.insert(signer),
            "--distrust {signer}: given twice; give it once, with the earlier moment"
        );
        new.distrusted.insert(signer, after);
    }
    Ok(())
}

/// Reads the licence that is renewed: what it says goes on, so whoever brought it must not have written it.
fn former(file: &Path, home: &Path, now: UnixTime) -> anyhow::Result<Licence> {
    let name = || file.display().to_string();
    let envelope = read_envelope(&read(file, FileKind::ENVELOPE)?).with_context(name)?;
    verify_licence(&envelope, &roots(home, "licences")?, now).with_context(name)
}

/// A licence is for one licensee and one tenant: what was said first must be what each request says, if it says anything.
fn agree(said: &mut Option<String>, asked: Option<String>, what: &str) -> anyhow::Result<()> {
    if let (Some(said), Some(asked)) = (&*said, &asked) {
        anyhow::ensure!(
            said == asked,
            "the request is for the {what} {asked:?}; the licence would be for {said:?}"
        );
    }
    if said.is_none() {
        *said = asked;
    }
    Ok(())
}

/// The files that `licence issue` reads.
fn sources(arguments: &IssueLicence) -> Sources {
    let file = |who: &NamedSigner| match who {
        NamedSigner::File(file) => Some(file.clone()),
        NamedSigner::Thumbprint(_) => None,
    };
    let distrusted: Vec<PathBuf> = arguments.distrusted.iter().filter_map(|(who, _)| file(who)).collect();
    let withdrawn: Vec<PathBuf> = arguments.withdrawn_signers.iter().filter_map(file).collect();
    Sources::of("--prefix", arguments.prefixes.iter().flat_map(|(_, files)| files))
        .and("--request", &arguments.requests)
        .and("--renew", &arguments.renew)
        .and("--distrust", &distrusted)
        .and("--withdraw-signer", &withdrawn)
        .and_signer(&arguments.signer)
}

pub(super) fn issue(arguments: &IssueLicence, now: UnixTime) -> anyhow::Result<String> {
    let out =
        Out::new("--out", &arguments.out, Product::Envelope(ContentType::Licence), &sources(arguments))?;
    let new = terms(arguments, now)?;
    let others = [(Role::Author, "authors"), (Role::OrderSigner, "orders")];
    let home = arguments.home.as_deref();
    let signer = signer_for(&arguments.signer, home, (Role::Licensor, "licences"), &others, now)?;
    let envelope = issue_licence(&new, &signer, now)?;
    write(&out, &envelope)?;
    let content = envelope::inspect(&envelope).map_err(ToolError::from)?.content;
    let licence = Licence::parse(&String::from_utf8(content)?)?;
    let mut report = signed_to(summary(&licence), &signer, &envelope, &arguments.out);
    warn(
        &mut report,
        outlasted(&signer, licence.terms().not_after)
            .into_iter()
            .chain(long_silence(arguments.refresh))
            .chain(late_distrust(&licence, now))
            .chain(lone_signer(&signer, home)),
    );
    Ok(show(&report, arguments.output))
}

/// Warns of signers who are distrusted from a moment on that is still to come.
fn late_distrust(licence: &Licence, now: UnixTime) -> Vec<String> {
    let late = licence.terms().distrusted.iter().filter(|(_, after)| **after > now);
    let said = |(signer, after): (&Thumbprint, &UnixTime)| {
        format!(
            "signer {signer} is distrusted from {} on, which is still to come: whatever the key signs and has stamped until then counts; give the \
             last moment at which it was theirs alone",
            shown(after.as_secs())
        )
    };
    late.map(said).collect()
}

/// Days from which on a `refresh_by` guards little.
const REFRESH_LONG_DAYS: u64 = 90;

/// Warns of a licence that may be held for long without anybody being told.
fn long_silence(refresh: Option<u64>) -> Option<String> {
    refresh.filter(|days| *days > REFRESH_LONG_DAYS).map(|days| {
        format!(
            "whoever keeps newer licences away (a Switch, the server of licence_url) does so for {days} days before any Switch or client alarms, and with them \
             whom they distrust; give fewer days to --refresh and issue more often"
        )
    })
}

pub(super) fn summary(licence: &Licence) -> Value {
    let terms = licence.terms();
    let prefixes: serde_json::Map<String, Value> = terms
        .prefixes
        .iter()
        .map(|(prefix, signers)| (prefix.clone(), signers.iter().map(ToString::to_string).collect()))
        .collect();
    let minimum_versions: serde_json::Map<String, Value> = terms
        .minimum_versions
        .iter()
        .map(|(name, version)| (name.to_string(), json!(version.to_string())))
        .collect();
    let distrusted: Vec<Value> = terms
        .distrusted
        .iter()
        .map(|(signer, after)| json!({ "signer": signer.to_string(), "after": after.as_secs() }))
        .collect();
    json!({
        "serial": terms.serial,
        "licensee": terms.licensee,
        "tenant": terms.tenant,
        "not_before": terms.not_before.as_secs(),
        "not_after": terms.not_after.as_secs(),
        "refresh_by": terms.refresh_by.map(|moment| moment.as_secs()),
        "prefixes": prefixes,
        "features": terms.features,
        "minimum_versions": minimum_versions,
        "distrusted": distrusted,
    })
}
