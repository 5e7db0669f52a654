//! Reads callgrind's output: the costs of functions, and of calls from one library into another.
//!
//! valgrind's manual describes the format ("Callgrind Format Specification"). This parser reads
//! what callgrind writes with one event and with compressed names and positions.

use std::collections::HashMap;

/// The costs of one thread, in instructions.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// The self cost of each function, by library and name.
    functions: HashMap<(String, String), u64>,
    /// The inclusive cost of calls from one library into another, by the caller's and the callee's
    /// library.
    crossings: HashMap<(String, String), u64>,
}

/// The names of a file. callgrind writes a name once, and its number afterwards.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    /// Returns the name of `(7) name` and remembers it, or the remembered name of `(7)`.
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
    /// Parses one of callgrind's output files.
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
                // A call that names no library stays in the caller's library.
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

    /// Adds the costs of another thread.
    pub(crate) fn add(&mut self, other: Self) {
        for (key, cost) in other.functions {
            *self.functions.entry(key).or_default() += cost;
        }
        for (key, cost) in other.crossings {
            *self.crossings.entry(key).or_default() += cost;
        }
    }

    /// All instructions, without those of the library whose name contains `other` and of what that
    /// library calls.
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

    /// The self cost of functions by name, without functions of the library whose name contains
    /// `other`.
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

/// Parses the cost from a line of a position and a cost.
fn cost(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    let position = words.next()?;
    if !position.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
        return None;
    }
    // A position without a cost cost nothing.
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
