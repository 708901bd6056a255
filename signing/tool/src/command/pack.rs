//! `muster-sign pack`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use muster_pki::{Facts, RevocationIndex, UnixTime};
use muster_signing::definition::Definition;
use muster_signing::envelope::{self, ContentType};
use muster_signing::pack::{
    self, Digests, END, INDEX_PATH, Index, MEMBERS_MAX, Member, MemberHasher, Pack, PackedDefinition, Reader,
};
use serde_json::{Value, json};

use super::earlier::{Content, Kept, Signing};
use super::file::{PIECE_BYTES, Trusted, open, read_short};
use super::out::{Out, Product, Sources};
use super::whole::Whole;
use super::{inside, merge, person, printable, random, revocation, show, signer, timestamp};
use crate::cli::{BuildPack, Format, Judged, Output, VerifyPack};
use crate::{ToolError, check_publisher, read_envelope, sign_pack_index};

/// What the names of signed definitions end with.
const DEFINITION_EXTENSION: &str = "cms";

pub(super) fn build(arguments: &BuildPack, now: UnixTime) -> anyhow::Result<String> {
    let name = arguments.name.parse().context("--name")?;
    let version = arguments.version.parse().with_context(|| format!("--version {}", arguments.version))?;
    let files = files(&arguments.files)?;
    let sources = Sources::of("a member", &files).and_signer(&arguments.signer).and_stamp(&arguments.stamp);
    let out = Out::new("--out", &arguments.out, Product::Pack, &sources)?;
    timestamp::check_address(&arguments.stamp)?;
    let signer = signer(&arguments.signer)?;
    let inputs = Inputs::read(files, now)?;
    let definitions: Vec<Definition> = inputs.definitions.iter().map(|it| it.definition.clone()).collect();
    let index = Index::new(
        name,
        version,
        &arguments.says,
        inputs.definitions.iter().map(|it| {
            (it.definition.name().clone(), it.definition.version().clone(), Digests::of(&it.envelope))
        }),
        inputs.resources.iter().map(|it| (it.name.clone(), it.digests)),
    )
    .map_err(ToolError::from)?;
    index.check_resources(&definitions).map_err(ToolError::from)?;
    let text = index.to_text().map_err(ToolError::from)?;
    let content = Content::Inside(ContentType::Pack, text.as_bytes());
    let signing = Signing { out: &out, content, signer: &signer, replace: arguments.replace };
    let kept = signing.earlier(|| timestamp::roots_named(&arguments.stamp), now)?;
    let (envelope, stamped_at) = match &kept {
        Some(kept) => (kept.envelope.clone(), kept.stamped_at),
        None => timestamp::at_once(sign_pack_index(&index, &signer, now)?, &arguments.stamp, now)?,
    };
    let signed_at = kept.as_ref().and_then(|kept| kept.signed_at).unwrap_or(now);
    let mut whole = Whole::begin(&out, random()?)?;
    inputs.write(&index, &envelope, &mut whole)?;
    whole.put()?;
    let mut report = summary(&index);
    merge(
        &mut report,
        json!({
            "signer": signer.certificate().map(person),
            "signed_at": signed_at.as_secs(),
            "out": arguments.out.display().to_string(),
        }),
    );
    merge(&mut report, timestamp::proven(&envelope, stamped_at));
    super::warn(&mut report, kept.iter().map(Kept::says));
    Ok(show(&report, arguments.output))
}

/// What goes into a pack.
struct Inputs {
    definitions: Vec<Signed>,
    resources: Vec<Resource>,
}

struct Signed {
    envelope: Vec<u8>,
    definition: Definition,
}

struct Resource {
    name: String,
    file: PathBuf,
    digests: Digests,
}

impl Inputs {
    fn read(files: Vec<PathBuf>, now: UnixTime) -> anyhow::Result<Self> {
        let (mut definitions, mut resources) = (Vec::new(), Vec::new());
        for file in files {
            if file.extension().is_some_and(|extension| extension == DEFINITION_EXTENSION) {
                let bytes = read_short(&file)?;
                definitions.push(Signed::read(&bytes, now).with_context(|| file.display().to_string())?);
            } else {
                resources.push(Resource::read(file)?);
            }
            let most = 2 * MEMBERS_MAX;
            anyhow::ensure!(definitions.len() + resources.len() <= most, "more than {most} files");
        }
        Ok(Self { definitions, resources })
    }

