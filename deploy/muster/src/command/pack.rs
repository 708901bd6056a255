//! `muster pack`: signed definitions and the resources that they need, imported whole or not at all (G9).
//!
//! The order holds the promise that no definition can be issued before its resources are there: the whole file is verified, then
//! every resource is at the Background Channel, and then one call hands all definitions to the Switch, which takes all or none.
//! What is sent is read from the file that was verified, and judged again by whoever takes it: nothing is believed of it later.
//! A pack of an exchange becomes such a file first, and is held against everything that the list said of it.

mod search;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use indicatif::ProgressBar;
use muster_pki::{Facts, UnixTime};
use muster_proto::operator::v1::{ImportPackRequest, ImportPackResponse, ImportedDefinition};
use muster_signing::exchange::Listed;
use muster_signing::pack::{Pack as Verified, PackError, PackedResource, Reader};
use tonic::{Code, Status};

pub(crate) use self::search::search;
use crate::address::Url;
use crate::background::{self, Content, Part, Way};
use crate::cli::PackImport;
use crate::exchange::Source;
use crate::exit::{Exit, Failure};
use crate::home::{Context, Home, nearest};
use crate::issue::{Authored, verified_definition};
use crate::operator::{Operator, answered};
use crate::output::{self, Cell, Flag, Format, Table};
use crate::seen;

/// What is read of the file at once.
const PIECE_BYTES: usize = 256 * 1024;

/// What goes wrong on the way is mended by this.
const AGAIN: &str = "nothing of the pack is imported; the same command goes on from here";

/// A pack that is to be imported.
struct Chosen {
    file: Arc<File>,
    /// What errors call it.
    name: String,
    /// What a list says of it.
    listed: Option<Listed>,
}

/// Imports a pack: a file, or one that is downloaded from an exchange.
pub(crate) async fn import(
    home: &Home,
    mut context: Context,
    arguments: &PackImport,
) -> Result<Exit, Failure> {
    if let Some(typed) = &arguments.background_channel {
        context.background_channel.clone_from(typed);
    }
    let chosen = match &arguments.exchange {
        None => local(&arguments.pack)?,
        Some(url) => fetched(home, &context, arguments, url).await?,
    };
    import_chosen(home, &context, &chosen, arguments.output).await
}

/// The pack that a path names.
fn local(path: &Path) -> Result<Chosen, Failure> {
    let typed = path.display().to_string();
    if typed.starts_with("https://") || typed.starts_with("http://") {
        return Err(Failure::usage(format!(
            "{typed} is no file; a pack is downloaded by its name in the list of an exchange, which tells its size and SHA-256"
        ))
        .with_next("muster pack import NAME --exchange URL\n   or: muster pack search URL"));
    }
    Ok(Chosen { file: Arc::new(open(path)?), name: typed, listed: None })
}

/// Downloads a pack of an exchange.
async fn fetched(
    home: &Home,
    context: &Context,
    arguments: &PackImport,
    url: &str,
) -> Result<Chosen, Failure> {
    let source = Source::new(home, url, arguments.server.https_roots.as_deref())?;
    let list = source.list().await?;
    let typed = arguments.pack.display().to_string();
    let listed = pick(list.packs(), &typed, arguments.pack_version.as_deref())
        .map_err(|failure| failure.about(url).with_next(format!("muster pack search {url}")))?;
    // Before what may take hours: a Switch that is away is told at once.
    drop(Operator::connect(home, context).await.map_err(|failure| failure.adding(AGAIN))?);
    let file = source.download(listed).await?;
    let name = format!("{listed} of {url}");
    Ok(Chosen { file: Arc::new(file), name, listed: Some(listed.clone()) })
}

/// The pack of this name, of the version that was typed or the highest.
fn pick<'a>(packs: &'a [Listed], typed: &str, version: Option<&str>) -> Result<&'a Listed, Failure> {
    let of_name: Vec<&Listed> = packs.iter().filter(|pack| pack.name().as_str() == typed).collect();
    // They are in the order of their versions. A pre-release is for who asks for it, or where there is nothing else.
    let released = of_name.iter().rfind(|pack| pack.version().pre.is_empty());
    let Some(highest) = released.or(of_name.last()) else {
        let known: Vec<&str> = packs.iter().map(|pack| pack.name().as_str()).collect();
        let meant = nearest(typed, &known).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        return Err(Failure::usage(format!("no pack `{typed}` in the list{meant}")));
    };
    let Some(version) = version else { return Ok(*highest) };
    let found = of_name.iter().find(|pack| pack.version().to_string() == version);
    found.copied().ok_or_else(|| {
        let known: Vec<String> = of_name.iter().map(|pack| pack.version().to_string()).collect();
        Failure::usage(format!(
            "no version `{version}` of {typed} in the list; there is {}",
            known.join(", ")
        ))
    })
}

