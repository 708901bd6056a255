//! The helper as a process, and the tables against the system's own tools.
#[cfg(test)]
mod actions;
mod bounds;
mod granted;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod injection;
mod sandbox;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod scripts_apart;
#[cfg(test)]
mod support;
mod tables;
