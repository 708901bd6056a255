//! How a scenario is told: a table or JSON on standard output, one HTML file, one SVG.

pub(crate) mod html;
pub(crate) mod machine;
pub(crate) mod sheet;
pub(crate) mod svg;
