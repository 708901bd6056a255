use std::path::PathBuf;

use muster_proto::ids::InstructionId;
use muster_proto::operator::v1 as api;
use muster_proto::order::v1::Audience;
use muster_sign::NewLicence;
use muster_signing::envelope::Signer;
use muster_signing::licence::Terms;
use muster_signing::order;

use super::*;
use crate::cli::OrderKey;
use crate::fake_switch::{FakeSwitch, context};
use crate::issue::{self, Wish};
use crate::pki_home::CRL_BASE_URL;
use crate::{approve, stop};

const TENANT: &str = "acme";
const MINUTE: i64 = 60_000;

/// An operator's home, and a Switch of which nothing is believed.
struct World {
    _folder: tempfile::TempDir,
    home: Home,
    definition: Vec<u8>,
    switch: FakeSwitch,
}

impl World {
    /// A home that somebody has filled with roots and keys, and that tells nothing of an organisation itself.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        provision::provision(&home, TENANT, CRL_BASE_URL, UnixTime::now()).unwrap();
        let definition = std::fs::read(home.path("definitions/Muster-Os-Version.cms")).unwrap();
        std::fs::remove_file(home.path("licence.cms")).unwrap();
        std::fs::remove_file(home.path("pki/tenant")).unwrap();
        let world = Self { _folder: folder, home, definition, switch: FakeSwitch::default() };
        world.hold_licence(&world.licence(TENANT, 1));
        world
    }

    /// The publisher or the licensor.
    fn signer(&self, who: &str) -> Signer {
        self.signer_in(&format!("{who}/cert.pem"), &format!("{who}/key.pem"))
    }

    fn signer_in(&self, certificate: &str, key: &str) -> Signer {
        let read = |file: &str| std::fs::read(self.home.path(file)).unwrap();
        Signer::from_pem(read(certificate), read(key)).unwrap()
    }

    /// A licence of the home's licensor.
    fn licence(&self, tenant: &str, serial: u64) -> Vec<u8> {
        self.licence_of(NewLicence { tenant: tenant.to_owned(), serial, ..self.terms() })
    }

    fn terms(&self) -> NewLicence {
        let publisher = std::fs::read(self.home.path("publisher/cert.pem")).unwrap();
        NewLicence {
            licensee: "Acme Ltd".to_owned(),
            tenant: TENANT.to_owned(),
            serial: 1,
            valid_days: 30,
            prefixes: vec![("Muster".to_owned(), publisher)],
            ..NewLicence::default()
        }
    }

    fn licence_of(&self, terms: NewLicence) -> Vec<u8> {
        muster_sign::issue_licence(&terms, &self.signer("licensor"), UnixTime::now()).unwrap()
    }

    /// What the Switch shows as its licence.
    fn hold_licence(&self, envelope: &[u8]) {
        *self.switch.licence.lock().unwrap() =
            Some(api::GetLicenceResponse { envelope: envelope.to_vec(), ..Default::default() });
    }

    /// What an honest Switch would prepare.
    fn order(&self) -> Order {
        let now = now_ms();
        Order {
            tenant: TENANT.to_owned(),
            instruction: id(1).to_vec(),
            definition_name: "Muster-Os-Version".to_owned(),
            definition_version: issue::verified_definition(&self.home, &self.definition)
                .unwrap()
                .definition
                .version()
                .to_string(),
            definition_digest: envelope::digest(&self.definition).to_vec(),
            licence_serial: 1,
            audience: Some(Audience { members_root: vec![7; 32], members_count: 3, ..Audience::default() }),
            not_before_ms: now - MINUTE,
            expires_at_ms: now + MINUTE,
            sequence: 1,
            operator: "alice".to_owned(),
            ..Order::default()
        }
    }

    fn stop(&self) -> Order {
        let Order {
            tenant,
            instruction,
            licence_serial,
            not_before_ms,
            expires_at_ms,
            sequence,
            operator,
            ..
        } = self.order();
        Order {
            tenant,
            instruction,
            licence_serial,
            not_before_ms,
            expires_at_ms,
            sequence,
            operator,
            audience: Some(Audience::default()),
            stops: id(2).to_vec(),
            reason: "wrong fleet".to_owned(),
            ..Order::default()
        }
    }

    /// Asks the Switch for an order, which prepares this one; gives what is said of it.
    async fn issue(&self, order: &Order) -> Result<(), String> {
        self.issue_typed(order, "").await
    }

    /// As [`Self::issue`], of a version that was typed.
    async fn issue_typed(&self, order: &Order, version: &str) -> Result<(), String> {
        *self.switch.issue.lock().unwrap() = Some(api::PrepareInstructionResponse {
            order: order::encode(order),
            definition: self.definition.clone(),
            targets: 3,
            ..api::PrepareInstructionResponse::default()
        });
        let wish = Wish {
            definition: "Muster-Os-Version".to_owned(),
            version: version.to_owned(),
            arguments: Vec::new(),
            audience: String::new(),
            gather: None,
            keep: None,
        };
        let prepared =
            self.switch.serve(async |operator| issue::prepare(&operator, &self.home, &wish).await.map(drop));
        prepared.await.map_err(|failure| failure.to_string())
    }

    /// The definition in another version, by the same author; an action, which wants so many approvals.
    fn version(&self, version: &str, approvals: u8) -> Vec<u8> {
        let text = include_str!("../../../../signing/definitions/Muster-Os-Version.toml");
        let kind = format!("kind = \"action\"\napprovals = {approvals}\n");
        let text = text.replace("kind = \"question\"\n", &kind);
        let (before, rest) = text.split_once("\nversion = \"").unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        let text = format!("{before}\nversion = \"{version}\"{after}");
        envelope::sign(text.as_bytes(), ContentType::Definition, &self.signer("publisher"), UnixTime::now())
            .unwrap()
    }

    /// What the home remembers of the definition's versions.
    fn highest(&self) -> Option<String> {
        let seen = Seen::read(&self.file()).unwrap();
        seen.versions.get("Muster-Os-Version").map(ToString::to_string)
    }

    /// Imports or shows definitions.
    async fn learn(&self, envelopes: &[&[u8]]) -> Option<String> {
        let authored = envelopes.iter().map(|it| issue::verified_definition(&self.home, it).unwrap());
        let authored: Vec<Authored> = authored.collect();
        self.switch.serve(async |operator| learn(&operator, &self.home, &authored).await).await
    }

    /// Asks the Switch for an order to approve, which it has under a signature that holds.
    async fn approve(&self, order: &Order) -> Result<(), String> {
        let signer = self.signer_in("operator/order.pem", "operator/order.key");
        let signed =
            envelope::sign(&order::encode(order), ContentType::Order, &signer, UnixTime::now()).unwrap();
        *self.switch.approval.lock().unwrap() = Some(api::PrepareApprovalResponse {
            envelope: signed,
            definition: self.definition.clone(),
            ..api::PrepareApprovalResponse::default()
        });
        let fetched =
            self.switch.serve(async |operator| approve::fetch(&operator, &self.home, id(1)).await.map(drop));
        fetched.await.map_err(|failure| failure.to_string())
    }

    /// Stops an instruction; the Switch prepares this stop.
    async fn stop_by(&self, stop: &Order) -> Result<(), String> {
        *self.switch.stop.lock().unwrap() = Some(api::PrepareStopResponse {
            order: order::encode(stop),
            ..api::PrepareStopResponse::default()
        });
        let key =
            OrderKey { order_key: None, order_cert: None, key_password_file: None, pkcs11_module: None };
        let stopped = self.switch.serve(async |operator| {
            stop::stop(&operator, &self.home, id(2), "wrong fleet", &key).await.map(drop)
        });
        stopped.await.map_err(|failure| failure.to_string())
    }

    fn file(&self) -> PathBuf {
        self.home.path("seen/test.toml")
    }
}

