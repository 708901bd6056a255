//! systemd's unit files: their syntax and names. Pure.

/// The settings of a unit file and its drop-ins, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    settings: Vec<Setting>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    section: String,
    key: String,
    value: String,
}

impl Unit {
    /// Reads systemd.syntax(7): sections, `key=value`, comments of `#` and `;`, lines continued by a backslash.
    pub(super) fn read(&mut self, text: &str) {
        let mut section = String::new();
        for line in logical_lines(text) {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some((key, value)) = line.split_once('=') {
                let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
                self.settings.push(Setting { section: section.clone(), key, value });
            }
        }
    }

    /// The last value of a setting; an empty one takes those before it back.
    pub(super) fn last(&self, section: &str, key: &str) -> Option<&str> {
        let fits = |setting: &&Setting| setting.section == section && setting.key == key;
        let last = self.settings.iter().rfind(fits)?;
        Some(last.value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether a setting has a value after the last empty one.
    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        self.last(section, key).is_some()
    }
}

/// Joins continued lines by a space and leaves comments out, also those within a continued line.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        if line.trim_start().starts_with(['#', ';']) || (line.trim().is_empty() && open.is_none()) {
            continue;
        }
        let (body, continues) = line.strip_suffix('\\').map_or((line, false), |body| (body, true));
        let joined = match open.take() {
            Some(before) => format!("{before} {}", body.trim_start()),
            None => body.to_owned(),
        };
        if continues {
            open = Some(joined);
        } else {
            lines.push(joined);
        }
    }
    lines.extend(open);
    lines
}

/// The template of an instance, `getty@.service` of `getty@tty1.service`; a template's or plain unit's own name
/// otherwise.
pub(super) fn template_of(name: &str) -> String {
    match (name.find('@'), name.rfind('.')) {
        (Some(at), Some(dot)) if at < dot => format!("{}{}", &name[..=at], &name[dot..]),
        _ => name.to_owned(),
    }
}

/// The instance of `getty@tty1.service`, `tty1`; empty for a template.
pub(super) fn instance_of(name: &str) -> Option<&str> {
    let (at, dot) = (name.find('@')?, name.rfind('.')?);
    name.get(at + 1..dot)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Unit {
        let mut unit = Unit::default();
        unit.read(text);
        unit
    }

    #[test]
    fn continued_lines_are_joined_over_comments() {
        let unit = read("[Unit]\nDescription=one \\\n# no\n  two\n[Install]\nWantedBy = a.target\n");

        assert_eq!(unit.last("Unit", "Description"), Some("one  two"));
        assert!(unit.has("Install", "WantedBy"));
        assert!(!unit.has("Unit", "WantedBy"));
    }

    #[test]
    fn an_empty_value_takes_the_others_back() {
        let unit = read("[Install]\nWantedBy=a.target\nWantedBy=\n");

        assert!(!unit.has("Install", "WantedBy"));
    }

    #[test]
    fn instances_know_their_template() {
        assert_eq!(template_of("getty@tty1.service"), "getty@.service");
        assert_eq!(template_of("ssh.service"), "ssh.service");
        assert_eq!(instance_of("getty@tty1.service"), Some("tty1"));
        assert_eq!(instance_of("getty@.service"), Some(""));
        assert_eq!(instance_of("ssh.service"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "([\\[\\]=#;\\\\ \\PC]{0,20}\n?){0,10}", name in "\\PC{0,30}") {
            let unit = read(&text);
            prop_assert!(unit.settings.len() <= text.lines().count());
            prop_assert!(template_of(&name).len() <= name.len());
        }

        #[test]
        fn every_written_setting_is_read_back(settings in prop::collection::vec(("[A-Z][A-Za-z]{0,10}", "[a-z0-9./-]{1,20}"), 1..10)) {
            let text: String = settings.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
            let unit = read(&format!("[Service]\n{text}"));
            let read: Vec<_> = unit.settings.into_iter().map(|setting| (setting.key, setting.value)).collect();
            prop_assert_eq!(read, settings);
        }
    }
}
