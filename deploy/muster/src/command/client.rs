//! `muster client`: the devices.

use muster_proto::common::v1::{ColumnType, NamedValue};
use muster_proto::operator::v1::{Client as Device, GetClientRequest, ListClientsRequest};

use crate::cli::{Client, Listing};
use crate::exit::{Exit, Failure};
use crate::operator::Operator;
use crate::output::{self, Cell, Flag, Format, Table};

/// Runs a verb.
pub(crate) async fn run(operator: &Operator, verb: Client) -> Result<Exit, Failure> {
    match verb {
        Client::List { on, listing } => list(operator, on, &listing).await,
        Client::Show { device, output } => show(operator, device, output).await,
    }
}

async fn list(operator: &Operator, audience: String, listing: &Listing) -> Result<Exit, Failure> {
    let mut table = Table::new([
        "device",
        "online",
        "last_seen",
        "os",
        "version",
        "address",
        "certificate_until",
        "first_seen",
        "epoch",
        "thumbprint",
    ])
    .wide_only(&["first_seen", "epoch", "thumbprint", "certificate_until"]);
    for device in devices(operator, &audience, listing.limit).await? {
        table.push(vec![
            Cell::text(&device.device),
            Cell::flag(Flag::from(device.online)),
            Cell::moment(device.last_seen_at_ms),
            attribute(&device.attributes, "os"),
            attribute(&device.attributes, "version"),
            Cell::text(&device.address),
            Cell::moment(device.certificate_not_after_ms),
            Cell::moment(device.first_seen_at_ms),
            Cell::number(device.epoch),
            Cell::text(&device.thumbprint),
        ]);
    }
    table.print(listing.output)?;
    if table.len() == 0 {
        output::note("no device; a client shows up here once it has connected");
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
        let page = operator.clients().list_clients(request).await?.into_inner();
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

async fn show(operator: &Operator, device: String, format: Format) -> Result<Exit, Failure> {
    let found = operator
        .clients()
        .get_client(GetClientRequest { device })
        .await?
        .into_inner()
        .client
        .unwrap_or_default();
    let mut pairs = vec![
        ("device".to_owned(), Cell::text(&found.device)),
        ("online".to_owned(), Cell::flag(Flag::from(found.online))),
        ("first_seen".to_owned(), Cell::moment(found.first_seen_at_ms)),
        ("last_seen".to_owned(), Cell::moment(found.last_seen_at_ms)),
        ("address".to_owned(), Cell::text(&found.address)),
        ("epoch".to_owned(), Cell::number(found.epoch)),
        ("thumbprint".to_owned(), Cell::text(&found.thumbprint)),
        ("certificate_until".to_owned(), Cell::moment(found.certificate_not_after_ms)),
    ];
    for attribute in &found.attributes {
        let value = attribute.value.clone().unwrap_or_default();
        pairs.push((attribute.name.clone(), Cell::value(&value, ColumnType::Unspecified)));
    }
    output::print_pairs(pairs, format)?;
    Ok(Exit::Ok)
}