fn id(last: u8) -> InstructionId {
    InstructionId::from([1, 2, 3, 4, 5, 6, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, last])
}

/// What a licence says.
fn document(licence: &[u8]) -> Licence {
    let content = envelope::inspect(licence).unwrap().content;
    Licence::parse(&String::from_utf8(content).unwrap()).unwrap()
}

fn sign(licence: &[u8], signer: &Signer) -> Vec<u8> {
    envelope::sign(licence, ContentType::Licence, signer, UnixTime::now()).unwrap()
}

#[track_caller]
fn refused(said: Result<(), String>, words: &[&str]) {
    let said = said.expect_err("it must be refused");
    assert!(said.contains("nothing was signed"), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?}: {said}");
    }
}

#[tokio::test]
async fn attack_replay_to_another_tenant_no_order_for_another_organisation_than_before_is_signed() {
    let world = World::new();
    assert_eq!(world.issue(&world.order()).await, Ok(()), "the first one tells the organisation");

    // The same licensor has other customers, and the Switch has their licences.
    world.hold_licence(&world.licence("other", 1));
    let lie = Order { tenant: "other".to_owned(), ..world.order() };
    refused(world.issue(&lie).await, &["\"other\"", "\"acme\"", "context test"]);
    refused(world.approve(&lie).await, &["\"other\"", "\"acme\""]);
    let lie = Order { tenant: "other".to_owned(), ..world.stop() };
    refused(world.stop_by(&lie).await, &["\"other\"", "\"acme\""]);
    assert!(world.switch.stops.lock().unwrap().is_empty());

    world.hold_licence(&world.licence(TENANT, 1));
    for honest in [world.issue(&world.order()).await, world.approve(&world.order()).await] {
        assert_eq!(honest, Ok(()));
    }
    assert_eq!(world.stop_by(&world.stop()).await, Ok(()));
    assert_eq!(world.switch.stops.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_first_order_is_for_the_organisation_that_the_licence_or_the_home_tells() {
    let world = World::new();
    let lie = Order { tenant: "other".to_owned(), ..world.order() };
    refused(world.issue(&lie).await, &["\"other\"", "licence for \"acme\""]);

    world.hold_licence(&world.licence("other", 1));
    std::fs::write(world.home.path("pki/tenant"), "acme\n").unwrap();
    refused(world.issue(&lie).await, &["\"other\"", "\"acme\""]);
    assert!(!world.file().exists(), "a lie is not remembered");

    // A stop has nothing behind it but the Switch's word: it tells nothing for later.
    std::fs::remove_file(world.home.path("pki/tenant")).unwrap();
    let stop = Order { tenant: "other".to_owned(), ..world.stop() };
    assert_eq!(world.stop_by(&stop).await, Ok(()));
    world.hold_licence(&world.licence(TENANT, 1));
    assert_eq!(world.issue(&world.order()).await, Ok(()));
}

#[tokio::test]
async fn attack_mix_and_match_no_order_under_an_older_or_another_licence_is_signed() {
    let world = World::new();
    for serial in [2, u64::MAX] {
        let lie = Order { licence_serial: serial, ..world.order() };
        refused(world.issue(&lie).await, &[&format!("under licence {serial}"), "serial 1"]);
    }
    world.hold_licence(&world.licence(TENANT, 2));
    refused(world.issue(&world.order()).await, &["under licence 1", "serial 2"]);
    assert_eq!(world.approve(&world.order()).await, Ok(()), "it waited while the licence came");
    let newer = Order { licence_serial: 2, ..world.order() };
    assert_eq!(world.issue(&newer).await, Ok(()));

    // It goes back, as a whole.
    world.hold_licence(&world.licence(TENANT, 1));
    refused(world.issue(&world.order()).await, &["holds licence 1", "has seen licence 2"]);
    refused(world.approve(&world.order()).await, &["holds licence 1", "has seen licence 2"]);
    assert_eq!(world.stop_by(&world.stop()).await, Ok(()), "a stop needs no licence");

    // The one in the home was seen, too.
    std::fs::write(world.home.path("licence.cms"), world.licence(TENANT, 3)).unwrap();
    world.hold_licence(&world.licence(TENANT, 2));
    refused(world.issue(&newer).await, &["holds licence 2", "has seen licence 3"]);
    world.hold_licence(&world.licence(TENANT, 3));
    assert_eq!(world.issue(&Order { licence_serial: 3, ..world.order() }).await, Ok(()));
}

#[tokio::test]
async fn what_no_licence_of_the_licensor_admits_is_not_signed() {
    let world = World::new();
    let unbound = NewLicence {
        prefixes: vec![("Acme".to_owned(), std::fs::read(world.home.path("publisher/cert.pem")).unwrap())],
        ..world.terms()
    };
    let distrusting = NewLicence {
        distrusted: [(world.signer("publisher").certificate().unwrap().thumbprint(), UnixTime::now())].into(),
        ..world.terms()
    };
    for (terms, words) in [(unbound, "prefix Muster is not in licence 1"), (distrusting, "distrusts signer")]
    {
        world.hold_licence(&world.licence_of(terms));
        refused(world.issue(&world.order()).await, &[words]);
        refused(world.approve(&world.order()).await, &[words]);
    }

    let forged = document(&world.licence(TENANT, 1)).to_text().unwrap();
    world.hold_licence(&sign(forged.as_bytes(), &world.signer("publisher")));
    let forged = world.issue(&world.order()).await.unwrap_err();
    assert!(forged.contains("the licence's signature"), "{forged}");
    let ago = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() - seconds));
    let honest = document(&world.licence(TENANT, 1));
    let (not_before, not_after) = (ago(7_200), ago(3_600));
    let ended = Terms { not_before, not_after, refresh_by: None, ..honest.terms().clone() };
    let ended = Licence::new(ended).unwrap().to_text().unwrap();
    world.hold_licence(&sign(ended.as_bytes(), &world.signer("licensor")));
    refused(world.issue(&world.order()).await, &["licence 1, which is not valid now"]);
    world.hold_licence(b"");
    refused(world.issue(&world.order()).await, &["holds no licence"]);
    std::fs::remove_file(world.home.roots("licences")).unwrap();
    let unverified = world.issue(&world.order()).await.unwrap_err();
    assert!(unverified.contains("trust/licences.pem is not there"), "{unverified}");
}

