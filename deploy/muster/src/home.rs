//! The operator's home folder: contexts, roots, keys, signed documents.
//!
//! ```text
//! contexts.toml            where the Switches are, and which one is current
//! seen/CONTEXT.toml        the organisation, the highest licence and the highest number of an order that were seen there
//! trust/servers.crl        CRLs of the CAs of servers, PEM or DER, if one has them: a server that one revokes is refused
//! trust/ROLE.pem           roots, one file a role: devices, operators, services, servers, authors, orders, licences,
//!                          policies, timestamps
//! trust/exchanges.pem      roots of web servers that packs are fetched from; without it, those of the system
//! operator/tls.{pem,key}   the operator's certificate for the operator API
//! operator/order.{pem,key} the operator's certificate for signing orders
//! publisher/, licensor/,   cert.pem and key.pem of a development PKI's author, licensor and policies' administrator
//! policy/
//! licence.cms              the licence, the newest that was imported with this home
//! definitions/*.cms        signed definitions
//! pki/                     the development CA (`muster pki`)
//! ```

use std::path::{Path, PathBuf};

use muster_pki::Roots;
use muster_sign::{FileError, FileKind};
use muster_signing::envelope::Anchors;
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

/// What `muster` writes into a home for itself: contexts, what was seen, where CRLs are. Few lines, and a person may add some.
pub(crate) const OWN_FILE: FileKind = FileKind::new("a small text of this home", 1 << 20);

/// A home folder.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    folder: PathBuf,
}

/// What a home verifies the signed documents of one role by.
#[derive(Debug)]
pub(crate) struct DocumentRoots {
    signers: Roots,
    timestamps: Option<Roots>,
}

impl DocumentRoots {
    /// The same, as verifying wants it.
    pub(crate) const fn anchors(&self) -> Anchors<'_> {
        Anchors { signers: &self.signers, timestamps: self.timestamps.as_ref() }
    }
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
    /// The organisation whose orders may be signed there; empty: the one of the first order.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) tenant: String,
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

    /// The roots of a role: `devices`, `operators`, `services`, `servers`, `authors`, `orders`, `licences`,
    /// `policies`, `timestamps`.
    pub(crate) fn roots(&self, role: &str) -> PathBuf {
        self.folder.join("trust").join(format!("{role}.pem"))
    }

    /// Reads the roots of a role that signs documents, and those of timestamp authorities if the home has any.
    pub(crate) fn document_roots(&self, role: &str) -> Result<DocumentRoots, Failure> {
        let read = |role: &str| {
            let path = self.roots(role);
            Roots::from_pem(
                &read_file(&path, FileKind::CERTIFICATES, "muster pki init")?,
                &path.display().to_string(),
            )
            .map_err(|error| Failure::new(Exit::Refused, error.to_string()))
        };
        let timestamps = self.roots("timestamps").exists().then(|| read("timestamps")).transpose()?;
        Ok(DocumentRoots { signers: read(role)?, timestamps })
    }

    /// Reads the contexts; none if there is no file yet.
    pub(crate) fn contexts(&self) -> Result<Contexts, Failure> {
        let path = self.path("contexts.toml");
        match text_if_there(&path, OWN_FILE) {
            Ok(Some(text)) => toml::from_str(&text).map_err(|error| {
                Failure::usage(format!("{}: {}", path.display(), error.to_string().trim_end()))
            }),
            Ok(None) => Ok(Contexts::default()),
            Err(error) => Err(Failure::usage(error.to_string())),
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
        let known: Vec<&str> = contexts.contexts.iter().map(|context| context.name.as_str()).collect();
        if known.is_empty() {
            let wanted = typed.map(|name| format!(" `{name}` or any other")).unwrap_or_default();
            return Err(Failure::usage(format!(
                "{} has no context{wanted}, so no Switch is known",
                self.folder.display()
            ))
            .with_next("muster dev   (a development fleet)\n   or: muster ctx add NAME --switch HOST:4001"));
        }
        let name = typed.unwrap_or(&contexts.current);
        if let Some(context) = contexts.contexts.iter().find(|context| context.name == name) {
            return Ok(context.clone());
        }
        let nearest = nearest(name, &known);
        let listed = format!("there is {}", known.join(", "));
        Err(match (typed, nearest) {
            (None, _) if name.is_empty() => {
                Failure::usage(format!("no context is the current one; {listed}"))
                    .with_next(format!("muster ctx use {}", known[0]))
            }
            (_, Some(nearest)) => Failure::usage(format!("no context `{name}`; did you mean `{nearest}`?"))
                .with_next("muster ctx list"),
            (_, None) => {
                Failure::usage(format!("no context `{name}`; {listed}")).with_next("muster ctx list")
            }
        })
    }

    /// Writes a file below the folder by a temporary file, fsync and rename.
    pub(crate) fn write(&self, relative: &str, bytes: &[u8], secrecy: Secrecy) -> Result<(), Failure> {
        write_file(&self.path(relative), bytes, secrecy)
    }
}

