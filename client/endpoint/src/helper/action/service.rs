//! Has systemd do something with a unit, by its own program and with values behind `--`.
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Changed, Done, Undone};
use crate::action::Verb;
use crate::helper::script::escaped;

/// Where systemd's program is.
const PROGRAMS: [&str; 2] = ["/usr/bin/systemctl", "/bin/systemctl"];

/// Longest name of a unit in bytes: systemd's own bound.
const UNIT_BYTES_MAX: usize = 255;
/// Kinds of units that are started and stopped.
const UNIT_KINDS: [&str; 4] = ["service", "timer", "socket", "path"];
/// Most bytes that are read of what the program says.
const SAID_BYTES_MAX: u64 = 4 * 1024;
/// How often to look whether the program has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What is known of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
struct State {
    load: String,
    active: String,
    sub: String,
    /// All of its names, parted by spaces.
    names: String,
}

pub(super) fn act(verb: Verb, unit: &str, deadline: Instant) -> Result<Done, Undone> {
    if !is_unit(unit) {
        return Err(Undone::Problem(format!("{unit:?} is no unit; wanted a name such as ssh.service")));
    }
    let program = PROGRAMS.iter().map(Path::new).find(|program| program.exists()).ok_or_else(|| {
        Undone::Problem(
            "this machine has no systemctl, and so no units; name its platform otherwise".to_owned(),
        )
    })?;
    act_by(program, verb, unit, deadline)
}

fn act_by(program: &Path, verb: Verb, unit: &str, deadline: Instant) -> Result<Done, Undone> {
    let look = || run(program, &show(unit), deadline).map(|said| state(&said));
    let before = look()?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    refuse_own(verb, unit, &before, own_unit(&groups))?;
    if before.load != "loaded" {
        let load = if before.load.is_empty() { "not known" } else { &before.load };
        return Err(Undone::Problem(format!("the unit {unit} is {load}; wanted one that is loaded")));
    }
    let is_as_wanted = match verb {
        Verb::Start => before.active == "active",
        Verb::Stop => before.active == "inactive",
        Verb::Restart | Verb::Reload => false,
    };
    let now = |state: &State| format!("{} ({})", state.active, state.sub);
    if is_as_wanted {
        let detail = format!("{unit} is as wanted: {}", now(&before));
        return Ok(Done { changed: Changed::No, detail });
    }
    run(program, &["--no-ask-password", verb.name(), "--", unit], deadline)?;
    // It is done, whether its state can be told any more or not.
    let after = look().map_or_else(|_| "not known".to_owned(), |after| now(&after));
    let detail = format!("{unit}: {} done; it was {}, is {after}", verb.name(), now(&before));
    Ok(Done { changed: Changed::Yes, detail })
}

/// Refuses to stop the client itself, by whichever of its unit's names: nobody could ask it to start again, and what it did for this would not be told.
/// It may be restarted.
fn refuse_own(verb: Verb, unit: &str, state: &State, own: Option<&str>) -> Result<(), Undone> {
    let is_own = own.is_some_and(|own| {
        own == unit
            || own.strip_suffix(".service") == Some(unit)
            || state.names.split(' ').any(|name| name == own)
    });
    match verb {
        Verb::Stop if is_own => Err(Undone::Problem(format!(
            "{unit} is the unit of this client, which nobody could start again from afar; wanted another unit, or service.restart"
        ))),
        Verb::Start | Verb::Stop | Verb::Restart | Verb::Reload => Ok(()),
    }
}

/// Returns the unit that a process belongs to, of its control groups (`/proc/self/cgroup`); none: it is no service. A service may have made
/// groups of its own below that of its unit.
fn own_unit(groups: &str) -> Option<&str> {
    let of_systemd = groups.lines().find_map(|line| {
        let (_, group) = line.split_once(':')?;
        // Version 2, or version 1 for systemd alone.
        group.strip_prefix(':').filter(|path| *path != "/").or_else(|| group.strip_prefix("name=systemd:"))
    })?;
    of_systemd.rsplit('/').find(|part| part.ends_with(".service"))
}

/// What asks for a unit's state.
fn show(unit: &str) -> [&str; 5] {
    ["--no-pager", "show", "--property=LoadState,ActiveState,SubState,Names", "--", unit]
}

