//! `muster client`: the devices.

mod block;

use std::io::IsTerminal as _;

use muster_proto::common::v1::{ColumnType, NamedValue};
use muster_proto::operator::v1::{
    Client as Device, GetClientRequest, ListClientsRequest, ListRefusedClientsRequest, RemoveClientRequest,
    RemoveClientResponse,
};

use super::policy;
use crate::cli::{Client, Listing};
use crate::exit::{Exit, Failure};
use crate::operator::{Operator, answered};
use crate::output::{self, Cell, Flag, Format, Table};

/// Runs a verb.
pub(crate) async fn run(operator: &Operator, verb: Client) -> Result<Exit, Failure> {
    match verb {
        Client::List { refused: true, listing, .. } => refused(operator, &listing).await,
        Client::List { blocked: true, listing, .. } => block::list(operator, listing.output).await,
        Client::List { on, listing, .. } => list(operator, on, &listing).await,
        Client::Show { device, output } => show(operator, device, output).await,
        Client::Block { device, reason, output } => block::block(operator, device, reason, output).await,
        Client::Unblock { device, output } => block::unblock(operator, device, output).await,
        Client::Remove { device, yes, output } => remove(operator, device, yes, output).await,
    }
}

async fn list(operator: &Operator, audience: String, listing: &Listing) -> Result<Exit, Failure> {
    let mut table = Table::new([
        "device",
        "online",
        "blocked",
        "unauthenticated",
        "last_seen",
        "os",
        "address",
        "policy",
        "version",
        "certificate_until",
        "first_seen",
        "epoch",
        "thumbprint",
    ]);
    // One more than is shown tells whether there are more.
    let mut found = devices(operator, &audience, listing.limit.saturating_add(1)).await?;
    let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
    let has_more = found.len() > limit;
    found.truncate(limit);
    let has_policies = listing.output == Format::Table && policy::is_any_held(operator).await?;
    let serial: &[&str] = if has_policies { &[] } else { &["policy"] };
    let is_any_unauthenticated = found.iter().any(|device| device.unauthenticated);
    let standing: &[&str] = if is_any_unauthenticated { &[] } else { &["unauthenticated"] };
    let wide = ["version", "first_seen", "epoch", "thumbprint", "certificate_until"];
    table = table.wide_only(&[&wide[..], serial, standing].concat());
    for device in found {
        table.push(vec![
            Cell::text(&device.device),
            Cell::flag(Flag::from(device.online)),
            Cell::flag(Flag::from(device.blocked.is_some())),
            Cell::flag(Flag::from(device.unauthenticated)),
            Cell::moment(device.last_seen_at_ms),
            attribute(&device.attributes, "os"),
            Cell::text(&device.address),
            Cell::number(device.policy_serial),
            attribute(&device.attributes, "version"),
            Cell::moment(device.certificate_not_after_ms),
            Cell::moment(device.first_seen_at_ms),
            Cell::number(device.epoch),
            Cell::text(&device.thumbprint),
        ]);
    }
    table.print(listing.output)?;
    if has_more {
        output::note_more(listing.limit);
    }
    if table.len() == 0 {
        output::note(match audience.as_str() {
            "" => "no device; a client shows up here once it has connected",
            _ => "no device is in that audience",
        });
    }
    Ok(Exit::Ok)
}

/// Who was turned away lately, and by which rules (C14).
async fn refused(operator: &Operator, listing: &Listing) -> Result<Exit, Failure> {
    let mut table = Table::new([
        "last_at",
        "listener",
        "peer",
        "rules",
        "findings",
        "address",
        "count",
        "first_at",
        "peer_subject",
        "peer_serial",
        "peer_thumbprint",
        "subject",
        "serial",
        "thumbprint",
        "issuer",
    ])
    .wide_only(&[
        "first_at",
        "peer_subject",
        "peer_serial",
        "peer_thumbprint",
        "subject",
        "serial",
        "thumbprint",
        "issuer",
    ]);
    let request = ListRefusedClientsRequest { limit: listing.limit.clamp(1, 1_000) };
    let found = operator.clients().list_refused_clients(request).await?.into_inner().refused;
    for one in found {
        let names = [&one.peer, &one.peer_subject, &one.peer_thumbprint, &one.subject];
        let peer = names.into_iter().find(|name| !name.is_empty()).map_or("(no certificate)", String::as_str);
        table.push(vec![
            Cell::moment(one.last_at_ms),
            Cell::text(&one.listener),
            Cell::text(peer),
            Cell::text(one.rules.join(" ")),
            Cell::text(one.findings.join("; ")),
            Cell::text(&one.address),
            Cell::number(one.count),
            Cell::moment(one.first_at_ms),
            Cell::text(&one.peer_subject),
            Cell::text(&one.peer_serial),
            Cell::text(&one.peer_thumbprint),
            Cell::text(&one.subject),
            Cell::text(&one.serial),
            Cell::text(&one.thumbprint),
            Cell::text(&one.issuer),
        ]);
    }
    table.print(listing.output)?;
    if table.len() == 0 {
        output::note("nobody was turned away since the Switch started");
    }
    Ok(Exit::Ok)
}

