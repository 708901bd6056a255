//! `muster client block` and `unblock`: devices that are kept out.

use muster_proto::operator::v1::{
    Block, BlockClientRequest, BlockClientResponse, ListBlockedClientsRequest, UnblockClientRequest,
};

use crate::exit::{Exit, Failure};
use crate::operator::{Operator, answered};
use crate::output::{self, Cell, Flag, Format, Table};

pub(super) async fn list(operator: &Operator, format: Format) -> Result<Exit, Failure> {
    let mut table = Table::new(["device", "operator", "at", "reason"]);
    let blocked =
        answered(operator.clients().list_blocked_clients(ListBlockedClientsRequest {})).await?.blocked;
    for Block { device, operator, at_ms, reason } in blocked {
        table.push(vec![Cell::text(device), Cell::text(operator), Cell::moment(at_ms), Cell::text(reason)]);
    }
    table.print(format)?;
    if table.len() == 0 {
        output::note("nobody is blocked");
    }
    Ok(Exit::Ok)
}

pub(super) async fn block(
    operator: &Operator,
    device: String,
    reason: String,
    format: Format,
) -> Result<Exit, Failure> {
    let request = BlockClientRequest { device, reason };
    let BlockClientResponse { block, was_online, known } =
        answered(operator.clients().block_client(request)).await?;
    let block = block.unwrap_or_default();
    match format {
        Format::Table | Format::Wide => {
            let session = if was_online { ", its session ended" } else { "" };
            output::print_line(&format!("{} blocked{session}", output::printable(&block.device)))?;
        }
        Format::Json | Format::Jsonl | Format::Csv => {
            let pairs = [
                ("device", Cell::text(&block.device)),
                ("was_online", Cell::flag(Flag::from(was_online))),
                ("known", Cell::flag(Flag::from(known))),
                ("operator", Cell::text(&block.operator)),
                ("at", Cell::moment(block.at_ms)),
                ("reason", Cell::text(&block.reason)),
            ];
            output::print_pairs(pairs.map(|(name, cell)| (name.to_owned(), cell)).into(), format)?;
        }
    }
    if !known {
        output::note("no device of that name is known; the block holds from its first connection on");
    }
    Ok(Exit::Ok)
}

pub(super) async fn unblock(operator: &Operator, device: String, format: Format) -> Result<Exit, Failure> {
    let request = UnblockClientRequest { device };
    let block = answered(operator.clients().unblock_client(request)).await?.block.unwrap_or_default();
    match format {
        Format::Table | Format::Wide => {
            output::print_line(&format!("{} unblocked", output::printable(&block.device)))?;
        }
        Format::Json | Format::Jsonl | Format::Csv => {
            let pairs = [
                ("device", Cell::text(&block.device)),
                ("blocked_by", Cell::text(&block.operator)),
                ("blocked_at", Cell::moment(block.at_ms)),
                ("reason", Cell::text(&block.reason)),
            ];
            output::print_pairs(pairs.map(|(name, cell)| (name.to_owned(), cell)).into(), format)?;
        }
    }
    Ok(Exit::Ok)
}
