//! `muster policy`: where a fleet's clients connect and whom they trust there, as its administrators signed it.

use std::path::{Path, PathBuf};

use muster_pki::{Roots, UnixTime};
use muster_proto::operator::v1::{ClientPolicy, GetPolicyRequest, ImportPolicyRequest, ListPoliciesRequest};

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
    let mut table = table();
    for file in files {
        table.push(row(&import_one(operator, file).await?));
    }
    table.print(format)?;
    output::note(
        "devices take it at once, or when they connect; muster policy list shows how many follow it",
    );
    Ok(Exit::Ok)
}

async fn import_one(operator: &Operator, file: &Path) -> Result<ClientPolicy, Failure> {
    let bytes = read_file(file, "muster-sign policy sign FILE.toml --key F --cert F --out FILE.cms")?;
    let envelope = muster_sign::read_envelope(&bytes)
        .map_err(|error| Failure::usage(error.to_string()).in_file(file))?;
    let imported = answered(operator.policies().import_policy(ImportPolicyRequest { envelope })).await;
    let response = imported.map_err(|status| Failure::from(status).in_file(file))?;
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
            output::print_line(text.trim_end())?;
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
    let path = home.roots("policies");
    let next = format!("put the roots of the policies' administrators at {}", path.display());
    let roots = Roots::from_pem(&read_file(&path, &next)?, &path.display().to_string())
        .map_err(|error| Failure::denied(error.to_string()))?;
    let verified = muster_sign::verify_policy(envelope, &roots, None, UnixTime::now())
        .map_err(|error| Failure::denied(format!("the policy's signature: {error}")))?;
    Ok(verified.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_without_an_audience_is_for_all_and_says_so_to_people_only() {
        let cell = audience(&ClientPolicy::default());

        assert_eq!((cell.text.as_str(), cell.json.as_str()), ("(all)", Some("")));
        let some = ClientPolicy { audience: "os == \"linux\"".to_owned(), ..ClientPolicy::default() };
        assert_eq!(audience(&some).text, "os == \"linux\"");
    }
}
