//! `muster definition`: signed documents of what may be run.

use std::path::Path;

use muster_proto::common::v1::Refusal;
use muster_proto::operator::v1::{
    Definition as Shown, GetDefinitionRequest, ImportDefinitionRequest, ListDefinitionsRequest,
};
use muster_sign::FileKind;
use muster_signing::definition::Definition as Document;
use muster_signing::envelope;
use semver::Version;

use super::licence;
use crate::cli::{Definition, Listing};
use crate::exit::{Exit, Failure};
use crate::home::{Home, read_file};
use crate::issue::{Authored, verified_definition, verified_definition_text};
use crate::operator::{Operator, answered};
use crate::output::{self, Cell, Flag, Format, Table};
use crate::seen;

/// By how much a version's second number may grow at once without a word.
const MINOR_STEP: u64 = 10;

/// What is told of a definition that can be issued.
const READY: &str = "ready";

/// The code of one that the licence does not admit.
const UNLICENSED: &str = "UNLICENSED";

/// Runs a verb.
pub(crate) async fn run(operator: &Operator, home: &Home, verb: Definition) -> Result<Exit, Failure> {
    match verb {
        Definition::Import { files, output } => import(operator, home, &files, output).await,
        Definition::List(listing) => list(operator, &listing).await,
        Definition::Show { name, definition_version, output } => {
            show(operator, home, name, definition_version, output).await
        }
    }
}

/// Imports file after file, up to the first that is refused. What is imported by then is shown.
async fn import(
    operator: &Operator,
    home: &Home,
    files: &[std::path::PathBuf],
    format: Format,
) -> Result<Exit, Failure> {
    let (mut table, mut unlicensed, mut refused) = (table(), Vec::new(), None);
    let (mut leaps, mut authored) = (Vec::new(), Vec::new());
    for file in files {
        match import_one(operator, home, file).await {
            Ok(Imported { shown: imported, highest, authored: verified }) => {
                authored.extend(verified);
                table.push(row(&imported));
                leaps.extend(highest.and_then(|highest| leap(&imported, &highest)));
                if state(&imported) != READY {
                    unlicensed.push(imported);
                }
            }
            Err(failure) => {
                refused = Some(failure);
                break;
            }
        }
    }
    let forgotten = seen::learn(operator, home, &authored).await;
    let done = table.len();
    match refused {
        Some(failure) if done == 0 => return Err(failure),
        Some(_) | None => table.print(format)?,
    }
    leaps.iter().chain(&forgotten).for_each(|told| output::note(&output::printable(told)));
    if !unlicensed.is_empty() {
        explain_unlicensed(operator, &unlicensed).await;
    }
    match refused {
        Some(failure) => Err(failure.after_some(&format!(
            "{done} of {} definitions are imported, those that are shown; none behind this one was tried, and the same command again \
             imports nothing twice",
            files.len()
        ))),
        None => Ok(Exit::Ok),
    }
}

/// Says why definitions cannot be issued yet, and what to do. They are imported, whatever comes of asking for the licence.
async fn explain_unlicensed(operator: &Operator, imported: &[Shown]) {
    let is_held = licence::is_held(operator).await.unwrap_or(true);
    for definition in imported {
        let Shown { name, signer, problem, .. } = definition;
        let what = match state(definition) {
            UNLICENSED => "unlicensed",
            code => code,
        };
        let why = match (problem.as_str(), is_held) {
            // A Switch of an older version.
            ("", true) => format!("the licence does not bind its prefix to {signer}"),
            ("", false) => "the Switch holds no licence".to_owned(),
            (problem, _) => problem.to_owned(),
        };
        output::note(&output::printable(&format!(
            "{name}: imported, but {what}: {why}, so it cannot be issued"
        )));
    }
    if imported.iter().all(|definition| state(definition) != UNLICENSED) {
        return;
    }
    output::note(match is_held {
        true => "  try: muster-sign licence issue … --prefix PREFIX=CERT, then muster licence import FILE",
        false => "  try: muster licence import FILE",
    });
}

/// What became of a file.
struct Imported {
    /// What it is, as the Switch says.
    shown: Shown,
    /// The highest version of its name that was held before.
    highest: Option<Version>,
    /// What it is, as far as this home's roots say.
    authored: Option<Authored>,
}

/// Imports one file.
async fn import_one(operator: &Operator, home: &Home, file: &Path) -> Result<Imported, Failure> {
    let bytes = read_file(
        file,
        FileKind::ENVELOPE,
        "muster-sign definition sign FILE.toml --key F --cert F --out FILE.cms",
    )?;
    let envelope =
        muster_sign::read_envelope(&bytes).map_err(|error| Failure::no_document(error).in_file(file))?;
    let highest = highest(operator, &envelope).await;
    let authored = verified_definition(home, &envelope).ok();
    let imported =
        answered(operator.definitions().import_definition(ImportDefinitionRequest { envelope })).await;
    let response = imported.map_err(|status| Failure::of_document(status).in_file(file))?;
    Ok(Imported { shown: response.definition.unwrap_or_default(), highest, authored })
}