    /// Writes the archive. A file that was changed since it was read is noticed.
    fn write(&self, index: &Index, envelope: &[u8], to: &mut Whole) -> anyhow::Result<()> {
        let at = |what: &str| what.to_owned();
        let size = u64::try_from(envelope.len())?;
        let put = |to: &mut Whole, bytes: &[u8]| to.write_all(bytes).with_context(|| at("writing"));
        put(to, &pack::header(INDEX_PATH, size))?;
        put(to, envelope)?;
        put(to, pack::padding(size))?;
        let by_digest: BTreeMap<_, _> =
            self.definitions.iter().map(|it| (envelope::digest(&it.envelope), &it.envelope)).collect();
        for (_, _, member) in index.definitions() {
            let bytes = by_digest.get(&member.digests().sha256).with_context(|| at(member.path()))?;
            put(to, &pack::header(member.path(), member.digests().size))?;
            put(to, bytes)?;
            put(to, pack::padding(member.digests().size))?;
        }
        for member in index.resources() {
            let resource = self.resources.iter().find(|it| it.digests == *member.digests());
            let file = &resource.with_context(|| at(member.path()))?.file;
            put(to, &pack::header(member.path(), member.digests().size))?;
            let got = pieces(file, |piece| put(to, piece))?;
            let changed = || format!("{}: it was changed while it was read; build once more", file.display());
            anyhow::ensure!(got == *member.digests(), changed());
            put(to, pack::padding(member.digests().size))?;
        }
        put(to, &END)
    }
}

impl Signed {
    fn read(bytes: &[u8], now: UnixTime) -> anyhow::Result<Self> {
        let envelope = read_envelope(bytes)?;
        let inspection = envelope::inspect(&envelope).map_err(ToolError::from)?;
        let kind = inspection.content_type;
        anyhow::ensure!(kind == ContentType::Definition, "{}; wanted a definition", kind.with_article());
        // Whose roots will judge it is not known here; what no root would mend is.
        envelope::open(&envelope, kind).map_err(ToolError::from)?;
        let judged_at = inspection.stamps.first().and_then(|stamp| stamp.at).unwrap_or(now);
        for (signer, _) in &inspection.signers {
            check_publisher(signer, judged_at)?;
        }
        let text = String::from_utf8(inspection.content).map_err(|_| ToolError::NotText)?;
        let definition = Definition::parse(&text).map_err(ToolError::from)?;
        Ok(Self { envelope, definition })
    }
}

impl Resource {
    fn read(file: PathBuf) -> anyhow::Result<Self> {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let digests = pieces(&file, |_| Ok(()))?;
        Ok(Self { name, file, digests })
    }
}

/// Returns the files, those of folders by name.
fn files(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let name = || path.display().to_string();
        for entry in path.read_dir().with_context(name)? {
            files.push(entry.with_context(name)?.path());
        }
    }
    // A folder has no order of its own; what is wrong is told the same each time.
    files.sort();
    Ok(files)
}

/// Gives each piece of a file to `take`, and returns what it is known by.
fn pieces(path: &Path, mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<Digests> {
    let mut file = open(path)?;
    let mut hasher = MemberHasher::default();
    each_piece(&mut file, path, |piece| {
        hasher.update(piece);
        take(piece)
    })?;
    Ok(hasher.finish())
}

fn each_piece(
    file: &mut File,
    path: &Path,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut piece).with_context(|| path.display().to_string())?;
        match piece.get(..read) {
            Some(bytes) if !bytes.is_empty() => take(bytes)?,
            Some(_) | None => return Ok(()),
        }
    }
}

pub(super) fn verify(arguments: &VerifyPack, now: UnixTime) -> anyhow::Result<String> {
    let (pack, digests) = verified(&arguments.file, arguments.roots.as_deref(), &arguments.trust, now)?;
    Ok(report(&pack, &digests, arguments.output))
}

/// Verifies a pack whole; returns what its file is known by, too.
pub(super) fn verified(
    path: &Path,
    roots: Option<&Path>,
    trust: &Judged,
    now: UnixTime,
) -> anyhow::Result<(Pack, Digests)> {
    let roots = match (roots, &trust.home) {
        (Some(path), _) => path.to_owned(),
        (None, Some(home)) => home.join("trust/authors.pem"),
        (None, None) => anyhow::bail!("whose packs are believed? give --roots FILE, or --home"),
    };
    let trusted = Trusted::read(&roots, trust)?;
    let mut file = open(path)?;
    let (pack, digests) = read(&mut file, path, &trusted, None, now)?;
    if trust.crl.is_empty() {
        return Ok((pack, digests));
    }
    // The issuers of the CRLs are known once all certificates inside are; who is revoked is then judged once more.
    let envelopes = pack.definitions.iter().map(|it| it.envelope.as_slice());
    let inside = envelopes.chain([pack.envelope.as_slice()]).flat_map(inside).collect();
    let revocation = revocation(&trust.crl, trusted.all(), inside, now)?;
    file.rewind().with_context(|| path.display().to_string())?;
    read(&mut file, path, &trusted, revocation.as_ref(), now)
}