#[tokio::test]
async fn attack_freeze_no_number_that_leaves_no_room_for_later_orders_is_signed() {
    let world = World::new();
    for sequence in [1 << 63, u64::MAX] {
        let words = [&*format!("number {sequence}"), "wanted at most", "since 0"];
        refused(world.issue(&Order { sequence, ..world.order() }).await, &words);
        refused(world.approve(&Order { sequence, ..world.order() }).await, &words);
        refused(world.stop_by(&Order { sequence, ..world.stop() }).await, &words);
    }
    assert_eq!(world.issue(&Order { sequence: 70_000, ..world.order() }).await, Ok(()));
    let ahead = Order { sequence: 70_000 + 1_000_000_000, ..world.order() };
    refused(world.issue(&ahead).await, &["since 70000"]);
    // It was brought back from a copy.
    assert_eq!(world.issue(&Order { sequence: 3, ..world.order() }).await, Ok(()));
    refused(world.issue(&ahead).await, &["since 70000"]);
}

#[test]
fn a_number_may_grow_by_one_a_millisecond_and_some_and_another_switch_counts_anew() {
    let of = |switch: &str| Context { switch: switch.to_owned(), ..context() };
    let (own, other) = (of("a:1"), of("b:1"));
    let known = |context, now_ms| Known { context, own_licence: None, own_tenant: None, now_ms };
    let order = |sequence| Order { sequence, ..Order::default() };
    let seen = Seen { switch: "a:1".to_owned(), sequence: 500, sequence_at_ms: 1_000_000, ..Seen::default() };

    for (now_ms, most) in [(1_000_000, 10_500), (1_000_007, 10_507), (900_000, 10_500)] {
        let last = seen.with_sequence(&order(most), &known(&own, now_ms)).unwrap();
        assert_eq!((last.sequence, last.sequence_at_ms), (most, now_ms));
        assert!(seen.with_sequence(&order(most + 1), &known(&own, now_ms)).is_err(), "{now_ms}");
    }
    assert_eq!(seen.with_sequence(&order(500), &known(&own, 2_000_000)).unwrap(), seen);
    let another = seen.with_sequence(&order(1_800_000_000_000), &known(&other, 1_800_000_000_000)).unwrap();
    assert_eq!((another.switch.as_str(), another.sequence), ("b:1", 1_800_000_000_000));
}

