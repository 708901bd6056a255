//! Rules C1–C16 and R2–R8 held against `openssl verify`, chain by chain.
//!
//! The test makes every chain itself with `openssl ca`, lets `openssl verify -crl_check_all` judge it in the same run, and
//! holds our verdict against that. A row whose verdicts differ says why; one that says so and agrees is wrong as well.
//! `cargo nextest run -p muster-pki openssl_table --no-capture` shows the table.

mod authorities;
mod handshakes;
mod lab;
mod leaves;
mod paths;
mod revocations;

use std::collections::BTreeSet;

use muster_pki::{Facts, RevocationIndex, RevocationMode, Role, Roots, Rule, Verdict, check};

use self::lab::Lab;
use crate::support::{NOW, now, refusals};

/// Chains that the table has at least.
const ROWS_MIN: usize = 60;

/// Characters of a line of the table.
const COLUMNS: usize = 120;

#[test]
fn c12_agrees_with_openssl_on_every_chain_or_says_why_not() {
    let lab = Lab::new();
    let groups = [leaves::rows, authorities::rows, paths::rows, revocations::rows];
    let rows: Vec<Row> = groups.iter().flat_map(|group| group(&lab)).collect();
    let cases: BTreeSet<&str> = rows.iter().map(|row| row.case).collect();

    println!("{}", line("#", "chain", "role", "openssl verify", "ours", "differs on purpose"));
    let wrong: Vec<String> =
        rows.iter().enumerate().filter_map(|(index, row)| row.judge(&lab, index + 1)).collect();

    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(cases.len(), rows.len(), "two rows have one name");
    assert!(rows.len() >= ROWS_MIN, "{} rows", rows.len());
}

/// One chain and what we expect of ourselves; what openssl says is not written down.
#[derive(Clone)]
struct Row {
    case: &'static str,
    role: Role,
    /// Leaf first; the others are sent along.
    chain: Vec<&'static str>,
    roots: Vec<&'static str>,
    name: Option<&'static str>,
    /// In the order of their coming; `None`: a fresh and empty one of every CA of the row.
    crls: Option<Vec<&'static str>>,
    /// The rules that refuse; empty if it is accepted.
    rules: Vec<Rule>,
    /// Why openssl says something else; empty if it does not.
    differs: &'static str,
}

