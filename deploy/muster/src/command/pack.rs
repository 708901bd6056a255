//! `muster pack`: signed definitions and the resources that they need, imported whole or not at all (G9).
//!
//! The order holds the promise that no definition can be issued before its resources are there: the whole file is verified, then
//! every resource is at the Background Channel, and then one call hands all definitions to the Switch, which takes all or none.
//! What is sent is read from the file that was verified, and judged again by whoever takes it: nothing is believed of it later.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use muster_pki::{Facts, UnixTime};
use muster_proto::operator::v1::{ImportPackRequest, ImportPackResponse, ImportedDefinition};
use muster_signing::pack::{Pack as Verified, PackError, PackedResource, Reader};
use tonic::{Code, Status};

use crate::address::Url;
use crate::background::{self, Content, Part};
use crate::cli::Pack;
use crate::exit::{Exit, Failure};
use crate::home::{Context, Home};
use crate::operator::{Operator, answered};
use crate::output::{self, Cell, Flag, Format, Table};

/// What is read of the file at once.
const PIECE_BYTES: usize = 256 * 1024;

/// What goes wrong on the way is mended by this.
const AGAIN: &str = "nothing of the pack is imported; the same command goes on from here";

/// Runs a verb.
pub(crate) async fn run(home: &Home, mut context: Context, verb: Pack) -> Result<Exit, Failure> {
    match verb {
        Pack::Import { file, background_channel, output } => {
            if let Some(typed) = background_channel {
                context.background_channel = typed;
            }
            import(home, &context, &file, output).await
        }
    }
}

async fn import(home: &Home, context: &Context, path: &Path, format: Format) -> Result<Exit, Failure> {
    let file = Arc::new(open(path)?);
    let mut pack = verify(home, &file, path)?;
    let base = match pack.resources.as_slice() {
        [] => None,
        [_, ..] => Some(background::base_of(context)?),
    };
    // Before what may take hours: a Switch that is away is told at once.
    let operator = Operator::connect(home, context).await.map_err(|failure| failure.adding(AGAIN))?;
    let kept = match &base {
        Some(base) => put_resources(home, base, &file, &pack.resources).await?,
        None => Vec::new(),
    };
    let request = ImportPackRequest {
        index: std::mem::take(&mut pack.envelope),
        definitions: pack.definitions.iter_mut().map(|it| std::mem::take(&mut it.envelope)).collect(),
    };
    let imported = answered(operator.definitions().import_pack(request)).await;
    let imported = imported.map_err(|status| not_imported(status).in_file(path))?;
    table(&imported, &pack.resources, &kept).print(format)?;
    output::note(&output::printable(&summary(&pack, &imported, &kept)));
    if let Some(note) = unlicensed(&imported) {
        output::note(&note);
    }
    Ok(Exit::Ok)
}

/// Opens a file; a device or a pipe has no end, and cannot be read twice.
fn open(path: &Path) -> Result<File, Failure> {
    let refused =
        |what: String| Failure::usage(what).in_file(path).with_next("muster-sign pack build --help");
    let metadata = std::fs::metadata(path).map_err(|error| refused(error.to_string()))?;
    if !metadata.is_file() {
        return Err(refused("not a regular file".to_owned()));
    }
    File::open(path).map_err(|error| refused(error.to_string()))
}

/// Verifies the whole file: index, definitions, and every byte of the resources.
fn verify(home: &Home, mut file: &File, path: &Path) -> Result<Verified, Failure> {
    let roots = home.document_roots("authors")?;
    let unread = |error: std::io::Error| Failure::new(Exit::Refused, error.to_string()).in_file(path);
    let refused = |error: PackError| not_verified(home, &error).in_file(path);
    let bar = bar(file.metadata().map_err(unread)?.len(), "verified");
    let mut reader = Reader::new(roots.anchors(), Facts::at(UnixTime::now()));
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut piece).map_err(unread)?;
        match piece.get(..read) {
            Some(bytes) if !bytes.is_empty() => reader.handle_piece(bytes).map_err(refused)?,
            Some(_) | None => break,
        }
        bar.inc(u64::try_from(read).unwrap_or(u64::MAX));
    }
    bar.finish_and_clear();
    reader.finish().map_err(refused)
}

fn not_verified(home: &Home, error: &PackError) -> Failure {
    match error {
        PackError::Envelope(_) | PackError::Signature { .. } => {
            let roots = home.roots("authors");
            Failure::denied(error.to_string()).with_next(format!(
                "get the file once more, if it was changed on its way; whose packs are believed stands in {}",
                roots.display()
            ))
        }
        PackError::Form { .. }
        | PackError::Truncated { .. }
        | PackError::Index(_)
        | PackError::Member { .. }
        | PackError::Definition { .. } => Failure::new(Exit::Refused, error.to_string()),
    }
}

/// Whether something was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    New,
    Before,
}

