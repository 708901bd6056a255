mod edges;

use muster_proto::common::v1::value::Kind as Wire;
use muster_proto::order::v1::Audience;

use super::*;
use crate::envelope::Signer;
use crate::fixture::{NOW, Pki, at};
use crate::licence::Terms;
use crate::merkle::Tree;

const DEFINITION: &str = r#"
name = "Acme-Test-Days"
version = "1.2.0"
kind = "question"
says = "%days%?"
platforms = ["linux"]
minimum_client_version = "0.1.0"

[[parameter]]
name = "days"
type = "integer"
min = 1
max = 9
default = 3

[[step]]
query = "SELECT :days AS days"

[[result]]
name = "days"
type = "integer"

[time_to_live]
gather = { default = "5m", max = "1h" }
"#;

/// One way in which an order differs from one that is run.
type Change = fn(&mut Case);

#[test]
fn admits_an_order_for_which_everything_holds() {
    let admitted = Case::new().judge().unwrap();

    assert_eq!(admitted.definition.name().as_str(), "Acme-Test-Days");
    assert_eq!(admitted.arguments[0].value.as_ref().unwrap().kind, Some(Wire::Integer(3)));
    assert_eq!(admitted.licence.serial(), 5);
}

#[test]
fn what_no_order_names_is_not_judged_by_the_roots_of_another_role() {
    let pki = Pki::flat("licences");
    let (signer, roots) = (pki.signer("licensor", Role::Licensor), pki.roots());
    let trust =
        Trust { authors: &roots, orders: &roots, licences: &roots, timestamps: None, revocation: None };
    for content_type in ContentType::ALL {
        let envelope = envelope::sign(b"content", content_type, &signer, at(NOW)).unwrap();

        let judged = verified(&envelope, content_type, &trust, at(NOW));

        let is_named =
            [ContentType::Definition, ContentType::Order, ContentType::Licence].contains(&content_type);
        assert_eq!(judged.is_ok(), is_named, "{content_type:?}");
    }
}

#[test]
fn each_check_that_fails_has_its_own_code() {
    let cases: [(&str, Change, Refusal); 26] = [
        ("another tenant's device", |case| case.tenant = "other", Refusal::WrongTenant),
        ("an order of another tenant", |case| case.order.tenant = "other".to_owned(), Refusal::WrongTenant),
        ("a clock that was set back", |case| case.time_floor = NOW + 301, Refusal::Clock),
        ("an order of tomorrow", |case| case.move_window(60), Refusal::NotYetValid),
        ("an order of yesterday", |case| case.move_window(-600), Refusal::Expired),
        ("an order at its end", |case| case.order.expires_at_ms = NOW_MS, Refusal::Expired),
        (
            "a window that the author did not allow",
            |case| case.order.expires_at_ms += 7_200_000,
            Refusal::BadArgument,
        ),
        ("another definition", |case| case.order.definition_digest = vec![0; 32], Refusal::WrongDefinition),
        (
            "a label of another version",
            |case| case.order.definition_version = "1.3.0".to_owned(),
            Refusal::WrongDefinition,
        ),
        (
            "a label of another name",
            |case| case.order.definition_name = "Acme-Test-All".to_owned(),
            Refusal::WrongDefinition,
        ),
        ("a licence older than the order", |case| case.order.licence_serial = 6, Refusal::LicenceStale),
        ("a licence that lapsed", |case| case.terms.not_after = at(NOW - 1), Refusal::LicenceStale),
        ("a licence of another tenant", |case| case.terms.tenant = "other".to_owned(), Refusal::Unlicensed),
        ("a prefix that is not licensed", |case| case.terms.prefixes.clear(), Refusal::Unlicensed),
        ("a prefix that is someone else's", Case::license_someone_else, Refusal::Unlicensed),
        ("a licence that asks for a newer version", Case::ask_for_newer, Refusal::RolledBack),
        ("an author that the licence distrusts", Case::distrust_author, Refusal::UntrustedSigner),
        ("a version older than one that was seen", |case| case.highest = Some("1.2.1"), Refusal::RolledBack),
        (
            "an expression that is not true",
            |case| case.audience().expression = "os == 'windows'".to_owned(),
            Refusal::WrongAudience,
        ),
        ("a device without proof", |case| case.proof = None, Refusal::WrongAudience),
        ("another device's proof", |case| case.device = "pc-2", Refusal::WrongAudience),
        ("a device that was not asked", |case| case.device = "pc-9", Refusal::WrongAudience),
        ("a count that was changed", |case| case.audience().members_count = 2, Refusal::WrongAudience),
        ("another platform", |case| case.platform = "macos-aarch64", Refusal::Unsupported),
        ("a client that is too old", |case| case.client = "0.0.9", Refusal::Unsupported),
        ("an argument out of its range", |case| case.order.arguments = vec![days(10)], Refusal::BadArgument),
    ];
    for (name, change, wanted) in cases {
        let mut case = Case::new();
        change(&mut case);

        let refusal = case.judge().expect_err(name);

        assert_eq!(refusal.refusal, wanted, "{name}: {refusal}");
    }
}

