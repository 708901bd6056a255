//! The key of a device that has no certificate (C1 of trust.md): made at the first start, kept in `data_dir`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use muster_pki::DeviceKey;
use muster_pki::device_key::{DeviceKeyError, Zeroizing};
use serde::{Deserialize, Serialize};

/// By what a device is known (C1 of trust.md).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceIdentity {
    /// The certificate that it shows.
    #[default]
    Certificate,
    /// A key of its own: it has no certificate.
    Key,
}

/// Its file in `data_dir`.
pub(crate) const FILE: &str = "device.key";

/// More than any Ed25519 key in PEM has.
const BYTES_MAX: u64 = 16 << 10;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: io::Error,
    },
    /// Others may read it, so that they may be this device.
    #[error("{path}: others may read it (mode {mode:03o}), wanted 600; fix: chmod 600 {path}")]
    Shared {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// What is there is no key, and no other is made in its place: the device would be another one.
    #[error(
        "{path}: {cause}; fix: bring the file back from a copy, or delete it: then this device becomes a new one, under another name"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: DeviceKeyError,
    },
}

/// Returns where the key lies.
pub(crate) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Reads the key; `None` if there is no file yet. Blocks on the disk.
pub(crate) fn read(data_dir: &Path) -> Result<Option<DeviceKey>, KeyError> {
    let path = path(data_dir);
    let failed = |cause| KeyError::File { path: path.clone(), cause };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Shared { path, mode });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    let key = DeviceKey::from_pem(&bytes, "the device's key");
    key.map(Some).map_err(|cause| KeyError::Unusable { path: path.clone(), cause })
}

/// Reads the key, or makes one: it is on disk when this returns. Whoever calls has locked the folder. Blocks on the disk.
pub(crate) fn read_or_make(data_dir: &Path) -> Result<DeviceKey, KeyError> {
    if let Some(key) = read(data_dir)? {
        return Ok(key);
    }
    let path = path(data_dir);
    let unusable = |cause| KeyError::Unusable { path: path.clone(), cause };
    let (key, text) = DeviceKey::generate().map_err(unusable)?;
    write(&path, text.as_bytes()).map_err(|cause| KeyError::File { path: path.clone(), cause })?;
    tracing::info!(device = %key.device(), file = %path.display(), "made the key that this device is known by");
    Ok(key)
}

/// Writes a file that is there whole or not at all, also after a power cut.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    // Of a start that was cut off.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn c1_a_key_is_made_once_for_its_owner_alone() {
        let folder = TempDir::new().unwrap();
        assert!(read(folder.path()).unwrap().is_none());
        // Of a start that was cut off.
        std::fs::write(folder.path().join("device.new"), "half").unwrap();

        let made = read_or_make(folder.path()).unwrap();
        let again = read_or_make(folder.path()).unwrap();

        assert_eq!(made.device(), again.device());
        let mode = std::fs::metadata(path(folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_is_none_or_is_shared_is_refused_and_left_as_it_is() {
        let folder = TempDir::new().unwrap();
        let file = path(folder.path());
        read_or_make(folder.path()).unwrap();
        let text = std::fs::read(&file).unwrap();

        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        let shared = read_or_make(folder.path()).unwrap_err().to_string();
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&file, &text[..40]).unwrap();
        let cut = read_or_make(folder.path()).unwrap_err().to_string();

        assert!(shared.contains("mode 640") && shared.contains("chmod 600"), "{shared}");
        assert!(cut.contains("another name"), "{cut}");
        assert_eq!(std::fs::read(&file).unwrap(), text[..40]);
    }
}
