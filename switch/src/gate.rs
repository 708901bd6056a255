//! The gate: the one function that every entry of the gRPC listener passes.
//!
//! It asks who calls (the certificate's role and name) and what for. Who may sign for what is not its matter: clients
//! check signatures themselves, and the licence is the engine's.

use std::net::SocketAddr;

use muster_pki::{Role, Thumbprint};

use crate::config::{Grant, GrantKind, GrantRole};
use crate::metrics;

/// The peer of a connection, as its certificate says; the post-handshake check has accepted it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// By whose roots the certificate was accepted.
    pub(crate) role: Role,
    /// The name in it: first dNSName, else CN.
    pub(crate) name: String,
    /// Its SHA-256.
    pub(crate) thumbprint: Thumbprint,
    /// Where the peer connected from.
    pub(crate) address: SocketAddr,
}

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// Reads what the store holds.
    Read,
    /// Prepares an instruction of this definition; the kind is `None` until the version is resolved.
    Issue {
        /// The definition's name.
        definition: &'a str,
        /// Its kind.
        kind: Option<GrantKind>,
    },
    /// Submits a signed order, whose definition passed as `Issue` when it was prepared.
    Submit,
    /// Approves an instruction of this definition: whoever may issue it.
    Approve {
        /// The definition's name.
        definition: &'a str,
        /// Its kind; `None`: it is not known any more.
        kind: Option<GrantKind>,
    },
    /// Stops an instruction of this definition: whoever may issue it, and every administrator.
    Stop {
        /// The definition's name.
        definition: &'a str,
        /// Its kind; `None`: it is not known any more.
        kind: Option<GrantKind>,
    },
    /// Imports a definition, or the definitions of a pack.
    ImportDefinition,
    /// Imports a licence.
    ImportLicence,
    /// Imports a client policy.
    ImportPolicy,
    /// Removes a device.
    RemoveDevice,
    /// Blocks a device, or lets it in again.
    BlockDevice,
    /// Reads the whole store.
    Export,
    /// Relays events for devices.
    Relay,
}

/// Why a call is denied; each names what would admit it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// The connection carried no accepted certificate.
    #[error("no certificate was accepted on this connection: connect with an operator certificate")]
    Unauthenticated,
    /// The certificate is of a role that has no business here.
    #[error(
        "{name} has a certificate of role {got}, and this call is for role {wanted}: use a certificate that chains to the {wanted} roots"
    )]
    WrongRole {
        /// The caller.
        name: String,
        /// Its role.
        got: Role,
        /// The role the call is for.
        wanted: Role,
    },
    /// No grant covers the call.
    #[error(
        "no [[grant]] of the Switch's configuration lets {name} {act}: add one with role = \"{role}\"{narrowed}"
    )]
    NotGranted {
        /// The caller.
        name: String,
        /// What it wanted to do.
        act: String,
        /// The least role that may.
        role: &'static str,
        /// The prefix and kind the grant has to name, where they matter.
        narrowed: String,
    },
}

/// Decides who may do what.
#[derive(Debug)]
pub(crate) struct Gate {
    grants: Vec<Grant>,
}

impl Gate {
    /// Makes one from the configured grants; none: every operator may do all.
    pub(crate) fn new(grants: Vec<Grant>) -> Self {
        Self { grants }
    }

    /// Decides one call.
    ///
    /// # Errors
    /// Why it is denied. Denials are counted here and nowhere else.
    pub(crate) fn admit<'a>(
        &self,
        caller: Option<&'a Caller>,
        entry: Entry<'_>,
    ) -> Result<&'a Caller, Denied> {
        let decided = caller.ok_or(Denied::Unauthenticated).and_then(|caller| {
            authenticate(caller, entry)?;
            self.authorise(caller, entry)?;
            Ok(caller)
        });
        if let Err(denied) = &decided {
            metrics::denied(denied.label());
            let (address, thumbprint) = caller.map(|caller| (caller.address, caller.thumbprint)).unzip();
            tracing::warn!(%denied, ?address, ?thumbprint, "call denied");
        }
        decided
    }

    fn authorise(&self, caller: &Caller, entry: Entry<'_>) -> Result<(), Denied> {
        let Some(wanted) = least_role(entry) else { return Ok(()) };
        if self.grants.is_empty() || self.grants.iter().any(|grant| covers(grant, caller, wanted, entry)) {
            return Ok(());
        }
        Err(Denied::NotGranted {
            name: caller.name.clone(),
            act: act(entry),
            role: role_name(wanted),
            narrowed: narrowed(entry),
        })
    }
}

impl Denied {
    fn label(&self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::WrongRole { .. } => "wrong_role",
            Self::NotGranted { .. } => "not_granted",
        }
    }
}

