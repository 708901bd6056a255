//! The development CA of a home: a root and an issuing CA for each role, what they issued, and what is revoked.
//!
//! ```text
//! pki/ROLES/root.{pem,key}      the role's root
//! pki/ROLES/issuing.{pem,key}   the CA below it that issues
//! pki/ROLES/index.json          what was issued and revoked, and the CRL's number
//! pki/ROLES/crl.pem             the current CRL, and the CA that signed it
//! pki/ROLES/root-crl.pem        the root's CRL: an issuing CA without one is refused sooner or later (R6)
//! pki/crl-url                   where certificates say that CRLs are published
//! pki/lock                      who writes
//! trust/ROLES.pem               the root again, where programs and tools look for it
//! ```
//! Roles have separate roots, so that no certificate opens a door of another role (DESIGN.md, Contracts).

mod flaws;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_pki::authority::{Authority, Issued, Request, Revoked};
use muster_pki::{Certificate, Role, Roots, UnixTime};
use muster_sign::FileKind;
use serde::{Deserialize, Serialize};

use crate::cli::Flaws;
use crate::exit::{Exit, Failure};
use crate::home::{Home, OWN_FILE, Secrecy, read_file, text_if_there};

/// The roles that a development CA has, and their folders.
pub(crate) const ROLES: [(Role, &str); 9] = [
    (Role::Device, "devices"),
    (Role::Operator, "operators"),
    (Role::Service, "services"),
    (Role::Switch, "servers"),
    (Role::Author, "authors"),
    (Role::OrderSigner, "orders"),
    (Role::Policy, "policies"),
    (Role::Licensor, "licences"),
    (Role::Timestamp, "timestamps"),
];

/// A development root and its issuing CA live this long.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(3_650 * 86_400);
/// A CRL is fresh this long; `muster pki crl` and `revoke` write a new one.
const CRL_VALIDITY: Duration = Duration::from_secs(30 * 86_400);
/// Where certificates say that their CA's CRL is if nobody says otherwise: where `muster dev` publishes them. None is accepted
/// without (C6).
pub(crate) const CRL_BASE_URL: &str = "http://localhost:4003";
/// The file of a home that says where its CRLs are published.
const CRL_URL_FILE: &str = "pki/crl-url";
/// What a CA issued and revoked; a certificate has some 300 bytes of it.
const INDEX: FileKind = FileKind::new("what a development CA issued (JSON)", 64 << 20);
/// Certificates begin this long before they are issued, so that a clock a little behind accepts them.
const BACKDATE: Duration = Duration::from_secs(3_600);

/// One of the two CRLs of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct List {
    /// Where it lies in the home, in PEM.
    pub(crate) path: String,
    /// How it is published, behind the base URL: DER, as RFC 5280 §4.2.1.13 asks for.
    pub(crate) name: String,
}

/// Returns the lists of a role: the issuing CA's, and the root's, by which the issuing CA stands or falls.
pub(crate) fn lists(role: Role) -> Result<[List; 2], Failure> {
    let folder = folder(role)?;
    Ok([
        List { path: format!("pki/{folder}/crl.pem"), name: format!("{folder}.crl") },
        List { path: format!("pki/{folder}/root-crl.pem"), name: format!("{folder}-root.crl") },
    ])
}

/// What a role's CA issued.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Number of the newest CRL.
    crl_number: u64,
    /// Certificates, oldest first.
    issued: Vec<Entry>,
}

/// One issued certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The name it was issued for.
    pub(crate) name: String,
    /// Its serial, hex.
    pub(crate) serial: String,
    /// When it ends, seconds since 1970.
    pub(crate) not_after: u64,
    /// When it was revoked, seconds since 1970.
    pub(crate) revoked_at: Option<u64>,
}

/// What to issue.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Whose certificate: decides the CA and the usages.
    pub(crate) role: Role,
    /// The common name, and the first DNS name where the role has one.
    pub(crate) name: String,
    /// Further DNS names.
    pub(crate) dns_names: Vec<String>,
    /// Addresses.
    pub(crate) ip_addresses: Vec<IpAddr>,
    /// Days from now; negative: it ended that long ago.
    pub(crate) days: i32,
    /// Where its CA's CRL is published, if not where the home says.
    pub(crate) crl_url: Option<String>,
    /// What is wrong with it on purpose.
    pub(crate) flaws: Flaws,
}

