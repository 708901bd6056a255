//! [`Action`]: a step that changes one thing in a known way, and the values that it takes.

use muster_proto::common::v1::{NamedValue, value::Kind};

use super::argument::ArgumentError;

/// A typed action of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Has the device's service manager do something with a unit.
    Service {
        /// What.
        verb: ServiceVerb,
        /// The unit.
        unit: Operand,
    },
    /// Puts a resource where a file is to be.
    FilePut {
        /// The resource's name.
        resource: String,
        /// Where.
        path: Operand,
        /// The file's mode: reading, writing and running, of owner, group and others.
        mode: u32,
    },
    /// Removes a file.
    FileRemove {
        /// Which.
        path: Operand,
    },
}

/// What is done with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceVerb {
    /// Starts it, unless it is active.
    Start,
    /// Stops it, unless it is inactive.
    Stop,
    /// Stops and starts it.
    Restart,
    /// Has it read its configuration again.
    Reload,
}

/// A value of an action: written by its author, or the argument of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// As it is written.
    Literal(String),
    /// The argument of the parameter of this name.
    Parameter(String),
}

/// The columns of an action's rows: whether it changed something, and what it did or found.
pub const ACTION_COLUMNS: [(&str, muster_proto::common::v1::ColumnType); 2] = [
    ("changed", muster_proto::common::v1::ColumnType::Boolean),
    ("detail", muster_proto::common::v1::ColumnType::Text),
];

/// What an action's value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Unit,
    Path,
}

/// Longest name of a unit in bytes: systemd's own bound.
const UNIT_BYTES_MAX: usize = 255;
/// Kinds of units that are started and stopped.
const UNIT_KINDS: [&str; 4] = ["service", "timer", "socket", "path"];
/// Longest path in bytes: the kernel's bound, with its end.
const PATH_BYTES_MAX: usize = 4_095;
/// Longest name in a path in bytes.
const NAME_BYTES_MAX: usize = 255;

impl Takes {
    /// Returns whether a value can be one.
    pub(super) fn fits(self, value: &str) -> bool {
        match self {
            Self::Unit => is_unit(value),
            Self::Path => is_path(value),
        }
    }

    /// Says what would fit.
    pub(super) const fn wanted(self) -> &'static str {
        match self {
            Self::Unit => "a unit such as ssh, ssh.service, apt.timer or dbus.socket",
            Self::Path => "an absolute path of a file, without `.` and `..`",
        }
    }
}

/// A service, timer, socket or path. It never begins with a hyphen, and has no pattern.
fn is_unit(unit: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b":_.@\\-".contains(&byte);
    let begins = unit.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    // Without one it is a service's. Others are no matter of this: `poweroff.target` is a unit, too.
    let is_of_kind = unit.rsplit_once('.').is_none_or(|(_, kind)| UNIT_KINDS.contains(&kind));
    begins && is_of_kind && unit.len() <= UNIT_BYTES_MAX && unit.bytes().all(is_valid)
}

fn is_path(path: &str) -> bool {
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= NAME_BYTES_MAX;
    // A file may have any name, and who wants one gone that hides something has to be able to say it: it is shown with escapes.
    let has_hidden = path.contains(char::is_control);
    !has_hidden
        && path.len() <= PATH_BYTES_MAX
        && path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_name))
}

impl ServiceVerb {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Start, Self::Stop, Self::Restart, Self::Reload];

    /// Returns the name as a definition and the service manager write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
        }
    }
}

impl Operand {
    /// Returns the value, with these arguments; none if they lack it.
    #[must_use]
    pub fn value<'a>(&'a self, arguments: &'a [NamedValue]) -> Option<&'a str> {
        match self {
            Self::Literal(text) => Some(text),
            Self::Parameter(name) => {
                let argument = arguments.iter().find(|argument| argument.name == *name)?;
                match argument.value.as_ref()?.kind.as_ref()? {
                    Kind::Text(text) => Some(text),
                    Kind::Integer(_) | Kind::Real(_) | Kind::Blob(_) => None,
                }
            }
        }
    }
}

impl Action {
    pub(super) const fn operand(&self) -> (&Operand, Takes) {
        match self {
            Self::Service { unit, .. } => (unit, Takes::Unit),
            Self::FilePut { path, .. } | Self::FileRemove { path } => (path, Takes::Path),
        }
    }

    /// Checks the argument that it takes beyond what its parameter says.
    pub(super) fn check(&self, arguments: &[NamedValue]) -> Result<(), ArgumentError> {
        let (operand, takes) = self.operand();
        let Operand::Parameter(name) = operand else { return Ok(()) };
        match operand.value(arguments) {
            Some(value) if takes.fits(value) => Ok(()),
            value => Err(ArgumentError::Unfit {
                name: name.clone(),
                got: super::parameter::quote(value.unwrap_or_default()),
                wanted: takes.wanted().to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_no_option_no_pattern_and_no_path() {
        for unit in ["ssh", "ssh.service", "getty@tty1.service", "cups.path", "a_b:c\\x2d.timer", "_x"] {
            assert!(Takes::Unit.fits(unit), "{unit}");
        }
        for no in [
            "poweroff.target",
            "system.slice",
            "home.mount",
            "a.b",
            "",
            "-H",
            "--root=/",
            "ssh*",
            "s?h",
            "[a-z]",
            "a b",
            "/etc/x.service",
            "ä",
            "a\n",
            ".x",
            "@x",
        ] {
            assert!(!Takes::Unit.fits(no), "{no}");
        }
        assert!(Takes::Unit.fits(&"a".repeat(255)) && !Takes::Unit.fits(&"a".repeat(256)));
    }

    #[test]
    fn a_path_is_absolute_and_goes_down_only() {
        for path in ["/a", "/etc/motd", "/etc/with blank", "/etc/.hidden", "/etc/...", "/ä/-rf"] {
            assert!(Takes::Path.fits(path), "{path}");
        }
        for no in ["", "/", "a", "./a", "/a/", "//a", "/a//b", "/a/../b", "/a/.", "/..", "/a\nb", "/a\0b"] {
            assert!(!Takes::Path.fits(no), "{no}");
        }
        let name = |bytes: usize| format!("/{}", "a".repeat(bytes));
        assert!(Takes::Path.fits(&name(255)) && !Takes::Path.fits(&name(256)));
        let longest = name(255).repeat(15) + &name(254);
        assert_eq!(longest.len(), 4_095);
        assert!(Takes::Path.fits(&longest) && !Takes::Path.fits(&(name(255).repeat(15) + &name(255))));
    }
}