/// Puts each resource that is not there; returns which were, in their order.
async fn put_resources(
    home: &Home,
    base: &Url,
    file: &Arc<File>,
    resources: &[PackedResource],
) -> Result<Vec<Kept>, Failure> {
    let bar = bar(resources.iter().map(|it| it.member.digests().size).sum(), "at the Background Channel");
    let mut kept = Vec::with_capacity(resources.len());
    for resource in resources {
        let put = put_resource(home, base, file, resource, &bar).await;
        let named = |failure: Failure| {
            failure.about(&format!("resource {}", resource.member.file_name())).adding(AGAIN)
        };
        kept.push(put.map_err(named)?);
    }
    bar.finish_and_clear();
    Ok(kept)
}

async fn put_resource(
    home: &Home,
    base: &Url,
    file: &Arc<File>,
    resource: &PackedResource,
    bar: &ProgressBar,
) -> Result<Kept, Failure> {
    let (name, digests) = (resource.member.file_name(), resource.member.digests());
    let root = digests.root.to_string();
    if background::holds(home, base, &root, digests.size).await? {
        bar.inc(digests.size);
        return Ok(Kept::Before);
    }
    let part = Part { file: Arc::clone(file), at: resource.offset, left: digests.size, bar: bar.clone() };
    background::put(home, base, &root, name, Content::Part(part)).await?;
    Ok(Kept::New)
}

/// Says what the Switch did not take, and whether it may have all the same.
fn not_imported(status: Status) -> Failure {
    let code = status.code();
    let failure = match code {
        // The audience of an instruction holds no device: that is not what is meant here.
        Code::OutOfRange => Failure::new(Exit::Refused, status.message())
            .with_next("raise operators.message_bytes_max of the Switch; 4 MiB are enough for every pack"),
        Code::Unimplemented => {
            Failure::new(Exit::Refused, "the Switch knows no packs").with_next("update the Switch")
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => Failure::from(status),
    };
    let is_refusal = matches!(
        code,
        Code::OutOfRange
            | Code::Unimplemented
            | Code::InvalidArgument
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Unauthenticated
    );
    failure.adding(match is_refusal {
        true => "nothing of the pack is imported",
        false => "whether the pack is imported is not known: the same command again tells, and imports nothing twice",
    })
}

fn table(imported: &ImportPackResponse, resources: &[PackedResource], kept: &[Kept]) -> Table {
    let none = || Cell { text: "-".to_owned(), json: serde_json::Value::Null };
    let columns = ["kind", "name", "version", "state", "licensed", "size", "digest", "root", "signer"];
    let mut table = Table::new(columns).wide_only(&["size", "digest", "root", "signer"]);
    for (one, definition) in definitions(imported) {
        table.push(vec![
            Cell::text(&definition.kind),
            Cell::text(&definition.name),
            Cell::text(&definition.version),
            Cell::text(if one.was_held { "already there" } else { "imported" }),
            Cell::flag(Flag::from(definition.licensed)),
            none(),
            Cell::text(&definition.digest),
            none(),
            Cell::text(&definition.signer),
        ]);
    }
    for (resource, kept) in resources.iter().zip(kept) {
        let digests = resource.member.digests();
        table.push(vec![
            Cell::text("resource"),
            Cell::text(resource.member.file_name()),
            none(),
            Cell::text(match kept {
                Kept::New => "stored",
                Kept::Before => "already there",
            }),
            none(),
            Cell::number(digests.size),
            none(),
            Cell::text(digests.root.to_string()),
            none(),
        ]);
    }
    table
}

fn definitions(
    imported: &ImportPackResponse,
) -> impl Iterator<Item = (&ImportedDefinition, &muster_proto::operator::v1::Definition)> {
    imported.definitions.iter().filter_map(|one| Some((one, one.definition.as_ref()?)))
}

fn summary(pack: &Verified, imported: &ImportPackResponse, kept: &[Kept]) -> String {
    let held = imported.definitions.iter().filter(|one| one.was_held).count();
    let stored = kept.iter().filter(|kept| **kept == Kept::New).count();
    format!(
        "pack {} {}, signed by {}: {} definitions imported, {held} there already; {stored} resources stored, {} there already",
        imported.name,
        imported.version,
        pack.signer.subject(),
        imported.definitions.len().saturating_sub(held),
        kept.len().saturating_sub(stored)
    )
}

/// Says which definitions cannot be issued (G1), why, and what to do about all of them.
fn unlicensed(imported: &ImportPackResponse) -> Option<String> {
    let each: Vec<String> = definitions(imported)
        .filter(|(_, definition)| !definition.licensed)
        .map(|(one, it)| output::printable(&format!("{} {}: {}", it.name, it.version, one.unlicensed)))
        .collect();
    (!each.is_empty()).then(|| {
        format!(
            "{} of {} definitions are unlicensed, so they cannot be issued yet:\n  {}\n  try: muster licence import FILE, of a \
             licence that binds their prefixes to their signers; it counts at once, and the pack need not be imported again.\n  \
             Whoever signed them asks the licensor for it: muster-sign licence request --help",
            each.len(),
            imported.definitions.len(),
            each.join("\n  ")
        )
    })
}

/// A bar over so many bytes where a person looks.
fn bar(bytes: u64, what: &'static str) -> ProgressBar {
    if !output::is_watched() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes).with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg}") {
        bar.set_style(style);
    }
    bar
}
