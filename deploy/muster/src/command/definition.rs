//! `muster definition`: signed documents of what may be run.

use std::path::Path;

use muster_proto::operator::v1::{
    Definition as Shown, GetDefinitionRequest, ImportDefinitionRequest, ListDefinitionsRequest,
};

use super::licence;
use crate::cli::{Definition, Listing};
use crate::exit::{Exit, Failure};
use crate::home::{Home, read_file};
use crate::issue::verified_definition_text;
use crate::operator::{Operator, answered};
use crate::output::{self, Cell, Flag, Format, Table};

/// Runs a verb.
pub(crate) async fn run(operator: &Operator, home: &Home, verb: Definition) -> Result<Exit, Failure> {
    match verb {
        Definition::Import { files, output } => import(operator, &files, output).await,
        Definition::List(listing) => list(operator, &listing).await,
        Definition::Show { name, definition_version, output } => {
            show(operator, home, name, definition_version, output).await
        }
    }
}

async fn import(operator: &Operator, files: &[std::path::PathBuf], format: Format) -> Result<Exit, Failure> {
    let (mut table, mut unlicensed) = (table(), Vec::new());
    for file in files {
        let imported = import_one(operator, file).await?;
        table.push(row(&imported));
        if !imported.licensed {
            unlicensed.push(imported);
        }
    }
    table.print(format)?;
    if !unlicensed.is_empty() {
        explain_unlicensed(operator, &unlicensed).await;
    }
    Ok(Exit::Ok)
}

/// Says why definitions cannot be issued yet, and what to do. They are imported, whatever comes of asking for the licence.
async fn explain_unlicensed(operator: &Operator, imported: &[Shown]) {
    let is_held = licence::is_held(operator).await.unwrap_or(true);
    for Shown { name, signer, .. } in imported {
        let why = match is_held {
            true => format!("the licence does not bind its prefix to {signer}"),
            false => "the Switch holds no licence".to_owned(),
        };
        output::note(&output::printable(&format!(
            "{name}: imported, but unlicensed: {why}, so it cannot be issued"
        )));
    }
    output::note(match is_held {
        true => "  try: muster-sign licence issue … --prefix PREFIX=CERT, then muster licence import FILE",
        false => "  try: muster licence import FILE",
    });
}

async fn import_one(operator: &Operator, file: &Path) -> Result<Shown, Failure> {
    let bytes = read_file(file, "muster-sign definition sign FILE.toml --key F --cert F --out FILE.cms")?;
    let envelope = muster_sign::read_envelope(&bytes)
        .map_err(|error| Failure::usage(error.to_string()).in_file(file))?;
    let imported =
        answered(operator.definitions().import_definition(ImportDefinitionRequest { envelope })).await;
    let response = imported.map_err(|status| Failure::from(status).in_file(file))?;
    Ok(response.definition.unwrap_or_default())
}

async fn list(operator: &Operator, listing: &Listing) -> Result<Exit, Failure> {
    let mut table = table();
    let mut page_token = String::new();
    let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
    loop {
        let left = u32::try_from(limit.saturating_sub(table.len())).unwrap_or(u32::MAX);
        let request = ListDefinitionsRequest { page_size: left.min(1_000), page_token };
        let page = answered(operator.definitions().list_definitions(request)).await?;
        for definition in &page.definitions {
            table.push(row(definition));
        }
        page_token = page.next_page_token;
        if page_token.is_empty() || table.len() >= limit {
            break;
        }
    }
    table.print(listing.output)?;
    if !page_token.is_empty() {
        output::note_more(listing.limit);
    }
    if table.len() == 0 {
        output::note("no definition yet; import one: muster definition import FILE");
    }
    Ok(Exit::Ok)
}

fn table() -> Table {
    Table::new([
        "name",
        "version",
        "kind",
        "licensed",
        "says",
        "signer",
        "imported",
        "digest",
        "signer_thumbprint",
    ])
    .wide_only(&["signer", "imported", "digest", "signer_thumbprint"])
}

fn row(definition: &Shown) -> Vec<Cell> {
    vec![
        Cell::text(&definition.name),
        Cell::text(&definition.version),
        Cell::text(&definition.kind),
        Cell::flag(Flag::from(definition.licensed)),
        Cell::text(&definition.says),
        Cell::text(&definition.signer),
        Cell::moment(definition.imported_at_ms),
        Cell::text(&definition.digest),
        Cell::text(&definition.signer_thumbprint),
    ]
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
    let shown = found.definition.unwrap_or_default();
    match format {
        Format::Json | Format::Jsonl | Format::Csv => {
            let pairs = [
                ("name", Cell::text(shown.name)),
                ("version", Cell::text(shown.version)),
                ("kind", Cell::text(shown.kind)),
                ("licensed", Cell::flag(Flag::from(shown.licensed))),
                ("signer", Cell::text(shown.signer)),
                ("signer_thumbprint", Cell::text(shown.signer_thumbprint)),
                ("digest", Cell::text(shown.digest)),
                ("text", Cell::text(text)),
            ];
            output::print_pairs(pairs.map(|(name, cell)| (name.to_owned(), cell)).to_vec(), format)?;
        }
        Format::Table | Format::Wide => {
            output::note(&format!(
                "# {} {} · signed by {} · {}",
                shown.name,
                shown.version,
                shown.signer,
                if shown.licensed { "licensed" } else { "unlicensed" }
            ));
            output::print_line(text.trim_end())?;
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

    /// A Switch that takes every definition, as unlicensed, and tells nobody its licence.
    #[derive(Clone, Default)]
    struct FakeSwitch {
        asked_for_licence: Arc<AtomicUsize>,
    }

    #[tonic::async_trait]
    impl DefinitionService for FakeSwitch {
        async fn import_definition(
            &self,
            _: Request<ImportDefinitionRequest>,
        ) -> Result<Response<api::ImportDefinitionResponse>, Status> {
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
            Err(Status::unimplemented("get"))
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
            Err(Status::permission_denied("not for you"))
        }
    }

    #[tokio::test]
    async fn g1_what_is_imported_is_told_though_the_licence_cannot_be_asked_for_and_that_is_asked_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a.cms", "b.cms"].map(|name| folder.path().join(name));
        files.iter().for_each(|file| std::fs::write(file, [0x30, 0]).unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, switch) = (listener.local_addr().unwrap(), FakeSwitch::default());
        let serving = Server::builder()
            .add_service(DefinitionServiceServer::new(switch.clone()))
            .add_service(LicenceServiceServer::new(switch.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        let connector = tower::service_fn(move |_: Uri| async move {
            tokio::net::TcpStream::connect(address).await.map(TokioIo::new)
        });
        let importing = async {
            let endpoint = Endpoint::from_static("http://switch.invalid");
            let operator = Operator::over(endpoint.connect_with_connector(connector).await.unwrap());
            import(&operator, &files, Format::Json).await
        };

        let imported = tokio::select! {
            imported = importing => imported,
            served = serving => panic!("{served:?}"),
        };

        assert_eq!(imported.unwrap(), Exit::Ok);
        assert_eq!(switch.asked_for_licence.load(Ordering::SeqCst), 1);
    }
}