#[tokio::test]
async fn what_cannot_be_remembered_or_read_lets_nothing_be_signed_and_removing_a_context_begins_anew() {
    let world = World::new();
    assert_eq!(world.issue(&world.order()).await, Ok(()));
    let context = context();
    assert_eq!(tenant(&world.home, &context), TENANT);
    let typed = Context { tenant: "typed".to_owned(), ..context.clone() };
    assert_eq!(tenant(&world.home, &typed), "typed");

    std::fs::write(world.file(), "tenant = 5\n").unwrap();
    refused(world.issue(&world.order()).await, &["seen/test.toml"]);
    forget(&world.home, "test").unwrap();
    forget(&world.home, "test").unwrap();
    assert_eq!(tenant(&world.home, &context), "");
    assert_eq!(world.issue(&world.order()).await, Ok(()));

    std::fs::remove_dir_all(world.home.path("seen")).unwrap();
    std::fs::write(world.home.path("seen"), "in the way").unwrap();
    refused(world.issue(&world.order()).await, &["seen/.lock"]);
}

#[tokio::test]
async fn a_context_that_names_its_organisation_takes_no_other_from_the_first_order_on() {
    let world = World::new();
    let context = Context { tenant: TENANT.to_owned(), ..context() };
    world.hold_licence(&world.licence("other", 1));
    let licence = document(&world.licence("other", 1));
    let known = Known { context: &context, own_licence: None, own_tenant: Some("other"), now_ms: now_ms() };
    let of = |tenant: &str| Order { tenant: tenant.to_owned(), ..world.order() };

    let other = Seen::default().with_order(&of("other"), &licence, &known);
    refused(other.map(drop).map_err(|failure| failure.to_string()), &["\"other\"", "for \"acme\""]);
    assert!(Seen::default().with_order(&of(TENANT), &licence, &known).is_ok());
}

