//! `muster resource`: content that instructions need, at the Background Channel.

use std::path::Path;

use hyper::body::Bytes;
use muster_sign::FileKind;
use serde_json::Value;

use crate::address::Url;
use crate::background::{self, Content, base_of, listed};
use crate::cli::{Listing, Resource};
use crate::exit::{Exit, Failure};
use crate::home::{Context, Home, read_file};
use crate::output::{self, Cell, Format, Table};

/// A file is held in memory while it is hashed and sent.
const SENT: FileKind = FileKind::new("a file that this command sends", 1 << 30);

/// Runs a verb.
pub(crate) async fn run(home: &Home, context: &Context, verb: Resource) -> Result<Exit, Failure> {
    let base = base_of(context)?;
    match verb {
        Resource::Put { file, name, output } => put(home, &base, &file, name, output).await,
        Resource::List(listing) => list(home, &base, &listing).await,
    }
}

/// How many resources the Background Channel of a context holds.
pub(super) async fn count(home: &Home, context: &Context) -> Result<usize, Failure> {
    let base = base_of(context)?;
    let body = listed(home, &base).await?;
    let resources: Vec<Value> = serde_json::from_slice(&body)
        .map_err(|error| Failure::new(Exit::Refused, format!("the Background Channel's list: {error}")))?;
    Ok(resources.len())
}

/// The name by which a definition, and its SQL, knows a file: letters, digits and `_`.
fn identifier(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name: String = name.chars().map(|c| if fits(c) { c.to_ascii_lowercase() } else { '_' }).collect();
    let name = name.trim_matches('_');
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name.to_owned() } else { format!("file_{name}") }
}

async fn put(
    home: &Home,
    base: &Url,
    file: &Path,
    name: Option<String>,
    format: Format,
) -> Result<Exit, Failure> {
    let bytes = regular_file(file)?;
    let size = bytes.len();
    let name =
        name.or_else(|| file.file_name().map(|name| name.to_string_lossy().into_owned())).unwrap_or_default();
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err(Failure::usage(format!(
            "`{name}` is no resource name: ASCII letters, digits, `.`, `_` and `-`"
        ))
        .with_next(format!("muster resource put {} --name NAME", file.display())));
    }
    let root = blake3::hash(&bytes).to_hex().to_string();
    background::put(home, base, &root, &name, Content::Bytes(Bytes::from(bytes))).await?;
    let pairs = vec![
        ("name".to_owned(), Cell::text(&name)),
        ("size".to_owned(), Cell::number(u64::try_from(size).unwrap_or(u64::MAX))),
        ("root".to_owned(), Cell::text(&root)),
    ];
    match format {
        Format::Table => {
            let identifier = identifier(&name);
            output::note(&format!(
                "stored; a definition names it so, and its SQL gets the path as :resource_{identifier}"
            ));
            output::print_line(&format!(
                "[[resource]]\nname = \"{identifier}\"\nsize = {size}\nroot = \"{root}\""
            ))?;
        }
        Format::Wide | Format::Json | Format::Jsonl | Format::Csv => output::print_pairs(pairs, format)?,
    }
    Ok(Exit::Ok)
}

/// Reads a file whole; a device or a pipe has no end and no root.
fn regular_file(file: &Path) -> Result<Vec<u8>, Failure> {
    let refused = |what: String| Err(Failure::usage(format!("{}: {what}", file.display())));
    match std::fs::metadata(file) {
        Ok(metadata) if !metadata.is_file() => refused("not a regular file".to_owned()),
        Ok(_) => read_file(file, SENT, "muster resource put FILE"),
        Err(error) => refused(error.to_string()),
    }
}

