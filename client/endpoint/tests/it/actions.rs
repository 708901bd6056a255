//! Typed actions as processes: what they change, what they leave, and where they cannot be led.
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_endpoint::{Action, Content, Deed, QueryError, SqlValue, Verb, run_action};
use nix::fcntl::{Flock, FlockArg};
use tempfile::TempDir;

use crate::support::{helper, lacks};

/// What came of an action: whether it changed something, and what it says.
fn act(deed: Deed) -> Result<(bool, String), QueryError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let action = Action { deed, run_time: Duration::from_secs(30) };
    let answer = runtime.block_on(run_action(&helper(), action))?;
    assert!(answer.columns.iter().map(|column| column.name.as_str()).eq(["changed", "detail"]));
    let [row] = &answer.rows[..] else { panic!("{answer:?}") };
    let [SqlValue::Integer(changed), SqlValue::Text(detail)] = &row[..] else { panic!("{row:?}") };
    Ok((*changed == 1, detail.clone()))
}

#[track_caller]
fn problem(deed: Deed) -> String {
    let error = act(deed).unwrap_err();
    let QueryError::Script { message } = error else { panic!("{error:?}") };
    message
}

/// A folder whose path has no symbolic link, with a resource in it.
struct Place {
    folder: TempDir,
    text: String,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new_in(std::env::temp_dir().canonicalize().unwrap()).unwrap();
        let text = "wanted\n".repeat(100_000);
        std::fs::write(folder.path().join("resource"), &text).unwrap();
        std::fs::create_dir(folder.path().join("to")).unwrap();
        Self { folder, text }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn content(&self) -> Content {
        let root = *blake3::hash(self.text.as_bytes()).as_bytes();
        Content { path: self.path("resource"), size: self.text.len() as u64, root }
    }

    fn put(&self, path: impl Into<PathBuf>) -> Deed {
        Deed::Put { content: self.content(), path: path.into(), mode: 0o640 }
    }

    /// What is in the folder that files are put into.
    fn there(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("to")).unwrap().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_file_is_put_whole_with_its_mode_and_left_alone_when_it_is_as_wanted() {
    let place = Place::new();
    let path = place.path("to/file");
    let read = || std::fs::read_to_string(&path).unwrap();

    let made = act(place.put(&path)).unwrap();
    let first = std::fs::metadata(&path).unwrap();
    let again = act(place.put(&path)).unwrap();

    assert!(made.0 && made.1.ends_with("to/file made: 700000 bytes, mode 0640"), "{made:?}");
    assert_eq!((read(), first.permissions().mode() & 0o7777), (place.text.clone(), 0o640));
    assert!(!again.0 && again.1.contains("is as wanted"), "{again:?}");
    let second = std::fs::metadata(&path).unwrap();
    assert_eq!(
        (first.ino(), first.mtime_nsec()),
        (second.ino(), second.mtime_nsec()),
        "it was written again"
    );

    std::fs::write(&path, place.text.replace('w', "W")).unwrap();
    let replaced = act(place.put(&path)).unwrap();
    assert!(replaced.0 && replaced.1.contains("replaced"), "{replaced:?}");
    assert_eq!(read(), place.text);

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(act(place.put(&path)).unwrap().0, "another mode is not as wanted");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(place.there(), ["file"]);
}

#[test]
fn a_file_of_another_user_or_group_is_not_as_wanted() {
    if lacks("root", !nix::unistd::geteuid().is_root(), "run the tests as root") {
        return;
    }
    let place = Place::new();
    let path = place.path("to/file");
    assert!(act(place.put(&path)).unwrap().0);
    for (user, group) in [(Some(1), None), (None, Some(1))] {
        std::os::unix::fs::chown(&path, user, group).unwrap();

        assert!(act(place.put(&path)).unwrap().0, "{user:?}, {group:?}");

        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (0, nix::unistd::getegid().as_raw()));
    }
    // The folder says which group its files have.
    std::os::unix::fs::chown(place.path("to"), None, Some(1)).unwrap();
    std::fs::set_permissions(place.path("to"), std::fs::Permissions::from_mode(0o2755)).unwrap();
    assert!(act(place.put(&path)).unwrap().0, "it has the group of before");
    assert_eq!(std::fs::metadata(&path).unwrap().gid(), 1);
    assert!(!act(place.put(&path)).unwrap().0);
}

