//! Definitions, licences and policies.

use std::time::Duration;

use muster_pki::authority::{Authority, Issued};
use muster_pki::{Role, UnixTime};
use muster_proto::ids::Digest;
use muster_signing::envelope::{self, ContentType};
use muster_signing::licence::{Licence, Terms};

use super::{DEFINITION, Lab, TENANT, issue, seconds, sign, signer};

impl Lab {
    /// Signs another definition than [`Self::definition`], of the same name and version.
    pub(crate) fn definition_of(&self, sql: &str, run_time: &str) -> Vec<u8> {
        let text = DEFINITION.replace("SELECT 41 + 1 AS answer", sql);
        let text = text.replace("run_time = \"10s\"", &format!("run_time = {run_time:?}"));
        sign(text.as_bytes(), ContentType::Definition, &signer(&self.author))
    }

    /// Signs an action of the name and version of [`Self::definition`].
    pub(crate) fn action(&self) -> Vec<u8> {
        let text = DEFINITION.replace("kind = \"question\"", "kind = \"action\"");
        sign(text.as_bytes(), ContentType::Definition, &signer(&self.author))
    }

    /// Signs a definition of the name and version of [`Self::definition`] whose answer comes from a script.
    pub(crate) fn scripted(&self) -> Vec<u8> {
        self.scripted_by("echo '{\"answer\":42}'", "10s")
    }

    /// As [`Self::scripted`], of another script.
    pub(crate) fn scripted_by(&self, script: &str, run_time: &str) -> Vec<u8> {
        let script = format!("script = {{ interpreter = \"/bin/sh\", text = {script:?} }}");
        let text = DEFINITION.replace("query = \"SELECT 41 + 1 AS answer\"", &script);
        let text = text.replace("run_time = \"10s\"", &format!("run_time = {run_time:?}"));
        sign(text.as_bytes(), ContentType::Definition, &signer(&self.author))
    }

    /// Signs a definition that needs a resource, which is nowhere.
    pub(crate) fn definition_with_resource(&self) -> Vec<u8> {
        let resource = format!("\n[[resource]]\nname = \"list\"\nsize = 5\nroot = \"{}\"\n", "ab".repeat(32));
        let text = DEFINITION.replace("SELECT 41 + 1 AS answer", "SELECT length(:resource_list) AS answer");
        sign((text + &resource).as_bytes(), ContentType::Definition, &signer(&self.author))
    }

    /// Signs a definition that asks for an approval.
    pub(crate) fn approved_definition(&self) -> Vec<u8> {
        let text = format!("approvals = 1\n{DEFINITION}");
        sign(text.as_bytes(), ContentType::Definition, &signer(&self.author))
    }

    pub(crate) fn definition_digest(&self) -> Digest {
        envelope::digest(&self.definition)
    }

    /// Signs a licence of another tenant or serial than [`Self::licence`].
    pub(crate) fn licence_of(&self, tenant: &str, serial: u64) -> Vec<u8> {
        licence(&self.author, &self.licensor, tenant, serial, None)
    }

    /// Signs a licence whose successor should have come a minute ago.
    pub(crate) fn overdue_licence(&self, serial: u64) -> Vec<u8> {
        let minute_ago = seconds(UnixTime::now().as_secs() - 60);
        licence(&self.author, &self.licensor, TENANT, serial, Some(minute_ago))
    }

    pub(crate) fn licence_digest(&self) -> Digest {
        envelope::digest(&self.licence)
    }

    /// Signs a policy of the administrators; `more` is TOML behind serial and tenant.
    pub(crate) fn policy(&self, serial: u64, more: &str) -> Vec<u8> {
        policy(serial, more, &self.administrator)
    }

    /// Signs a policy as somebody who has a certificate for it, of a CA that this fleet does not know.
    pub(crate) fn foreign_policy(&self, serial: u64, more: &str) -> Vec<u8> {
        let root = Authority::root("Liars", Duration::from_secs(86_400), UnixTime::now()).unwrap();
        policy(serial, more, &issue(&root, "administrator", Role::Policy))
    }

    /// Signs a policy as an operator, whose root is trusted for orders.
    pub(crate) fn policy_by_operator(&self, serial: u64, more: &str) -> Vec<u8> {
        policy(serial, more, &self.operator)
    }
}

pub(super) fn licence(
    author: &Issued,
    licensor: &Issued,
    tenant: &str,
    serial: u64,
    refresh_by: Option<UnixTime>,
) -> Vec<u8> {
    let now = UnixTime::now().as_secs();
    let terms = Terms {
        serial,
        licensee: "Acme".to_owned(),
        tenant: tenant.to_owned(),
        not_before: UnixTime::since_unix_epoch(Duration::from_secs(now - 1_000)),
        not_after: UnixTime::since_unix_epoch(Duration::from_secs(now + 3_000)),
        refresh_by,
        features: [].into(),
        prefixes: [("Acme".to_owned(), [author.certificate.thumbprint()].into())].into(),
        minimum_versions: [].into(),
        distrusted: [].into(),
    };
    let text = Licence::new(terms).unwrap().to_text().unwrap();
    sign(text.as_bytes(), ContentType::Licence, &signer(licensor))
}

fn policy(serial: u64, more: &str, administrator: &Issued) -> Vec<u8> {
    let text = format!("serial = {serial}\ntenant = {TENANT:?}\n{more}");
    sign(text.as_bytes(), ContentType::Policy, &signer(administrator))
}
