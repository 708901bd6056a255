//! `muster-sign policy`.

use std::collections::BTreeSet;

use anyhow::Context as _;
use muster_pki::{Role, UnixTime};
use muster_signing::envelope::{self, Anchors, ContentType};
use muster_signing::policy::{Grants, Policy};
use serde_json::{Value, json};

use super::earlier::{Content, Signing};
use super::out::{Out, Product, Sources};
use super::signer::{lone_signer, signer_for};
use super::{authored, inside, merge, person, read, revocation, roots, show, signed_to, warn, write};
use crate::cli::{Format, Output, SignPolicy, VerifyPolicy};
use crate::{FileKind, read_envelope, sign_policy, verify_policy};

pub(super) fn sign(arguments: &SignPolicy, now: UnixTime) -> anyhow::Result<String> {
    let file = arguments.file.display();
    let sources = Sources::of("FILE", [&arguments.file]).and_signer(&arguments.signer);
    let out = Out::new("--out", &arguments.out, Product::Envelope(ContentType::Policy), &sources)?;
    let text = authored(&arguments.file)?;
    let others = [(Role::Author, "authors"), (Role::OrderSigner, "orders"), (Role::Licensor, "licences")];
    let home = arguments.home.as_deref();
    let signer = signer_for(&arguments.signer, home, (Role::Policy, "policies"), &others, now)?;
    let envelope = sign_policy(&text, &signer, now).with_context(|| file.to_string())?;
    // Nothing is lost by that: a policy's signature ends with its certificate, and is to be made anew before.
    let content = Content::Inside(ContentType::Policy, text.as_bytes());
    let gone = Signing { out: &out, content, signer: &signer, replace: true }.gone()?;
    write(&out, &envelope)?;
    let report = summary(&Policy::parse(&text)?, arguments.output);
    let mut report = signed_to(report, &signer, &envelope, &arguments.out);
    warn(&mut report, gone.into_iter().chain(lone_signer(&signer, home)));
    Ok(show(&report, arguments.output))
}

pub(super) fn verify(arguments: &VerifyPolicy, now: UnixTime) -> anyhow::Result<String> {
    let file = arguments.file.display();
    let envelope =
        read_envelope(&read(&arguments.file, FileKind::ENVELOPE)?).with_context(|| file.to_string())?;
    let roots = roots(&arguments.home, "policies")?;
    let timestamps = super::timestamp::roots(&arguments.home)?;
    let all = std::iter::once(&roots).chain(&timestamps);
    let revocation = revocation(&arguments.crl, all, inside(&envelope), now)?;
    let anchors = Anchors { signers: &roots, timestamps: timestamps.as_ref() };
    let verified =
        verify_policy(&envelope, &anchors, revocation.as_ref(), now).with_context(|| file.to_string())?;
    let mut report = summary(&verified.policy, arguments.output);
    merge(
        &mut report,
        json!({
            "signer": person(&verified.signer),
            "signed_at": verified.signing_time.as_secs(),
            "timestamp": verified.stamped_at.map(|moment| moment.as_secs()),
            "digest": envelope::digest(&envelope).to_string(),
        }),
    );
    Ok(show(&report, arguments.output))
}

/// What a policy says, in short.
pub(super) fn summary(policy: &Policy, output: Output) -> Value {
    let terms = policy.terms();
    let warnings = terms.grants.warnings();
    let authorities: Vec<&str> = terms.authorities.iter().map(muster_pki::Certificate::subject).collect();
    json!({
        "serial": terms.serial,
        "tenant": terms.tenant,
        "says": terms.says,
        "audience": terms.audience.as_ref().map(ToString::to_string),
        "switch": terms.switches,
        "background_channel": terms.background_channel,
        "ca": authorities,
        "trust": terms.trust.is_some(),
        "selection": terms.selection.is_some(),
        "grants": match output.format {
            Format::Json => json!(terms.grants),
            Format::Text => in_words(&terms.grants),
        },
        "warnings": if warnings.is_empty() { Value::Null } else { json!(warnings) },
    })
}

/// Says what the lists grant: one that is left out is the widest, and an empty one the narrowest.
fn in_words(grants: &Grants) -> Value {
    let list = |names: &Option<BTreeSet<String>>| match names {
        None => json!("all (the list is left out)"),
        Some(names) if names.is_empty() => json!("none (the list is empty)"),
        Some(names) => json!(names),
    };
    let steps = match (&grants.steps, &grants.tables) {
        (None, Some(_)) => json!("query (the list is left out, and tables are limited)"),
        (None, None) | (Some(_), _) => list(&grants.steps),
    };
    json!({
        "tables": list(&grants.tables),
        "kinds": list(&grants.kinds),
        "actions": list(&grants.actions),
        "steps": steps,
    })
}