/// The highest version that is held of a definition's name. It is for a hint, so what cannot be told is none.
async fn highest(operator: &Operator, envelope: &[u8]) -> Option<Version> {
    let text = String::from_utf8(envelope::inspect(envelope).ok()?.content).ok()?;
    let name = Document::parse(&text).ok()?.name().to_string();
    let request = GetDefinitionRequest { name, version: String::new() };
    let held = answered(operator.definitions().get_definition(request)).await.ok()?;
    held.definition?.version.parse().ok()
}

/// Says that a version leaps, which may be a slip of the pen. A device that has seen a version refuses all below it for ever, so this is told
/// before anything is issued of it.
fn leap(imported: &Shown, highest: &Version) -> Option<String> {
    let (name, version) = (&imported.name, imported.version.parse::<Version>().ok()?);
    let is_leap = match version.major.checked_sub(highest.major) {
        None => false,
        Some(0) => version.minor > highest.minor.saturating_add(MINOR_STEP),
        Some(1) => version.minor > MINOR_STEP,
        Some(_) => true,
    };
    is_leap.then(|| {
        format!(
            "{name}: version {version} leaps over {highest}, the highest that was held. A device that has seen it refuses every lower one for \
             ever (ROLLED_BACK); if it is a slip of the pen, issue nothing of it: give --definition-version to muster run"
        )
    })
}

async fn list(operator: &Operator, listing: &Listing) -> Result<Exit, Failure> {
    let (definitions, more) = held(operator, listing.limit).await?;
    let mut table = table();
    for definition in &definitions {
        table.push(row(definition));
    }
    table.print(listing.output)?;
    if more == More::Yes {
        output::note_more(listing.limit);
    }
    if definitions.is_empty() {
        output::note("no definition yet; import one: muster definition import FILE");
    }
    Ok(Exit::Ok)
}

/// Whether there are more than were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// There are.
    Yes,
    /// These are all.
    No,
}

/// The definitions that the Switch holds, at most so many.
pub(super) async fn held(operator: &Operator, limit: u32) -> Result<(Vec<Shown>, More), Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut definitions, mut page_token) = (Vec::new(), String::new());
    loop {
        let left = u32::try_from(limit.saturating_sub(definitions.len())).unwrap_or(u32::MAX);
        let request = ListDefinitionsRequest { page_size: left.min(1_000), page_token };
        let page = answered(operator.definitions().list_definitions(request)).await?;
        definitions.extend(page.definitions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok((definitions, More::No));
        }
        if definitions.len() >= limit {
            return Ok((definitions, More::Yes));
        }
    }
}

fn table() -> Table {
    Table::new([
        "name",
        "version",
        "kind",
        "licensed",
        "state",
        "says",
        "signer",
        "imported",
        "digest",
        "signer_thumbprint",
        "problem",
    ])
    .wide_only(&["signer", "imported", "digest", "signer_thumbprint", "problem"])
}

fn row(definition: &Shown) -> Vec<Cell> {
    vec![
        Cell::text(&definition.name),
        Cell::text(&definition.version),
        Cell::text(&definition.kind),
        Cell::flag(Flag::from(definition.licensed)),
        Cell::text(state(definition)),
        Cell::text(&definition.says),
        Cell::text(&definition.signer),
        Cell::moment(definition.imported_at_ms),
        Cell::text(&definition.digest),
        Cell::text(&definition.signer_thumbprint),
        Cell::text(&definition.problem),
    ]
}

/// Whether it can be issued at present: the code that clients would refuse it with, or that it is ready.
fn state(definition: &Shown) -> &'static str {
    let refusal = definition.refusal();
    if refusal != Refusal::Unspecified {
        return refusal.name();
    }
    // A Switch of an older version tells no code.
    if definition.licensed { READY } else { UNLICENSED }
}

