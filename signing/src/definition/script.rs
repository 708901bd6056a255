//! [`Script`]: a step that is a program's text, which values never become part of.

/// Most bytes of a script that is a resource: a client holds it in memory while it is verified and run.
pub const SCRIPT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A script: its text runs as it was signed, by an interpreter of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The program that reads the text: an absolute path.
    pub interpreter: String,
    /// What it runs.
    pub text: ScriptText,
    /// What it is given behind the text, in this order.
    pub arguments: Vec<ScriptArgument>,
}

/// Where a script's text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptText {
    /// In the definition itself.
    Inline(String),
    /// In the resource of this name.
    Resource(String),
}

/// A value that a script is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptArgument {
    /// The argument of the parameter of this name.
    Parameter(String),
    /// The path of the resource of this name.
    Resource(String),
}