async fn list(home: &Home, base: &Url, listing: &Listing) -> Result<Exit, Failure> {
    let body = listed(home, base).await?;
    let resources: Vec<Value> = serde_json::from_slice(&body)
        .map_err(|error| Failure::new(Exit::Refused, format!("the Background Channel's list: {error}")))?;
    let mut table = Table::new(["name", "size", "root", "stored"]);
    for resource in resources.iter().take(usize::try_from(listing.limit).unwrap_or(usize::MAX)) {
        table.push(vec![
            Cell::text(resource["name"].as_str().unwrap_or_default()),
            Cell::number(resource["size"].as_u64().unwrap_or_default()),
            Cell::text(resource["root"].as_str().unwrap_or_default()),
            Cell::moment(resource["stored_at_ms"].as_i64().unwrap_or_default()),
        ]);
    }
    table.print(listing.output)?;
    match table.len() {
        0 => output::note("no resource yet; put one: muster resource put FILE"),
        shown if shown < resources.len() => output::note_more(listing.limit),
        _ => {}
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use muster_pki::{Role, UnixTime};
    use muster_service::shutdown::Shutdown;

    use super::*;
    use crate::pki_home::{PkiHome, Wanted};

    fn home_with_pki(folder: &Path) -> Home {
        let home = Home::locate(Some(folder.to_owned())).unwrap();
        PkiHome::of(&home).create(UnixTime::now()).unwrap();
        home
    }

    /// Issues `PATH.pem` and `PATH.key` below the folder of `to`, by the CA of `by`.
    fn issue(by: &Home, to: &Home, path: &str, role: Role, name: &str) {
        let issued = PkiHome::of(by).issue(&Wanted::named(role, name, 30), UnixTime::now()).unwrap();
        to.write(&format!("{path}.pem"), issued.chain_pem.as_bytes(), crate::home::Secrecy::Public).unwrap();
        to.write(&format!("{path}.key"), issued.key_pem.as_bytes(), crate::home::Secrecy::Private).unwrap();
    }

    fn channel_config(home: &Home) -> muster_background_channel::Config {
        let mut config = muster_background_channel::Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            data_dir: home.path("data"),
            ..muster_background_channel::Config::default()
        };
        (config.tls.certificate, config.tls.key) = (home.path("channel.pem"), home.path("channel.key"));
        (config.relay.certificate, config.relay.key) = (home.path("relay.pem"), home.path("relay.key"));
        config.trust.devices = home.roots("devices");
        config.trust.operators = home.roots("operators");
        config.trust.servers = home.roots("servers");
        config
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_operator_whom_the_background_channel_refuses_is_denied_and_one_it_knows_is_not() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (home, foreign) = (home_with_pki(folder.path()), home_with_pki(elsewhere.path()));
        issue(&home, &home, "channel", Role::Switch, "localhost");
        issue(&home, &home, "relay", Role::Service, "relay.test");
        let shutdown = Shutdown::new();
        let running = Box::pin(muster_background_channel::start(channel_config(&home), shutdown.clone()));
        let running = running.await.unwrap();
        let background_channel = format!("https://localhost:{}/Background/v1", running.addr().port());
        let context = Context { background_channel, ..crate::fake_switch::context() };
        let file = folder.path().join("large.bin");
        std::fs::write(&file, vec![7; 4 << 20]).unwrap();
        let put = || {
            let verb = Resource::Put { file: file.clone(), name: None, output: Format::Json };
            run(&home, &context, verb)
        };

        issue(&foreign, &home, "operator/tls", Role::Operator, "eve");
        let refused = put().await.unwrap_err();
        issue(&home, &home, "operator/tls", Role::Operator, "alice");
        let taken = put().await;

        assert_eq!(refused.exit(), Exit::Denied, "{refused}");
        assert!(refused.to_string().contains("refused the operator's certificate"), "{refused}");
        assert_eq!(taken.unwrap(), Exit::Ok);
        shutdown.trigger();
        running.wait().await.unwrap();
    }

    #[test]
    fn a_file_gets_a_name_that_a_definition_takes() {
        for (file, name) in
            [("list.txt", "list_txt"), ("9x", "file_9x"), ("-Weird-", "weird"), ("...", "file_")]
        {
            assert_eq!(identifier(file), name);
        }
    }
}
