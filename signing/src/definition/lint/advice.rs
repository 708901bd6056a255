//! Warnings: what can be signed and run, and will hardly do what its author means, or allows more than it needs.

use muster_proto::limits::VALUE_BYTES_MAX;
use toml::Spanned;

use crate::definition::document::{self, Document};
use crate::definition::error::{Fault, Faults};
use crate::definition::parameter::Pattern;
use crate::definition::rule::Rule;
use crate::definition::sql::{self, Column};
use crate::definition::{AGGREGATE_FUNCTIONS, Kind, read};

/// What clients are built for.
const SYSTEM: &str = "linux";

/// The machines with it, as Rust calls them; a client tells `linux-x86_64`.
const MACHINES: [&str; 8] =
    ["x86_64", "aarch64", "x86", "arm", "riscv64", "powerpc64", "s390x", "loongarch64"];

/// Texts of which every bounding pattern refuses one: a quote, a wildcard, a way up, an option, what shells and
/// formats expand, a terminal's escape, a blank, a letter that looks like another.
const PROBES: [&str; 9] = ["a", "'", "*", "../a", "-a", "$(a)", "%s", "\u{1b}[0m", "а b"];

pub(super) fn give(document: &Document, faults: &mut Faults) {
    uses(document, faults);
    for parameter in document.parameter.iter().map(Spanned::get_ref) {
        texts(parameter, document, faults);
    }
    for query in document.step.iter().filter_map(|step| step.get_ref().query.as_ref()) {
        wildcards(query, document, faults);
    }
    // The rows of the last step are the result; those of the others are nobody's.
    if let Some(query) = document.step.last().and_then(|step| step.get_ref().query.as_ref()) {
        columns(query, &document.result, faults);
    }
    if let Some(aggregate) = &document.aggregate {
        for found in sql::parameters(aggregate.query.get_ref()) {
            let said = format!("the aggregate uses `{found}`, and nothing is bound there");
            let fault = fault(&aggregate.query, Rule::AggregateUnboundName, said).at(found);
            faults.push(fault.wanted("columns of [[result]] only").fix("do it in the step's query"));
        }
        aggregate_names(&aggregate.query, &document.result, faults);
        aggregate_functions(&aggregate.query, faults);
    }
    for column in document.result.iter().map(Spanned::get_ref) {
        length(column, faults);
    }
    limits(document, faults);
    platforms(document, faults);
    if document.kind == Kind::Action && document.approvals.is_none() {
        let fault =
            fault(&document.name, Rule::ActionWithoutApprovals, "an action that one signature is enough for");
        faults.push(fault.wanted("that its author decides on it").fix("say so with `approvals = 0`"));
    }
}

/// What of a column's values reaches people.
fn length(column: &document::Column, faults: &mut Faults) {
    if !matches!(column.kind.get_ref().as_str(), "text" | "blob") {
        return;
    }
    let Some(length) = &column.max_length else {
        let fault = fault(&column.name, Rule::ColumnWithoutMaxLength, "a value of any length");
        faults.push(fault.wanted("the bytes that people need").fix("add `max_length = …`"));
        return;
    };
    let says = match usize::try_from(*length.get_ref()) {
        Ok(0) => "nothing of any value is left",
        Ok(1..=VALUE_BYTES_MAX) => return,
        Ok(_) | Err(_) => "clients cut each value at 64 KiB",
    };
    let found = format!("{}: {says}", length.get_ref());
    faults.push(fault(length, Rule::ColumnMaxLength, found).wanted(format!("1 to {VALUE_BYTES_MAX} bytes")));
}

/// Which devices would run it.
fn platforms(document: &Document, faults: &mut Faults) {
    let is_known = |platform: &str| {
        platform == SYSTEM
            || platform
                .strip_prefix(SYSTEM)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|machine| MACHINES.contains(&machine))
    };
    // What is no platform at all is told as an error.
    let is_unknown = |platform: &str| read::is_platform(platform) && !is_known(platform);
    for platform in document.platforms.iter().filter(|platform| is_unknown(platform.get_ref())) {
        let shown: String = platform.get_ref().chars().take(80).collect();
        let fault = fault(platform, Rule::PlatformUnknown, format!("no client is for {shown:?}"));
        let machines = MACHINES.join(", ");
        faults.push(
            fault
                .wanted(format!("`{SYSTEM}`, or `{SYSTEM}-` with one of {machines}"))
                .fix("mend it, or leave `platforms` out"),
        );
    }
}