/// Checks that the certificate's role may make such calls at all.
fn authenticate(caller: &Caller, entry: Entry<'_>) -> Result<(), Denied> {
    let wanted = match entry {
        Entry::Relay => Role::Service,
        Entry::Read
        | Entry::Issue { .. }
        | Entry::Submit
        | Entry::Approve { .. }
        | Entry::Stop { .. }
        | Entry::ImportDefinition
        | Entry::ImportLicence
        | Entry::ImportPolicy
        | Entry::RemoveDevice
        | Entry::BlockDevice
        | Entry::Export => Role::Operator,
    };
    if caller.role == wanted {
        return Ok(());
    }
    Err(Denied::WrongRole { name: caller.name.clone(), got: caller.role, wanted })
}

/// Returns the least role that may make the call; `None`: grants do not govern it.
fn least_role(entry: Entry<'_>) -> Option<GrantRole> {
    match entry {
        Entry::Read => Some(GrantRole::Viewer),
        Entry::Issue { .. } | Entry::Submit | Entry::Approve { .. } | Entry::Stop { .. } => {
            Some(GrantRole::Issuer)
        }
        Entry::ImportDefinition
        | Entry::ImportLicence
        | Entry::ImportPolicy
        | Entry::RemoveDevice
        | Entry::BlockDevice
        | Entry::Export => Some(GrantRole::Administrator),
        Entry::Relay => None,
    }
}

fn covers(grant: &Grant, caller: &Caller, wanted: GrantRole, entry: Entry<'_>) -> bool {
    let named =
        grant.operators.iter().any(|operator| operator == "*" || operator.eq_ignore_ascii_case(&caller.name));
    if !named || grant.role < wanted {
        return false;
    }
    let (definition, kind) = match entry {
        Entry::Issue { definition, kind } => (definition, kind),
        // Who looks after the Switch must be able to end whatever runs through it.
        Entry::Stop { .. } if grant.role >= GrantRole::Administrator => return true,
        Entry::Approve { definition, kind } | Entry::Stop { definition, kind } => (definition, kind),
        Entry::Read
        | Entry::Submit
        | Entry::ImportDefinition
        | Entry::ImportLicence
        | Entry::ImportPolicy
        | Entry::RemoveDevice
        | Entry::BlockDevice
        | Entry::Export
        | Entry::Relay => return true,
    };
    let prefix = prefix(definition);
    let prefix_fits = grant.prefixes.is_empty() || grant.prefixes.iter().any(|granted| granted == prefix);
    let kind_fits =
        grant.kinds.is_empty() || kind.map_or(is_asked_again(entry), |kind| grant.kinds.contains(&kind));
    prefix_fits && kind_fits
}

/// Returns whether a call whose definition's kind is not known comes again with it. An order is made of a definition that is held, and then its
/// kind is known. An approval and a stop are of an order that was made, and where its definition is damaged or gone nobody can tell any more
/// whether it is what the grant is limited to: who may only ask must neither let an action run nor end one. Every administrator may stop it.
fn is_asked_again(entry: Entry<'_>) -> bool {
    matches!(entry, Entry::Issue { .. })
}

/// The first component of a definition's name (G3 of signing.md).
fn prefix(definition: &str) -> &str {
    definition.split('-').next().unwrap_or(definition)
}

fn act(entry: Entry<'_>) -> String {
    match entry {
        Entry::Read => "read".to_owned(),
        Entry::Issue { definition, .. } => format!("issue `{definition}`"),
        Entry::Submit => "submit an order".to_owned(),
        Entry::Approve { definition, .. } => format!("approve an instruction of `{definition}`"),
        Entry::Stop { definition, .. } => format!("stop an instruction of `{definition}`"),
        Entry::ImportDefinition => "import a definition".to_owned(),
        Entry::ImportLicence => "import a licence".to_owned(),
        Entry::ImportPolicy => "import a policy".to_owned(),
        Entry::RemoveDevice => "remove a device".to_owned(),
        Entry::BlockDevice => "block a device".to_owned(),
        Entry::Export => "export the store".to_owned(),
        Entry::Relay => "relay events".to_owned(),
    }
}

fn narrowed(entry: Entry<'_>) -> String {
    let (Entry::Issue { definition, kind }
    | Entry::Approve { definition, kind }
    | Entry::Stop { definition, kind }) = entry
    else {
        return String::new();
    };
    let kind = match kind {
        Some(GrantKind::Question) => " and kinds = [\"question\"]",
        Some(GrantKind::Action) => " and kinds = [\"action\"]",
        None if is_asked_again(entry) => "",
        None => {
            " and no kinds, since its definition is not held here and nobody can tell its kind; or import that again"
        }
    };
    format!(", prefixes = [\"{}\"]{kind}", prefix(definition))
}

