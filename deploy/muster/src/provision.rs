//! What a fresh home needs to issue its first instruction: CA, operator, publisher, licensor, licence, definitions; and a
//! policies' administrator.

use std::path::PathBuf;
use std::time::Duration;

use muster_pki::{Facts, Role, UnixTime};
use muster_sign::FileKind;
use muster_signing::envelope::{self, ContentType, Signer};
use muster_signing::licence::Licence;

use crate::exit::{Exit, Failure};
use crate::home::{Home, OWN_FILE, Secrecy, read_file, text_if_there};
use crate::pki_home::{PkiHome, ROLES, Standing, Wanted};

/// The platform's own definitions, as their authors wrote them. They ship unsigned; each organisation signs them with
/// its own publisher key (DESIGN.md, "Payload language").
const DEFINITIONS: [(&str, &str); 10] = [
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
    platform(
        "Muster-Service-Restart",
        include_str!("../../../signing/definitions/Muster-Service-Restart.toml"),
    ),
    platform("Muster-File-Hash", include_str!("../../../signing/definitions/Muster-File-Hash.toml")),
];

/// Prefixes that a development licence binds to the home's publisher.
const PREFIXES: [&str; 2] = ["Muster", "Acme"];
/// Development certificates of people and services live this long.
const DAYS: i32 = 825;
/// A development licence lives this long.
const LICENCE_DAYS: u64 = 365;
/// What ends sooner than this is made anew when a development fleet starts.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

const fn platform(name: &'static str, text: &'static str) -> (&'static str, &'static str) {
    (name, text)
}

/// The file of a home that says for which organisation it was made.
const TENANT_FILE: &str = "pki/tenant";

/// What a development CA makes besides its own folder: an operator of another CA has these, too.
const MADE: [&str; 6] = ["operator", "publisher", "licensor", "policy", "trust", "licence.cms"];

/// Fills a fresh home. It may be repeated after a crash: what is there is made anew.
///
/// # Errors
/// The home has keys, roots or a licence, and no development CA: they are someone's, and would be gone.
pub(crate) fn provision(home: &Home, tenant: &str, crl_url: &str, now: UnixTime) -> Result<(), Failure> {
    let pki = PkiHome::of(home);
    if let Some(theirs) = theirs(home) {
        return Err(Failure::usage(format!(
            "{} is there, and was not made by a development CA of this home; it would be overwritten",
            theirs.display()
        ))
        .with_next("muster --home ANOTHER …   (a home for development; MUSTER_HOME names it, too)"));
    }
    pki.set_crl_base_url(crl_url)?;
    home.write(TENANT_FILE, format!("{tenant}\n").as_bytes(), Secrecy::Public)?;
    pki.create(now)?;
    for person in people(&operator_name()) {
        issue(home, &person, now)?;
    }
    write_definitions(home, now)?;
    write_licence(home, tenant, 1, now)
}

/// Returns what of a home a development CA would overwrite, though none made it.
fn theirs(home: &Home) -> Option<PathBuf> {
    // A development CA that was begun has this folder before anything else.
    if home.path("pki").exists() {
        return None;
    }
    MADE.iter().map(|name| home.path(name)).find(|path| path.exists())
}

/// Returns the organisation that a home was made for; one without the file says it in its licence.
pub(crate) fn tenant(home: &Home, now: UnixTime) -> Result<Option<String>, Failure> {
    match text_if_there(&home.path(TENANT_FILE), OWN_FILE) {
        Ok(Some(text)) => Ok(Some(text.trim().to_owned())),
        Ok(None) => Ok(held_licence(home, now).map(|licence| licence.tenant().to_owned())),
        Err(error) => Err(Failure::new(Exit::Refused, error.to_string())),
    }
}