#[test]
fn a_resource_that_is_not_the_signed_one_replaces_nothing() {
    let place = Place::new();
    let path = place.path("to/file");
    std::fs::write(&path, "before").unwrap();
    for wrong in [place.text.replace('w', "W"), format!("{}x", place.text), String::new()] {
        std::fs::write(place.path("resource"), wrong).unwrap();

        let said = problem(place.put(&path));

        assert!(said.contains("not the one that was signed"), "{said}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(place.there(), ["file"], "what was written beside is gone");
    }
}

#[test]
fn what_an_earlier_try_left_beside_goes_with_the_next() {
    let place = Place::new();
    // Also of another content.
    let left = format!(".muster-put-{}", &blake3::hash(b"file").to_hex()[..32]);
    std::fs::write(place.path("to").join(left), "half").unwrap();

    assert!(act(place.put(place.path("to/file"))).unwrap().0);

    assert_eq!(place.there(), ["file"]);
}

#[test]
fn two_that_put_one_file_take_turns_and_it_is_whole() {
    let place = Place::new();
    let other = "another\n".repeat(100_000);
    std::fs::write(place.path("other"), &other).unwrap();
    let root = *blake3::hash(other.as_bytes()).as_bytes();
    let content = Content { path: place.path("other"), size: other.len() as u64, root };
    let path = place.path("to/file");
    let deeds = [place.put(&path), Deed::Put { content, path: path.clone(), mode: 0o600 }];

    for _ in 0..10 {
        std::thread::scope(|scope| {
            for deed in &deeds {
                scope.spawn(|| act(deed.clone()).unwrap());
            }
        });

        let found = std::fs::read_to_string(&path).unwrap();
        assert!(found == place.text || found == other, "{} bytes", found.len());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if found == other { 0o600 } else { 0o640 });
        assert_eq!(place.there(), ["file"]);
    }
}

#[test]
fn whoever_locks_the_folder_of_a_file_keeps_no_action_from_it() {
    let place = Place::new();
    let path = place.path("to/file");
    // As `flock -s` does, which takes no more than reading it.
    let folder = std::fs::File::open(place.path("to")).unwrap();
    let _held = Flock::lock(folder, FlockArg::LockShared).unwrap();

    let put = act(place.put(&path)).unwrap();
    let removed = act(Deed::Remove { path }).unwrap();

    assert!(put.0 && removed.0, "{put:?} {removed:?}");
}

#[test]
fn no_symbolic_link_leads_an_action_elsewhere() {
    let place = Place::new();
    let outside = place.path("outside");
    std::fs::write(&outside, "outside").unwrap();
    symlink(&outside, place.path("to/link")).unwrap();
    symlink(place.path("to"), place.path("way")).unwrap();
    std::fs::create_dir(place.path("to/folder")).unwrap();
    std::fs::write(place.path("to/file"), "before").unwrap();
    let both = |path: PathBuf| [place.put(path.clone()), Deed::Remove { path }];
    for (path, words) in [
        ("to/link", "is a symbolic link; wanted a file"),
        ("way/file", "way is a symbolic link, or no folder; name the folder itself"),
        ("to/file/below", "is a symbolic link, or no folder"),
        ("to/folder", "is a folder; wanted a file"),
    ] {
        for deed in both(place.path(path)) {
            let said = problem(deed.clone());
            assert!(said.contains(words), "{deed:?}: {said}");
        }
    }
    for path in ["", "/", "to/file", "to/../to/file", "/proc/self/cwd/x", "/tmp/./x", "/tmp//x", "/tmp/x/"] {
        assert!(act(place.put(path)).is_err(), "{path}");
    }
    let up = format!("{}/to/../to/file", place.folder.path().display());
    assert!(problem(place.put(up)).contains("wanted an absolute path without"));
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "outside");
    assert_eq!(std::fs::read_to_string(place.path("to/file")).unwrap(), "before");
    assert_eq!(place.there(), ["file", "folder", "link"]);
}

#[test]
fn a_file_is_removed_once_and_what_is_not_there_is_no_change() {
    let place = Place::new();
    let path = place.path("to/file");
    std::fs::write(&path, "x").unwrap();
    let remove = |path: &Path| act(Deed::Remove { path: path.to_owned() }).unwrap();

    let (first, again) = (remove(&path), remove(&path));
    let nowhere = remove(&place.path("none/file"));

    assert!(first.0 && first.1.ends_with("to/file removed"), "{first:?}");
    assert!(!again.0 && again.1.ends_with("to/file is not there"), "{again:?}");
    assert!(!nowhere.0, "{nowhere:?}");
    assert!(!path.exists());
}

#[test]
fn a_unit_is_named_and_never_an_option_and_an_unknown_one_is_told() {
    for verb in [Verb::Start, Verb::Stop, Verb::Restart, Verb::Reload] {
        let deed = |unit: &str| Deed::Service { verb, unit: unit.to_owned() };

        let option = problem(deed("--version"));
        // Without systemd, its program says so; with it, there is no such unit.
        let unknown = problem(deed("muster-test-no-such-unit.service"));

        assert!(option.contains("\"--version\" is no unit"), "{option}");
        assert!(
            unknown.contains("muster-test-no-such-unit.service") || unknown.contains("no systemctl"),
            "{unknown}"
        );
    }
}