/// A unit's name, which is never an option, a pattern or a path. The rule is that of `muster_signing::definition`, which a test holds it to: the helper
/// takes nobody's word for it.
fn is_unit(unit: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b":_.@\\-".contains(&byte);
    let begins = unit.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    // Without one it is a service's. Others are no matter of this: `poweroff.target` is a unit, too.
    let is_of_kind = unit.rsplit_once('.').is_none_or(|(_, kind)| UNIT_KINDS.contains(&kind));
    begins && is_of_kind && unit.len() <= UNIT_BYTES_MAX && unit.bytes().all(is_valid)
}

fn state(said: &str) -> State {
    let mut state = State::default();
    for (name, value) in said.lines().filter_map(|line| line.split_once('=')) {
        match name {
            "LoadState" => value.clone_into(&mut state.load),
            "ActiveState" => value.clone_into(&mut state.active),
            "SubState" => value.clone_into(&mut state.sub),
            "Names" => value.clone_into(&mut state.names),
            _ => {}
        }
    }
    state
}

/// Runs the program to its end, and returns what it says.
fn run(program: &Path, words: &[&str], deadline: Instant) -> Result<String, Undone> {
    let shown = || format!("{} {}", program.display(), words.join(" "));
    let failed = |error: &dyn std::fmt::Display| Undone::Problem(format!("`{}`: {error}", shown()));
    let mut child = Command::new(program)
        .args(words)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed(&"without its pipes"));
    };
    let read = |stream: Box<dyn Read + Send>| thread::Builder::new().spawn(move || said(stream));
    let output = read(Box::new(output)).map_err(|error| failed(&error))?;
    let errors = read(Box::new(errors)).map_err(|error| failed(&error))?;
    let status = loop {
        match child.try_wait().map_err(|error| failed(&error))? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                // Its job may go on in the service manager; nobody waits for it any more.
                let _ended: std::io::Result<()> = child.kill();
                return Err(Undone::Late);
            }
            None => thread::sleep(LOOK_AGAIN),
        }
    };
    let (output, errors) = (output.join().unwrap_or_default(), errors.join().unwrap_or_default());
    if status.success() {
        return Ok(output);
    }
    Err(failed(&format!("{status}: {}", escaped(errors.trim().chars().take(500)))))
}