/// The known name that was probably meant.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
    // A slip in every third letter is still a slip; more is another word.
    known.iter().copied().min_by_key(distance).filter(|known| distance(known) <= (known.len() / 3).max(1))
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
        Failure::new(Exit::Refused, format!("write {}: {error}{hint}", path.display()))
    })
}

fn try_write(path: &Path, bytes: &[u8], secrecy: Secrecy) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder_of(path);
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

/// The folder of a file; a bare name has one, too.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Reads a file of a kind that a command needs. One that is not there is the command line's mistake; what is there and cannot be such a file
/// is refused as what it holds would be.
pub(crate) fn read_file(path: &Path, kind: FileKind, next: &str) -> Result<Vec<u8>, Failure> {
    muster_sign::read_file(path, kind).map_err(|error| {
        let exit = if error.is_too_large() { Exit::Refused } else { Exit::Usage };
        Failure::new(exit, error.to_string()).with_next(next)
    })
}

/// Reads a text that a home may have; `None`: it is not there.
pub(crate) fn text_if_there(path: &Path, kind: FileKind) -> Result<Option<String>, FileError> {
    match muster_sign::read_text(path, kind) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(current: &str, known: &[&str], typed: Option<&str>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        let context = |name: &&str| Context { name: (*name).to_owned(), ..crate::fake_switch::context() };
        let contexts = known.iter().map(context).collect();
        home.save_contexts(&Contexts { current: current.to_owned(), contexts }).unwrap();
        home.context(typed).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_context_names_the_nearest_one() {
        let known = ["dev", "production", "staging"];

        assert_eq!(
            refused("dev", &known, Some("prodcution")),
            "no context `prodcution`; did you mean `production`?"
        );
        assert_eq!(refused("dev", &known, Some("dve")), "no context `dve`; did you mean `dev`?");
        assert_eq!(refused("dev", &known, Some("x")), "no context `x`; there is dev, production, staging");
        assert_eq!(
            refused("", &known, None),
            "no context is the current one; there is dev, production, staging"
        );
        assert!(refused("", &[], None).contains("has no context, so no Switch is known"));
    }

    #[test]
    fn a_file_that_no_home_has_is_not_read_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(folder.path().to_owned())).unwrap();
        std::fs::File::create(home.path("contexts.toml")).unwrap().set_len(100 << 30).unwrap();
        let next = "muster definition import FILE";

        let contexts = home.contexts().unwrap_err().to_string();
        let endless = read_file(Path::new("/dev/zero"), FileKind::ENVELOPE, next).unwrap_err();

        assert!(
            contexts.contains("contexts.toml: 107374182400 bytes; wanted a small text of this home"),
            "{contexts}"
        );
        assert_eq!(
            endless.to_string(),
            "/dev/zero: more than 524288 bytes; wanted an envelope of at most 524288 bytes"
        );
        assert_eq!((endless.exit(), endless.next()), (Exit::Refused, Some(next)));
    }

    #[test]
    fn a_file_without_a_folder_in_its_name_lies_where_the_command_was_typed() {
        for (file, folder) in [("ready.json", "."), ("fleet/ready.json", "fleet"), ("/ready.json", "/")] {
            assert_eq!(folder_of(Path::new(file)), Path::new(folder), "{file}");
        }
    }
}
