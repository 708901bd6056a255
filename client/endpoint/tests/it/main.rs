//! The helper as a process, and the tables against the system's own tools.
mod bounds;
mod granted;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod injection;
mod sandbox;
mod scripts;
#[cfg(test)]
mod support;
mod tables;
