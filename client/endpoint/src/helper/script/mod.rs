//! Runs a script: the helper watches over it, and a second process of the same program becomes it.
//!
//! The one that watches is not shut in. It gives the script its text as a sealed descriptor, reads its rows, counts its
//! time, and ends everything that came of it; it ends itself when the client closes its standard input, which a client
//! that is killed does, too. The other one shuts itself in ([`launch`]), and then becomes the interpreter.
//!
//! | layer | question | action | strict |
//! |---|---|---|---|
//! | `rlimits` | memory, processor time, open files, size of a file, no core; processes, where no control group has that | the same, but files of any size | as a question |
//! | `no_new_privs` | no program raises rights | same | same |
//! | `uid` | kept, and reported if it is root | kept: it has the client's rights | `nobody`, without groups |
//! | `landlock` | every file readable and executable but devices and what the client keeps, its own folder writable; no signal to others | – | system folders and resources, its own folder writable |
//! | `seccomp` | no sockets, mounts, tracing, namespaces, changes to owners, modes and times | – | as a question |
//! | `cgroup` | one of its own with a memory and a process limit | same | same |
//! | end | process group, control group and every descendant are killed | same | same |
//!
//! A layer that cannot be applied is told as for queries. In a question, `landlock`, `seccomp` and `no_new_privs` are what
//! keeps the machine as it is, so a script is not begun without them.
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::execute::ExecuteError;
use super::protocol::{ContentMessage, Launch, Request, ScriptRequest};
use crate::error::QueryError;
use crate::script::Script;

mod calls;
mod clear;
mod family;
mod folder;
pub(super) mod launch;
mod layers;
mod output;
mod rows;
mod tree;

use family::Family;
use folder::Folder;

/// Runs the script of `request` and writes all of its answer.
pub(super) fn execute(
    request: &Request,
    script: &ScriptRequest,
    deadline: Instant,
    output: &mut impl Write,
) -> Result<(), ExecuteError> {
    let query = |error: QueryError| ExecuteError::Query(error.into());
    let text = text(script).map_err(query)?;
    let folder = Folder::make(request.strict).map_err(|error| query(QueryError::script(error)))?;
    let (family, missing) = Family::start(folder).map_err(query)?;
    let launch = Launch {
        interpreter: script.interpreter.clone(),
        text: text.as_raw_fd(),
        arguments: script.arguments.clone(),
        folder: family.folder().as_os_str().as_bytes().to_vec(),
        changes: script.changes,
        processes_max: family.processes_max().unwrap_or_default(),
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let launch = Request::of_launch(request, launch, left, missing);
    let input = script.input(&request.parameters);
    family.run(&launch, input, deadline, |running| output::read(running, request, script, output))
}

/// Returns the descriptor of the text, which the script inherits: nobody can change what it holds any more.
fn text(script: &ScriptRequest) -> Result<OwnedFd, QueryError> {
    let unsealed = |error: &dyn std::fmt::Display| {
        QueryError::script(format!("its text cannot be held in memory: {error}"))
    };
    let descriptor =
        memfd_create("muster-script", MFdFlags::MFD_ALLOW_SEALING).map_err(|error| unsealed(&error))?;
    let mut file = File::from(descriptor);
    match &script.content {
        Some(content) => copy(content, &mut file)?,
        None => file.write_all(script.text.as_bytes()).map_err(|error| unsealed(&error))?,
    }
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(|error| unsealed(&error))?;
    Ok(file.into())
}

/// Copies a resource, and verifies what was copied.
pub(super) fn copy(content: &ContentMessage, into: &mut impl Write) -> Result<(), QueryError> {
    let path = PathBuf::from(OsString::from_vec(content.path.clone()));
    if content.size > Script::TEXT_BYTES_MAX {
        let (got, wanted) = (content.size, Script::TEXT_BYTES_MAX);
        return Err(QueryError::TooLarge { what: "the script".to_owned(), got, wanted });
    }
    let unread = |error: io::Error| {
        QueryError::script(format!("its resource cannot be read: {}: {error}", path.display()))
    };
    let mut source = File::open(&path).map_err(unread)?.take(content.size.saturating_add(1));
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let read = source.read(&mut buffer).map_err(unread)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
        into.write_all(part).map_err(unread)?;
    }
    let root = hasher.finalize();
    if root.as_bytes().as_slice() != content.root {
        let wanted = hex::encode(&content.root);
        return Err(QueryError::script(format!(
            "its resource is not the one that was signed: BLAKE3 {root}, wanted {wanted}; nothing was begun"
        )));
    }
    Ok(())
}

/// Bounds this process as a script of an action is, and gives up new rights. Says what it lacks.
pub(super) fn bound(run_time: Duration) -> Vec<String> {
    let mut missing = layers::limit(run_time, false, 0);
    missing.extend(layers::no_new_privs());
    missing
}

/// What is copied at a time.
const COPY_BYTES: usize = 64 * 1024;

/// Most characters that a problem shows of what a script wrote.
const SHOWN_CHARACTERS_MAX: usize = 80;

/// What a script wrote, for a person: of one line, without what a terminal would take as a command.
fn shown(bytes: &[u8]) -> String {
    let start = bytes.get(..SHOWN_CHARACTERS_MAX * 4).unwrap_or(bytes);
    let text = String::from_utf8_lossy(start);
    let mut shown: String = escaped(text.chars().take(SHOWN_CHARACTERS_MAX));
    if shown.is_empty() {
        shown.push_str("nothing");
    } else if text.chars().count() > SHOWN_CHARACTERS_MAX || start.len() < bytes.len() {
        shown.push('…');
    }
    shown
}

/// Characters with those escaped that are none to look at, or change the order of others.
pub(super) fn escaped(characters: impl Iterator<Item = char>) -> String {
    characters
        .map(|c| if is_misleading(c) { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// The rule of every other part, `muster_pki::text::is_misleading`. This crate uses none of them, so that the helper holds nothing but
/// what it needs; a test holds the two together.
fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0d}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_says_is_escaped_by_the_rule_of_every_other_part() {
        for c in '\0'..=char::MAX {
            assert_eq!(is_misleading(c), muster_pki::text::is_misleading(c), "{c:?}");
        }
        let said: String = escaped("a\u{202e}b\u{ad}\u{e0041}\u{1b}c\u{e4}".chars());
        assert_eq!(said, "a\\u{202e}b\\u{ad}\\u{e0041}\\u{1b}c\u{e4}");
        assert_eq!(shown("\u{2067}no".as_bytes()), "\\u{2067}no");
    }
}
