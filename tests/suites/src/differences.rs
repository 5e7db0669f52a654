//! Finds the differences between two runs, and says which are expected.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// The result of each case, such as `pass`, `fail`, `skip` or `crash`.
pub type Results = BTreeMap<String, String>;

/// The result of a case that did not run.
pub const ABSENT: &str = "absent";

/// A case with another result over Hesper than natively.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The case's name.
    pub case: String,
    /// Its result natively.
    pub native: String,
    /// Its result over Hesper.
    pub hesper: String,
}

impl Display for Difference {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {} | {}", self.case, self.native, self.hesper)
    }
}

/// The cases whose results differ, including those that ran only one way.
#[must_use]
pub fn differences(native: &Results, hesper: &Results) -> Vec<Difference> {
    let mut cases: Vec<&String> = native.keys().chain(hesper.keys()).collect();
    cases.sort();
    cases.dedup();
    let result = |of: &Results, case: &String| of.get(case).map_or(ABSENT, |r| r).to_owned();
    let all = cases.into_iter().map(|case| Difference {
        case: case.clone(),
        native: result(native, case),
        hesper: result(hesper, case),
    });
    all.filter(|one| one.native != one.hesper).collect()
}

/// The distinct results that each case had in several runs.
pub type Seen = BTreeMap<String, Vec<String>>;

/// Adds a run's results to the cases that are already in `seen`.
pub fn see(seen: &mut Seen, results: &Results) {
    for (case, results_of_case) in seen {
        let result = results.get(case).map_or(ABSENT, |result| result);
        if !results_of_case.iter().any(|other| other == result) {
            results_of_case.push(result.to_owned());
        }
    }
}

/// Splits differences that were run again into those that stay and those of flaky cases. A
/// difference stays if no result was ever seen both natively and over Hesper.
#[must_use]
pub fn settle(
    found: Vec<Difference>,
    native: &Seen,
    hesper: &Seen,
) -> (Vec<Difference>, Vec<Difference>) {
    found.into_iter().partition(|one| {
        let mine = hesper.get(&one.case).map_or(&[][..], Vec::as_slice);
        let theirs = native.get(&one.case).map_or(&[][..], Vec::as_slice);
        !mine.iter().any(|result| theirs.contains(result))
    })
}

/// Known differences, each with its reason: lines `CASE | NATIVE | HESPER | REASON`. `#` begins a
/// comment.
///
/// A case that ends in `*` stands for all cases with that prefix. At least one of those that have
/// this result natively must differ.
pub struct Expected(Vec<(Difference, String)>);