/// What to do where an operator's certificate and key, `FILE.pem` and `FILE.key` of the home, do not do. `pki init` makes them
/// in a home that has nothing yet, and refuses any other.
pub(crate) fn how_to_have(home: &Home, role: Role, file: &str) -> String {
    let (certificate, key) = (home.path(&format!("{file}.pem")), home.path(&format!("{file}.key")));
    let there = format!("{} and {}", certificate.display(), key.display());
    if PkiHome::of(home).exists() {
        let role = role.name();
        return format!(
            "muster pki issue NAME --role {role} --out DIR, then put DIR/NAME.pem and .key at {there}"
        );
    }
    let by_hand = format!("put the operator's certificate and key at {there}");
    if theirs(home).is_some() {
        by_hand
    } else {
        format!("muster pki init   (a development PKI), or {by_hand}")
    }
}

/// What becomes of a person's certificate that was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revoked {
    /// It stays so.
    StaysOut,
    /// There is a new one.
    IsReissued,
}

/// Makes anew what of a home ends soon or has ended: CRLs, the certificates of people, and what those signed. What another
/// CA issued is not touched. A fleet that was left alone for years starts again.
pub(crate) fn renew(home: &Home, tenant: &str, revoked: Revoked, now: UnixTime) -> Result<(), Failure> {
    let pki = PkiHome::of(home);
    pki.complete(now)?;
    for (role, _) in ROLES {
        pki.write_crl(role, now)?;
    }
    let mut renewed = Vec::new();
    for person in people(&operator_name()) {
        let standing =
            pki.standing((person.role, &person.name), &home.path(person.certificate), RENEW_BEFORE, now)?;
        let has_key = home.path(person.key).exists();
        let is_due = match standing {
            Standing::Good => !has_key,
            Standing::Foreign => false,
            Standing::Missing | Standing::Ending => true,
            Standing::Revoked if revoked == Revoked::IsReissued => true,
            Standing::Revoked => {
                return Err(Failure::denied(format!(
                    "{} is revoked",
                    home.path(person.certificate).display()
                ))
                .with_next("muster dev --reissue   (a new certificate under the same name)"));
            }
        };
        if is_due {
            issue(home, &person, now)?;
            renewed.push(person.role);
        }
    }
    if renewed.contains(&Role::Author) || !home.path("definitions").is_dir() {
        write_definitions(home, now)?;
    }
    let licence = held_licence(home, now);
    let soon = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + RENEW_BEFORE);
    let is_fresh = licence.as_ref().is_some_and(|held| held.is_valid_at(soon) && !held.is_refresh_due(soon));
    if !is_fresh || renewed.contains(&Role::Author) || renewed.contains(&Role::Licensor) {
        // A serial never goes back. One that cannot be read any more was lower than a number of seconds.
        let serial = licence.map_or(now.as_secs(), |held| held.serial() + 1);
        write_licence(home, tenant, serial, now)?;
    }
    Ok(())
}

/// Where a home has its licence, if it has one.
pub(crate) const LICENCE: &str = "licence.cms";

/// The home's licence, if its signature holds.
pub(crate) fn held_licence(home: &Home, now: UnixTime) -> Option<Licence> {
    let bytes = muster_sign::read_file(&home.path(LICENCE), FileKind::ENVELOPE).ok()?;
    let roots = home.document_roots("licences").ok()?;
    let facts = Facts::at(now);
    let verified =
        envelope::verify(&bytes, ContentType::Licence, Role::Licensor, &roots.anchors(), &facts).ok()?;
    Licence::parse(&String::from_utf8(verified.content).ok()?).ok()
}

/// What the home's licence says, whether its signature holds or not: one whose licensor has ended, or whose root is gone, is the one to replace.
pub(crate) fn claimed_licence(home: &Home) -> Option<Licence> {
    let bytes = muster_sign::read_file(&home.path(LICENCE), FileKind::ENVELOPE).ok()?;
    let envelope = muster_sign::read_envelope(&bytes).ok()?;
    let inspection = envelope::inspect(&envelope).ok()?;
    Licence::parse(&String::from_utf8(inspection.content).ok()?).ok()
}