#[test]
fn a_version_counts_as_seen_once_its_author_its_licence_and_its_order_hold_and_not_before() {
    let cases: [(&str, Change, bool); 11] = [
        ("an order for others", |case| case.device = "pc-9", true),
        ("an order without its approvals", |case| case.people = 0, true),
        ("another platform", |case| case.platform = "macos-aarch64", true),
        ("an argument out of its range", |case| case.order.arguments = vec![days(10)], true),
        ("an older version", |case| case.highest = Some("1.2.1"), false),
        ("an order of another tenant", |case| case.order.tenant = "other".to_owned(), false),
        ("an order of yesterday", |case| case.move_window(-600), false),
        ("another definition", |case| case.order.definition_digest = vec![0; 32], false),
        ("a prefix that is someone else's", Case::license_someone_else, false),
        ("an author that the licence distrusts", Case::distrust_author, false),
        ("an author of other roots", |case| case.authors = Pki::flat("authors"), false),
    ];
    for (name, change, is_seen) in cases {
        let mut case = Case::new();
        case.replace_definition(&DEFINITION.replace("platforms", "approvals = 1\nplatforms"));
        case.people = 2;
        change(&mut case);

        let refusal = case.judge().expect_err(name);

        let seen = refusal.seen.as_ref().map(|seen| (seen.name.as_str(), seen.version.to_string()));
        let wanted = is_seen.then(|| ("Acme-Test-Days", "1.2.0".to_owned()));
        assert_eq!(seen, wanted, "{name}: {refusal}");
    }
}

#[test]
fn what_is_at_the_edge_is_admitted() {
    let cases: [(&str, Change); 12] = [
        ("a clock five minutes back", |case| case.time_floor = NOW + 300),
        ("a window of the least time of its definition", |case| {
            case.order.not_before_ms = NOW_MS - 1_000;
            case.order.expires_at_ms = NOW_MS + 59_000;
        }),
        ("a window of ten minutes more than its definition's", |case| {
            case.order.expires_at_ms = case.order.not_before_ms + 4_200_000;
        }),
        ("a licence later than the order's", |case| case.order.licence_serial = 4),
        ("a version after the one that was seen", |case| case.highest = Some("1.1.9")),
        ("a question for everybody", |case| {
            *case.audience() = Audience::default();
            case.proof = None;
        }),
        ("an order at its beginning", |case| case.order.not_before_ms = NOW_MS),
        ("the version that was seen", |case| case.highest = Some("1.2.0")),
        ("an argument at the end of its range", |case| case.order.arguments = vec![days(9)]),
        ("what only the Switch knows, under a root", |case| {
            case.audience().expression = "tag.site == 'hq'".to_owned()
        }),
        ("an expression alone, for a question", |case| {
            *case.audience() = Audience { expression: "os == 'linux'".to_owned(), ..Audience::default() };
            case.proof = None;
        }),
        ("the oldest client", |case| case.client = "0.1.0"),
    ];
    for (name, change) in cases {
        let mut case = Case::new();
        change(&mut case);

        case.judge().unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
    }
}