impl Expected {
    /// Reads such a list.
    ///
    /// # Panics
    /// If a line has another form.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim);
        let entries = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entries = entries.map(|line| {
            let mut fields = line.rsplitn(4, " | ").map(|field| field.trim().to_owned());
            let mut next = || {
                let field = fields.next().filter(|field| !field.is_empty());
                field.unwrap_or_else(|| panic!("CASE | NATIVE | HESPER | REASON, not: {line}"))
            };
            let (reason, hesper, native, case) = (next(), next(), next(), next());
            let difference = Difference {
                case,
                native,
                hesper,
            };
            (difference, reason)
        });
        Self(entries.collect())
    }

    /// The cases that the list names.
    pub fn cases(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(entry, _)| entry.case.as_str())
    }

    fn covers(entry: &Difference, found: &Difference) -> bool {
        let is_named = match entry.case.strip_suffix('*') {
            Some(begin) => found.case.starts_with(begin),
            None => found.case == entry.case,
        };
        is_named && entry.native == found.native && entry.hesper == found.hesper
    }

    /// What is wrong: unexpected differences, and expected ones of cases that ran and no longer
    /// differ. `native` has the results of all cases that ran.
    #[must_use]
    pub fn judge(
        &self,
        found: &[Difference],
        flaky: &[Difference],
        native: &Results,
    ) -> Vec<String> {
        let unexpected = found.iter().filter(|one| self.reason(one).is_none());
        let mut wrong: Vec<String> = unexpected.map(|one| format!("differs: {one}")).collect();
        for (entry, reason) in &self.0 {
            let did_run = |(name, result): (&String, &String)| match entry.case.strip_suffix('*') {
                Some(begin) => name.starts_with(begin) && *result == entry.native,
                None => *name == entry.case,
            };
            let mut both = found.iter().chain(flaky);
            if native.iter().any(did_run) && !both.any(|one| Self::covers(entry, one)) {
                wrong.push(format!("differs no more: {entry} | {reason}"));
            }
        }
        wrong
    }

    /// Why a difference is expected; `None` if it is not.
    #[must_use]
    pub fn reason(&self, found: &Difference) -> Option<&str> {
        let mut entries = self.0.iter();
        let entry = entries.find(|(entry, _)| Self::covers(entry, found));
        entry.map(|(_, reason)| reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(all: &[(&str, &str)]) -> Results {
        let owned = |(case, result): &(&str, &str)| ((*case).to_owned(), (*result).to_owned());
        all.iter().map(owned).collect()
    }

    fn difference(case: &str, native: &str, hesper: &str) -> Difference {
        Difference {
            case: case.to_owned(),
            native: native.to_owned(),
            hesper: hesper.to_owned(),
        }
    }

    #[test]
    fn other_results_and_absent_cases_differ() {
        let native = results(&[("a", "pass"), ("b", "pass"), ("c", "skip")]);
        let hesper = results(&[("a", "pass"), ("b", "fail"), ("d", "pass")]);
        assert_eq!(
            differences(&native, &hesper),
            [
                difference("b", "pass", "fail"),
                difference("c", "skip", ABSENT),
                difference("d", ABSENT, "pass"),
            ]
        );
    }

    #[test]
    fn a_difference_stays_only_if_no_result_was_seen_both_ways() {
        let found = vec![
            difference("a", "pass", "fail"),
            difference("b", "pass", "fail"),
        ];
        let begin = |result: &str| -> Seen {
            let both = ["a", "b"].map(|case| (case.to_owned(), vec![result.to_owned()]));
            both.into_iter().collect()
        };
        let (mut native, mut hesper) = (begin("pass"), begin("fail"));
        see(&mut native, &results(&[("a", "pass"), ("b", "fail")]));
        see(&mut hesper, &results(&[("a", "crash"), ("b", "fail")]));
        let (stays, flaky) = settle(found, &native, &hesper);
        assert_eq!(stays, [difference("a", "pass", "fail")]);
        assert_eq!(flaky, [difference("b", "pass", "fail")]);
    }

    #[test]
    fn a_list_of_expected_differences_must_be_right_both_ways() {
        let list = "# why\na | pass | fail | known\nb@* | pass | skip | no such thing\n";
        let expected = Expected::parse(list);
        let ran = results(&[("a", "pass"), ("b@1", "pass"), ("b@2", "pass")]);
        let known = [
            difference("a", "pass", "fail"),
            difference("b@2", "pass", "skip"),
        ];
        assert!(expected.judge(&known, &[], &ran).is_empty());
        assert!(expected.judge(&known[..1], &known[1..], &ran).is_empty());
        assert_eq!(expected.reason(&known[1]), Some("no such thing"));
        let others = [
            difference("b@2", "pass", "skip"),
            difference("c", "pass", "fail"),
        ];
        assert_eq!(
            expected.judge(&others, &[], &ran),
            [
                "differs: c | pass | fail",
                "differs no more: a | pass | fail | known"
            ]
        );
        // A case that did not run is not missed.
        assert!(expected.judge(&[], &[], &Results::new()).is_empty());
    }

    #[test]
    fn a_name_may_hold_bars() {
        let expected = Expected::parse("a | b(x|y) | pass | fail | known");
        let found = difference("a | b(x|y)", "pass", "fail");
        assert_eq!(expected.reason(&found), Some("known"));
    }
}
