//! The way to an exchange (G9): a list of packs on somebody's web server, and the packs below its folder.
//!
//! The server is a stranger. It is asked over https alone and judged as that of `licence_url` is, by the web's rules; it gets no
//! certificate of ours, and where it redirects to is not followed. Every answer has a bound in bytes and in time.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use muster_pki::{CrlUrl, FetchRequest, Validators};
use muster_service::credentials::http_get::{self, Download, DownloadError, GetError};
use muster_service::credentials::{Clock, web_client};
use muster_service::exit::describe;
use muster_signing::exchange::{Arrival, Exchange, LIST_BYTES_MAX, Listed, PackPath};
use rustls::ClientConfig;

use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::operator::is_about_certificates;
use crate::output;

/// For the list, from the connection to its last byte.
const LIST_DEADLINE: Duration = Duration::from_secs(30);

/// For any byte of a pack.
const SILENCE: Duration = Duration::from_secs(30);

/// Bytes a second of a pack on the whole; a server that gives less is given up, as a client gives one up.
const RATE_BYTES_MIN: u32 = 1_024;

/// What a list is asked for as.
const ACCEPT: &str = "application/json, */*;q=0.5";

/// A list on a web server, and how that is judged.
pub(crate) struct Source {
    url: CrlUrl,
    https: Arc<ClientConfig>,
}

impl Source {
    /// Takes the URL of a list, and the roots that its server is judged by.
    pub(crate) fn new(home: &Home, url: &str, https_roots: Option<&Path>) -> Result<Self, Failure> {
        let own = home.roots("exchanges");
        let roots: Option<PathBuf> = https_roots.map(Path::to_owned).or_else(|| own.is_file().then_some(own));
        let url: CrlUrl = url.parse().map_err(|error| Failure::usage(format!("{error}")))?;
        let https = web_client(roots.as_deref(), &Clock::system()).map_err(|problem| {
            Failure::usage(format!("the roots of the exchange's server: {problem}"))
                .with_next(format!("muster pack search {} --https-roots FILE", url.as_str()))
        })?;
        Ok(Self { url, https })
    }

    /// Fetches the list.
    pub(crate) async fn list(&self) -> Result<Exchange, Failure> {
        let url = self.url.as_str();
        let request = FetchRequest {
            url: self.url.clone(),
            validators: Validators::default(),
            body_bytes_max: LIST_BYTES_MAX,
            timeout: LIST_DEADLINE,
        };
        let answer = http_get::get(request, ACCEPT, Some(Arc::clone(&self.https))).await;
        let answer = answer.map_err(|error| self.not_reached(url, &error))?;
        if answer.status != 200 {
            return Err(self.other_answer(url, answer.status, answer.location.as_deref()));
        }
        Exchange::parse(&answer.body).map_err(|error| {
            Failure::new(Exit::Refused, error.to_string())
                .about(url)
                .with_next("muster-sign exchange build --help   (for whoever runs the exchange)")
        })
    }

