//! The machine that was measured on.

use serde::Serialize;

use crate::measure::cores::Cores;

/// What a figure depends on besides the code.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    /// Those that may be used.
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    /// Of this program.
    pub(crate) version: String,
    /// Whether it was built to be measured; a Switch of its own is the one beside it.
    pub(crate) build: &'static str,
    pub(crate) pinned: Cores,
    /// Whether the Switch is on its core, which one that ran before is not.
    pub(crate) is_switch_pinned: bool,
}

impl Machine {
    /// This one.
    pub(crate) fn this(pinned: &Cores, is_own: bool) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
                .unwrap_or_default()
        };
        let kib = field(&read("/proc/meminfo"), "MemTotal");
        let kib: f64 = kib.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: (pinned.load.len() + usize::from(pinned.server.is_some())).max(1),
            memory_gib: (kib / 1_048_576.0 * 10.0).round() / 10.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: if cfg!(debug_assertions) { "dev" } else { "release" },
            pinned: pinned.clone(),
            is_switch_pinned: is_own && pinned.server.is_some(),
        }
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let pinned = match self.pinned.server {
            Some(core) if self.is_switch_pinned => {
                format!("server on core {core}, load on {:?}", self.pinned.load)
            }
            Some(_) => format!("Switch not pinned, load on {:?}", self.pinned.load),
            None => "one core, nothing pinned".to_owned(),
        };
        format!(
            "{}, {} cores, {} GiB, Linux {}, muster {} ({} build), {pinned}",
            self.processor, self.cores, self.memory_gib, self.kernel, self.version, self.build
        )
    }
}
