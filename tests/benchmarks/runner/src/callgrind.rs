//! Reads callgrind's output: the costs of functions, and of the calls from one library into
//! another.
//!
//! valgrind's manual describes the format ("Callgrind Format Specification"). This reads what
//! callgrind writes with one event and with compressed names and positions.

use std::collections::HashMap;

/// Costs of one thread, in instructions.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// What each function costs itself, by its library and its name.
    functions: HashMap<(String, String), u64>,
    /// What calls from one library into another cost in all, by caller's and callee's library.
    crossings: HashMap<(String, String), u64>,
}

/// Names that were written once and are numbers afterwards.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    /// The name that `(7) name` gives or `(7)` stands for.
    fn resolve(&mut self, text: &str) -> String {
        let Some((number, name)) = text.strip_prefix('(').and_then(|rest| rest.split_once(')'))
        else {
            return text.to_owned();
        };
        match name.trim() {
            "" => self.0.get(number).cloned().unwrap_or_default(),
            name => {
                self.0.insert(number.to_owned(), name.to_owned());
                name.to_owned()
            }
        }
    }
}

impl Profile {
    /// Reads one file of callgrind.
    pub(crate) fn parse(text: &str) -> Self {
        let mut profile = Self::default();
        let (mut libraries, mut names) = (Names::default(), Names::default());
        let (mut library, mut function) = (String::new(), String::new());
        let mut called = None;
        let mut is_call = false;
        for line in text.lines() {
            if let Some((key, value)) = line.split_once('=') {
                match key {
                    "ob" => library = libraries.resolve(value),
                    "fn" => function = names.resolve(value),
                    "cob" => called = Some(libraries.resolve(value)),
                    "cfn" => drop(names.resolve(value)),
                    "calls" => is_call = true,
                    _ => {}
                }
                continue;
            }
            let Some(cost) = cost(line) else { continue };
            if is_call {
                is_call = false;
                // A call that names no library stays in the caller's.
                let called = called.take().unwrap_or_else(|| library.clone());
                if called != library {
                    *profile
                        .crossings
                        .entry((library.clone(), called))
                        .or_default() += cost;
                }
            } else {
                let key = (library.clone(), function.clone());
                *profile.functions.entry(key).or_default() += cost;
            }
        }
        profile
    }

    /// Adds another thread.
    pub(crate) fn add(&mut self, other: Self) {
        for (key, cost) in other.functions {
            *self.functions.entry(key).or_default() += cost;
        }
        for (key, cost) in other.crossings {
            *self.crossings.entry(key).or_default() += cost;
        }
    }

    /// All instructions but those of the library whose name holds `other`, with what it calls.
    pub(crate) fn without(&self, other: &str) -> u64 {
        let inside: u64 = self
            .crossings
            .iter()
            .filter(|((from, to), _)| !from.contains(other) && to.contains(other))
            .map(|(_, cost)| cost)
            .sum();
        self.all() - inside
    }

    /// All instructions.
    pub(crate) fn all(&self) -> u64 {
        self.functions.values().sum()
    }

    /// The self cost of functions, by name, without those of the library whose name holds `other`.
    pub(crate) fn functions(&self, other: &str) -> HashMap<&str, u64> {
        let mut found = HashMap::new();
        for ((library, function), cost) in &self.functions {
            if !library.contains(other) {
                *found.entry(function.as_str()).or_default() += cost;
            }
        }
        found
    }
}

/// The cost in a line of a position and a cost.
fn cost(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    let position = words.next()?;
    if !position.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
        return None;
    }
    // A position without a cost is one that cost nothing.
    words.next().map_or(Some(0), |cost| cost.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
version: 1
positions: line
events: Ir
summary: 60

ob=(1) /a/program
fl=(1) main.rs
fn=(1) run
10 5
+2 7
cob=(2) /a/libdriver.so
cfi=(2) driver.rs
cfn=(2) draw
calls=3 4
* 30
cfn=(3) decode
calls=1 +9
+1 18
fn=(3)
20 18

ob=(2)
fn=(2)
4 10
cob=(3) /lib/libc.so
cfn=(4) malloc
calls=1 0
4 20

ob=(3)
fn=(4)
1 20
";

    #[test]
    fn what_another_library_costs_is_left_out_with_what_it_calls() {
        let profile = Profile::parse(TEXT);
        assert_eq!(profile.all(), 60);
        assert_eq!(profile.without("libdriver"), 30);
        let functions = profile.functions("libdriver");
        assert_eq!(functions.get("run"), Some(&12));
        assert_eq!(functions.get("decode"), Some(&18));
        assert_eq!(functions.get("draw"), None);
    }
}
