//! What a fresh home needs to issue its first instruction: CA, operator, publisher, licensor, licence, definitions.

use muster_pki::{Role, UnixTime};
use muster_signing::envelope::Signer;

use crate::exit::{Exit, Failure};
use crate::home::{Home, Secrecy};
use crate::pki_home::{PkiHome, Wanted};

/// The platform's own definitions, as their authors wrote them. They ship unsigned; each organisation signs them with
/// its own publisher key (DESIGN.md, "Payload language").
const DEFINITIONS: [(&str, &str); 9] = [
    platform("Muster-Core-Query", include_str!("../../../signing/definitions/Muster-Core-Query.toml")),
    platform("Muster-Os-Version", include_str!("../../../signing/definitions/Muster-Os-Version.toml")),
    platform("Muster-Process-Top", include_str!("../../../signing/definitions/Muster-Process-Top.toml")),
    platform(
        "Muster-Package-Version",
        include_str!("../../../signing/definitions/Muster-Package-Version.toml"),
    ),
    platform(
        "Muster-Certificates-Expiring",
        include_str!("../../../signing/definitions/Muster-Certificates-Expiring.toml"),
    ),
    platform("Muster-Disk-Full", include_str!("../../../signing/definitions/Muster-Disk-Full.toml")),
    platform(
        "Muster-Port-Listeners",
        include_str!("../../../signing/definitions/Muster-Port-Listeners.toml"),
    ),
    platform("Muster-Service-State", include_str!("../../../signing/definitions/Muster-Service-State.toml")),
    platform("Muster-File-Hash", include_str!("../../../signing/definitions/Muster-File-Hash.toml")),
];

/// Prefixes that a development licence binds to the home's publisher.
const PREFIXES: [&str; 2] = ["Muster", "Acme"];
/// Development certificates of people and services live this long.
const DAYS: i32 = 825;
/// A development licence lives this long.
const LICENCE_DAYS: u64 = 365;

const fn platform(name: &'static str, text: &'static str) -> (&'static str, &'static str) {
    (name, text)
}

/// Fills a fresh home. It may be repeated after a crash: what is there is made anew.
pub(crate) fn provision(home: &Home, tenant: &str, now: UnixTime) -> Result<(), Failure> {
    let pki = PkiHome::of(home);
    pki.create(now)?;
    let user = operator_name();
    let people = [
        (Role::Operator, user.as_str(), "operator/tls.pem", "operator/tls.key"),
        (Role::OrderSigner, user.as_str(), "operator/order.pem", "operator/order.key"),
        (Role::Author, "publisher", "publisher/cert.pem", "publisher/key.pem"),
        (Role::Licensor, "licensor", "licensor/cert.pem", "licensor/key.pem"),
    ];
    for (role, name, certificate, key) in people {
        let issued = pki.issue(&Wanted::named(role, name, DAYS), now)?;
        home.write(key, issued.key_pem.as_bytes(), Secrecy::Private)?;
        home.write(certificate, issued.chain_pem.as_bytes(), Secrecy::Public)?;
    }
    write_definitions(home, now)?;
    write_licence(home, tenant, now)
}

/// The login name, where it can stand in a certificate.
fn operator_name() -> String {
    let user = std::env::var("USER").unwrap_or_default().to_ascii_lowercase();
    let fits = !user.is_empty()
        && user.len() <= 32
        && user.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits { user } else { "operator".to_owned() }
}

/// Signs the platform's definitions with the home's publisher key.
fn write_definitions(home: &Home, now: UnixTime) -> Result<(), Failure> {
    let signer = signer(home, "publisher")?;
    for (name, text) in DEFINITIONS {
        let envelope = muster_sign::sign_definition(text, &signer, now)
            .map_err(|error| Failure::new(Exit::Refused, format!("{name}: {error}")))?;
        home.write(&format!("definitions/{name}.cms"), &envelope, Secrecy::Public)?;
    }
    Ok(())
}

/// Issues a licence that binds the development prefixes to the home's publisher.
fn write_licence(home: &Home, tenant: &str, now: UnixTime) -> Result<(), Failure> {
    let publisher = crate::home::read_file(&home.path("publisher/cert.pem"), "muster pki init")?;
    let request = muster_sign::LicenceRequest {
        licensee: format!("Development fleet of {}", operator_name()),
        tenant: tenant.to_owned(),
        serial: 1,
        valid_days: LICENCE_DAYS,
        prefixes: PREFIXES.iter().map(|prefix| ((*prefix).to_owned(), publisher.clone())).collect(),
    };
    let envelope = muster_sign::issue_licence(&request, &signer(home, "licensor")?, now)
        .map_err(|error| Failure::new(Exit::Refused, format!("licence: {error}")))?;
    home.write("licence.cms", &envelope, Secrecy::Public)
}

fn signer(home: &Home, who: &str) -> Result<Signer, Failure> {
    let certificate = crate::home::read_file(&home.path(&format!("{who}/cert.pem")), "muster pki init")?;
    let key = crate::home::read_file(&home.path(&format!("{who}/key.pem")), "muster pki init")?;
    Signer::from_pem(&certificate, &key)
        .map_err(|error| Failure::new(Exit::Refused, format!("{who}: {error}")))
}
