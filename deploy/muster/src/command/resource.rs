//! `muster resource`: content that instructions need, at the Background Channel.

use std::path::Path;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::cli::{Listing, Resource};
use crate::exit::{Exit, Failure};
use crate::home::{Context, Home, read_file};
use crate::operator;
use crate::output::{self, Cell, Format, Table};

/// An answer to a listing or a put.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A file is held in memory while it is hashed and sent.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Runs a verb.
pub(crate) async fn run(home: &Home, context: &Context, verb: Resource) -> Result<Exit, Failure> {
    let base = Base::of(context)?;
    match verb {
        Resource::Put { file, name, output } => put(home, &base, &file, name, output).await,
        Resource::List(listing) => list(home, &base, &listing).await,
    }
}

/// The parts of `https://host:port/path`.
struct Base {
    address: String,
    host: String,
    path: String,
}

impl Base {
    fn of(context: &Context) -> Result<Self, Failure> {
        let url = &context.background_channel;
        let wrong = || {
            Failure::usage(format!(
                "context {}: `{url}` is not https://HOST:PORT/Background/v1",
                context.name
            ))
            .with_next("muster ctx add NAME --switch HOST:4001 --background-channel URL")
        };
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong());
        };
        let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(443));
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { address, host, path: uri.path().trim_end_matches('/').to_owned() })
    }
}

/// How many resources the Background Channel of a context holds.
pub(super) async fn count(home: &Home, context: &Context) -> Result<usize, Failure> {
    let base = Base::of(context)?;
    let body = send(home, &base, Method::GET, &format!("{}/resources", base.path), Bytes::new()).await?;
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
    base: &Base,
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
    let path = format!("{}/resources/{root}?name={name}", base.path);
    send(home, base, Method::PUT, &path, Bytes::from(bytes)).await?;
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
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            refused(format!("{} bytes; this command sends at most {FILE_BYTES_MAX}", metadata.len()))
        }
        Ok(_) => read_file(file, "muster resource put FILE"),
        Err(error) => refused(error.to_string()),
    }
}

async fn list(home: &Home, base: &Base, listing: &Listing) -> Result<Exit, Failure> {
    let path = format!("{}/resources", base.path);
    let body = send(home, base, Method::GET, &path, Bytes::new()).await?;
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
    Ok(Exit::Ok)
}

/// Sends one request over a connection of its own; an answer other than 2xx is an error with the server's words.
async fn send(home: &Home, base: &Base, method: Method, path: &str, body: Bytes) -> Result<Bytes, Failure> {
    let credentials = operator::client_credentials(home, b"http/1.1")?;
    let stream = operator::connect_tls(&credentials, &base.host, &base.address).await?;
    let broken = |error: hyper::Error| {
        Failure::unreachable(format!("the Background Channel at {}: {error}", base.address))
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", &base.address)
        .header("content-type", "application/octet-stream")
        .body(Full::new(body))
        .map_err(|error| Failure::usage(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| {
            Failure::unreachable(format!("the Background Channel at {}: {error}", base.address))
        })?;
        Ok::<_, Failure>((status, body.to_bytes()))
    };
    // The connection is driven beside the exchange and ends with it.
    let (status, body) = tokio::select! {
        exchanged = exchange => exchanged?,
        ended = connection => {
            ended.map_err(broken)?;
            return Err(Failure::unreachable(format!("the Background Channel at {} closed the connection", base.address)));
        }
    };
    answer(status, body)
}

fn answer(status: StatusCode, body: Bytes) -> Result<Bytes, Failure> {
    if status.is_success() {
        return Ok(body);
    }
    let said =
        format!("the Background Channel: {status}: {}", output::printable(&String::from_utf8_lossy(&body)));
    Err(match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Failure::denied(said),
        StatusCode::SERVICE_UNAVAILABLE => Failure::unreachable(said),
        _ => Failure::new(Exit::Refused, said),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_a_name_that_a_definition_takes() {
        for (file, name) in
            [("list.txt", "list_txt"), ("9x", "file_9x"), ("-Weird-", "weird"), ("...", "file_")]
        {
            assert_eq!(identifier(file), name);
        }
    }
}
