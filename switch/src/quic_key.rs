//! The key by which a Switch that was killed tells the clients of its last run that their connections over QUIC are gone.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use muster_service::credentials::read_at_most;
use muster_service::quic::ResetKey;

/// The key's file in `data_dir`. Without it clients notice later, by the silence.
const FILE: &str = "quic-reset.key";

/// Its length.
const KEY_BYTES: u64 = 32;

/// Reads the key, or makes one.
///
/// # Errors
/// It can be neither read nor written.
pub(crate) fn read_or_make(data_dir: &Path) -> io::Result<ResetKey> {
    let path = data_dir.join(FILE);
    if let Ok(bytes) = read_at_most(&path, KEY_BYTES)
        && let Ok(key) = <[u8; 32]>::try_from(&bytes[..])
    {
        return Ok(ResetKey(key));
    }
    let (key, new) = (rand::random::<[u8; 32]>(), path.with_extension("new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&key)?;
    fs::rename(&new, &path)?;
    Ok(ResetKey(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_the_same_and_one_that_is_none_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();

        let key = read_or_make(folder.path()).unwrap();

        assert!(key == read_or_make(folder.path()).unwrap());
        fs::write(folder.path().join(FILE), "cut").unwrap();
        let other = read_or_make(folder.path()).unwrap();
        assert!(key != other && other == read_or_make(folder.path()).unwrap());
    }
}