#[test]
fn an_order_runs_only_with_the_approvals_that_its_author_asks_for() {
    let mut case = Case::new();
    case.replace_definition(&DEFINITION.replace("platforms", "approvals = 2\nplatforms"));
    for (people, admitted) in [(0, false), (1, false), (2, false), (3, true), (4, true)] {
        case.people = people;

        let verdict = case.judge();

        assert_eq!(verdict.is_ok(), admitted, "{people}: {verdict:?}");
        assert!(admitted || verdict.is_err_and(|refused| refused.refusal == Refusal::Unapproved), "{people}");
    }
}

#[test]
fn a_definition_is_opened_once_and_its_signer_judged_each_time() {
    let mut case = Case::new();
    case.judge().unwrap();
    case.judge().unwrap();
    assert_eq!(case.documents.definitions(), 1);

    // What is remembered is no licence, and no trust.
    case.terms.serial = 6;
    case.distrust_author();
    assert_eq!(case.judge().unwrap_err().refusal, Refusal::UntrustedSigner);
    let case = Case { authors: Pki::deep("authors"), ..case };
    assert_eq!(case.judge().unwrap_err().refusal, Refusal::UntrustedSigner);
    // Bytes that do not verify are not remembered, whatever came before.
    let mut case = Case::new();
    case.definition[400] ^= 1;
    case.order.definition_digest = envelope::digest(&case.definition).to_vec();
    for _ in 0..2 {
        assert_eq!(case.judge().unwrap_err().refusal, Refusal::BadSignature);
    }
    assert_eq!(case.documents.definitions(), 0);
}

#[test]
fn what_is_remembered_of_documents_is_bounded_by_bytes() {
    let mut case = Case::new();
    let padding = format!("# {}\n", "x".repeat(100 * 1024));
    for number in 0..15 {
        case.replace_definition(&format!("{padding}# {number}\n{DEFINITION}"));
        case.judge().unwrap();
    }
    assert_eq!(case.documents.definitions(), 10, "1 MiB of them");
}

