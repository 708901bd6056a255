//! The operator's home folder: contexts, roots, keys, signed documents.
//!
//! ```text
//! contexts.toml            where the Switches are, and which one is current
//! trust/ROLE.pem           roots, one file a role: devices, operators, services, servers, authors, orders, licences
//! operator/tls.{pem,key}   the operator's certificate for the operator API
//! operator/order.{pem,key} the operator's certificate for signing orders
//! publisher/, licensor/    cert.pem and key.pem of a development PKI's author and licensor
//! licence.cms              the licence
//! definitions/*.cms        signed definitions
//! pki/                     the development CA (`muster pki`)
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// A home folder.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    folder: PathBuf,
}

/// The contexts of a home.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The name of the one in use.
    #[serde(default)]
    pub(crate) current: String,
    /// All of them.
    #[serde(default, rename = "context")]
    pub(crate) contexts: Vec<Context>,
}

/// Where one Switch and its Background Channel are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// The name to use it by.
    pub(crate) name: String,
    /// `host:port` of the operator API.
    pub(crate) switch: String,
    /// `https://host:port/Background/v1`.
    #[serde(default)]
    pub(crate) background_channel: String,
    /// `http://host:port` of the Switch's admin address, where it can be reached.
    #[serde(default)]
    pub(crate) admin: String,
}

impl Home {
    /// The folder that was typed, else `MUSTER_HOME` (clap reads it), else `~/.muster`.
    pub(crate) fn locate(typed: Option<PathBuf>) -> Result<Self, Failure> {
        let folder = match typed {
            Some(folder) => folder,
            None => std::env::home_dir()
                .ok_or_else(|| Failure::usage("no home folder is known").with_next("muster --home DIR …"))?
                .join(".muster"),
        };
        let folder = std::path::absolute(&folder)
            .map_err(|error| Failure::usage(format!("home {}: {error}", folder.display())))?;
        Ok(Self { folder })
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path below the folder.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.join(relative)
    }

    /// The roots of a role: `devices`, `operators`, `services`, `servers`, `authors`, `orders`, `licences`.
    pub(crate) fn roots(&self, role: &str) -> PathBuf {
        self.folder.join("trust").join(format!("{role}.pem"))
    }

    /// Reads the contexts; none if there is no file yet.
    pub(crate) fn contexts(&self) -> Result<Contexts, Failure> {
        let path = self.path("contexts.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| {
                Failure::usage(format!("{}: {}", path.display(), error.to_string().trim_end()))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
            Err(error) => Err(Failure::usage(format!("{}: {error}", path.display()))),
        }
    }

    /// Writes the contexts, whole or not at all.
    pub(crate) fn save_contexts(&self, contexts: &Contexts) -> Result<(), Failure> {
        let text = toml::to_string(contexts).map_err(|error| Failure::usage(error.to_string()))?;
        self.write("contexts.toml", text.as_bytes(), Secrecy::Private)
    }

    /// Adds or replaces a context and makes it the current one.
    pub(crate) fn use_context(&self, context: Context) -> Result<(), Failure> {
        let mut contexts = self.contexts()?;
        contexts.current.clone_from(&context.name);
        contexts.contexts.retain(|known| known.name != context.name);
        contexts.contexts.push(context);
        self.save_contexts(&contexts)
    }

    /// The context to use: the one typed, else the current one.
    pub(crate) fn context(&self, typed: Option<&str>) -> Result<Context, Failure> {
        let contexts = self.contexts()?;
        let name = typed.unwrap_or(&contexts.current);
        if name.is_empty() {
            return Err(Failure::usage(format!(
                "{} has no context, so no Switch is known",
                self.folder.display()
            ))
            .with_next("muster dev   (a development fleet)   or   muster ctx add NAME --switch HOST:4001"));
        }
        contexts.contexts.iter().find(|context| context.name == name).cloned().ok_or_else(|| {
            let known: Vec<&str> = contexts.contexts.iter().map(|context| context.name.as_str()).collect();
            Failure::usage(format!("no context `{name}`; there is {}", known.join(", ")))
                .with_next("muster ctx list")
        })
    }

    /// Writes a file below the folder by a temporary file, fsync and rename.
    pub(crate) fn write(&self, relative: &str, bytes: &[u8], secrecy: Secrecy) -> Result<(), Failure> {
        write_file(&self.path(relative), bytes, secrecy)
    }
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// Its owner.
    Private,
    /// Anyone.
    Public,
}

/// Writes a file whole or not at all, and creates its folder.
pub(crate) fn write_file(path: &Path, bytes: &[u8], secrecy: Secrecy) -> Result<(), Failure> {
    try_write(path, bytes, secrecy).map_err(|error| {
        let hint = if error.kind() == std::io::ErrorKind::StorageFull {
            "; free space there, then run the command again"
        } else if error.kind() == std::io::ErrorKind::PermissionDenied {
            "; choose another folder with --home"
        } else {
            ""
        };
        Failure::new(crate::exit::Exit::Refused, format!("write {}: {error}{hint}", path.display()))
    })
}

fn try_write(path: &Path, bytes: &[u8], secrecy: Secrecy) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mode = match secrecy {
        Secrecy::Private => 0o600,
        Secrecy::Public => 0o644,
    };
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Reads a file that a command needs.
pub(crate) fn read_file(path: &Path, next: &str) -> Result<Vec<u8>, Failure> {
    std::fs::read(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())).with_next(next))
}
