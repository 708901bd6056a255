//! `muster policy`: where a fleet's clients connect and whom they trust there, as its administrators signed it.

use std::path::{Path, PathBuf};

use muster_pki::UnixTime;
use muster_proto::operator::v1::{ClientPolicy, GetPolicyRequest, ImportPolicyRequest, ListPoliciesRequest};
use muster_sign::FileKind;

use crate::cli::Policy;
use crate::exit::{Exit, Failure};
use crate::home::{Home, read_file};
use crate::operator::{Operator, answered};
use crate::output::{self, Cell, Flag, Format, Table};

/// Runs a verb.
pub(crate) async fn run(operator: &Operator, home: &Home, verb: Policy) -> Result<Exit, Failure> {
    match verb {
        Policy::Import { files, output } => import(operator, &files, output).await,
        Policy::List { output } => list(operator, output).await,
        Policy::Show { serial, output } => show(operator, home, serial, output).await,
    }
}

async fn import(operator: &Operator, files: &[PathBuf], format: Format) -> Result<Exit, Failure> {
    let (mut table, mut notes) = (table(), Vec::new());
    for file in files {
        let imported = import_one(operator, file).await?;
        table.push(row(&imported));
        notes.push(taken(&imported));
    }
    table.print(format)?;
    notes.dedup();
    notes.iter().for_each(|note| output::note(note));
    Ok(Exit::Ok)
}

/// Says what becomes of a policy that the Switch holds.
fn taken(policy: &ClientPolicy) -> String {
    if policy.superseded {
        let serial = policy.serial;
        return format!(
            "no device takes policy {serial}: a later one is for all of them; sign what it says under a higher serial"
        );
    }
    "devices take it at once, or when they connect; muster policy list shows how many follow it".to_owned()
}

async fn import_one(operator: &Operator, file: &Path) -> Result<ClientPolicy, Failure> {
    let bytes = read_file(
        file,
        FileKind::ENVELOPE,
        "muster-sign policy sign FILE.toml --key F --cert F --out FILE.cms",
    )?;
    let envelope =
        muster_sign::read_envelope(&bytes).map_err(|error| Failure::no_document(error).in_file(file))?;
    let imported = answered(operator.policies().import_policy(ImportPolicyRequest { envelope })).await;
    let response = imported.map_err(|status| Failure::of_document(status).in_file(file))?;
    Ok(response.policy.unwrap_or_default())
}

async fn list(operator: &Operator, format: Format) -> Result<Exit, Failure> {
    let mut table = table();
    let held = answered(operator.policies().list_policies(ListPoliciesRequest {})).await?.policies;
    held.iter().for_each(|policy| table.push(row(policy)));
    table.print(format)?;
    if table.len() == 0 {
        output::note(
            "no policy yet, so clients go on as they were installed; import one: muster policy import FILE",
        );
    }
    Ok(Exit::Ok)
}

/// Whether the Switch holds any policy. One of a version that knows none has none.
pub(crate) async fn is_any_held(operator: &Operator) -> Result<bool, Failure> {
    match answered(operator.policies().list_policies(ListPoliciesRequest {})).await {
        Ok(listed) => Ok(!listed.policies.is_empty()),
        Err(status) if status.code() == tonic::Code::Unimplemented => Ok(false),
        Err(status) => Err(status.into()),
    }
}

fn table() -> Table {
    Table::new([
        "serial",
        "audience",
        "following",
        "behind",
        "superseded",
        "says",
        "imported",
        "signer",
        "signed",
        "digest",
        "signer_thumbprint",
        "tenant",
    ])
    .wide_only(&["imported", "signer", "signed", "digest", "signer_thumbprint", "tenant"])
}

fn row(policy: &ClientPolicy) -> Vec<Cell> {
    vec![
        Cell::number(policy.serial),
        audience(policy),
        Cell::number(policy.following),
        Cell::number(policy.behind),
        Cell::flag(Flag::from(policy.superseded)),
        Cell::text(&policy.says),
        Cell::moment(policy.imported_at_ms),
        Cell::text(&policy.signer),
        Cell::moment(policy.signed_at_ms),
        Cell::text(&policy.digest),
        Cell::text(&policy.signer_thumbprint),
        Cell::text(&policy.tenant),
    ]
}

/// An empty audience is everyone; programs get it as it is.
fn audience(policy: &ClientPolicy) -> Cell {
    let mut cell = Cell::text(&policy.audience);
    if policy.audience.is_empty() {
        "(all)".clone_into(&mut cell.text);
    }
    cell
}

async fn show(operator: &Operator, home: &Home, serial: u64, format: Format) -> Result<Exit, Failure> {
    let found = answered(operator.policies().get_policy(GetPolicyRequest { serial })).await?;
    let shown = found.policy.unwrap_or_default();
    let text = verified_text(home, &found.envelope)?;
    match format {
        Format::Table | Format::Wide => {
            let audience = audience(&shown).text;
            let superseded = if shown.superseded { " · superseded" } else { "" };
            output::note(&format!(
                "# policy {serial} · signed by {} · for {audience} · {} follow it, {} are behind{superseded}",
                shown.signer, shown.following, shown.behind
            ));
            output::print_text(text.trim_end())?;
        }
        Format::Json | Format::Jsonl | Format::Csv => {
            let table = table();
            let names = table.columns().iter().cloned();
            let mut pairs: Vec<(String, Cell)> = names.zip(row(&shown)).collect();
            pairs.push(("text".to_owned(), Cell::text(text)));
            output::print_pairs(pairs, format)?;
        }
    }
    Ok(Exit::Ok)
}

/// Verifies a policy with the home's own roots: the Switch is not believed.
fn verified_text(home: &Home, envelope: &[u8]) -> Result<String, Failure> {
    let roots = home.document_roots("policies")?;
    let verified = muster_sign::verify_policy(envelope, &roots.anchors(), None, UnixTime::now())
        .map_err(|error| Failure::denied(format!("the policy's signature: {error}")))?;
    Ok(verified.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_that_a_policy_may_name_without_a_warning_are_those_of_a_client() {
        let names: Vec<&str> = muster_endpoint::schema().iter().map(|table| table.name).collect();

        assert_eq!(names, muster_signing::policy::TABLES);
    }

    #[test]
    fn k3_a_policy_that_a_later_one_has_superseded_is_told_to_be_taken_by_nobody() {
        let policy = |superseded| ClientPolicy { serial: 3, superseded, ..ClientPolicy::default() };

        assert!(taken(&policy(false)).starts_with("devices take it at once"));
        assert!(taken(&policy(true)).starts_with("no device takes policy 3: a later one is for all of them"));
    }

    #[test]
    fn a_policy_without_an_audience_is_for_all_and_says_so_to_people_only() {
        let cell = audience(&ClientPolicy::default());

        assert_eq!((cell.text.as_str(), cell.json.as_str()), ("(all)", Some("")));
        let some = ClientPolicy { audience: "os == \"linux\"".to_owned(), ..ClientPolicy::default() };
        assert_eq!(audience(&some).text, "os == \"linux\"");
    }
}