#[test]
fn a_stop_needs_an_operator_of_this_tenant_and_the_time_and_nothing_else() {
    let case = Case::new();
    let stop = stop_of(&case.order);
    let stopped = InstructionId::try_from(&case.order.instruction[..]).unwrap();
    let judge = |stop: &Order, floor| super::stop(stop, "acme", at(floor), at(NOW));
    assert_eq!(judge(&stop, NOW), Ok(stopped));

    type Flaw = (&'static str, fn(&mut Order), Refusal);
    let cases: [Flaw; 4] = [
        ("a stop of another tenant", |stop| stop.tenant = "other".to_owned(), Refusal::WrongTenant),
        ("a stop of tomorrow", |stop| stop.not_before_ms = NOW_MS + 1, Refusal::NotYetValid),
        ("a stop of yesterday", |stop| stop.expires_at_ms = NOW_MS, Refusal::Expired),
        ("an order that stops nothing", |stop| stop.stops.clear(), Refusal::Unsupported),
    ];
    for (name, change, wanted) in cases {
        let mut changed = stop.clone();
        change(&mut changed);
        assert_eq!(judge(&changed, NOW).unwrap_err().refusal, wanted, "{name}");
    }
    assert_eq!(judge(&stop, NOW + 301).unwrap_err().refusal, Refusal::Clock);
    let run = case.judge_with(&stop, &case.definition, &case.licence()).unwrap_err();
    assert_eq!(run.refusal, Refusal::Unsupported, "nothing of a stop is ever run: {run}");
}

#[test]
fn a_stop_that_no_operator_signed_is_not_believed() {
    let case = Case::new();
    let content = order_content::encode(&stop_of(&case.order));
    let (roots, operator) = (case.roots(), case.orders.signer("ann", Role::OrderSigner));
    let stranger = Pki::flat("orders").signer("ann", Role::OrderSigner);
    let open = |signer: &Signer| {
        let envelope = sign(&content, ContentType::Order, signer);
        order(&envelope, &case.trust(&roots), at(NOW)).map(|order| order_content::stops(&order).is_some())
    };

    assert_eq!(open(&operator), Ok(true));
    assert_eq!(open(&stranger).unwrap_err().refusal, Refusal::UntrustedSigner);
    assert!(open(&case.author).is_err(), "an author stops nothing");
}

fn stop_of(order: &Order) -> Order {
    let mut instruction = order.instruction.clone();
    instruction[15] ^= 1;
    Order {
        tenant: order.tenant.clone(),
        instruction,
        licence_serial: 9,
        audience: Some(Audience::default()),
        not_before_ms: order.not_before_ms,
        expires_at_ms: order.expires_at_ms,
        sequence: 2,
        operator: order.operator.clone(),
        stops: order.instruction.clone(),
        ..Order::default()
    }
}

#[test]
fn an_action_needs_a_members_root() {
    let mut case = Case::new();
    case.replace_definition(&DEFINITION.replace("\"question\"", "\"action\""));
    case.judge().unwrap();

    *case.audience() = Audience::default();

    assert_eq!(case.judge().unwrap_err().refusal, Refusal::WrongAudience);
}

#[test]
fn c1_a_device_without_a_certificate_runs_no_action_and_nothing_that_does_not_ask_for_such_devices() {
    let device = "00112233445566778899aabbccddeeff.key.invalid";
    let members: Vec<DeviceId> = [device, "pc-1"].map(|name| name.parse().unwrap()).into();
    let tree = Tree::new(&members);
    let case = |expression: &str, kind: &str| {
        let mut case = Case::new();
        case.device = device;
        case.replace_definition(&DEFINITION.replace("\"question\"", kind));
        case.proof = tree.proof(0);
        *case.audience() = Audience {
            expression: expression.to_owned(),
            members_root: tree.root().to_vec(),
            members_count: 2,
        };
        case
    };
    let (question, action) = ("\"question\"", "\"action\"");

    case("authenticated == false", question).judge().unwrap();
    case("has(authenticated) && os == 'linux'", question).judge().unwrap();
    for (expression, kind) in [
        ("", question),
        ("os == 'linux'", question),
        ("true", question),
        ("authenticated == false", action),
        ("", action),
    ] {
        let refusal = case(expression, kind).judge().unwrap_err();
        assert_eq!(refusal.refusal, Refusal::Unauthenticated, "{expression}: {refusal}");
    }
    let mut script = case("authenticated == false", question);
    let query = "query = \"SELECT :days AS days\"";
    let text = "script = { interpreter = \"/bin/sh\", text = \"exit 0\" }";
    script.replace_definition(&DEFINITION.replace(query, text));
    let refusal = script.judge().unwrap_err();
    assert!(refusal.detail.contains("runs nothing but SQL"), "{refusal}");
    assert_eq!(refusal.refusal, Refusal::Unauthenticated);
    let mut without_root = case("", question);
    *without_root.audience() = Audience::default();
    assert_eq!(without_root.judge().unwrap_err().refusal, Refusal::Unauthenticated);
    let mut certified = case("authenticated == false", question);
    (certified.device, certified.proof) = ("pc-1", tree.proof(1));
    assert_eq!(certified.judge().unwrap_err().refusal, Refusal::WrongAudience);
}

#[test]
fn documents_signed_by_the_wrong_role_or_changed_are_refused() {
    let case = Case::new();
    let eve = case.orders.signer("eve", Role::OrderSigner);
    let by_order_signer = sign(DEFINITION.as_bytes(), ContentType::Definition, &eve);
    let mut order = case.order.clone();
    order.definition_digest = envelope::digest(&by_order_signer).to_vec();
    let licence_by_author = sign(case.licence_text().as_bytes(), ContentType::Licence, &case.author);
    let mut changed = case.licence();
    changed[300] ^= 1;

    let untrusted = case.judge_with(&order, &by_order_signer, &case.licence());
    let own_licence = case.judge_with(&case.order, &case.definition, &licence_by_author);
    let tampered = case.judge_with(&case.order, &case.definition, &changed);

    assert_eq!(untrusted.unwrap_err().refusal, Refusal::UntrustedSigner);
    assert_eq!(own_licence.unwrap_err().refusal, Refusal::UntrustedSigner);
    assert_eq!(tampered.unwrap_err().refusal, Refusal::BadSignature);
}

#[test]
fn opens_an_order_and_refuses_one_that_is_not_an_operators() {
    let case = Case::new();
    let bytes = order_content::encode(&case.order);
    let ann = case.orders.signer("ann", Role::OrderSigner);
    let open = |envelope: &[u8]| order(envelope, &case.trust(&case.roots()), at(NOW));

    assert_eq!(open(&sign(&bytes, ContentType::Order, &ann)), Ok(case.order.clone()));
    let by_author = open(&sign(&bytes, ContentType::Order, &case.author)).unwrap_err();
    let as_definition = open(&sign(&bytes, ContentType::Definition, &ann)).unwrap_err();
    let nonsense = open(&sign(b"no order", ContentType::Order, &ann)).unwrap_err();
    let too_large = open(&vec![0; envelope::ENVELOPE_BYTES_MAX + 1]).unwrap_err();

    assert_eq!(by_author.refusal, Refusal::UntrustedSigner);
    assert_eq!(as_definition.refusal, Refusal::BadSignature);
    assert_eq!(nonsense.refusal, Refusal::BadSignature);
    assert_eq!(too_large.refusal, Refusal::TooLarge);
}

const NOW_MS: i64 = 1_800_000_000_000;

/// An order with all that belongs to it; its licence is signed when it is judged.
struct Case {
    authors: Pki,
    orders: Pki,
    licences: Pki,
    author: Signer,
    definition: Vec<u8>,
    terms: Terms,
    order: Order,
    proof: Option<InclusionProof>,
    tenant: &'static str,
    device: &'static str,
    platform: &'static str,
    client: &'static str,
    highest: Option<&'static str>,
    time_floor: u64,
    people: usize,
    documents: Documents,
}

impl Case {
    fn new() -> Self {
        let authors = Pki::deep("authors");
        let author = authors.signer("author", Role::Author);
        let definition = sign(DEFINITION.as_bytes(), ContentType::Definition, &author);
        let members: Vec<DeviceId> = ["pc-1", "pc-2", "pc-3"].map(|name| name.parse().unwrap()).into();
        let tree = Tree::new(&members);
        let thumbprint = author.certificate().unwrap().thumbprint();
        let mut instruction = vec![1; 16];
        instruction[6] = 0x70;
        instruction[8] = 0x80;
        Self {
            orders: Pki::flat("orders"),
            licences: Pki::flat("licences"),
            terms: Terms {
                serial: 5,
                licensee: "Acme Ltd".to_owned(),
                tenant: "acme".to_owned(),
                not_before: at(NOW - 86_400),
                not_after: at(NOW + 86_400),
                refresh_by: None,
                features: Default::default(),
                prefixes: [("Acme".to_owned(), [thumbprint].into())].into(),
                minimum_versions: Default::default(),
                distrusted: Default::default(),
            },
            order: Order {
                tenant: "acme".to_owned(),
                instruction,
                definition_name: "Acme-Test-Days".to_owned(),
                definition_version: "1.2.0".to_owned(),
                definition_digest: envelope::digest(&definition).to_vec(),
                licence_serial: 5,
                arguments: Vec::new(),
                audience: Some(Audience {
                    expression: "os == 'linux'".to_owned(),
                    members_root: tree.root().to_vec(),
                    members_count: 3,
                }),
                not_before_ms: NOW_MS - 60_000,
                expires_at_ms: NOW_MS + 240_000,
                sequence: 1,
                operator: "ann".to_owned(),
                ..Order::default()
            },
            proof: tree.proof(0),
            authors,
            author,
            definition,
            tenant: "acme",
            device: "pc-1",
            platform: "linux-x86_64",
            client: "0.1.0",
            highest: None,
            time_floor: NOW,
            people: 1,
            documents: Documents::default(),
        }
    }

    fn audience(&mut self) -> &mut Audience {
        self.order.audience.as_mut().unwrap()
    }

    fn move_window(&mut self, minutes: i64) {
        self.order.not_before_ms += minutes * 60_000;
        self.order.expires_at_ms += minutes * 60_000;
    }

    fn license_someone_else(&mut self) {
        let other = self.orders.root().thumbprint();
        self.terms.prefixes = [("Acme".to_owned(), [other].into())].into();
    }

    fn ask_for_newer(&mut self) {
        self.terms.minimum_versions = [("Acme-Test-Days".parse().unwrap(), "1.3.0".parse().unwrap())].into();
    }

    fn distrust_author(&mut self) {
        self.terms.distrusted = [(self.author.certificate().unwrap().thumbprint(), at(NOW - 1))].into();
    }

    fn replace_definition(&mut self, text: &str) {
        self.definition = sign(text.as_bytes(), ContentType::Definition, &self.author);
        self.order.definition_digest = envelope::digest(&self.definition).to_vec();
    }

    fn licence_text(&self) -> String {
        Licence::new(self.terms.clone()).unwrap().to_text().unwrap()
    }

    fn licence(&self) -> Vec<u8> {
        let licensor = self.licences.signer("licensor", Role::Licensor);
        sign(self.licence_text().as_bytes(), ContentType::Licence, &licensor)
    }

    fn roots(&self) -> [Roots; 3] {
        [self.authors.roots(), self.orders.roots(), self.licences.roots()]
    }

    fn trust<'a>(&self, roots: &'a [Roots; 3]) -> Trust<'a> {
        Trust {
            authors: &roots[0],
            orders: &roots[1],
            licences: &roots[2],
            timestamps: None,
            revocation: None,
        }
    }

    fn judge(&self) -> Result<Admitted, RefusalReason> {
        self.judge_with(&self.order, &self.definition, &self.licence())
    }

    fn judge_with(
        &self,
        order: &Order,
        definition: &[u8],
        licence: &[u8],
    ) -> Result<Admitted, RefusalReason> {
        let roots = self.roots();
        self.judge_trusting(order, definition, licence, &self.trust(&roots))
    }

    fn judge_trusting(
        &self,
        order: &Order,
        definition: &[u8],
        licence: &[u8],
        trust: &Trust<'_>,
    ) -> Result<Admitted, RefusalReason> {
        let text = |text: &str| Value { kind: Some(Wire::Text(text.to_owned())) };
        let id: DeviceId = self.device.parse().unwrap();
        let standing = Value { kind: Some(Wire::Integer((!id.is_of_key()).into())) };
        let device = Device {
            id: &id,
            tenant: self.tenant,
            attributes: &[("os".to_owned(), text("linux")), (AUTHENTICATED.to_owned(), standing)].into(),
            client_version: &self.client.parse().unwrap(),
            platform: self.platform,
        };
        let highest = self.highest.map(|version| version.parse().unwrap());
        let memory = Memory { highest_version: highest.as_ref(), time_floor: at(self.time_floor) };
        let (people, proof, documents) = (self.people, self.proof.as_ref(), &self.documents);
        admit(order, people, definition, licence, proof, trust, &device, &memory, documents, at(NOW))
    }
}

fn sign(content: &[u8], content_type: ContentType, signer: &Signer) -> Vec<u8> {
    envelope::sign(content, content_type, signer, at(NOW)).unwrap()
}

fn days(days: i64) -> NamedValue {
    NamedValue { name: "days".to_owned(), value: Some(Value { kind: Some(Wire::Integer(days)) }) }
}