impl Row {
    /// A device's chain that nothing is wrong with.
    fn device(case: &'static str, chain: &[&'static str]) -> Self {
        let chain = chain.to_vec();
        let roots = vec!["root"];
        Self {
            case,
            role: Role::Device,
            chain,
            roots,
            name: None,
            crls: None,
            rules: Vec::new(),
            differs: "",
        }
    }

    /// A server's chain that nothing is wrong with.
    fn switch(case: &'static str, chain: &[&'static str]) -> Self {
        Self { role: Role::Switch, ..Self::device(case, chain) }
    }

    fn roots(self, roots: &[&'static str]) -> Self {
        Self { roots: roots.to_vec(), ..self }
    }

    fn name(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    fn crls(self, crls: &[&'static str]) -> Self {
        Self { crls: Some(crls.to_vec()), ..self }
    }

    /// We refuse it by exactly these rules.
    fn refused(self, rules: &[Rule]) -> Self {
        Self { rules: rules.to_vec(), ..self }
    }

    /// openssl says something else.
    fn differs(self, reason: &'static str) -> Self {
        Self { differs: reason, ..self }
    }

    /// Prints the row; returns what is wrong with it.
    fn judge(&self, lab: &Lab, number: usize) -> Option<String> {
        let crls = self.crl_files(lab);
        let theirs = self.openssl(lab, &crls);
        let ours = self.ours(lab, &crls);
        let rules = refusals(&ours);
        let told: Vec<&str> = rules.iter().map(|rule| rule.name()).collect();
        let told = if told.is_empty() { "accepts".to_owned() } else { told.join(" ") };
        let said = theirs.as_ref().map_or_else(String::as_str, |()| "accepts");
        let printed = line(&number.to_string(), self.case, self.role.name(), said, &told, self.differs);
        println!("{printed}");

        let agrees = theirs.is_ok() == ours.is_accepted();
        let complaint = if rules != self.rules {
            format!("wanted {:?}, got {ours}", self.rules)
        } else if !agrees && self.differs.is_empty() {
            "differs without a reason".to_owned()
        } else if agrees && !self.differs.is_empty() {
            "agrees although it has a reason to differ".to_owned()
        } else if printed.chars().count() > COLUMNS {
            format!("does not fit {COLUMNS} columns")
        } else {
            return None;
        };
        Some(format!("{printed}\n    {complaint}"))
    }

    fn crl_files(&self, lab: &Lab) -> Vec<String> {
        let named = |names: &Vec<&str>| names.iter().map(|name| format!("{name}.crl")).collect();
        self.crls.as_ref().map_or_else(|| self.own_crls(lab), named)
    }

    /// Returns fresh CRLs of every CA that signed something in the row.
    fn own_crls(&self, lab: &Lab) -> Vec<String> {
        let all = self.chain.iter().chain(&self.roots);
        let issuers: BTreeSet<String> = all.map(|name| lab.issuer(name)).collect();
        issuers.iter().map(|issuer| format!("{}.crl", lab.own_crl(issuer))).collect()
    }

    /// Returns what `openssl verify` says: nothing, or its first error.
    fn openssl(&self, lab: &Lab, crls: &[String]) -> Result<(), String> {
        let purpose = if self.role == Role::Switch { "sslserver" } else { "sslclient" };
        let mut command = lab.openssl(&["verify", "-purpose", purpose, "-attime", &NOW.to_string()]);
        command.args(["-no-CAfile", "-no-CApath", "-no-CAstore", "-crl_check_all"]);
        if let Some(name) = self.name {
            let is_address = name.parse::<std::net::IpAddr>().is_ok();
            command.args([if is_address { "-verify_ip" } else { "-verify_hostname" }, name]);
        }
        for root in &self.roots {
            command.args(["-trusted", &format!("{root}.pem")]);
        }
        for name in &self.chain[1..] {
            command.args(["-untrusted", &format!("{name}.pem")]);
        }
        for crl in crls {
            command.args(["-CRLfile", crl]);
        }
        let output = command.arg(format!("{}.pem", self.chain[0])).output().unwrap();
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let error = text.lines().find(|line| line.starts_with("error") && line.contains(" depth lookup: "));
        let error = error.unwrap_or_else(|| panic!("{}: {text}", self.case));
        Err(error.split(" depth lookup: ").nth(1).unwrap().to_owned())
    }

    fn ours(&self, lab: &Lab, crls: &[String]) -> Verdict {
        let chain: Vec<_> = self.chain.iter().map(|name| lab.der(name)).collect();
        let roots = Roots::from_certificates(self.roots.iter().map(|name| lab.certificate(name))).unwrap();
        let known = self.chain.iter().chain(&self.roots).map(|name| lab.certificate(name));
        let issuers: Vec<_> = known.collect();
        let mut index = RevocationIndex::default();
        // As strict as -crl_check_all.
        index.set_rule_of_others(RevocationMode::Hard, Some(now()));
        for crl in crls {
            if let Err(error) = index.add(&lab.read(crl), &issuers, now()) {
                println!("    {crl}: {error}");
            }
        }
        let facts = Facts { name: self.name, revocation: Some(&index), ..Facts::at(now()) };
        check(self.role, &chain, &roots, &facts)
    }
}

fn line(number: &str, case: &str, role: &str, openssl: &str, ours: &str, differs: &str) -> String {
    // openssl's sentences are longer than what tells them apart.
    let openssl: String = openssl.chars().take(28).collect();
    format!("{number:>3} {case:<36} {role:<6} {openssl:<28} {ours:<8} {differs}").trim_end().to_owned()
}
