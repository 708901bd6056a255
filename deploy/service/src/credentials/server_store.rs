//! A server's own certificate as it is configured: files that are named, or a folder of which the rules choose (S7, N1).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use muster_pki::select::{Selection, SelectionSettings, ServerNames, Wanted};
use serde::{Deserialize, Serialize};

use super::store::{CertificateStore, StoreSettings};
use super::{CredentialFiles, Own};
use crate::config::Invalid;

/// Where Linux keeps the host name, and the names of addresses.
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";
const HOSTS_FILE: &str = "/etc/hosts";

/// The table `[tls]` of a server: files and folders, never values. Each program has its own default files ([`Self::in_folder`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerTls {
    /// PEM: the certificate (serverAuth), then its intermediates; or a PFX with the key in it. Default `tls.pem` in the program's
    /// folder of `/etc/muster`.
    pub certificate: PathBuf,
    /// PEM: its private key; not looked at beside a PFX. Default `tls.key` there.
    pub key: PathBuf,
    /// A file with the password of the PFX or the key, or of those in the `store`. Default: none.
    pub password_file: Option<PathBuf>,
    /// A folder of certificates with their keys (PFX or PEM), of which the best is taken, in place of `certificate` and `key`, which are
    /// empty then (S7 of trust.md). Watched. Default: none.
    pub store: PathBuf,
    /// The FQDN that the certificate of the `store` must have; its first label, the host name, does as well. Default: this machine's
    /// host name and FQDN.
    pub server_name: String,
    /// Which certificate of the `store` is taken: `cert_issuer`, `thumbprint` and `follow_successor`.
    pub selection: SelectionSettings,
}

impl ServerTls {
    /// Returns the defaults of a program whose files lie in a folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { certificate: folder.join("tls.pem"), key: folder.join("tls.key"), ..Self::default() }
    }

    /// Returns whether the certificate is chosen from a folder.
    #[must_use]
    pub fn has_store(&self) -> bool {
        !self.store.as_os_str().is_empty()
    }

    /// Returns what of the table cannot work; keys are within `tls`.
    #[must_use]
    pub fn findings(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        let mut refuse = |key: &str, problem: String| found.push(Invalid::new(key, problem).within("tls"));
        let certificate = &self.certificate;
        match (self.has_store(), !certificate.as_os_str().is_empty()) {
            (true, true) => refuse(
                "store",
                format!(
                    "is given beside tls.certificate ({}); set certificate = \"\" and key = \"\", or leave store out",
                    certificate.display()
                ),
            ),
            (false, false) => refuse(
                "certificate",
                "is empty, and there is no tls.store; name the certificate's file with its key, or a folder as store"
                    .to_owned(),
            ),
            (true, false) | (false, true) => {}
        }
        if !self.has_store() && self.selection != SelectionSettings::default() {
            refuse("selection", "chooses from a tls.store, and none is given".to_owned());
        }
        if !self.has_store() && !self.server_name.is_empty() {
            refuse("server_name", "looks for a certificate in a tls.store, and none is given".to_owned());
        }
        if !self.selection.cert_subject.is_empty() {
            let problem = "a server's certificate is preferred by its names (S7), never by cert_subject; \
                           leave it out, or name one certificate by its thumbprint";
            refuse("selection.cert_subject", problem.to_owned());
        }
        if let Err(error) = Selection::try_from(self.selection.clone()) {
            refuse("selection", error.to_string());
        }
        found
    }

    /// Returns where the certificate comes from; `remembered` is where a pinned one is remembered over restarts (N2), `None` for
    /// a mere check. All listeners of one process take the same, so that they show the same certificate.
    #[must_use]
    pub fn own(&self, remembered: Option<PathBuf>) -> Own {
        if !self.has_store() {
            return Own::Files(CredentialFiles {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
                password_file: self.password_file.clone(),
            });
        }
        let names = match self.server_name.as_str() {
            "" => machine_names(),
            name => ServerNames::of_full(name),
        };
        Own::Store(Arc::new(CertificateStore::new(StoreSettings {
            folder: self.store.clone(),
            password_file: self.password_file.clone(),
            // It was validated with the configuration.
            selection: Selection::try_from(self.selection.clone()).unwrap_or_default(),
            wanted: Wanted::Server(names),
            remembered,
        })))
    }

    /// Returns the file that the certificate is read from, with the CAs above it; none where it is chosen from a folder.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        (!self.has_store()).then(|| self.certificate.clone())
    }
}

