//! `muster-sign exchange`.

use std::path::Path;

use anyhow::Context as _;
use muster_pki::UnixTime;
use muster_signing::exchange::{Exchange, Listed, PackPath};
use serde_json::{Value, json};

use super::out::{Out, Product, Sources};
use super::{merge, pack, show, whole};
use crate::ToolError;
use crate::cli::{BuildExchange, Format};

pub(super) fn build(arguments: &BuildExchange, now: UnixTime) -> anyhow::Result<String> {
    let prefix = arguments.url_prefix.as_str();
    let sources = Sources::of("a pack", &arguments.files).and_judged(&arguments.roots, &arguments.trust);
    let out = Out::new("--out", &arguments.out, Product::Exchange, &sources)?;
    let mut packs = Vec::new();
    for file in &arguments.files {
        let url = url(prefix, file)?;
        let (pack, digests) = pack::verified(file, arguments.roots.as_deref(), &arguments.trust, now)?;
        packs.push(Listed::of(&pack, digests.sha256, url));
    }
    let exchange = Exchange::new(packs).map_err(ToolError::from)?;
    let text = exchange.to_text().map_err(ToolError::from)?;
    whole::write(&out, text.as_bytes())?;
    let mut report = json!({ "packs": exchange.packs().len(), "out": arguments.out.display().to_string() });
    match arguments.output.format {
        Format::Json => {
            // In the place of their number.
            let packs: Vec<Value> = exchange.packs().iter().map(summary).collect();
            merge(&mut report, json!({ "packs": packs }));
            Ok(show(&report, arguments.output))
        }
        Format::Text => {
            let each: String = exchange
                .packs()
                .iter()
                .map(|pack| format!("{pack}  {} bytes  {}\n", pack.size(), pack.url()))
                .collect();
            Ok(format!("{}\n{each}", show(&report, arguments.output)))
        }
    }
}

/// Where a pack is to be found.
fn url(prefix: &str, file: &Path) -> anyhow::Result<PackPath> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let url = format!("{prefix}{name}").parse::<PackPath>().map_err(ToolError::from);
    url.with_context(|| file.display().to_string())
}

fn summary(listed: &Listed) -> Value {
    json!({
        "name": listed.name().as_str(),
        "version": listed.version().to_string(),
        "size": listed.size(),
        "sha256": listed.sha256().to_string(),
        "url": listed.url().as_str(),
    })
}