async fn import_chosen(
    home: &Home,
    context: &Context,
    chosen: &Chosen,
    format: Format,
) -> Result<Exit, Failure> {
    let Chosen { file, name, listed } = chosen;
    let mut pack = verify(home, file, name)?;
    if let Some(listed) = listed {
        listed.check(&pack).map_err(|error| {
            Failure::new(Exit::Refused, error.to_string())
                .about(name)
                .adding("nothing of the pack is imported")
                .with_next("muster pack search URL   (what else the list has)")
        })?;
    }
    let base = match pack.resources.as_slice() {
        [] => None,
        [_, ..] => Some(background::base_of(context)?),
    };
    // Before what may take hours: a Switch that is away is told at once.
    let operator = Operator::connect(home, context).await.map_err(|failure| failure.adding(AGAIN))?;
    let kept = match &base {
        Some(base) => put_resources(home, base, file, &pack.resources).await?,
        None => Vec::new(),
    };
    let authored: Vec<Authored> =
        pack.definitions.iter().filter_map(|it| verified_definition(home, &it.envelope).ok()).collect();
    let request = ImportPackRequest {
        index: std::mem::take(&mut pack.envelope),
        definitions: pack.definitions.iter_mut().map(|it| std::mem::take(&mut it.envelope)).collect(),
    };
    let imported = answered(operator.definitions().import_pack(request)).await;
    let imported = imported.map_err(|status| not_imported(status).about(name))?;
    let forgotten = seen::learn(&operator, home, &authored).await;
    table(&imported, &pack.resources, &kept).print(format)?;
    forgotten.iter().for_each(|told| output::note(&output::printable(told)));
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
fn verify(home: &Home, mut file: &File, name: &str) -> Result<Verified, Failure> {
    let roots = home.document_roots("authors")?;
    let unread = |error: std::io::Error| Failure::new(Exit::Refused, error.to_string()).about(name);
    let refused = |error: PackError| not_verified(home, &error).about(name);
    let bar = output::bar(file.metadata().map_err(unread)?.len(), "verified");
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
    let bar =
        output::bar(resources.iter().map(|it| it.member.digests().size).sum(), "at the Background Channel");
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

/// One connection for a resource, and not one for all of them: what takes hours does not hang by one connection.
async fn put_resource(
    home: &Home,
    base: &Url,
    file: &Arc<File>,
    resource: &PackedResource,
    bar: &ProgressBar,
) -> Result<Kept, Failure> {
    let (name, digests) = (resource.member.file_name(), resource.member.digests());
    let root = digests.root.to_string();
    let mut way = Way::open(home, base).await?;
    if way.holds(&root, digests.size).await? {
        bar.inc(digests.size);
        return Ok(Kept::Before);
    }
    let part = Part { file: Arc::clone(file), at: resource.offset, left: digests.size, bar: bar.clone() };
    way.put(&root, name, Content::Part(part)).await?;
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
        | Code::Unauthenticated => Failure::of_document(status),
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

#[cfg(test)]
mod tests {
    use muster_signing::exchange::Exchange;

    use super::*;

    #[test]
    fn a_pack_of_a_list_is_the_highest_version_that_is_released_or_the_one_that_was_typed() {
        let text = include_str!("../../../../signing/fuzz/corpus/exchange/small.json");
        let mut list: serde_json::Value = serde_json::from_str(text).unwrap();
        let basics = list["packs"][1].clone();
        for (version, url) in [("1.10.0", "b"), ("1.9.0", "c"), ("2.0.0-rc.1", "d")] {
            let mut pack = basics.clone();
            (pack["version"], pack["url"]) = (version.into(), url.into());
            list["packs"].as_array_mut().unwrap().push(pack);
        }
        let list = Exchange::parse(list.to_string().as_bytes()).unwrap();
        let picked = |name: &str, version| pick(list.packs(), name, version).map(ToString::to_string);

        assert_eq!(picked("Acme-Security-Basics", None).unwrap(), "Acme-Security-Basics 1.10.0");
        assert_eq!(picked("Acme-Security-Basics", Some("1.9.0")).unwrap(), "Acme-Security-Basics 1.9.0");
        assert_eq!(picked("Acme-Net-Ports", None).unwrap(), "Acme-Net-Ports 0.3.1-rc.1");
        let mistyped = picked("Acme-Security-Basic", None).unwrap_err();
        let no_version = picked("Acme-Net-Ports", Some("1")).unwrap_err();
        assert_eq!((mistyped.exit(), no_version.exit()), (Exit::Usage, Exit::Usage));
        assert!(mistyped.to_string().contains("did you mean Acme-Security-Basics?"), "{mistyped}");
        assert!(no_version.to_string().contains("there is 0.3.1-rc.1"), "{no_version}");
    }

    #[test]
    fn a_url_in_the_place_of_a_file_is_told_how_packs_are_downloaded() {
        for typed in ["https://a.example/b.pack", "http://a.example/b.pack"] {
            let refused = local(Path::new(typed)).map(|_| ()).unwrap_err();

            assert_eq!(refused.exit(), Exit::Usage);
            assert!(refused.next().unwrap().contains("--exchange URL"), "{refused}");
        }
    }
}