#[tokio::test]
async fn attack_rollback_no_switch_chooses_a_version_below_one_that_was_seen_and_so_takes_approvals_away() {
    let mut world = World::new();
    world.definition = world.version("2.0.0", 2);
    assert_eq!(world.issue(&world.order()).await, Ok(()));
    assert_eq!(world.highest().as_deref(), Some("2.0.0"));

    world.definition = world.version("1.9.0", 0);
    let words = ["Muster-Os-Version 1.9.0", "wanted 2.0.0 or later", "no version was typed"];
    refused(world.issue(&world.order()).await, &words);
    assert_eq!(world.highest().as_deref(), Some("2.0.0"));
    // Who signed it first has chosen it, and what is approved is shown with its version.
    assert_eq!(world.approve(&world.order()).await, Ok(()));
    assert_eq!(world.issue_typed(&world.order(), "1.9.0").await, Ok(()), "it is the operator's will");
    refused(world.issue(&world.order()).await, &words);

    for (version, highest) in [("2.0.0", "2.0.0"), ("2.0.1", "2.0.1")] {
        world.definition = world.version(version, 2);
        assert_eq!(world.issue(&world.order()).await, Ok(()));
        assert_eq!(world.highest().as_deref(), Some(highest));
    }
    world.definition = world.version("3.0.0", 0);
    assert_eq!(world.approve(&world.order()).await, Ok(()));
    assert_eq!(world.highest().as_deref(), Some("3.0.0"), "what was approved was seen, too");
}