    /// Downloads a pack of the list into a file that has no name: whatever becomes of it, nothing is left. The bytes are those that the
    /// list says.
    pub(crate) async fn download(&self, pack: &Listed) -> Result<File, Failure> {
        let url = below(self.url.as_str(), pack.url());
        let parsed: CrlUrl = url.parse().map_err(|error| Failure::usage(format!("{error}")))?;
        let file = tempfile::tempfile().map_err(|error| not_kept(pack, &error))?;
        let wanted =
            Download { url: parsed, size: pack.size(), silence: SILENCE, rate_bytes_min: RATE_BYTES_MIN };
        let bar = output::bar(pack.size(), "downloaded");
        let mut arrival = Arrival::of(pack);
        let downloaded = http_get::download(&wanted, Arc::clone(&self.https), |piece| {
            arrival.handle_piece(piece).map_err(io::Error::other)?;
            (&file).write_all(piece)?;
            bar.inc(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            Ok(())
        })
        .await;
        bar.finish_and_clear();
        downloaded.map_err(|error| self.not_whole(pack, &url, &error))?;
        arrival.finish().map_err(|error| self.not_the_one(&url, &error.to_string()))?;
        (&file).rewind().map_err(|error| not_kept(pack, &error))?;
        Ok(file)
    }

    fn not_whole(&self, pack: &Listed, url: &str, error: &DownloadError) -> Failure {
        let failure = match error {
            DownloadError::Get(error) => self.not_reached(url, error),
            DownloadError::Status { status, location } => {
                self.other_answer(url, status.as_u16(), location.as_deref())
            }
            DownloadError::Size { .. } | DownloadError::More { .. } | DownloadError::Fewer { .. } => {
                return self.not_the_one(url, &error.to_string());
            }
            DownloadError::Silent(_) | DownloadError::Late(_) => self.unreachable(url, &error.to_string()),
            DownloadError::Kept(error) => return not_kept(pack, error),
        };
        failure.adding("nothing of the pack is kept")
    }

    /// What came is not what the list says.
    fn not_the_one(&self, url: &str, problem: &str) -> Failure {
        Failure::new(Exit::Refused, problem)
            .about(url)
            .adding("nothing of the pack is kept")
            .with_next(format!("muster pack search {}   (whether there is a newer list)", self.url.as_str()))
    }

    fn not_reached(&self, url: &str, error: &GetError) -> Failure {
        let said = describe(error);
        match error {
            GetError::Connect(cause) if is_about_certificates(cause) => {
                Failure::denied(said).about(url).with_next(format!(
                    "muster pack search {} --https-roots FILE   (roots of its server, PEM; in HOME/trust/exchanges.pem they count always)",
                    self.url.as_str()
                ))
            }
            GetError::Late(_) | GetError::Connect(_) | GetError::Http(_) => self.unreachable(url, &said),
            GetError::TooLarge { .. } => Failure::new(Exit::Refused, said)
                .about(url)
                .with_next("muster-sign exchange build --help   (for whoever runs the exchange)"),
            GetError::NoHttpsRoots | GetError::NoHost | GetError::Request(_) => {
                Failure::usage(said).about(url).with_next("muster pack search --help")
            }
        }
    }

    fn unreachable(&self, url: &str, said: &str) -> Failure {
        Failure::unreachable(said)
            .about(url)
            .with_next(format!("muster pack search {}   (once its server answers)", self.url.as_str()))
    }

    fn other_answer(&self, url: &str, status: u16, location: Option<&str>) -> Failure {
        match (status, location) {
            (300..=399, to) => {
                let to = to.map(|to| format!(" to {}", to.escape_debug())).unwrap_or_default();
                let said = format!("status {status}, a redirect{to}; redirects are not followed");
                Failure::new(Exit::Refused, said)
                    .about(url)
                    .with_next("muster pack search URL   (with the URL that the exchange has now)")
            }
            (500..=599, _) => self.unreachable(url, &format!("status {status}")),
            (_, _) => Failure::new(Exit::Refused, format!("status {status}; wanted 200"))
                .about(url)
                .with_next(format!("muster pack search {}   (what is there)", self.url.as_str())),
        }
    }
}

/// The URL of a pack: below the folder of its list, on the same server.
fn below(list: &str, path: &PackPath) -> String {
    let folder = list.rsplit_once('/').map_or(list, |(folder, _)| folder);
    format!("{folder}/{path}")
}

fn not_kept(pack: &Listed, error: &io::Error) -> Failure {
    let folder = std::env::temp_dir();
    let said = format!("a file of {} bytes in {}: {error}", pack.size(), folder.display());
    Failure::new(Exit::Refused, said)
        .adding("nothing of the pack is kept")
        .with_next("TMPDIR=FOLDER muster pack import …   (a folder with room for it)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_lies_below_the_folder_of_its_list() {
        for (list, pack, url) in [
            ("https://a.example/exchange.json", "b.pack", "https://a.example/b.pack"),
            ("https://a.example:1/x/y/list", "p/b.pack", "https://a.example:1/x/y/p/b.pack"),
            ("https://[::1]/x/list", "b", "https://[::1]/x/b"),
        ] {
            assert_eq!(below(list, &pack.parse().unwrap()), url);
        }
    }
}