impl Wanted {
    /// A certificate for one name.
    pub(crate) fn named(role: Role, name: &str, days: i32) -> Self {
        Self {
            role,
            name: name.to_owned(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            days,
            crl_url: None,
            flaws: Flaws::default(),
        }
    }
}

/// How a certificate of a development PKI stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It can be used.
    Good,
    /// There is none that can be read.
    Missing,
    /// It ends soon, or has ended.
    Ending,
    /// It was revoked.
    Revoked,
    /// Another CA issued it.
    Foreign,
}

/// The development CA of a home.
#[derive(Debug)]
pub(crate) struct PkiHome<'a> {
    home: &'a Home,
}

impl<'a> PkiHome<'a> {
    /// The development CA of `home`, whether it is there yet or not.
    pub(crate) fn of(home: &'a Home) -> Self {
        Self { home }
    }

    /// Whether `muster pki init` was done.
    pub(crate) fn exists(&self) -> bool {
        self.home.path("pki/licences/issuing.key").exists()
    }

    /// Makes roots and issuing CAs for every role, their first CRLs, and the trust folder.
    pub(crate) fn create(&self, now: UnixTime) -> Result<(), Failure> {
        ROLES.iter().try_for_each(|(role, folder)| self.create_role(*role, folder, now))
    }

    /// Makes those of the roles that this version has and the one that made the home had not.
    pub(crate) fn complete(&self, now: UnixTime) -> Result<(), Failure> {
        let is_missing = |folder: &str| {
            let has = |name: &str| self.home.path(&format!("pki/{folder}{name}")).exists();
            // Roots that somebody else put there are not overwritten; a CA that was begun is.
            !has("/issuing.key") && (has("") || !self.home.roots(folder).exists())
        };
        let mut missing = ROLES.iter().filter(|(_, folder)| is_missing(folder));
        missing.try_for_each(|(role, folder)| self.create_role(*role, folder, now))
    }

    fn create_role(&self, role: Role, folder: &str, now: UnixTime) -> Result<(), Failure> {
        let base = self.crl_base_url()?;
        let label = format!("Muster development {folder}");
        let root = Authority::root(&format!("{label} root"), AUTHORITY_VALIDITY, now).map_err(refused)?;
        let issuing = root
            .issue_authority_with(
                &format!("{label} issuing CA"),
                AUTHORITY_VALIDITY,
                now,
                Some(&format!("{base}/{folder}-root.crl")),
            )
            .map_err(refused)?;
        let files = [
            (format!("pki/{folder}/root.pem"), root.certificate_pem(), Secrecy::Public),
            (format!("pki/{folder}/root.key"), root.key_pem().to_string(), Secrecy::Private),
            (format!("trust/{folder}.pem"), root.certificate_pem(), Secrecy::Public),
            (format!("pki/{folder}/issuing.pem"), issuing.certificate_pem(), Secrecy::Public),
            (format!("pki/{folder}/issuing.key"), issuing.key_pem().to_string(), Secrecy::Private),
        ];
        for (path, text, secrecy) in files {
            self.home.write(&path, text.as_bytes(), secrecy)?;
        }
        self.write_crl(role, now).map(drop)
    }

    /// Issues a certificate and notes it.
    pub(crate) fn issue(&self, wanted: &Wanted, now: UnixTime) -> Result<Issued, Failure> {
        let _lock = self.lock()?;
        let folder = folder(wanted.role)?;
        let (not_before, not_after) = wanted.flaws.validity(now, wanted.days);
        let has_names = matches!(wanted.role, Role::Device | Role::Switch | Role::Operator | Role::Service);
        let name = wanted.flaws.name(&wanted.name);
        let first = has_names.then(|| name.clone());
        let crl_url = match (&wanted.crl_url, wanted.flaws.omit_cdp) {
            (_, true) => None,
            (Some(url), false) => Some(url.clone()),
            (None, false) => Some(format!("{}/{folder}.crl", self.crl_base_url()?)),
        };
        let request = Request {
            common_name: name,
            dns_names: first.into_iter().chain(wanted.dns_names.iter().cloned()).collect(),
            ip_addresses: wanted.ip_addresses.clone(),
            role: wanted.role,
            not_before,
            not_after,
            crl_url,
        };
        let overrides = wanted.flaws.overrides(wanted.role);
        let issued = self.authority(folder, "issuing")?.issue_with(&request, &overrides).map_err(refused)?;
        let mut index = self.index(folder)?;
        index.issued.push(Entry {
            name: wanted.name.clone(),
            serial: issued.certificate.serial_hex(),
            not_after: not_after.as_secs(),
            revoked_at: None,
        });
        self.write_index(folder, &index)?;
        Ok(issued)
    }