/// Someone who has a certificate in a home.
struct Person {
    role: Role,
    name: String,
    certificate: &'static str,
    key: &'static str,
}

fn people(operator: &str) -> [Person; 5] {
    let person =
        |role, name: &str, certificate, key| Person { role, name: name.to_owned(), certificate, key };
    [
        person(Role::Operator, operator, "operator/tls.pem", "operator/tls.key"),
        person(Role::OrderSigner, operator, "operator/order.pem", "operator/order.key"),
        person(Role::Author, "publisher", "publisher/cert.pem", "publisher/key.pem"),
        person(Role::Licensor, "licensor", "licensor/cert.pem", "licensor/key.pem"),
        person(Role::Policy, "policy", "policy/cert.pem", "policy/key.pem"),
    ]
}

fn issue(home: &Home, person: &Person, now: UnixTime) -> Result<(), Failure> {
    let issued = PkiHome::of(home).issue(&Wanted::named(person.role, &person.name, DAYS), now)?;
    home.write(person.key, issued.key_pem.as_bytes(), Secrecy::Private)?;
    home.write(person.certificate, issued.chain_pem.as_bytes(), Secrecy::Public)
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
fn write_licence(home: &Home, tenant: &str, serial: u64, now: UnixTime) -> Result<(), Failure> {
    let publisher = read_file(&home.path("publisher/cert.pem"), FileKind::CERTIFICATES, "muster pki init")?;
    let request = muster_sign::NewLicence {
        licensee: format!("Development fleet of {}", operator_name()),
        tenant: tenant.to_owned(),
        serial,
        valid_days: LICENCE_DAYS,
        refresh_days: Some(LICENCE_DAYS / 6 * 5),
        prefixes: PREFIXES.iter().map(|prefix| ((*prefix).to_owned(), publisher.clone())).collect(),
        ..muster_sign::NewLicence::default()
    };
    let envelope = muster_sign::issue_licence(&request, &signer(home, "licensor")?, now)
        .map_err(|error| Failure::new(Exit::Refused, format!("licence: {error}")))?;
    home.write(LICENCE, &envelope, Secrecy::Public)
}

fn signer(home: &Home, who: &str) -> Result<Signer, Failure> {
    let certificate = read_file(&home.path(&format!("{who}/cert.pem")), FileKind::KEY, "muster pki init")?;
    let key = read_file(&home.path(&format!("{who}/key.pem")), FileKind::KEY, "muster pki init")?;
    Signer::from_pem(&certificate, &key)
        .map_err(|error| Failure::new(Exit::Refused, format!("{who}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki_home::CRL_BASE_URL;

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

    fn after(days: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_secs() + days * 86_400))
    }

    fn fresh() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        provision(&home, "dev", CRL_BASE_URL, NOW).unwrap();
        (folder, home)
    }

    #[test]
    fn a_home_with_credentials_of_another_ca_is_left_as_it_is() {
        for theirs in
            ["operator/tls.pem", "operator/order.key", "publisher/key.pem", "trust/orders.pem", "licence.cms"]
        {
            let folder = tempfile::tempdir().unwrap();
            let home = Home::locate(Some(folder.path().to_owned())).unwrap();
            home.write(theirs, b"precious", Secrecy::Private).unwrap();

            let refused = provision(&home, "dev", CRL_BASE_URL, NOW).unwrap_err();

            assert!(refused.to_string().contains("overwritten"), "{theirs}: {refused}");
            assert_eq!(read(&home, theirs), b"precious");
            assert!(!home.path("pki").exists(), "{theirs}");
        }
    }

    fn read(home: &Home, file: &str) -> Vec<u8> {
        std::fs::read(home.path(file)).unwrap()
    }

    #[test]
    fn a_home_left_alone_is_renewed_as_far_as_it_ended() {
        let (_folder, home) = fresh();
        let files = [
            "operator/tls.pem",
            "operator/order.pem",
            "publisher/cert.pem",
            "licence.cms",
            "pki/devices/crl.pem",
        ];
        let mut before = files.map(|file| read(&home, file));
        // (days later, which of the files are new then, the licence's serial)
        for (days, renewed, serial) in [
            (90, [false, false, false, false, true], 1),
            (400, [false, false, false, true, true], 2),
            (900, [true, true, true, true, true], after(900).as_secs()),
        ] {
            renew(&home, "dev", Revoked::StaysOut, after(days)).unwrap();

            let now = files.map(|file| read(&home, file));
            let changed: Vec<bool> = before.iter().zip(&now).map(|(before, now)| before != now).collect();
            assert_eq!(changed, renewed, "after {days} days");
            assert_eq!(held_licence(&home, after(days)).unwrap().serial(), serial, "after {days} days");
            before = now;
        }
    }

    #[test]
    fn what_was_deleted_of_a_home_is_made_anew_with_the_next_start() {
        let (_folder, home) = fresh();
        let gone = ["operator/tls.key", "publisher/key.pem", "licensor/cert.pem", "licence.cms"];
        for file in gone {
            std::fs::remove_file(home.path(file)).unwrap();
        }
        std::fs::remove_dir_all(home.path("definitions")).unwrap();

        renew(&home, "dev", Revoked::StaysOut, NOW).unwrap();

        assert!(gone.iter().all(|file| home.path(file).exists()));
        assert!(home.path("definitions/Muster-Os-Version.cms").exists());
        assert!(held_licence(&home, NOW).is_some());
    }

    #[test]
    fn a_home_knows_the_organisation_that_it_was_made_for_also_without_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        assert_eq!(tenant(&home, NOW).unwrap(), None);
        provision(&home, "acme", CRL_BASE_URL, NOW).unwrap();

        let told = tenant(&home, NOW).unwrap();
        std::fs::remove_file(home.path(TENANT_FILE)).unwrap();
        let licensed = tenant(&home, NOW).unwrap();

        assert_eq!((told.as_deref(), licensed.as_deref()), (Some("acme"), Some("acme")));
    }

    #[test]
    fn pki_init_is_advised_only_where_it_would_do_something() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        let advice = || how_to_have(&home, Role::Operator, "operator/tls");

        let empty = advice();
        home.write("trust/servers.pem", b"theirs", Secrecy::Public).unwrap();
        let of_another_ca = advice();
        std::fs::remove_dir_all(home.path("trust")).unwrap();
        provision(&home, "dev", CRL_BASE_URL, NOW).unwrap();
        let provisioned = advice();

        assert!(empty.starts_with("muster pki init "), "{empty}");
        assert!(of_another_ca.starts_with("put the operator's certificate and key at "), "{of_another_ca}");
        assert!(provisioned.starts_with("muster pki issue NAME --role operator "), "{provisioned}");
        let there = home.path("operator/tls.pem").display().to_string();
        assert!([empty, of_another_ca, provisioned].iter().all(|advice| advice.contains(&there)));
    }

    #[test]
    fn a_revoked_operator_stays_out_until_it_is_reissued() {
        let (_folder, home) = fresh();
        PkiHome::of(&home).revoke(Role::Operator, &operator_name(), NOW).unwrap();
        let before = read(&home, "operator/tls.pem");

        let refused = renew(&home, "dev", Revoked::StaysOut, NOW).unwrap_err();
        let kept = read(&home, "operator/tls.pem");
        renew(&home, "dev", Revoked::IsReissued, NOW).unwrap();

        assert!(refused.to_string().contains("operator/tls.pem is revoked"), "{refused}");
        assert!(refused.next().is_some_and(|next| next.contains("--reissue")));
        assert_eq!(kept, before);
        assert_ne!(read(&home, "operator/tls.pem"), before);
    }
}