#[tokio::test]
async fn a_version_that_was_imported_or_shown_counts_as_far_as_the_licence_of_the_organisation_admits_it() {
    let world = World::new();
    let (older, newer) = (world.version("1.0.1", 0), world.version("2.0.0", 2));

    // Whoever may use the prefix has to have signed it.
    let unbound = NewLicence {
        prefixes: vec![("Acme".to_owned(), std::fs::read(world.home.path("publisher/cert.pem")).unwrap())],
        ..world.terms()
    };
    for told in [world.licence_of(unbound), Vec::new()] {
        world.hold_licence(&told);
        let told = world.learn(&[&newer]).await.unwrap();
        assert!(told.contains("does not remember Muster-Os-Version 2.0.0"), "{told}");
        assert!(!world.file().exists());
    }
    world.hold_licence(&world.licence(TENANT, 2));
    assert_eq!(world.learn(&[&newer, &older]).await, None);
    assert_eq!(world.highest().as_deref(), Some("2.0.0"));
    world.learn(&[&older]).await;
    assert_eq!(world.highest().as_deref(), Some("2.0.0"));
    assert_eq!(tenant(&world.home, &context()), "", "a definition tells no organisation");

    // An older licence may admit whom the newer one does not.
    let world = World { definition: older, ..world };
    world.hold_licence(&world.licence(TENANT, 2));
    refused(
        world.issue(&Order { licence_serial: 2, ..world.order() }).await,
        &["Muster-Os-Version 1.0.1", "wanted 2.0.0"],
    );
    let order = Order { licence_serial: 2, ..world.order() };
    assert_eq!(world.issue_typed(&order, "1.0.1").await, Ok(()));
    for others in [world.licence(TENANT, 1), world.licence("other", 2)] {
        world.hold_licence(&others);
        world.learn(&[&world.version("9.0.0", 0)]).await;
        assert_eq!(world.highest().as_deref(), Some("2.0.0"));
    }
}

#[tokio::test]
async fn a_switch_that_gives_no_licence_or_an_older_one_has_no_version_forgotten_that_the_homes_own_admits() {
    let newer = |world: &World| world.version("2.0.0", 2);
    let older = |world: &World| {
        let nobodys = ("Acme".to_owned(), std::fs::read(world.home.path("publisher/cert.pem")).unwrap());
        world.licence_of(NewLicence { serial: 1, prefixes: vec![nobodys], ..world.terms() })
    };
    let told: [fn(&World) -> Vec<u8>; 3] = [older, |_| Vec::new(), |_| b"nothing".to_vec()];
    for told in told {
        let world = World::new();
        std::fs::write(world.home.path("licence.cms"), world.licence(TENANT, 2)).unwrap();
        world.hold_licence(&told(&world));

        assert_eq!(world.learn(&[&newer(&world)]).await, None);

        assert_eq!(world.highest().as_deref(), Some("2.0.0"));
    }
}

#[test]
fn the_versions_that_are_remembered_have_a_bound_which_forgets_none() {
    let world = World::new();
    let definition = issue::verified_definition(&world.home, &world.definition).unwrap().definition;
    let one = |number| (format!("Acme-Thing-{number}"), Version::new(1, 0, 0));
    let mut full = Seen { versions: (1..VERSIONS_MAX).map(one).collect(), ..Seen::default() };
    let last = full.clone().with_issued(&definition, Age::New(Chosen::BySwitch)).unwrap();
    assert_eq!(last.versions.len(), VERSIONS_MAX);
    assert_eq!(last.clone().with_issued(&definition, Age::New(Chosen::BySwitch)).unwrap(), last);

    full.versions.extend([one(0)]);
    let licence = document(&world.licence(TENANT, 1));
    let context = context();
    let known = Known { context: &context, own_licence: None, own_tenant: None, now_ms: now_ms() };
    assert_eq!(full.with_definitions(&[&definition], &licence, &known), full);
    for age in [Age::New(Chosen::BySwitch), Age::New(Chosen::Typed), Age::Waiting] {
        let said =
            full.clone().with_issued(&definition, age).map(drop).map_err(|failure| failure.to_string());
        refused(said, &["4096 definitions", "Muster-Os-Version is another one"]);
    }
}