    /// Revokes by name or serial, writes a new CRL, and returns what was revoked.
    pub(crate) fn revoke(&self, role: Role, subject: &str, now: UnixTime) -> Result<Vec<Entry>, Failure> {
        let _lock = self.lock()?;
        let folder = folder(role)?;
        let mut index = self.index(folder)?;
        let wanted = subject.to_ascii_lowercase();
        let mut revoked = Vec::new();
        for entry in index.issued.iter_mut().filter(|entry| entry.revoked_at.is_none()) {
            if entry.name.eq_ignore_ascii_case(subject)
                || entry.serial.eq_ignore_ascii_case(&wanted.replace(':', ""))
            {
                entry.revoked_at = Some(now.as_secs());
                revoked.push(entry.clone());
            }
        }
        if revoked.is_empty() {
            return Err(Failure::usage(format!(
                "{folder}: nothing issued under `{subject}` that is not revoked already"
            ))
            .with_next(format!(
                "the names are in {}",
                self.home.path(&format!("pki/{folder}/index.json")).display()
            )));
        }
        self.write_index(folder, &index)?;
        self.sign_crl(folder, now)?;
        Ok(revoked)
    }

    /// Writes a fresh CRL and returns its path.
    pub(crate) fn write_crl(&self, role: Role, now: UnixTime) -> Result<PathBuf, Failure> {
        let _lock = self.lock()?;
        self.sign_crl(folder(role)?, now)
    }

    /// Copies a role's lists to where a web server publishes them, each whole or not at all.
    pub(crate) fn publish(&self, role: Role, target: &Path) -> Result<(), Failure> {
        for list in lists(role)? {
            let text = read_file(&self.home.path(&list.path), FileKind::CRL, "muster pki crl")?;
            let crls = muster_pki::pem::crls(&text, &list.path)
                .map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
            let Some(der) = crls.first() else { continue };
            let (path, partial) = (target.join(&list.name), target.join(format!(".{}.partial", list.name)));
            let written = std::fs::write(&partial, der).and_then(|()| std::fs::rename(&partial, &path));
            written.map_err(|error| {
                Failure::new(Exit::Refused, format!("{}: {error}", path.display()))
                    .with_next("give --publish a folder that is there and may be written")
            })?;
        }
        Ok(())
    }