fn role_name(role: GrantRole) -> &'static str {
    match role {
        GrantRole::Viewer => "viewer",
        GrantRole::Issuer => "issuer",
        GrantRole::Administrator => "administrator",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASK: Entry<'static> =
        Entry::Issue { definition: "Acme-Security-Certs", kind: Some(GrantKind::Question) };
    const ACT: Entry<'static> =
        Entry::Issue { definition: "Acme-Service-Restart", kind: Some(GrantKind::Action) };

    const STOP: Entry<'static> =
        Entry::Stop { definition: "Acme-Service-Restart", kind: Some(GrantKind::Action) };

    #[test]
    fn an_instruction_is_stopped_by_whoever_may_issue_it_and_by_every_administrator() {
        let narrow = |role, prefix: &str, kind| Grant {
            prefixes: vec![prefix.to_owned()],
            kinds: vec![kind],
            ..grant(role)
        };
        for (granted, may) in [
            (narrow(GrantRole::Issuer, "Acme", GrantKind::Action), true),
            (narrow(GrantRole::Issuer, "Acme", GrantKind::Question), false),
            (narrow(GrantRole::Issuer, "Other", GrantKind::Action), false),
            (narrow(GrantRole::Administrator, "Other", GrantKind::Question), true),
            (grant(GrantRole::Viewer), false),
        ] {
            let said = format!("{granted:?}");
            let decided = Gate::new(vec![granted]).admit(Some(&caller(Role::Operator)), STOP).map(|_| ());
            assert_eq!(decided.is_ok(), may, "{said}: {decided:?}");
        }
        assert!(Gate::new(Vec::new()).admit(Some(&caller(Role::Device)), STOP).is_err());
    }

    #[test]
    fn an_instruction_is_approved_by_whoever_may_issue_it_and_by_nobody_else() {
        let approve = Entry::Approve { definition: "Acme-Service-Restart", kind: Some(GrantKind::Action) };
        let narrow = |role, prefix: &str, kind| Grant {
            prefixes: vec![prefix.to_owned()],
            kinds: vec![kind],
            ..grant(role)
        };
        for (granted, may) in [
            (narrow(GrantRole::Issuer, "Acme", GrantKind::Action), true),
            (narrow(GrantRole::Issuer, "Acme", GrantKind::Question), false),
            (narrow(GrantRole::Administrator, "Other", GrantKind::Action), false),
            (grant(GrantRole::Viewer), false),
        ] {
            let said = format!("{granted:?}");
            let decided = Gate::new(vec![granted]).admit(Some(&caller(Role::Operator)), approve).map(|_| ());
            assert_eq!(decided.is_ok(), may, "{said}: {decided:?}");
        }
        assert!(Gate::new(Vec::new()).admit(Some(&caller(Role::Service)), approve).is_err());
    }

    #[test]
    fn of_a_definition_whose_kind_nobody_knows_a_grant_that_is_limited_by_kinds_approves_and_stops_nothing() {
        let definition = "Acme-Service-Restart";
        let [approve, stop, issue] = [
            Entry::Approve { definition, kind: None },
            Entry::Stop { definition, kind: None },
            Entry::Issue { definition, kind: None },
        ];
        let of = |role, kinds: &[GrantKind]| Grant { kinds: kinds.to_vec(), ..grant(role) };
        let both = [GrantKind::Question, GrantKind::Action];
        for (granted, entry, may) in [
            (of(GrantRole::Issuer, &[GrantKind::Question]), approve, false),
            (of(GrantRole::Issuer, &[GrantKind::Question]), stop, false),
            (of(GrantRole::Issuer, &both), stop, false),
            (of(GrantRole::Administrator, &[GrantKind::Question]), approve, false),
            (of(GrantRole::Administrator, &[GrantKind::Question]), stop, true),
            (of(GrantRole::Issuer, &[]), approve, true),
            (of(GrantRole::Issuer, &[]), stop, true),
            // It is asked again when the version is found.
            (of(GrantRole::Issuer, &[GrantKind::Question]), issue, true),
        ] {
            let said = format!("{granted:?} {entry:?}");
            let decided = Gate::new(vec![granted]).admit(Some(&caller(Role::Operator)), entry).map(|_| ());
            assert_eq!(decided.is_ok(), may, "{said}: {decided:?}");
            if let Err(denied) = decided {
                assert!(denied.to_string().contains("nobody can tell its kind"), "{denied}");
            }
        }
    }

    #[test]
    fn without_grants_every_operator_may_do_all() {
        let gate = Gate::new(Vec::new());

        for entry in [
            Entry::Read,
            ASK,
            ACT,
            Entry::Submit,
            STOP,
            Entry::ImportDefinition,
            Entry::ImportLicence,
            Entry::ImportPolicy,
            Entry::RemoveDevice,
            Entry::BlockDevice,
            Entry::Export,
        ] {
            assert!(gate.admit(Some(&caller(Role::Operator)), entry).is_ok(), "{entry:?}");
        }
    }

    #[test]
    fn a_service_relays_and_nothing_else() {
        let gate = Gate::new(Vec::new());
        let service = caller(Role::Service);

        assert!(gate.admit(Some(&service), Entry::Relay).is_ok());
        assert!(matches!(gate.admit(Some(&service), Entry::Read), Err(Denied::WrongRole { .. })));
    }

    #[test]
    fn an_operator_never_relays() {
        let gate = Gate::new(vec![grant(GrantRole::Administrator)]);

        assert!(matches!(
            gate.admit(Some(&caller(Role::Operator)), Entry::Relay),
            Err(Denied::WrongRole { .. })
        ));
    }

    #[test]
    fn a_device_gets_nothing() {
        let gate = Gate::new(Vec::new());

        for entry in [Entry::Read, ASK, Entry::RemoveDevice, Entry::BlockDevice, Entry::Export, Entry::Relay]
        {
            assert!(gate.admit(Some(&caller(Role::Device)), entry).is_err(), "{entry:?}");
        }
        assert_eq!(gate.admit(None, Entry::Read).unwrap_err(), Denied::Unauthenticated);
    }

    #[test]
    fn a_viewer_reads_and_issues_nothing() {
        let gate = Gate::new(vec![grant(GrantRole::Viewer)]);

        assert!(gate.admit(Some(&caller(Role::Operator)), Entry::Read).is_ok());
        assert!(gate.admit(Some(&caller(Role::Operator)), ASK).is_err());
    }

    #[test]
    fn only_an_administrator_removes_or_blocks_devices() {
        let operator = caller(Role::Operator);
        for (role, may) in
            [(GrantRole::Viewer, false), (GrantRole::Issuer, false), (GrantRole::Administrator, true)]
        {
            let gate = Gate::new(vec![grant(role)]);

            assert_eq!(gate.admit(Some(&operator), Entry::RemoveDevice).is_ok(), may, "{role:?}");
            assert_eq!(gate.admit(Some(&operator), Entry::BlockDevice).is_ok(), may, "{role:?}");
        }
    }

    #[test]
    fn k1_only_an_administrator_imports_policies() {
        let operator = caller(Role::Operator);
        for (role, may) in
            [(GrantRole::Viewer, false), (GrantRole::Issuer, false), (GrantRole::Administrator, true)]
        {
            let gate = Gate::new(vec![grant(role)]);

            let decided = gate.admit(Some(&operator), Entry::ImportPolicy);

            assert_eq!(decided.is_ok(), may, "{role:?}");
            if let Err(denied) = decided {
                let said = denied.to_string();
                assert!(said.contains("import a policy: add one with role = \"administrator\""), "{said}");
            }
        }
        assert!(Gate::new(Vec::new()).admit(Some(&caller(Role::Device)), Entry::ImportPolicy).is_err());
    }

    #[test]
    fn prefixes_are_compared_exactly() {
        let gate = Gate::new(vec![Grant { prefixes: vec!["Acme".to_owned()], ..grant(GrantRole::Issuer) }]);
        let issue = |definition| {
            gate.admit(
                Some(OPERATOR.get_or_init(|| caller(Role::Operator))),
                Entry::Issue { definition, kind: None },
            )
        };

        assert!(issue("Acme-A-B").is_ok());
        assert!(issue("AcmeX-A-B").is_err());
        assert!(issue("acme-A-B").is_err());
    }

    #[test]
    fn a_denial_names_the_grant_that_would_help() {
        let gate = Gate::new(vec![Grant { kinds: vec![GrantKind::Question], ..grant(GrantRole::Issuer) }]);

        let denied = gate.admit(Some(&caller(Role::Operator)), ACT).unwrap_err().to_string();

        assert!(denied.contains("alice.acme.local"), "{denied}");
        assert!(
            denied.contains("role = \"issuer\", prefixes = [\"Acme\"] and kinds = [\"action\"]"),
            "{denied}"
        );
    }

    #[test]
    fn grants_of_others_do_not_count() {
        let gate = Gate::new(vec![Grant {
            operators: vec!["bob.acme.local".to_owned()],
            ..grant(GrantRole::Administrator)
        }]);

        assert!(gate.admit(Some(&caller(Role::Operator)), Entry::Read).is_err());
    }

    static OPERATOR: std::sync::OnceLock<Caller> = std::sync::OnceLock::new();

    fn caller(role: Role) -> Caller {
        Caller {
            role,
            name: "alice.acme.local".to_owned(),
            thumbprint: "00".repeat(32).parse().unwrap(),
            address: "127.0.0.1:1".parse().unwrap(),
        }
    }

    fn grant(role: GrantRole) -> Grant {
        Grant {
            operators: vec!["alice.acme.local".to_owned()],
            role,
            prefixes: Vec::new(),
            kinds: Vec::new(),
        }
    }
}
