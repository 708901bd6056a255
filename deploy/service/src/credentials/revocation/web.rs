//! [`web_client`]: how the servers of https URLs are judged: by the web's rules, not ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::credentials::Clock;
use crate::credentials::files::{bytes_of, read};
use crate::credentials::provider::{VERSIONS, provider};
use crate::credentials::trust_folder::SYSTEM_STORES;
use crate::exit::describe;

/// Makes what judges the server of an https URL, from a PEM file of roots; `None`: from the system's.
///
/// # Errors
/// The roots cannot be read, or the system has none where systems keep them; with the file.
pub fn web_client(roots: Option<&Path>, clock: &Clock) -> Result<Arc<ClientConfig>, String> {
    let path = match roots {
        Some(path) => path.to_owned(),
        None => SYSTEM_STORES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
            let looked = SYSTEM_STORES.join(", ");
            format!("the system has no roots at {looked}; install its CA certificates, or name a file as `https_roots`")
        })?,
    };
    let bytes = read(&path);
    let bytes = bytes_of(&path, &bytes).map_err(|error| describe(&error))?;
    let roots = muster_pki::pem::certificates(bytes, &path.display().to_string())
        .map_err(|error| describe(&error))?;
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()));
    let builder = builder.with_protocol_versions(VERSIONS).map_err(|error| describe(&error))?;
    Ok(Arc::new(builder.with_root_certificates(store).with_no_client_auth()))
}
