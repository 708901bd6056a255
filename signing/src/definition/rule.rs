//! [`Rule`]: what can be wrong with an authored text, each under a name that stays.

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The text is no definition; nobody can sign or run it.
    Error,
    /// It can be signed, and will hardly do what its author means, or allows more than it needs.
    Warning,
}

impl Severity {
    /// Returns the name for people and programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Declares the rules once: variant, stable name, severity.
macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $severity:ident;)*) => {
        /// What a finding is about. signing/definitions/README.md has an example of each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Rule {
            $($(#[$doc])* $variant,)*
        }

        impl Rule {
            /// All of them, errors first.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns its name, which stays the same from version to version.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Returns how much it matters.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }
        }
    };
}

rules! {
    /// More text than an envelope holds.
    TextTooLong = "text-too-long", Error;
    /// A character that makes the text read otherwise than it is stored.
    HiddenOrder = "hidden-order", Error;
    /// No TOML.
    Syntax = "syntax", Error;
    /// A key that means nothing here.
    UnknownKey = "unknown-key", Error;
    /// A key that must be there and is not.
    MissingKey = "missing-key", Error;
    /// A value of another TOML type than its key takes.
    WrongType = "wrong-type", Error;
    /// None of the words that may stand there.
    UnknownValue = "unknown-value", Error;
    /// No definition's name (G3).
    NameInvalid = "name-invalid", Error;
    /// No semantic version, or one without an order.
    VersionInvalid = "version-invalid", Error;
    /// A text of blanks only.
    EmptyText = "empty-text", Error;
    /// `says` does not fit a screen.
    SaysTooLong = "says-too-long", Error;
    /// `says` names a parameter that there is not.
    SaysUnknownParameter = "says-unknown-parameter", Error;
    /// A name that SQL cannot use.
    ItemNameInvalid = "item-name-invalid", Error;
    /// A name given twice.
    ItemNameRepeated = "item-name-repeated", Error;
    /// A parameter's name that belongs to resources.
    ParameterNameReserved = "parameter-name-reserved", Error;
    /// More parameters, columns, resources than the wire carries.
    TooManyItems = "too-many-items", Error;
    /// A bound that its type does not have.
    BoundMisplaced = "bound-misplaced", Error;
    /// A bound of another type than its parameter.
    BoundType = "bound-type", Error;
    /// A maximum below its minimum.
    RangeEmpty = "range-empty", Error;
    /// No regular expression.
    PatternInvalid = "pattern-invalid", Error;
    /// A `max_length` that no value can have.
    MaxLengthOutOfRange = "max-length-out-of-range", Error;
    /// An enum without values, or with some that cannot be.
    ValuesInvalid = "values-invalid", Error;
    /// A default that its own parameter refuses.
    DefaultUnfit = "default-unfit", Error;
    /// Nothing to run.
    StepMissing = "step-missing", Error;
    /// More steps than this version runs.
    StepSurplus = "step-surplus", Error;
    /// An action whose verb this version does not know.
    StepUnsupported = "step-unsupported", Error;
    /// A step or a script that is several things, or none.
    StepAmbiguous = "step-ambiguous", Error;
    /// A step that is its parameter, outside the platform's own definitions.
    QueryParameterReserved = "query-parameter-reserved", Error;
    /// A step that is a parameter that there is not, or is no text.
    QueryParameterUnknown = "query-parameter-unknown", Error;
    /// SQL that no device runs: no one SELECT.
    QueryNotOneSelect = "query-not-one-select", Error;
    /// A name in the query that nothing binds.
    QueryUnboundName = "query-unbound-name", Error;
    /// An interpreter that is no absolute path.
    InterpreterInvalid = "interpreter-invalid", Error;
    /// A step that uses a parameter or resource that there is not.
    StepUnknownName = "step-unknown-name", Error;
    /// A value that an action does not take.
    ActionValueInvalid = "action-value-invalid", Error;
    /// An action in a question.
    ActionInQuestion = "action-in-question", Error;
    /// An action where nothing may be changed.
    ActionStrict = "action-strict", Error;
    /// Columns that are not those of an action's rows.
    ActionResult = "action-result", Error;
    /// A script that is more than a client holds in memory.
    ScriptTooLarge = "script-too-large", Error;
    /// No column declared.
    ResultMissing = "result-missing", Error;
    /// Columns declared of a query that is not known yet.
    ResultSurplus = "result-surplus", Error;
    /// No digest in hex.
    DigestInvalid = "digest-invalid", Error;
    /// No platform.
    PlatformInvalid = "platform-invalid", Error;
    /// No duration.
    DurationInvalid = "duration-invalid", Error;
    /// No size in bytes.
    SizeInvalid = "size-invalid", Error;
    /// A limit beyond what clients grant.
    LimitOutOfRange = "limit-out-of-range", Error;
    /// A longest gathering time beyond the longest window of an order.
    GatherBeyondOrder = "gather-beyond-order", Error;
    /// A default outside its bounds.
    TimeToLiveOrder = "time-to-live-order", Error;
    /// More approvals than an order may have.
    ApprovalsOutOfRange = "approvals-out-of-range", Error;
    /// A parameter that no step uses.
    ParameterUnused = "parameter-unused", Warning;
    /// A resource that no step uses.
    ResourceUnused = "resource-unused", Warning;
    /// A parameter that `says` does not tell people of.
    SaysOmitsParameter = "says-omits-parameter", Warning;
    /// A text parameter that may be anything.
    StringWithoutPattern = "string-without-pattern", Warning;
    /// A text parameter that may be as long as the wire carries.
    StringWithoutMaxLength = "string-without-max-length", Warning;
    /// A pattern that refuses nothing.
    PatternMatchesAnything = "pattern-matches-anything", Warning;
    /// A pattern with one anchor of two.
    PatternHalfAnchored = "pattern-half-anchored", Warning;
    /// LIKE or GLOB with a parameter that may be any pattern.
    WildcardUnbounded = "wildcard-unbounded", Warning;
    /// Limits left to their defaults.
    LimitsMissing = "limits-missing", Warning;
    /// An action that one signature is enough for.
    ActionWithoutApprovals = "action-without-approvals", Warning;
    /// The query's columns are others than the declared ones.
    ResultDiffers = "result-differs", Warning;
    /// A column of the query whose name SQLite makes up.
    ColumnUnnamed = "column-unnamed", Warning;
    /// `SELECT *`.
    SelectStar = "select-star", Warning;
    /// A text column without a bound.
    ColumnWithoutMaxLength = "column-without-max-length", Warning;
    /// A `max_length` of a column that its values hardly need, or never reach.
    ColumnMaxLength = "column-max-length", Warning;
    /// A platform that no client is for.
    PlatformUnknown = "platform-unknown", Warning;
    /// A name in the aggregate, where nothing is bound.
    AggregateUnboundName = "aggregate-unbound-name", Warning;
    /// A name in the aggregate that is no column of the results.
    AggregateUnknownName = "aggregate-unknown-name", Warning;
    /// A function in the aggregate that no Switch calls.
    AggregateUnknownFunction = "aggregate-unknown-function", Warning;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own_in_kebab_case() {
        let names: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();

        assert_eq!(names.len(), Rule::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        assert!(Rule::ALL.is_sorted_by_key(|rule| rule.severity()));
    }
}
