//! `packages`: what dpkg installed.
use super::{Rows, Scan, Table, TableError, ready};
use crate::schema::{ColumnSchema, Search, TableSchema};
use crate::value::SqlValue;

pub(crate) const SCHEMA: TableSchema = TableSchema {
    name: "packages",
    description: "Packages as `dpkg-query -W` lists them, from /var/lib/dpkg/status; empty on a machine without dpkg.",
    columns: &[
        ColumnSchema::text("name", "Name").searched(Search::Equal),
        ColumnSchema::text("version", "Version, `1:2.36-9+deb12u4`"),
        ColumnSchema::text("architecture", "`amd64`, `all` …"),
        ColumnSchema::text(
            "status",
            "What is wanted, whether there are errors, what is: `install ok installed`",
        ),
        ColumnSchema::text("source", "Name of the source package"),
        ColumnSchema::integer(
            "installed_bytes",
            "Estimated size when installed; NULL where the package doesn't tell",
        ),
    ],
    needs: None,
};

/// dpkg's status file of 40,000 packages.
const STATUS_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Table `packages`.
#[derive(Debug)]
pub(crate) struct Packages;

impl Table for Packages {
    fn schema(&self) -> &'static TableSchema {
        &SCHEMA
    }

    fn rows(&self, scan: &Scan) -> Result<Rows, TableError> {
        let text = scan.machine.text("/var/lib/dpkg/status", STATUS_BYTES_MAX)?.unwrap_or_default();
        Ok(ready(parse(&text).into_iter().map(Package::into_row)))
    }
}

/// One paragraph of the status file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Package {
    name: String,
    version: Option<String>,
    architecture: Option<String>,
    status: String,
    source: Option<String>,
    installed_kibibytes: Option<u64>,
}

impl Package {
    /// Whether dpkg lists it: it has a name and was at some time installed.
    fn is_listed(&self) -> bool {
        !self.name.is_empty() && !self.status.ends_with(" not-installed")
    }

    /// Takes one field of a paragraph.
    fn set(&mut self, key: &str, value: &str) {
        let text = || Some(value.to_owned());
        if key.eq_ignore_ascii_case("Package") {
            value.clone_into(&mut self.name);
        } else if key.eq_ignore_ascii_case("Version") {
            self.version = text();
        } else if key.eq_ignore_ascii_case("Architecture") {
            self.architecture = text();
        } else if key.eq_ignore_ascii_case("Status") {
            value.clone_into(&mut self.status);
        } else if key.eq_ignore_ascii_case("Source") {
            // A version in parentheses follows where it differs.
            self.source = value.split_whitespace().next().map(str::to_owned);
        } else if key.eq_ignore_ascii_case("Installed-Size") {
            self.installed_kibibytes = value.parse().ok();
        }
    }

    fn into_row(self) -> Vec<SqlValue> {
        let source = self.source.unwrap_or_else(|| self.name.clone());
        vec![
            self.name.into(),
            self.version.into(),
            self.architecture.into(),
            self.status.into(),
            source.into(),
            self.installed_kibibytes.and_then(|size| size.checked_mul(1024)).into(),
        ]
    }
}

/// Reads deb822 paragraphs: `Field: value` lines, continued by lines that begin with a blank, parted by empty lines.
fn parse(text: &str) -> Vec<Package> {
    let mut packages = Vec::new();
    let mut package = Package::default();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            let complete = std::mem::take(&mut package);
            if complete.is_listed() {
                packages.push(complete);
            }
        } else if !line.starts_with([' ', '\t'])
            && let Some((key, value)) = line.split_once(':')
        {
            package.set(key.trim(), value.trim());
        }
    }
    packages
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_paragraph_with_continued_lines_is_one_package() {
        let text = "Package: libc6\nStatus: install ok installed\nInstalled-Size: 12\nArchitecture: amd64\n\
                    Source: glibc (2.36-9)\nVersion: 2.36-9+b1\nDescription: x\n Version: 9\n .\n y\n\n\
                    Package: gone\nStatus: purge ok not-installed\n";

        let packages = parse(text);

        assert_eq!(packages.len(), 1);
        assert_eq!(packages[0].version.as_deref(), Some("2.36-9+b1"));
        assert_eq!(packages[0].source.as_deref(), Some("glibc"));
        assert_eq!(packages[0].installed_kibibytes, Some(12));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(\\PC{0,20}\n?){0,10}") {
            prop_assert!(parse(&text).len() <= text.lines().count());
        }

        #[test]
        fn every_written_package_is_read_back(packages in prop::collection::vec(("[a-z][a-z0-9.+-]{1,20}", "[0-9][0-9.~+-]{0,9}", 0_u64..1 << 40), 0..20)) {
            let text: String = packages.iter().map(|(name, version, size)| {
                format!("Package: {name}\nStatus: install ok installed\nVersion: {version}\nInstalled-Size: {size}\n\n")
            }).collect();

            let read: Vec<_> = parse(&text).into_iter().map(|package| {
                (package.name, package.version.unwrap(), package.installed_kibibytes.unwrap())
            }).collect();

            prop_assert_eq!(read, packages);
        }
    }
}
