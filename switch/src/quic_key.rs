//! The key by which a Switch that was killed tells the clients of its last run that their connections over QUIC are gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use muster_service::credentials::read_at_most;
use muster_service::quic::ResetKey;

/// The key's file in `data_dir`. Without it clients notice later, by the silence.
const FILE: &str = "quic-reset.key";

/// Its length.
const KEY_BYTES: u64 = 32;

/// Reads the key, or makes one. Where it cannot be kept it is one for this run: no reason not to start.
pub(crate) fn read_or_make(data_dir: &Path) -> ResetKey {
    let path = data_dir.join(FILE);
    if let Ok(bytes) = read_at_most(&path, KEY_BYTES)
        && let Ok(key) = <[u8; 32]>::try_from(&bytes[..])
    {
        return ResetKey(key);
    }
    let key = rand::random();
    if let Err(error) = keep(data_dir, &path, &key) {
        tracing::warn!(
            path = %path.display(),
            %error,
            "the key of QUIC's resets cannot be kept: should this Switch be killed, its clients learn of it by the silence; fix: \
             see that data_dir can be written to, and has room"
        );
    }
    ResetKey(key)
}

/// Has the key on disk, whole or not at all.
fn keep(data_dir: &Path, path: &Path, key: &[u8; 32]) -> io::Result<()> {
    let new = path.with_extension("new");
    // One that was not finished; whatever is there, the key goes into a file that nobody else has open.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(key)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_stays_the_same_and_one_that_is_none_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();

        let key = read_or_make(folder.path());

        assert!(key == read_or_make(folder.path()));
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(folder.path().join(FILE), "cut").unwrap();
        let other = read_or_make(folder.path());
        assert!(key != other && other == read_or_make(folder.path()));
    }

    #[test]
    fn a_key_is_never_written_into_a_file_that_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let (elsewhere, new) = (folder.path().join("elsewhere"), folder.path().join("quic-reset.new"));
        fs::write(&elsewhere, "as it was").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &new).unwrap();

        let key = read_or_make(folder.path());

        assert!(key == read_or_make(folder.path()));
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "as it was");
    }

    #[test]
    fn where_none_can_be_kept_each_run_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        // Nobody can write it, root neither.
        fs::create_dir(folder.path().join("quic-reset.new")).unwrap();

        let key = read_or_make(folder.path());

        assert!(key != read_or_make(folder.path()));
        assert!(!folder.path().join(FILE).exists());
    }
}