    fn sign_crl(&self, folder: &str, now: UnixTime) -> Result<PathBuf, Failure> {
        let mut index = self.index(folder)?;
        index.crl_number += 1;
        let revoked: Vec<Revoked> = index
            .issued
            .iter()
            .filter_map(|entry| {
                let at = UnixTime::since_unix_epoch(Duration::from_secs(entry.revoked_at?));
                Some(Revoked { serial_hex: entry.serial.clone(), at })
            })
            .collect();
        let next_update = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + CRL_VALIDITY);
        let authority = self.authority(folder, "issuing")?;
        let crl = authority.crl(&revoked, index.crl_number, now, next_update).map_err(refused)?;
        // The number first: a number that was never published does no harm, one published twice does.
        self.write_index(folder, &index)?;
        let path = format!("pki/{folder}/crl.pem");
        // The CA that signed it goes with it: it is no root, so nobody else who reads the CRL has it.
        let text = format!("{crl}{}", authority.certificate_pem());
        self.home.write(&path, text.as_bytes(), Secrecy::Public)?;
        let root = self.authority(folder, "root")?;
        let root_crl = root.crl(&[], index.crl_number, now, next_update).map_err(refused)?;
        self.home.write(&format!("pki/{folder}/root-crl.pem"), root_crl.as_bytes(), Secrecy::Public)?;
        Ok(self.home.path(&path))
    }

    /// How the certificate in a file stands, `soon` before it ends.
    ///
    /// A name whose newest certificate was revoked is revoked, too, when its file is gone: deleting it is no way back in.
    pub(crate) fn standing(
        &self,
        wanted: (Role, &str),
        file: &Path,
        soon: Duration,
        now: UnixTime,
    ) -> Result<Standing, Failure> {
        let (role, name) = wanted;
        let folder = folder(role)?;
        let index = self.index(folder)?;
        let named = |entry: &&Entry| entry.name.eq_ignore_ascii_case(name);
        let newest = index.issued.iter().rfind(named);
        let is_own = |chain: &[Certificate]| {
            let issuing = read_chain(&self.home.path(&format!("pki/{folder}/issuing.pem")));
            let issuer = issuing.as_deref().and_then(<[_]>::first).map(Certificate::thumbprint);
            issuer.is_some() && chain.get(1).map(Certificate::thumbprint) == issuer
        };
        let Some((leaf, chain)) = read_chain(file).and_then(|chain| Some((chain.first()?.clone(), chain)))
        else {
            let is_revoked = newest.is_some_and(|entry| entry.revoked_at.is_some());
            return Ok(if is_revoked { Standing::Revoked } else { Standing::Missing });
        };
        let serial = leaf.serial_hex();
        let is_revoked =
            |entry: &Entry| entry.serial.eq_ignore_ascii_case(&serial) && entry.revoked_at.is_some();
        Ok(if !is_own(&chain) {
            Standing::Foreign
        } else if index.issued.iter().any(is_revoked) {
            Standing::Revoked
        } else if leaf.not_after().as_secs() <= now.as_secs() + soon.as_secs() {
            Standing::Ending
        } else {
            Standing::Good
        })
    }

    /// Returns the current CRLs of these roles' CAs.
    pub(crate) fn crl_files(&self, folders: &[&str]) -> Vec<PathBuf> {
        let files =
            |folder| ["crl.pem", "root-crl.pem"].map(|name| self.home.path(&format!("pki/{folder}/{name}")));
        folders.iter().flat_map(files).collect()
    }

    /// Returns a role's lists if `trust` has the role's root of this home, and none where another PKI issues for the role.
    pub(crate) fn crl_files_in_trust(&self, folder: &str) -> Vec<PathBuf> {
        let roots = |path: PathBuf| {
            Roots::from_pem(&muster_sign::read_file(&path, FileKind::CERTIFICATES).ok()?, folder).ok()
        };
        let (own, trusted) =
            (roots(self.home.path(&format!("pki/{folder}/root.pem"))), roots(self.home.roots(folder)));
        let is_trusted = own.zip(trusted).is_some_and(|(own, trusted)| own.overlaps(&trusted).is_some());
        if is_trusted { self.crl_files(&[folder]) } else { Vec::new() }
    }

    /// Returns the certificates of these roles' issuing CAs.
    pub(crate) fn issuing_files(&self, folders: &[&str]) -> Vec<PathBuf> {
        folders.iter().map(|folder| self.home.path(&format!("pki/{folder}/issuing.pem"))).collect()
    }

    /// Returns where certificates say that CRLs are published.
    pub(crate) fn crl_base_url(&self) -> Result<String, Failure> {
        match text_if_there(&self.home.path(CRL_URL_FILE), OWN_FILE) {
            Ok(text) => Ok(text.map_or_else(|| CRL_BASE_URL.to_owned(), |text| text.trim().to_owned())),
            Err(error) => Err(Failure::new(Exit::Refused, error.to_string())),
        }
    }

    /// Says where certificates issued from now on say that CRLs are published.
    pub(crate) fn set_crl_base_url(&self, base: &str) -> Result<(), Failure> {
        self.home.write(CRL_URL_FILE, format!("{base}\n").as_bytes(), Secrecy::Public)
    }

    /// Commands and a running `muster dev` take turns: one that reads the index before another writes it would undo a revocation.
    fn lock(&self) -> Result<std::fs::File, Failure> {
        let path = self.home.path("pki/lock");
        let locked = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::File::create(&path))
            .and_then(|file| file.lock().map(|()| file));
        locked.map_err(|error| Failure::new(Exit::Refused, format!("{}: {error}", path.display())))
    }

    /// Reads the role's `issuing` CA, or its `root`.
    fn authority(&self, folder: &str, which: &str) -> Result<Authority, Failure> {
        let read = |name: &str| {
            let bytes = read_file(
                &self.home.path(&format!("pki/{folder}/{name}")),
                FileKind::KEY,
                "muster pki init",
            )?;
            String::from_utf8(bytes).map_err(|_| Failure::usage(format!("pki/{folder}/{name} is not PEM")))
        };
        let (certificate, key) = (read(&format!("{which}.pem"))?, read(&format!("{which}.key"))?);
        Authority::from_pem(&certificate, &key).map_err(refused)
    }

    fn index(&self, folder: &str) -> Result<Index, Failure> {
        let path = self.home.path(&format!("pki/{folder}/index.json"));
        match text_if_there(&path, INDEX) {
            Ok(Some(text)) => serde_json::from_str(&text)
                .map_err(|error| Failure::new(Exit::Refused, format!("{}: {error}", path.display()))),
            Ok(None) => Ok(Index::default()),
            Err(error) => Err(Failure::new(Exit::Refused, error.to_string())),
        }
    }

    fn write_index(&self, folder: &str, index: &Index) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(index)
            .map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
        self.home.write(&format!("pki/{folder}/index.json"), &text, Secrecy::Private)
    }
}