/// Reads all, and returns the beginning.
fn said(mut stream: Box<dyn Read + Send>) -> String {
    let mut kept = Vec::new();
    let _cut: std::io::Result<usize> = stream.by_ref().take(SAID_BYTES_MAX).read_to_end(&mut kept);
    let _rest: std::io::Result<u64> = std::io::copy(&mut stream, &mut std::io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_stands_behind_the_end_of_options_and_is_never_one() {
        assert_eq!(show("ssh.service").last_chunk(), Some(&["--", "ssh.service"]));
        for no in ["", "-H", "--root=/", "ssh*", "a b", "/etc/x.service", "a\n", "$(id)"] {
            let undone = act(Verb::Stop, no, Instant::now()).unwrap_err();
            assert!(matches!(&undone, Undone::Problem(what) if what.contains("is no unit")), "{undone:?}");
        }
    }

    /// Whether a definition with that action takes a value for its unit.
    fn is_signed_units(unit: &str) -> bool {
        use muster_proto::common::v1::{NamedValue, Value, value::Kind};
        static DEFINITION: std::sync::LazyLock<muster_signing::definition::Definition> =
            std::sync::LazyLock::new(|| {
                muster_signing::definition::Definition::parse(
                    "name = \"Acme-Unit-Stop\"\nversion = \"1.0.0\"\nkind = \"action\"\nsays = \"Stops %it%\"\n\n\
                     [[parameter]]\nname = \"it\"\ntype = \"string\"\n\n\
                     [[step]]\naction = { do = \"service.stop\", unit = \":it\" }\n\n\
                     [[result]]\nname = \"changed\"\ntype = \"boolean\"\n\n[[result]]\nname = \"detail\"\ntype = \"text\"\n",
                )
                .unwrap()
            });
        let value = Some(Value { kind: Some(Kind::Text(unit.to_owned())) });
        DEFINITION.bind(&[NamedValue { name: "it".to_owned(), value }]).is_ok()
    }

    #[test]
    fn what_is_a_unit_to_who_signs_is_one_to_who_acts() {
        let kinds = [
            "service", "timer", "socket", "path", "target", "mount", "slice", "scope", "device", "swap", "b",
            "",
        ];
        let ends =
            kinds.map(|kind| format!("a.{kind}")).into_iter().chain(kinds.map(|kind| format!("a.b.{kind}")));
        let begins = (0..=0x17f).filter_map(char::from_u32);
        let begins =
            begins.flat_map(|c| [c.to_string(), format!("{c}a"), format!("a{c}a"), format!("a{c}a.service")]);
        let lengths = [1, 247, 248, 254, 255, 256, 1_000].map(|length| "a".repeat(length));
        let units = ends.chain(begins).chain(lengths.iter().cloned());
        let long = lengths.iter().map(|name| format!("{name}.service"));
        for unit in units.chain(long).chain([String::new()]) {
            assert_eq!(is_unit(&unit), is_signed_units(&unit), "{unit:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_unit_to_both_or_to_neither(unit in "[a-zA-Z0-9:_.@\\\\*/ -]{0,12}(\\.(service|timer|socket|path|target))?") {
            proptest::prop_assert_eq!(is_unit(&unit), is_signed_units(&unit), "{:?}", unit);
        }
    }

    #[test]
    fn what_is_done_is_told_as_done_though_nobody_can_tell_the_units_state_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("systemctl");
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in *restart*) touch {0}/done;; esac\ntest -e {0}/done && case \"$*\" in *show*) exit 1;; esac\n\
             printf 'LoadState=loaded\\nActiveState=active\\nSubState=running\\n'\n",
            folder.path().display()
        );
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

        let done = act_by(&program, Verb::Restart, "x.service", Instant::now() + Duration::from_secs(30));

        let Done { changed, detail } = done.unwrap();
        assert_eq!(changed, Changed::Yes);
        assert_eq!(detail, "x.service: restart done; it was active (running), is not known");
    }

    #[test]
    fn the_client_is_not_stopped_by_any_name_of_its_unit_and_may_be_restarted() {
        let own = Some("muster-client.service");
        let alias = State { names: "agent.service muster-client.service".to_owned(), ..State::default() };
        let other = State { names: "ssh.service sshd.service".to_owned(), ..State::default() };
        let act = |verb, unit, state: &State| refuse_own(verb, unit, state, own);

        for (unit, state) in [
            ("muster-client", &State::default()),
            ("muster-client.service", &State::default()),
            ("agent", &alias),
            ("agent.service", &alias),
        ] {
            let refused = act(Verb::Stop, unit, state);
            assert!(
                matches!(&refused, Err(Undone::Problem(said)) if said.contains("is the unit of this client")),
                "{unit}: {refused:?}"
            );
            for verb in [Verb::Start, Verb::Restart, Verb::Reload] {
                assert!(act(verb, unit, state).is_ok(), "{verb:?} {unit}");
            }
        }
        assert!(act(Verb::Stop, "ssh", &other).is_ok());
        assert!(refuse_own(Verb::Stop, "muster-client", &State::default(), None).is_ok());
    }

    #[test]
    fn the_own_unit_is_the_innermost_service_whatever_groups_it_has_made() {
        for (groups, unit) in [
            ("0::/system.slice/muster-client.service/muster-sql-7-0\n", Some("muster-client.service")),
            ("0::/system.slice/muster-client.service\n", Some("muster-client.service")),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n", Some("x.service")),
            ("8:pids:/a.service\n1:name=systemd:/system.slice/b.service\n0::/\n", Some("b.service")),
            ("0::/user.slice/user-0.slice/session-1.scope\n", None),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(own_unit(groups), unit, "{groups}");
        }
    }

    #[test]
    fn a_state_is_read_in_any_order_and_what_is_not_told_is_empty() {
        let state = state(
            "ActiveState=active\nLoadState=loaded\nnoise\nSubState=running=x\nNames=a.service b.service\n",
        );

        assert_eq!((&*state.load, &*state.active, &*state.sub), ("loaded", "active", "running=x"));
        assert_eq!(state.names, "a.service b.service");
        assert_eq!(super::state(""), State::default());
    }
}