/// What is declared and not used, or not told to people.
fn uses(document: &Document, faults: &mut Faults) {
    let mut used: Vec<&str> = Vec::new();
    for step in document.step.iter().map(Spanned::get_ref) {
        used.extend(step.query.iter().flat_map(|query| sql::parameters(query.get_ref())));
        used.extend(step.query_parameter.iter().map(|name| name.get_ref().as_str()));
    }
    let scripts = || document.step.iter().filter_map(|step| step.get_ref().script.as_ref());
    // Every argument is on the standard input of every script; of resources, it has those that it names.
    let reads_all = scripts().next().is_some();
    let actions =
        || document.step.iter().filter_map(|step| step.get_ref().action.as_ref()).map(Spanned::get_ref);
    for action in actions() {
        used.extend(
            [&action.unit, &action.path]
                .into_iter()
                .flatten()
                .map(|value| value.get_ref().as_str())
                .filter(|value| value.starts_with(':')),
        );
    }
    let is_used = |name: &str| used.iter().any(|used| used.strip_prefix(':').unwrap_or(used) == name);
    let is_given = |name: &String| {
        let is_it = |given: &Spanned<String>| given.get_ref() == name;
        let is_put = actions().any(|action| action.resource.as_ref().is_some_and(is_it));
        is_put
            || scripts().map(Spanned::get_ref).any(|script| {
                script.arguments.iter().any(is_it) || script.resource.as_ref().is_some_and(is_it)
            })
    };
    let said: Vec<&str> = read::said(document.says.get_ref()).collect();
    for parameter in document.parameter.iter().map(|parameter| &parameter.get_ref().name) {
        let name = parameter.get_ref();
        if !is_used(name) && !reads_all {
            let fault = fault(parameter, Rule::ParameterUnused, format!("no step uses `{name}`"));
            faults.push(fault.wanted(format!("`:{name}` in a query")).fix("use it or remove the parameter"));
        }
        if !said.contains(&name.as_str()) {
            let found = format!("`says` leaves `{name}` out");
            let fault = fault(&document.says, Rule::SaysOmitsParameter, found);
            faults.push(fault.wanted(format!("`%{name}%`")).fix("tell people what they sign"));
        }
    }
    for resource in document.resource.iter().map(|resource| &resource.get_ref().name) {
        let name = resource.get_ref();
        if !is_used(&format!("resource_{name}")) && !is_given(name) {
            let fault = fault(resource, Rule::ResourceUnused, format!("no step uses `{name}`"));
            faults.push(fault.wanted(format!("`:resource_{name}` in a query")).fix("use it or remove it"));
        }
    }
}

/// What a text parameter may be.
fn texts(parameter: &document::Parameter, document: &Document, faults: &mut Faults) {
    if parameter.kind.get_ref() != "string" {
        return;
    }
    let name = &parameter.name;
    if parameter.max_length.is_none() {
        let fault = fault(name, Rule::StringWithoutMaxLength, "a text of any length up to 64 KiB");
        faults.push(fault.wanted("the bytes that it needs").fix("add `max_length = …`"));
    }
    let Some(place) = &parameter.pattern else {
        if !is_a_query(name.get_ref(), document) {
            let fault = fault(name, Rule::StringWithoutPattern, "a text of any characters");
            faults.push(fault.wanted("what may stand there and no more").fix("add `pattern = '…'`"));
        }
        return;
    };
    let Ok(pattern) = Pattern::new(place.get_ref()) else { return };
    if PROBES.iter().all(|probe| pattern.is_match(probe)) {
        let fault = fault(place, Rule::PatternMatchesAnything, "a pattern that refuses nothing");
        faults.push(
            fault.wanted("what may stand there and no more").fix("name the characters, as in '[a-z0-9.-]+'"),
        );
    }
    let (begins, ends) = (pattern.as_str().starts_with('^'), pattern.as_str().ends_with('$'));
    if begins != ends {
        let (has, lacks) = if begins { ('^', '$') } else { ('$', '^') };
        let found = format!("a `{has}` without its `{lacks}`");
        let fault = fault(place, Rule::PatternHalfAnchored, found);
        faults.push(
            fault
                .wanted("both or none: the whole text must match in any case")
                .fix("write what follows, too"),
        );
    }
}

/// A step that is its parameter: the text is a query, which no pattern describes.
fn is_a_query(parameter: &str, document: &Document) -> bool {
    document
        .step
        .iter()
        .filter_map(|step| step.get_ref().query_parameter.as_ref())
        .any(|name| name.get_ref() == parameter)
}

/// The table of an aggregate has the declared columns, and one that says whose row it is.
fn aggregate_names(query: &Spanned<String>, declared: &[Spanned<document::Column>], faults: &mut Faults) {
    let tokens = sql::tokens(query.get_ref());
    if declared.is_empty() || sql::not_one_select(&tokens).is_some() {
        return;
    }
    let columns: Vec<&str> = declared.iter().map(|column| column.get_ref().name.get_ref().as_str()).collect();
    let is_free = |own: &&str| columns.iter().all(|column| !column.eq_ignore_ascii_case(own));
    let own = ["device", "device_id"].into_iter().find(is_free);
    let known: Vec<&str> = columns.iter().copied().chain(own).collect();
    for found in sql::unknown_names(&tokens, &known) {
        let said =
            format!("the aggregate uses `{found}`, which is neither a column of the results nor `results`");
        let fault = fault(query, Rule::AggregateUnknownName, said).at(found);
        faults.push(fault.wanted(format!("one of {}", known.join(", "))).fix("declare it, or take another"));
    }
}