/// The folder of a role's CA.
pub(crate) fn folder(role: Role) -> Result<&'static str, Failure> {
    ROLES.iter().find(|(known, _)| *known == role).map(|(_, folder)| *folder).ok_or_else(|| {
        Failure::usage(format!("a development CA has no role `{}`", role.name()))
            .with_next("one of device, operator, service, switch, author, order, licensor, policy, timestamp")
    })
}

fn read_chain(file: &Path) -> Option<Vec<Certificate>> {
    let bytes = muster_sign::read_file(file, FileKind::CERTIFICATES).ok()?;
    let chain = muster_pki::pem::certificates(&bytes, "certificate").ok()?;
    chain.iter().map(|der| Certificate::from_der(der).ok()).collect()
}

pub(crate) fn validity(now: UnixTime, days: i32) -> (UnixTime, UnixTime) {
    let span = Duration::from_secs(u64::from(days.unsigned_abs()) * 86_400);
    let now = Duration::from_secs(now.as_secs());
    if days >= 0 {
        (UnixTime::since_unix_epoch(now.saturating_sub(BACKDATE)), UnixTime::since_unix_epoch(now + span))
    } else {
        let ended = now.saturating_sub(span);
        let began = ended.saturating_sub(Duration::from_secs(365 * 86_400));
        (UnixTime::since_unix_epoch(began), UnixTime::since_unix_epoch(ended))
    }
}

fn refused(error: muster_pki::authority::AuthorityError) -> Failure {
    Failure::new(Exit::Refused, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

    fn wanted(name: &str, days: i32) -> Wanted {
        Wanted::named(Role::Device, name, days)
    }

    #[test]
    fn a_revoked_device_is_in_the_next_crl_and_the_number_goes_up() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        let pki = PkiHome::of(&home);
        pki.create(NOW).unwrap();
        let issued = pki.issue(&wanted("web1.example.org", 30), NOW).unwrap();

        let revoked = pki.revoke(Role::Device, "WEB1.example.org", NOW).unwrap();

        assert_eq!(revoked[0].serial, issued.certificate.serial_hex());
        assert_eq!(pki.index("devices").unwrap().crl_number, 2);
        assert!(pki.revoke(Role::Device, "web1.example.org", NOW).is_err(), "already revoked");
    }

    #[test]
    fn a_certificate_stands_as_its_ca_and_its_end_say() {
        const SOON: Duration = Duration::from_secs(7 * 86_400);
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        let pki = PkiHome::of(&home);
        pki.create(NOW).unwrap();
        let file = folder.path().join("web1.pem");
        let standing = |now| pki.standing((Role::Device, "web1"), &file, SOON, now).unwrap();
        let after =
            |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(NOW.as_secs() + days * 86_400));
        let issue = || std::fs::write(&file, pki.issue(&wanted("web1", 90), NOW).unwrap().chain_pem).unwrap();

        assert_eq!(standing(NOW), Standing::Missing);
        issue();
        assert_eq!(
            (standing(NOW), standing(after(84)), standing(after(400))),
            (Standing::Good, Standing::Ending, Standing::Ending)
        );
        pki.revoke(Role::Device, "web1", NOW).unwrap();
        assert_eq!((standing(NOW), standing(after(400))), (Standing::Revoked, Standing::Revoked));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(standing(NOW), Standing::Revoked, "deleting the file is no way back in");
        issue();
        assert_eq!(standing(NOW), Standing::Good);
        pki.create(NOW).unwrap();
        assert_eq!(standing(NOW), Standing::Foreign);
    }

    #[test]
    fn negative_days_make_a_certificate_that_has_ended() {
        let (not_before, not_after) = validity(NOW, -2);

        assert!(not_before < not_after && not_after < NOW);
    }
}
