//! Who may import a pack: exactly who may import each of its definitions.

use muster_pki::authority::Issued;
use muster_pki::{Role, UnixTime};
use muster_proto::operator::v1::{ImportDefinitionRequest, ImportPackRequest, ListDefinitionsRequest};
use muster_proto_grpc::operator::v1::definition_service_client::DefinitionServiceClient;
use muster_signing::definition::Definition;
use muster_signing::envelope::{ContentType, Signer, sign};
use muster_signing::pack::{Digests, Index};
use muster_switch::{Grant, GrantRole};
use tonic::Code;

use crate::operators::connect_as;
use crate::pki::Ends;
use crate::world::World;

const DEFINITION: &str = "name = \"Acme-Test-One\"\nversion = \"1.0.0\"\nkind = \"question\"\nsays = \"?\"\n\n[[step]]\n\
                          query = \"SELECT 1 AS one\"\n\n[[result]]\nname = \"one\"\ntype = \"integer\"\n";

const OPERATOR: &str = "alice.acme.local";

#[tokio::test]
async fn g9_a_pack_is_imported_by_exactly_those_who_may_import_each_of_its_definitions() {
    let grant = |operator: &str, role| Grant {
        operators: vec![operator.to_owned()],
        role,
        prefixes: Vec::new(),
        kinds: Vec::new(),
    };
    let narrow = Grant { prefixes: vec!["Other".to_owned()], ..grant(OPERATOR, GrantRole::Administrator) };
    for (grants, may) in [
        (Vec::new(), true),
        (vec![grant(OPERATOR, GrantRole::Administrator)], true),
        (vec![narrow], true),
        (vec![grant(OPERATOR, GrantRole::Issuer)], false),
        (vec![grant(OPERATOR, GrantRole::Viewer)], false),
        (vec![grant("bob.acme.local", GrantRole::Administrator), grant(OPERATOR, GrantRole::Viewer)], false),
    ] {
        let said = format!("{grants:?}");
        let mut world = World::new();
        world.config.grants = grants;
        let switch = world.start().await;
        let operator = connect_as(&world, &switch, Role::Operator, OPERATOR).await;
        let mut definitions = DefinitionServiceClient::new(operator);
        let (index, envelope) = pack(&world);

        let request = ImportPackRequest { index, definitions: vec![envelope.clone()] };
        let pack = definitions.import_pack(request).await;
        let listed = definitions.list_definitions(ListDefinitionsRequest::default()).await;
        let alone = definitions.import_definition(ImportDefinitionRequest { envelope }).await;

        assert_eq!((pack.is_ok(), alone.is_ok()), (may, may), "{said}: {pack:?}");
        let listed = listed.unwrap().into_inner().definitions;
        assert_eq!(listed.len(), usize::from(may), "{said}");
        if let (Err(pack), Err(alone)) = (pack, alone) {
            assert_eq!((pack.code(), pack.message()), (Code::PermissionDenied, alone.message()));
        }
        switch.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_service_imports_no_pack() {
    let world = World::new();
    let switch = world.start().await;
    let service = connect_as(&world, &switch, Role::Service, "background.acme.local").await;
    let (index, envelope) = pack(&world);

    let request = ImportPackRequest { index, definitions: vec![envelope] };
    let denied = DefinitionServiceClient::new(service).import_pack(request).await.unwrap_err();

    assert_eq!(denied.code(), Code::PermissionDenied, "{denied}");
    switch.stop().await.unwrap();
}

/// The largest pack that there may be is one request.
#[tokio::test]
async fn g9_a_pack_of_the_most_and_the_largest_definitions_fits_one_request() {
    let world = World::new();
    let switch = world.start().await;
    let operator = connect_as(&world, &switch, Role::Operator, OPERATOR).await;
    let author = world.pki.issue(Role::Author, "Acme author", Ends::InAYear);
    let pad = "-- padding of a comment\n".repeat(430);
    let texts: Vec<String> = (0..muster_signing::pack::MEMBERS_MAX)
        .map(|n| {
            let text = DEFINITION.replace("Acme-Test-One", &format!("Acme-Test-N{n:03}"));
            text.replace("\"SELECT 1 AS one\"", &format!("\"\"\"\n{pad}SELECT 1 AS one\"\"\""))
        })
        .collect();
    let envelopes: Vec<Vec<u8>> =
        texts.iter().map(|text| signed(&author, text, ContentType::Definition)).collect();
    let bytes: usize = envelopes.iter().map(Vec::len).sum();
    let index = signed(&author, &index(&texts, &envelopes), ContentType::Pack);

    let request = ImportPackRequest { index, definitions: envelopes };
    let imported = DefinitionServiceClient::new(operator).import_pack(request).await.unwrap().into_inner();

    let most = usize::try_from(muster_signing::pack::DEFINITIONS_BYTES_MAX).unwrap();
    assert!(
        bytes <= most && bytes > most * 9 / 10,
        "{bytes} of {most} bytes: the test is to be near the bound"
    );
    assert_eq!(imported.definitions.len(), texts.len());
    switch.stop().await.unwrap();
}

/// The index of a pack of one definition, and that.
fn pack(world: &World) -> (Vec<u8>, Vec<u8>) {
    let author = world.pki.issue(Role::Author, "Acme author", Ends::InAYear);
    let envelope = signed(&author, DEFINITION, ContentType::Definition);
    let text = index(&[DEFINITION.to_owned()], std::slice::from_ref(&envelope));
    (signed(&author, &text, ContentType::Pack), envelope)
}

fn index(texts: &[String], envelopes: &[Vec<u8>]) -> String {
    let named = texts.iter().zip(envelopes).map(|(text, envelope)| {
        let definition = Definition::parse(text).unwrap();
        (definition.name().clone(), definition.version().clone(), Digests::of(envelope))
    });
    let (name, version) = ("Acme-Test-Pack".parse().unwrap(), "1.0.0".parse().unwrap());
    Index::new(name, version, "", named, []).unwrap().to_text().unwrap()
}

fn signed(own: &Issued, text: &str, kind: ContentType) -> Vec<u8> {
    let signer = Signer::from_pem(&own.chain_pem, &own.key_pem).unwrap();
    sign(text.as_bytes(), kind, &signer, UnixTime::now()).unwrap()
}