/// A Switch calls those of its list. It may be a later one than this tool, so that what is not known here is no error.
fn aggregate_functions(query: &Spanned<String>, faults: &mut Faults) {
    let tokens = sql::tokens(query.get_ref());
    if sql::not_one_select(&tokens).is_some() {
        return;
    }
    for found in sql::unknown_functions(&tokens, AGGREGATE_FUNCTIONS) {
        let said = format!("the aggregate calls `{found}`, which no Switch calls there");
        let fault = fault(query, Rule::AggregateUnknownFunction, said).at(found);
        faults.push(
            fault.wanted("a function that only computes").fix("take another, or do it in the step's query"),
        );
    }
}

fn wildcards(query: &Spanned<String>, document: &Document, faults: &mut Faults) {
    for used in sql::wildcard_parameters(&sql::tokens(query.get_ref())) {
        let is_used = |parameter: &&document::Parameter| {
            Some(parameter.name.get_ref().as_str()) == used.strip_prefix(':')
        };
        let mut parameters = document.parameter.iter().map(Spanned::get_ref);
        let Some(parameter) = parameters.find(is_used) else { continue };
        if parameter.kind.get_ref() == "string" && parameter.pattern.is_none() {
            let found = format!("`{used}` is part of a pattern and may be any pattern itself, such as *");
            let fault = fault(query, Rule::WildcardUnbounded, found).at(used);
            faults.push(
                fault
                    .wanted("a parameter with a pattern")
                    .fix("add one without * ? [ % _, or with those that people may use"),
            );
        }
    }
}

fn columns(query: &Spanned<String>, declared: &[Spanned<document::Column>], faults: &mut Faults) {
    let tokens = sql::tokens(query.get_ref());
    // What is no query gives none; that is told already.
    if sql::not_one_select(&tokens).is_some() {
        return;
    }
    let Some(given) = sql::columns(&tokens) else { return };
    if given.contains(&Column::Star) {
        let fault = fault(query, Rule::SelectStar, "`*` gives what a client's version knows of").at("*");
        faults.push(fault.wanted("the columns by name").fix("list those of [[result]]"));
        return;
    }
    for column in &given {
        if let Column::Unnamed(words) = column {
            let found =
                format!("the column `{}` has no name of its own", words.chars().take(60).collect::<String>());
            faults.push(fault(query, Rule::ColumnUnnamed, found).wanted("a name").fix("write `… AS name`"));
        }
    }
    // An author who is told of a column without a name has that to mend first.
    let name = |column: &Column| match column {
        Column::Named(name) => name.clone(),
        Column::Unnamed(_) | Column::Star => "?".to_owned(),
    };
    let differs = |(given, declared): (&Column, &Spanned<document::Column>)| match given {
        Column::Named(name) => !name.eq_ignore_ascii_case(declared.get_ref().name.get_ref()),
        Column::Unnamed(_) | Column::Star => false,
    };
    let first = given.iter().zip(declared).position(differs);
    if declared.is_empty() || first.is_none() && given.len() == declared.len() {
        return;
    }
    let names: Vec<String> = given.iter().map(name).collect();
    let found = format!("the query gives {}", names.join(", "));
    let wanted =
        declared.iter().map(|column| column.get_ref().name.get_ref().as_str()).collect::<Vec<_>>().join(", ");
    let at = first.unwrap_or(given.len().min(declared.len()));
    let place = declared.get(at).map_or(query, |column| &column.get_ref().name);
    let fault = fault(place, Rule::ResultDiffers, found);
    faults.push(
        fault.wanted(format!("{wanted}, as declared")).fix("give both the same names in the same order"),
    );
}

fn limits(document: &Document, faults: &mut Faults) {
    let given = document.limits.as_ref().map(Spanned::get_ref);
    let missing: Vec<&str> = [
        ("run_time", given.is_some_and(|limits| limits.run_time.is_some())),
        ("rows", given.is_some_and(|limits| limits.rows.is_some())),
        ("bytes", given.is_some_and(|limits| limits.bytes.is_some())),
    ]
    .into_iter()
    .filter(|(_, is_given)| !is_given)
    .map(|(name, _)| name)
    .collect();
    if missing.is_empty() {
        return;
    }
    let place = document.limits.as_ref().map_or(document.name.span(), Spanned::span);
    let found = format!("no limits.{}", missing.join(", limits."));
    let fault = Fault::new(place, Rule::LimitsMissing, found).wanted("what one run may take");
    faults.push(
        fault.fix("add [limits] with run_time, rows and bytes; without them 10s, 1000 and 256 KiB hold"),
    );
}

fn fault<T>(place: &Spanned<T>, rule: Rule, found: impl Into<String>) -> Fault {
    Fault::new(place.span(), rule, found)
}