/// Devices by DeviceId, page by page.
pub(crate) async fn devices(operator: &Operator, audience: &str, limit: u32) -> Result<Vec<Device>, Failure> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut devices = Vec::new();
    let mut page_token = String::new();
    loop {
        let left = u32::try_from(limit.saturating_sub(devices.len())).unwrap_or(u32::MAX);
        let request =
            ListClientsRequest { audience: audience.to_owned(), page_size: left.min(1_000), page_token };
        let page = answered(operator.clients().list_clients(request)).await?;
        devices.extend(page.clients);
        page_token = page.next_page_token;
        if page_token.is_empty() || devices.len() >= limit {
            return Ok(devices);
        }
    }
}

fn attribute(attributes: &[NamedValue], name: &str) -> Cell {
    attributes
        .iter()
        .find(|attribute| attribute.name == name)
        .and_then(|attribute| attribute.value.as_ref())
        .map_or_else(|| Cell::text(""), |value| Cell::value(value, ColumnType::Unspecified))
}

fn text(attribute: &NamedValue) -> String {
    let value = attribute.value.clone().unwrap_or_default();
    Cell::value(&value, ColumnType::Unspecified).text
}

async fn show(operator: &Operator, device: String, format: Format) -> Result<Exit, Failure> {
    let found = answered(operator.clients().get_client(GetClientRequest { device }))
        .await?
        .client
        .unwrap_or_default();
    let mut pairs = vec![
        ("device".to_owned(), Cell::text(&found.device)),
        ("online".to_owned(), Cell::flag(Flag::from(found.online))),
        ("first_seen".to_owned(), Cell::moment(found.first_seen_at_ms)),
        ("unauthenticated".to_owned(), Cell::flag(Flag::from(found.unauthenticated))),
        ("last_seen".to_owned(), Cell::moment(found.last_seen_at_ms)),
        ("address".to_owned(), Cell::text(&found.address)),
        ("epoch".to_owned(), Cell::number(found.epoch)),
        ("thumbprint".to_owned(), Cell::text(&found.thumbprint)),
        ("certificate_until".to_owned(), Cell::moment(found.certificate_not_after_ms)),
        ("policy".to_owned(), Cell::number(found.policy_serial)),
        ("blocked".to_owned(), Cell::flag(Flag::from(found.blocked.is_some()))),
    ];
    if let Some(block) = &found.blocked {
        pairs.push(("blocked_by".to_owned(), Cell::text(&block.operator)));
        pairs.push(("blocked_at".to_owned(), Cell::moment(block.at_ms)));
        pairs.push(("blocked_reason".to_owned(), Cell::text(&block.reason)));
    }
    // What a client says of itself must not hide what the Switch knows of it.
    let known: Vec<String> = pairs.iter().map(|(name, _)| name.clone()).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let says_new = |attribute: &&NamedValue| attribute.name != "device" || text(attribute) != found.device;
    let said: Vec<&NamedValue> = found.attributes.iter().filter(says_new).collect();
    let names = output::distinct(&known, said.iter().map(|attribute| attribute.name.as_str()));
    for (name, attribute) in names.into_iter().zip(said) {
        let value = attribute.value.clone().unwrap_or_default();
        pairs.push((name, Cell::value(&value, ColumnType::Unspecified)));
    }
    output::print_pairs(pairs, format)?;
    Ok(Exit::Ok)
}

async fn remove(operator: &Operator, device: String, yes: bool, format: Format) -> Result<Exit, Failure> {
    if !yes {
        // A name that nobody has is told before anything is asked.
        let request = GetClientRequest { device: device.clone() };
        let found = answered(operator.clients().get_client(request)).await?.client.unwrap_or_default();
        confirm(&found.device)?;
    }
    let removed = answered(operator.clients().remove_client(RemoveClientRequest { device })).await?;
    let RemoveClientResponse { device, was_online, cancelled_targets } = removed;
    match format {
        Format::Table | Format::Wide => {
            output::print_line(&format!("{device} removed, {cancelled_targets} open targets cancelled"))?;
        }
        Format::Json | Format::Jsonl | Format::Csv => {
            let pairs = [
                ("device", Cell::text(&device)),
                ("was_online", Cell::flag(Flag::from(was_online))),
                ("cancelled_targets", Cell::number(cancelled_targets)),
            ];
            output::print_pairs(pairs.map(|(name, cell)| (name.to_owned(), cell)).into(), format)?;
        }
    }
    if was_online {
        output::note(
            "it was online, and comes back as a new device unless it is blocked or its certificate is revoked",
        );
    }
    Ok(Exit::Ok)
}

/// Asks for the device's name, as a person who means it types it.
fn confirm(device: &str) -> Result<(), Failure> {
    let refuse = |why: &str| {
        Failure::usage(format!("{device} is not removed: {why}"))
            .with_next(format!("muster client remove {device} --yes"))
    };
    if !std::io::stdin().is_terminal() {
        return Err(refuse("no terminal to confirm it on"));
    }
    output::note(&format!("Type the device's name to remove it ({}):", output::printable(device)));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| refuse(&error.to_string()))?;
    if is_confirmed(&line, device) { Ok(()) } else { Err(refuse("the name typed was another")) }
}

fn is_confirmed(line: &str, device: &str) -> bool {
    line.trim().eq_ignore_ascii_case(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_devices_own_name_confirms_its_removal() {
        assert!(is_confirmed("WEB1.example.org\n", "web1.example.org"));
        for other in ["", "\n", "y\n", "web1\n", "web2.example.org\n"] {
            assert!(!is_confirmed(other, "web1.example.org"), "{other:?}");
        }
    }
}