fn read(
    file: &mut File,
    path: &Path,
    trusted: &Trusted,
    revocation: Option<&RevocationIndex>,
    now: UnixTime,
) -> anyhow::Result<(Pack, Digests)> {
    let name = || path.display().to_string();
    let mut reader = Reader::new(trusted.anchors(), Facts { revocation, ..Facts::at(now) });
    let mut hasher = MemberHasher::default();
    each_piece(file, path, |piece| {
        hasher.update(piece);
        reader.handle_piece(piece).map_err(ToolError::from).with_context(name)
    })?;
    let pack = reader.finish().map_err(ToolError::from).with_context(name)?;
    Ok((pack, hasher.finish()))
}

fn summary(index: &Index) -> Value {
    json!({
        "name": index.name().as_str(),
        "version": index.version().to_string(),
        "says": index.says(),
        "definitions": index.definitions().len(),
        "resources": index.resources().len(),
    })
}

fn report(pack: &Pack, digests: &Digests, output: Output) -> String {
    let mut report = summary(&pack.index);
    merge(
        &mut report,
        json!({
            "size": pack.size,
            "sha256": digests.sha256.to_string(),
            "signer": person(&pack.signer),
            "root": person(&pack.root),
            "signed_at": pack.signing_time.as_secs(),
        }),
    );
    merge(&mut report, timestamp::proven(&pack.envelope, pack.stamped_at));
    match output.format {
        Format::Json => {
            let definitions: Vec<Value> = pack.definitions.iter().map(definition).collect();
            let resources: Vec<Value> = pack.resources.iter().map(|it| member(&it.member)).collect();
            // In the place of their numbers.
            merge(&mut report, json!({ "definitions": definitions, "resources": resources }));
            show(&report, output)
        }
        Format::Text => format!("{}\n{}", show(&report, output), table(pack)),
    }
}

fn member(member: &Member) -> Value {
    let Digests { size, root, sha256 } = member.digests();
    json!({ "path": member.path(), "size": size, "root": root.to_string(), "sha256": sha256.to_string() })
}

fn definition(packed: &PackedDefinition) -> Value {
    let mut report = member(&packed.member);
    merge(
        &mut report,
        json!({
            "name": packed.definition.name().as_str(),
            "version": packed.definition.version().to_string(),
            "kind": packed.definition.kind().name(),
            "says": packed.definition.says(),
            "digest": envelope::digest(&packed.envelope).to_string(),
            "signer": person(&packed.signer),
            "root": person(&packed.root),
            "signed_at": packed.signing_time.as_secs(),
        }),
    );
    merge(&mut report, timestamp::proven(&packed.envelope, packed.stamped_at));
    report
}

/// What is in a pack, and who signed each definition; a resource is known by its root.
fn table(pack: &Pack) -> String {
    let head = ["path", "size", "kind", "signed by / root"].map(str::to_owned);
    let definitions = pack.definitions.iter().map(|it| {
        let kind = it.definition.kind().name().to_owned();
        [
            it.member.path().to_owned(),
            it.member.digests().size.to_string(),
            kind,
            it.signer.subject().to_owned(),
        ]
    });
    let resources = pack.resources.iter().map(|it| {
        let Digests { size, root, .. } = it.member.digests();
        [it.member.path().to_owned(), size.to_string(), "resource".to_owned(), root.to_string()]
    });
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(definitions).chain(resources).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let (path_width, size_width, kind_width) = (width(0), width(1), width(2));
    let line = |[path, size, kind, signer]: &[String; 4]| {
        let signer = printable(signer);
        format!("{path:path_width$}  {size:>size_width$}  {kind:kind_width$}  {signer}\n")
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_that_changes_while_the_pack_is_written_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list.txt");
        std::fs::write(&file, "a\nb\n").unwrap();
        let text = "name = \"Acme-Test-A\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"?\"\n\n[[step]]\nquery = \"SELECT 1 AS v\"\n\n\
                    [[result]]\nname = \"v\"\ntype = \"integer\"\n";
        let definition = Signed { envelope: b"x".to_vec(), definition: Definition::parse(text).unwrap() };
        let resources = vec![Resource::read(file.clone()).unwrap()];
        let named = [("Acme-Test-A".parse().unwrap(), semver(), Digests::of(&definition.envelope))];
        let digests = resources[0].digests;
        let index = Index::new(
            "Acme-Test-Pack".parse().unwrap(),
            semver(),
            "",
            named,
            [("list.txt".to_owned(), digests)],
        );
        let (index, inputs) = (index.unwrap(), Inputs { definitions: vec![definition], resources });
        let out = Out::in_place(&folder.path().join("a.pack"));
        let write = || inputs.write(&index, b"index", &mut Whole::begin(&out, [1; 16]).unwrap());
        write().unwrap();

        std::fs::write(&file, "a\nB\n").unwrap();
        let error = write().unwrap_err().to_string();

        assert!(error.contains("list.txt: it was changed while it was read"), "{error}");
    }

    fn semver<T: std::str::FromStr<Err: std::fmt::Debug>>() -> T {
        "1.0.0".parse().unwrap()
    }
}