async fn show(
    operator: &Operator,
    home: &Home,
    name: String,
    version: String,
    format: Format,
) -> Result<Exit, Failure> {
    let found =
        answered(operator.definitions().get_definition(GetDefinitionRequest { name, version })).await?;
    let text = verified_definition_text(home, &found.envelope)?;
    // Who only looks is not told what is not remembered.
    drop(seen::learn(operator, home, verified_definition(home, &found.envelope).ok().as_slice()).await);
    let shown = found.definition.unwrap_or_default();
    let state = state(&shown);
    match format {
        Format::Json | Format::Jsonl | Format::Csv => {
            let pairs = [
                ("name", Cell::text(shown.name)),
                ("version", Cell::text(shown.version)),
                ("kind", Cell::text(shown.kind)),
                ("licensed", Cell::flag(Flag::from(shown.licensed))),
                ("state", Cell::text(state)),
                ("problem", Cell::text(shown.problem)),
                ("signer", Cell::text(shown.signer)),
                ("signer_thumbprint", Cell::text(shown.signer_thumbprint)),
                ("digest", Cell::text(shown.digest)),
                ("text", Cell::text(text)),
            ];
            output::print_pairs(pairs.map(|(name, cell)| (name.to_owned(), cell)).to_vec(), format)?;
        }
        Format::Table | Format::Wide => {
            output::note(&format!(
                "# {} {} · signed by {} · {} · {state}",
                shown.name,
                shown.version,
                shown.signer,
                if shown.licensed { "licensed" } else { "unlicensed" }
            ));
            if !shown.problem.is_empty() {
                output::note(&output::printable(&format!("# it cannot be issued: {}", shown.problem)));
            }
            output::print_text(text.trim_end())?;
        }
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hyper_util::rt::TokioIo;
    use muster_proto::operator::v1 as api;
    use muster_proto_grpc::operator::v1::definition_service_server::{
        DefinitionService, DefinitionServiceServer,
    };
    use muster_proto_grpc::operator::v1::licence_service_server::{LicenceService, LicenceServiceServer};
    use tonic::transport::server::TcpIncoming;
    use tonic::transport::{Endpoint, Server, Uri};
    use tonic::{Request, Response, Status};

    use super::*;

    /// What the Switch refuses.
    const REFUSED: &[u8] = &[0x30, 1, 0];

    /// A Switch that takes every definition but one, as unlicensed, and tells nobody its licence.
    #[derive(Clone, Default)]
    struct FakeSwitch {
        /// The licence that it tells nevertheless.
        licence: Option<Vec<u8>>,
        /// The definition that it shows.
        shown: Vec<u8>,
        asked_for_licence: Arc<AtomicUsize>,
        taken: Arc<AtomicUsize>,
    }

    #[tonic::async_trait]
    impl DefinitionService for FakeSwitch {
        async fn import_definition(
            &self,
            request: Request<ImportDefinitionRequest>,
        ) -> Result<Response<api::ImportDefinitionResponse>, Status> {
            if request.into_inner().envelope == REFUSED {
                return Err(Status::failed_precondition("held with other content"));
            }
            self.taken.fetch_add(1, Ordering::SeqCst);
            let definition = Some(Shown { name: "Acme-Test-One".to_owned(), ..Shown::default() });
            Ok(Response::new(api::ImportDefinitionResponse { definition }))
        }

        async fn import_pack(
            &self,
            _: Request<api::ImportPackRequest>,
        ) -> Result<Response<api::ImportPackResponse>, Status> {
            Err(Status::unimplemented("pack"))
        }

        async fn list_definitions(
            &self,
            _: Request<ListDefinitionsRequest>,
        ) -> Result<Response<api::ListDefinitionsResponse>, Status> {
            Err(Status::unimplemented("list"))
        }

        async fn get_definition(
            &self,
            _: Request<GetDefinitionRequest>,
        ) -> Result<Response<api::GetDefinitionResponse>, Status> {
            match self.shown.as_slice() {
                [] => Err(Status::unimplemented("get")),
                envelope => Ok(Response::new(api::GetDefinitionResponse {
                    definition: Some(Shown::default()),
                    envelope: envelope.to_vec(),
                })),
            }
        }
    }

    #[tonic::async_trait]
    impl LicenceService for FakeSwitch {
        async fn import_licence(
            &self,
            _: Request<api::ImportLicenceRequest>,
        ) -> Result<Response<api::ImportLicenceResponse>, Status> {
            Err(Status::unimplemented("import"))
        }

        async fn get_licence(
            &self,
            _: Request<api::GetLicenceRequest>,
        ) -> Result<Response<api::GetLicenceResponse>, Status> {
            self.asked_for_licence.fetch_add(1, Ordering::SeqCst);
            let envelope = self.licence.clone().ok_or_else(|| Status::permission_denied("not for you"))?;
            Ok(Response::new(api::GetLicenceResponse { envelope, problem: String::new() }))
        }
    }

    /// Imports files of these contents.
    async fn import_each(switch: &FakeSwitch, contents: &[&[u8]]) -> Result<Exit, Failure> {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> =
            (0..contents.len()).map(|number| folder.path().join(format!("{number}.cms"))).collect();
        files.iter().zip(contents).for_each(|(file, content)| std::fs::write(file, content).unwrap());
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        served(switch, async |operator| import(&operator, &home, &files, Format::Json).await).await
    }

    /// Does something with that Switch.
    async fn served<T>(switch: &FakeSwitch, job: impl AsyncFnOnce(Operator) -> T) -> T {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Server::builder()
            .add_service(DefinitionServiceServer::new(switch.clone()))
            .add_service(LicenceServiceServer::new(switch.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        let connector = tower::service_fn(move |_: Uri| async move {
            tokio::net::TcpStream::connect(address).await.map(TokioIo::new)
        });
        let job = async {
            let endpoint = Endpoint::from_static("http://switch.invalid");
            job(Operator::over(endpoint.connect_with_connector(connector).await.unwrap())).await
        };
        tokio::select! {
            done = job => done,
            served = serving => panic!("{served:?}"),
        }
    }

    #[tokio::test]
    async fn g1_what_is_imported_is_told_though_the_licence_cannot_be_asked_for_and_that_is_asked_once() {
        let switch = FakeSwitch::default();

        let imported = import_each(&switch, &[&[0x30, 0], &[0x30, 0]]).await;

        assert_eq!(imported.unwrap(), Exit::Ok);
        assert_eq!(switch.asked_for_licence.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_is_imported_or_shown_is_remembered_so_that_no_switch_chooses_a_lower_version() {
        for is_shown in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let home = Home::locate(Some(folder.path().to_owned())).unwrap();
            let now = muster_pki::UnixTime::now();
            crate::provision::provision(&home, "acme", crate::pki_home::CRL_BASE_URL, now).unwrap();
            let file = home.path("definitions/Muster-Os-Version.cms");
            let switch = FakeSwitch {
                licence: Some(std::fs::read(home.path("licence.cms")).unwrap()),
                shown: if is_shown { std::fs::read(&file).unwrap() } else { Vec::new() },
                ..FakeSwitch::default()
            };

            let done = served(&switch, async |operator| match is_shown {
                true => show(&operator, &home, String::new(), String::new(), Format::Json).await,
                false => import(&operator, &home, std::slice::from_ref(&file), Format::Json).await,
            });

            assert_eq!(done.await.unwrap(), Exit::Ok);
            let seen = std::fs::read_to_string(home.path("seen/test.toml")).unwrap();
            assert!(seen.contains("[versions]\nMuster-Os-Version = \""), "{seen}");
        }
    }

    #[test]
    fn a_version_that_leaps_over_the_highest_that_was_held_is_told_of() {
        let told = |highest: &str, version: &str| {
            let imported = Shown { version: version.to_owned(), ..Shown::default() };
            leap(&imported, &highest.parse().unwrap())
        };

        for (highest, version) in [
            ("1.0.0", "1.0.1"),
            ("1.0.0", "1.10.0"),
            ("1.9.9", "2.0.0"),
            ("1.2.0", "1.1.0"),
            ("1.2.0", "2.10.0"),
            ("2.0.0", "1.99.0"),
        ] {
            assert_eq!(told(highest, version), None, "{highest} to {version}");
        }
        for (highest, version) in
            [("1.0.0", "10.0.0"), ("1.0.0", "3.0.0"), ("1.2.0", "1.13.0"), ("1.2.0", "2.11.0")]
        {
            let said = told(highest, version).unwrap_or_else(|| panic!("{highest} to {version}"));
            assert!(
                said.contains("ROLLED_BACK") && said.contains(highest) && said.contains(version),
                "{said}"
            );
        }
    }

    #[test]
    fn g8_a_definition_shows_the_code_that_devices_would_refuse_it_with() {
        let shown =
            |refusal: Refusal, licensed| Shown { refusal: refusal.into(), licensed, ..Shown::default() };

        assert_eq!(state(&shown(Refusal::SignerRevoked, true)), "SIGNER_REVOKED");
        assert_eq!(state(&shown(Refusal::Unspecified, true)), "ready");
        assert_eq!(state(&shown(Refusal::Unspecified, false)), "UNLICENSED");
    }

    #[tokio::test]
    async fn what_is_imported_before_one_that_is_refused_is_told_and_the_exit_code_says_partial() {
        let (first, later) = (FakeSwitch::default(), FakeSwitch::default());

        let nothing = import_each(&first, &[REFUSED, &[0x30, 0]]).await.unwrap_err();
        let some = import_each(&later, &[&[0x30, 0], REFUSED, &[0x30, 0]]).await.unwrap_err();

        assert_eq!((nothing.exit(), first.taken.load(Ordering::SeqCst)), (Exit::Denied, 0), "{nothing}");
        assert_eq!((some.exit(), later.taken.load(Ordering::SeqCst)), (Exit::Partial, 1), "{some}");
        let said = some.to_string();
        assert!(said.contains("1.cms: held with other content") && said.contains("1 of 3"), "{said}");
        assert!(!nothing.to_string().contains("are imported"), "{nothing}");
        assert_eq!(later.asked_for_licence.load(Ordering::SeqCst), 1, "why it is unlicensed is told, too");
    }
}