/// Returns what this machine is called. A name that cannot be read is empty, and no certificate has it.
fn machine_names() -> ServerNames {
    let hostname = std::fs::read_to_string(HOSTNAME_FILE).unwrap_or_default();
    let hosts = std::fs::read_to_string(HOSTS_FILE).unwrap_or_default();
    names_of(hostname.trim(), &hosts)
}

/// Returns host name and FQDN: a host name with a domain is both, else /etc/hosts tells the domain.
fn names_of(hostname: &str, hosts: &str) -> ServerNames {
    if hostname.contains('.') {
        return ServerNames::of_full(hostname);
    }
    let full = hosts.lines().find_map(|line| {
        let mut names = line.split('#').next().unwrap_or_default().split_whitespace().skip(1);
        let canonical = names.next()?;
        let is_ours =
            canonical.eq_ignore_ascii_case(hostname) || names.any(|name| name.eq_ignore_ascii_case(hostname));
        is_ours.then(|| canonical.to_owned())
    });
    ServerNames::new(hostname, full.unwrap_or_else(|| hostname.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s7_a_machine_is_called_by_its_host_name_and_its_full_name() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 w701.acme.local w701 # this machine\n10.0.0.2 w702.acme.local w702\n";

        assert_eq!(names_of("W701", hosts), ServerNames::new("W701", "w701.acme.local"));
        assert_eq!(names_of("w701.acme.local", ""), ServerNames::new("w701", "w701.acme.local"));
        assert_eq!(names_of("w703", hosts), ServerNames::new("w703", "w703"));
        assert_eq!(
            names_of("machine", hosts),
            ServerNames::new("machine", "machine"),
            "a comment is no name"
        );
        let own_first = "10.0.0.3 w703 box\n10.0.0.4 w704.acme.local w703\n";
        assert_eq!(
            names_of("w703", own_first),
            ServerNames::new("w703", "w703"),
            "the first line that has it"
        );
    }

    #[test]
    fn s7_files_and_folder_exclude_each_other_and_a_subject_is_no_preference_of_servers() {
        let default = SelectionSettings::default();
        let by_subject = SelectionSettings { cert_subject: "Acme".to_owned(), ..default.clone() };
        let no_thumbprint = SelectionSettings { thumbprint: "beef".to_owned(), ..default.clone() };
        let tls =
            |certificate: &str, store: &str, server_name: &str, selection: &SelectionSettings| ServerTls {
                certificate: certificate.into(),
                key: certificate.into(),
                password_file: None,
                store: store.into(),
                server_name: server_name.to_owned(),
                selection: selection.clone(),
            };
        let (empty, file, folder) = ("", "/tls.pem", "/store");
        for (tls, wanted) in [
            (tls(file, empty, "", &default), &[][..]),
            (tls(empty, folder, "switch.acme.local", &default), &[]),
            (tls(file, folder, "", &default), &["tls.store"]),
            (tls(empty, empty, "", &default), &["tls.certificate"]),
            (tls(file, empty, "switch", &default), &["tls.server_name"]),
            (tls(empty, folder, "", &by_subject), &["tls.selection.cert_subject"]),
            (tls(empty, folder, "", &no_thumbprint), &["tls.selection"]),
            (tls(file, empty, "", &by_subject), &["tls.selection", "tls.selection.cert_subject"]),
        ] {
            let findings = tls.findings();
            let keys: Vec<&str> = findings.iter().map(Invalid::key).collect();
            assert_eq!(keys, wanted, "{tls:?}");
        }
        assert_eq!(tls(file, empty, "", &default).file(), Some(file.into()));
        assert_eq!(tls(empty, folder, "", &default).file(), None, "a folder is no file of ours");
    }
}
